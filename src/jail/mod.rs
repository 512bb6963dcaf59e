//! Hits counted in time windows; who is banned, for how long, and who never is.
//!
//! Pure: time is an argument, actions are returned, somebody else performs them. The engine, and
//! whatever runs a log through the jails afterwards, call the same functions.
#![forbid(unsafe_code)]

mod bans;
mod counter;
mod escalation;
mod exempt;
mod id;
mod moment;
mod netset;
pub mod shared;
mod values;

pub use bans::{Ban, Bans, Given, Hold, MAX_BANS, Mode};
pub use counter::{Counted, MAX_ALL_HITS, MAX_CLIENTS};
pub use exempt::{
    Exempt, Looked, Reason, WIDEST_V4, WIDEST_V6, Why, canonical, is_too_wide, overlap, show_net,
    single, unmap,
};
pub use id::BanId;
pub use moment::Moment;
pub use netset::NetSet;
pub use values::ban_values;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::config::{Backend, Config, Jail, JailName, Log};
use counter::{Counters, JailIndex};

/// The jail of bans by hand.
pub use crate::config::MANUAL_JAIL as MANUAL;

/// How long a worker's word that an address is shared counts.
pub const SHARED_FOR: Duration = Duration::from_secs(3_600);

/// No shared address is banned for longer.
pub const SHARED_BANTIME: Duration = Duration::from_secs(600);

/// Earlier bans are remembered for so long at least, so that a jail that begins to count them knows
/// of those before.
pub const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// Clients whose earlier bans are remembered for escalation.
const MAX_REPEATERS: usize = 500_000;

/// Shared addresses remembered.
const MAX_SHARED: usize = 100_000;

/// The time, read once at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For windows and ends.
    pub boot: Moment,
    /// For display and storage.
    pub wall: Timestamp,
}

impl Now {
    /// A moment on the wall clock, as far as that can tell now.
    pub fn wall_of(&self, moment: Moment) -> Timestamp {
        let shown = if moment >= self.boot {
            self.wall.checked_add(moment.since(self.boot))
        } else {
            self.wall.checked_sub(self.boot.since(moment))
        };
        shown.unwrap_or(Timestamp::MAX)
    }

    /// Where a wall-clock time of this or an earlier boot stands on the boot clock.
    pub fn moment_of(&self, wall: Timestamp) -> Moment {
        let nanos = |t: Timestamp| i64::try_from(t.as_nanosecond()).unwrap_or(i64::MAX);
        let ahead = nanos(wall).saturating_sub(nanos(self.wall));
        Moment::from_nanos(self.boot.nanos().saturating_add(ahead))
    }
}

/// One jail's filter matched one line.
#[derive(Debug, Clone, Copy)]
pub struct Hit<'a> {
    /// Whose filter.
    pub jail: &'a JailName,
    /// Apache's client field.
    pub client: IpAddr,
    /// The connection's peer, where the format carries it.
    pub peer: Option<IpAddr>,
    /// When the line arrived.
    pub arrived: Moment,
}

/// What a jail decides.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A hit that counts.
    Found {
        /// Whose.
        jail: JailName,
        /// Apache's client field.
        client: IpAddr,
        /// Weight in the window now.
        count: u32,
        /// Weight that bans.
        maxretry: u32,
        /// The window.
        findtime: Duration,
    },
    /// A new ban; `mode` says what it does.
    Ban(Ban),
    /// A ban from before the engine started.
    Restore(Ban),
    /// A ban is over.
    Unban {
        /// Which.
        ban: Ban,
        /// Why.
        end: End,
    },
    /// A hit of a client that is banned already.
    AlreadyBanned {
        /// By whom.
        jail: JailName,
        /// What is banned.
        net: IpNet,
    },
    /// A hit of somebody who is never banned; not counted.
    Ignore {
        /// Whose.
        jail: JailName,
        /// Who.
        client: IpAddr,
        /// Why.
        reason: Reason,
    },
    /// Enough hits, but the address is shared and the jail does not trigger at once.
    Spared {
        /// Whose.
        jail: JailName,
        /// Who.
        client: IpAddr,
    },
    /// A hit for a jail that is not, or not any more, in the configuration; not counted.
    NoSuchJail,
}

