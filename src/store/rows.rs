//! Values into rows and back.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};

use super::{
    Allowed, Error, HISTORY, MAX_BYTES, MAX_EVIDENCE, MAX_HISTORY, MAX_STREAMS, Op, STREAM_LIFE,
    Saved,
};
use crate::config::JailName;
use crate::jail::{Ban, BanId, Counted, MAX_BANS, MAX_CLIENTS, Mode, Moment, Now, Totals, overlap};

pub(super) fn apply(
    transaction: &Transaction<'_>,
    op: &Op,
    boot_id: &str,
    now: Now,
) -> Result<(), Error> {
    match op {
        Op::Ban(ban) => ban_began(transaction, ban, boot_id, now)?,
        Op::End { jail, net, why } => end(transaction, jail, net, why, now)?,
        Op::Evidence { ban, lines } => evidence(transaction, *ban, lines)?,
        Op::Anew => transaction.execute_batch(
            "DELETE FROM bans WHERE ended IS NULL; DELETE FROM counters; DELETE FROM totals;
             DELETE FROM allow",
        )?,
        Op::Forget { net, jail } => forget(transaction, *net, jail.as_ref())?,
        Op::ForgetOne(id) => {
            let id = id.number().cast_signed();
            let gone = "DELETE FROM bans WHERE ident = ? AND ended IS NOT NULL";
            if transaction.execute(gone, [id])? > 0 {
                transaction.execute("DELETE FROM evidence WHERE ban = ?", [id])?;
            }
        }
        Op::Counter {
            jail,
            net,
            hits,
            findtime,
        } => counter(transaction, (jail, net), hits, *findtime, boot_id, now)?,
        Op::Totals { jail, totals } => {
            transaction
                .prepare_cached("REPLACE INTO totals (jail, failed, banned) VALUES (?, ?, ?)")?
                .execute(params![
                    jail.as_str(),
                    signed(totals.failed),
                    signed(totals.banned)
                ])?;
        }
        Op::Stream { stream, offset } => {
            transaction
                .prepare_cached("REPLACE INTO streams (stream, offset, seen) VALUES (?, ?, ?)")?
                .execute(params![
                    stream.cast_signed(),
                    offset.cast_signed(),
                    now.wall.as_millisecond()
                ])?;
        }
        Op::Allow(entry) => {
            transaction
                .prepare_cached(
                    "REPLACE INTO allow (net, since, until, boot_id, until_boot, reason)
                     VALUES (?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    entry.net.to_string(),
                    entry.since.as_millisecond(),
                    entry.until.map(|until| now.wall_of(until).as_millisecond()),
                    boot_id,
                    entry.until.map(Moment::nanos),
                    entry.reason
                ])?;
        }
        Op::Disallow(net) => {
            transaction.execute("DELETE FROM allow WHERE net = ?", [net.to_string()])?;
        }
        Op::Prune => prune(transaction, boot_id, now)?,
    }
    Ok(())
}

fn ban_began(
    transaction: &Transaction<'_>,
    ban: &Ban,
    boot_id: &str,
    now: Now,
) -> Result<(), Error> {
    end(transaction, &ban.jail, &ban.net, "replaced", now)?;
    let mode = match ban.mode {
        Mode::Enforced => "enforced".to_owned(),
        Mode::Observed => "observed".to_owned(),
        // Which of the two it is depends on the configuration in use.
        Mode::Behind(peer) | Mode::Proxied(peer) => format!("behind {peer}"),
    };
    let ports = serde_json::to_string(&ban.ports).unwrap_or_default();
    transaction
        .prepare_cached(
            "INSERT INTO bans (ident, jail, net, ports, mode, failures, within_ms, reason,
                               since, until, boot_id, since_boot, until_boot)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            ban.id.number().cast_signed(),
            ban.jail.as_str(),
            ban.net.to_string(),
            ports,
            mode,
            ban.failures,
            millis(ban.within),
            ban.reason,
            ban.since_wall.as_millisecond(),
            ban.until.map(|until| now.wall_of(until).as_millisecond()),
            boot_id,
            ban.since.nanos(),
            ban.until.map(Moment::nanos)
        ])?;
    Ok(())
}

fn end(
    transaction: &Transaction<'_>,
    jail: &JailName,
    net: &IpNet,
    why: &str,
    now: Now,
) -> Result<(), Error> {
    transaction
        .prepare_cached(
            "UPDATE bans SET ended = ?, end = ? WHERE jail = ? AND net = ? AND ended IS NULL",
        )?
        .execute(params![
            now.wall.as_millisecond(),
            why,
            jail.as_str(),
            net.to_string()
        ])?;
    Ok(())
}

