//! A site behind a proxy: Apache itself refuses the banned clients that the proxy passes on.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use crate::support::http::Connection;
use crate::support::world::{ROUTER4, SERVER4};
use crate::support::{Apache, Mpm, World, eventually};

const JAIL: &str = "probe";
const CONFIG: &str = r#"
[firewall]
backend = ["ufw", "apache"]
[jails.probe]
enabled  = true
log      = "access"
maxretry = 1
ipv6_prefix = 64
"#;
const FILTER: &str = r#"[Definition]
failregex = ^(?:\S+:\d+ )?<HOST> \S+ .*?\[[^\]]*\] "GET /attack[ ?]
"#;
const PROXY: &str = "/var/site/proxy.conf";

/// The site, which takes the proxy's word for who the client is, in a virtual host that closes
/// and opens what it likes.
fn site(proxies: &str) -> String {
    let snippet =
        |name: &str| concat!(env!("CARGO_MANIFEST_DIR"), "/apache-conf/").to_owned() + name;
    let modules = "/usr/lib/apache2/modules";
    format!(
        "LoadModule remoteip_module {modules}/mod_remoteip.so\n\
         RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy {proxies}\n\
         ErrorLog \"|/usr/bin/pipeban log error /var/log/apache2/error.log\"\n\
         Include {}\nInclude {}\n\
         <VirtualHost *:80>\nServerName www.example.org\nDocumentRoot /var/site/htdocs\n\
         <Directory /var/site/htdocs>\nRequire all granted\n</Directory>\n</VirtualHost>\n",
        snippet("pipeban.conf"),
        snippet("pipeban-deny.conf"),
    )
}

/// Another Apache on the clients' side: proxies in front of the site, which ask it from these
/// addresses.
pub(super) fn start_edges(world: &World, edges: &[IpAddr]) {
    let modules = "/usr/lib/apache2/modules";
    let edge = |edge: &IpAddr| {
        format!(
            "Listen {edge}:80\n<VirtualHost {edge}:80>\nProxySourceAddress {edge}\n\
             ProxyPass / http://{SERVER4}/ retry=0 connectiontimeout=2\n</VirtualHost>\n"
        )
    };
    let all: String = edges.iter().map(edge).collect();
    world.write(
        PROXY,
        &format!(
            "ServerRoot /var/site\nServerName proxy.example.org\n\
             PidFile /run/apache2/proxy.pid\nErrorLog /var/log/apache2/proxy.log\n\
             LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
             LoadModule authz_core_module {modules}/mod_authz_core.so\n\
             LoadModule proxy_module {modules}/mod_proxy.so\n\
             LoadModule proxy_http_module {modules}/mod_proxy_http.so\n\
             User www-data\nGroup www-data\nProxyPreserveHost On\nProxyAddHeaders On\n{all}"
        ),
    );
    let said = fs::File::create(world.path("/var/log/proxy-start")).expect("made");
    let status = world
        .command(&[
            "ip", "netns", "exec", "clients", "apache2", "-f", PROXY, "-k", "start",
        ])
        .stdin(std::process::Stdio::null())
        .stdout(said.try_clone().expect("cloned"))
        .stderr(said)
        .status()
        .expect("started");
    assert!(status.success(), "{}", world.read("/var/log/proxy-start"));
    let clients = world.clients();
    for edge in edges {
        eventually("the proxy listens", || {
            clients
                .connect(ROUTER4, SocketAddr::new(*edge, 80))
                .map_err(|error| error.to_string())
        });
    }
}

