//! `--since` and `--until`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::config::duration;

/// A time as a person writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    /// Before now.
    Before(Duration),
    /// In the zone of this host.
    Local(DateTime),
    Exact(Timestamp),
    /// Before everything.
    Beginning,
}

impl Time {
    pub(super) fn before(seconds: u64) -> Time {
        Time::Before(Duration::from_secs(seconds))
    }

    /// # Errors
    /// No clock shows this time.
    pub(super) fn at(self, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
        match self {
            Time::Beginning => Ok(Timestamp::MIN),
            Time::Before(length) => Ok(now.saturating_sub(length).unwrap_or(Timestamp::MIN)),
            Time::Exact(time) => Ok(time),
            Time::Local(time) => {
                let time = zone.to_ambiguous_timestamp(time).compatible();
                time.map_err(|error| error.to_string())
            }
        }
    }
}

/// `7d`, `2026-11-22`, `2026-11-22 11:00`, RFC 3339, `all`.
pub(super) fn parse(text: &str) -> Result<Time, String> {
    if text == "all" {
        return Ok(Time::Beginning);
    }
    if let Ok(length) = duration::parse(text) {
        return Ok(length.map_or(Time::Beginning, Time::Before));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Time::Exact(time));
    }
    if let Ok(date) = text.parse::<Date>()
        && !text.contains(':')
    {
        return Ok(Time::Local(date.at(0, 0, 0, 0)));
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return Ok(Time::Local(time));
    }
    Err(
        "write a duration before now (7d, 12h), a date (2026-11-22), a date and a time \
         ('2026-11-22 11:00'), or all"
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_durations_dates_or_exact() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now: Timestamp = "2026-11-22T11:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("7d", "2026-11-15T11:00:00Z"),
            ("1h 30m", "2026-11-22T09:30:00Z"),
            ("2026-11-20", "2026-11-19T22:00:00Z"),
            ("2026-11-20 12:00", "2026-11-20T10:00:00Z"),
            ("2026-11-20T12:00:30", "2026-11-20T10:00:30Z"),
            ("2026-11-20T12:00:00Z", "2026-11-20T12:00:00Z"),
            ("2026-11-20T12:00:00+01:00", "2026-11-20T11:00:00Z"),
        ] {
            let time = parse(text).unwrap().at(now, &zone).unwrap();
            assert_eq!(time, expected.parse().unwrap(), "{text}");
        }
        for text in ["all", "-1", "permanent"] {
            assert_eq!(parse(text), Ok(Time::Beginning));
        }
        for text in ["", "yesterday", "2026-13-01", "12:00"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
