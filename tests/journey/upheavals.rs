//! A banned client that connects all the time, while the firewall is turned over under the bans and
//! while everything is restarted.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::knocks::{Knocking, Knocks};
use crate::support::process::{self, Process};
use crate::support::world::CONFIG;
use crate::support::{Apache, Mpm, World, eventually};

const JAIL: &str = "apache-cgitraversal";
const BANNED: &str = "198.51.100.7";
const OTHER: &str = "198.51.100.8";

const RELOAD: &[&str] = &["ufw reload"];
const TOGGLE: &[&str] = &["ufw disable", "ufw --force enable"];
const FLUSH: &[&str] = &["nft flush ruleset"];
const RESET: &[&str] = &[
    "ufw --force reset",
    "ufw allow 80/tcp",
    "ufw --force enable",
];

/// What came of one of them.
struct Row {
    what: String,
    banned: Knocks,
    /// Of a client that nobody bans: that the door was not shut to everybody.
    other: Knocks,
}

impl Row {
    #[cfg(feature = "measure")]
    fn tell(&self, whose: &str) {
        let Row {
            what,
            banned,
            other,
        } = self;
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "{whose:<26} {what:<55} got through {:>5} of {:>5}, over {:>5} ms; others {:>4} of {:>4}",
            banned.through.len(),
            banned.attempts,
            banned.span().as_millis(),
            other.through.len(),
            other.attempts,
        );
    }

    fn let_nobody_through(&self) {
        let through = self.banned.through.len();
        assert_eq!(through, 0, "{}: of {}", self.what, self.banned.attempts);
        assert!(!self.other.through.is_empty(), "{}", self.what);
    }
}

/// A world with this before the tutorial's jail.
fn world_with(firewall: &str) -> Option<World> {
    let world = World::new()?;
    world.write("/etc/pipeban/pipeban.toml", &format!("{firewall}{CONFIG}"));
    Some(world)
}

fn ban(world: &World) {
    let said = world.pipeban(&["ban", BANNED, "--jail", JAIL]);
    assert_eq!(said.status, 0, "{said:?}");
    world.until_banned(JAIL, BANNED);
}

/// Both clients knock until the ban is in force again, and a moment longer.
fn row(world: &World, what: &str, upheaval: impl FnOnce()) -> Row {
    let banned = Knocking::from(
        world,
        vec![BANNED.parse().expect("an address")],
        Duration::from_millis(1),
    );
    let other = Knocking::from(
        world,
        vec![OTHER.parse().expect("an address")],
        Duration::from_millis(20),
    );
    std::thread::sleep(Duration::from_millis(200));
    upheaval();
    world.until_banned(JAIL, BANNED);
    std::thread::sleep(Duration::from_millis(500));
    Row {
        what: what.to_owned(),
        banned: banned.stop(),
        other: other.stop(),
    }
}

fn run(world: &World, lines: &[&str]) {
    for line in lines {
        let argv: Vec<&str> = line.split(' ').collect();
        world.must(&argv);
    }
}

fn upheaval(world: &World, lines: &[&str]) -> Row {
    row(world, &lines.join(", "), || run(world, lines))
}

#[test]
fn no_packet_of_a_banned_client_passes_while_ufw_is_turned_over() {
    let Some(world) = world_with("") else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    ban(&world);
    for lines in [RELOAD, TOGGLE, RESET] {
        upheaval(&world, lines).let_nobody_through();
    }
    // The own table is made again, though nobody asks for it.
    run(&world, FLUSH);
    world.until_logged("another program removed rules of table `inet pipeban`");
    row(&world, "after a flush", || {}).let_nobody_through();
}

/// Restarts, in order.
fn restarts(world: &World, apache: &Apache<'_>) -> Vec<Row> {
    let next_engine = |end: &dyn Fn(&Process)| {
        let old = world.engine();
        end(&old);
        eventually("another engine", || {
            let new = world.engine();
            match new.pid == old.pid {
                true => Err(format!("{new:?}")),
                false => Ok(()),
            }
        });
    };
    vec![
        row(world, "apache2 -k graceful", || apache.reload("graceful")),
        row(world, "apache2 -k restart", || apache.reload("restart")),
        row(world, "engine: TERM, started by a keeper", || {
            next_engine(&|engine| engine.signal(Signal::SIGTERM));
        }),
        row(world, "engine: KILL, started by a keeper", || {
            next_engine(&|engine| engine.signal(Signal::SIGKILL));
        }),
    ]
}

#[test]
fn no_packet_of_a_banned_client_passes_while_apache_or_the_engine_is_restarted() {
    let Some(world) = world_with("") else { return };
    let apache = Apache::with_pipeban(&world, Mpm::Event);
    ban(&world);
    for row in restarts(&world, &apache) {
        row.let_nobody_through();
    }
}

