//! `pipeban migrate` beside a real fail2ban-server: both read the same logs, and ban the same clients.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::support::{World, eventually};

const CONFIG: &str = "/etc/pipeban/conf.d/fail2ban.toml";
const ACCESS: &str = "/var/log/apache2/access.log";
const ERROR: &str = "/var/log/apache2/error.log";

/// A ban: fail2ban's jail, and the client.
type Bans = BTreeSet<(String, String)>;

/// pipeban's jail, fail2ban's, and whether pipeban's bans.
type Name = (String, String, bool);

/// A site with logs in a directory that only Apache's configuration names.
const SITE: &str = "<VirtualHost *:80>
    ServerName blog.example.org
    ErrorLog /srv/blog/logs/errors
    CustomLog /srv/blog/logs/requests combined
</VirtualHost>
";

/// Lines that match a jail's filter, so many from each client, and one fewer from another.
struct Attack {
    jail: &'static str,
    log: &'static str,
    /// What follows the time, the module and the client, or the request and status.
    text: &'static str,
    hits: usize,
}

/// An attack per jail: `(jail, log, text, maxretry)`.
fn attacks(rows: &[(&'static str, &'static str, &'static str, usize)]) -> Vec<Attack> {
    let row = |&(jail, log, text, hits)| Attack {
        jail,
        log,
        text,
        hits,
    };
    rows.iter().map(row).collect()
}

impl Attack {
    /// A line for the time, by a client.
    fn line(&self, client: &str, at: Timestamp) -> String {
        let text = self.text;
        if text.starts_with('"') {
            let time = at.strftime("%d/%b/%Y:%H:%M:%S +0000");
            return format!("{client} - - [{time}] {text}\n");
        }
        let time = at.strftime("%a %b %d %H:%M:%S.123456 %Y");
        let (module, message) = text.split_once(' ').unwrap();
        format!("[{time}] [{module}:error] [pid 422:tid 477] [client {client}:45123] {message}\n")
    }
}

/// One host: fail2ban's files, what attacks it, and what is expected.
struct Case {
    files: Vec<(&'static str, &'static str)>,
    attacks: Vec<Attack>,
    /// Texts in the configuration that results.
    has: Vec<&'static str>,
    /// fail2ban bans no client with this configuration.
    fail2ban_is_broken: bool,
}

/// The tutorial's jail, with its comments, on Debian's stock fail2ban.
fn tutorial() -> Case {
    let debian = std::fs::read_to_string("/etc/fail2ban/jail.d/defaults-debian.conf").unwrap();
    let sshd = match debian.contains("backend = systemd") {
        true => "sshd: it reads the journal, which Apache does not write",
        false => "sshd: it reads /var/log/auth.log",
    };
    Case {
        files: vec![
            (
                "jail.local",
                "[apache-cgitraversal]\nenabled  = true\nport     = http,https\n\
                 filter   = apache-cgitraversal\nlogpath  = /var/log/apache2/error.log\n\
                 maxretry = 1             # one request is enough\n\
                 bantime  = 365d          # for a year\n",
            ),
            (
                "filter.d/apache-cgitraversal.conf",
                crate::support::world::FILTER,
            ),
        ],
        attacks: attacks(&[(
            "apache-cgitraversal",
            ERROR,
            "core AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/bin/sh)",
            1,
        )]),
        has: vec![
            "maxretry = 1",
            "bantime = \"365d\"",
            "it has banned no client",
            "built-in maxretry 3 and bantime 10m",
            sshd,
            "[apache-cgitraversal] enabled = false END",
            "filter = \"fail2ban-apache-cgitraversal\"",
        ],
        fail2ban_is_broken: true,
    }
}

/// Many of fail2ban's jails, with longer bans for repeated ones and `recidive`.
fn stock() -> Case {
    Case {
        files: vec![
            (
                "jail.local",
                "[DEFAULT]\nignoreip = 127.0.0.1/8 ::1, 198.51.100.200\nbantime = 1h\n\
                 bantime.increment = true\nbantime.maxtime = 5w\nbantime.overalljails = true\n\
                 findtime = 60*15\n[apache-auth]\nenabled = true\nmode = aggressive\nmaxretry = 4\n\
                 [apache-badbots]\nenabled = true\n[apache-noscript]\nenabled = true\n\
                 [apache-overflows]\nenabled = true\n[apache-botsearch]\nenabled = true\n\
                 ignorecommand = /usr/local/bin/is-known <ip>\n\
                 [apache-shellshock]\nenabled = true\n[apache-fakegooglebot]\nenabled = true\n\
                 [recidive]\nenabled = true\nmaxretry = 2\n",
            ),
            ("jail.d/zz.conf", "[apache-noscript]\nmaxretry = 9\n"),
            ("jail.d/zz.local", "[apache-noscript]\nmaxretry = 3\n"),
        ],
        attacks: attacks(&[
            (
                "apache-auth",
                ERROR,
                "auth_basic AH01618: user root not found: /private/",
                4,
            ),
            (
                "apache-noscript",
                ERROR,
                "cgid AH01264: script '/srv/cgi-bin/none.cgi' not found or unable to stat",
                3,
            ),
            (
                "apache-overflows",
                ERROR,
                "core AH00135: Invalid method in request \\x16\\x03\\x01",
                2,
            ),
            (
                "apache-shellshock",
                ERROR,
                "cgi AH01215: /bin/bash: warning: HTTP_TEST: ignoring function definition attempt",
                1,
            ),
            (
                "apache-badbots",
                ACCESS,
                "\"GET / HTTP/1.1\" 200 10918 \"-\" \"EmailCollector\"",
                1,
            ),
        ]),
        has: vec![
            "ignoreip = [\"127.0.0.0/8\", \"::1/128\", \"198.51.100.200\"]",
            "filter = \"apache-auth[mode=aggressive]\"",
            "findtime = \"15m\"",
            "maxtime = \"5w\"",
            "overalljails = true",
            "log = \"bans\"",
            "fail2ban asks `/usr/local/bin/is-known <ip>`",
            "enforce = false",
            "[jails.apache-fakegooglebot] enabled = true log = \"access\"",
            "search_engines = \"ban-fake\"",
        ],
        fail2ban_is_broken: false,
    }
}

/// A WordPress host with filters of its own, one of them with an include, and own patterns in a jail.
fn wordpress() -> Case {
    Case {
        files: vec![
            (
                "jail.d/wordpress.local",
                "[DEFAULT]\nbanaction = ufw\n[wp-login]\nenabled = true\nport = http,https,8443\n\
                 filter = wp-login[page=wp-login]\nlogpath = /srv/blog/logs/requests\n\
                 \x20         /var/log/apache2/*access.log\nmaxretry = 3\nbantime = -1\n\
                 [wp-xmlrpc]\nenabled = true\nport = http,https\nlogpath = %(apache_access_log)s\n\
                 filter = wp-login\nfailregex = ^<HOST> .*\"POST /xmlrpc\\.php\n\
                 \x20           %(known/failregex)s\nmaxretry = 6\nbantime = 1w\n\
                 [wp-denied]\nenabled = true\nfilter = wp-denied\nlogpath = /srv/blog/logs/errors\n\
                 maxretry = 2\naction = sendmail[dest=web@example.org]\n\
                 [mixed]\nenabled = true\nfilter = php-url-fopen\nport = http,https\n\
                 logpath = /var/log/nginx/access.log\n\x20         %(apache_access_log)s\nmaxretry = 2\n",
            ),
            (
                "filter.d/wp-login.conf",
                "[INCLUDES]\nbefore = wp-common.conf\n[Definition]\n\
                 failregex = ^<HOST> %(_user)s \\[\\] \"POST /<page>\\.php[^\"]*\" (?:200|401)\n\
                 ignoreregex = \"POST /wp-login\\.php\\?action=logout\n[Init]\npage = wp-login\n",
            ),
            ("filter.d/wp-common.conf", "[DEFAULT]\n_user = - \\S+\n"),
            (
                "filter.d/wp-denied.conf",
                "[Definition]\nfailregex = \\[client <HOST>(?::\\d+)?\\] AH01630: client denied by server \
                 configuration: \\S+/wp-(?:config|content)\nignoreregex =\n",
            ),
        ],
        attacks: attacks(&[
            (
                "wp-login",
                "/srv/blog/logs/requests",
                "\"POST /wp-login.php HTTP/1.1\" 200 4523 \"-\" \"Mozilla/5.0\"",
                3,
            ),
            (
                "wp-xmlrpc",
                ACCESS,
                "\"POST /xmlrpc.php HTTP/1.1\" 200 403 \"-\" \"Mozilla/5.0\"",
                6,
            ),
            (
                "wp-denied",
                "/srv/blog/logs/errors",
                "authz_core AH01630: client denied by server configuration: /srv/blog/wp-config.php",
                2,
            ),
            (
                "mixed",
                ACCESS,
                "\"GET /index.php?page=http://bad.example/x.txt HTTP/1.1\" 404 281 \"-\" \"-\"",
                2,
            ),
        ]),
        has: vec![
            "bantime = \"permanent\"",
            "filter = \"fail2ban-wp-xmlrpc\"",
            "filter = \"wp-login[page=wp-login]\"",
            "port = \"all\"",
            "\"web@example.org\", \"{jail}\", \"{host}\"",
            "fail2ban's actions block no client",
            "stays on for /var/log/nginx/access.log",
        ],
        fail2ban_is_broken: false,
    }
}

/// Behind Cloudflare, with a custom log, an action of Cloudflare's and one of the administrator's.
fn cloudflare() -> Case {
    Case {
        files: vec![
            (
                "jail.local",
                "[DEFAULT]\nignoreip = 127.0.0.1/8 192.0.2.0/24\ndestemail = ops@example.org\n\
                 cfemail = a@example.org\ncfapikey = secret\nmaxretry = 2\nfindtime = 1h\nbantime = 1d\n\
                 [site-probes]\nenabled = true\nfilter = site-probes\nlogpath = /srv/blog/logs/*\n\
                 action = cloudflare[cfuser=\"%(cfemail)s\", cftoken=\"%(cfapikey)s\"]\n\
                 \x20        sendmail-whois[name=%(__name__)s, dest=\"%(destemail)s\"]\n\
                 [site-tools]\nenabled = true\nfilter = site-tools\nlogpath = /srv/blog/logs/requests\n\
                 maxretry = 1\nbanaction = to-edge\n",
            ),
            (
                "filter.d/site-probes.conf",
                "[Definition]\nfailregex = ^<HOST> .*\"GET /(?:\\.env|\\.git/config) \n\
                 \x20           \\[client <HOST>:\\d+\\] AH01276: Cannot serve directory\nignoreregex =\n",
            ),
            (
                "filter.d/site-tools.conf",
                "[Definition]\nfailregex = ^<HOST> .*\"(?:sqlmap|nikto)/[^\"]*\"$\nignoreregex =\n",
            ),
            (
                "action.d/to-edge.conf",
                "[Definition]\nactionban = /usr/local/bin/edge block <ip>\nactionunban =\n",
            ),
        ],
        attacks: attacks(&[
            (
                "site-probes",
                "/srv/blog/logs/requests",
                "\"GET /.env HTTP/1.1\" 404 281 \"-\" \"curl/8.1\"",
                2,
            ),
            (
                "site-tools",
                "/srv/blog/logs/requests",
                "\"GET /?id=1 HTTP/1.1\" 200 281 \"-\" \"sqlmap/1.7\"",
                1,
            ),
        ]),
        has: vec![
            "trusted = [\"cloudflare\"]",
            "[jails.site-probes-access]",
            "[jails.site-probes-error]",
            "hooks/cloudflare\"",
            "\"ops@example.org\"",
            "also runs `to-edge` (`/usr/local/bin/edge`): write a script",
            "ignoreip = [\"127.0.0.0/8\", \"::1/128\", \"192.0.2.0/24\"]",
        ],
        fail2ban_is_broken: false,
    }
}

#[test]
fn migrated_jails_ban_the_clients_that_fail2ban_bans() {
    if !super::installed() {
        return;
    }
    let Some(world) = World::new() else { return };
    world.write("/etc/apache2/sites-available/blog.conf", SITE);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config");
    world.must(&["cp", "-r", "/etc/fail2ban", "/mnt/fail2ban"]);
    world.must(&[
        "mkdir",
        "-p",
        "/usr/share/pipeban",
        "/srv/blog/logs",
        "/run/fail2ban",
    ]);
    // Without the shipped jails, whose bans `recidive` would count, too.
    for part in ["filters.d", "proxies.d"] {
        world.must(&[
            "cp",
            "-r",
            &format!("{shipped}/{part}"),
            "/usr/share/pipeban/",
        ]);
    }
    for (number, case) in [tutorial(), stock(), wordpress(), cloudflare()]
        .iter()
        .enumerate()
    {
        fresh(&world, case);
        let migrated = migrate(&world, number, case);
        let logs = attack(&world, case);
        let ours = replayed(&world, &logs, &migrated);
        for attack in &case.attacks {
            let jail = |(jail, _): &&(String, String)| jail == attack.jail;
            assert!(
                ours.iter().filter(jail).count() >= 2,
                "{}: {ours:?}",
                attack.jail
            );
        }
        let theirs = banned_by_fail2ban(&world, case, &ours);
        if case.fail2ban_is_broken {
            assert_eq!(theirs, Bans::new());
        } else {
            assert_eq!(ours, theirs, "case {number}");
            import(&world, &migrated, &theirs);
        }
    }
}

/// Only this case's files.
fn fresh(world: &World, case: &Case) {
    world.must(&[
        "sh",
        "-c",
        "rm -rf /etc/fail2ban /etc/pipeban /var/lib/fail2ban/* /var/log/fail2ban.log \
         /srv/blog/logs/* /var/log/apache2/*; cp -r /mnt/fail2ban /etc/fail2ban",
    ]);
    world.write("/etc/pipeban/pipeban.toml", "");
    for (name, text) in &case.files {
        world.write(&format!("/etc/fail2ban/{name}"), text);
    }
}

/// Writes pipeban's configuration; the names of its jails and of fail2ban's.
fn migrate(world: &World, number: usize, case: &Case) -> Vec<Name> {
    let said = world.pipeban(&["migrate", "--json"]);
    let lines = said.stdout.lines();
    let names = lines.filter_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        Some((text("to")?, text("jail")?, line["enforce"] == true))
    });
    let names: Vec<_> = names.collect();
    let said = world.pipeban(&["migrate", "-o", CONFIG]);
    assert_eq!(said.status, 0, "{number}: {said:?}");
    assert!(!said.stderr.contains("correct this"), "{said:?}");
    let text = world.read(CONFIG).replace('#', "");
    let text: Vec<&str> = text.split_whitespace().collect();
    let text = text.join(" ");
    let missing = case.has.iter().filter(|has| !text.contains(*has));
    let missing: Vec<_> = missing.collect();
    assert!(missing.is_empty(), "case {number}, {missing:#?}: {text}");
    let again = world.pipeban(&["migrate", "-o", CONFIG]);
    assert_eq!(again.status, 2, "{again:?}");
    assert!(
        again.stderr.contains("exists, and is not replaced"),
        "{again:?}"
    );
    let checked = world.pipeban(&["check"]);
    assert!(checked.status < 2, "{number}: {checked:?}");
    names
}

