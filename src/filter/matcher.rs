//! All jails of one kind of log against blocks of whole lines: what the live path runs.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::AhoCorasick;

use super::candidates::{self, Candidates};
use super::costs::{Costs, Nanos, Slowest};
use super::torn::{Trust, Vouch, quotes_a_client};
use super::{Filter, Outcome, PatternAt, Subject, glob};
use crate::config::{Config, JailName};
use crate::record::{Kind, Parser, Record};

/// What came of one block.
#[derive(Debug, Default, PartialEq)]
pub struct BlockResult {
    /// Lines in the block.
    pub lines: u64,
    /// Lines no parser understood.
    pub unparsed: u64,
    /// The first of them.
    pub unread: Option<Unread>,
    /// Error lines that may not be Apache's own: see [`Matcher`].
    pub torn: u64,
    /// Lines that matched only with another address than the client's.
    pub spoofed: u64,
    /// Lines that hit.
    pub hits: Vec<Hit>,
    /// Good requests (2xx, 3xx) for the shared-address rule: client and a hash of the user agent.
    pub good: Vec<(IpAddr, u64)>,
}

/// A line that no parser understood.
#[derive(Debug, PartialEq)]
pub struct Unread {
    /// Its number in the block, from 0.
    pub number: u64,
    /// Where it stands in the block.
    pub line: Range<usize>,
    /// Why, in a few words.
    pub why: &'static str,
}

/// One line that matched at least one jail.
#[derive(Debug, PartialEq)]
pub struct Hit {
    /// Where the line stands in the block, without its newline.
    pub line: Range<usize>,
    /// Apache's client field.
    pub client: IpAddr,
    /// The connection's peer, where it differs.
    pub peer: Option<IpAddr>,
    /// Jails that matched, each with the number of its pattern, from 1.
    pub jails: Vec<(JailName, u32)>,
}

/// Compiled jails. Shared by all match threads.
///
/// # Torn and forged lines
///
/// A line over 4096 bytes may come through the pipe in pieces, with lines of others between them.
/// [`super::Subject`] says what becomes of such a line itself. The last piece begins a line with
/// bytes that a client chose, and so do lines that a CGI script prints. In the error log these can
/// imitate a whole line of Apache's, save one thing: they do not know the number of a running
/// Apache process. So with a [`Vouch`] an error line hits only when its process is vouched for, and
/// a line whose process is not puts the next ones in doubt, so that guessing is slow. Without one,
/// lines behind a torn one must come from a process that is known by an earlier line; who sends
/// long lines in front of his attacks thus escapes for the first lines of a new process.
#[derive(Debug)]
pub struct Matcher {
    kind: Kind,
    parser: Parser,
    filters: Vec<Entry>,
    jails: Vec<JailEntry>,
    /// Every literal of every pattern; `None` where there would be too many.
    literals: Option<AhoCorasick>,
    /// For each literal the patterns that need it, as numbers over all filters.
    owners: Vec<Vec<usize>>,
    /// Every pattern of every filter.
    patterns: Vec<candidates::Owner>,
    trust: Trust,
    costs: Costs,
    /// Filters with patterns that look around or back.
    bounded: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    filter: Filter,
    /// Number of its first pattern.
    first: usize,
}

#[derive(Debug)]
struct JailEntry {
    name: JailName,
    filter: usize,
    vhost: Vec<String>,
    not_vhost: Vec<String>,
}

