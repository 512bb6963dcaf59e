//! The memory of one log, which outlives keepers and workers: the stub makes it.
//!
//! Two files; see [`super::layout`]. The first is the keeper's, and workers can only read it: the counters of the stream
//! ([`Books`]), a table of blocks, the bytes of the blocks, and the bytes that are not yet written.
//! The second is the workers' [`Progress`]; the keeper bounds what it reads there.
//!
//! A block is numbered when it is taken in. The worker frees blocks in order: a block that is
//! matched can be overwritten when its place is needed, and is kept as long as possible, because
//! the next worker matches it again if its hits are not acknowledged.

use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError};

use super::cells;
use super::layout::{
    ARRIVED, BEATS, BLOCKS, BOOKS, Books, DATA, Entry, Files, IN_HAND, KEPT, Kind, LEN_KIND, LINES,
    LINES_BEFORE, MATCH_THREADS, MAX_UNWRITTEN, PAGE_WORDS, PREPARING, PROGRESS, Preparing,
    Progress, RING_BYTES, START, STREAM, WORDS, lines_in, part, places,
};
use crate::sys::region::{self, Access, Region};

/// The keeper's side. Clones share the memory; the threads of one keeper share the lock too.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    ours: Arc<Region>,
    page: Arc<Region>,
    capacity: usize,
    changing: Arc<Mutex<()>>,
}

impl Ring {
    /// The memory of the stream of that name, empty.
    pub(super) fn new(stream: u64) -> io::Result<(Ring, Files)> {
        Ring::with_capacity(stream, RING_BYTES)
    }

    fn with_capacity(stream: u64, capacity: usize) -> io::Result<(Ring, Files)> {
        let file = region::create(WORDS, capacity + MAX_UNWRITTEN)?;
        let ours = Region::map(&file, WORDS, capacity + MAX_UNWRITTEN, Access::Write)?;
        let page = region::create(PAGE_WORDS, 0)?;
        let files = Files {
            // Without /proc a worker could change the memory; lines are passed all the same.
            ring: region::read_only(&file).or_else(|_| file.try_clone())?,
            page,
        };
        let ring = Ring {
            ours: Arc::new(ours),
            page: Arc::new(Region::map(&files.page, PAGE_WORDS, 0, Access::Write)?),
            capacity,
            changing: Arc::default(),
        };
        ring.ours.store(STREAM, stream, Relaxed);
        Ok((ring, files))
    }

    /// The stream's name.
    pub(super) fn stream(&self) -> u64 {
        self.ours.load(STREAM, Relaxed)
    }

    pub(super) fn books(&self) -> Books {
        Books::from_array(cells::read(&self.ours, BOOKS))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut books = self.books();
        let result = change(&mut books);
        cells::write(&self.ours, BOOKS, books.to_array());
        result
    }

    /// The worker's progress, with numbers of blocks that exist.
    fn progress(&self, books: &Books) -> Progress {
        let at = part(books.workers) + PROGRESS;
        let mut progress = Progress::from_array(cells::read(&self.page, at));
        for block in [
            &mut progress.done,
            &mut progress.counted,
            &mut progress.acked,
        ] {
            *block = (*block).clamp(books.kept, books.tail);
        }
        progress
    }

    /// Whether bytes of a whole block can be put into the ring. Matched blocks make room.
    pub(super) fn has_room(&self, len: usize) -> bool {
        let mut books = self.books();
        self.make_room(&mut books, len)
    }

    fn make_room(&self, books: &mut Books, len: usize) -> bool {
        let progress = self.progress(books);
        if progress.acked == books.tail && progress.done == books.tail {
            if (books.data - books.first_data) as usize > KEPT {
                self.ours.release(KEPT, self.capacity);
            }
            (books.first_block, books.first_data) = (books.tail, books.data);
            books.kept = books.tail;
        }
        while books.kept < books.tail {
            let oldest = Entry::of(books, books.kept, DATA).load(&self.ours);
            let used = (books.data - oldest) as usize;
            if used + len <= self.capacity && books.tail - books.kept < BLOCKS {
                return true;
            }
            if books.kept >= progress.done {
                return false;
            }
            books.kept += 1;
        }
        len <= self.capacity
    }

