//! Bans in fail2ban's database, which is only read.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};

use super::model::Error;

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignBan {
    /// As fail2ban writes it.
    pub host: String,
    /// fail2ban's jail.
    pub jail: String,
    /// When it began.
    pub since: Timestamp,
    /// When it ends; `None`: never.
    pub until: Option<Timestamp>,
    /// How often fail2ban has banned the host.
    pub count: u32,
}

/// The bans of all jails that are in force at `now`, by jail and time.
///
/// # Errors
/// The file does not exist, or is no database of fail2ban 0.11 or newer.
pub fn fail2ban_bans(path: &Path, now: Timestamp) -> Result<Vec<ForeignBan>, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags)?;
    let mut statement = database.prepare(
        "SELECT ip, jail, timeofban, bantime, bancount FROM bips
         WHERE bantime < 0 OR timeofban + bantime > ?1 ORDER BY jail, timeofban, ip",
    )?;
    let rows = statement.query_map([now.as_second()], |row| {
        Ok((
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
        ))
    })?;
    let mut bans = Vec::new();
    for row in rows {
        let (host, jail, since, length, count): (String, String, i64, i64, u32) = row?;
        let Ok(since) = Timestamp::from_second(since) else {
            continue;
        };
        let end = since.as_second().saturating_add(length);
        bans.push(ForeignBan {
            host,
            jail,
            since,
            // A time that no calendar has is for ever, too.
            until: (length >= 0)
                .then(|| Timestamp::from_second(end).ok())
                .flatten(),
            count,
        });
    }
    Ok(bans)
}
