//! Measurements, no claims: `make bench` runs them.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::support::http::{ATTACK, Connection, attack_line};
use crate::support::network::Network;
use crate::support::world::{CONFIG, SERVER4};
use crate::support::{Apache, Mpm, World, median};

const SAMPLES: usize = 50;

#[test]
fn measure_from_the_attack_to_the_first_refused_packet() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();
    let mut samples = Vec::new();
    for n in 0..SAMPLES {
        let attacker = format!("198.51.100.{}", 10 + n);
        samples.push(until_refused(&clients, &attacker));
    }
    tell("attack sent -> first refused packet", samples);
}

/// From the attack to the connection that is not answered.
pub(super) fn until_refused(clients: &Network, attacker: &str) -> Duration {
    let address = attacker.parse().expect("an address");
    let mut attack = Connection::open(clients, attacker, SERVER4).expect("not banned yet");
    let sent = Instant::now();
    attack.ask(ATTACK, "").expect("sent");
    // Connections are asked for as fast as they come.
    loop {
        let asked = Instant::now();
        let answered = clients.connect(address, SocketAddr::new(SERVER4, 80));
        if answered.is_err() {
            return asked - sent;
        }
        assert!(
            sent.elapsed() < Duration::from_secs(10),
            "{attacker} is not banned"
        );
    }
}

#[test]
fn measure_from_the_line_in_the_pipe_to_the_engines_decision() {
    to_the_decision("nothing to enforce", "backend = \"dry-run\"");
    to_the_decision("own table", "mirror = false");
    // ufw's own processes run meanwhile: they take the cores and the kernel's ruleset lock.
    to_the_decision("own table, with ufw behind it", "mirror = true");
}

fn to_the_decision(what: &str, firewall: &str) {
    let Some(world) = World::new() else { return };
    // The test is the syslog daemon: a line arrives when its ban is in force.
    let syslog = UnixDatagram::bind(world.path("/run/measure.sock")).expect("bound");
    syslog
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    let settings =
        format!("[firewall]\n{firewall}\n[syslog]\ntarget = \"unix:/run/measure.sock\"\n{CONFIG}");
    world.write("/etc/pipeban/pipeban.toml", &settings);
    world.start_engine();
    let mut pipe = world.error_pipe();
    let mut stdin = pipe.stdin.take().expect("piped");
    let mut logged = Vec::new();
    let mut written = Vec::new();
    // The first one also waits for the worker to start.
    for n in 0..=SAMPLES {
        let line = attack_line(format_args!("198.51.100.{}", 10 + n));
        let (start, wall) = (Instant::now(), Timestamp::now());
        stdin.write_all(line.as_bytes()).expect("written");
        loop {
            let mut datagram = [0; 4096];
            let length = syslog.recv(&mut datagram).expect("a decision");
            let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
            if text.contains(&format!("Found 198.51.100.{} ", 10 + n)) {
                break;
            }
        }
        if n > 0 {
            logged.push(start.elapsed());
            written.push((format!("198.51.100.{}", 10 + n), wall));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // A ban is since the moment the engine decided it.
    let jail = world.jail("apache-cgitraversal");
    let bans = jail["banned"].as_array().expect("bans");
    let decided = |(host, wall): (String, Timestamp)| {
        let ban = bans.iter().find(|ban| ban["host"] == host.as_str());
        let since = ban.and_then(|ban| ban["since"].as_str()).expect("banned");
        let since: Timestamp = since.parse().expect("a time");
        Duration::try_from(since.duration_since(wall)).expect("decided after it was written")
    };
    let decided = written.into_iter().map(decided).collect();
    drop(stdin);
    let _ = pipe.wait();
    tell(&format!("line in the pipe -> decision, {what}"), decided);
    tell(
        &format!("line in the pipe -> ban in force and logged, {what}"),
        logged,
    );
}

pub(super) fn tell(what: &str, samples: Vec<Duration>) {
    let (least, most) = (samples.iter().min().copied(), samples.iter().max().copied());
    let (least, most) = (least.unwrap_or_default(), most.unwrap_or_default());
    let (count, median) = (samples.len(), median(samples));
    let _ = writeln!(
        std::io::stderr(),
        "{what}: median {median:?}, {least:?} to {most:?}, {count} samples"
    );
}
