//! The texts that a filter's pattern hits somebody for, as one structure: its prefix and itself,
//! with one address in place of `<HOST>`.

use regex_syntax::hir::{Capture, Dot, Hir, HirKind, Look, Repetition};

use super::automaton::Automaton;
use crate::filter::regexes::coarse_syntax;
use crate::filter::translate::{Host, translate};
use crate::filter::{Definition, PatternText};

/// One client's address, as Apache writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) text: &'static str,
    pub(super) v4: bool,
}

impl Address {
    pub(super) fn host(self) -> Host<'static> {
        let (text, v4) = (self.text, self.v4);
        Host::Exact { text, v4 }
    }
}

/// The texts that the pattern matches for this address, what the prefix leaves of a line being all
/// of them. Looks around and back are left out, so it may be more texts than the pattern matches.
pub(super) fn of_content(pattern: &PatternText, address: Address) -> Option<Automaton> {
    Automaton::new(&syntax(pattern, address)?)
}

/// The same for whole lines (without their time).
pub(super) fn of_lines(
    definition: &Definition,
    pattern: &PatternText,
    address: Address,
) -> Option<Automaton> {
    let own = syntax(pattern, address)?;
    let Some(prefix) = &definition.prefregex else {
        return Automaton::new(&own);
    };
    let (prefix, content) = (syntax(prefix, address)?, inside(&own));
    match with_content(&prefix, &content) {
        Some(whole) => Automaton::new(&whole),
        // Both see the whole line; that one of them matches is what can be said.
        None if translate(&pattern.text, address.host()).1 > 0 => Automaton::new(&own),
        None => Automaton::new(&prefix),
    }
}

fn syntax(pattern: &PatternText, address: Address) -> Option<Hir> {
    coarse_syntax(&translate(&pattern.text, address.host()).0)
}

/// The prefix with this for its `<F-CONTENT>`; `None` where it has none.
fn with_content(prefix: &Hir, content: &Hir) -> Option<Hir> {
    match prefix.kind() {
        HirKind::Capture(Capture {
            name: Some(name), ..
        }) if &**name == "content" => Some(content.clone()),
        HirKind::Capture(capture) => with_content(&capture.sub, content),
        HirKind::Repetition(repetition) => {
            let sub = Box::new(with_content(&repetition.sub, content)?);
            Some(Hir::repetition(Repetition {
                sub,
                ..repetition.clone()
            }))
        }
        HirKind::Concat(parts) => replaced(parts, content).map(Hir::concat),
        HirKind::Alternation(parts) => replaced(parts, content).map(Hir::alternation),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => None,
    }
}

fn replaced(parts: &[Hir], content: &Hir) -> Option<Vec<Hir>> {
    let changed: Vec<_> = parts.iter().map(|p| with_content(p, content)).collect();
    changed.iter().any(Option::is_some).then(|| {
        let whole = changed.into_iter().zip(parts);
        whole
            .map(|(new, old)| new.unwrap_or_else(|| old.clone()))
            .collect()
    })
}

/// A pattern that is searched in a text, as one for the whole text that may have others around it.
fn inside(pattern: &Hir) -> Hir {
    match pattern.kind() {
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(inside).collect()),
        HirKind::Capture(capture) => inside(&capture.sub),
        HirKind::Concat(parts) => {
            let begins = parts.first().is_some_and(|part| is_look(part, Look::Start));
            let ends = parts.last().is_some_and(|part| is_look(part, Look::End));
            let front = (!begins).then(anything);
            let back = (!ends).then(anything);
            let parts = parts.iter().map(without_ends);
            Hir::concat(front.into_iter().chain(parts).chain(back).collect())
        }
        _ => Hir::concat(vec![anything(), without_ends(pattern), anything()]),
    }
}

fn is_look(part: &Hir, look: Look) -> bool {
    matches!(part.kind(), HirKind::Look(found) if *found == look)
}

fn anything() -> Hir {
    Hir::repetition(Repetition {
        min: 0,
        max: None,
        greedy: true,
        sub: Box::new(Hir::dot(Dot::AnyByte)),
    })
}

/// Without the looks for the ends of the text, which are others in a longer text: more texts match.
fn without_ends(pattern: &Hir) -> Hir {
    let all = |parts: &[Hir]| parts.iter().map(without_ends).collect::<Vec<_>>();
    match pattern.kind() {
        HirKind::Look(
            Look::Start | Look::End | Look::StartLF | Look::EndLF | Look::StartCRLF | Look::EndCRLF,
        ) => Hir::empty(),
        HirKind::Capture(capture) => without_ends(&capture.sub),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            sub: Box::new(without_ends(&repetition.sub)),
            ..repetition.clone()
        }),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => {
            pattern.clone()
        }
    }
}
