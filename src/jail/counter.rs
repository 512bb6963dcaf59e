//! Hits per client in a time window, in bounded memory.

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;

use super::moment::Moment;

/// Clients tracked at most, over all jails.
pub const MAX_CLIENTS: usize = 1_000_000;

/// Hits kept of one client at most; beyond it the oldest two become one, at the older's time, so
/// that a client is rather counted too low than banned too early.
const MAX_HITS: usize = 1_000;

/// One hit that still counts: when its line arrived, and its weight.
pub type Counted = (Moment, u32);

/// Number of a jail, stable while the engine runs.
pub(super) type JailIndex = u32;

/// Counters of every client of every jail.
///
/// Two generations: a client that hits is moved into the young one; when that is full the old one
/// is dropped, so those go first who have not hit for longest.
#[derive(Debug)]
pub(super) struct Counters {
    young: HashMap<(JailIndex, IpNet), Vec<Counted>>,
    old: HashMap<(JailIndex, IpNet), Vec<Counted>>,
    generation: usize,
    evicted: u64,
}

impl Counters {
    /// Tracks at most `clients`, two or more.
    pub(super) fn new(clients: usize) -> Counters {
        Counters {
            young: HashMap::new(),
            old: HashMap::new(),
            generation: (clients / 2).max(1),
            evicted: 0,
        }
    }

    /// Counts a hit and returns what counts now: the weights whose lines arrived within `findtime`
    /// before the newest line, and the time from the oldest to the newest of them.
    pub(super) fn count(
        &mut self,
        key: (JailIndex, IpNet),
        hit: Counted,
        findtime: Duration,
    ) -> (u32, Duration) {
        let mut hits = self.take(&key).unwrap_or_default();
        let place = hits.partition_point(|(at, _)| *at <= hit.0);
        hits.insert(place, hit);
        let newest = hits.last().map_or(hit.0, |(at, _)| *at);
        let oldest = newest.minus(findtime);
        hits.retain(|(at, _)| *at > oldest);
        if hits.len() > MAX_HITS {
            merge_oldest(&mut hits);
        }
        let sum = hits.iter().fold(0u32, |sum, (_, w)| sum.saturating_add(*w));
        let first = hits.first().map_or(newest, |(at, _)| *at);
        self.put(key, hits);
        (sum, newest.since(first))
    }

    /// What is kept of a client; empty when nothing is.
    pub(super) fn hits(&self, key: &(JailIndex, IpNet)) -> &[Counted] {
        self.young
            .get(key)
            .or_else(|| self.old.get(key))
            .map_or(&[], Vec::as_slice)
    }

    /// Puts back what the store kept. Times must not fall.
    pub(super) fn restore(&mut self, key: (JailIndex, IpNet), mut hits: Vec<Counted>) {
        hits.sort_unstable_by_key(|(at, _)| *at);
        while hits.len() > MAX_HITS {
            merge_oldest(&mut hits);
        }
        self.put(key, hits);
    }

    /// Starts a client again at nothing. Whether anything was kept.
    pub(super) fn reset(&mut self, key: &(JailIndex, IpNet)) -> bool {
        self.take(key).is_some()
    }

    /// Drops clients whose window is over at `now`; `findtime` of each jail, `None` for one that
    /// is gone.
    pub(super) fn sweep(&mut self, now: Moment, findtime: impl Fn(JailIndex) -> Option<Duration>) {
        for map in [&mut self.young, &mut self.old] {
            map.retain(|(jail, _), hits| match (findtime(*jail), hits.last()) {
                (Some(findtime), Some((at, _))) => now.since(*at) < findtime,
                _ => false,
            });
        }
    }

    /// Every tracked client.
    pub(super) fn keys(&self) -> impl Iterator<Item = &(JailIndex, IpNet)> {
        self.young.keys().chain(self.old.keys())
    }

