use proptest::prelude::*;

use super::*;
use crate::control;
use crate::pipe::layout::MAX_BLOCK;
use crate::pipe::view::View;

fn ring(capacity: usize) -> (Ring, View) {
    let (ring, files) = Ring::with_capacity(7, capacity).unwrap();
    let number = ring.begin_worker();
    let view = View::with_capacity(&files, number, capacity).unwrap();
    (ring, view)
}

/// Where the next worker begins.
fn next_worker(ring: &Ring) -> Progress {
    let number = ring.begin_worker();
    Progress::from_array(cells::read(&ring.page, part(number) + PROGRESS))
}

/// A block of one line of `len` bytes.
fn line(ring: &Ring, len: usize, byte: u8) {
    let mut bytes = vec![byte; len - 1];
    bytes.push(b'\n');
    ring.take_in(&bytes, 1, Part::Lines, false);
    ring.consumed();
}

/// The worker has matched all blocks before `done`, and the engine has those before `acked`.
fn progress(view: &View, done: u64, acked: u64) {
    let lines = done
        .checked_sub(1)
        .map_or(0, |last| view.block(last).unwrap().lines);
    view.set_progress(Progress {
        done,
        counted: done,
        acked,
        lines,
        matched: lines,
        ..view.progress()
    });
}

fn balanced(view: &View) -> control::Counters {
    let c = view.counters(true);
    assert_eq!(c.bytes, c.written + c.lost + c.waiting, "{c:?}");
    let out = c.lines_written + c.lines_lost + c.lines_waiting;
    assert_eq!(c.lines, out, "{c:?}");
    let looked_at = c.matched + c.unparsed + c.torn + c.shed + c.pending;
    assert_eq!(c.lines, looked_at, "{c:?}");
    c
}

#[test]
fn blocks_come_out_as_they_went_in_also_around_the_end_of_the_memory() {
    let (ring, view) = ring(1000);
    let mut start = 0;
    for number in 0..50 {
        let (len, byte) = (300 + number as usize, b'a' + (number % 26) as u8);
        line(&ring, len, byte);
        let block = view.block(number).unwrap();
        assert_eq!((block.kind, block.start), (Kind::Lines, start), "{number}");
        assert_eq!((block.lines_before, block.lines), (number, number + 1));
        assert_eq!(block.bytes.len(), len);
        assert!(block.bytes[..len - 1].iter().all(|b| *b == byte));
        assert!(view.block(number + 1).is_none());
        start += len as u64;
        // Some are acknowledged later, so that the memory is not always empty.
        progress(&view, number + 1, number / 3 * 3);
    }
}

#[test]
fn a_full_ring_overwrites_matched_blocks_first_and_never_unmatched_ones() {
    let (ring, view) = ring(1000);
    line(&ring, 400, b'a');
    progress(&view, 1, 0);
    line(&ring, 400, b'b');
    // The first is matched: it makes room.
    assert!(ring.has_room(400));
    line(&ring, 400, b'c');
    assert_eq!(view.block(2).unwrap().kind, Kind::Lines);
    // The second is not: the fourth is shed.
    assert!(!ring.has_room(400));
    line(&ring, 400, b'd');
    assert_eq!(view.block(3).unwrap().kind, Kind::Shed);
    assert_eq!(view.block(1).unwrap().bytes[0], b'b');
    // The next worker matches again what is not overwritten.
    assert_eq!(next_worker(&ring).done, 1);
}

#[test]
fn more_blocks_than_the_table_holds_are_counted_by_the_next_one() {
    let (ring, view) = ring(RING_BYTES);
    for _ in 0..BLOCKS + 10 {
        line(&ring, 2, b'x');
    }
    assert!(view.block(BLOCKS - 1).is_some() && view.block(BLOCKS).is_none());
    progress(&view, BLOCKS, BLOCKS);
    line(&ring, 2, b'y');
    let block = view.block(BLOCKS).unwrap();
    assert_eq!((block.lines_before, block.lines), (BLOCKS, BLOCKS + 11));
    assert_eq!(block.bytes, b"y\n");
}

#[test]
fn what_the_worker_claims_is_bounded() {
    let (ring, mut view) = ring(1000);
    line(&ring, 400, b'a');
    for (done, acked) in [(u64::MAX, u64::MAX), (u64::MAX, 0), (0, u64::MAX)] {
        let claim = Progress {
            done,
            counted: u64::MAX,
            acked,
            lines: u64::MAX,
            ..Progress::default()
        };
        view.part = part(ring.books().workers);
        view.set_progress(claim);
        view.set_in_hand(0, Some(u64::MAX - 1));
        view.set_in_hand(1, Some(7));
        let _ = (ring.pending(), ring.has_room(400));
        assert_eq!(ring.in_hand(), []);
        line(&ring, 400, b'b');
        let now = next_worker(&ring);
        let tail = ring.books().tail;
        assert!(now.done <= tail && now.counted <= tail && now.acked <= tail);
        assert!(now.lines <= ring.books().lines);
    }
}

