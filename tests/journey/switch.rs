//! Off, on, and a configuration broken on disk.

use crate::support::http;
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, eventually};

const JAIL: &str = "apache-cgitraversal";

#[test]
fn off_lifts_every_ban_and_bans_nobody_until_on() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();
    http::attack(&clients, "198.51.100.7", SERVER4);
    world.until_banned(JAIL, "198.51.100.7");
    eventually("the rule in ufw", || {
        let rules = world.ufw();
        if rules.contains("198.51.100.7") {
            Ok(())
        } else {
            Err(rules)
        }
    });

    let said = world.pipeban(&["off"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(
        http::get(&clients, "198.51.100.7", SERVER4, "/").expect("served again"),
        200
    );
    eventually("no rule in ufw", || {
        let rules = world.ufw();
        if rules.contains("pipeban") {
            Err(rules)
        } else {
            Ok(())
        }
    });
    http::attack(&clients, "198.51.100.8", SERVER4);
    // A reload makes Apache write to new pipes; the stop outlives that and the engine's end.
    world.engine().signal(nix::sys::signal::Signal::SIGKILL);
    eventually("a new engine, off", || {
        let said = world.pipeban(&["status", "--json"]);
        if said.status == 0 && said.stdout.contains("\"off\":{") {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
    assert_eq!(
        http::get(&clients, "198.51.100.8", SERVER4, "/").expect("off: nobody is banned"),
        200
    );

    let said = world.pipeban(&["on"]);
    assert_eq!(said.status, 0, "{said:?}");
    http::attack(&clients, "198.51.100.9", SERVER4);
    world.until_banned(JAIL, "198.51.100.9");
}

#[test]
fn off_without_an_engine_says_which_bans_stay_and_the_next_engine_lifts_them() {
    let Some(world) = World::new() else { return };
    let config = "[firewall]\nbackend = [\"nftables\", \"command\"]\n\
                  command.ban = [\"/usr/bin/touch\", \"/run/block-{host}\"]\n\
                  command.unban = [\"/bin/rm\", \"/run/block-{host}\"]\n";
    world.write("/etc/pipeban/pipeban.toml", config);
    world.start_engine();
    world.must(&["/usr/bin/pipeban", "ban", "198.51.100.7"]);
    let marked = || world.path("/run/block-198.51.100.7").exists();
    let until = |there: bool| {
        eventually("the program has done it", || match marked() == there {
            true => Ok(()),
            false => Err(format!("marked: {}", marked())),
        });
    };
    until(true);
    world.must(&["/usr/bin/pipeban", "engine", "--stop"]);
    let said = world.must(&["/usr/bin/pipeban", "off"]);
    assert!(said.contains("back end `command` stay"), "{said}");
    assert!(marked());
    let said = world.run(&["nft", "list", "table", "inet", "pipeban"]);
    assert_ne!(said.status, 0, "{said:?}");
    world.start_engine();
    until(false);
    // Where there is no program, there is nothing to say.
    world.must(&["/usr/bin/pipeban", "engine", "--stop"]);
    world.write("/etc/pipeban/pipeban.toml", "");
    world.start_engine();
    world.must(&["/usr/bin/pipeban", "engine", "--stop"]);
    let said = world.must(&["/usr/bin/pipeban", "off"]);
    assert!(!said.contains("command"), "{said}");
}

#[test]
fn a_change_of_back_ends_leaves_no_ban_behind() {
    const CLIENT: &str = "198.51.100.7";
    let Some(world) = World::new() else { return };
    let map = format!("/run/pipeban/deny/{CLIENT}");
    world.write("/etc/pipeban/pipeban.toml", "");
    world.start_engine();
    world.must(&["/usr/bin/pipeban", "ban", CLIENT]);
    for (firewall, holders) in [
        ("backend = \"auto\"", ["ufw", "table"].as_slice()),
        ("backend = \"nftables\"", &["table"]),
        ("backend = \"ufw\"\ninstant = false", &["ufw"]),
        ("backend = [\"nftables\", \"apache\"]", &["table", "map"]),
        ("backend = \"apache\"", &["map"]),
        ("backend = \"auto\"", &["ufw", "table"]),
    ] {
        world.must(&["/usr/bin/pipeban", "engine", "--stop"]);
        let config = format!("[firewall]\n{firewall}\n");
        world.write("/etc/pipeban/pipeban.toml", &config);
        world.start_engine();
        eventually(firewall, || {
            let set = world.run(&["nft", "list", "table", "inet", "pipeban"]);
            let found = [
                ("ufw", world.ufw().contains(CLIENT)),
                ("table", set.stdout.contains(CLIENT)),
                ("map", world.path(&map).exists()),
            ];
            let found = found.iter().filter(|(_, holds)| *holds);
            let found: Vec<&str> = found.map(|(holder, _)| *holder).collect();
            (found == holders).then_some(()).ok_or(found.join(" "))
        });
    }
}

#[test]
fn a_configuration_broken_on_disk_changes_nothing_when_apache_reloads() {
    let Some(world) = World::new() else { return };
    let apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();
    http::attack(&clients, "198.51.100.7", SERVER4);
    world.until_banned(JAIL, "198.51.100.7");

    world.write(
        "/etc/pipeban/pipeban.toml",
        "[jails.apache-cgitraversal\nenabled = maybe\n",
    );
    apache.reload("graceful");
    apache.pipe("error");
    http::attack(&clients, "198.51.100.8", SERVER4);
    world.until_banned(JAIL, "198.51.100.8");

    let said = world.pipeban(&["reload"]);
    assert_eq!(said.status, 78, "{said:?}");
    let logged = format!("{}{}", said.stdout, said.stderr);
    assert!(logged.contains("/etc/pipeban/pipeban.toml:1:"), "{said:?}");
    // The engine starts on the last good one too.
    world.engine().signal(nix::sys::signal::Signal::SIGKILL);
    world.engine();
    http::attack(&clients, "198.51.100.9", SERVER4);
    world.until_banned(JAIL, "198.51.100.9");
    for line in ["198.51.100.7", "198.51.100.8", "198.51.100.9"] {
        let log = world.read("/var/log/apache2/error.log");
        assert!(
            log.contains(&format!("[client {line}:")),
            "passed through: {log}"
        );
    }
}