#[test]
fn after_a_boot_bans_are_in_force_when_the_engine_says_that_it_is_ready() {
    let Some(world) = world_with("") else { return };
    let apache = Apache::with_pipeban(&world, Mpm::Event);
    ban(&world);
    boot(&world, &apache).let_nobody_through();
    let left = eventually("the end of the ban, as the kernel has it", || {
        let sets = world.must(&["nft", "list", "table", "inet", "pipeban"]);
        let after = sets.split(&format!("{BANNED} timeout ")).nth(1);
        let left = after.and_then(|text| text.split(" expires ").nth(1));
        left.and_then(|text| text.split('d').next()?.parse::<u32>().ok())
            .ok_or(sets)
    });
    assert!((363..=365).contains(&left), "{left} days of 365 are left");
}

/// As the unit has it, without systemd: the kernel knows nothing any more, its clock begins again;
/// ufw comes, then the engine, then, when that one is ready, Apache.
fn boot(world: &World, apache: &Apache<'_>) -> Row {
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/config/systemd/pipeban.service"
    );
    let unit = std::fs::read_to_string(unit).expect("shipped");
    for line in ["Type=notify", "Before=apache2.service"] {
        assert!(unit.lines().any(|found| found == line), "{line}\n{unit}");
    }
    apache.stop("stop");
    let engine = world.engine();
    engine.signal(Signal::SIGKILL);
    eventually("no process of pipeban", || {
        let left = process::pipebans(&world.processes());
        match left.is_empty() {
            true => Ok(()),
            // Where a keeper has just had another engine started.
            false => {
                left.iter().for_each(|one| one.signal(Signal::SIGKILL));
                Err(format!("{left:?}"))
            }
        }
    });
    run(world, FLUSH);
    world.write("/run/boot_id", "00000000-0000-4000-8000-000000000001\n");
    let boot_id = "/proc/sys/kernel/random/boot_id";
    run(world, &[&format!("mount --bind /run/boot_id {boot_id}")]);

    row(world, "a boot: ufw, engine, Apache", || {
        world.must(&["/lib/ufw/ufw-init", "start"]);
        let notify = UnixDatagram::bind(world.path("/run/notify.sock")).expect("bound");
        notify
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("set");
        let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("read");
        let status = world
            .command(&["unshare", "--time", "--fork"])
            .arg(format!("--boottime=-{}", up.tv_sec() - 10))
            .args(["setsid", "--fork", "/usr/bin/pipeban", "engine"])
            .env("NOTIFY_SOCKET", "/run/notify.sock")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        assert!(status.expect("started").success());
        for expected in [&b"EXTEND_TIMEOUT_USEC=600000000\n"[..], b"READY=1\n"] {
            let mut datagram = [0; 64];
            let length = notify.recv(&mut datagram).expect("ready");
            assert_eq!(&datagram[..length], expected);
        }
        // At that moment the kernel has the ban.
        let table = world.must(&["nft", "list", "table", "inet", "pipeban"]);
        assert!(table.contains(BANNED), "{table}");
        apache.run_again();
    })
}

/// By `make bench`.
#[cfg(feature = "measure")]
mod measure {
    use super::*;

    /// Longer than it may take to notice; nobody asks the engine meanwhile, which would wake it.
    const NOTICED: Duration = Duration::from_millis(2_500);

    #[test]
    fn measure_who_gets_through_while_the_firewall_is_turned_over() {
        for (whose, firewall) in [
            ("ufw (default)", ""),
            ("nftables", "[firewall]\nbackend = \"nftables\"\n"),
            (
                "ufw alone, instant = false",
                "[firewall]\ninstant = false\n",
            ),
        ] {
            let Some(world) = world_with(firewall) else {
                return;
            };
            let _apache = Apache::with_pipeban(&world, Mpm::Event);
            ban(&world);
            let instant = !firewall.contains("instant");
            for lines in [RELOAD, TOGGLE] {
                let row = upheaval(&world, lines);
                row.tell(whose);
                if instant {
                    row.let_nobody_through();
                }
            }
            // ufw does not come back by itself, nor would any rule of its administrator.
            let flush = match instant {
                true => FLUSH,
                false => &["nft flush ruleset", "sleep 1", "ufw reload"],
            };
            let flushed = || {
                run(&world, flush);
                std::thread::sleep(NOTICED);
            };
            row(&world, &flush.join(", "), flushed).tell(whose);
            run(&world, TOGGLE);
            world.until_banned(JAIL, BANNED);
            let row = upheaval(&world, RESET);
            row.tell(whose);
            if instant {
                row.let_nobody_through();
            }
        }
    }

    #[test]
    fn measure_who_gets_through_while_something_is_restarted() {
        let Some(world) = world_with("") else { return };
        let apache = Apache::with_pipeban(&world, Mpm::Event);
        ban(&world);
        for row in restarts(&world, &apache) {
            row.tell("ufw (default)");
            row.let_nobody_through();
        }
        row(&world, "engine: KILL, nft flush ruleset", || {
            world.engine().signal(Signal::SIGKILL);
            run(&world, FLUSH);
        })
        .tell("ufw (default)");
        run(&world, TOGGLE);
        world.until_banned(JAIL, BANNED);
        let row = boot(&world, &apache);
        row.tell("ufw (default)");
        row.let_nobody_through();
    }
}