/// Why a ban ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    Over,
    /// `pipeban unban`.
    ByHand,
    /// Somebody in it is exempt now.
    Exempt(Reason),
    /// [`MAX_BANS`] were reached.
    NoRoom,
    /// The same jail's new ban of the same network does something else.
    Replaced,
}

/// Why a ban by hand is not made.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// Not in the configuration.
    NoSuchJail(JailName),
    /// Somebody in the network is never banned.
    Exempt(Reason),
    /// A network that no single offender has ([`is_too_wide`]).
    TooWide(IpNet),
}

/// What came of one hit.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use]
pub struct Observed {
    /// In order.
    pub actions: Vec<Action>,
    /// The jails and clients whose counters changed, to be stored.
    pub changed: Vec<(JailName, IpNet)>,
}

/// Sums since the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Hits that counted, or would have.
    pub failed: u64,
    /// Bans.
    pub banned: u64,
}

#[derive(Debug)]
struct Room {
    name: JailName,
    /// `None`: not in the configuration (any more); bans it made live on.
    settings: Option<Arc<Jail>>,
    totals: Totals,
}

/// All jails: their counters and their bans.
#[derive(Debug)]
pub struct Jails {
    rooms: Vec<Room>,
    index: HashMap<JailName, JailIndex>,
    manual: JailName,
    counters: Counters,
    repeats: Counters,
    /// How far back any jail remembers bans; at least [`REMEMBERED`].
    memory: Duration,
    /// By the first address of each household.
    shared: BTreeMap<IpAddr, Moment>,
    bans: Bans,
    last_id: BanId,
    max_bans: usize,
    /// Apache itself refuses clients behind a proxy: as it was at the start.
    denies: bool,
    /// Bans lifted for want of room, since the start.
    no_room: u64,
}

impl Jails {
    /// Jails with nothing counted and nobody banned.
    pub fn new(config: &Config) -> Jails {
        Jails::bounded(config, MAX_CLIENTS, MAX_BANS)
    }

    fn bounded(config: &Config, clients: usize, max_bans: usize) -> Jails {
        let manual = manual_jail();
        let mut jails = Jails {
            rooms: Vec::new(),
            index: HashMap::new(),
            manual,
            counters: Counters::new(clients),
            repeats: Counters::new(MAX_REPEATERS),
            memory: REMEMBERED,
            shared: BTreeMap::new(),
            bans: Bans::default(),
            last_id: BanId::default(),
            max_bans,
            denies: config.firewall.has(Backend::Apache),
            no_room: 0,
        };
        jails.configure(config);
        jails
    }

    /// Takes new settings. Counters and bans stay; those of vanished jails run out.
    pub fn configure(&mut self, config: &Config) {
        for room in &mut self.rooms {
            room.settings = None;
        }
        let manual = Jail {
            enabled: true,
            enforce: true,
            ..config.defaults.clone()
        };
        let configured = config.jails.iter().map(|(name, jail)| (name.clone(), jail));
        for (name, settings) in std::iter::once((self.manual.clone(), &manual)).chain(configured) {
            let index = self.room_of(&name);
            if let Some(room) = self.rooms.get_mut(index as usize) {
                room.settings = Some(Arc::new(settings.clone()));
            }
        }
        let increments = config
            .jails
            .values()
            .filter_map(|jail| jail.increment.as_ref());
        let longest = increments.map(|increment| increment.memory).max();
        self.memory = longest.max(Some(REMEMBERED)).unwrap_or(REMEMBERED);
    }