impl Matcher {
    /// Compiles the enabled jails of `config` that are fed by `kind`. Patterns that do not
    /// compile are left out (`check` names them; the engine refuses such a configuration).
    pub fn new(config: &Config, kind: Kind, parser: Parser) -> Matcher {
        let mut filters: Vec<Entry> = Vec::new();
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        let mut jails = Vec::new();
        let mut patterns = Vec::new();
        let mut owners_of: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (name, jail) in &config.jails {
            if !jail.enabled || jail.log != kind {
                continue;
            }
            let filter = match by_name.get(jail.filter.as_str()) {
                Some(index) => *index,
                None => {
                    let Some(filter) = config.filters.get(&jail.filter).map(Filter::lenient) else {
                        continue;
                    };
                    let (index, first) = (filters.len(), patterns.len());
                    for texts in filter.literals() {
                        for text in texts.unwrap_or_default() {
                            let owners = owners_of.entry(text.clone()).or_default();
                            owners.push(patterns.len());
                        }
                        patterns.push(candidates::Owner {
                            filter: index,
                            always: texts.is_none(),
                        });
                    }
                    let name = jail.filter.clone();
                    filters.push(Entry {
                        name,
                        filter,
                        first,
                    });
                    by_name.insert(&jail.filter, index);
                    index
                }
            };
            jails.push(JailEntry {
                name: name.clone(),
                filter,
                vhost: jail.vhost.clone(),
                not_vhost: jail.not_vhost.clone(),
            });
        }
        let (texts, owners): (Vec<_>, Vec<_>) = owners_of.into_iter().unzip();
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(&texts);
        let literals = automaton.ok();
        if literals.is_none() {
            // Too many texts for one automaton: every pattern is tried on every line.
            patterns.iter_mut().for_each(|p| p.always = true);
        }
        let bounded = (0..).zip(&filters);
        let bounded = bounded.filter(|(_, entry)| entry.filter.bounded().next().is_some());
        Matcher {
            kind,
            parser,
            bounded: bounded.map(|(at, _)| at).collect(),
            filters,
            jails,
            literals,
            owners,
            patterns,
            trust: Trust::default(),
            costs: Costs::default(),
        }
    }

    /// What reads the lines.
    pub fn parser(&self) -> &Parser {
        &self.parser
    }

    /// Believes error lines only of processes that somebody vouches for.
    pub fn with_vouch(self, vouch: Option<Arc<dyn Vouch>>) -> Matcher {
        Matcher {
            trust: Trust::new(vouch),
            ..self
        }
    }

    /// Notes what each filter costs, by this clock.
    pub fn with_clock(self, nanos: Nanos) -> Matcher {
        Matcher {
            costs: Costs::new(nanos, self.filters.len()),
            ..self
        }
    }

    /// The filter that takes most of the time; `None` while too little is known.
    pub fn slowest(&self) -> Option<Slowest> {
        let (index, slowest) = self.costs.slowest()?;
        let filter = self.filters.get(index)?.name.clone();
        Some(Slowest { filter, ..slowest })
    }

    /// Patterns that a bound on steps or length kept from an answer since this was last asked, by
    /// the filter as jails name it, and how often.
    pub fn take_limits(&self) -> Vec<(String, PatternAt, u64)> {
        let bounded = self.bounded.iter().filter_map(|at| self.filters.get(*at));
        let all = bounded.flat_map(|entry| entry.filter.bounded().map(move |b| (entry, b)));
        all.filter_map(|(entry, (at, pattern))| {
            let times = pattern.take_limits();
            (times > 0).then(|| (entry.name.clone(), at, times))
        })
        .collect()
    }

    /// Examines every line of `block`, which holds whole lines, each ended by `\n` but perhaps
    /// the last of a stream.
    pub fn examine(&self, block: &[u8]) -> BlockResult {
        let mut result = BlockResult::default();
        let found = self.literals.as_ref();
        let mut found = found
            .map(|literals| literals.find_overlapping_iter(block))
            .into_iter()
            .flatten()
            .peekable();
        let mut candidates = Candidates::new(&self.patterns, self.filters.len());
        for range in lines(block) {
            result.lines += 1;
            candidates.next_line();
            // No literal holds a newline, so each stands in one line; they come by their ends.
            while let Some(text) = found.next_if(|text| text.end() <= range.end) {
                let owners = self.owners.get(text.pattern().as_usize());
                for pattern in owners.into_iter().flatten() {
                    candidates.add(*pattern);
                }
            }
            let Some(line) = block.get(range.clone()) else {
                continue;
            };
            let Some(record) = self.parser.parse(line) else {
                result.unparsed += 1;
                result.unread.get_or_insert_with(|| Unread {
                    number: result.lines - 1,
                    why: self.parser.complaint(line),
                    line: range,
                });
                if self.kind == Kind::Error {
                    self.trust.saw_foreign(line);
                }
                continue;
            };
            let error = self.kind == Kind::Error;
            if error && !self.trust.believes(line, &record) {
                result.torn += 1;
                continue;
            }
            let mut verdict = self.judge(line, &record, &candidates);
            if error && !verdict.jails.is_empty() {
                verdict = self.own_words(line, &record, verdict, &candidates);
                if verdict.jails.is_empty() {
                    result.torn += 1;
                    continue;
                }
            }
            self.note(&mut result, range, &record, verdict);
        }
        result
    }

