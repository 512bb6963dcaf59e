//! Patterns that match what others match, and ignoreregex that spare all of it.

use super::automaton::{Automaton, Common};
use super::{CLIENTS, Findings, Lint, forms, language};
use crate::filter::pattern::Pattern;
use crate::filter::translate::{Host, translate};
use crate::filter::{Filter, PatternAt, PatternText};

/// Steps taken for the proofs about one filter.
const BUDGET: usize = 20_000_000;

impl Findings<'_> {
    /// `alive`: the patterns that a line may match.
    pub(super) fn overlap(&mut self, filter: &Filter, alive: &[u32]) {
        // What a prefix names, its patterns need not name.
        let named = filter.prefix.as_ref().is_some_and(Pattern::names_somebody);
        let of = |at, compiled, named| {
            let text = self.definition.pattern(at)?;
            Some(Overlap::new(at, compiled, text, named))
        };
        let fail = filter.fail.iter().filter(|p| alive.contains(&p.number));
        let fail: Vec<Overlap<'_>> = fail
            .filter_map(|p| of(PatternAt::Fail(p.number), p, named))
            .collect();
        let ignore: Vec<Overlap<'_>> = (filter.ignore.iter())
            .filter_map(|p| of(PatternAt::Ignore(p.number), p, true))
            .collect();
        let mut budget = BUDGET;
        self.needless(&fail, &mut budget);
        self.ignored(&fail, &ignore, &mut budget);
    }

    fn needless(&mut self, patterns: &[Overlap<'_>], budget: &mut usize) {
        for (at, later) in patterns.iter().enumerate() {
            let mut earlier = patterns.iter().take(at);
            let same = earlier.clone().find(|earlier| earlier.text == later.text);
            if let Some(same) = same {
                let message = format!("is {} once more: take one out", same.at);
                self.add(Lint::Duplicate, later.at, message);
            } else if let Some(over) = earlier.find(|earlier| earlier.holds(later, budget)) {
                let message = format!(
                    "matches nothing that {} does not match: take it out",
                    over.at
                );
                self.add(Lint::Shadowed, later.at, message);
            }
        }
    }

    fn ignored(&mut self, fail: &[Overlap<'_>], ignore: &[Overlap<'_>], budget: &mut usize) {
        for sparing in ignore {
            let spared: Vec<String> = fail
                .iter()
                .filter(|pattern| sparing.holds(pattern, budget))
                .map(|pattern| pattern.at.to_string())
                .collect();
            let message = if spared.is_empty() {
                continue;
            } else if spared.len() == fail.len() {
                "matches whatever the filter's patterns match, so that it hits nobody: narrow it \
                 or take it out"
                    .to_owned()
            } else {
                format!(
                    "matches whatever {} matches, which so hits nobody: narrow it or take one out",
                    spared.join(" or ")
                )
            };
            self.add(Lint::IgnoresAll, sparing.at, message);
        }
    }
}

/// One pattern of two that may match the same.
struct Overlap<'f> {
    at: PatternAt,
    compiled: &'f Pattern,
    /// Whether its languages are just the texts by which it hits a client, not more.
    exact: bool,
    /// In Rust's spelling.
    text: String,
    /// For each of [`CLIENTS`].
    languages: [Option<Automaton>; 2],
    /// A text that it matches for each, where there is one and it is known.
    samples: [Option<Vec<u8>>; 2],
}

impl<'f> Overlap<'f> {
    /// `named`: the client is named elsewhere, or need not be.
    fn new(at: PatternAt, compiled: &'f Pattern, text: &PatternText, named: bool) -> Overlap<'f> {
        let (rust, hosts) = translate(&text.text, Host::Any);
        // `<F-ID>` is any word here, and must be the client.
        let by_host = hosts > 0 || (named && !compiled.names_somebody());
        let languages = CLIENTS.map(|client| language::of_content(text, client));
        let samples = languages.each_ref().map(|language| {
            match language.as_ref()?.common(&forms::anything()?) {
                Common::Text(text) => Some(text),
                Common::None | Common::Unknown => None,
            }
        });
        Overlap {
            at,
            compiled,
            exact: by_host && !compiled.steps_back(),
            text: rust,
            languages,
            samples,
        }
    }

    /// Whether this one matches whatever the other does: proved.
    fn holds(&self, other: &Overlap<'_>, budget: &mut usize) -> bool {
        if !self.exact || other.samples.iter().all(Option::is_none) {
            return false;
        }
        // Most pairs are told apart by one text.
        let mut samples = other.samples.iter().flatten();
        samples.all(|text| self.compiled.matches_with_any(text))
            && self
                .languages
                .iter()
                .zip(&other.languages)
                .all(|pair| match pair {
                    (Some(own), Some(other)) => other.is_within(own, budget) == Some(true),
                    _ => false,
                })
    }
}