    /// Decides about one hit, and about what a ban that comes of it means to jails that count bans.
    pub fn observe(&mut self, hit: &Hit<'_>, now: Now, exempt: &Exempt) -> Observed {
        let Some((index, settings)) = self.settings_of(hit.jail) else {
            return Observed::only(Action::NoSuchJail);
        };
        let client = unmap(hit.client);
        let mut observed = self.count(index, &settings, client, hit, now, exempt);
        let counts = |action: &Action| match action {
            Action::Ban(ban) => ban.mode != Mode::Observed && ban.reason.is_none(),
            _ => false,
        };
        if observed.actions.iter().any(counts) {
            for (index, settings) in self.counting_bans(hit.jail) {
                let more = self.count(index, &settings, client, hit, now, exempt);
                observed.actions.extend(more.actions);
                observed.changed.extend(more.changed);
            }
        }
        observed
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
        let Some(jail) = self
            .rooms
            .get(usize::from(index))
            .map(|room| room.name.clone())
        else {
            return Observed::only(Action::NoSuchJail);
        };
        if let Some(reason) = exempt.reason(settings, &single(client)) {
            return Observed::only(Action::Ignore {
                jail,
                client,
                reason,
            });
        }
        self.add_failed(index, 1);
        let net = exempt.target(settings, client);
        let mode = match hit.peer.map(unmap) {
            _ if !settings.enforce => Mode::Observed,
            Some(peer) if peer != client => self.behind(peer),
            _ => Mode::Enforced,
        };
        if let Some(ban) = self.bans.get(&jail, &net)
            && (ban.mode.is_like(mode) || ban.mode == Mode::Enforced)
        {
            return Observed::only(Action::AlreadyBanned { jail, net });
        }
        let counted = (hit.arrived.min(now.boot), settings.weight.max(1));
        let (count, within) = self
            .counters
            .count((index, net), counted, settings.findtime);
        let mut actions = vec![Action::Found {
            jail: jail.clone(),
            client,
            count,
            maxretry: settings.maxretry,
            findtime: settings.findtime,
        }];
        if count >= settings.maxretry {
            self.counters.reset(&(index, net));
            let shared = self.is_shared(&net, now);
            if shared && settings.weight < settings.maxretry {
                actions.push(Action::Spared {
                    jail: jail.clone(),
                    client,
                });
            } else {
                let (bantime, reason) = if shared {
                    let most = settings.bantime.unwrap_or(SHARED_BANTIME);
                    let reason = "shared address: 10 minutes at most".to_owned();
                    (Some(most.min(SHARED_BANTIME)), Some(reason))
                } else {
                    let who = (client, net);
                    (self.escalated(index, who, settings, now, exempt), None)
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
                    reason,
                }));
            }
        }
        Observed {
            actions,
            changed: vec![(jail, net)],
        }
    }

    fn behind(&self, peer: IpAddr) -> Mode {
        match self.denies {
            true => Mode::Proxied(peer),
            false => Mode::Behind(peer),
        }
    }

    /// Enabled jails that count other jails' bans, but for the one that made this ban; none where
    /// that one counts bans itself.
    fn counting_bans(&self, banned_by: &JailName) -> Vec<(JailIndex, Arc<Jail>)> {
        let settings = |jail: &JailName| self.settings_of(jail);
        let itself = settings(banned_by).is_some_and(|(_, jail)| jail.log == Log::Bans);
        let rooms = self.rooms.iter().filter(|room| {
            let counts = |jail: &Arc<Jail>| jail.log == Log::Bans;
            !itself && room.settings.as_ref().is_some_and(counts)
        });
        rooms.filter_map(|room| settings(&room.name)).collect()
    }

    /// Counts a hit in the jail's total and nothing else: what happens while the emergency stop
    /// is on.
    pub fn count_only(&mut self, jail: &JailName) {
        if let Some((index, _)) = self.settings_of(jail) {
            self.add_failed(index, 1);
        }
    }

    /// A worker's word that many browsers use this address well.
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

    /// A ban by a person: of exactly this network, never escalated. In place of the same jail's
    /// ban of it, if there is one; without a `bantime` it ends no earlier than that one.
    ///
    /// # Errors
    /// An unknown jail; somebody in the network is never banned; the network is too wide.
    pub fn ban_by_hand(
        &mut self,
        jail: Option<&JailName>,
        net: IpNet,
        bantime: Option<Option<Duration>>,
        reason: Option<String>,
        now: Now,
        exempt: &Exempt,
    ) -> Result<Vec<Action>, Refusal> {
        let jail = jail.unwrap_or(&self.manual).clone();
        let settings = self
            .index
            .get(&jail)
            .and_then(|index| self.rooms.get(*index as usize))
            .and_then(|room| room.settings.clone())
            .ok_or_else(|| Refusal::NoSuchJail(jail.clone()))?;
        let net = canonical(net);
        if let Some(reason) = exempt.reason(&settings, &net) {
            return Err(Refusal::Exempt(reason));
        }
        if is_too_wide(&net) {
            return Err(Refusal::TooWide(net));
        }
        let mode = if settings.enforce {
            Mode::Enforced
        } else {
            Mode::Observed
        };
        let until = |bantime: Option<Duration>| bantime.map(|time| now.boot.plus(time));
        let until = match (bantime, self.bans.get(&jail, &net)) {
            (Some(bantime), _) => until(bantime),
            (None, Some(old)) if old.mode == mode => match (until(settings.bantime), old.until) {
                (Some(new), Some(old)) => Some(new.max(old)),
                (_, None) | (None, _) => None,
            },
            (None, _) => until(settings.bantime),
        };
        Ok(self.ban(Ban {
            id: BanId::default(),
            jail,
            net,
            ports: settings.port.clone(),
            mode,
            since: now.boot,
            since_wall: now.wall,
            until,
            failures: 0,
            within: Duration::ZERO,
            reason,
        }))
    }

    /// Takes back bans that the store kept. Those that are over, or would hit somebody who is
    /// exempt by now, end at once.
    pub fn restore(&mut self, bans: Vec<Ban>, now: Now, exempt: &Exempt) -> Vec<Action> {
        let mut actions = Vec::new();
        for mut ban in bans {
            if let Mode::Behind(peer) | Mode::Proxied(peer) = ban.mode {
                ban.mode = self.behind(peer);
            }
            self.room_of(&ban.jail);
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
        actions.extend(self.make_room());
        actions
    }

    /// New bans are named after this one.
    pub fn restore_last_id(&mut self, id: BanId) {
        self.last_id = self.last_id.max(id);
    }

    /// Takes back a counter that the store kept; what is counted by now stays.
    pub fn restore_counter(&mut self, jail: &JailName, net: IpNet, mut hits: Vec<Counted>) {
        let key = (self.room_of(jail), net);
        hits.extend(self.counters.hits(&key));
        self.counters.restore(key, hits);
    }

    /// Takes back the times of earlier bans, for escalation; those that are known stay.
    pub fn restore_repeats(&mut self, jail: &JailName, net: IpNet, times: Vec<Moment>) {
        let key = (self.room_of(jail), net);
        let mut times: Vec<Counted> = times.into_iter().map(|at| (at, 1)).collect();
        times.extend(self.repeats.hits(&key));
        self.repeats.restore(key, times);
    }

    /// Adds a jail's totals of before.
    pub fn restore_totals(&mut self, jail: &JailName, totals: Totals) {
        let index = self.room_of(jail);
        if let Some(room) = self.rooms.get_mut(index as usize) {
            let sum = &mut room.totals;
            sum.failed = sum.failed.saturating_add(totals.failed);
            sum.banned = sum.banned.saturating_add(totals.banned);
        }
    }

    /// Ends what is over.
    pub fn expire(&mut self, now: Now) -> Vec<Action> {
        let over = self.bans.expire(now.boot);
        over.into_iter()
            .map(|ban| Action::Unban {
                ban,
                end: End::Over,
            })
            .collect()
    }

    /// Ends every ban that would hit somebody who is exempt by now.
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

    /// Ends bans by hand and resets the counters of those clients: every ban in `net`, and the one
    /// of a prefix that `net` lies in, when a jail made it or it is an IPv6 client's; `None`: all.
    /// Also gives the (jail, client) whose counters were reset.
    pub fn unban(
        &mut self,
        net: Option<IpNet>,
        jail: Option<&JailName>,
    ) -> (Vec<Action>, Vec<(JailName, IpNet)>) {
        let inside = |candidate: &IpNet| net.is_none_or(|net| net.contains(candidate));
        let around = |candidate: &IpNet| net.is_some_and(|net| candidate.contains(&net));
        let meant = |ban: &Ban| {
            let client = matches!(ban.net, IpNet::V6(v6) if v6.prefix_len() >= 48);
            inside(&ban.net) || (around(&ban.net) && (client || ban.failures > 0))
        };
        let by = |name: &JailName| jail.is_none_or(|jail| jail == name);
        let keys: Vec<(JailName, IpNet)> = self
            .bans
            .iter()
            .filter(|ban| by(&ban.jail) && meant(ban))
            .map(|ban| (ban.jail.clone(), ban.net))
            .collect();
        let mut actions = Vec::new();
        for (jail, net) in keys {
            let end = End::ByHand;
            let ban = self.bans.remove(&jail, &net);
            actions.extend(ban.map(|ban| Action::Unban { ban, end }));
        }
        let counters: Vec<(JailIndex, IpNet)> = self
            .counters
            .keys()
            .filter(|(_, net)| inside(net) || around(net))
            .collect();
        let mut reset = Vec::new();
        for key in counters {
            let name = self.rooms.get(key.0 as usize).map(|room| room.name.clone());
            if let Some(name) = name
                && by(&name)
            {
                self.counters.reset(&key);
                reset.push((name, key.1));
            }
        }
        (actions, reset)
    }

    /// Forgets earlier bans of these clients: the next one is not escalated.
    pub fn forget(&mut self, net: Option<IpNet>, jail: Option<&JailName>) {
        let jail = jail.and_then(|jail| self.index.get(jail).copied());
        let keys: Vec<(JailIndex, IpNet)> = self
            .repeats
            .keys()
            .filter(|(index, client)| {
                jail.is_none_or(|jail| jail == *index)
                    && net.is_none_or(|net| overlap(&net, client))
            })
            .collect();
        for key in keys {
            self.repeats.reset(&key);
        }
    }

    /// Drops what no window holds any more.
    pub fn sweep(&mut self, now: Now) {
        let rooms = &self.rooms;
        let settings = |index: JailIndex| {
            let room = rooms.get(index as usize)?;
            room.settings.as_ref()
        };
        self.counters
            .sweep(now.boot, |index| Some(settings(index)?.findtime));
        let memory = self.memory;
        self.repeats.sweep(now.boot, |_| Some(memory));
        self.shared.retain(|_, until| *until > now.boot);
    }

    /// The bans.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// The ban of that name, if it has not ended.
    pub fn ban_named(&self, id: BanId) -> Option<&Ban> {
        self.bans.iter().find(|ban| ban.id == id)
    }

    /// What is counted of a client.
    pub fn counted(&self, jail: &JailName, net: &IpNet) -> Vec<Counted> {
        match self.index.get(jail) {
            Some(index) => self.counters.hits(&(*index, *net)),
            None => Vec::new(),
        }
    }

    /// Everything that is counted, of who hit last first, with the window of its jail.
    pub fn counters(&self) -> impl Iterator<Item = (JailName, IpNet, Vec<Counted>, Duration)> {
        self.counters.keys().filter_map(|key| {
            let room = self.rooms.get(usize::from(key.0))?;
            let findtime = room.settings.as_ref()?.findtime;
            Some((room.name.clone(), key.1, self.counters.hits(&key), findtime))
        })
    }

    /// Every jail's sums.
    pub fn all_totals(&self) -> impl Iterator<Item = (JailName, Totals)> {
        self.rooms
            .iter()
            .map(|room| (room.name.clone(), room.totals))
    }

    /// A jail's settings; `None`: not in the configuration.
    pub fn settings(&self, jail: &JailName) -> Option<&Jail> {
        let index = self.index.get(jail)?;
        self.rooms.get(*index as usize)?.settings.as_deref()
    }

    /// A jail's sums.
    pub fn totals(&self, jail: &JailName) -> Totals {
        self.index
            .get(jail)
            .and_then(|index| self.rooms.get(*index as usize))
            .map_or_else(Totals::default, |room| room.totals)
    }

    /// Clients with hits, by jail; exact after [`Jails::sweep`].
    pub fn failing(&self) -> HashMap<&JailName, u64> {
        let mut failing = HashMap::new();
        for (index, _) in self.counters.keys() {
            if let Some(room) = self.rooms.get(usize::from(index)) {
                *failing.entry(&room.name).or_insert(0) += 1;
            }
        }
        failing
    }

    /// Clients that any jail counts now.
    pub fn tracked(&self) -> usize {
        self.counters.len()
    }

    /// Every jail that is configured, or has bans or sums.
    pub fn names(&self) -> Vec<JailName> {
        let worth_showing = |room: &&Room| {
            let idle = room.totals == Totals::default();
            let banning = || self.bans.iter().any(|ban| ban.jail == room.name);
            (room.settings.is_some() && room.name != self.manual) || !idle || banning()
        };
        let mut names: Vec<JailName> = self
            .rooms
            .iter()
            .filter(worth_showing)
            .map(|room| room.name.clone())
            .collect();
        names.sort_unstable();
        names
    }

    /// Clients and bans that had to go for want of room, since the start.
    pub fn dropped(&self) -> (u64, u64) {
        (self.counters.evicted(), self.no_room)
    }

    /// Takes in a ban, and names it.
    fn ban(&mut self, mut ban: Ban) -> Vec<Action> {
        self.last_id = self.last_id.next();
        ban.id = self.last_id;
        let index = self.room_of(&ban.jail);
        if ban.mode != Mode::Observed
            && let Some(room) = self.rooms.get_mut(index as usize)
        {
            room.totals.banned = room.totals.banned.saturating_add(1);
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
        actions.extend(self.make_room());
        actions
    }

    fn make_room(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some((jail, net)) = self.bans.surplus(self.max_bans) {
            let Some(ban) = self.bans.remove(&jail, &net) else {
                break;
            };
            self.no_room = self.no_room.saturating_add(1);
            let end = End::NoRoom;
            actions.push(Action::Unban { ban, end });
        }
        actions
    }

    /// How long this ban lasts; it is remembered for later ones.
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
            let rooms = self.rooms.iter().zip(0..);
            rooms
                .map(|(room, index)| {
                    let net = match &room.settings {
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

    fn exempt_now(&self, ban: &Ban, exempt: &Exempt) -> Option<Reason> {
        let settings = self
            .settings(&ban.jail)
            .or_else(|| self.settings(&self.manual))?;
        exempt.reason(settings, &ban.net)
    }

    /// Whether many people use an address of `net`.
    fn is_shared(&self, net: &IpNet, now: Now) -> bool {
        let home = household(net.addr());
        let whole = if net.contains(&home) { net } else { &home };
        let mut known = self.shared.range(whole.network()..=whole.broadcast());
        known.any(|(_, until)| *until > now.boot)
    }

    fn settings_of(&self, jail: &JailName) -> Option<(JailIndex, Arc<Jail>)> {
        let index = *self.index.get(jail)?;
        let settings = self.rooms.get(index as usize)?.settings.as_ref()?;
        (settings.enabled && *jail != self.manual).then(|| (index, Arc::clone(settings)))
    }

    fn add_failed(&mut self, index: JailIndex, hits: u64) {
        if let Some(room) = self.rooms.get_mut(index as usize) {
            room.totals.failed = room.totals.failed.saturating_add(hits);
        }
    }

    fn room_of(&mut self, name: &JailName) -> JailIndex {
        if let Some(index) = self.index.get(name) {
            return *index;
        }
        let index = JailIndex::try_from(self.rooms.len()).unwrap_or(JailIndex::MAX);
        self.index.insert(name.clone(), index);
        self.rooms.push(Room {
            name: name.clone(),
            settings: None,
            totals: Totals::default(),
        });
        index
    }
}

impl Observed {
    fn only(action: Action) -> Observed {
        Observed {
            actions: vec![action],
            changed: Vec::new(),
        }
    }
}

/// An IPv4 address, or the IPv6 /64.
fn household(addr: IpAddr) -> IpNet {
    let net = single(addr);
    match net {
        IpNet::V4(_) => net,
        IpNet::V6(v6) => {
            ipnet::Ipv6Net::new(v6.addr(), 64).map_or(net, |net| IpNet::V6(net.trunc()))
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant, tested")]
fn manual_jail() -> JailName {
    MANUAL.parse().expect("a jail name")
}

#[cfg(test)]
mod tests;
