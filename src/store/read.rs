//! Rows into values.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use rusqlite::{Connection, Row, params};

use super::model::{Allowed, Error, MAX_STREAMS, Saved};
use super::numbers::{millis, signed, timestamp, unsigned, wall_minus_boot};
use crate::config::JailName;
use crate::jail::{
    Ban, BanId, Cause, Counted, MAX_BANS, MAX_CLIENTS, Mode, Moment, Now, SHARED_MEMORY, Totals,
};

pub(super) fn load(reading: &Reading<'_>) -> Result<Saved, Error> {
    let mut saved = Saved::default();
    bans(reading, &mut saved)?;
    counters(reading, &mut saved, MAX_CLIENTS)?;
    repeats(reading, &mut saved)?;
    shared_bans(reading, &mut saved)?;
    totals(reading, &mut saved)?;
    streams(reading, &mut saved)?;
    allowed(reading, &mut saved)?;
    Ok(saved)
}

/// What to read from, and how to convert times of other boots.
pub(super) struct Reading<'a> {
    pub(super) connection: &'a Connection,
    pub(super) boot_id: &'a str,
    pub(super) now: Now,
    /// How far back bans count for escalation.
    pub(super) memory: Duration,
}

impl Reading<'_> {
    fn same_boot(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        Ok(row.get::<_, String>("boot_id")? == self.boot_id)
    }

    /// A time of this boot is exact; one of another boot is converted by the wall clock.
    fn moment(&self, row: &Row<'_>, boot: &str, wall: &str) -> rusqlite::Result<Option<Moment>> {
        Ok(if self.same_boot(row)? {
            row.get::<_, Option<i64>>(boot)?.map(Moment::from_nanos)
        } else {
            let wall: Option<i64> = row.get(wall)?;
            wall.map(|ms| self.now.moment_of(timestamp(ms)))
        })
    }

    /// On a host that starts with a wrong year an hour would become decades: no ban has more left
    /// than its whole length.
    fn end(&self, row: &Row<'_>) -> rusqlite::Result<Option<Moment>> {
        let end = self.moment(row, "until_boot", "until")?;
        if self.same_boot(row)? {
            return Ok(end);
        }
        let whole: Option<i64> = row.get("until")?;
        let whole = whole.unwrap_or(i64::MAX).saturating_sub(row.get("since")?);
        let most = self.now.boot.plus(Duration::from_millis(unsigned(whole)));
        Ok(end.map(|end| end.min(most)))
    }
}

fn bans(reading: &Reading<'_>, saved: &mut Saved) -> rusqlite::Result<()> {
    let connection = reading.connection;
    let last: Option<i64> =
        connection.query_row("SELECT max(ident) FROM bans", [], |row| row.get(0))?;
    saved.last_id = last.map(|last| BanId::new(last.cast_unsigned()));
    let mut select = connection.prepare(
        "SELECT * FROM bans WHERE ended IS NULL ORDER BY until IS NOT NULL, until DESC LIMIT ?",
    )?;
    let mut rows = select.query([signed(MAX_BANS as u64)])?;
    while let Some(row) = rows.next()? {
        saved.bans.extend(ban_of(reading, row)?);
    }
    Ok(())
}

/// A ban with its times on the clock of this boot.
pub(super) fn ban_of(reading: &Reading<'_>, row: &Row<'_>) -> rusqlite::Result<Option<Ban>> {
    let now = reading.now.boot;
    let since = reading.moment(row, "since_boot", "since")?.unwrap_or(now);
    let (since, until) = (since.min(now), reading.end(row)?);
    ban(row, since, until)
}

/// The newest ones, the oldest of them first.
pub(super) fn counters(
    reading: &Reading<'_>,
    saved: &mut Saved,
    most: usize,
) -> rusqlite::Result<()> {
    let now = reading.now;
    let mut select = reading.connection.prepare(
        "SELECT * FROM counters WHERE CASE boot_id
            WHEN ?1 THEN expires_boot > ?2 ELSE expires > ?3 END
         ORDER BY expires DESC LIMIT ?4",
    )?;
    let mut rows = select.query(params![
        reading.boot_id,
        now.boot.nanos(),
        now.wall.as_millisecond(),
        signed(most as u64)
    ])?;
    while let Some(row) = rows.next()? {
        saved.counters.extend(counter(reading, row)?);
    }
    saved.counters.reverse();
    Ok(())
}

/// One client's hits, those of another boot converted by the wall clock.
pub(super) fn counter(
    reading: &Reading<'_>,
    row: &Row<'_>,
) -> rusqlite::Result<Option<(JailName, IpNet, Vec<Counted>)>> {
    let now = reading.now;
    let shift = if reading.same_boot(row)? {
        0
    } else {
        row.get::<_, i64>("wall_minus_boot")?
            .saturating_sub(wall_minus_boot(now))
    };
    let hits: String = row.get("hits")?;
    let hits: Vec<(i64, u32)> = serde_json::from_str(&hits).unwrap_or_default();
    let hits = hits
        .into_iter()
        .map(|(at, weight)| (Moment::from_nanos(at.saturating_add(shift)), weight))
        .filter(|(at, _)| *at <= now.boot)
        .collect();
    Ok(key(row)?.map(|(jail, net)| (jail, net, hits)))
}

