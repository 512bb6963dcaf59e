//! A line made ready for patterns.

use std::borrow::Cow;
use std::ops::Range;

use crate::record::{self, Client, Record};

/// Up to this many bytes Apache's write to the pipe is one piece, newline included.
pub(super) const WHOLE: usize = 4096;

/// What patterns are matched against: the line without its time, as fail2ban's are, and how much
/// of it is the client's for sure.
///
/// Two lines longer than 4096 bytes can be torn and mixed on their way through the pipe. Of a
/// line that long in which a second prefix of Apache's stands, only what stands before that
/// prefix hits its client; a match that needs more is a spoof. So neither does the line of a
/// neighbour hit an innocent client, nor does a client hide behind a prefix of its own making.
/// The access log needs no such care: a torn line has too few or too many quotes to be of its
/// format.
#[derive(Debug)]
pub struct Subject<'a> {
    text: Cow<'a, [u8]>,
    /// What was cut out of the line.
    cut: Range<usize>,
    own: usize,
    client: Option<Client<'a>>,
    raw: bool,
}

impl<'a> Subject<'a> {
    /// Of a line with its record.
    pub fn of(line: &'a [u8], record: &Record<'a>) -> Subject<'a> {
        let text = match &record.time {
            Some(time) => without(line, time),
            None => Cow::Borrowed(line),
        };
        let mixed = (record.pid.is_some() && line.len() >= WHOLE)
            .then(|| record::second_prefix(line))
            .flatten();
        // The time stands before any second prefix.
        let cut = line.len() - text.len();
        let own = mixed.map_or(text.len(), |at| at.saturating_sub(cut));
        Subject {
            text,
            cut: record.time.clone().unwrap_or_default(),
            own,
            client: record.client,
            raw: false,
        }
    }

    /// Of a line that no record is known for: the pattern's `<HOST>` decides. Never on the live
    /// path. `time`: where it stands ([`super::Dates::find`]).
    pub fn raw(line: &'a [u8], time: Option<Range<usize>>) -> Subject<'a> {
        let text = match &time {
            Some(time) => without(line, time),
            None => Cow::Borrowed(line),
        };
        Subject {
            own: text.len(),
            text,
            cut: time.unwrap_or_default(),
            client: None,
            raw: true,
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

    /// Where in the line a place in the text stands; the time stands before what follows it.
    pub(super) fn in_line(&self, at: usize) -> usize {
        if at < self.cut.start {
            at
        } else {
            at + self.cut.len()
        }
    }

    pub(super) fn is_raw(&self) -> bool {
        self.raw
    }
}

fn without<'a>(line: &'a [u8], time: &Range<usize>) -> Cow<'a, [u8]> {
    match (line.get(..time.start), line.get(time.end..)) {
        (Some(before), Some(after)) => Cow::Owned([before, after].concat()),
        _ => Cow::Borrowed(line),
    }
}
