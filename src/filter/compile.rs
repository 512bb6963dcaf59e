//! A compiled filter, and the outcome of a line.

use std::net::IpAddr;

use super::definition::{Definition, PatternAt, PatternText};
use super::pattern::{Decision, Pattern, content_at};
use super::rules;
use super::subject::{Subject, Views};
use crate::problem::Problem;
use crate::record::Client;

/// The outcome of one line and one filter.
///
/// In Apache's records `<HOST>` is the exact text of Apache's client field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A failregex matches with the client's address.
    Match {
        /// Its number, from 1.
        pattern: u32,
        /// The client; without a record, the address in place of `<HOST>`.
        host: IpAddr,
        /// What the hit counts; 1 except for native filters.
        weight: u32,
    },
    /// A failregex matches, but only with an address that is not the client's: no client is hit.
    Spoof {
        /// Its number, from 1.
        pattern: u32,
    },
    /// A failregex matches, and so does this ignoreregex, from 1.
    Ignored(u32),
    /// The filter matches or ignores it, and so does this `[[except]]` of the jail, from 1.
    Excepted(u32),
    /// No hit: a `[[clear]]` of a native filter matches, this one.
    Success(u32),
    /// No failregex matches, or its `<F-NOFAIL>` says that this is no failure.
    Miss,
}

/// The outcome of one text of a line.
enum Of {
    /// An outcome, which other texts of the line may change if it is a miss or a spoof.
    Text(Outcome),
    /// `<F-NOFAIL>`: a miss, whatever other texts of the line say.
    NoFailure,
}

/// A compiled filter. Shared by threads.
#[derive(Debug)]
pub struct Filter {
    pub(super) prefix: Option<Pattern>,
    pub(super) fail: Vec<Pattern>,
    pub(super) ignore: Vec<Pattern>,
    /// As in fail2ban: few ignoreregex see the text before the prefix, too.
    pub(super) ignore_first: bool,
}

impl Filter {
    /// Compiles every pattern.
    ///
    /// # Errors
    /// Every pattern that does not compile or has no `<HOST>`, with its place; of native filters
    /// those of the first file that has any.
    pub fn compile(definition: &Definition) -> Result<Filter, Vec<Problem>> {
        for file in &definition.native {
            rules::read(&file.file, &file.text)?.compile()?;
        }
        let (filter, problems) = Filter::compile_some(definition);
        if problems.is_empty() {
            Ok(filter)
        } else {
            Err(problems)
        }
    }

    /// Compiles without the patterns that do not compile; the others keep their numbers. Has no
    /// pattern at all if the prefix or an ignoreregex does not compile: what it would have ignored
    /// is unknown.
    pub(super) fn lenient(definition: &Definition) -> Filter {
        let (mut filter, _) = Filter::compile_some(definition);
        if filter.ignore.len() < definition.ignoreregex.len()
            || filter.prefix.is_some() != definition.prefregex.is_some()
        {
            filter.fail.clear();
        }
        filter
    }

    fn compile_some(definition: &Definition) -> (Filter, Vec<Problem>) {
        if !definition.native.is_empty() {
            // Its rules are compiled together with those of all other native filters.
            let filter = Filter {
                prefix: None,
                fail: Vec::new(),
                ignore: Vec::new(),
                ignore_first: false,
            };
            return (filter, Vec::new());
        }
        let mut problems = Vec::new();
        let mut compile =
            |number: u32, text: &PatternText, has_client: bool| {
                let pattern = Pattern::compile(number, &text.text);
                let pattern = pattern.and_then(|pattern| {
                if has_client || pattern.names_a_client() {
                    Ok(pattern)
                } else {
                    Err("the pattern has no <HOST>, so it can ban no client: put <HOST> in place \
                         of the client's address"
                        .to_owned())
                }
            });
                pattern
                    .map_err(|message| {
                        let (file, place) = definition.place(text);
                        problems.push(Problem {
                            file,
                            place: Some(place),
                            message,
                        });
                    })
                    .ok()
            };
        let prefix = definition
            .prefregex
            .as_ref()
            .and_then(|text| compile(0, text, true));
        let has_client =
            definition.prefregex.is_some() && prefix.as_ref().is_none_or(Pattern::names_a_client);
        let mut all = |texts: &[PatternText], has_client: bool| -> Vec<Pattern> {
            let numbered = (1..).zip(texts);
            numbered
                .filter_map(|(number, text)| compile(number, text, has_client))
                .collect()
        };
        let fail = all(&definition.failregex, has_client);
        let ignore = all(&definition.ignoreregex, true);
        let filter = Filter {
            prefix,
            fail,
            ignore,
            ignore_first: definition.ignoreregex.len() + 2 < definition.failregex.len(),
        };
        (filter, problems)
    }

