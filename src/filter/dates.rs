//! Where the time stands in a line that no record is known for, and what it says: fail2ban's
//! `datepattern`, and the forms it knows without one.
//!
//! The live path needs none of this: Apache's own forms are read by `record`.

use std::ops::Range;

use super::regexes::{Compiled, Limits, Manner};
use super::{Definition, translate};

/// A time as a line states it; what it leaves out is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970, where the line states these.
    pub epoch: Option<i64>,
    /// Four digits.
    pub year: Option<i16>,
    /// 1 to 12.
    pub month: Option<i8>,
    /// 1 to 31.
    pub day: Option<i8>,
    /// 0 to 23.
    pub hour: i8,
    /// 0 to 59.
    pub minute: i8,
    /// 0 to 61.
    pub second: i8,
    /// Seconds east of UTC.
    pub offset: Option<i32>,
}

/// The forms in which a filter's lines may state their time.
#[derive(Debug)]
pub struct Dates {
    forms: Vec<Form>,
    /// `datepattern = {NONE}`: none is looked for.
    none: bool,
}

#[derive(Debug)]
struct Form {
    regex: Compiled,
    /// What is cut out of the line.
    cut: usize,
    /// Groups by the letter of their field.
    fields: Vec<(Field, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Epoch,
    Tai,
    Year,
    Year2,
    Month,
    MonthName,
    Day,
    Hour,
    Hour12,
    Minute,
    Second,
    Half,
    Offset,
}

const FIELDS: [(&str, Field); 13] = [
    ("epoch", Field::Epoch),
    ("tai", Field::Tai),
    ("Y", Field::Year),
    ("y", Field::Year2),
    ("m", Field::Month),
    ("b", Field::MonthName),
    ("d", Field::Day),
    ("H", Field::Hour),
    ("I", Field::Hour12),
    ("M", Field::Minute),
    ("S", Field::Second),
    ("p", Field::Half),
    ("z", Field::Offset),
];

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

/// Where seconds since 1970 may stand.
const EPOCHS: [&str; 3] = [
    r"^({EPOCH})",
    r"^\[({EPOCH})\]",
    r"\baudit\(({EPOCH}):\d+\)",
];

/// The forms known without a `datepattern`, in the order in which they are tried.
const KNOWN: [&str; 18] = [
    r"%ExY(?P<_sep>[-/.])%m(?P=_sep)%d(?:T|  ?)%H:%M:%S(?:[.,]%f)?(?:\s*%z)?",
    r"(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?",
    r"(?:%a )?%b %d %ExY %k:%M:%S(?:\.%f)?",
    r"%d(?P<_sep>[-/])%m(?P=_sep)%ExY %k:%M:%S",
    r"%d(?P<_sep>[-/])%m(?P=_sep)%Exy %k:%M:%S",
    r"%d(?P<_sep>[-/])%b(?P=_sep)%ExY[ :]?%H:%M:%S(?:\.%f)?(?: %z)?",
    r"%m/%d/%ExY:%H:%M:%S",
    r"%m-%d-%ExY %k:%M:%S(?:\.%f)?",
    r"EPOCH",
    r"{^LN-BEG}%H:%M:%S",
    r"^<%m/%d/%Exy@%H:%M:%S>",
    r"%Exy%Exm%Exd  ?%H:%M:%S",
    r"%b %d, %ExY %I:%M:%S %p",
    r"^%b-%d-%Exy %k:%M:%S",
    r"%ExY%Exm%Exd(?:T|  ?)%ExH%ExM%ExS(?:[.,]%f)?(?:\s*%z)?",
    r"(?:%Z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?",
    r"(?:%z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?",
    r"TAI64N",
];

impl Dates {
    /// As the filter's `datepattern` says. Patterns that are none are left out.
    pub fn of(definition: &Definition) -> Dates {
        let mut forms = Vec::new();
        let mut none = false;
        let texts = definition.datepattern.iter().map(|p| p.text.trim());
        for text in texts {
            if text.eq_ignore_ascii_case("{NONE}") {
                none = true;
            } else if text.eq_ignore_ascii_case("{^LN-BEG}") {
                forms.extend(KNOWN.iter().filter_map(|known| Form::new(&at_begin(known))));
            } else if let Some((before, after)) = around_date(text) {
                let known = KNOWN.iter().filter(|known| !known.contains('^'));
                forms.extend(
                    known.filter_map(|known| Form::new(&format!("{before}{known}{after}"))),
                );
            } else {
                forms.extend(forms_of(text));
            }
        }
        if definition.datepattern.is_empty() {
            forms.extend(KNOWN.iter().filter_map(|known| Form::new(&at_begin(known))));
            forms.extend(KNOWN.iter().flat_map(|known| forms_of(known)));
        }
        Dates { forms, none }
    }

