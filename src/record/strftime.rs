//! `%{...}t`: a strftime(3) format, compiled into what its output looks like.
//!
//! Apache formats times in the C locale, so names are English. No client writes any of it.

use super::time::{MONTHS, Stamp};

/// A compiled time format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimeForm {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Byte(u8),
    /// So many digits, behind blanks where `blank`.
    Digits {
        least: usize,
        most: usize,
        blank: bool,
        unit: Unit,
    },
    /// `Nov` or `November`
    Month {
        whole: bool,
    },
    /// `Sun`
    Day,
    /// `Sunday`
    WholeDay,
    /// `AM`, `pm`
    HalfDay,
    /// `+0100`
    Offset,
    /// `CET`, `+03`
    Zone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Nothing,
    Year,
    YearOfCentury,
    Month,
    Day,
    Hour,
    HourOfHalf,
    Minute,
    Second,
    /// Since 1970, so many to a second.
    Since(i64),
}

/// A time as several fields of one line give it.
#[derive(Debug, Clone, Default)]
pub(super) struct Partial {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    hour: i8,
    minute: i8,
    second: i8,
    afternoon: Option<bool>,
    offset: Option<i32>,
    epoch: Option<i64>,
}

impl Partial {
    /// `None`: the day is not known.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        if let Some(epoch) = self.epoch {
            let time = jiff::Timestamp::from_second(epoch).ok()?;
            let time = jiff::tz::Offset::UTC.to_datetime(time);
            return Some(Stamp {
                year: time.year(),
                month: time.month(),
                day: time.day(),
                hour: time.hour(),
                minute: time.minute(),
                second: time.second(),
                offset: Some(0),
            });
        }
        let hour = match self.afternoon {
            Some(afternoon) => self.hour % 12 + if afternoon { 12 } else { 0 },
            None => self.hour,
        };
        Some(Stamp {
            year: self.year?,
            month: self.month?,
            day: self.day?,
            hour,
            minute: self.minute,
            second: self.second,
            offset: self.offset,
        })
    }

    fn put(&mut self, unit: Unit, value: i64) -> Option<()> {
        let small = |low: i8, high: i8| {
            let value = i8::try_from(value).ok()?;
            (low..=high).contains(&value).then_some(value)
        };
        match unit {
            Unit::Nothing => {}
            Unit::Year => self.year = Some(i16::try_from(value).ok()?),
            Unit::YearOfCentury => {
                let century = if value < 69 { 2000 } else { 1900 };
                self.year = Some(i16::try_from(century + value).ok()?);
            }
            Unit::Month => self.month = Some(small(1, 12)?),
            Unit::Day => self.day = Some(small(1, 31)?),
            Unit::Hour => self.hour = small(0, 23)?,
            Unit::HourOfHalf => self.hour = small(1, 12)?,
            Unit::Minute => self.minute = small(0, 59)?,
            Unit::Second => self.second = small(0, 60)?,
            Unit::Since(per_second) => self.epoch = Some(value.div_euclid(per_second)),
        }
        Some(())
    }
}

impl TimeForm {
    /// Compiles the text in the braces of `%{...}t`, without `begin:` and `end:`.
    ///
    /// # Errors
    /// Names a conversion that is not known, or that would end the line.
    pub(super) fn compile(format: &str) -> Result<TimeForm, String> {
        let since = |per_second, least| {
            vec![Part::Digits {
                least,
                most: 19,
                blank: false,
                unit: Unit::Since(per_second),
            }]
        };
        let parts = match format {
            "sec" => since(1, 1),
            "msec" => since(1_000, 1),
            "usec" => since(1_000_000, 1),
            "msec_frac" => vec![digits(3, Unit::Nothing)],
            "usec_frac" => vec![digits(6, Unit::Nothing)],
            _ => parts(format)?,
        };
        Ok(TimeForm { parts })
    }

    /// This time, these bytes and another time, as one.
    pub(super) fn joined(self, between: &[u8], other: TimeForm) -> TimeForm {
        let bytes = between.iter().copied().map(Part::Byte);
        let parts = self.parts.into_iter().chain(bytes).chain(other.parts);
        TimeForm {
            parts: parts.collect(),
        }
    }

    /// Whether a byte of the format's text is one of these.
    pub(super) fn any_byte(&self, is: impl Fn(u8) -> bool) -> bool {
        let byte = |part: &Part| matches!(part, Part::Byte(byte) if is(*byte));
        self.parts.iter().any(byte)
    }

