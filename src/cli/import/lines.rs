//! A file of bans, line by line, never more than one of them in memory.

use std::io::{self, BufRead, Read};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use crate::cli::ask;
use crate::config::JailName;
use crate::control::{Offered, Until};

/// A longer line is no ban.
const LONGEST: usize = 4 << 10;

/// Characters kept of a reason.
const MOST_REASON: usize = 200;

/// What a line says.
pub(super) enum Line {
    Ban(Box<Offered>),
    /// Nothing, or a comment.
    Empty,
    Wrong {
        column: Option<usize>,
        why: String,
    },
    /// There are no more.
    End,
}

pub(super) struct Reader {
    input: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
}

/// A line of JSON; keys that are not known say nothing.
#[derive(Deserialize)]
struct Written {
    host: String,
    jail: Option<JailName>,
    since: Option<Timestamp>,
    #[serde(default, deserialize_with = "given")]
    until: Option<Option<Timestamp>>,
    #[serde(default)]
    failures: u32,
    reason: Option<String>,
    behind: Option<IpAddr>,
}

/// That `until` is null says something else than that it is missing.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Timestamp>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl Reader {
    pub(super) fn new(input: Box<dyn BufRead>) -> Reader {
        Reader {
            input,
            line: Vec::new(),
            number: 0,
        }
    }

    /// The number of the line that was read last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line's ban, on behalf of `jail` where one is given.
    ///
    /// # Errors
    /// What reading said.
    pub(super) fn next(&mut self, jail: Option<&JailName>) -> io::Result<Line> {
        self.line.clear();
        let most = LONGEST as u64 + 1;
        let read = (&mut self.input)
            .take(most)
            .read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(Line::End);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > LONGEST {
            self.input.skip_until(b'\n')?;
            return Ok(wrong(format!("the line has more than {LONGEST} bytes")));
        }
        Ok(understood(&self.line, jail))
    }
}

fn wrong(why: impl Into<String>) -> Line {
    let why = why.into();
    Line::Wrong { column: None, why }
}

fn understood(whole: &[u8], jail: Option<&JailName>) -> Line {
    let line = whole.trim_ascii();
    let indent = whole.len() - whole.trim_ascii_start().len();
    let written = match line.first() {
        None | Some(b'#') => return Line::Empty,
        Some(b'{') => match serde_json::from_slice::<Written>(line) {
            Ok(written) => written,
            Err(error) => {
                let place = format!(" at line {} column {}", error.line(), error.column());
                let why = error.to_string().replace(&place, "");
                let column = Some(indent + error.column());
                return Line::Wrong { column, why };
            }
        },
        Some(_) => match std::str::from_utf8(line) {
            Ok(host) => Written {
                host: host.to_owned(),
                jail: None,
                since: None,
                until: None,
                failures: 0,
                reason: None,
                behind: None,
            },
            Err(_) => return wrong("neither JSON nor an address: it is not UTF-8"),
        },
    };
    match offered(written, jail) {
        Ok(offered) => Line::Ban(Box::new(offered)),
        Err(why) => wrong(why),
    }
}

fn offered(written: Written, jail: Option<&JailName>) -> Result<Offered, String> {
    let net: IpNet = ask::network(&written.host)?;
    let jail = jail.cloned().or(written.jail);
    let jail = jail.ok_or("it names no jail: say on whose behalf with `--jail`")?;
    let short = |reason: String| reason.chars().take(MOST_REASON).collect();
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
