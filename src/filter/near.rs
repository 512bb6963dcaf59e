//! How near a text comes to a pattern that it does not match: the longest front of the pattern
//! that still matches, found by trying fronts of it.
//!
//! Where a front matches, every shorter one does, so few tries find the longest.

use std::ops::Range;

use regex_syntax::ast::{self, Ast, RepetitionKind, RepetitionRange};

use super::pattern::Pattern;
use super::regexes::{Manner, coarser_placed, linear};
use super::translate::{Host, Places, translate_placed};

/// Fronts tried of one pattern.
const MOST_TRIES: u32 = 100;
/// Branches that are looked into; of more none is.
const MOST_BRANCHES: usize = 16;
/// Groups within groups that are looked into.
const DEEPEST: usize = 8;
/// Only so much of a text is looked at.
const LONGEST: usize = 64 << 10;
/// Marks a place in a front.
const MARK: &str = "pipeban_near";

/// The longest front of a pattern that a text matches. Places are bytes of the pattern as it was
/// written, and of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    /// The front ends here: before the word that failed, and before what may be empty before that.
    pub(super) matched: usize,
    /// What the pattern wants next; empty where only what looks around or back failed.
    pub(super) wanted: Range<usize>,
    /// Where in the text that is wanted; `None` where nothing of the pattern matches anywhere, or
    /// nothing is wanted.
    pub(super) at: Option<usize>,
    /// What looks around or back was left aside.
    pub(super) loosely: bool,
}

/// Of a pattern that does not match `text`. `tries` are those left for all patterns.
pub(super) fn reach(pattern: &Pattern, text: &[u8], tries: &mut u32) -> Option<Reach> {
    let (mut translated, _, written) = translate_placed(&pattern.text, Host::Any);
    let mut coarse = None;
    if pattern.steps_back() {
        let (without, places) = coarser_placed(&translated);
        translated = without;
        coarse = Some(places);
    }
    let ast = ast::parse::Parser::new().parse(&translated).ok()?;
    let mut search = Search {
        pattern: &translated,
        source: &pattern.text,
        written,
        coarse,
        text: text.get(..LONGEST).unwrap_or(text),
        manner: Manner {
            dfa_limit: 1 << 20,
            multi_line: pattern.multi_line,
            letters: true,
        },
        tries: MOST_TRIES.min(*tries),
    };
    let left = *tries - search.tries;
    let reach = search.whole(&ast);
    *tries = left + search.tries;
    reach
}

struct Search<'a> {
    /// In Rust's spelling.
    pattern: &'a str,
    /// As it was written.
    source: &'a str,
    written: Places,
    coarse: Option<Places>,
    text: &'a [u8],
    manner: Manner,
    tries: u32,
}

/// A front of the pattern in the making: a regex but for the groups still open.
#[derive(Clone)]
struct Front {
    regex: String,
    open: usize,
}

impl Front {
    fn then(&self, more: &str) -> Front {
        Front {
            regex: [&self.regex, more].concat(),
            open: self.open,
        }
    }

    fn closed(&self) -> String {
        [&self.regex, ")".repeat(self.open).as_str()].concat()
    }
}

/// The longest front, with its mark; places in Rust's spelling.
struct Longest {
    marked: String,
    /// How much of the branch it lies in matched.
    length: usize,
    matched: usize,
    wanted: Range<usize>,
}

