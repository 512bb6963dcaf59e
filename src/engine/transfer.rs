//! `pipeban export` and `pipeban import`, a page at a time: hits do not wait for a million bans.

use std::collections::HashSet;

use ipnet::IpNet;

use super::commands::{is_known, no_such_jail, refused, refused_while_off, short, why_not};
use super::decider::Decider;
use super::decision::{Decision, HookCall};
use crate::config::JailName;
use crate::control::{Exported, Fate, Offered, Reply, Until};
use crate::jail::{Action, Ban, End, Mode, Now, Offer, OfferedEnd, Refusal, Taken, show_net};
use crate::store::Op;

/// Bans in one answer, and bans read for one; all bans of a network are on one page.
const PAGE: usize = 1_000;
const MAX_READ: usize = 20_000;

/// The bans of networks behind `after`, in their order, and where the next page begins.
pub(super) fn export(
    decider: &Decider,
    jail: Option<&JailName>,
    after: Option<IpNet>,
    now: Now,
) -> Reply {
    if let Some(jail) = jail.filter(|jail| !is_known(&decider.jails, jail)) {
        return refused(2, no_such_jail(&decider.config, jail));
    }
    let wanted =
        |ban: &Ban| jail.is_none_or(|jail| *jail == ban.jail) && ban.mode != Mode::Observed;
    let (bans, next) = page(decider, after, wanted, now);
    let bans = bans.into_iter().map(|ban| exported(ban, now)).collect();
    Reply::Bans { bans, next }
}

/// A page of the bans that are wanted and not over, of networks behind `after`, in their order;
/// and where the next page begins.
pub(super) fn page(
    decider: &Decider,
    after: Option<IpNet>,
    wanted: impl Fn(&Ban) -> bool,
    now: Now,
) -> (Vec<&Ban>, Option<IpNet>) {
    let mut bans = Vec::new();
    let mut last: Option<IpNet> = None;
    for (read, ban) in decider.jails.bans().after(after).enumerate() {
        let full = bans.len() >= PAGE || read >= MAX_READ;
        if full && last.is_some_and(|last| last != ban.net) {
            return (bans, last);
        }
        last = Some(ban.net);
        let over = ban.until.is_some_and(|until| until <= now.boot);
        if !over && wanted(ban) {
            bans.push(ban);
        }
    }
    (bans, None)
}

/// Imports bans; all of them are put in force together.
pub(super) fn import(
    decider: &mut Decider,
    decision: &mut Decision,
    jail: Option<&JailName>,
    offered: Vec<Offered>,
    now: Now,
) -> Reply {
    if let Some(refusal) = refused_while_off(decider) {
        return refusal;
    }
    if let Some(jail) = jail
        && decider.jails.settings(jail).is_none()
    {
        return refused(2, no_such_jail(&decider.config, jail));
    }
    let exempt = decider.exemptions.current();
    let mut changed = HashSet::new();
    let mut fates = Vec::with_capacity(offered.len());
    for offered in offered {
        let offer = offer(offered, now);
        let jail = offer.jail.clone();
        let (fate, actions) = match decider.jails.take_in(offer, now, &exempt) {
            Ok(Taken::New(actions)) => (Fate::New, actions),
            Ok(Taken::Longer(actions)) => (Fate::Longer, actions),
            Ok(Taken::Known) => (Fate::Known, Vec::new()),
            Ok(Taken::Over) => (Fate::Over, Vec::new()),
            Ok(Taken::NoRoom) => {
                let why = "there is no room for more bans".to_owned();
                (Fate::Refused(why), Vec::new())
            }
            Err(Refusal::Exempt(reason)) => (Fate::Spared(reason.to_string()), Vec::new()),
            Err(refusal) => {
                let mut why = why_not(&decider.config, &refusal);
                if let Refusal::NoSuchJail(_) = refusal {
                    why.push_str("; `--jail` gives all bans to one");
                }
                (Fate::Refused(why), Vec::new())
            }
        };
        fates.push(fate);
        if !actions.is_empty() {
            add(decision, actions);
            changed.insert(jail);
        }
    }
    for jail in changed {
        decider.store_counters(decision, jail, []);
    }
    Reply::Taken {
        fates,
        trouble: None,
    }
}

/// Imported bans are logged as restored ones, and are new to the store. `on_unban` does not run
/// for a ban that the imported one replaces: no `on_ban` would follow.
fn add(decision: &mut Decision, actions: Vec<Action>) {
    let still_banned = actions
        .iter()
        .any(|action| matches!(action, Action::Restore(ban) if ban.mode != Mode::Observed));
    for action in actions {
        let hook = match &action {
            Action::Unban { end, .. } if still_banned && *end == End::Replaced => None,
            action => HookCall::of(action),
        };
        if let Action::Restore(ban) = &action {
            decision.ops.push(Op::Ban(ban.clone()));
        }
        decision.add_with_hook(action, hook);
    }
}

fn offer(offered: Offered, now: Now) -> Offer {
    Offer {
        net: offered.net,
        jail: offered.jail,
        since: offered.since.unwrap_or(now.wall),
        until: match offered.until {
            Until::Jail => OfferedEnd::Jail,
            Until::At(until) => OfferedEnd::At(Some(until)),
            Until::ForEver => OfferedEnd::At(None),
        },
        failures: offered.failures,
        reason: offered.reason.map(short),
        behind: offered.behind,
    }
}

fn exported(ban: &Ban, now: Now) -> Exported {
    Exported {
        id: ban.id.to_string(),
        host: show_net(&ban.net),
        jail: ban.jail.clone(),
        since: ban.since_wall,
        until: ban.until.map(|until| now.wall_of(until)),
        failures: ban.failures,
        cause: ban.cause.word().to_owned(),
        reason: ban.cause.reason().map(str::to_owned),
        behind: ban.mode.proxy(),
    }
}
