//! Why a client is not blocked: each situation made for real, and the code that `explain` names
//! first.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use serde_json::Value;

use crate::support::http::{self, ATTACK, Connection, attack_line};
use crate::support::world::{CONFIG, SERVER4};
use crate::support::{Apache, Mpm, World, eventually};

mod answers; // what the answers say, without a world

/// What is asked, the code that must come first, and the exit status.
type Situation<'a> = (&'a str, &'a [&'a str], &'a str, i32);

/// Asks until the answer is as expected: what Apache and the engine do takes a moment.
#[track_caller]
fn check(world: &World, more: &[&str], situations: &[Situation<'_>]) {
    for (what, asked, code, exit) in situations {
        let argv = [&["explain", "--json"], more, asked].concat();
        eventually(
            &format!("{what}: {argv:?} says {code}, exit {exit}"),
            || {
                let said = world.pipeban(&argv);
                let answer: Value = serde_json::from_str(&said.stdout)
                    .map_err(|error| format!("{error}: {said:?}"))?;
                let first = answer["reasons"][0]["code"].as_str().unwrap_or_default();
                match (first, said.status) == (code, *exit) {
                    true => Ok(()),
                    false => Err(format!("exit {}, {answer:#}", said.status)),
                }
            },
        );
    }
}

fn filter(path: &str) -> String {
    format!(
        "[Definition]\nfailregex = ^(?:\\S+:\\d+ )?<HOST> \\S+ .*?\\[[^\\]]*\\] \"GET /{path}[ ?]\n"
    )
}

/// A line of an access log, so many seconds ago.
fn access(client: &str, target: &str, seconds_ago: i64) -> String {
    let at = Timestamp::now() - seconds_ago.seconds();
    let at = at
        .to_zoned(TimeZone::UTC)
        .strftime("%d/%b/%Y:%H:%M:%S +0000");
    format!("{client} - - [{at}] \"GET {target} HTTP/1.1\" 404 5 \"-\" \"agent\"\n")
}

/// The piped logger of an access log, fed by hand.
fn pipe(world: &World, format: &str, path: &str) -> Child {
    let argv = [
        "/usr/bin/pipeban",
        "log",
        "access",
        "--format",
        format,
        path,
    ];
    let mut command = world.command(&argv);
    let quiet = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.spawn().expect("started")
}

fn write(pipe: &mut Child, text: &str) {
    let stdin = pipe.stdin.as_mut().expect("piped");
    stdin.write_all(text.as_bytes()).expect("written");
}

/// Apache's own configuration, with a port beside the usual ones, and virtual hosts in the log.
const SITE: &str = r#"
Listen 8443
ErrorLog "|/usr/bin/pipeban log error /var/log/apache2/error.log"
LogFormat "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" vhosts
CustomLog "|/usr/bin/pipeban log access --format vhost_combined /var/log/apache2/access.log" vhosts
"#;

const JAILS: &str = r#"
[proxies]
trusted = ["198.51.100.50"]
[defaults]
port = [80, 443]
[jails.apache-cgitraversal]
log = "error"
maxretry = 1
bantime = "365d"
[jails.probe]
log = "access"
maxretry = 3
ignoreip = ["198.51.100.20"]
[jails.watch]
log = "access"
maxretry = 1
enforce = false
[jails.sleeper]
enabled = false
log = "access"
[jails.shop]
log = "access"
maxretry = 1
vhost = ["shop.example.org"]
[jails.other]
log = "error"
maxretry = 1
"#;

#[test]
fn behind_apache_the_cause_is_named_first() {
    let Some(world) = World::new() else { return };
    world.write("/etc/pipeban/pipeban.toml", JAILS);
    for name in ["probe", "watch", "sleeper", "shop", "other", "fresh"] {
        world.write(
            &format!("/etc/pipeban/filters.d/{name}.conf"),
            &filter(name),
        );
    }
    world.must(&["ufw", "allow", "8443/tcp"]);
    let apache = Apache::start(&world, Mpm::Event, SITE);
    apache.pipe("access");
    apache.pipe("error");
    world.engine();
    let clients = world.clients();
    let get = |from: &str, target: &str| {
        http::get(&clients, from, SERVER4, target).expect("answered");
    };
    get("198.51.100.1", "/probe");
    get("198.51.100.2", "/hello");
    get("198.51.100.3", "/sleeper");
    get("198.51.100.4", "/shop");
    get("198.51.100.5", "/other");
    get("198.51.100.6", "/watch");
    get("198.51.100.20", "/probe");
    get("198.51.100.50", "/probe");
    // The tutorial's filter is not anchored; the page is denied, and the referrer is in the line.
    let mut spoof = Connection::open(&clients, "198.51.100.7", SERVER4).expect("connects");
    let header = format!("Referer: [client 192.0.2.99:1] AH10244: invalid URI path ({ATTACK}\r\n");
    spoof.get("/closed/", &header).expect("answered");
    for _ in 0..3 {
        get("198.51.100.8", "/probe");
    }
    world.until_banned("probe", "198.51.100.8");
    let eight = ["198.51.100.8"];
    check(&world, &SITE_FILE, &[("enough hits", &eight, "banned", 0)]);
    let to = (SERVER4, 8443).into();
    let stream = clients
        .connect(eight[0].parse().unwrap(), to)
        .expect("the port is open");
    // A request later than those that were on their way when the ban began.
    eventually(
        "a request at the other port is seen as one after the ban",
        || {
            let said = world.pipeban(&["explain", "--apache-config", SITE_FILE[1], eight[0]]);
            match said.stdout.contains("later than the ban") {
                true => Ok(()),
                false => {
                    let stream = stream.try_clone().expect("cloned");
                    Connection::over(stream)
                        .get("/", "")
                        .map_err(|error| error.to_string())?;
                    Err(said.stdout)
                }
            }
        },
    );
    world.must(&[
        "/usr/bin/pipeban",
        "ban",
        "198.51.100.9",
        "--reason",
        "by phone",
    ]);
    world.must(&["/usr/bin/pipeban", "ban", "198.51.100.128/25"]);
    world.must(&["/usr/bin/pipeban", "ban", "198.51.100.10"]);
    world.must(&["/usr/bin/pipeban", "unban", "198.51.100.10"]);
    world.must(&["/usr/bin/pipeban", "ban", "198.51.100.11", "--for", "1s"]);
    world.must(&[
        "/usr/bin/pipeban",
        "allow",
        "198.51.100.12",
        "--reason",
        "monitoring",
    ]);
    let by_hand = attack_line("198.51.100.13");
    world.must(&[
        "sh",
        "-c",
        &format!("printf %s '{by_hand}' >> /var/log/apache2/error.log"),
    ]);
    let missed = access("198.51.100.14", "/hello", 0);
    let spoofed = "[Sun Nov 22 11:00:33.366318 2026] [authz_core:error] [pid 1:tid 2] [client \
                   198.51.100.15:9] AH01630: client denied by server configuration: /closed, \
                   referer: [client 192.0.2.98:1] AH10244: invalid URI path (/cgi-bin/bin/sh";
    check(
        &world,
        &SITE_FILE,
        &[
            ("one hit of three", &["198.51.100.1"], "below-maxretry", 1),
            ("a harmless request", &["198.51.100.2"], "no-match", 1),
            (
                "the jail is disabled",
                &["198.51.100.3"],
                "jail-disabled",
                1,
            ),
            (
                "the jail is for another site",
                &["198.51.100.4"],
                "wrong-vhost",
                1,
            ),
            (
                "the jail reads the other log",
                &["198.51.100.5"],
                "wrong-log",
                1,
            ),
            (
                "the jail only watches",
                &["198.51.100.6"],
                "observe-only",
                1,
            ),
            (
                "in ignoreip of the jail",
                &["198.51.100.20"],
                "allow-listed",
                1,
            ),
            ("a trusted proxy", &["198.51.100.50"], "trusted-proxy", 1),
            ("named by another client", &["192.0.2.99"], "spoof", 1),
            ("names another client", &["198.51.100.7"], "spoof", 1),
            ("still served at another port", &eight, "other-port", 0),
            ("banned by hand", &["198.51.100.9"], "banned", 0),
            ("in a banned network", &["198.51.100.200"], "banned", 0),
            ("unbanned", &["198.51.100.10"], "unbanned", 1),
            ("its time is over", &["198.51.100.11"], "expired", 1),
            ("on the allow-list", &["198.51.100.12"], "allow-listed", 1),
            (
                "written into the log by hand",
                &["198.51.100.13"],
                "written-by-hand",
                1,
            ),
            ("never seen", &["198.51.100.99"], "not-seen", 1),
            ("this host", &["203.0.113.1"], "own-address", 1),
            ("a private address", &["10.20.30.40"], "private-range", 1),
            ("a line that no jail wants", &[&missed], "no-match", 1),
            ("a line with another address", &[spoofed], "spoof", 1),
            ("a line of no log", &["what is this"], "unparsed", 1),
        ],
    );
    // An address is answered by `status`, too.
    let said = world.pipeban(&["status", "198.51.100.9"]);
    assert!(
        said.status == 0 && said.stdout.contains("by phone"),
        "{said:?}"
    );

    let fresh = format!("{JAILS}[jails.fresh]\nlog = \"access\"\nmaxretry = 1\n");
    world.write("/etc/pipeban/pipeban.toml", &fresh);
    get("198.51.100.16", "/fresh");
    check(
        &world,
        &SITE_FILE,
        &[("not reloaded", &["198.51.100.16"], "not-reloaded", 1)],
    );
    world.must(&["/usr/bin/pipeban", "off"]);
    check(
        &world,
        &SITE_FILE,
        &[
            ("the emergency stop is on", &["198.51.100.9"], "paused", 1),
            ("and nothing else matters", &["198.51.100.1"], "paused", 1),
        ],
    );
}

const SITE_FILE: [&str; 2] = ["--apache-config", "/var/site/httpd.conf"];

#[test]
fn without_apache_the_firewalls_part_is_named_first() {
    let Some(world) = World::new() else { return };
    let probe = "[jails.probe]\nlog = \"access\"\nmaxretry = 3\n";
    let alone = format!("[firewall]\nbackend = \"ufw\"\ninstant = false\n{CONFIG}{probe}");
    world.write("/etc/pipeban/pipeban.toml", &alone);
    world.write("/etc/pipeban/filters.d/probe.conf", &filter("probe"));
    world.write(
        "/etc/apache2/plain.conf",
        "CustomLog /var/log/plain.log combined\n",
    );
    world.write(
        "/var/log/plain.log",
        &access("198.51.100.40", "/probe", 1).repeat(3),
    );
    world.start_engine();
    let pipeban = |argv: &[&str]| world.must(&[&["/usr/bin/pipeban"], argv].concat());

    // A proxy names the client, and a crowd hides one.
    let format = r#"%a %{c}a %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\""#;
    let mut proxied = pipe(&world, &format.replace('\\', ""), "/var/log/proxied.log");
    let behind = access("198.51.100.41", "/probe", 0).replacen(" - ", " 192.0.2.7 - ", 1);
    write(&mut proxied, &behind.repeat(3));
    check(
        &world,
        &[],
        &[(
            "named by a header of anyone",
            &["198.51.100.41"],
            "header-named",
            1,
        )],
    );
    let lists = "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 192.0.2.7\n";
    world.write("/etc/apache2/conf-enabled/remoteip.conf", lists);
    pipeban(&["reload"]);
    write(&mut proxied, &behind.repeat(3));
    check(
        &world,
        &[],
        &[("behind a proxy", &["198.51.100.41"], "behind-proxy", 1)],
    );
    let mut crowd = pipe(&world, "combined", "/var/log/crowd.log");
    for n in 0..40 {
        let line = access("198.51.100.42", "/", 0).replace(" 404 ", " 200 ");
        write(
            &mut crowd,
            &line.replace("agent", &format!("agent {}", n % 8)),
        );
    }
    eventually("the address is known as shared", || {
        write(&mut crowd, &access("198.51.100.42", "/probe", 0));
        let said = world.pipeban(&["explain", "198.51.100.42"]);
        match said.stdout.contains("many browsers") {
            true => Ok(()),
            false => Err(said.stdout),
        }
    });
    let plain = ["--apache-config", "/etc/apache2/plain.conf"];
    check(
        &world,
        &plain,
        &[
            ("many browsers", &["198.51.100.42"], "shared-address", 1),
            (
                "Apache writes the log itself",
                &["198.51.100.40"],
                "log-not-piped",
                1,
            ),
        ],
    );

    pipeban(&["ban", "198.51.100.43"]);
    pipeban(&["ban", "2001:db8:a000::7"]);
    let four = ["198.51.100.43"];
    check(&world, &plain, &[("by ufw alone", &four, "banned", 0)]);
    world.must(&["ufw", "prepend", "allow", "from", "198.51.100.0/24"]);
    check(
        &world,
        &plain,
        &[("an earlier ufw rule", &four, "rule-shadowed", 1)],
    );
    world.must(&["ufw", "delete", "allow", "from", "198.51.100.0/24"]);
    world.must(&[
        "iptables", "-I", "INPUT", "-p", "tcp", "--dport", "80", "-j", "ACCEPT",
    ]);
    check(
        &world,
        &plain,
        &[("a rule of another program", &four, "rule-shadowed", 1)],
    );
    world.must(&[
        "iptables", "-D", "INPUT", "-p", "tcp", "--dport", "80", "-j", "ACCEPT",
    ]);
    let publish = [
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-p",
        "tcp",
        "--dport",
        "80",
    ];
    let to = ["-j", "DNAT", "--to-destination", "203.0.113.2:8080"];
    world.must(&[&["iptables"], &publish[..], &to].concat());
    check(
        &world,
        &plain,
        &[("a published port", &four, "forwarded-port", 1)],
    );
    world.must(&["iptables", "-t", "nat", "-F"]);
    let defaults = world
        .read("/etc/default/ufw")
        .replace("IPV6=yes", "IPV6=no");
    world.write("/etc/default/ufw", &defaults);
    world.must(&["ufw", "reload"]);
    check(
        &world,
        &plain,
        &[("no rules for IPv6", &["2001:db8:a000::7"], "ipv6-off", 1)],
    );
    world.must(&["ufw", "disable"]);
    check(&world, &plain, &[("ufw is off", &four, "ufw-inactive", 1)]);

    // The engine ends; what is stored and what logs say still answers.
    drop((proxied.stdin.take(), crowd.stdin.take()));
    let _ = (proxied.wait(), crowd.wait());
    let table = alone.replace("instant = false", "instant = true");
    world.write("/etc/pipeban/pipeban.toml", &table);
    pipeban(&["engine", "--stop"]);
    eventually("the engine has ended", || {
        let said = world.pipeban(&["status"]);
        (said.status == 2).then_some(()).ok_or(said.stdout)
    });
    let hour = 3_600;
    let lines: String = (0..3)
        .map(|n| access("198.51.100.44", "/probe", hour * (3 - n)))
        .collect();
    world.write("/var/log/slow.log", &lines);
    world.write(
        "/var/log/new.log",
        &access("198.51.100.45", "/probe", 1).repeat(2),
    );
    world.write(
        "/var/log/odd.log",
        "198.51.100.46 what Apache never writes\n",
    );
    check(
        &world,
        &plain,
        &[
            ("lifted from the table", &four, "firewall-missing", 1),
            (
                "no engine counts",
                &["198.51.100.45", "--log", "/var/log/new.log"],
                "engine-stopped",
                1,
            ),
            (
                "too slow, and no engine",
                &["198.51.100.44", "--log", "/var/log/slow.log"],
                "engine-stopped",
                1,
            ),
            (
                "a format of another program",
                &["198.51.100.46", "--log", "/var/log/odd.log"],
                "unparsed",
                1,
            ),
            ("nothing at all", &["198.51.100.47"], "not-seen", 1),
        ],
    );
    world.start_engine();
    check(
        &world,
        &plain,
        &[
            (
                "too slow",
                &["198.51.100.44", "--log", "/var/log/slow.log"],
                "outside-findtime",
                1,
            ),
            ("in the table again", &four, "banned", 0),
        ],
    );
}

const PIPEBAN: &str = env!("CARGO_BIN_EXE_pipeban");

/// `pipeban explain` with a configuration in a directory, and that of an Apache where it has one,
/// without an engine.
fn explain(directory: &std::path::Path, args: &[&str]) -> Output {
    let site = directory.join("site.conf");
    Command::new(PIPEBAN)
        .args(["explain", "--config"])
        .arg(directory.join("pipeban.toml"))
        .arg("--apache-config")
        .arg(if site.exists() {
            site
        } else {
            "/dev/null".into()
        })
        .args(args)
        .output()
        .expect("started")
}
