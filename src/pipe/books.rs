//! What must agree at any moment, also when a worker is killed between two steps: what came in,
//! where it went, how far it got.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Words of memory that [`read`] and [`write`] need.
pub(super) const WORDS: usize = 1 + 2 * ENTRIES;
const ENTRIES: usize = 22;

/// All of it, in lines and bytes since the pipe was opened. At any moment
///
/// - `bytes = written + lost + (waiting_end - waiting_start)`, where there is a file to write, and
///   the same in lines;
/// - `lines = matched + unparsed + torn + shed + pending`.
///
/// A line counts where its end goes: the newline, or the end of input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Books {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    pub(super) written_lines: u64,
    pub(super) written: u64,
    pub(super) lost_lines: u64,
    pub(super) lost: u64,
    pub(super) waiting_lines: u64,
    /// Of the bytes that wait to be written, since none did last: how many are written.
    pub(super) waiting_start: u64,
    /// How many there are.
    pub(super) waiting_end: u64,
    pub(super) matched: u64,
    pub(super) unparsed: u64,
    pub(super) torn: u64,
    pub(super) shed: u64,
    pub(super) pending: u64,
    pub(super) spoofed: u64,
    pub(super) hits: u64,
    pub(super) unsent: u64,
    /// 1: the end of input has been counted.
    pub(super) ended: u64,
    /// The last step of a block that belongs to a change: see [`super::ring::Ring::change`].
    pub(super) step_number: u64,
    pub(super) step_start: u64,
    pub(super) step_from: u64,
    pub(super) step_to: u64,
}

impl Books {
    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting_end.saturating_sub(self.waiting_start)
    }

    fn entries(&mut self) -> [&mut u64; ENTRIES] {
        let Books {
            lines,
            bytes,
            written_lines,
            written,
            lost_lines,
            lost,
            waiting_lines,
            waiting_start,
            waiting_end,
            matched,
            unparsed,
            torn,
            shed,
            pending,
            spoofed,
            hits,
            unsent,
            ended,
            step_number,
            step_start,
            step_from,
            step_to,
        } = self;
        [
            lines,
            bytes,
            written_lines,
            written,
            lost_lines,
            lost,
            waiting_lines,
            waiting_start,
            waiting_end,
            matched,
            unparsed,
            torn,
            shed,
            pending,
            spoofed,
            hits,
            unsent,
            ended,
            step_number,
            step_start,
            step_from,
            step_to,
        ]
    }
}

/// The books as they hold now. `word` gives the words of memory, from 0 to [`WORDS`].
pub(super) fn read<'w>(word: impl Fn(usize) -> &'w AtomicU64) -> Books {
    let copy = word(0).load(Acquire) % 2;
    let mut books = Books::default();
    for (at, entry) in (first(copy)..).zip(books.entries()) {
        *entry = word(at).load(Relaxed);
    }
    books
}

/// Replaces them. Two copies are kept, and the last store says which one holds: whoever is killed
/// before it has changed nothing. One at a time.
pub(super) fn write<'w>(word: impl Fn(usize) -> &'w AtomicU64, mut books: Books) {
    let other = (word(0).load(Acquire) + 1) % 2;
    for (at, entry) in (first(other)..).zip(books.entries()) {
        word(at).store(*entry, Relaxed);
    }
    word(0).store(other, Release);
}

fn first(copy: u64) -> usize {
    if copy == 0 { 1 } else { 1 + ENTRIES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_effect_with_its_last_store_and_all_at_once() {
        let memory: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        let mut books = Books::default();
        for (n, entry) in books.entries().into_iter().enumerate() {
            *entry = n as u64 + 1;
        }
        let stop_at = |limit: usize| {
            let stores = std::cell::Cell::new(0);
            let thrown = AtomicU64::new(0);
            // A kill: stores from some point on never happen. The first call reads.
            let word = |at: usize| {
                stores.set(stores.get() + 1);
                if stores.get() > limit {
                    // Its own memory, as far as anybody else is concerned.
                    Box::leak(Box::new(AtomicU64::new(thrown.load(Relaxed))))
                } else {
                    &memory[at]
                }
            };
            write(word, books);
            read(|at| &memory[at])
        };
        for limit in 1..=1 + ENTRIES {
            assert_eq!(stop_at(limit), Books::default(), "{limit}");
        }
        assert_eq!(stop_at(2 + ENTRIES), books);
    }
}
