//! Runs a compiled format over a line: left to right, each byte looked at once or twice.

use super::format::{Class, Format, Item, Role};
use super::{Record, address, time};

/// The fields of `line`; `None` when it is not wholly of the format.
pub(super) fn parse<'a>(format: &Format, line: &'a [u8]) -> Option<Record<'a>> {
    let mut record = Record::default();
    let (mut remote, mut peer) = (None, None);
    let mut rest = line;
    for (at, item) in format.items.iter().enumerate() {
        let following = format.items.get(at + 1..).unwrap_or_default();
        match item {
            Item::Literal(text) => rest = rest.strip_prefix(text.as_slice())?,
            Item::Field(class, role) => {
                let length = length(*class, following, rest)?;
                let (value, after) = rest.split_at_checked(length)?;
                let start = line.len() - rest.len();
                rest = after;
                match role {
                    Role::None => {}
                    Role::Client => record.client = address::client(value),
                    Role::Remote => remote = address::client(value),
                    Role::Peer => peer = address::client(value),
                    Role::Vhost => record.vhost = Some(value),
                    Role::Time => record.time = Some(start + 1..start + length - 1),
                    Role::Status => record.status = status(value),
                    Role::Request => record.request = Some(value),
                    Role::Agent => record.agent = Some(value),
                }
            }
        }
    }
    if !rest.is_empty() {
        return None;
    }
    record.client = record.client.or(remote).or(peer);
    record.peer = peer.map(|peer| peer.addr);
    Some(record)
}

fn status(value: &[u8]) -> Option<u16> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// How long the field at the front of `text` is.
fn length(class: Class, following: &[Item], text: &[u8]) -> Option<usize> {
    match class {
        Class::Time => bracketed_time(text),
        Class::Free => free(following, text),
        Class::Host if text.first() == Some(&b'[') => {
            memchr::memchr(b']', text.get(..text.len().min(48))?).map(|end| end + 1)
        }
        Class::Word => {
            let stop = match following.first() {
                Some(Item::Literal(next)) => next.first().copied(),
                _ => None,
            };
            nonempty(run(text, |b| class.holds(b) && Some(b) != stop))
        }
        Class::Address | Class::Name => {
            let all = run(text, |b| class.holds(b));
            let value = text.get(..all)?;
            let port = matches!(following.first(), Some(Item::Literal(next)) if next.first() == Some(&b':'));
            let length = if port {
                memchr::memrchr(b':', value)?
            } else {
                all
            };
            if class == Class::Address {
                let value = value.get(..length)?;
                (value == b"-" || address::read(value).is_some()).then_some(())?;
            }
            nonempty(length)
        }
        Class::Host | Class::Number => nonempty(run(text, |b| class.holds(b))),
    }
}

fn run(text: &[u8], holds: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|b| holds(**b)).count()
}

fn nonempty(length: usize) -> Option<usize> {
    (length > 0).then_some(length)
}

fn bracketed_time(text: &[u8]) -> Option<usize> {
    let (_, rest) = time::access(text.strip_prefix(b"[")?)?;
    let rest = rest.strip_prefix(b"]")?;
    Some(text.len() - rest.len())
}

/// The end of what a client chose.
fn free(following: &[Item], text: &[u8]) -> Option<usize> {
    let Some(Item::Literal(end)) = following.first() else {
        return Some(text.len());
    };
    let first = *end.first()?;
    if first == b'"' {
        return unescaped_quote(text);
    }
    memchr::memchr_iter(first, text).find(|at| {
        text.get(*at..)
            .and_then(|rest| rest.strip_prefix(end.as_slice()))
            .is_some_and(|rest| fits(following.get(1..).unwrap_or_default(), rest))
    })
}

/// Whether the next field and the text behind it stand at the front of `text`. Only fields with a
/// fixed form are looked at, so this takes no longer than their length.
fn fits(items: &[Item], text: &[u8]) -> bool {
    let mut rest = text;
    for (at, item) in items.iter().take(2).enumerate() {
        let length = match item {
            Item::Literal(text) => rest.starts_with(text).then_some(text.len()),
            Item::Field(Class::Free | Class::Word | Class::Name | Class::Host, _) => return true,
            Item::Field(class, _) => length(*class, items.get(at + 1..).unwrap_or_default(), rest),
        };
        match length.and_then(|length| rest.get(length..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    items.len() >= 2 || rest.is_empty()
}

fn unescaped_quote(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', text.get(from..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some(at);
        }
        from = at + 2;
    }
}