    /// Takes a block in: from here on it is counted, waits to be matched, and with `write` waits to
    /// be written, whatever process ends. The caller has waited for room; what finds none is not
    /// matched, or lost. False: it is lost.
    pub(super) fn take_in(&self, bytes: &[u8], arrived: u64, part: Part, write: bool) -> bool {
        self.change(|books| {
            let ends = match part {
                Part::Lines => lines_in(bytes),
                Part::Piece { .. } => u64::from(bytes.ends_with(b"\n")),
            };
            let start = books.bytes;
            let begins = books.midline == 0;
            books.lines += ends;
            books.bytes += bytes.len() as u64;
            books.midline = u64::from(part == Part::Piece { follows: true });
            let kept = !write || self.keep_to_write(books, bytes, ends);
            match part {
                Part::Lines if self.make_room(books, bytes.len()) => {
                    self.put(books, bytes);
                    self.post(books, start, bytes.len(), Kind::Lines, arrived);
                }
                Part::Lines => self.post(books, start, 0, Kind::Shed, arrived),
                Part::Piece { .. } if ends > 0 => self.post(books, start, 0, Kind::Torn, arrived),
                Part::Piece { .. } if begins && self.make_room(books, bytes.len()) => {
                    self.put(books, bytes);
                    self.post(books, start, bytes.len(), Kind::Beginning, arrived);
                }
                Part::Piece { .. } => {}
            }
            kept
        })
    }

    fn keep_to_write(&self, books: &mut Books, bytes: &[u8], lines: u64) -> bool {
        if !has_room_to_write(books, bytes.len()) {
            books.lost += bytes.len() as u64;
            books.lost_lines += lines;
            return false;
        }
        if books.waiting_start == books.waiting_end {
            if books.waiting_end as usize > KEPT {
                let buffer = self.capacity;
                self.ours.release(buffer + KEPT, buffer + MAX_UNWRITTEN);
            }
            (books.waiting_start, books.waiting_end) = (0, 0);
        }
        self.ours
            .put(self.capacity + books.waiting_end as usize, bytes);
        books.waiting_end += bytes.len() as u64;
        books.waiting_lines += lines;
        true
    }

    fn put(&self, books: &Books, bytes: &[u8]) {
        for (at, part) in places(self.capacity, books.data - books.first_data, bytes.len()) {
            self.ours.put(at, bytes.get(part).unwrap_or_default());
        }
    }

    /// Adds a block to the table. A block that finds no place is counted by the next one.
    fn post(&self, books: &mut Books, start: u64, len: usize, kind: Kind, arrived: u64) {
        if books.tail - books.kept >= BLOCKS && !self.make_room(books, 0) {
            return;
        }
        for (field, value) in [
            (START, start),
            (DATA, books.data),
            (LEN_KIND, kind.with_length(len)),
            (LINES_BEFORE, books.posted_lines),
            (LINES, books.lines),
            (ARRIVED, arrived),
        ] {
            Entry::of(books, books.tail, field).store(&self.ours, value);
        }
        books.data += len as u64;
        books.posted_lines = books.lines;
        books.tail += 1;
    }

    /// The block has left the pipe.
    pub(super) fn consumed(&self) {
        self.change(|books| books.consumed = books.bytes);
    }

    /// No byte will follow: ends a line that was taken in in pieces.
    pub(super) fn end_of_input(&self, write: bool) {
        self.change(|books| {
            if books.midline == 1 && books.ended == 0 {
                books.lines += 1;
                if write && books.waiting_start < books.waiting_end {
                    books.waiting_lines += 1;
                } else if write {
                    books.written_lines += 1;
                }
                self.post(books, books.bytes, 0, Kind::Torn, 0);
            }
            books.ended = 1;
        });
    }

    /// Bytes that wait to be written.
    pub(super) fn unwritten(&self) -> u64 {
        let books = self.books();
        books.waiting_end - books.waiting_start
    }

    pub(super) fn has_room_to_write(&self, len: usize) -> bool {
        has_room_to_write(&self.books(), len)
    }

