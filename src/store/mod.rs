//! SQLite: bans and their history, counters, what streams have been seen, the allow-list. The only
//! module that knows SQL; the engine is the only process that writes.
//!
//! WAL with `synchronous = NORMAL`: what is committed survives a SIGKILL at any moment; a loss of
//! power may take the last commits with it.
#![forbid(unsafe_code)]

mod rows;
mod schema;
mod thread;

pub use thread::{Done, Store};

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::Connection;

use crate::config::JailName;
use crate::jail::{Ban, Counted, Moment, Now, Totals};

/// Ended bans are kept so long.
const HISTORY: Duration = Duration::from_secs(400 * 86_400);

/// Ended bans kept at most.
const MAX_HISTORY: u64 = 1_000_000;

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
            Error::Gone => {
                f.write_str("somebody has removed or replaced the file: restart the engine")
            }
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
    /// Ended bans leave the history.
    Forget {
        /// Whose; `None`: everybody's.
        net: Option<IpNet>,
        /// By whom; `None`: all jails.
        jail: Option<JailName>,
    },
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
#[derive(Debug, Default, PartialEq)]
pub struct Saved {
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

/// An open database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    path: PathBuf,
    /// Device and inode of the file at `path` when it was opened.
    file: (u64, u64),
    boot_id: String,
}

impl Database {
    /// Opens or makes the database, 0640, and brings its schema up to date. `boot_id` names this
    /// boot: times of the same boot are exact, those of others are moved by the wall clock.
    ///
    /// # Errors
    /// Not a database, not permitted, no space, or written by a newer pipeban.
    pub fn open(path: &Path, boot_id: &str) -> Result<Database, Error> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)
            .and_then(|file| file.metadata())
            .map_err(Error::Io)?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        schema::upgrade(&mut connection)?;
        Ok(Database {
            connection,
            path: path.to_owned(),
            file: (file.dev(), file.ino()),
            boot_id: boot_id.to_owned(),
        })
    }

    /// Reads all that was kept. `memory`: how far back bans count for escalation.
    ///
    /// # Errors
    /// What SQLite said. A row that makes no sense is left out.
    pub fn load(&self, now: Now, memory: Duration) -> Result<Saved, Error> {
        rows::load(&self.connection, &self.boot_id, now, memory)
    }

    /// Writes changes in one transaction.
    ///
    /// # Errors
    /// What SQLite said, nothing is written then; or nobody will find again what is written.
    pub fn commit(&mut self, ops: &[Op], now: Now) -> Result<(), Error> {
        let there = std::fs::metadata(&self.path).map_err(|_| Error::Gone)?;
        if (there.dev(), there.ino()) != self.file {
            return Err(Error::Gone);
        }
        let transaction = self.connection.transaction()?;
        for op in ops {
            rows::apply(&transaction, op, &self.boot_id, now)?;
        }
        Ok(transaction.commit()?)
    }
}

#[cfg(test)]
mod tests;
