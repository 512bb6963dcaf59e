//! Lines that come once a hit are rate-limited; what is left out is counted and told.

use std::time::Duration;

/// Such lines a second, and in a burst.
const RATE: u32 = 100;

/// After a flood of this length the count is told although it goes on.
const TELL_AT_LEAST: Duration = Duration::from_secs(60);

/// A token bucket with a memory for what it refused. Time is an argument.
#[derive(Debug)]
pub(super) struct Flood {
    tokens: f64,
    filled: Duration,
    left_out: u64,
    since: Duration,
    last: Duration,
}

impl Flood {
    pub(super) fn new(now: Duration) -> Flood {
        Flood {
            tokens: f64::from(RATE),
            filled: now,
            left_out: 0,
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
        if self.left_out == 0 {
            self.since = now;
        }
        self.left_out += 1;
        self.last = now;
        false
    }

    /// The line that counts the rest, when a second has been quiet or the flood lasts.
    pub(super) fn over(&mut self, now: Duration) -> Option<String> {
        let quiet = now.saturating_sub(self.last) >= Duration::from_secs(1);
        let long = now.saturating_sub(self.since) >= TELL_AT_LEAST;
        if self.left_out == 0 || !(quiet || long) {
            return None;
        }
        let seconds = self.last.saturating_sub(self.since).as_secs() + 1;
        let left_out = std::mem::take(&mut self.left_out);
        Some(format!(
            "{left_out} lines of single hits (Found, Ignore, already banned) left out in {seconds}s; all were counted"
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
        let told = flood.over(at(3_100)).unwrap();
        assert!(
            told.starts_with(&format!("{} lines", 2_000 - out)),
            "{told}"
        );
        assert_eq!(flood.over(at(9_000)), None);
        assert!(flood.permits(at(9_001)));
    }

    #[test]
    fn a_flood_without_end_is_told_every_minute() {
        let mut flood = Flood::new(Duration::ZERO);
        let mut told = 0;
        for ms in 0..130_000 {
            let now = Duration::from_millis(ms);
            flood.permits(now);
            told += usize::from(flood.over(now).is_some());
        }
        assert_eq!(told, 2);
    }
}
