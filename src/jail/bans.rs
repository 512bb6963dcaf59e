//! Active bans: of which jails, until when, and what the firewall holds for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use super::cause::Cause;
use super::id::BanId;
use super::moment::Moment;
use crate::config::{JailName, Ports};

/// Bans at most; beyond it the one that ends first is lifted and counted.
pub const MAX_BANS: usize = 1_200_000;

/// What a ban does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A back end enforces it.
    Enforced,
    /// `enforce = false`: it is logged only.
    Observed,
    /// The client is behind this proxy; a firewall on this host cannot block it.
    Behind(IpAddr),
    /// The client is behind this proxy, and Apache refuses it by the deny map.
    Proxied(IpAddr),
}

impl Mode {
    /// Whether both do the same; the proxy makes no difference.
    pub(super) fn is_like(self, other: Mode) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// The proxy that the client is behind.
    pub fn proxy(self) -> Option<IpAddr> {
        match self {
            Mode::Behind(peer) | Mode::Proxied(peer) => Some(peer),
            Mode::Enforced | Mode::Observed => None,
        }
    }

    /// Whether only Apache can enforce it; `None`: no back end can.
    fn behind(self) -> Option<bool> {
        match self {
            Mode::Enforced => Some(false),
            Mode::Proxied(_) => Some(true),
            Mode::Observed | Mode::Behind(_) => None,
        }
    }
}

/// One jail's ban of one client or network.
#[derive(Debug, Clone, PartialEq)]
pub struct Ban {
    /// Its id, unique among active bans.
    pub id: BanId,
    /// The jail that banned.
    pub jail: JailName,
    /// The banned client or network.
    pub net: IpNet,
    /// The closed ports.
    pub ports: Ports,
    /// What the ban does.
    pub mode: Mode,
    /// When it began.
    pub since: Moment,
    /// The same on the wall clock, for display and storage.
    pub since_wall: Timestamp,
    /// `None`: for ever.
    pub until: Option<Moment>,
    /// Weight that led to it; 0 where a person banned.
    pub failures: u32,
    /// Time in which that weight arrived.
    pub within: Duration,
    /// Why it exists.
    pub cause: Cause,
}

impl Ban {
    /// Its whole length; `None`: for ever.
    pub fn length(&self) -> Option<Duration> {
        self.until.map(|until| until.since(self.since))
    }
}

/// One entry of the firewall.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FirewallKey {
    /// The banned client or network.
    pub net: IpNet,
    /// The closed ports.
    pub ports: Ports,
    /// The client is behind a proxy: only Apache can refuse it.
    pub behind: bool,
}

impl Ban {
    /// Its entry in the firewall; `None`: it has none.
    pub fn firewall_key(&self) -> Option<FirewallKey> {
        let behind = self.mode.behind()?;
        Some(FirewallKey {
            net: self.net,
            ports: self.ports.clone(),
            behind,
        })
    }
}

/// How long the firewall holds an entry: until the latest end of all bans that share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallState {
    /// The jail whose ban ends last.
    pub jail: JailName,
    /// Its end; `None`: for ever.
    pub until: Option<Moment>,
}

type Key = (JailName, IpNet);

/// How many bans a jail has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BanCount {
    /// Those that ban.
    pub banned: u64,
    /// Those that are only logged.
    pub observed: u64,
}

impl BanCount {
    fn of(&mut self, mode: Mode) -> &mut u64 {
        match mode {
            Mode::Observed => &mut self.observed,
            Mode::Enforced | Mode::Behind(_) | Mode::Proxied(_) => &mut self.banned,
        }
    }
}

/// All active bans.
#[derive(Debug, Default)]
pub struct Bans {
    bans: BTreeMap<IpNet, Vec<Ban>>,
    ends: BTreeSet<(Moment, Key)>,
    owners: HashMap<FirewallKey, Vec<JailName>>,
    /// Of each jail that has one.
    counts: HashMap<JailName, BanCount>,
    /// In the order of their ids, which is that of their beginnings.
    by_id: BTreeSet<(BanId, IpNet)>,
    count: usize,
}

impl Bans {
    /// Number of bans.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bans each jail has, without those that are over at `now`.
    pub fn counts(&self, now: Moment) -> HashMap<JailName, BanCount> {
        let mut counts = self.counts.clone();
        let over = self.ends.iter().take_while(|(until, _)| *until <= now);
        for ban in over.filter_map(|(_, (jail, net))| self.get(jail, net)) {
            if let Some(count) = counts.get_mut(&ban.jail) {
                *count.of(ban.mode) -= 1;
            }
        }
        counts
    }

    /// Whether a jail has a ban.
    pub fn has_any_of(&self, jail: &JailName) -> bool {
        self.counts.contains_key(jail)
    }

    /// The ids and networks of all bans, the newest first.
    pub fn newest(&self) -> impl Iterator<Item = (BanId, IpNet)> {
        self.by_id.iter().rev().copied()
    }

