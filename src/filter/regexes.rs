//! A pattern in Rust's spelling, compiled: by `regex`, in linear time; and where it looks around
//! or back, by `fancy-regex`, within bounds.
//!
//! Each is compiled for ASCII, as all that Apache writes is. Texts with other letters are given to
//! a second form, in which `\w`, `\d`, `\s` and `.` know them as Python's do; it is compiled when
//! the first such text comes. Such texts must be UTF-8: who reads them puts U+FFFD for what is not
//! ([`super::Subject`]), as fail2ban does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::Hir;

use super::translate::Places;

/// Compiled size of one pattern.
const SIZE_LIMIT: usize = 4 << 20;
/// Steps back that a pattern may take on one text. Each may look at the whole text.
const MOST_STEPS: usize = 2_000;
/// Longer texts are not given to a pattern that steps back: Apache cuts error lines here, and
/// refuses longer requests.
const LONGEST: usize = 8192;

/// How often a bound kept a pattern from an answer. Such a text does not match.
pub(super) type Limits = Arc<AtomicU64>;

/// How a pattern is compiled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Memory of the lazy DFA, for each thread.
    pub(super) dfa_limit: usize,
    /// `^` and `$` are the ends of lines, as for patterns over several lines.
    pub(super) multi_line: bool,
    /// Texts beyond ASCII have a form of their own.
    pub(super) letters: bool,
}

#[derive(Debug)]
pub(super) struct Compiled {
    pattern: String,
    manner: Manner,
    ascii: Form,
    /// `None`: too large; then the form for ASCII does.
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
    fn new(pattern: &str, manner: Manner, letters: bool) -> Result<Form, String> {
        let source = coarser(pattern);
        let coarse = linear(&source, manner, letters).map_err(|error| explain(&error))?;
        let fine = match source == pattern {
            true => None,
            false => Some(backtracking(pattern, manner, letters)?),
        };
        Ok(Form { coarse, fine })
    }
}

/// What the groups of a match hold, by number.
pub(super) type Spans = Vec<Option<(usize, usize)>>;

impl Compiled {
    /// # Errors
    /// Why the pattern is none, for the operator.
    pub(super) fn new(pattern: &str, manner: Manner, limits: &Limits) -> Result<Compiled, String> {
        if refers_by_number(pattern) {
            return Err(
                "a reference back by number (`\\1`) to no group before it, or to one of \
                        <HOST>'s: name the group, `(?P<name>...)`, and refer to it by `(?P=name)`"
                    .to_owned(),
            );
        }
        Ok(Compiled {
            ascii: Form::new(pattern, manner, false)?,
            letters: OnceLock::new(),
            pattern: pattern.to_owned(),
            manner,
            limits: Arc::clone(limits),
        })
    }

    /// Whether it takes `fancy-regex`.
    pub(super) fn steps_back(&self) -> bool {
        self.ascii.fine.is_some()
    }

