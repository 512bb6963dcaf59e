//! The process that outlives Apache's word: holds the pipe, opens the log file, starts the worker
//! again, until the end of input. Root, in a session of its own; parses no line. Single-threaded,
//! so that it may fork.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

use super::crashes::{Crashes, Ended};
use super::engine_link::{EngineLink, Given, PATIENCE, Starter};
use super::logfile::{Change, LogFile};
use super::matching::compiler;
use super::output::Streams;
use super::reader::PrivatePipe;
use super::ring::{Counter, Ring};
use super::tell::Tell;
use super::worker::{END_OF_INPUT, FAILED, Worker};
use super::{Log, link, source};
use crate::config::{self, Config, Paths};
use crate::control::config_hash;
use crate::sys::privileges::{Identity, worker_identity};
use crate::sys::{fds, process};

/// A worker that cannot be forked is tried again after this time.
const FORK_AGAIN: Duration = Duration::from_millis(100);
/// How often a worker's end is looked for where the kernel gives no descriptor for it.
const LOOK_FOR_END: Duration = Duration::from_millis(100);
/// How often the end of who starts an engine is looked for.
const LOOK_FOR_HELPERS: Duration = Duration::from_secs(1);

/// What the stub hands over.
pub(super) struct Inherited {
    pub(super) log: Log,
    pub(super) starter: Starter,
    /// Apache's main process, where it started the stub.
    pub(super) apache: Option<Pid>,
    pub(super) ring: Ring,
    pub(super) private: PrivatePipe,
    pub(super) streams: Streams,
    /// What a rehearsal tells goes in here; the stub prints it.
    pub(super) told: OwnedFd,
}

/// Runs to the end of input. Returns the exit status.
pub(super) fn run(inherited: Inherited) -> i32 {
    let tell = Tell::new(inherited.log.kind, inherited.log.path());
    let refused = inherited.log.refused.join("; ");
    if !refused.is_empty() {
        tell.trouble("arguments", &refused);
    }
    // From here on a worker that lost its keeper knows that it may hand over.
    inherited.ring.count(Counter::Keepers, 1);
    let number = inherited.ring.get(Counter::Keepers);
    let pipe = match source::open_and_lock(&tell) {
        Ok(pipe) => pipe,
        Err(error) => {
            tell.trouble("pipe", &format!("the pipe cannot be read: {error}"));
            return FAILED;
        }
    };
    // The inherited description is Apache's business and the stub's.
    let _ = process::redirect_to_null(true);
    Keeper::new(inherited, number, pipe, tell).serve()
}

struct Keeper {
    inherited: Inherited,
    /// Keepers are numbered from 1.
    number: u64,
    pipe: OwnedFd,
    tell: Tell,
    paths: Paths,
    identity: Option<Identity>,
    worker: Option<Running>,
    start_at: Instant,
    crashes: Crashes,
    /// `None`: there is no PATH.
    file: Option<LogFile>,
    config: Option<Accepted>,
    /// When the last good configuration is taken, because no engine has answered by then.
    fall_back_at: Option<Instant>,
    engine: EngineLink,
    helpers: Vec<Pid>,
}

struct Running {
    pid: Pid,
    ended: Option<OwnedFd>,
    link: OwnedFd,
}

struct Accepted {
    hash: String,
    memory: OwnedFd,
}

impl Keeper {
    fn new(mut inherited: Inherited, number: u64, pipe: OwnedFd, tell: Tell) -> Keeper {
        let now = Instant::now();
        let streams = std::mem::take(&mut inherited.streams);
        let file = inherited.log.output.clone();
        let file = file.map(|output| LogFile::new(output, streams, now, &tell));
        let paths = config::paths_of(&inherited.starter.config_file);
        let identity = geteuid().is_root().then(|| worker_identity(&paths.user));
        let engine = EngineLink::new(paths.socket(), inherited.starter.clone(), now);
        Keeper {
            inherited,
            number,
            pipe,
            tell,
            paths,
            identity,
            worker: None,
            start_at: now,
            crashes: Crashes::default(),
            file,
            config: None,
            fall_back_at: Some(now + PATIENCE),
            engine,
            helpers: Vec::new(),
        }
    }

    fn serve(&mut self) -> i32 {
        loop {
            let now = Instant::now();
            // The file first: a worker that has it needs no buffer.
            self.look_at_file_when_due(now);
            self.start_worker_when_due(now);
            self.helpers.extend(self.engine.work(now));
            self.fall_back_when_due(now);
            self.helpers.retain(|child| still_runs(*child));

            let ready = self.wait(now);
            if ready.engine {
                for given in self.engine.read(Instant::now()) {
                    self.accept(given);
                }
            }
            if ready.link {
                self.hear_worker();
            }
            if ready.pipe {
                self.begin_file();
            }
            if let Some(ended) = self.worker_end() {
                match ended {
                    None => return END_OF_INPUT,
                    Some(how) => {
                        self.inherited.ring.count(Counter::Restarts, 1);
                        if how == Ended::Killed {
                            self.inherited.ring.excuse();
                        }
                        let was = self.crashes.pass_only();
                        self.start_at = Instant::now() + self.crashes.note(how, Instant::now());
                        if self.crashes.pass_only() && !was {
                            self.tell.trouble(
                                "crashes",
                                "lines are only passed on, nobody is banned: the worker ended too \
                                 often within a minute; `pipeban reload` tries again",
                            );
                        }
                    }
                }
            }
        }
    }

