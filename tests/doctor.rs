//! `pipeban doctor` on a right host, and on the same host broken in each way: the right link is
//! named, and the printed command, typed in, repairs it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

#[cfg(feature = "measure")]
use crate::support::median;
use crate::support::world::CONFIG;
use crate::support::{PATIENCE, World, eventually, skip_without};

const SHOP: &str = r"<VirtualHost *:80>
    ServerName shop.example.org
    DocumentRoot /var/www/html
    ErrorLog ${APACHE_LOG_DIR}/shop_error.log
    CustomLog ${APACHE_LOG_DIR}/shop_access.log combined
</VirtualHost>
";

/// A site that writes its own log through pipeban, without a reload of Apache.
const NEW_SITE: &str = r#"<VirtualHost *:80>
    ServerName new.example.org
    ErrorLog "|/usr/bin/pipeban log error /var/log/apache2/new_error.log"
</VirtualHost>
"#;

/// Sites with a wrong argument each.
const WRONG: &str = r#"
<VirtualHost *:81>
    ErrorLog "|/usr/bin/pipeban log error --fromat default /var/log/apache2/w1.log"
</VirtualHost>
<VirtualHost *:82>
    ErrorLog "|/usr/bin/pipeban log error /var/log/apache2/w2.log /var/log/apache2/b"
</VirtualHost>
<VirtualHost *:83>
    ErrorLog "|/usr/bin/pipeban log error /var/log/apache2/w3.log 86400"
</VirtualHost>
<VirtualHost *:84>
    ErrorLog "|/usr/bin/pipeban log access /var/log/apache2/w4.log"
</VirtualHost>
<VirtualHost *:85>
    ErrorLog "|/opt/pipeban log error /var/log/apache2/w5.log"
</VirtualHost>
<VirtualHost *:86>
    ErrorLog "|/usr/bin/pipeban log error --owner=root:adm --mod=0644 /var/log/apache2/w6.log"
</VirtualHost>
<VirtualHost *:87>
    ErrorLog "|$/usr/bin/pipeban log error /var/log/apache2/w7.log"
</VirtualHost>
"#;

