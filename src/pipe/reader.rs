//! Takes blocks of whole lines out of the pipe, so that a block leaves it only when it is safe.
//!
//! `tee` copies the front of the pipe without taking it. The copy is taken in (counted, shared with
//! the worker, handed to the writer), written, and only then moved out of the pipe. It is moved
//! into the private pipe, not thrown away: if the keeper is killed in the middle, the private pipe
//! shows the next keeper exactly how much of the block had left.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::layout::MAX_BLOCK;
use super::ring::{Part, Ring};
use super::source;
use super::wake::Wakes;
use super::writer::Writer;
use crate::sys::{clock, fds};

/// While a line is incomplete the pipe is read again after this time (milliseconds), even if the
/// kernel reports no new bytes.
const READ_AGAIN: u16 = 50;
/// A line that is incomplete for this long is taken as a piece. Apache never takes that long; this
/// ends a wait for bytes that cannot come, where [`Reader::is_full`] cannot tell.
const PARTIAL_PATIENCE: Duration = Duration::from_secs(5);
/// Blocks follow each other no faster, unless [`MUCH`] waits or a quarter of a small pipe: each
/// wakes several threads, which line by line costs ten times what is done with it. The first line
/// after a pause does not wait.
const PACE: Duration = Duration::from_millis(1);
const MUCH: usize = MAX_BLOCK / 4;
/// A block waits so many milliseconds for matching to make room, while matching makes progress.
const MATCH_PATIENCE: u32 = 20;
/// All blocks together wait so many milliseconds for a new worker to compile its filters and to match
/// its first lines. At less than some 50 MB a second the ring holds what comes in that time, and
/// nothing waits.
const FIRST_PATIENCE: u32 = 500;

/// The pipe that holds what [`Reader::take`] has moved. The stub makes it; each keeper inherits it.
#[derive(Debug)]
pub(super) struct PrivatePipe {
    pub(super) out: OwnedFd,
    pub(super) into: OwnedFd,
}

impl PrivatePipe {
    pub(super) fn new() -> io::Result<PrivatePipe> {
        let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        // A smaller one works too; lines longer than half of it are taken in pieces.
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
    /// Non-blocking, with a lock that keeps a second reader out.
    pub(super) pipe: OwnedFd,
    pub(super) private: PrivatePipe,
    pub(super) ring: Ring,
    pub(super) writer: Arc<Writer>,
    pub(super) wakes: Arc<Wakes>,
}

/// What to do with the bytes at the front of the pipe.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    /// So many bytes are a block.
    Take(usize, Part),
    /// An incomplete line: wait for the rest.
    Wait,
}

/// What is known of these bytes.
#[derive(Debug, Clone, Copy)]
struct View {
    /// The first byte belongs to a line whose start is taken in already.
    midline: bool,
    /// No byte will follow.
    last: bool,
    /// So many bytes without a newline are taken as a piece.
    enough: usize,
}

fn cut(shown: &[u8], view: View) -> Cut {
    if shown.is_empty() {
        return Cut::Wait;
    }
    if view.midline {
        return match memchr::memchr(b'\n', shown) {
            Some(at) => Cut::Take(at + 1, Part::Piece { follows: false }),
            None => Cut::Take(shown.len(), Part::Piece { follows: true }),
        };
    }
    match memchr::memrchr(b'\n', shown) {
        Some(at) => Cut::Take(at + 1, Part::Lines),
        None if view.last => Cut::Take(shown.len(), Part::Lines),
        None if shown.len() >= view.enough => Cut::Take(shown.len(), Part::Piece { follows: true }),
        None => Cut::Wait,
    }
}

/// How long blocks have waited for matching to make room.
#[derive(Debug, Default)]
struct Waits {
    /// The worker's number, and for how many milliseconds blocks have waited for its first lines.
    first: (u64, u32),
    /// The beats of matching when it did not make room within its time.
    hung_at: Option<u64>,
}

impl Waits {
    /// Whether a block may wait a millisecond more for the first lines of this worker. What workers
    /// tell does not make that longer.
    fn for_first_lines(&mut self, worker: u64) -> bool {
        if self.first.0 != worker {
            self.first = (worker, 0);
        }
        self.first.1 += 1;
        self.first.1 <= FIRST_PATIENCE
    }
}

