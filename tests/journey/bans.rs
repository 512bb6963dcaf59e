//! Who is banned, who never is, and what a ban closes.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::support::http::{self, ATTACK, Connection};
use crate::support::world::{CONFIG, SERVER4, SERVER6};
use crate::support::{Apache, Mpm, World, eventually};

const JAIL: &str = "apache-cgitraversal";
/// What fail2ban takes for an attack by 198.51.100.99.
const FALSE_REFERER: &str =
    "Referer: [client 198.51.100.99:1] AH10244: invalid URI path (/cgi-bin/../bin/sh\r\n";

#[test]
fn the_tutorials_ipv4_attacker_is_out_and_everybody_else_is_served() {
    tutorial(
        SERVER4,
        "198.51.100.7",
        "198.51.100.7",
        "198.51.100.8",
        Mpm::Event,
    );
}

#[test]
fn the_tutorials_ipv6_attacker_is_out_and_everybody_else_is_served() {
    tutorial(
        SERVER6,
        "2001:db8:a000::7",
        "2001:db8:a000::/64",
        "2001:db8:a001::7",
        Mpm::Prefork,
    );
}

fn tutorial(server: IpAddr, attacker: &str, banned: &str, visitor: &str, mpm: Mpm) {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, mpm);
    let clients = world.clients();
    let mut open = Connection::open(&clients, attacker, server).expect("connects");
    assert_eq!(open.get("/", "").expect("answered"), 200);
    let mut visit = Connection::open(&clients, visitor, server).expect("connects");
    assert_eq!(visit.get("/", "").expect("answered"), 200);

    http::attack(&clients, attacker, server);

    let ban = world.until_banned(JAIL, banned);
    assert_eq!(ban["in_force"], true, "{ban}");
    assert!(open.is_cut(), "the attacker's open connection lives on");
    let again = http::get(&clients, attacker, server, "/");
    assert!(
        again.is_err(),
        "the banned attacker was answered: {again:?}"
    );
    assert_eq!(
        visit.get("/", "").expect("the visitor's open connection"),
        200
    );
    assert_eq!(
        http::get(&clients, visitor, server, "/").expect("the visitor's new connection"),
        200
    );

    let prefix = banned.trim_end_matches("/64");
    let found = world.until_logged(&format!("[{JAIL}] Found {prefix}"));
    assert!(found.starts_with("authpriv.info pipeban["), "{found}");
    let logged = world.until_logged(&format!("[{JAIL}] Ban {prefix}"));
    assert!(logged.starts_with("authpriv.notice pipeban["), "{logged}");
    assert!(
        world
            .read("/var/log/pipeban.log")
            .contains(&format!("[{JAIL}] Ban {prefix}")),
        "the log file"
    );
    let rules = eventually("the rule in ufw", || {
        let rules = world.ufw();
        let ours = rules
            .lines()
            .find(|rule| rule.contains(banned) && rule.contains("80,443/tcp"));
        ours.map(str::to_owned).ok_or(rules)
    });
    assert!(rules.contains("DENY IN"), "{rules}");
    assert!(rules.contains(&format!("pipeban:{JAIL} until ")), "{rules}");
    let jail = world.jail(JAIL);
    assert_eq!(
        (&jail["currently_banned"], &jail["total_banned"]),
        (&1.into(), &1.into()),
        "{jail}"
    );
}

#[test]
fn a_banned_clients_ssh_session_and_the_servers_own_calls_to_it_live_on() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let (clients, server) = (world.clients(), world.server());
    let attacker: IpAddr = "198.51.100.7".parse().expect("an address");

    // 2222 plays ssh; the server's own call goes to the attacker's port 80, of all ports.
    let sshd = server.listen(SocketAddr::new(SERVER4, 2222));
    let ssh_port = SocketAddr::new(SERVER4, 2222);
    let mut session = clients.connect(attacker, ssh_port).expect("session");
    let mut session_end = sshd.accept().expect("accepted").0;
    let their_web = clients.listen(SocketAddr::new(attacker, 80));
    let mut call = server
        .connect(SERVER4, SocketAddr::new(attacker, 80))
        .expect("call");
    let mut call_end = their_web.accept().expect("accepted").0;

    http::attack(&clients, "198.51.100.7", SERVER4);
    world.until_banned(JAIL, "198.51.100.7");
    assert!(http::get(&clients, "198.51.100.7", SERVER4, "/").is_err());

    for (what, one, other) in [
        ("the ssh session", &mut session, &mut session_end),
        ("the server's own call", &mut call, &mut call_end),
    ] {
        speaks(what, one, other);
        speaks(what, other, one);
    }
    clients
        .connect(attacker, ssh_port)
        .expect("a new ssh session from the banned address");
    server
        .connect(SERVER4, SocketAddr::new(attacker, 80))
        .expect("a new call to the banned address");
}

