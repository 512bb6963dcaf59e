//! The parts of a record that are searched, each as one.

use super::rule::{Family, Field, Rule};
use crate::record::Record;

/// What of a record is searched together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) families: &'static [Family],
    /// All that the families' texts are made of.
    pub(super) text: [&'a [u8]; 2],
}

/// Parts of a record.
pub(super) const PARTS: usize = 4;

/// The families of each part.
const FAMILIES: [&[Family]; PARTS] = [
    &[Family::Target, Family::Message],
    &[Family::Referer],
    &[Family::Agent, Family::Behind],
    &[Family::User],
];

impl<'a> Part<'a> {
    pub(super) fn of(record: &Record<'a>) -> [Part<'a>; PARTS] {
        let part = |families, texts: [Option<&'a [u8]>; 2]| Part {
            families,
            text: texts.map(Option::unwrap_or_default),
        };
        let message = record.message;
        let [target, referer, agent, user] = FAMILIES;
        [
            part(target, [message, record.request]),
            part(referer, [message, record.referer]),
            part(agent, [None, record.agent]),
            part(user, [None, record.user]),
        ]
    }
}

/// The parts whose texts a field needs.
pub(super) fn parts(field: Field) -> [bool; PARTS] {
    let families = match field {
        Field::Method | Field::Protocol => &[Family::Target],
        _ => field.families(),
    };
    FAMILIES.map(|of_part| of_part.iter().any(|family| families.contains(family)))
}

impl Rule {
    /// The parts whose texts its conditions need.
    pub(super) fn parts(&self) -> [bool; PARTS] {
        let mut all = [false; PARTS];
        for condition in &self.conditions {
            let parts = all.iter_mut().zip(parts(condition.field));
            parts.for_each(|(all, part)| *all |= part);
        }
        all
    }
}