/// What is typed to break the host; then each link that must name it, and words of what it says.
/// The printed commands are then typed in, each once.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const BROKEN: &[Case] = &[
    // pipeban's configuration
    (
        "printf '[defaults]\nmaxretry = 7\n' >/etc/pipeban/conf.d/a.toml",
        &[("configuration", "older configuration")],
    ),
    (
        "chmod 666 /etc/pipeban/pipeban.toml; chown www-data /etc/pipeban/conf.d",
        &[
            ("owners", "pipeban.toml: every user can change it"),
            ("owners", "conf.d belongs to www-data"),
        ],
    ),
    // Apache's
    ("apache2ctl stop; sleep 1", &[("apache", "not running")]),
    (
        "a2disconf -q pipeban; \
         sed -i 's,ErrorLog .*,ErrorLog /var/log/apache2/shop_error.log,' SHOP",
        &[
            ("sites", "access lines of the main server"),
            ("sites", "error lines of shop.example.org"),
        ],
    ),
    (
        "cp WRONG /etc/apache2/sites-enabled/wrong.conf; \
         sed -i 's/--format pipeban/--format combined/' /etc/apache2/conf-available/pipeban.conf",
        &[
            (
                "arguments",
                "wrong.conf:3: ErrorLog: `--fromat` is not an option: write `--format`",
            ),
            (
                "arguments",
                "wrong.conf:6: ErrorLog: `/var/log/apache2/b` is one path too many",
            ),
            ("arguments", "wrong.conf:9: ErrorLog: rotatelogs"),
            (
                "arguments",
                "wrong.conf:12: ErrorLog gets the wrong command",
            ),
            (
                "arguments",
                "wrong.conf:15: ErrorLog starts /opt/pipeban, which does not exist",
            ),
            (
                "arguments",
                "wrong.conf:18: ErrorLog: `--mod` is not an option: write `--mode`",
            ),
            (
                "shell",
                "wrong.conf:21: ErrorLog starts its program through a shell",
            ),
            ("formats", "no line of this GlobalLog matches"),
        ],
    ),
    (
        "rm /etc/apache2/sites-enabled/wrong.conf; \
         sed -i '/CustomLog/c CustomLog \"|/usr/bin/pipeban log access /var/log/apache2/s\" combined' SHOP; \
         sed -i 's/^HostnameLookups.*/HostnameLookups On/' /etc/apache2/apache2.conf; \
         echo BufferedLogs On >>/etc/apache2/apache2.conf; \
         a2enmod -q remoteip; sed -i '1i RemoteIPHeader X-Forwarded-For' SHOP",
        &[
            ("host-names", "write %a instead"),
            ("sites", "reach two pipes"),
            ("buffered-logs", "delays access lines"),
            ("remoteip", "any client can pretend"),
        ],
    ),
    (
        "a2dismod -q remoteip; printf '[proxies]\ntrusted = [\"203.0.113.2\"]\n' >/etc/pipeban/conf.d/p.toml; \
         pipeban reload",
        &[("remoteip", "has no RemoteIPHeader")],
    ),
    // Left by the one before.
    (
        "true",
        &[("remoteip", "cannot stop clients behind a proxy")],
    ),
    // The engine and the workers
    (
        "kill -STOP $(cat /var/lib/pipeban/engine.lock); nft delete table inet pipeban",
        &[("engine", "does not answer"), ("table", "is missing")],
    ),
    (
        "chown www-data /run/pipeban/engine.sock; pipeban off; \
         touch /var/lib/pipeban/pipeban.sqlite3.broken-1",
        &[
            ("off", "emergency stop is on"),
            ("socket", "belongs to uid"),
            ("database", "set aside"),
        ],
    ),
    (
        "cp NEW /etc/apache2/sites-enabled/new.conf; \
         cp /usr/bin/pipeban /usr/bin/pipeban.new; mv /usr/bin/pipeban.new /usr/bin/pipeban",
        &[
            ("workers", "no worker reads"),
            ("versions", "the engine runs"),
            ("versions", "workers of a program that was replaced"),
        ],
    ),
    // The firewall
    (
        "ufw disable; sed -i s/IPV6=yes/IPV6=no/ /etc/default/ufw",
        &[("ufw", "not active"), ("ufw-ipv6", "IPV6=no")],
    ),
    ("nft flush ruleset", &[("ufw", "not loaded")]),
    (
        "printf '[firewall]\nbackend = \"ufw\"\ninstant = false\n' >/etc/pipeban/conf.d/z.toml; \
         pipeban engine --stop; sleep 1; setsid --fork pipeban engine </dev/null >/dev/null 2>&1; \
         until pipeban ban 198.51.100.9; do sleep 0.1; done; \
         until ufw status | grep -q 198.51.100.9; do sleep 0.1; done; \
         ufw insert 1 allow from 198.51.100.0/24",
        &[("rule-order", "banned clients get in")],
    ),
    (
        "kill $(cat /run/rsyslogd.pid); rm -f /dev/log /run/rsyslogd.pid",
        &[("syslog", "no daemon listens")],
    ),
];

/// One object for each finding.
fn doctor(world: &World) -> Vec<Value> {
    let said = world.pipeban(&["doctor", "--json"]);
    let objects = said.stdout.lines().map(serde_json::from_str);
    let objects: Result<Vec<Value>, _> = objects.collect();
    let objects = objects.unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let broken = objects.iter().any(|link| link["verdict"] == "broken");
    assert_eq!(said.status, i32::from(broken), "{said:?}");
    objects
}

fn not_ok(links: &[Value]) -> Vec<&Value> {
    links
        .iter()
        .filter(|link| link["verdict"] != "ok")
        .collect()
}

/// Debian's Apache with a second site, set up by `pipeban setup`, and its engine.
fn host() -> Option<World> {
    let world = World::new()?;
    if !Path::new("/etc/apache2/apache2.conf").exists() || !Path::new("/usr/sbin/a2enconf").exists()
    {
        skip_without("apache2");
        return None;
    }
    // A file that can be replaced.
    world.must(&["umount", "/usr/bin/pipeban"]);
    world.must(&["cp", "/mnt/pipeban", "/usr/bin/pipeban"]);
    world.must(&["chmod", "755", "/usr/bin/pipeban"]);
    world.must(&["mkdir", "-p", "/etc/pipeban/conf.d"]);
    let config = format!("[firewall]\nbackend = \"ufw\"\n{CONFIG}");
    world.write("/etc/pipeban/pipeban.toml", &config);
    let snippets = concat!(env!("CARGO_MANIFEST_DIR"), "/apache-conf");
    world.must(&[
        "cp",
        "-r",
        &format!("{snippets}/."),
        "/etc/apache2/conf-available",
    ]);
    world.write("/etc/apache2/sites-available/shop.conf", SHOP);
    world.write("/etc/apache2/new-site", NEW_SITE);
    world.write("/etc/apache2/wrong-sites", WRONG);
    world.must(&["a2ensite", "-q", "shop"]);
    world.must(&["/usr/bin/pipeban", "setup", "--write"]);
    world.must(&["apache2ctl", "start"]);
    world.engine();
    until_right(&world, "at first");
    Some(world)
}

