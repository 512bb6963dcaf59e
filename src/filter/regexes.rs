//! A pattern in Rust's spelling, compiled: by `regex`, in linear time; if it looks around or back,
//! by `fancy-regex`, within limits.
//!
//! Each is compiled for ASCII, as all that Apache writes is. A text with other letters needs a
//! second form, in which `\w`, `\d`, `\s` and `.` know letters as Python's do; it is compiled when
//! the first such text comes. Such texts must be UTF-8: [`super::Subject`] replaces other bytes by
//! U+FFFD, as fail2ban does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::Hir;

use super::scan::{group, piece, refers_by_number};

/// Compiled size of one pattern.
const SIZE_LIMIT: usize = 4 << 20;
/// Most backtracking steps of a pattern on one text. Each may read the whole text.
const MOST_STEPS: usize = 2_000;
/// Longer texts do not match a pattern that backtracks. Apache cuts error lines at this length; of
/// access lines that are longer such a pattern sees [`super::subject::Views::shortened`].
pub(super) const LONGEST: usize = 8192;

/// How often a limit on steps or length stopped a pattern. Such a text does not match.
pub(super) type Limits = Arc<AtomicU64>;

#[derive(Debug)]
pub(super) struct Compiled {
    pattern: String,
    /// Memory of the lazy DFA, for each thread.
    dfa_limit: usize,
    ascii: Form,
    /// `None`: too large; the form for ASCII is used instead.
    letters: OnceLock<Option<Form>>,
    limits: Limits,
}

#[derive(Debug)]
struct Form {
    /// The pattern itself, or without what looks around and back: matches whatever it matches.
    coarse: Regex,
    fine: Option<fancy_regex::Regex>,
}

impl Form {
    fn new(pattern: &str, dfa_limit: usize, letters: bool) -> Result<Form, String> {
        let source = coarser(pattern);
        let coarse = linear(&source, dfa_limit, letters).map_err(|error| explain(&error))?;
        let fine = match source == pattern {
            true => None,
            false => Some(backtracking(pattern, dfa_limit, letters)?),
        };
        Ok(Form { coarse, fine })
    }
}

/// What the groups of a match hold, by number.
pub(super) type Spans = Vec<Option<(usize, usize)>>;

impl Compiled {
    /// # Errors
    /// What is wrong with the pattern.
    pub(super) fn new(
        pattern: &str,
        dfa_limit: usize,
        limits: &Limits,
    ) -> Result<Compiled, String> {
        if refers_by_number(pattern) {
            return Err(
                "a back reference by number (`\\1`) to no group before it, or to a group of \
                 <HOST>: name the group, `(?P<name>...)`, and refer to it by `(?P=name)`"
                    .to_owned(),
            );
        }
        Ok(Compiled {
            ascii: Form::new(pattern, dfa_limit, false)?,
            letters: OnceLock::new(),
            pattern: pattern.to_owned(),
            dfa_limit,
            limits: Arc::clone(limits),
        })
    }

    /// Whether it needs `fancy-regex`.
    pub(super) fn backtracks(&self) -> bool {
        self.ascii.fine.is_some()
    }

    fn form(&self, text: &[u8]) -> &Form {
        if text.is_ascii() {
            return &self.ascii;
        }
        let compile = || Form::new(&self.pattern, self.dfa_limit, true).ok();
        let letters = self.letters.get_or_init(compile).as_ref();
        letters.unwrap_or(&self.ascii)
    }

    /// Whether it matches without what looks around or back.
    pub(super) fn may_match(&self, text: &[u8]) -> bool {
        self.form(text).coarse.is_match(text)
    }

    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        let form = self.form(text);
        if !form.coarse.is_match(text) {
            return false;
        }
        let Some(fine) = &form.fine else {
            return true;
        };
        if text.len() > LONGEST {
            return self.limit();
        }
        fine.is_match(text).unwrap_or_else(|_| self.limit())
    }

    /// Whether a limit stops it on this text.
    pub(super) fn gives_up(&self, text: &[u8]) -> bool {
        let form = self.form(text);
        let Some(fine) = &form.fine else {
            return false;
        };
        let up =
            form.coarse.is_match(text) && (text.len() > LONGEST || fine.is_match(text).is_err());
        if up {
            self.limit();
        }
        up
    }

    /// The groups of the first match.
    pub(super) fn spans(&self, text: &[u8]) -> Option<Spans> {
        let form = self.form(text);
        let Some(fine) = &form.fine else {
            let mut locations = form.coarse.capture_locations();
            form.coarse.captures_read(&mut locations, text)?;
            return Some((0..locations.len()).map(|at| locations.get(at)).collect());
        };
        if !form.coarse.is_match(text) {
            return None;
        }
        if text.len() > LONGEST {
            self.limit();
            return None;
        }
        let Ok(captures) = fine.captures(text) else {
            self.limit();
            return None;
        };
        let captures = captures?;
        let span = |at| captures.get(at).map(|found| (found.start(), found.end()));
        Some((0..captures.len()).map(span).collect())
    }

    /// Numbers of the groups with such a name.
    pub(super) fn groups(&self, wanted: impl Fn(&str) -> bool) -> Vec<usize> {
        let numbers = |names: &mut dyn Iterator<Item = Option<&str>>| {
            names
                .enumerate()
                .filter(|(_, name)| name.is_some_and(&wanted))
                .map(|(number, _)| number)
                .collect()
        };
        match &self.ascii.fine {
            Some(fine) => numbers(&mut fine.capture_names()),
            None => numbers(&mut self.ascii.coarse.capture_names()),
        }
    }

    /// Its structure without what looks around or back.
    pub(super) fn hir(&self) -> Option<Hir> {
        syntax(self.ascii.coarse.as_str())
    }

    fn limit(&self) -> bool {
        self.limits.fetch_add(1, Ordering::Relaxed);
        false
    }
}

