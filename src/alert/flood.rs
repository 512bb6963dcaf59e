//! A rate limit for lines that appear once per hit; one line counts those that were dropped.

use std::time::Duration;

/// Lines per second, and in a burst.
const RATE: u32 = 100;

/// How often the count is logged while a flood lasts.
const COUNT_AT_LEAST: Duration = Duration::from_secs(60);

/// A token bucket that counts what it refuses. Time is an argument.
#[derive(Debug)]
pub(super) struct Flood {
    tokens: f64,
    filled: Duration,
    dropped: u64,
    since: Duration,
    last: Duration,
}

impl Flood {
    pub(super) fn new(now: Duration) -> Flood {
        Flood {
            tokens: f64::from(RATE),
            filled: now,
            dropped: 0,
            since: now,
            last: now,
        }
    }

    /// Whether a line may go out now; counted when not.
    pub(super) fn permits(&mut self, now: Duration) -> bool {
        let gained = now.saturating_sub(self.filled).as_secs_f64() * f64::from(RATE);
        self.tokens = (self.tokens + gained).min(f64::from(RATE));
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return true;
        }
        if self.dropped == 0 {
            self.since = now;
        }
        self.dropped += 1;
        self.last = now;
        false
    }

    /// The line that counts the dropped ones, once a second was quiet or the flood lasts long.
    pub(super) fn over(&mut self, now: Duration) -> Option<String> {
        let quiet = now.saturating_sub(self.last) >= Duration::from_secs(1);
        let long = now.saturating_sub(self.since) >= COUNT_AT_LEAST;
        if self.dropped == 0 || !(quiet || long) {
            return None;
        }
        let seconds = self.last.saturating_sub(self.since).as_secs() + 1;
        let dropped = std::mem::take(&mut self.dropped);
        Some(format!(
            "dropped {dropped} log lines of single hits (Found, Ignore, already banned) in {seconds}s; every hit was counted"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_rate_and_one_line_counts_the_rest() {
        let at = |ms| Duration::from_millis(ms);
        let mut flood = Flood::new(at(0));
        let out = (0..2_000).filter(|ms| flood.permits(at(*ms))).count();
        assert!((290..=310).contains(&out), "{out}");
        assert_eq!(flood.over(at(2_100)), None);
        let line = flood.over(at(3_100)).unwrap();
        assert!(
            line.starts_with(&format!("dropped {} log lines", 2_000 - out)),
            "{line}"
        );
        assert_eq!(flood.over(at(9_000)), None);
        assert!(flood.permits(at(9_001)));
    }

    #[test]
    fn a_long_flood_is_counted_every_minute() {
        let mut flood = Flood::new(Duration::ZERO);
        let mut lines = 0;
        for ms in 0..130_000 {
            let now = Duration::from_millis(ms);
            flood.permits(now);
            lines += usize::from(flood.over(now).is_some());
        }
        assert_eq!(lines, 2);
    }
}
