//! Bans, active and ended.

use std::collections::BTreeSet;
use std::time::Duration;

use super::code::Code;
use super::facts::{BanFact, Facts};
use super::found::{Found, Rank};
use crate::config::{Ports, duration};
use crate::jail::{Cause, End, show_net};

/// Lines that arrive so soon after the ban were on their way.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// Bans of a network that are described.
const MOST_BANS: usize = 5;

/// Whether any ban is in force.
pub(super) fn in_force(facts: &Facts) -> Option<bool> {
    let enforced = facts.bans.iter().filter(|ban| !ban.observed);
    let all: Vec<Option<bool>> = enforced.map(|ban| holds(facts, ban)).collect();
    match all {
        _ if all.contains(&Some(true)) => Some(true),
        _ if all.contains(&None) => None,
        _ => Some(false),
    }
}

fn holds(facts: &Facts, ban: &BanFact) -> Option<bool> {
    if facts.off.is_some() || facts.dry_run {
        return Some(false);
    }
    let by_backends = ban.backends.iter().map(|backend| backend.in_force).max();
    if ban.behind.is_some() {
        return by_backends.flatten().filter(|held| *held).or(ban.in_force);
    }
    if !facts.table && facts.ufw.used && (ban.accepted.is_some() || ban.forwarded.is_some()) {
        return Some(false);
    }
    let found = by_backends.flatten();
    found.or(ban.in_force)
}

/// Active bans.
pub(super) fn active(found: &mut Found<'_>) {
    let facts = found.facts;
    if let more @ 1.. = facts.bans.len().saturating_sub(MOST_BANS) {
        let text = format!(
            "at least {more} more bans share an address with {host}: `pipeban report --since all \
             --net {host}` lists the clients",
            host = found.host()
        );
        found.add(Rank::More, Code::Banned, text);
    }
    for ban in facts.bans.iter().take(MOST_BANS) {
        let text = found.about(ban);
        if ban.observed {
            let text = format!(
                "{text}, but jail `{}` has `enforce = false`: it only reports what it would ban; \
                 set `enforce = true` and run `pipeban reload`",
                ban.jail
            );
            found.add(Rank::Observed, Code::ObserveOnly, text);
            continue;
        }
        let force = holds(facts, ban);
        let state = match force {
            Some(true) => "it is in force",
            Some(false) => "it is NOT in force",
            None if ban.behind.is_some() => "no firewall on this host can enforce it",
            None => "whether it is in force is not known",
        };
        let backends: Vec<String> = ban.backends.iter().map(backend_words).collect();
        let backends = match backends.is_empty() {
            true => String::new(),
            false => format!(" ({})", backends.join("; ")),
        };
        let lift = format!("`pipeban unban {}` lifts it", ban.id);
        let text = format!("{text}; {state}{backends}; {lift}");
        found.add(Rank::Banned, Code::Banned, text);
        if facts.off.is_none() {
            not_in_force(found, ban, force);
        }
        other_ports(found, ban);
        let short = match ban.cause {
            Cause::Shared => (
                Code::SharedAddress,
                "many browsers use the address, so the ban is short and needs more hits: the address \
                 may be a NAT, a carrier or an unlisted proxy",
            ),
            Cause::Unconfirmed => (
                Code::Unconfirmed,
                "a script can write such lines, and no connection and no access record has shown \
                 that the client was there, so the ban lasts at most 10 minutes",
            ),
            _ => continue,
        };
        found.add(Rank::More, short.0, short.1);
    }
}

fn backend_words(backend: &super::facts::BackendFact) -> String {
    let name = &backend.name;
    match (&backend.in_force, &backend.trouble) {
        (Some(true), _) => format!("{name} has it"),
        (Some(false), _) => format!("{name} does not have it"),
        (None, Some(trouble)) => format!("{name} cannot be asked: {trouble}"),
        (None, None) => format!("{name} cannot say"),
    }
}

