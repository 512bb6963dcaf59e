//! Takes blocks of whole lines out of the pipe, so that a block leaves it only when it is written.
//!
//! `tee` shows what stands in the pipe without taking it: the copy is read into the ring, written,
//! and only then moved out of the pipe. It is moved into the private pipe, not thrown away, so
//! that a worker that is killed in the middle leaves exact evidence of how much it had taken: what
//! is found in the private pipe.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::matching::Feed;
use super::ring::{InFlight, Job, MAX_BLOCK, Place, Ring};
use super::writer::Writer;
use crate::sys::{clock, fds};

/// While a line is incomplete the pipe is looked at again after this time, even if nothing told of
/// more bytes.
const LOOK_AGAIN: u16 = 50;
/// A line that stays incomplete this long is passed as far as it is there. Nothing of Apache's
/// takes that long; it ends a wait for bytes that cannot come because the pipe is full of tiny
/// fragments.
const PARTIAL_PATIENCE: Duration = Duration::from_secs(5);

/// Blocks follow each other no faster, unless [`MUCH`] waits, or a quarter of a small pipe: five
/// threads are woken for each, which line by line costs ten times what is done with it. The first
/// line after a pause does not wait.
const PACE: Duration = Duration::from_millis(1);
const MUCH: usize = MAX_BLOCK / 4;

/// How long a worker that is to hand over waits for its writer, so that no write is cut off. The
/// next worker goes on with the rest.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// The pipe that shows and proves; made by the stub, inherited by every worker.
#[derive(Debug)]
pub(super) struct PrivatePipe {
    pub(super) out: OwnedFd,
    pub(super) into: OwnedFd,
}

impl PrivatePipe {
    pub(super) fn new() -> io::Result<PrivatePipe> {
        let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        // A smaller one does as well; lines longer than half of it are passed in pieces.
        let size = i32::try_from(MAX_BLOCK).unwrap_or(i32::MAX);
        let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(size));
        Ok(PrivatePipe { out, into })
    }

    pub(super) fn try_clone(&self) -> io::Result<PrivatePipe> {
        Ok(PrivatePipe {
            out: self.out.try_clone()?,
            into: self.into.try_clone()?,
        })
    }
}

/// Reads one pipe to its end.
#[derive(Debug)]
pub(super) struct Reader {
    /// Non-blocking, an open file description of our own, locked.
    pub(super) pipe: OwnedFd,
    pub(super) private: PrivatePipe,
    pub(super) ring: Ring,
    pub(super) writer: Arc<Writer>,
    pub(super) feed: Feed,
    pub(super) leave: Arc<Leave>,
}

/// How a reader ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The pipe is read to its end.
    OfInput,
    /// Another keeper waits: its worker goes on where this one stopped.
    Handover,
}

/// Asks the reader to stop between two blocks.
#[derive(Debug)]
pub(super) struct Leave {
    asked: AtomicBool,
    wake: EventFd,
}

