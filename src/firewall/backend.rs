//! What a back end does, and how it fails.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;

use super::desired::{BanKey, Desired};
use crate::jail::{FirewallKey, Moment, Now};
use crate::sys::clock;

/// What enforces bans before the call returns. It keeps no copy of the wanted bans, retries
/// nothing and has no timers: [`super::Firewall`] calls it again.
pub(super) trait Backend: Send {
    /// Identifies its trouble.
    fn name(&self) -> &'static str;

    /// What the operator can do when it fails.
    fn remedy(&self) -> &'static str;

    /// Whether it can also refuse clients that come through a proxy.
    fn takes_behind(&self) -> bool {
        false
    }

    /// The bans that are in force with their ends, at most some ten thousand.
    fn load(&mut self, now: Moment) -> Result<Vec<(FirewallKey, Option<Moment>)>, Error>;

    /// Puts in force what is wanted of `changed`, and lifts the rest of it: all or nothing.
    fn apply(&mut self, changed: &[BanKey], wanted: &Desired, now: Moment) -> Result<(), Error>;

    /// Puts exactly the wanted bans in force. Bans that stay are in force throughout.
    fn replace(&mut self, wanted: &Desired, now: Moment) -> Result<(), Error>;

    /// Checks cheaply whether another program has changed what this one made.
    fn audit(&mut self, wanted: &Desired, now: Moment) -> Result<Audit, Error>;

    fn checker(&self) -> Box<dyn Checker>;
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Audit {
    Intact,
    /// This host has changed: what is in force must be made again.
    Outdated,
    /// Another program took this away.
    Lost(String),
}

/// Finds out on any thread whether bans are in force: it queries whatever enforces them.
pub(super) trait Checker: Send {
    /// `None`: it cannot be found out.
    fn in_force(&mut self, bans: &[FirewallKey]) -> Result<Vec<Option<bool>>, Error>;

    /// Whether it knows bans of Apache's ports as such; else it gets the numbers.
    fn knows_apache(&self) -> bool {
        false
    }
}

/// What enforces bans in its own time, on a thread: see [`super::follower`].
pub(super) trait Follower: Send {
    /// Compares what is there with what is wanted and makes a few changes.
    fn round(&mut self, shared: &Shared) -> Result<Next, Error>;

    /// How much longer than others it may take when the engine stops.
    fn last_work(&self) -> Duration {
        Duration::ZERO
    }
}

/// When the next round is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Now,
    /// At the next change of the wanted bans; at the latest after that time.
    Within(Duration),
    /// After that time, whatever is wanted.
    After(Duration),
}

/// The wanted bans, for the threads that follow them.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) desired: Desired,
    /// Bans that an earlier engine may have made in a back end that cannot list them.
    pub(super) left: Vec<BanKey>,
    /// When to stop, finished or not.
    pub(super) stop: Option<Instant>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Until something changes after `version`, a stop included, for `most` at most.
    pub(super) fn wait(&self, version: u64, stopping: bool, most: Duration) {
        let unchanged = |state: &mut State| {
            state.desired.version == version && state.stop.is_some() == stopping
        };
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), most, unchanged);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// It is time to stop, or has been for `more`, whatever is left to do.
    pub(super) fn is_over(&self, more: Duration) -> bool {
        let stop = self.lock().stop;
        stop.is_some_and(|stop| Instant::now() >= stop + more)
    }

    pub(super) fn stop_at(&self, stop: Instant) {
        let mut state = self.lock();
        state.stop = Some(state.stop.map_or(stop, |before| before.min(stop)));
        drop(state);
        self.wake();
    }
}

/// What failed, for the operator.
#[derive(Debug)]
pub(super) enum Error {
    Kernel {
        doing: &'static str,
        errno: Errno,
    },
    /// A program failed.
    Tool {
        /// As it was called.
        command: String,
        /// Exit status and what it printed, cut.
        said: String,
    },
    /// Apache's deny map cannot be changed.
    Map {
        directory: PathBuf,
        error: std::io::Error,
    },
}

impl Error {
    pub(super) fn kernel(doing: &'static str) -> impl Fn(Errno) -> Error {
        move |errno| Error::Kernel { doing, errno }
    }

    /// The kernel has no nftables, or not that table.
    pub(super) fn is_absence(&self) -> bool {
        matches!(
            self,
            Error::Kernel {
                errno: Errno::ENOENT
                    | Errno::EOPNOTSUPP
                    | Errno::EPROTONOSUPPORT
                    | Errno::EAFNOSUPPORT,
                ..
            }
        )
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Kernel { doing, errno } => write!(f, "{doing}: {}", errno.desc()),
            Error::Tool { command, said } => write!(f, "`{command}`: {said}"),
            Error::Map { directory, error } => {
                write!(f, "Apache's deny map {}: {error}", directory.display())
            }
        }
    }
}

impl std::error::Error for Error {}

pub(super) fn clocks() -> Now {
    Now {
        boot: Moment::from_boottime(clock::boottime()),
        wall: Timestamp::now(),
    }
}
