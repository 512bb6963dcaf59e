//! Bytes from strangers, made fit for a terminal, a log line, a page.

use std::fmt::Write;

/// At most `max` bytes of text for people: what is not UTF-8 and ASCII control characters become
/// `\xhh`, other control, bidirectional and invisible characters `\u{...}`. Cut text ends in
/// `...`. Backslashes stay as they are: Apache has escaped its lines once already.
pub fn display(bytes: &[u8], max: usize) -> String {
    const MORE: &str = "...";
    let mut text = String::new();
    // Where the text is to be cut when it turns out to be too long.
    let mut cut = 0;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push(&mut text, c);
            if !fits(&text, &mut cut, max, MORE.len()) {
                text.truncate(cut);
                return text + MORE.get(..max.min(MORE.len())).unwrap_or("");
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
            if !fits(&text, &mut cut, max, MORE.len()) {
                text.truncate(cut);
                return text + MORE.get(..max.min(MORE.len())).unwrap_or("");
            }
        }
    }
    text
}

/// The same for text with several lines, of any length; tabs stay too.
pub fn display_lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c => push(&mut shown, c),
        }
    }
    shown
}

/// A line of a file with one character in place of each that a terminal obeys: columns stay.
pub fn display_columns(line: &str) -> String {
    let shown = |c| match c {
        c if c != '\t' && is_hidden(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    line.chars().map(shown).collect()
}

/// The same for JSON, which stays equal: such a character becomes `\uXXXX`.
pub fn display_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        // JSON has escaped the first 32, and a newline can only be between objects.
        if c != '\n' && is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Notes the longest text that leaves room for the mark; false once `max` is exceeded.
fn fits(text: &str, cut: &mut usize, max: usize, mark: usize) -> bool {
    if text.len() + mark <= max {
        *cut = text.len();
    }
    text.len() <= max
}

fn push(text: &mut String, c: char) {
    // `write!` to a String cannot fail.
    let _ = match c {
        c if c.is_ascii_control() => write!(text, "\\x{:02x}", u32::from(c)),
        c if is_hidden(c) => write!(text, "\\u{{{:x}}}", u32::from(c)),
        c => text.write_char(c),
    };
}

/// Characters that a terminal obeys, that change the order of others or show nothing.
pub(crate) fn is_hidden(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_what_it_should() {
        let cases: &[(&[u8], usize, &str)] = &[
            (b"GET / \\x16", 80, "GET / \\x16"),
            (b"a\x00b\n\x1b[31m\x7f", 80, "a\\x00b\\x0a\\x1b[31m\\x7f"),
            (b"caf\xe9 \xc3\xa9", 80, "caf\\xe9 \u{e9}"),
            ("\u{202e}gnp\u{85}".as_bytes(), 80, "\\u{202e}gnp\\u{85}"),
            (b"0123456789", 10, "0123456789"),
            (b"0123456789a", 10, "0123456..."),
            (b"01234567\x00", 10, "0123456..."),
            (b"abc", 2, ".."),
            (b"", 0, ""),
        ];
        for (bytes, max, expected) in cases {
            assert_eq!(display(bytes, *max), *expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn json_stays_equal_and_no_output_has_a_hidden_character(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let shown = display_json(&json);
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text.clone());
            let hidden = |c: char| !"\n\t".contains(c) && is_hidden(c);
            prop_assert!(!shown.contains(hidden) && !display_lines(&text).contains(hidden));
            let columns = display_columns(&text);
            prop_assert!(!columns.contains(|c| c != '\t' && is_hidden(c)));
            prop_assert_eq!(columns.chars().count(), text.chars().count());
        }

        #[test]
        fn never_longer_and_never_a_control_character(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), max in 0usize..100,
        ) {
            let text = display(&bytes, max);
            prop_assert!(text.len() <= max);
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}