/// The structure of a pattern in Rust's spelling without what looks around or back: whatever the
/// pattern matches, this does.
pub(super) fn coarse_syntax(pattern: &str) -> Option<Hir> {
    syntax(&coarser(pattern))
}

fn syntax(pattern: &str) -> Option<Hir> {
    let with = |unicode: bool| {
        let mut parser = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .unicode(unicode)
            .build();
        parser.parse(pattern).ok()
    };
    with(false).or_else(|| with(true))
}

/// The first part for which a pattern in Rust's spelling needs `fancy-regex`, and its name.
pub(super) fn what_backtracks(pattern: &str) -> Option<(&str, &'static str)> {
    let mut rest = pattern;
    while !rest.is_empty() {
        if let Some((_, name)) = BACKTRACKING
            .iter()
            .find(|(front, _)| rest.starts_with(front))
        {
            return Some((rest.get(..group(rest)).unwrap_or(rest), name));
        }
        rest = rest.get(piece(rest)..).unwrap_or_default();
    }
    None
}

/// Parts that look around or back, by how they begin.
const BACKTRACKING: [(&str, &str); 7] = [
    ("(?=", "look-ahead"),
    ("(?!", "look-ahead"),
    ("(?<=", "look-behind"),
    ("(?<!", "look-behind"),
    ("(?P=", "back reference"),
    ("(?(", "conditional"),
    ("(?>", "atomic group"),
];

/// Without Unicode, for speed; with it if a class of the pattern holds letters beyond ASCII.
pub(super) fn linear(
    pattern: &str,
    dfa_limit: usize,
    letters: bool,
) -> Result<Regex, regex::Error> {
    let with = |unicode: bool| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(dfa_limit)
            .build()
    };
    with(letters).or_else(|error| {
        if letters || pattern.is_ascii() {
            Err(error)
        } else {
            with(true)
        }
    })
}

fn backtracking(
    pattern: &str,
    dfa_limit: usize,
    letters: bool,
) -> Result<fancy_regex::Regex, String> {
    let with = |mode| {
        fancy_regex::RegexBuilder::new(pattern)
            .bytes_mode(mode)
            .backtrack_limit(MOST_STEPS)
            .delegate_size_limit(SIZE_LIMIT)
            .delegate_dfa_size_limit(dfa_limit)
            .build()
    };
    let first = match letters {
        true => fancy_regex::BytesMode::UnicodeBytes,
        false => fancy_regex::BytesMode::Ascii,
    };
    with(first)
        .or_else(|error| {
            if letters || pattern.is_ascii() {
                Err(error)
            } else {
                with(fancy_regex::BytesMode::UnicodeBytes)
            }
        })
        .map_err(|error| format!("invalid pattern: {error}"))
}

fn explain(error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(limit) = error {
        return format!(
            "the pattern grows beyond {limit} bytes: make its counts (`{{n,m}}`) smaller"
        );
    }
    // The last line says what; the lines above draw the place in a pattern that the administrator
    // did not write.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!("invalid pattern: {}", last.trim_start_matches("error: "))
}