fn not_in_force(found: &mut Found<'_>, ban: &BanFact, force: Option<bool>) {
    let facts = found.facts;
    let alone = facts.ufw.used && !facts.table;
    let host = show_net(&ban.net);
    let passes = |(port, rule): &(u16, String)| (*port, rule.clone());
    let (code, text) = match (ban.behind, force) {
        (_, Some(true)) => {
            return also_ufw(found, ban);
        }
        (Some(peer), _) => (
            Code::BehindProxy,
            format!(
                "the client comes through {peer}, so a firewall on this host cannot block it: set \
                 `backend = [\"auto\", \"apache\"]` and enable pipeban-deny.conf in Apache, which \
                 then refuses it"
            ),
        ),
        (None, None) => (
            Code::Unknown,
            "the firewall could not be asked whether the ban is in force: run the command as root"
                .to_owned(),
        ),
        (None, Some(false)) if facts.dry_run => (
            Code::ObserveOnly,
            "the back end is `dry-run`, which enforces nothing: set another `[firewall] backend` \
             and restart the engine"
                .to_owned(),
        ),
        (None, Some(false)) if alone && !facts.ufw.installed => (
            Code::UfwInactive,
            "ufw is not installed, and `instant = false` leaves the ban to it: install ufw, or set \
             `backend = \"nftables\"`"
                .to_owned(),
        ),
        (None, Some(false)) if alone && !facts.ufw.enabled => (
            Code::UfwInactive,
            "ufw is not active, and `instant = false` leaves the ban to it: run `ufw enable` (`ufw \
             allow ssh` first), or set `instant = true`"
                .to_owned(),
        ),
        (None, Some(false)) if alone && !facts.ufw.ipv6 && matches!(ban.net, ipnet::IpNet::V6(_)) => (
            Code::Ipv6Off,
            "ufw has `IPV6=no` in /etc/default/ufw, so it makes no rule for an IPv6 client: set \
             `IPV6=yes` and run `ufw reload`, or set `instant = true`"
                .to_owned(),
        ),
        (None, Some(false)) => match (&ban.forwarded, &ban.accepted) {
            (Some(passage), _) if alone => {
                let (port, rule) = passes(passage);
                (
                    Code::ForwardedPort,
                    format!(
                        "port {port} is forwarded to another host or a container before ufw sees \
                         the packet (`{rule}`): set `instant = true`; pipeban's nftables table \
                         then drops it earlier"
                    ),
                )
            }
            (None, Some(passage)) if alone && has_rule(ban) => {
                let (port, rule) = passes(passage);
                (
                    Code::RuleShadowed,
                    format!(
                        "an earlier rule lets {host} in at port {port} before ufw's deny rule is \
                         reached: `{rule}`; delete that rule, move it after the deny rule, or set \
                         `instant = true`"
                    ),
                )
            }
            _ if ban.ufw.as_deref() == Some("queued") => (
                Code::FirewallMissing,
                "ufw has not made its rule yet; ufw takes a third of a second for each"
                    .to_owned(),
            ),
            _ if ban.ufw.as_deref() == Some("capped") => (
                Code::FirewallMissing,
                format!(
                    "ufw has no rule for it, because bans that end later fill `max_rules = {}`: set \
                     `instant = true`, or a larger `max_rules`",
                    facts.max_rules
                ),
            ),
            _ => (Code::FirewallMissing, missing(facts)),
        },
    };
    found.add(Rank::NotInForce, code, text);
}

fn has_rule(ban: &BanFact) -> bool {
    ban.backends
        .iter()
        .any(|backend| backend.in_force == Some(true))
}

fn missing(facts: &Facts) -> String {
    let what = match (facts.table, facts.ufw.used) {
        (true, _) => "pipeban's nftables table does not have the ban",
        (false, true) => "ufw has no rule for it",
        (false, false) => "your program says that the ban is not in force",
    };
    let mend = match &facts.engine {
        super::facts::Engine::Stopped => format!(
            "no engine runs that would restore it: run `{}`",
            facts.commands.start_engine
        ),
        _ => "the engine restores it within seconds; if it stays so, see `pipeban status`".into(),
    };
    format!("{what} (another program removed it, like `nft flush ruleset` or `ufw reset`); {mend}")
}

/// The ban is in force, and ufw does not show it.
fn also_ufw(found: &mut Found<'_>, ban: &BanFact) {
    let ufw = found.facts.ufw;
    if !ufw.used || ban.behind.is_some() {
        return;
    }
    let (code, text) = if !ufw.installed || !ufw.enabled {
        (
            Code::UfwInactive,
            "ufw is not active, so `ufw status` does not show the ban; pipeban's nftables table \
             enforces it",
        )
    } else if !ufw.ipv6 && matches!(ban.net, ipnet::IpNet::V6(_)) {
        (
            Code::Ipv6Off,
            "ufw has `IPV6=no`, so `ufw status` does not show the ban; pipeban's nftables table \
             enforces it",
        )
    } else {
        return;
    };
    found.add(Rank::More, code, text);
}

