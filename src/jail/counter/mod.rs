//! Hits per client in a time window, in bounded memory.

mod recent;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::moment::Moment;
use super::network::canonical;
use recent::Recent;

/// Clients tracked at most, over all jails.
pub const MAX_CLIENTS: usize = 1_000_000;

/// Hits kept at most of all clients together, beyond one for each.
const MAX_ALL_HITS: usize = 3_000_000;

/// Hits kept of one client at most; beyond it the oldest two become one, at the older's time: a
/// client is never counted too high.
const MAX_HITS: usize = 1_000;

/// One hit that still counts: when its line arrived, and its weight.
pub type Counted = (Moment, u32);

/// Number of a jail, stable while the engine runs.
pub(super) type JailIndex = u16;

/// Counters of every client of every jail. When full, the client that hit longest ago goes first.
#[derive(Debug)]
pub(super) struct Counters {
    clients: Recent<Key, Hits>,
    max_clients: usize,
    max_hits: usize,
    /// Hits of clients that have more than one.
    listed: usize,
    evicted: u64,
}

impl Counters {
    /// Tracks at most `clients`, one or more, and [`MAX_ALL_HITS`].
    pub(super) fn new(clients: usize) -> Counters {
        Counters::bounded(clients, MAX_ALL_HITS)
    }

    fn bounded(clients: usize, hits: usize) -> Counters {
        Counters {
            clients: Recent::new(),
            max_clients: clients.max(1),
            max_hits: hits,
            listed: 0,
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
        let key = Key::of(key);
        let mut hits = self.take(&key);
        let place = hits.partition_point(|(at, _)| *at <= hit.0);
        hits.insert(place, hit);
        let newest = hits.last().map_or(hit.0, |(at, _)| *at);
        let oldest = newest.minus(findtime);
        hits.retain(|(at, _)| *at > oldest);
        merge_oldest(&mut hits);
        self.put(key, &hits);
        total(&hits)
    }

    /// What [`Counters::count`] returned last for a client, if it hit since the last sweep.
    pub(super) fn counted(&self, key: &(JailIndex, IpNet)) -> (u32, Duration) {
        total(&self.hits(key))
    }

    /// The hits of a client.
    pub(super) fn hits(&self, key: &(JailIndex, IpNet)) -> Vec<Counted> {
        let hits = self.clients.get(&Key::of(*key));
        hits.map_or_else(Vec::new, Hits::list)
    }

    /// Sets a client's hits.
    pub(super) fn restore(&mut self, key: (JailIndex, IpNet), mut hits: Vec<Counted>) {
        hits.sort_unstable_by_key(|(at, _)| *at);
        merge_oldest(&mut hits);
        let key = Key::of(key);
        self.take(&key);
        self.put(key, &hits);
    }

    /// Forgets a client's hits.
    pub(super) fn reset(&mut self, key: &(JailIndex, IpNet)) {
        self.take(&Key::of(*key));
    }

    /// Drops clients with no hit in the window at `now`. `findtime` gives the window of a jail;
    /// `None`: drop its clients.
    pub(super) fn sweep(&mut self, now: Moment, findtime: impl Fn(JailIndex) -> Option<Duration>) {
        let mut listed = 0;
        self.clients.retain(|key, hits| {
            let keep = match (findtime(key.jail), hits.newest()) {
                (Some(findtime), Some(newest)) => now.since(newest) < findtime,
                _ => false,
            };
            listed += if keep { hits.listed() } else { 0 };
            keep
        });
        self.listed = listed;
    }

    /// Every tracked client, the one that hit last first.
    pub(super) fn keys(&self) -> impl Iterator<Item = (JailIndex, IpNet)> {
        self.clients.iter().map(|(key, _)| (key.jail, key.net()))
    }

    /// Clients tracked.
    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Clients dropped because there were too many, since the start.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn take(&mut self, key: &Key) -> Vec<Counted> {
        let Some(hits) = self.clients.remove(key) else {
            return Vec::new();
        };
        self.listed -= hits.listed();
        hits.list()
    }

    fn put(&mut self, key: Key, hits: &[Counted]) {
        let Some(hits) = Hits::of(hits) else { return };
        self.listed += hits.listed();
        self.clients.insert(key, hits);
        while self.clients.len() > self.max_clients
            || (self.listed > self.max_hits && self.clients.len() > 1)
        {
            let Some((_, gone)) = self.clients.remove_oldest() else {
                return;
            };
            self.listed -= gone.listed();
            self.evicted = self.evicted.saturating_add(1);
        }
    }
}

/// The weight of hits, and the time from the oldest to the newest.
fn total(hits: &[Counted]) -> (u32, Duration) {
    let sum = hits.iter().fold(0u32, |sum, (_, w)| sum.saturating_add(*w));
    let within = (hits.first().zip(hits.last())).map(|(first, last)| last.0.since(first.0));
    (sum, within.unwrap_or_default())
}

/// (jail, network) in twenty bytes; IPv4 as mapped into IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    addr: [u8; 16],
    jail: JailIndex,
    prefix: u8,
}

impl Key {
    fn of((jail, net): (JailIndex, IpNet)) -> Key {
        let (addr, prefix) = match net {
            IpNet::V4(v4) => (v4.addr().to_ipv6_mapped(), v4.prefix_len() + 96),
            IpNet::V6(v6) => (v6.addr(), v6.prefix_len()),
        };
        Key {
            addr: addr.octets(),
            jail,
            prefix,
        }
    }

