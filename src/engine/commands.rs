//! Decides what a command of an administrator does, and what it answers.

use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::decider::Decider;
use super::decision::Decision;
use super::transfer;
use crate::alert::{Severity, words};
use crate::config::{Config, JailName, MANUAL_JAIL, duration};
use crate::control::{BanTime, Command, PROOF_SECONDS, Reply};
use crate::jail::{
    Action, BanId, End, Jails, Mode, Now, Refusal, WIDEST_V4, WIDEST_V6, canonical, is_ban_of,
    overlap, show_net,
};
use crate::record::display;
use crate::store::{Allowed, Op};

/// Bytes kept of a reason.
const MAX_REASON: usize = 200;

/// Decides about one command. `status`, `reload` and `engine --stop` are the loop's.
pub(super) fn decide(decider: &mut Decider, command: Command, now: Now) -> (Decision, Reply) {
    let mut decision = Decision::default();
    let reply = match command {
        Command::Ban {
            net,
            jail,
            bantime,
            reason,
        } => ban(decider, &mut decision, (net, jail), bantime, reason, now),
        Command::Unban {
            id: Some(id),
            jail,
            forget,
            ..
        } => unban_by_id(decider, &mut decision, &id, jail, forget),
        Command::Unban {
            net, jail, forget, ..
        } => unban(decider, &mut decision, net, jail.as_ref(), forget),
        Command::Prove { net, end } => {
            let reply = match end {
                false => {
                    let bantime = BanTime::Seconds(PROOF_SECONDS);
                    let reason = Some("pipeban doctor".to_owned());
                    ban(decider, &mut decision, (net, None), bantime, reason, now)
                }
                true => {
                    let manual = MANUAL_JAIL.parse().ok();
                    unban(decider, &mut decision, Some(net), manual.as_ref(), true)
                }
            };
            decision.drop_hooks();
            reply
        }
        Command::Allow {
            net,
            seconds,
            reason,
        } => allow(decider, &mut decision, net, seconds, reason, now),
        Command::Disallow { net } => disallow(decider, &mut decision, net),
        Command::AllowList => allow_list(decider, now),
        Command::Purge { net } => purge(decider, &mut decision, net),
        Command::Off { seconds } => switch_off(decider, &mut decision, seconds, now),
        Command::On => switch_on(decider, &mut decision),
        Command::Export { jail, after } => transfer::export(decider, jail.as_ref(), after, now),
        Command::Import { jail, bans } => {
            transfer::import(decider, &mut decision, jail.as_ref(), bans, now)
        }
        Command::Status { .. }
        | Command::StatusPage { .. }
        | Command::Explain { .. }
        | Command::Reload
        | Command::Stop => refused(2, "not a command of the decider"),
    };
    (decision, reply)
}

fn ban(
    decider: &mut Decider,
    decision: &mut Decision,
    (net, jail): (IpNet, Option<JailName>),
    bantime: BanTime,
    reason: Option<String>,
    now: Now,
) -> Reply {
    if let Some(refusal) = refused_while_off(decider) {
        return refusal;
    }
    let bantime = match bantime {
        BanTime::Jail => None,
        BanTime::Seconds(seconds) => Some(Some(Duration::from_secs(seconds))),
        BanTime::ForEver => Some(None),
    };
    let exempt = decider.exemptions.current();
    let reason = reason.map(short);
    let made = decider
        .jails
        .ban_by_hand(jail.as_ref(), net, bantime, reason, now, &exempt);
    let actions = match made {
        Ok(actions) => actions,
        Err(Refusal::Exempt(reason)) => {
            let host = show_net(&canonical(net));
            return refused(2, format!("{host} is never banned: {reason}"));
        }
        Err(refusal) => return refused(2, why_not(&decider.config, &refusal)),
    };
    let made = actions.iter().find_map(|action| match action {
        Action::Ban(ban) => Some(ban.clone()),
        _ => None,
    });
    let text = lines(&actions);
    let json = made.iter().map(|ban| {
        json!({
            "id": ban.id.to_string(),
            "host": show_net(&ban.net),
            "jail": ban.jail,
            "until": ban.until.map(|until| now.wall_of(until)),
            "enforced": ban.mode == Mode::Enforced,
        })
    });
    let json = json.collect();
    decision.add(actions);
    if let Some(ban) = &made {
        decider.store_counters(decision, ban.jail.clone(), []);
    }
    done(text, json, true)
}

