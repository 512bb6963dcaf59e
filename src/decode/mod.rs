//! A field of a log line into its canonical form: the encodings that attackers use are undone.
//!
//! A field that needs no decoding is returned as it is, without a copy. Otherwise the work is
//! linear in the field's length: [`ROUNDS`] rounds at most, each a few passes. Case stays: whoever
//! compares ignores it.
#![forbid(unsafe_code)]

mod passes;

use passes::{
    control, entities, escapes, is_no_text, lookups, percent, plus, runs_of_slashes, shell, unicode,
};

/// How often a text is decoded. Attackers encode twice or three times.
const ROUNDS: usize = 5;

/// What a field is, and so which encodings count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A path: backslashes are slashes, `//` and `/./` are `/`. `..` stays: it is evidence.
    Path,
    /// A request's target as text that an application reads: `+` is a blank.
    Query,
    /// Any other text of a client: referrer, user agent, message of the error log.
    Text,
}

/// Buffers for [`canonical`], to be used again for the next field.
#[derive(Debug, Default)]
pub struct Buffer {
    text: Vec<u8>,
    spare: Vec<u8>,
}

impl Buffer {
    /// Runs one pass; whether it changed anything.
    fn pass(&mut self, pass: impl Fn(&[u8], &mut Vec<u8>) -> bool) -> bool {
        self.spare.clear();
        let changed = pass(&self.text, &mut self.spare);
        if changed {
            std::mem::swap(&mut self.text, &mut self.spare);
        }
        changed
    }

    fn pass_where(
        &mut self,
        holds: impl Fn(u8) -> bool,
        pass: impl Fn(&[u8], &mut Vec<u8>) -> bool,
    ) -> bool {
        self.text.iter().any(|byte| holds(*byte)) && self.pass(pass)
    }
}

/// The canonical form of `field`, which is as Apache logged it. Borrows from `buffer` only where
/// something was decoded.
pub fn canonical<'a>(field: &'a [u8], form: Form, buffer: &'a mut Buffer) -> &'a [u8] {
    match undo(field, form, buffer) {
        true => finish(form, buffer),
        false => field,
    }
}

/// Percent encoding undone once, behind `to`.
pub fn percent_once(from: &[u8], to: &mut Vec<u8>) {
    percent(from, to);
}

/// Undoes the encodings of a field, into the buffer; false if it has none.
fn undo(field: &[u8], form: Form, buffer: &mut Buffer) -> bool {
    if !needs_decoding(field, form) {
        return false;
    }
    buffer.text.clear();
    buffer.text.extend_from_slice(field);
    // Apache's escaping is the outermost, and `+` counts only as the browser wrote it.
    buffer.pass_where(|byte| byte == b'\\', passes::logged);
    if form == Form::Query {
        buffer.pass_where(|byte| byte == b'+', plus);
    }
    for _ in 0..ROUNDS {
        let mut changed = buffer.pass_where(|byte| byte == b'%', percent);
        changed |= buffer.pass_where(|byte| byte >= 0x80, unicode);
        if form != Form::Path {
            changed |= buffer.pass_where(|byte| byte == b'&', entities);
            changed |= buffer.pass_where(|byte| byte == b'\\', escapes);
        }
        if !changed {
            break;
        }
    }
    buffer.pass_where(|byte| byte == b'$', lookups);
    true
}

/// What is left of control characters, and of a path's slashes.
fn finish(form: Form, buffer: &mut Buffer) -> &[u8] {
    buffer.pass_where(
        |byte| matches!(byte, 0..b' ' | 0x7f | 0xa0),
        |from, to| control(from, to, None),
    );
    if form == Form::Path {
        buffer.pass_where(|byte| byte == b'/' || byte == b'\\', runs_of_slashes);
    }
    &buffer.text
}

/// The canonical form of a field, and how other programs read it; `None` where that is no
/// different.
#[derive(Debug, Clone, Copy, Default)]
pub struct Readings<'a> {
    /// The canonical form.
    pub text: &'a [u8],
    /// Without the quotes, backslashes and carets that a shell drops inside words (`c'a't`, `c\at`).
    pub shell: Option<&'a [u8]>,
    /// With a blank in place of each comment of SQL, and of each control character: MSSQL and Oracle
    /// read these so, other programs drop them.
    pub database: Option<&'a [u8]>,
}

/// Buffers for [`Readings`], to be used again for the next field.
#[derive(Debug, Default)]
pub struct ReadingBuffers {
    text: Buffer,
    spaced: Vec<u8>,
    shell: Vec<u8>,
    database: Vec<u8>,
}