    /// What an error line that hits says for itself, without the words of others: those of a script
    /// that mod_cgi quotes and that imitate a client field, and a neighbour's line.
    fn own_words(
        &self,
        line: &[u8],
        record: &Record<'_>,
        verdict: Verdict,
        candidates: &Candidates<'_>,
    ) -> Verdict {
        if quotes_a_client(line, record, &self.parser) {
            return Verdict::default();
        }
        let Some(at) = self.trust.neighbour(line, &self.parser) else {
            return verdict;
        };
        let own = line.get(..at).unwrap_or_default();
        let record = self.parser.parse(own);
        record.map_or_else(Verdict::default, |record| {
            self.judge(own, &record, candidates)
        })
    }

    fn judge(&self, line: &[u8], record: &Record<'_>, candidates: &Candidates<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        if !candidates.any() {
            return verdict;
        }
        let subject = Subject::of(line, record);
        let mut outcomes: Vec<Option<Outcome>> = vec![None; self.filters.len()];
        for jail in self.jails.iter() {
            let (Some(entry), Some(known)) =
                (self.filters.get(jail.filter), outcomes.get_mut(jail.filter))
            else {
                continue;
            };
            if !candidates.filter(jail.filter) || !wants(&jail.vhost, &jail.not_vhost, record) {
                continue;
            }
            let outcome = *known.get_or_insert_with(|| {
                self.costs.of(jail.filter, candidates.line(), || {
                    entry
                        .filter
                        .examine_some(&subject, |at| candidates.pattern(entry.first + at))
                })
            });
            match outcome {
                Outcome::Match { pattern, .. } => verdict.jails.push((jail.name.clone(), pattern)),
                Outcome::Spoof { .. } => verdict.spoofed = true,
                Outcome::Ignored | Outcome::Miss => {}
            }
        }
        verdict
    }

    fn note(
        &self,
        result: &mut BlockResult,
        line: Range<usize>,
        record: &Record<'_>,
        verdict: Verdict,
    ) {
        let Some(client) = record.client else {
            result.spoofed += u64::from(verdict.spoofed);
            return;
        };
        if !verdict.jails.is_empty() {
            result.hits.push(Hit {
                line,
                client: client.addr,
                peer: record.peer.filter(|peer| *peer != client.addr),
                jails: verdict.jails,
            });
        } else if verdict.spoofed {
            result.spoofed += 1;
        } else if matches!(record.status, Some(200..=399)) {
            let mut hasher = DefaultHasher::new();
            record.agent.hash(&mut hasher);
            result.good.push((client.addr, hasher.finish()));
        }
    }
}

/// What the jails say of one line.
#[derive(Debug, Default)]
struct Verdict {
    jails: Vec<(JailName, u32)>,
    spoofed: bool,
}

/// Whether a line belongs to one of the virtual hosts that a jail wants (`*` stands for any text,
/// case does not count; no `vhost` means all).
pub fn wants(vhost: &[String], not_vhost: &[String], record: &Record<'_>) -> bool {
    let named = |patterns: &[String]| {
        let name = record.vhost.unwrap_or_default();
        let is = |pattern: &String| glob::matches(pattern.as_bytes(), name);
        patterns.iter().any(is)
    };
    (vhost.is_empty() || named(vhost)) && !named(not_vhost)
}

/// Lines without their newlines.
fn lines(block: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', block)
        .chain((!block.ends_with(b"\n") && !block.is_empty()).then_some(block.len()))
        .map(move |end| {
            let line = start..end;
            start = end + 1;
            line
        })
}

#[cfg(test)]
mod tests;
