//! Bans on their way out and in again, in the kernel.

use crate::support::World;
use crate::support::world::CONFIG;

const JAIL: &str = "apache-cgitraversal";

#[test]
fn what_is_imported_is_in_force_when_the_command_returns() {
    let Some(world) = World::new() else { return };
    let config = format!("[firewall]\nmirror = false\n{CONFIG}");
    world.write("/etc/pipeban/pipeban.toml", &config);
    world.start_engine();
    let hosts = ["198.51.100.7", "198.51.100.128/25", "2001:db8:a000::/64"];
    for (host, length) in hosts.into_iter().zip(["1h", "1d", "-1"]) {
        world.must(&[
            "/usr/bin/pipeban",
            "ban",
            host,
            "--jail",
            JAIL,
            "--for",
            length,
        ]);
    }
    let in_force = |host: &str| world.ban_of(JAIL, host).map(|ban| ban["in_force"] == true);
    world.must(&["sh", "-c", "pipeban export > /var/bans.json"]);
    world.must(&["/usr/bin/pipeban", "unban", "--all"]);
    assert_eq!(hosts.map(in_force), [None; 3]);
    let said = world.must(&["/usr/bin/pipeban", "import", "/var/bans.json"]);
    assert_eq!(said, "imported 3 bans\n");
    assert_eq!(hosts.map(in_force), [Some(true); 3]);
    // This host itself, its gateway: whatever a file says.
    world.write("/var/list", "203.0.113.1\n203.0.113.2\n2001:db8:1::/64\n");
    let said = world.pipeban(&["import", "--jail", JAIL, "/var/list"]);
    assert_eq!(
        (said.status, said.stdout.as_str()),
        (0, "imported 0 bans; skipped 3 exempt addresses\n")
    );
    for text in [
        "/var/list:1: 203.0.113.1 is never banned: 203.0.113.1 is an address of this host",
        "/var/list:2: 203.0.113.2 is never banned: 203.0.113.2 is a gateway",
        "/var/list:3: 2001:db8:1::/64 is never banned: 2001:db8:1::1 is an address of this host",
    ] {
        assert!(said.stderr.contains(text), "{text}: {said:?}");
    }
}

/// By `make bench`.
#[cfg(feature = "measure")]
mod measure {
    use super::*;
    use crate::journey::timing::{tell, until_refused};
    use crate::support::{Apache, Mpm};
    use std::net::Ipv4Addr;
    use std::time::Instant;

    #[test]
    fn measure_an_import_of_100_000_bans_and_a_ban_meanwhile() {
        const BANS: u32 = 100_000;
        for (what, firewall) in [
            ("own table", "mirror = false"),
            ("ufw behind it", "mirror = true"),
        ] {
            let Some(world) = World::new() else { return };
            let settings = format!("[firewall]\n{firewall}\n{CONFIG}");
            world.write("/etc/pipeban/pipeban.toml", &settings);
            let _apache = Apache::with_pipeban(&world, Mpm::Event);
            let clients = world.clients();
            let address = |n: u32| Ipv4Addr::from(0x2d00_0000 + n);
            let list: String = (0..BANS).map(|n| format!("{}\n", address(n))).collect();
            world.write("/var/list", &list);
            let (mut took, mut samples) = (None, Vec::new());
            std::thread::scope(|scope| {
                let import = scope.spawn(|| {
                    let start = Instant::now();
                    world.must(&["/usr/bin/pipeban", "import", "--jail", JAIL, "/var/list"]);
                    start.elapsed()
                });
                while !import.is_finished() {
                    let attacker = format!("198.51.100.{}", samples.len() + 10);
                    samples.push(until_refused(&clients, &attacker));
                }
                took = import.join().ok();
            });
            let start = Instant::now();
            let exported = world.must(&["/usr/bin/pipeban", "export", "--format", "list"]);
            let export = start.elapsed();
            assert!(exported.lines().count() >= BANS as usize);
            tell(
                &format!(
                    "{what}: {BANS} bans imported in {took:?}, exported in {export:?}; meanwhile an \
                 attack sent -> first refused packet"
                ),
                samples,
            );
        }
    }
}
