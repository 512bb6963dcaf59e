//! The two spellings of a time that Apache's logs use, recognised strictly.
//!
//! Strict, because where a time stands is what ends a user name that may hold anything.

pub(super) const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// A time as it stands in a line: calendar fields, nothing converted.
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

/// `22/Nov/2026:11:00:32 +0000` at the front of `text`, and what follows it.
pub(super) fn access(text: &[u8]) -> Option<(Stamp, &[u8])> {
    let (day, text) = number(text, 2)?;
    let (month, text) = month(text.strip_prefix(b"/")?)?;
    let (year, text) = number(text.strip_prefix(b"/")?, 4)?;
    let ((hour, minute, second), text) = clock(text.strip_prefix(b":")?)?;
    let (sign, text) = text.strip_prefix(b" ")?.split_first()?;
    let sign = match sign {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, text) = number(text, 2)?;
    let (minutes, text) = number(text, 2)?;
    if hours > 25 || minutes > 59 {
        return None;
    }
    let offset = Some(sign * i32::from(hours * 60 + minutes) * 60);
    Some((
        stamp(year, month, day, (hour, minute, second), offset)?,
        text,
    ))
}

/// `Sun Nov 22 11:00:33.366318 2026`, with or without a fraction, and what follows it.
pub(super) fn error(text: &[u8]) -> Option<(Stamp, &[u8])> {
    let (weekday, text) = text.split_at_checked(3)?;
    if !DAYS.iter().any(|day| *day == weekday) {
        return None;
    }
    let (month, text) = month(text.strip_prefix(b" ")?)?;
    let text = text.strip_prefix(b" ")?;
    let (day, text) = match text.strip_prefix(b" ") {
        Some(text) => number(text, 1)?,
        None => number(text, 2)?,
    };
    let (time, text) = clock(text.strip_prefix(b" ")?)?;
    let text = fraction(text)?;
    let (year, text) = number(text.strip_prefix(b" ")?, 4)?;
    Some((stamp(year, month, day, time, None)?, text))
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

/// Skips `.366318`, where it stands there.
fn fraction(text: &[u8]) -> Option<&[u8]> {
    let Some(fraction) = text.strip_prefix(b".") else {
        return Some(text);
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
}
