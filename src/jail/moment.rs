//! A point on CLOCK_BOOTTIME, as a value.

use std::time::Duration;

/// Nanoseconds since boot, time asleep included. Negative: before this boot (what an earlier boot
/// left behind, moved here by the wall clock).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(i64);

impl Moment {
    /// From nanoseconds since boot.
    pub fn from_nanos(nanos: i64) -> Moment {
        Moment(nanos)
    }

    /// From what CLOCK_BOOTTIME says; the clock overflows this after 292 years.
    pub fn from_boottime(since_boot: Duration) -> Moment {
        Moment(nanos(since_boot))
    }

    /// Nanoseconds since boot.
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// Later by `time`.
    #[must_use]
    pub fn plus(self, time: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(time)))
    }

    /// Earlier by `time`.
    #[must_use]
    pub fn minus(self, time: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(time)))
    }

    /// Time from `earlier` to here; zero where `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}
