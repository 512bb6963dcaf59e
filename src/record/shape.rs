//! What a compiled format is made of: literals, and fields with a form that shows their end.

use super::fields::{Client, Record};
use super::strftime::{Partial, TimeForm};
use super::time::{self, Stamp};
use super::{address, error};

/// One step through a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// These bytes.
    Literal(Vec<u8>),
    /// A field's value.
    Field(Field),
}

/// A field of a format. Two are equal when they read the same, whatever their names.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// The directive, for people.
    pub(super) name: String,
    /// How it looks.
    pub(super) class: Class,
    /// What it is to a record.
    pub(super) role: Role,
    /// It may be `-` instead: it has a condition.
    pub(super) or_dash: bool,
    /// First byte of the literal behind it.
    pub(super) stop: Option<u8>,
}

impl PartialEq for Field {
    fn eq(&self, other: &Field) -> bool {
        let what = |field: &Field| (field.role, field.or_dash, field.stop);
        self.class == other.class && what(self) == what(other)
    }
}

impl Eq for Field {}

impl Field {
    /// Whether this one reads what the other one writes as the other does: also an address where
    /// a name is possible.
    pub(super) fn reads(&self, other: &Field) -> bool {
        let address = self.role == Role::Remote && other.role == Role::Client;
        let rest = (self.or_dash, self.stop) == (other.or_dash, other.stop);
        self == other || address && rest
    }
}

/// How a value looks, and so where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// `%a`, `%A`: an address or `-`.
    Address,
    /// The same with a port behind it (error log).
    AddressPort,
    /// `%h`: an address, a host name or `-`.
    Name,
    /// `%v`: a host name, or IPv6 in brackets.
    Host,
    /// Digits, perhaps negative, or `-`.
    Number,
    /// A number to the base of 16.
    Hex,
    /// `[dd/Mon/yyyy:hh:mm:ss +zzzz]`
    Time,
    /// `%{...}t`
    Custom(TimeForm),
    /// `%t` of the error log.
    ErrorTime,
    /// `error`, `trace1`
    Level,
    /// `core`
    Module,
    /// `file.c(123)`
    SourceLine,
    /// `(36)File name too long`
    Errno,
    /// A word of Apache's or mod_ident's: it has no blank.
    Word,
    /// Words that a client may have chosen; only the text around them shows where they end.
    Text,
    /// `%u`: the same, and `""` for an empty name.
    User,
}

/// What a field is to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    None,
    /// `%a`
    Client,
    /// `%h`
    Remote,
    /// `%{c}a`
    Peer,
    /// `%v`, `%V`
    Vhost,
    /// The first `%t`: what patterns do not see.
    Time,
    /// `%>s`
    Status,
    /// `%s`, the status where no `%>s` is.
    FirstStatus,
    /// `%r`
    Request,
    /// `%{User-Agent}i`
    Agent,
    /// `%{Referer}i`
    Referer,
    /// `%u`
    User,
    /// `%b`, `%B`, `%O`
    Bytes,
    /// `%m` of the error log
    Module,
    /// `%l` of the error log
    Level,
    /// `%P` of the error log
    Pid,
    /// `%l` of the access log
    Ident,
    /// `%p`
    Port,
    /// `%m` of the access log
    Method,
    /// `%U`, `%U%q`
    Path,
    /// `%q`
    Query,
    /// `%H`
    Protocol,
}

impl Role {
    pub(super) fn is_address(self) -> bool {
        matches!(self, Role::Client | Role::Remote | Role::Peer)
    }
}

/// A byte that Apache never writes unescaped into what a client sent: its escaping keeps quotes,
/// control characters and all but ASCII out.
pub(super) fn is_fence(byte: u8) -> bool {
    byte == b'"' || !(b' '..=b'~').contains(&byte)
}

impl Class {
    /// Whether a client may have chosen such a value.
    pub(super) fn is_text(&self) -> bool {
        matches!(self, Class::Text | Class::User)
    }

    /// Whether such a value ends for sure at a literal that begins with `next`.
    pub(super) fn ends_before(&self, next: u8) -> bool {
        match self {
            Class::Address => !(next.is_ascii_hexdigit() || b":.%".contains(&next)),
            Class::Name => !is_address_or_name(next),
            Class::Host | Class::Module | Class::Level => !is_name(next),
            Class::Number | Class::AddressPort => !next.is_ascii_digit(),
            Class::Hex => !next.is_ascii_alphanumeric(),
            Class::Custom(form) => form.ends_before(next),
            Class::Time | Class::ErrorTime | Class::SourceLine => true,
            Class::Errno => next == b':' || next == b']' || is_fence(next),
            Class::Word => next == b' ' || is_fence(next),
            Class::Text | Class::User => is_fence(next),
        }
    }
}