impl Search<'_> {
    fn whole(&mut self, ast: &Ast) -> Option<Reach> {
        let loosely = self.coarse.is_some();
        if self.matches(self.pattern) {
            let end = self.source.len();
            return loosely.then_some(Reach {
                matched: end,
                wanted: end..end,
                at: None,
                loosely,
            });
        }
        let nothing = Front {
            regex: String::new(),
            open: 0,
        };
        let longest = self.longest(&nothing, ast)?;
        let matched = self.begin(longest.matched);
        Some(Reach {
            matched,
            wanted: matched..self.end(longest.wanted.end),
            at: self.place(&longest.marked).filter(|_| matched > 0),
            loosely,
        })
    }

    fn matches(&mut self, regex: &str) -> bool {
        let Some(left) = self.tries.checked_sub(1) else {
            return false;
        };
        self.tries = left;
        linear(regex, self.manner, !self.text.is_ascii())
            .is_ok_and(|regex| regex.is_match(self.text))
    }

    /// Where the mark stands.
    fn place(&self, marked: &str) -> Option<usize> {
        let regex = linear(marked, self.manner, !self.text.is_ascii()).ok()?;
        let found = regex.captures(self.text)?.name(MARK)?;
        Some(found.start())
    }

    /// `None`: nothing of `ast` matches behind `front`.
    fn longest(&mut self, front: &Front, ast: &Ast) -> Option<Longest> {
        match ast {
            Ast::Concat(concat) => self.in_parts(front, &concat.asts),
            Ast::Alternation(branches) if branches.asts.len() > MOST_BRANCHES => None,
            Ast::Alternation(branches) => {
                let mut flags = String::new();
                let mut best: Option<Longest> = None;
                for branch in &branches.asts {
                    let found = self.longest(&front.then(&flags), branch);
                    let further = |found: &Longest| {
                        best.as_ref().is_none_or(|best| found.length > best.length)
                    };
                    if found.as_ref().is_some_and(further) {
                        best = found;
                    }
                    flags.push_str(&self.flags(branch));
                }
                best
            }
            one => self.in_parts(front, std::slice::from_ref(one)),
        }
    }

    fn in_parts(&mut self, front: &Front, parts: &[Ast]) -> Option<Longest> {
        let (mut good, mut bad) = (0, parts.len());
        while bad - good > 1 {
            let middle = good.midpoint(bad);
            let tried = front.then(self.span(parts.get(..middle)?));
            if self.matches(&tried.closed()) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        let failed = parts.get(good)?;
        let before = parts.get(..good)?;
        if let Some(inner) = self.group(failed).filter(|_| front.open < DEEPEST) {
            let opened = failed.span().start.offset..inner.span().start.offset;
            let mut deeper = front
                .then(self.span(before))
                .then(self.pattern.get(opened)?);
            deeper.open += 1;
            if let Some(longest) = self.longest(&deeper, inner) {
                return Some(longest);
            }
        }
        let mut cut = good;
        let part = |at: usize| parts.get(at);
        let previous = |cut: usize| cut.checked_sub(1).and_then(part);
        if is_word(failed) {
            while previous(cut).is_some_and(is_word) {
                cut -= 1;
            }
        }
        while previous(cut).is_some_and(may_be_empty) {
            cut -= 1;
        }
        if cut == 0 && front.open > 0 {
            return None;
        }
        let mut end = good;
        while is_word(failed) && part(end + 1).is_some_and(is_word) {
            end += 1;
        }
        let start = |part: &Ast| part.span().start.offset;
        let from = start(part(cut)?);
        let marked = front
            .then(self.span(parts.get(..cut)?))
            .then(&format!("(?P<{MARK}>)"))
            .then(self.span(parts.get(cut..good)?));
        Some(Longest {
            marked: marked.closed(),
            length: start(failed) - parts.first().map_or(0, start),
            matched: from,
            wanted: from..part(end)?.span().end.offset,
        })
    }

    /// What these parts are in the pattern.
    fn span(&self, parts: &[Ast]) -> &str {
        let ends = parts.first().zip(parts.last());
        ends.and_then(|(first, last)| {
            self.pattern
                .get(first.span().start.offset..last.span().end.offset)
        })
        .unwrap_or_default()
    }

    /// What must match once for this group to match; `None` for what a tag stands for.
    fn group<'s>(&self, ast: &'s Ast) -> Option<&'s Ast> {
        let group = match ast {
            Ast::Group(group) => group,
            Ast::Repetition(repetition) if lowest(&repetition.op.kind) == 1 => {
                match &*repetition.ast {
                    Ast::Group(group) => group,
                    _ => return None,
                }
            }
            _ => return None,
        };
        let (outside, inside) = (group.span.start.offset, group.ast.span().start.offset);
        (self.begin(outside) != self.begin(inside)).then_some(&*group.ast)
    }

    /// `(?i)` and its like, which hold for the branches that follow too.
    fn flags(&self, branch: &Ast) -> String {
        let parts = match branch {
            Ast::Concat(concat) => concat.asts.as_slice(),
            one => std::slice::from_ref(one),
        };
        let flags = parts.iter().filter(|part| matches!(part, Ast::Flags(_)));
        flags
            .map(|flags| self.span(std::slice::from_ref(flags)))
            .collect()
    }

    /// Where what stands here began in the pattern as written.
    fn begin(&self, at: usize) -> usize {
        let at = match &self.coarse {
            Some(places) => begin(places, at),
            None => at,
        };
        begin(&self.written, at)
    }

    /// Where what ends here ended in the pattern as written.
    fn end(&self, at: usize) -> usize {
        let at = match &self.coarse {
            Some(places) => end(places, at).unwrap_or(usize::MAX),
            None => at,
        };
        end(&self.written, at).unwrap_or(self.source.len())
    }
}

