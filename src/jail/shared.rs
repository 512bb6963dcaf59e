//! Which addresses many people share: a NAT, a carrier, a proxy that is not configured.
//!
//! Time is an argument. A worker counts good requests here and reports to the engine.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

/// How long a ban of a shared address makes the next one longer.
pub const SHARED_MEMORY: Duration = Duration::from_secs(86_400);

/// Good requests that make an address shared.
const GOOD_REQUESTS: u32 = 30;
/// Different user agents among them.
const AGENTS: usize = 5;
/// Requests older than this never count.
const WINDOW: Duration = Duration::from_secs(3600);
/// A shared address is reported again after this time at the earliest.
const REPORT_AGAIN: Duration = Duration::from_secs(600);
/// Most addresses in one generation; two generations are kept.
const MAX_ADDRESSES: usize = 65_536;

/// Counts good requests by address in two generations of half a [`WINDOW`] each: what is counted
/// is at most a window and at least half a window old. A generation that is full ends early.
#[derive(Debug, Default)]
pub struct Shared {
    young: HashMap<IpAddr, Seen>,
    old: HashMap<IpAddr, Seen>,
    began: Duration,
    max: usize,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    good: u32,
    agents: Vec<u64>,
    reported: Option<Duration>,
    /// The last request.
    at: Duration,
}

impl Shared {
    /// Nothing seen yet; bounded by [`MAX_ADDRESSES`].
    pub fn new() -> Shared {
        Shared::bounded(MAX_ADDRESSES)
    }

    fn bounded(max: usize) -> Shared {
        Shared {
            max,
            ..Shared::default()
        }
    }

    /// Counts a good request (2xx, 3xx) at `now`, which never goes back. True: report the address to
    /// the engine as shared.
    pub fn observe(&mut self, addr: IpAddr, agent: u64, now: Duration) -> bool {
        self.turn(now, addr);
        let old = self.old.get(&addr);
        let seen = self.young.entry(addr).or_insert_with(|| Seen {
            reported: old.and_then(|old| old.reported),
            ..Seen::default()
        });
        seen.at = now;
        seen.good = seen.good.saturating_add(1);
        if seen.agents.len() < AGENTS && !seen.agents.contains(&agent) {
            seen.agents.push(agent);
        }
        // Most are reported already or far from shared: skip the sum.
        let due = seen.reported.is_none_or(|at| now >= at + REPORT_AGAIN);
        let old_good = old.map_or(0, |old| old.good);
        if !due || seen.good.saturating_add(old_good) < GOOD_REQUESTS || !self.is_shared(&addr) {
            return false;
        }
        if let Some(seen) = self.young.get_mut(&addr) {
            seen.reported = Some(now);
        }
        true
    }

    /// For a new engine: the shared addresses at `now`, the `most` that were last seen; the others
    /// are reported at their next good request.
    pub fn report_again(&mut self, now: Duration, most: usize) -> Vec<IpAddr> {
        for seen in self.young.values_mut().chain(self.old.values_mut()) {
            seen.reported = None;
        }
        if now.saturating_sub(self.began) >= WINDOW {
            return Vec::new();
        }
        let only_old = self
            .old
            .iter()
            .filter(|(addr, _)| !self.young.contains_key(addr));
        let all = self.young.iter().chain(only_old);
        let mut shared: Vec<(Duration, IpAddr)> = all
            .filter(|(addr, _)| self.is_shared(addr))
            .map(|(addr, seen)| (seen.at, *addr))
            .collect();
        shared.sort_unstable_by(|a, b| b.cmp(a));
        shared.truncate(most);
        let shared: Vec<IpAddr> = shared.into_iter().map(|(_, addr)| addr).collect();
        for addr in &shared {
            let seen = match self.young.get_mut(addr) {
                Some(seen) => Some(seen),
                None => self.old.get_mut(addr),
            };
            if let Some(seen) = seen {
                seen.reported = Some(now);
            }
        }
        shared
    }

