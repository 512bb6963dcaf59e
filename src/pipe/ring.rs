//! Blocks of the stream in memory that outlives a worker: what was read, how far it got, and the
//! counters. A worker that is started again finds here what its predecessor had in hand.
//!
//! The stub makes the ring before its first fork. One worker at a time uses it (the lock on the
//! pipe sees to that): its reader adds blocks, match threads and uplink end them. Every step is
//! one atomic store, ordered so that a process that is killed between two of them leaves a state
//! that [`Ring::recover`] understands.

use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::books::{self, Books};
use super::reader::lines_in;
use crate::control;
use crate::sys::region::{Lease, Region};

/// Most bytes of one block: what is looked at in the pipe at once.
pub(super) const MAX_BLOCK: usize = 256 * 1024;
/// Bytes of blocks that wait to be matched or acknowledged. Memory is taken as it is needed.
pub(super) const RING_BYTES: usize = 8 * 1024 * 1024;
/// Memory beyond this is given back when nothing waits any more.
const KEPT: u64 = 1024 * 1024;
/// Bytes that wait while writing is stuck; more is given up and counted.
pub(super) const MAX_UNWRITTEN: usize = 16 * 1024 * 1024;
/// Most blocks at once. Few bytes each when lines come singly.
const BLOCKS: u64 = 8192;
/// A block during whose matching this many workers ended is not matched any more.
const MAX_ATTEMPTS: u64 = 2;

/// Counters that stand for themselves; those that must agree are in the [`Books`].
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(super) enum Counter {
    Restarts = 8,
    Matching,
    /// Keepers that ever came to this ring: a worker whose keeper is gone sees that one waits.
    Keepers,
    Undecided,
}

// Words of the region before the descriptors; counters stand from 8 on.
const STREAM: usize = 0;
/// Stream offset of the pipe's first byte.
const NEXT_START: usize = 1;
/// 1 while the pipe's first byte is inside a line whose start has been passed already.
const MIDLINE: usize = 2;
/// Numbers of the oldest block and of the next; blocks are numbered from 1.
const HEAD: usize = 3;
const TAIL: usize = 4;
/// The number that has the first descriptor: moved whenever the ring is empty, so that an idle
/// ring touches few pages.
const BASE: usize = 5;
/// End of the newest block's bytes.
const DATA_TAIL: usize = 6;
const BOOKS: usize = 16;
const DESCRIPTORS: usize = BOOKS + books::WORDS;

// Words of one descriptor.
const DESCRIPTOR: usize = 8;
/// number * 8 + state
const TAG: usize = 0;
const START: usize = 1;
const OFFSET: usize = 2;
const LEN: usize = 3;
const ARRIVED: usize = 4;
const ATTEMPTS: usize = 5;
const FLAGS: usize = 6;

const FLAG_MATCH: u64 = 1;
const FLAG_ENDS_MIDLINE: u64 = 2;
const FLAG_WHOLE: u64 = 4;

/// How far a block got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum State {
    /// Over, or passed without matching.
    Free = 0,
    /// Shown, not known to be written, nothing of it consumed.
    Read = 1,
    /// Written (or in the writer's hands), not known to be consumed.
    Written = 2,
    /// Consumed; waits for matching.
    Published = 3,
    /// Matched; its hits are not acknowledged.
    Matched = 4,
    /// As published, but counted as matched already: its hits died with a worker.
    Again = 5,
}

/// What came of the lines of one block.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    /// All of them.
    pub(super) lines: u64,
    /// Of these: no parser understood them.
    pub(super) unparsed: u64,
    /// Too long, or not to be trusted behind one that is.
    pub(super) torn: u64,
    /// Not looked at.
    pub(super) shed: u64,
    /// Looked at, and matched only with another address than the client's.
    pub(super) spoofed: u64,
    /// Looked at, and hit.
    pub(super) hits: u64,
}

