//! SQLite: bans and their history, counters, what streams have been seen, the allow-list. The only
//! module that knows SQL; the engine is the only process that writes.
//!
//! WAL with `synchronous = NORMAL`: what is committed survives a SIGKILL at any moment; a loss of
//! power may take the last commits with it.
#![forbid(unsafe_code)]

mod mend;
mod rows;
mod schema;
mod thread;

pub use mend::{Opened, open};
pub use thread::{Done, Store};

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::Connection;

use crate::config::JailName;
use crate::jail::{Ban, BanId, Counted, Moment, Now, Totals};

/// Ended bans are kept so long.
const HISTORY: Duration = Duration::from_secs(400 * 86_400);

/// Ended bans kept at most.
const MAX_HISTORY: u64 = 1_000_000;

/// Lines of evidence kept at most, the newest ones.
const MAX_EVIDENCE: u64 = 500_000;

/// Bytes in use; beyond them the older half of the history goes.
const MAX_BYTES: u64 = 1 << 30;

/// How long another process may hold the database before what is written waits in memory.
const BUSY: Duration = Duration::from_secs(1);

/// Streams kept at most; one not seen for 30 days goes too.
pub const MAX_STREAMS: usize = 10_000;

/// A worker that has been away for longer is a new one.
const STREAM_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// Why the database cannot be used.
#[derive(Debug)]
pub enum Error {
    /// What SQLite said.
    Sqlite(rusqlite::Error),
    /// The file could not be made.
    Io(std::io::Error),
    /// Somebody removed the file, or put another one in its place: what is written goes nowhere.
    Gone,
    /// Written by a newer pipeban.
    Newer {
        /// Its schema.
        found: usize,
        /// The newest known here.
        known: usize,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Sqlite(error) => write!(f, "{error}"),
            Error::Io(error) => write!(f, "{error}"),
            Error::Gone => f.write_str("somebody has removed or replaced the file"),
            Error::Newer { found, known } => write!(
                f,
                "it was written by a newer pipeban (schema {found}, this one knows {known})"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Sqlite(error) => Some(error),
            Error::Io(error) => Some(error),
            Error::Gone | Error::Newer { .. } => None,
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
    /// Whom.
    pub net: IpNet,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: for ever.
    pub until: Option<Moment>,
    /// Shown by `allow --list`.
    pub reason: Option<String>,
}

/// One change. All are idempotent: written twice they say the same.
#[derive(Debug, Clone)]
pub enum Op {
    /// A ban began.
    Ban(Ban),
    /// A ban ended.
    End {
        /// Whose.
        jail: JailName,
        /// Whom.
        net: IpNet,
        /// Why, in a word.
        why: &'static str,
    },
    /// The lines that led to a ban.
    Evidence {
        /// Which ban.
        ban: BanId,
        /// When they came, and what they said: escaped and cut.
        lines: Vec<(Timestamp, String)>,
    },
    /// Bans in force, counters, totals and the allow-list are forgotten: all that there is of
    /// them follows.
    Anew,
    /// Ended bans leave the history.
    Forget {
        /// Whose; `None`: everybody's.
        net: Option<IpNet>,
        /// By whom; `None`: all jails.
        jail: Option<JailName>,
    },
    /// One ban leaves the history, if it has ended.
    ForgetOne(BanId),
    /// What a jail counts of a client now; empty: nothing.
    Counter {
        /// Who counts.
        jail: JailName,
        /// Whom.
        net: IpNet,
        /// All that counts.
        hits: Vec<Counted>,
        /// How long the newest of them counts.
        findtime: Duration,
    },
    /// A jail's sums.
    Totals {
        /// Whose.
        jail: JailName,
        /// The sums.
        totals: Totals,
    },
    /// Hits of a stream are known up to and with this offset.
    Stream {
        /// Which.
        stream: u64,
        /// High-water mark.
        offset: u64,
    },
    /// Onto the allow-list.
    Allow(Allowed),
    /// Off the allow-list.
    Disallow(IpNet),
    /// What is too old goes.
    Prune,
}

/// All that was kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Saved {
    /// The latest ban's id; `None`: there is none, or it could not be read.
    pub last_id: Option<BanId>,
    /// Active bans.
    pub bans: Vec<Ban>,
    /// What jails counted.
    pub counters: Vec<(JailName, IpNet, Vec<Counted>)>,
    /// Times of earlier bans that count for escalation.
    pub repeats: Vec<(JailName, IpNet, Vec<Moment>)>,
    /// Sums.
    pub totals: Vec<(JailName, Totals)>,
    /// High-water marks.
    pub streams: Vec<(u64, u64)>,
    /// The allow-list.
    pub allowed: Vec<Allowed>,
}

/// Where the database is, and how it is to be understood.
#[derive(Debug, Clone)]
pub struct Home {
    /// The file.
    pub path: PathBuf,
    /// Names this boot: times of the same boot are exact, those of others are moved by the wall
    /// clock.
    pub boot_id: String,
    /// How far back bans count for escalation.
    pub memory: Duration,
}

impl Home {
    /// Opens or makes the database, 0640, and brings its schema up to date.
    ///
    /// # Errors
    /// Not a database, not permitted, no space, locked, or written by a newer pipeban.
    pub fn open(&self) -> Result<Database, Error> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&self.path)
            .and_then(|file| file.metadata())
            .map_err(Error::Io)?;
        let mut connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // What a long reader made it grow to is given back.
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        schema::upgrade(&mut connection)?;
        Ok(Database {
            connection,
            home: self.clone(),
            file: (file.dev(), file.ino()),
        })
    }

    fn open_and_load(&self, now: Now) -> Result<(Database, Saved), Error> {
        let database = self.open()?;
        let saved = database.load(now)?;
        Ok((database, saved))
    }

    fn reading<'a>(&'a self, connection: &'a Connection, now: Now) -> rows::Reading<'a> {
        rows::Reading {
            connection,
            boot_id: &self.boot_id,
            now,
            memory: self.memory,
        }
    }
}

/// An open database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    home: Home,
    /// Device and inode of the file when it was opened.
    file: (u64, u64),
}

impl Database {
    /// Reads all that was kept.
    ///
    /// # Errors
    /// What SQLite said. A row that makes no sense is left out.
    pub fn load(&self, now: Now) -> Result<Saved, Error> {
        rows::load(&self.home.reading(&self.connection, now))
    }

    /// Writes changes in one transaction.
    ///
    /// # Errors
    /// What SQLite said, nothing is written then; or nobody will find again what is written.
    pub fn commit(&mut self, ops: &[Op], now: Now) -> Result<(), Error> {
        let there = std::fs::metadata(&self.home.path).map_err(|_| Error::Gone)?;
        if (there.dev(), there.ino()) != self.file {
            return Err(Error::Gone);
        }
        let transaction = self.connection.transaction()?;
        for op in ops {
            rows::apply(&transaction, op, &self.home.boot_id, now)?;
        }
        Ok(transaction.commit()?)
    }

    /// Whether to wait for somebody who holds the database.
    fn be_patient(&self, patient: bool) {
        let time = if patient { BUSY } else { Duration::ZERO };
        // Only a nonsensical time fails.
        let _ = self.connection.busy_timeout(time);
    }
}

#[cfg(test)]
mod tests;
