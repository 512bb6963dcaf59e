//! Writes to the log file in a thread of the keeper, so that a write that does not return (a frozen
//! file system, NFS) or fails (a full disk) never stops reading. What waits to be written is in the
//! ring's memory: the next keeper continues with it.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::logfile::LogFile;
use super::report::Report;
use super::ring::{Part, Ring};

/// Reading waits for writing as long as writes return, however slow: a slow disk does the same to
/// Apache without pipeban. It does not wait for a write that takes longer than this.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_millis(250);
/// A failed write is tried again after this time.
const RETRY: Duration = Duration::from_millis(250);
/// Bytes of one write, so that a slow one shows progress.
const WRITE: usize = 256 * 1024;

/// The reader's side of the writer thread.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Mutex<Shared>,
    changed: Condvar,
    ring: Ring,
    /// False: there is no PATH, and nothing is written.
    wanted: bool,
    /// The reader's: never waits for a disk.
    report: Report,
}

#[derive(Debug, Default)]
struct Shared {
    /// The reader does not wait until a write returns.
    stuck: bool,
    finished: bool,
    /// Lines and bytes that had been lost before the current loss.
    lost_before: Option<(u64, u64)>,
}

impl Writer {
    /// Starts the thread; without `log` nothing is written.
    pub(super) fn start(
        ring: Ring,
        log: Option<LogFile>,
        report: Report,
    ) -> io::Result<Arc<Writer>> {
        let writer = Arc::new(Writer {
            shared: Mutex::default(),
            changed: Condvar::new(),
            ring,
            wanted: log.is_some(),
            report,
        });
        if let Some(log) = log {
            let thread = Arc::clone(&writer);
            std::thread::Builder::new()
                .name("write".into())
                .spawn(move || thread.run(log))?;
        }
        Ok(writer)
    }

    /// Takes a block in: from here on it is matched, and written in order. It is lost if too much
    /// waits to be written already.
    pub(super) fn take(&self, bytes: &[u8], arrived: u64, part: Part) {
        if self.wanted {
            self.wait_while(|| !self.ring.has_room_to_write(bytes.len()));
        }
        let before = self.lost();
        if self.ring.take_in(bytes, arrived, part, self.wanted) {
            // The writer must not be between its check and its wait.
            drop(self.lock());
            self.changed.notify_all();
            return;
        }
        self.lock().lost_before.get_or_insert(before);
        self.report.problem(
            "lost",
            "lines are lost: the log file cannot be written, and the buffer of 16 MiB is full",
        );
    }

    /// No block will follow.
    pub(super) fn end_of_input(&self) {
        self.ring.end_of_input(self.wanted);
    }

    /// Returns when all blocks are written, or when that takes too long.
    pub(super) fn wait(&self) {
        self.wait_while(|| self.is_behind());
    }

    /// Waits for the condition to end, as long as writes return.
    fn wait_while(&self, condition: impl Fn() -> bool) {
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
    }

    fn is_behind(&self) -> bool {
        self.ring.unwritten() > 0
    }

    /// Waits until everything is written, at most `grace`; the rest is lost.
    pub(super) fn finish(&self, grace: Duration) {
        let mut shared = self.lock();
        shared.finished = true;
        self.changed.notify_all();
        let _ = self
            .changed
            .wait_timeout_while(shared, grace, |_| self.is_behind());
        let (lines, bytes) = self.ring.give_up_writing();
        if bytes > 0 {
            self.report.warning(&format!(
                "{lines} lines ({bytes} bytes) are lost: the log file could not be written \
                 before the end of input"
            ));
        }
    }

    fn run(&self, mut log: LogFile) {
        let mut buffer = Vec::new();
        // The last byte written was inside a line.
        let mut midline = false;
        log.check();
        while self.wait_for_work(&log) {
            if !midline && log.due().is_some_and(|at| at <= Instant::now()) {
                log.check();
            }
            let Some(mut file) = log.file().filter(|_| self.is_behind()) else {
                continue;
            };
            self.ring.next_unwritten(&mut buffer, WRITE);
            let part = whole_lines(&buffer, self.ring.unwritten());
            match file.write(part) {
                Ok(0) => self.pause(&mut log, &ErrorKind::WriteZero.into()),
                Ok(n) => {
                    let written = part.get(..n).unwrap_or(part);
                    midline = !written.ends_with(b"\n");
                    log.wrote(written);
                    log.report()
                        .over("write", "the log file can be written again");
                    self.came_back(written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.pause(&mut log, &error);
                    // Another file takes the rest of the line.
                    midline = false;
                }
            }
        }
    }

    /// False: everything is written, and no block will follow.
    fn wait_for_work(&self, log: &LogFile) -> bool {
        let mut shared = self.lock();
        loop {
            let behind = self.is_behind();
            if shared.finished && !behind {
                return false;
            }
            // Without a file nothing can be written before the next check.
            let check = log.check_at().or(log.due().filter(|_| behind));
            if behind && log.file().is_some() {
                return true;
            }
            let now = Instant::now();
            shared = match check {
                Some(at) if at <= now => return true,
                Some(at) => {
                    let waited = self.changed.wait_timeout(shared, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(shared);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    fn came_back(&self, written: &[u8]) {
        let newlines = memchr::memchr_iter(b'\n', written).count() as u64;
        let mut shared = self.lock();
        self.ring.wrote(written.len() as u64, newlines);
        shared.stuck = false;
        if let Some(before) = shared.lost_before.take() {
            let (lines, bytes) = self.lost();
            self.report.over(
                "lost",
                &format!(
                    "the log file can be written again; {} lines ({} bytes) are lost",
                    lines.saturating_sub(before.0),
                    bytes.saturating_sub(before.1)
                ),
            );
        }
        self.changed.notify_all();
    }

    /// Lines and bytes lost so far.
    fn lost(&self) -> (u64, u64) {
        let books = self.ring.books();
        (books.lost_lines, books.lost)
    }

    fn pause(&self, log: &mut LogFile, error: &io::Error) {
        log.report().problem(
            "write",
            &format!(
                "cannot write the log file: {error}; trying again, up to 16 MiB of lines are kept"
            ),
        );
        log.check();
        std::thread::sleep(RETRY);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of the buffer to write at once: whole lines, because other processes may append to the same
/// file. So many bytes wait in all.
fn whole_lines(buffer: &[u8], waiting: u64) -> &[u8] {
    if buffer.len() as u64 >= waiting {
        return buffer;
    }
    let end = memchr::memrchr(b'\n', buffer).map_or(buffer.len(), |at| at + 1);
    buffer.get(..end).unwrap_or(buffer)
}
