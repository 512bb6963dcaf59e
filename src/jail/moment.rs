//! A point on CLOCK_BOOTTIME, as a value.

use std::time::Duration;

use jiff::Timestamp;

/// Nanoseconds since boot, suspended time included. Negative: before this boot, converted by the
/// wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(i64);

impl Moment {
    /// Later than any other.
    pub const MAX: Moment = Moment(i64::MAX);

    /// From nanoseconds since boot.
    pub fn from_nanos(nanos: i64) -> Moment {
        Moment(nanos)
    }

    /// From a reading of CLOCK_BOOTTIME, up to 292 years.
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

/// One reading of both clocks; the engine takes one per turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For windows and ends.
    pub boot: Moment,
    /// For display and storage.
    pub wall: Timestamp,
}

impl Now {
    /// A moment on the wall clock as it is set now.
    pub fn wall_of(&self, moment: Moment) -> Timestamp {
        let shown = if moment >= self.boot {
            self.wall.checked_add(moment.since(self.boot))
        } else {
            self.wall.checked_sub(self.boot.since(moment))
        };
        shown.unwrap_or(Timestamp::MAX)
    }

    /// A wall-clock time of this or an earlier boot on the boot clock.
    pub fn moment_of(&self, wall: Timestamp) -> Moment {
        let nanos = |t: Timestamp| i64::try_from(t.as_nanosecond()).unwrap_or(i64::MAX);
        let ahead = nanos(wall).saturating_sub(nanos(self.wall));
        Moment::from_nanos(self.boot.nanos().saturating_add(ahead))
    }
}
