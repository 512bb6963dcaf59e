//! Matches lines against all jails of one kind of log: the code of the live path.

mod candidates;
mod costs;
mod input;
mod line;
mod result;
mod search;
mod trust;
mod vhost;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regex::bytes::Regex;

use super::compile::{Filter, Outcome};
use super::definition::{Definition, PatternAt};
use super::near::Reason;
use super::rules::{self, RuleSet, Scratch, claim_pattern};
use super::subject::{Subject, Views};
use super::texthash::text_hash;
use crate::jail_name::JailName;
use crate::record::{Parser, Record, display, time};
use candidates::{Candidates, Owner};
use costs::Costs;
pub use costs::{Nanos, Slowest};
pub use input::InputKind;
pub use result::{BlockResult, Hit, LineResult, Unread};
use search::Search;
use trust::Trust;
pub use trust::Vouch;

/// Bytes of a virtual host's name at most; DNS allows 253.
const LONGEST_NAME: usize = 255;

/// Bytes of a line, more or less.
const ORDINARY_LINE: usize = 200;

/// A filter and the lines that it is for.
#[derive(Debug, Clone)]
pub struct Rule<'d> {
    /// The jail; `None` for a filter without one: its matches are no hits.
    pub jail: Option<JailName>,
    /// The filter with its options, as jails name it. Rules with the same name share one filter.
    pub filter: &'d str,
    /// The filter.
    pub definition: &'d Definition,
    /// Virtual hosts, with `*` for any text; empty: all.
    pub vhost: &'d [String],
    /// Virtual hosts that are left out.
    pub not_vhost: &'d [String],
    /// The jail's `[[except]]`, see [`crate::config::Jail`].
    pub except: &'d str,
    /// For how long a text counts once, in rules with `distinct`.
    pub findtime: Duration,
}

/// Compiled rules. Shared by all match threads.
///
/// # Torn and forged lines
///
/// A line over 4096 bytes may come through the pipe in pieces, with other lines between them;
/// [`Subject`] describes what happens to such a line. Its last piece begins a line with bytes that
/// a client chose, and so do lines that a CGI script prints. In the error log these can imitate a
/// whole line of Apache's, except for one thing: they do not know the number of a running Apache
/// process. So with a [`Vouch`] an error line hits only if that confirms its process. A script can
/// know that number: the engine confirms the client. Without a `Vouch`,
/// lines behind a torn one must come from a process that an earlier line named. A client that
/// sends long lines before its attacks thus escapes detection in the first lines of a new process.
#[derive(Debug)]
pub struct Matcher {
    input: InputKind,
    filters: Vec<Entry>,
    rules: Vec<RuleEntry>,
    /// For the literals of all patterns; `None`: no pattern has one.
    search: Option<Search>,
    /// Every pattern of every filter.
    patterns: Vec<Owner>,
    trust: Trust,
    costs: Costs,
    /// The rules of all native filters; a filter is its index in `filters`.
    native: RuleSet,
    /// The `[[except]]` of jails; a jail is its index in `rules`.
    excepts: RuleSet,
    /// What is kept between blocks, for each thread at work.
    scratches: Mutex<Vec<Buffers>>,
    /// Filters with patterns that look around or back.
    limited: Vec<usize>,
    /// User agents of search engines; the first group is the word.
    claims: Option<Regex>,
}

/// To be used again for the next block.
#[derive(Debug, Default)]
struct Buffers {
    /// The block in lower case.
    lower: Vec<u8>,
    /// Patterns that may match, each with a place in the block.
    found: Vec<(usize, usize)>,
    /// What native filters remember.
    native: Scratch,
    /// What the `[[except]]` of jails remember.
    excepts: Scratch,
}

#[derive(Debug)]
struct Entry {
    name: String,
    filter: Filter,
    /// Number of its first pattern.
    first: usize,
}

#[derive(Debug)]
struct RuleEntry {
    jail: Option<JailName>,
    /// Index into [`Matcher::filters`].
    filter: usize,
    vhost: Vec<String>,
    not_vhost: Vec<String>,
    findtime: Duration,
}

