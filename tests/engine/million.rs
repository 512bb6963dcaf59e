//! A million bans through the real engine, database to kernel: measured, no claims but two: all
//! are in force, and who is banned stays out while the engine is not there.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pipeban::config::Ports;
use pipeban::jail::{Ban, BanId, Mode, Moment};
use pipeban::store::{Home, Op};

use super::*;
use crate::support::network::Network;
use crate::support::process::{kilobytes, processor_time};
use crate::support::world::{CONFIG, SERVER4};
use crate::support::{World, median};

const JAIL: &str = "apache-cgitraversal";
const BAD: &str = "198.51.100.66";
const GOOD: &str = "198.51.100.77";
/// Attempts under way at any time: one each 100 ms or so.
const KNOCKERS: usize = 16;
/// For a start with a million bans on a busy machine.
const START: Duration = Duration::from_secs(300);

/// A state directory on the disk: /tmp is the same in there.
fn on_disk(world: &World) -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let config = format!(
        "[paths]\nstate = \"{}\"\n[firewall]\nbackend = \"nftables\"\n{CONFIG}",
        state.path().display()
    );
    world.write("/etc/pipeban/pipeban.toml", &config);
    state
}

/// Bans of before, as an engine would have left them.
fn fill(state: &Path, count: u32) {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let home = Home {
        path: state.join("pipeban.sqlite3"),
        boot_id: boot_id.trim().to_owned(),
        memory: Duration::from_secs(86_400),
    };
    let now = pipeban::jail::Now {
        boot: Moment::from_boottime(clock::boottime()),
        wall: jiff::Timestamp::now(),
    };
    let ban = |n: u32| Ban {
        id: BanId::new(u64::from(n) + 1_000_000),
        jail: JAIL.parse().unwrap(),
        net: std::net::IpAddr::from(Ipv4Addr::from(0x0b00_0000 + n)).into(),
        ports: Ports::List {
            tcp: [80, 443].into(),
            udp: [443].into(),
        },
        mode: Mode::Enforced,
        since: now.boot,
        since_wall: now.wall,
        until: Some(
            now.boot
                .plus(Duration::from_secs(86_400 + u64::from(n % 86_400))),
        ),
        failures: 1,
        within: Duration::ZERO,
        cause: pipeban::jail::Cause::Jail,
    };
    let mut database = home.open().unwrap();
    let all: Vec<u32> = (0..count).collect();
    for some in all.chunks(10_000) {
        let ops: Vec<Op> = some.iter().map(|n| Op::Ban(ban(*n))).collect();
        database.commit(&ops, now).unwrap();
    }
}

