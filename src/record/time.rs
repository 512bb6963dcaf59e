//! Reads times: strictly those of Apache's logs, because the place of the time ends a user name
//! that may hold anything; and the common spellings of other programs.

use std::ops::Range;
use std::time::Duration;

pub(super) const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// A time as in a line: calendar fields, nothing converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Four digits.
    pub year: i16,
    /// 1 to 12.
    pub month: i8,
    /// 1 to 31.
    pub day: i8,
    /// 0 to 23.
    pub hour: i8,
    /// 0 to 59.
    pub minute: i8,
    /// 0 to 60 (a leap second).
    pub second: i8,
    /// Seconds east of UTC; `None`: the server's local time (the error log).
    pub offset: Option<i32>,
}

impl Stamp {
    /// The number of the period of this length that the time is in. At the end of a month one may
    /// be shorter.
    pub fn period(&self, length: Duration) -> i64 {
        let days = (i64::from(self.year) * 12 + i64::from(self.month)) * 31 + i64::from(self.day);
        let minutes = (days * 24 + i64::from(self.hour)) * 60 + i64::from(self.minute);
        let seconds = minutes * 60 + i64::from(self.second);
        seconds / i64::try_from(length.as_secs()).unwrap_or(i64::MAX).max(1)
    }
}

/// `22/Nov/2026:11:00:32 +0000` at the front of `text`, and what follows it.
pub(super) fn access(text: &[u8]) -> Option<(Stamp, &[u8])> {
    let (day, text) = number(text, 2)?;
    let (month, text) = month(text.strip_prefix(b"/")?)?;
    let (year, text) = number(text.strip_prefix(b"/")?, 4)?;
    let ((hour, minute, second), text) = clock(text.strip_prefix(b":")?)?;
    let text = text.strip_prefix(b" ")?;
    let (offset, rest) = zone(text).filter(|(_, rest)| text.len() - rest.len() == 5)?;
    let time = (hour, minute, second);
    Some((stamp(year, month, day, time, Some(offset))?, rest))
}

/// `Sun Nov 22 11:00:33.366318 2026`, with or without a fraction, and what follows it.
pub(super) fn error(text: &[u8]) -> Option<(Stamp, &[u8])> {
    let weekday = text.get(..3)?;
    if !DAYS.iter().any(|day| *day == weekday) {
        return None;
    }
    let (stamp, rest) = named_month(text)?;
    Some((stamp?, rest))
}

/// `2026-11-22 11:00:33.366318`, as `%{c}t` of an ErrorLogFormat, and what follows it.
pub(super) fn compact(text: &[u8]) -> Option<(Stamp, &[u8])> {
    let (year, text) = number(text, 4)?;
    let (month, text) = number(text.strip_prefix(b"-")?, 2)?;
    let (day, text) = number(text.strip_prefix(b"-")?, 2)?;
    let (time, text) = clock(text.strip_prefix(b" ")?)?;
    let text = fraction(text)?;
    let month = i8::try_from(month)
        .ok()
        .filter(|month| (1..=12).contains(month))?;
    Some((stamp(year, month, day, time, None)?, text))
}

/// ` +0100`, as `%{z}t` of an ErrorLogFormat, and what follows it.
pub(super) fn offset(text: &[u8]) -> Option<(i32, &[u8])> {
    let text = text.strip_prefix(b" ")?;
    zone(text).filter(|(_, rest)| text.len() - rest.len() == 5)
}

