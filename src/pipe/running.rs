//! The worker's process, as the keeper sees it: started, watched, ended.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::crashes::Ended;
use super::layout::Files;
use super::link::{self, Start};
use super::log::{END_OF_INPUT, WORKER};
use super::ring::Ring;
use super::wake::Wakes;
use crate::sys::process;

/// A worker that makes no progress for this long, while blocks wait, is replaced.
const STALL: Duration = Duration::from_secs(2);
/// The same while it compiles its filters.
const STALL_PREPARING: Duration = Duration::from_secs(60);
/// How often progress is checked while blocks wait.
const WATCH: Duration = Duration::from_millis(500);
/// How long a worker may run on after the end of input, when all blocks are matched: longer than
/// its last hits wait for the engine.
const END_PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Running {
    child: Child,
    /// Readable when the worker ends; `None`: the kernel has no pidfd.
    pub(super) ended: Option<OwnedFd>,
    /// `None`: the worker closed it.
    pub(super) link: Option<OwnedFd>,
    /// When it got the message that no block follows.
    end_sent: Option<Instant>,
    stalled: bool,
    watch: Option<Watch>,
}

/// The last progress of matching.
struct Watch {
    beats: u64,
    since: Instant,
    next: Instant,
}

/// How a worker ended.
pub(super) enum End {
    /// It has done everything.
    OfInput,
    /// Too early: how, and in words.
    Early(Ended, String),
}

impl Running {
    /// Starts the process, and hands it the memory.
    pub(super) fn start(
        start: &Start,
        exe: &Path,
        files: &Files,
        wakes: &Wakes,
    ) -> io::Result<Running> {
        let (ours, theirs) = link::pair()?;
        let spawn = |program: &Path| {
            Command::new(program)
                .arg0("pipeban")
                .args([WORKER, &start.kind.to_string()])
                .args(&start.path)
                .env_clear()
                .current_dir("/")
                .stdin(Stdio::from(theirs.try_clone()?))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        // This program, also if its file was replaced; without /proc, the file.
        let child = spawn(Path::new("/proc/self/exe")).or_else(|_| spawn(exe))?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let mut running = Running {
            child,
            ended: process::watch(pid).ok(),
            link: None,
            end_sent: None,
            stalled: false,
            watch: None,
        };
        if let Err(error) = link::send_start(&ours, start, files, wakes.worker_fd()) {
            running.kill();
            let _ = running.child.wait();
            return Err(error);
        }
        running.link = Some(ours);
        Ok(running)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn kill(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
    }

    /// Ends a worker that makes no progress while blocks wait.
    pub(super) fn watch(&mut self, ring: &Ring, wakes: &Wakes, now: Instant) {
        if self.watch.is_none() && !wakes.is_watching() {
            return;
        }
        let beats = ring.beats();
        let watch = self.watch.get_or_insert(Watch {
            beats,
            since: now,
            next: now + WATCH,
        });
        if now < watch.next {
            return;
        }
        watch.next = now + WATCH;
        if !ring.pending() {
            self.watch = None;
            wakes.stop_watching();
            // A block may have come in between.
            if ring.pending() {
                wakes.worker();
            }
            return;
        }
        if watch.beats != beats {
            (watch.beats, watch.since) = (beats, now);
        }
        let limit = match ring.is_preparing() {
            true => STALL_PREPARING,
            false => STALL,
        };
        if now - watch.since >= limit && !self.stalled {
            self.stalled = true;
            self.kill();
        }
    }

    /// When [`Running::watch`] and [`Running::send_end`] are due.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = Instant> {
        let watch = self.watch.as_ref().map(|watch| watch.next);
        let end = self.end_sent.map(|sent| sent + END_PATIENCE);
        let end = end.map(|at| at.max(now + WATCH));
        [watch, end].into_iter().flatten()
    }

    /// Tells the worker that no block follows. True: it has matched everything and did not end.
    pub(super) fn send_end(&mut self, ring: &Ring, now: Instant) -> bool {
        match (self.end_sent, &self.link) {
            (None, Some(link)) => {
                // A worker that hangs may have its queue full: the next one gets it.
                self.end_sent = link::send_end(link).is_ok().then_some(now);
            }
            (Some(sent), _) if now - sent >= END_PATIENCE && !ring.pending() => {
                self.kill();
                let _ = self.child.wait();
                return true;
            }
            _ => {}
        }
        false
    }

    /// `None`: it runs.
    pub(super) fn end(&mut self) -> Option<End> {
        let status = match self.child.try_wait() {
            Ok(Some(status)) => status,
            Ok(None) => return None,
            Err(_) => ExitStatus::from_raw(Signal::SIGKILL as i32),
        };
        if self.end_sent.is_some() && status.code() == Some(END_OF_INPUT) {
            return Some(End::OfInput);
        }
        if self.stalled {
            let why = format!("made no progress for {} s", STALL.as_secs());
            return Some(End::Early(Ended::Crashed, why));
        }
        let how = match status.signal() {
            Some(signal) if !is_crash(signal) => Ended::Killed,
            _ => Ended::Crashed,
        };
        Some(End::Early(how, format!("ended ({status})")))
    }
}

fn is_crash(signal: i32) -> bool {
    [
        Signal::SIGSEGV,
        Signal::SIGABRT,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGSYS,
        Signal::SIGTRAP,
    ]
    .iter()
    .any(|crash| *crash as i32 == signal)
}