    /// All of them, by network.
    pub fn iter(&self) -> impl Iterator<Item = &Ban> {
        self.bans.values().flatten()
    }

    /// Those of networks after this one; `None`: all.
    pub fn after(&self, net: Option<IpNet>) -> impl Iterator<Item = &Ban> {
        let first = net.map_or(Bound::Unbounded, Bound::Excluded);
        let networks = self.bans.range((first, Bound::Unbounded));
        networks.flat_map(|(_, bans)| bans)
    }

    /// Those of exactly this network.
    pub fn of(&self, net: &IpNet) -> &[Ban] {
        self.bans.get(net).map_or(&[], Vec::as_slice)
    }

    /// A jail's ban of exactly this network.
    pub fn get(&self, jail: &JailName, net: &IpNet) -> Option<&Ban> {
        self.bans.get(net)?.iter().find(|ban| ban.jail == *jail)
    }

    /// Adds a ban, in place of the same jail's ban of the same network.
    pub fn insert(&mut self, ban: Ban) {
        self.remove(&ban.jail, &ban.net);
        if let Some(until) = ban.until {
            self.ends.insert((until, (ban.jail.clone(), ban.net)));
        }
        if let Some(key) = ban.firewall_key() {
            let owners = self.owners.entry(key).or_default();
            owners.reserve_exact(1);
            owners.push(ban.jail.clone());
        }
        self.by_id.insert((ban.id, ban.net));
        *self
            .counts
            .entry(ban.jail.clone())
            .or_default()
            .of(ban.mode) += 1;
        // Most have one; a Vec begins with four, which is a gigabyte at a million bans.
        let bans = self.bans.entry(ban.net).or_default();
        bans.reserve_exact(1);
        bans.push(ban);
        self.count += 1;
    }

    /// Removes a ban.
    pub fn remove(&mut self, jail: &JailName, net: &IpNet) -> Option<Ban> {
        let here = self.bans.get_mut(net)?;
        let place = here.iter().position(|ban| ban.jail == *jail)?;
        let ban = here.remove(place);
        if here.is_empty() {
            self.bans.remove(net);
        }
        if let Some(until) = ban.until {
            self.ends.remove(&(until, (ban.jail.clone(), ban.net)));
        }
        if let Some(key) = ban.firewall_key()
            && let Some(owners) = self.owners.get_mut(&key)
        {
            owners.retain(|owner| owner != jail);
            if owners.is_empty() {
                self.owners.remove(&key);
            }
        }
        self.by_id.remove(&(ban.id, ban.net));
        if let Some(count) = self.counts.get_mut(jail) {
            *count.of(ban.mode) -= 1;
            if *count == BanCount::default() {
                self.counts.remove(jail);
            }
        }
        self.count -= 1;
        Some(ban)
    }

    /// Removes every ban that is over at `now`.
    pub fn expire(&mut self, now: Moment) -> Vec<Ban> {
        let mut over = Vec::new();
        while let Some((until, (jail, net))) = self.ends.first().cloned()
            && until <= now
        {
            self.ends.pop_first();
            over.extend(self.remove(&jail, &net));
        }
        over
    }

    /// The ban that ends first, if there are more than `most`.
    pub fn surplus(&self, most: usize) -> Option<Key> {
        if self.count <= most {
            return None;
        }
        let first = self.ends.first().map(|(_, key)| key.clone());
        first.or_else(|| self.iter().next().map(|ban| (ban.jail.clone(), ban.net)))
    }

    /// When the next ban ends.
    pub fn next_end(&self) -> Option<Moment> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// How long the firewall holds this entry; `None`: no ban needs it.
    pub fn hold(&self, key: &FirewallKey) -> Option<FirewallState> {
        let owners = self.owners.get(key)?;
        owners
            .iter()
            .filter_map(|jail| self.get(jail, &key.net))
            .map(|ban| FirewallState {
                jail: ban.jail.clone(),
                until: ban.until,
            })
            .max_by_key(|hold| (hold.until.is_none(), hold.until))
    }

    /// Every entry of the firewall.
    pub fn holds(&self) -> impl Iterator<Item = (&FirewallKey, FirewallState)> {
        let keys = self.owners.keys();
        keys.filter_map(|key| Some((key, self.hold(key)?)))
    }