/// A place for what the pipe shows next.
#[derive(Debug)]
pub(super) struct Place {
    /// The bytes.
    pub(super) lease: Lease,
    offset: usize,
    /// False: the ring is full, or matching is off: the block can be passed, not matched.
    pub(super) keeps: bool,
}

/// A block between reading and publishing.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) number: u64,
    pub(super) start: u64,
    pub(super) arrived: u64,
    pub(super) len: usize,
    /// Whole lines, not part of one that is too long.
    pub(super) whole: bool,
    /// To be matched once it is consumed.
    pub(super) matched: bool,
    /// What follows it in the stream is the rest of a line whose start it holds.
    pub(super) ends_midline: bool,
}

impl InFlight {
    /// Lines that end in it. With `bytes` as they are in the ring.
    fn lines(&self, bytes: &[u8]) -> u64 {
        if self.whole {
            lines_in(bytes)
        } else {
            u64::from(bytes.ends_with(b"\n"))
        }
    }
}

/// A published block in the hands of a match thread.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) start: u64,
    pub(super) arrived: u64,
    pub(super) bytes: Lease,
}

/// What the last worker left behind.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Written, perhaps consumed in part; with its bytes.
    pub(super) in_flight: Option<(InFlight, Option<Lease>)>,
    /// To be matched (again), in stream order.
    pub(super) jobs: Vec<Job>,
    /// Blocks given up because workers ended while matching them: stream offset and lines.
    pub(super) poisoned: Vec<(u64, u64)>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    region: Arc<Region>,
    capacity: usize,
    /// Who changes the books: one thread of one worker.
    changing: Arc<Mutex<()>>,
}

impl Ring {
    /// An empty ring for the stream of that name.
    pub(super) fn new(stream: u64) -> io::Result<Ring> {
        Ring::with_capacity(stream, RING_BYTES)
    }

    fn with_capacity(stream: u64, capacity: usize) -> io::Result<Ring> {
        let words = DESCRIPTORS + DESCRIPTOR * usize::try_from(BLOCKS).unwrap_or(0);
        // Behind the blocks to be matched one that is not, and what waits to be written.
        let region = Arc::new(Region::new(words, capacity + MAX_BLOCK + MAX_UNWRITTEN)?);
        let ring = Ring {
            region,
            capacity,
            changing: Arc::default(),
        };
        ring.word(STREAM).store(stream, Relaxed);
        for word in [HEAD, TAIL, BASE] {
            ring.word(word).store(1, Relaxed);
        }
        Ok(ring)
    }

    /// Names the stream; the same for all workers of a stub.
    pub(super) fn stream(&self) -> u64 {
        self.word(STREAM).load(Relaxed)
    }

    /// Whether the pipe's first byte is inside a line whose start was passed already.
    pub(super) fn midline(&self) -> bool {
        self.word(MIDLINE).load(Relaxed) == 1
    }

    pub(super) fn count(&self, counter: Counter, n: u64) {
        self.word(counter as usize).fetch_add(n, Relaxed);
    }

