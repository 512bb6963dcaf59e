//! Runs a compiled LogFormat over a line, from left to right.

use super::fields::Record;
use super::format::{Format, Open, Step};
use super::shape::{Class, Field, Item, Reading, behind};

/// Where the part behind a client's words may begin: Apache wrote that part, so the first place
/// from the right where it fits is right, and few are looked at. A line of another format ends
/// the search here.
const PLACES: usize = 64;
/// No number, address or time is longer.
const LONGEST_FORM: usize = 64;

/// The fields of `line`; `None` when it is not wholly of the format.
pub(super) fn parse<'a>(format: &Format, line: &'a [u8]) -> Option<Record<'a>> {
    let mut reading = Reading::new(line);
    read(format, line, &mut reading)?;
    Some(reading.record(format.client))
}

/// As [`parse`], and `None` when no client is named.
pub(super) fn parse_with_client<'a>(format: &Format, line: &'a [u8]) -> Option<Record<'a>> {
    let mut reading = Reading::new(line);
    read(format, line, &mut reading)?;
    reading
        .names_client(format.client)
        .then(|| reading.record(format.client))
}

/// `None` when the line is not wholly of the format. The reading is large: it is not returned.
pub(super) fn read<'a>(format: &Format, line: &'a [u8], reading: &mut Reading<'a>) -> Option<()> {
    let mut rest = line;
    for step in &format.steps {
        rest = match step {
            Step::Item(Item::Literal(text)) => behind(text, rest)?,
            Step::Item(Item::Field(field)) => reading.field(field, rest)?,
            Step::Closed(field, fence) => closed(field, *fence, rest, reading)?,
            Step::Open(open) => self::open(open, rest, reading)?,
        };
    }
    rest.is_empty().then_some(())
}

/// The fields of a line whose end is missing, up to the field in which it is cut; `None` when it is
/// not of the format as far as it goes, or cut before Apache's status. A client cannot write the
/// quotes before that.
pub(super) fn parse_beginning<'a>(format: &Format, line: &'a [u8]) -> Option<Record<'a>> {
    let mut reading = Reading::new(line);
    let mut rest = line;
    for step in &format.steps {
        let next = match step {
            Step::Item(Item::Literal(text)) => rest.strip_prefix(text.as_slice()),
            Step::Item(Item::Field(field)) => reading.field(field, rest),
            Step::Closed(field, fence) => closed(field, *fence, rest, &mut reading),
            Step::Open(open) => self::open(open, rest, &mut reading),
        };
        if let Some(next) = next {
            rest = next;
            continue;
        }
        match step {
            Step::Closed(field, _) => reading.put(field, rest),
            Step::Item(Item::Literal(text)) if !text.starts_with(rest) => return None,
            Step::Item(_) if rest.len() > LONGEST_FORM => return None,
            Step::Item(_) => {}
            Step::Open(_) => return None,
        }
        break;
    }
    let record = reading.record(format.client);
    record.status.is_some().then_some(record)
}

/// A client's words up to a byte that cannot be part of them.
fn closed<'a>(
    field: &Field,
    fence: u8,
    text: &'a [u8],
    reading: &mut Reading<'a>,
) -> Option<&'a [u8]> {
    let length = match fence {
        // An empty name is two quotes, not escaped.
        b'"' if field.class == Class::User && text.first() == Some(&b'"') => 2,
        b'"' => unescaped_quote(text)?,
        _ => memchr::memchr(fence, text)?,
    };
    let (value, rest) = text.split_at_checked(length)?;
    reading.put(field, value);
    Some(rest)
}

fn open<'a>(open: &Open, text: &'a [u8], reading: &mut Reading<'a>) -> Option<&'a [u8]> {
    let end = match open.fence {
        None => text.len(),
        Some(b'"') => unescaped_quote(text)?,
        Some(fence) => memchr::memchr(fence, text)?,
    };
    let region = text.get(..end)?;
    if let Some(words) = before_tail(open, region, reading) {
        head(&open.head, words, reading)?;
        return text.get(end..);
    }
    // The quotes may be those of an empty name.
    let empty_name = open.fence == Some(b'"') && text.get(end + 1) == Some(&b'"');
    if !(empty_name && open.has_user()) {
        return None;
    }
    let behind = text.get(end + 2..)?;
    let end = end + 2 + unescaped_quote(behind)?;
    let words = before_tail(open, text.get(..end)?, reading)?;
    head(&open.head, words, reading)?;
    text.get(end..)
}

/// The part of `region` before the tail, which ends it.
fn before_tail<'a>(open: &Open, region: &'a [u8], reading: &mut Reading<'a>) -> Option<&'a [u8]> {
    let mut ends_with_tail = |at: usize| {
        let behind = region.get(at..).unwrap_or_default();
        reading
            .items(&open.tail, behind)
            .is_some_and(<[u8]>::is_empty)
    };
    let at = match (open.tail_length, open.tail.first()) {
        (Some(length), _) => region
            .len()
            .checked_sub(length)
            .filter(|at| ends_with_tail(*at)),
        (None, Some(Item::Literal(first))) => memchr::memrchr_iter(*first.first()?, region)
            .take(PLACES)
            .find(|at| ends_with_tail(*at)),
        (None, _) => None,
    };
    region.get(..at?)
}

/// Several fields of the client's with nothing between them that the client could not write: each
/// ends at the first place where what follows fits. The last one has the rest.
fn head<'a>(items: &[Item], text: &'a [u8], reading: &mut Reading<'a>) -> Option<()> {
    let mut rest = text;
    let mut items = items;
    while let Some((item, following)) = items.split_first() {
        let field = match item {
            Item::Literal(literal) => {
                rest = rest.strip_prefix(literal.as_slice())?;
                items = following;
                continue;
            }
            Item::Field(field) if !field.class.is_text() => {
                rest = reading.field(field, rest)?;
                items = following;
                continue;
            }
            Item::Field(field) => field,
        };
        let form = following.iter().position(is_text).unwrap_or(0);
        let (between, after) = following.split_at_checked(form)?;
        let Some(Item::Literal(first)) = between.first() else {
            reading.put(field, rest);
            return Some(());
        };
        let (at, behind) = memchr::memmem::find_iter(rest, first)
            .take(PLACES)
            .find_map(|at| Some((at, reading.items(between, rest.get(at..)?)?)))?;
        reading.put(field, rest.get(..at)?);
        rest = behind;
        items = after;
    }
    Some(())
}

fn is_text(item: &Item) -> bool {
    matches!(item, Item::Field(field) if field.class.is_text())
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