    /// The first time found: what is cut out of the line, and what it says.
    pub fn find(&self, line: &[u8]) -> Option<(Range<usize>, Moment)> {
        if self.none {
            return None;
        }
        self.forms.iter().find_map(|form| form.find(line))
    }
}

fn forms_of(text: &str) -> Vec<Form> {
    if text.eq_ignore_ascii_case("EPOCH") {
        EPOCHS.iter().filter_map(|form| Form::new(form)).collect()
    } else {
        Form::new(text).into_iter().collect()
    }
}

fn at_begin(known: &str) -> String {
    if known.starts_with(['^', '{']) {
        known.to_owned()
    } else {
        format!("{{^LN-BEG}}{known}")
    }
}

/// What stands before and behind `{DATE}`.
fn around_date(text: &str) -> Option<(&str, &str)> {
    let at = text.to_ascii_uppercase().find("{DATE}")?;
    Some((text.get(..at)?, text.get(at + 6..)?))
}

impl Form {
    fn new(text: &str) -> Option<Form> {
        let (begin, text) = match text.strip_prefix("{^LN-BEG}") {
            Some(text) => (r"^\W{0,2}?", text),
            None => ("", text.strip_prefix("{UNB}").unwrap_or(text)),
        };
        let (anchor, text) = match text.strip_prefix('^') {
            Some(text) => ("^", text),
            None => ("", text),
        };
        let text = text.trim_start_matches("**").trim_end_matches("**");
        let pattern = regex_of(text);
        let grouped = has_plain_group(&pattern);
        let (pattern, _) = translate::translate(&pattern, translate::Host::Any);
        let pattern = if grouped {
            format!("(?i){begin}{anchor}{pattern}")
        } else {
            format!("(?i){begin}{anchor}({pattern})")
        };
        let manner = Manner {
            dfa_limit: 1 << 20,
            multi_line: false,
            // Times are written in ASCII.
            letters: false,
        };
        let regex = Compiled::new(&pattern, manner, &Limits::default()).ok()?;
        let fields = FIELDS.iter().flat_map(|(name, field)| {
            let groups = regex.groups(|group| group == *name);
            groups.into_iter().map(|group| (*field, group))
        });
        Some(Form {
            fields: fields.collect(),
            cut: 1,
            regex,
        })
    }

    fn find(&self, line: &[u8]) -> Option<(Range<usize>, Moment)> {
        let spans = self.regex.spans(line)?;
        let (_, end) = spans.first().copied().flatten()?;
        let word = |at: Option<&u8>| at.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        if word(line.get(end.checked_sub(1)?)) && word(line.get(end)) {
            return None;
        }
        let (from, to) = spans.get(self.cut).copied().flatten()?;
        let mut moment = Moment::default();
        let mut half = None;
        for (field, group) in &self.fields {
            let Some((from, to)) = spans.get(*group).copied().flatten() else {
                continue;
            };
            let text = std::str::from_utf8(line.get(from..to)?).ok()?.trim();
            match field {
                Field::Epoch => moment.epoch = text.get(..10)?.parse().ok(),
                // As fail2ban reads it: TAI's leap seconds are left in.
                Field::Tai => moment.epoch = i64::from_str_radix(text.get(1..16)?, 16).ok(),
                Field::Year => moment.year = text.parse().ok(),
                Field::Year2 => {
                    let year: i16 = text.parse().ok()?;
                    moment.year = Some(year + if year < 69 { 2000 } else { 1900 });
                }
                Field::Month => moment.month = text.parse().ok(),
                Field::MonthName => {
                    let name = text.get(..3)?.to_ascii_lowercase();
                    let at = MONTHS.iter().position(|month| *month == name)?;
                    moment.month = i8::try_from(at + 1).ok();
                }
                Field::Day => moment.day = text.parse().ok(),
                Field::Hour | Field::Hour12 => moment.hour = text.parse().ok()?,
                Field::Minute => moment.minute = text.parse().ok()?,
                Field::Second => moment.second = text.parse().ok()?,
                Field::Half => half = Some(text.to_ascii_lowercase()),
                Field::Offset => moment.offset = offset(text),
            }
        }
        match half.as_deref() {
            Some("pm") if moment.hour < 12 => moment.hour += 12,
            Some("am") if moment.hour == 12 => moment.hour = 0,
            _ => {}
        }
        Some((from..to, moment))
    }
}

/// `Z`, `UTC`, `GMT`, `+hh`, `+hhmm`, `+hh:mm`
fn offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => match text.strip_prefix('+') {
            Some(digits) => (1, digits),
            None => return Some(0),
        },
    };
    let hours: i32 = digits.get(..2)?.parse().ok()?;
    let minutes: i32 = match digits.get(2..)?.trim_start_matches(':') {
        "" => 0,
        minutes => minutes.parse().ok()?,
    };
    Some(sign * (hours * 3600 + minutes * 60))
}

