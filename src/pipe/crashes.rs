//! How often workers end before their time, and what follows from it. Time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// In this time ends are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// So many crashes in a window: lines are only passed from then on.
const MAX_CRASHES: usize = 5;
/// The same for kills by another process (SIGKILL).
const MAX_KILLS: usize = 30;
/// A worker is started again at once; when ends come thick, after a growing pause.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By a fault: a signal such as SIGSEGV or SIGABRT, or a status that is not 0.
    Crashed,
    /// By a signal of another process.
    Killed,
}

/// The ends of the last minute.
#[derive(Debug, Default)]
pub(super) struct Crashes {
    ends: VecDeque<(Instant, Ended)>,
    pass_only: bool,
}

impl Crashes {
    /// Notes an end; how long to wait before the next start.
    pub(super) fn note(&mut self, how: Ended, now: Instant) -> Duration {
        self.ends.push_back((now, how));
        while self.ends.len() > 2 * MAX_KILLS
            || self.ends.front().is_some_and(|(at, _)| now - *at >= WINDOW)
        {
            self.ends.pop_front();
        }
        let crashed = |(_, how): &&(Instant, Ended)| *how == Ended::Crashed;
        if self.ends.iter().filter(crashed).count() >= MAX_CRASHES || self.ends.len() >= MAX_KILLS {
            self.pass_only = true;
        }
        let second = Duration::from_secs(1);
        let lately = self
            .ends
            .iter()
            .filter(|(at, _)| now - *at < second)
            .count();
        match u32::try_from(lately).unwrap_or(u32::MAX).saturating_sub(2) {
            0 => Duration::ZERO,
            n => (PAUSE.0 * 2u32.saturating_pow(n.min(10) - 1)).min(PAUSE.1),
        }
    }

    /// Whether lines are only passed.
    pub(super) fn pass_only(&self) -> bool {
        self.pass_only
    }

    /// Another configuration: another chance.
    pub(super) fn forgive(&mut self) {
        *self = Crashes::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_crashes_or_thirty_kills_in_a_minute_end_matching() {
        for (how, enough) in [(Ended::Crashed, MAX_CRASHES), (Ended::Killed, MAX_KILLS)] {
            let start = Instant::now();
            let mut crashes = Crashes::default();
            for i in 1..=enough {
                assert!(!crashes.pass_only(), "{how:?} {i}");
                crashes.note(how, start + Duration::from_secs(i as u64));
            }
            assert!(crashes.pass_only());
            crashes.forgive();
            assert!(!crashes.pass_only());
        }
    }

    #[test]
    fn rare_crashes_never_end_matching_nor_wait() {
        let start = Instant::now();
        let mut crashes = Crashes::default();
        for i in 0..100 {
            let pause = crashes.note(Ended::Crashed, start + Duration::from_secs(i * 16));
            assert_eq!(pause, Duration::ZERO);
        }
        assert!(!crashes.pass_only());
    }

    #[test]
    fn ends_that_come_thick_are_answered_with_a_bounded_pause() {
        let now = Instant::now();
        let mut crashes = Crashes::default();
        let pauses: Vec<_> = (0..100).map(|_| crashes.note(Ended::Killed, now)).collect();
        assert_eq!(pauses[..2], [Duration::ZERO; 2]);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses.last(), Some(&PAUSE.1));
    }
}
