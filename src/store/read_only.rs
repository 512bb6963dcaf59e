//! The database as commands read it, without writing: with the engine running, busy or stopped.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::database::{Home, compile_once};
use super::model::Error;
use super::{read, schema};
use crate::jail::Now;

/// How long to wait for another process that locks the database; readers of a WAL rarely do.
const BUSY: Duration = Duration::from_millis(500);

/// The database, open for reading.
#[derive(Debug)]
pub struct ReadOnly {
    pub(super) connection: Connection,
    pub(super) home: Home,
}

impl ReadOnly {
    /// Opens the database; `None`: there is none yet. What is written meanwhile is not read.
    ///
    /// # Errors
    /// Not permitted, not a database, locked, or another version of pipeban wrote it.
    pub fn open(path: &Path) -> Result<Option<ReadOnly>, Error> {
        // SQLite does not say why it cannot open a file.
        let open = std::fs::File::options()
            .read(true)
            // A FIFO would wait for a writer.
            .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
            .open(path);
        match open.and_then(|file| file.metadata()) {
            Ok(file) if file.is_file() => {}
            Ok(_) => return Err(Error::Io(std::io::Error::other("not a regular file"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::Io(error)),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        compile_once(&connection)?;
        connection.execute_batch("BEGIN")?;
        schema::check(&connection)?;
        Ok(Some(ReadOnly {
            connection,
            home: Home::of_this_boot(path, Duration::ZERO),
        }))
    }

    pub(super) fn reading(&self, now: Now) -> read::Reading<'_> {
        self.home.reading(&self.connection, now)
    }
}