    /// The outcome of one text: the first failregex that hits its client, unless an ignoreregex
    /// matches, too.
    pub fn examine(&self, subject: &Subject<'_>) -> Outcome {
        self.examine_some(subject, |_| true)
    }

    /// As [`Filter::examine`], with only the compiled patterns (from 0) that may match.
    pub(super) fn examine_some(
        &self,
        subject: &Subject<'_>,
        may_match: impl Fn(usize) -> bool,
    ) -> Outcome {
        match self.examine_text(subject, may_match) {
            Of::Text(outcome) => outcome,
            Of::NoFailure => Outcome::Miss,
        }
    }

    /// The outcome of a record, with only the compiled patterns (from 0) that may match: that of
    /// the first of its texts that hits the client, unless an ignoreregex matches any of them.
    pub(super) fn examine_views(
        &self,
        views: &Views<'_, '_>,
        may_match: impl Fn(usize) -> bool,
    ) -> Outcome {
        let long = views.is_long();
        let of_whole = |at| may_match(at) && !(long && self.backtracks(at));
        let mut spoof = None;
        let mut decide = |of| self.decide(of, views, &mut spoof);
        let mut found = views
            .iter()
            .find_map(|subject| decide(self.examine_text(subject, of_whole)));
        let of_parts = |at: &usize| {
            let coarse = |pattern: &Pattern| {
                let mut texts = views.without_time();
                self.prefix.is_some() || texts.any(|text| pattern.may_match(text.text()))
            };
            may_match(*at) && self.backtracks(*at) && self.fail.get(*at).is_some_and(coarse)
        };
        if found.is_none() && long {
            let some: Vec<usize> = (0..self.fail.len()).filter(of_parts).collect();
            let mut texts = views.shortened().take_while(|_| !some.is_empty());
            found =
                texts.find_map(|text| decide(self.examine_text(&text, |at| some.contains(&at))));
        }
        found.or(spoof).unwrap_or(Outcome::Miss)
    }

    /// The outcome of a record if that of one of its texts decides it.
    fn decide(
        &self,
        of: Of,
        views: &Views<'_, '_>,
        spoof: &mut Option<Outcome>,
    ) -> Option<Outcome> {
        match of {
            Of::NoFailure => Some(Outcome::Miss),
            Of::Text(Outcome::Miss) => None,
            Of::Text(found @ Outcome::Spoof { .. }) => {
                spoof.get_or_insert(found);
                None
            }
            Of::Text(found @ Outcome::Match { .. }) if !self.ignore.is_empty() => {
                let ignored = views.iter().find_map(|subject| self.ignores(subject));
                let ignored =
                    ignored.or_else(|| views.shortened().find_map(|text| self.ignores(&text)));
                Some(ignored.map_or(found, Outcome::Ignored))
            }
            Of::Text(found) => Some(found),
        }
    }

    /// Whether a failregex, from 0, or the prefix looks around or back.
    fn backtracks(&self, at: usize) -> bool {
        let prefix = self.prefix.as_ref();
        prefix.is_some_and(Pattern::backtracks)
            || self.fail.get(at).is_some_and(Pattern::backtracks)
    }

    /// The ignoreregex that matches a text of a client.
    fn ignores(&self, subject: &Subject<'_>) -> Option<u32> {
        let client = subject.client()?;
        let own = Some(subject.own_text());
        let content = match &self.prefix {
            Some(prefix) => own.and_then(|own| prefix.content_for(own, client)),
            None => own,
        };
        let whole = own.filter(|_| self.ignore_first);
        let ignored = |p: &&Pattern| {
            let mut texts = [content, whole].into_iter().flatten();
            let sees = !(subject.is_long() && p.backtracks());
            sees && texts.any(|text| p.ignores(text, client))
        };
        self.ignore.iter().find(ignored).map(|p| p.number)
    }

    fn examine_text(&self, subject: &Subject<'_>, may_match: impl Fn(usize) -> bool) -> Of {
        let mut may_match = self
            .fail
            .iter()
            .enumerate()
            .filter(|(at, _)| may_match(*at))
            .map(|(_, pattern)| pattern)
            .peekable();
        // Without a pattern the prefix need not be tried.
        if may_match.peek().is_none() {
            return Of::Text(Outcome::Miss);
        }
        match subject.client() {
            Some(client) => self.of_client(subject, client, may_match),
            None if subject.is_raw() => Of::Text(self.of_text(subject.text(), may_match)),
            None => Of::Text(self.without_client(subject.text(), may_match)),
        }
    }