impl Matcher {
    /// Compiles the filters of `rules`, whose `[[client]]` count in all lines. Patterns that do not
    /// compile are left out: `check` reports them, and the engine refuses such a configuration.
    pub fn new(rules: &[Rule<'_>], input: InputKind) -> Matcher {
        let mut filters: Vec<Entry> = Vec::new();
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        let mut entries = Vec::new();
        let mut patterns = Vec::new();
        let mut definitions = Vec::new();
        for rule in rules {
            let index = *by_name.entry(rule.filter).or_insert_with(|| {
                let filter = Filter::lenient(rule.definition);
                definitions.push(rule.definition);
                let (index, first) = (filters.len(), patterns.len());
                patterns.extend(filter.literals().map(|texts| Owner {
                    filter: index,
                    always: texts.is_none(),
                }));
                filters.push(Entry {
                    name: rule.filter.to_owned(),
                    filter,
                    first,
                });
                index
            });
            entries.push(RuleEntry {
                jail: rule.jail.clone(),
                filter: index,
                vhost: rule.vhost.to_vec(),
                not_vhost: rule.not_vhost.to_vec(),
                findtime: rule.findtime,
            });
        }
        let excepts: Vec<_> = (0..)
            .zip(rules)
            .map(|(jail, rule): (usize, _)| {
                let of_jail = rules::excepts(Path::new(&format!("[jail {jail}]")), rule.except);
                Vec::from_iter(of_jail.ok())
            })
            .collect();
        let texts = filters.iter().flat_map(|entry| {
            let numbers = entry.first..;
            numbers
                .zip(entry.filter.literals())
                .flat_map(|(number, texts)| {
                    let texts = texts.unwrap_or_default().iter();
                    texts.map(move |text| (text.as_slice(), number))
                })
        });
        let texts: Vec<_> = texts.collect();
        let any = !texts.is_empty();
        let search = any.then(|| Search::new(texts));
        let native = RuleSet::of(definitions);
        let limited = (0..).zip(&filters);
        let limited = limited.filter(|(_, entry)| entry.filter.limited().next().is_some());
        Matcher {
            input: input.with_module_clients(native.clients()),
            limited: limited.map(|(at, _)| at).collect(),
            filters,
            rules: entries,
            search,
            patterns,
            trust: Trust::default(),
            costs: Costs::default(),
            native,
            excepts: RuleSet::compile(&excepts),
            scratches: Mutex::default(),
            claims: None,
        }
    }

    /// Reads the lines; `None` with [`InputKind::Raw`].
    pub fn parser(&self) -> Option<&Parser> {
        match &self.input {
            InputKind::Apache(_, parser) => Some(parser),
            InputKind::Raw => None,
        }
    }

    /// How lines are read.
    pub fn input(&self) -> &InputKind {
        &self.input
    }

    /// Believes only error lines whose process `vouch` confirms.
    pub fn with_vouch(self, vouch: Option<Arc<dyn Vouch>>) -> Matcher {
        Matcher {
            trust: Trust::new(vouch),
            ..self
        }
    }

    /// Notes in hits which of these words of search engines the user agent holds.
    pub fn with_claims<'w>(self, words: impl Iterator<Item = &'w str>) -> Matcher {
        let mut words = words.peekable();
        let any = words.peek().is_some();
        let pattern = any.then(|| claim_pattern(words));
        Matcher {
            claims: pattern.and_then(|pattern| rules::regex(&pattern).ok()),
            ..self
        }
    }

    /// Measures the cost of each filter by this clock.
    pub fn with_clock(self, nanos: Nanos) -> Matcher {
        Matcher {
            costs: Costs::new(nanos, self.filters.len()),
            ..self
        }
    }

    /// The filter that takes most of the time; `None` while too few lines are measured.
    pub fn slowest(&self) -> Option<Slowest> {
        let (index, slowest) = self.costs.slowest()?;
        let filter = self.filters.get(index)?.name.clone();
        Some(Slowest { filter, ..slowest })
    }

