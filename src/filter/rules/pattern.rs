//! The pattern of a condition.

use std::sync::{Arc, OnceLock};

use regex::bytes::{Regex, RegexBuilder};

/// A larger compiled pattern is refused.
pub(super) const MOST_BYTES: usize = 4 << 20;

/// A regex, compiled when the first text comes: of the shipped rules a worker needs few.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: String,
    /// Line and column.
    pub(super) place: (usize, usize),
    regex: Arc<OnceLock<Option<Regex>>>,
}

impl Pattern {
    /// `text` is correct, but may be too large: see [`Pattern::regex`].
    pub(super) fn new(text: &str, place: (usize, usize)) -> Pattern {
        Pattern {
            text: text.to_owned(),
            place,
            regex: Arc::default(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// `None`: it is too large.
    pub(super) fn regex(&self) -> Option<&Regex> {
        let compile = || regex(&self.text, MOST_BYTES).ok();
        self.regex.get_or_init(compile).as_ref()
    }

    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.regex().is_some_and(|regex| regex.is_match(text))
    }
}

/// The syntax of patterns: ignores case, `.` also matches a newline, ASCII classes.
pub(super) fn syntax() -> regex_syntax::ParserBuilder {
    let mut builder = regex_syntax::ParserBuilder::new();
    builder
        .case_insensitive(true)
        .dot_matches_new_line(true)
        .unicode(false)
        .utf8(false);
    builder
}

/// Compiles a pattern, to `most` bytes.
pub(super) fn regex(pattern: &str, most: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .case_insensitive(true)
        .dot_matches_new_line(true)
        .unicode(false)
        .size_limit(most)
        .dfa_size_limit(16 << 20)
        .build()
}
