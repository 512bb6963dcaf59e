//! The thread that writes: the engine never waits for a disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::mend;
use super::{Database, Error, Home, Op, Opened, Saved};
use crate::jail::Now;

/// Changes that come within this time share a commit.
const GATHER: Duration = Duration::from_millis(5);

/// Changes in one commit at most.
const MAX_GROUP: usize = 20_000;

/// Changes kept while the database cannot be written.
const MAX_BACKLOG: usize = 100_000;

/// How often a database that cannot be written is tried again.
const RETRY: Duration = Duration::from_secs(2);

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
    /// Something that was put right, to be told.
    pub event: Option<String>,
    /// The database does not hold all that is known, and perhaps holds what is not: what it holds,
    /// where that was not read before. To be answered with [`Op::Anew`] and everything.
    pub anew: Option<Saved>,
}

/// The way to the database. `T` is what follows when a change is committed, or will not be: the
/// engine goes on without a database that cannot be written.
pub struct Store<T> {
    jobs: Sender<Job<T>>,
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Store<T> {
    /// Starts the thread; `done` is called in it, in the order of submission. A database that
    /// could not be opened is tried again.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        home: Home,
        opened: &mut Opened,
        done: impl Fn(Done<T>) + Send + 'static,
    ) -> std::io::Result<Store<T>> {
        let (jobs, queue) = unbounded();
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut writer = Writer {
            home,
            unread: !opened.whole && opened.database.is_none(),
            trouble: opened.trouble.clone().filter(|_| opened.database.is_none()),
            database: opened.database.take(),
            backlog: Vec::new(),
            now: None,
            retry: Instant::now(),
            lost: 0,
            incomplete: false,
            event: None,
            waiting: Arc::clone(&waiting),
        };
        if writer.database.is_none() {
            writer.incomplete = true;
            writer.retry += RETRY;
        }
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
    home: Home,
    database: Option<Database>,
    backlog: Vec<Op>,
    now: Option<Now>,
    /// When a database that cannot be used is tried again.
    retry: Instant,
    /// Why it cannot be used, as told last.
    trouble: Option<String>,
    /// Changes given up.
    lost: u64,
    /// What is in the database is not what the engine knows.
    incomplete: bool,
    /// The engine has not read what is in it.
    unread: bool,
    event: Option<String>,
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    fn run<T>(&mut self, queue: &Receiver<Job<T>>, done: &impl Fn(Done<T>)) {
        loop {
            let first = match queue.recv_timeout(RETRY) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    if !self.backlog.is_empty() || self.database.is_none() {
                        self.retry = Instant::now();
                        done(self.commit(Vec::new()));
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    if !self.backlog.is_empty() {
                        self.retry = Instant::now();
                        done(self.commit(Vec::new()));
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
                // All that is known comes: what went before is in it.
                if job.ops.iter().any(|op| matches!(op, Op::Anew)) {
                    self.incomplete = false;
                    self.lost = 0;
                }
                self.backlog.extend(job.ops);
                then.extend(job.then);
                let enough = self.backlog.len() >= MAX_GROUP;
                next = if enough {
                    None
                } else {
                    queue.recv_deadline(until).ok()
                };
            }
            let group = self.commit(then);
            self.waiting.fetch_sub(jobs, Ordering::Relaxed);
            done(group);
        }
    }

    /// Commits the backlog; what cannot be written stays in it, up to its bound.
    fn commit<T>(&mut self, then: Vec<T>) -> Done<T> {
        let mut anew = None;
        if let Some(now) = self.now
            && Instant::now() >= self.retry
        {
            match self.write(now) {
                Ok(saved) => {
                    self.trouble = None;
                    anew = saved;
                }
                Err(text) => {
                    self.retry = Instant::now() + RETRY;
                    self.trouble = Some(text);
                }
            }
        }
        let excess = self.backlog.len().saturating_sub(MAX_BACKLOG);
        if excess > 0 {
            self.backlog.drain(..excess);
            self.lost += excess as u64;
            self.incomplete = true;
        }
        let lost = match self.lost {
            0 => String::new(),
            lost => format!(" ({lost} changes given up)"),
        };
        Done {
            then,
            trouble: self.trouble.as_ref().map(|text| format!("{text}{lost}")),
            event: self.event.take(),
            anew,
        }
    }

    /// Writes the backlog, where there is a database or one can be had; what the engine is to be
    /// told of a database that it does not know.
    fn write(&mut self, now: Now) -> Result<Option<Saved>, String> {
        let path = self.home.path.display().to_string();
        let cannot = |error: &Error| format!("the database {path} cannot be written: {error}");
        let mut saved = Saved::default();
        if self.database.is_none() {
            let (database, found) = self.home.open_and_load(now).map_err(|e| cannot(&e))?;
            if std::mem::take(&mut self.unread) {
                saved = found;
            }
            self.event = Some(format!("the database {path} can be used again"));
            self.database = Some(database);
        }
        let Some(database) = &mut self.database else {
            return Ok(None);
        };
        let error = match database.commit(&self.backlog, now) {
            Ok(()) => {
                database.be_patient(true);
                self.backlog.clear();
                return Ok(std::mem::take(&mut self.incomplete).then_some(saved));
            }
            Err(error) => error,
        };
        let damaged = mend::is_damage(&error);
        if !damaged && !matches!(error, Error::Gone) {
            // Commands wait for their commit; once is enough.
            database.be_patient(false);
            return Err(cannot(&error));
        }
        // It must be closed before it is moved.
        self.database = None;
        self.incomplete = true;
        let database = self.begin_anew(damaged, now).map_err(|e| cannot(&e))?;
        self.database = Some(database);
        self.backlog.clear();
        self.incomplete = false;
        self.event = Some(format!(
            "{path}: {error}; a new database is made of what the engine knows{}",
            if damaged {
                ", the damaged one is kept beside it"
            } else {
                ""
            }
        ));
        Ok(Some(saved))
    }

    /// A database in place of the one that is gone or damaged, with the backlog in it.
    fn begin_anew(&self, damaged: bool, now: Now) -> Result<Database, Error> {
        let opened = match damaged {
            true => mend::replace(&self.home, now),
            false => self.home.open(),
        };
        let mut database = match opened {
            // Somebody has put something else there.
            Err(error) if !damaged && mend::is_damage(&error) => mend::replace(&self.home, now)?,
            opened => opened?,
        };
        database.commit(&self.backlog, now)?;
        Ok(database)
    }
}
