//! Reasons as they are found, and their order.

use jiff::Timestamp;

use super::code::Code;
use super::facts::Facts;
use crate::jail::show_net;

/// One reason, with what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Its code.
    pub code: Code,
    /// The same in words.
    pub text: String,
}

/// How much a reason matters, the most first. A reason of an earlier rank makes those of later
/// ranks not matter for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Whatever it does, it is not banned.
    Never,
    Paused,
    /// The ban does not hold.
    NotInForce,
    /// The ban holds, and the client is served all the same.
    Served,
    Banned,
    /// The line that was asked about.
    TheLine,
    Observed,
    Shared,
    /// Hits count now.
    Counting,
    /// Hits that pipeban did not get.
    NotPiped,
    /// An earlier ban has ended, and nothing came since.
    Ended,
    NoEngine,
    Dropped,
    /// Hits that do not count now.
    Past,
    /// Lines without hits, where something can be changed.
    Missed,
    /// Lines that no jail wants.
    Unmatched,
    /// Lines in a log that pipeban does not get.
    Elsewhere,
    NotSeen,
    /// What else is worth knowing.
    More,
}

/// Reasons as they are found.
pub(super) struct Found<'f> {
    pub(super) facts: &'f Facts,
    reasons: Vec<(Rank, Reason)>,
}

impl<'f> Found<'f> {
    pub(super) fn new(facts: &'f Facts) -> Found<'f> {
        Found {
            facts,
            reasons: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, rank: Rank, code: Code, text: impl Into<String>) {
        let text = text.into();
        self.reasons.push((rank, Reason { code, text }));
    }

    pub(super) fn host(&self) -> String {
        show_net(&self.facts.host)
    }

    pub(super) fn time(&self, time: Timestamp) -> String {
        let zoned = time.to_zoned(self.facts.zone.clone());
        zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The reasons, the one that matters most first, each once.
    pub(super) fn in_order(mut self) -> Vec<Reason> {
        self.reasons.sort_by_key(|(rank, _)| *rank);
        let mut reasons: Vec<Reason> = Vec::new();
        for (_, reason) in self.reasons {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        reasons
    }

    /// Whether a reason of an earlier rank than `rank` exists.
    pub(super) fn has_before(&self, rank: Rank) -> bool {
        self.reasons.iter().any(|(found, _)| *found < rank)
    }
}
