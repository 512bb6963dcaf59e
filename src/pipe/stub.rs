//! The process that Apache starts and knows. It ends as soon as Apache asks; the keeper goes on.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, pipe2, setsid};

use super::engine_link::Starter;
use super::keeper::{self, Inherited};
use super::layout::Files;
use super::log::{IGNORED, Log};
use super::output::Streams;
use super::reader::PrivatePipe;
use super::ring::Ring;
use super::{advice, family, source};
use crate::record::display_lines;
use crate::sys::{process, signals};

/// A failed attempt to get memory or a process is repeated after this time.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// A keeper that ran for less is followed by the next one only after a pause.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Most bytes of the engine's answers that are printed.
const MAX_ANSWERS: u64 = 64 * 1024;

/// Runs to the end of input; SIGTERM ends the process before. Signals are held back until there is
/// a keeper.
pub(super) fn run(log: Log, starter: Starter) {
    let from_terminal = io::stdin().is_terminal() || io::stderr().is_terminal();
    // If a signal cannot be set, going on is still best.
    let _ = signals::ignore(&IGNORED);
    if from_terminal {
        let _ = signals::set_default(&[Signal::SIGINT]);
    }
    let _ = signals::exit_zero_on(Signal::SIGTERM);
    // Rust's handlers for these ignore the first one.
    let _ = signals::set_default(&[Signal::SIGSEGV, Signal::SIGBUS]);
    // If it is ignored, the end of a child cannot be waited for.
    let _ = signals::set_default(&[Signal::SIGCHLD]);

    let apache = family::apache();
    persist(source::make_stdin_a_pipe);
    // Made here, so that they outlive keepers as well as workers.
    let (ring, files) = persist(|| Ring::new(random()));
    let private = persist(PrivatePipe::new);
    let streams = persist(|| Streams::wanted(log.output.as_ref()));

    let mut pause = Duration::ZERO;
    loop {
        let began = Instant::now();
        let memory = (&ring, &files);
        let (keeper, answers) =
            persist(|| start_keeper(&log, &starter, apache, memory, &private, &streams));
        // Also those that the parent process held back.
        let _ = signals::let_all_through();
        let lines = read_answers(answers);
        if ended_well(keeper) {
            // Stderr may be closed.
            let _ = io::stderr().write_all(shown(&lines).as_bytes());
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
    let mut reported = false;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if !reported => {
                reported = true;
                let _ = writeln!(io::stderr(), "pipeban: cannot start yet: {error}");
            }
            Err(_) => {}
        }
        // A stub that cannot start can at least be ended.
        let _ = signals::let_all_through();
        std::thread::sleep(TRY_AGAIN);
    }
}

fn start_keeper(
    log: &Log,
    starter: &Starter,
    apache: Option<Pid>,
    (ring, files): (&Ring, &Files),
    private: &PrivatePipe,
    streams: &Streams,
) -> io::Result<(Pid, OwnedFd)> {
    let (answers, into) = pipe2(OFlag::O_CLOEXEC)?;
    let inherited = Inherited {
        log: log.clone(),
        starter: starter.clone(),
        apache,
        ring: ring.clone(),
        files: files.try_clone()?,
        private: private.try_clone()?,
        streams: streams.try_clone()?,
        answers: into,
    };
    let mut keep = vec![
        inherited.private.out.as_raw_fd(),
        inherited.private.into.as_raw_fd(),
        inherited.answers.as_raw_fd(),
        inherited.files.ring.as_raw_fd(),
        inherited.files.page.as_raw_fd(),
    ];
    keep.extend(inherited.streams.raw());
    // prefork signals the whole process group: the keeper must ignore the signals first.
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
    Ok((keeper?, answers))
}

/// The engine's answers; returns when the keeper ends.
fn read_answers(answers: OwnedFd) -> Vec<u8> {
    let mut lines = Vec::new();
    // An error means that there is no more.
    let _ = File::from(answers)
        .take(MAX_ANSWERS)
        .read_to_end(&mut lines);
    lines
}

/// The answers, which come through the worker, and what to do about them.
fn shown(answers: &[u8]) -> String {
    let lines = display_lines(&String::from_utf8_lossy(answers));
    let advice = advice::of(&lines);
    lines + &advice
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

/// A name for the stream, unique on this host.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_cannot_send_commands_to_the_terminal() {
        assert_eq!(shown(b"\x1b]0;x\x07\xff\n"), "\\x1b]0;x\\x07\u{fffd}\n");
    }
}
