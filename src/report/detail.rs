//! What a report shows of single clients.

use ipnet::IpNet;
use jiff::Timestamp;

use super::query::Query;
use super::row::BanRow;

/// One ban of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spell {
    /// The jail.
    pub jail: String,
    /// When it began.
    pub since: Timestamp,
    /// When it ended or will end; `None`: never, or not known.
    pub end: Option<Timestamp>,
    /// Why it exists, as [`crate::jail::Cause::word`].
    pub cause: String,
}

impl Spell {
    /// `None`: the report is not about this ban.
    pub fn of(row: &BanRow<'_>, query: &Query) -> Option<Spell> {
        let shown = query.wants(row) && row.observed == query.observed;
        shown.then(|| Spell {
            jail: row.jail.to_owned(),
            since: row.since,
            end: row.ended.or(row.until),
            cause: row.cause.to_owned(),
        })
    }
}

/// Lines that led to a ban, the oldest first: arrival and text, escaped and cut.
pub type Evidence = Vec<(Timestamp, String)>;

/// One client in detail.
#[derive(Debug, Clone, Default)]
pub struct Detail {
    /// Its bans, the oldest first; the latest ones where there are many.
    pub bans: Vec<Spell>,
    /// The lines that led to the latest of them.
    pub evidence: Evidence,
}

/// Where details come from: the database, or logs.
pub trait Details {
    /// The bans of exactly this client that the report is about, the oldest first; at most `most`,
    /// the newest.
    ///
    /// # Errors
    /// They cannot be read.
    fn bans(&self, net: &IpNet, most: usize) -> std::io::Result<Vec<Spell>>;

    /// The lines that led to a ban.
    ///
    /// # Errors
    /// They cannot be read.
    fn evidence(&self, ban: u64) -> std::io::Result<Evidence>;
}
