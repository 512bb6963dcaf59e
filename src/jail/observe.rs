//! What one hit leads to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::bans::{Ban, Mode};
use super::cause::Cause;
use super::confirmations::UNCONFIRMED_BANTIME;
use super::counter::JailIndex;
use super::decision::{Action, Claim, Hit, Observed};
use super::escalation;
use super::exempt::{Exempt, Reason, Why};
use super::id::BanId;
use super::jails::Jails;
use super::moment::{Moment, Now};
use super::network::{household, single, unmap};
use super::shared::SHARED_MEMORY;
use crate::config::{Jail, JailName, Log};

/// How long an address counts as shared after a worker reported it.
const SHARED_FOR: Duration = Duration::from_secs(3_600);

/// How often `maxretry` a shared address needs where one line does not reach it.
pub const SHARED_RETRIES: u32 = 5;

/// The longest ban of a shared address, [`SHARED_AGAIN`] apart.
const SHARED_BANTIME: Duration = Duration::from_secs(600);

/// The longest one within [`SHARED_MEMORY`] of an earlier one, or with at least [`SHARED_MANY`]
/// times `maxretry`.
const SHARED_AGAIN: Duration = Duration::from_secs(3_600);
const SHARED_MANY: u32 = 10;

/// Shared addresses remembered at most.
const MAX_SHARED: usize = 100_000;

/// The longest ban while one worker makes too many of them.
pub const SURGE_BANTIME: Duration = Duration::from_secs(600);

impl Jails {
    /// Decides about one hit; a ban that follows is a hit for the jails that count bans.
    pub fn observe(&mut self, hit: &Hit<'_>, now: Now, exempt: &Exempt) -> Observed {
        let Some((index, settings)) = self.settings_of(hit.jail) else {
            return Observed::only(Action::NoSuchJail);
        };
        let client = unmap(hit.client);
        let mut observed = self.count(index, &settings, client, hit, now, exempt);
        self.count_ban(hit, client, now, exempt, &mut observed);
        observed
    }

    /// Counts a new ban in the jails that count bans.
    pub(super) fn count_ban(
        &mut self,
        hit: &Hit<'_>,
        client: IpAddr,
        now: Now,
        exempt: &Exempt,
        observed: &mut Observed,
    ) {
        let counts = |action: &Action| match action {
            Action::Ban(ban) | Action::Confirmed(ban) => {
                ban.mode != Mode::Observed && ban.cause.escalates()
            }
            _ => false,
        };
        if observed.actions.iter().any(counts) {
            // A ban counts once, whatever the line counts.
            let ban = Hit {
                weight: 1,
                claim: Claim::None,
                ..*hit
            };
            for (index, settings) in self.counting_bans(hit.jail) {
                let more = self.count(index, &settings, client, &ban, now, exempt);
                observed.actions.extend(more.actions);
                observed.changed.extend(more.changed);
            }
        }
    }

    /// Counts a hit in the jail's total only: what the engine does during the emergency stop.
    pub fn count_only(&mut self, jail: &JailName) {
        if let Some((index, _)) = self.settings_of(jail) {
            self.add_failed(index, 1);
        }
    }

    /// A worker reports that many browsers use this address; it counts as shared for
    /// [`SHARED_FOR`].
    pub fn learn_shared(&mut self, addr: IpAddr, now: Now) {
        if self.shared.len() >= MAX_SHARED {
            self.shared
                .retain(|_, until| *until > now.boot && now.boot.plus(SHARED_FOR / 2) < *until);
        }
        if self.shared.len() < MAX_SHARED {
            let until = now.boot.plus(SHARED_FOR);
            self.shared.insert(household(addr).network(), until);
        }
    }

    /// A success of a client clears what a jail counts of it; returns the counter, if there is one.
    pub fn succeed(&mut self, jail: &JailName, client: IpAddr, exempt: &Exempt) -> Option<IpNet> {
        let (index, settings) = self.settings_of(jail)?;
        let key = (index, exempt.target(&settings, unmap(client)));
        let counts = !self.counters.hits(&key).is_empty();
        self.counters.reset(&key);
        counts.then_some(key.1)
    }