    /// Clients dropped for want of room, since the start.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn take(&mut self, key: &(JailIndex, IpNet)) -> Option<Vec<Counted>> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    fn put(&mut self, key: (JailIndex, IpNet), hits: Vec<Counted>) {
        if self.young.len() >= self.generation && !self.young.contains_key(&key) {
            self.evicted = self.evicted.saturating_add(self.old.len() as u64);
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, hits);
    }
}

fn merge_oldest(hits: &mut Vec<Counted>) {
    if hits.len() < 2 {
        return;
    }
    let (at, weight) = hits.remove(0);
    if let Some(next) = hits.first_mut() {
        *next = (at, next.1.saturating_add(weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn net(n: u8) -> IpNet {
        format!("203.0.113.{n}/32").parse().unwrap()
    }

    #[test]
    fn a_window_is_open_at_its_old_end() {
        // arrivals in seconds, findtime 10 s, what counts after the last
        for (arrivals, sum, span) in [
            (vec![0, 9], 2, 9),
            (vec![0, 10], 1, 0),
            (vec![0, 1, 10, 10], 3, 9),
            (vec![5, 3, 4], 3, 2),
            (vec![20, 3], 1, 0),
            (vec![-5, 4], 2, 9),
        ] {
            let mut counters = Counters::new(10);
            let mut last = (0, Duration::ZERO);
            for arrival in &arrivals {
                last = counters.count((0, net(1)), (at(*arrival), 1), Duration::from_secs(10));
            }
            assert_eq!(last, (sum, Duration::from_secs(span)), "{arrivals:?}");
        }
    }

    #[test]
    fn those_go_first_who_have_not_hit_for_longest() {
        let mut counters = Counters::new(4);
        let hit = |counters: &mut Counters, n| {
            counters.count((0, net(n)), (at(0), 1), Duration::from_secs(10))
        };
        for n in 1..=4 {
            hit(&mut counters, n);
        }
        assert_eq!(hit(&mut counters, 1).0, 2);
        hit(&mut counters, 5);
        assert_eq!(counters.hits(&(0, net(2))), &[]);
        assert_eq!(counters.hits(&(0, net(1))).len(), 2);
        assert!(counters.evicted() > 0);
    }

    proptest! {
        #[test]
        fn never_more_clients_or_hits_than_the_bound(
            hits in prop::collection::vec((0u8..40, 0i64..100, 1u32..4), 0..300),
        ) {
            let mut counters = Counters::new(8);
            let mut seen = std::collections::BTreeSet::new();
            for (n, second, weight) in hits {
                counters.count((0, net(n)), (at(second), weight), Duration::from_secs(50));
                seen.insert(n);
                prop_assert!(counters.keys().count() <= 8);
                prop_assert_eq!(counters.keys().count(), counters.keys().collect::<std::collections::BTreeSet<_>>().len());
            }
        }

        #[test]
        fn one_client_equals_the_naive_window(
            hits in prop::collection::vec((0i64..100, 1u32..4), 1..60),
        ) {
            let mut counters = Counters::new(8);
            let findtime = Duration::from_secs(20);
            let mut naive: Vec<(i64, u32)> = Vec::new();
            for (second, weight) in hits {
                naive.push((second, weight));
                let newest = naive.iter().map(|h| h.0).max().unwrap();
                naive.retain(|h| h.0 > newest - 20);
                let expected: u32 = naive.iter().map(|h| h.1).sum();
                let (sum, span) = counters.count((0, net(1)), (at(second), weight), findtime);
                prop_assert_eq!(sum, expected);
                prop_assert!(span < findtime);
            }
        }

        #[test]
        fn hits_of_one_client_are_bounded(extra in 0usize..50) {
            let mut counters = Counters::new(8);
            for n in 0..(MAX_HITS + extra) {
                let (sum, _) = counters.count((0, net(1)), (at(n as i64), 1), Duration::from_secs(1 << 30));
                prop_assert_eq!(sum as usize, n + 1);
            }
            prop_assert!(counters.hits(&(0, net(1))).len() <= MAX_HITS);
        }
    }
}