/// Writes the logs of the last minutes, with two clients for each jail, one that does too little, one
/// that is ignored, and a last one.
fn attack(world: &World, case: &Case) -> Vec<&'static str> {
    let now = Timestamp::now();
    let mut logs: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for (number, attack) in case.attacks.iter().enumerate() {
        let client = |host: usize| format!("198.51.100.{}", 10 * (number + 1) + host);
        let six = format!("2001:db8:a00{number}::7");
        let few = attack.hits - 1;
        for (client, hits) in [
            (client(1), attack.hits),
            (six, attack.hits + 1),
            (client(2), few),
            (client(3), attack.hits),
            // Of two jails: `recidive`.
            ("198.51.100.199".to_owned(), attack.hits),
            (client(9), attack.hits),
        ] {
            for hit in 0..hits {
                let seconds = 240 - 20 * hit as i64;
                let time = now - SignedDuration::from_secs(seconds);
                lines.push((attack.log, attack.line(&client, time)));
            }
        }
        if !logs.contains(&attack.log) {
            logs.push(attack.log);
        }
    }
    for log in &logs {
        let of_log = lines.iter().filter(|(name, _)| name == log);
        let text: String = of_log.map(|(_, line)| line.as_str()).collect();
        world.write(log, &text);
    }
    // fail2ban wants each log to exist.
    world.must(&[
        "sh",
        "-c",
        "touch /srv/blog/logs/requests /srv/blog/logs/errors /var/log/auth.log /var/log/fail2ban.log",
    ]);
    world.must(&["touch", ACCESS, ERROR]);
    world.must(&[
        "sh",
        "-c",
        "mkdir -p /var/log/nginx; touch /var/log/nginx/access.log",
    ]);
    logs
}

