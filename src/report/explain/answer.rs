//! Facts into reasons, the one that matters most first.

use super::bans;
use super::code::Code;
use super::facts::{Engine, ExemptFact, Facts};
use super::found::{Found, Rank, Reason};
use super::lines;
use crate::jail::{self, WIDEST_V4, WIDEST_V6, Why, is_too_wide};

/// What is said about a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether a ban is active.
    pub banned: bool,
    /// Whether a ban is in force; `None`: not known, or not for this host to say.
    pub in_force: Option<bool>,
    /// Why, the reason that matters most first; never empty.
    pub reasons: Vec<Reason>,
}

/// Why the client is banned or is not.
pub fn explain(facts: &Facts) -> Answer {
    let mut found = Found::new(facts);
    let enforced = || facts.bans.iter().filter(|ban| !ban.observed);
    let banned = enforced().next().is_some();
    let in_force = match banned {
        true => bans::in_force(facts),
        false => Some(false),
    };
    paused(&mut found);
    match is_too_wide(&facts.host) {
        true => too_wide(&mut found, banned),
        false => exempt(&mut found, banned),
    }
    crawler(&mut found, banned);
    bans::active(&mut found);
    bans::ended(&mut found, banned);
    if !banned {
        lines::counters(&mut found);
        lines::logs(&mut found);
    }
    engine(&mut found, banned);
    if let Some(trouble) = &facts.database {
        let text = format!(
            "the database cannot be read, so earlier bans are not known: {trouble}; run the command as root"
        );
        found.add(Rank::More, Code::Unknown, text);
    }
    if !banned && !found.has_before(Rank::More) {
        let text = format!(
            "{} has no hit, no ban and no line that pipeban knows of",
            found.host()
        );
        found.add(Rank::NotSeen, Code::NotSeen, text);
    }
    Answer {
        banned,
        in_force,
        reasons: found.in_order(),
    }
}

fn paused(found: &mut Found<'_>) {
    let Some(off) = found.facts.off else { return };
    let until = match off.until {
        Some(until) => format!("until {}", found.time(until)),
        None => "until `pipeban on`".to_owned(),
    };
    let text = format!(
        "the emergency stop is on since {}, {until}: no ban is in force and no hit counts; run \
         `pipeban on`",
        found.time(off.since)
    );
    found.add(Rank::Paused, Code::Paused, text);
}

/// Every exempt address is in such a network, so that naming one would say nothing.
fn too_wide(found: &mut Found<'_>, banned: bool) {
    let text = format!(
        "pipeban bans no network as wide as {}: a ban covers at most /{WIDEST_V4} of IPv4 or \
         /{WIDEST_V6} of IPv6; explain one client or a smaller network",
        found.host()
    );
    let rank = if banned { Rank::More } else { Rank::Never };
    found.add(rank, Code::TooWide, text);
}

/// Exemptions count if no jail may ban, or one that has hits may not. An exempt address in a network
/// says nothing about the other clients in it.
fn exempt(found: &mut Found<'_>, banned: bool) {
    let facts = found.facts;
    let is_exempt = |jail: &_| facts.exempt.iter().any(|exempt| exempt.jail == *jail);
    let all = facts.enabled.iter().all(is_exempt);
    let hits = facts.logs.iter().flat_map(|log| &log.hits);
    let hit = hits.clone().any(|hit| is_exempt(&hit.jail));
    let rank = match (banned, all || hit) {
        (false, true) => Rank::Never,
        _ => Rank::More,
    };
    let mut reasons: Vec<(Vec<&str>, &ExemptFact)> = Vec::new();
    for exempt in &facts.exempt {
        let same = |(_, other): &&mut (_, &ExemptFact)| {
            other.reason == exempt.reason && other.place == exempt.place
        };
        match reasons.iter_mut().find(same) {
            Some((jails, _)) => jails.push(exempt.jail.as_str()),
            None => reasons.push((vec![exempt.jail.as_str()], exempt)),
        }
    }
    for (jails, exempt) in reasons {
        let jails = match jails.len() == facts.enabled.len() {
            true => "no jail bans".to_owned(),
            false => format!("these jails do not ban: {}; they skip", jails.join(", ")),
        };
        let place = exempt.place.as_ref();
        let place = place.map_or(String::new(), |place| format!(" ({place})"));
        let (code, advice) = exemption(exempt.reason);
        let host = found.host();
        if exempt.reason.entry.prefix_len() > facts.host.prefix_len() {
            let text = format!(
                "{jails} {host} as a whole: {}{place}; other clients in {host} can be banned",
                exempt.reason
            );
            found.add(Rank::More, code, text);
            continue;
        }
        let text = format!("{jails} {host}: {}{place}{advice}", exempt.reason);
        found.add(rank, code, text);
    }
}

/// A client whose user agent names a search engine.
fn crawler(found: &mut Found<'_>, banned: bool) {
    let Some(crawler) = &found.facts.crawler else {
        return;
    };
    let (host, engine, why) = (found.host(), &crawler.engine, &crawler.text);
    let at = found.time(crawler.at);
    let (rank, text) = match crawler.confirmed {
        Some(true) => (
            if banned { Rank::More } else { Rank::Never },
            format!(
                "{host} is {engine}: its name {why} has this address, as DNS said at {at}; it is \
                 banned only by rules with `confidence = \"certain\"`, and by jails with \
                 `search_engines = \"ban\"`"
            ),
        ),
        Some(false) => (
            Rank::More,
            format!("{host} claims to be {engine} and is not: {why}, as DNS said at {at}"),
        ),
        None => (
            Rank::More,
            format!(
                "{host} claims to be {engine}, and DNS does not say whether it is: {why} ({at})"
            ),
        ),
    };
    found.add(rank, Code::GoodBot, text);
}

fn exemption(reason: jail::Reason) -> (Code, &'static str) {
    const PROXY: &str = "; if a proxy on this host or network passes requests on, set up \
                         mod_remoteip, so that Apache logs the client's address";
    match reason.why {
        // Every jail has loopback in `ignoreip`.
        Why::IgnoreIp if reason.entry.addr().is_loopback() => (Code::OwnAddress, PROXY),
        Why::IgnoreIp => (
            Code::AllowListed,
            "; remove it from `ignoreip` and run `pipeban reload` to have it banned",
        ),
        Why::AllowList => (Code::AllowListed, ""),
        Why::Own | Why::Gateway | Why::NameServer => (Code::OwnAddress, PROXY),
        Why::TrustedProxy => (
            Code::TrustedProxy,
            "; its clients are banned instead, where Apache logs their addresses (mod_remoteip)",
        ),
        Why::Private => (Code::PrivateRange, PROXY),
        Why::NotAClient => (Code::PrivateRange, ""),
        Why::SearchEngine => (Code::GoodBot, ""),
        Why::Header => (Code::HeaderNamed, ""),
    }
}

fn engine(found: &mut Found<'_>, banned: bool) {
    let facts = found.facts;
    match &facts.engine {
        Engine::Running => {}
        Engine::Silent(why) => {
            let text = format!("the engine gave no answer, so this comes from the database: {why}");
            found.add(Rank::More, Code::Unknown, text);
        }
        Engine::Stopped => {
            let hits = facts.logs.iter().any(|log| log.matched > 0);
            let rank = match !banned && hits {
                true => Rank::NoEngine,
                false => Rank::More,
            };
            let text = format!(
                "no engine runs, so nothing is counted and no new client is banned: run `{}`",
                facts.commands.start_engine
            );
            found.add(rank, Code::EngineStopped, text);
        }
    }
}