/// Starts the engine; when it answers a worker, with all that it restored in force.
fn start(world: &World, stream: u64) -> (Line, Duration) {
    let begin = Instant::now();
    world
        .command(&["setsid", "--fork", "/usr/bin/pipeban", "engine"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    let socket = world.path("/run/pipeban/engine.sock");
    loop {
        if let Ok(mut line) = Line::connect(&socket) {
            line.stream.set_read_timeout(Some(START)).unwrap();
            line.send(&hello(stream, VERSION)).unwrap();
            match line.receive().unwrap() {
                Reply::Welcome { .. } => return (line, begin.elapsed()),
                other => panic!("{other:?}"),
            }
        }
        assert!(begin.elapsed() < START, "no engine");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn stop(world: &World, line: Line) -> Duration {
    let begin = Instant::now();
    let said = world.pipeban(&["engine", "--stop"]);
    assert_eq!(said.status, 0, "{said:?}");
    drop(line);
    begin.elapsed()
}

fn engine_pid(world: &World) -> u32 {
    let engine = world.processes().into_iter().find(|process| {
        process.name == "pipeban" && process.argv.last().is_some_and(|last| last == "engine")
    });
    engine.expect("an engine").pid
}

/// A file of the engine's in /proc.
fn proc_file(world: &World, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{name}", engine_pid(world))).unwrap()
}

/// Of the engine, in MB: now, and at most.
fn memory(world: &World) -> (u64, u64) {
    let status = proc_file(world, "status");
    let of = |name: &str| kilobytes(&status, name) / 1024;
    (of("VmRSS:"), of("VmHWM:"))
}

/// Time of a processor that the engine has used.
fn worked(world: &World) -> Duration {
    processor_time(&proc_file(world, "stat"))
}

/// A client that was not banned before: when its ban, in force by then, was logged, and when it was
/// committed.
fn one_more(world: &World, worker: &mut Line, n: u32) -> (Duration, Duration) {
    let log = world.path("/var/log/pipeban.log");
    let length = || std::fs::metadata(&log).unwrap().len();
    let before = length();
    let client = Ipv4Addr::from(0x0c00_0000 + n).to_string();
    let hits = vec![hit(u64::from(n) + 1, &client, &[JAIL])];
    let begin = Instant::now();
    worker.send(&Request::Hits(hits)).unwrap();
    while length() == before {
        std::hint::spin_loop();
    }
    let logged = begin.elapsed();
    let words = worker.ack().unwrap().1.join("\n");
    assert!(words.contains(&format!("Ban {client}")), "{words}");
    (logged, begin.elapsed())
}

/// How long each command takes to answer, whatever the answer is.
fn answers(world: &World, engine: &str) -> Vec<String> {
    let commands: &[&[&str]] = &[
        &["status"],
        &["status", "--prometheus"],
        &["explain", "11.0.5.5"],
        &["explain", "11.0.0.0/16"],
        &["explain", "11.0.0.0/8"],
        &["report"],
        &["report", "--format", "html", "--output", "/dev/null"],
        &["doctor"],
    ];
    // `status` waits for an engine.
    let asked = match engine {
        "with a million bans" | "in a flood" => commands,
        _ => &commands[2..],
    };
    let timed = asked.iter().map(|argv| {
        let times = (0..5).map(|_| {
            let begin = Instant::now();
            world.pipeban(argv);
            begin.elapsed()
        });
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        let (least, most) = (times[0], times[4]);
        let line = format!("engine {engine}: {argv:?} {least:.2?} to {most:.2?}");
        eprintln!("{line}");
        line
    });
    timed.collect()
}

/// Sends hits of banned clients as fast as the engine acknowledges them, until `over`; how many.
fn flood(worker: &mut Line, over: &AtomicBool) -> u64 {
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let client = |n: u64| Ipv4Addr::from(0x0b00_0000 + u32::try_from(n % 1_000_000).unwrap());
        let hits = (sent + 1..=sent + 200).map(|n| hit(n, &client(n).to_string(), &[JAIL]));
        worker.send(&Request::Hits(hits.collect())).unwrap();
        sent += 200;
        while worker.ack().unwrap().0 < sent {}
    }
    sent
}

#[test]
fn measure_answers_while_the_engine_is_stopped_busy_or_holds_a_million_bans() {
    let Some(world) = World::new() else { return };
    let state = on_disk(&world);
    let (worker, _) = start(&world, 1);
    stop(&world, worker);
    fill(state.path(), 1_000_000);
    let (mut worker, _) = start(&world, 2);
    let mut table = answers(&world, "with a million bans");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let begin = Instant::now();
        let flood = scope.spawn(|| flood(&mut worker, &over));
        table.extend(answers(&world, "in a flood"));
        over.store(true, Ordering::Relaxed);
        let (sent, took) = (flood.join().unwrap(), begin.elapsed());
        table.push(format!("the flood: {sent} hits in {took:.1?}"));
    });
    let engine = Pid::from_raw(engine_pid(&world).cast_signed());
    kill(engine, Signal::SIGSTOP).unwrap();
    table.extend(answers(&world, "that does not answer"));
    kill(engine, Signal::SIGCONT).unwrap();
    stop(&world, worker);
    table.extend(answers(&world, "stopped"));
    eprintln!("{}", table.join("\n"));
}

/// All there, and those that `status` shows in force: it asks the kernel.
fn check(world: &World, count: u64) {
    let status = world.status(None);
    let warnings = status["warnings"].to_string();
    assert!(!warnings.contains("in force"), "{warnings}");
    let jail = &status["jails"][0];
    assert!(jail["currently_banned"].as_u64() >= Some(count), "{jail}");
    let shown = jail["banned"].as_array().unwrap();
    assert!(!shown.is_empty());
    assert!(shown.iter().all(|ban| ban["in_force"] == true), "{jail}");
}

fn connects(clients: &Network, from: &str) -> bool {
    let server = SocketAddr::new(SERVER4, 80);
    clients.connect(from.parse().unwrap(), server).is_ok()
}

#[test]
fn measure_a_million_bans_through_the_engine() {
    let mut table = Vec::new();
    for count in [1_000, 1_000_000] {
        let Some(world) = World::new() else { return };
        let state = on_disk(&world);
        let _server = world.server().listen(SocketAddr::new(SERVER4, 80));
        let clients = world.clients();
        let (mut worker, _) = start(&world, 1);
        worker
            .send(&Request::Hits(vec![hit(1, BAD, &[JAIL])]))
            .unwrap();
        worker.ack().unwrap();
        stop(&world, worker);
        fill(state.path(), count);

        let (mut worker, started) = start(&world, 2);
        let starting = worked(&world);
        eprintln!("{count} bans: start {started:.1?} (processor {starting:.1?})");
        check(&world, u64::from(count));
        let times: Vec<_> = (0..200).map(|n| one_more(&world, &mut worker, n)).collect();
        let in_force = median(times.iter().map(|times| times.0).collect());
        let stored = median(times.iter().map(|times| times.1).collect());
        let begin = Instant::now();
        assert_eq!(world.pipeban(&["status"]).status, 0);
        let status = begin.elapsed();
        let (used, peak) = memory(&world);
        eprintln!("one more: in force {in_force:.1?}, stored {stored:.1?}; status {status:.1?}");

        assert!(connects(&clients, GOOD) && !connects(&clients, BAD));
        let (over, got_in, tried) = (
            AtomicBool::new(false),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let (stopped, again) = std::thread::scope(|scope| {
            for _ in 0..KNOCKERS {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        tried.fetch_add(1, Ordering::Relaxed);
                        let in_ = usize::from(connects(&clients, BAD));
                        got_in.fetch_add(in_, Ordering::Relaxed);
                    }
                });
                std::thread::sleep(Duration::from_millis(95));
            }
            let stopped = stop(&world, worker);
            let (_, again) = start(&world, 3);
            std::thread::sleep(Duration::from_secs(2));
            over.store(true, Ordering::Relaxed);
            (stopped, again)
        });
        let (got_in, tried) = (got_in.into_inner(), tried.into_inner());
        eprintln!("stop {stopped:.1?}, restart {again:.1?}, got in: {got_in} of {tried}");
        check(&world, u64::from(count) + 200);
        for (what, value) in [
            ("start", format!("{started:.1?}")),
            ("of it at work", format!("{starting:.1?}")),
            ("one more, in force", format!("{in_force:.1?}")),
            ("one more, stored", format!("{stored:.1?}")),
            ("memory", format!("{used} MB, at most {peak} MB")),
            ("status", format!("{status:.1?}")),
            ("stop", format!("{stopped:.1?}")),
            ("restart", format!("{again:.1?}")),
            ("got in meanwhile", format!("{got_in} of {tried}")),
        ] {
            table.push(format!("{count:>9} bans  {what:<20}{value}"));
        }
        assert_eq!(got_in, 0, "of {tried}");
        assert!(connects(&clients, GOOD));
    }
    eprintln!("{}", table.join("\n"));
}
