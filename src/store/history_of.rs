//! What is stored about one client or network: its bans with their ends and evidence, its counters,
//! and the entries of the allow-list that have it. Uses indexes, so a million bans cost nothing.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::model::{Allowed, Error, Saved};
use super::numbers::{signed, timestamp};
use super::read::{self, Reading};
use super::read_only::ReadOnly;
use crate::config::JailName;
use crate::filter::rules::ANSWERED;
use crate::jail::{Ban, BanId, Counted, Now, overlap};

/// Bans returned at most: the active ones, then the latest.
const MAX_BANS: usize = 50;

/// The widest networks that counters and bans have.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 19;

/// What the database holds about a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Past {
    /// Bans that share an address with it, at most 50: the active ones first, then the latest.
    pub bans: Vec<PastBan>,
    /// Hits in the windows of jails.
    pub counters: Vec<(JailName, IpNet, Vec<Counted>)>,
    /// Entries of the allow-list that share an address with it.
    pub allowed: Vec<Allowed>,
}

/// A ban as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct PastBan {
    /// The ban.
    pub ban: Ban,
    /// When it ended, and the word of the [`crate::jail::End`]; `None`: it is active.
    pub ended: Option<(Timestamp, String)>,
    /// Apache answered 200 to an attack that led to it.
    pub answered: bool,
    /// The lines that led to it, as far as they were kept, escaped.
    pub lines: Vec<(Timestamp, String)>,
}

impl ReadOnly {
    /// What is stored about `net`; counters of these jails only.
    ///
    /// # Errors
    /// Those of SQLite.
    pub fn history_of(&self, net: &IpNet, jails: &[JailName], now: Now) -> Result<Past, Error> {
        let reading = self.reading(now);
        let mut saved = Saved::default();
        read::allowed(&reading, &mut saved)?;
        saved.allowed.retain(|entry| overlap(&entry.net, net));
        Ok(Past {
            bans: bans(&reading, net)?,
            counters: counters(&reading, net, jails)?,
            allowed: saved.allowed,
        })
    }
}