    /// Waits for whatever comes first.
    fn wait(&self, now: Instant) -> Ready {
        let mut due = vec![];
        due.extend(self.engine.due());
        due.extend(self.fall_back_at);
        due.extend(self.file.as_ref().and_then(LogFile::due));
        if !self.helpers.is_empty() {
            due.push(now + LOOK_FOR_HELPERS);
        }
        match &self.worker {
            None => due.push(self.start_at),
            Some(worker) if worker.ended.is_none() => due.push(now + LOOK_FOR_END),
            Some(_) => {}
        }
        let timeout = due.into_iter().min().map_or(PollTimeout::NONE, |at| {
            // Rounded up, else the last millisecond is a busy loop.
            let left = at.saturating_duration_since(now) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let engine = self.engine.socket().map(AsFd::as_fd);
        let link = self.worker.as_ref().map(|worker| worker.link.as_fd());
        let ended = self
            .worker
            .as_ref()
            .and_then(|w| w.ended.as_ref())
            .map(AsFd::as_fd);
        let awaits_line = self.file.as_ref().is_some_and(LogFile::awaits_line);
        let pipe = awaits_line.then(|| self.pipe.as_fd());
        let mut polled: Vec<PollFd<'_>> = [engine, link, ended, pipe]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // An interruption is only an early look.
        let _ = poll(&mut polled, timeout);
        let is_ready = |fd: Option<std::os::fd::BorrowedFd<'_>>| {
            fd.is_some_and(|fd| {
                polled
                    .iter()
                    .any(|p| p.as_fd().as_raw_fd() == fd.as_raw_fd() && p.any() == Some(true))
            })
        };
        Ready {
            engine: is_ready(engine),
            link: is_ready(link),
            pipe: is_ready(pipe),
        }
    }

    fn look_at_file_when_due(&mut self, now: Instant) {
        let due = |file: &&mut LogFile| file.due().is_some_and(|at| at <= now);
        let Some(file) = self.file.as_mut().filter(due) else {
            return;
        };
        let wall = file.wall();
        let Some(change) = file.look(now, &wall, &self.tell) else {
            return;
        };
        let Some(worker) = &self.worker else {
            return;
        };
        let told = match (change, self.file_copy()) {
            (Change::Opened, Some(file)) => link::send_log_file(&worker.link, &file.into()),
            (Change::Opened, None) | (Change::Gone, _) => link::send_no_file(&worker.link),
        };
        // One that hangs may have its queue full; of one that has ended the next is told anew.
        if told.is_err()
            && let Some(file) = &mut self.file
        {
            file.tell_again(now);
        }
    }

    /// The pipe has its first line, or its end.
    fn begin_file(&mut self) {
        let ring = &self.inherited.ring;
        // The worker may have been quicker.
        let any = fds::waiting(&self.pipe).is_ok_and(|bytes| bytes > 0)
            || ring.unwritten() > 0
            || ring.counters().bytes > 0;
        if let Some(file) = &mut self.file {
            file.begin(any, Instant::now());
        }
    }

    /// A copy of the log file's descriptor.
    fn file_copy(&self) -> Option<File> {
        let file = self.file.as_ref().and_then(LogFile::file)?;
        file.try_clone().ok()
    }

    fn start_worker_when_due(&mut self, now: Instant) {
        if self.worker.is_some() || now < self.start_at {
            return;
        }
        match self.start_worker() {
            Ok(worker) => {
                self.tell.over("fork", "the worker runs");
                self.worker = Some(worker);
                self.hand_config_to_worker();
            }
            Err(error) => {
                self.tell
                    .trouble("fork", &format!("no worker can be started: {error}"));
                self.start_at = now + FORK_AGAIN;
            }
        }
    }

    fn start_worker(&self) -> std::io::Result<Running> {
        let (ours, theirs) = link::pair()?;
        let inherited = &self.inherited;
        let worker = Worker {
            kind: inherited.log.kind,
            path: inherited.log.path().map(Path::to_owned),
            engine: self.paths.socket(),
            pipe: self.pipe.try_clone()?,
            private: inherited.private.try_clone()?,
            ring: inherited.ring.clone(),
            link: theirs,
            file: self.file_copy(),
            keeper: self.number,
            identity: self.identity,
            compile: compiler(&inherited.log, inherited.apache),
            tell: self.tell.clone(),
        };
        let mut keep = vec![
            worker.pipe.as_raw_fd(),
            worker.private.out.as_raw_fd(),
            worker.private.into.as_raw_fd(),
            worker.link.as_raw_fd(),
        ];
        keep.extend(worker.file.as_ref().map(AsRawFd::as_raw_fd));
        let pid = process::fork_child(&keep, move || worker.run())?;
        Ok(Running {
            pid,
            ended: process::watch(pid).ok(),
            link: ours,
        })
    }

    // A message that cannot be sent goes to a worker that has just ended, or hangs: its end is
    // noticed, and the next one gets everything anew.

    fn hand_config_to_worker(&self) {
        let Some(worker) = &self.worker else {
            return;
        };
        let _ = match &self.config {
            _ if self.crashes.pass_only() => link::send_off(&worker.link),
            Some(config) => link::send_config(&worker.link, &config.hash, &config.memory),
            None if self.fall_back_at.is_none() => link::send_off(&worker.link),
            None => Ok(()),
        };
    }

    fn accept(&mut self, given: Given) {
        self.fall_back_at = None;
        let known = self.config.as_ref().is_some_and(|c| c.hash == given.hash);
        if given.reload || !known {
            // Another chance for matching.
            self.crashes.forgive();
            self.tell.over("crashes", "lines are matched again");
        } else {
            return;
        }
        self.take(given.hash, &given.text);
    }

    fn take(&mut self, hash: String, text: &[u8]) {
        if let Ok(config) = serde_json::from_slice::<Config>(text) {
            self.tell.configure(&config.syslog);
        }
        match link::sealed(text) {
            Ok(memory) => {
                self.config = Some(Accepted { hash, memory });
                self.tell
                    .over("config", "there is a configuration; lines are matched");
            }
            Err(error) => self.tell.trouble(
                "config",
                &format!("the configuration cannot be handed to the worker: {error}"),
            ),
        }
        self.hand_config_to_worker();
    }

    /// No engine has answered: the last good configuration, else the files.
    fn fall_back_when_due(&mut self, now: Instant) {
        if self.fall_back_at.is_none_or(|at| now < at) {
            return;
        }
        self.fall_back_at = None;
        let last_good = std::fs::read(self.paths.last_good()).ok();
        let usable = |text: &Vec<u8>| serde_json::from_slice::<Config>(text).is_ok();
        if let Some(text) = last_good.filter(usable) {
            self.take(config_hash(&text), &text);
            return;
        }
        let file = &self.inherited.starter.config_file;
        let problem = match config::load(file) {
            Ok(config) => match serde_json::to_vec(&config) {
                Ok(text) => {
                    self.take(config_hash(&text), &text);
                    return;
                }
                Err(error) => error.to_string(),
            },
            Err(problems) => problems.first().map_or_else(
                || format!("{}: cannot be used", file.display()),
                first_problem,
            ),
        };
        self.tell.trouble(
            "config",
            &format!("lines are only passed on, nobody is banned: {problem}; see `pipeban check`"),
        );
        self.hand_config_to_worker();
    }

    fn hear_worker(&mut self) {
        let Some(worker) = &self.worker else {
            return;
        };
        if let Ok(Some(lines)) = link::receive_told(&worker.link)
            && let Ok(told) = self.inherited.told.try_clone()
        {
            // Nobody listens where Apache has ended the stub.
            let _ = File::from(told).write_all(&lines);
        }
    }

    /// `Some(None)`: the worker has read everything. `Some(Some(..))`: it must be started again.
    fn worker_end(&mut self) -> Option<Option<Ended>> {
        let worker = self.worker.as_ref()?;
        let ended = match waitpid(worker.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, END_OF_INPUT)) => None,
            Ok(WaitStatus::Exited(..)) => Some(Ended::Crashed),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                if !self.crashes.pass_only() {
                    self.tell.event(&format!(
                        "the worker was ended by {signal}; another one starts"
                    ));
                }
                Some(if is_own_fault(signal) {
                    Ended::Crashed
                } else {
                    Ended::Killed
                })
            }
            // Somebody else has waited for it, which nobody does.
            Err(nix::errno::Errno::ECHILD) => Some(Ended::Killed),
            Ok(_) | Err(_) => return None,
        };
        self.worker = None;
        Some(ended)
    }
}

/// What there is to do.
struct Ready {
    engine: bool,
    link: bool,
    pipe: bool,
}

fn first_problem(problem: &config::Problem) -> String {
    let file = problem.file.display();
    match problem.place {
        Some((line, column)) => format!("{file}:{line}:{column}: {}", problem.message),
        None => format!("{file}: {}", problem.message),
    }
}

fn is_own_fault(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::SIGSEGV
            | Signal::SIGABRT
            | Signal::SIGBUS
            | Signal::SIGILL
            | Signal::SIGFPE
            | Signal::SIGSYS
            | Signal::SIGTRAP
    )
}

fn still_runs(child: Pid) -> bool {
    matches!(
        waitpid(child, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive)
    )
}
