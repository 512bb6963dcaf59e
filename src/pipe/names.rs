//! Which name the log file has at which time; pure.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A clock that is set back by no more than this (seconds) does not bring the last name back.
const SET_BACK: i64 = 3600;
/// Most minutes between an offset and UTC.
const MAX_OFFSET: i64 = 24 * 60;

/// The names of one log: PATH as it was given, and when rotatelogs would begin a new file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    path: PathBuf,
    pieces: Vec<Piece>,
    rotation: Option<Rotation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    /// A conversion that jiff knows, `%` included.
    Field(String),
}

/// When a new file begins: rotatelogs's arguments behind the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Seconds of an interval.
    every: Option<i64>,
    /// A file with more bytes than this is followed by another one.
    size: Option<u64>,
    clock: Clock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    Local,
    /// Seconds east of it.
    Utc(i64),
}

/// The second that a name is made of: since 1970, shifted as the rotation's clock is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(i64);

impl Names {
    /// PATH, which may hold fields of strftime(3); see [`FIELDS`]. What is no field stands for
    /// itself, also a `%` at the end.
    pub fn new(path: &Path, rotation: Option<Rotation>) -> Names {
        Names {
            path: path.to_owned(),
            pieces: pieces(path.as_os_str().as_bytes()),
            rotation,
        }
    }

    /// PATH as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The one name that the log has at all times; `None` where it changes.
    pub fn fixed(&self) -> Option<PathBuf> {
        let fixed = |piece: &Piece| matches!(piece, Piece::Text(_));
        (self.rotation.is_none() && self.pieces.iter().all(fixed))
            .then(|| self.text(&Zoned::default()))
    }

    /// The same, below `directory` where PATH is relative.
    pub(super) fn below(self, directory: &Path) -> Names {
        if self.path.is_absolute() {
            return self;
        }
        // The directory's own `%` is none of PATH's fields.
        let mut path = Vec::new();
        for byte in directory.as_os_str().as_bytes() {
            path.extend(std::iter::repeat_n(
                *byte,
                if *byte == b'%' { 2 } else { 1 },
            ));
        }
        let path = PathBuf::from(OsString::from_vec(path)).join(&self.path);
        Names::new(&path, self.rotation)
    }

    /// Whether names depend on the local time.
    pub(super) fn are_local(&self) -> bool {
        match self.rotation {
            None => self.fixed().is_none(),
            Some(rotation) => rotation.clock == Clock::Local,
        }
    }

    /// A file with more bytes than this is followed by another one.
    pub(super) fn size(&self) -> Option<u64> {
        self.rotation.and_then(|rotation| rotation.size)
    }

    /// Whether each start makes a name of its own, so that none should be made before it is needed.
    pub(super) fn begins_anew(&self) -> bool {
        self.rotation
            .is_some_and(|rotation| rotation.every.is_none())
    }

    /// The stamp to name the file by at `now`, when `current` names the one in use. `full`: that
    /// one has reached its size.
    pub(super) fn next(&self, current: Option<Stamp>, now: &Zoned, full: bool) -> Stamp {
        let Some(rotation) = self.rotation else {
            let seen = Stamp(now.timestamp().as_second());
            return match current {
                Some(current) if seen < current && current.0 - seen.0 <= SET_BACK => current,
                _ => seen,
            };
        };
        let seen = rotation.seen(now);
        let begin = rotation.begin(seen);
        match current {
            None => begin,
            Some(current) if current.0 - seen.0 > SET_BACK => begin,
            Some(current) if begin > current && rotation.every.is_some() => begin,
            Some(current) if full => current.max(Stamp(seen.0)),
            Some(current) => current,
        }
    }

    /// The name.
    pub(super) fn name(&self, stamp: Stamp, zone: &TimeZone) -> PathBuf {
        let at = Timestamp::from_second(stamp.0).unwrap_or_default();
        match self.rotation {
            None => self.text(&at.to_zoned(zone.clone())),
            // As rotatelogs decides it.
            Some(_) if !self.path.as_os_str().as_bytes().contains(&b'%') => {
                let mut path = self.path.clone().into_os_string();
                path.push(format!(".{:010}", stamp.0));
                path.into()
            }
            Some(_) => self.text(&at.to_zoned(TimeZone::UTC)),
        }
    }

    fn text(&self, at: &Zoned) -> PathBuf {
        let mut path = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => path.extend_from_slice(text),
                // Every field can be had of every time; were it otherwise, it stands for itself.
                Piece::Field(field) => path.extend_from_slice(
                    strtime::format(field, at)
                        .unwrap_or_else(|_| field.clone())
                        .as_bytes(),
                ),
            }
        }
        OsString::from_vec(path).into()
    }
}

