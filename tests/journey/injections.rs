//! Kills at random, kills at chosen system calls, and system calls that fail, under load: no line, no
//! acknowledged hit and no ban is lost, and Apache does not wait. Each row is printed. By `make bench`.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::crashes;
use crate::support::load::Load;
use crate::support::process::Process;
use crate::support::world::SERVER4;
use crate::support::{Apache, World, eventually, http, skip_without};

const JAIL: &str = "apache-cgitraversal";

/// A request may take this long on a loaded machine.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Engine,
    Keeper(&'static str),
    Worker(&'static str),
}

use Victim::{Engine, Keeper, Worker};

impl Victim {
    fn find(self, world: &World, apache: &Apache<'_>) -> Process {
        match self {
            Engine => world.engine(),
            Keeper(kind) => apache.pipe(kind).keeper,
            Worker(kind) => apache.pipe(kind).worker,
        }
    }
}

/// A world with load, and the attackers that were banned so far.
struct Trial<'w> {
    world: &'w World,
    apache: Apache<'w>,
    load: Load,
    attackers: usize,
}

impl<'w> Trial<'w> {
    fn new(world: &'w World) -> Trial<'w> {
        let apache = crashes::start(world);
        Trial {
            world,
            apache,
            load: Load::start(world),
            attackers: 0,
        }
    }

    /// From an address that was not seen before.
    fn attack(&mut self) -> String {
        self.attackers += 1;
        let attacker = format!("198.51.100.{}", 10 + self.attackers);
        http::attack(&self.world.clients(), &attacker, SERVER4);
        attacker
    }

    /// Each attacker is banned once, each line is there, no client waited.
    fn end(self, name: &str, may_lose: bool) {
        // A ban at the end shows that all processes work.
        let Trial {
            world,
            load,
            attackers,
            ..
        } = self;
        let outcome = load.stop();
        let table = crashes::measure(world, &outcome, may_lose);
        let jail = world.jail(JAIL);
        let line = format!(
            "{name:<44} answered {:>5}  refused {}  longest {:>8.1?}  lost {}  bans {} of {attackers}\n",
            table.answered,
            outcome.failed.len(),
            outcome.slowest,
            table.lost,
            jail["total_banned"],
        );
        // Not eprintln: the harness would swallow it.
        let _ = std::io::stderr().write_all(line.as_bytes());
        assert!(outcome.failed.is_empty(), "{name}: {:?}", outcome.failed);
        assert!(outcome.slowest < LONGEST, "{name}: {:?}", outcome.slowest);
        assert!(may_lose || table.lost == 0, "{name}: {table:?}");
        assert_eq!(jail["total_banned"], attackers, "{name}: {jail}");
        let holds = world.must(&["nft", "list", "table", "inet", "pipeban"]);
        for attacker in 1..=attackers {
            let address = format!("198.51.100.{}", 10 + attacker);
            assert!(holds.contains(&address), "{name}: {address} is not banned");
        }
    }
}

/// strace makes a system call of a process fail, or kills the process in it.
struct Strace {
    process: Child,
    /// What it has seen.
    calls: tempfile::NamedTempFile,
}

impl Strace {
    fn attach(process: &Process, inject: &str) -> Strace {
        let call = inject.split(':').next().expect("a system call");
        let calls = tempfile::NamedTempFile::new().expect("made");
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-p", &process.pid.to_string(), "-o"])
            .arg(calls.path())
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={inject}")])
            .stderr(Stdio::null())
            .spawn()
            .expect("strace starts");
        let status = format!("/proc/{}/status", process.pid);
        eventually("strace is attached", || {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            match text.contains("TracerPid:\t0") {
                true => Err(text),
                false => Ok(()),
            }
        });
        Strace {
            process: strace,
            calls,
        }
    }