/// The first time in a line of any program: where it is, and what it says if it names the year.
///
/// Known are `[Sun ]Nov 22 11:00:33[.366][ 2026]`, `22/Nov/2026:11:00:32[.366][ +0000]` and
/// `2026-11-22T11:00:33[.366][+0000]`, with `/` or `-` between the numbers of a date and a blank
/// before the hour, too. `[time ]`, with a blank, is found with its brackets.
pub fn find(line: &[u8]) -> Option<(Range<usize>, Option<Stamp>)> {
    let begins = |at: &usize| {
        let before = at.checked_sub(1).and_then(|at| line.get(at));
        before.is_none_or(|byte| !byte.is_ascii_alphanumeric())
    };
    (0..line.len()).filter(begins).find_map(|at| {
        let text = line.get(at..)?;
        let (stamp, rest) = match text.first()? {
            b'0'..=b'9' => numbers(text).map(|(stamp, rest)| (Some(stamp), rest)),
            _ => named_month(text),
        }?;
        let blanks = rest.trim_ascii_start();
        let bracketed = at.checked_sub(1).filter(|at| line.get(*at) == Some(&b'['));
        Some(match (bracketed, blanks.strip_prefix(b"]")) {
            (Some(from), Some(after)) if blanks.len() < rest.len() => {
                (from..line.len() - after.len(), stamp)
            }
            _ => (at..line.len() - rest.len(), stamp),
        })
    })
}

/// `Sun Nov 22 11:00:33 2026`, the weekday and the year optional.
fn named_month(text: &[u8]) -> Option<(Option<Stamp>, &[u8])> {
    let weekday = DAYS
        .iter()
        .find_map(|day| text.strip_prefix(*day)?.strip_prefix(b" "));
    let (month, text) = month(weekday.unwrap_or(text))?;
    let text = text.strip_prefix(b" ")?;
    let (day, text) = match text.strip_prefix(b" ") {
        Some(text) => number(text, 1)?,
        None => number(text, 2)?,
    };
    let (time, text) = clock(text.strip_prefix(b" ")?)?;
    let text = fraction(text)?;
    let year = text.strip_prefix(b" ").and_then(|text| number(text, 4));
    match year.filter(|(_, rest)| !rest.first().is_some_and(u8::is_ascii_digit)) {
        Some((year, rest)) => Some((stamp(year, month, day, time, None), rest)),
        None => Some((None, text)),
    }
}

/// `22/Nov/2026:11:00:32 +0000`, `2026-11-22 11:00:33`, the zone optional.
fn numbers(text: &[u8]) -> Option<(Stamp, &[u8])> {
    let (year, month, day, text) = match number(text, 4) {
        Some((year, text)) => {
            let (month, text) = number(split(text, b"-/")?, 2)?;
            let (day, text) = number(split(text, b"-/")?, 2)?;
            (year, i8::try_from(month).ok()?, day, split(text, b" T")?)
        }
        None => {
            let (day, text) = number(text, 2)?;
            let (month, text) = month(split(text, b"-/")?)?;
            let (year, text) = number(split(text, b"-/")?, 4)?;
            (year, month, day, split(text, b" :")?)
        }
    };
    let (time, text) = clock(text)?;
    let text = fraction(text)?;
    let zone = zone(text.strip_prefix(b" ").unwrap_or(text));
    let (offset, text) = zone.map_or((None, text), |(offset, rest)| (Some(offset), rest));
    Some((stamp(year, month, day, time, offset)?, text))
}

/// Skips one of these marks.
fn split<'t>(text: &'t [u8], marks: &[u8]) -> Option<&'t [u8]> {
    let (first, rest) = text.split_first()?;
    marks.contains(first).then_some(rest)
}

/// `+0130`, `+01:30`, `Z`.
fn zone(text: &[u8]) -> Option<(i32, &[u8])> {
    let (sign, text) = match text.split_first()? {
        (b'Z', rest) => return Some((0, rest)),
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let (hours, text) = number(text, 2)?;
    let (minutes, text) = number(text.strip_prefix(b":").unwrap_or(text), 2)?;
    (hours <= 25 && minutes <= 59).then_some((sign * i32::from(hours * 60 + minutes) * 60, text))
}

/// Skips `.366318` or `,366`, if it is there.
fn fraction(text: &[u8]) -> Option<&[u8]> {
    let fraction = match text {
        [b'.', fraction @ ..] => fraction,
        [b',', fraction @ ..] if fraction.first().is_some_and(u8::is_ascii_digit) => fraction,
        _ => return Some(text),
    };
    let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
    (1..=9).contains(&digits).then_some(())?;
    fraction.get(digits..)
}

fn stamp(
    year: i16,
    month: i8,
    day: i16,
    (hour, minute, second): Clock,
    offset: Option<i32>,
) -> Option<Stamp> {
    let within = |value: i16, low: i16, high: i16| {
        (low..=high)
            .contains(&value)
            .then(|| i8::try_from(value).ok())
            .flatten()
    };
    Some(Stamp {
        year,
        month,
        day: within(day, 1, 31)?,
        hour: within(hour, 0, 23)?,
        minute: within(minute, 0, 59)?,
        second: within(second, 0, 60)?,
        offset,
    })
}

/// Hour, minute, second.
type Clock = (i16, i16, i16);

fn clock(text: &[u8]) -> Option<(Clock, &[u8])> {
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text.strip_prefix(b":")?, 2)?;
    let (second, text) = number(text.strip_prefix(b":")?, 2)?;
    Some(((hour, minute, second), text))
}

