//! A log line into fields, and above all: which bytes are Apache's client field.
//!
//! Lines are bytes, without their final newline. Nothing here allocates per line.
#![forbid(unsafe_code)]

mod access;
mod address;
mod belief;
mod codes;
mod display;
mod error;
mod errorformat;
mod fields;
mod format;
mod glimpse;
mod module_client;
mod rendered;
mod shape;
mod strftime;
pub mod time;
mod unescape;

use std::sync::OnceLock;

pub use codes::{ATTACK_CODES, meaning};
pub(crate) use display::is_hidden;
pub use display::{display, display_columns, display_json, display_lines};
use errorformat::ErrorFormat;
pub use fields::{Client, ClientSource, Kind, Record, Rest};
use format::Format;
pub use glimpse::glimpse;
pub use module_client::{ModuleClient, refused_module};
pub use rendered::Rendered;
use shape::Role;
pub use unescape::unescape;

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

/// The first of [`NAMED`], which have every field of `combined` in its order.
const WHOLE_NAMED: usize = 3;

/// Up to this many bytes an error line comes through the pipe in one piece, newline included.
pub(crate) const WHOLE: usize = 4096;

/// A log format, compiled: turns lines into records. Shared by threads.
///
/// # The client of a line
///
/// A record has a client only if Apache's client field is in the line and no client
/// could have written it: see `format` (LogFormat) and `errorformat` (ErrorLogFormat). Where the
/// format itself forbids that, [`Parser::doubt`] says so. An access line without such a client is
/// no record: it could ban no client.
#[derive(Debug)]
pub struct Parser {
    form: Form,
    /// Besides those that pipeban knows.
    module_clients: Vec<ModuleClient>,
}

