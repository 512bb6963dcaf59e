//! The rules of all filters, compiled together.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use regex::bytes::Regex;

use super::fields::{Fields, code};
use super::file::read;
use super::holds::rests_on_free_text;
use super::needed::{needed, worth};
use super::part::{PARTS, Part, parts};
use super::pattern;
use super::rule::{Confidence, Family, Field, Rule, Rules, Test};
use super::scratch::{Candidates, Scratch};
use crate::filter::definition::Definition;
use crate::filter::grams::Grams;
use crate::jail::household;
use crate::record::{Kind, ModuleClient, Record};

/// The compiled patterns of all rules without literals, for one field.
const MOST_GATE: usize = 64 << 20;

/// Distinct values remembered, of all clients together. A newer one takes an older one's place.
const MOST_SEEN: usize = 1 << 14;

/// One rule that a record hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleHit {
    /// Index of the filter, as given to [`RuleSet::compile`].
    pub filter: usize,
    /// Number of the rule in its filter, from 1, those of included files counted on.
    pub rule: u32,
    /// How sure it is. A hit that rests on nothing but what a visitor typed into a search is
    /// [`Confidence::Probe`] at most.
    pub confidence: Confidence,
    /// What it counts.
    pub weight: u32,
    /// It is an `[[except]]`: its number is among those of its filter.
    pub excepts: bool,
}

/// All rules of several filters, compiled for one kind of log. Shared by threads.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Compiled>,
    /// The `[[client]]` of all files.
    clients: Vec<ModuleClient>,
    literals: Vec<Literals>,
    gates: Vec<Gate>,
    /// Rules without literals, tried on every line.
    always: Vec<usize>,
    /// The `distinct` of rules, by filter and number.
    distinct: Vec<((usize, u32), Field)>,
    /// What rules with `distinct` have counted, and clients that failed, by hash; empty without
    /// `distinct` and `[[clear]]`.
    seen: Vec<AtomicU64>,
    /// Of [`RuleSet::seen`], with a key that no client knows.
    hasher: RandomState,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    /// The log that it is for; `None`: either.
    log: Option<Kind>,
    /// The condition whose literals are searched for.
    trigger: Option<usize>,
    /// Of [`Part::of`], the parts that its conditions look at.
    parts: [bool; PARTS],
    /// Filters that have the rule, and its number in each.
    owners: Vec<(usize, u32)>,
}

/// The literals that the texts of a family are searched for.
#[derive(Debug)]
struct Literals {
    family: Family,
    texts: Grams,
    /// For each text the rules that need it.
    owners: Vec<Vec<usize>>,
}

/// The patterns of rules without literals, for one field.
#[derive(Debug)]
struct Gate {
    family: Family,
    field: Field,
    any: Regex,
    rules: Vec<usize>,
}