impl Leave {
    pub(super) fn new() -> io::Result<Leave> {
        Ok(Leave {
            asked: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        // An error means that it is awake already.
        let _ = self.wake.write(1);
    }
}

/// What to do with the bytes that the pipe shows.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    /// Whole lines, or the last of the stream: write, match.
    Lines(usize),
    /// Part of a line that is too long to be seen whole: write. Then, whether more of it follows.
    Piece(usize, Rest),
    /// An incomplete line: wait for the rest.
    Wait,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Rest {
    /// The line's end was in this piece.
    No,
    /// The next byte still belongs to the line.
    Follows,
}

/// How much is known of what the pipe shows.
#[derive(Debug, Clone, Copy)]
struct View {
    /// The first byte belongs to a line whose start was passed.
    midline: bool,
    /// No byte will follow.
    last: bool,
    /// This much without a newline is not waited for.
    enough: usize,
}

fn cut(shown: &[u8], view: View) -> Cut {
    if shown.is_empty() {
        return Cut::Wait;
    }
    if view.midline {
        return match memchr::memchr(b'\n', shown) {
            Some(at) => Cut::Piece(at + 1, Rest::No),
            None => Cut::Piece(shown.len(), Rest::Follows),
        };
    }
    match memchr::memrchr(b'\n', shown) {
        Some(at) => Cut::Lines(at + 1),
        None if view.last => Cut::Lines(shown.len()),
        None if shown.len() >= view.enough => Cut::Piece(shown.len(), Rest::Follows),
        None => Cut::Wait,
    }
}

impl Reader {
    /// Takes over what the last worker left, then reads until the last writer has closed the pipe.
    ///
    /// # Errors
    /// The pipe cannot be read: what is in it stays there for the next worker.
    pub(super) fn run(&mut self) -> io::Result<End> {
        self.recover()?;
        let enough = self.capacity() / 2;
        let edges = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        edges.add(
            &self.pipe,
            EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0),
        )?;
        let mut partial: Option<(usize, Instant)> = None;
        let mut asked: Option<Instant> = None;
        let mut last: Option<Instant> = None;
        loop {
            if self.leave.asked.load(Ordering::Acquire) {
                let since = *asked.get_or_insert_with(Instant::now);
                if !self.writer.is_behind() || since.elapsed() >= LEAVE_PATIENCE {
                    return Ok(End::Handover);
                }
            }
            // In this order: what is counted after the last writer has gone is all there will be.
            let closed = self.closed(PollTimeout::ZERO)?;
            let waiting = fds::waiting(&self.pipe)?;
            if waiting == 0 {
                if closed {
                    self.writer.end_of_input();
                    return Ok(End::OfInput);
                }
                // Where leaving must wait for the writer this must not become a busy loop.
                let timeout = if self.leave.asked.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(u64::from(LOOK_AGAIN)));
                    PollTimeout::ZERO
                } else {
                    PollTimeout::NONE
                };
                self.closed(timeout)?;
                continue;
            }
            let early = last.map(|last| PACE.saturating_sub(last.elapsed()));
            if waiting < MUCH.min(enough / 2)
                && let Some(early) = early.filter(|early| !early.is_zero())
            {
                std::thread::sleep(early);
                last = None;
                continue;
            }
            let Some(mut place) = self.ring.reserve(waiting, self.feed.wants_blocks()) else {
                return Err(io::Error::other("the ring's place is in use"));
            };
            let arrived = u64::try_from(clock::boottime().as_nanos()).unwrap_or(u64::MAX);
            let shown = self.show(&mut place)?;
            let bytes = place.lease.get(..shown).unwrap_or_default();
            let impatient = partial
                .is_some_and(|(len, since)| len == shown && since.elapsed() >= PARTIAL_PATIENCE);
            let view = View {
                midline: self.ring.midline(),
                last: closed && shown == waiting,
                enough: if impatient { 0 } else { enough },
            };
            match cut(bytes, view) {
                Cut::Lines(len) => self.pass(place, len, arrived, true, Rest::No)?,
                Cut::Piece(len, rest) => self.pass(place, len, arrived, false, rest)?,
                Cut::Wait => {
                    if partial.is_none_or(|(len, _)| len != shown) {
                        partial = Some((shown, Instant::now()));
                    }
                    drop(place);
                    match edges.wait(&mut [EpollEvent::empty()], LOOK_AGAIN) {
                        Ok(_) | Err(Errno::EINTR) => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            last = Some(Instant::now());
            partial = None;
        }
    }

    /// Finishes the block that the last worker had in hand, and hands on those not yet matched.
    fn recover(&mut self) -> io::Result<()> {
        let left = self.ring.recover();
        for (start, lines) in &left.poisoned {
            self.feed.poisoned(*start, *lines);
        }
        for job in left.jobs {
            self.feed.send(job);
        }
        if let Some((block, bytes)) = left.in_flight {
            let taken = fds::waiting(&self.private.out)?.min(block.len);
            self.take(block.len - taken)?;
            self.ring.consumed(&block);
            if let Some(bytes) = bytes {
                self.published(block, bytes);
            }
        }
        self.drain_private()
    }

    /// Writes a block, takes it out of the pipe, hands it on.
    fn pass(
        &mut self,
        mut place: Place,
        len: usize,
        arrived: u64,
        whole: bool,
        rest: Rest,
    ) -> io::Result<()> {
        let follows = rest == Rest::Follows;
        let block = self.ring.begin(&mut place, len, arrived, whole, follows);
        self.writer.take(&block, &place.lease);
        self.writer.wait();
        self.take(len)?;
        self.ring.consumed(&block);
        self.published(block, place.lease);
        self.drain_private()
    }

    fn published(&mut self, block: InFlight, bytes: crate::sys::region::Lease) {
        if block.matched {
            self.feed.send(Job {
                number: block.number,
                start: block.start,
                arrived: block.arrived,
                bytes,
            });
        } else if block.whole && self.feed.wants_blocks() {
            self.feed.tell_of_shed();
        }
    }

    /// Copies what stands first in the pipe, as much as the place holds.
    fn show(&self, place: &mut Place) -> io::Result<usize> {
        let want = place.lease.len();
        let shown = match tee(
            &self.pipe,
            &self.private.into,
            want,
            SpliceFFlags::SPLICE_F_NONBLOCK,
        ) {
            Ok(shown) => shown,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut done = 0;
        while let Some(rest) = place.lease.get_mut(done..shown)
            && !rest.is_empty()
        {
            match nix::unistd::read(&self.private.out, rest) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(shown)
    }

    /// Moves `len` bytes from the pipe into the private pipe.
    fn take(&self, len: usize) -> io::Result<()> {
        let mut left = len;
        while left > 0 {
            match splice(
                &self.pipe,
                None,
                &self.private.into,
                None,
                left,
                SpliceFFlags::SPLICE_F_NONBLOCK,
            ) {
                Ok(0) => return Ok(()),
                Ok(n) => left = left.saturating_sub(n),
                Err(Errno::EINTR) => {}
                // It held the same bytes a moment ago, so it holds them now; were it otherwise,
                // they are only read, without the evidence.
                Err(Errno::EAGAIN) => return self.throw_away(left),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn throw_away(&self, len: usize) -> io::Result<()> {
        let mut scratch = [0; 8192];
        let mut left = len;
        while let Some(part) = scratch.get_mut(..left.min(8192))
            && !part.is_empty()
        {
            match nix::unistd::read(&self.pipe, part) {
                Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
                Ok(n) => left -= n,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn drain_private(&self) -> io::Result<()> {
        let mut scratch = [0; 8192];
        let mut left = fds::waiting(&self.private.out)?;
        while left > 0 {
            match nix::unistd::read(&self.private.out, &mut scratch) {
                Ok(n) => left = left.saturating_sub(n),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for bytes or the end, at most `timeout`; whether the last writer has closed the pipe.
    fn closed(&self, timeout: PollTimeout) -> io::Result<bool> {
        let mut polled = [
            PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.leave.wake.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [pipe, _] = polled;
        Ok(pipe
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLHUP)))
    }

    /// Bytes that can be seen at once; at least two pages.
    fn capacity(&self) -> usize {
        let of = |fd: &OwnedFd| {
            fcntl(fd, FcntlArg::F_GETPIPE_SZ).map_or(8192, |n| usize::try_from(n).unwrap_or(8192))
        };
        of(&self.pipe).min(of(&self.private.into)).min(MAX_BLOCK)
    }
}

/// Lines, with a last one that has no newline.
pub(super) fn lines_in(bytes: &[u8]) -> u64 {
    let unended = !bytes.is_empty() && !bytes.ends_with(b"\n");
    memchr::memchr_iter(b'\n', bytes).count() as u64 + u64::from(unended)
}
