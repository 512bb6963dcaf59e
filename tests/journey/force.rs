//! From the attack to the first refused packet, and what becomes of a connection that is open:
//! each back end, and fail2ban beside. By `make bench`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::support::fail2ban::Fail2ban;
use crate::support::http::{ATTACK, Connection};
use crate::support::network::connect_here;
use crate::support::strike::{Struck, keep_alive, strike};
use crate::support::world::{CONFIG, ROUTER4, SERVER4};
use crate::support::{Apache, Mpm, PATIENCE, World, apache, median, skip};

const SAMPLES: u8 = 20;
const JAIL: &str = "apache-cgitraversal";
/// The administrator's own table, and the program that changes it.
const COMMAND: &str = r#"backend = "command"
command.ban = ["/usr/sbin/nft", "add element inet admin bad { {host} }"]
command.unban = ["/usr/sbin/nft", "delete element inet admin bad { {host} }"]
"#;

pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// What became of the connection that the attacker had open.
enum Open {
    Cut(Timestamp),
    Answered(u16, Timestamp),
    Silent,
}

struct Sample {
    struck: Struck,
    decided: Timestamp,
    open: Open,
}

#[test]
fn measure_each_back_end_and_fail2ban_from_the_decision_to_the_first_refused_packet() {
    say(&format!(
        "{:<22}{:>13}{:>22}{:>22}   open keep-alive connection",
        "median / max of 20", "the first", "attack -> refused", "decision -> refused"
    ));
    let default = pipeban("ufw", "");
    pipeban("ufw, instant = false", "instant = false");
    pipeban("nftables", "backend = \"nftables\"");
    pipeban("command (nft)", COMMAND);
    behind_a_proxy();
    if Fail2ban::is_installed() {
        fail2ban();
    } else {
        skip("fail2ban: needs fail2ban (`make bench` installs it)");
    }
    let Some(default) = default else { return };
    let verdict = match default < Duration::from_millis(5) {
        true => "under 5 ms, as promised",
        false => "NOT under the promised 5 ms",
    };
    say(&format!(
        "ufw as it comes, decision -> refused: median {default:.1?}: {verdict}"
    ));
}

/// The median from the decision on.
fn pipeban(name: &str, firewall: &str) -> Option<Duration> {
    let world = World::new()?;
    let config = format!("[firewall]\n{firewall}\n{CONFIG}");
    world.write("/etc/pipeban/pipeban.toml", &config);
    if firewall == COMMAND {
        for change in [
            "add table inet admin",
            "add set inet admin bad { type ipv4_addr ; }",
            "add chain inet admin input { type filter hook input priority 5 ; }",
            "add rule inet admin input ip saddr @bad drop",
        ] {
            world.must(&["nft", change]);
        }
    }
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let seen = attacks(&world, strike_with_one_open);
    let samples = decided(seen, |attacker| since(&world, attacker));
    tell(name, &samples);
    let cut = samples
        .iter()
        .filter(|sample| matches!(sample.open, Open::Cut(_)))
        .count();
    assert_eq!(cut, samples.len(), "{name}: open connections live on");
    Some(from_decision(&samples[1..]))
}

fn since(world: &World, attacker: IpAddr) -> Option<Timestamp> {
    let ban = world.ban_of(JAIL, &attacker.to_string())?;
    ban["since"].as_str()?.parse().ok()
}

/// Apache itself refuses a banned client that a trusted proxy passes on.
fn behind_a_proxy() {
    let Some(world) = World::new() else { return };
    let config = format!("[firewall]\nbackend = \"apache\"\n{CONFIG}");
    world.write("/etc/pipeban/pipeban.toml", &config);
    let site = format!(
        "LoadModule remoteip_module /usr/lib/apache2/modules/mod_remoteip.so\n\
         RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy {ROUTER4}\n{}\
         Include {}/apache-conf/pipeban-deny.conf\n",
        apache::BOTH_PIPES,
        env!("CARGO_MANIFEST_DIR")
    );
    let apache = Apache::start(&world, Mpm::Event, &site);
    apache.pipe("error");
    world.engine();
    let seen = attacks(&world, strike_through_the_proxy);
    let samples = decided(seen, |attacker| since(&world, attacker));
    tell("apache (mod_remoteip)", &samples);
}

fn fail2ban() {
    let Some(world) = World::new() else { return };
    world.must(&["rm", "-f", "/etc/localtime"]);
    let _apache = Apache::start(&world, Mpm::Event, "ErrorLog /var/log/apache2/error.log\n");
    let fail2ban = Fail2ban::start(&world);
    let seen = attacks(&world, strike_with_one_open);
    let samples = decided(seen, |attacker| fail2ban.decided(attacker));
    tell(&format!("fail2ban ({})", fail2ban.backend()), &samples);
}

