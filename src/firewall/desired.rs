//! The bans that must be in force. No input or output.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::{JailName, Ports};
use crate::jail::{FirewallKey, FirewallState, Moment, canonical};

/// One ban in a few bytes. Valid in the [`Desired`] that returned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BanKey {
    group: u32,
    pub(super) net: IpNet,
}

impl BanKey {
    pub(super) fn new(group: u32, net: IpNet) -> BanKey {
        BanKey { group, net }
    }

    pub(super) fn group(self) -> u32 {
        self.group
    }
}

/// What is known of a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BanState {
    /// `None`: permanent.
    pub(super) until: Option<Moment>,
    /// `None`: an earlier engine made the ban, and this one does not know it.
    jail: Option<u32>,
}

impl BanState {
    pub(super) fn is_adopted(&self) -> bool {
        self.jail.is_none()
    }

    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// A permanent ban ends last.
    pub(super) fn end(&self) -> Moment {
        self.until.unwrap_or(FOREVER)
    }
}

const FOREVER: Moment = Moment::MAX;
const ADOPTED: u32 = u32::MAX;

/// The same in 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Packed {
    until: Moment,
    jail: u32,
}

impl Packed {
    fn state(self) -> BanState {
        BanState {
            until: (self.until != FOREVER).then_some(self.until),
            jail: (self.jail != ADOPTED).then_some(self.jail),
        }
    }
}

/// The bans of one port list.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) ports: Arc<Ports>,
    /// The clients come through a proxy: only Apache can refuse them.
    pub(super) behind: bool,
    bans: BTreeMap<IpNet, Packed>,
}

impl Group {
    pub(super) fn bans(&self) -> impl Iterator<Item = (IpNet, BanState)> {
        self.bans.iter().map(|(net, ban)| (*net, ban.state()))
    }
}

/// (client network, ports, behind) -> (end, jail). About 60 bytes a ban: a host may hold a
/// million.
#[derive(Debug)]
pub(super) struct Desired {
    /// A group keeps its number, also when it is empty.
    groups: Vec<Group>,
    jails: Vec<JailName>,
    /// In place of [`Ports::Apache`].
    apache: Arc<Ports>,
    /// Every ban is known: back ends remove what else they hold.
    pub(super) complete: bool,
    /// Counts the changes.
    pub(super) version: u64,
    /// Counts the bans that were made or changed one by one.
    pub(super) made: u64,
}

impl Default for Desired {
    fn default() -> Desired {
        Desired {
            groups: Vec::new(),
            jails: Vec::new(),
            apache: Arc::new(Ports::web()),
            complete: false,
            version: 0,
            made: 0,
        }
    }
}

impl Desired {
    /// The ports of Apache.
    pub(super) fn apache(&self) -> &Arc<Ports> {
        &self.apache
    }

    pub(super) fn set_apache(&mut self, ports: Ports) {
        self.version += 1;
        self.apache = Arc::new(ports);
    }

    /// The ports of a group, those of Apache by number.
    pub(super) fn ports(&self, group: &Group) -> Arc<Ports> {
        match *group.ports {
            Ports::Apache => Arc::clone(&self.apache),
            Ports::AllButSsh | Ports::All | Ports::List { .. } => Arc::clone(&group.ports),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.bans.len()).sum()
    }

    /// Adds a ban, changes its end, or removes it (`None`).
    pub(super) fn set(&mut self, key: &FirewallKey, state: Option<FirewallState>) -> BanKey {
        let packed = state.map(|state| Packed {
            until: state.until.unwrap_or(FOREVER),
            jail: self.jail_number(state.jail),
        });
        self.put(key, packed)
    }

    /// Adds a ban that an earlier engine left in force, unless it is known.
    pub(super) fn adopt(&mut self, key: &FirewallKey, until: Option<Moment>) {
        if self.key(key).is_none_or(|id| self.get(id).is_none()) {
            let packed = Packed {
                until: until.unwrap_or(FOREVER),
                jail: ADOPTED,
            };
            self.put(key, Some(packed));
        }
    }

    /// Forgets every ban.
    pub(super) fn clear(&mut self) {
        self.version += 1;
        for group in &mut self.groups {
            group.bans.clear();
        }
    }

    fn put(&mut self, key: &FirewallKey, ban: Option<Packed>) -> BanKey {
        self.version += 1;
        let id = self.id(key);
        let number = usize::try_from(id.group).unwrap_or(usize::MAX);
        if let Some(group) = self.groups.get_mut(number) {
            match ban {
                Some(ban) => group.bans.insert(id.net, ban),
                None => group.bans.remove(&id.net),
            };
        }
        id
    }

    /// The key of a ban, wanted or not.
    pub(super) fn id(&mut self, key: &FirewallKey) -> BanKey {
        self.key(key).unwrap_or_else(|| {
            self.groups.push(Group {
                ports: Arc::new(key.ports.clone()),
                behind: key.behind,
                bans: BTreeMap::new(),
            });
            BanKey {
                group: u32::try_from(self.groups.len() - 1).unwrap_or(u32::MAX),
                net: canonical(key.net),
            }
        })
    }

    fn jail_number(&mut self, jail: JailName) -> u32 {
        let known = self.jails.iter().position(|known| *known == jail);
        let number = known.unwrap_or_else(|| {
            self.jails.push(jail);
            self.jails.len() - 1
        });
        u32::try_from(number).unwrap_or(ADOPTED)
    }

