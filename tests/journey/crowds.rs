//! Many attackers at once, and what a stop and a start of the engine let through.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::http::attack_line;
use crate::support::knocks::Knocking;
use crate::support::strike::{Struck, keep_alive, strike};
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, eventually};

const JAIL: &str = "apache-cgitraversal";
/// Between two attempts to get in.
const PACE: Duration = Duration::from_millis(1);

/// Has each of them do it, one after the other, evenly in that time; `hands` of them at work at
/// most. `due` is waited for by who has prepared himself.
fn crowd<T: Send>(
    world: &World,
    attackers: &[IpAddr],
    within: Duration,
    hands: usize,
    attack: impl Fn(IpAddr, Due) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let begun = Instant::now() + Duration::from_secs(1);
    let hand = || {
        let mut seen = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(attacker) = attackers.get(n) else {
                return seen;
            };
            let due = begun + within.mul_f64(n as f64 / attackers.len() as f64);
            seen.push(attack(*attacker, Due(due)));
        }
    };
    // A thread is where the thread is that has begun it.
    world.clients().within(|| {
        std::thread::scope(|scope| {
            let hands: Vec<_> = (0..hands).map(|_| scope.spawn(hand)).collect();
            let join = |hand: std::thread::ScopedJoinHandle<'_, Vec<T>>| {
                hand.join().expect("it does not panic")
            };
            hands.into_iter().flat_map(join).collect()
        })
    })
}

/// When an attack is to be sent.
struct Due(Instant);

impl Due {
    fn wait(self) {
        std::thread::sleep(self.0.saturating_duration_since(Instant::now()));
    }
}

/// Also whether the connection that he had open was cut.
fn with_one_open(attacker: IpAddr, due: Due) -> (Struck, bool) {
    let mut open = keep_alive(attacker, SERVER4).expect("not banned yet");
    due.wait();
    let struck = strike(attacker, SERVER4, |_| Duration::from_millis(20));
    (struck, open.is_cut())
}

fn few(count: usize) -> Vec<IpAddr> {
    let attacker = |n: usize| IpAddr::from([198, 51, 100, 10 + n as u8]);
    (0..count).map(attacker).collect()
}

#[test]
fn of_forty_attackers_at_once_all_are_refused_and_cut() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let attackers = few(40);
    let within = Duration::from_millis(200);
    let beaten = crowd(&world, &attackers, within, attackers.len(), with_one_open);
    assert_eq!(beaten.len(), attackers.len());
    let alive: Vec<_> = beaten.iter().filter(|(_, cut)| !cut).collect();
    assert!(alive.is_empty(), "open connections live on: {alive:?}");
    let jail = world.jail(JAIL);
    assert_eq!(jail["total_banned"], attackers.len(), "{jail}");
}

/// Apache with plain logs, so that nobody but the test starts an engine, and so many bans.
fn with_bans(world: &World, count: usize) -> (Apache<'_>, Vec<IpAddr>) {
    let apache = Apache::start(world, Mpm::Event, "ErrorLog /var/log/apache2/error.log\n");
    world.start_engine();
    let clients = few(count);
    let lines: String = clients.iter().map(attack_line).collect();
    let said = world.run_with(&["/usr/bin/pipeban", "log", "error"], lines.as_bytes());
    assert_eq!(said.status, 0, "{said:?}");
    until_in_force(world, count);
    (apache, clients)
}

fn until_in_force(world: &World, count: usize) {
    eventually("all bans are in force", || {
        let said = world.pipeban(&["status", "--json", JAIL]);
        match said.stdout.matches("\"in_force\":true").count() {
            found if found == count => Ok(()),
            found => Err(format!("{found} of {count}: {}", said.stderr)),
        }
    });
}

/// How long the stop took, and the start until all bans are in force.
fn stop_and_start(world: &World, bans: usize) -> [Duration; 2] {
    let begun = Instant::now();
    let said = world.pipeban(&["engine", "--stop"]);
    let stopped = begun.elapsed();
    assert_eq!(said.status, 0, "{said:?}");
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    world.start_engine();
    until_in_force(world, bans);
    [stopped, begun.elapsed()]
}

