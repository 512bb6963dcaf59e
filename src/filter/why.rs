//! Why a line does not hit, and where a line that does is matched: for people.

use std::ops::Range;

use super::near;
use super::pattern::{Pattern, Place};
use super::{Filter, Outcome, Subject};

/// Fronts of patterns tried for one line, over all patterns of a filter.
const MOST_TRIES: u32 = 2000;

/// Why a line does not hit by a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// An ignoreregex matches, the one of this number.
    Ignored(u32),
    /// A failregex matches, but only with another address than the client's.
    Spoof {
        /// Its number, from 1.
        pattern: u32,
        /// That address as the line has it.
        named: Option<Vec<u8>>,
        /// The line is so long that it may be two, torn and mixed; what the pattern needs stands
        /// in the second.
        torn: bool,
    },
    /// A failregex matches, but says by `<F-NOFAIL>` that this is no failure.
    NoFailure(u32),
    /// A failregex matches, but what stands for the client is no address; it may stand in another
    /// line of the session.
    NoHost(u32),
    /// A bound on steps or length was hit.
    Limit,
    /// None matches. How near each pattern came, the nearest first; or the prefix alone, where
    /// that does not match.
    Near(Vec<Near>),
}

/// How near a line came to a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// The failregex, from 1; `None`: the prefregex.
    pub pattern: Option<u32>,
    /// The longest front of it that matches, as written.
    pub matched: String,
    /// What it wants next, as written; empty where all that failed looks around or back.
    pub wanted: String,
    /// Where in the line that is wanted; `None` where nothing of the pattern matches anywhere, or
    /// nothing is wanted.
    pub at: Option<usize>,
    /// The pattern looks around or back; that was left aside.
    pub loosely: bool,
}

impl Filter {
    /// Why a line on its own does not hit; `None` where it does. What earlier lines left behind
    /// is not known here. Tries at most some thousand fronts of patterns.
    pub fn why_not(&self, subject: &Subject<'_>) -> Option<Reason> {
        let before = self.limits_hit();
        let outcome = self.examine(subject);
        if self.limits_hit() > before && outcome == Outcome::Miss {
            return Some(Reason::Limit);
        }
        let (text, content) = (subject.text(), self.content(subject.text()));
        match outcome {
            Outcome::Match { .. } => None,
            Outcome::Ignored => Some(
                self.ignored_by(subject)
                    .map_or(Reason::Limit, Reason::Ignored),
            ),
            Outcome::Spoof { pattern } => {
                let named = self.numbered(pattern).zip(content);
                let named = named.and_then(|(pattern, content)| pattern.named(content));
                let prefix = || self.prefix.as_ref()?.named(text);
                Some(Reason::Spoof {
                    pattern,
                    named: named.or_else(prefix).map(<[u8]>::to_vec),
                    torn: subject.own_text().len() < text.len(),
                })
            }
            Outcome::Miss => {
                let matches = |content: &[u8]| {
                    let mut patterns = self.fail.iter();
                    patterns.find(|pattern| pattern.matches_with_any(content))
                };
                let matched = content.and_then(|content| Some((matches(content)?, content)));
                Some(match matched {
                    Some((pattern, content)) if pattern.is_no_failure(content) => {
                        Reason::NoFailure(pattern.number)
                    }
                    Some((pattern, _)) => Reason::NoHost(pattern.number),
                    None => Reason::Near(self.near(subject, content)),
                })
            }
        }
    }

    /// The first ignoreregex that matches, from 1.
    pub fn ignored_by(&self, subject: &Subject<'_>) -> Option<u32> {
        let content = self.content(subject.text())?;
        let whole = self.ignore_first.then(|| subject.text());
        let matches = |pattern: &&Pattern| {
            let mut texts = [Some(content), whole].into_iter().flatten();
            texts.any(|text| pattern.matches_with_any(text))
        };
        Some(self.ignore.iter().find(matches)?.number)
    }

    /// Where in the line this failregex matches, and where the client stands in that.
    pub fn place(&self, subject: &Subject<'_>, pattern: u32) -> Option<Place> {
        let pattern = self.numbered(pattern)?;
        let client = subject.client();
        let text = match client {
            Some(_) => subject.own_text(),
            None => subject.text(),
        };
        let content = match (&self.prefix, client) {
            (None, _) => text,
            (Some(prefix), Some(client)) => prefix.content_for(text, client)?,
            (Some(_), None) => self.content(text)?,
        };
        let skipped = offset(text, content)?;
        let in_line = |span: Range<usize>| {
            let start = subject.in_line(span.start + skipped);
            let last = (span.end + skipped).checked_sub(1);
            start
                ..last
                    .map_or(start, |last| subject.in_line(last) + 1)
                    .clamp(start, subject.in_line(usize::MAX).max(start))
        };
        let place = pattern.place(content, client)?;
        Some(Place {
            whole: in_line(place.whole),
            host: place.host.map(in_line),
        })
    }

    fn numbered(&self, number: u32) -> Option<&Pattern> {
        self.fail.iter().find(|pattern| pattern.number == number)
    }