    pub(super) fn key(&self, key: &FirewallKey) -> Option<BanKey> {
        let is = |group: &Group| group.behind == key.behind && *group.ports == key.ports;
        let group = self.groups.iter().position(is)?;
        Some(BanKey {
            group: u32::try_from(group).ok()?,
            net: canonical(key.net),
        })
    }

    pub(super) fn group(&self, id: BanKey) -> Option<&Group> {
        self.groups.get(usize::try_from(id.group).ok()?)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (u32, &Group)> {
        (0..).zip(&self.groups)
    }

    pub(super) fn get(&self, id: BanKey) -> Option<BanState> {
        let ban = self.group(id)?.bans.get(&id.net)?;
        Some(ban.state())
    }

    /// The jail of a ban; empty for an adopted one.
    pub(super) fn jail(&self, state: BanState) -> &str {
        let number = state.jail.and_then(|jail| usize::try_from(jail).ok());
        let jail = number.and_then(|number| self.jails.get(number));
        jail.map_or("", JailName::as_str)
    }

    /// The latest end of the bans of exactly this network; `None`: there is no ban.
    pub(super) fn latest_end(&self, net: &IpNet) -> Option<BanState> {
        let bans = self.groups.iter().filter_map(|group| group.bans.get(net));
        bans.map(|ban| ban.state()).max_by_key(BanState::end)
    }

    /// The next bans after `from`, at most `most`: to walk through a million without holding a
    /// lock all the time.
    pub(super) fn after(&self, from: Option<BanKey>, most: usize) -> Vec<(BanKey, BanState)> {
        let first = from.map_or(0, |from| from.group);
        let groups = self.groups().filter(|(number, _)| *number >= first);
        let bans = groups.flat_map(|(group, bans)| {
            let start = match from {
                Some(from) if from.group == group => Bound::Excluded(from.net),
                _ => Bound::Unbounded,
            };
            let rest = bans.bans.range((start, Bound::Unbounded));
            rest.map(move |(net, ban)| (BanKey { group, net: *net }, ban.state()))
        });
        bans.take(most).collect()
    }
}

/// The same ban, masked and unmapped: `::ffff:192.0.2.1` is no IPv6 client.
pub(super) fn canonical_key(key: &FirewallKey) -> FirewallKey {
    FirewallKey {
        net: canonical(key.net),
        ..key.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(net: &str, port: u16, behind: bool) -> FirewallKey {
        FirewallKey {
            net: net.parse().unwrap(),
            ports: Ports::List {
                tcp: [port].into(),
                udp: [].into(),
            },
            behind,
        }
    }

    #[test]
    fn a_network_is_masked_and_unmapped() {
        for (given, expected) in [
            ("192.0.2.1/32", "192.0.2.1/32"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("2001:db8::77:1/64", "2001:db8::/64"),
            ("::ffff:192.0.2.1/128", "192.0.2.1/32"),
            ("::ffff:192.0.2.77/120", "192.0.2.0/24"),
            ("::/0", "::/0"),
        ] {
            let id = Desired::default().id(&key(given, 80, false));
            assert_eq!(id.net, expected.parse().unwrap(), "{given}");
        }
    }

    fn state(until: Option<i64>) -> FirewallState {
        FirewallState {
            jail: "a".parse().unwrap(),
            until: until.map(Moment::from_nanos),
        }
    }

    #[test]
    fn a_ban_is_added_changed_and_removed() {
        let mut desired = Desired::default();
        let one = desired.set(&key("192.0.2.1/32", 80, false), Some(state(Some(5))));
        let same_net = desired.set(&key("192.0.2.1/32", 80, true), Some(state(None)));
        assert_ne!(one, same_net);
        assert_eq!(desired.len(), 2);
        let end = |desired: &Desired| desired.get(one).map(|ban| ban.until);
        assert_eq!(end(&desired), Some(Some(Moment::from_nanos(5))));
        assert_eq!(desired.jail(desired.get(one).unwrap()), "a");
        desired.set(&key("192.0.2.1/32", 80, false), Some(state(Some(9))));
        assert_eq!(end(&desired), Some(Some(Moment::from_nanos(9))));
        let latest = desired.latest_end(&one.net).unwrap();
        assert_eq!(latest.until, None);
        desired.set(&key("192.0.2.1/32", 80, false), None);
        assert_eq!((end(&desired), desired.len()), (None, 1));
    }

    #[test]
    fn an_adopted_ban_replaces_no_known_one() {
        let mut desired = Desired::default();
        let known = desired.set(&key("192.0.2.1/32", 80, false), Some(state(Some(5))));
        desired.adopt(&key("192.0.2.1/32", 80, false), None);
        desired.adopt(&key("192.0.2.2/32", 80, false), None);
        assert!(!desired.get(known).unwrap().is_adopted());
        let adopted = desired.key(&key("192.0.2.2/32", 80, false)).unwrap();
        assert!(desired.get(adopted).unwrap().is_adopted());
    }

    #[test]
    fn a_walk_returns_every_ban_once() {
        let mut desired = Desired::default();
        for n in 0..10u16 {
            let net = format!("192.0.2.{n}/32");
            desired.set(&key(&net, n % 3, n % 2 == 0), Some(state(None)));
        }
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let some = desired.after(from, 3);
            let Some((last, _)) = some.last() else { break };
            assert!(some.len() <= 3);
            from = Some(*last);
            found.extend(some.iter().map(|(id, _)| id.net));
        }
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 10);
    }
}
