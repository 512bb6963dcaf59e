use super::*;

/// One block of `len` bytes through all steps until it is published (or passed).
fn publish(ring: &Ring, len: usize) -> (InFlight, Lease) {
    let mut place = ring.reserve(len, true).unwrap();
    let byte = b'a' + (ring.word(TAIL).load(Relaxed) % 26) as u8;
    place.lease.fill(byte);
    let block = ring.begin(&mut place, len, 1, true, false);
    ring.take_in(&block, &place.lease, false);
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
        ring.matched(block.number, Tally::default(), false);
        let place = ring.reserve(1, true).unwrap();
        assert_eq!(place.offset, 0);
    }
}

#[test]
fn a_full_ring_frees_matched_blocks_first_and_never_unmatched_ones() {
    let ring = Ring::with_capacity(7, 1000).unwrap();
    let (first, bytes) = publish(&ring, 400);
    drop(bytes);
    ring.matched(first.number, Tally::default(), true);
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
    ring.matched(second.number, Tally::default(), false);
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
        ring.matched(block.number, Tally::default(), false);
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
        ring.take_in(&block, &place.lease, false);
        ring.consumed(&block);
    }
    assert!(ring.recover().jobs.is_empty());
}

#[test]
fn a_killed_worker_leaves_each_block_where_it_was() {
    let ring = Ring::new(7).unwrap();
    let (matched, bytes) = publish(&ring, 10);
    drop(bytes);
    ring.matched(matched.number, Tally::default(), true);
    let (done, bytes) = publish(&ring, 10);
    drop(bytes);
    ring.matched(done.number, Tally::default(), false);
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
    ring.take_in(&block, &place.lease, false);
    drop(place);
    let (again, bytes) = ring.recover().in_flight.unwrap();
    assert_eq!((again.start, again.len, again.matched), (30, 6, true));
    assert_eq!(&*bytes.unwrap(), b"xxxxxx");
    ring.consumed(&again);
    assert!(ring.midline());
    let next = ring.reserve(1, true).unwrap();
    assert!(next.offset > 0, "the block's bytes are still in use");
}

/// Takes a block in, to be written; whether there was room.
fn add(ring: &Ring, bytes: &[u8]) -> bool {
    let mut place = ring.reserve(bytes.len(), false).unwrap();
    place.lease.copy_from_slice(bytes);
    let block = ring.begin(&mut place, bytes.len(), 1, true, false);
    let kept = ring.take_in(&block, bytes, true);
    ring.consumed(&block);
    kept
}

#[test]
fn what_waits_to_be_written_outlives_a_worker_and_is_bounded() {
    let ring = Ring::new(7).unwrap();
    assert!(ring.next_unwritten().is_none());
    assert!(add(&ring, b"one\n") && add(&ring, b"two\n"));
    ring.wrote(4, 1);
    let next_worker = ring.clone();
    assert_eq!(&*next_worker.next_unwritten().unwrap(), b"two\n");
    assert_eq!(next_worker.unwritten(), 4);
    let mut block = vec![b'x'; MAX_BLOCK];
    block[MAX_BLOCK - 1] = b'\n';
    let fit = (0..).take_while(|_| add(&ring, &block)).count();
    assert_eq!(fit, MAX_UNWRITTEN / MAX_BLOCK - 1);
    assert!(!ring.has_room_to_write(MAX_BLOCK) && ring.has_room_to_write(1));
    let counters = ring.counters();
    assert_eq!((counters.lost, counters.lines_lost), (MAX_BLOCK as u64, 1));
    assert_eq!(counters.lines_waiting, fit as u64 + 1);
    ring.wrote(ring.unwritten(), fit as u64 + 1);
    assert!(ring.has_room_to_write(MAX_BLOCK) && add(&ring, b"three"));
    assert_eq!(&*ring.next_unwritten().unwrap(), b"three");
    assert_eq!(ring.give_up_writing(), (1, 5));
    // It comes back after all: what is counted as lost stays so.
    ring.wrote(5, 0);
    let counters = ring.counters();
    assert_eq!(counters.lost, MAX_BLOCK as u64 + 5);
    balanced(&counters);
}

fn balanced(counters: &control::Counters) {
    let c = counters;
    assert_eq!(c.bytes, c.written + c.lost + c.waiting, "{c:?}");
    let out = c.lines_written + c.lines_lost + c.lines_waiting;
    assert_eq!(c.lines, out, "{c:?}");
    let looked_at = c.matched + c.unparsed + c.torn + c.shed + c.pending;
    assert_eq!(c.lines, looked_at, "{c:?}");
}

#[test]
fn a_step_that_a_kill_has_cut_off_is_made_up_for_and_nothing_counts_twice() {
    let ring = Ring::new(7).unwrap();
    let mut place = ring.reserve(4, true).unwrap();
    place.lease.copy_from_slice(b"one\n");
    let block = ring.begin(&mut place, 4, 1, true, false);
    ring.take_in(&block, b"one\n", true);
    drop(place);
    // As if the kill had come between the books and the block's own word.
    assert!(ring.advance(block.number, State::Written, State::Read));
    let left = ring.recover();
    let (again, bytes) = left.in_flight.expect("taken in");
    assert_eq!(
        (again.number, &*bytes.unwrap()),
        (block.number, &b"one\n"[..])
    );
    ring.consumed(&again);
    balanced(&ring.counters());

    let tally = Tally {
        lines: 1,
        hits: 1,
        ..Tally::default()
    };
    ring.matched(block.number, tally, true);
    assert!(ring.advance(block.number, State::Matched, State::Published));
    // Its hits died with the worker: it is matched again, and counted once.
    for _ in 0..2 {
        let jobs = ring.recover().jobs;
        assert_eq!(jobs.len(), 1);
        drop(jobs);
        ring.matched(block.number, tally, true);
        balanced(&ring.counters());
    }
    assert_eq!((ring.counters().matched, ring.counters().hits), (1, 1));
}

#[test]
fn a_last_line_without_a_newline_counts_once_in_whatever_pieces_it_came() {
    for (pieces, write) in [(&[&b"one\ntwo"[..]][..], true), (&[b"one\ntwo"], false)] {
        let ring = Ring::new(7).unwrap();
        for piece in pieces {
            let mut place = ring.reserve(piece.len(), true).unwrap();
            place.lease.copy_from_slice(piece);
            let block = ring.begin(&mut place, piece.len(), 1, true, false);
            ring.take_in(&block, piece, write);
            ring.consumed(&block);
        }
        ring.end_of_input(write);
        assert_eq!(ring.counters().lines, 2);
    }
    let ring = Ring::new(7).unwrap();
    for piece in [&b"very "[..], b"long"] {
        let mut place = ring.reserve(piece.len(), true).unwrap();
        place.lease.copy_from_slice(piece);
        let block = ring.begin(&mut place, piece.len(), 1, false, true);
        ring.take_in(&block, piece, true);
        ring.consumed(&block);
    }
    // A worker that is killed at the very end leaves the next one the same end.
    for _ in 0..2 {
        ring.end_of_input(true);
        balanced(&ring.counters());
    }
    ring.wrote(9, 0);
    balanced(&ring.counters());
    assert_eq!((ring.counters().lines, ring.counters().torn), (1, 1));
    assert_eq!(ring.counters().lines_written, 1);
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
    ring.matched(innocent.number, Tally::default(), true);
    assert_eq!(ring.recover().jobs.len(), 1);
    ring.attempt(innocent.number);
    assert_eq!(ring.recover().jobs.len(), 1);
}