#[test]
fn a_stop_and_a_start_let_none_of_the_banned_in() {
    const BANS: usize = 20;
    let Some(world) = World::new() else { return };
    let (_apache, clients) = with_bans(&world, BANS);
    let knocks = Knocking::from(&world, clients, PACE);
    stop_and_start(&world, BANS);
    let knocked = knocks.stop();
    assert!(knocked.attempts > BANS, "{knocked:?}");
    assert_eq!(knocked.through.len(), 0, "{knocked:?}");
    // Another client is served all the while, or this would prove nothing.
    let visitor = Knocking::from(&world, vec![IpAddr::from([198, 51, 100, 9])], PACE);
    std::thread::sleep(Duration::from_millis(100));
    let visitor = visitor.stop();
    assert!(!visitor.through.is_empty(), "{visitor:?}");
}

/// By `make bench`.
#[cfg(feature = "measure")]
mod measure {
    use super::*;
    use crate::journey::force::{between, say};
    use crate::support::apache::ERROR_LOG;
    use crate::support::fail2ban::Fail2ban;
    use crate::support::knocks::Knocks;
    use crate::support::world::SERVER6;
    use crate::support::{median, skip};
    use jiff::Timestamp;
    use jiff::civil::DateTime;
    use jiff::tz::TimeZone;
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn measure_two_hundred_attackers_in_a_second() {
        let Some(world) = World::new() else { return };
        world.must(&["rm", "-f", "/etc/localtime"]);
        let _apache = Apache::with_pipeban(&world, Mpm::Event);
        let attackers = few(200);
        let within = Duration::from_secs(1);
        let beaten = crowd(&world, &attackers, within, attackers.len(), with_one_open);
        let cut = beaten.iter().filter(|(_, cut)| *cut).count();
        let struck: Vec<Struck> = beaten.into_iter().map(|(struck, _)| struck).collect();
        tell(&world, "200 attackers in 1 s", &attackers, &struck);
        say(&format!("  open connections cut: {cut}"));
        assert_eq!(cut, attackers.len(), "open connections live on");
    }

    /// In Apache's own words, by client: when it wrote the attack's line.
    fn lines(world: &World) -> HashMap<IpAddr, Timestamp> {
        let log = world.read(ERROR_LOG);
        let line = |line: &str| {
            let (time, rest) = line.strip_prefix('[')?.split_once("] ")?;
            let client = rest.split_once("[client ")?.1.split_once("] AH10244: ")?.0;
            let client = client.rsplit_once(':')?.0.parse().ok()?;
            let time = DateTime::strptime("%a %b %d %H:%M:%S%.f %Y", time).ok()?;
            Some((client, time.to_zoned(TimeZone::UTC).ok()?.timestamp()))
        };
        log.lines().filter_map(line).collect()
    }

    fn tell(world: &World, name: &str, attackers: &[IpAddr], struck: &[Struck]) {
        assert_eq!(struck.len(), attackers.len(), "{name}");
        let lines = lines(world);
        let times = |from: &dyn Fn(&Struck) -> Timestamp| {
            let each = struck.iter().map(|one| between(from(one), one.refused));
            let mut times: Vec<Duration> = each.collect();
            times.sort_unstable();
            let (late, last) = (times[times.len() * 99 / 100], times[times.len() - 1]);
            let median = median(times);
            format!("median {median:.1?}, 99 % {late:.1?}, last {last:.1?}")
        };
        let sent = struck.iter().map(|one| one.sent);
        let (first, last) = (sent.clone().min(), sent.max());
        let took = first.zip(last).map(|(first, last)| between(first, last));
        let took = took.unwrap_or_default();
        say(&format!("{name}: all refused, sent in {took:.1?}"));
        let line = |one: &Struck| lines.get(&one.attacker).copied().expect("its line");
        say(&format!("  its line -> first refused: {}", times(&line)));
        say(&format!(
            "  sent -> first refused:     {}",
            times(&|one| one.sent)
        ));
    }

