//! All bans of a period, for reports: a million of them pass by, none is kept.

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Params, Row, params};

use super::history_of;
use super::model::Error;
use super::numbers::{signed, timestamp};
use super::read_only::ReadOnly;
use crate::jail::BanId;
use crate::report::BanRow;

const COLUMNS: &str = "ident, jail, net, mode, since, until, ended, classes";

/// The same with those that the summary of a report rarely needs: each column of a million rows
/// takes a twentieth of a second.
const ALL_COLUMNS: &str = "ident, jail, net, mode, since, until, ended, classes, cause, vhosts";

impl ReadOnly {
    /// Bans that began in this time, the end excluded, about in the order in which they began. A ban
    /// that another one of its jail replaced is part of that one. `cause` and `vhosts` are empty
    /// unless `whole`.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn bans(
        &self,
        since: Timestamp,
        until: Timestamp,
        whole: bool,
        each: impl FnMut(&BanRow<'_>),
    ) -> Result<(), Error> {
        // Rows are in the order of time, about: reading them in theirs is three times as fast.
        self.rows(
            whole,
            "id >= (SELECT min(id) FROM bans WHERE since >= ?1) AND since >= ?1 AND since < ?2",
            params![since.as_millisecond(), until.as_millisecond()],
            each,
        )
    }

    /// All bans of exactly this client or network, the oldest first; at most `most`, the newest.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn bans_of(
        &self,
        net: &IpNet,
        most: usize,
        each: impl FnMut(&BanRow<'_>),
    ) -> Result<(), Error> {
        self.rows(
            true,
            "id IN (SELECT id FROM bans WHERE net = ?1 AND end IS NOT 'replaced'
                    ORDER BY since DESC, id DESC LIMIT ?2)
             ORDER BY since, id",
            params![net.to_string(), signed(most as u64)],
            each,
        )
    }

    fn rows(
        &self,
        whole: bool,
        condition: &str,
        params: impl Params,
        mut each: impl FnMut(&BanRow<'_>),
    ) -> Result<(), Error> {
        let columns = if whole { ALL_COLUMNS } else { COLUMNS };
        let sql = format!("SELECT {columns} FROM bans WHERE end IS NOT 'replaced' AND {condition}");
        let mut select = self.connection.prepare_cached(&sql)?;
        let mut rows = select.query(params)?;
        while let Some(row) = rows.next()? {
            if let Some(ban) = ban(row, whole)? {
                each(&ban);
            }
        }
        Ok(())
    }

    /// The lines that led to a ban, oldest first: arrival and text, escaped and cut.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn evidence(&self, ban: u64) -> Result<Vec<(Timestamp, String)>, Error> {
        Ok(history_of::evidence(&self.connection, BanId::new(ban))?)
    }
}

/// `None`: this version does not understand the row.
fn ban<'r>(row: &'r Row<'_>, whole: bool) -> rusqlite::Result<Option<BanRow<'r>>> {
    let text = |column| -> rusqlite::Result<&'r str> { Ok(row.get_ref(column)?.as_str()?) };
    let time = |column| -> rusqlite::Result<Option<Timestamp>> {
        Ok(row.get::<_, Option<i64>>(column)?.map(timestamp))
    };
    let Ok(net) = text(2)?.parse() else {
        return Ok(None);
    };
    let mode = text(3)?;
    Ok(Some(BanRow {
        id: row.get::<_, i64>(0)?.cast_unsigned(),
        jail: text(1)?,
        net,
        observed: mode == "observed",
        behind: mode.starts_with("behind"),
        since: timestamp(row.get(4)?),
        until: time(5)?,
        ended: time(6)?,
        classes: text(7)?,
        cause: if whole { text(8)? } else { "" },
        vhosts: if whole { text(9)? } else { "" },
    }))
}
