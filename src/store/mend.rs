//! What becomes of a database that cannot be used: read as far as possible, put aside, made anew.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::rows;
use super::{Database, Error, Home, Op, Saved};
use crate::jail::Now;

/// Damaged files kept beside the database.
const COPIES: usize = 3;

/// Bytes of the smallest page, the first of which holds the header.
const HEADER: u64 = 512;

/// How an opening ended.
#[derive(Debug)]
pub struct Opened {
    /// `None`: there is none for now; what is written waits in memory.
    pub database: Option<Database>,
    /// All that is known of before.
    pub saved: Saved,
    /// Whether that is all there was: nothing had to be given up.
    pub whole: bool,
    /// What is or was wrong, and what became of it.
    pub trouble: Option<String>,
}

/// Opens the database, or makes the best of it. See [`Opened`].
pub fn open(home: &Home, now: Now) -> Opened {
    // A file without a whole header is a new database to SQLite; but somebody has emptied it.
    let emptied = fs::metadata(&home.path).is_ok_and(|file| file.len() < HEADER);
    match home.open_and_load(now) {
        Ok((database, saved)) => Opened {
            database: Some(database),
            saved,
            whole: !emptied,
            trouble: None,
        },
        Err(error) if is_damage(&error) => anew(home, &error, now),
        Err(error) => {
            // No room for SQLite's own files, say: what is in the database can still be read.
            let read = peek(home, now);
            let path = home.path.display();
            let trouble = format!(
                "the database {path} cannot be used: {error}; {}, and what happens now is kept in \
                 memory",
                match &read {
                    Some(saved) => format!("{} bans were read from it", saved.bans.len()),
                    None => "nothing could be read from it".to_owned(),
                }
            );
            Opened {
                database: None,
                whole: read.is_some(),
                saved: read.unwrap_or_default(),
                trouble: Some(trouble),
            }
        }
    }
}

/// Puts a damaged database aside and makes a new one of what could be read.
fn anew(home: &Home, error: &Error, now: Now) -> Opened {
    let saved = salvage(home, now);
    let path = home.path.display();
    let made = put_aside(&home.path, now)
        .map_err(Error::Io)
        .and_then(|copy| {
            let mut database = home.open()?;
            database.commit(&as_ops(&saved), now)?;
            Ok((database, copy))
        });
    let read = format!("{} bans could be read from it", saved.bans.len());
    let (database, trouble) = match made {
        Ok((database, copy)) => (
            Some(database),
            format!(
                "the database was damaged ({error}): it is kept as {}, and {read} into a new one; \
                 bans in force stay",
                copy.display()
            ),
        ),
        Err(failed) => (
            None,
            format!(
                "the database {path} is damaged ({error}) and no new one can be made: {failed}; \
                 {read}, and what happens now is kept in memory"
            ),
        ),
    };
    Opened {
        database,
        saved,
        whole: false,
        trouble: Some(trouble),
    }
}

/// A database that turned out to be damaged while it was written: aside with it.
///
/// # Errors
/// The new one cannot be made.
pub(super) fn replace(home: &Home, now: Now) -> Result<Database, Error> {
    put_aside(&home.path, now).map_err(Error::Io)?;
    home.open()
}

/// Whether no waiting mends it.
pub(super) fn is_damage(error: &Error) -> bool {
    let Error::Sqlite(error) = error else {
        return false;
    };
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            // `Unknown` is "no such table": somebody else's tables.
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown
        ),
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::InvalidColumnName(_)
        | rusqlite::Error::FromSqlConversionFailure(..) => true,
        _ => false,
    }
}

/// Reads without writing a byte beside the database, which a full file system would not take.
fn peek(home: &Home, now: Now) -> Option<Saved> {
    let connection = Connection::open_with_flags(&home.path, OpenFlags::SQLITE_OPEN_READ_WRITE);
    let connection = connection.ok()?;
    // So that SQLite keeps the index of its log in memory.
    let exclusive = connection.pragma_update(None, "locking_mode", "EXCLUSIVE");
    exclusive.ok()?;
    rows::load(&home.reading(&connection, now)).ok()
}

fn salvage(home: &Home, now: Now) -> Saved {
    match Connection::open_with_flags(&home.path, OpenFlags::SQLITE_OPEN_READ_WRITE) {
        Ok(connection) => rows::salvage(&home.reading(&connection, now)),
        Err(_) => Saved::default(),
    }
}

/// Moves the database with its log to a name of its own; the oldest such go.
fn put_aside(path: &Path, now: Now) -> std::io::Result<PathBuf> {
    let mut kept = copies(path);
    kept.sort();
    for old in kept.iter().rev().skip(COPIES - 1) {
        for ending in ENDINGS {
            let _ = fs::remove_file(with_ending(old, ending));
        }
    }
    let stamp = now.wall.strftime("%Y%m%dT%H%M%SZ");
    let copy = with_ending(path, &format!(".broken-{stamp}"));
    fs::rename(path, &copy)?;
    for ending in ENDINGS.iter().filter(|ending| !ending.is_empty()) {
        let from = with_ending(path, ending);
        // One that stayed would be taken for the new database's.
        if let Err(error) = fs::rename(&from, with_ending(&copy, ending))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            fs::remove_file(&from)?;
        }
    }
    Ok(copy)
}

/// The database, its log, and the log's index.
const ENDINGS: [&str; 3] = ["", "-wal", "-shm"];

fn copies(path: &Path) -> Vec<PathBuf> {
    let name = with_ending(path, ".broken-");
    let directory = path.parent().and_then(|parent| fs::read_dir(parent).ok());
    let entries = directory.into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|other| {
            let text = other.as_os_str().as_encoded_bytes();
            text.starts_with(name.as_os_str().as_encoded_bytes())
                && !text.ends_with(b"-wal")
                && !text.ends_with(b"-shm")
        })
        .collect()
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// All that was read, to be written.
fn as_ops(saved: &Saved) -> Vec<Op> {
    let bans = saved.bans.iter().cloned().map(Op::Ban);
    let allowed = saved.allowed.iter().cloned().map(Op::Allow);
    let totals = saved.totals.iter().map(|(jail, totals)| Op::Totals {
        jail: jail.clone(),
        totals: *totals,
    });
    let streams = saved.streams.iter().map(|(stream, offset)| Op::Stream {
        stream: *stream,
        offset: *offset,
    });
    bans.chain(allowed).chain(totals).chain(streams).collect()
}