    /// How many calls were made to fail.
    fn injected(&self) -> usize {
        let calls = std::fs::read_to_string(self.calls.path()).unwrap_or_default();
        calls.matches("(INJECTED)").count()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // It lets go of the process.
        let _ = kill(
            Pid::from_raw(self.process.id().cast_signed()),
            Signal::SIGINT,
        );
        // It may wait for ever for a thread of a process that was killed, which waits for it.
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(2) {
                let _ = self.process.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn measure_seventy_one_kills_at_random_moments_under_load() {
    let Some(world) = World::new() else { return };
    let mut trial = Trial::new(&world);
    let victims = [
        Engine,
        Worker("access"),
        Keeper("access"),
        Worker("error"),
        Engine,
    ];
    let mut random = u64::from(std::process::id());
    for round in 0..71 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let victim = victims[round % victims.len()].find(&world, &trial.apache);
        let attacker = trial.attack();
        std::thread::sleep(Duration::from_micros((random >> 33) % 30_000));
        victim.signal(Signal::SIGKILL);
        world.until_banned(JAIL, &attacker);
    }
    trial.end("71 kills at random moments", false);
}

#[test]
fn measure_kills_at_chosen_system_calls() {
    const ROWS: [(Victim, &str); 24] = [
        (Engine, "sendto:when=3"),
        (Engine, "sendto:when=1"),
        (Engine, "recvfrom:when=1"),
        (Engine, "read:when=5"),
        (Engine, "recvfrom:when=5"),
        (Engine, "write:when=3"),
        (Engine, "pwrite64:when=1"),
        (Engine, "pwrite64:when=4"),
        (Engine, "statx:when=2"),
        (Engine, "fcntl:when=7"),
        (Engine, "epoll_wait:when=9"),
        (Engine, "futex:when=4"),
        (Keeper("access"), "tee:when=5"),
        (Keeper("access"), "splice:when=5"),
        (Keeper("access"), "read:when=3"),
        (Keeper("access"), "write:when=5"),
        (Keeper("access"), "poll:when=7"),
        (Keeper("access"), "futex:when=3"),
        (Worker("access"), "futex:when=5"),
        (Worker("access"), "read:when=2"),
        (Worker("error"), "sendto:when=1"),
        (Worker("error"), "sendto:when=2"),
        (Worker("error"), "poll:when=3"),
        (Worker("error"), "futex:when=5"),
    ];
    if Command::new("strace").arg("-V").output().is_err() {
        return skip_without("strace");
    }
    let Some(world) = World::new() else { return };
    let mut trial = Trial::new(&world);
    let first = trial.attack();
    world.until_banned(JAIL, &first);
    let mut missed = Vec::new();
    for (victim, inject) in ROWS {
        let process = victim.find(&world, &trial.apache);
        let (call, when) = inject.split_once(':').expect("a call and a number");
        let strace = Strace::attach(&process, &format!("{call}:signal=KILL:{when}"));
        let attacker = trial.attack();
        world.until_banned(JAIL, &attacker);
        // Load has every call come, where the process makes it at all.
        let start = Instant::now();
        while process.is_alive() && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if process.is_alive() {
            missed.push((victim, inject));
        }
        drop(strace);
    }
    trial.end(
        &format!("24 kills at system calls, not reached {missed:?}"),
        false,
    );
}

#[test]
fn measure_system_calls_that_fail() {
    const ROWS: [(Victim, &str); 19] = [
        (Engine, "pwrite64:error=ENOSPC"),
        (Engine, "pwrite64:error=EIO"),
        (Engine, "fcntl:error=EIO"),
        (Engine, "sendto:error=ENOMEM"),
        (Engine, "write:error=ENOSPC"),
        (Engine, "openat:error=EMFILE"),
        (Engine, "openat:error=EIO"),
        (Engine, "accept4:error=EMFILE"),
        (Engine, "socket:error=EMFILE"),
        (Engine, "mmap:error=ENOMEM"),
        (Keeper("access"), "write:error=ENOSPC"),
        (Keeper("access"), "write:error=EIO"),
        (Keeper("access"), "tee:error=ENOMEM"),
        (Keeper("access"), "splice:error=EIO"),
        (Keeper("access"), "openat:error=EMFILE"),
        (Keeper("access"), "socket:error=EMFILE"),
        // Not `read`: a worker reads nothing but /proc, where the kernel never says EIO.
        (Worker("error"), "poll:error=ENOMEM"),
        (Worker("error"), "recvfrom:error=EIO"),
        (Worker("error"), "sendto:error=ENOMEM"),
    ];
    if Command::new("strace").arg("-V").output().is_err() {
        return skip_without("strace");
    }
    for (victim, inject) in ROWS {
        let Some(world) = World::new() else { return };
        let mut trial = Trial::new(&world);
        let before = trial.attack();
        world.until_banned(JAIL, &before);
        let process = victim.find(&world, &trial.apache);
        let strace = Strace::attach(&process, inject);
        // The ban may wait for the end of the fault.
        let meanwhile = trial.attack();
        // The keeper has to start another worker, and to connect it to the engine.
        if let Keeper(kind) = victim {
            Worker(kind)
                .find(&world, &trial.apache)
                .signal(Signal::SIGKILL);
        }
        // Each needs a new connection to the engine.
        for _ in 0..4 {
            let _ = world.run(&["timeout", "0.5", "/usr/bin/pipeban", "status"]);
            std::thread::sleep(Duration::from_millis(250));
        }
        let injected = strace.injected();
        drop(strace);
        world.until_banned(JAIL, &meanwhile);
        let after = trial.attack();
        world.until_banned(JAIL, &after);
        trial.end(&format!("{victim:?} {inject} ({injected})"), false);
    }
}