proptest! {
    #[test]
    fn whatever_a_worker_writes_the_keeper_goes_on(
        claims in prop::collection::vec((any::<[u64; Progress::LEN]>(), any::<[u64; 2]>()), 1..30),
    ) {
        let (ring, mut view) = ring(1000);
        for (progress, in_hand) in claims {
            view.part = part(ring.books().workers);
            view.set_progress(Progress::from_array(progress));
            view.set_in_hand(0, Some(in_hand[0] % 40));
            view.set_in_hand(1, Some(in_hand[1]));
            let _ = (ring.pending(), ring.has_room(400), ring.beats());
            let known = ring.books().kept..ring.books().tail;
            prop_assert!(ring.in_hand().iter().all(|(block, _)| known.contains(block)));
            line(&ring, 2 + (progress[0] % 300) as usize, b'a');
            let (now, books) = (next_worker(&ring), ring.books());
            prop_assert!(now.done <= books.tail && now.counted <= books.tail && now.acked <= books.tail);
            prop_assert!(now.lines <= books.lines);
        }
    }
}

#[test]
fn what_waits_to_be_written_is_bounded_and_in_order() {
    let (ring, view) = ring(RING_BYTES);
    let take = |bytes: &[u8]| ring.take_in(bytes, 1, Part::Lines, true);
    let next = || {
        let mut buffer = Vec::new();
        ring.next_unwritten(&mut buffer, 1000);
        buffer
    };
    assert!(take(b"one\n") && take(b"two\n"));
    assert_eq!(next(), b"one\ntwo\n");
    ring.wrote(4, 1);
    assert_eq!(next(), b"two\n");
    let mut block = vec![b'x'; MAX_BLOCK];
    block[MAX_BLOCK - 1] = b'\n';
    let fit = (0..).take_while(|_| take(&block)).count();
    assert_eq!(fit, MAX_UNWRITTEN / MAX_BLOCK - 1);
    assert!(!ring.has_room_to_write(MAX_BLOCK) && ring.has_room_to_write(1));
    let counters = balanced(&view);
    assert_eq!((counters.lost, counters.lines_lost), (MAX_BLOCK as u64, 1));
    assert_eq!(counters.lines_waiting, fit as u64 + 1);
    ring.wrote(ring.unwritten(), fit as u64 + 1);
    assert!(ring.has_room_to_write(MAX_BLOCK) && take(b"three"));
    assert_eq!(next(), b"three");
    assert_eq!(ring.give_up_writing(), (1, 5));
    // The write returns after all: what is counted as lost is not counted again.
    ring.wrote(5, 0);
    assert_eq!(balanced(&view).lost, MAX_BLOCK as u64 + 5);
}

#[test]
fn a_last_line_without_a_newline_counts_once_in_whatever_pieces_it_came() {
    for write in [true, false] {
        let (ring, view) = ring(RING_BYTES);
        ring.take_in(b"one\ntwo", 1, Part::Lines, write);
        ring.end_of_input(write);
        assert_eq!(view.counters(true).lines, 2);
    }
    let (ring, view) = ring(RING_BYTES);
    for piece in [&b"very "[..], b"long"] {
        ring.take_in(piece, 1, Part::Piece { follows: true }, true);
        assert_eq!(ring.books().midline, 1);
    }
    // A keeper that is killed at the very end leaves the next one the same end.
    for _ in 0..2 {
        ring.end_of_input(true);
        balanced(&view);
    }
    ring.wrote(9, 0);
    let counters = balanced(&view);
    assert_eq!((counters.lines, counters.lines_written), (1, 1));
    let blocks: Vec<_> = (0..2).filter_map(|n| view.block(n)).collect();
    let kinds: Vec<_> = blocks
        .iter()
        .map(|b| (b.kind, b.bytes.as_slice()))
        .collect();
    assert_eq!(kinds, [(Kind::Beginning, &b"very "[..]), (Kind::Torn, b"")]);
}

#[test]
fn a_block_that_is_skipped_has_no_bytes_and_its_lines() {
    let (ring, view) = ring(1000);
    line(&ring, 10, b'a');
    line(&ring, 10, b'b');
    view.set_in_hand(1, Some(1));
    assert_eq!(ring.in_hand(), [(1, 10)]);
    ring.skip(1);
    let block = view.block(1).unwrap();
    assert_eq!((block.kind, block.bytes.len()), (Kind::Skip, 0));
    assert_eq!((block.lines_before, block.lines), (1, 2));
    assert_eq!(view.block(0).unwrap().kind, Kind::Lines);
}