impl Field {
    /// How long the value at the front of `text` is; for all classes but the client's words.
    fn length(&self, text: &[u8], time: &mut Times) -> Option<usize> {
        let length = match &self.class {
            Class::Address => self.address_length(text),
            Class::AddressPort => address_and_port(text).map(|(_, length)| length),
            Class::Name => self.before_port(text, run(text, is_address_or_name)),
            Class::Host if text.first() == Some(&b'[') => {
                let inside = text.get(1..)?;
                let end = run(inside, |b| b.is_ascii_hexdigit() || b":.".contains(&b));
                (inside.get(end) == Some(&b']')).then_some(end + 2)
            }
            Class::Host => nonempty(run(text, |b| is_name(b) || b == b'*')),
            Class::Number => number_length(text),
            Class::Hex => nonempty(run(text, |b| b.is_ascii_alphanumeric())),
            Class::Time => bracketed_time(text, time),
            Class::Custom(form) => form.read(text, &mut time.partial),
            Class::ErrorTime => error_time(text, time),
            Class::Level => {
                let length = run(text, |b| b.is_ascii_alphanumeric());
                error::LEVELS
                    .contains(&text.get(..length)?)
                    .then_some(length)
            }
            Class::Module => nonempty(run(text, is_name)),
            Class::SourceLine => error::source_line(text),
            Class::Errno => error::errno(text).map(|length| {
                let value = text.get(..length).unwrap_or_default();
                value.trim_ascii_end().len()
            }),
            Class::Word => self.word_length(text),
            Class::Text | Class::User => None,
        };
        let dash = || (self.or_dash && text.first() == Some(&b'-')).then_some(1);
        length.or_else(dash)
    }

    /// Of an address, with its zone; `-` where there is none.
    fn address_length(&self, text: &[u8]) -> Option<usize> {
        if text.first() == Some(&b'-') {
            return Some(1);
        }
        let address = run(text, |b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
        let zone = match text.get(address) {
            Some(b'%') => run(text.get(address..)?, is_address_or_name),
            _ => 0,
        };
        self.before_port(text, address + zone)
    }

    /// Where a colon follows the field it is the last one: IPv6 has colons too.
    fn before_port(&self, text: &[u8], length: usize) -> Option<usize> {
        if self.stop == Some(b':') {
            memchr::memrchr(b':', text.get(..length)?)
        } else {
            nonempty(length)
        }
    }

    fn word_length(&self, text: &[u8]) -> Option<usize> {
        let mut length = 0;
        while let Some(byte) = text.get(length) {
            if *byte <= b' ' || *byte == b'"' || Some(*byte) == self.stop {
                break;
            }
            // What is escaped is no end.
            length += 1 + usize::from(*byte == b'\\');
        }
        nonempty(length.min(text.len()))
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

fn is_address_or_name(byte: u8) -> bool {
    is_name(byte) || byte == b':' || byte == b'%'
}

fn run(text: &[u8], holds: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|b| holds(**b)).count()
}

fn nonempty(length: usize) -> Option<usize> {
    (length > 0).then_some(length)
}

/// `2001:db8::7:0`: IPv6 has no brackets, the port is behind the last colon. The
/// address and the length of both; `-` is both.
fn address_and_port(text: &[u8]) -> Option<(&[u8], usize)> {
    if text.first() == Some(&b'-') {
        return Some((text.get(..1)?, 1));
    }
    let all = text.get(..run(text, is_address_or_name))?;
    // A colon of the format may follow.
    let all = all.strip_suffix(b":").unwrap_or(all);
    let colon = memchr::memrchr(b':', all)?;
    let port = std::str::from_utf8(all.get(colon + 1..)?).ok()?;
    (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()).then_some(())?;
    Some((all.get(..colon)?, all.len()))
}

fn number_length(text: &[u8]) -> Option<usize> {
    let sign = usize::from(text.first() == Some(&b'-'));
    nonempty(sign + run(text.get(sign..)?, |b| b.is_ascii_digit()))
}

fn bracketed_time(text: &[u8], times: &mut Times) -> Option<usize> {
    let (stamp, rest) = time::access(text.strip_prefix(b"[")?)?;
    times.stamp = Some(stamp);
    let rest = rest.strip_prefix(b"]")?;
    Some(text.len() - rest.len())
}

fn error_time(text: &[u8], times: &mut Times) -> Option<usize> {
    let (mut stamp, mut rest) = time::error(text).or_else(|| time::compact(text))?;
    if let Some((offset, after)) = time::offset(rest) {
        (stamp.offset, rest) = (Some(offset), after);
    }
    times.stamp = Some(stamp);
    Some(text.len() - rest.len())
}

/// What follows a literal of a format. Most are one byte, which needs no call of `memcmp`.
pub(super) fn behind<'a>(literal: &[u8], text: &'a [u8]) -> Option<&'a [u8]> {
    match (literal, text) {
        ([byte], [first, rest @ ..]) => (byte == first).then_some(rest),
        _ => text.strip_prefix(literal),
    }
}

