//! The thread that writes: the engine never waits for a disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{Database, Op};
use crate::jail::Now;

/// Changes that come within this time share a commit.
const GATHER: Duration = Duration::from_millis(5);

/// Changes in one commit at most.
const MAX_GROUP: usize = 20_000;

/// Changes kept while the database cannot be written.
const MAX_BACKLOG: usize = 100_000;

/// How often a database that cannot be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

struct Job<T> {
    ops: Vec<Op>,
    now: Now,
    then: Vec<T>,
}

/// What became of a group of changes.
#[derive(Debug)]
pub struct Done<T> {
    /// What was to follow these changes, in order.
    pub then: Vec<T>,
    /// Why the database holds not all of it, or none; `None`: it is committed.
    pub trouble: Option<String>,
}

/// The way to the database. `T` is what follows when a change is committed, or will not be: the
/// engine goes on without a database that cannot be written.
pub struct Store<T> {
    jobs: Sender<Job<T>>,
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Store<T> {
    /// Starts the thread; `done` is called in it, in the order of submission. Without a database
    /// everything is done at once.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        database: Option<Database>,
        done: impl Fn(Done<T>) + Send + 'static,
    ) -> std::io::Result<Store<T>> {
        let (jobs, queue) = unbounded();
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut writer = Writer {
            database,
            backlog: Vec::new(),
            now: None,
            lost: 0,
            waiting: Arc::clone(&waiting),
        };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&queue, &done))?;
        Ok(Store {
            jobs,
            waiting,
            thread,
        })
    }

    /// Hands over changes; they are committed together, with what was handed over before.
    pub fn submit(&self, ops: Vec<Op>, now: Now, then: Vec<T>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The thread ends with this value only.
        let _ = self.jobs.send(Job { ops, now, then });
    }

    /// Submissions not done yet.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Commits what is there and ends the thread.
    pub fn finish(self) {
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

struct Writer {
    database: Option<Database>,
    backlog: Vec<Op>,
    now: Option<Now>,
    lost: u64,
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    fn run<T>(&mut self, queue: &Receiver<Job<T>>, done: &impl Fn(Done<T>)) {
        loop {
            let first = match queue.recv_timeout(RETRY) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    if !self.backlog.is_empty() {
                        let trouble = self.commit();
                        let then = Vec::new();
                        done(Done { then, trouble });
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    if !self.backlog.is_empty() {
                        self.commit();
                    }
                    return;
                }
            };
            let until = Instant::now() + GATHER;
            let mut then = Vec::new();
            let mut jobs = 0;
            let mut next = Some(first);
            while let Some(job) = next {
                jobs += 1;
                self.now = Some(job.now);
                self.backlog.extend(job.ops);
                then.extend(job.then);
                let enough = self.backlog.len() >= MAX_GROUP;
                next = if enough {
                    None
                } else {
                    queue.recv_deadline(until).ok()
                };
            }
            let trouble = self.commit();
            self.waiting.fetch_sub(jobs, Ordering::Relaxed);
            done(Done { then, trouble });
        }
    }

    /// Commits the backlog; what cannot be written stays in it, up to its bound.
    fn commit(&mut self) -> Option<String> {
        let Some(database) = &mut self.database else {
            self.backlog.clear();
            return None;
        };
        let now = self.now?;
        if self.backlog.is_empty() {
            return None;
        }
        match database.commit(&self.backlog, now) {
            Ok(()) => {
                self.backlog.clear();
                self.lost = 0;
                None
            }
            Err(error) => {
                let excess = self.backlog.len().saturating_sub(MAX_BACKLOG);
                self.backlog.drain(..excess);
                self.lost += excess as u64;
                let lost = match self.lost {
                    0 => String::new(),
                    lost => format!(", {lost} changes given up"),
                };
                Some(format!("the database cannot be written: {error}{lost}"))
            }
        }
    }
}