    /// Counts one hit for one jail.
    fn count(
        &mut self,
        index: JailIndex,
        settings: &Jail,
        client: IpAddr,
        hit: &Hit<'_>,
        now: Now,
        exempt: &Exempt,
    ) -> Observed {
        let Some(slot) = self.slots.get(usize::from(index)) else {
            return Observed::only(Action::NoSuchJail);
        };
        let jail = slot.name.clone();
        if let Some(reason) = exempt.reason(settings, &single(client)) {
            return Observed::only(Action::Ignore {
                jail,
                client,
                reason,
            });
        }
        let not_counted = match (hit.forgeable, hit.claim) {
            (true, _) => Some(Why::Header),
            (false, Claim::Confirmed) => Some(Why::SearchEngine),
            _ => None,
        };
        if let Some(why) = not_counted {
            let entry = single(client);
            return Observed::only(Action::Ignore {
                jail,
                client,
                reason: Reason { why, entry },
            });
        }
        let is_counted = hit.claim == Claim::Decided;
        if !is_counted {
            self.add_failed(index, 1);
        }
        let net = exempt.target(settings, client);
        let mode = match hit.peer.map(unmap) {
            _ if !settings.enforce => Mode::Observed,
            Some(peer) if peer != client => self.behind(peer, exempt),
            _ => Mode::Enforced,
        };
        if let Some(ban) = self.bans.get(&jail, &net)
            && (ban.mode.is_like(mode) || ban.mode == Mode::Enforced)
        {
            return Observed::only(Action::AlreadyBanned { jail, net });
        }
        let weight = settings.weight.max(1).saturating_mul(hit.weight.max(1));
        let counted = (hit.arrived.min(now.boot), weight);
        let key = (index, net);
        let (count, within) = match is_counted {
            true => self.counters.counted(&key),
            false => self.counters.count(key, counted, settings.findtime),
        };
        let shared = self.is_shared(&net, now);
        // A client can pretend to be many browsers: that softens a jail, and never switches it off.
        let maxretry = match shared && weight < settings.maxretry {
            true => settings.maxretry.saturating_mul(SHARED_RETRIES),
            false => settings.maxretry,
        };
        let mut actions = Vec::new();
        if !is_counted {
            actions.push(Action::Found {
                jail: jail.clone(),
                client,
                count,
                maxretry,
                findtime: settings.findtime,
            });
        }
        if hit.claim == Claim::Open {
            // The ban waits.
        } else if count >= maxretry {
            self.counters.reset(&key);
            let (bantime, cause) = if hit.surge {
                let bantime = settings.bantime.unwrap_or(SURGE_BANTIME);
                (Some(bantime.min(SURGE_BANTIME)), Cause::Surge)
            } else if hit.unproven && !self.is_confirmed(client, now) {
                self.expect_confirmation((client, net), &jail, hit.spoofable, now);
                let most = settings.bantime.unwrap_or(UNCONFIRMED_BANTIME);
                (Some(most.min(UNCONFIRMED_BANTIME)), Cause::Unconfirmed)
            } else {
                let hits = (count, hit.spoofable);
                self.full_length(index, (client, net), settings, hits, now, exempt)
            };
            actions.extend(self.ban(Ban {
                id: BanId::default(),
                jail: jail.clone(),
                net,
                ports: settings.port.clone(),
                mode,
                since: now.boot,
                since_wall: now.wall,
                until: bantime.map(|time| now.boot.plus(time)),
                failures: count,
                within,
                cause,
            }));
        } else if count >= settings.maxretry && count.saturating_sub(weight) < settings.maxretry {
            actions.push(Action::Spared {
                jail: jail.clone(),
                client,
                maxretry,
            });
        }
        Observed {
            actions,
            changed: vec![(jail, net)],
        }
    }

    /// How long a ban lasts that nothing shortens, and its cause; remembers it for later ones. `hits`:
    /// how many, and whether a page elsewhere may have made the client send the last one: such a ban
    /// does not grow.
    pub(super) fn full_length(
        &mut self,
        index: JailIndex,
        (client, net): (IpAddr, IpNet),
        settings: &Jail,
        (count, spoofable): (u32, bool),
        now: Now,
        exempt: &Exempt,
    ) -> (Option<Duration>, Cause) {
        if self.is_shared(&net, now) {
            let bantime = self.shared_bantime(&net, settings, count, now);
            return (Some(bantime), Cause::Shared);
        }
        let bantime = self.escalated(index, (client, net), settings, now, exempt);
        let most = settings.bantime.filter(|_| spoofable);
        (bantime.into_iter().chain(most).min(), Cause::Jail)
    }

