//! Writes blocks to the log file in a thread of its own, so that a write that does not come back
//! (a frozen file system, NFS) or fails (a full disk) never stops the reader.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ring::{Counter, Ring};
use super::tell::Tell;

/// The reader waits as long as writes come back, however slow: memory would be lost with the
/// worker, and a pipe that fills is what a slow disk does to Apache without us too. A write that
/// takes longer than this is not waited for.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_millis(250);
/// Bytes that wait in memory while writing is stuck; more is given up and counted.
pub(super) const MAX_WAITING: usize = 16 * 1024 * 1024;
/// A failed write is tried again after this time.
const RETRY: Duration = Duration::from_millis(250);
/// Bytes of one write, so that it is seen that a slow one goes on.
const WRITE: usize = 256 * 1024;
/// A buffer that has grown beyond this is given back when it is empty.
const KEEP_BUFFER: usize = 1024 * 1024;

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
    /// Blocks that wait for the writer, one behind the other.
    waiting: Vec<u8>,
    /// Bytes ever handed over, and bytes the writer is done with.
    handed: u64,
    done: u64,
    /// The reader no longer waits, until a write comes back.
    stuck: bool,
    file: Option<Arc<File>>,
    finished: bool,
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

    /// The file to append to, from now on.
    pub(super) fn set_file(&self, file: File) {
        self.lock().file = Some(Arc::new(file));
        self.changed.notify_all();
    }

    /// Has the block written, in order. Returns when it is, or when that takes too long: then the
    /// writer keeps it and goes on trying. Where too much waits already the block is given up.
    pub(super) fn write(&self, block: &[u8]) {
        if !self.wanted {
            return;
        }
        let room = MAX_WAITING.saturating_sub(block.len()) as u64;
        let full = |shared: &Shared| shared.handed - shared.done > room;
        let mut shared = self.wait_while(self.lock(), full);
        if full(&shared) {
            drop(shared);
            self.ring.count(Counter::Lost, block.len() as u64);
            self.tell.trouble(
                "lost",
                "lines are being lost: the log file takes none, and the buffer is full",
            );
            return;
        }
        shared.waiting.extend_from_slice(block);
        shared.handed += block.len() as u64;
        let mine = shared.handed;
        self.changed.notify_all();
        let shared = self.wait_while(shared, |shared| shared.done < mine);
        self.ring.set(Counter::Buffered, shared.handed - shared.done);
    }

    /// Waits for that to end, as long as writes come back.
    fn wait_while<'a>(
        &self,
        mut shared: MutexGuard<'a, Shared>,
        condition: impl Fn(&Shared) -> bool,
    ) -> MutexGuard<'a, Shared> {
        while !shared.stuck && condition(&shared) {
            let done = shared.done;
            let (after, outcome) = self
                .changed
                .wait_timeout_while(shared, WRITE_PATIENCE, |shared| shared.done == done)
                .unwrap_or_else(PoisonError::into_inner);
            shared = after;
            shared.stuck = outcome.timed_out();
        }
        shared
    }

    /// Whether blocks that have left the pipe wait in memory.
    pub(super) fn is_behind(&self) -> bool {
        let shared = self.lock();
        shared.done < shared.handed
    }

    /// Waits until everything is written, at most `grace`; what is not is given up.
    pub(super) fn finish(&self, grace: Duration) {
        let mut shared = self.lock();
        shared.finished = true;
        self.changed.notify_all();
        let (shared, _) = self
            .changed
            .wait_timeout_while(shared, grace, |shared| shared.done < shared.handed)
            .unwrap_or_else(PoisonError::into_inner);
        let lost = shared.handed - shared.done;
        if lost > 0 {
            self.ring.count(Counter::Lost, lost);
            self.tell.trouble(
                "lost",
                &format!("{lost} bytes are lost: the log file took none until the end"),
            );
        }
        self.ring.set(Counter::Buffered, 0);
    }

    fn run(&self) {
        let mut batch = Vec::new();
        loop {
            let mut shared = self.lock();
            while shared.waiting.is_empty() || shared.file.is_none() {
                if shared.finished && shared.waiting.is_empty() {
                    return;
                }
                shared = self
                    .changed
                    .wait(shared)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut batch, &mut shared.waiting);
            drop(shared);

            let mut rest = batch.as_slice();
            while !rest.is_empty() {
                let (part, after) = rest.split_at_checked(portion(rest)).unwrap_or((rest, &[]));
                self.write_all(part);
                self.came_back(part.len());
                rest = after;
            }
            batch.clear();
            batch.shrink_to(KEEP_BUFFER);
        }
    }

    fn came_back(&self, len: usize) {
        let mut shared = self.lock();
        shared.done += len as u64;
        if std::mem::take(&mut shared.stuck) {
            self.tell.over("lost", "the log file takes lines again");
        }
        if self.ring.get(Counter::Buffered) > 0 {
            let open = shared.handed - shared.done;
            self.ring.set(Counter::Buffered, open);
        }
        self.changed.notify_all();
    }

    /// Every byte, once, however often it takes.
    fn write_all(&self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let Some(file) = self.lock().file.clone() else {
                return;
            };
            match (&*file).write(rest) {
                Ok(0) => self.pause(&io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.ring.count(Counter::Written, n as u64);
                    self.tell.over("write", "the log file can be written again");
                    rest = rest.get(n..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.pause(&error),
            }
        }
    }

    fn pause(&self, error: &io::Error) {
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

/// How much of `bytes` to write at once: whole lines, because others may append to the same file.
fn portion(bytes: &[u8]) -> usize {
    let most = bytes.get(..WRITE).unwrap_or(bytes);
    if most.len() == bytes.len() {
        return bytes.len();
    }
    memchr::memrchr(b'\n', most).map_or(most.len(), |at| at + 1)
}