impl Reader {
    /// Completes what the last keeper began, then reads until the last writer has closed the pipe.
    ///
    /// # Errors
    /// The pipe cannot be read: the next keeper finds its contents.
    pub(super) fn run(&self) -> io::Result<()> {
        self.recover()?;
        let enough = self.capacity() / 2;
        let edges = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        edges.add(
            &self.pipe,
            EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0),
        )?;
        let mut buffer = Vec::new();
        let mut partial: Option<(usize, Instant)> = None;
        let mut last: Option<Instant> = None;
        let mut waits = Waits::default();
        loop {
            source::keep_large(&self.pipe);
            // In this order: what is counted after the last writer has closed is all there is.
            let closed = self.closed(PollTimeout::ZERO)?;
            let waiting = fds::waiting(&self.pipe)?;
            if waiting == 0 {
                if closed {
                    self.writer.end_of_input();
                    self.wakes.worker();
                    return Ok(());
                }
                self.closed(PollTimeout::NONE)?;
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
            let arrived = u64::try_from(clock::boottime().as_nanos()).unwrap_or(u64::MAX);
            buffer.resize(waiting.min(MAX_BLOCK), 0);
            let shown = self.show(&mut buffer)?;
            let bytes = buffer.get(..shown).unwrap_or_default();
            let impatient = partial
                .is_some_and(|(len, since)| len == shown && since.elapsed() >= PARTIAL_PATIENCE);
            let view = View {
                midline: self.ring.books().midline == 1,
                last: closed && shown == waiting,
                enough,
            };
            let next = match cut(bytes, view) {
                Cut::Wait if shown > 0 && (impatient || self.is_stuck(shown, waiting)?) => {
                    Cut::Take(shown, Part::Piece { follows: true })
                }
                next => next,
            };
            match next {
                Cut::Take(len, part) => {
                    if part == Part::Lines {
                        self.wait_for_matching(len, &mut waits);
                    }
                    self.pass(bytes.get(..len).unwrap_or(bytes), arrived, part)?;
                }
                Cut::Wait => {
                    if partial.is_none_or(|(len, _)| len != shown) {
                        partial = Some((shown, Instant::now()));
                    }
                    match edges.wait(&mut [EpollEvent::empty()], READ_AGAIN) {
                        Ok(_) | Err(Errno::EINTR) => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            last = Some(Instant::now());
            partial = None;
        }
    }

    /// Whether the rest of a line cannot come: tiny fragments, such as a script writes, fill one of
    /// the pipes, which hold few of them. Apache would wait for this reader. `waiting` bytes were in
    /// the pipe before `shown` of them were seen.
    fn is_stuck(&self, shown: usize, waiting: usize) -> io::Result<bool> {
        Ok(shown < waiting || (self.is_full() && fds::waiting(&self.pipe)? == shown))
    }

    /// Whether the pipe takes no byte more. `false` where it cannot be opened for writing.
    fn is_full(&self) -> bool {
        let writer = File::options()
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(format!("/proc/self/fd/{}", self.pipe.as_raw_fd()));
        writer.is_ok_and(|writer| {
            let mut polled = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
            poll(&mut polled, PollTimeout::ZERO) == Ok(0)
        })
    }

    /// Moves the rest of the block that the last keeper had taken in out of the pipe.
    fn recover(&self) -> io::Result<()> {
        let books = self.ring.books();
        let len = usize::try_from(books.bytes - books.consumed).unwrap_or(0);
        if len > 0 {
            let taken = fds::waiting(&self.private.out)?.min(len);
            self.take(len - taken)?;
            self.ring.consumed();
        }
        self.wakes.worker();
        self.drain_private()
    }

    /// Takes a block in, has it matched and written, and moves it out of the pipe.
    fn pass(&self, bytes: &[u8], arrived: u64, part: Part) -> io::Result<()> {
        self.writer.take(bytes, arrived, part);
        self.wakes.worker();
        self.writer.wait();
        self.take(bytes.len())?;
        self.ring.consumed();
        self.drain_private()
    }

    /// Waits until a block fits into the ring: not at all for matching that hangs.
    fn wait_for_matching(&self, len: usize, waits: &mut Waits) {
        let mut waited = 0;
        while !self.ring.has_room(len) {
            let first = self.ring.awaits_first_lines();
            if !(first && waits.for_first_lines(self.ring.books().workers)) {
                let beats = self.ring.beats();
                if waits.hung_at == Some(beats) {
                    return;
                }
                if waited == MATCH_PATIENCE {
                    waits.hung_at = Some(beats);
                    return;
                }
                waited += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Copies the front of the pipe into the buffer.
    fn show(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        let shown = match tee(&self.pipe, &self.private.into, buffer.len(), flags) {
            Ok(shown) => shown,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..shown)
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
                // The pipe holds these bytes; if it cannot be spliced, they are read, without the
                // evidence.
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

    /// Waits for bytes or the end, at most `timeout`. Whether the last writer has closed the pipe.
    fn closed(&self, timeout: PollTimeout) -> io::Result<bool> {
        let mut polled = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [pipe] = polled;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_of_each_worker_are_waited_for_once() {
        let mut waits = Waits::default();
        for worker in 1..3 {
            for _ in 0..FIRST_PATIENCE {
                assert!(waits.for_first_lines(worker));
            }
            assert!(!waits.for_first_lines(worker) && !waits.for_first_lines(worker));
        }
    }
}