#[test]
fn the_client_behind_a_proxy_is_refused_by_apache_and_nobody_else_is() {
    let Some(world) = World::new() else { return };
    world.write("/etc/pipeban/pipeban.toml", CONFIG);
    world.write("/etc/pipeban/filters.d/probe.conf", FILTER);
    let apache = Apache::start(&world, Mpm::Event, &site(&ROUTER4.to_string()));
    apache.pipe("access");
    world.engine();
    start_edges(&world, &[ROUTER4]);
    let clients = world.clients();
    // By way of the proxy: what it says of the client, after what the client says of itself.
    let ask = |client: &str, target: &str, forged: &str| {
        let mut connection =
            Connection::open(&clients, client, ROUTER4).expect("the proxy answers");
        connection.get(target, forged).expect("answered")
    };
    let (bad, good) = ("198.51.100.7", "198.51.100.8");
    assert_eq!(ask(bad, "/", ""), 200);
    // The address that it gives itself is nobody's word.
    ask(bad, "/attack", &format!("X-Forwarded-For: {good}\r\n"));
    let ban = world.until_banned(JAIL, bad);
    assert_eq!(ban["behind"], ROUTER4.to_string(), "{ban}");
    world.until_logged(&format!(
        "[{JAIL}] Ban {bad} for 1h (1 in under 1s) at Apache (behind {ROUTER4})"
    ));
    assert_eq!(ask(bad, "/", ""), 403);
    assert_eq!(ask(good, "/", ""), 200);
    // No packet is dropped for it: the proxy serves everybody, and its own address is free.
    let direct = Connection::open(&clients, bad, SERVER4).expect("packets pass");
    drop(direct);
    assert!(!world.ufw().contains(bad));

    // An IPv6 client, and the network it is banned by.
    let six = "X-Forwarded-For: 2001:db8:a000::7\r\n";
    let from_edge = |header: &str, target: &str| {
        let mut edge = Connection::open(&clients, &ROUTER4.to_string(), SERVER4).expect("connects");
        edge.get(target, header).expect("answered")
    };
    from_edge(six, "/attack");
    world.until_banned(JAIL, "2001:db8:a000::/64");
    for (client, status) in [
        ("2001:db8:a000::7", 403),
        ("2001:db8:a000:0:1:2:3:4", 403),
        ("2001:db8:a000:1::7", 200),
        ("2001:db8::7", 200),
    ] {
        let header = format!("X-Forwarded-For: {client}\r\n");
        assert_eq!(from_edge(&header, "/"), status, "{client}");
    }

    // A network by hand, which is a ban of packets too, and of who comes by the proxy.
    let said = world.pipeban(&["ban", "198.51.100.128/25"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(ask("198.51.100.200", "/", ""), 403);
    assert_eq!(ask("198.51.100.100", "/", ""), 200);

    for host in [bad, "2001:db8:a000::/64", "198.51.100.128/25"] {
        let said = world.pipeban(&["unban", host]);
        assert_eq!(said.status, 0, "{said:?}");
    }
    assert_eq!(ask(bad, "/", ""), 200);
    assert_eq!(from_edge(six, "/"), 200);
    assert_eq!(ask("198.51.100.200", "/", ""), 200);
}

/// The CDN of [`super::shared`], as its alarm says: a header names the client to the site.
#[test]
fn behind_sixty_edges_the_client_is_refused_at_each_and_no_edge_is_banned() {
    let Some(world) = World::new() else { return };
    let more = "mirror = false\n[proxies]\ntrusted = [\"198.51.100.0/26\"]\n[jails.probe]";
    let config = CONFIG.replace("[jails.probe]", more);
    world.write("/etc/pipeban/pipeban.toml", &config);
    world.write("/etc/pipeban/filters.d/probe.conf", FILTER);
    let apache = Apache::start(&world, Mpm::Event, &site("198.51.100.0/26"));
    apache.pipe("access");
    world.engine();
    let edges: Vec<IpAddr> = (1..=60).map(|n| [198, 51, 100, n].into()).collect();
    start_edges(&world, &edges);
    let clients = world.clients();
    let ask = |client: &str, edge: &IpAddr, target: &str| {
        let mut connection = Connection::open(&clients, client, *edge).expect("the edge answers");
        connection.get(target, "").expect("answered")
    };
    // An attacker of its own at each edge, and one that comes by all of them.
    let attackers: Vec<String> = (0..60).map(|n| format!("203.0.113.{}", 130 + n)).collect();
    for (attacker, edge) in attackers.iter().zip(&edges) {
        ask(attacker, edge, "/attack");
    }
    for attacker in &attackers {
        world.until_logged(&format!(
            "Ban {attacker} for 1h (1 in under 1s) at Apache (behind "
        ));
    }
    let mut answers = std::collections::BTreeMap::new();
    for edge in &edges {
        for (who, client) in [
            ("attacker", attackers[7].as_str()),
            ("visitor", "203.0.113.250"),
        ] {
            *answers.entry((who, ask(client, edge, "/"))).or_insert(0) += 1;
        }
    }
    eprintln!("answers by {} edges: {answers:?}", edges.len());
    let expected = [(("attacker", 403), 60), (("visitor", 200), 60)];
    assert_eq!(answers, expected.into());
    let bans = world.jail(JAIL)["banned"].clone();
    let mut hosts: Vec<&str> = bans
        .as_array()
        .expect("a list")
        .iter()
        .map(|ban| ban["host"].as_str().expect("an address"))
        .collect();
    hosts.sort_unstable();
    assert_eq!(hosts, attackers, "and no edge");
    // Nor do the edges look like a crowd.
    let warnings = world.status(None)["warnings"].to_string();
    assert!(!warnings.contains("many browsers"), "{warnings}");
}

#[test]
fn all_of_thousands_of_bans_are_shown_as_the_kernel_has_them() {
    const BANS: usize = 3_000;
    let Some(world) = World::new() else { return };
    let config = CONFIG.replace("backend = [\"ufw\", \"apache\"]", "backend = \"nftables\"");
    world.write("/etc/pipeban/pipeban.toml", &config);
    world.write("/etc/pipeban/filters.d/probe.conf", FILTER);
    world.start_engine();
    let line = |n: usize| {
        let client = std::net::Ipv4Addr::from(0x0b00_0000 + n as u32);
        format!(
            "{client} - - [22/Nov/2026:11:00:00 +0000] \"GET /attack HTTP/1.1\" 404 5 \"-\" \"-\"\n"
        )
    };
    let lines: String = (0..BANS).map(line).collect();
    let argv = ["/usr/bin/pipeban", "log", "access", "--format", "combined"];
    let said = world.run_with(&argv, lines.as_bytes());
    assert_eq!(said.status, 0, "{said:?}");
    let in_force = |world: &World| {
        let jail = world.jail(JAIL);
        let bans = jail["banned"].as_array().cloned().unwrap_or_default();
        bans.iter().filter(|ban| ban["in_force"] == true).count()
    };
    eventually("all are banned, and shown in force", || {
        match in_force(&world) {
            BANS => Ok(()),
            fewer => Err(fewer.to_string()),
        }
    });
    // The last of them in the order of addresses, which an engine without bounds asked for last.
    let last = std::net::Ipv4Addr::from(0x0b00_0000 + BANS as u32 - 1);
    world.must(&[
        "nft",
        &format!("delete element inet pipeban v4_32_apache {{ {last} }}"),
    ]);
    eventually(
        "the ban that the kernel lost is not shown in force",
        || match in_force(&world) + 1 {
            BANS => Ok(()),
            others => Err(others.to_string()),
        },
    );
}

/// By `make bench`.
#[cfg(feature = "measure")]
mod measure {
    use super::*;

    /// What one request of a new client costs where Apache asks the deny map, or a `RewriteMap` of
    /// text with as many keys.
    #[test]
    fn measure_a_request_with_the_deny_map() {
        const REQUESTS: u32 = 2_000;
        let modules = "/usr/lib/apache2/modules";
        let remote = format!(
            "LoadModule remoteip_module {modules}/mod_remoteip.so\n\
         RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy {ROUTER4}\n\
         ErrorLog /var/log/apache2/error.log\n"
        );
        let deny = format!(
            "{remote}Include {}/apache-conf/pipeban-deny.conf\n",
            env!("CARGO_MANIFEST_DIR")
        );
        let rewrite = format!(
            "{remote}LoadModule rewrite_module {modules}/mod_rewrite.so\nRewriteEngine On\n\
         RewriteMap deny txt:/var/site/deny.txt\n\
         RewriteCond ${{deny:%{{REMOTE_ADDR}}|-}} !=-\nRewriteRule ^ - [F]\n"
        );
        for (what, logs) in [
            ("nothing", &remote),
            ("directory", &deny),
            ("RewriteMap", &rewrite),
        ] {
            for names in [0u32, 1_000, 100_000] {
                if what == "nothing" && names > 0 {
                    continue;
                }
                let Some(world) = World::new() else { return };
                let directory = world.path("/run/pipeban/deny");
                fs::create_dir_all(&directory).expect("made");
                let mut text = String::new();
                for n in 0..names {
                    let name = std::net::Ipv4Addr::from(0x0b00_0000 + n).to_string();
                    if what == "directory" {
                        fs::File::create(directory.join(&name)).expect("made");
                    }
                    text += &format!("{name} 1\n");
                }
                world.write("/var/site/deny.txt", &text);
                let _apache = Apache::start(&world, Mpm::Event, logs);
                let clients = world.clients();
                let router = ROUTER4.to_string();
                let mut connection =
                    Connection::open(&clients, &router, SERVER4).expect("connects");
                let times = (0..REQUESTS).map(|n| {
                    // Half of them IPv6, which has more names to look for.
                    let client = match n % 2 {
                        0 => std::net::Ipv4Addr::from(0xc633_6400 + n).to_string(),
                        _ => format!("2001:db8:a000:{n:x}::7"),
                    };
                    let header = format!("X-Forwarded-For: {client}\r\n");
                    let start = std::time::Instant::now();
                    assert_eq!(connection.get("/", &header).expect("answered"), 200);
                    start.elapsed()
                });
                let median = crate::support::median(times.collect());
                eprintln!("{what}, {names} names: {median:?} a request of a new client");
            }
        }
    }
}
