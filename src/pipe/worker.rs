//! The process that reads what strangers wrote: not root, restarted when it ends before its time.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::link::{self, ToWorker};
use super::matching::{Compile, ConfigText, Feed, Matching};
use super::reader::{End, Leave, PrivatePipe, Reader};
use super::ring::{Counter, Ring};
use super::tell::Tell;
use super::uplink::{self, LAST_PATIENCE, Speaker, Wake};
use super::writer::Writer;
use crate::config::Config;
use crate::record::Kind;
use crate::sys::privileges::{Identity, irrevocably_drop_privileges};

/// Exit status: the pipe is read to its end.
pub(super) const END_OF_INPUT: i32 = 0;
/// Exit status: something failed; the rest stands in the pipe.
pub(super) const FAILED: i32 = 2;
/// Exit status: the keeper is gone and another one waits; the rest stands in the pipe.
pub(super) const HANDOVER: i32 = 3;

/// How often a worker whose keeper is gone looks for the next one.
const LOOK_FOR_KEEPER: Duration = Duration::from_millis(100);
/// At the end of input, how long what is not written yet is tried.
const WRITE_GRACE: Duration = Duration::from_secs(10);

/// All a worker works with. Everything is inherited or handed over; it opens nothing but the
/// engine's socket and syslog.
pub(super) struct Worker {
    pub(super) kind: Kind,
    pub(super) path: Option<PathBuf>,
    pub(super) engine: PathBuf,
    /// Non-blocking and locked.
    pub(super) pipe: OwnedFd,
    pub(super) private: PrivatePipe,
    pub(super) ring: Ring,
    pub(super) link: OwnedFd,
    /// The log file, where it is open already.
    pub(super) file: Option<File>,
    /// How many keepers there had been when this worker was forked.
    pub(super) keeper: u64,
    /// `None`: there is no root to give up.
    pub(super) identity: Option<Identity>,
    pub(super) compile: Arc<Compile>,
    pub(super) tell: Tell,
}

impl Worker {
    /// Gives up root, then works to the end of input. Returns the exit status.
    pub(super) fn run(self) -> i32 {
        // Also a thread that panics ends the worker: the keeper starts another one.
        std::panic::set_hook(Box::new(|_| std::process::abort()));
        self.tell.without_file();
        let trusted = self.give_up_root();
        let tell = self.tell.clone();
        match self.work(trusted) {
            Ok(End::OfInput) => END_OF_INPUT,
            Ok(End::Handover) => HANDOVER,
            Err(error) => {
                tell.event(&format!("the worker ends: {error}; it is started again"));
                FAILED
            }
        }
    }

    fn give_up_root(&self) -> bool {
        let Some(identity) = self.identity else {
            return true;
        };
        match irrevocably_drop_privileges(identity) {
            Ok(()) => true,
            Err(error) => {
                self.tell.trouble(
                    "privileges",
                    &format!(
                        "lines are only passed on, nobody is banned: the worker could not give \
                         up root: {error}"
                    ),
                );
                false
            }
        }
    }

    pub(super) fn work(self, trusted: bool) -> std::io::Result<End> {
        let writer = Writer::start(self.ring.clone(), self.path.is_some(), self.tell.clone())?;
        if let Some(file) = self.file {
            writer.set_file(file);
        }
        let matching = Matching::new(self.compile, self.ring.clone(), self.tell.clone());
        if !trusted {
            matching.off();
        }
        let reading = Arc::clone(matching.reading());
        let (feed, results) = Feed::new(Arc::clone(&matching));
        let config = Arc::new(Mutex::new(None));
        // As many as the link can want to say before the uplink listens.
        let (wake, wakes) = bounded(64);
        let link = Arc::new(self.link);

        let leave = Arc::new(Leave::new()?);

        let listener = Listener {
            link: Arc::clone(&link),
            matching: Arc::clone(&matching),
            writer: Arc::clone(&writer),
            config: Arc::clone(&config),
            wake: wake.clone(),
            tell: self.tell.clone(),
            trusted,
            ring: self.ring.clone(),
            keeper: self.keeper,
            leave: Arc::clone(&leave),
        };
        std::thread::Builder::new()
            .name("link".into())
            .spawn(move || listener.run())?;

        let speaker = Speaker {
            socket: self.engine,
            kind: self.kind,
            path: self.path,
            matching,
            config,
            reading,
        };
        let (told_sender, told): (_, Receiver<Vec<String>>) = bounded(1);
        let (ring, tell) = (self.ring.clone(), self.tell.clone());
        std::thread::Builder::new()
            .name("uplink".into())
            .spawn(move || {
                let _ = told_sender.send(uplink::run(speaker, ring, results, wakes, tell));
            })?;

        let mut reader = Reader {
            pipe: self.pipe,
            private: self.private,
            ring: self.ring,
            writer: Arc::clone(&writer),
            feed,
            leave,
        };
        if reader.run()? == End::Handover {
            return Ok(End::Handover);
        }
        reader.feed.close();
        writer.finish(WRITE_GRACE);
        // A full channel means that the uplink hangs; then the time below is over before it hears.
        let _ = wake.try_send(Wake::End);
        // A little longer than the uplink's own patience: it may hang in a connect.
        if let Ok(lines) = told.recv_timeout(LAST_PATIENCE + Duration::from_secs(1))
            && !lines.is_empty()
        {
            // The keeper may be gone; then there is nobody to tell.
            let _ = link::send_told(&link, &lines);
        }
        Ok(End::OfInput)
    }
}

/// Hears the keeper.
struct Listener {
    link: Arc<OwnedFd>,
    matching: Arc<Matching>,
    writer: Arc<Writer>,
    config: Arc<Mutex<Option<String>>>,
    wake: Sender<Wake>,
    tell: Tell,
    trusted: bool,
    ring: Ring,
    keeper: u64,
    leave: Arc<Leave>,
}

impl Listener {
    fn run(&self) {
        self.listen();
        // The keeper is gone. The worker goes on with what it has, until the next keeper waits for
        // the lock: that one can restart workers and hear of new configurations.
        while self.ring.get(Counter::Keepers) == self.keeper {
            std::thread::sleep(LOOK_FOR_KEEPER);
        }
        self.leave.ask();
    }

    fn listen(&self) {
        while let Ok(Some(message)) = link::receive(&self.link) {
            match message {
                ToWorker::LogFile(file) => self.writer.set_file(file),
                ToWorker::NoFile => self.writer.no_file(),
                ToWorker::Off => self.matching.off(),
                ToWorker::Config { hash, text } if self.trusted => self.configure(hash, text),
                ToWorker::Config { .. } => {}
            }
        }
    }

    fn configure(&self, hash: String, text: Vec<u8>) {
        if let Ok(config) = serde_json::from_slice::<Config>(&text) {
            self.tell.configure(&config.syslog);
        }
        if let Ok(mut current) = self.config.lock() {
            *current = Some(hash.clone());
        }
        self.matching.configure(ConfigText {
            hash,
            text: Arc::new(text),
        });
        // A full channel already holds such a message.
        let _ = self.wake.try_send(Wake::Config);
    }
}
