//! What the other tests stand on, shown without pipeban.

use crate::support::http::{self, ATTACK, Connection};
use crate::support::world::{SERVER4, SERVER6};
use crate::support::{Apache, Mpm, World, eventually};

const PLAIN: &str =
    "ErrorLog /var/log/apache2/error.log\nCustomLog /var/log/apache2/access.log combined\n";

#[test]
fn the_attack_makes_apache_write_the_tutorials_line_for_every_client_of_the_world() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::start(&world, Mpm::Event, PLAIN);
    let clients = world.clients();
    for (from, server) in [
        ("198.51.100.7", SERVER4),
        ("203.0.113.200", SERVER4),
        ("2001:db8:a000::7", SERVER6),
        ("2001:db8:1::66", SERVER6),
    ] {
        let status = http::get(&clients, from, server, ATTACK)
            .unwrap_or_else(|error| panic!("{from}: {error}"));
        assert_eq!(status, 400, "{from}");
        eventually(&format!("the line of {from}"), || {
            let log = world.read("/var/log/apache2/error.log");
            log.lines()
                .find(|line| {
                    line.contains(&format!("[client {from}:"))
                        && line.contains("AH10244: invalid URI path (")
                })
                .map(|_| ())
                .ok_or(log)
        });
    }
}

#[test]
fn an_open_connection_outlives_a_ufw_rule_and_a_new_one_does_not() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::start(&world, Mpm::Prefork, PLAIN);
    let clients = world.clients();
    let mut open = Connection::open(&clients, "198.51.100.7", SERVER4).expect("connects");
    assert_eq!(open.get("/", "").expect("answered"), 200);
    world.must(&[
        "ufw",
        "prepend",
        "deny",
        "proto",
        "tcp",
        "from",
        "198.51.100.7",
        "to",
        "any",
        "port",
        "80",
    ]);
    assert!(http::get(&clients, "198.51.100.7", SERVER4, "/").is_err());
    assert_eq!(open.get("/", "").expect("still answered"), 200);
    assert_eq!(
        http::get(&clients, "198.51.100.8", SERVER4, "/").expect("another client"),
        200
    );
}