    /// Whether the text behind the time can be distinguished from its last digits or letters.
    pub(super) fn ends_before(&self, next: u8) -> bool {
        match self.parts.last() {
            Some(Part::Digits { least, most, .. }) => least == most || !next.is_ascii_digit(),
            Some(Part::Byte(_) | Part::Day | Part::HalfDay | Part::Offset) => true,
            Some(Part::Month { whole: false }) => true,
            Some(Part::Month { .. } | Part::WholeDay) => !next.is_ascii_alphabetic(),
            Some(Part::Zone) => !is_zone(next),
            None => true,
        }
    }

    /// How long the time at the front of `text` is; what it says is added to `partial`.
    pub(super) fn read(&self, text: &[u8], partial: &mut Partial) -> Option<usize> {
        let mut rest = text;
        for part in &self.parts {
            rest = part.read(rest, partial)?;
        }
        Some(text.len() - rest.len())
    }
}

impl Part {
    fn read<'a>(&self, text: &'a [u8], partial: &mut Partial) -> Option<&'a [u8]> {
        let length = match self {
            Part::Byte(byte) => return text.strip_prefix(std::slice::from_ref(byte)),
            Part::Digits {
                least,
                most,
                blank,
                unit,
            } => {
                let blanks = if *blank {
                    run(text, most - 1, |b| b == b' ')
                } else {
                    0
                };
                let digits = text.get(blanks..)?;
                let length = run(digits, most - blanks, |b| b.is_ascii_digit());
                if length < *least {
                    return None;
                }
                let number = std::str::from_utf8(digits.get(..length)?).ok()?;
                partial.put(*unit, number.parse().ok()?)?;
                blanks + length
            }
            Part::Month { whole } => {
                let name = text.get(..3)?;
                let is = |month: &&&[u8; 3]| month.eq_ignore_ascii_case(name);
                let month = MONTHS.iter().position(|month| is(&month))?;
                partial.month = Some(i8::try_from(month + 1).ok()?);
                if *whole { letters(text, 9)? } else { 3 }
            }
            Part::Day => letters(text, 3).filter(|length| *length == 3)?,
            Part::WholeDay => letters(text, 9)?,
            Part::HalfDay => {
                let name = text.get(..2)?;
                let afternoon = name.eq_ignore_ascii_case(b"pm");
                (afternoon || name.eq_ignore_ascii_case(b"am")).then_some(())?;
                partial.afternoon = Some(afternoon);
                2
            }
            Part::Offset => {
                let sign = match text.first()? {
                    b'+' => 1,
                    b'-' => -1,
                    _ => return None,
                };
                let digits = text.get(1..5)?;
                digits.iter().all(u8::is_ascii_digit).then_some(())?;
                let number: i32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
                partial.offset = Some(sign * (number / 100 * 3600 + number % 100 * 60));
                5
            }
            Part::Zone => Some(run(text, 8, is_zone)).filter(|length| *length > 0)?,
        };
        text.get(length..)
    }
}

fn is_zone(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-".contains(&byte)
}

fn letters(text: &[u8], most: usize) -> Option<usize> {
    let length = run(text, most, |b| b.is_ascii_alphabetic());
    (length > 0).then_some(length)
}

fn run(text: &[u8], most: usize, is: impl Fn(u8) -> bool) -> usize {
    text.iter().take(most).take_while(|b| is(**b)).count()
}

fn digits(count: usize, unit: Unit) -> Part {
    Part::Digits {
        least: count,
        most: count,
        blank: false,
        unit,
    }
}

