//! The process that parses what clients wrote: without rights, and started again when it ends. It
//! reads blocks from memory that it cannot write, and holds neither the pipe nor the log file.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::layout::MATCH_THREADS;
use super::link::{self, Start, ToWorker};
use super::log::{END_OF_INPUT, FAILED};
use super::matching::{Compile, ConfigText, Matching, compiler};
use super::outbox::{Outbox, Wake};
use super::report::Report;
use super::uplink::{self, LAST_PATIENCE, Speaker};
use super::view::{Block, View};
use crate::config::Config;
use crate::sys::privileges::{Identity, irrevocably_drop_privileges};
use crate::sys::sandbox::{self, Confined};
use crate::sys::{process, signals};

/// Blocks that are copied out of the ring before they are matched.
const MAX_JOBS: usize = 4;

/// The worker's process: stdin is the link to the keeper. Returns the exit status.
pub(super) fn run() -> i32 {
    // A thread that panics ends the worker, and the keeper starts another one.
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    // Rust's handlers for these ignore the first one.
    let _ = signals::set_default(&[Signal::SIGSEGV, Signal::SIGBUS]);
    // It is run as /proc/self/exe.
    let _ = prctl::set_name(c"pipeban");
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return FAILED;
    }
    let Ok(link) = stdin.as_fd().try_clone_to_owned() else {
        return FAILED;
    };
    let started = link::receive(&link);
    let Ok(Some(ToWorker::Start(start, files, wake))) = started else {
        return FAILED;
    };
    let link = Arc::new(link);
    let report = Report::over_link(start.kind, Arc::clone(&link));
    let trusted = process::redirect_to_null(true).is_ok() && give_up_root(&start, &report);
    let Ok(view) = View::map(&files, start.number) else {
        report.warning("the worker cannot map the keeper's memory; it starts again");
        return FAILED;
    };
    drop(files);
    // Confined it cannot count the processors it may use.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MATCH_THREADS));
    let confined = sandbox::confine();
    let worker = Worker {
        threads,
        confined,
        compile: compiler(start.kind, start.format, start.apache.map(Pid::from_raw)),
        view: Arc::new(view),
        wake,
        link,
        report: report.clone(),
        // A worker without a keeper ends: the next keeper's worker continues.
        keeper_gone: Box::new(|| process::exit_now(FAILED)),
    };
    match worker.work(trusted) {
        Ok(()) => END_OF_INPUT,
        Err(error) => {
            report.warning(&format!("the worker failed and starts again: {error}"));
            FAILED
        }
    }
}

fn give_up_root(start: &Start, report: &Report) -> bool {
    let Some((uid, gid)) = start.identity else {
        return true;
    };
    match irrevocably_drop_privileges(Identity { uid, gid }) {
        Ok(()) => true,
        Err(error) => {
            report.problem(
                "privileges",
                &format!(
                    "lines are passed through and not matched, no client is banned: the worker \
                     cannot give up root: {error}"
                ),
            );
            false
        }
    }
}

/// What the worker's threads share.
pub(super) struct Worker {
    pub(super) threads: usize,
    pub(super) confined: Confined,
    pub(super) view: Arc<View>,
    /// Readable when there is a block.
    pub(super) wake: OwnedFd,
    pub(super) link: Arc<OwnedFd>,
    pub(super) compile: Arc<Compile>,
    pub(super) report: Report,
    /// Called when the keeper has ended without an end of input.
    pub(super) keeper_gone: Box<dyn Fn() + Send>,
}

impl Worker {
    /// Matches until the end of input, and sends the hits. `trusted` false: matches nothing.
    pub(super) fn work(self, trusted: bool) -> io::Result<()> {
        let (waker, wakes) = bounded(64);
        let outbox = Arc::new(Outbox::new(
            Arc::clone(&self.view),
            waker.clone(),
            self.report.clone(),
        ));
        let matching = Matching::new(
            self.compile,
            Arc::clone(&self.view),
            Arc::clone(&outbox),
            self.report.clone(),
        );
        if !trusted {
            matching.off();
        }
        let config = Arc::new(Mutex::new(None));
        let link = self.link;
        let ended = Arc::new(AtomicBool::new(false));

        let listener = Listener {
            link: Arc::clone(&link),
            matching: Arc::clone(&matching),
            config: Arc::clone(&config),
            waker: waker.clone(),
            report: self.report.clone(),
            trusted,
            ended: Arc::clone(&ended),
            keeper_gone: self.keeper_gone,
            wake: self.wake.try_clone()?,
        };
        std::thread::Builder::new()
            .name("link".into())
            .spawn(move || listener.run())?;

        let speaker = Speaker {
            link: Arc::clone(&link),
            confined: self.confined,
            matching: Arc::clone(&matching),
            config,
            outbox,
            view: Arc::clone(&self.view),
            report: self.report,
        };
        let (sender, answers): (_, Receiver<Vec<String>>) = bounded(1);
        std::thread::Builder::new()
            .name("uplink".into())
            .spawn(move || {
                let _ = sender.send(uplink::run(speaker, wakes));
            })?;

        take_blocks(&self.view, &self.wake, &matching, self.threads, &ended)?;
        // A full channel means that the uplink hangs; then the time below is over before it hears.
        let _ = waker.try_send(Wake::End);
        // A little longer than the uplink's own patience: it may hang in a connect.
        if let Ok(lines) = answers.recv_timeout(LAST_PATIENCE + Duration::from_secs(1))
            && !lines.is_empty()
        {
            // Without a keeper the lines are not printed.
            let _ = link::send_answers(&link, &lines);
        }
        Ok(())
    }
}

