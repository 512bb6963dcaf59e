//! Why a line hits no client, and how far it matches a pattern: for people.
//!
//! Fronts of a pattern are tried one after the other, the longest first.

use super::compile::{Filter, Outcome};
use super::fail2ban::translate::{Host, translate};
use super::pattern::Pattern;
use super::regexes::{Compiled, Limits};
use super::rules::RuleNear;
use super::subject::{Subject, Views};

/// Most fronts of patterns compiled for one line, over all patterns of a filter.
const MOST_TRIES: u32 = 2000;
/// Only this part of a text is matched.
const LONGEST: usize = 64 << 10;
/// Memory of a front's lazy DFA.
const DFA_LIMIT: usize = 1 << 20;

/// Why a line hits no client by a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A failregex matches, but only with an address that is not the client's.
    Spoof {
        /// Its number, from 1.
        pattern: u32,
        /// That address, as in the line.
        named: Option<Vec<u8>>,
    },
    /// A failregex matches, and its `<F-NOFAIL>` says that this is no failure.
    NoFailure(u32),
    /// A failregex matches, but no address is in place of its `<HOST>`.
    NoHost(u32),
    /// A limit on steps or length was hit.
    Limit,
    /// No failregex matches: how far the line matches each, the longest first; or how far it
    /// matches the prefregex, if that does not match.
    Near(Vec<Near>),
    /// No `[[match]]` of a native filter holds: how far each does, the nearest first.
    Rules(Vec<RuleNear>),
}

/// How far a line matches a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// The failregex, from 1; `None`: the prefregex.
    pub pattern: Option<u32>,
    /// The longest front of the pattern that matches, as written.
    pub matched: String,
    /// The next part, as written.
    pub wanted: String,
    /// The rest of the line (without its time) behind that front; `None` if no part matches.
    pub rest: Option<Vec<u8>>,
}

impl Filter {
    /// Why a record hits no client; `None` if it hits one or an ignoreregex matches. Of its texts
    /// the one is shown that matches most of a pattern.
    pub(super) fn why_not_any(&self, views: &Views<'_, '_>) -> Option<Reason> {
        let outcome = self.examine_views(views, |_| true);
        if matches!(outcome, Outcome::Match { .. } | Outcome::Ignored(_)) {
            return None;
        }
        let matched = |reason: &Reason| match reason {
            Reason::Near(near) => near.first().map_or(0, |near| near.matched.len()),
            Reason::NoHost(_) => usize::MAX - 1,
            Reason::Spoof { .. } | Reason::NoFailure(_) | Reason::Limit | Reason::Rules(_) => {
                usize::MAX
            }
        };
        let mut best = None;
        for reason in views.without_time().filter_map(|text| self.why_not(text)) {
            // Of equals the first, which is the line as written.
            if best
                .as_ref()
                .is_none_or(|best| matched(best) < matched(&reason))
            {
                best = Some(reason);
            }
        }
        best
    }

    /// Why a line hits no client; `None` if it hits one or an ignoreregex matches.
    pub fn why_not(&self, subject: &Subject<'_>) -> Option<Reason> {
        let before = self.limits_hit();
        let outcome = self.examine(subject);
        let text = subject.text();
        let content = match &self.prefix {
            Some(prefix) => prefix.content_with_any(text),
            None => Some(text),
        };
        match outcome {
            Outcome::Match { .. } | Outcome::Ignored(_) | Outcome::Excepted(_) => None,
            Outcome::Spoof { pattern } => {
                let found = self.fail.iter().find(|fail| fail.number == pattern);
                let named = found.zip(content).and_then(|(fail, text)| fail.named(text));
                let prefix = || self.prefix.as_ref()?.named(text);
                let named = named.or_else(prefix).map(<[u8]>::to_vec);
                Some(Reason::Spoof { pattern, named })
            }
            Outcome::Miss if self.limits_hit() > before => Some(Reason::Limit),
            Outcome::Success(_) | Outcome::Miss => {
                let Some(content) = content else {
                    let mut tries = MOST_TRIES;
                    let prefix = self.prefix.as_ref();
                    let near = prefix.and_then(|prefix| near(prefix, None, text, &mut tries));
                    return Some(Reason::Near(near.into_iter().collect()));
                };
                let matching = self.fail.iter().find(|p| p.matches_with_any(content));
                Some(match matching {
                    Some(pattern) if pattern.is_no_failure(content) => {
                        Reason::NoFailure(pattern.number)
                    }
                    Some(pattern) => Reason::NoHost(pattern.number),
                    None => Reason::Near(self.near(content)),
                })
            }
        }
    }