    fn form(&self, text: &[u8]) -> &Form {
        if !self.manner.letters || text.is_ascii() {
            return &self.ascii;
        }
        let compile = || Form::new(&self.pattern, self.manner, true).ok();
        let letters = self.letters.get_or_init(compile).as_ref();
        letters.unwrap_or(&self.ascii)
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

    /// Whether a bound keeps it from an answer.
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

    /// Numbers of the groups whose name is as wanted.
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

    /// For the search of literals.
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

/// The first thing for which a pattern in Rust's spelling takes `fancy-regex`, and what it is
/// called.
pub(super) fn what_steps_back(pattern: &str) -> Option<(&str, &'static str)> {
    let mut rest = pattern;
    while !rest.is_empty() {
        if let Some((_, name)) = STEPS_BACK.iter().find(|(front, _)| rest.starts_with(front)) {
            return Some((rest.get(..group_end(rest)).unwrap_or(rest), name));
        }
        rest = rest.get(atom(rest)..).unwrap_or_default();
    }
    None
}

/// What looks around or back, by how it begins.
const STEPS_BACK: [(&str, &str); 7] = [
    ("(?=", "look-ahead"),
    ("(?!", "look-ahead"),
    ("(?<=", "look-behind"),
    ("(?<!", "look-behind"),
    ("(?P=", "back reference"),
    ("(?(", "conditional"),
    ("(?>", "atomic group"),
];

/// For ASCII with Unicode off, for speed; but on where a class of the pattern holds other letters.
pub(super) fn linear(pattern: &str, manner: Manner, letters: bool) -> Result<Regex, regex::Error> {
    let with = |unicode: bool| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .multi_line(manner.multi_line)
            .size_limit(SIZE_LIMIT)
            .dfa_size_limit(manner.dfa_limit)
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
    manner: Manner,
    letters: bool,
) -> Result<fancy_regex::Regex, String> {
    let with = |mode| {
        fancy_regex::RegexBuilder::new(pattern)
            .bytes_mode(mode)
            .multi_line(manner.multi_line)
            .backtrack_limit(MOST_STEPS)
            .delegate_size_limit(SIZE_LIMIT)
            .delegate_dfa_size_limit(manner.dfa_limit)
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
        .map_err(|error| format!("no valid pattern: {error}"))
}

fn explain(error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(limit) = error {
        return format!(
            "the pattern grows beyond {limit} bytes: make its counts (`{{n,m}}`) smaller"
        );
    }
    // The last line of the text says what; the lines above draw the place in a pattern that the
    // administrator did not write.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!("no valid pattern: {}", last.trim_start_matches("error: "))
}

/// The pattern without what looks around or back: whatever the pattern matches, this does.
fn coarser(pattern: &str) -> String {
    coarser_placed(pattern).0
}

/// As [`coarser`], with the places of the pieces.
pub(super) fn coarser_placed(pattern: &str) -> (String, Places) {
    const ANYTHING: &str = "(?s-u:.*)";
    let mut out = String::with_capacity(pattern.len());
    let mut places = Vec::new();
    let mut rest = pattern;
    // Whether a count ends here: a `+` behind it forbids to step back into what it took.
    let mut counted = false;
    while !rest.is_empty() {
        let after_count = std::mem::take(&mut counted);
        places.push((out.len(), pattern.len() - rest.len()));
        if ["(?=", "(?!", "(?<=", "(?<!"]
            .iter()
            .any(|look| rest.starts_with(look))
        {
            rest = rest.get(group_end(rest)..).unwrap_or_default();
        } else if rest.starts_with("(?P=") {
            out.push_str(ANYTHING);
            rest = rest.get(group_end(rest)..).unwrap_or_default();
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
            let length = atom(rest);
            counted = !after_count && rest.starts_with(['*', '+', '?', '}']);
            out.push_str(rest.get(..length).unwrap_or(rest));
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    (out, places)
}

/// Whether a group is referred to by its number.
pub(super) fn refers_by_number(pattern: &str) -> bool {
    let mut rest = pattern;
    while !rest.is_empty() {
        let length = atom(rest);
        let digit = |at: usize| rest.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        let by_condition = rest.starts_with("(?(") && digit(3);
        let escaped = rest.starts_with('\\') && digit(1) && !rest.starts_with("\\0");
        if by_condition || escaped {
            return true;
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    false
}

/// Length of the group at the front, its brackets included.
fn group_end(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        match rest.as_bytes().first() {
            Some(b'(') => depth += 1,
            Some(b')') => depth -= 1,
            _ => {}
        }
        at += atom(rest);
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of what stands at the front: an escape, a class, or one character.
fn atom(text: &str) -> usize {
    let mut chars = text.char_indices();
    let escape = |from: usize| {
        let escaped = text.get(from + 1..).and_then(|rest| rest.chars().next());
        from + 1 + escaped.map_or(0, char::len_utf8)
    };
    match chars.next() {
        Some((_, '\\')) => escape(0),
        Some((_, '[')) => {
            // In Rust's spelling no bare `[` or `]` stands in a class but its ends.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(pattern: &str) -> Compiled {
        let manner = Manner {
            dfa_limit: 1 << 20,
            multi_line: false,
            letters: true,
        };
        Compiled::new(pattern, manner, &Limits::default()).expect(pattern)
    }

    #[test]
    fn what_looks_around_or_back_is_left_out_of_the_coarse_pattern() {
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
    fn patterns_that_step_back_match_and_name_their_groups() {
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
            assert!(regex.steps_back());
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
    fn what_makes_a_pattern_step_back_is_named() {
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
            assert_eq!(what_steps_back(pattern), what, "{pattern}");
        }
    }

    #[test]
    fn groups_are_referred_to_by_name() {
        for (pattern, by_number) in [
            (r"(a)\1", true),
            (r"(a)?(?(1)b)", true),
            (r"(a)\\1[\1]\0", false),
            (r"(?P<a>a)(?P=a)(?(<a>)b)", false),
        ] {
            assert_eq!(refers_by_number(pattern), by_number, "{pattern}");
        }
    }

    #[test]
    fn a_bound_that_is_hit_is_no_match_and_counted() {
        let limits = Limits::default();
        let manner = Manner {
            dfa_limit: 1 << 20,
            multi_line: false,
            letters: true,
        };
        let regex = Compiled::new(r"^(?:(?P<a>a+)+(?P=a))+$", manner, &limits).unwrap();
        let hard = format!("{}b", "a".repeat(100));
        // The coarse pattern has no mercy on it, so the other one must be asked.
        assert!(!regex.is_match(hard.as_bytes()) || limits.load(Ordering::Relaxed) > 0);
        let long = "a".repeat(LONGEST + 1);
        let before = limits.load(Ordering::Relaxed);
        assert!(!regex.is_match(long.as_bytes()));
        assert!(regex.spans(long.as_bytes()).is_none());
        assert_eq!(limits.load(Ordering::Relaxed), before + 2);
    }
}