fn begin(places: &Places, at: usize) -> usize {
    let next = places.partition_point(|(now, _)| *now <= at);
    let place = next.checked_sub(1).and_then(|at| places.get(at));
    place.map_or(0, |(_, was)| *was)
}

fn end(places: &Places, at: usize) -> Option<usize> {
    let next = places.partition_point(|(now, _)| *now < at);
    places.get(next).map(|(_, was)| *was)
}

/// A character of a word: half a word is no answer.
fn is_word(ast: &Ast) -> bool {
    matches!(ast, Ast::Literal(literal) if !literal.c.is_whitespace())
}

fn may_be_empty(ast: &Ast) -> bool {
    match ast {
        Ast::Empty(_) | Ast::Flags(_) => true,
        Ast::Repetition(repetition) => lowest(&repetition.op.kind) == 0,
        Ast::Group(group) => may_be_empty(&group.ast),
        Ast::Concat(concat) => concat.asts.iter().all(may_be_empty),
        _ => false,
    }
}

fn lowest(kind: &RepetitionKind) -> u32 {
    match kind {
        RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore => 0,
        RepetitionKind::OneOrMore => 1,
        RepetitionKind::Range(range) => match range {
            RepetitionRange::Exactly(count)
            | RepetitionRange::AtLeast(count)
            | RepetitionRange::Bounded(count, _) => *count,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(pattern: &str, text: &str) -> Option<Reach> {
        let pattern = Pattern::compile(1, pattern, false).unwrap();
        reach(&pattern, text.as_bytes(), &mut 1000)
    }

    #[test]
    fn the_longest_front_is_found_and_cut_before_the_word_that_failed() {
        const TUTORIAL: &str =
            r"\[client <HOST>:\d+\] AH10244: invalid URI path \(.*cgi-bin.*bin/sh.*";
        for (pattern, text, matched, wanted, rest) in [
            (
                TUTORIAL,
                "x [client 192.0.2.1:5] AH10244: invalid URI path (/foo)",
                r"\[client <HOST>:\d+\] AH10244: invalid URI path \(",
                ".*cgi-bin",
                "/foo)",
            ),
            (
                TUTORIAL,
                "x [client 192.0.2.1:5] AH10245: invalid URI path (/foo)",
                r"\[client <HOST>:\d+\] ",
                "AH10244:",
                "AH10245: invalid URI path (/foo)",
            ),
            (
                TUTORIAL,
                "[client www.example.org:5] x",
                r"\[client ",
                "<HOST>",
                "www.example.org:5] x",
            ),
            // The place is that of the match that goes furthest, not of the first.
            (
                "ab <HOST>",
                "ab x ab 192.0.2",
                "ab ",
                "<HOST>",
                "x ab 192.0.2",
            ),
            ("ab c<HOST>", "ab x ab c!", "ab c", "<HOST>", "!"),
            (
                r"^<HOST> \S+ x{2}y",
                "192.0.2.1 - xxz",
                r"^<HOST> \S+ x{2}",
                "y",
                "z",
            ),
            (
                r"^<HOST> (?:get|post one) /",
                "192.0.2.1 post two /",
                r"^<HOST> (?:get|post ",
                "one",
                "two /",
            ),
            (
                r"^<HOST> (?:get|post) /",
                "192.0.2.1 head /",
                r"^<HOST> ",
                "(?:get|post)",
                "head /",
            ),
            (
                r"^<HOST> (?:a b )+c",
                "192.0.2.1 a x",
                r"^<HOST> (?:a ",
                "b",
                "x",
            ),
            (
                r"(?i)^<HOST> GET x|^<HOST> a b",
                "192.0.2.1 get y",
                r"(?i)^<HOST> GET ",
                "x",
                "y",
            ),
            (
                r"(?i)^<HOST> GET x|^<HOST> PUT THIS b",
                "192.0.2.1 put this c",
                r"(?i)^<HOST> GET x|^<HOST> PUT THIS ",
                "b",
                "c",
            ),
            (
                "user <F-USER>\\S+</F-USER> from <HOST>$",
                "user u from 192.0.2.1 x",
                "user <F-USER>\\S+</F-USER> from <HOST>",
                "$",
                " x",
            ),
            (
                r"^[[a]{,2}<HOST> {x",
                "[192.0.2.1 {y",
                "^[[a]{,2}<HOST> ",
                "{x",
                "{y",
            ),
            (
                r"^user (?!root)\w+ <IP4> x",
                "user u 192.0.2.1 y",
                r"^user (?!root)\w+ <IP4> ",
                "x",
                "y",
            ),
        ] {
            let reach = near(pattern, text).expect(pattern);
            assert_eq!(&pattern[..reach.matched], matched, "{pattern}");
            assert_eq!(&pattern[reach.wanted], wanted, "{pattern}");
            assert_eq!(&text[reach.at.unwrap()..], rest, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_begins_nowhere_and_one_that_only_looks_around_say_so() {
        let none = near("client <HOST>", "nothing").unwrap();
        assert_eq!((none.matched, none.wanted, none.at), (0, 0..6, None));
        let looks = near(r"^user (?!root)\w+ <HOST>", "user root 192.0.2.1").unwrap();
        assert_eq!(
            (looks.at, looks.wanted, looks.loosely),
            (None, 24..24, true)
        );
        assert_eq!(near("client <HOST>", "client 192.0.2.1"), None);
    }

    #[test]
    fn the_work_is_bounded() {
        let text = "[a \"b\"] ".repeat(1000);
        let mut tries = 1000;
        let deep = format!("{}x{} <HOST>", "(?:a|".repeat(40), ")".repeat(40));
        let wide = format!("(?:{}) <HOST>", vec!["abc"; 500].join("|"));
        for pattern in [deep.as_str(), &wide, r"^(?:\[[^\]]*\] )*z<HOST>"] {
            let pattern = Pattern::compile(1, pattern, false).unwrap();
            let before = tries;
            reach(&pattern, text.as_bytes(), &mut tries);
            assert!(before - tries <= MOST_TRIES);
        }
        let pattern = Pattern::compile(1, "client <HOST>", false).unwrap();
        let nothing = reach(&pattern, b"client x", &mut 0);
        assert!(nothing.is_none_or(|reach| reach.matched == 0));
    }

    proptest! {
        // Each compiles a dozen patterns.
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn what_is_said_to_match_does(
            parts in proptest::collection::vec(prop_oneof![
                Just("a"), Just("b "), Just("a*"), Just(".*"), Just("(?:a|b)"), Just("(?:ab)+"), Just("[ab]"),
                Just(" "), Just("^"), Just("(?:a(?:b| ))?"), Just("<HOST>"), Just("(?:b(?:aa|a b))"),
            ], 1..8),
            text in "[ab ]{0,12}(192\\.0\\.2\\.1)?[ab ]{0,6}",
        ) {
            let source = format!("{}<HOST>", parts.concat());
            let pattern = Pattern::compile(1, &source, false).unwrap();
            let found = reach(&pattern, text.as_bytes(), &mut 1000);
            prop_assert_eq!(found.is_none(), pattern.matches_with_any(text.as_bytes()));
            let Some(found) = found else { return Ok(()) };
            prop_assert!(source.is_char_boundary(found.matched));
            prop_assert!(found.wanted.start == found.matched && found.wanted.end > found.matched);
            prop_assert_eq!(found.at.is_none(), found.matched == 0);
            prop_assert!(found.at.is_none_or(|at| at <= text.len()));
            // At the top level a front is a pattern of its own.
            let front = &source[..found.matched];
            if front.matches('(').count() == front.matches(')').count() {
                let front = Pattern::compile(1, front, false).unwrap();
                prop_assert!(front.matches_with_any(text.as_bytes()));
                let more = Pattern::compile(1, &source[..found.wanted.end], false);
                prop_assert!(!more.unwrap().matches_with_any(text.as_bytes()));
            }
        }
    }
}