    #[test]
    fn measure_what_a_stop_and_a_start_take_and_let_through() {
        const BANS: usize = 220;
        let row = |name: &str, bans: usize, [stop, start]: [Duration; 2], knocked: Knocks| {
            let through = match knocked.through.len() {
                0 => "none let through".to_owned(),
                some => format!("{some} let through, over {:.1?}", knocked.span()),
            };
            say(&format!(
                "{name:<36} {bans:>4} bans  stop {:>8}  start {:>8}  of {:>5} first packets of banned \
             clients {through}",
                format!("{stop:.1?}"),
                format!("{start:.1?}"),
                knocked.attempts
            ));
        };
        if let Some(world) = World::new() {
            let (_apache, clients) = with_bans(&world, BANS);
            let measure = |name: &str| {
                let knocks = Knocking::from(&world, clients.clone(), PACE);
                let took = stop_and_start(&world, BANS);
                let knocked = knocks.stop();
                let answered = knocked.through.len();
                row(name, BANS, took, knocked);
                assert_eq!(answered, 0, "{name}");
            };
            measure("pipeban, ufw rules still to be made");
            // A mirror waits until a surge is over; an engine that has just been started does not.
            eventually("a rule of ours", || {
                match world.read("/etc/ufw/user.rules") {
                    rules if rules.contains("198.51.100.") => Ok(()),
                    rules => Err(rules),
                }
            });
            measure("pipeban, in the midst of ufw rules");
        }
        if !Fail2ban::is_installed() {
            return skip("fail2ban: needs fail2ban (`make bench` installs it)");
        }
        let Some(world) = World::new() else { return };
        // Each ban costs it a call of ufw at both: with 220 it takes minutes.
        const FEWER: usize = 20;
        let clients = few(FEWER);
        let _apache = Apache::start(&world, Mpm::Event, "ErrorLog /var/log/apache2/error.log\n");
        let fail2ban = Fail2ban::start(&world);
        let names: Vec<String> = clients.iter().map(IpAddr::to_string).collect();
        fail2ban.ban(&names);
        let until = |rules: usize| {
            while fail2ban.rules() != rules {
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        until(FEWER);
        let knocks = Knocking::from(&world, clients, PACE);
        let begun = Instant::now();
        fail2ban.stop();
        let stopped = begun.elapsed();
        let begun = Instant::now();
        fail2ban.run();
        until(FEWER);
        let started = begun.elapsed();
        row("fail2ban", FEWER, [stopped, started], knocks.stop());
    }

    #[test]
    fn measure_five_thousand_attackers_in_ten_seconds_and_an_administrators_ufw() {
        const ATTACKERS: u32 = 5_000;
        let Some(world) = World::new() else { return };
        world.must(&["rm", "-f", "/etc/localtime"]);
        world.must(&["ip", "route", "add", "11.0.0.0/19", "via", "203.0.113.2"]);
        let local = "ip netns exec clients ip route add local 11.0.0.0/19 dev lo";
        world.must(&local.split(' ').collect::<Vec<_>>());
        let _apache = Apache::with_pipeban(&world, Mpm::Event);
        let attacker = |n: u32| match n % 2 {
            0 => IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + n)),
            _ => {
                let network = u128::from(n) << 64;
                let first = Ipv6Addr::new(0x2001, 0xdb8, 0xa000, 0, 0, 0, 0, 7);
                IpAddr::V6(Ipv6Addr::from(u128::from(first) + network))
            }
        };
        let attackers: Vec<IpAddr> = (0..ATTACKERS).map(attacker).collect();
        let allow = |port: &str| {
            let begun = Instant::now();
            world.must(&["ufw", "allow", port]);
            begun.elapsed()
        };
        let quiet = allow("8081/tcp");
        let (struck, busy) = std::thread::scope(|scope| {
            let typed = scope.spawn(|| {
                std::thread::sleep(Duration::from_secs(6));
                allow("8080/tcp")
            });
            let struck = crowd(&world, &attackers, Duration::from_secs(10), 400, alone);
            (struck, typed.join().expect("it does not panic"))
        });
        tell(&world, "5 000 attackers in 10 s", &attackers, &struck);
        say(&format!(
            "  `ufw allow 8080/tcp` in the middle of it: {busy:.1?}; before it: {quiet:.1?}"
        ));
        let jail = world.jail(JAIL);
        assert_eq!(jail["total_banned"], ATTACKERS, "{}", jail["total_banned"]);
        for asked in [
            &["ufw", "show", "added"][..],
            &["iptables", "-S", "ufw-user-input"],
        ] {
            let said = world.must(asked);
            assert!(said.contains("8080"), "{asked:?}: {said}");
        }
    }

    /// With as little work as can be: the loader and the server share the cores.
    fn alone(attacker: IpAddr, due: Due) -> Struck {
        due.wait();
        let server = if attacker.is_ipv4() { SERVER4 } else { SERVER6 };
        strike(attacker, server, |_| Duration::from_millis(100))
    }
}
