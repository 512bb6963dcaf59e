//! All jails: their settings, counters and bans.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::bans::{Ban, Bans, MAX_BANS, Mode};
use super::cause::End;
use super::confirmations::Confirmations;
use super::counter::{Counted, Counters, JailIndex, MAX_CLIENTS};
use super::decision::{Action, Totals};
use super::id::BanId;
use super::moment::{Moment, Now};
use super::shared::SHARED_MEMORY;
use crate::config::{Backend, Config, Jail, JailName, MANUAL_JAIL};

/// How long earlier bans are remembered at least, so that a jail that gets an `increment` knows the
/// bans before it.
pub const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// Clients remembered for escalation at most.
const MAX_REPEATERS: usize = 500_000;

/// What is known of one jail name.
#[derive(Debug)]
pub(super) struct JailSlot {
    pub(super) name: JailName,
    /// `None`: the configuration has no such jail; its bans run out.
    pub(super) settings: Option<Arc<Jail>>,
    pub(super) totals: Totals,
}

/// All jails: their counters and their bans.
#[derive(Debug)]
pub struct Jails {
    pub(super) slots: Vec<JailSlot>,
    pub(super) index: HashMap<JailName, JailIndex>,
    pub(super) manual: JailName,
    pub(super) counters: Counters,
    /// Times of earlier bans, for escalation.
    pub(super) repeats: Counters,
    /// How far back any jail remembers bans; at least [`REMEMBERED`].
    pub(super) memory: Duration,
    /// Until when an address or IPv6 /64 counts as shared, by its first address.
    pub(super) shared: BTreeMap<IpAddr, Moment>,
    /// The last ban of a shared address or network.
    pub(super) shared_bans: BTreeMap<IpNet, Moment>,
    /// What confirms clients of lines that a script may have written.
    pub(super) confirmations: Confirmations,
    pub(super) bans: Bans,
    pub(super) last_id: BanId,
    pub(super) max_bans: usize,
    /// Whether Apache can refuse clients behind a proxy; the configuration at the start says so.
    pub(super) denies: bool,
    /// Bans lifted because there were too many, since the start.
    lifted: u64,
}

impl Jails {
    /// Jails without hits and bans.
    pub fn new(config: &Config) -> Jails {
        Jails::bounded(config, MAX_CLIENTS, MAX_BANS)
    }

    pub(super) fn bounded(config: &Config, clients: usize, max_bans: usize) -> Jails {
        let manual = manual_jail();
        let mut jails = Jails {
            slots: Vec::new(),
            index: HashMap::new(),
            manual,
            counters: Counters::new(clients),
            repeats: Counters::new(MAX_REPEATERS),
            memory: REMEMBERED,
            shared: BTreeMap::new(),
            shared_bans: BTreeMap::new(),
            confirmations: Confirmations::default(),
            bans: Bans::default(),
            last_id: BanId::default(),
            max_bans,
            denies: config.firewall.has(Backend::Apache),
            lifted: 0,
        };
        jails.configure(config);
        jails
    }

    /// Takes new settings. Counters and bans stay; those of removed jails run out.
    pub fn configure(&mut self, config: &Config) {
        for slot in &mut self.slots {
            slot.settings = None;
        }
        let manual = Jail {
            enabled: true,
            enforce: true,
            ..config.defaults.clone()
        };
        let configured = config.jails.iter().map(|(name, jail)| (name.clone(), jail));
        for (name, settings) in std::iter::once((self.manual.clone(), &manual)).chain(configured) {
            if let Some(slot) = self.slot_mut(&name) {
                slot.settings = Some(Arc::new(settings.clone()));
            }
        }
        let increments = config
            .jails
            .values()
            .filter_map(|jail| jail.increment.as_ref());
        let longest = increments.map(|increment| increment.memory).max();
        self.memory = longest.max(Some(REMEMBERED)).unwrap_or(REMEMBERED);
    }

    /// Drops hits, earlier bans and shared addresses that are too old to count.
    pub fn sweep(&mut self, now: Now) {
        let slots = &self.slots;
        let findtime = |index: JailIndex| {
            let settings = slots.get(usize::from(index))?.settings.as_ref();
            settings.map(|jail| jail.findtime)
        };
        self.counters.sweep(now.boot, findtime);
        let memory = self.memory;
        self.repeats.sweep(now.boot, |_| Some(memory));
        self.shared.retain(|_, until| *until > now.boot);
        self.confirmations.sweep(now.boot);
        self.shared_bans
            .retain(|_, at| now.boot.since(*at) < SHARED_MEMORY);
    }

    /// Bans in force.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// A client's hits in the window.
    pub fn counted(&self, jail: &JailName, net: &IpNet) -> Vec<Counted> {
        match self.index.get(jail) {
            Some(index) => self.counters.hits(&(*index, *net)),
            None => Vec::new(),
        }
    }

