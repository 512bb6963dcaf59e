//! Hits that count now, and lines in logs.

use std::time::Duration;

use jiff::Timestamp;

use super::code::Code;
use super::facts::{CounterFact, Engine, HitFact, LogFact, MissFact, Origin, Why};
use super::found::{Found, Rank};
use crate::config::duration;
use crate::report::words::count;

/// A line that arrives so soon after the end of a ban was counted before it.
const RECENT: Duration = Duration::from_secs(5);

/// What jails count now.
pub(super) fn counters(found: &mut Found<'_>) {
    let facts = found.facts;
    for counter in &facts.counters {
        let (count, closes) = window(counter, facts.now);
        if count == 0 {
            continue;
        }
        let more = counter.maxretry.saturating_sub(count);
        let findtime = duration::show(Some(counter.findtime));
        let text = format!(
            "jail `{}` counts {count} of {} for {} within {findtime}; {more} more lead to a ban, and \
             the first of these hits stops counting at {}",
            counter.jail,
            counter.maxretry,
            found.host(),
            found.time(closes)
        );
        if facts.shared {
            let text = format!(
                "many browsers use {}, so jails whose `maxretry` one line does not reach need five \
                 times as many hits: {text}; if it is a proxy of yours, list it in `[proxies] \
                 trusted`",
                found.host()
            );
            found.add(Rank::Shared, Code::SharedAddress, text);
        } else if counter.enforce {
            found.add(Rank::Counting, Code::BelowMaxretry, text);
        } else {
            let text = format!("{text}; it has `enforce = false`, so it would not ban either");
            found.add(Rank::Counting, Code::BelowMaxretry, text);
        }
    }
}

/// The weight in the window, and when its first hit leaves it.
fn window(counter: &CounterFact, now: Timestamp) -> (u32, Timestamp) {
    let end = |at: Timestamp| at.checked_add(counter.findtime).unwrap_or(Timestamp::MAX);
    let inside = counter.hits.iter().filter(|(at, _)| end(*at) > now);
    let count = inside
        .clone()
        .fold(0u32, |sum, (_, weight)| sum.saturating_add(*weight));
    (count, inside.map(|(at, _)| end(*at)).min().unwrap_or(now))
}

/// Lines in logs.
pub(super) fn logs(found: &mut Found<'_>) {
    let facts = found.facts;
    for log in &facts.logs {
        if let Some(trouble) = &log.trouble {
            let text = format!("`{}` cannot be read: {trouble}", log.name);
            found.add(Rank::More, Code::Unknown, text);
        }
        for hit in &log.hits {
            of_hit(found, log, hit);
        }
        for miss in &log.misses {
            of_miss(found, log, miss);
        }
        if let Some((lines, why)) = &log.unparsed {
            let text = format!(
                "{} with {} in `{}` {} not of the log's format, so their client is not \
                 known: {why}; name the format with `--format` in Apache's `pipeban log`",
                count(*lines, "line"),
                found.host(),
                log.name,
                if *lines == 1 { "is" } else { "are" }
            );
            found.add(rank_of_miss(log), Code::Unparsed, text);
        }
        if log.lines > 0 && log.origin == Origin::Unpiped {
            not_piped(found, log);
        }
    }
    dropped(found);
    not_seen(found);
}

