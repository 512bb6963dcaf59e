//! A field of a log line into its canonical form: the encodings that attackers use are undone.
//!
//! A field that needs no decoding is returned as it is, without a copy. Otherwise the work is
//! linear in the field's length: [`ROUNDS`] rounds at most, each a few passes. Case stays: whoever
//! compares ignores it.
#![forbid(unsafe_code)]

mod passes;

use passes::{
    comments, control, entities, escapes, lookups, percent, plus, runs_of_slashes, shell, unicode,
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
    if !needs_decoding(field, form) {
        return field;
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
    buffer.pass_where(|byte| byte < b' ' || byte == 0x7f, control);
    if form == Form::Path {
        buffer.pass_where(|byte| byte == b'/' || byte == b'\\', runs_of_slashes);
    } else {
        buffer.pass_where(|byte| byte == b'*' || byte == b'\n', comments);
    }
    &buffer.text
}

/// The text without the quotes, backslashes and carets that a shell drops inside words
/// (`c'a't`, `c\at`); `None` where there are none. `text` is a canonical form.
pub fn without_shell_quotes<'a>(text: &[u8], buffer: &'a mut Buffer) -> Option<&'a [u8]> {
    let quotes = |byte: &u8| matches!(byte, b'\'' | b'"' | b'\\' | b'^' | b'`' | b'$');
    if !text.iter().any(quotes) {
        return None;
    }
    buffer.text.clear();
    shell(text, &mut buffer.text).then_some(buffer.text.as_slice())
}

/// The cheap check: whether any byte may be part of an encoding.
fn needs_decoding(field: &[u8], form: Form) -> bool {
    let text = |byte: &u8| matches!(byte, b'%' | b'\\' | b'$' | b'&' | b'*' | 0..b' ' | 0x7f..);
    let query = |byte: &u8| text(byte) | matches!(byte, b'+' | b';');
    let behind_slash = |at| matches!(field.get(at + 1), Some(b'/' | b'.'));
    // Without an early end the loops over all bytes take many at once.
    let suspect = match form {
        Form::Query => field.iter().fold(false, |any, byte| any | query(byte)),
        _ => field.iter().fold(false, |any, byte| any | text(byte)),
    };
    let suspect =
        suspect || form == Form::Path && memchr::memchr_iter(b'/', field).any(behind_slash);
    suspect && holds_encoding(field, form)
}

fn holds_encoding(field: &[u8], form: Form) -> bool {
    let mut last = b' ';
    field.iter().any(|byte| {
        let before = std::mem::replace(&mut last, *byte);
        match byte {
            b'%' | b'\\' | 0..b' ' | 0x7f.. => true,
            b'+' => form == Form::Query,
            b'.' | b'/' if before == b'/' => form == Form::Path,
            b'*' if before == b'/' => form != Form::Path,
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