impl Rotation {
    /// Of rotatelogs's arguments behind the name: seconds, a size as `5M`, or both; then minutes
    /// of offset from UTC. `local` is its `-l`.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn parse(words: &[&str], local: bool) -> Result<Rotation, String> {
        let mut rotation = Rotation {
            every: None,
            size: None,
            clock: if local { Clock::Local } else { Clock::Utc(0) },
        };
        for (at, word) in words.iter().enumerate() {
            let later = rotation.every.is_some() || rotation.size.is_some();
            if let Some(size) = size(word) {
                if rotation.size.replace(size).is_some() {
                    return Err(format!("`{word}`: there is a size already"));
                }
            } else if later && at + 1 == words.len() {
                rotation.clock = Clock::Utc(60 * offset(word, local)?);
            } else if rotation.every.is_some() {
                return Err(format!("`{word}`: there is a time already"));
            } else {
                rotation.every = Some(seconds(word)?);
            }
        }
        if rotation.every.is_none() && rotation.size.is_none() {
            return Err("neither a time, as 86400, nor a size, as 5M".into());
        }
        Ok(rotation)
    }

    /// The clock that intervals are counted by.
    fn seen(&self, now: &Zoned) -> Stamp {
        let east = match self.clock {
            Clock::Local => i64::from(now.offset().seconds()),
            Clock::Utc(east) => east,
        };
        Stamp(now.timestamp().as_second() + east)
    }

    fn begin(&self, seen: Stamp) -> Stamp {
        self.every
            .map_or(seen, |every| Stamp(seen.0 - seen.0.rem_euclid(every)))
    }
}

fn seconds(word: &str) -> Result<i64, String> {
    match word.parse::<u32>() {
        Ok(seconds @ 1..) => Ok(seconds.into()),
        _ => Err(format!(
            "`{word}` is neither a time in seconds, as 86400, nor a size, as 5M"
        )),
    }
}

/// Bytes of `100B`, `5K`, `5M`, `5G`.
fn size(word: &str) -> Option<u64> {
    let (number, unit) = word.split_at_checked(word.len().checked_sub(1)?)?;
    let unit = match unit {
        "B" => 1,
        "K" => 1024,
        "M" => 1024 * 1024,
        "G" => 1024 * 1024 * 1024,
        _ => return None,
    };
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|n| digits && *n > 0)?;
    number.checked_mul(unit)
}

fn offset(word: &str, local: bool) -> Result<i64, String> {
    if local {
        return Err(format!(
            "`{word}`: an offset from UTC does not go with local time (-l)"
        ));
    }
    match word.parse::<i64>() {
        Ok(minutes) if minutes.abs() <= MAX_OFFSET => Ok(minutes),
        _ => Err(format!(
            "`{word}` is no offset from UTC in minutes; a time and a size are written `86400 5M`"
        )),
    }
}

/// Conversions of strftime(3) that a name may hold, each also with one of the flags `-_0^#`.
/// `%%` is a `%`.
pub const FIELDS: &str = "aAbBcCdDeFgGhHIjklmMpPrRsSTuUVwWxXyYzZ";

fn pieces(mut path: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    while let Some((first, rest)) = path.split_first() {
        match (first, field(path)) {
            (b'%', Some((piece, rest))) => {
                match piece {
                    Piece::Text(more) => text.extend(more),
                    field => {
                        pieces.push(Piece::Text(std::mem::take(&mut text)));
                        pieces.push(field);
                    }
                }
                path = rest;
            }
            _ => {
                text.push(*first);
                path = rest;
            }
        }
    }
    pieces.push(Piece::Text(text));
    pieces
}