    fn of_client<'p>(
        &self,
        subject: &Subject<'_>,
        client: Client<'_>,
        patterns: impl Iterator<Item = &'p Pattern>,
    ) -> Of {
        let (mut own, mut all) = (Some(subject.own_text()), Some(subject.text()));
        let mut named = false;
        if let Some(prefix) = &self.prefix {
            own = own.and_then(|own| prefix.content_for(own, client));
            all = all.and_then(|all| prefix.content_with_any(all));
            named = prefix.names_a_client();
            if own.is_none() && all.is_none() {
                return Of::Text(Outcome::Miss);
            }
        }
        let mut spoof = None;
        for pattern in patterns {
            let number = pattern.number;
            if !named && !pattern.names_a_client() {
                continue;
            }
            match pattern.decide(own, all, client) {
                Decision::No => {}
                Decision::Another => spoof = spoof.or(Some(number)),
                Decision::Hit if own.is_some_and(|own| pattern.is_no_failure(own)) => {
                    return Of::NoFailure;
                }
                Decision::Hit => {
                    return Of::Text(match self.ignores(subject) {
                        Some(ignore) => Outcome::Ignored(ignore),
                        None => Outcome::Match {
                            weight: 1,
                            pattern: number,
                            host: client.addr,
                        },
                    });
                }
            }
        }
        Of::Text(spoof.map_or(Outcome::Miss, |pattern| Outcome::Spoof { pattern }))
    }

    /// A record without a client: a match is a spoof.
    fn without_client<'p>(
        &self,
        text: &[u8],
        mut patterns: impl Iterator<Item = &'p Pattern>,
    ) -> Outcome {
        let content = match &self.prefix {
            Some(prefix) => prefix.content_with_any(text),
            None => Some(text),
        };
        let Some(content) = content else {
            return Outcome::Miss;
        };
        patterns
            .find(|pattern| pattern.matches_with_any(content))
            .map_or(Outcome::Miss, |pattern| Outcome::Spoof {
                pattern: pattern.number,
            })
    }

    fn of_text<'p>(&self, text: &[u8], patterns: impl Iterator<Item = &'p Pattern>) -> Outcome {
        let (mut content, mut before) = (text, None);
        if let Some(prefix) = &self.prefix {
            let Some(found) = prefix.find(text) else {
                return Outcome::Miss;
            };
            before = found.host;
            content = content_at(text, found.content);
        }
        for pattern in patterns {
            let Some(found) = pattern.find(content) else {
                continue;
            };
            let Some(host) = found.host.or(before) else {
                continue;
            };
            if found.nofail {
                return Outcome::Miss;
            }
            let ignored =
                |p: &&Pattern| p.ignores_any(content) || (self.ignore_first && p.ignores_any(text));
            return match self.ignore.iter().find(ignored) {
                Some(ignore) => Outcome::Ignored(ignore.number),
                None => Outcome::Match {
                    weight: 1,
                    pattern: pattern.number,
                    host,
                },
            };
        }
        Outcome::Miss
    }

    /// For each failregex lower-case texts; every match holds at least one.
    pub(super) fn literals(&self) -> impl Iterator<Item = Option<&[Vec<u8>]>> {
        let prefix = self.prefix.as_ref().and_then(|p| p.literals.as_deref());
        let own = self.fail.iter().map(|pattern| pattern.literals.as_deref());
        own.map(move |own| own.or(prefix))
    }

    /// How often a limit on steps or length stopped a pattern. Such a line hits no client.
    pub fn limits_hit(&self) -> u64 {
        self.limited().map(|(_, pattern)| pattern.limits()).sum()
    }

    /// The patterns that look around or back: those with a limit on steps and length.
    pub(super) fn limited(&self) -> impl Iterator<Item = (PatternAt, &Pattern)> {
        let prefix = self.prefix.iter().map(|p| (PatternAt::Prefix, p));
        let fail = self.fail.iter().map(|p| (PatternAt::Fail(p.number), p));
        let ignore = self.ignore.iter().map(|p| (PatternAt::Ignore(p.number), p));
        let all = prefix.chain(fail).chain(ignore);
        all.filter(|(_, pattern)| pattern.backtracks())
    }
}
