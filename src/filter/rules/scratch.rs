//! What is kept from line to line: buffers, marks, and which texts are harmless.

use std::hash::{BuildHasher, RandomState};

use super::rule::Family;
use crate::decode::Buffer;
use crate::record::Record;

/// Buffers and marks, to be used again for the next line.
#[derive(Debug, Default)]
pub struct Scratch {
    buffers: Buffers,
    candidates: Candidates,
    triggered: Candidates,
    harmless: Harmless,
    quiet: Vec<Begin>,
}

/// What the rules without literals see first: whether it is an access line, its status and its
/// method.
pub(super) type Begin = (bool, Option<u16>, Vec<u8>);

/// [`Begin`]s remembered at most. Longer methods are not.
const MOST_QUIET: usize = 16;
const LONGEST_METHOD: usize = 16;

impl Scratch {
    /// Whether none of the rules without literals may hold for such a record; if that is not known,
    /// `holds` says whether one may.
    pub(super) fn is_quiet(&mut self, record: &Record<'_>, holds: impl FnOnce() -> bool) -> bool {
        let request = record.request.unwrap_or_default();
        let method = memchr::memchr(b' ', request).and_then(|at| request.get(..at));
        let begin = (record.message.is_none(), record.status, method);
        let is =
            |(access, status, method): &Begin| (*access, *status, Some(method.as_slice())) == begin;
        if self.quiet.iter().any(is) {
            return true;
        }
        let quiet = !holds();
        if let Some(method) = method.filter(|method| quiet && method.len() <= LONGEST_METHOD) {
            self.quiet.truncate(MOST_QUIET - 1);
            self.quiet.insert(0, (begin.0, begin.1, method.to_vec()));
        }
        quiet
    }

    pub(super) fn parts(
        &mut self,
        rules: usize,
    ) -> (
        &mut Buffers,
        &mut Candidates,
        &mut Candidates,
        &mut Harmless,
    ) {
        self.candidates.marked.resize(rules, false);
        self.triggered.marked.resize(rules, false);
        (
            &mut self.buffers,
            &mut self.candidates,
            &mut self.triggered,
            &mut self.harmless,
        )
    }
}

/// What of a record is searched together, and remembered when no rule can hit it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) families: &'static [Family],
    /// All that the families' texts are made of.
    pub(super) text: (u8, [&'a [u8]; 4]),
}

impl<'a> Part<'a> {
    pub(super) fn of(record: &Record<'a>) -> [Part<'a>; 2] {
        let all = |field: Option<&'a [u8]>| field.unwrap_or_default();
        let [referer, agent, user] = [record.referer, record.agent, record.user].map(all);
        let (first, message) = match record.message {
            Some(message) => (2, message),
            None => (0, &[][..]),
        };
        [
            Part {
                families: &[Family::Target, Family::Message],
                text: (first, [message, all(record.request), &[], &[]]),
            },
            Part {
                families: &[Family::Referer, Family::Agent, Family::Behind, Family::User],
                text: (first + 1, [message, referer, agent, user]),
            },
        ]
    }
}

/// Texts that no rule can hit, by a hash whose key no client knows. A newer one replaces an older.
#[derive(Debug)]
pub(super) struct Harmless {
    hasher: RandomState,
    hashes: Vec<u64>,
}

/// Harmless texts remembered at most.
const MOST_HARMLESS: usize = 1 << 14;

impl Default for Harmless {
    fn default() -> Harmless {
        Harmless {
            hasher: RandomState::new(),
            hashes: Vec::new(),
        }
    }
}

impl Harmless {
    pub(super) fn contains(&self, text: (u8, [&[u8]; 4])) -> bool {
        let hash = self.hasher.hash_one(text);
        self.hashes.get(place(hash)) == Some(&hash)
    }

    pub(super) fn insert(&mut self, text: (u8, [&[u8]; 4])) {
        let hash = self.hasher.hash_one(text);
        self.hashes.resize(MOST_HARMLESS, 0);
        if let Some(known) = self.hashes.get_mut(place(hash)) {
            *known = hash;
        }
    }
}

fn place(hash: u64) -> usize {
    usize::try_from(hash).unwrap_or(0) % MOST_HARMLESS
}

#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) texts: [Buffer; 5],
    pub(super) shells: [Buffer; 3],
    pub(super) path: Buffer,
    pub(super) target: Vec<u8>,
}

/// Rules that a line may hit, each once.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    marked: Vec<bool>,
    found: Vec<usize>,
}

impl Candidates {
    pub(super) fn extend(&mut self, rules: &[usize]) {
        for rule in rules {
            if let Some(marked) = self.marked.get_mut(*rule)
                && !std::mem::replace(marked, true)
            {
                self.found.push(*rule);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All of them, in order; none is left.
    pub(super) fn take(&mut self) -> Vec<usize> {
        let mut found = std::mem::take(&mut self.found);
        for rule in &found {
            if let Some(marked) = self.marked.get_mut(*rule) {
                *marked = false;
            }
        }
        found.sort_unstable();
        found
    }
}
