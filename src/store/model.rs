//! Changes to the database, and what it holds.

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::config::JailName;
use crate::jail::{Ban, BanId, Counted, End, Moment, Totals};
use crate::sys::systemd;

/// Streams kept at most; the last seen ones.
pub const MAX_STREAMS: usize = 10_000;

/// Why the database cannot be used.
#[derive(Debug)]
pub enum Error {
    /// An error of SQLite.
    Sqlite(rusqlite::Error),
    /// The file could not be created or renamed.
    Io(std::io::Error),
    /// Another program removed or replaced the file: no reader finds what is written to it.
    Gone,
    /// A newer pipeban wrote it.
    Newer {
        /// Number of its schema.
        found: usize,
        /// Number of the newest schema known here.
        known: usize,
    },
    /// An older pipeban wrote it, and no engine of this version has opened it yet.
    Older {
        /// Number of its schema.
        found: usize,
        /// Number of the newest schema known here.
        known: usize,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Sqlite(error) => write!(f, "{error}"),
            Error::Io(error) => write!(f, "{error}"),
            Error::Gone => f.write_str("another program removed or replaced the file"),
            Error::Newer { found, known } => write!(
                f,
                "a newer pipeban wrote it (schema {found}, this one knows schemas up to {known}): \
                 install that version, or move the file away"
            ),
            Error::Older { found, known } => write!(
                f,
                "an older pipeban wrote it (schema {found}, this one needs {known}): restart \
                 the engine, which converts it (`{}`)",
                systemd::commands().restart_engine
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Sqlite(error) => Some(error),
            Error::Io(error) => Some(error),
            Error::Gone | Error::Newer { .. } | Error::Older { .. } => None,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Error::Sqlite(error)
    }
}

/// An entry of the allow-list.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowed {
    /// Address or network.
    pub net: IpNet,
    /// When it was added.
    pub since: Timestamp,
    /// `None`: for ever.
    pub until: Option<Moment>,
    /// Shown by `allow --list`.
    pub reason: Option<String>,
}

/// One change. All are idempotent: a change written twice has the effect of one.
#[derive(Debug, Clone)]
pub enum Op {
    /// A ban began.
    Ban(Ban),
    /// A ban has another end and cause.
    Confirm(Ban),
    /// A ban ended.
    End {
        /// The ban's jail.
        jail: JailName,
        /// The ban's network.
        net: IpNet,
        /// Why it ended.
        end: End,
    },
    /// The lines that led to a ban.
    Evidence {
        /// The ban.
        ban: BanId,
        /// Arrival and text of each, escaped and cut.
        lines: Vec<(Timestamp, String)>,
        /// Classes of attack of these lines, each once.
        classes: Vec<String>,
        /// Virtual hosts of these lines, each once; escaped and cut.
        vhosts: Vec<String>,
        /// The rule that the last line hit, in a few words.
        rule: Option<String>,
    },
    /// Removes active bans, counters, totals and the allow-list: all of them follow.
    Clear,
    /// Ended bans leave the history.
    Forget {
        /// Those that share an address with it; `None`: all.
        net: Option<IpNet>,
        /// Those of one jail; `None`: of all.
        jail: Option<JailName>,
    },
    /// One ban leaves the history, if it has ended.
    ForgetOne(BanId),
    /// What a jail counts of a client now.
    Counter {
        /// The jail.
        jail: JailName,
        /// The client.
        net: IpNet,
        /// All hits in the window; empty: the counter goes.
        hits: Vec<Counted>,
        /// The window: how long the newest hit counts.
        findtime: Duration,
    },
    /// A jail's totals.
    Totals {
        /// The jail.
        jail: JailName,
        /// Its totals.
        totals: Totals,
    },
    /// All hits of a stream up to this offset are counted.
    Stream {
        /// Its number.
        stream: u64,
        /// Offset of the last line.
        offset: u64,
    },
    /// Adds an entry to the allow-list.
    Allow(Allowed),
    /// Removes an entry from the allow-list.
    Disallow(IpNet),
    /// Ended bans of clients in this network leave the history, and so does the evidence of all
    /// their bans.
    Purge(IpNet),
    /// Removes what is too old or too much.
    Prune {
        /// How long ended bans and evidence are kept; `None`: for ever.
        keep: Option<Duration>,
    },
}

/// All that the database holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Saved {
    /// The latest ban's id; `None`: there is none, or it could not be read.
    pub last_id: Option<BanId>,
    /// Active bans.
    pub bans: Vec<Ban>,
    /// Hits in each jail's window.
    pub counters: Vec<(JailName, IpNet, Vec<Counted>)>,
    /// Times of earlier bans that count for escalation.
    pub repeats: Vec<(JailName, IpNet, Vec<Moment>)>,
    /// Bans of shared addresses within the last day, in the order of their beginnings.
    pub shared_bans: Vec<(IpNet, Moment)>,
    /// Totals of each jail.
    pub totals: Vec<(JailName, Totals)>,
    /// Offset of each stream's last counted line.
    pub streams: Vec<(u64, u64)>,
    /// The allow-list.
    pub allowed: Vec<Allowed>,
}