fn unban_by_id(
    decider: &mut Decider,
    decision: &mut Decision,
    id: &str,
    jail: Option<JailName>,
    forget: bool,
) -> Reply {
    let id = match id.parse::<BanId>() {
        Ok(id) => id,
        Err(message) => return refused(64, message),
    };
    let jails = &mut decider.jails;
    let found = jails.ban_named(id);
    let found = found.is_some_and(|ban| jail.is_none_or(|jail| jail == ban.jail));
    let ended = found.then(|| jails.unban_named(id, End::ByHand)).flatten();
    let Some((action, (jail, client))) = ended else {
        let text = format!("no active ban has the id {id}; `pipeban status -v` shows the ids");
        return done(text, Vec::new(), false);
    };
    let actions = [action];
    let (text, json) = (lines(&actions), ended_bans(&actions));
    if forget {
        if let [Action::Unban { ban, .. }] = &actions {
            jails.forget_one(ban);
        }
        decision.add(actions);
        decision.ops.push(Op::ForgetOne(id));
    } else {
        decision.add(actions);
    }
    decider.store_counters(decision, jail, [client]);
    done(text, json, true)
}

fn unban(
    decider: &mut Decider,
    decision: &mut Decision,
    net: Option<IpNet>,
    jail: Option<&JailName>,
    forget: bool,
) -> Reply {
    if let Some(jail) = jail.filter(|jail| !is_known(&decider.jails, jail)) {
        return refused(2, no_such_jail(&decider.config, jail));
    }
    let net = net.map(canonical);
    let (actions, reset) = decider.jails.unban(net, jail);
    let text = lines(&actions);
    let json = ended_bans(&actions);
    decision.add(actions);
    for (jail, client) in reset {
        decider.store_counters(decision, jail, [client]);
    }
    if forget {
        decider.jails.forget(net, jail);
        let jail = jail.cloned();
        decision.ops.push(Op::Forget { net, jail });
    }
    if !json.is_empty() {
        return done(text, json, true);
    }
    let text = match net {
        None => "no client is banned".to_owned(),
        Some(net) => {
            let host = show_net(&net);
            match decider.jails.bans().overlapping(&net).into_iter().next() {
                Some((_, wide)) => {
                    let wide = show_net(&wide);
                    format!(
                        "{host} is banned as part of {wide}: `pipeban unban {wide}` lifts that ban"
                    )
                }
                None => format!("{host} is not banned"),
            }
        }
    };
    done(text, Vec::new(), false)
}

fn allow(
    decider: &mut Decider,
    decision: &mut Decision,
    net: IpNet,
    seconds: Option<u64>,
    reason: Option<String>,
    now: Now,
) -> Reply {
    let net = canonical(net);
    let length = seconds.map(Duration::from_secs);
    let entry = Allowed {
        net,
        since: now.wall,
        until: length.map(|length| now.boot.plus(length)),
        reason: reason.map(short),
    };
    let until = entry.until.map(|until| now.wall_of(until));
    decision.ops.push(Op::Allow(entry.clone()));
    decider.exemptions.allow([entry]);
    let exempt = decider.exemptions.current();
    let actions = decider.jails.release(&exempt);
    let (host, how_long) = (show_net(&net), how_long(length));
    let line = format!("{host} is on the allow-list {how_long}");
    let mut text = format!("{line}: pipeban does not ban it");
    if !actions.is_empty() {
        text = format!("{text}\n{}", lines(&actions));
    }
    decision.add(actions);
    decision.log(Severity::Notice, line);
    done(text, vec![json!({"host": host, "until": until})], true)
}

fn disallow(decider: &mut Decider, decision: &mut Decision, net: IpNet) -> Reply {
    let net = canonical(net);
    let host = show_net(&net);
    if decider.exemptions.disallow(&net) {
        decision.ops.push(Op::Disallow(net));
        let text = format!("{host} is off the allow-list");
        decision.log(Severity::Notice, text.clone());
        return done(text, vec![json!({"host": host})], true);
    }
    let entries = decider.exemptions.allowed().keys();
    let near: Vec<String> = entries
        .filter(|entry| overlap(entry, &net))
        .map(show_net)
        .collect();
    let mut text = format!("{host} is not on the allow-list");
    if !near.is_empty() {
        text = format!("{text}; {} is", near.join(", "));
    }
    done(text, Vec::new(), false)
}

fn purge(decider: &mut Decider, decision: &mut Decision, net: IpNet) -> Reply {
    let net = canonical(net);
    let host = show_net(&net);
    decider.jails.forget(Some(net), None);
    decider.forget_evidence(&net);
    decision.ops.push(Op::Purge(net));
    let mut text = format!("deleted the ended bans of {host} and the evidence against it");
    let bans = decider.jails.bans().iter();
    let active = bans.filter(|ban| is_ban_of(&net, &ban.net, ban.failures));
    let active = active.count();
    if active > 0 {
        text = format!(
            "{text}; active bans that stay: {active}; to delete them too, run `pipeban unban {host}`, \
             then `pipeban purge {host}`"
        );
    }
    done(
        text,
        vec![json!({"host": host, "active_bans": active})],
        true,
    )
}

