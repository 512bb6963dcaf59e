//! A filter compiled, and what comes of a line.

use super::pattern::{Decision, Pattern, content_at};
use super::subject::Subject;
use super::{Definition, Outcome, PatternAt, PatternText};
use crate::config::Problem;
use crate::record::Client;

/// A compiled filter. Shared by threads.
#[derive(Debug)]
pub struct Filter {
    pub(super) prefix: Option<Pattern>,
    pub(super) fail: Vec<Pattern>,
    pub(super) ignore: Vec<Pattern>,
    /// As fail2ban has it: few ignoreregex are asked before the prefix, too.
    pub(super) ignore_first: bool,
    /// Lines that one pattern sees together.
    pub(super) maxlines: usize,
}

impl Filter {
    /// Compiles every pattern.
    ///
    /// # Errors
    /// Every pattern that does not compile or names no host, with its place.
    pub fn compile(definition: &Definition) -> Result<Filter, Vec<Problem>> {
        let (filter, problems) = Filter::compile_some(definition);
        if problems.is_empty() {
            Ok(filter)
        } else {
            Err(problems)
        }
    }

    /// Without the patterns that do not compile, the others keeping their numbers. Without any,
    /// where the prefix or an ignoreregex does not compile: what it would have spared is not
    /// known.
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
        let multi_line = definition.maxlines > 1;
        let mut problems = Vec::new();
        let mut compile = |number: u32, text: &PatternText, somebody: bool| {
            let pattern = Pattern::compile(number, &text.text, multi_line);
            let pattern = pattern.and_then(|pattern| {
                if somebody || pattern.names_somebody() || pattern.names_a_session() {
                    Ok(pattern)
                } else {
                    Err(
                        "the pattern has no <HOST>, so nobody could be banned by it: put <HOST> \
                         where the client's address stands"
                            .to_owned(),
                    )
                }
            });
            pattern
                .map_err(|message| {
                    problems.push(Problem {
                        file: text.file.as_ref().unwrap_or(&definition.file).clone(),
                        place: Some((text.line, text.column)),
                        message,
                    });
                })
                .ok()
        };
        let prefix = definition
            .prefregex
            .as_ref()
            .and_then(|text| compile(0, text, true));
        let somebody = definition.prefregex.is_some()
            && prefix
                .as_ref()
                .is_none_or(|p| p.names_somebody() || p.names_a_session());
        let mut all = |texts: &[PatternText], somebody: bool| -> Vec<Pattern> {
            let numbered = (1..).zip(texts);
            numbered
                .filter_map(|(number, text)| compile(number, text, somebody))
                .collect()
        };
        let fail = all(&definition.failregex, somebody);
        let ignore = all(&definition.ignoreregex, true);
        let filter = Filter {
            prefix,
            fail,
            ignore,
            ignore_first: definition.ignoreregex.len() + 2 < definition.failregex.len(),
            maxlines: usize::try_from(definition.maxlines).unwrap_or(1),
        };
        (filter, problems)
    }

    /// What comes of a line: the first failregex that hits its client, unless an ignoreregex
    /// matches too.
    pub fn examine(&self, subject: &Subject<'_>) -> Outcome {
        let text = subject.text().to_ascii_lowercase();
        let stands = |literal: &Vec<u8>| memchr::memmem::find(&text, literal).is_some();
        let literals = self.literals();
        let may_match: Vec<bool> = literals
            .map(|texts| texts.is_none_or(|texts| texts.iter().any(stands)))
            .collect();
        self.examine_some(subject, |at| may_match.get(at).is_some_and(|may| *may))
    }

    /// As [`Filter::examine`], with only those of the compiled patterns (counted from 0) that may match.
    pub(super) fn examine_some(
        &self,
        subject: &Subject<'_>,
        may_match: impl Fn(usize) -> bool,
    ) -> Outcome {
        let mut may_match = self
            .fail
            .iter()
            .enumerate()
            .filter(|(at, _)| may_match(*at))
            .map(|(_, pattern)| pattern)
            .peekable();
        // A prefix may take long on a line that comes to nothing.
        if may_match.peek().is_none() {
            return Outcome::Miss;
        }
        match subject.client() {
            Some(client) => self.of_client(subject, client, may_match),
            None if subject.is_raw() => self.of_text(subject.text(), may_match),
            None => self.of_nobody(subject.text(), may_match),
        }
    }

    fn of_client<'p>(
        &self,
        subject: &Subject<'_>,
        client: Client<'_>,
        patterns: impl Iterator<Item = &'p Pattern>,
    ) -> Outcome {
        let (mut own, mut all) = (Some(subject.own_text()), Some(subject.text()));
        let mut named = false;
        if let Some(prefix) = &self.prefix {
            own = own.and_then(|own| prefix.content_for(own, client));
            all = all.and_then(|all| prefix.content_with_any(all));
            named = prefix.names_somebody();
            if own.is_none() && all.is_none() {
                return Outcome::Miss;
            }
        }
        let mut spoof = None;
        for pattern in patterns {
            let number = pattern.number;
            // Who is named in another line of the session is not known here.
            if !named && !pattern.names_somebody() {
                continue;
            }
            match pattern.decide(own, all, client) {
                Decision::No => {}
                Decision::Another => spoof = spoof.or(Some(number)),
                Decision::Hit(_) if own.is_some_and(|own| pattern.is_no_failure(own)) => {
                    return Outcome::Miss;
                }
                Decision::Hit(host) => {
                    let whole = self.ignore_first.then(|| subject.own_text());
                    let ignored = |p: &Pattern| {
                        let mut texts = [own, whole].into_iter().flatten();
                        texts.any(|text| p.spares(text, client))
                    };
                    return if self.ignore.iter().any(ignored) {
                        Outcome::Ignored
                    } else {
                        Outcome::Match {
                            pattern: number,
                            host,
                        }
                    };
                }
            }
        }
        spoof.map_or(Outcome::Miss, |pattern| Outcome::Spoof { pattern })
    }

    /// A record without a client: whoever a pattern names, it is nobody.
    fn of_nobody<'p>(
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
            return if self.ignores(content, text) {
                Outcome::Ignored
            } else {
                let pattern = pattern.number;
                Outcome::Match { pattern, host }
            };
        }
        Outcome::Miss
    }

    /// Whether an ignoreregex matches what the prefix left, or the whole text.
    pub(super) fn ignores(&self, content: &[u8], text: &[u8]) -> bool {
        let ignores =
            |p: &Pattern| p.spares_any(content) || (self.ignore_first && p.spares_any(text));
        self.ignore.iter().any(ignores)
    }

    /// For each failregex the lower-case texts of which a match must hold one.
    pub(super) fn literals(&self) -> impl Iterator<Item = Option<&[Vec<u8>]>> {
        let prefix = self.prefix.as_ref().and_then(|p| p.literals.as_deref());
        let own = self.fail.iter().map(|pattern| pattern.literals.as_deref());
        own.map(move |own| own.or(prefix))
    }

    /// How often a bound on steps or length kept a pattern from an answer since the filter was
    /// compiled. Such a line hits nobody.
    pub fn limits_hit(&self) -> u64 {
        self.bounded().map(|(_, pattern)| pattern.limits()).sum()
    }

    /// The patterns that look around or back: those with a bound on steps and length.
    pub(super) fn bounded(&self) -> impl Iterator<Item = (PatternAt, &Pattern)> {
        let prefix = self.prefix.iter().map(|p| (PatternAt::Prefix, p));
        let fail = self.fail.iter().map(|p| (PatternAt::Fail(p.number), p));
        let ignore = self.ignore.iter().map(|p| (PatternAt::Ignore(p.number), p));
        let all = prefix.chain(fail).chain(ignore);
        all.filter(|(_, pattern)| pattern.steps_back())
    }
}
