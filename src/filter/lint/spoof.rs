//! Patterns whose `<HOST>` can be put where a client's text stands, with the line that proves it.

use super::automaton::{Automaton, Common};
use super::forms;
use super::language::{self, Address};
use crate::filter::{Definition, Filter, Outcome, PatternText, Subject};
use crate::record::{Kind, Parser, Record};

/// Addresses that an attacker would have banned. A pattern whose `.*` reaches up to `<HOST>` takes
/// the first digits of the first one for itself, but not of the second.
const VICTIMS: [Address; 3] = [
    Address {
        text: "198.51.100.7",
        v4: true,
    },
    Address {
        text: "8.8.8.8",
        v4: true,
    },
    Address {
        text: "2001:db8::7",
        v4: false,
    },
];

/// A line and whom it hits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attack {
    pub(super) line: String,
    pub(super) victim: &'static str,
}

/// What attackers can have Apache write; made once for many patterns.
#[derive(Debug)]
pub(super) struct Attacks {
    lines: Vec<(Kind, Automaton)>,
}

impl Attacks {
    pub(super) fn new() -> Attacks {
        let lines = [
            (Kind::Error, forms::attack(Kind::Error)),
            (Kind::Error, forms::any_module_attack()),
            (Kind::Access, forms::attack(Kind::Access)),
        ];
        let lines = lines.into_iter();
        Attacks {
            lines: lines
                .filter_map(|(kind, form)| Some((kind, form?)))
                .collect(),
        }
    }

    /// A line of one of these logs by which the attacker has another one hit, where fail2ban's rule holds: whatever
    /// stands for `<HOST>` is the client. Each is tried by the very function that matches lines of
    /// no known record.
    pub(super) fn on(
        &self,
        definition: &Definition,
        pattern: &PatternText,
        logs: &[Kind],
    ) -> Option<Attack> {
        let mut filter = None;
        for victim in VICTIMS {
            let Some(language) = language::of_lines(definition, pattern, victim) else {
                continue;
            };
            for (kind, lines) in self.lines.iter().filter(|(kind, _)| logs.contains(kind)) {
                let Common::Text(text) = language.common(lines) else {
                    continue;
                };
                let filter = filter.get_or_insert_with(|| alone(definition, pattern));
                let line = with_time(*kind, &text);
                if let Some(line) = line.filter(|line| hits(filter.as_ref(), *kind, line, victim)) {
                    let victim = victim.text;
                    return Some(Attack { line, victim });
                }
            }
        }
        None
    }
}

/// The filter with this pattern alone.
fn alone(definition: &Definition, pattern: &PatternText) -> Option<Filter> {
    let definition = Definition {
        failregex: vec![pattern.clone()],
        ..definition.clone()
    };
    Filter::compile(&definition).ok()
}

fn parser(kind: Kind) -> Option<Parser> {
    Parser::new(kind, "auto").ok()
}

/// Whether Apache names the attacker as the client of the line, and the filter the victim.
fn hits(filter: Option<&Filter>, kind: Kind, line: &str, victim: Address) -> bool {
    let parser = parser(kind);
    let record = parser.as_ref().and_then(|p| p.parse(line.as_bytes()));
    let (Some(filter), Some(record)) = (filter, record) else {
        return false;
    };
    let text = Subject::raw(line.as_bytes(), record.time.clone());
    let by_attacker = record
        .client
        .is_some_and(|c| c.text == forms::ATTACKER.as_bytes());
    by_attacker
        && matches!(filter.examine(&text), Outcome::Match { host, .. } if host.to_string() == victim.text)
}

/// The line whose text without its time this is.
fn with_time(kind: Kind, text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let time = match kind {
        Kind::Access => "22/Nov/2026:11:00:32 +0000",
        Kind::Error => "Sun Nov 22 11:00:32.366318 2026",
    };
    let parser = parser(kind)?;
    // A client may write `[]`, too.
    text.match_indices("[]").find_map(|(at, _)| {
        let line = format!("{}{time}{}", text.get(..=at)?, text.get(at + 1..)?);
        let here = |record: &Record<'_>| record.time == Some(at + 1..at + 1 + time.len());
        parser
            .parse(line.as_bytes())
            .is_some_and(|r| here(&r))
            .then_some(line)
    })
}
