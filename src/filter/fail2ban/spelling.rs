//! Translates pieces of a pattern from Python's spelling to Rust's.
//!
//! Texts end in a newline when they are matched, as fail2ban's do: `\s` and `[^x]` may match it,
//! `$` matches before it. `\Z`, which thus never matches in fail2ban, is the end of the line.
//!
//! `\w`, `\d`, `\s` and `\b` know the letters of every language. Unlike Python's, Rust's `\w`
//! includes combining marks.

use std::borrow::Cow;

/// A piece in Rust's spelling, and what follows it in Python's.
pub(super) type Piece<'t> = (Cow<'t, str>, &'t str);

/// The end of a line, before or after its newline.
pub(super) const END: &str = r"(?:$|\n\z)";
const END_OF_TEXT: &str = r"(?:\n?\z)";
/// Blank to Python, not to Rust.
const MORE_BLANKS: &str = r"\x1c-\x1f";

pub(super) fn cut(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

/// Translates the escape at the front of `text`.
pub(super) fn escape(text: &str, in_class: bool) -> Piece<'_> {
    let mut chars = text.chars();
    chars.next();
    let Some(c) = chars.next() else {
        return (text.into(), "");
    };
    let rest = chars.as_str();
    let whole = || text.get(..1 + c.len_utf8()).unwrap_or(text).into();
    let piece = match c {
        // In Rust these two mean the ends of a word.
        '<' | '>' => c.to_string().into(),
        'Z' if !in_class => END_OF_TEXT.into(),
        'b' if in_class => r"\x08".into(),
        's' if in_class => format!(r"\s{MORE_BLANKS}").into(),
        's' => format!(r"[\s{MORE_BLANKS}]").into(),
        'S' if !in_class => format!(r"[^\s{MORE_BLANKS}]").into(),
        'x' => return number(text, rest, 2, 16).unwrap_or((whole(), rest)),
        'u' => return number(text, rest, 4, 16).unwrap_or((whole(), rest)),
        'U' => return number(text, rest, 8, 16).unwrap_or((whole(), rest)),
        '0'..='7' => return octal(text, in_class).unwrap_or((whole(), rest)),
        c if !c.is_ascii() => c.to_string().into(),
        _ => whole(),
    };
    (piece, rest)
}

/// `\0`, `\012`, in a class also `\1`: any other number is a reference.
fn octal(text: &str, in_class: bool) -> Option<Piece<'_>> {
    let digits = cut(text, 1);
    let length = digits
        .bytes()
        .take(3)
        .take_while(|b| (b'0'..=b'7').contains(b))
        .count();
    let is_octal = in_class || digits.starts_with('0') || length == 3;
    let length = if digits.starts_with('0') || length == 3 {
        length
    } else {
        1
    };
    is_octal.then(|| number(text, digits, length, 8)).flatten()
}

/// The character whose number is the first `digits` of `rest`.
fn number<'t>(text: &'t str, rest: &'t str, digits: usize, base: u32) -> Option<Piece<'t>> {
    let number = u32::from_str_radix(rest.get(..digits)?, base).ok()?;
    let c = char::from_u32(number)?;
    let after = cut(rest, digits);
    let piece = if c.is_ascii() {
        format!(r"\x{number:02x}").into()
    } else {
        c.to_string().into()
    };
    debug_assert!(text.ends_with(after));
    Some((piece, after))
}

/// A `{` that begins no count is literal; `{,n}` counts from 0.
pub(super) fn brace(text: &str) -> Piece<'_> {
    let literal = || (Cow::from(r"\{"), cut(text, 1));
    let Some((count, after)) = cut(text, 1).split_once('}') else {
        return literal();
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    match count.split_once(',') {
        Some((low, high)) if digits(low) && digits(high) && count != "," => {
            let low = if low.is_empty() { "0" } else { low };
            (format!("{{{low},{high}}}").into(), after)
        }
        None if !count.is_empty() && digits(count) => (format!("{{{count}}}").into(), after),
        _ => literal(),
    }
}

/// Inline flags, `(?i)` or `(?i:`; true for those that end at once.
pub(super) fn flags(text: &str) -> Option<(String, bool, &str)> {
    let inside = text.strip_prefix("(?")?;
    let end = inside.find([')', ':'])?;
    let (letters, after) = inside.split_at(end);
    let (on, off) = letters.split_once('-').unwrap_or((letters, ""));
    let known = |letters: &str| letters.bytes().all(|b| b"aimsux".contains(&b));
    if letters.is_empty() || !known(on) || !known(off) {
        return None;
    }
    let ascii = on.contains('a');
    let on = on.replace('a', "");
    let off = format!("{off}{}", if ascii { "u" } else { "" });
    let minus = if off.is_empty() { "" } else { "-" };
    Some((
        format!("(?{on}{minus}{off}"),
        after.starts_with(')'),
        cut(after, 1),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_mean_what_they_mean_in_python() {
        for (python, in_class, rust) in [
            (r"\<a", false, "<"),
            (r"\Za", false, r"(?:\n?\z)"),
            (r"\ba", false, r"\b"),
            (r"\ba", true, r"\x08"),
            (r"\sa", true, r"\s\x1c-\x1f"),
            (r"\sa", false, r"[\s\x1c-\x1f]"),
            (r"\Sa", false, r"[^\s\x1c-\x1f]"),
            (r"\x41a", false, r"\x41"),
            (r"\xe9a", false, "é"),
            (r"\u00e9a", true, "é"),
            (r"\U0001f600a", true, "😀"),
            (r"\éa", false, "é"),
            (r"\0a", false, r"\x00"),
            (r"\101a", false, r"\x41"),
            (r"\7a", true, r"\x07"),
            (r"\1a", false, r"\1"),
            (r"\xzza", false, r"\x"),
            ("\\", false, "\\"),
        ] {
            let (piece, _) = escape(python, in_class);
            assert_eq!(piece, rust, "{python}");
        }
        assert_eq!(escape(r"\x41bc", false).1, "bc");
        assert_eq!(escape(r"\07bc", false).1, "bc");
    }

    #[test]
    fn flags_mean_what_they_mean_in_python() {
        for (python, rust) in [
            ("(?i)x", Some(("(?i", true, "x"))),
            ("(?im-s:x", Some(("(?im-s", false, "x"))),
            ("(?a)", Some(("(?-u", true, ""))),
            ("(?:x)", None),
            ("(?P<x>y)", None),
            ("(?=x)", None),
            ("(?<=a:b)", None),
        ] {
            let found = flags(python);
            let found = found
                .as_ref()
                .map(|(f, ends, rest)| (f.as_str(), *ends, *rest));
            assert_eq!(found, rust, "{python}");
        }
    }
}