fn parts(format: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut bytes = format.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            parts.push(Part::Byte(byte));
            continue;
        }
        // `-`: no padding, `_`: blanks; `E` and `O` change nothing in the C locale.
        let (mut bare, mut blank) = (false, false);
        let letter = loop {
            match bytes.next() {
                Some(b'-') => bare = true,
                Some(b'_') => blank = true,
                Some(b'0' | b'^' | b'#' | b'E' | b'O') => {}
                other => break other,
            }
        };
        let unknown = || {
            let letter = letter.map_or(String::new(), |letter| char::from(letter).to_string());
            format!("`%{letter}` in the time format `{format}` is not known")
        };
        let padded = |most: usize, blank: bool, unit: Unit| Part::Digits {
            least: if bare || blank { 1 } else { most },
            most,
            blank,
            unit,
        };
        let two = |unit| padded(2, blank, unit);
        parts.push(match letter.ok_or_else(unknown)? {
            b'Y' => digits(4, Unit::Year),
            b'G' => digits(4, Unit::Nothing),
            b'y' => two(Unit::YearOfCentury),
            b'C' | b'g' | b'U' | b'V' | b'W' => two(Unit::Nothing),
            b'm' => two(Unit::Month),
            b'd' => two(Unit::Day),
            b'e' => padded(2, true, Unit::Day),
            b'H' => two(Unit::Hour),
            b'k' => padded(2, true, Unit::Hour),
            b'I' => two(Unit::HourOfHalf),
            b'l' => padded(2, true, Unit::HourOfHalf),
            b'M' => two(Unit::Minute),
            b'S' => two(Unit::Second),
            b'j' => padded(3, blank, Unit::Nothing),
            b'u' | b'w' => digits(1, Unit::Nothing),
            b's' => Part::Digits {
                least: 1,
                most: 19,
                blank: false,
                unit: Unit::Since(1),
            },
            b'b' | b'h' => Part::Month { whole: false },
            b'B' => Part::Month { whole: true },
            b'a' => Part::Day,
            b'A' => Part::WholeDay,
            b'p' | b'P' => Part::HalfDay,
            b'z' => Part::Offset,
            b'Z' => Part::Zone,
            b'%' => Part::Byte(b'%'),
            b't' => Part::Byte(b'\t'),
            letter => {
                let longer = match letter {
                    b'c' => "%a %b %e %H:%M:%S %Y",
                    b'D' | b'x' => "%m/%d/%y",
                    b'F' => "%Y-%m-%d",
                    b'T' | b'X' => "%H:%M:%S",
                    b'R' => "%H:%M",
                    b'r' => "%I:%M:%S %p",
                    _ => return Err(unknown()),
                };
                parts.extend(self::parts(longer)?);
                continue;
            }
        });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str, text: &str) -> Option<(usize, Option<Stamp>)> {
        let mut partial = Partial::default();
        let length = TimeForm::compile(format)
            .unwrap()
            .read(text.as_bytes(), &mut partial)?;
        Some((length, partial.stamp()))
    }

    #[test]
    fn what_strftime_writes_is_read() {
        let stamp = |offset| Stamp {
            year: 2026,
            month: 11,
            day: 2,
            hour: 15,
            minute: 4,
            second: 5,
            offset,
        };
        for (format, text, offset) in [
            (
                "%Y-%m-%dT%H:%M:%S%z",
                "2026-11-02T15:04:05-0130",
                Some(-5400),
            ),
            ("%F %T %Z", "2026-11-02 15:04:05 CET", None),
            ("%c", "Mon Nov  2 15:04:05 2026", None),
            (
                "%A %d %B %Y %I:%M:%S %p",
                "Monday 02 November 2026 03:04:05 PM",
                None,
            ),
            ("%-d.%-m.%y %k:%M:%S", "2.11.26 15:04:05", None),
            ("%D %r", "11/02/26 03:04:05 PM", None),
            ("%Y%m%d%H%M%S", "20261102150405", None),
            ("sec", "1793631845", Some(0)),
            ("msec", "1793631845123", Some(0)),
            ("usec", "1793631845123456", Some(0)),
            ("%s", "1793631845", Some(0)),
        ] {
            let expected = (text.len(), Some(stamp(offset)));
            assert_eq!(read(format, text), Some(expected), "{format}");
        }
        assert_eq!(read("%T", "15:04:05 x"), Some((8, None)));
        assert_eq!(read("usec_frac", "000123"), Some((6, None)));
        for (format, text) in [
            ("%T", "15:04:5"),
            ("%H", "24"),
            ("%F", "2026-13-01"),
            ("%b", "Foo"),
            ("sec", "-"),
            ("sec", "99999999999999999999"),
            ("msec_frac", "12"),
        ] {
            assert_eq!(read(format, text), None, "{format}: {text}");
        }
        for bad in ["%", "%n", "%Q", "%-", "%5Y"] {
            assert!(
                TimeForm::compile(bad)
                    .unwrap_err()
                    .contains(bad.get(..1).unwrap()),
                "{bad}"
            );
        }
    }
}