    /// All hits in a window with its length, those of the client that hit last first.
    pub fn counters(&self) -> impl Iterator<Item = (JailName, IpNet, Vec<Counted>, Duration)> {
        self.counters.keys().filter_map(|key| {
            let slot = self.slots.get(usize::from(key.0))?;
            let findtime = slot.settings.as_ref()?.findtime;
            Some((slot.name.clone(), key.1, self.counters.hits(&key), findtime))
        })
    }

    /// Every jail's totals.
    pub fn all_totals(&self) -> impl Iterator<Item = (JailName, Totals)> {
        let slots = self.slots.iter();
        slots.map(|slot| (slot.name.clone(), slot.totals))
    }

    /// A jail's settings; `None`: not in the configuration.
    pub fn settings(&self, jail: &JailName) -> Option<&Jail> {
        self.slot(jail)?.settings.as_deref()
    }

    /// A jail's totals.
    pub fn totals(&self, jail: &JailName) -> Totals {
        self.slot(jail).map(|slot| slot.totals).unwrap_or_default()
    }

    /// Clients with hits, by jail; exact after [`Jails::sweep`].
    pub fn failing(&self) -> HashMap<&JailName, u64> {
        let mut failing = HashMap::new();
        for (index, _) in self.counters.keys() {
            if let Some(slot) = self.slots.get(usize::from(index)) {
                *failing.entry(&slot.name).or_insert(0) += 1;
            }
        }
        failing
    }

    /// Clients with hits in a window.
    pub fn tracked(&self) -> usize {
        self.counters.len()
    }

    /// Every jail that is configured, or has bans or totals.
    pub fn names(&self) -> Vec<JailName> {
        let worth_showing = |slot: &&JailSlot| {
            let idle = slot.totals == Totals::default();
            let banning = || self.bans.has_any_of(&slot.name);
            (slot.settings.is_some() && slot.name != self.manual) || !idle || banning()
        };
        let shown = self.slots.iter().filter(worth_showing);
        let mut names: Vec<JailName> = shown.map(|slot| slot.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Clients forgotten and bans lifted because there were too many, since the start.
    pub fn dropped(&self) -> (u64, u64) {
        (self.counters.evicted(), self.lifted)
    }

    /// Gives a ban its id and puts it in force, in place of the jail's ban of the same network.
    pub(super) fn ban(&mut self, mut ban: Ban) -> Vec<Action> {
        self.last_id = self.last_id.next();
        ban.id = self.last_id;
        let slot = self.slot_mut(&ban.jail);
        if ban.mode != Mode::Observed
            && let Some(slot) = slot
        {
            slot.totals.banned = slot.totals.banned.saturating_add(1);
        }
        let mut actions = Vec::new();
        let before = self.bans.get(&ban.jail, &ban.net);
        if before.is_some_and(|old| old.mode != ban.mode || old.ports != ban.ports) {
            let end = End::Replaced;
            let old = self.bans.remove(&ban.jail, &ban.net);
            actions.extend(old.map(|ban| Action::Unban { ban, end }));
        }
        self.bans.insert(ban.clone());
        actions.push(Action::Ban(ban));
        actions.extend(self.lift_surplus());
        actions
    }

    /// Lifts the bans that end first, beyond the bound.
    pub(super) fn lift_surplus(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some((jail, net)) = self.bans.surplus(self.max_bans) {
            let Some(ban) = self.bans.remove(&jail, &net) else {
                break;
            };
            self.lifted = self.lifted.saturating_add(1);
            let end = End::NoRoom;
            actions.push(Action::Unban { ban, end });
        }
        actions
    }

    pub(super) fn slot(&self, name: &JailName) -> Option<&JailSlot> {
        self.slots.get(usize::from(*self.index.get(name)?))
    }

    /// A jail's slot, made where there is none. `None`: there are more jails than numbers.
    pub(super) fn slot_mut(&mut self, name: &JailName) -> Option<&mut JailSlot> {
        let index = self.slot_of(name);
        self.slots.get_mut(usize::from(index))
    }

    /// The number of a jail's slot, made where there is none.
    pub(super) fn slot_of(&mut self, name: &JailName) -> JailIndex {
        if let Some(index) = self.index.get(name) {
            return *index;
        }
        let index = JailIndex::try_from(self.slots.len()).unwrap_or(JailIndex::MAX);
        self.index.insert(name.clone(), index);
        self.slots.push(JailSlot {
            name: name.clone(),
            settings: None,
            totals: Totals::default(),
        });
        index
    }
}

#[expect(clippy::expect_used, reason = "a constant, tested")]
pub(super) fn manual_jail() -> JailName {
    MANUAL_JAIL.parse().expect("a jail name")
}
