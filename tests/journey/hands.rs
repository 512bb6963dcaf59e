//! The engine with the real kernel and the real ufw, led by commands alone; and what it does when
//! another program removes its things.

use std::net::{IpAddr, SocketAddr, TcpListener};

use nix::sys::signal::Signal;

use crate::support::network::Network;
use crate::support::world::{SERVER4, SERVER6};
use crate::support::{World, eventually};

const JAILS: &str = r#"
[jails.web]
log = "error"
filter = "apache-cgitraversal"
[jails.everything]
log = "error"
filter = "apache-cgitraversal"
port = "all"
"#;

/// A world with an engine and something that listens on the web's port and on another.
struct Ground {
    clients: Network,
    _listeners: Vec<TcpListener>,
    world: World,
}

impl Ground {
    fn new() -> Option<Ground> {
        let world = World::new()?;
        world.write("/etc/pipeban/pipeban.toml", JAILS);
        world.start_engine();
        let server = world.server();
        let places = [(SERVER4, 80), (SERVER4, 2222), (SERVER6, 80)];
        let listeners = places.map(|(addr, port)| server.listen(SocketAddr::new(addr, port)));
        Some(Ground {
            clients: world.clients(),
            _listeners: listeners.into(),
            world,
        })
    }

    fn reaches(&self, client: &str, server: IpAddr, port: u16) -> bool {
        let client = client.parse().expect("an address");
        let to = SocketAddr::new(server, port);
        self.clients.connect(client, to).is_ok()
    }

    #[track_caller]
    fn says(&self, args: &[&str], status: i32) -> String {
        let said = self.world.pipeban(args);
        assert_eq!(said.status, status, "{args:?}: {said:?}");
        said.stdout + &said.stderr
    }

    fn until_served(&self, client: &str) {
        eventually(&format!("{client} is served"), || {
            match self.reaches(client, SERVER4, 80) {
                true => Ok(()),
                false => Err(self.world.ufw()),
            }
        });
    }

    /// Ends the engine and waits until it is gone.
    fn end_engine(&self, signal: Signal) {
        let engine = self.world.engine();
        engine.signal(signal);
        eventually("the engine has ended", || match engine.is_alive() {
            true => Err(format!("{engine:?}")),
            false => Ok(()),
        });
    }

    /// Waits until ufw lists so many rules of ours.
    fn until_rules(&self, count: usize) {
        eventually(&format!("{count} rules of ours in ufw"), || {
            let rules = self.world.ufw();
            match rules.matches("# pipeban:").count() == count {
                true => Ok(()),
                false => Err(rules),
            }
        });
    }
}

#[test]
fn bans_by_hand_come_and_go_in_the_kernel_and_in_ufw() {
    let Some(ground) = Ground::new() else { return };
    let (bad, other) = ("198.51.100.7", "198.51.100.8");
    ground.says(&["ban", bad], 0);
    assert!(!ground.reaches(bad, SERVER4, 80));
    assert!(ground.reaches(bad, SERVER4, 2222), "another port is open");
    assert!(ground.reaches(other, SERVER4, 80));
    // A second jail closes more to the same client; ssh's port (22) is spared.
    ground.says(&["ban", bad, "--jail", "everything"], 0);
    assert!(!ground.reaches(bad, SERVER4, 2222));
    ground.until_rules(4);
    ground.says(&["unban", bad, "--jail", "everything"], 0);
    ground.until_rules(2);
    assert!(ground.reaches(bad, SERVER4, 2222));
    assert!(
        !ground.reaches(bad, SERVER4, 80),
        "the other jail's ban stays"
    );
    // A prefix, and its end.
    ground.says(&["ban", "2001:db8:a001::7/64", "--for", "2s"], 0);
    assert!(!ground.reaches("2001:db8:a001::99", SERVER6, 80));
    eventually("the prefix's time is over", || {
        match ground.reaches("2001:db8:a001::99", SERVER6, 80) {
            true => Ok(()),
            false => Err(String::new()),
        }
    });
    ground.says(&["unban", bad], 0);
    ground.until_rules(0);
    ground.until_served(bad);
    for refused in [
        "203.0.113.1",
        "203.0.113.2",
        "2001:db8:1::/64",
        "32.0.0.0/3",
    ] {
        let text = ground.says(&["ban", refused], 2);
        assert!(
            text.contains("never banned") || text.contains("too wide"),
            "{text}"
        );
    }
}

#[test]
fn a_ban_holds_all_the_time_that_an_engine_is_killed_and_starts_again() {
    let Some(ground) = Ground::new() else { return };
    let bad = "198.51.100.7";
    ground.says(&["ban", bad], 0);
    ground.until_rules(2);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        ground.end_engine(signal);
        assert!(!ground.reaches(bad, SERVER4, 80), "without an engine");
        ground.world.start_engine();
        assert!(!ground.reaches(bad, SERVER4, 80), "with a new one");
        let ban = ground.world.until_banned("manual", bad);
        assert_eq!(ban["in_force"], true, "{ban}");
    }
    ground
        .world
        .until_logged(&format!("[manual] Restore Ban {bad}"));
}

