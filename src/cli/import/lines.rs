//! The lines of an import, one at a time.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use super::lists;
use crate::cli::ask;
use crate::config::JailName;
use crate::control::{Offered, Until};

/// Bytes of a line at most.
const LONGEST: usize = 4 << 10;

/// Characters kept of a reason.
const MAX_REASON: usize = 200;

/// The meaning of a line.
pub(super) enum Line {
    Ban(Box<Offered>),
    /// Blank, or a comment.
    Empty,
    Malformed {
        column: Option<usize>,
        why: String,
    },
    /// The end of the input.
    End,
}

/// A ban as a line has it. As JSON: keys that are not listed here are ignored.
#[derive(Default, Deserialize)]
struct Written {
    host: String,
    jail: Option<JailName>,
    since: Option<Timestamp>,
    #[serde(default, deserialize_with = "present")]
    until: Option<Option<Timestamp>>,
    #[serde(default)]
    failures: u32,
    reason: Option<String>,
    behind: Option<IpAddr>,
}

/// Keeps `null` (for ever) apart from a missing key (the jail's bantime).
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Timestamp>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Why a line is malformed, and at which column.
type Malformed = (Option<usize>, String);

/// Spamhaus's lines name the network so, and end with one about the file.
#[derive(Deserialize)]
struct Spamhaus {
    cidr: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// The bans of a line, none for one without.
fn read(line: &[u8]) -> Result<Vec<Written>, Malformed> {
    let of = |host| Written {
        host,
        ..Written::default()
    };
    if line.starts_with(b"{") && line != b"{" {
        if let Ok(spamhaus) = serde_json::from_slice::<Spamhaus>(line) {
            match (spamhaus.cidr, spamhaus.kind.as_deref()) {
                (Some(cidr), _) => return Ok(vec![of(cidr)]),
                (None, Some("metadata")) => return Ok(Vec::new()),
                _ => {}
            }
        }
        let read = serde_json::from_slice(line).map_err(|error| {
            let place = format!(" at line {} column {}", error.line(), error.column());
            let why = error.to_string().replace(&place, "");
            (Some(error.column()), why)
        });
        return read.map(|written| vec![written]);
    }
    let Ok(text) = std::str::from_utf8(line) else {
        return Err((None, "neither JSON nor an address: it is not UTF-8".into()));
    };
    match lists::addresses(text) {
        Some(listed) => {
            let end = |left| Timestamp::now().checked_add(left).ok();
            let written = listed.into_iter().map(|one| Written {
                until: one.left.and_then(end).map(Some),
                ..of(one.host)
            });
            Ok(written.collect())
        }
        // The error names what is wrong with it.
        None => Ok(vec![of(text.to_owned())]),
    }
}

/// Reads lines, and keeps one of them in memory.
pub(super) struct Reader {
    input: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    /// The rest of a line with several bans.
    more: VecDeque<Line>,
}

impl Reader {
    pub(super) fn new(input: Box<dyn BufRead>) -> Reader {
        Reader {
            input,
            line: Vec::new(),
            number: 0,
            more: VecDeque::new(),
        }
    }

