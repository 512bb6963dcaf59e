//! A log line into fields, and above all: which bytes are Apache's own word for the client.
//!
//! Lines are bytes, without their final newline. Nothing here allocates per line.
#![forbid(unsafe_code)]

mod access;
mod address;
mod display;
mod error;
mod errorformat;
mod format;
mod shape;
mod strftime;
pub mod time;
mod unescape;

use std::net::IpAddr;
use std::ops::Range;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

pub use display::display;
use errorformat::ErrorFormat;
use format::Format;
use time::Stamp;
pub use unescape::unescape;

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
    /// Where the (first) time stands in the line, without brackets. fail2ban cuts it out before
    /// matching.
    pub time: Option<Range<usize>>,
    /// What the line's times say; `None` where they do not tell the day.
    pub stamp: Option<Stamp>,
    /// `%>s`.
    pub status: Option<u16>,
    /// `%r` as logged (still escaped).
    pub request: Option<&'a [u8]>,
    /// `%{User-Agent}i` as logged.
    pub agent: Option<&'a [u8]>,
    /// The process that wrote an error line; `None` in the form of Apache 2.2.
    pub pid: Option<u64>,
    /// Where in a long error line a second prefix of Apache's stands: what follows may be a
    /// neighbour's line, or a client's imitation of one.
    pub second: Option<usize>,
}