fn evidence(
    transaction: &Transaction<'_>,
    ban: BanId,
    lines: &[(Timestamp, String)],
) -> Result<(), Error> {
    let ban = ban.number().cast_signed();
    // Written twice it says the same.
    transaction
        .prepare_cached("DELETE FROM evidence WHERE ban = ?")?
        .execute([ban])?;
    let mut insert =
        transaction.prepare_cached("INSERT INTO evidence (ban, at, line) VALUES (?, ?, ?)")?;
    for (at, line) in lines {
        insert.execute(params![ban, at.as_millisecond(), line])?;
    }
    Ok(())
}

fn forget(
    transaction: &Transaction<'_>,
    net: Option<IpNet>,
    jail: Option<&JailName>,
) -> Result<(), Error> {
    let mut select = transaction.prepare(
        "SELECT id, net, ident FROM bans
         WHERE ended IS NOT NULL AND (?1 IS NULL OR jail = ?1)",
    )?;
    let rows = select.query_map([jail.map(JailName::as_str)], |row| {
        let ident = row.get::<_, i64>(2)?;
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, ident))
    })?;
    for row in rows {
        let (id, text, ident) = row?;
        let candidate = text.parse::<IpNet>();
        if net.is_none_or(|net| candidate.is_ok_and(|candidate| overlap(&net, &candidate))) {
            transaction.execute("DELETE FROM bans WHERE id = ?", [id])?;
            transaction.execute("DELETE FROM evidence WHERE ban = ?", [ident])?;
        }
    }
    Ok(())
}

fn counter(
    transaction: &Transaction<'_>,
    (jail, net): (&JailName, &IpNet),
    hits: &[Counted],
    findtime: Duration,
    boot_id: &str,
    now: Now,
) -> Result<(), Error> {
    let Some((newest, _)) = hits.last() else {
        transaction
            .prepare_cached("DELETE FROM counters WHERE jail = ? AND net = ?")?
            .execute(params![jail.as_str(), net.to_string()])?;
        return Ok(());
    };
    let plain: Vec<(i64, u32)> = hits.iter().map(|(at, w)| (at.nanos(), *w)).collect();
    transaction
        .prepare_cached(
            "REPLACE INTO counters
                (jail, net, hits, boot_id, wall_minus_boot, expires, expires_boot)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            jail.as_str(),
            net.to_string(),
            serde_json::to_string(&plain).unwrap_or_default(),
            boot_id,
            wall_minus_boot(now),
            now.wall_of(newest.plus(findtime)).as_millisecond(),
            newest.plus(findtime).nanos()
        ])?;
    Ok(())
}

fn prune(transaction: &Transaction<'_>, boot_id: &str, now: Now) -> Result<(), Error> {
    let boot = now.boot.nanos();
    let now = now.wall.as_millisecond();
    let before = |age: Duration| now.saturating_sub(millis(age));
    transaction.execute(
        "DELETE FROM counters WHERE CASE boot_id
            WHEN ?1 THEN expires_boot <= ?2 ELSE expires <= ?3 END",
        params![boot_id, boot, now],
    )?;
    transaction.execute(
        "DELETE FROM streams WHERE seen < ?1 OR stream IN
            (SELECT stream FROM streams ORDER BY seen DESC LIMIT -1 OFFSET ?2)",
        params![before(STREAM_LIFE), signed(MAX_STREAMS as u64)],
    )?;
    transaction.execute(
        "DELETE FROM allow WHERE CASE boot_id
            WHEN ?1 THEN until_boot <= ?2 ELSE until <= ?3 END",
        params![boot_id, boot, now],
    )?;
    transaction.execute(
        "DELETE FROM bans WHERE ended < ?1 OR id IN
            (SELECT id FROM bans WHERE ended IS NOT NULL ORDER BY ended DESC LIMIT -1 OFFSET ?2)",
        params![before(HISTORY), signed(MAX_HISTORY)],
    )?;
    transaction.execute(
        "DELETE FROM evidence WHERE at < ?1 OR id <= (SELECT max(id) FROM evidence) - ?2",
        params![before(HISTORY), signed(MAX_EVIDENCE)],
    )?;
    if bytes(transaction)? > MAX_BYTES {
        shrink(transaction)?;
    }
    Ok(())
}

/// Bytes of the file that hold something.
pub(super) fn bytes(connection: &Connection) -> Result<u64, Error> {
    let number = |what: &str| -> rusqlite::Result<i64> {
        connection.query_row(&format!("PRAGMA {what}"), [], |row| row.get(0))
    };
    let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
    Ok(unsigned(pages.saturating_mul(number("page_size")?)))
}