fn of_hit(found: &mut Found<'_>, log: &LogFact, hit: &HitFact) {
    let facts = found.facts;
    let (host, name, jail) = (found.host(), &log.name, &hit.jail);
    let findtime = duration::show(Some(hit.findtime));
    let last = hit
        .last
        .map_or("an unknown time".to_owned(), |last| found.time(last));
    let what = format!(
        "{} of {host} in `{name}` {} jail `{jail}` ({}), the last at {last}",
        count(hit.lines, "line"),
        matches(hit.lines),
        hit.pattern
    );
    if log.origin == Origin::Line {
        let text = match hit.weight >= hit.maxretry {
            true => format!(
                "the line matches jail `{jail}` ({}) and reaches its maxretry of {} alone",
                hit.pattern, hit.maxretry
            ),
            false => format!(
                "the line matches jail `{jail}` ({}) and counts {} of {}",
                hit.pattern, hit.weight, hit.maxretry
            ),
        };
        return found.add(Rank::More, Code::Match, text);
    }
    if hit.forged > 0 {
        let text = format!(
            "{what}; a header named the client, and Apache's configuration lists no proxy that may \
             do so, so any client can name its victim: list your proxies with \
             `RemoteIPInternalProxy`, and reload Apache"
        );
        return found.add(Rank::Never, Code::HeaderNamed, text);
    }
    if hit.spared {
        let text = format!(
            "{what}; many browsers use the address, so it needs {} within {findtime}, and had at \
             most {}",
            hit.maxretry, hit.most
        );
        return found.add(Rank::Shared, Code::SharedAddress, text);
    }
    if !hit.enforce {
        let text =
            format!("{what}; it has `enforce = false`, so it only reports: set `enforce = true`");
        return found.add(Rank::Observed, Code::ObserveOnly, text);
    }
    if log.origin == Origin::Unpiped {
        return;
    }
    if log.origin == Origin::Configured && facts.engine == Engine::Running {
        let text = format!(
            "{what}; Apache's configuration pipes this log to pipeban, but no worker is connected: \
             reload Apache (`{}`)",
            facts.commands.reload_apache
        );
        return found.add(Rank::NotPiped, Code::LogNotPiped, text);
    }
    let counted = facts.counters.iter().any(|counter| counter.jail == *jail);
    let exempt = facts.exempt.iter().any(|exempt| exempt.jail == *jail);
    let mut bans = facts.past.iter().chain(&facts.bans);
    let led_to_ban = bans.any(|ban| {
        hit.last
            .is_some_and(|last| ban.jail == *jail && last <= later(ban.ended_at()))
    });
    if counted || exempt || led_to_ban || facts.off.is_some() {
        return;
    }
    let window = |last: Timestamp| last.checked_add(hit.findtime).unwrap_or(Timestamp::MAX);
    let is_recent = hit.last.is_some_and(|last| window(last) > facts.now);
    if facts.engine == Engine::Stopped {
        let would = match hit.banned {
            Some(banned) => format!(", and would have led to a ban at {}", found.time(banned)),
            None => format!(
                "; at most {} of {} within {findtime}",
                hit.most, hit.maxretry
            ),
        };
        found.add(
            Rank::NoEngine,
            Code::EngineStopped,
            format!("{what}{would}"),
        );
    } else if let Some(banned) = hit.banned {
        by_hand(
            found,
            log,
            &format!(
                "{what}, and would have led to a ban at {}",
                found.time(banned)
            ),
        );
    } else if is_recent && log.origin == Origin::Worker && facts.engine == Engine::Running {
        by_hand(found, log, &what);
    } else if hit.weight >= hit.maxretry {
        let text = format!(
            "{what}; they are too far apart: at most {} of {} within {findtime} (`findtime`); a \
             longer `findtime` or a smaller `maxretry` catches such a client",
            hit.most, hit.maxretry
        );
        found.add(Rank::Past, Code::OutsideFindtime, text);
    } else {
        let closed = match (is_recent, hit.last) {
            (false, Some(last)) => format!(
                "; the window of {findtime} closed at {}",
                found.time(window(last))
            ),
            _ => String::new(),
        };
        let text = format!(
            "{what}; that counts {} of {}{closed}",
            hit.weight, hit.maxretry
        );
        found.add(Rank::Past, Code::BelowMaxretry, text);
    }
}

fn later(ended: Timestamp) -> Timestamp {
    ended.checked_add(RECENT).unwrap_or(ended)
}

impl super::facts::BanFact {
    /// When it ended; an active one has not.
    fn ended_at(&self) -> Timestamp {
        self.ended.as_ref().map_or(Timestamp::MAX, |(at, _)| *at)
    }
}

fn by_hand(found: &mut Found<'_>, log: &LogFact, what: &str) {
    let given = match log.origin {
        Origin::Given => {
            "pipeban did not get them from Apache, or not while this jail was as it is"
        }
        _ => {
            "they did not come through Apache's pipe: they were written into the file by hand or \
              by another program, or before pipeban wrote this log"
        }
    };
    let text = format!(
        "{what}, but pipeban has not counted them: {given}. pipeban reads no files: to try a line, \
         use `pipeban test`, or send the request to Apache"
    );
    found.add(Rank::Past, Code::WrittenByHand, text);
}

fn matches(lines: u64) -> &'static str {
    if lines == 1 { "matches" } else { "match" }
}

fn rank_of_miss(log: &LogFact) -> Rank {
    match log.origin {
        Origin::Line => Rank::TheLine,
        _ => Rank::Missed,
    }
}

