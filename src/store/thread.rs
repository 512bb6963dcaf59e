//! The thread that writes: the engine never waits for a disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::database::{Database, Home};
use super::model::{Error, Op, Saved};
use super::open::{Opened, is_damage, open_or_begin, set_aside};
use crate::jail::Now;

/// Changes that come within this time share a commit.
const GATHER: Duration = Duration::from_millis(5);

/// Changes in one commit at most.
const MAX_GROUP: usize = 20_000;

/// Changes kept while the database cannot be written; beyond it all of them are dropped, and the
/// engine sends everything.
const MAX_BACKLOG: usize = 100_000;

/// How often pipeban tries again to write.
const RETRY: Duration = Duration::from_secs(2);

struct Job<T> {
    ops: Vec<Op>,
    now: Now,
    then: Vec<T>,
}

/// What became of a group of changes.
#[derive(Debug)]
pub struct Done<T> {
    /// What follows these changes, in order.
    pub then: Vec<T>,
    /// Whether the database has all changes up to here.
    pub committed: bool,
    /// Why the database lacks some of them or all.
    pub trouble: Option<String>,
    /// What pipeban repaired, for the log.
    pub event: Option<String>,
    /// The database lacks what the engine knows: answer with [`Op::Clear`] and everything. Holds
    /// what the engine has not read of the database yet.
    pub rewrite: Option<Saved>,
}

/// The way to the database. `T` is what follows a commit, or the failure of one: the engine goes
/// on without a database that cannot be written.
pub struct Store<T> {
    jobs: Sender<Job<T>>,
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Store<T> {
    /// Starts the thread, which calls `done` in the order of submission. It keeps trying to open a
    /// database that could not be opened.
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
        let database = opened.database.take();
        let missing = database.is_none();
        let mut writer = Writer {
            home,
            trouble: opened.trouble.clone().filter(|_| missing),
            database,
            backlog: Vec::new(),
            now: None,
            retry: Instant::now() + if missing { RETRY } else { Duration::ZERO },
            dropped: 0,
            incomplete: missing,
            lacking: missing,
            unread: missing && !opened.whole,
            event: None,
        };
        let left = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&queue, &left, &done))?;
        Ok(Store {
            jobs,
            waiting,
            thread,
        })
    }

    /// Commits these changes together, after what was submitted before.
    pub fn submit(&self, ops: Vec<Op>, now: Now, then: Vec<T>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The thread lives as long as this value.
        let _ = self.jobs.send(Job { ops, now, then });
    }

    /// Submissions not done yet.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Commits what waits and ends the thread.
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
    /// When to try again after a failure.
    retry: Instant,
    /// The last failure.
    trouble: Option<String>,
    /// Changes dropped from the backlog.
    dropped: u64,
    /// The database lacks changes that the backlog does not hold either.
    incomplete: bool,
    /// The same until the engine has sent everything.
    lacking: bool,
    /// The engine has not read what is in the database.
    unread: bool,
    event: Option<String>,
}

impl Writer {
    fn run<T>(&mut self, queue: &Receiver<Job<T>>, waiting: &AtomicUsize, done: &impl Fn(Done<T>)) {
        loop {
            let left = !self.backlog.is_empty() || self.database.is_none();
            let first = queue.recv_timeout(if left { RETRY } else { Duration::MAX });
            let ended = matches!(first, Err(RecvTimeoutError::Disconnected));
            let until = Instant::now() + GATHER;
            let (mut jobs, mut then) = (0, Vec::new());
            let mut next = first.ok();
            while let Some(job) = next {
                jobs += 1;
                self.now = Some(job.now);
                if job.ops.iter().any(|op| matches!(op, Op::Clear)) {
                    (self.incomplete, self.lacking, self.dropped) = (false, false, 0);
                }
                self.backlog.extend(job.ops);
                then.extend(job.then);
                next = if self.backlog.len() < MAX_GROUP {
                    queue.recv_deadline(until).ok()
                } else {
                    None
                };
            }
            if jobs == 0 {
                if ended && self.backlog.is_empty() {
                    return;
                }
                self.retry = Instant::now();
            }
            let group = self.commit(then);
            waiting.fetch_sub(jobs, Ordering::Relaxed);
            done(group);
            if ended {
                return;
            }
        }
    }

    /// Commits the backlog; what cannot be written stays in it, up to its bound.
    fn commit<T>(&mut self, then: Vec<T>) -> Done<T> {
        let mut rewrite = None;
        if let Some(now) = self.now
            && Instant::now() >= self.retry
        {
            let written = self.write(now);
            match written.or_else(|error| self.begin_again(error, now)) {
                Ok(saved) => {
                    self.trouble = None;
                    rewrite = saved;
                }
                Err(error) => {
                    self.retry = Instant::now() + RETRY;
                    let path = self.home.path.display();
                    self.trouble = Some(format!("cannot write the database {path}: {error}"));
                }
            }
        }
        if self.backlog.len() > MAX_BACKLOG {
            self.dropped += self.backlog.len() as u64;
            self.backlog.clear();
            (self.incomplete, self.lacking) = (true, true);
        }
        let dropped = match self.dropped {
            0 => String::new(),
            dropped => format!(" ({dropped} changes dropped from memory)"),
        };
        Done {
            then,
            committed: self.trouble.is_none() && self.backlog.is_empty() && !self.lacking,
            trouble: self.trouble.as_ref().map(|text| format!("{text}{dropped}")),
            event: self.event.take(),
            rewrite,
        }
    }

    /// Writes the backlog; opens the database first where that failed before. `Some`: the
    /// database is incomplete, and the engine has not read this of it.
    fn write(&mut self, now: Now) -> Result<Option<Saved>, Error> {
        let mut found = Saved::default();
        let database = match &mut self.database {
            Some(database) => database,
            None => {
                let (database, saved, damage) = open_or_begin(&self.home, now)?;
                if std::mem::take(&mut self.unread) {
                    found = saved;
                }
                let path = self.home.path.display();
                let again = || format!("the database {path} can be used again");
                self.event
                    .get_or_insert_with(|| damage.unwrap_or_else(again));
                self.database.insert(database)
            }
        };
        let written = database.commit(&self.backlog, now);
        // Commands wait for their commit: only the first one waits for a lock.
        database.be_patient(written.is_ok());
        written?;
        self.backlog.clear();
        Ok(std::mem::take(&mut self.incomplete).then_some(found))
    }

    /// In place of a database that is damaged or gone a new one begins.
    fn begin_again(&mut self, error: Error, now: Now) -> Result<Option<Saved>, Error> {
        let damaged = is_damage(&error);
        if !damaged && !matches!(error, Error::Gone) {
            return Err(error);
        }
        // It must be closed before it is renamed.
        self.database = None;
        (self.incomplete, self.lacking) = (true, true);
        let path = self.home.path.display();
        let mut text = format!("{path}: {error}; pipeban begins a new database with what it knows");
        if damaged {
            let copy = set_aside(&self.home.path, now)?;
            text += &format!(", the old one is kept as {}", copy.display());
        }
        self.event = Some(text);
        self.write(now)
    }
}