/// Waits until every link is ok: workers introduce themselves, ufw adds rules.
#[track_caller]
fn until_right(world: &World, when: &str) {
    eventually(&format!("every link is ok {when}"), || {
        let links = doctor(world);
        match not_ok(&links).is_empty() {
            true => Ok(()),
            false => Err(format!("{:#?}", not_ok(&links))),
        }
    });
}

/// Asks the doctor until `found` has an answer; what the doctor said last is the error.
fn ask<T>(world: &World, found: impl Fn(&[Value]) -> Option<T>) -> Result<T, String> {
    let start = Instant::now();
    loop {
        let links = doctor(world);
        match found(&links) {
            Some(found) => return Ok(found),
            None if start.elapsed() > PATIENCE => return Err(format!("{:#?}", not_ok(&links))),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn break_and_repair(world: &World, (breaking, links): &Case) -> Result<(), String> {
    let breaking = breaking
        .replace("SHOP", "/etc/apache2/sites-available/shop.conf")
        .replace("NEW", "/etc/apache2/new-site")
        .replace("WRONG", "/etc/apache2/wrong-sites");
    world.must(&["sh", "-c", &breaking]);
    let is = |found: &Value, link: &str, words: &str| {
        let text = found["text"].as_str().unwrap_or_default();
        found["link"] == link && found["verdict"] != "ok" && text.contains(words)
    };
    let named = |all: &[Value]| -> Option<Vec<Value>> {
        let named = links.iter().map(|(link, words)| {
            let found = all.iter().find(|found| is(found, link, words));
            found.cloned()
        });
        named.collect()
    };
    let named = ask(world, named)
        .map_err(|last| format!("{links:?} are not named after `{breaking}`: {last}"))?;
    let mut fixes: Vec<String> = Vec::new();
    for found in &named {
        let fix = found["fix"].as_str().ok_or(format!("no fix: {found}"))?;
        if !fixes.iter().any(|known| known == fix) {
            fixes.push(fix.to_owned());
        }
    }
    let said: Vec<_> = fixes
        .iter()
        .map(|fix| world.run(&["sh", "-c", fix]))
        .collect();
    let repaired = |all: &[Value]| {
        let broken = links
            .iter()
            .any(|(link, words)| all.iter().any(|found| is(found, link, words)));
        (!broken).then_some(())
    };
    ask(world, repaired)
        .map_err(|last| format!("{links:?} are as before after {fixes:?}: {said:?}: {last}"))
}

#[cfg(feature = "measure")]
#[test]
fn measure_doctor_on_a_right_host() {
    let Some(world) = host() else { return };
    let times = (0..11).map(|_| {
        let begin = Instant::now();
        let said = world.pipeban(&["doctor"]);
        assert_eq!(said.status, 0, "{said:?}");
        begin.elapsed()
    });
    let times: Vec<_> = times.collect();
    let most = *times.iter().max().unwrap();
    eprintln!("doctor: {:.1?}, at most {most:.1?}", median(times));
}

#[test]
fn what_is_broken_is_named_and_the_printed_command_repairs_it() {
    let Some(world) = host() else { return };
    let links = doctor(&world);
    assert_eq!(links.len(), 30, "{links:#?}");
    let proof = links.last().unwrap();
    let text = proof["text"].as_str().unwrap();
    assert!(
        text.contains("pipeban's nftables table held the ban"),
        "{proof}"
    );
    assert!(
        world.ban_of("manual", "192.0.2.222").is_none(),
        "it is unbanned"
    );

    let broken: usize = BROKEN.iter().map(|(_, links)| links.len()).sum();
    assert!(broken >= 30, "{broken}");
    let without_rsyslog = !Path::new("/usr/sbin/rsyslogd").exists();
    let cases = BROKEN.iter();
    let failed: Vec<String> = cases
        .filter(|(_, links)| !(without_rsyslog && links[0].0 == "syslog"))
        .filter_map(|case| break_and_repair(&world, case).err())
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // What the last one changed on purpose.
    world.must(&["rm", "/etc/pipeban/conf.d/z.toml"]);
    world.must(&["/usr/bin/pipeban", "engine", "--stop"]);
    world.engine();
    until_right(&world, "at last");
}
