//! Steps through the text of a pattern, one piece at a time.

/// Length of the piece at the front of a pattern in Rust's spelling: an escape, a class, or one
/// character.
pub(super) fn piece(text: &str) -> usize {
    let mut chars = text.char_indices();
    let escape = |from: usize| {
        let escaped = text.get(from + 1..).and_then(|rest| rest.chars().next());
        from + 1 + escaped.map_or(0, char::len_utf8)
    };
    match chars.next() {
        Some((_, '\\')) => escape(0),
        Some((_, '[')) => {
            // In Rust's spelling a class holds no bare `[` or `]` but its ends.
            let mut at = 1;
            while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
                at = match c {
                    '\\' => escape(at),
                    ']' => return at + 1,
                    c => at + c.len_utf8(),
                };
            }
            text.len()
        }
        Some((_, c)) => c.len_utf8(),
        None => 0,
    }
}

/// Length of the group at the front, its brackets included.
pub(super) fn group(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        match rest.as_bytes().first() {
            Some(b'(') => depth += 1,
            Some(b')') => depth -= 1,
            _ => {}
        }
        at += piece(rest);
        if depth == 0 {
            break;
        }
    }
    at
}

/// Whether a pattern refers to a group by its number.
pub(super) fn refers_by_number(pattern: &str) -> bool {
    let mut rest = pattern;
    while !rest.is_empty() {
        let digit = |at: usize| rest.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        let by_condition = rest.starts_with("(?(") && digit(3);
        let escaped = rest.starts_with('\\') && digit(1) && !rest.starts_with("\\0");
        if by_condition || escaped {
            return true;
        }
        rest = rest.get(piece(rest)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_by_number_are_found() {
        for (pattern, by_number) in [
            (r"(a)\1", true),
            (r"(a)?(?(1)b)", true),
            (r"(a)\\1[\1]\0", false),
            (r"(?P<a>a)(?P=a)(?(<a>)b)", false),
        ] {
            assert_eq!(refers_by_number(pattern), by_number, "{pattern}");
        }
    }
}