/// Hands blocks to the match threads until the end of input; returns when all are matched.
fn take_blocks(
    view: &Arc<View>,
    wake: &OwnedFd,
    matching: &Arc<Matching>,
    threads: usize,
    ended: &AtomicBool,
) -> io::Result<()> {
    let mut next = view.progress().done;
    let mut jobs: Option<Sender<Block>> = None;
    let (done, all_done) = bounded::<()>(0);
    loop {
        let last = ended.load(Ordering::Acquire);
        while let Some(block) = view.block(next) {
            next += 1;
            // Nothing is started before the first block: Apache starts every logger twice, and the
            // first one gets none.
            let jobs = match &jobs {
                Some(jobs) => jobs,
                None => jobs.insert(start_threads(matching, threads, &done)?),
            };
            if jobs.send(block).is_err() {
                return Err(io::Error::other("no thread matches"));
            }
        }
        if last {
            break;
        }
        wait(wake)?;
    }
    // Closed when all threads have ended.
    drop((jobs, done));
    select! { recv(all_done) -> _ => {} }
    Ok(())
}

fn start_threads(
    matching: &Arc<Matching>,
    threads: usize,
    done: &Sender<()>,
) -> io::Result<Sender<Block>> {
    let (sender, receiver) = bounded::<Block>(MAX_JOBS);
    for thread in 0..threads {
        let (jobs, done) = (receiver.clone(), done.clone());
        let matching = Arc::clone(matching);
        std::thread::Builder::new()
            .name("match".into())
            .spawn(move || {
                for block in jobs {
                    matching.work(thread, block);
                }
                drop(done);
            })?;
    }
    Ok(sender)
}

fn wait(wake: &OwnedFd) -> io::Result<()> {
    let mut polled = [PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    // It does not block; what is read is only how often it was written.
    let _ = nix::unistd::read(wake, &mut [0; 8]);
    Ok(())
}

/// Hears the keeper.
struct Listener {
    link: Arc<OwnedFd>,
    matching: Arc<Matching>,
    config: Arc<Mutex<Option<String>>>,
    waker: Sender<Wake>,
    report: Report,
    trusted: bool,
    ended: Arc<AtomicBool>,
    keeper_gone: Box<dyn Fn() + Send>,
    wake: OwnedFd,
}

impl Listener {
    fn run(&self) {
        while let Ok(Some(message)) = link::receive(&self.link) {
            match message {
                ToWorker::Off => self.matching.off(),
                ToWorker::Config { hash, text } if self.trusted => self.configure(hash, text),
                ToWorker::Config { .. } | ToWorker::Start(..) => {}
                // With a full channel the uplink requests another one later.
                ToWorker::Engine(engine, hash) => {
                    let _ = self.waker.try_send(Wake::Engine(Some((engine, hash))));
                }
                ToWorker::NoEngine => {
                    let _ = self.waker.try_send(Wake::Engine(None));
                }
                ToWorker::End => {
                    self.ended.store(true, Ordering::Release);
                    let _ = nix::unistd::write(&self.wake, &1u64.to_ne_bytes());
                }
            }
        }
        (self.keeper_gone)();
    }

    fn configure(&self, hash: String, text: Vec<u8>) {
        if let Ok(config) = serde_json::from_slice::<Config>(&text) {
            self.report.configure(&config.syslog);
        }
        if let Ok(mut current) = self.config.lock() {
            *current = Some(hash.clone());
        }
        self.matching.configure(ConfigText {
            hash,
            text: Arc::new(text),
        });
        // A full channel already holds such a message.
        let _ = self.waker.try_send(Wake::Config);
    }
}