impl RuleSet {
    /// Compiles the native ones of these filters; a hit names a filter by its place among all.
    /// Files that are wrong are left out: reading them has reported it.
    pub(in crate::filter) fn of<'d>(
        definitions: impl IntoIterator<Item = &'d Definition>,
    ) -> RuleSet {
        let filters = definitions.into_iter().map(|definition| {
            let files = definition.native.iter();
            files
                .filter_map(|file| read(&file.file, &file.text).ok())
                .collect()
        });
        RuleSet::compile(&filters.collect::<Vec<_>>())
    }

    /// Compiles filters, each given as its own file and the included ones.
    pub fn compile<'f>(filters: &'f [Vec<Rules>]) -> RuleSet {
        let mut set = RuleSet::default();
        let mut known: HashMap<(&PathBuf, (usize, usize)), usize> = HashMap::new();
        for (filter, files) in filters.iter().enumerate() {
            let clients = files.iter().flat_map(|file| &file.clients);
            set.clients.extend(clients.cloned());
            let rules = |excepts| {
                let of_file = move |file: &'f Rules| {
                    let rules = file
                        .rules
                        .iter()
                        .filter(move |rule| rule.excepts == excepts);
                    rules.map(move |rule| (file, rule))
                };
                (1..).zip(files.iter().flat_map(of_file))
            };
            for (number, (file, rule)) in rules(false).chain(rules(true)) {
                let index = *known.entry((&file.file, rule.place)).or_insert_with(|| {
                    set.rules.push(Compiled {
                        rule: rule.clone(),
                        log: file.log,
                        trigger: None,
                        parts: rule.parts(),
                        owners: Vec::new(),
                    });
                    set.rules.len() - 1
                });
                if let Some(compiled) = set.rules.get_mut(index) {
                    compiled.owners.push((filter, number));
                }
            }
        }
        if set
            .rules
            .iter()
            .any(|compiled| compiled.rule.distinct.is_some() || compiled.rule.weight == 0)
        {
            set.seen.resize_with(MOST_SEEN, AtomicU64::default);
        }
        for compiled in set.rules.iter().filter(|c| !c.rule.excepts) {
            let field = compiled.rule.distinct.into_iter();
            let of_owners =
                field.flat_map(|field| compiled.owners.iter().map(move |at| (*at, field)));
            set.distinct.extend(of_owners);
        }
        set.build_search();
        set
    }

    fn build_search(&mut self) {
        let mut literals: BTreeMap<Family, HashMap<Vec<u8>, Vec<usize>>> = BTreeMap::new();
        let mut gates: BTreeMap<Field, (Vec<String>, Vec<usize>)> = BTreeMap::new();
        for (index, compiled) in self.rules.iter_mut().enumerate() {
            match compiled.rule.trigger() {
                Trigger::Literals(condition, field, texts) => {
                    compiled.trigger = Some(condition);
                    for family in field.families() {
                        let known = literals.entry(*family).or_default();
                        for text in &texts {
                            known.entry(text.clone()).or_default().push(index);
                        }
                    }
                }
                Trigger::Pattern(field, pattern) => {
                    let (patterns, rules) = gates.entry(field).or_default();
                    patterns.push(format!("(?:{pattern})"));
                    rules.push(index);
                }
                Trigger::None => self.always.push(index),
            }
        }
        for (family, texts) in literals {
            let (texts, owners): (Vec<_>, Vec<_>) = texts.into_iter().unzip();
            self.literals.push(Literals {
                family,
                texts: Grams::new(texts),
                owners,
            });
        }
        for (field, (patterns, rules)) in gates {
            match pattern::regex(&patterns.join("|"), MOST_GATE) {
                Ok(any) => self
                    .gates
                    .extend(field.families().iter().map(|family| Gate {
                        family: *family,
                        field,
                        any: any.clone(),
                        rules: rules.clone(),
                    })),
                Err(_) => self.always.extend(rules),
            }
        }
        self.always.sort_unstable();
        self.always.dedup();
    }

    /// Where modules write the client, by the `[[client]]` of all files.
    pub(in crate::filter) fn clients(&self) -> impl Iterator<Item = ModuleClient> {
        self.clients.iter().cloned()
    }

    /// Whether it has no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules that `record` hits, in the order of the filters' files. `scratch` is of this set
    /// alone.
    pub fn evaluate(&self, record: &Record<'_>, scratch: &mut Scratch) -> Vec<RuleHit> {
        let kind = kind(record);
        let may_hold = |index: &&usize| {
            let rule = self.rules.get(**index);
            rule.is_some_and(|compiled| {
                compiled.log.is_none_or(|log| log == kind) && compiled.rule.may_hold(record)
            })
        };
        let quiet = scratch.is_quiet(record, || self.always.iter().any(|index| may_hold(&index)));
        let (buffers, candidates, triggered, known) = scratch.parts(self.rules.len());
        if !quiet {
            for index in self.always.iter().filter(may_hold) {
                candidates.extend(&[*index]);
            }
        }
        let parts = Part::of(record);
        let mut searched = [false; PARTS];
        for ((part, known), searched) in parts.iter().zip(known.iter()).zip(&mut searched) {
            match known.get(part.text) {
                Some(rules) => candidates.extend(rules),
                None => *searched = true,
            }
        }
        if candidates.is_empty() && !searched.contains(&true) {
            return Vec::new();
        }
        let fields = Fields::of_parts(record, buffers, searched);
        for ((part, known), _) in parts.iter().zip(known).zip(searched).filter(|(_, s)| *s) {
            let mut found = Vec::new();
            for family in part.families {
                self.search(*family, &fields, triggered, &mut found);
            }
            candidates.extend(&found);
            known.insert(part.text, &found);
        }
        let mut hits = Vec::new();
        let mut candidates = candidates.take();
        candidates.retain(|index| may_hold(&index));
        if candidates.is_empty() {
            return hits;
        }
        let mut wanted = [false; PARTS];
        for compiled in candidates.iter().filter_map(|index| self.rules.get(*index)) {
            let parts = wanted.iter_mut().zip(compiled.parts);
            parts.for_each(|(wanted, part)| *wanted |= part);
        }
        let fields = Fields::of_parts(record, buffers, wanted);
        for index in candidates {
            self.try_rule(index, record, &fields, &mut hits);
        }
        hits
    }

    /// Adds the rules that the texts of a family may hit.
    fn search(
        &self,
        family: Family,
        fields: &Fields<'_>,
        triggered: &mut Candidates,
        found: &mut Vec<usize>,
    ) {
        for literals in self.literals.iter().filter(|l| l.family == family) {
            fields.each(family, None, |text| {
                literals.texts.each(text, |_, text| {
                    let owners = literals.owners.get(text);
                    triggered.extend(owners.map_or(&[][..], Vec::as_slice));
                });
            });
        }
        let of_texts = triggered.take().into_iter();
        found.extend(of_texts.filter(|index| self.is_triggered(*index, family, fields)));
        for gate in self.gates.iter().filter(|gate| gate.family == family) {
            let mut open = false;
            fields.each(family, Some(gate.field), |text| {
                open |= gate.any.is_match(text)
            });
            if open {
                found.extend(&gate.rules);
            }
        }
    }

    /// Whether a text of the family satisfies the condition whose literals it holds.
    fn is_triggered(&self, index: usize, family: Family, fields: &Fields<'_>) -> bool {
        let condition = self
            .rules
            .get(index)
            .and_then(|compiled| compiled.rule.conditions.get(compiled.trigger?));
        let Some((field, Test::Text(regex))) = condition.map(|c| (c.field, &c.test)) else {
            return true;
        };
        let mut matches = false;
        fields.each(family, Some(field), |text| matches |= regex.is_match(text));
        matches
    }

    /// The rules of a filter, each with its number from 1.
    pub(in crate::filter) fn of_filter(&self, filter: usize) -> impl Iterator<Item = (u32, &Rule)> {
        let matches = self.rules.iter().filter(|compiled| !compiled.rule.excepts);
        matches.flat_map(move |compiled| {
            let owners = compiled.owners.iter();
            let numbers = owners.filter(move |(owner, _)| *owner == filter);
            numbers.map(|(_, number)| (*number, &compiled.rule))
        })
    }

    /// [`RuleSet::evaluate`] without the search for literals, for tests.
    #[cfg(test)]
    pub(super) fn evaluate_each(&self, record: &Record<'_>) -> Vec<RuleHit> {
        let mut scratch = Scratch::default();
        let (buffers, ..) = scratch.parts(0);
        let fields = Fields::of(record, buffers);
        let mut hits = Vec::new();
        for index in 0..self.rules.len() {
            self.try_rule(index, record, &fields, &mut hits);
        }
        hits
    }

    fn try_rule(
        &self,
        index: usize,
        record: &Record<'_>,
        fields: &Fields<'_>,
        hits: &mut Vec<RuleHit>,
    ) {
        let Some(Compiled {
            rule,
            log,
            owners,
            parts: [looks_at_request, ..],
            ..
        }) = self.rules.get(index)
        else {
            return;
        };
        if log.is_some_and(|log| log != kind(record)) || !rule.holds(record, fields) {
            return;
        }
        let (mut confidence, mut weight) = (rule.confidence, rule.weight);
        if weight > 0 && *looks_at_request && rests_on_free_text(rule, record) {
            if confidence < Confidence::Certain && weight == confidence.weight() {
                return;
            }
            (confidence, weight) = (Confidence::Probe, 1);
        }
        hits.extend(owners.iter().map(|(filter, number)| RuleHit {
            filter: *filter,
            rule: *number,
            confidence,
            weight,
            excepts: rule.excepts,
        }));
    }

    /// Whether a rule, by its filter and number, counts distinct values, and has counted this
    /// record's for the same client, jail and period of time.
    pub(in crate::filter) fn is_repeated(
        &self,
        (filter, number): (usize, u32),
        jail: (usize, i64),
        client: IpAddr,
        record: &Record<'_>,
    ) -> bool {
        let mut distinct = self.distinct.iter();
        let Some((_, field)) = distinct.find(|(at, _)| *at == (filter, number)) else {
            return false;
        };
        let wanted = parts(*field);
        let mut scratch = Scratch::default();
        let (buffers, ..) = scratch.parts(0);
        let mut hasher = self.hasher.build_hasher();
        (jail, household(client)).hash(&mut hasher);
        Fields::of_parts(record, buffers, wanted).any(*field, |text| {
            text.hash(&mut hasher);
            true
        });
        self.saw(hasher.finish())
    }

    /// Whether a success clears the count of a client in a jail: it failed since the last time, and
    /// no success has cleared it in this period. So a client that imitates a success has twice as many
    /// tries, not any number.
    pub(in crate::filter) fn clears(&self, (jail, period): (usize, i64), client: IpAddr) -> bool {
        let failed = self.failure(jail, client);
        let known = self.slot(failed);
        let known = known.is_some_and(|known| known.swap(0, Ordering::Relaxed) == failed);
        let client = household(client);
        known && !self.saw(self.hasher.hash_one((jail, period, client)))
    }

    /// Remembers that a client failed; see [`RuleSet::clears`].
    pub(in crate::filter) fn fails(&self, jail: usize, client: IpAddr) {
        self.saw(self.failure(jail, client));
    }

    fn failure(&self, jail: usize, client: IpAddr) -> u64 {
        self.hasher.hash_one((jail, household(client)))
    }

    /// Remembers a hash; whether it was known.
    fn saw(&self, hash: u64) -> bool {
        let known = self.slot(hash);
        known.is_some_and(|known| known.swap(hash, Ordering::Relaxed) == hash)
    }

    fn slot(&self, hash: u64) -> Option<&AtomicU64> {
        let slot = usize::try_from(hash).unwrap_or(0) % MOST_SEEN;
        self.seen.get(slot)
    }
}