/// The bans of the migrated jails, by fail2ban's names, with networks of IPv6.
fn replayed(world: &World, logs: &[&str], names: &[Name]) -> Bans {
    let mut bans = Bans::new();
    for log in logs {
        let kind = if log.contains("err") {
            "error"
        } else {
            "access"
        };
        let argv = [
            "env",
            "TZ=UTC",
            "/usr/bin/pipeban",
            "replay",
            "--json",
            "--kind",
            kind,
            log,
        ];
        let said = world.run(&argv);
        assert!(said.status < 2, "{said:?}");
        for line in said.stdout.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let named = names
                .iter()
                .find(|(name, ..)| event["jail"] == name.as_str());
            if let (Some("ban" | "would-ban"), Some((_, jail, _))) =
                (event["event"].as_str(), named)
            {
                bans.insert((jail.clone(), event["host"].as_str().unwrap().to_owned()));
            }
        }
    }
    bans
}

/// The bans of a real fail2ban on the same logs; its actions do nothing.
fn banned_by_fail2ban(world: &World, case: &Case, expected: &Bans) -> Bans {
    let jails: BTreeSet<&str> = case.attacks.iter().map(|attack| attack.jail).collect();
    let jails = jails
        .into_iter()
        .chain(["sshd", "apache-botsearch", "recidive"]);
    let quiet = jails.map(|jail| format!("[{jail}]\naction = dummy\n"));
    // Asks Google's name servers.
    let off = "[apache-fakegooglebot]\nenabled = false\n";
    let quiet: String = quiet.chain([off.to_owned()]).collect();
    world.write("/etc/fail2ban/jail.d/zzz-test.local", &quiet);
    let client = ["env", "TZ=UTC", "fail2ban-client"];
    let started = world.run(&[&client[..], &["-x", "start"]].concat());
    assert!(
        started.status == 0 || case.fail2ban_is_broken,
        "{started:?}"
    );
    if case.fail2ban_is_broken {
        let of = |option: &str| {
            world.must(&[&client[..], &["get", case.attacks[0].jail, option]].concat())
        };
        assert_eq!((of("maxretry").trim(), of("bantime").trim()), ("3", "600"));
    } else {
        eventually("fail2ban has banned all that pipeban would ban", || {
            let found = bans_in_log(world);
            match expected.is_subset(&found) {
                true => Ok(()),
                false => Err(format!("missing: {:?}", expected.difference(&found))),
            }
        });
    }
    world.must(&[&client[..], &["stop"]].concat());
    eventually("fail2ban has ended", || {
        let all = world.processes();
        let mut running = all
            .iter()
            .filter(|process| process.name.starts_with("fail2ban-serv"));
        running.next().map_or(Ok(()), |_| Err("running".to_owned()))
    });
    bans_in_log(world)
}

