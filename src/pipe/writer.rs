//! Writes blocks to the log file in a thread of its own, so that a write that does not come back
//! (a frozen file system, NFS) or fails (a full disk) never stops the reader. What waits to be
//! written stands in the ring's memory: the next worker goes on with it.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::destination::Destination;
use super::ring::{InFlight, Ring};
use super::tell::Tell;

/// The reader waits as long as writes come back, however slow: the buffer is
/// bounded, and a pipe that fills is what a slow disk does to Apache without us too. A write that
/// takes longer than this is not waited for.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_millis(250);
/// A failed write is tried again after this time.
const RETRY: Duration = Duration::from_millis(250);
/// Bytes of one write, so that it is seen that a slow one goes on.
const WRITE: usize = 256 * 1024;

/// The reader's and the link's side of the writer thread.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Mutex<Shared>,
    changed: Condvar,
    ring: Ring,
    /// False: there is no PATH; nothing is written.
    wanted: bool,
    tell: Tell,
}

#[derive(Debug, Default)]
struct Shared {
    /// The reader no longer waits, until a write comes back.
    stuck: bool,
    destination: Destination,
    finished: bool,
    /// Lines and bytes that had been lost when the last loss began.
    lost_before: Option<(u64, u64)>,
}

impl Writer {
    /// Starts the thread; `wanted` says whether there is a PATH at all. The file itself comes with
    /// [`Writer::set_file`].
    pub(super) fn start(ring: Ring, wanted: bool, tell: Tell) -> io::Result<Arc<Writer>> {
        let writer = Arc::new(Writer {
            shared: Mutex::default(),
            changed: Condvar::new(),
            ring,
            wanted,
            tell,
        });
        if wanted {
            let thread = Arc::clone(&writer);
            std::thread::Builder::new()
                .name("write".into())
                .spawn(move || thread.run())?;
        }
        Ok(writer)
    }

    /// The file to append to, from now on: what was taken before still goes to the last one.
    pub(super) fn set_file(&self, file: File) {
        let mut shared = self.lock();
        shared.destination.change(file, self.ring.unwritten());
        drop(shared);
        self.changed.notify_all();
    }

    /// There is no file: what is taken waits for the next one.
    pub(super) fn no_file(&self) {
        self.lock().destination.none();
    }

    /// Takes the block over: from here on it is written in order, whatever becomes of this worker.
    /// Where too much waits already it is given up.
    pub(super) fn take(&self, block: &InFlight, bytes: &[u8]) {
        if self.wanted {
            drop(self.wait_while(|| !self.ring.has_room_to_write(bytes.len())));
        }
        let before = self.lost();
        if self.ring.take_in(block, bytes, self.wanted) {
            // The writer must not be between its look and its wait.
            drop(self.lock());
            self.changed.notify_all();
            return;
        }
        self.lock().lost_before.get_or_insert(before);
        self.tell.trouble(
            "lost",
            "lines are being lost: the log file takes none, and the buffer is full",
        );
    }

    /// No block will follow.
    pub(super) fn end_of_input(&self) {
        self.ring.end_of_input(self.wanted);
    }

    /// Returns when all that was taken is written, or when that takes too long: the writer goes on
    /// trying.
    pub(super) fn wait(&self) {
        drop(self.wait_while(|| self.is_behind()));
    }

    /// Waits for that to end, as long as writes come back.
    fn wait_while(&self, condition: impl Fn() -> bool) -> MutexGuard<'_, Shared> {
        let mut shared = self.lock();
        while !shared.stuck && condition() {
            let before = self.ring.unwritten();
            let (after, outcome) = self
                .changed
                .wait_timeout_while(shared, WRITE_PATIENCE, |_| self.ring.unwritten() == before)
                .unwrap_or_else(PoisonError::into_inner);
            shared = after;
            shared.stuck = outcome.timed_out();
        }
        shared
    }

    /// Whether blocks that were taken are not written yet.
    pub(super) fn is_behind(&self) -> bool {
        self.ring.unwritten() > 0
    }

    /// Waits until everything is written, at most `grace`; what is not is given up.
    pub(super) fn finish(&self, grace: Duration) {
        let mut shared = self.lock();
        shared.finished = true;
        self.changed.notify_all();
        let _ = self
            .changed
            .wait_timeout_while(shared, grace, |_| self.is_behind());
        let (lines, bytes) = self.ring.give_up_writing();
        if bytes > 0 {
            self.tell.event(&format!(
                "{lines} lines ({bytes} bytes) are lost: the log file took none until the end"
            ));
        }
    }

    fn run(&self) {
        loop {
            let mut shared = self.lock();
            let file = loop {
                match shared.destination.file() {
                    Some(file) if self.is_behind() => break file,
                    _ if shared.finished && !self.is_behind() => return,
                    _ => {}
                }
                shared = self
                    .changed
                    .wait(shared)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(shared);
            self.write_some(&file);
        }
    }

    fn write_some(&self, file: &File) {
        let Some(bytes) = self.ring.next_unwritten() else {
            return;
        };
        let share = self.lock().destination.share(&bytes);
        let part = portion(bytes.get(..share).unwrap_or(&bytes));
        let written = (&*file).write(part);
        let last = match written {
            Ok(n) => part.get(n.saturating_sub(1)).copied(),
            Err(_) => None,
        };
        let newlines = written.as_ref().map_or(0, |n| newlines(part, *n));
        // Given back first: its place may be used at once.
        drop(bytes);
        match written {
            Ok(0) => self.pause(&io::ErrorKind::WriteZero.into()),
            Ok(n) => self.came_back(n as u64, newlines, last),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.pause(&error),
        }
    }

    fn came_back(&self, len: u64, newlines: u64, last: Option<u8>) {
        self.tell.over("write", "the log file can be written again");
        let mut shared = self.lock();
        // Both under the lock: a new file must know how much goes to the last one.
        self.ring.wrote(len, newlines);
        shared.destination.wrote(len, last);
        shared.stuck = false;
        if let Some(before) = shared.lost_before.take() {
            let (lines, bytes) = self.lost();
            self.tell.over(
                "lost",
                &format!(
                    "the log file takes lines again; {} lines ({} bytes) were lost",
                    lines.saturating_sub(before.0),
                    bytes.saturating_sub(before.1)
                ),
            );
        }
        self.changed.notify_all();
    }

    /// Lines and bytes lost so far.
    fn lost(&self) -> (u64, u64) {
        let counters = self.ring.counters();
        (counters.lines_lost, counters.lost)
    }

    fn pause(&self, error: &io::Error) {
        if self.lock().destination.failed() {
            return;
        }
        self.tell.trouble(
            "write",
            &format!("the log file cannot be written: {error}; trying again, lines are kept"),
        );
        std::thread::sleep(RETRY);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn newlines(bytes: &[u8], len: usize) -> u64 {
    memchr::memchr_iter(b'\n', bytes.get(..len).unwrap_or(bytes)).count() as u64
}

/// What of `bytes` to write at once: whole lines, because others may append to the same file.
fn portion(bytes: &[u8]) -> &[u8] {
    let most = bytes.get(..WRITE).unwrap_or(bytes);
    if most.len() == bytes.len() {
        return bytes;
    }
    let end = memchr::memrchr(b'\n', most).map_or(most.len(), |at| at + 1);
    most.get(..end).unwrap_or(most)
}
