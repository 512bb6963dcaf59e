//! What a client sent, out of what Apache logged of it.

use std::borrow::Cow;

/// Undoes the escaping that Apache applies to what it did not write itself, in both kinds of log:
/// `\"`, `\\`, `\b \n \r \t \v` and `\xhh` (`ap_escape_logitem` and `ap_escape_errorlog_item` of
/// httpd's `server/util.c`). Any other backslash stays.
pub fn unescape(logged: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', logged).is_none() {
        return Cow::Borrowed(logged);
    }
    let mut sent = Vec::with_capacity(logged.len());
    let mut rest = logged;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        sent.extend_from_slice(before);
        let (byte, length) = escaped(escape).unwrap_or((b'\\', 1));
        sent.push(byte);
        rest = escape.get(length..).unwrap_or_default();
    }
    sent.extend_from_slice(rest);
    Cow::Owned(sent)
}

/// The byte that `\...` at the front means, and its length.
fn escaped(text: &[u8]) -> Option<(u8, usize)> {
    let byte = match text.get(1)? {
        byte @ (b'"' | b'\\') => *byte,
        b'b' => 0x08,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'x' => {
            let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
            return Some((u8::try_from(digit(2)? * 16 + digit(3)?).ok()?, 4));
        }
        _ => return None,
    };
    Some((byte, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_apache_escapes_is_undone() {
        for (logged, sent) in [
            (
                r#"GET /\"\\\x16\xe9 \n\t\r\v\b"#,
                &b"GET /\"\\\x16\xe9 \n\t\r\x0b\x08"[..],
            ),
            (r"\", b"\\"),
            (r"\q\x1\xzz\", br"\q\x1\xzz\"),
            ("plain", b"plain"),
            ("", b""),
        ] {
            assert_eq!(unescape(logged.as_bytes()).as_ref(), sent, "{logged}");
        }
    }
}