fn bans(reading: &Reading<'_>, net: &IpNet) -> rusqlite::Result<Vec<PastBan>> {
    // Id of the row, and its place: active ones first, then the latest.
    let mut found: Vec<(bool, i64, i64)> = Vec::new();
    let connection = reading.connection;
    let mut exactly =
        connection.prepare("SELECT id, ended IS NULL, since FROM bans WHERE net = ?")?;
    for wider in wider(net) {
        let mut rows = exactly.query([wider.to_string()])?;
        while let Some(row) = rows.next()? {
            found.push((row.get(1)?, row.get(2)?, row.get(0)?));
        }
    }
    if net.prefix_len() < net.max_prefix_len() {
        let (from, to) = texts(net);
        let mut within = connection
            .prepare("SELECT id, ended IS NULL, since, net FROM bans WHERE net >= ? AND net < ?")?;
        let mut rows = within.query([from, to])?;
        while let Some(row) = rows.next()? {
            if is_narrower(row.get_ref(3)?.as_str().unwrap_or_default(), net) {
                found.push((row.get(1)?, row.get(2)?, row.get(0)?));
            }
        }
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.truncate(MAX_BANS);
    let mut whole = connection.prepare("SELECT * FROM bans WHERE id = ?")?;
    let mut bans = Vec::new();
    for (_, _, id) in found {
        let mut rows = whole.query([id])?;
        let Some(row) = rows.next()? else { continue };
        if let Some(ban) = read::ban_of(reading, row)? {
            let ended: Option<i64> = row.get("ended")?;
            let why: Option<String> = row.get("end")?;
            let classes: String = row.get("classes")?;
            bans.push(PastBan {
                ended: ended.map(|at| (timestamp(at), why.unwrap_or_default())),
                answered: classes.contains(ANSWERED),
                lines: evidence(connection, ban.id)?,
                ban,
            });
        }
    }
    Ok(bans)
}

pub(super) const EVIDENCE: &str = "SELECT at, line FROM evidence WHERE ban = ? ORDER BY id";

pub(super) fn evidence(
    connection: &Connection,
    ban: BanId,
) -> rusqlite::Result<Vec<(Timestamp, String)>> {
    let mut select = connection.prepare_cached(EVIDENCE)?;
    let lines = select.query_map([ban.number().cast_signed()], |row| {
        Ok((timestamp(row.get(0)?), row.get(1)?))
    })?;
    lines.collect()
}

fn counters(
    reading: &Reading<'_>,
    net: &IpNet,
    jails: &[JailName],
) -> rusqlite::Result<Vec<(JailName, IpNet, Vec<Counted>)>> {
    let mut found = Vec::new();
    let connection = reading.connection;
    let mut exactly = connection.prepare("SELECT * FROM counters WHERE jail = ? AND net = ?")?;
    let (from, to) = texts(net);
    let mut within = connection
        .prepare("SELECT * FROM counters WHERE jail = ? AND net >= ? AND net < ? LIMIT ?")?;
    for jail in jails {
        for wider in wider(net) {
            let mut rows = exactly.query(params![jail.as_str(), wider.to_string()])?;
            while let Some(row) = rows.next()? {
                found.extend(read::counter(reading, row)?);
            }
        }
        if net.prefix_len() < net.max_prefix_len() {
            let most = signed(MAX_BANS as u64);
            let mut rows = within.query(params![jail.as_str(), from, to, most])?;
            while let Some(row) = rows.next()? {
                if is_narrower(&row.get::<_, String>("net")?, net) {
                    found.extend(read::counter(reading, row)?);
                }
            }
        }
    }
    Ok(found)
}

/// The network itself and those that contain it.
fn wider(net: &IpNet) -> impl Iterator<Item = IpNet> {
    let widest = match net {
        IpNet::V4(_) => WIDEST_V4,
        IpNet::V6(_) => WIDEST_V6,
    };
    let (addr, longest) = (net.addr(), net.prefix_len());
    let prefixes = (widest.min(longest)..=longest).rev();
    prefixes.filter_map(move |prefix| Some(IpNet::new(addr, prefix).ok()?.trunc()))
}

/// Whether the text is a network within `net`, and not `net` itself.
fn is_narrower(text: &str, net: &IpNet) -> bool {
    let other = text.parse::<IpNet>();
    other.is_ok_and(|other| net.contains(&other) && other != *net)
}

/// All networks within `net` are texts from the first to before the second, and some others are.
fn texts(net: &IpNet) -> (String, String) {
    let prefix = usize::from(net.prefix_len());
    let (front, end) = match net.addr() {
        IpAddr::V4(addr) => {
            let whole = addr.octets().into_iter().take((prefix / 8).min(3));
            let front: String = whole.map(|octet| format!("{octet}.")).collect();
            (front, '/')
        }
        IpAddr::V6(addr) => {
            // Zeros may be written as `::`.
            let whole = addr.segments().into_iter().take((prefix / 16).min(7));
            let whole = whole.take_while(|segment| *segment != 0);
            let front: String = whole.map(|segment| format!("{segment:x}:")).collect();
            (front, ';')
        }
    };
    let mut behind = front.clone();
    match behind.pop() {
        // The characters behind `.` and `:`.
        Some(_) => behind.push(end),
        None => behind = "~".to_owned(),
    }
    (front, behind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn every_network_within_is_among_its_texts(v6: bool, bits: u128, wide in 0u8..=128, narrow in 0u8..=128, low: u128) {
            let most = if v6 { 128 } else { 32 };
            let (wide, narrow) = (wide.min(narrow).min(most), narrow.max(wide).min(most));
            let addr = |bits: u128| match v6 {
                true => IpAddr::V6(bits.into()),
                false => IpAddr::V4((bits as u32).into()),
            };
            let mask = if wide == 0 { 0 } else { u128::MAX << (most - wide) };
            let outer = IpNet::new(addr(bits), wide).unwrap().trunc();
            let inner = IpNet::new(addr((bits & mask) | (low & !mask)), narrow).unwrap().trunc();
            prop_assert!(outer.contains(&inner));
            let (from, to) = texts(&outer);
            let text = inner.to_string();
            prop_assert!(from <= text && text < to, "{from} {text} {to}");
        }
    }

    #[test]
    fn the_networks_that_contain_an_address_are_named_once() {
        let all: Vec<IpNet> = wider(&net("198.51.100.7/32")).collect();
        assert_eq!(all.len(), 25);
        assert_eq!(all[0], net("198.51.100.7/32"));
        assert_eq!(all[24], net("198.0.0.0/8"));
        assert_eq!(wider(&net("0.0.0.0/0")).count(), 1);
    }
}
