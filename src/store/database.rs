//! The open database.

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::model::{Error, Op, Saved};
use super::{read, schema, write};
use crate::jail::Now;

/// How long to wait for another process that locks the database.
const BUSY: Duration = Duration::from_secs(1);

/// SQLite compiles a cached statement once, and not again for each value that is bound to it.
pub(super) fn compile_once(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

/// Where the database is, and how to read its times.
#[derive(Debug, Clone)]
pub struct Home {
    /// The file.
    pub path: PathBuf,
    /// Names this boot: times of the same boot are exact, those of others are converted by the
    /// wall clock.
    pub boot_id: String,
    /// How far back bans count for escalation.
    pub memory: Duration,
}

impl Home {
    /// The database at `path`, with times of the boot that runs now.
    pub fn of_this_boot(path: &Path, memory: Duration) -> Home {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Home {
            path: path.to_owned(),
            boot_id: boot_id.unwrap_or_default().trim().to_owned(),
            memory,
        }
    }

    /// Opens or creates the database, mode 0640, and brings its schema up to date.
    ///
    /// # Errors
    /// Not a database, not permitted, no space, locked, or a newer pipeban wrote it.
    pub fn open(&self) -> Result<Database, Error> {
        if std::fs::metadata(&self.path).is_ok_and(|file| !file.is_file()) {
            return Err(Error::Io(std::io::Error::other("not a regular file")));
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            // A FIFO would wait for a reader.
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&self.path)
            .and_then(|file| file.metadata())
            .map_err(Error::Io)?;
        let mut connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY)?;
        compile_once(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // A long reader makes the log grow; it shrinks again to this.
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        schema::upgrade(&mut connection)?;
        Ok(Database {
            connection,
            home: self.clone(),
            file: (file.dev(), file.ino()),
        })
    }

    pub(super) fn open_and_load(&self, now: Now) -> Result<(Database, Saved), Error> {
        let database = self.open()?;
        let saved = database.load(now)?;
        Ok((database, saved))
    }

    pub(super) fn reading<'a>(&'a self, connection: &'a Connection, now: Now) -> read::Reading<'a> {
        read::Reading {
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
    pub(super) connection: Connection,
    pub(super) home: Home,
    /// Device and inode of the file when it was opened.
    file: (u64, u64),
}

impl Database {
    /// Reads everything; skips rows that this version does not understand.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn load(&self, now: Now) -> Result<Saved, Error> {
        read::load(&self.home.reading(&self.connection, now))
    }

    /// Writes changes in one transaction.
    ///
    /// # Errors
    /// Those of SQLite, or [`Error::Gone`]; nothing is written then.
    pub fn commit(&mut self, ops: &[Op], now: Now) -> Result<(), Error> {
        let there = std::fs::metadata(&self.home.path).map_err(|_| Error::Gone)?;
        if (there.dev(), there.ino()) != self.file {
            return Err(Error::Gone);
        }
        let transaction = self.connection.transaction()?;
        let writing = write::Writing {
            transaction: &transaction,
            boot_id: &self.home.boot_id,
            now,
        };
        for op in ops {
            writing.apply(op)?;
        }
        Ok(transaction.commit()?)
    }

    /// Whether to wait for another process that locks the database.
    pub(super) fn be_patient(&self, patient: bool) {
        let time = if patient { BUSY } else { Duration::ZERO };
        // Fails for a time out of range only.
        let _ = self.connection.busy_timeout(time);
    }
}
