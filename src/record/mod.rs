//! A log line into fields, and above all: which bytes are Apache's own word for the client.
//!
//! Lines are bytes, without their final newline. Nothing here allocates per line.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Which of Apache's two kinds of log a pipe carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `CustomLog`, `TransferLog`, `GlobalLog`.
    Access,
    /// `ErrorLog`.
    Error,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Access => "access",
            Kind::Error => "error",
        })
    }
}

/// The client as Apache names it in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client<'a> {
    /// The address, `::ffff:a.b.c.d` already unmapped to IPv4.
    pub addr: IpAddr,
    /// The exact text in the line (without a port): what `<HOST>` stands for.
    pub text: &'a [u8],
}

/// The fields of one line. All borrow from the line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record<'a> {
    /// Apache's own client field: `%a`, else `%h` where an address stands there, else `%{c}a`;
    /// in the error log the first `[client ...]` after the prefix. `None`: nobody can be banned.
    pub client: Option<Client<'a>>,
    /// `%{c}a`, the peer of the connection, where the format carries it beside the client.
    pub peer: Option<IpAddr>,
    /// `%v`, where the format carries it, without the port.
    pub vhost: Option<&'a [u8]>,
    /// Where the time stands in the line, without brackets. fail2ban cuts it out before matching.
    pub time: Option<Range<usize>>,
    /// `%>s`.
    pub status: Option<u16>,
    /// `%r` as logged (still escaped).
    pub request: Option<&'a [u8]>,
    /// `%{User-Agent}i` as logged.
    pub agent: Option<&'a [u8]>,
}

/// A log format, compiled: turns lines into records.
#[derive(Debug)]
pub struct Parser {}

impl Parser {
    /// `format` is `combined`, `vhost_combined`, `common`, `vhost_common`, `pipeban`, a
    /// LogFormat string, or `auto`; for the error log `default` or `auto`.
    ///
    /// # Errors
    /// A text for the operator when the format is not known.
    pub fn new(kind: Kind, format: &str) -> Result<Parser, String> {
        let _ = (kind, format);
        Ok(Parser {})
    }

    /// The fields of one line (without newline); `None` when the line is not wholly of the format.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Option<Record<'a>> {
        let _ = line;
        None
    }
}

mod display;

pub use display::display;
