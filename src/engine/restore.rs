//! What the database held into the jails; what the jails know into a new database.

use std::collections::HashSet;

use ipnet::IpNet;

use super::decider::Decider;
use super::decision::Decision;
use crate::alert::Severity;
use crate::config::MANUAL_JAIL;
use crate::jail::{Action, Ban, BanId, End, FirewallKey, Mode, Moment, Now, canonical};
use crate::store::{Op, Saved};

/// Counters that a new database gets at most: those hit last.
const MAX_COUNTERS: usize = 200_000;

/// What the firewall held at the start; only read where the database may lack bans.
pub(super) struct Found {
    pub(super) bans: Vec<(FirewallKey, Option<Moment>)>,
    /// Whether the firewall holds nothing else.
    pub(super) all: bool,
    /// Whether there was a database, with ids of bans that are not known.
    pub(super) lost: bool,
}

impl Found {
    /// Removes the saved bans that the firewall no longer holds: they were lifted when the database
    /// could not be written. A firewall without any ban was emptied, or this is another boot.
    fn take_lifted(&self, saved: &mut Saved, now: Now) -> Vec<Ban> {
        if !self.all || self.bans.is_empty() {
            return Vec::new();
        }
        let held: HashSet<IpNet> = self.bans.iter().map(|(key, _)| key.net).collect();
        let lasts = |ban: &Ban| ban.until.is_none_or(|until| until > now.boot);
        let lifted = |ban: &Ban| {
            ban.mode == Mode::Enforced && lasts(ban) && !held.contains(&canonical(ban.net))
        };
        let (lifted, kept) = std::mem::take(&mut saved.bans)
            .into_iter()
            .partition(lifted);
        saved.bans = kept;
        lifted
    }
}

/// Restores what an earlier engine stored, when the engine starts. Without `found`, `saved` is all
/// there was; otherwise what the firewall holds is adopted.
pub(super) fn at_start(
    decider: &mut Decider,
    saved: Saved,
    found: Option<Found>,
    now: Now,
) -> Decision {
    if saved.last_id.is_none() && found.as_ref().is_some_and(|found| found.lost) {
        // Ids above all that a lost database can hold.
        let seconds = u64::try_from(now.wall.as_second()).unwrap_or(0);
        decider.jails.restore_last_id(BanId::new(seconds));
    }
    let mut saved = saved;
    let lifted = found
        .as_ref()
        .map_or(Vec::new(), |found| found.take_lifted(&mut saved, now));
    let mut decision = merge(decider, saved, now);
    decision.ops.extend(lifted.into_iter().map(|ban| Op::End {
        jail: ban.jail,
        net: ban.net,
        end: End::ByHand,
    }));
    if let Some(text) = decider.stop.warning() {
        decision.log(Severity::Err, text);
    }
    decision.ops.push(decider.prune());
    let all = found.is_none_or(|found| adopt(decider, found, &mut decision, now));
    decision.replace = all || decider.stop.is_on();
    let jails = decider.config.jails.values();
    let text = format!(
        "pipeban {} started; enabled jails: {}, bans: {}",
        env!("CARGO_PKG_VERSION"),
        jails.filter(|jail| jail.enabled).count(),
        decider.jails.bans().len()
    );
    decision.log(Severity::Notice, text);
    decision
}

/// Adopts what the firewall held; returns whether it holds nothing else.
fn adopt(decider: &mut Decider, found: Found, decision: &mut Decision, now: Now) -> bool {
    let exempt = decider.exemptions.current();
    let actions = decider.jails.adopt(&found.bans, now, &exempt);
    let bans = actions.len();
    for action in actions {
        if let Action::Restore(ban) = &action {
            decision.ops.push(Op::Ban(ban.clone()));
        }
        decision.add([action]);
    }
    // Those that are not adopted are lifted.
    let keys = found.bans.into_iter().map(|(key, _)| key);
    decision.touched.extend(keys);
    if bans > 0 {
        let text = format!(
            "the database did not know {bans} bans that the firewall enforces: they stay for 24 \
             hours at most, as bans of jail `{MANUAL_JAIL}`; `pipeban status {MANUAL_JAIL}` shows them"
        );
        decision.log(Severity::Err, text);
    }
    found.all
}

/// Adds what a database held; what is known already takes precedence.
fn merge(decider: &mut Decider, saved: Saved, now: Now) -> Decision {
    for (stream, offset) in saved.streams {
        decider.streams.restore(stream, offset, now);
    }
    let known = decider.exemptions.allowed();
    let new = saved.allowed.into_iter();
    let new: Vec<_> = new
        .filter(|entry| !known.contains_key(&entry.net))
        .collect();
    decider.exemptions.allow(new);
    let jails = &mut decider.jails;
    if let Some(id) = saved.last_id {
        jails.restore_last_id(id);
    }
    for (jail, totals) in saved.totals {
        jails.restore_totals(&jail, totals);
    }
    for (jail, net, hits) in saved.counters {
        jails.restore_counter(&jail, net, hits);
    }
    for (jail, net, times) in saved.repeats {
        jails.restore_repeats(&jail, net, times);
    }
    for (net, at) in saved.shared_bans {
        jails.restore_shared_ban(net, at);
    }
    let mut bans = saved.bans;
    bans.retain(|ban| jails.bans().get(&ban.jail, &ban.net).is_none());
    let exempt = decider.exemptions.current();
    let mut decision = Decision::default();
    decision.add(decider.jails.restore(bans, now, &exempt));
    decision
}

/// Stores all that is known in a database that can be written again and held `saved`.
pub(super) fn into_new_database(decider: &mut Decider, saved: Saved, now: Now) -> Decision {
    let mut decision = merge(decider, saved, now);
    let jails = &decider.jails;
    let counters = jails.counters().take(MAX_COUNTERS);
    let allowed = decider.exemptions.allowed().values();
    let streams = decider.streams.iter();
    // Bans that ended just now have no row any more.
    decision.ops = [Op::Clear]
        .into_iter()
        .chain(jails.bans().iter().cloned().map(Op::Ban))
        .chain(counters.map(|(jail, net, hits, findtime)| Op::Counter {
            jail,
            net,
            hits,
            findtime,
        }))
        .chain(
            jails
                .all_totals()
                .map(|(jail, totals)| Op::Totals { jail, totals }),
        )
        .chain(allowed.cloned().map(Op::Allow))
        .chain(streams.map(|(stream, offset)| Op::Stream { stream, offset }))
        .collect();
    decision
}