/// What the times in a line say.
#[derive(Debug, Clone, Default)]
struct Times {
    stamp: Option<Stamp>,
    partial: Partial,
}

/// What has been read of a line so far.
#[derive(Debug, Clone)]
pub(super) struct Reading<'a> {
    line: &'a [u8],
    record: Record<'a>,
    client: Option<Client<'a>>,
    remote: Option<Client<'a>>,
    peer: Option<Client<'a>>,
    times: Times,
    /// For tests: the last value of each field, by the field's address.
    #[cfg(test)]
    pub(super) values: std::collections::HashMap<usize, &'a [u8]>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(line: &'a [u8]) -> Reading<'a> {
        Reading {
            line,
            record: Record::default(),
            client: None,
            remote: None,
            peer: None,
            times: Times::default(),
            #[cfg(test)]
            values: std::collections::HashMap::new(),
        }
    }

    /// Reads `items` from the front of `text`; what follows them.
    pub(super) fn items(&mut self, items: &[Item], text: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = text;
        for item in items {
            rest = match item {
                Item::Literal(literal) => behind(literal, rest)?,
                Item::Field(field) => self.field(field, rest)?,
            };
        }
        Some(rest)
    }

    /// Reads one field that its form ends; what follows it.
    pub(super) fn field(&mut self, field: &Field, text: &'a [u8]) -> Option<&'a [u8]> {
        let length = field.length(text, &mut self.times)?;
        let (value, rest) = text.split_at_checked(length)?;
        self.put(field, value);
        Some(rest)
    }

    /// Notes a value.
    pub(super) fn put(&mut self, field: &Field, value: &'a [u8]) {
        #[cfg(test)]
        self.values.insert(std::ptr::from_ref(field).addr(), value);
        let address = || match field.class {
            Class::AddressPort => address::client(address_and_port(value)?.0),
            _ => address::client(value),
        };
        match field.role {
            Role::None | Role::FirstStatus => {}
            Role::Client => self.client = address(),
            Role::Remote => self.remote = address(),
            Role::Peer => self.peer = address(),
            Role::Vhost => self.record.vhost = Some(value).filter(|value| *value != b"-"),
            Role::Time => self.put_time(field, value),
            Role::Status => {
                let number = error::number(value);
                self.record.status = number.and_then(|number| u16::try_from(number).ok());
                self.record.rest.status = Some(value);
            }
            Role::Request => self.record.request = Some(value),
            Role::Agent => self.record.agent = Some(value),
            Role::Referer => self.record.referer = Some(value),
            Role::User => self.record.user = Some(value),
            // Apache writes `-` for no bytes.
            Role::Bytes => {
                self.record.bytes = error::number(value).or(Some(0));
                self.record.rest.bytes = Some(value);
            }
            Role::Module => self.record.module = Some(value),
            Role::Level => self.record.level = Some(value),
            Role::Pid => self.record.pid = error::number(value),
            Role::Ident => self.record.rest.ident = Some(value),
            Role::Port => self.record.rest.port = Some(value),
            Role::Method => self.record.rest.method = Some(value),
            Role::Path => self.record.rest.path = Some(value),
            Role::Query => self.record.rest.query = Some(value),
            Role::Protocol => self.record.rest.protocol = Some(value),
        }
    }

    fn put_time(&mut self, field: &Field, value: &'a [u8]) {
        if value == b"-" {
            self.record.time = None;
            return;
        }
        let start = value.as_ptr().addr() - self.line.as_ptr().addr();
        let brackets = usize::from(field.class == Class::Time);
        self.record.time = Some(start + brackets..start + value.len() - brackets);
    }

    /// Notes what follows the fields of an error line.
    pub(super) fn message(&mut self, text: &'a [u8]) {
        self.record.message = Some(text.trim_ascii_start());
    }

    /// Whether there was a time.
    pub(super) fn has_time(&self) -> bool {
        self.record.time.is_some()
    }

    /// The client, named by the field `from`.
    fn client(&self, from: Option<Role>) -> Option<Client<'a>> {
        match from {
            Some(Role::Client) => self.client,
            Some(Role::Remote) => self.remote,
            Some(Role::Peer) => self.peer,
            _ => None,
        }
    }

    /// Whether the field `from` names the client.
    pub(super) fn names_client(&self, from: Option<Role>) -> bool {
        self.client(from).is_some()
    }

    /// The record; `from` is the field that names the client.
    pub(super) fn record(mut self, from: Option<Role>) -> Record<'a> {
        self.record.client = self.client(from);
        self.record.peer = self.peer.map(|peer| peer.addr);
        self.record.stamp = self.times.stamp.or_else(|| self.times.partial.stamp());
        self.record
    }
}