    /// Copies what is to be written next, as much as the buffer holds. Called by the writer only.
    pub(super) fn next_unwritten(&self, buffer: &mut Vec<u8>, most: usize) {
        let books = self.books();
        let len = (books.waiting_end - books.waiting_start) as usize;
        buffer.resize(len.min(most), 0);
        self.ours
            .get(self.capacity + books.waiting_start as usize, buffer);
    }

    /// So many bytes of [`Ring::next_unwritten`], with so many newlines, are written.
    pub(super) fn wrote(&self, bytes: u64, newlines: u64) {
        self.change(|books| {
            // Given up meanwhile: what is counted as lost is not counted again.
            if books.waiting_end - books.waiting_start < bytes {
                return;
            }
            books.waiting_start += bytes;
            books.written += bytes;
            // The last line of a stream may have no newline.
            let lines = if books.waiting_start == books.waiting_end {
                books.waiting_lines
            } else {
                newlines.min(books.waiting_lines)
            };
            books.waiting_lines -= lines;
            books.written_lines += lines;
        });
    }

    /// Gives up what still waits to be written: lines, bytes.
    pub(super) fn give_up_writing(&self) -> (u64, u64) {
        self.change(|books| {
            let given_up = (books.waiting_lines, books.waiting_end - books.waiting_start);
            books.lost_lines += given_up.0;
            books.lost += given_up.1;
            (books.waiting_lines, books.waiting_start) = (0, books.waiting_end);
            given_up
        })
    }

    /// Whether blocks wait for the worker.
    pub(super) fn pending(&self) -> bool {
        let books = self.books();
        self.progress(&books).done < books.tail
    }

    /// Changes whenever matching makes progress.
    pub(super) fn beats(&self) -> u64 {
        self.page.load(part(self.books().workers) + BEATS, Acquire)
    }

    /// Whether the worker has said that it does not match yet: it compiles its filters.
    pub(super) fn is_preparing(&self) -> bool {
        self.preparing() == Preparing::Filters as u64
    }

    /// Whether the worker has said that it has matched no lines with its filters yet.
    pub(super) fn awaits_first_lines(&self) -> bool {
        self.preparing() != Preparing::Nothing as u64
    }

    fn preparing(&self) -> u64 {
        let at = part(self.books().workers) + PREPARING;
        self.page.load(at, Acquire)
    }

    /// Prepares the memory for a new worker, and numbers it. It matches again what is not
    /// acknowledged and not overwritten.
    pub(super) fn begin_worker(&self) -> u64 {
        self.change(|books| {
            let mut progress = self.progress(books);
            progress.done = progress.acked;
            progress.lines = progress.lines.min(books.lines);
            books.workers += 1;
            let part = part(books.workers);
            cells::write(&self.page, part + PROGRESS, progress.to_array());
            self.page
                .store(part + PREPARING, Preparing::Filters as u64, Release);
            for thread in 0..MATCH_THREADS {
                self.page.store(part + IN_HAND + thread, 0, Release);
            }
            books.workers
        })
    }

    /// The blocks that the last worker was matching when it ended: number and stream offset.
    pub(super) fn in_hand(&self) -> Vec<(u64, u64)> {
        let books = self.books();
        let words = part(books.workers) + IN_HAND..;
        let mut blocks: Vec<_> = words
            .take(MATCH_THREADS)
            .filter_map(|word| self.page.load(word, Acquire).checked_sub(1))
            .filter(|block| (books.kept..books.tail).contains(block))
            .map(|block| (block, Entry::of(&books, block, START).load(&self.ours)))
            .collect();
        blocks.dedup();
        blocks
    }

    /// A block is not matched any more. Called between two workers.
    pub(super) fn skip(&self, block: u64) {
        let books = self.books();
        Entry::of(&books, block, LEN_KIND).store(&self.ours, Kind::Skip.with_length(0));
    }
}

/// How a block relates to lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Whole lines.
    Lines,
    /// Part of a line that is too long; whether more of it follows.
    Piece { follows: bool },
}

fn has_room_to_write(books: &Books, len: usize) -> bool {
    let waits = books.waiting_start < books.waiting_end;
    let end = if waits { books.waiting_end as usize } else { 0 };
    end + len <= MAX_UNWRITTEN
}

#[cfg(test)]
mod tests;