/// The formats that have a name, in the order in which `auto` tries them. They cannot be mistaken
/// for one another: each must fit a line from end to end, and no `%v:%p` fits an address.
const NAMED: [(&str, &str); 5] = [
    (
        "pipeban",
        r#"%v:%p %a %{c}a %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""#,
    ),
    (
        "vhost_combined",
        r#"%v:%p %h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""#,
    ),
    (
        "combined",
        r#"%h %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""#,
    ),
    ("vhost_common", r#"%v:%p %h %l %u %t "%r" %>s %O"#),
    ("common", r#"%h %l %u %t "%r" %>s %O"#),
];

/// Up to this many bytes an error line comes through the pipe in one piece, newline included.
pub(crate) const WHOLE: usize = 4096;

/// A log format, compiled: turns lines into records. Shared by threads.
///
/// # Whom a line names
///
/// A record has a client only where Apache's own word for it stands in the line and no client
/// could have written it: see `format` (LogFormat) and `errorformat` (ErrorLogFormat). Where the
/// format itself forbids that, [`Parser::doubt`] says so. An access line without such a client is
/// no record: it could ban nobody.
#[derive(Debug)]
pub struct Parser {
    form: Form,
}

#[derive(Debug)]
enum Form {
    Error,
    ErrorFormat {
        text: String,
        format: ErrorFormat,
    },
    Access {
        /// Of the named ones, else the LogFormat string.
        name: String,
        format: Format,
    },
    Auto {
        candidates: Vec<(&'static str, Format)>,
        /// Index of the candidate that the first line with a client was of.
        chosen: OnceLock<usize>,
    },
}

impl Parser {
    /// `format` is `combined`, `vhost_combined`, `common`, `vhost_common`, `pipeban`, a
    /// LogFormat string, or `auto`; for the error log `default`, an ErrorLogFormat string, or
    /// `auto`.
    ///
    /// # Errors
    /// A text for the operator when the format is not known.
    pub fn new(kind: Kind, format: &str) -> Result<Parser, String> {
        let form = match (kind, format) {
            (Kind::Error, "default" | "auto") => Form::Error,
            (Kind::Error, text) => Form::ErrorFormat {
                text: text.into(),
                format: ErrorFormat::compile(text)?,
            },
            (Kind::Access, "auto") => Form::Auto {
                candidates: NAMED
                    .iter()
                    .map(|(name, text)| Ok((*name, Format::compile(text)?)))
                    .collect::<Result<_, String>>()?,
                chosen: OnceLock::new(),
            },
            (Kind::Access, _) => {
                let named = NAMED.iter().find(|(name, _)| *name == format);
                let (name, text) = named.copied().unwrap_or((format, format));
                Form::Access {
                    name: name.into(),
                    format: Format::compile(text)?,
                }
            }
        };
        Ok(Parser { form })
    }

    /// The fields of one line (without newline); `None` when the line is not wholly of the
    /// format, or is an access line that names no client who could be banned.
    ///
    /// With `auto` the first line that names a client decides for all that follow.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Option<Record<'a>> {
        let with_client = |record: &Record<'_>| record.client.is_some();
        let error = |record: Record<'a>| Record {
            second: (line.len() >= WHOLE)
                .then(|| self.second_prefix(line))
                .flatten(),
            ..record
        };
        match &self.form {
            Form::Error => error::parse(line).map(error),
            Form::ErrorFormat { format, .. } => format.parse(line).map(error),
            Form::Access { format, .. } => access::parse(format, line).filter(with_client),
            Form::Auto { candidates, chosen } => {
                if let Some((_, format)) = chosen.get().and_then(|at| candidates.get(*at)) {
                    return access::parse(format, line).filter(with_client);
                }
                let (at, record) =
                    candidates
                        .iter()
                        .enumerate()
                        .find_map(|(at, (_, format))| {
                            let record = access::parse(format, line)?;
                            // Else `-` for the peer and a user name of two words make one format
                            // look like another.
                            let peer = record.peer.is_some() || !format.has_peer();
                            peer.then_some((at, record))
                        })?;
                if !with_client(&record) {
                    return None;
                }
                // Another thread may have been first; its choice stands from the next line.
                let _ = chosen.set(at);
                Some(record)
            }
        }
    }

    /// The format in use: its name (`default` for the error log), or the string it was made of;
    /// `None` while `auto` has not decided.
    pub fn chosen(&self) -> Option<&str> {
        match &self.form {
            Form::Error => Some("default"),
            Form::ErrorFormat { text: name, .. } | Form::Access { name, .. } => Some(name),
            Form::Auto { candidates, chosen } => chosen
                .get()
                .and_then(|at| candidates.get(*at))
                .map(|(name, _)| *name),
        }
    }

    /// Why no line of this format can ban anybody; `None`: they can.
    pub fn doubt(&self) -> Option<&str> {
        match &self.form {
            Form::Error | Form::Auto { .. } => None,
            Form::ErrorFormat { format, .. } => format.doubt.as_deref(),
            Form::Access { format, .. } => format.doubt.as_deref(),
        }
    }

    /// Whether the client is what stands where `%h` does: with `HostnameLookups` a name.
    pub fn is_client_by_name(&self) -> bool {
        match &self.form {
            Form::Access { format, .. } => format.is_client_by_name(),
            Form::Error | Form::ErrorFormat { .. } | Form::Auto { .. } => false,
        }
    }

    /// Whether it reads every line of the other's format as the other does. `auto` reads the
    /// formats that have a name.
    pub fn reads_as(&self, other: &Parser) -> bool {
        match (&self.form, &other.form) {
            (Form::Error, Form::Error) => true,
            (Form::ErrorFormat { text, .. }, Form::ErrorFormat { text: theirs, .. }) => {
                text == theirs
            }
            (Form::Access { format, .. }, Form::Access { format: theirs, .. }) => {
                format.reads(theirs)
            }
            (Form::Auto { candidates, .. }, Form::Access { format: theirs, .. }) => {
                let mut formats = candidates.iter().map(|(_, format)| format);
                formats.any(|format| format.reads(theirs))
            }
            _ => false,
        }
    }

    /// Why [`Parser::parse`] gave nothing for this line, in a few words.
    pub fn complaint(&self, line: &[u8]) -> &'static str {
        if self.names_nobody(line) {
            return "no address stands where the client should";
        }
        match &self.form {
            Form::Error | Form::ErrorFormat { .. } => "it does not begin as Apache's lines do",
            Form::Access { .. } => "it is not of this format",
            Form::Auto { .. } if self.chosen().is_some() => "it is not of the first lines' format",
            Form::Auto { .. } => "it is of no format with a name: say which with --format",
        }
    }

    /// Whether it is an access line that lacks nothing but the client's address: a name stands
    /// there.
    pub fn names_nobody(&self, line: &[u8]) -> bool {
        let is = |format: &Format| {
            access::parse(format, line).is_some_and(|record| record.client.is_none())
        };
        match &self.form {
            Form::Error | Form::ErrorFormat { .. } => false,
            Form::Access { format, .. } => is(format),
            Form::Auto { candidates, chosen } => {
                match chosen.get().and_then(|at| candidates.get(*at)) {
                    Some((_, format)) => is(format),
                    None => candidates.iter().any(|(_, format)| is(format)),
                }
            }
        }
    }

    /// Where in an error line a second prefix of Apache's stands: see [`second_prefix`].
    pub fn second_prefix(&self, line: &[u8]) -> Option<usize> {
        match &self.form {
            Form::Error => second_prefix(line),
            Form::ErrorFormat { format, .. } => format.second(line),
            Form::Access { .. } | Form::Auto { .. } => None,
        }
    }
}

/// Where in an error line a second prefix of Apache's stands: two lines torn into one, or a
/// client's imitation. Access lines have none: what would look like one lacks its quotes.
pub fn second_prefix(line: &[u8]) -> Option<usize> {
    memchr::memmem::find_iter(line, b"[pid ")
        .filter_map(|pid| memchr::memmem::rfind(line.get(..pid)?, b"[").map(|module| (module, pid)))
        .find_map(|(module, _)| {
            let start = memchr::memrchr(b'[', line.get(..module)?)?;
            (start > 0 && error::begins_line(line.get(start..)?)).then_some(start)
        })
}

#[cfg(test)]
mod tests;
