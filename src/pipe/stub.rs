//! The process Apache knows. It ends the moment Apache says so; what must go on is another
//! process's.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, pipe2, setsid};

use super::engine_link::Starter;
use super::keeper::{self, Inherited};
use super::output::Streams;
use super::reader::PrivatePipe;
use super::ring::Ring;
use super::{IGNORED, Log, family, source};
use crate::sys::{process, signals};

/// What cannot be had (memory, a process) is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A keeper that ran for less is followed by the next one only after a pause.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Most bytes a rehearsal prints.
const MAX_TOLD: u64 = 64 * 1024;

/// Runs to the end of input; SIGTERM ends the process before.
pub(super) fn run(log: Log, starter: Starter) {
    // A SIGTERM that comes before there is a keeper would leave the pipe without a reader.
    let _held = signals::hold_all();
    let from_terminal = io::stdin().is_terminal() || io::stderr().is_terminal();
    // Where a signal cannot be set there is nothing better to do than to go on.
    let _ = signals::ignore(&IGNORED);
    if from_terminal {
        let _ = signals::set_default(&[Signal::SIGINT]);
    }
    let _ = signals::exit_zero_on(Signal::SIGTERM);
    // Rust's own handlers for these swallow the first one that somebody sends.
    let _ = signals::set_default(&[Signal::SIGSEGV, Signal::SIGBUS]);
    // Where it is ignored no child's end can be waited for.
    let _ = signals::set_default(&[Signal::SIGCHLD]);

    let apache = family::apache();
    persist(source::make_stdin_a_pipe);
    // Made here, so that they outlive keepers as well as workers.
    let ring = persist(|| Ring::new(random()));
    let private = persist(PrivatePipe::new);
    let streams = persist(|| Streams::wanted(log.output.as_ref()));

    let mut pause = Duration::ZERO;
    loop {
        let began = Instant::now();
        let (keeper, told) =
            persist(|| start_keeper(&log, &starter, apache, &ring, &private, &streams));
        // Also those that were held back by whoever started us.
        let _ = signals::let_all_through();
        let lines = read_told(told);
        if ended_well(keeper) {
            // Where nobody reads it, it is lost.
            let _ = io::stderr().write_all(&lines);
            return;
        }
        pause = if began.elapsed() < SHORT_LIFE {
            (pause * 2).clamp(Duration::from_millis(10), MAX_PAUSE)
        } else {
            Duration::ZERO
        };
        std::thread::sleep(pause);
    }
}

/// Until it succeeds: a logger that gives up hangs the whole web server once the pipe is full.
fn persist<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
    let mut told = false;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if !told => {
                told = true;
                let _ = writeln!(io::stderr(), "pipeban: cannot start yet: {error}");
            }
            Err(_) => {}
        }
        // Who cannot start can at least be ended.
        let _ = signals::let_all_through();
        std::thread::sleep(ASK_AGAIN);
    }
}

fn start_keeper(
    log: &Log,
    starter: &Starter,
    apache: Option<Pid>,
    ring: &Ring,
    private: &PrivatePipe,
    streams: &Streams,
) -> io::Result<(Pid, OwnedFd)> {
    let (told, into) = pipe2(OFlag::O_CLOEXEC)?;
    let inherited = Inherited {
        log: log.clone(),
        starter: starter.clone(),
        apache,
        ring: ring.clone(),
        private: private.try_clone()?,
        streams: streams.try_clone()?,
        told: into,
    };
    let mut keep = vec![
        inherited.private.out.as_raw_fd(),
        inherited.private.into.as_raw_fd(),
        inherited.told.as_raw_fd(),
    ];
    keep.extend(inherited.streams.raw());
    // prefork signals the whole process group: none may reach the keeper before it ignores them.
    let held = signals::hold_all()?;
    let keeper = process::fork_child(&keep, move || {
        let _ = signals::ignore(&IGNORED);
        let _ = signals::ignore(&[Signal::SIGTERM]);
        let _ = signals::let_all_through();
        let _ = setsid();
        let _ = chdir("/");
        let _ = process::redirect_to_null(false);
        keeper::run(inherited)
    });
    drop(held);
    Ok((keeper?, told))
}

/// What the keeper tells, until it ends.
fn read_told(told: OwnedFd) -> Vec<u8> {
    let mut lines = Vec::new();
    // An error means that there is no more.
    let _ = File::from(told).take(MAX_TOLD).read_to_end(&mut lines);
    lines
}

fn ended_well(keeper: Pid) -> bool {
    loop {
        match waitpid(keeper, None) {
            Ok(WaitStatus::Exited(_, status)) => return status == 0,
            Ok(WaitStatus::Signaled(..)) => return false,
            Err(nix::errno::Errno::EINTR) | Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// Names a stream: no other on this host must have it.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    match read {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => {
            let now = crate::sys::clock::boottime().as_nanos();
            u64::try_from(now).unwrap_or(0) ^ (u64::from(std::process::id()) << 40)
        }
    }
}

/// What `pipeban log` was asked for, with paths that hold in any directory.
pub(super) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