    /// Patterns that a limit on steps or length stopped since the last call, by filter, and how
    /// often.
    pub fn take_limits(&self) -> Vec<(String, PatternAt, u64)> {
        let limited = self.limited.iter().filter_map(|at| self.filters.get(*at));
        let all = limited.flat_map(|entry| entry.filter.limited().map(move |p| (entry, p)));
        all.filter_map(|(entry, (at, pattern))| {
            let times = pattern.take_limits();
            (times > 0).then(|| (entry.name.clone(), at, times))
        })
        .collect()
    }

    /// Matches every line of `block`, which holds whole lines, each ended by `\n` except perhaps
    /// the last of a stream.
    pub fn examine(&self, block: &[u8]) -> BlockResult {
        let mut result = BlockResult::default();
        result.good.reserve(block.len() / ORDINARY_LINE);
        let scratches = || {
            self.scratches
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let mut buffers = scratches().pop().unwrap_or_default();
        let mut candidates = Candidates::new(&self.patterns, self.filters.len());
        candidates.native = RefCell::new(std::mem::take(&mut buffers.native));
        candidates.excepts = RefCell::new(std::mem::take(&mut buffers.excepts));
        buffers.find(self.search.as_ref(), block);
        let mut found = buffers.found.iter().peekable();
        for range in lines(block) {
            candidates.next_line();
            // No literal holds a newline, so each is in one line.
            while let Some((_, pattern)) = found.next_if(|(at, _)| *at < range.end) {
                candidates.add(*pattern);
            }
            let line = block.get(range.clone()).unwrap_or_default();
            let examined = self.line(line, &mut candidates);
            self.note(&mut result, range, line, examined);
        }
        buffers.native = candidates.native.into_inner();
        buffers.excepts = candidates.excepts.into_inner();
        scratches().push(buffers);
        result
    }

    /// Matches the beginning of a line that is too long, as far as its fields go. What is cut off is
    /// as if the log's format did not have it.
    pub fn examine_beginning(&self, line: &[u8]) -> BlockResult {
        let mut result = BlockResult::default();
        let record = self.parser().and_then(|p| p.parse_beginning(line));
        if let Some(record) = record {
            let mut candidates = Candidates::new(&self.patterns, self.filters.len());
            candidates.next_line();
            self.add_all(line, &mut candidates);
            let found = self.access_record(line, record, &mut candidates);
            self.note(&mut result, 0..line.len(), line, found);
            result.lines = 0;
        }
        result
    }

    /// Matches one line, without its newline, as [`Matcher::examine`] does.
    pub fn examine_line<'l>(&self, line: &'l [u8]) -> LineResult<'l> {
        let mut candidates = Candidates::new(&self.patterns, self.filters.len());
        candidates.next_line();
        self.add_all(line, &mut candidates);
        self.line(line, &mut candidates)
    }

    /// Why a rule, from 0, does not match a line by its patterns.
    pub fn why_not(&self, rule: usize, line: &[u8]) -> Option<Reason> {
        let index = self.rules.get(rule)?.filter;
        let filter = &self.filters.get(index)?.filter;
        let Some(parser) = self.parser() else {
            return filter.why_not(&raw(line));
        };
        let record = parser.parse(line)?;
        let near = self.native.near(index, &record);
        match near.first() {
            Some(nearest) if nearest.failed.is_empty() => None,
            Some(_) => Some(Reason::Rules(near)),
            None => filter.why_not_any(&Views::of(line, &record)),
        }
    }

    /// Whether a rule, from 0, is for the virtual host of this record.
    pub fn wants(&self, rule: usize, record: &Record<'_>) -> bool {
        self.rules.get(rule).is_some_and(|rule| rule.wants(record))
    }

    /// Adds the patterns whose literals are in a text.
    fn add_all(&self, text: &[u8], candidates: &mut Candidates<'_>) {
        if let Some(search) = &self.search {
            search.each(&text.to_ascii_lowercase(), |_, patterns| {
                patterns.iter().for_each(|pattern| candidates.add(*pattern));
            });
        }
    }

    fn note(
        &self,
        result: &mut BlockResult,
        range: Range<usize>,
        line: &[u8],
        found: LineResult<'_>,
    ) {
        result.lines += 1;
        if found.unparsed {
            result.unparsed += 1;
            let number = result.lines - 1;
            result.unread.get_or_insert_with(|| Unread {
                number,
                why: self.parser().map_or("", |parser| parser.complaint(line)),
                line: range,
            });
            return;
        }
        if found.torn {
            result.torn += 1;
            return;
        }
        let client = found.record.as_ref().and_then(|r| Some((r, r.client?)));
        let mut jails = Vec::new();
        let mut spoofed = false;
        for (index, outcome) in &found.outcomes {
            let rule = self.rules.get(*index);
            match (
                outcome,
                rule.and_then(|rule| Some((rule, rule.jail.as_ref()?))),
            ) {
                (
                    Outcome::Match {
                        pattern, weight, ..
                    },
                    Some((rule, jail)),
                ) => {
                    let at = (rule.filter, *pattern);
                    let repeated = client.is_some_and(|(record, client)| {
                        self.native.fails(*index, client.addr);
                        let jail = (*index, rule.period(record));
                        self.native.is_repeated(at, jail, client.addr, record)
                    });
                    if !repeated {
                        jails.push((jail.clone(), *pattern, *weight));
                    }
                }
                (Outcome::Success(pattern), Some((rule, jail))) => {
                    let clears = client.is_some_and(|(record, client)| {
                        let jail = (*index, rule.period(record));
                        self.native.clears(jail, client.addr)
                    });
                    if clears {
                        jails.push((jail.clone(), *pattern, 0));
                    }
                }
                (Outcome::Spoof { .. }, _) => spoofed = true,
                _ => {}
            }
        }
        let Some((record, client)) = client else {
            result.spoofed += u64::from(spoofed);
            return;
        };
        let is_access = record.message.is_none();
        if is_access && result.clients.last() != Some(&client.addr) {
            result.clients.push(client.addr);
        }
        let counts = jails.iter().any(|(.., weight)| *weight > 0);
        if !jails.is_empty() {
            result.hits.push(Hit {
                line: range,
                client: client.addr,
                peer: record.peer.filter(|peer| *peer != client.addr),
                vhost: record.vhost.map(|name| display(name, LONGEST_NAME)),
                source: record.client_source(),
                answered: record.is_answered(),
                claim: record.agent.and_then(|agent| self.claim(agent)),
                jails,
            });
        }
        if counts {
            return;
        }
        if spoofed {
            result.spoofed += 1;
        } else if matches!(record.status, Some(200..=399)) {
            let agent = text_hash(record.agent.unwrap_or_default());
            result.good.push((client.addr, agent));
        }
    }
}

