//! The keeper's thread that asks the engine for the configuration, has an engine started, and
//! starts workers. Nothing here holds up a line.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, geteuid};

use super::crashes::{Crashes, Ended};
use super::engine_link::{self, EngineLink, Given, PATIENCE, Starter};
use super::family::command_line;
use super::layout::Files;
use super::link::{self, FromWorker, Start};
use super::log::Log;
use super::report::Report;
use super::ring::Ring;
use super::running::{End, Running};
use super::wake::Wakes;
use crate::apache::listeners;
use crate::config::{self, Config, Paths};
use crate::control::{VERSION, WorkerHello, config_hash};
use crate::disk;
use crate::record::display;
use crate::sys::privileges::worker_identity;

/// A worker that cannot be started is tried again after this time.
const START_AGAIN: Duration = Duration::from_millis(100);
/// What a worker may request in a second: a connection at each of its hellos, a log line at each
/// new problem.
const MAX_REQUESTS: u32 = 20;
/// Crashes on one block, after which it is not matched.
const MAX_ATTEMPTS: u32 = 2;

pub(super) struct Supervisor {
    log: Log,
    starter: Starter,
    apache: Option<Pid>,
    ring: Ring,
    files: Files,
    wakes: Arc<Wakes>,
    answers: OwnedFd,
    report: Report,
    /// The same for the reader.
    reader_report: Report,
    paths: Paths,
    worker: Option<Running>,
    /// The second that began then, and how much a worker has requested in it.
    requests: (Instant, u32),
    start_at: Instant,
    crashes: Crashes,
    /// Crashes by the stream offset of the block.
    attempts: HashMap<u64, u32>,
    config: Option<Accepted>,
    /// When to use the last good configuration, unless an engine answers before.
    fall_back_at: Option<Instant>,
    engine: EngineLink,
}

struct Accepted {
    hash: String,
    memory: OwnedFd,
}

impl Supervisor {
    #[expect(clippy::too_many_arguments, reason = "called once")]
    pub(super) fn new(
        log: Log,
        starter: Starter,
        apache: Option<Pid>,
        ring: Ring,
        files: Files,
        wakes: Arc<Wakes>,
        answers: OwnedFd,
        [report, reader_report]: [Report; 2],
    ) -> Supervisor {
        let now = Instant::now();
        let pass_only = log.pass_only;
        let paths = disk::paths_to_obey(&starter.config_file);
        if let Some(apache) = apache {
            // Where it fails, the engine reads Apache's configuration.
            let _ = listeners::publish(&paths.runtime, apache);
        }
        let engine = EngineLink::new(paths.socket(), starter.clone(), now);
        Supervisor {
            log,
            starter,
            apache,
            ring,
            files,
            wakes,
            answers,
            report,
            reader_report,
            paths,
            worker: None,
            requests: (now, 0),
            start_at: now,
            crashes: Crashes::default(),
            attempts: HashMap::new(),
            config: None,
            fall_back_at: (!pass_only).then_some(now + PATIENCE),
            engine,
        }
    }

    /// Runs until the last worker has sent its hits.
    pub(super) fn run(mut self) {
        loop {
            let now = Instant::now();
            self.start_worker_when_due(now);
            if !self.log.pass_only {
                self.engine.work(now, &self.report);
            }
            self.fall_back_when_due(now);
            if let Some(worker) = &mut self.worker {
                worker.watch(&self.ring, &self.wakes, now);
                if self.wakes.ended() && worker.send_end(&self.ring, now) {
                    return;
                }
            }
            let ready = self.wait(now);
            if ready.wake {
                self.wakes.clear_supervisor();
            }
            if ready.engine {
                for given in self.engine.read(Instant::now()) {
                    self.accept(given);
                }
            }
            if ready.link {
                self.hear_worker();
            }
            if self.worker_has_ended() {
                return;
            }
        }
    }

