//! Bytes that a client chose, made fit to be shown.

use std::fmt::Write as _;

/// At most `max` characters of `bytes`, then `...`; what is not UTF-8, control characters and
/// those that turn the direction of text come as `\xhh` or `\u{...}`.
pub fn display(bytes: &[u8], max: usize) -> String {
    let mut shown = String::new();
    let mut count = 0;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if count == max {
                shown.push_str("...");
                return shown;
            }
            count += 1;
            push(&mut shown, c);
        }
        for byte in chunk.invalid() {
            if count == max {
                shown.push_str("...");
                return shown;
            }
            count += 1;
            // Writing to a String does not fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

fn push(shown: &mut String, c: char) {
    let hidden = matches!(c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    let _ = if c.is_ascii() && c.is_control() {
        write!(shown, "\\x{:02x}", u32::from(c))
    } else if c.is_control() || hidden {
        write!(shown, "\\u{{{:x}}}", u32::from(c))
    } else {
        shown.push(c);
        Ok(())
    };
}

#[cfg(test)]
mod tests {
    use super::display;

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        for (bytes, shown) in [
            (&b"plain \\x41 \xc3\xa4"[..], "plain \\x41 \u{e4}"),
            (b"\x1b[2J\r\n\0\x7f", "\\x1b[2J\\x0d\\x0a\\x00\\x7f"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{202e}\u{9b}".as_bytes(), "\\u{202e}\\u{9b}"),
        ] {
            assert_eq!(display(bytes, 100), shown);
        }
        assert_eq!(display(b"abcdef", 3), "abc...");
        assert_eq!(display(b"abc", 3), "abc");
    }
}
