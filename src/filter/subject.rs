//! A line made ready for patterns.

use std::borrow::Cow;
use std::ops::Range;

use crate::record::{Client, Record};

/// What patterns are matched against: as fail2ban's, the line without its time, with a newline at
/// its end, and with U+FFFD for what is not UTF-8; and how much of it is the client's for sure.
///
/// Two lines longer than 4096 bytes can be torn and mixed on their way through the pipe. Of a
/// line that long in which a second prefix of Apache's stands, only what stands before that
/// prefix hits its client; a match that needs more is a spoof. So neither does the line of a
/// neighbour hit an innocent client, nor does a client hide behind a prefix of its own making.
/// The access log needs no such care: a torn line has too few or too many quotes to be of its
/// format.
#[derive(Debug)]
pub struct Subject<'a> {
    /// As it came.
    line: &'a [u8],
    text: Vec<u8>,
    /// What was cut out of the line.
    cut: Range<usize>,
    own: usize,
    client: Option<Client<'a>>,
    raw: bool,
}

impl<'a> Subject<'a> {
    /// Of a line with its record.
    pub fn of(line: &'a [u8], record: &Record<'a>) -> Subject<'a> {
        let mut text = ready(line, record.time.clone());
        // The time stands before any second prefix.
        let own = record
            .second
            .and_then(|at| line.get(..at))
            .map_or(text.len() + 1, |own| ready(own, record.time.clone()).len());
        text.push(b'\n');
        Subject {
            line,
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
        let mut text = ready(line, time.clone());
        text.push(b'\n');
        Subject {
            line,
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

    /// Without the newline.
    pub(super) fn line(&self) -> &[u8] {
        self.text.strip_suffix(b"\n").unwrap_or(&self.text)
    }

    pub(super) fn own_text(&self) -> &[u8] {
        self.text.get(..self.own).unwrap_or(&self.text)
    }

    pub(super) fn client(&self) -> Option<Client<'a>> {
        self.client
    }

    /// Where in the line a place in the text stands; its length for what is behind.
    pub(super) fn in_line(&self, at: usize) -> usize {
        let (mut here, mut text) = (0, 0);
        for part in [0..self.cut.start, self.cut.end..self.line.len()] {
            here = part.start;
            for chunk in self.line.get(part).unwrap_or_default().utf8_chunks() {
                let valid = chunk.valid().len();
                if at < text + valid {
                    return here + at - text;
                }
                here += valid;
                text += valid;
                if !chunk.invalid().is_empty() {
                    text += char::REPLACEMENT_CHARACTER.len_utf8();
                    if at < text {
                        return here;
                    }
                    here += chunk.invalid().len();
                }
            }
        }
        here
    }

    pub(super) fn is_raw(&self) -> bool {
        self.raw
    }
}

fn ready(line: &[u8], time: Option<Range<usize>>) -> Vec<u8> {
    let around = time.and_then(|time| Some([line.get(..time.start)?, line.get(time.end..)?]));
    let parts = around.unwrap_or([line, b""]);
    let mut text = Vec::with_capacity(line.len() + 1);
    parts.iter().for_each(|part| text.extend_from_slice(part));
    match String::from_utf8_lossy(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(text) => text.into_bytes(),
    }
}