    /// Waits for whatever comes first.
    fn wait(&self, now: Instant) -> Ready {
        let mut due = vec![];
        due.extend(self.engine.due().filter(|_| !self.log.pass_only));
        due.extend(self.fall_back_at);
        due.extend(self.worker.iter().flat_map(|worker| worker.due(now)));
        match &self.worker {
            None => due.push(self.start_at),
            Some(worker) if worker.ended.is_none() => due.push(now + START_AGAIN),
            Some(_) => {}
        }
        let timeout = due.into_iter().min().map_or(PollTimeout::NONE, |at| {
            // Rounded up, or the last millisecond is a busy loop.
            let left = at.saturating_duration_since(now) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let worker = self.worker.as_ref();
        let wake = Some(self.wakes.supervisor_fd());
        let engine = self.engine.socket().map(AsFd::as_fd);
        let link = worker.and_then(|w| w.link.as_ref()).map(AsFd::as_fd);
        let ended = worker.and_then(|w| w.ended.as_ref()).map(AsFd::as_fd);
        let mut polled: Vec<PollFd<'_>> = [wake, engine, link, ended]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // An interruption only makes the next round earlier.
        let _ = poll(&mut polled, timeout);
        let is_ready = |fd: Option<BorrowedFd<'_>>| {
            fd.is_some_and(|fd| {
                polled
                    .iter()
                    .any(|p| p.as_fd().as_raw_fd() == fd.as_raw_fd() && p.any() == Some(true))
            })
        };
        Ready {
            wake: is_ready(wake),
            engine: is_ready(engine),
            link: is_ready(link),
        }
    }

    fn start_worker_when_due(&mut self, now: Instant) {
        if self.worker.is_some() || now < self.start_at {
            return;
        }
        let identity = geteuid().is_root().then(|| {
            let identity = worker_identity(&self.paths.user);
            (identity.uid, identity.gid)
        });
        let start = Start {
            number: self.ring.begin_worker(),
            kind: self.log.kind,
            format: self.log.format.clone(),
            path: self.log.path().map(Path::to_owned),
            apache: self.apache.map(Pid::as_raw),
            identity,
        };
        match Running::start(&start, &self.starter.exe, &self.files, &self.wakes) {
            Ok(worker) => {
                self.report.over("start", "the worker runs");
                self.worker = Some(worker);
                self.hand_config_to_worker();
            }
            Err(error) => {
                self.report.problem(
                    "start",
                    &format!(
                        "cannot start a worker: {error}; lines are passed through and not matched"
                    ),
                );
                self.start_at = now + START_AGAIN;
            }
        }
    }

    // A message that cannot be sent goes to a worker that has just ended, or hangs: the next one
    // gets everything again.

    fn hand_config_to_worker(&self) {
        let Some(link) = self.worker.as_ref().and_then(|w| w.link.as_ref()) else {
            return;
        };
        let _ = match &self.config {
            _ if self.crashes.pass_only() => link::send_off(link),
            Some(config) => link::send_config(link, &config.hash, &config.memory),
            None if self.fall_back_at.is_none() => link::send_off(link),
            None => Ok(()),
        };
    }

    fn accept(&mut self, given: Given) {
        self.fall_back_at = None;
        let known = self.config.as_ref().is_some_and(|c| c.hash == given.hash);
        if !given.reload && known {
            return;
        }
        // Matching gets another chance.
        self.crashes.forgive();
        self.report.over("crashes", "lines are matched again");
        self.take(given.hash, &given.text);
    }

    fn take(&mut self, hash: String, text: &[u8]) {
        if let Ok(config) = serde_json::from_slice::<Config>(text) {
            self.report.configure(&config.syslog);
            self.reader_report.configure(&config.syslog);
        }
        match link::sealed(text) {
            Ok(memory) => {
                self.config = Some(Accepted { hash, memory });
                self.report
                    .over("config", "there is a configuration; lines are matched");
            }
            Err(error) => self.report.problem(
                "config",
                &format!("cannot hand the configuration to the worker: {error}"),
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
        let last_good = disk::read_to_obey(&self.paths.last_good()).ok();
        let usable = |text: &String| serde_json::from_str::<Config>(text).is_ok();
        if let Some(text) = last_good.filter(usable) {
            self.take(config_hash(&text), text.as_bytes());
            return;
        }
        let file = &self.starter.config_file;
        let problem = match disk::load_to_obey(file) {
            Ok(config) => match serde_json::to_vec(&config) {
                Ok(text) => {
                    self.take(config_hash(&text), &text);
                    return;
                }
                Err(error) => error.to_string(),
            },
            Err(problems) => problems
                .first()
                .map_or_else(|| format!("{}: unusable", file.display()), first_problem),
        };
        self.report.problem(
            "config",
            &format!(
                "lines are passed through and not matched, no client is banned: {problem}; see \
                 `pipeban check`"
            ),
        );
        self.hand_config_to_worker();
    }

    fn hear_worker(&mut self) {
        let Some(worker) = &mut self.worker else {
            return;
        };
        let Some(link) = &worker.link else {
            return;
        };
        match link::receive_from_worker(link) {
            Ok(Some(FromWorker::Answers(lines))) => {
                if let Ok(answers) = self.answers.try_clone() {
                    // If Apache has ended the stub, the lines are not printed.
                    let _ = File::from(answers).write_all(&lines);
                }
            }
            Ok(Some(FromWorker::Connect)) => self.connect_worker(),
            Ok(Some(FromWorker::Report(severity, text))) => {
                if self.may_request() {
                    self.report.of_worker(severity, &text);
                }
            }
            // A closed link stays readable; a worker without one hears no end.
            Ok(None) | Err(_) => {
                worker.link = None;
                worker.kill();
            }
        }
    }

    /// Answers with a connection to the engine, if there is one.
    fn connect_worker(&mut self) {
        let permitted = !self.log.pass_only && self.may_request();
        let Some(worker) = &self.worker else {
            return;
        };
        let Some(link) = &worker.link else {
            return;
        };
        let matching = !self.crashes.pass_only();
        let config = self.config.as_ref().filter(|_| matching);
        let config = config.map(|config| config.hash.clone());
        let hash = config.clone().unwrap_or_default();
        let hello = WorkerHello {
            version: VERSION,
            stream: self.ring.stream(),
            pid: worker.pid(),
            kind: self.log.kind,
            path: self.log.path().map(shown_path),
            config,
            apache: self.apache.map(command_line).unwrap_or_default(),
            bytes: Some(self.ring.books().bytes),
        };
        let connect = || engine_link::connect_worker(&self.paths.socket(), hello).ok();
        let engine = permitted.then(connect).flatten();
        // If it cannot be sent, the worker requests it again.
        let _ = link::send_engine(link, engine.as_ref(), &hash);
    }

    fn may_request(&mut self) -> bool {
        let now = Instant::now();
        if now - self.requests.0 >= Duration::from_secs(1) {
            self.requests = (now, 0);
        }
        self.requests.1 += 1;
        self.requests.1 <= MAX_REQUESTS
    }

    /// True: the worker has done everything. A worker that ended before is noted.
    fn worker_has_ended(&mut self) -> bool {
        let Some(worker) = &mut self.worker else {
            return false;
        };
        let (how, why) = match worker.end() {
            None => return false,
            Some(End::OfInput) => return true,
            Some(End::Early(how, why)) => (how, why),
        };
        self.worker = None;
        if !self.crashes.pass_only() {
            self.report
                .warning(&format!("the worker {why}; another one starts"));
        }
        if how == Ended::Crashed {
            self.blame_blocks();
        }
        let before = self.crashes.pass_only();
        let now = Instant::now();
        self.start_at = now + self.crashes.note(how, now);
        if self.crashes.pass_only() && !before {
            self.report.problem(
                "crashes",
                "lines are passed through and not matched, no client is banned: the worker \
                 crashed too often within a minute; `pipeban reload` tries again",
            );
        }
        false
    }

    fn blame_blocks(&mut self) {
        if self.attempts.len() > 100 {
            self.attempts.clear();
        }
        for (block, start) in self.ring.in_hand() {
            let attempts = self.attempts.entry(start).or_default();
            *attempts += 1;
            if *attempts >= MAX_ATTEMPTS {
                self.ring.skip(block);
                self.report.warning(&format!(
                    "matching crashed twice on the lines at offset {start} of the stream: they \
                     are not matched"
                ));
            }
        }
    }
}

/// What has happened.
struct Ready {
    wake: bool,
    engine: bool,
    link: bool,
}

/// A message can only hold UTF-8.
fn shown_path(path: &Path) -> PathBuf {
    display(path.as_os_str().as_encoded_bytes(), 4_096).into()
}

fn first_problem(problem: &config::Problem) -> String {
    let file = problem.file.display();
    match problem.place {
        Some((line, column)) => format!("{file}:{line}:{column}: {}", problem.message),
        None => format!("{file}: {}", problem.message),
    }
}