fn kind(record: &Record<'_>) -> Kind {
    match record.message {
        Some(_) => Kind::Error,
        None => Kind::Access,
    }
}

impl Rule {
    /// False if the status, the method or the code of the message alone rules it out.
    fn may_hold(&self, record: &Record<'_>) -> bool {
        let request = record.request.unwrap_or_default();
        let method = request.split(|byte| *byte == b' ').next();
        let is_access = record.message.is_none();
        let code = record.message.and_then(code).unwrap_or_default();
        self.conditions.iter().all(|condition| {
            let holds = match (&condition.test, condition.field, record.status) {
                (Test::Numbers(ranges), Field::Status, Some(status)) => {
                    let within = |(low, high)| (low..=high).contains(&u64::from(status));
                    ranges.iter().copied().any(within)
                }
                (Test::Text(regex), Field::Method, _) if is_access && request.contains(&b' ') => {
                    regex.is_match(method.unwrap_or_default())
                }
                (Test::Text(regex), Field::Method, _) if !is_access => regex.is_match(b""),
                (Test::Text(regex), Field::Code, _) => regex.is_match(code),
                _ => return true,
            };
            holds != condition.negated
        })
    }

    /// What a text must hold for the rule to be worth a try: the literals that tell most, else a
    /// pattern.
    fn trigger(&self) -> Trigger {
        let mut texts = (0..)
            .zip(&self.conditions)
            .filter_map(|(index, condition)| {
                let searched = condition.field.searched().filter(|_| !condition.negated)?;
                match &condition.test {
                    Test::Text(regex) => Some((index, condition.field, searched, regex.as_str())),
                    Test::Numbers(_) => None,
                }
            });
        let found = texts.clone().filter_map(|(index, field, _, pattern)| {
            let hir = pattern::syntax().build().parse(pattern).ok()?;
            Some((index, field, needed(&hir, field)?))
        });
        let rank = |(_, field, literals): &(usize, Field, Vec<Vec<u8>>)| {
            (worth(literals, *field).min(8), usize::MAX - literals.len())
        };
        if let Some((index, field, literals)) = found.max_by_key(rank) {
            return Trigger::Literals(index, field, literals);
        }
        texts
            .next()
            .map_or(Trigger::None, |(_, _, searched, pattern)| {
                Trigger::Pattern(searched, pattern.to_owned())
            })
    }
}

enum Trigger {
    /// The condition, by its index, its field and the literals.
    Literals(usize, Field, Vec<Vec<u8>>),
    Pattern(Field, String),
    /// The rule is tried on every line.
    None,
}