fn allow_list(decider: &Decider, now: Now) -> Reply {
    let (mut text, mut json) = (Vec::new(), Vec::new());
    for entry in decider.exemptions.allowed().values() {
        let host = show_net(&entry.net);
        let left = how_long(entry.until.map(|until| until.since(now.boot)));
        text.push(match &entry.reason {
            Some(reason) => format!("{host} {left} ({reason})"),
            None => format!("{host} {left}"),
        });
        json.push(json!({
            "host": host,
            "since": entry.since,
            "until": entry.until.map(|until| now.wall_of(until)),
            "reason": entry.reason,
        }));
    }
    done(text.join("\n"), json, true)
}

fn how_long(length: Option<Duration>) -> String {
    match length {
        None => "until `pipeban disallow`".to_owned(),
        some => format!("for {}", duration::show(some)),
    }
}

fn switch_off(
    decider: &mut Decider,
    decision: &mut Decision,
    seconds: Option<u64>,
    now: Now,
) -> Reply {
    let length = seconds.map(Duration::from_secs);
    let error = decider.switch_off(length, now, decision);
    let lifted = decider.jails.bans().holds().count();
    let mut text = format!(
        "no client is banned any more: {lifted} bans lifted. `pipeban on` restores those that \
         have not ended; to drop them, run `pipeban unban --all` first"
    );
    if lifted > 0 && decider.has_ufw_rules() {
        text.push_str(
            "\ntheir ufw rules stop acting within a second or two; ufw removes them from its list \
             one after the other",
        );
    }
    if let Some(error) = error {
        text = format!("{text}\n{error}");
    }
    let json = json!({"off": decider.stop.status(), "lifted": lifted});
    done(text, vec![json], true)
}

fn switch_on(decider: &mut Decider, decision: &mut Decision) -> Reply {
    if !decider.stop.is_on() {
        return done("the emergency stop is not on", Vec::new(), false);
    }
    decider.switch_on(decision);
    let back = decider.jails.bans().holds().count();
    let text = format!("clients are banned again; {back} bans are back in force");
    done(text, vec![json!({"back": back})], true)
}

pub(super) fn refused_while_off(decider: &Decider) -> Option<Reply> {
    let text = "the emergency stop is on, no client is banned: `pipeban on` ends it";
    decider.stop.is_on().then(|| refused(2, text))
}

/// Whether the jail is configured, or has bans or totals of an earlier configuration.
pub(super) fn is_known(jails: &Jails, jail: &JailName) -> bool {
    jails.settings(jail).is_some() || jails.names().contains(jail)
}

pub(super) fn why_not(config: &Config, refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoSuchJail(jail) => no_such_jail(config, jail),
        Refusal::Exempt(reason) => reason.to_string(),
        Refusal::TooWide(net) => format!(
            "{net} is too wide: a ban covers at most /{WIDEST_V4} of IPv4 or /{WIDEST_V6} of IPv6"
        ),
    }
}

pub(super) fn no_such_jail(config: &Config, jail: &JailName) -> String {
    let names: Vec<&str> = config.jails.keys().map(JailName::as_str).collect();
    if names.is_empty() {
        return format!("no jail `{jail}` exists: no jail is configured");
    }
    format!(
        "no jail `{jail}` exists; the jails are: {}",
        names.join(", ")
    )
}

pub(super) fn refused(exit: u8, text: impl Into<String>) -> Reply {
    let text = text.into();
    Reply::Refused { exit, text }
}

fn done(text: impl Into<String>, json: Vec<Value>, yes: bool) -> Reply {
    let text = text.into();
    Reply::Done { text, json, yes }
}

/// The bans that these end, for `--json`.
fn ended_bans(actions: &[Action]) -> Vec<Value> {
    let ended = actions.iter().filter_map(|action| match action {
        Action::Unban { ban, .. } => {
            let id = ban.id.to_string();
            Some(json!({"id": id, "host": show_net(&ban.net), "jail": ban.jail}))
        }
        _ => None,
    });
    ended.collect()
}

/// The lines that syslog gets, each with its ban's id.
fn lines(actions: &[Action]) -> String {
    let lines = actions.iter().filter_map(|action| {
        let (_, line) = words(action)?;
        Some(match action {
            Action::Ban(ban) | Action::Unban { ban, .. } => format!("{line} {}", ban.id),
            _ => line,
        })
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub(super) fn short(reason: String) -> String {
    display(reason.as_bytes(), MAX_REASON)
}