/// Imports the bans of fail2ban's database: each keeps its jail and its end.
fn import(world: &World, names: &[Name], theirs: &Bans) {
    world.must(&["rm", "/etc/fail2ban/jail.d/zzz-test.local"]);
    let query = "import sqlite3
for row in sqlite3.connect('/var/lib/fail2ban/fail2ban.sqlite3').execute(
    'select ip, jail, case when bantime < 0 then -1 else timeofban + bantime end from bips'):
    print(*row)";
    let stored = world.must(&["python3", "-c", query]);
    let expected = stored.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let (name, ..) = names
            .iter()
            .find(|(_, jail, enforces)| jail == words[1] && *enforces)?;
        let end = match words[2].parse().unwrap() {
            -1 => "for ever".to_owned(),
            end => format!("until {}", Timestamp::from_second(end).unwrap()),
        };
        Some(format!("{} by {name} {end}", words[0]))
    });
    let expected: BTreeSet<String> = expected.collect();
    // Of a client in several jails fail2ban may store one ban.
    let banning = theirs.iter().filter(|(jail, _)| {
        let mut names = names.iter();
        names.any(|(_, name, enforces)| name == jail && *enforces)
    });
    let clients: BTreeSet<&String> = banning.map(|(_, host)| host).collect();
    assert!(expected.len() >= clients.len(), "{expected:?}");
    world.start_engine();
    let said = world.pipeban(&["migrate", "--bans"]);
    assert_eq!(said.status, 0, "{said:?}");
    let mut lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(
        lines.pop(),
        Some(&*format!("imported {} bans", expected.len())),
        "{said:?}"
    );
    let imported: BTreeSet<String> = lines.into_iter().map(str::to_owned).collect();
    assert_eq!(imported, expected);
    let again = world.pipeban(&["migrate", "--bans"]);
    assert!(
        again.stdout.starts_with("imported 0 bans; skipped "),
        "{again:?}"
    );
    world.pipeban(&["unban", "--all"]);
    world.must(&["/usr/bin/pipeban", "engine", "--stop"]);
    world.must(&["rm", "-rf", "/var/lib/pipeban"]);
}

fn bans_in_log(world: &World) -> Bans {
    let log = world.read("/var/log/fail2ban.log");
    let ban = |line: &str| {
        let (_, event) = line.split_once(" NOTICE ")?;
        let (jail, host) = event.trim().strip_prefix('[')?.split_once("] Ban ")?;
        let host: IpAddr = host.trim().parse().ok()?;
        let host = match host {
            IpAddr::V4(host) => host.to_string(),
            IpAddr::V6(host) => ipnet::Ipv6Net::new(host, 64).unwrap().trunc().to_string(),
        };
        Some((jail.to_owned(), host))
    };
    log.lines().filter_map(ban).collect()
}
