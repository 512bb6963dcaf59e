//! One address that is many people: a NAT, a proxy in front of a site.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

use super::proxied::start_edges;
use crate::support::http::Connection;
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, eventually};

/// The proxies of a CDN.
const EDGES: u8 = 60;

/// Two jails of the access log, one that bans at once and one that counts, a jail that counts
/// bans, and bans that grow.
const CONFIG: &str = r#"
[firewall]
mirror = false
[defaults]
increment = { factor = 2 }
[jails.at-once]
enabled  = true
log      = "access"
maxretry = 1
[jails.counts]
enabled  = true
log      = "access"
maxretry = 3
[jails.recidive]
enabled  = true
log      = "bans"
maxretry = 1
bantime  = "1w"
"#;

fn prepare(world: &World) {
    world.write("/etc/pipeban/pipeban.toml", CONFIG);
    for (jail, target) in [("at-once", "attack"), ("counts", "missing")] {
        let filter = format!(
            "[Definition]\nfailregex = ^\\S+:\\d+ <HOST> \\S+ .*?\\[[^\\]]*\\] \"GET /{target}[ ?]\n"
        );
        world.write(&format!("/etc/pipeban/filters.d/{jail}.conf"), &filter);
    }
}

/// Six sites, all in the one log that pipeban's own snippet sets up.
fn six_sites(more: &str) -> String {
    let snippet = concat!(env!("CARGO_MANIFEST_DIR"), "/apache-conf/pipeban.conf");
    let site = |n: u8| {
        format!(
            "<VirtualHost *:80>\nServerName site{n}.example.org\n\
             DocumentRoot /var/site/htdocs\n</VirtualHost>\n"
        )
    };
    let sites: String = (1..=6).map(site).collect();
    format!(
        "ErrorLog \"|/usr/bin/pipeban log error /var/log/apache2/error.log\"\n\
         Include {snippet}\n{more}{sites}"
    )
}

/// What a browser asks for, one of `agents`.
fn visit(connection: &mut Connection, site: u8, agent: usize) {
    let site = format!("site{site}.example.org");
    let agent = format!("User-Agent: browser/{agent}\r\n");
    let status = connection.get_of(&site, "/", &agent).expect("answered");
    assert_eq!(status, 200);
}

/// An attack, by a proxy or not; the ban may cut the connection before the answer comes.
fn strike(world: &World, from: &str, to: IpAddr, target: &str) {
    let mut connection = Connection::open(&world.clients(), from, to).expect("connects");
    let _ = connection.get_of("site1.example.org", target, "User-Agent: attack\r\n");
}

/// How long this jail's bans are, in seconds, with the client and the reason.
fn bans(world: &World, jail: &str) -> Vec<(String, i64, String)> {
    let jail = world.jail(jail);
    let time = |value: &Value| -> Timestamp { value.as_str().unwrap().parse().unwrap() };
    let ban = |ban: &Value| {
        let length = time(&ban["until"]).duration_since(time(&ban["since"]));
        (
            ban["host"].as_str().unwrap().to_owned(),
            length.as_secs_f64().round() as i64,
            ban["reason"].as_str().unwrap_or("-").to_owned(),
        )
    };
    jail["banned"].as_array().unwrap().iter().map(ban).collect()
}