    /// Bans that share an address with `net`.
    pub fn overlapping(&self, net: &IpNet) -> Vec<Key> {
        let (addr, prefix) = (net.addr(), net.prefix_len());
        let wider = (0..prefix).filter_map(|wider| Some(IpNet::new(addr, wider).ok()?.trunc()));
        let wider = wider.filter_map(|wider| self.bans.get(&wider));
        // Those that begin within it are within it, or contain it and begin with it.
        let first = IpNet::new(net.network(), 0).unwrap_or(*net);
        let last = IpNet::from(net.broadcast());
        let within = self.bans.range(first..=last).map(|(_, bans)| bans);
        let within = within.filter(|bans| bans.iter().all(|ban| net.contains(&ban.net)));
        wider
            .chain(within)
            .flatten()
            .map(|ban| (ban.jail.clone(), ban.net))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ban(jail: &str, host: u8, ports: Ports, until: Option<i64>) -> Ban {
        Ban {
            id: BanId::default(),
            jail: jail.parse().unwrap(),
            net: format!("203.0.113.{host}/32").parse().unwrap(),
            ports,
            mode: Mode::Enforced,
            since: Moment::default(),
            since_wall: Timestamp::UNIX_EPOCH,
            until: until.map(Moment::from_nanos),
            failures: 1,
            within: Duration::ZERO,
            cause: Cause::Jail,
        }
    }

    #[test]
    fn the_ban_that_ends_first_is_the_surplus() {
        let mut bans = Bans::default();
        bans.insert(ban("a", 1, Ports::All, None));
        bans.insert(ban("a", 2, Ports::All, Some(20)));
        bans.insert(ban("a", 3, Ports::All, Some(10)));
        assert_eq!(bans.surplus(3), None);
        assert_eq!(
            bans.surplus(2).map(|k| k.1.to_string()),
            Some("203.0.113.3/32".into())
        );
    }

    proptest! {
        #[test]
        fn overlapping_bans_are_found_at_any_width(
            nets in prop::collection::vec((0u8..2, 0u32..64, 26u8..=32), 0..40),
            (v6, bits, prefix) in (0u8..2, 0u32..64, 24u8..=32),
        ) {
            let net = |v6: u8, bits: u32, prefix: u8| match v6 {
                0 => IpNet::new(IpAddr::V4(bits.into()), prefix).unwrap().trunc(),
                _ => IpNet::new(IpAddr::V6(u128::from(bits).into()), prefix + 96).unwrap().trunc(),
            };
            let mut bans = Bans::default();
            for (v6, bits, prefix) in nets {
                let one = ban("a", 1, Ports::All, None);
                bans.insert(Ban { net: net(v6, bits, prefix), ..one });
            }
            let wanted = net(v6, bits, prefix);
            let share = |ban: &&Ban| super::super::network::overlap(&ban.net, &wanted);
            let mut expected: Vec<IpNet> = bans.iter().filter(share).map(|ban| ban.net).collect();
            let mut found: Vec<IpNet> = bans.overlapping(&wanted).into_iter().map(|key| key.1).collect();
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn holds_equal_the_naive_list(
            steps in prop::collection::vec((0u8..3, 0u8..3, 0u8..2, prop::option::of(1i64..50), 0u8..4), 0..80),
        ) {
            let mut bans = Bans::default();
            let mut naive: Vec<Ban> = Vec::new();
            for (number, (jail, host, ports, until, step)) in (0..).zip(steps) {
                let ports = if ports == 0 { Ports::All } else { Ports::AllButSsh };
                let mut one = ban(["a", "b", "c"][jail as usize], host, ports, until);
                one.id = BanId::new(number);
                if step == 3 {
                    one.mode = Mode::Observed;
                }
                let same = |b: &Ban| b.jail == one.jail && b.net == one.net;
                match step {
                    0 => { bans.remove(&one.jail, &one.net); naive.retain(|b| !same(b)); }
                    1 => {
                        let now = Moment::from_nanos(until.unwrap_or(0) / 2);
                        bans.expire(now);
                        naive.retain(|b| b.until.is_none_or(|end| end > now));
                    }
                    _ => { naive.retain(|b| !same(b)); naive.push(one.clone()); bans.insert(one); }
                }
                prop_assert_eq!(bans.len(), naive.len());
                prop_assert_eq!(bans.iter().count(), naive.len());
                let mut ids: Vec<_> = naive.iter().map(|ban| (ban.id, ban.net)).collect();
                ids.sort_unstable_by(|one, other| other.cmp(one));
                prop_assert!(bans.newest().eq(ids));
                for now in [0, 25].map(Moment::from_nanos) {
                    let mut counts = bans.counts(now);
                    for ban in naive.iter().filter(|ban| ban.until.is_none_or(|end| end > now)) {
                        *counts.get_mut(&ban.jail).unwrap().of(ban.mode) -= 1;
                    }
                    prop_assert!(counts.values().all(|count| *count == BanCount::default()));
                }
                for host in 0u8..3 {
                    for ports in [Ports::All, Ports::AllButSsh] {
                        let net: IpNet = format!("203.0.113.{host}/32").parse().unwrap();
                        let expected = naive.iter().filter(|b| b.net == net && b.ports == ports && b.mode == Mode::Enforced)
                            .map(|b| (b.until.is_none(), b.until)).max();
                        let key = FirewallKey { net, ports: ports.clone(), behind: false };
                        let got = bans.hold(&key).map(|h| (h.until.is_none(), h.until));
                        prop_assert_eq!(got, expected);
                    }
                }
            }
        }
    }
}