    fn near(&self, content: &[u8]) -> Vec<Near> {
        let mut tries = MOST_TRIES;
        let mut all: Vec<Near> = self
            .fail
            .iter()
            .filter_map(|pattern| near(pattern, Some(pattern.number), content, &mut tries))
            .collect();
        all.sort_by_key(|near| std::cmp::Reverse(near.matched.len()));
        all
    }
}

/// How far a text matches a pattern that does not match it; `None` if no front is left to try.
/// `tries`: fronts that may be compiled.
fn near(pattern: &Pattern, number: Option<u32>, text: &[u8], tries: &mut u32) -> Option<Near> {
    let text = text.get(..LONGEST).unwrap_or(text);
    let source = pattern.text.as_str();
    let found = |matched: usize, next: usize, rest: Option<&[u8]>| {
        Some(Near {
            pattern: number,
            matched: source.get(..matched)?.to_owned(),
            wanted: source.get(matched..next)?.to_owned(),
            rest: rest.map(|rest| rest.strip_suffix(b"\n").unwrap_or(rest).to_vec()),
        })
    };
    // The end of the shortest longer front.
    let mut next = source.len();
    for end in (1..source.len()).rev().filter(|end| may_end(source, *end)) {
        *tries = tries.checked_sub(1)?;
        let (front, _) = translate(source.get(..end)?, Host::Any);
        // An end within a group or a class is no pattern.
        let Ok(front) = Compiled::new(&front, DFA_LIMIT, &Limits::default()) else {
            continue;
        };
        let spans = front.spans(text);
        let span = spans.and_then(|spans| spans.first().copied().flatten());
        if let Some((_, at)) = span.filter(|(_, at)| *at > 0) {
            return found(end, next, Some(text.get(at..)?));
        }
        next = end;
    }
    found(0, next, None)
}

