//! The bans of the own table, as this process knows them. No input or output.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use ipnet::IpNet;

use super::Entry;
use super::nft_sets::SetKey;
use super::nft_wire::{self, Element};

/// The kernel rounds a timeout down to its ticks (up to 10 ms), and none means for ever.
const SHORTEST_MS: u64 = 1_000;
/// Ten thousand days: far, and far from what the kernel's arithmetic cannot hold.
const LONGEST_MS: u64 = 10_000 * 86_400_000;
/// Below this many entries nobody looks for ended ones.
const PURGE_FROM: usize = 4_096;

/// All bans, so that a wiped table can be made again: by set, with their ends in time since boot
/// (`None`: for ever). Bans whose end has passed are dropped when the number has doubled.
pub(super) struct InForce {
    pub(super) sets: BTreeMap<SetKey, BTreeMap<IpNet, Option<Duration>>>,
    count: usize,
    purge_at: usize,
}

impl InForce {
    pub(super) fn new() -> InForce {
        InForce {
            sets: BTreeMap::new(),
            count: 0,
            purge_at: PURGE_FROM,
        }
    }

    /// What the back ends are given, in the set that it belongs to.
    pub(super) fn put(&mut self, entry: &Entry, ssh: &BTreeSet<u16>, now: Duration) {
        let set = SetKey::of(entry.net, &entry.ports, ssh);
        let end = entry.remaining.map(|left| now.saturating_add(left));
        self.insert(set, entry.net, end, now);
    }

    pub(super) fn insert(&mut self, set: SetKey, net: IpNet, end: Option<Duration>, now: Duration) {
        if self.count >= self.purge_at {
            self.purge(now);
        }
        let new = self.sets.entry(set).or_default().insert(net, end).is_none();
        self.count += usize::from(new);
    }

    pub(super) fn remove(&mut self, set: &SetKey, net: &IpNet) {
        if let Some(nets) = self.sets.get_mut(set) {
            self.count -= usize::from(nets.remove(net).is_some());
            if nets.is_empty() {
                self.sets.remove(set);
            }
        }
    }

    /// What is not over, as elements.
    pub(super) fn elements(&self, set: &SetKey, now: Duration) -> Vec<Element> {
        let nets = self.sets.get(set).into_iter().flatten();
        nets.filter(|(_, end)| end.is_none_or(|end| end > now))
            .map(|(net, end)| (nft_wire::element_key(*net), timeout(*end, now)))
            .collect()
    }

    pub(super) fn timeout(&self, set: &SetKey, net: &IpNet, now: Duration) -> Option<u64> {
        let end = self.sets.get(set).and_then(|nets| nets.get(net).copied());
        timeout(end.flatten(), now)
    }

    /// The next bans behind `from`, in order: `most` of them, all of one set.
    pub(super) fn after(
        &self,
        from: Option<&(SetKey, IpNet)>,
        most: usize,
    ) -> Vec<(SetKey, IpNet)> {
        let rest = from.and_then(|(set, net)| {
            let behind = (Bound::Excluded(*net), Bound::Unbounded);
            Some((set, self.sets.get(set)?.range(behind)))
        });
        let first = match from {
            Some((set, _)) => Bound::Excluded(set),
            None => Bound::Unbounded,
        };
        let others = self.sets.range((first, Bound::Unbounded));
        let others = others.map(|(set, nets)| (set, nets.range(..)));
        for (set, nets) in rest.into_iter().chain(others) {
            let some: Vec<_> = nets
                .take(most)
                .map(|(net, _)| (set.clone(), *net))
                .collect();
            if !some.is_empty() {
                return some;
            }
        }
        Vec::new()
    }

    pub(super) fn purge(&mut self, now: Duration) {
        for nets in self.sets.values_mut() {
            nets.retain(|_, end| end.is_none_or(|end| end > now));
        }
        self.sets.retain(|_, nets| !nets.is_empty());
        self.count = self.sets.values().map(BTreeMap::len).sum();
        self.purge_at = PURGE_FROM.max(self.count * 2);
    }

    /// Not in force any more, or not for long enough to be put back.
    pub(super) fn is_over(&self, set: &SetKey, net: &IpNet, now: Duration) -> bool {
        match self.sets.get(set).and_then(|nets| nets.get(net)) {
            None => true,
            Some(end) => end.is_some_and(|end| end <= now + Duration::from_millis(SHORTEST_MS)),
        }
    }
}

/// What is left, in milliseconds.
fn timeout(end: Option<Duration>, now: Duration) -> Option<u64> {
    let left = end?.saturating_sub(now).as_millis();
    let left = u64::try_from(left).unwrap_or(u64::MAX);
    Some(left.clamp(SHORTEST_MS, LONGEST_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ports;
    use std::collections::BTreeSet;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn key() -> SetKey {
        let net = "192.0.2.0/32".parse().unwrap();
        SetKey::of(net, &Ports::All, &BTreeSet::new())
    }

    fn net(n: u32) -> IpNet {
        IpNet::from(std::net::IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn no_time_left_is_never_for_ever() {
        for (end, expected) in [
            (None, None),
            (Some(NOW), Some(SHORTEST_MS)),
            (Some(Duration::ZERO), Some(SHORTEST_MS)),
            (Some(NOW + Duration::from_millis(1)), Some(SHORTEST_MS)),
            (Some(NOW + Duration::from_secs(90)), Some(90_000)),
            (Some(Duration::MAX), Some(LONGEST_MS)),
        ] {
            assert_eq!(timeout(end, NOW), expected, "{end:?}");
        }
    }

    #[test]
    fn bans_that_are_over_do_not_pile_up() {
        let mut bans = InForce::new();
        for n in 0..100_000 {
            let now = NOW + Duration::from_secs(n.into());
            bans.insert(key(), net(n), Some(now + Duration::from_secs(10)), now);
            assert!(bans.count <= PURGE_FROM, "{n}");
        }
        let end = NOW + Duration::from_secs(99_999);
        assert_eq!(bans.elements(&key(), end).len(), 10);
    }

    #[test]
    fn a_walk_meets_every_ban_once() {
        let mut bans = InForce::new();
        let sets = [Ports::All, Ports::AllButSsh]
            .map(|ports| SetKey::of("192.0.2.0/32".parse().unwrap(), &ports, &BTreeSet::new()));
        for n in 0..10 {
            bans.insert(sets[n as usize % 2].clone(), net(n), None, NOW);
        }
        let (mut met, mut at) = (BTreeSet::new(), None);
        loop {
            let some = bans.after(at.as_ref(), 3);
            let Some(last) = some.last() else { break };
            at = Some(last.clone());
            met.extend(some.iter().map(|(_, net)| *net));
            assert!(some.len() <= 3);
        }
        assert_eq!(met, (0..10).map(net).collect());
    }

    #[test]
    fn counting_follows_what_is_there() {
        let mut bans = InForce::new();
        bans.insert(key(), net(1), None, NOW);
        bans.insert(key(), net(1), Some(NOW), NOW);
        bans.insert(key(), net(2), None, NOW);
        assert_eq!(bans.count, 2);
        bans.remove(&key(), &net(2));
        bans.remove(&key(), &net(2));
        assert_eq!(bans.count, 1);
        bans.purge(NOW);
        assert_eq!((bans.count, bans.sets.len()), (0, 0));
    }
}