/// The field at the start, and what comes behind it.
fn field(path: &[u8]) -> Option<(Piece, &[u8])> {
    let rest = path.strip_prefix(b"%")?;
    if let Some(rest) = rest.strip_prefix(b"%") {
        return Some((Piece::Text(b"%".to_vec()), rest));
    }
    let (flag, rest) = match rest.split_first()? {
        (flag, rest) if b"-_0^#".contains(flag) => (Some(char::from(*flag)), rest),
        _ => (None, rest),
    };
    let (letter, rest) = rest.split_first()?;
    let letter = char::from(*letter);
    if !FIELDS.contains(letter) {
        return None;
    }
    // What the locale C has for them: no locale is set here, as none is in rotatelogs.
    let field = match letter {
        'c' => "%a %b %e %H:%M:%S %Y".to_owned(),
        'r' => "%I:%M:%S %p".to_owned(),
        'x' => "%m/%d/%y".to_owned(),
        'X' => "%H:%M:%S".to_owned(),
        letter => format!("%{}{letter}", flag.map_or(String::new(), String::from)),
    };
    Some((Piece::Field(field), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse().unwrap()
    }

    fn name(path: &str, time: &str) -> String {
        let names = Names::new(Path::new(path), None);
        let now = at(time);
        let stamp = names.next(None, &now, false);
        let name = names.name(stamp, now.time_zone());
        name.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_name_is_what_strftime_makes_of_it() {
        const TIME: &str = "2024-02-29T03:04:05+01:00[Europe/Berlin]";
        for (path, expected) in [
            ("/l/a.log", "/l/a.log"),
            ("/l/a.%Y-%m-%d.log", "/l/a.2024-02-29.log"),
            ("/l/%Y/%m/%d/%H.log", "/l/2024/02/29/03.log"),
            ("/l/%F_%T", "/l/2024-02-29_03:04:05"),
            ("/l/%y%j", "/l/24060"),
            ("/l/%a-%A-%b-%B-%h", "/l/Thu-Thursday-Feb-February-Feb"),
            ("/l/%G-W%V-%u %g %U %W %w", "/l/2024-W09-4 24 08 09 4"),
            ("/l/%I%p %l%P %k", "/l/03AM  3am  3"),
            ("/l/%D %R %C %e", "/l/02/29/24 03:04 20 29"),
            ("/l/%s", "/l/1709172245"),
            ("/l/%z %Z", "/l/+0100 CET"),
            (
                "/l/%c|%x|%X|%r",
                "/l/Thu Feb 29 03:04:05 2024|02/29/24|03:04:05|03:04:05 AM",
            ),
            ("/l/%-m.%_H.%^b.%0e", "/l/2. 3.FEB.29"),
            // No fields.
            ("/l/100%", "/l/100%"),
            ("/l/100%%", "/l/100%"),
            ("/l/%%Y", "/l/%Y"),
            ("/l/%%%Y", "/l/%2024"),
            ("/l/%!%Q%-%-Q%é", "/l/%!%Q%-%-Q%é"),
            ("/l/%n%t%E%+", "/l/%n%t%E%+"),
        ] {
            assert_eq!(name(path, TIME), expected, "{path}");
        }
    }

    #[test]
    fn every_field_of_the_list_can_be_had_of_every_time() {
        for time in [
            "2024-02-29T00:00:00+00:00[UTC]",
            "1970-01-01T00:00:00+00:00[UTC]",
            "2099-12-31T23:59:59-08:00[America/Los_Angeles]",
        ] {
            for letter in FIELDS.chars() {
                for flag in ["", "-", "_", "0", "^", "#"] {
                    let path = format!("%{flag}{letter}");
                    assert_ne!(name(&path, time), path);
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_stay() {
        let path = OsString::from_vec(b"/l/\xff%Y\xfe%".to_vec());
        let names = Names::new(Path::new(&path), None);
        let now = at("2026-01-02T00:00:00+00:00[UTC]");
        let name = names.name(names.next(None, &now, false), now.time_zone());
        assert_eq!(name.as_os_str().as_bytes(), b"/l/\xff2026\xfe%");
    }

    /// Names at these times, one after the other, as one log has them.
    fn series(path: &str, rotation: Option<Rotation>, times: &[&str]) -> Vec<String> {
        let names = Names::new(Path::new(path), rotation);
        let mut current = None;
        times
            .iter()
            .map(|time| {
                // A size was reached where the time is marked so.
                let now = at(time.trim_end_matches('!'));
                current = Some(names.next(current, &now, time.ends_with('!')));
                let name = names.name(current.unwrap(), now.time_zone());
                name.to_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn days_of_local_time_with_their_summer_and_leap_days() {
        assert_eq!(
            series(
                "%F",
                None,
                &[
                    "2024-02-28T23:59:59+01:00[Europe/Berlin]",
                    "2024-02-29T00:00:00+01:00[Europe/Berlin]",
                    "2024-02-29T23:59:59+01:00[Europe/Berlin]",
                    "2024-03-01T00:00:00+01:00[Europe/Berlin]",
                    // 23 hours, and 25.
                    "2024-03-31T23:59:59+02:00[Europe/Berlin]",
                    "2024-04-01T00:00:00+02:00[Europe/Berlin]",
                    "2024-10-27T00:00:00+02:00[Europe/Berlin]",
                    "2024-10-27T23:59:59+01:00[Europe/Berlin]",
                    "2024-10-28T00:00:00+01:00[Europe/Berlin]",
                ]
            ),
            [
                "2024-02-28",
                "2024-02-29",
                "2024-02-29",
                "2024-03-01",
                "2024-03-31",
                "2024-04-01",
                "2024-10-27",
                "2024-10-27",
                "2024-10-28"
            ]
        );
        // The hour that comes twice has one name; with %z it has two.
        let twice = [
            "2024-10-27T01:59:59+02:00[Europe/Berlin]",
            "2024-10-27T02:30:00+02:00[Europe/Berlin]",
            "2024-10-27T02:30:00+01:00[Europe/Berlin]",
            "2024-10-27T03:00:00+01:00[Europe/Berlin]",
        ];
        assert_eq!(series("%H", None, &twice), ["01", "02", "02", "03"]);
        assert_eq!(
            series("%H%z", None, &twice),
            ["01+0200", "02+0200", "02+0100", "03+0100"]
        );
    }

    #[test]
    fn a_clock_set_back_a_little_brings_no_old_name_back() {
        assert_eq!(
            series(
                "%F-%H",
                None,
                &[
                    "2026-05-02T00:00:01+00:00[UTC]",
                    "2026-05-01T23:59:59+00:00[UTC]",
                    "2026-05-01T23:00:02+00:00[UTC]",
                    "2026-05-02T00:10:00+00:00[UTC]",
                    // More than an hour: the clock was wrong before.
                    "2026-05-01T22:00:00+00:00[UTC]",
                    "2026-05-01T23:00:00+00:00[UTC]",
                ]
            ),
            [
                "2026-05-02-00",
                "2026-05-02-00",
                "2026-05-02-00",
                "2026-05-02-00",
                "2026-05-01-22",
                "2026-05-01-23"
            ]
        );
    }

    #[test]
    fn another_time_zone_makes_another_name() {
        assert_eq!(
            series(
                "%F",
                None,
                &[
                    "2026-05-02T01:00:00+02:00[Europe/Berlin]",
                    "2026-05-01T23:00:00+00:00[UTC]",
                    "2026-05-02T08:00:00+09:00[Asia/Tokyo]",
                ]
            ),
            ["2026-05-02", "2026-05-01", "2026-05-02"]
        );
    }

    fn rotation(words: &str) -> Result<Rotation, String> {
        let words: Vec<&str> = words.split(' ').collect();
        match words.as_slice() {
            ["-l", rest @ ..] => Rotation::parse(rest, true),
            words => Rotation::parse(words, false),
        }
    }

    #[test]
    fn the_arguments_of_rotatelogs_are_read_as_it_reads_them() {
        let of = |every, size, clock| Rotation { every, size, clock };
        const M: u64 = 1024 * 1024;
        for (words, expected) in [
            ("86400", of(Some(86_400), None, Clock::Utc(0))),
            ("-l 86400", of(Some(86_400), None, Clock::Local)),
            ("86400 -120", of(Some(86_400), None, Clock::Utc(-7_200))),
            ("86400 0", of(Some(86_400), None, Clock::Utc(0))),
            ("100B", of(None, Some(100), Clock::Utc(0))),
            ("7K", of(None, Some(7 * 1024), Clock::Utc(0))),
            ("2G", of(None, Some(2048 * M), Clock::Utc(0))),
            ("5M 60", of(None, Some(5 * M), Clock::Utc(3_600))),
            ("86400 5M", of(Some(86_400), Some(5 * M), Clock::Utc(0))),
            (
                "86400 5M 60",
                of(Some(86_400), Some(5 * M), Clock::Utc(3_600)),
            ),
            (
                "5M 86400 60",
                of(Some(86_400), Some(5 * M), Clock::Utc(3_600)),
            ),
        ] {
            assert_eq!(rotation(words), Ok(expected), "{words}");
        }
        for (words, why) in [
            ("0", "neither"),
            ("-5", "neither"),
            ("5m", "neither"),
            ("0M", "neither"),
            ("+5M", "neither"),
            ("M", "neither"),
            ("", "neither"),
            ("99999999999G", "neither"),
            ("5M 6M", "size already"),
            ("86400 60 5M", "time already"),
            // rotatelogs takes 86400 minutes for the offset, and names files 60 days ahead.
            ("5M 86400", "no offset"),
            ("-l 86400 60", "local time"),
            ("86400 x", "no offset"),
        ] {
            let said = rotation(words).unwrap_err();
            assert!(said.contains(why), "{words}: {said}");
        }
        assert!(Rotation::parse(&[], false).is_err());
    }

    #[test]
    fn rotations_name_files_as_rotatelogs_does() {
        let day = [
            "2026-11-22T18:59:59-05:00[America/New_York]",
            "2026-11-22T19:00:00-05:00[America/New_York]",
            "2026-11-22T23:59:59-05:00[America/New_York]",
            "2026-11-23T00:00:00-05:00[America/New_York]",
        ];
        // What the real one writes in that zone.
        for (path, words, expected) in [
            (
                "a",
                "86400",
                [
                    "a.1795305600",
                    "a.1795392000",
                    "a.1795392000",
                    "a.1795392000",
                ],
            ),
            (
                "a",
                "-l 86400",
                [
                    "a.1795305600",
                    "a.1795305600",
                    "a.1795305600",
                    "a.1795392000",
                ],
            ),
            (
                "a",
                "86400 -240",
                [
                    "a.1795305600",
                    "a.1795305600",
                    "a.1795392000",
                    "a.1795392000",
                ],
            ),
            ("%d_%H", "86400", ["22_00", "23_00", "23_00", "23_00"]),
            ("%d_%H", "-l 14400", ["22_16", "22_16", "22_20", "23_00"]),
            ("100%", "-l 86400", ["100%"; 4]),
        ] {
            let rotation = rotation(words).unwrap();
            assert_eq!(
                series(path, Some(rotation), &day),
                expected,
                "{path} {words}"
            );
        }
    }

    #[test]
    fn a_file_that_is_full_is_followed_by_one_named_by_the_second() {
        let times = [
            "1970-01-01T00:10:00+00:00[UTC]",
            "1970-01-01T00:10:01+00:00[UTC]!",
            // The size is reached again in the same second, which has no other name.
            "1970-01-01T00:10:01+00:00[UTC]!",
            "1970-01-01T00:10:09+00:00[UTC]",
            "1970-01-01T00:20:03+00:00[UTC]",
            // Set back a little, and by more than an hour.
            "1970-01-01T00:19:59+00:00[UTC]!",
            "1969-12-31T23:00:05+00:00[UTC]",
        ];
        assert_eq!(
            series("a", Some(rotation("600 1B").unwrap()), &times),
            [
                "a.0000000600",
                "a.0000000601",
                "a.0000000601",
                "a.0000000601",
                "a.0000001200",
                "a.0000001200",
                "a.-000003600"
            ]
        );
        assert_eq!(
            series("a", Some(rotation("1B").unwrap()), &times[..5]),
            [
                "a.0000000600",
                "a.0000000601",
                "a.0000000601",
                "a.0000000601",
                "a.0000000601"
            ]
        );
    }

    #[test]
    fn an_hour_that_comes_twice_stays_in_one_file() {
        assert_eq!(
            series(
                "a",
                Some(rotation("-l 3600").unwrap()),
                &[
                    "2024-10-27T02:59:59+02:00[Europe/Berlin]",
                    "2024-10-27T02:00:00+01:00[Europe/Berlin]",
                    "2024-10-27T03:00:00+01:00[Europe/Berlin]",
                ]
            ),
            ["a.1729994400", "a.1729994400", "a.1729998000"]
        );
    }

    #[test]
    fn relative_names_begin_at_a_directory_whose_percent_is_its_own() {
        let now = at("2026-01-02T00:00:00+00:00[UTC]");
        let names = Names::new(Path::new("%Y"), None).below(Path::new("/100%Y"));
        let name = names.name(names.next(None, &now, false), now.time_zone());
        assert_eq!(name, Path::new("/100%Y/2026"));
        assert_eq!(names.fixed(), None);
        let fixed = Names::new(Path::new("/a%%%"), None);
        assert_eq!(fixed.fixed(), Some("/a%%".into()));
        assert_eq!(fixed.clone().below(Path::new("/x")), fixed);
    }

    proptest::proptest! {
        #[test]
        fn no_path_and_no_argument_makes_it_panic(path in "[%a-zA-Z0-9#^_/-]{0,20}", words in "(-l )?[0-9A-Z ]{0,20}", second in -9_999_999_999i64..99_999_999_999) {
            let names = Names::new(Path::new(&path), rotation(&words).ok());
            let now = Timestamp::from_second(second).unwrap().to_zoned(TimeZone::UTC);
            let stamp = names.next(None, &now, false);
            let _ = (names.name(stamp, now.time_zone()), names.fixed());
        }
    }
}
