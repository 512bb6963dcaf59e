//! A site behind a proxy: Apache itself refuses whom the proxy passes on.

use std::fs;
use std::net::SocketAddr;

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
fn site() -> String {
    let snippet =
        |name: &str| concat!(env!("CARGO_MANIFEST_DIR"), "/apache-conf/").to_owned() + name;
    let modules = "/usr/lib/apache2/modules";
    format!(
        "LoadModule remoteip_module {modules}/mod_remoteip.so\n\
         RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy {ROUTER4}\n\
         ErrorLog \"|/usr/bin/pipeban log error /var/log/apache2/error.log\"\n\
         Include {}\nInclude {}\n\
         <VirtualHost *:80>\nServerName www.example.org\nDocumentRoot /var/site/htdocs\n\
         <Directory /var/site/htdocs>\nRequire all granted\n</Directory>\n</VirtualHost>\n",
        snippet("pipeban.conf"),
        snippet("pipeban-deny.conf"),
    )
}

/// Another Apache, on the clients' side.
fn start_proxy(world: &World) {
    let modules = "/usr/lib/apache2/modules";
    world.write(
        PROXY,
        &format!(
            "ServerRoot /var/site\nServerName proxy.example.org\nListen {ROUTER4}:80\n\
             PidFile /run/apache2/proxy.pid\nErrorLog /var/log/apache2/proxy.log\n\
             LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
             LoadModule authz_core_module {modules}/mod_authz_core.so\n\
             LoadModule proxy_module {modules}/mod_proxy.so\n\
             LoadModule proxy_http_module {modules}/mod_proxy_http.so\n\
             User www-data\nGroup www-data\nProxyPreserveHost On\nProxyAddHeaders On\n\
             ProxyPass / http://{SERVER4}/\n"
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
    eventually("the proxy listens", || {
        clients
            .connect(ROUTER4, SocketAddr::new(ROUTER4, 80))
            .map_err(|error| error.to_string())
    });
}

#[test]
fn the_client_behind_a_proxy_is_refused_by_apache_and_nobody_else_is() {
    let Some(world) = World::new() else { return };
    world.write("/etc/pipeban/pipeban.toml", CONFIG);
    world.write("/etc/pipeban/filters.d/probe.conf", FILTER);
    let apache = Apache::start(&world, Mpm::Event, &site());
    apache.pipe("access");
    world.engine();
    start_proxy(&world);
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
    world.until_told(&format!(
        "[{JAIL}] Ban {bad} for 1h (1 in 0s) at Apache (behind {ROUTER4})"
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
