//! Changes into rows.

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::{Params, Result, Transaction, params};

use super::model::{MAX_STREAMS, Op};
use super::numbers::{millis, signed, wall_minus_boot};
use crate::config::JailName;
use crate::jail::{Ban, BanId, Counted, End, Mode, Moment, Now, is_ban_of, overlap};

/// Ended bans kept at most.
const MAX_HISTORY: u64 = 1_000_000;

/// Lines of evidence kept at most; the oldest ones go first.
const MAX_EVIDENCE: u64 = 500_000;

/// How long an idle stream is kept.
const STREAM_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// One transaction, and the time of its changes.
pub(super) struct Writing<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) boot_id: &'a str,
    pub(super) now: Now,
}

impl Writing<'_> {
    pub(super) fn apply(&self, op: &Op) -> Result<()> {
        match op {
            Op::Ban(ban) => self.ban_began(ban)?,
            Op::Confirm(ban) => self.run(
                "UPDATE bans SET cause = ?, until = ?, until_boot = ?
                 WHERE ident = ? AND ended IS NULL",
                params![
                    ban.cause.word(),
                    ban.until
                        .map(|until| self.now.wall_of(until).as_millisecond()),
                    ban.until.map(Moment::nanos),
                    ban.id.number().cast_signed(),
                ],
            )?,
            Op::End { jail, net, end } => self.ban_ended(jail, net, *end)?,
            Op::Evidence {
                ban,
                lines,
                classes,
                vhosts,
                rule,
            } => {
                self.evidence(*ban, lines)?;
                self.labels(*ban, classes, vhosts)?;
                self.rule(*ban, rule.as_deref())?;
            }
            Op::Clear => self.transaction.execute_batch(
                "DELETE FROM bans WHERE ended IS NULL; DELETE FROM counters; DELETE FROM totals;
             DELETE FROM allow",
            )?,
            Op::Forget { net, jail } => self.forget(*net, jail.as_ref())?,
            Op::Purge(net) => self.purge(net)?,
            Op::ForgetOne(id) => {
                let id = id.number().cast_signed();
                let gone = "DELETE FROM bans WHERE ident = ? AND ended IS NOT NULL";
                if self.transaction.execute(gone, [id])? > 0 {
                    self.transaction
                        .execute("DELETE FROM evidence WHERE ban = ?", [id])?;
                }
            }
            Op::Counter {
                jail,
                net,
                hits,
                findtime,
            } => self.counter(jail, net, hits, *findtime)?,
            Op::Totals { jail, totals } => self.run(
                "REPLACE INTO totals (jail, failed, banned) VALUES (?, ?, ?)",
                params![jail.as_str(), signed(totals.failed), signed(totals.banned)],
            )?,
            Op::Stream { stream, offset } => self.run(
                "REPLACE INTO streams (stream, offset, seen) VALUES (?, ?, ?)",
                params![
                    stream.cast_signed(),
                    offset.cast_signed(),
                    self.now.wall.as_millisecond()
                ],
            )?,
            Op::Allow(entry) => self.run(
                "REPLACE INTO allow (net, since, until, boot_id, until_boot, reason)
                     VALUES (?, ?, ?, ?, ?, ?)",
                params![
                    entry.net.to_string(),
                    entry.since.as_millisecond(),
                    entry
                        .until
                        .map(|until| self.now.wall_of(until).as_millisecond()),
                    self.boot_id,
                    entry.until.map(Moment::nanos),
                    entry.reason
                ],
            )?,
            Op::Disallow(net) => self.run("DELETE FROM allow WHERE net = ?", [net.to_string()])?,
            Op::Prune { keep } => self.prune(*keep)?,
        }
        Ok(())
    }

    fn ban_began(&self, ban: &Ban) -> Result<()> {
        self.ban_ended(&ban.jail, &ban.net, End::Replaced)?;
        let mode = match ban.mode {
            Mode::Enforced => "enforced".to_owned(),
            Mode::Observed => "observed".to_owned(),
            // Which of the two it is depends on the configuration.
            Mode::Behind(peer) | Mode::Proxied(peer) => format!("behind {peer}"),
        };
        let ports = serde_json::to_string(&ban.ports).unwrap_or_default();
        self.run(
            "INSERT INTO bans (ident, jail, net, ports, mode, failures, within_ms, cause, reason,
                since, until, boot_id, since_boot, until_boot)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                ban.id.number().cast_signed(),
                ban.jail.as_str(),
                ban.net.to_string(),
                ports,
                mode,
                ban.failures,
                millis(ban.within),
                ban.cause.word(),
                ban.cause.given(),
                ban.since_wall.as_millisecond(),
                ban.until
                    .map(|until| self.now.wall_of(until).as_millisecond()),
                self.boot_id,
                ban.since.nanos(),
                ban.until.map(Moment::nanos)
            ],
        )
    }

    fn ban_ended(&self, jail: &JailName, net: &IpNet, end: End) -> Result<()> {
        self.run(
            "UPDATE bans SET ended = ?, end = ? WHERE jail = ? AND net = ? AND ended IS NULL",
            params![
                self.now.wall.as_millisecond(),
                end.word(),
                jail.as_str(),
                net.to_string()
            ],
        )
    }

    fn evidence(&self, ban: BanId, lines: &[(Timestamp, String)]) -> Result<()> {
        let ban = ban.number().cast_signed();
        // Written twice it has the effect of one.
        self.run("DELETE FROM evidence WHERE ban = ?", [ban])?;
        let mut insert = self
            .transaction
            .prepare_cached("INSERT INTO evidence (ban, at, line) VALUES (?, ?, ?)")?;
        for (at, line) in lines {
            insert.execute(params![ban, at.as_millisecond(), line])?;
        }
        Ok(())
    }

    fn rule(&self, ban: BanId, rule: Option<&str>) -> Result<()> {
        let Some(rule) = rule else {
            return Ok(());
        };
        let ban = ban.number().cast_signed();
        self.run(
            "UPDATE bans SET rule = ? WHERE ident = ?",
            params![rule, ban],
        )
    }

    fn labels(&self, ban: BanId, classes: &[String], vhosts: &[String]) -> Result<()> {
        if classes.is_empty() && vhosts.is_empty() {
            return Ok(());
        }
        self.run(
            "UPDATE bans SET classes = ?, vhosts = ? WHERE ident = ?",
            params![list(classes), list(vhosts), ban.number().cast_signed()],
        )
    }

    fn forget(&self, net: Option<IpNet>, jail: Option<&JailName>) -> Result<()> {
        let mut select = self.transaction.prepare(
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
                self.transaction
                    .execute("DELETE FROM bans WHERE id = ?", [id])?;
                self.transaction
                    .execute("DELETE FROM evidence WHERE ban = ?", [ident])?;
            }
        }
        Ok(())
    }

    fn purge(&self, net: &IpNet) -> Result<()> {
        let mut select = self
            .transaction
            .prepare("SELECT id, net, failures, ident, ended IS NOT NULL FROM bans")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let banned = row.get_ref(1)?.as_str()?.parse::<IpNet>();
            let failures = row.get(2)?;
            if banned.is_ok_and(|banned| is_ban_of(net, &banned, failures)) {
                let ident: i64 = row.get(3)?;
                self.run("DELETE FROM evidence WHERE ban = ?", [ident])?;
                if row.get(4)? {
                    self.run("DELETE FROM bans WHERE id = ?", [row.get::<_, i64>(0)?])?;
                }
            }
        }
        Ok(())
    }

    fn counter(
        &self,
        jail: &JailName,
        net: &IpNet,
        hits: &[Counted],
        findtime: Duration,
    ) -> Result<()> {
        let Some((newest, _)) = hits.last() else {
            self.run(
                "DELETE FROM counters WHERE jail = ? AND net = ?",
                params![jail.as_str(), net.to_string()],
            )?;
            return Ok(());
        };
        let plain: Vec<(i64, u32)> = hits.iter().map(|(at, w)| (at.nanos(), *w)).collect();
        self.run(
            "REPLACE INTO counters
                (jail, net, hits, boot_id, wall_minus_boot, expires, expires_boot)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![
                jail.as_str(),
                net.to_string(),
                serde_json::to_string(&plain).unwrap_or_default(),
                self.boot_id,
                wall_minus_boot(self.now),
                self.now.wall_of(newest.plus(findtime)).as_millisecond(),
                newest.plus(findtime).nanos()
            ],
        )
    }

    fn prune(&self, keep: Option<Duration>) -> Result<()> {
        let (boot_id, boot) = (self.boot_id, self.now.boot.nanos());
        let now = self.now.wall.as_millisecond();
        let before = |age: Duration| now.saturating_sub(millis(age));
        self.transaction.execute(
            "DELETE FROM counters WHERE CASE boot_id
            WHEN ?1 THEN expires_boot <= ?2 ELSE expires <= ?3 END",
            params![boot_id, boot, now],
        )?;
        self.transaction.execute(
            "DELETE FROM streams WHERE seen < ?1 OR stream IN
            (SELECT stream FROM streams ORDER BY seen DESC LIMIT -1 OFFSET ?2)",
            params![before(STREAM_LIFE), signed(MAX_STREAMS as u64)],
        )?;
        self.transaction.execute(
            "DELETE FROM allow WHERE CASE boot_id
            WHEN ?1 THEN until_boot <= ?2 ELSE until <= ?3 END",
            params![boot_id, boot, now],
        )?;
        self.transaction.execute(
            "DELETE FROM bans WHERE ended < ?1 OR id IN
            (SELECT id FROM bans WHERE ended IS NOT NULL ORDER BY ended DESC LIMIT -1 OFFSET ?2)",
            params![keep.map(before), signed(MAX_HISTORY)],
        )?;
        self.transaction.execute(
            "DELETE FROM evidence WHERE at < ?1 OR id <= (SELECT max(id) FROM evidence) - ?2",
            params![keep.map(before), signed(MAX_EVIDENCE)],
        )?;
        Ok(())
    }

    /// Executes one of the frequent statements, compiled once.
    fn run(&self, sql: &str, params: impl Params) -> Result<()> {
        self.transaction
            .prepare_cached(sql)?
            .execute(params)
            .map(drop)
    }
}

fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        words => serde_json::to_string(words).unwrap_or_default(),
    }
}