/// Whether a pattern has a group without a name: the first is what is cut out.
fn has_plain_group(pattern: &str) -> bool {
    let bytes = pattern.as_bytes();
    bytes.iter().enumerate().any(|(at, byte)| {
        let escaped = at > 0 && bytes.get(at - 1) == Some(&b'\\');
        *byte == b'(' && !escaped && bytes.get(at + 1) != Some(&b'?')
    })
}

/// A pattern in which `%Y` and its like stand for fields of a time.
fn regex_of(text: &str) -> String {
    const EPOCH: &str = r"(?P<epoch>\d{10,11})\b(?:\.\d{3,6})?";
    const LONG_EPOCH: &str = r"(?P<epoch>\d{10,11})(?:\d{3}(?:\.\d{1,6}|\d{3})?)?";
    match text.to_ascii_uppercase().as_str() {
        "EPOCH" => return format!("({EPOCH})"),
        "LEPOCH" => return format!("({LONG_EPOCH})"),
        "TAI64N" => return "@(?P<tai>[0-9a-f]{16})[0-9a-f]{8}".to_owned(),
        _ => {}
    }
    let mut out = String::new();
    let text = text
        .replace("{LEPOCH}", LONG_EPOCH)
        .replace("{EPOCH}", EPOCH);
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let (name, after) = match after.strip_prefix("Ex") {
            Some(after) => (after.chars().next(), after),
            None => (after.chars().next(), after),
        };
        out.push_str(match name {
            Some('a' | 'A') => r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6})",
            Some('b' | 'B') => {
                r"(?P<b>(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6})"
            }
            Some('Y') => r"(?P<Y>20\d\d)",
            Some('y') => r"(?P<y>\d{2})",
            Some('m') => r"(?P<m>1[0-2]|0?[1-9])",
            Some('d' | 'e') => r"(?P<d>3[0-1]|[1-2]\d|[0 ]?[1-9])",
            Some('H') => r"(?P<H>2[0-3]|[0-1]?\d)",
            Some('k') => r" ?(?P<H>2[0-3]|[0-1]?\d)",
            Some('I' | 'l') => r" ?(?P<I>1[0-2]|0?[1-9])",
            Some('M') => r"(?P<M>[0-5]?\d)",
            Some('S') => r"(?P<S>6[0-1]|[0-5]?\d)",
            Some('f') => r"\d{1,6}",
            Some('p') => r"(?P<p>am|pm)",
            Some('z') => r"(?P<z>Z|UTC|GMT|[+-][01]\d(?::?\d{2})?)",
            Some('Z') => r"(?:Z|[A-Z]{3,5})",
            Some('%') => "%",
            _ => "",
        });
        rest = after
            .get(name.map_or(0, char::len_utf8)..)
            .unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::super::PatternText;
    use super::*;

    fn find(patterns: &[&str], line: &str) -> Option<(String, Moment)> {
        let definition = Definition {
            datepattern: patterns
                .iter()
                .map(|text| PatternText {
                    text: (*text).to_owned(),
                    file: None,
                    line: 1,
                    column: 1,
                })
                .collect(),
            ..super::super::tests::definition(&["<HOST>"], &[])
        };
        let (cut, moment) = Dates::of(&definition).find(line.as_bytes())?;
        Some((line[cut].to_owned(), moment))
    }

    #[test]
    fn times_are_found_as_fail2ban_finds_them() {
        for (patterns, line, cut) in [
            (&[][..], "Jan 23 21:59:59 host x", "Jan 23 21:59:59"),
            (
                &[],
                "[Sun Nov 22 11:00:33.366318 2026] [core:error]",
                "Sun Nov 22 11:00:33.366318 2026",
            ),
            (
                &[],
                "2005-01-23T21:59:59.981746+01:00 x",
                "2005-01-23T21:59:59.981746+01:00",
            ),
            (
                &[],
                "1.2.3.4 - - [22/Nov/2026:11:00:32 +0000] x",
                "22/Nov/2026:11:00:32 +0000",
            ),
            (&[], "1124013600 x", "1124013600"),
            (
                &[],
                "x @4000000043746d9c12345678 y",
                "@4000000043746d9c12345678",
            ),
            (
                &[r"^[^\[]*\[({DATE})", "{^LN-BEG}"],
                "a [22/Nov/2026:11:00:32 +0000] x",
                "22/Nov/2026:11:00:32 +0000",
            ),
            (
                &["^L %d/%m/%Y - %H:%M:%S"],
                "L 01/02/2006 - 10:11:12: x",
                "L 01/02/2006 - 10:11:12",
            ),
        ] {
            let (found, _) = find(patterns, line).expect(line);
            assert_eq!(found, cut, "{line}");
        }
        assert_eq!(find(&["{NONE}"], "2005-01-23 21:59:59"), None);
        let (_, moment) = find(&[], "Apr 3, 2011 1:02:03 PM x").unwrap();
        assert_eq!((moment.month, moment.hour, moment.second), (Some(4), 13, 3));
    }
}