/// Whether a front of a pattern may end here: at the end of a word, and not behind a part that may
/// be empty, which belongs to the part behind it.
fn may_end(source: &str, at: usize) -> bool {
    let byte = |at: usize| source.as_bytes().get(at).copied().unwrap_or_default();
    let (before, here) = (byte(at - 1), byte(at));
    let escaped = at > 1 && byte(at - 2) == b'\\';
    let is_end = b" \\[(<.^$".contains(&here) || (!escaped && b" )]>+}".contains(&before));
    let empty = !escaped && b"*?|^(\\".contains(&before);
    is_end && !empty && !b"*?+{".contains(&here) && source.is_char_boundary(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::definition;
    use super::*;
    use crate::record::{Kind, Parser};

    const HEAD: &str = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919]";
    const TUTORIAL: &str = r"\[client <HOST>:\d+\] AH10244: invalid URI path \(.*cgi-bin.*bin/sh.*";

    fn of(pattern: &str, text: &str) -> Option<Near> {
        let pattern = Pattern::compile(1, pattern).unwrap();
        if pattern.matches_with_any(text.as_bytes()) {
            return None;
        }
        near(&pattern, Some(1), text.as_bytes(), &mut 1000)
    }

    #[test]
    fn the_longest_front_that_matches_is_found() {
        for (pattern, text, matched, wanted, rest) in [
            (
                TUTORIAL,
                "x [client 192.0.2.1:5] AH10244: invalid URI path (/foo)",
                r"\[client <HOST>:\d+\] AH10244: invalid URI path \(",
                ".*cgi-bin",
                Some("/foo)"),
            ),
            (
                TUTORIAL,
                "x [client 192.0.2.1:5] AH10245: invalid URI path (/foo)",
                r"\[client <HOST>:\d+\] ",
                "AH10244:",
                Some("AH10245: invalid URI path (/foo)"),
            ),
            (
                TUTORIAL,
                "[client a.example:5] x",
                r"\[client ",
                "<HOST>",
                Some("a.example:5] x"),
            ),
            ("ab c<HOST>", "ab x ab c!", "ab c", "<HOST>", Some("!")),
            (
                r"^<HOST> \S+ x{2}y",
                "192.0.2.1 - xxz",
                r"^<HOST> \S+ x{2}",
                "y",
                Some("z"),
            ),
            (
                r"^<HOST> (?:get|post one) /",
                "192.0.2.1 post two /",
                r"^<HOST> ",
                "(?:get|post one)",
                Some("post two /"),
            ),
            (
                r"user <F-USER>\S+</F-USER> from <HOST>$",
                "user u from 192.0.2.1 x",
                r"user <F-USER>\S+</F-USER> from <HOST>",
                "$",
                Some(" x"),
            ),
            (
                r"^[[a]{,2}<HOST> {x",
                "[192.0.2.1 {y",
                "^[[a]{,2}<HOST>",
                " {x",
                Some(" {y"),
            ),
            (
                r"^\x61[])]<HOST> x",
                "a]192.0.2.1 y",
                r"^\x61[])]<HOST> ",
                "x",
                Some("y"),
            ),
            (
                r"^user (?!root)\w+ <HOST>",
                "user root 192.0.2.1",
                "^user ",
                "(?!root)",
                Some("root 192.0.2.1"),
            ),
            ("client <HOST>", "nothing", "", "client", None),
        ] {
            let near = of(pattern, text).expect(pattern);
            let found = near.rest.map(|rest| String::from_utf8(rest).unwrap());
            let found = (
                near.matched.as_str(),
                near.wanted.as_str(),
                found.as_deref(),
            );
            assert_eq!(found, (matched, wanted, rest), "{pattern}");
        }
    }

    #[test]
    fn with_a_prefix_the_prefix_or_the_patterns_behind_it_are_near() {
        let mut definition = definition(&[r"^AH1: user \S+ not found", "^nothing"], &[]);
        let prefix = r"^\[\] \[\S+\] \[pid \d+:tid \d+\] \[client <HOST>:\d+\] <F-CONTENT>AH1.+</F-CONTENT>$";
        definition.prefregex = super::super::tests::definition(&[prefix], &[])
            .failregex
            .pop();
        let filter = Filter::compile(&definition).unwrap();
        let parser = Parser::new(Kind::Error, "auto").unwrap();
        for (rest, pattern, wanted) in [
            (
                "AH2: user u not found",
                None,
                "<F-CONTENT>AH1.+</F-CONTENT>",
            ),
            ("AH1: user u not there", Some(1), "found"),
        ] {
            let line = format!("{HEAD} [client 192.0.2.1:5] {rest}");
            let record = parser.parse(line.as_bytes()).unwrap();
            let reason = filter.why_not(&Subject::of(line.as_bytes(), &record));
            let Some(Reason::Near(near)) = reason else {
                panic!("{reason:?}");
            };
            assert_eq!(
                (near[0].pattern, near[0].wanted.as_str()),
                (pattern, wanted)
            );
        }
    }

    fn piece() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(
            &[
                "[client 192.0.2.1:5] ",
                "[client 2001:db8::7:5] ",
                "AH1: bad ",
                "192.0.2.1",
                "x ",
                "\u{e9}\u{1b}",
            ][..],
        )
    }

    fn pattern() -> impl Strategy<Value = String> {
        let part = proptest::sample::select(
            &[
                r"^\[\] \[\S+\] \[pid \d+:tid \d+\] ",
                r"^\[\] .*",
                r"\[client <HOST>:\d+\] ",
                "(?:AH1: |x )?bad ",
                ".*<HOST>",
                "(?!AH1)",
                "x $",
                "<IP6>",
                "\u{e9}",
                "[]x]+?",
                "a{2}|",
            ][..],
        );
        proptest::collection::vec(part, 1..4).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_line_that_does_not_hit_has_a_reason(
            parts in proptest::collection::vec(piece(), 0..6), pattern in pattern(),
        ) {
            let line = format!("{HEAD} {}", parts.concat());
            let line = line.as_bytes();
            let Ok(filter) = Filter::compile(&definition(&[&pattern], &["x x"])) else {
                return Ok(());
            };
            let parser = Parser::new(Kind::Error, "auto").unwrap();
            let Some(record) = parser.parse(line) else {
                return Ok(());
            };
            for subject in [Subject::of(line, &record), Subject::raw(line, record.time.clone())] {
                match (filter.examine(&subject), filter.why_not(&subject)) {
                    (Outcome::Match { .. } | Outcome::Ignored(1), None)
                    | (Outcome::Spoof { .. }, Some(Reason::Spoof { .. }))
                    | (Outcome::Miss, Some(Reason::NoHost(1))) => {}
                    // `.*.*<HOST>(?!AH1)` takes more steps than are allowed.
                    (Outcome::Miss, Some(Reason::Limit)) => {
                        prop_assert!(pattern.contains("(?!"));
                    }
                    (Outcome::Miss, Some(Reason::Near(near))) => {
                        prop_assert_eq!(near.len(), 1);
                        let front = format!("{}{}", near[0].matched, near[0].wanted);
                        prop_assert!(pattern.starts_with(&front));
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