/// Lines without a hit matter where no line of the log has one.
fn of_miss(found: &mut Found<'_>, log: &LogFact, miss: &MissFact) {
    let host = found.host();
    let (lines, matches) = match log.origin {
        Origin::Line => ("the line".to_owned(), matches(1)),
        _ => (
            format!("{} in `{}`", count(miss.lines, "line"), log.name),
            matches(miss.lines),
        ),
    };
    let (code, text) = match &miss.why {
        Why::Spoof {
            jail,
            client,
            named,
        } => {
            let client = client.map_or("no client".to_owned(), |client| client.to_string());
            let named = named
                .as_ref()
                .map_or("another address".to_owned(), |named| format!("`{named}`"));
            (
                Code::Spoof,
                format!(
                    "{lines} would match jail `{jail}` only with {named}, and Apache names {client} \
                     as the client: a client can write such text itself, so it bans no one; if the \
                     pattern is yours, anchor its <HOST> to Apache's client field"
                ),
            )
        }
        Why::Vhost { jail, vhost } => {
            let vhost = vhost
                .as_ref()
                .map_or("no virtual host".to_owned(), |vhost| format!("`{vhost}`"));
            (
                Code::WrongVhost,
                format!(
                    "{lines} would match jail `{jail}`, which is not for {vhost} (`vhost`, \
                     `not_vhost`): add the host to the jail, or put %v into the log's format if it \
                     is missing"
                ),
            )
        }
        Why::Disabled { jail, place } => {
            let place = place
                .as_ref()
                .map_or(String::new(), |place| format!(" ({place})"));
            (
                Code::JailDisabled,
                format!(
                    "{lines} would match jail `{jail}`, which is disabled{place}: set `enabled = \
                     true` and run `pipeban reload`"
                ),
            )
        }
        Why::OtherLog { jail, reads } => (
            Code::WrongLog,
            format!(
                "{lines} would match jail `{jail}`, which reads the {reads} log, and this is the \
                 {} log: set `log = \"{}\"` for the jail and run `pipeban reload`",
                log.kind, log.kind
            ),
        ),
        Why::NotReloaded { jail } => (
            Code::NotReloaded,
            format!(
                "{lines} {matches} jail `{jail}` as the files have it, but the engine has not taken them \
                 into use: run `pipeban reload`"
            ),
        ),
        Why::Ignored { jail, by, number } => (
            Code::NoMatch,
            format!(
                "{lines} {matches} jail `{jail}`, and so does its {by} {number}, which excludes them"
            ),
        ),
        Why::Near(near) => {
            let near = near
                .as_ref()
                .map_or(String::new(), |near| format!("; the closest: {near}"));
            (
                Code::NoMatch,
                format!(
                    "{lines} of {host} {matches} no jail{near}; `pipeban test --kind {} --line '...'` \
                     shows how far each pattern matches",
                    log.kind
                ),
            )
        }
    };
    let rank = match (log.origin, log.matched) {
        (Origin::Line, _) => Rank::TheLine,
        (_, 0) if code == Code::NoMatch => Rank::Unmatched,
        (_, 0) => Rank::Missed,
        _ => Rank::More,
    };
    // A line that no jail wants says little where others have hits.
    if rank != Rank::More || code != Code::NoMatch {
        found.add(rank, code, format!("{text}; the last: {}", miss.line));
    }
}

fn not_piped(found: &mut Found<'_>, log: &LogFact) {
    let facts = found.facts;
    let rank = match log.matched > 0 {
        true => Rank::NotPiped,
        false => Rank::Elsewhere,
    };
    let text = format!(
        "Apache writes `{}` itself, past pipeban; it has {} of {}, {} with a hit: run \
         `pipeban setup`, which shows the line to change",
        log.name,
        count(log.lines, "line"),
        found.host(),
        log.matched
    );
    let elsewhere = facts
        .logs
        .iter()
        .any(|other| other.origin != Origin::Unpiped && other.matched > 0);
    let rank = if elsewhere { Rank::More } else { rank };
    found.add(rank, Code::LogNotPiped, text);
}

/// Workers that do not match, or lost lines.
fn dropped(found: &mut Found<'_>) {
    let facts = found.facts;
    let matched = facts.logs.iter().any(|log| log.matched > 0);
    for worker in &facts.workers {
        let (log, rank) = (
            &worker.log,
            if matched { Rank::Dropped } else { Rank::More },
        );
        if !worker.matching {
            let text = format!(
                "the worker of {log} matches no lines now, and passes them on: see `pipeban status`"
            );
            found.add(rank, Code::LinesDropped, text);
        } else if worker.shed > 0 || worker.unsent > 0 {
            let text = format!(
                "the worker of {log} was too busy for {} lines and could not send {} hits: see \
                 `pipeban status`",
                worker.shed, worker.unsent
            );
            found.add(Rank::More, Code::LinesDropped, text);
        }
    }
}

fn not_seen(found: &mut Found<'_>) {
    let facts = found.facts;
    let logs = facts.logs.iter().filter(|log| log.origin != Origin::Line);
    let readable: Vec<&LogFact> = logs.filter(|log| log.trouble.is_none()).collect();
    let seen = |log: &&LogFact| log.lines > 0 || log.unparsed.is_some() || !log.misses.is_empty();
    if readable.iter().any(seen) {
        return;
    }
    let host = found.host();
    for unpiped in &facts.unpiped {
        let text = format!("pipeban does not get the lines of {unpiped}: run `pipeban setup`");
        found.add(Rank::Elsewhere, Code::LogNotPiped, text);
    }
    let names: Vec<String> = readable
        .iter()
        .map(|log| {
            let part = match log.skipped {
                0 => String::new(),
                skipped => format!(" (its end, without the first {} MiB)", skipped >> 20),
            };
            let unpiped = match log.origin {
                Origin::Unpiped => " (which pipeban does not get)",
                _ => "",
            };
            format!("`{}`{part}{unpiped}", log.name)
        })
        .collect();
    let text = match names.is_empty() {
        true => format!(
            "no log was read, because neither the engine nor Apache's configuration names one that \
             can be read: name it with `--log FILE`; nothing else is known of {host}"
        ),
        false => format!(
            "no line of {host} is in {}: it has not reached Apache, or Apache logs another address \
             for it (a proxy, IPv6); `--log FILE` searches another log",
            names.join(", ")
        ),
    };
    found.add(Rank::NotSeen, Code::NotSeen, text);
}