/// One attacker after the other. The first also waits for what is made at first use: filters
/// compiled, sets and rules.
fn attacks(world: &World, attack: impl Fn(IpAddr) -> (Struck, Open) + Sync) -> Vec<(Struck, Open)> {
    let attacker = |n| IpAddr::from([198, 51, 100, 10 + n]);
    let all = || (0..=SAMPLES).map(|n| attack(attacker(n))).collect();
    world.clients().within(all)
}

fn decided(seen: Vec<(Struck, Open)>, when: impl Fn(IpAddr) -> Option<Timestamp>) -> Vec<Sample> {
    let sample = |(struck, open): (Struck, Open)| Sample {
        struck,
        decided: when(struck.attacker).unwrap_or_else(|| panic!("{struck:?}: no decision")),
        open,
    };
    seen.into_iter().map(sample).collect()
}

fn strike_with_one_open(attacker: IpAddr) -> (Struck, Open) {
    let mut open = keep_alive(attacker, SERVER4).expect("not banned yet");
    let over = AtomicBool::new(false);
    let (struck, cut) = std::thread::scope(|scope| {
        let cut = scope.spawn(|| {
            open.set_patience(Duration::from_millis(50));
            while !over.load(Ordering::Relaxed) {
                if open.is_cut() {
                    return Some(Timestamp::now());
                }
            }
            None
        });
        let struck = strike(attacker, SERVER4, pause);
        over.store(true, Ordering::Relaxed);
        (struck, cut.join().expect("it does not panic"))
    });
    (struck, cut.map_or_else(|| still_open(&mut open), Open::Cut))
}

fn still_open(open: &mut Connection) -> Open {
    open.set_patience(Duration::from_secs(1));
    match open.get("/", "") {
        Ok(status) => Open::Answered(status, Timestamp::now()),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => Open::Silent,
        Err(_) => Open::Cut(Timestamp::now()),
    }
}

/// What is measured is known to within 2 %, and what takes long is left the cores.
fn pause(elapsed: Duration) -> Duration {
    (elapsed / 50).min(Duration::from_millis(5))
}

/// The connections are the proxy's; what is refused is a request on one that stays open.
fn strike_through_the_proxy(attacker: IpAddr) -> (Struck, Open) {
    let to = (SERVER4, 80).into();
    let proxy = || Connection::over(connect_here(ROUTER4, to, PATIENCE).expect("the proxy's"));
    let header = format!("X-Forwarded-For: {attacker}\r\n");
    let (mut open, mut attack) = (proxy(), proxy());
    assert_eq!(open.get("/", &header).expect("answered"), 200);
    let sent = Timestamp::now();
    attack.ask(ATTACK, &header).expect("sent");
    let start = Instant::now();
    loop {
        let refused = Timestamp::now();
        let status = open.get("/", &header).expect("answered");
        if status != 200 {
            let struck = Struck {
                attacker,
                sent,
                refused,
            };
            return (struck, Open::Answered(status, refused));
        }
        assert!(start.elapsed() < PATIENCE, "{attacker} is not banned");
        std::thread::sleep(pause(start.elapsed()));
    }
}

/// From one moment to a later one.
pub(super) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

fn from_decision(samples: &[Sample]) -> Duration {
    median(
        samples
            .iter()
            .map(|sample| between(sample.decided, sample.struck.refused))
            .collect(),
    )
}

fn tell(name: &str, samples: &[Sample]) {
    let both = |times: Vec<Duration>| {
        let most = times.iter().max().copied().unwrap_or_default();
        format!("{:.1?} / {most:.1?}", median(times))
    };
    let (first, samples) = samples.split_first().expect("one at least");
    let first = between(first.struck.sent, first.struck.refused);
    let times = |from: fn(&Sample) -> Timestamp| {
        let each = samples
            .iter()
            .map(|sample| between(from(sample), sample.struck.refused));
        both(each.collect())
    };
    // What the open connections saw, each kind with its times after the decision.
    let mut seen: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for sample in samples {
        let (what, at) = match sample.open {
            Open::Cut(at) => ("cut".to_owned(), at),
            Open::Answered(status, at) => (format!("answered with {status}"), at),
            Open::Silent => ("no answer".to_owned(), sample.decided),
        };
        seen.entry(what)
            .or_default()
            .push(between(sample.decided, at));
    }
    let seen = seen
        .into_iter()
        .map(|(what, after)| format!("{} {what}, {} after the decision", after.len(), both(after)));
    say(&format!(
        "{name:<22}{:>13}{:>22}{:>22}   {}",
        format!("{first:.1?}"),
        times(|sample| sample.struck.sent),
        times(|sample| sample.decided),
        seen.collect::<Vec<_>>().join("; ")
    ));
}
