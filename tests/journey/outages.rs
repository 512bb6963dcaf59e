//! What Apache's clients feel of a broken pipeban, and what is lost. By `make bench`.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::crashes;
use crate::support::apache::{ACCESS_LOG, BOTH_PIPES};
use crate::support::http::Connection;
use crate::support::load::Load;
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, eventually};

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[test]
fn measure_what_clients_feel_of_kills_stops_a_full_disk_and_no_engine() {
    let wait = |seconds| std::thread::sleep(Duration::from_secs(seconds));
    let kill = |pick: fn(&Apache<'_>) -> crate::support::process::Process| {
        move |_: &World, apache: &Apache<'_>| {
            pick(apache).signal(Signal::SIGKILL);
            std::thread::sleep(Duration::from_secs(2));
        }
    };
    row("nothing", &|_, _| wait(2));
    row(
        "kill -9 worker, access",
        &kill(|apache| apache.pipe("access").worker),
    );
    row(
        "kill -9 worker, error",
        &kill(|apache| apache.pipe("error").worker),
    );
    row(
        "kill -9 keeper, access",
        &kill(|apache| apache.pipe("access").keeper),
    );
    row(
        "kill -9 keeper, error",
        &kill(|apache| apache.pipe("error").keeper),
    );
    row(
        "kill -9 stub, access",
        &kill(|apache| apache.pipe("access").stub),
    );
    row("kill -9 engine", &|world, _| {
        world.engine().signal(Signal::SIGKILL);
        wait(2);
    });
    row("worker stopped for 10 s", &|_, apache| {
        let worker = apache.pipe("access").worker;
        worker.signal(Signal::SIGSTOP);
        wait(10);
        worker.signal(Signal::SIGCONT);
    });
    row("disk full for 10 s", &|world, _| {
        let fill = "dd if=/dev/zero of=/var/log/apache2/filler bs=4k 2>/dev/null";
        assert_ne!(world.run(&["sh", "-c", fill]).status, 0, "it is full");
        wait(10);
        world.must(&["rm", "/var/log/apache2/filler"]);
    });
    row("engine stopped for 60 s", &|world, _| {
        let engine = world.engine();
        engine.signal(Signal::SIGSTOP);
        wait(60);
        engine.signal(Signal::SIGCONT);
    });
    row("no engine for 60 s", &|world, _| {
        let engine = world.engine();
        // Nothing to start another one from.
        world.must(&["umount", "--lazy", "/usr/bin/pipeban"]);
        engine.signal(Signal::SIGKILL);
        wait(60);
        world.must(&["mount", "--bind", "/mnt/pipeban", "/usr/bin/pipeban"]);
        world.start_engine();
    });
}

fn row(name: &str, outage: &dyn Fn(&World, &Apache<'_>)) {
    let Some(world) = World::new() else { return };
    let small = [
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=64m",
        "small",
        "/var/log/apache2",
    ];
    world.must(&small);
    let apache = crashes::start(&world);
    let load = Load::start(&world);
    std::thread::sleep(Duration::from_millis(500));
    outage(&world, &apache);
    std::thread::sleep(Duration::from_millis(500));
    let outcome = load.stop();
    let keeper = name.contains("keeper");
    let table = crashes::measure(&world, &outcome, keeper);
    say(&format!(
        "{name:<26} answered {:>6}  refused {:>2}  longest {:>8.1?}  not logged {}",
        table.answered,
        outcome.failed.len(),
        outcome.slowest,
        table.lost
    ));
    assert!(keeper || table.lost == 0, "{name}: {table:?}");
    assert!(outcome.failed.is_empty(), "{name}: {:?}", outcome.failed);
}

/// A worker that still compiles its filters is replaced later.
fn has_matched(world: &World, pid: u32) -> bool {
    let status = world.status(None);
    let workers = status["workers"].as_array().cloned().unwrap_or_default();
    workers.iter().any(|worker| {
        worker["pid"] == pid && worker["lines"].as_u64() > Some(0) && worker["pending"] == 0
    })
}

/// Each worker is stopped, and so is the one that replaces it: the keeper writes on.
#[test]
fn measure_requests_served_while_every_worker_is_stopped() {
    let Some(world) = World::new() else { return };
    let apache = Apache::start(&world, Mpm::Event, BOTH_PIPES);
    apache.pipe("access");
    let clients = world.clients();
    let mut client = Connection::open(&clients, "198.51.100.9", SERVER4).expect("connects");
    let (mut served, mut slowest) = (0, Duration::ZERO);
    let mut stopped = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(15) {
        let worker = apache.pipe("access").worker;
        if !stopped.contains(&worker) && has_matched(&world, worker.inside) {
            worker.signal(Signal::SIGSTOP);
            stopped.push(worker);
        }
        for _ in 0..100 {
            let asked = Instant::now();
            client.get("/stopped", "").expect("answered");
            slowest = slowest.max(asked.elapsed());
            served += 1;
        }
    }
    let last = stopped.last().expect("a worker");
    last.signal(Signal::SIGCONT);
    eventually("all of them are logged", || {
        let log = world.read(ACCESS_LOG);
        match log.matches("GET /stopped ").count() == served {
            true => Ok(()),
            false => Err(format!("{} of {served} lines", log.lines().count())),
        }
    });
    say(&format!(
        "{} workers stopped, each until it was replaced: {served} requests served in 15 s, the \
         longest {slowest:.1?}",
        stopped.len()
    ));
    assert!(stopped.len() >= 3, "{stopped:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}
