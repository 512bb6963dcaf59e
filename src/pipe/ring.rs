//! Blocks of the stream in memory that outlives a worker: what was read, how far it got, and the
//! counters. A worker that is started again finds here what its predecessor had in hand.
//!
//! The stub makes the ring before its first fork. One worker at a time uses it (the lock on the
//! pipe sees to that): its reader adds blocks, match threads and uplink end them. Every step is
//! one atomic store, ordered so that a process that is killed between two of them leaves a state
//! that [`Ring::recover`] understands.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::reader::lines_in;
use crate::control;
use crate::sys::region::{Lease, Region};

/// Most bytes of one block: what is looked at in the pipe at once.
pub(super) const MAX_BLOCK: usize = 256 * 1024;
/// Bytes of blocks that wait to be matched or acknowledged.
pub(super) const RING_BYTES: usize = 2 * 1024 * 1024;
/// Bytes that wait while writing is stuck; more is given up and counted.
pub(super) const MAX_UNWRITTEN: usize = 16 * 1024 * 1024;
/// Most blocks at once. Few bytes each when lines come singly.
const BLOCKS: u64 = 8192;
/// A block during whose matching this many workers ended is not matched any more.
const MAX_ATTEMPTS: u64 = 2;

/// Counters that live in the ring.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(super) enum Counter {
    Lines = 8,
    Bytes,
    Written,
    Lost,
    Unparsed,
    Spoofed,
    Shed,
    Restarts,
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
/// Bytes that wait to be written, since none did last: how many there are in the low half, how
/// many of them are written in the high half.
const UNWRITTEN: usize = 7;
const DESCRIPTORS: usize = 32;

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
        let ring = Ring { region, capacity };
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
        let get = |counter| self.get(counter);
        control::Counters {
            lines: get(Counter::Lines),
            bytes: get(Counter::Bytes),
            written: get(Counter::Written),
            lost: get(Counter::Lost),
            unparsed: get(Counter::Unparsed),
            spoofed: get(Counter::Spoofed),
            shed: get(Counter::Shed),
            undecided: get(Counter::Undecided),
            restarts: get(Counter::Restarts),
            matching: get(Counter::Matching) == 1,
        }
    }

    fn unwritten_range(&self) -> Range<usize> {
        let word = self.word(UNWRITTEN).load(Acquire);
        (word >> 32) as usize..(word & u64::from(u32::MAX)) as usize
    }

    /// Bytes that wait to be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten_range().len() as u64
    }

    pub(super) fn has_room_to_write(&self, len: usize) -> bool {
        let waiting = self.unwritten_range();
        waiting.is_empty() || waiting.end + len <= MAX_UNWRITTEN
    }

    /// Adds to what waits to be written; false where there is no room. Called by the reader only.
    pub(super) fn add_unwritten(&self, bytes: &[u8]) -> bool {
        if self.unwritten() == 0 {
            // Nobody else changes it now.
            self.word(UNWRITTEN).store(0, Release);
        }
        let at = self.capacity + MAX_BLOCK + self.unwritten_range().end;
        if !self.has_room_to_write(bytes.len()) {
            return false;
        }
        let Some(mut lease) = self.lease(at..at + bytes.len()) else {
            return false;
        };
        lease.copy_from_slice(bytes);
        drop(lease);
        self.word(UNWRITTEN).fetch_add(bytes.len() as u64, AcqRel);
        true
    }

    /// What is to be written next; called by the writer only.
    pub(super) fn next_unwritten(&self) -> Option<Lease> {
        let waiting = self.unwritten_range();
        let start = self.capacity + MAX_BLOCK;
        let range = start + waiting.start..start + waiting.end;
        (!range.is_empty()).then(|| self.lease(range)).flatten()
    }

    /// So many bytes of [`Ring::next_unwritten`] are written; it was given back before.
    pub(super) fn wrote(&self, bytes: u64) {
        self.word(UNWRITTEN).fetch_add(bytes << 32, AcqRel);
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

    /// The block is written, or the writer answers for it.
    pub(super) fn written(&self, block: &InFlight) {
        self.advance(block.number, State::Read, State::Written);
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

    /// The block is matched; with `keep` it waits for [`Ring::acknowledged`].
    pub(super) fn matched(&self, number: u64, keep: bool) {
        // It has been matched without harm: only its hits are waiting.
        self.field(number, ATTEMPTS).store(0, Release);
        let to = if keep { State::Matched } else { State::Free };
        self.advance(number, State::Published, to);
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
            if self.state(number) == Some(State::Published) {
                let attempts = self.field(number, ATTEMPTS);
                let before = attempts.load(Acquire);
                attempts.store(before.saturating_sub(1), Release);
            }
        }
    }

    /// What the last worker left. Called once, before anything else, by a new worker.
    pub(super) fn recover(&self) -> Recovered {
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
                Some(State::Published | State::Matched) => {
                    let Some(bytes) = self.lease(offset..offset + len) else {
                        continue;
                    };
                    if field(ATTEMPTS) >= MAX_ATTEMPTS {
                        let lines = lines_in(&bytes);
                        self.count(Counter::Shed, lines);
                        left.poisoned.push((field(START), lines));
                        self.field(number, TAG)
                            .store(tag(number, State::Free), Release);
                        continue;
                    }
                    self.advance(number, State::Matched, State::Published);
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
            self.word(DATA_TAIL).store(0, Relaxed);
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

fn tag(number: u64, state: State) -> u64 {
    number << 3 | state as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One block of `len` bytes through all steps until it is published (or passed).
    fn publish(ring: &Ring, len: usize) -> (InFlight, Lease) {
        let mut place = ring.reserve(len, true).unwrap();
        let byte = b'a' + (ring.word(TAIL).load(Relaxed) % 26) as u8;
        place.lease.fill(byte);
        let block = ring.begin(&mut place, len, 1, true, false);
        ring.written(&block);
        ring.consumed(&block);
        (block, place.lease)
    }

    #[test]
    fn stream_offsets_go_on_and_an_empty_ring_starts_at_its_first_bytes() {
        let ring = Ring::with_capacity(7, MAX_BLOCK).unwrap();
        let mut start = 0;
        for len in [1, 5, 100_000, MAX_BLOCK, 3] {
            let (block, bytes) = publish(&ring, len);
            assert!(block.matched);
            assert_eq!(block.start, start);
            start += len as u64;
            drop(bytes);
            ring.attempt(block.number);
            ring.matched(block.number, false);
            let place = ring.reserve(1, true).unwrap();
            assert_eq!(place.offset, 0);
        }
    }

    #[test]
    fn a_full_ring_frees_matched_blocks_first_and_never_unmatched_ones() {
        let ring = Ring::with_capacity(7, 1000).unwrap();
        let (first, bytes) = publish(&ring, 400);
        drop(bytes);
        ring.matched(first.number, true);
        let (second, bytes) = publish(&ring, 400);
        // The first is matched: it makes room.
        let (third, third_bytes) = publish(&ring, 400);
        assert!(third.matched);
        // The second is not matched: the fourth is passed.
        let (fourth, _) = publish(&ring, 400);
        assert!(!fourth.matched);
        // A late acknowledgement of a block that is gone changes nothing.
        ring.acknowledged(first.number);
        drop(bytes);
        ring.matched(second.number, false);
        let (fifth, _) = publish(&ring, 400);
        assert!(fifth.matched);
        assert!(third_bytes.iter().all(|b| *b == third_bytes[0]));
    }

    #[test]
    fn more_blocks_than_descriptors_are_passed() {
        let ring = Ring::new(7).unwrap();
        let held: Vec<_> = (0..BLOCKS - 1).map(|_| publish(&ring, 1)).collect();
        assert!(held.iter().all(|(block, _)| block.matched));
        for _ in 0..3 * BLOCKS {
            assert!(!publish(&ring, 1).0.matched);
        }
        for (block, bytes) in held {
            drop(bytes);
            ring.matched(block.number, false);
        }
        assert!(publish(&ring, 1).0.matched);
    }

    #[test]
    fn passing_without_matching_goes_on_for_ever() {
        let ring = Ring::new(7).unwrap();
        for i in 0..3 * BLOCKS {
            let mut place = ring.reserve(10, false).unwrap();
            let block = ring.begin(&mut place, 10, 1, false, false);
            assert_eq!((block.matched, block.start), (false, i * 10));
            ring.written(&block);
            ring.consumed(&block);
        }
        assert!(ring.recover().jobs.is_empty());
    }

    #[test]
    fn a_killed_worker_leaves_each_block_where_it_was() {
        let ring = Ring::new(7).unwrap();
        let (matched, bytes) = publish(&ring, 10);
        drop(bytes);
        ring.matched(matched.number, true);
        let (done, bytes) = publish(&ring, 10);
        drop(bytes);
        ring.matched(done.number, false);
        let (published, bytes) = publish(&ring, 10);
        let expected = bytes.to_vec();
        drop(bytes);

        // Read, not written: forgotten, the pipe shows it again.
        let mut place = ring.reserve(10, true).unwrap();
        ring.begin(&mut place, 10, 1, true, false);
        drop(place);
        let left = ring.recover();
        assert!(left.in_flight.is_none());
        let numbers: Vec<u64> = left.jobs.iter().map(|job| job.number).collect();
        assert_eq!(numbers, [matched.number, published.number]);
        assert_eq!(&*left.jobs[1].bytes, expected);
        assert_eq!(left.jobs[1].start, 20);
        drop(left);

        // Written, not consumed: comes back with all that is needed to go on.
        let mut place = ring.reserve(10, true).unwrap();
        place.lease.fill(b'x');
        let block = ring.begin(&mut place, 6, 1, true, true);
        ring.written(&block);
        drop(place);
        let (again, bytes) = ring.recover().in_flight.unwrap();
        assert_eq!((again.start, again.len, again.matched), (30, 6, true));
        assert_eq!(&*bytes.unwrap(), b"xxxxxx");
        ring.consumed(&again);
        assert!(ring.midline());
        let next = ring.reserve(1, true).unwrap();
        assert!(next.offset > 0, "the block's bytes are still in use");
    }

    #[test]
    fn what_waits_to_be_written_outlives_a_worker_and_is_bounded() {
        let ring = Ring::new(7).unwrap();
        assert!(ring.next_unwritten().is_none());
        assert!(ring.add_unwritten(b"one\n") && ring.add_unwritten(b"two\n"));
        ring.wrote(4);
        let next_worker = ring.clone();
        assert_eq!(&*next_worker.next_unwritten().unwrap(), b"two\n");
        assert_eq!(next_worker.unwritten(), 4);
        let block = vec![b'x'; MAX_BLOCK];
        let fit = (0..).take_while(|_| ring.add_unwritten(&block)).count();
        assert_eq!(fit, MAX_UNWRITTEN / MAX_BLOCK - 1);
        assert!(!ring.has_room_to_write(MAX_BLOCK) && ring.has_room_to_write(1));
        ring.wrote(ring.unwritten());
        assert!(ring.has_room_to_write(MAX_BLOCK) && ring.add_unwritten(b"three\n"));
        assert_eq!(&*ring.next_unwritten().unwrap(), b"three\n");
    }

    #[test]
    fn a_block_that_ended_two_workers_is_not_matched_again() {
        let ring = Ring::new(7).unwrap();
        let (poison, bytes) = publish(&ring, 10);
        drop(bytes);
        let (innocent, bytes) = publish(&ring, 10);
        drop(bytes);
        for _ in 0..2 {
            assert_eq!(ring.recover().jobs.len(), 2);
            ring.attempt(poison.number);
        }
        ring.attempt(innocent.number);
        let left = ring.recover();
        assert_eq!(left.poisoned, [(0, 1)]);
        assert_eq!(left.jobs.len(), 1);
        assert_eq!(left.jobs[0].number, innocent.number);
        drop(left);
        // Nor do ends that are somebody's doing.
        for _ in 0..3 {
            ring.attempt(innocent.number);
            ring.excuse();
            assert_eq!(ring.recover().jobs.len(), 1);
        }
        // Two more ends while it only waits for its acknowledgement do not count.
        ring.matched(innocent.number, true);
        assert_eq!(ring.recover().jobs.len(), 1);
        ring.attempt(innocent.number);
        assert_eq!(ring.recover().jobs.len(), 1);
    }
}