fn repeats(reading: &Reading<'_>, saved: &mut Saved) -> rusqlite::Result<()> {
    let now = reading.now;
    let mut select = reading.connection.prepare(
        "SELECT * FROM bans WHERE since > ? AND cause = ?
         ORDER BY jail, net, since",
    )?;
    let since = now
        .wall
        .as_millisecond()
        .saturating_sub(millis(reading.memory));
    let mut rows = select.query(params![since, Cause::Jail.word()])?;
    while let Some(row) = rows.next()? {
        let at = reading.moment(row, "since_boot", "since")?;
        let at = at.unwrap_or(now.boot);
        if let Some((jail, net)) = key(row)? {
            match saved.repeats.last_mut() {
                Some((j, n, times)) if *j == jail && *n == net => times.push(at),
                _ => saved.repeats.push((jail, net, vec![at])),
            }
        }
    }
    Ok(())
}

fn shared_bans(reading: &Reading<'_>, saved: &mut Saved) -> rusqlite::Result<()> {
    let now = reading.now;
    let mut select = reading
        .connection
        .prepare("SELECT * FROM bans WHERE since > ? AND cause = ? ORDER BY since")?;
    let since = now
        .wall
        .as_millisecond()
        .saturating_sub(millis(SHARED_MEMORY));
    let mut rows = select.query(params![since, Cause::Shared.word()])?;
    while let Some(row) = rows.next()? {
        let at = reading.moment(row, "since_boot", "since")?;
        if let Some((_, net)) = key(row)? {
            saved.shared_bans.push((net, at.unwrap_or(now.boot)));
        }
    }
    Ok(())
}

fn totals(reading: &Reading<'_>, saved: &mut Saved) -> rusqlite::Result<()> {
    let mut select = reading.connection.prepare("SELECT * FROM totals")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let totals = Totals {
            failed: unsigned(row.get("failed")?),
            banned: unsigned(row.get("banned")?),
        };
        if let Ok(jail) = row.get::<_, String>("jail")?.parse() {
            saved.totals.push((jail, totals));
        }
    }
    Ok(())
}

fn streams(reading: &Reading<'_>, saved: &mut Saved) -> rusqlite::Result<()> {
    let mut select = reading
        .connection
        .prepare("SELECT stream, offset FROM streams ORDER BY seen DESC LIMIT ?")?;
    let mut rows = select.query([signed(MAX_STREAMS as u64)])?;
    while let Some(row) = rows.next()? {
        let (stream, offset): (i64, i64) = (row.get(0)?, row.get(1)?);
        saved
            .streams
            .push((stream.cast_unsigned(), offset.cast_unsigned()));
    }
    Ok(())
}

pub(super) fn allowed(reading: &Reading<'_>, saved: &mut Saved) -> rusqlite::Result<()> {
    let mut select = reading
        .connection
        .prepare("SELECT * FROM allow ORDER BY net")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let until = reading.end(row)?;
        if let Ok(net) = row.get::<_, String>("net")?.parse()
            && until.is_none_or(|until| until > reading.now.boot)
        {
            saved.allowed.push(Allowed {
                net,
                since: timestamp(row.get("since")?),
                until,
                reason: row.get("reason")?,
            });
        }
    }
    Ok(())
}

fn ban(row: &Row<'_>, since: Moment, until: Option<Moment>) -> rusqlite::Result<Option<Ban>> {
    let Some((jail, net)) = key(row)? else {
        return Ok(None);
    };
    let mode: String = row.get("mode")?;
    let mode = match mode.split_once(' ') {
        Some(("behind", peer)) => match peer.parse::<IpAddr>() {
            Ok(peer) => Mode::Behind(peer),
            Err(_) => return Ok(None),
        },
        _ if mode == "observed" => Mode::Observed,
        _ => Mode::Enforced,
    };
    let Ok(ports) = serde_json::from_str(&row.get::<_, String>("ports")?) else {
        return Ok(None);
    };
    let cause: String = row.get("cause")?;
    let Some(cause) = Cause::from_word(&cause, row.get("reason")?) else {
        return Ok(None);
    };
    Ok(Some(Ban {
        id: BanId::new(row.get::<_, i64>("ident")?.cast_unsigned()),
        jail,
        net,
        ports,
        mode,
        since,
        since_wall: timestamp(row.get("since")?),
        until,
        failures: row.get("failures")?,
        within: Duration::from_millis(unsigned(row.get("within_ms")?)),
        cause,
    }))
}

fn key(row: &Row<'_>) -> rusqlite::Result<Option<(JailName, IpNet)>> {
    let jail = row.get::<_, String>("jail")?.parse::<JailName>();
    let net = row.get::<_, String>("net")?.parse::<IpNet>();
    Ok(jail.ok().zip(net.ok()))
}