/// Ports of Apache that the ban leaves open.
fn other_ports(found: &mut Found<'_>, ban: &BanFact) {
    let facts = found.facts;
    let Ports::List { tcp, .. } = &ban.ports else {
        return;
    };
    if ban.behind.is_some() {
        return;
    }
    let open: BTreeSet<u16> = facts.apache_ports.iter().copied().collect();
    let open: Vec<String> = open.difference(tcp).map(u16::to_string).collect();
    if open.is_empty() {
        return;
    }
    let began = ban.since.checked_add(ON_ITS_WAY).unwrap_or(ban.since);
    let last = facts.logs.iter().filter_map(|log| log.last).max();
    let served = last.is_some_and(|last| last > began);
    let (rank, seen) = match served {
        true => (Rank::Served, "; its last line is later than the ban"),
        false => (Rank::More, ""),
    };
    let closed: Vec<String> = tcp.iter().map(u16::to_string).collect();
    let text = format!(
        "the ban closes ports {}, and Apache also listens on {}, where the client is still \
         served{seen}: set `port = [{}, {}]` for jail `{}` and run `pipeban reload`",
        closed.join(", "),
        open.join(", "),
        closed.join(", "),
        open.join(", "),
        ban.jail
    );
    found.add(rank, Code::OtherPort, text);
}

/// The latest ended ban, if nothing came since it ended.
pub(super) fn ended(found: &mut Found<'_>, banned: bool) {
    let facts = found.facts;
    // A ban that another one replaced is part of that one.
    let replaced = End::Replaced.word();
    let ended = facts.past.iter().filter(|ban| !ban.observed);
    let mut ended = ended.filter_map(|ban| Some((ban, ban.ended.as_ref()?)));
    let Some((ban, (at, end))) = ended.find(|(_, (_, end))| end != replaced) else {
        return;
    };
    let hits = facts.logs.iter().flat_map(|log| &log.hits);
    let last = hits.filter_map(|hit| hit.last).max();
    let rank = match banned || last.is_some_and(|last| last > *at) {
        true => Rank::More,
        false => Rank::Ended,
    };
    let (ban_text, when) = (found.about(ban), found.time(*at));
    let (code, how) = match end.as_str() {
        "over" => (Code::Expired, format!("its time was over at {when}")),
        "by hand" => (
            Code::Unbanned,
            format!(
                "an administrator lifted it at {when} (`pipeban unban`), which also reset the count"
            ),
        ),
        "exempt" => (
            Code::Unbanned,
            format!(
                "it was lifted at {when}, because the address became exempt (`pipeban allow`, `ignoreip`)"
            ),
        ),
        "no room" => (
            Code::Unbanned,
            format!("it was lifted at {when}, because there were too many bans"),
        ),
        _ => (Code::Expired, format!("it ended at {when}")),
    };
    let many = facts.past.len();
    let more = match many {
        0 | 1 => String::new(),
        many => format!("; {many} earlier bans are stored"),
    };
    found.add(rank, code, format!("{ban_text}; {how}{more}"));
}

impl Found<'_> {
    /// `jail `a` banned 192.0.2.7 at ... for ...: 5 hits in 41s`
    fn about(&self, ban: &BanFact) -> String {
        let host = show_net(&ban.net);
        let since = self.time(ban.since);
        let length = match ban.until {
            Some(until) => {
                let millis = until.duration_since(ban.since).as_millis();
                // Both are cut to milliseconds.
                let seconds = u64::try_from((millis + 500) / 1_000).unwrap_or(0);
                let length = duration::show(Some(Duration::from_secs(seconds)));
                format!("for {length}, until {}", self.time(until))
            }
            None => "for ever".to_owned(),
        };
        let who = match &ban.cause {
            Cause::Manual(_) => "an administrator banned".to_owned(),
            Cause::Imported(_) => "an imported list banned".to_owned(),
            Cause::Adopted => "the firewall had, when the engine started, a ban of".to_owned(),
            _ => format!("jail `{}` banned", ban.jail),
        };
        let why = match (&ban.cause, ban.failures) {
            (Cause::Manual(Some(reason)) | Cause::Imported(Some(reason)), _) => {
                format!(" ({reason})")
            }
            (_, 0) => String::new(),
            (_, failures) => format!(
                " ({failures} counted in {}{})",
                match ban.within.as_secs() {
                    0 => "under 1s".to_owned(),
                    seconds => duration::show(Some(Duration::from_secs(seconds))),
                },
                match ban.cause {
                    Cause::Unconfirmed => ", unconfirmed",
                    _ => "",
                }
            ),
        };
        let answered = match ban.answered {
            true => {
                "; Apache answered one of its attacks with status 200: check whether it gave out what \
                 was asked for"
            }
            false => "",
        };
        format!("{who} {host} at {since}, {length}{why}{answered}")
    }
}
