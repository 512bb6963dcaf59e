//! The worker's side of the [`super::ring`]: blocks are read, progress is written.

use std::io;
use std::sync::atomic::Ordering::Release;

use super::cells;
use super::layout::{
    ARRIVED, BEATS, BOOKS, Books, DATA, Entry, Files, IN_HAND, Kind, LEN_KIND, LINES, LINES_BEFORE,
    MATCH_THREADS, PAGE_WORDS, PREPARING, PROGRESS, Preparing, Progress, RING_BYTES, START, WORDS,
    part, places,
};
use crate::control;
use crate::sys::region::{Access, Region};

/// A block as the worker finds it.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) number: u64,
    /// Offset in the stream.
    pub(super) start: u64,
    pub(super) kind: Kind,
    /// Lines of the stream before this block and blocks that found no place, and with it.
    pub(super) lines_before: u64,
    pub(super) lines: u64,
    /// Time since boot, in nanoseconds.
    pub(super) arrived: u64,
    pub(super) bytes: Vec<u8>,
}

/// The worker's side.
#[derive(Debug)]
pub(super) struct View {
    ring: Region,
    page: Region,
    /// First word of this worker's part of the page.
    pub(super) part: usize,
    capacity: usize,
}

impl View {
    /// `worker`: its number.
    pub(super) fn map(files: &Files, worker: u64) -> io::Result<View> {
        View::with_capacity(files, worker, RING_BYTES)
    }

    pub(super) fn with_capacity(files: &Files, worker: u64, capacity: usize) -> io::Result<View> {
        Ok(View {
            part: part(worker),
            // What waits to be written is behind it and is not mapped.
            ring: Region::map(&files.ring, WORDS, capacity, Access::Read)?,
            page: Region::map(&files.page, PAGE_WORDS, 0, Access::Write)?,
            capacity,
        })
    }

    fn books(&self) -> Books {
        Books::from_array(cells::read(&self.ring, BOOKS))
    }

    /// Whether a block is taken in.
    pub(super) fn has(&self, number: u64) -> bool {
        number < self.books().tail
    }

    /// A block, if it is taken in already.
    pub(super) fn block(&self, number: u64) -> Option<Block> {
        let books = self.books();
        if number >= books.tail {
            return None;
        }
        let field = |field| Entry::of(&books, number, field).load(&self.ring);
        let (kind, length) = Kind::and_length(field(LEN_KIND));
        let mut bytes = vec![0; length];
        let from = field(DATA).saturating_sub(books.first_data);
        for (at, part) in places(self.capacity, from, bytes.len()) {
            if let Some(part) = bytes.get_mut(part) {
                self.ring.get(at, part);
            }
        }
        Some(Block {
            number,
            start: field(START),
            kind,
            lines_before: field(LINES_BEFORE),
            lines: field(LINES),
            arrived: field(ARRIVED),
            bytes,
        })
    }

    pub(super) fn progress(&self) -> Progress {
        Progress::from_array(cells::read(&self.page, self.part + PROGRESS))
    }

    /// One thread at a time.
    pub(super) fn set_progress(&self, progress: Progress) {
        cells::write(&self.page, self.part + PROGRESS, progress.to_array());
    }

    /// Matching makes progress.
    pub(super) fn beat(&self) {
        self.page.add(self.part + BEATS, 1);
    }

    pub(super) fn set_preparing(&self, preparing: Preparing) {
        self.beat();
        let at = self.part + PREPARING;
        self.page.store(at, preparing as u64, Release);
    }

    /// The block that a thread matches now.
    pub(super) fn set_in_hand(&self, thread: usize, block: Option<u64>) {
        let word = self.part + IN_HAND + thread.min(MATCH_THREADS - 1);
        self.page
            .store(word, block.map_or(0, |block| block + 1), Release);
    }

    pub(super) fn counters(&self, matching: bool) -> control::Counters {
        // In this order: a line is taken in before it is matched.
        let progress = self.progress();
        let books = self.books();
        control::Counters {
            lines: books.lines,
            bytes: books.bytes,
            lines_written: books.written_lines,
            written: books.written,
            lines_lost: books.lost_lines,
            lost: books.lost,
            lines_waiting: books.waiting_lines,
            waiting: books.waiting_end - books.waiting_start,
            matched: progress.matched,
            unparsed: progress.unparsed,
            torn: progress.torn,
            shed: progress.shed,
            pending: books.lines.saturating_sub(progress.lines),
            spoofed: progress.spoofed,
            hits: progress.hits,
            unsent: progress.unsent,
            undecided: progress.undecided,
            restarts: books.workers.saturating_sub(1),
            matching,
        }
    }
}
