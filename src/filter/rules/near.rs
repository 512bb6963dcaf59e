//! Which conditions of native rules a record satisfies: for people.

use super::fields::Fields;
use super::rule::{Condition, Test};
use super::scratch::Scratch;
use super::set::RuleSet;
use crate::record::Record;

/// How far a record satisfies the conditions of one `[[match]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleNear {
    /// Number of the rule in its filter, from 1.
    pub rule: u32,
    /// The fields whose conditions hold.
    pub held: Vec<&'static str>,
    /// The conditions that do not hold.
    pub failed: Vec<Unmet>,
}

/// A condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// The field, with `not` before it in a `not` table.
    pub field: String,
    /// What the condition wants: a pattern, or ranges of numbers.
    pub wanted: String,
    /// The field in canonical form; `None`: the record has none.
    pub found: Option<Vec<u8>>,
}

impl RuleSet {
    /// How far a record satisfies each rule of a filter, the nearest first.
    pub fn near(&self, filter: usize, record: &Record<'_>) -> Vec<RuleNear> {
        let mut scratch = Scratch::default();
        let (buffers, ..) = scratch.parts(0);
        let fields = Fields::of(record, buffers);
        let mut all: Vec<RuleNear> = self
            .of_filter(filter)
            .map(|(number, rule)| {
                let (held, failed): (Vec<_>, Vec<_>) =
                    rule.conditions.iter().partition(|c| c.holds(rule, &fields));
                RuleNear {
                    rule: number,
                    held: held
                        .iter()
                        .map(|condition| condition.field.name())
                        .collect(),
                    failed: failed.iter().map(|c| c.unmet(&fields)).collect(),
                }
            })
            .collect();
        all.sort_by_key(|near| near.failed.len());
        all
    }
}

impl Condition {
    fn unmet(&self, fields: &Fields<'_>) -> Unmet {
        let not = if self.negated { "not " } else { "" };
        let wanted = match &self.test {
            Test::Text(regex) => regex.as_str().to_owned(),
            Test::Numbers(ranges) => ranges
                .iter()
                .map(|range| match *range {
                    (low, high) if low == high => low.to_string(),
                    (low, u64::MAX) => format!("{low}-"),
                    (low, high) => format!("{low}-{high}"),
                })
                .collect::<Vec<_>>()
                .join(", "),
        };
        let mut found = None;
        match &self.test {
            Test::Text(_) => {
                fields.any(self.field, |text| {
                    found = Some(text.to_vec());
                    true
                });
            }
            Test::Numbers(_) => {
                found = fields
                    .number(self.field)
                    .map(|n| n.to_string().into_bytes());
            }
        }
        Unmet {
            field: format!("{not}{}", self.field.name()),
            wanted,
            found,
        }
    }
}