/// The string of a directive as it is in Apache's configuration, or with the quotes around it.
fn pasted(text: &str) -> Option<&str> {
    let text = text.trim();
    let inside = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    // As Apache reads it, no quote has a backslash.
    if let Some(inside) = inside.filter(|inside| inside.contains("\\\"")) {
        let all_escaped = inside.matches('"').count() == inside.matches("\\\"").count();
        return all_escaped.then_some(inside);
    }
    let (name, rest) = text.split_once([' ', '\t'])?;
    let names = ["LogFormat", "ErrorLogFormat", "CustomLog", "GlobalLog"];
    names
        .iter()
        .find(|known| known.eq_ignore_ascii_case(name))?;
    let at = rest.find(['"', '\''])?;
    let (quote, rest) = (rest.get(at..=at)?, rest.get(at + 1..)?);
    Some(rest.rsplit_once(quote)?.0)
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
        /// It reads as one of the first [`WHOLE_NAMED`] of [`NAMED`] does.
        as_named: bool,
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
    /// `auto`. A whole directive, `LogFormat "..." name`, counts as its string.
    ///
    /// # Errors
    /// A text for the operator when the format is not known.
    pub fn new(kind: Kind, format: &str) -> Result<Parser, String> {
        let format = pasted(format).unwrap_or(format);
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
                let format = Format::compile(text)?;
                let mut whole = NAMED.iter().take(WHOLE_NAMED);
                let reads = |(_, text): &(&str, &str)| {
                    Format::compile(text).is_ok_and(|named| named.reads(&format))
                };
                Form::Access {
                    as_named: whole.any(reads),
                    name: name.into(),
                    format,
                }
            }
        };
        Ok(Parser {
            form,
            module_clients: Vec::new(),
        })
    }

    /// Reads the client also where these modules write it: in lines of the error log without
    /// `[client ...]`.
    #[must_use]
    pub fn with_module_clients(mut self, more: impl IntoIterator<Item = ModuleClient>) -> Parser {
        for new in more {
            if !self.module_clients.contains(&new) {
                self.module_clients.push(new);
            }
        }
        self
    }

    /// The fields of one line (without newline); `None` when the line is not wholly of the
    /// format, or is an access line that names no client who could be banned.
    ///
    /// With `auto` the first line that names a client decides for all that follow.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Option<Record<'a>> {
        let error = |mut record: Record<'a>| {
            if self.doubt().is_none() {
                module_client::add(&mut record, &self.module_clients);
            }
            let long = line.len() >= WHOLE;
            record.second = long.then(|| self.second_prefix(line)).flatten();
            record
        };
        match &self.form {
            Form::Error => error::parse(line).map(error),
            Form::ErrorFormat { format, .. } => format.parse(line).map(error),
            Form::Access { format, .. } => access::parse_with_client(format, line),
            Form::Auto { candidates, chosen } => {
                if let Some((_, format)) = chosen.get().and_then(|at| candidates.get(*at)) {
                    return access::parse_with_client(format, line);
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
                            // It is of a format with another address before the client's, which may
                            // be from a header.
                            let second = record.rest.ident.and_then(address::client).is_some();
                            (peer && !second).then_some((at, record))
                        })?;
                record.client?;
                // Another thread may have been first; its choice holds from the next line.
                let _ = chosen.set(at);
                Some(record)
            }
        }
    }

    /// The fields of the beginning of an access line, up to the field in which it is cut; `None` for
    /// error lines, which Apache keeps short, and while `auto` has not decided.
    pub fn parse_beginning<'a>(&self, line: &'a [u8]) -> Option<Record<'a>> {
        let format = match &self.form {
            Form::Error | Form::ErrorFormat { .. } => return None,
            Form::Access { format, .. } => format,
            Form::Auto { candidates, chosen } => &candidates.get(*chosen.get()?)?.1,
        };
        access::parse_beginning(format, line).filter(|record| record.client.is_some())
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

    /// Why lines of this format can ban no client; `None`: they can.
    pub fn doubt(&self) -> Option<&str> {
        match &self.form {
            Form::Error | Form::Auto { .. } => None,
            Form::ErrorFormat { format, .. } => format.doubt.as_deref(),
            Form::Access { format, .. } => format.doubt.as_deref(),
        }
    }

    /// How many of the fields that filters judge by an access line of this format has: the request,
    /// its status, the user agent, the referrer. 0 without the request.
    pub fn judged_fields(&self) -> usize {
        let Form::Access { format, .. } = &self.form else {
            return 0;
        };
        let fields: [&[Role]; 4] = [
            &[Role::Request, Role::Path],
            &[Role::Status, Role::FirstStatus],
            &[Role::Agent],
            &[Role::Referer],
        ];
        if !format.has(fields[0]) {
            return 0;
        }
        fields.iter().filter(|roles| format.has(roles)).count()
    }

    /// Whether the client is the value of `%h`: with `HostnameLookups` a name.
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

    /// Whether a line holds every text of its [`Rendered`] form (with the peer as its client), but
    /// for the client's address.
    pub fn holds_rendered(&self) -> bool {
        match &self.form {
            Form::Access { as_named, .. } => *as_named,
            Form::Auto { chosen, .. } => chosen.get().is_some_and(|at| *at < WHOLE_NAMED),
            Form::Error | Form::ErrorFormat { .. } => false,
        }
    }

    /// Why [`Parser::parse`] gave nothing for this line, in a few words.
    pub fn complaint(&self, line: &[u8]) -> &'static str {
        if self.names_nobody(line) {
            return "the client field has no address";
        }
        match &self.form {
            Form::Error | Form::ErrorFormat { .. } => "it does not begin as Apache's lines do",
            Form::Access { .. } => "it is not of this format",
            Form::Auto { .. } if self.chosen().is_some() => "it is not of the first lines' format",
            Form::Auto { .. } => "it has no known format: name its format with --format",
        }
    }

    /// Whether it is an access line that lacks only the client's address: a name is
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

    /// Where in an error line a second prefix of Apache's is: see [`second_prefix`].
    pub fn second_prefix(&self, line: &[u8]) -> Option<usize> {
        match &self.form {
            Form::Error => second_prefix(line),
            Form::ErrorFormat { format, .. } => format.second(line),
            Form::Access { .. } | Form::Auto { .. } => None,
        }
    }
}

/// Where in an error line a second prefix of Apache's is: two lines torn into one, or a
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
