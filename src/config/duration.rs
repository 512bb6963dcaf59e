//! Durations as fail2ban's users write them: `10m`, `1h 30m`, `1w`.

use std::time::Duration;

/// The longest finite duration; longer ones overflow calendars.
const LONGEST: u64 = 100 * 365 * DAY;
const DAY: u64 = 86_400;

/// Units, longest first. A month and a year have a fixed length, as in fail2ban.
const UNITS: &[(&str, u64)] = &[
    ("y", 365 * DAY),
    ("mo", 30 * DAY),
    ("w", 7 * DAY),
    ("d", DAY),
    ("h", 3_600),
    ("m", 60),
    ("s", 1),
];

/// `10m`, `1h 30m`, `1d12h`, `1w`, `1mo`, bare seconds; `-1` and `permanent` are `None`.
///
/// `m` is minutes, `mo` months of 30 days. At most 100 years.
///
/// # Errors
/// What is wrong, and what to write.
pub fn parse(text: &str) -> Result<Option<Duration>, String> {
    let text = text.trim();
    if matches!(text, "-1" | "permanent") {
        return Ok(None);
    }
    let wrong = || {
        format!(
            "`{}` is not a duration: write `10m`, `1h 30m`, `1w`, seconds, or `permanent`",
            text.escape_debug()
        )
    };
    let mut rest = text;
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.len()
            - after
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let (unit, next) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let next = next.trim_start();
        // A number without a unit is seconds, but only alone or at the end.
        let factor = if unit.is_empty() && next.is_empty() {
            1
        } else {
            unit_seconds(unit).ok_or_else(wrong)?
        };
        seconds = number
            .checked_mul(factor)
            .and_then(|more| seconds.checked_add(more))
            .filter(|&sum| sum <= LONGEST)
            .ok_or_else(|| format!("`{text}` is more than 100 years: write `permanent`"))?;
        rest = next;
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(Some(Duration::from_secs(seconds)))
    }
}

fn unit_seconds(unit: &str) -> Option<u64> {
    let unit = match unit {
        "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hour" | "hours" => "h",
        "day" | "days" => "d",
        "week" | "weeks" => "w",
        "mon" | "month" | "months" => "mo",
        "year" | "years" => "y",
        unit => unit,
    };
    let found = UNITS.iter().find(|(name, _)| *name == unit);
    found.map(|(_, seconds)| *seconds)
}

/// `10m`, `1h 30m`, `1w`, which [`parse`] reads again, or `for ever`. Parts of a second are
/// omitted.
pub fn show(duration: Option<Duration>) -> String {
    let Some(duration) = duration else {
        return "for ever".into();
    };
    let mut rest = duration.as_secs();
    let mut parts = Vec::new();
    for (name, seconds) in UNITS {
        // 30 days are `30d` and a year is `365d`, as people write and search for them.
        if matches!(*name, "mo" | "y") || (*name == "w" && rest % seconds != 0) {
            continue;
        }
        let count = rest / seconds;
        rest %= seconds;
        if count > 0 {
            parts.push(format!("{count}{name}"));
        }
    }
    if parts.is_empty() {
        "0s".into()
    } else {
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_fail2ban_reads() {
        for (text, seconds) in [
            ("10m", 600),
            ("600", 600),
            ("1h 30m", 5_400),
            ("1h30m", 5_400),
            ("1d12h", 129_600),
            ("1d12h 5m", 129_900),
            ("1w", 604_800),
            ("1mo", 2_592_000),
            ("1 hour", 3_600),
            ("2 days 3", 172_803),
            ("365d", 31_536_000),
            ("1y", 31_536_000),
            ("0", 0),
            (" 5s ", 5),
        ] {
            assert_eq!(
                parse(text),
                Ok(Some(Duration::from_secs(seconds))),
                "{text}"
            );
        }
        assert_eq!(parse("-1"), Ok(None));
        assert_eq!(parse("permanent"), Ok(None));
    }

    #[test]
    fn refuses_other_text() {
        for text in [
            "",
            "m",
            "10x",
            "-2",
            "1.5h",
            "10m foo",
            "5 5m",
            "99999999999999999999",
            "9999999999h",
            "1h\u{202e}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shows_what_people_write() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (600, "10m"),
            (5_400, "1h 30m"),
            (604_800, "1w"),
            (691_200, "8d"),
            (31_536_000, "365d"),
            (2_592_000, "30d"),
        ] {
            assert_eq!(show(Some(Duration::from_secs(seconds))), text);
        }
        assert_eq!(show(None), "for ever");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(seconds in 0..LONGEST) {
            let duration = Some(Duration::from_secs(seconds));
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }

        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