    pub(super) fn set(&self, counter: Counter, value: u64) {
        self.word(counter as usize).store(value, Relaxed);
    }

    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.word(counter as usize).load(Relaxed)
    }

    pub(super) fn counters(&self) -> control::Counters {
        let books = self.books();
        control::Counters {
            lines: books.lines,
            bytes: books.bytes,
            lines_written: books.written_lines,
            written: books.written,
            lines_lost: books.lost_lines,
            lost: books.lost,
            lines_waiting: books.waiting_lines,
            waiting: books.waiting(),
            matched: books.matched,
            unparsed: books.unparsed,
            torn: books.torn,
            shed: books.shed,
            pending: books.pending,
            spoofed: books.spoofed,
            hits: books.hits,
            unsent: books.unsent,
            undecided: self.get(Counter::Undecided),
            restarts: self.get(Counter::Restarts),
            matching: self.get(Counter::Matching) == 1,
        }
    }

    fn books(&self) -> Books {
        let _one = self.lock_books();
        self.read_books()
    }

    fn read_books(&self) -> Books {
        books::read(|at| self.word(BOOKS + at))
    }

    fn lock_books(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the books; where a block's step belongs to the change, both happen or neither:
    /// [`Ring::recover`] makes up for a step that a kill has cut off.
    fn change(&self, step: Option<(u64, State, State)>, change: impl FnOnce(&mut Books)) {
        let _one = self.lock_books();
        let mut books = self.read_books();
        change(&mut books);
        if let Some((number, from, to)) = step {
            books.step_number = number;
            books.step_start = self.field(number, START).load(Acquire);
            (books.step_from, books.step_to) = (tag(number, from), tag(number, to));
        }
        books::write(|at| self.word(BOOKS + at), books);
        if let Some((number, from, to)) = step {
            self.advance(number, from, to);
        }
    }

    fn make_up_for_the_last_step(&self) {
        let books = self.read_books();
        let number = books.step_number;
        // The same number may stand for a later block by now; no two begin at one offset.
        if number > 0 && self.field(number, START).load(Acquire) == books.step_start {
            let tag = self.field(number, TAG);
            // Where it is in another state the step was taken.
            let _ = tag.compare_exchange(books.step_from, books.step_to, AcqRel, Relaxed);
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.books().waiting()
    }

    pub(super) fn has_room_to_write(&self, len: usize) -> bool {
        has_room(&self.books(), len)
    }

    /// The block is in: from here on it is counted, and with `write` its bytes wait to be written,
    /// whatever becomes of this worker. False: there is no room for them, and they are lost.
    /// Called by the reader only.
    pub(super) fn take_in(&self, block: &InFlight, bytes: &[u8], write: bool) -> bool {
        let lines = block.lines(bytes);
        let before = self.books();
        let room = has_room(&before, bytes.len());
        // Nobody else adds, and where nothing waits nobody reads.
        let at = if before.waiting() == 0 {
            0
        } else {
            before.waiting_end
        };
        let waited = self.capacity + MAX_BLOCK;
        let place = waited + usize::try_from(at).unwrap_or(usize::MAX);
        if at == 0 && before.waiting_end > KEPT {
            self.region
                .release(waited + KEPT as usize..waited + MAX_UNWRITTEN);
        }
        let lease = (write && room)
            .then(|| self.lease(place..place.saturating_add(bytes.len())))
            .flatten();
        let kept = lease
            .map(|mut lease| lease.copy_from_slice(bytes))
            .is_some();
        let step = (block.number, State::Read, State::Written);
        self.change(Some(step), |books| {
            let len = bytes.len() as u64;
            books.lines += lines;
            books.bytes += len;
            if kept {
                if at == 0 {
                    (books.waiting_start, books.waiting_end) = (0, 0);
                }
                books.waiting_end += len;
                books.waiting_lines += lines;
            } else if write {
                books.lost += len;
                books.lost_lines += lines;
            }
            let class = match (block.matched, block.whole) {
                (true, _) => &mut books.pending,
                (false, true) => &mut books.shed,
                (false, false) => &mut books.torn,
            };
            *class += lines;
        });
        kept || !write
    }

    /// No byte will follow: a last line without its newline ends here too, where it was passed in
    /// pieces. With `write` it is written.
    pub(super) fn end_of_input(&self, write: bool) {
        let open = self.midline();
        self.change(None, |books| {
            if open && books.ended == 0 {
                books.lines += 1;
                books.torn += 1;
                if write && books.waiting() > 0 {
                    books.waiting_lines += 1;
                } else if write {
                    books.written_lines += 1;
                }
            }
            books.ended = 1;
        });
    }

    /// What is to be written next; called by the writer only.
    pub(super) fn next_unwritten(&self) -> Option<Lease> {
        let books = self.books();
        let place = |at: u64| self.capacity + MAX_BLOCK + usize::try_from(at).unwrap_or(usize::MAX);
        let range = place(books.waiting_start)..place(books.waiting_end);
        (!range.is_empty()).then(|| self.lease(range)).flatten()
    }

    /// So many bytes of [`Ring::next_unwritten`], with so many newlines, are written; it was given
    /// back before.
    pub(super) fn wrote(&self, bytes: u64, newlines: u64) {
        self.change(None, |books| {
            // Given up meanwhile: what is counted as lost stays so.
            if books.waiting() < bytes {
                return;
            }
            books.waiting_start += bytes;
            books.written += bytes;
            // The last line of a stream may have no newline.
            let lines = if books.waiting() == 0 {
                books.waiting_lines
            } else {
                newlines.min(books.waiting_lines)
            };
            books.waiting_lines -= lines;
            books.written_lines += lines;
        });
    }

    /// What still waits to be written never will be. How much that is: lines, bytes.
    pub(super) fn give_up_writing(&self) -> (u64, u64) {
        let mut given_up = (0, 0);
        self.change(None, |books| {
            given_up = (books.waiting_lines, books.waiting());
            books.lost_lines += books.waiting_lines;
            books.lost += books.waiting();
            (books.waiting_lines, books.waiting_start) = (0, books.waiting_end);
        });
        given_up
    }

    /// The engine never heard of so many lines that hit.
    pub(super) fn not_sent(&self, hits: u64) {
        self.change(None, |books| books.unsent += hits);
    }

    /// Room for `want` bytes (at most [`MAX_BLOCK`]). Where the ring has none, matched blocks are
    /// freed first, oldest first; where the oldest is not even matched, or with `keep` false, the
    /// place is one that cannot be matched. Called by the reader only, with no block in flight.
    /// `None`: somebody else uses that place, which cannot be.
    pub(super) fn reserve(&self, want: usize, keep: bool) -> Option<Place> {
        let want = want.min(MAX_BLOCK);
        self.forget_passed();
        self.forget_freed();
        loop {
            if !keep {
                break;
            }
            if let Some(offset) = self.room(want) {
                return Some(Place {
                    lease: self.region.lease(offset..offset + want)?,
                    offset,
                    keeps: true,
                });
            }
            let oldest = self.word(HEAD).load(Relaxed);
            if !self.advance(oldest, State::Matched, State::Free)
                && self.state(oldest) != Some(State::Free)
            {
                break;
            }
            self.forget_freed();
        }
        let offset = self.capacity;
        Some(Place {
            lease: self.region.lease(offset..offset + want)?,
            offset,
            keeps: false,
        })
    }

    /// Notes the block that is about to be written: the first `len` bytes of the place.
    pub(super) fn begin(
        &self,
        place: &mut Place,
        len: usize,
        arrived: u64,
        whole: bool,
        ends_midline: bool,
    ) -> InFlight {
        place.lease.truncate(len);
        let number = self.word(TAIL).load(Relaxed);
        let matched = whole && place.keeps;
        let block = InFlight {
            number,
            start: self.word(NEXT_START).load(Relaxed),
            arrived,
            len,
            whole,
            matched,
            ends_midline,
        };
        let flags = [
            (matched, FLAG_MATCH),
            (ends_midline, FLAG_ENDS_MIDLINE),
            (whole, FLAG_WHOLE),
        ]
        .into_iter()
        .filter_map(|(set, flag)| set.then_some(flag))
        .sum();
        for (field, value) in [
            (START, block.start),
            (OFFSET, place.offset as u64),
            (LEN, len as u64),
            (ARRIVED, arrived),
            (ATTEMPTS, 0),
            (FLAGS, flags),
        ] {
            self.field(number, field).store(value, Relaxed);
        }
        if place.keeps {
            self.word(DATA_TAIL)
                .store((place.offset + len) as u64, Relaxed);
        }
        self.field(number, TAG)
            .store(tag(number, State::Read), Release);
        self.word(TAIL).store(number + 1, Release);
        block
    }

    /// The block has left the pipe.
    pub(super) fn consumed(&self, block: &InFlight) {
        let end = block.start + block.len as u64;
        self.word(NEXT_START).store(end, Release);
        self.word(MIDLINE)
            .store(u64::from(block.ends_midline), Release);
        let to = if block.matched {
            State::Published
        } else {
            State::Free
        };
        self.advance(block.number, State::Written, to);
    }

    /// Matching of the block begins.
    pub(super) fn attempt(&self, number: u64) {
        self.field(number, ATTEMPTS).fetch_add(1, AcqRel);
    }

    /// The block is matched, or will not be; with `keep` it waits for [`Ring::acknowledged`].
    pub(super) fn matched(&self, number: u64, tally: Tally, keep: bool) {
        // It has been matched without harm: only its hits are waiting.
        self.field(number, ATTEMPTS).store(0, Release);
        let to = if keep { State::Matched } else { State::Free };
        if self.advance(number, State::Again, to) {
            return;
        }
        self.settle(number, tally, to);
    }

    fn settle(&self, number: u64, tally: Tally, to: State) {
        self.change(Some((number, State::Published, to)), |books| {
            books.pending = books.pending.saturating_sub(tally.lines);
            books.unparsed += tally.unparsed;
            books.torn += tally.torn;
            books.shed += tally.shed;
            let others = tally.unparsed + tally.torn + tally.shed;
            books.matched += tally.lines.saturating_sub(others);
            books.spoofed += tally.spoofed;
            books.hits += tally.hits;
        });
    }

    /// The engine has the block's hits, or they were given up. A block freed before is no error.
    pub(super) fn acknowledged(&self, number: u64) {
        self.advance(number, State::Matched, State::Free);
    }

    /// The last worker was ended by somebody: what it was matching is not to blame. Called by the
    /// keeper, between two workers.
    pub(super) fn excuse(&self) {
        let (head, tail) = (self.word(HEAD).load(Acquire), self.word(TAIL).load(Acquire));
        for number in head..tail {
            if let Some(State::Published | State::Again) = self.state(number) {
                let attempts = self.field(number, ATTEMPTS);
                let before = attempts.load(Acquire);
                attempts.store(before.saturating_sub(1), Release);
            }
        }
    }

    /// What the last worker left. Called once, before anything else, by a new worker.
    pub(super) fn recover(&self) -> Recovered {
        self.make_up_for_the_last_step();
        let mut left = Recovered::default();
        let (head, tail) = (self.word(HEAD).load(Acquire), self.word(TAIL).load(Acquire));
        for number in head..tail {
            let field = |f| self.field(number, f).load(Acquire);
            let (offset, len) = (field(OFFSET) as usize, field(LEN) as usize);
            match self.state(number) {
                Some(State::Read) => {
                    // Nothing of it is consumed: the pipe shows it again.
                    self.advance(number, State::Read, State::Free);
                }
                Some(State::Written) => {
                    let flags = field(FLAGS);
                    let block = InFlight {
                        number,
                        start: field(START),
                        arrived: field(ARRIVED),
                        len,
                        whole: flags & FLAG_WHOLE != 0,
                        matched: flags & FLAG_MATCH != 0,
                        ends_midline: flags & FLAG_ENDS_MIDLINE != 0,
                    };
                    let bytes = self.lease(offset..offset + len);
                    left.in_flight = Some((block, bytes));
                }
                Some(state @ (State::Published | State::Matched | State::Again)) => {
                    let Some(bytes) = self.lease(offset..offset + len) else {
                        continue;
                    };
                    if field(ATTEMPTS) >= MAX_ATTEMPTS {
                        let lines = lines_in(&bytes);
                        left.poisoned.push((field(START), lines));
                        if state == State::Published {
                            let shed = lines;
                            self.settle(
                                number,
                                Tally {
                                    lines,
                                    shed,
                                    ..Tally::default()
                                },
                                State::Free,
                            );
                        } else {
                            self.advance(number, state, State::Free);
                        }
                        continue;
                    }
                    self.advance(number, State::Matched, State::Again);
                    left.jobs.push(Job {
                        number,
                        start: field(START),
                        arrived: field(ARRIVED),
                        bytes,
                    });
                }
                Some(State::Free) | None => {}
            }
        }
        left
    }

    fn lease(&self, range: Range<usize>) -> Option<Lease> {
        self.region.lease(range)
    }

    /// Where `want` bytes in a row are free.
    fn room(&self, want: usize) -> Option<usize> {
        let (head, tail) = (self.word(HEAD).load(Relaxed), self.word(TAIL).load(Relaxed));
        if head == tail {
            return (want <= self.capacity).then_some(0);
        }
        // One descriptor stays for a block that is passed without matching.
        if tail - head >= BLOCKS - 1 {
            return None;
        }
        let newest_end = self.word(DATA_TAIL).load(Relaxed) as usize;
        let oldest = self.field(head, OFFSET).load(Relaxed) as usize;
        if newest_end > oldest {
            if self.capacity.saturating_sub(newest_end) >= want {
                return Some(newest_end);
            }
            // Equal ends mean "full", so a gap of exactly `want` would still be told apart.
            return (oldest >= want).then_some(0);
        }
        (oldest - newest_end >= want).then_some(newest_end)
    }

    /// Takes back the numbers of the newest blocks that were passed without matching: nobody
    /// else knows them.
    fn forget_passed(&self) {
        let head = self.word(HEAD).load(Relaxed);
        let mut tail = self.word(TAIL).load(Relaxed);
        while tail > head
            && self.state(tail - 1) == Some(State::Free)
            && self.field(tail - 1, FLAGS).load(Relaxed) & FLAG_MATCH == 0
        {
            tail -= 1;
        }
        self.word(TAIL).store(tail, Release);
    }

    /// Moves the head over what is over.
    fn forget_freed(&self) {
        let tail = self.word(TAIL).load(Relaxed);
        let mut head = self.word(HEAD).load(Relaxed);
        while head < tail && self.state(head) == Some(State::Free) {
            head += 1;
        }
        self.word(HEAD).store(head, Release);
        if head == tail {
            self.word(BASE).store(head, Release);
            if self.word(DATA_TAIL).swap(0, Relaxed) > KEPT {
                self.region.release(KEPT as usize..self.capacity);
            }
        }
    }

    fn state(&self, number: u64) -> Option<State> {
        let found = self.field(number, TAG).load(Acquire);
        [
            State::Free,
            State::Read,
            State::Written,
            State::Published,
            State::Matched,
            State::Again,
        ]
        .into_iter()
        .find(|state| found == tag(number, *state))
    }

    /// False where the block was not in that state.
    fn advance(&self, number: u64, from: State, to: State) -> bool {
        self.field(number, TAG)
            .compare_exchange(tag(number, from), tag(number, to), AcqRel, Relaxed)
            .is_ok()
    }

    fn field(&self, number: u64, field: usize) -> &AtomicU64 {
        let base = self.word(BASE).load(Acquire);
        let slot = (number.wrapping_sub(base) % BLOCKS) as usize;
        self.word(DESCRIPTORS + slot * DESCRIPTOR + field)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        self.region.word(index)
    }
}

fn has_room(books: &Books, len: usize) -> bool {
    books.waiting() == 0 || books.waiting_end + len as u64 <= MAX_UNWRITTEN as u64
}

fn tag(number: u64, state: State) -> u64 {
    number << 3 | state as u64
}

#[cfg(test)]
mod tests;