/// The pattern without its parts that look around or back: matches at least as much.
fn coarser(pattern: &str) -> String {
    const ANYTHING: &str = "(?s-u:.*)";
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    // Whether a count ends here: a `+` behind it forbids backtracking into it.
    let mut counted = false;
    while !rest.is_empty() {
        let after_count = std::mem::take(&mut counted);
        let look = ["(?=", "(?!", "(?<=", "(?<!"];
        if look.iter().any(|look| rest.starts_with(look)) {
            rest = rest.get(group(rest)..).unwrap_or_default();
        } else if rest.starts_with("(?P=") {
            out.push_str(ANYTHING);
            rest = rest.get(group(rest)..).unwrap_or_default();
        } else if let Some(condition) = rest.strip_prefix("(?(") {
            // One branch, the other, or none.
            out.push_str("(?:|");
            rest = condition.split_once(')').map_or("", |(_, rest)| rest);
        } else if let Some(after) = rest.strip_prefix("(?>") {
            out.push_str("(?:");
            rest = after;
        } else if let Some(after) = rest.strip_prefix('+').filter(|_| after_count) {
            rest = after;
        } else {
            let length = piece(rest);
            counted = !after_count && rest.starts_with(['*', '+', '?', '}']);
            out.push_str(rest.get(..length).unwrap_or(rest));
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(pattern: &str) -> Compiled {
        Compiled::new(pattern, 1 << 20, &Limits::default()).expect(pattern)
    }

    #[test]
    fn the_coarse_pattern_does_not_look_around_or_back() {
        for (pattern, coarse) in [
            (r"a(?!b(c)[)\]](?=d))e", "ae"),
            (r"(?<=x)a(?P<n>b)(?P=n)", r"a(?P<n>b)(?s-u:.*)"),
            (r"(?P<n>a)?(?(<n>)b|c)\\1", r"(?P<n>a)?(?:|b|c)\\1"),
            (r"(?>a+)(?<name>b)", "(?:a+)(?<name>b)"),
            (r"\(?!a(?:b)", r"\(?!a(?:b)"),
            ("a++b*+c?+d{1,2}+e?", "a+b*c?d{1,2}e?"),
            ("(?:a+)+b+?c*?+", "(?:a+)+b+?c*?+"),
        ] {
            assert_eq!(coarser(pattern), coarse, "{pattern}");
        }
    }

    #[test]
    fn backtracking_patterns_match_and_name_their_groups() {
        for (pattern, text, expected) in [
            (r"^user (?!`)(?P<user>\S+) (?P<rest>x)$", "user a x", true),
            (r"^user (?!`)(?P<user>\S+) (?P<rest>x)$", "user `a x", false),
            (r"(?P<q>['`]).*(?P=q)", "'a'", true),
            (r"(?P<q>['`]).*(?P=q)", "'a`", false),
            (r"^(?P<q>')?a(?(<q>)'|x)", "'a'", true),
            (r"^(?P<q>')?a(?(<q>)'|x)", "ax", true),
            (r"^(?P<q>')?a(?(<q>)'|x)", "a'", false),
            (r"^(?>a+)ab", "aaab", false),
            (r"^a++ab", "aaab", false),
            (r"^a{1,2}+ab", "aaab", true),
        ] {
            let regex = compiled(pattern);
            assert!(regex.backtracks());
            assert_eq!(
                regex.is_match(text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
            assert_eq!(regex.spans(text.as_bytes()).is_some(), expected);
        }
        let regex = compiled(r"^user (?!`)(?P<user>\S+) (?P<rest>x)$");
        assert_eq!(regex.groups(|name| name == "rest"), [2]);
        let spans = regex.spans("user é x".as_bytes()).unwrap();
        assert_eq!(spans, [Some((0, 9)), Some((5, 7)), Some((8, 9))]);
    }

    #[test]
    fn the_part_that_backtracks_is_named() {
        for (pattern, what) in [
            (r"^a(?:b)\(?=c", None),
            (r"^a(?![)]x)b(?<=c)", Some(("(?![)]x)", "look-ahead"))),
            (r"[(?=]a(?<!b)", Some(("(?<!b)", "look-behind"))),
            (r"(?P<q>')(?P=q)", Some(("(?P=q)", "back reference"))),
            (
                r"(?P<q>')?(?(<q>)b|c)",
                Some(("(?(<q>)b|c)", "conditional")),
            ),
            (r"(?>a)", Some(("(?>a)", "atomic group"))),
        ] {
            assert_eq!(what_backtracks(pattern), what, "{pattern}");
        }
    }

    #[test]
    fn a_limit_is_no_match_and_is_counted() {
        let limits = Limits::default();
        let regex = Compiled::new(r"^(?:(?P<a>a+)+(?P=a))+$", 1 << 20, &limits).unwrap();
        let hard = format!("{}b", "a".repeat(100));
        // The coarse pattern matches it.
        assert!(!regex.is_match(hard.as_bytes()) || limits.load(Ordering::Relaxed) > 0);
        let long = "a".repeat(LONGEST + 1);
        let before = limits.load(Ordering::Relaxed);
        assert!(!regex.is_match(long.as_bytes()));
        assert!(regex.spans(long.as_bytes()).is_none());
        assert_eq!(limits.load(Ordering::Relaxed), before + 2);
    }
}