fn speaks(what: &str, from: &mut TcpStream, to: &mut TcpStream) {
    to.set_read_timeout(Some(Duration::from_secs(5)))
        .expect("set");
    from.write_all(b"x")
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    to.read_exact(&mut [0])
        .unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn a_false_address_in_the_referer_has_nobody_banned_and_saves_nobody() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();

    let mut trick = Connection::open(&clients, "198.51.100.7", SERVER4).expect("connects");
    assert_eq!(
        trick.get("/closed/x", FALSE_REFERER).expect("answered"),
        403
    );
    // A real attack that also names another address. Its ban is logged after the trick.
    let mut attack = Connection::open(&clients, "198.51.100.8", SERVER4).expect("connects");
    attack.ask(ATTACK, FALSE_REFERER).expect("sent");
    world.until_banned(JAIL, "198.51.100.8");

    let log = world.read("/var/log/apache2/error.log");
    assert!(
        log.contains("referer: [client 198.51.100.99:1] AH10244"),
        "the trick is in the log: {log}"
    );
    let jail = world.jail(JAIL);
    assert_eq!(jail["total_banned"], 1, "{jail}");
    assert_eq!(jail["total_failed"], 1, "{jail}");
    let syslog = world.syslog();
    assert!(!syslog.contains("Ban 198.51.100.99"), "{syslog}");
    assert_eq!(
        trick
            .get("/", "")
            .expect("the one with the trick broke no rule"),
        200
    );
    assert_eq!(
        http::get(&clients, "198.51.100.99", SERVER4, "/").expect("the one he named"),
        200
    );
}

#[test]
fn an_attacker_in_the_servers_own_network_is_banned_alone() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();
    http::attack(&clients, "2001:db8:1::66", SERVER6);
    let ban = world.until_banned(JAIL, "2001:db8:1::66");
    assert_eq!(ban["in_force"], true, "{ban}");
    assert!(http::get(&clients, "2001:db8:1::66", SERVER6, "/").is_err());
    assert_eq!(
        http::get(&clients, "2001:db8:1::67", SERVER6, "/").expect("his neighbour"),
        200
    );
}

#[test]
fn an_allow_listed_network_is_never_banned_and_narrows_the_ban_of_its_neighbours() {
    let Some(world) = World::new() else { return };
    let ignored = "ignoreip = [\"198.51.100.64/26\", \"2001:db8:a001::99\"]\n";
    world.write("/etc/pipeban/pipeban.toml", &format!("{CONFIG}{ignored}"));
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();

    http::attack(&clients, "198.51.100.70", SERVER4);
    world.until_logged("Ignore 198.51.100.70");
    let said = world.pipeban(&["allow", "198.51.100.128/25", "--reason", "test"]);
    assert_eq!(said.status, 0, "{said:?}");
    http::attack(&clients, "198.51.100.130", SERVER4);
    world.until_logged("Ignore 198.51.100.130");
    http::attack(&clients, "2001:db8:a001::7", SERVER6);
    world.until_banned(JAIL, "2001:db8:a001::7");

    let jail = world.jail(JAIL);
    assert_eq!(jail["total_banned"], 1, "{jail}");
    for allowed in ["198.51.100.70", "198.51.100.130"] {
        assert_eq!(
            http::get(&clients, allowed, SERVER4, "/").expect(allowed),
            200
        );
    }
    assert_eq!(
        http::get(&clients, "2001:db8:a001::99", SERVER6, "/").expect("allowed"),
        200
    );
}

#[test]
fn a_ban_closes_every_port_that_apache_listens_on_and_follows_a_reload() {
    let Some(world) = World::new() else { return };
    world.must(&["ufw", "allow", "8443:8444/tcp"]);
    let apache = Apache::start(
        &world,
        Mpm::Event,
        &format!("Listen 8443\n{}", crate::support::apache::BOTH_PIPES),
    );
    apache.pipe("error");
    world.engine();
    let clients = world.clients();
    let attacker: IpAddr = "198.51.100.7".parse().expect("an address");
    let connect = |from: IpAddr, port| clients.connect(from, SocketAddr::new(SERVER4, port));
    let mut open = Connection::over(connect(attacker, 8443).expect("open"));
    open.ask(http::ATTACK, "").expect("sent");
    world.until_banned("apache-cgitraversal", "198.51.100.7");
    assert_eq!(
        world.status(None)["engine"]["apache_ports"],
        json!([80, 443, 8443])
    );
    assert_eq!(
        world.jail("apache-cgitraversal")["ports"],
        json!([80, 443, 8443])
    );
    assert!(connect(attacker, 8443).is_err() && connect(attacker, 80).is_err());
    assert!(connect("198.51.100.8".parse().expect("an address"), 8443).is_ok());

    let conf = world.read("/var/site/httpd.conf");
    let moved = conf.replace("Listen 8443\n", "Listen 8444\n");
    world.write("/var/site/httpd.conf", &moved);
    apache.reload("graceful");
    eventually("the ports of the new configuration", || {
        let ports = world.status(None)["engine"]["apache_ports"].clone();
        (ports == json!([80, 443, 8444]))
            .then_some(())
            .ok_or(ports.to_string())
    });
    assert!(connect(attacker, 8444).is_err());
    assert!(connect("198.51.100.8".parse().expect("an address"), 8444).is_ok());
}