    /// Whether both generations together make the address shared.
    fn is_shared(&self, addr: &IpAddr) -> bool {
        let seen = [self.young.get(addr), self.old.get(addr)];
        let seen = || seen.into_iter().flatten();
        let good = seen().fold(0u32, |sum, seen| sum.saturating_add(seen.good));
        let agents: BTreeSet<u64> = seen()
            .flat_map(|seen| seen.agents.iter().copied())
            .collect();
        good >= GOOD_REQUESTS && agents.len() >= AGENTS
    }

    fn turn(&mut self, now: Duration, addr: IpAddr) {
        let age = now.saturating_sub(self.began);
        let full = self.young.len() >= self.max && !self.young.contains_key(&addr);
        if age >= WINDOW {
            self.young.clear();
            self.old.clear();
            self.began = now;
        } else if age >= WINDOW / 2 || full {
            self.old = std::mem::take(&mut self.young);
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn at(minutes: u64) -> Duration {
        Duration::from_secs(100_000 + minutes * 60)
    }

    /// Sends `n` requests by `agents` agents; how often it was reported.
    fn feed(shared: &mut Shared, n: u64, agents: u64, now: Duration) -> usize {
        (0..n)
            .filter(|i| shared.observe(A, i % agents, now))
            .count()
    }

    #[test]
    fn thirty_requests_by_five_agents_make_an_address_shared() {
        for (n, agents, reports) in [(29, 5, 0), (30, 5, 1), (1000, 4, 0), (1000, 50, 1)] {
            assert_eq!(
                feed(&mut Shared::new(), n, agents, at(0)),
                reports,
                "{n} {agents}"
            );
        }
    }

    #[test]
    fn an_address_is_reported_again_after_ten_minutes() {
        let mut shared = Shared::new();
        assert_eq!(feed(&mut shared, 60, 5, at(0)), 1);
        assert_eq!(feed(&mut shared, 60, 5, at(9)), 0);
        assert_eq!(feed(&mut shared, 60, 5, at(10)), 1);
        // Across a turn of the generations too.
        assert_eq!(feed(&mut shared, 60, 5, at(31)), 1);
        assert_eq!(feed(&mut shared, 60, 5, at(32)), 0);
        // A new engine gets it at once, but never one that is not shared.
        shared.observe(IpAddr::V4(7.into()), 0, at(32));
        assert_eq!(shared.report_again(at(32), 10), [A]);
        assert_eq!(feed(&mut shared, 60, 5, at(32)), 0);
        // Beyond the bound at the next good request.
        assert!(shared.report_again(at(32), 0).is_empty());
        assert_eq!(feed(&mut shared, 1, 1, at(32)), 1);
        // Also where both generations together make it shared, or the old one alone.
        shared.observe(IpAddr::V4(7.into()), 0, at(62));
        assert_eq!(shared.report_again(at(62), 10), [A]);
        assert!(shared.report_again(at(200), 10).is_empty());
    }

    #[test]
    fn both_generations_count_and_nothing_older_than_a_window() {
        let mut shared = Shared::new();
        assert_eq!(feed(&mut shared, 20, 3, at(0)), 0);
        // 31 minutes later: 20 old, 10 young, agents 0-2 old and 3-4 young.
        let mut reports = 0;
        for i in 0..10 {
            reports += usize::from(shared.observe(A, 3 + i % 2, at(31)));
        }
        assert_eq!(reports, 1);
        let mut shared = Shared::new();
        assert_eq!(feed(&mut shared, 29, 5, at(0)), 0);
        assert_eq!(feed(&mut shared, 1, 1, at(61)), 0);
    }

    #[test]
    fn the_last_seen_are_reported_again_first() {
        let mut shared = Shared::new();
        let addrs = [3u32, 1, 2].map(|n| IpAddr::V4(n.into()));
        for (minutes, addr) in (0..).zip(addrs) {
            for agent in 0..30 {
                shared.observe(addr, agent, at(minutes));
            }
        }
        assert_eq!(shared.report_again(at(3), 2), [addrs[2], addrs[1]]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut shared = Shared::bounded(10);
        for i in 0..1000u32 {
            shared.observe(IpAddr::V4(i.into()), 0, at(0));
            assert!(shared.young.len() <= 10 && shared.old.len() <= 10);
        }
    }
}
