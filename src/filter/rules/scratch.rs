//! What is kept from line to line: buffers, marks, and the rules that texts may hit.

use super::fields::code;
use super::part::PARTS;
use crate::decode::{Buffer, ReadingBuffers};
use crate::filter::texthash::text_hash;
use crate::record::Record;

/// Buffers and marks, to be used again for the next line.
#[derive(Debug, Default)]
pub struct Scratch {
    buffers: Buffers,
    candidates: Candidates,
    triggered: Candidates,
    known: [Known; PARTS],
    quiet: Vec<Begin>,
}

/// What the rules without literals see first: whether it is an access line, its status, and its
/// method or the code of its message.
pub(super) type Begin = (bool, Option<u16>, Vec<u8>);

/// [`Begin`]s remembered at most. Longer methods are not.
const MOST_QUIET: usize = 16;
const LONGEST_METHOD: usize = 16;

impl Scratch {
    /// Whether none of the rules without literals may hold for such a record; if that is not known,
    /// `holds` says whether one may.
    pub(super) fn is_quiet(&mut self, record: &Record<'_>, holds: impl FnOnce() -> bool) -> bool {
        let request = record.request.unwrap_or_default();
        let method = || memchr::memchr(b' ', request).and_then(|at| request.get(..at));
        let word = match record.message {
            Some(message) => Some(code(message).unwrap_or_default()),
            None => method(),
        };
        let begin = (record.message.is_none(), record.status, word);
        let is =
            |(access, status, word): &Begin| (*access, *status, Some(word.as_slice())) == begin;
        if self.quiet.iter().any(is) {
            return true;
        }
        let quiet = !holds();
        if let Some(word) = word.filter(|word| quiet && word.len() <= LONGEST_METHOD) {
            self.quiet.truncate(MOST_QUIET - 1);
            self.quiet.insert(0, (begin.0, begin.1, word.to_vec()));
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
        &mut [Known; PARTS],
    ) {
        self.candidates.marked.resize(rules, false);
        self.triggered.marked.resize(rules, false);
        (
            &mut self.buffers,
            &mut self.candidates,
            &mut self.triggered,
            &mut self.known,
        )
    }
}

/// The rules that texts may hit. A newer text replaces an older one.
#[derive(Debug, Default)]
pub(super) struct Known {
    texts: Vec<KnownText>,
}

#[derive(Debug, Clone, Default)]
struct KnownText {
    /// Of the text, which is elsewhere in memory.
    hash: u64,
    text: Vec<u8>,
    /// Length of the first of two.
    first: usize,
    /// `None`: no text is here.
    rules: Option<Vec<usize>>,
}

/// Texts of a part remembered at most. Longer texts are not, nor those that hit more rules.
const MOST_KNOWN: usize = 1 << 11;
const LONGEST_KNOWN: usize = 256;
const MOST_RULES: usize = 32;

impl Known {
    pub(super) fn get(&self, texts: [&[u8]; 2]) -> Option<&[usize]> {
        let hash = hash(texts);
        let known = self.texts.get(place(hash))?;
        let rules = known.rules.as_deref().filter(|_| known.hash == hash)?;
        let [first, second] = texts;
        let lengths = (known.first, known.text.len()) == (first.len(), first.len() + second.len());
        let is = |text: &[u8], part: &[u8]| part.is_empty() || text == part;
        let (begin, end) = known.text.split_at_checked(known.first)?;
        (lengths && is(begin, first) && is(end, second)).then_some(rules)
    }

    pub(super) fn insert(&mut self, texts: [&[u8]; 2], rules: &[usize]) {
        let [first, second] = texts;
        if first.len() + second.len() > LONGEST_KNOWN || rules.len() > MOST_RULES {
            return;
        }
        self.texts.resize_with(MOST_KNOWN, KnownText::default);
        let hash = hash(texts);
        if let Some(known) = self.texts.get_mut(place(hash)) {
            known.hash = hash;
            known.text.clear();
            known.text.extend_from_slice(first);
            known.text.extend_from_slice(second);
            known.first = first.len();
            known.rules = Some(rules.to_vec());
        }
    }
}

fn hash([first, second]: [&[u8]; 2]) -> u64 {
    match first {
        [] => text_hash(second),
        _ => text_hash(first).rotate_left(1) ^ text_hash(second),
    }
}

fn place(hash: u64) -> usize {
    usize::try_from(hash).unwrap_or(0) % MOST_KNOWN
}

#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) readings: [ReadingBuffers; 4],
    pub(super) message: Buffer,
    pub(super) path: Buffer,
    pub(super) served: Vec<u8>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::texthash::FACTOR;

    #[test]
    fn texts_with_the_same_hash_are_not_mistaken_for_each_other() {
        let begun = |word: u64| (32_u64.rotate_left(23) ^ word).wrapping_mul(FACTOR);
        let (harmless, attack) = (1, 2);
        let end = begun(harmless).rotate_left(23) ^ begun(attack).rotate_left(23);
        let text = |words: [u64; 4]| words.map(u64::to_le_bytes).concat();
        let (harmless, attack) = (text([harmless, 0, 0, 0]), text([attack, 0, end, 0]));
        assert_eq!(text_hash(&harmless), text_hash(&attack));
        let mut known = Known::default();
        known.insert([b"", &harmless], &[]);
        assert_eq!(known.get([b"", &harmless]), Some(&[][..]));
        assert_eq!(known.get([b"", &attack]), None);
        // Where the first text ends counts, too.
        known.insert([b"", b"\0"], &[3]);
        assert_eq!(known.get([b"\0", b""]), None);
        known.insert([b"", &attack], &[7]);
        assert_eq!(known.get([b"", &attack]), Some(&[7][..]));
        assert_eq!(known.get([b"", &harmless]), None);
    }
}
