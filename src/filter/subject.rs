//! A line in the form that patterns see.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;

use super::regexes::LONGEST;
use super::shortened;
use crate::record::{Client, Record, Rendered};

/// The text that patterns are matched against: as in fail2ban, the line without its time, with a
/// newline at its end, and with U+FFFD for bytes that are not UTF-8.
///
/// Two lines longer than 4096 bytes can be torn and mixed in the pipe. If a line that long holds a
/// second prefix of Apache's, only the text before that prefix hits its client; a match that needs
/// more is a spoof. So a neighbour's line hits no innocent client, and a client cannot escape
/// behind a forged prefix. The access log needs no such care: a torn line has too few or too many
/// quotes for its format.
#[derive(Debug)]
pub struct Subject<'a> {
    text: Vec<u8>,
    /// Length of the part that is surely the client's.
    own: usize,
    client: Option<Client<'a>>,
    raw: bool,
    /// Patterns that look around or back see the parts of [`Views::shortened`] instead.
    long: bool,
}

impl<'a> Subject<'a> {
    /// A line with its record.
    pub fn of(line: &'a [u8], record: &Record<'a>) -> Subject<'a> {
        Subject::new(line, record.time.clone(), record)
    }

    /// A text of this record; `time`: the part to leave out.
    fn new(line: &[u8], time: Option<Range<usize>>, record: &Record<'a>) -> Subject<'a> {
        let mut text = without_time(line, time.clone());
        // The time is before any second prefix.
        let own = record.second.and_then(|at| line.get(..at));
        let own = own.map(|own| without_time(own, time).len());
        text.push(b'\n');
        Subject {
            own: own.unwrap_or(text.len()),
            text,
            client: record.client,
            raw: false,
            long: false,
        }
    }

    /// A line without a record: the pattern's `<HOST>` decides. `time`: the part to leave out.
    /// Never on the live path.
    pub fn raw(line: &'a [u8], time: Option<Range<usize>>) -> Subject<'a> {
        let mut text = without_time(line, time);
        text.push(b'\n');
        Subject {
            own: text.len(),
            text,
            client: None,
            raw: true,
            long: false,
        }
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn own_text(&self) -> &[u8] {
        self.text.get(..self.own).unwrap_or(&self.text)
    }

    pub(super) fn client(&self) -> Option<Client<'a>> {
        self.client
    }

    pub(super) fn is_long(&self) -> bool {
        self.long
    }

    pub(super) fn is_raw(&self) -> bool {
        self.raw
    }
}

fn without_time(line: &[u8], time: Option<Range<usize>>) -> Vec<u8> {
    let around = time.and_then(|time| Some([line.get(..time.start)?, line.get(time.end..)?]));
    let text = around.unwrap_or([line, b""]).concat();
    match String::from_utf8_lossy(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(text) => text.into_bytes(),
    }
}

/// The texts of one record, in the order in which patterns are matched against them.
///
/// The line as written; for the access log then the record in the `combined` and in the
/// `vhost_combined` format, so that a pattern matches whatever format the pipe carries. Each without
/// its time, as fail2ban matches it, then with it. A text that is the same as an earlier one is left
/// out.
#[derive(Debug)]
pub(super) struct Views<'a, 'r> {
    line: &'a [u8],
    record: &'r Record<'a>,
    rendered: OnceCell<Option<Rendered>>,
    texts: [OnceCell<Option<Subject<'a>>>; 6],
}

impl<'a, 'r> Views<'a, 'r> {
    /// The texts of a line.
    pub(super) fn of(line: &'a [u8], record: &'r Record<'a>) -> Views<'a, 'r> {
        Views {
            line,
            record,
            rendered: OnceCell::new(),
            texts: Default::default(),
        }
    }

    /// Each of them, made when it is needed.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Subject<'a>> {
        (0..).zip(&self.texts).filter_map(|(at, text)| {
            let text = text.get_or_init(|| self.text(at));
            text.as_ref()
        })
    }

    /// Those without the time.
    pub(super) fn without_time(&self) -> impl Iterator<Item = &Subject<'a>> {
        (0..).zip(&self.texts).step_by(2).filter_map(|(at, text)| {
            let text = text.get_or_init(|| self.text(at));
            text.as_ref()
        })
    }

    /// The record in other formats; `None` for the error log.
    pub(super) fn rendered(&self) -> Option<&Rendered> {
        let render = || {
            let client = self.record.client?;
            let is_access = self.record.message.is_none();
            is_access.then(|| Rendered::of(self.line, self.record, client))
        };
        self.rendered.get_or_init(render).as_ref()
    }

    /// Whether the line, or the record in another format, is too long for patterns that look around
    /// or back.
    pub(super) fn is_long(&self) -> bool {
        // What rendering adds is short.
        self.record.message.is_none() && self.line.len() + 512 > LONGEST
    }

    /// Of a long access line, for patterns that look around or back: the record in the formats
    /// `combined` and `vhost_combined`, each long field cut to its beginning and one part of it.
    /// One text after the other has the parts, which overlap.
    pub(super) fn shortened(&self) -> impl Iterator<Item = Subject<'a>> {
        let client = self.record.client.filter(|_| self.is_long());
        (0..shortened::parts(self.record)).flat_map(move |part| {
            let both = client.map(|client| {
                let rendered = shortened::render(self.line, self.record, client, part);
                [rendered.combined(), rendered.vhost_combined()]
                    .map(|(text, time)| Subject::new(text, Some(time), self.record))
            });
            both.into_iter().flatten()
        })
    }

    fn text(&self, number: usize) -> Option<Subject<'a>> {
        let long = self.is_long();
        self.whole(number).map(|text| Subject { long, ..text })
    }

    fn whole(&self, number: usize) -> Option<Subject<'a>> {
        let with_time = number % 2 == 1;
        let (text, time) = match number / 2 {
            0 if with_time => (self.line, self.record.time.clone()?),
            0 => return Some(Subject::of(self.line, self.record)),
            form => {
                let rendered = self.rendered()?;
                let (text, time) = match form {
                    1 => rendered.combined(),
                    _ => rendered.vhost_combined(),
                };
                (text != self.line).then_some((text, time))?
            }
        };
        let time = (!with_time).then_some(time);
        Some(Subject::new(text, time, self.record))
    }
}