#[test]
fn what_an_engine_put_in_force_but_never_committed_goes_when_the_next_one_starts() {
    let Some(ground) = Ground::new() else { return };
    let world = &ground.world;
    ground.says(&["ban", "198.51.100.7"], 0);
    // As a kill between firewall and commit leaves it: an element that no database knows.
    world.must(&[
        "nft",
        "add element inet pipeban v4_32_apache { 198.51.100.9 timeout 1h }",
    ]);
    assert!(!ground.reaches("198.51.100.9", SERVER4, 80));
    ground.end_engine(Signal::SIGKILL);
    world.start_engine();
    ground.until_served("198.51.100.9");
    assert!(!ground.reaches("198.51.100.7", SERVER4, 80));
}

#[test]
fn what_another_program_removes_is_restored() {
    let Some(ground) = Ground::new() else { return };
    let world = &ground.world;
    let bad = "198.51.100.7";
    ground.says(&["ban", bad], 0);
    world.must(&["nft", "delete", "table", "inet", "pipeban"]);
    world.until_logged("pipeban restored all 1 bans");
    world.until_banned("manual", bad);
    world.must(&["rm", "-rf", "/run/pipeban"]);
    world.until_logged("another process removed /run/pipeban/engine.sock");
    let engine = world.engine();
    // An engine that nobody can ask sees the stop, and its end, all the same.
    engine.signal(Signal::SIGSTOP);
    world.must(&["rm", "-rf", "/run/pipeban"]);
    let said = ground.says(&["off"], 0);
    assert!(said.contains("the engine, which does not answer"), "{said}");
    engine.signal(Signal::SIGCONT);
    world.until_logged("not banning at all");
    world.engine();
    let said = ground.says(&["ban", "198.51.100.9"], 2);
    assert!(said.contains("emergency stop"), "{said}");
    ground.until_served(bad);
    world.must(&["rm", "/var/lib/pipeban/off"]);
    world.until_logged("banning again");
    world.until_banned("manual", bad);
}

/// ufw takes 0.3 s for each rule it deletes. This one takes for ever.
#[test]
fn off_lifts_every_ban_at_once_however_long_ufw_takes() {
    let Some(ground) = Ground::new() else { return };
    let world = &ground.world;
    let bad = ["198.51.100.7", "198.51.100.8"];
    let ban = || {
        for bad in bad {
            ground.says(&["ban", bad], 0);
        }
    };
    ban();
    ground.until_rules(4);
    let wrapper = "#!/bin/sh\n[ \"$1\" != delete ] || exit 1\nexec /usr/sbin/ufw.real \"$@\"\n";
    world.must(&["mv", "/usr/sbin/ufw", "/usr/sbin/ufw.real"]);
    world.write("/usr/sbin/ufw", wrapper);
    world.must(&["chmod", "0755", "/usr/sbin/ufw"]);
    let said = ground.says(&["off"], 0);
    assert!(said.contains("2 bans lifted"), "{said}");
    for bad in bad {
        ground.until_served(bad);
    }
    assert_eq!(
        world.ufw().matches("# pipeban:").count(),
        4,
        "ufw deletes nothing"
    );
    // The same without an engine.
    ground.end_engine(Signal::SIGKILL);
    world.must(&["ufw", "reload"]);
    assert!(
        !ground.reaches(bad[0], SERVER4, 80),
        "ufw has loaded its list again"
    );
    let said = ground.says(&["off"], 2);
    assert!(said.contains("some bans are not lifted"), "{said}");
    for bad in bad {
        ground.until_served(bad);
    }
}

#[test]
fn without_the_right_to_ban_a_command_does_not_claim_one() {
    let Some(world) = World::new() else { return };
    let log = std::fs::File::create(world.path("/var/log/engine-by-hand")).expect("made");
    world
        .command(&[
            "setsid",
            "--fork",
            "setpriv",
            "--bounding-set",
            "-net_admin",
        ])
        .args(["/usr/bin/pipeban", "engine"])
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone().expect("cloned"))
        .stderr(log)
        .status()
        .expect("started");
    world.engine();
    let said = world.pipeban(&["ban", "198.51.100.7"]);
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.stderr.contains("not in force"), "{said:?}");
    let ban = world.ban_of("manual", "198.51.100.7").expect("kept");
    assert!(ban["in_force"].is_null(), "{ban}");
    let said = world.pipeban(&["status"]);
    assert!(said.stdout.contains("CAP_NET_ADMIN"), "{said:?}");
}