impl<'a> Readings<'a> {
    /// Of a query or text, as Apache logged it.
    pub fn of(field: &'a [u8], form: Form, buffers: &'a mut ReadingBuffers) -> Readings<'a> {
        let ReadingBuffers {
            text: buffer,
            spaced,
            shell: dropped,
            database,
        } = buffers;
        for text in [&mut *spaced, dropped, database] {
            text.clear();
        }
        let text = match undo(field, form, buffer) {
            true => {
                if buffer.text.iter().any(|byte| is_no_text(*byte)) {
                    control(&buffer.text, spaced, Some(b' '));
                }
                finish(form, buffer)
            }
            false => field,
        };
        let signs = signs(text);
        let shell = signs & QUOTE != 0 && shell(text, dropped);
        let spaced = (!spaced.is_empty()).then_some(spaced.as_slice());
        // Newlines, and `/*`.
        let comments =
            signs & (ANY | PAIR) != 0 && passes::comments(spaced.unwrap_or(text), database);
        Readings {
            text,
            shell: shell.then_some(dropped),
            database: if comments { Some(database) } else { spaced },
        }
    }

    /// Whether one of them satisfies `holds`.
    pub fn any(self, mut holds: impl FnMut(&[u8]) -> bool) -> bool {
        holds(self.text) || self.shell.is_some_and(&mut holds) || self.database.is_some_and(holds)
    }
}

/// Whether no part of the text needs decoding, whatever its form, and no program skips any.
pub fn is_plain(text: &[u8]) -> bool {
    signs(text) & (ANY | QUERY | QUOTE | PATH_PAIR | PAIR) == 0
}

/// The cheap check: whether any byte may be part of an encoding.
fn needs_decoding(field: &[u8], form: Form) -> bool {
    let signs = signs(field);
    let encoding = match form {
        Form::Path => ANY | PATH_PAIR | PAIR,
        Form::Query => ANY | QUERY | PAIR,
        Form::Text => ANY | PAIR,
    };
    let entity = || signs & QUERY != 0 && memchr::memchr(b'&', field).is_some();
    let suspect = signs & encoding != 0 || form == Form::Text && entity();
    suspect && holds_encoding(field, form)
}

/// Bytes that encodings begin with, in any form and in queries.
const ANY: u8 = 1;
const QUERY: u8 = 2;
/// Bytes that a shell drops.
const QUOTE: u8 = 4;
/// First bytes of pairs that begin encodings, and second ones: in paths, and in any form.
const FIRST: u8 = 8;
const PATH_SECOND: u8 = FIRST << 1;
const SECOND: u8 = FIRST << 2;
/// One behind the other.
const PATH_PAIR: u8 = FIRST << 3;
const PAIR: u8 = FIRST << 4;

/// Of each byte.
#[expect(
    clippy::indexing_slicing,
    reason = "the compiler runs it, and `get_mut` is not for constants"
)]
const SIGNS: [u8; 256] = {
    let mut signs = [0; 256];
    let mut byte = 0;
    while byte < signs.len() {
        signs[byte] = match byte as u8 {
            b'\\' => ANY | QUOTE,
            b'%' | 0..b' ' | 0x7f.. => ANY,
            b'+' | b';' => QUERY,
            b'\'' | b'"' | b'^' | b'`' => QUOTE,
            b'$' => QUOTE | FIRST,
            b'&' => FIRST,
            b'/' => FIRST | PATH_SECOND,
            b'.' => PATH_SECOND,
            b'#' | b'*' | b'{' | b'I' => SECOND,
            _ => 0,
        };
        byte += 1;
    }
    signs
};

/// What the bytes of a text are, together.
fn signs(text: &[u8]) -> u8 {
    let mut last = 0;
    text.iter().fold(0, |all, byte| {
        let sign = SIGNS.get(usize::from(*byte)).copied().unwrap_or_default();
        let first = last & FIRST;
        last = sign;
        let pairs = (first << 1 | first << 2) & sign;
        all | sign | pairs << 2
    })
}

fn holds_encoding(field: &[u8], form: Form) -> bool {
    let mut last = b' ';
    field.iter().any(|byte| {
        let before = std::mem::replace(&mut last, *byte);
        match byte {
            b'%' | b'\\' | 0..b' ' | 0x7f.. => true,
            b'+' => form == Form::Query,
            b'.' | b'/' if before == b'/' => form == Form::Path,
            b'#' if before == b'&' => form != Form::Path,
            b'{' | b'I' if before == b'$' => true,
            // A named entity.
            b';' => form == Form::Query || (form == Form::Text && field.contains(&b'&')),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests;
