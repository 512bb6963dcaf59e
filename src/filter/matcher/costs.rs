//! The cost of each filter, from a sample of the lines.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

/// One line of this many is timed.
const SAMPLE: u64 = 8;
/// Timed lines before a filter is named.
const ENOUGH: u64 = 20;

/// A clock, in nanoseconds from any moment: `filter` reads no clock.
pub type Nanos = fn() -> u64;

/// The filter that takes most of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slowest {
    /// Its name.
    pub filter: String,
    /// Percent of the time of all filters.
    pub share: u64,
    /// Nanoseconds for one line that it was tried on.
    pub nanos: u64,
}

/// Shared by all match threads. Without a clock nothing is timed.
#[derive(Debug, Default)]
pub(super) struct Costs {
    nanos: Option<Nanos>,
    filters: Vec<Cost>,
}

#[derive(Debug, Default)]
struct Cost {
    nanos: AtomicU64,
    lines: AtomicU64,
}

impl Costs {
    pub(super) fn new(nanos: Nanos, filters: usize) -> Costs {
        Costs {
            nanos: Some(nanos),
            filters: (0..filters).map(|_| Cost::default()).collect(),
        }
    }

    /// Runs `work`, one filter on one line of a block; times it if the line is in the sample.
    pub(super) fn of<T>(&self, filter: usize, line: u64, work: impl FnOnce() -> T) -> T {
        let cost = self.filters.get(filter).filter(|_| line % SAMPLE == 1);
        let (Some(cost), Some(nanos)) = (cost, self.nanos) else {
            return work();
        };
        let begun = nanos();
        let done = work();
        let took = nanos().saturating_sub(begun);
        cost.nanos.fetch_add(took, Ordering::Relaxed);
        cost.lines.fetch_add(1, Ordering::Relaxed);
        done
    }

    /// The index of the slowest filter, its name left empty; `None` while too few lines are timed.
    pub(super) fn slowest(&self) -> Option<(usize, Slowest)> {
        let load = |at: &AtomicU64| at.load(Ordering::Relaxed);
        let all: u64 = self.filters.iter().map(|cost| load(&cost.nanos)).sum();
        let costs = self.filters.iter().enumerate();
        let (index, cost) = costs.max_by_key(|(_, cost)| load(&cost.nanos))?;
        let (nanos, lines) = (load(&cost.nanos), load(&cost.lines));
        (lines >= ENOUGH && all > 0).then(|| {
            let slowest = Slowest {
                filter: String::new(),
                share: nanos.saturating_mul(100) / all,
                nanos: nanos / lines,
            };
            (index, slowest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_filter_is_named_once_enough_lines_are_timed() {
        static NOW: AtomicU64 = AtomicU64::new(0);
        let costs = Costs::new(|| NOW.load(Ordering::Relaxed), 2);
        let mut line = 0;
        let mut run = |times: u64, costs: &Costs| {
            for _ in 0..times {
                for (filter, cost) in [(0, 100), (1, 300)] {
                    costs.of(filter, line, || NOW.fetch_add(cost, Ordering::Relaxed));
                }
                line += 1;
            }
        };
        run(ENOUGH, &costs);
        assert_eq!(costs.slowest(), None);
        run(SAMPLE * ENOUGH, &costs);
        let (index, slowest) = costs.slowest().unwrap();
        assert_eq!((index, slowest.share, slowest.nanos), (1, 75, 300));
        let none = Costs::default();
        run(SAMPLE * ENOUGH, &none);
        assert_eq!(none.slowest(), None);
    }
}
