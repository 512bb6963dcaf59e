//! The layout of the memory that keeper and workers share.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::cells::{self, counters};
use crate::sys::region::Region;

/// Most bytes of one block: what is read from the pipe at once.
pub(super) const MAX_BLOCK: usize = 256 * 1024;
/// Bytes of blocks that wait to be matched or acknowledged. Memory is allocated as it is used.
pub(super) const RING_BYTES: usize = 8 * 1024 * 1024;
/// When nothing waits any more, memory beyond this is returned to the system.
pub(super) const KEPT: usize = 1024 * 1024;
/// Bytes that wait while writing is stuck; more is lost and counted.
pub(super) const MAX_UNWRITTEN: usize = 16 * 1024 * 1024;
/// Most blocks that wait.
pub(super) const BLOCKS: u64 = 8192;
/// Threads of a worker that match.
pub(super) const MATCH_THREADS: usize = 2;

/// What keeps a worker from matching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preparing {
    Nothing = 0,
    /// It compiles most patterns at its first lines.
    FirstLines = 1,
    /// The configuration, or the compiling of filters.
    Filters = 2,
}

counters! {
    /// What the keeper counts since the pipe was opened. At any moment
    /// `bytes = written + lost + (waiting_end - waiting_start)` if there is a file to write, and
    /// the same in lines. A line counts when its end, or the end of input, is read.
    Books {
        lines,
        bytes,
        /// Of `bytes`: how many have left the pipe. The rest is one block.
        consumed,
        /// 1: the next byte belongs to a line whose start is taken in already.
        midline,
        /// 1: the end of input is counted.
        ended,
        written_lines,
        written,
        lost_lines,
        lost,
        waiting_lines,
        /// Part of the buffer that waits to be written.
        waiting_start,
        waiting_end,
        /// Number of the next block.
        tail,
        /// The oldest block that is not overwritten.
        kept,
        /// Where the next block's bytes go, counted from the first byte of the first block.
        data,
        /// The block and the byte that are first in the memory. They move when nothing waits, so
        /// that a quiet log uses few pages.
        first_block,
        first_data,
        /// Lines of the blocks in the table.
        posted_lines,
        /// Workers that were started.
        workers,
    }
}

counters! {
    /// What the worker counts. `matched + unparsed + torn + shed = lines` at any moment.
    Progress {
        /// All blocks before this one are matched by the current worker.
        done,
        /// All blocks before this one are in the counters.
        counted,
        /// All blocks before this one are acknowledged by the engine, or have no hits.
        acked,
        lines,
        matched,
        unparsed,
        torn,
        shed,
        spoofed,
        hits,
        unsent,
        undecided,
    }
}

// Words of the keeper's file.
pub(super) const STREAM: usize = 0;
pub(super) const BOOKS: usize = 1;
pub(super) const TABLE: usize = BOOKS + cells::words(Books::LEN);
pub(super) const ENTRY: usize = 6;
pub(super) const WORDS: usize = TABLE + ENTRY * BLOCKS as usize;
// Words of an entry of the table.
pub(super) const START: usize = 0;
pub(super) const DATA: usize = 1;
/// See [`Kind::with_length`].
pub(super) const LEN_KIND: usize = 2;
pub(super) const LINES_BEFORE: usize = 3;
pub(super) const LINES: usize = 4;
pub(super) const ARRIVED: usize = 5;

// Words of a worker's part of the workers' file.
pub(super) const PROGRESS: usize = 0;
pub(super) const BEATS: usize = cells::words(Progress::LEN);
pub(super) const PREPARING: usize = BEATS + 1;
pub(super) const IN_HAND: usize = PREPARING + 1;
pub(super) const PART_WORDS: usize = IN_HAND + MATCH_THREADS;
/// Workers that follow each other have different parts: one that outlives its keeper for a moment
/// disturbs nothing.
pub(super) const PARTS: u64 = 16;
pub(super) const PAGE_WORDS: usize = PART_WORDS * PARTS as usize;

pub(super) fn part(worker: u64) -> usize {
    (worker % PARTS) as usize * PART_WORDS
}

/// What a block is to the worker. Only `Lines` and `Beginning` have bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Kind {
    /// Whole lines, to be matched.
    Lines = 0,
    /// The ring was full.
    Shed = 1,
    /// The end of a line that is too long.
    Torn = 2,
    /// Two workers crashed on it.
    Skip = 3,
    /// The beginning of a line that is too long. [`Kind::Torn`] follows, with the line's end.
    Beginning = 4,
}

impl Kind {
    /// For [`LEN_KIND`].
    pub(super) fn with_length(self, len: usize) -> u64 {
        len as u64 * 8 + self as u64
    }

    /// The reverse of [`Kind::with_length`].
    pub(super) fn and_length(word: u64) -> (Kind, usize) {
        let kind = match word % 8 {
            0 => Kind::Lines,
            1 => Kind::Shed,
            2 => Kind::Torn,
            4 => Kind::Beginning,
            _ => Kind::Skip,
        };
        (kind, usize::try_from(word / 8).unwrap_or(0))
    }
}

/// What a worker needs to map the memory.
#[derive(Debug)]
pub(super) struct Files {
    /// The keeper's file, for reading.
    pub(super) ring: OwnedFd,
    /// The workers' file.
    pub(super) page: OwnedFd,
}

impl Files {
    pub(super) fn try_clone(&self) -> io::Result<Files> {
        Ok(Files {
            ring: self.ring.try_clone()?,
            page: self.page.try_clone()?,
        })
    }
}

/// A word of the table.
pub(super) struct Entry(usize);

impl Entry {
    pub(super) fn of(books: &Books, number: u64, field: usize) -> Entry {
        let slot = (number.wrapping_sub(books.first_block) % BLOCKS) as usize;
        Entry(TABLE + slot * ENTRY + field)
    }

    pub(super) fn load(&self, region: &Region) -> u64 {
        region.load(self.0, Acquire)
    }

    pub(super) fn store(&self, region: &Region, value: u64) {
        region.store(self.0, value, Release);
    }
}

pub(super) fn places(
    capacity: usize,
    from: u64,
    len: usize,
) -> [(usize, std::ops::Range<usize>); 2] {
    let at = (from % capacity as u64) as usize;
    let first = len.min(capacity - at);
    [(at, 0..first), (0, first..len)]
}

/// Lines, with a last one that has no newline.
pub(super) fn lines_in(bytes: &[u8]) -> u64 {
    let unended = !bytes.is_empty() && !bytes.ends_with(b"\n");
    memchr::memchr_iter(b'\n', bytes).count() as u64 + u64::from(unended)
}