fn month(text: &[u8]) -> Option<(i8, &[u8])> {
    let (name, rest) = text.split_at_checked(3)?;
    let index = MONTHS.iter().position(|month| *month == name)?;
    Some((i8::try_from(index + 1).ok()?, rest))
}

/// Exactly `digits` digits, at most 4.
fn number(text: &[u8], digits: usize) -> Option<(i16, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let mut value = 0i16;
    for byte in number {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i16::from(byte - b'0');
    }
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Option<Stamp> {
        let (stamp, rest) = access(text).or_else(|| error(text))?;
        rest.is_empty().then_some(stamp)
    }

    #[test]
    fn both_spellings_are_read_and_nothing_near_them() {
        let access = read(b"22/Nov/2026:11:00:32 -0130").unwrap();
        assert_eq!((access.day, access.offset), (22, Some(-5400)));
        for good in [
            "Sun Nov 22 11:00:33.366318 2026",
            "Sun Nov 22 11:00:33 2026",
            "Sun Nov  2 11:00:33 2026",
        ] {
            assert_eq!(read(good.as_bytes()).unwrap().year, 2026, "{good}");
        }
        for bad in [
            "22/Nov/2026:11:00:32",
            "22/nov/2026:11:00:32 +0000",
            "2/Nov/2026:11:00:32 +0000",
            "32/Nov/2026:11:00:32 +0000",
            "22/Nov/2026:24:00:32 +0000",
            "22/Nov/2026:11:00:32 +0000 ",
            "Son Nov 22 11:00:33.366318 2026",
            "Sun Nov 22 11:00:33. 2026",
            "",
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_first_time_of_a_line_is_found() {
        for (line, found) in [
            ("Jan 23 21:59:59 host x", Some("Jan 23 21:59:59")),
            (
                "[Sun Nov 22 11:00:33.366318 2026] [core:error]",
                Some("Sun Nov 22 11:00:33.366318 2026"),
            ),
            (
                "2005-01-23T21:59:59.981746+01:00 x",
                Some("2005-01-23T21:59:59.981746+01:00"),
            ),
            (
                "x [2024-01-20T11:02:19,123] y",
                Some("2024-01-20T11:02:19,123"),
            ),
            ("2024-01-20 11:02:19, x", Some("2024-01-20 11:02:19")),
            (
                "2012/04/09 11:53:29 [error] 2865#0",
                Some("2012/04/09 11:53:29"),
            ),
            (
                "[22-Jan-2013 22:28:21 +0200]: x",
                Some("22-Jan-2013 22:28:21 +0200"),
            ),
            (
                "192.0.2.1 - - [22/Nov/2026:11:00:32 +0000] x",
                Some("22/Nov/2026:11:00:32 +0000"),
            ),
            ("x [27/Jun/2013:11:55:44] y", Some("27/Jun/2013:11:55:44")),
            (
                "x [27/Jun/2013:11:55:44 ] y",
                Some("[27/Jun/2013:11:55:44 ]"),
            ),
            ("1.2.3.4 - - [22/Nov/2026:11:00] x", None),
            ("", None),
        ] {
            let at = find(line.as_bytes()).map(|(at, _)| &line[at]);
            assert_eq!(at, found, "{line}");
        }
    }
}