#[test]
fn no_edge_of_an_unknown_cdn_is_banned_for_long_and_the_alarm_says_what_to_do() {
    let Some(world) = World::new() else { return };
    prepare(&world);
    let apache = Apache::start(&world, Mpm::Event, &six_sites(""));
    apache.pipe("access");
    world.engine();
    let edges: Vec<IpAddr> = (1..=EDGES).map(|n| [198, 51, 100, n].into()).collect();
    start_edges(&world, &edges);
    let clients = world.clients();
    // The visitors of the first site, by all edges.
    for (n, edge) in edges.iter().enumerate() {
        let from = format!("203.0.113.{}", 130 + n);
        let mut connection = Connection::open(&clients, &from, *edge).expect("the edge answers");
        (0..30).for_each(|request| visit(&mut connection, 1, n + request % 6));
    }
    // One attacker behind all of them.
    let attacker = "203.0.113.129";
    for edge in &edges {
        (0..3).for_each(|_| strike(&world, attacker, *edge, "/missing"));
    }
    let ignored = |edge: &IpAddr| format!("[counts] Ignore {edge} by shared-address");
    for edge in &edges {
        world.until_logged(&ignored(edge));
    }
    assert_eq!(bans(&world, "counts"), []);
    // Each of them twice, and an hour is the most: no ban grows further, and none is counted.
    for round in 1..=2 {
        for edge in &edges {
            strike(&world, attacker, *edge, "/attack");
        }
        let found = eventually("every edge is banned", || {
            let found = bans(&world, "at-once");
            match found.len() == edges.len() {
                true => Ok(found),
                false => Err(found.len().to_string()),
            }
        });
        let longest = found.iter().map(|(_, seconds, _)| *seconds).max();
        let most = if round == 1 { 600 } else { 3_600 };
        assert_eq!(longest, Some(most), "{found:?}");
        assert!(
            found.iter().all(|ban| ban.2.starts_with("shared address")),
            "{found:?}"
        );
        eprintln!(
            "round {round}: of {EDGES} edges banned by at-once {}, the longest for {longest:?} s; \
             by counts {}, by recidive {}",
            found.len(),
            bans(&world, "counts").len(),
            bans(&world, "recidive").len(),
        );
        world.must(&["/usr/bin/pipeban", "unban", "--all"]);
    }
    assert_eq!(bans(&world, "recidive"), []);
    // Who comes by no proxy is served, on all sites.
    let mut connection = Connection::open(&clients, "198.51.100.250", SERVER4).expect("connects");
    (1..=6).for_each(|site| visit(&mut connection, site, 1));
    let warnings = world.status(None)["warnings"].to_string();
    let logged = world.until_logged("attacks come from addresses that many browsers use");
    for text in [
        "RemoteIPInternalProxy",
        "`[proxies] trusted`",
        "[\\\"auto\\\", \\\"apache\\\"]",
    ] {
        assert!(warnings.contains(text), "{text}: {warnings}");
        assert!(logged.contains(&text.replace('\\', "")), "{text}: {logged}");
    }
}

#[test]
fn of_a_nat_one_attacker_needs_more_hits_and_has_it_banned_shortly_a_lone_one_in_full() {
    let Some(world) = World::new() else { return };
    prepare(&world);
    let apache = Apache::start(&world, Mpm::Event, &six_sites(""));
    apache.pipe("access");
    world.engine();
    let clients = world.clients();
    let (nat, lone, busy) = ("198.51.100.9", "198.51.100.10", "198.51.100.11");
    // Thirty visitors behind one address, each with a browser of its own; and one visitor alone
    // who asks for as much.
    for visitor in 0..30 {
        for (from, agent) in [(nat, visitor), (busy, 0)] {
            let mut connection = Connection::open(&clients, from, SERVER4).expect("connects");
            visit(&mut connection, 1, agent);
        }
    }
    for from in [nat, lone, busy] {
        (0..3).for_each(|_| strike(&world, from, SERVER4, "/missing"));
    }
    let why = world.until_logged(&format!("[counts] Ignore {nat} by shared-address"));
    assert!(
        why.contains("many browsers use it; hits that lead to a ban: 15"),
        "{why}"
    );
    for from in [lone, busy] {
        world.until_banned("counts", from);
        world.must(&["/usr/bin/pipeban", "unban", from, "--forget"]);
    }
    assert_eq!(bans(&world, "counts"), []);
    // Nobody switches a jail off by pretending to be many: fifteen hits ban it.
    (3..15).for_each(|_| strike(&world, nat, SERVER4, "/missing"));
    world.until_banned("counts", nat);
    let short = &bans(&world, "counts")[0];
    assert_eq!((short.0.as_str(), short.1), (nat, 600), "{short:?}");
    world.must(&["/usr/bin/pipeban", "unban", nat, "--forget"]);
    for from in [nat, lone, busy] {
        strike(&world, from, SERVER4, "/attack");
        world.until_banned("at-once", from);
    }
    world.until_logged(&format!(
        "[at-once] Ban {nat} for 10m (1 in under 1s, shared address: at most 10 minutes, then 1 hour)"
    ));
    let found = bans(&world, "at-once");
    let lengths: Vec<(&str, i64)> = found.iter().map(|ban| (ban.0.as_str(), ban.1)).collect();
    for (what, address) in [
        ("30 visitors", nat),
        ("lone", lone),
        ("one busy browser", busy),
    ] {
        let ban = found.iter().find(|ban| ban.0 == address);
        eprintln!("{what}, {address}: banned by at-once, seconds and reason: {ban:?}");
    }
    assert_eq!(lengths, [(nat, 600), (lone, 3_600), (busy, 3_600)]);
    // A jail that counts bans counts none of an address that is many people.
    let recidive = bans(&world, "recidive");
    let hosts: Vec<&str> = recidive.iter().map(|ban| ban.0.as_str()).collect();
    assert_eq!(hosts, [lone, busy]);
}