impl Matcher {
    fn claim(&self, agent: &[u8]) -> Option<String> {
        let word = self.claims.as_ref()?.captures(agent)?.get(1)?;
        Some(String::from_utf8_lossy(word.as_bytes()).into_owned())
    }
}

impl Buffers {
    /// The patterns that may match, in the order of their places.
    fn find(&mut self, search: Option<&Search>, block: &[u8]) {
        self.found.clear();
        let Some(search) = search else { return };
        self.lower.clear();
        self.lower.extend_from_slice(block);
        self.lower.make_ascii_lowercase();
        search.each(&self.lower, |at, patterns| {
            self.found
                .extend(patterns.iter().map(|pattern| (at, *pattern)));
        });
        self.found.sort_unstable();
    }
}

impl RuleEntry {
    /// The number of the period, as long as `findtime`, in which a record is.
    fn period(&self, record: &Record<'_>) -> i64 {
        record.stamp.map_or(0, |stamp| stamp.period(self.findtime))
    }

    fn wants(&self, record: &Record<'_>) -> bool {
        let named = |patterns: &[String]| {
            let name = record.vhost.unwrap_or_default();
            let is = |pattern: &String| vhost::matches(pattern.as_bytes(), name);
            patterns.iter().any(is)
        };
        (self.vhost.is_empty() || named(&self.vhost)) && !named(&self.not_vhost)
    }
}

/// A line without a record; the first time in it is left out, as fail2ban does.
fn raw(line: &[u8]) -> Subject<'_> {
    Subject::raw(line, time::find(line).map(|(at, _)| at))
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
