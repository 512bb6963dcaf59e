//! What an engine takes over from the one before it, and what ends without a command.

use std::time::Duration;

use ipnet::IpNet;

use super::bans::{Ban, FirewallKey, Mode};
use super::cause::{Cause, End};
use super::counter::Counted;
use super::decision::{Action, Totals};
use super::exempt::{Exempt, Reason};
use super::id::BanId;
use super::jails::Jails;
use super::moment::{Moment, Now};
use super::observe::whole_household;
use crate::config::JailName;

/// The longest time of a ban that nothing but the firewall knows.
pub const ADOPTED_FOR: Duration = Duration::from_secs(86_400);

impl Jails {
    /// Puts saved bans in force again. Those that are over, or contain an address that is exempt
    /// by now, end at once.
    pub fn restore(&mut self, bans: Vec<Ban>, now: Now, exempt: &Exempt) -> Vec<Action> {
        let mut actions = Vec::new();
        for mut ban in bans {
            if let Some(peer) = ban.mode.proxy() {
                ban.mode = self.behind(peer, exempt);
            }
            self.slot_of(&ban.jail);
            self.last_id = self.last_id.max(ban.id);
            let end = if ban.until.is_some_and(|until| until <= now.boot) {
                Some(End::Over)
            } else {
                self.exempt_now(&ban, exempt).map(End::Exempt)
            };
            match end {
                Some(end) => actions.push(Action::Unban { ban, end }),
                None => {
                    self.bans.insert(ban.clone());
                    actions.push(Action::Restore(ban));
                }
            }
        }
        actions.extend(self.lift_surplus());
        actions
    }

    /// Takes over what the firewall held and no saved ban knows: for [`ADOPTED_FOR`] at most, without
    /// escalation. What is exempt by now is left out.
    pub fn adopt(
        &mut self,
        found: &[(FirewallKey, Option<Moment>)],
        now: Now,
        exempt: &Exempt,
    ) -> Vec<Action> {
        let manual = self.manual.clone();
        let Some(settings) = self.slot(&manual).and_then(|slot| slot.settings.clone()) else {
            return Vec::new();
        };
        let latest = now.boot.plus(ADOPTED_FOR);
        let mut actions = Vec::new();
        for (key, until) in found {
            if !self.bans.of(&key.net).is_empty() || exempt.reason(&settings, &key.net).is_some() {
                continue;
            }
            self.last_id = self.last_id.next();
            let ban = Ban {
                id: self.last_id,
                jail: manual.clone(),
                net: key.net,
                ports: key.ports.clone(),
                mode: Mode::Enforced,
                since: now.boot,
                since_wall: now.wall,
                until: Some(until.map_or(latest, |until| until.min(latest))),
                failures: 0,
                within: Duration::ZERO,
                cause: Cause::Adopted,
            };
            self.bans.insert(ban.clone());
            actions.push(Action::Restore(ban));
        }
        actions.extend(self.lift_surplus());
        actions
    }

    /// Ids of new bans are larger than this one.
    pub fn restore_last_id(&mut self, id: BanId) {
        self.last_id = self.last_id.max(id);
    }

    /// Adds saved hits to those counted by now.
    pub fn restore_counter(&mut self, jail: &JailName, net: IpNet, mut hits: Vec<Counted>) {
        let key = (self.slot_of(jail), net);
        hits.extend(self.counters.hits(&key));
        self.counters.restore(key, hits);
    }

    /// Adds saved times of earlier bans, for escalation.
    pub fn restore_repeats(&mut self, jail: &JailName, net: IpNet, times: Vec<Moment>) {
        let key = (self.slot_of(jail), net);
        let mut times: Vec<Counted> = times.into_iter().map(|at| (at, 1)).collect();
        times.extend(self.repeats.hits(&key));
        self.repeats.restore(key, times);
    }

    /// Adds a saved ban of a shared address, so that the next one within a day may last longer.
    pub fn restore_shared_ban(&mut self, net: IpNet, at: Moment) {
        self.remember_shared_ban(whole_household(&net), at);
    }

    /// Adds a jail's saved totals.
    pub fn restore_totals(&mut self, jail: &JailName, totals: Totals) {
        if let Some(slot) = self.slot_mut(jail) {
            let sum = &mut slot.totals;
            sum.failed = sum.failed.saturating_add(totals.failed);
            sum.banned = sum.banned.saturating_add(totals.banned);
        }
    }

    /// Ends the bans that are over.
    pub fn expire(&mut self, now: Now) -> Vec<Action> {
        let over = self.bans.expire(now.boot);
        over.into_iter()
            .map(|ban| Action::Unban {
                ban,
                end: End::Over,
            })
            .collect()
    }

    /// Ends every ban that contains an address that is exempt by now.
    pub fn release(&mut self, exempt: &Exempt) -> Vec<Action> {
        let found: Vec<(JailName, IpNet, Reason)> = self
            .bans
            .iter()
            .filter_map(|ban| {
                let reason = self.exempt_now(ban, exempt)?;
                Some((ban.jail.clone(), ban.net, reason))
            })
            .collect();
        let mut actions = Vec::new();
        for (jail, net, reason) in found {
            let end = End::Exempt(reason);
            let ban = self.bans.remove(&jail, &net);
            actions.extend(ban.map(|ban| Action::Unban { ban, end }));
        }
        actions
    }

    fn exempt_now(&self, ban: &Ban, exempt: &Exempt) -> Option<Reason> {
        let settings = self
            .settings(&ban.jail)
            .or_else(|| self.settings(&self.manual))?;
        exempt.reason(settings, &ban.net)
    }
}