    /// What the failregexes see of a text.
    fn content<'t>(&self, text: &'t [u8]) -> Option<&'t [u8]> {
        match &self.prefix {
            Some(prefix) => prefix.content_with_any(text),
            None => Some(text),
        }
    }

    fn near(&self, subject: &Subject<'_>, content: Option<&[u8]>) -> Vec<Near> {
        let text = subject.text();
        let mut tries = MOST_TRIES;
        let mut of = |pattern: &Pattern, number, content: &[u8]| {
            let reach = near::reach(pattern, content, &mut tries)?;
            let skipped = offset(text, content)?;
            let part = |range: Range<usize>| pattern.text.get(range).map(str::to_owned);
            let near = Near {
                pattern: number,
                matched: part(0..reach.matched)?,
                wanted: part(reach.wanted.clone())?,
                at: reach.at.map(|at| subject.in_line(at + skipped)),
                loosely: reach.loosely,
            };
            let left = pattern.text.len() - reach.matched;
            Some(((std::cmp::Reverse(reach.matched), left), near))
        };
        let Some(content) = content else {
            let prefix = self.prefix.as_ref();
            let near = prefix.and_then(|prefix| of(prefix, None, text));
            return near.into_iter().map(|(_, near)| near).collect();
        };
        let patterns = self.fail.iter();
        let mut all: Vec<_> = patterns
            .filter_map(|pattern| of(pattern, Some(pattern.number), content))
            .collect();
        all.sort_by_key(|(key, _)| *key);
        all.into_iter().map(|(_, near)| near).collect()
    }
}

/// Where in `text` its part `part` begins.
fn offset(text: &[u8], part: &[u8]) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::definition;
    use super::*;
    use crate::record::{Kind, Parser};

    const HEAD: &str = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919]";

    /// Pieces of what Apache and its clients write, and of patterns for that.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            Just("[client 192.0.2.1:5] "),
            Just("[client 2001:db8::7:5] "),
            Just("AH1: bad "),
            Just("192.0.2.1"),
            Just("x "),
            Just("\u{e9}\u{1b}"),
        ]
    }

    fn pattern() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just(r"^\[\] \[\S+\] \[pid \d+:tid \d+\] "),
            Just(r"^\[\] .*"),
            Just(r"\[client <HOST>:\d+\] "),
            Just("(?:AH1: |x )?bad "),
            Just(".*<HOST>"),
            Just("(?!AH1)"),
            Just("x $"),
            Just("<IP6>"),
            Just("\u{e9}"),
        ];
        proptest::collection::vec(part, 1..4).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_line_that_does_not_hit_has_a_reason_and_one_that_does_a_place(
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
                let outcome = filter.examine(&subject);
                let reason = filter.why_not(&subject);
                match (outcome, &reason) {
                    (Outcome::Match { pattern, host }, None) => {
                        let place = filter.place(&subject, pattern).unwrap();
                        let span = place.host.unwrap();
                        prop_assert!(place.whole.start <= span.start && span.end <= place.whole.end);
                        prop_assert!(place.whole.end <= line.len());
                        let text = std::str::from_utf8(&line[span]).unwrap();
                        prop_assert_eq!(text.parse(), Ok(host));
                    }
                    (Outcome::Ignored, Some(Reason::Ignored(1)))
                    | (Outcome::Spoof { .. }, Some(Reason::Spoof { named: Some(_), .. }))
                    | (Outcome::Miss, Some(Reason::NoHost(1))) => {}
                    (Outcome::Miss, Some(Reason::Near(near))) => {
                        prop_assert_eq!(near.len(), 1);
                        prop_assert!(pattern.starts_with(&near[0].matched));
                        prop_assert!(near[0].at.is_none_or(|at| at <= line.len()));
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }

    #[test]
    fn of_a_filter_with_a_prefix_the_prefix_or_what_sees_its_content_is_near() {
        let mut definition = definition(&["^user \\S+ not found", "^nothing"], &[]);
        let prefix = r"^\[\] \[\S+\] \[pid \d+:tid \d+\] \[client <HOST>:\d+\] <F-CONTENT>AH1.+</F-CONTENT>$";
        definition.prefregex = super::super::tests::definition(&[prefix], &[])
            .failregex
            .pop();
        definition.failregex[0].text = "^AH1: user \\S+ not found".to_owned();
        let filter = Filter::compile(&definition).unwrap();
        let parser = Parser::new(Kind::Error, "auto").unwrap();
        for (rest, pattern, wanted, there) in [
            (
                "AH2: user u not found",
                None,
                "<F-CONTENT>AH1.+</F-CONTENT>",
                "AH2: user u not found",
            ),
            ("AH1: user u not there", Some(1), "found", "there"),
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
            assert_eq!(&line[near[0].at.unwrap()..], there);
        }
        let line = format!("{HEAD} [client 192.0.2.1:5] AH1: user u not found");
        let record = parser.parse(line.as_bytes()).unwrap();
        let place = filter
            .place(&Subject::of(line.as_bytes(), &record), 1)
            .unwrap();
        assert_eq!(&line[place.whole], "AH1: user u not found");
    }
}