    /// The number of the last line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line. `jail` gets all bans; `None`: the line names the jail.
    ///
    /// # Errors
    /// The input cannot be read.
    pub(super) fn next(&mut self, jail: Option<&JailName>) -> io::Result<Line> {
        if let Some(line) = self.more.pop_front() {
            return Ok(line);
        }
        self.line.clear();
        let most = LONGEST as u64 + 1;
        let read = (&mut self.input)
            .take(most)
            .read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(Line::End);
        }
        self.number += 1;
        if self.number == 1 {
            refuse_whole(&self.line)?;
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > LONGEST {
            self.input.skip_until(b'\n')?;
            return Ok(malformed(format!("the line has more than {LONGEST} bytes")));
        }
        let mut lines = parse(&self.line, jail).into_iter();
        let first = lines.next().unwrap_or(Line::Empty);
        self.more.extend(lines);
        Ok(first)
    }
}

/// Documents that are JSON as a whole, whose programs also print lines.
fn refuse_whole(first: &[u8]) -> io::Result<()> {
    let instead = match first.trim_ascii() {
        b"[" => "`cscli decisions list -o raw`",
        line if line.starts_with(b"[{\"") => "`cscli decisions list -o raw`",
        line if line.starts_with(b"{\"nftables\"") => "`nft list set`, without `-j`",
        _ => return Ok(()),
    };
    Err(io::Error::other(format!(
        "it is one JSON document, and pipeban reads one ban per line: import the output of {instead}"
    )))
}

fn malformed(why: impl Into<String>) -> Line {
    let why = why.into();
    Line::Malformed { column: None, why }
}

fn parse(whole: &[u8], jail: Option<&JailName>) -> Vec<Line> {
    let whole = whole.strip_prefix("\u{feff}".as_bytes()).unwrap_or(whole);
    let line = whole.trim_ascii();
    if line.is_empty() {
        return Vec::new();
    }
    let indent = whole.len() - whole.trim_ascii_start().len();
    match read(line) {
        Ok(written) => {
            let lines = written
                .into_iter()
                .map(|written| match offered(written, jail) {
                    Ok(offered) => Line::Ban(Box::new(offered)),
                    Err(why) => malformed(why),
                });
            lines.collect()
        }
        Err((column, why)) => vec![Line::Malformed {
            column: column.map(|column| indent + column),
            why,
        }],
    }
}

fn offered(written: Written, jail: Option<&JailName>) -> Result<Offered, String> {
    let net = ask::network(&written.host)?;
    let jail = jail.cloned().or(written.jail);
    let jail = jail.ok_or("the line names no jail: choose one with `--jail`")?;
    let short = |reason: String| reason.chars().take(MAX_REASON).collect();
    Ok(Offered {
        net,
        jail,
        since: written.since,
        until: match written.until {
            None => Until::Jail,
            Some(None) => Until::ForEver,
            Some(Some(until)) => Until::At(until),
        },
        failures: written.failures,
        reason: written.reason.map(short),
        behind: written.behind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let known = [
            "203.0.113.9",
            "2001:db8::/32",
            "-",
            "/",
            ",",
            " ; ",
            "\n",
            "ban,1,Ip,",
            "12h3m",
            "{\"host\":\"203.0.113.9\",",
            "\"until\":null}",
            "\"cidr\":\"10.0.0.0/8\"}",
            "add set ",
            " timeout 600",
            "\"since\":\"2026-11-22T11:00:33Z\"",
            "\"reason\":\"\u{202e}x\"}",
        ];
        let known = prop::sample::select(known.to_vec()).prop_map(|text| text.as_bytes().to_vec());
        prop_oneof![4 => known, 1 => prop::collection::vec(any::<u8>(), 0..9)]
    }

    proptest! {
        #[test]
        fn any_bytes_are_bans_or_malformed_lines(pieces in prop::collection::vec(piece(), 0..30)) {
            let (text, jail) = (pieces.concat(), "a".parse().unwrap());
            let lines = 1 + memchr::memchr_iter(b'\n', &text).count() as u64;
            let mut reader = Reader::new(Box::new(io::Cursor::new(text)));
            // An error: the first line is of another program's JSON.
            while let Ok(line) = reader.next(Some(&jail)) {
                match line {
                    Line::End => break,
                    Line::Ban(ban) => {
                        prop_assert_eq!(ban.net, ban.net.trunc());
                        let reason = ban.reason.unwrap_or_default();
                        prop_assert!(reason.chars().count() <= MAX_REASON + 1);
                    }
                    Line::Malformed { why, .. } => prop_assert!(!why.is_empty()),
                    Line::Empty => {}
                }
                prop_assert!(reader.number() <= lines);
            }
        }
    }
}