    /// What a ban of a client behind this proxy does. The clients of a proxy on this host connect to
    /// this host, so a firewall blocks them.
    pub(super) fn behind(&self, peer: IpAddr, exempt: &Exempt) -> Mode {
        match self.denies {
            true => Mode::Proxied(peer),
            false if exempt.is_of_this_host(unmap(peer)) => Mode::Enforced,
            false => Mode::Behind(peer),
        }
    }

    /// Enabled jails that count bans; none where the jail that banned counts bans itself.
    fn counting_bans(&self, banned_by: &JailName) -> Vec<(JailIndex, Arc<Jail>)> {
        let settings = |jail: &JailName| self.settings_of(jail);
        let itself = settings(banned_by).is_some_and(|(_, jail)| jail.log == Log::Bans);
        let slots = self.slots.iter().filter(|slot| {
            let counts = |jail: &Arc<Jail>| jail.log == Log::Bans;
            !itself && slot.settings.as_ref().is_some_and(counts)
        });
        slots.filter_map(|slot| settings(&slot.name)).collect()
    }

    /// How long a ban of a shared address lasts; remembers it for later ones.
    fn shared_bantime(&mut self, net: &IpNet, jail: &Jail, count: u32, now: Now) -> Duration {
        let net = whole_household(net);
        let earlier = self.shared_bans.get(&net);
        let again = earlier.is_some_and(|at| now.boot.since(*at) < SHARED_MEMORY);
        let many = count >= jail.maxretry.saturating_mul(SHARED_MANY);
        let most = match again || many {
            true => SHARED_AGAIN,
            false => SHARED_BANTIME,
        };
        self.remember_shared_ban(net, now.boot);
        jail.bantime.unwrap_or(most).min(most)
    }

    pub(super) fn remember_shared_ban(&mut self, net: IpNet, at: Moment) {
        if self.shared_bans.len() < MAX_SHARED || self.shared_bans.contains_key(&net) {
            let last = self.shared_bans.entry(net).or_insert(at);
            *last = at.max(*last);
        }
    }

    /// Whether an address of `net` counts as shared.
    pub fn is_shared(&self, net: &IpNet, now: Now) -> bool {
        let whole = whole_household(net);
        let mut known = self.shared.range(whole.network()..=whole.broadcast());
        known.any(|(_, until)| *until > now.boot)
    }

    /// How long this ban lasts; remembers it for later ones.
    fn escalated(
        &mut self,
        index: JailIndex,
        (client, net): (IpAddr, IpNet),
        settings: &Jail,
        now: Now,
        exempt: &Exempt,
    ) -> Option<Duration> {
        let one = (now.boot, 1);
        self.repeats.count((index, net), one, self.memory);
        let (bantime, Some(increment)) = (settings.bantime?, &settings.increment) else {
            return settings.bantime;
        };
        let bans = if increment.overalljails {
            let slots = self.slots.iter().zip(0..);
            slots
                .map(|(slot, index)| {
                    let net = match &slot.settings {
                        Some(settings) => exempt.target(settings, client),
                        None => net,
                    };
                    self.bans_within(&(index, net), now, increment.memory)
                })
                .fold(0u32, u32::saturating_add)
        } else {
            self.bans_within(&(index, net), now, increment.memory)
        };
        let earlier = bans.saturating_sub(1);
        Some(escalation::bantime(
            bantime,
            increment,
            earlier,
            (net, now.boot),
        ))
    }

    fn bans_within(&self, key: &(JailIndex, IpNet), now: Now, memory: Duration) -> u32 {
        let bans = self.repeats.hits(key);
        let known = bans.iter().filter(|(at, _)| now.boot.since(*at) < memory);
        known.fold(0, |sum, (_, bans)| sum.saturating_add(*bans))
    }

    pub(super) fn settings_of(&self, jail: &JailName) -> Option<(JailIndex, Arc<Jail>)> {
        let index = *self.index.get(jail)?;
        let settings = self.slots.get(usize::from(index))?.settings.as_ref()?;
        (settings.enabled && *jail != self.manual).then(|| (index, Arc::clone(settings)))
    }

    fn add_failed(&mut self, index: JailIndex, hits: u64) {
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            slot.totals.failed = slot.totals.failed.saturating_add(hits);
        }
    }
}

/// `net`, or the household that it is part of.
pub(super) fn whole_household(net: &IpNet) -> IpNet {
    let home = household(net.addr());
    if net.contains(&home) { *net } else { home }
}
