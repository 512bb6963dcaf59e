//! The result of one line whose candidates are known.

use super::candidates::Candidates;
use super::trust::quotes_a_client;
use super::{Entry, InputKind, LineResult, Matcher, RuleEntry, raw};
use crate::filter::compile::Outcome;
use crate::filter::rules;
use crate::filter::subject::Views;
use crate::record::{Kind, Parser, Record};

impl Matcher {
    pub(super) fn line<'l>(
        &self,
        line: &'l [u8],
        candidates: &mut Candidates<'_>,
    ) -> LineResult<'l> {
        let (kind, parser) = match &self.input {
            InputKind::Apache(kind, parser) => (*kind, parser),
            InputKind::Raw => {
                let subject = raw(line);
                let examine = |filter: &Entry| {
                    let may_match = |at| candidates.pattern(filter.first + at);
                    filter.filter.examine_some(&subject, may_match)
                };
                return LineResult {
                    outcomes: self.outcomes(candidates, |_| true, examine),
                    ..LineResult::default()
                };
            }
        };
        let error = kind == Kind::Error;
        let Some(record) = parser.parse(line) else {
            if error {
                self.trust.saw_foreign(line);
            }
            return LineResult {
                unparsed: true,
                ..LineResult::default()
            };
        };
        let views = Views::of(line, &record);
        if !error && !holds_rendered(parser, &record) {
            self.add_rendered(&views, candidates);
        }
        let mut result = LineResult {
            torn: error && !self.trust.believes(line, &record),
            outcomes: self.of_record(&views, &record, candidates),
            ..LineResult::default()
        };
        if error && !result.torn && result.matches() {
            self.check_words(line, &record, parser, &mut result, candidates);
        }
        result.record = Some(record);
        result
    }

    /// The result of a record of the access log whose line may be cut.
    pub(super) fn access_record<'l>(
        &self,
        line: &'l [u8],
        record: Record<'l>,
        candidates: &mut Candidates<'_>,
    ) -> LineResult<'l> {
        let views = Views::of(line, &record);
        self.add_rendered(&views, candidates);
        LineResult {
            outcomes: self.of_record(&views, &record, candidates),
            record: Some(record),
            ..LineResult::default()
        }
    }

    /// Checks that an error line matches by Apache's words for this client, not by the words of a
    /// script that mod_cgi quotes and that imitate a client field, and not by another line.
    fn check_words(
        &self,
        line: &[u8],
        record: &Record<'_>,
        parser: &Parser,
        result: &mut LineResult<'_>,
        candidates: &Candidates<'_>,
    ) {
        if quotes_a_client(line, record, parser) {
            result.torn = true;
        } else if let Some(at) = self.trust.neighbour(line, parser) {
            let own = line.get(..at).unwrap_or_default();
            let outcomes = parser
                .parse(own)
                .map(|record| self.of_record(&Views::of(own, &record), &record, candidates));
            let alone = LineResult {
                outcomes: outcomes.unwrap_or_default(),
                ..LineResult::default()
            };
            match alone.matches() {
                true => result.outcomes = alone.outcomes,
                false => result.torn = true,
            }
        }
    }

    /// Adds the patterns whose literals are only in the rendered record.
    fn add_rendered(&self, views: &Views<'_, '_>, candidates: &mut Candidates<'_>) {
        // Without literals no pattern needs the rendered record.
        if self.search.is_some()
            && let Some(rendered) = views.rendered()
        {
            self.add_all(rendered.vhost_combined().0, candidates);
        }
    }

    fn of_record(
        &self,
        views: &Views<'_, '_>,
        record: &Record<'_>,
        candidates: &Candidates<'_>,
    ) -> Vec<(usize, Outcome)> {
        let mut outcomes = self.of_native(record, candidates);
        if candidates.any() {
            let wants = |rule: &RuleEntry| rule.wants(record);
            let examine = |filter: &Entry| {
                let may_match = |at| candidates.pattern(filter.first + at);
                filter.filter.examine_views(views, may_match)
            };
            outcomes.extend(self.outcomes(candidates, wants, examine));
            outcomes.sort_by_key(|(rule, _)| *rule);
        }
        if !outcomes.is_empty() && !self.excepts.is_empty() {
            for hit in self
                .excepts
                .evaluate(record, &mut candidates.excepts.borrow_mut())
            {
                let of_jail = outcomes.iter_mut().filter(|(rule, _)| *rule == hit.filter);
                of_jail.for_each(|(_, outcome)| *outcome = Outcome::Excepted(hit.rule));
            }
        }
        outcomes
    }

    /// The outcomes of rules with native filters.
    fn of_native(&self, record: &Record<'_>, candidates: &Candidates<'_>) -> Vec<(usize, Outcome)> {
        if self.native.is_empty() {
            return Vec::new();
        }
        let mut scratch = candidates.native.borrow_mut();
        let hits = self.native.evaluate(record, &mut scratch);
        if hits.is_empty() {
            return Vec::new();
        }
        let wanted = (0..)
            .zip(&self.rules)
            .filter(|(_, rule)| rule.wants(record));
        wanted
            .map(|(index, rule)| (index, rules::outcome(&hits, rule.filter, record)))
            .filter(|(_, outcome)| *outcome != Outcome::Miss)
            .collect()
    }

    fn outcomes(
        &self,
        candidates: &Candidates<'_>,
        wants: impl Fn(&RuleEntry) -> bool,
        examine: impl Fn(&Entry) -> Outcome,
    ) -> Vec<(usize, Outcome)> {
        let mut outcomes = Vec::new();
        let mut of_filters: Vec<Option<Outcome>> = vec![None; self.filters.len()];
        for (index, rule) in self.rules.iter().enumerate() {
            let (Some(entry), Some(known)) = (
                self.filters.get(rule.filter),
                of_filters.get_mut(rule.filter),
            ) else {
                continue;
            };
            if !candidates.filter(rule.filter) || !wants(rule) {
                continue;
            }
            let outcome = *known.get_or_insert_with(|| {
                let line = candidates.line();
                self.costs.of(rule.filter, line, || examine(entry))
            });
            if outcome != Outcome::Miss {
                outcomes.push((index, outcome));
            }
        }
        outcomes
    }
}

/// Whether the search for literals in the line finds those of the rendered record, too.
fn holds_rendered(parser: &Parser, record: &Record<'_>) -> bool {
    // Between the client and the user's name is the peer.
    let client = record.client.map(|client| client.addr);
    parser.holds_rendered() && record.peer.is_none_or(|peer| Some(peer) == client)
}