/// The older half of what only tells of the past goes; SQLite uses its pages again.
pub(super) fn shrink(transaction: &Transaction<'_>) -> Result<(), Error> {
    Ok(transaction.execute_batch(
        "DELETE FROM evidence WHERE id <= (SELECT (min(id) + max(id)) / 2 FROM evidence);
         DELETE FROM bans WHERE ended IS NOT NULL AND id IN
            (SELECT id FROM bans WHERE ended IS NOT NULL ORDER BY ended
             LIMIT (SELECT (count(*) + 1) / 2 FROM bans WHERE ended IS NOT NULL))",
    )?)
}

/// Reads all that was kept.
pub(super) fn load(reading: &Reading<'_>) -> Result<Saved, Error> {
    let mut saved = Saved::default();
    for table in TABLES {
        table(reading, &mut saved)?;
    }
    Ok(saved)
}

/// Reads what can be read of a damaged database; of a table what stands before the damage.
pub(super) fn salvage(reading: &Reading<'_>) -> Saved {
    let mut saved = Saved::default();
    for table in TABLES {
        // Told by the damage that led here.
        let _ = table(reading, &mut saved);
    }
    saved
}

/// From where to read, and how times of other boots are understood.
pub(super) struct Reading<'a> {
    pub(super) connection: &'a Connection,
    pub(super) boot_id: &'a str,
    pub(super) now: Now,
    /// How far back bans count for escalation.
    pub(super) memory: Duration,
}

type Table = fn(&Reading<'_>, &mut Saved) -> rusqlite::Result<()>;

const TABLES: [Table; 6] = [bans, counters, repeats, totals, streams, allowed];

impl Reading<'_> {
    fn same_boot(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        Ok(row.get::<_, String>("boot_id")? == self.boot_id)
    }

    /// A time of this boot is exact; one of another boot comes by the wall clock.
    fn moment(&self, row: &Row<'_>, boot: &str, wall: &str) -> rusqlite::Result<Option<Moment>> {
        Ok(if self.same_boot(row)? {
            row.get::<_, Option<i64>>(boot)?.map(Moment::from_nanos)
        } else {
            let wall: Option<i64> = row.get(wall)?;
            wall.map(|ms| self.now.moment_of(timestamp(ms)))
        })
    }

    /// A host that starts without knowing the year would make an hour of it decades: nothing has
    /// more left than it had at its beginning.
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
    let now = reading.now.boot;
    let connection = reading.connection;
    let last: Option<i64> =
        connection.query_row("SELECT max(ident) FROM bans", [], |row| row.get(0))?;
    saved.last_id = last.map(|last| BanId::new(last.cast_unsigned()));
    let mut select = connection.prepare(
        "SELECT * FROM bans WHERE ended IS NULL ORDER BY until IS NOT NULL, until DESC LIMIT ?",
    )?;
    let mut rows = select.query([signed(MAX_BANS as u64)])?;
    while let Some(row) = rows.next()? {
        let since = reading.moment(row, "since_boot", "since")?.unwrap_or(now);
        let (since, until) = (since.min(now), reading.end(row)?);
        saved.bans.extend(ban(row, since, until)?);
    }
    Ok(())
}

fn counters(reading: &Reading<'_>, saved: &mut Saved) -> rusqlite::Result<()> {
    newest_counters(reading, saved, MAX_CLIENTS)
}

/// The oldest of them first: who hit last is forgotten last.
pub(super) fn newest_counters(
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
        if let Some((jail, net)) = key(row)? {
            saved.counters.push((jail, net, hits));
        }
    }
    saved.counters.reverse();
    Ok(())
}

fn repeats(reading: &Reading<'_>, saved: &mut Saved) -> rusqlite::Result<()> {
    let now = reading.now;
    let mut select = reading.connection.prepare(
        "SELECT * FROM bans WHERE since > ? AND failures > 0 AND reason IS NULL
         ORDER BY jail, net, since",
    )?;
    let since = now
        .wall
        .as_millisecond()
        .saturating_sub(millis(reading.memory));
    let mut rows = select.query([since])?;
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

fn allowed(reading: &Reading<'_>, saved: &mut Saved) -> rusqlite::Result<()> {
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
        reason: row.get("reason")?,
    }))
}

fn key(row: &Row<'_>) -> rusqlite::Result<Option<(JailName, IpNet)>> {
    let jail = row.get::<_, String>("jail")?.parse::<JailName>();
    let net = row.get::<_, String>("net")?.parse::<IpNet>();
    Ok(jail.ok().zip(net.ok()))
}

fn wall_minus_boot(now: Now) -> i64 {
    let wall = i64::try_from(now.wall.as_nanosecond()).unwrap_or(i64::MAX);
    wall.saturating_sub(now.boot.nanos())
}

fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