    fn net(&self) -> IpNet {
        let addr = IpAddr::from(Ipv6Addr::from(self.addr));
        canonical(IpNet::new(addr, self.prefix).unwrap_or(addr.into()))
    }
}

/// Most clients have hit once.
#[derive(Debug)]
enum Hits {
    One(Packed),
    More(Box<[Packed]>),
}

impl Hits {
    /// `None`: there are none.
    fn of(hits: &[Counted]) -> Option<Hits> {
        match hits {
            [] => None,
            [one] => Some(Hits::One(Packed::of(one))),
            more => Some(Hits::More(more.iter().map(Packed::of).collect())),
        }
    }

    fn list(&self) -> Vec<Counted> {
        match self {
            Hits::One(one) => vec![one.counted()],
            Hits::More(more) => more.iter().map(Packed::counted).collect(),
        }
    }

    fn newest(&self) -> Option<Moment> {
        match self {
            Hits::One(one) => Some(one.counted().0),
            Hits::More(more) => more.last().map(|newest| newest.counted().0),
        }
    }

    fn listed(&self) -> usize {
        match self {
            Hits::One(_) => 0,
            Hits::More(more) => more.len(),
        }
    }
}

/// A hit in twelve bytes instead of sixteen.
#[derive(Debug, Clone, Copy)]
struct Packed {
    time: [u8; 8],
    weight: u32,
}

impl Packed {
    fn of((at, weight): &Counted) -> Packed {
        Packed {
            time: at.nanos().to_ne_bytes(),
            weight: *weight,
        }
    }

    fn counted(&self) -> Counted {
        let at = Moment::from_nanos(i64::from_ne_bytes(self.time));
        (at, self.weight)
    }
}

/// Merges the oldest hits into one where there are too many.
fn merge_oldest(hits: &mut Vec<Counted>) {
    let excess = hits.len().saturating_sub(MAX_HITS);
    if excess == 0 {
        return;
    }
    let merged = hits.drain(..excess).collect::<Vec<_>>();
    let weight = merged
        .iter()
        .fold(0u32, |sum, (_, w)| sum.saturating_add(*w));
    if let (Some((at, _)), Some(next)) = (merged.first(), hits.first_mut()) {
        *next = (*at, next.1.saturating_add(weight));
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
    fn the_client_that_hit_longest_ago_goes_first() {
        let mut counters = Counters::new(4);
        let hit = |counters: &mut Counters, n| {
            counters.count((0, net(n)), (at(0), 1), Duration::from_secs(10))
        };
        for n in 1..=4 {
            hit(&mut counters, n);
        }
        assert_eq!(hit(&mut counters, 1).0, 2);
        hit(&mut counters, 5);
        assert_eq!(counters.hits(&(0, net(2))), []);
        assert_eq!(counters.hits(&(0, net(1))).len(), 2);
        assert_eq!(counters.evicted(), 1);
        assert_eq!(counters.hits(&(0, net(3))).len(), 1);
    }

    proptest! {
        #[test]
        fn never_more_clients_or_hits_than_the_bound(
            hits in prop::collection::vec((0u8..40, 0i64..100, 1u32..4), 0..300),
            sweep in 0i64..200,
        ) {
            let mut counters = Counters::bounded(8, 20);
            let mut newest = None;
            for (n, second, weight) in hits {
                counters.count((0, net(n)), (at(second), weight), Duration::from_secs(50));
                newest = Some((0, net(n)));
                let keys: Vec<_> = counters.keys().collect();
                prop_assert_eq!(keys.first(), newest.as_ref());
                prop_assert!(keys.len() <= 8 && keys.len() == counters.len());
                let lists = keys.iter().map(|key| counters.hits(key).len()).filter(|len| *len > 1);
                let listed: usize = lists.sum();
                prop_assert_eq!(listed, counters.listed);
                prop_assert!(listed <= 20 || keys.len() == 1);
            }
            counters.sweep(at(sweep), |_| Some(Duration::from_secs(50)));
            let lists = counters.keys().map(|key| counters.hits(&key).len()).filter(|len| *len > 1);
            prop_assert_eq!(lists.sum::<usize>(), counters.listed);
            if let Some(newest) = newest {
                counters.reset(&newest);
                prop_assert_eq!(counters.hits(&newest), vec![]);
            }
        }

        #[test]
        fn a_key_is_its_jail_and_network(jail: u16, v4: u32, v6: u128, prefix in 0u8..=128) {
            let v4 = IpNet::new(std::net::Ipv4Addr::from(v4).into(), prefix.min(32)).unwrap();
            let v6 = IpNet::new(Ipv6Addr::from(v6).into(), prefix).unwrap();
            for net in [v4, v6].map(canonical) {
                let key = Key::of((jail, net));
                prop_assert_eq!((key.jail, key.net()), (jail, net));
            }
        }

    }

    #[test]
    fn hits_of_one_client_are_bounded_and_none_is_forgotten() {
        let mut counters = Counters::new(8);
        for n in 1..=(MAX_HITS as u32 + 50) {
            let hit = (at(i64::from(n)), 1);
            let (sum, _) = counters.count((0, net(1)), hit, Duration::from_secs(1 << 30));
            assert_eq!(sum, n);
            assert!(counters.hits(&(0, net(1))).len() <= MAX_HITS);
        }
    }
}
