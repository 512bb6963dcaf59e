//! The log file's name at a given time; pure.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use jiff::fmt::strtime;
use jiff::{Timestamp, Zoned};

/// A clock that is set back by at most this (seconds) does not bring an earlier name back.
const SET_BACK: i64 = 3600;

/// PATH, which may hold fields of strftime(3): see [`FIELDS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    path: PathBuf,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    /// A conversion that jiff knows, `%` included.
    Field(String),
}

impl Names {
    /// Text that is not a field is kept as it is, also a `%` at the end.
    pub fn new(path: &Path) -> Names {
        Names {
            path: path.to_owned(),
            pieces: pieces(path.as_os_str().as_bytes()),
        }
    }

    /// PATH as the command line gives it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name, where it is the same at all times.
    pub fn fixed(&self) -> Option<PathBuf> {
        let fixed = |piece: &Piece| matches!(piece, Piece::Text(_));
        self.pieces
            .iter()
            .all(fixed)
            .then(|| self.name(&Zoned::default()))
    }

    /// A relative PATH is joined to `directory`.
    pub(super) fn below(self, directory: &Path) -> Names {
        if self.path.is_absolute() {
            return self;
        }
        // A `%` in the directory is not a field.
        let mut path = Vec::new();
        for byte in directory.as_os_str().as_bytes() {
            path.extend(std::iter::repeat_n(
                *byte,
                if *byte == b'%' { 2 } else { 1 },
            ));
        }
        Names::new(&PathBuf::from(OsString::from_vec(path)).join(&self.path))
    }

    /// The time to name the file by at `now`. `last` named the file in use: a clock that is set
    /// back a little does not bring an earlier name back.
    pub(super) fn next(last: Option<Timestamp>, now: Timestamp) -> Timestamp {
        match last {
            Some(last) if now < last && last.as_second() - now.as_second() <= SET_BACK => last,
            _ => now,
        }
    }

    /// The name at that time.
    pub(super) fn name(&self, at: &Zoned) -> PathBuf {
        let mut path = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => path.extend_from_slice(text),
                // Formatting these fields does not fail; if it did, the field is kept as text.
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

/// The field at the start, and the rest.
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
    // As in the C locale.
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
        let name = Names::new(Path::new(path)).name(&at(time));
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
    fn every_field_is_formatted_at_any_time() {
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
    fn bytes_that_are_not_text_are_kept() {
        let path = OsString::from_vec(b"/l/\xff%Y\xfe%".to_vec());
        let name = Names::new(Path::new(&path)).name(&at("2026-01-02T00:00:00+00:00[UTC]"));
        assert_eq!(name.as_os_str().as_bytes(), b"/l/\xff2026\xfe%");
    }

    /// The names of one log at these times.
    fn series(path: &str, times: &[&str]) -> Vec<String> {
        let names = Names::new(Path::new(path));
        let mut last = None;
        times
            .iter()
            .map(|time| {
                let now = at(time);
                let next = Names::next(last, now.timestamp());
                last = Some(next);
                let name = names.name(&next.to_zoned(now.time_zone().clone()));
                name.to_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn a_name_follows_the_local_day() {
        assert_eq!(
            series(
                "%F",
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
        assert_eq!(series("%H", &twice), ["01", "02", "02", "03"]);
        assert_eq!(
            series("%H%z", &twice),
            ["01+0200", "02+0200", "02+0100", "03+0100"]
        );
    }

    #[test]
    fn a_clock_set_back_a_little_brings_no_earlier_name_back() {
        assert_eq!(
            series(
                "%F-%H",
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
                &[
                    "2026-05-02T01:00:00+02:00[Europe/Berlin]",
                    "2026-05-01T23:00:00+00:00[UTC]",
                    "2026-05-02T08:00:00+09:00[Asia/Tokyo]",
                ]
            ),
            ["2026-05-02", "2026-05-01", "2026-05-02"]
        );
    }

    #[test]
    fn a_relative_name_keeps_the_percent_of_its_directory() {
        let now = at("2026-01-02T00:00:00+00:00[UTC]");
        let names = Names::new(Path::new("%Y")).below(Path::new("/100%Y"));
        assert_eq!(names.name(&now), Path::new("/100%Y/2026"));
        assert_eq!(names.fixed(), None);
        let fixed = Names::new(Path::new("/a%%%"));
        assert_eq!(fixed.fixed(), Some("/a%%".into()));
        assert_eq!(fixed.clone().below(Path::new("/x")), fixed);
    }

    proptest::proptest! {
        #[test]
        fn no_path_makes_it_panic(
            path in "[%a-zA-Z0-9#^_/-]{0,20}",
            second in -9_999_999_999i64..99_999_999_999,
        ) {
            let names = Names::new(Path::new(&path));
            let now = Timestamp::from_second(second).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            let _ = (names.name(&now), names.fixed());
        }
    }
}
