//! Opening the database. A damaged one is set aside, and a new one begins.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::database::{Database, Home};
use super::model::{Error, Saved};
use super::read;
use super::wal::{self, Damage};
use crate::jail::Now;

/// Damaged databases kept beside the one in use, the newest ones.
const COPIES: usize = 3;

/// Bytes of SQLite's smallest page, the first of which holds the header.
const HEADER: u64 = 512;

/// The database, its log, and the log's index.
const ENDINGS: [&str; 3] = ["", "-wal", "-shm"];

/// How the opening at the engine's start ended.
#[derive(Debug)]
pub struct Opened {
    /// `None`: it cannot be used for now, and changes wait in memory.
    pub database: Option<Database>,
    /// What could be read.
    pub saved: Saved,
    /// Whether `saved` is all that pipeban wrote.
    pub whole: bool,
    /// What failed, and what pipeban did about it.
    pub trouble: Option<String>,
}

/// Opens and reads the database; never fails, see [`Opened`].
pub fn open(home: &Home, now: Now) -> Opened {
    // SQLite begins a new database there, but another program may have removed or emptied an old one.
    let existed = fs::metadata(&home.path).is_ok_and(|file| file.len() >= HEADER);
    let log = damaged_log(&home.path);
    match open_or_begin(home, now) {
        Ok((database, saved, trouble)) => {
            let trouble = trouble.or(log);
            Opened {
                database: Some(database),
                saved,
                whole: trouble.is_none() && existed,
                trouble,
            }
        }
        Err(error) => {
            let read = read_only(home, now);
            let bans = match &read {
                Some(saved) => format!("{} bans were read from it", saved.bans.len()),
                None => "nothing could be read from it".to_owned(),
            };
            let path = home.path.display();
            Opened {
                database: None,
                whole: read.is_some(),
                saved: read.unwrap_or_default(),
                trouble: Some(format!(
                    "the database {path} cannot be used: {error}; {bans}, and changes wait in \
                     memory"
                )),
            }
        }
    }
}

/// Opens and reads the database. In place of a damaged one a new one begins, and the text says
/// what is lost.
///
/// # Errors
/// Waiting may help: not permitted, no space, locked; or a newer pipeban wrote it.
pub(super) fn open_or_begin(
    home: &Home,
    now: Now,
) -> Result<(Database, Saved, Option<String>), Error> {
    match home.open_and_load(now) {
        Err(error) if is_damage(&error) => {
            let copy = set_aside(&home.path, now)?;
            let text = format!(
                "the database was damaged ({error}): pipeban began a new one and kept the old one \
                 as {}; the allow-list, the counters and the history in it are lost, bans that \
                 the firewall holds stay in force",
                copy.display()
            );
            Ok((home.open()?, Saved::default(), Some(text)))
        }
        opened => opened.map(|(database, saved)| (database, saved, None)),
    }
}

/// Sets a log aside that SQLite would begin again. Returns what is lost, if its log is damaged.
fn damaged_log(database: &Path) -> Option<String> {
    let log = with_ending(database, "-wal");
    let damage = match wal::damage(&log)? {
        Damage::Frames(whole) => format!("was damaged behind its first {whole} frames: later"),
        Damage::Header => {
            let copy = with_ending(database, ".broken-wal");
            match fs::rename(&log, &copy) {
                Ok(()) => format!("was damaged and is kept as {}: the latest", copy.display()),
                Err(error) => format!("was damaged and cannot be kept: {error}: the latest"),
            }
        }
    };
    Some(format!(
        "the log of the database, {}, {damage} changes are lost; bans that the firewall holds stay \
         in force for 24 hours at most",
        log.display()
    ))
}

/// Whether waiting does not help.
pub(super) fn is_damage(error: &Error) -> bool {
    let Error::Sqlite(error) = error else {
        return false;
    };
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            // `Unknown` is "no such table": tables of another program.
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown
        ),
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::InvalidColumnName(_)
        | rusqlite::Error::FromSqlConversionFailure(..) => true,
        _ => false,
    }
}

/// Reads without writing a byte, which a full file system would not take.
fn read_only(home: &Home, now: Now) -> Option<Saved> {
    fs::metadata(&home.path)
        .ok()
        .filter(fs::Metadata::is_file)?;
    let connection = Connection::open_with_flags(&home.path, OpenFlags::SQLITE_OPEN_READ_WRITE);
    let connection = connection.ok()?;
    // SQLite then keeps the index of its log in memory.
    let exclusive = connection.pragma_update(None, "locking_mode", "EXCLUSIVE");
    exclusive.ok()?;
    read::load(&home.reading(&connection, now)).ok()
}

/// Renames the database and its log, and removes the oldest of such copies.
///
/// # Errors
/// The file cannot be renamed.
pub(super) fn set_aside(path: &Path, now: Now) -> Result<PathBuf, Error> {
    let mut kept = copies(path);
    kept.sort();
    for old in kept.iter().rev().skip(COPIES - 1) {
        for ending in ENDINGS {
            let _ = fs::remove_file(with_ending(old, ending));
        }
    }
    let stamp = now.wall.strftime("%Y%m%dT%H%M%SZ");
    let copy = with_ending(path, &format!(".broken-{stamp}"));
    // SQLite would take a log that stayed for the new database's.
    for ending in ["-wal", "-shm", ""] {
        let from = with_ending(path, ending);
        match fs::rename(&from, with_ending(&copy, ending)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io(error));
            }
            _ => {}
        }
    }
    Ok(copy)
}

fn copies(path: &Path) -> Vec<PathBuf> {
    let name = with_ending(path, ".broken-");
    let directory = path.parent().and_then(|parent| fs::read_dir(parent).ok());
    let entries = directory.into_iter().flatten().flatten();
    let is_copy = |path: &PathBuf| {
        let text = path.as_os_str().as_encoded_bytes();
        let log = text.ends_with(b"-wal") || text.ends_with(b"-shm");
        text.starts_with(name.as_os_str().as_encoded_bytes()) && !log
    };
    entries.map(|entry| entry.path()).filter(is_copy).collect()
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
