//! mod_remoteip without a list of proxies: any client names its victim, who is not banned.

use crate::support::http::Connection;
use crate::support::world::{ROUTER4, SERVER4};
use crate::support::{Apache, Mpm, World, eventually};

const VICTIM: &str = "203.0.113.77";
const LISTS: &str = "/var/site/proxies.conf";

/// One jail for the error log, one for the access log.
const CONFIG: &str = r#"
[firewall]
backend = "nftables"
[jails.errors]
enabled  = true
log      = "error"
filter   = "apache-cgitraversal"
maxretry = 1
[jails.requests]
enabled  = true
log      = "access"
filter   = "probe"
maxretry = 1
"#;
const PROBE: &str = r#"[Definition]
failregex = ^(?:\S+:\d+ )?<HOST> \S+ .*?\[[^\]]*\] "GET /probe[ ?]
"#;
/// Traverses, which the error log shows.
const TRAVERSAL: &str = "/cgi-bin/.%2e/.%2e/bin/sh";

fn site(access: &str) -> String {
    format!(
        "LoadModule remoteip_module /usr/lib/apache2/modules/mod_remoteip.so\n\
         Include {LISTS}\n\
         ErrorLog \"|/usr/bin/pipeban log error /var/log/apache2/error.log\"\n{access}"
    )
}

const COMBINED: &str = "CustomLog \"|/usr/bin/pipeban log access --format combined /var/log/apache2/access.log\" combined\n";

fn ask(world: &World, from: &str, target: &str, headers: &str) {
    // A ban may cut the connection before the answer.
    if let Ok(mut connection) = Connection::open(&world.clients(), from, SERVER4) {
        let _ = connection.get(target, headers);
    }
}

fn hosts(world: &World, jail: &str) -> Vec<String> {
    let jail = world.jail(jail);
    let bans = jail["banned"].as_array().cloned().unwrap_or_default();
    let host = |ban: &serde_json::Value| ban["host"].as_str().unwrap_or_default().to_owned();
    bans.iter().map(host).collect()
}

#[test]
fn no_client_has_another_one_banned_by_a_header() {
    let Some(world) = World::new() else { return };
    world.write("/etc/pipeban/pipeban.toml", CONFIG);
    world.write("/etc/pipeban/filters.d/probe.conf", PROBE);
    world.write(LISTS, "RemoteIPHeader X-Forwarded-For\n");
    let apache = Apache::start(&world, Mpm::Event, &site(COMBINED));
    apache.pipe("access");
    apache.pipe("error");
    world.engine();
    let (attacker, router) = ("198.51.100.7", ROUTER4.to_string());
    let forged = format!("X-Forwarded-For: {VICTIM}\r\n");
    for target in [TRAVERSAL, "/probe"] {
        ask(&world, attacker, target, &forged);
    }
    for jail in ["errors", "requests"] {
        let why = world.until_logged(&format!("[{jail}] Ignore {VICTIM} by remoteip-header"));
        assert!(why.contains("lists no proxies"), "{why}");
        assert!(hosts(&world, jail).is_empty(), "{jail}");
    }
    world.until_logged(&format!("{LISTS}:1: any client can pretend"));
    // Its own address is in the error line with the port of its connection.
    ask(&world, attacker, TRAVERSAL, "");
    world.until_banned("errors", attacker);
    // A list of proxies, and the header is theirs.
    world.write(
        LISTS,
        &format!("RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy {router}\n"),
    );
    apache.reload("graceful");
    eventually("the alarm ends", || {
        let warnings = world.status(None)["warnings"].to_string();
        match warnings.contains("any client") {
            true => Err(warnings),
            false => Ok(()),
        }
    });
    for target in [TRAVERSAL, "/probe"] {
        ask(&world, &router, target, &forged);
    }
    // The error line does not show its peer, so it is the listed proxy, which is another machine.
    eventually("the client is banned behind its proxy", || {
        let errors = world.ban_of("errors", VICTIM);
        match errors.is_some_and(|ban| ban["behind"] == router.as_str()) {
            true => Ok(()),
            false => Err(world.status(None).to_string()),
        }
    });
    world.until_banned("requests", VICTIM);
}

#[test]
fn where_the_format_has_the_peer_a_direct_client_is_banned_and_a_forged_one_is_not() {
    let Some(world) = World::new() else { return };
    world.write("/etc/pipeban/pipeban.toml", CONFIG);
    world.write(
        "/etc/pipeban/filters.d/probe.conf",
        &PROBE.replace("<HOST>", "<HOST> \\S+"),
    );
    world.write(LISTS, "RemoteIPHeader X-Forwarded-For\n");
    let pipe = "CustomLog \"|/usr/bin/pipeban log access --format pipeban\" \
                \"%v:%p %a %{c}a %l %u %t \\\"%r\\\" %>s %O \\\"%{Referer}i\\\" \\\"%{User-Agent}i\\\"\"\n";
    let apache = Apache::start(&world, Mpm::Event, &site(pipe));
    apache.pipe("access");
    world.engine();
    ask(
        &world,
        "198.51.100.7",
        "/probe",
        &format!("X-Forwarded-For: {VICTIM}\r\n"),
    );
    world.until_logged(&format!("[requests] Ignore {VICTIM} by remoteip-header"));
    ask(&world, "198.51.100.8", "/probe", "");
    world.until_banned("requests", "198.51.100.8");
    assert_eq!(hosts(&world, "requests"), ["198.51.100.8"]);
}
