//! Scripts know the process numbers of Apache and imitate its error lines: such a ban is short,
//! unless a connection or an access record shows that the client was there.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;
use serde_json::Value;

use crate::support::apache::{BOTH_PIPES, CGID};
use crate::support::http::{self, ATTACK, Connection};
use crate::support::world::{FILTER, ROUTER4, SERVER4};
use crate::support::{Apache, Mpm, World, eventually};

const INNOCENT: &str = "203.0.113.250";
/// Prints a whole error line of its parent's, about the client that the request names.
const SCRIPT: &str = r#"#!/usr/bin/perl
my $pid = getppid() + $ENV{HTTP_X_ADD};
my $text = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid $pid:tid $pid] [client $ENV{HTTP_X_WHO}:999] AH10244: invalid URI path (/cgi-bin/../bin/sh)\n";
print STDERR $text;
print "Content-Type: text/plain\nContent-Length: 3\n\nok\n";
"#;
const CONFIG: &str = r#"
[firewall]
backend = "nftables"
[jails.once]
log = "error"
filter = "apache-cgitraversal"
maxretry = 1
bantime = "2h"
[jails.recidive]
log = "bans"
maxretry = 1
bantime = "1w"
"#;

fn start<'w>(world: &'w World, logs: &str) -> Apache<'w> {
    world.write("/etc/pipeban/pipeban.toml", CONFIG);
    world.write("/etc/pipeban/filters.d/apache-cgitraversal.conf", FILTER);
    fs::create_dir_all(world.path("/var/site/cgi-bin")).expect("made");
    world.write("/var/site/cgi-bin/say", SCRIPT);
    let script = world.path("/var/site/cgi-bin/say");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("set");
    let apache = Apache::start(world, Mpm::Event, &format!("{CGID}{logs}"));
    apache.pipe("error");
    world.engine();
    apache
}

/// Has the script print its line about `who`; `add` is added to the process number.
fn forge(world: &World, who: &str, add: u32) {
    let mut connection =
        Connection::open(&world.clients(), "198.51.100.8", SERVER4).expect("connects");
    let headers = format!("X-Who: {who}\r\nX-Add: {add}\r\n");
    let status = connection.get("/cgi-bin/say", &headers);
    assert_eq!(status.expect("answered"), 200);
}

fn seconds(ban: &Value) -> i64 {
    let time = |value: &Value| -> Timestamp { value.as_str().unwrap().parse().unwrap() };
    let length = time(&ban["until"]).duration_since(time(&ban["since"]));
    length.as_secs_f64().round() as i64
}

/// Sends a request and resets the connection: no socket of it is left, and Apache logs it.
fn attack_and_reset(world: &World, from: &str) {
    let mut stream = world
        .clients()
        .connect(from.parse().unwrap(), (SERVER4, 80).into())
        .expect("connects");
    let request = format!("GET {ATTACK} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).expect("set");
}

#[test]
fn a_forged_line_bans_for_ten_minutes_and_an_attacker_for_the_full_time() {
    let Some(world) = World::new() else { return };
    let apache = start(&world, BOTH_PIPES);
    apache.pipe("access");
    // Since an access worker has connected, the engine waits for access records.
    http::get(&world.clients(), "198.51.100.8", SERVER4, "/").expect("served");
    eventually("the access worker", || {
        let status = world.status(None);
        let workers = status["workers"].as_array().cloned().unwrap_or_default();
        match workers.iter().any(|worker| worker["kind"] == "access") {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    forge(&world, INNOCENT, 0);
    let ban = world.until_banned("once", INNOCENT);
    assert_eq!(seconds(&ban), 600, "{ban}");
    assert_eq!(ban["cause"], "unconfirmed", "{ban}");
    world.until_logged(&format!(
        "[once] Ban {INNOCENT} for 10m (1 in under 1s, unconfirmed)"
    ));
    // A false process number hits nobody, and hides no line behind it.
    forge(&world, "203.0.113.251", 1_000_000);
    // Clients that reset at once are logged, and that confirms them.
    for n in 1..=5 {
        let from = format!("198.51.100.{}", 20 + n);
        attack_and_reset(&world, &from);
        world.until_logged(&format!("[once] Ban {from} for 2h (1 in under 1s)"));
        assert_eq!(seconds(&world.until_banned("once", &from)), 7_200);
        world.until_banned("recidive", &from);
    }
    // One with an open connection.
    let mut connection =
        Connection::open(&world.clients(), "198.51.100.40", SERVER4).expect("connects");
    let _ = connection.get(ATTACK, "");
    world.until_logged("[once] Ban 198.51.100.40 for 2h (1 in under 1s)");
    let jail = world.jail("recidive");
    let bans = jail["banned"].as_array().expect("a list");
    assert_eq!(bans.len(), 6, "{jail}");
    assert!(bans.iter().all(|ban| ban["host"] != INNOCENT), "{jail}");
    assert!(!world.syslog().contains("203.0.113.251"));
}

#[test]
fn without_access_records_nothing_is_shortened() {
    let Some(world) = World::new() else { return };
    let _apache = start(
        &world,
        "ErrorLog \"|/usr/bin/pipeban log error /var/log/apache2/error.log\"\n",
    );
    attack_and_reset(&world, "198.51.100.21");
    world.until_logged("[once] Ban 198.51.100.21 for 2h (1 in under 1s)");
    assert_eq!(seconds(&world.until_banned("once", "198.51.100.21")), 7_200);
}

#[test]
fn the_access_record_of_a_client_behind_a_listed_proxy_confirms_it() {
    let Some(world) = World::new() else { return };
    let proxies = format!(
        "LoadModule remoteip_module /usr/lib/apache2/modules/mod_remoteip.so\n\
         RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy {ROUTER4}\n{BOTH_PIPES}"
    );
    let apache = start(&world, &proxies);
    apache.pipe("access");
    let router = ROUTER4.to_string();
    let mut proxy = Connection::open(&world.clients(), &router, SERVER4).expect("connects");
    let _ = proxy.get(ATTACK, "X-Forwarded-For: 198.51.100.30\r\n");
    world.until_logged("[once] Ban 198.51.100.30 for 2h (1 in under 1s)");
    let ban = world.ban_of("once", "198.51.100.30").expect("a ban");
    assert_eq!(seconds(&ban), 7_200);
    // No firewall of this host sees the client.
    assert_eq!(
        (&ban["in_force"], &ban["behind"]),
        (&Value::Null, &router.into())
    );
}
