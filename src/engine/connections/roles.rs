//! What a connection is for, and what a worker sends.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::control::{
    Command, Counters, LineHit, Reading, Request, SlowestFilter, Undecided, WorkerHello,
    WorkerStatus,
};
use crate::record::{Kind, display};
use crate::sys::sandbox::Confined;

/// Hits that are decided about together end with the message that reaches this.
const MAX_TOGETHER: usize = 200;

/// Bytes shown of a filter's name that a worker sends.
const MAX_FILTER_NAME: usize = 64;

/// What arrived, checked against the sender's role and rights.
pub(crate) enum Event {
    /// A worker expects [`Connections::welcome`].
    Worker {
        connection: u64,
        stream: u64,
        /// See [`WorkerHello::bytes`].
        bytes: Option<u64>,
        /// The command line of its Apache.
        apache: Vec<String>,
    },
    /// A keeper expects the configuration, now and after each reload.
    Keeper { connection: u64 },
    /// A command expects [`Connections::answer`].
    Command { connection: u64, command: Command },
    /// Hits of a worker, to be acknowledged.
    Hits {
        connection: u64,
        stream: u64,
        kind: Kind,
        hits: Vec<LineHit>,
    },
    /// A worker saw that many browsers use an address.
    Shared(IpAddr),
    /// A worker saw access records of these clients.
    Seen(Vec<IpAddr>),
    /// A worker's patterns gave up on lines.
    Undecided(Vec<Undecided>),
    /// A connection was refused: a line to log.
    Refused(String),
    /// Another thread has a result.
    Woken,
    /// The engine is to end.
    Signal,
}

/// Bytes shown of why a layer of the sandbox is missing.
const MAX_REASON: usize = 200;

/// If this many lines are all of another format, that is no accident.
const MANY_UNREAD: u64 = 100;

/// Bytes shown of a path: the longest one there is.
const MAX_PATH: usize = 4_096;

pub(super) enum Role {
    Unknown,
    Worker(Box<Worker>),
    Keeper,
    Command,
}

pub(super) struct Worker {
    hello: WorkerHello,
    counters: Counters,
    reading: Reading,
    slowest: Option<SlowestFilter>,
    confined: Confined,
}

pub(super) const MISPLACED: &str = "a message that this connection may not send";

impl Worker {
    pub(super) fn new(mut hello: WorkerHello) -> Box<Worker> {
        hello.path = hello.path.map(|path| shown_path(&path));
        Box::new(Worker {
            hello,
            counters: Counters::default(),
            reading: Reading::default(),
            slowest: None,
            confined: Confined::default(),
        })
    }

    /// Whether it reads an access log: not if no line so far was of its format.
    pub(super) fn reads_access_log(&self) -> bool {
        let unread = self.counters.unparsed > 0 && self.counters.matched == 0;
        self.hello.kind == Kind::Access && self.hello.config.is_some() && !unread
    }

    /// What is wrong if no line of many was of its format.
    pub(super) fn unread(&self) -> Option<String> {
        let lines = self.counters.unparsed;
        if lines < MANY_UNREAD || self.counters.matched > 0 {
            return None;
        }
        let path = self.hello.path.as_ref();
        let path = path.map_or(String::new(), |path| format!(" {}", path.display()));
        let format = self.reading.format.as_deref().unwrap_or("auto");
        let format = display(format.as_bytes(), MAX_REASON);
        Some(format!(
            "none of {lines} lines of the {} log{path} has the format `{format}`, so they can ban no \
             client: `pipeban check` names what is wrong, `pipeban status` shows lines",
            self.hello.kind
        ))
    }

    pub(super) fn stream(&self) -> u64 {
        self.hello.stream
    }

    /// # Errors
    /// What is wrong with the request.
    pub(super) fn request(
        &mut self,
        connection: u64,
        request: Request,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        match request {
            Request::Hits(more) => self.hits(connection, more, events),
            Request::Counters(counters) => self.counters = counters,
            Request::Reading(reading) => self.reading = reading.bounded(),
            Request::Slowest(slowest) => {
                // Shown, and used for nothing else.
                let filter = display(slowest.filter.as_bytes(), MAX_FILTER_NAME);
                self.slowest = Some(SlowestFilter { filter, ..slowest });
            }
            Request::Confined(confined) => {
                let shown = |text: String| display(text.as_bytes(), MAX_REASON);
                self.confined = Confined {
                    landlock: shown(confined.landlock),
                    seccomp: shown(confined.seccomp),
                    limits: shown(confined.limits),
                };
            }
            Request::Undecided(patterns) => events.push(Event::Undecided(patterns)),
            Request::Seen { clients } if self.hello.kind == Kind::Access => {
                events.push(Event::Seen(clients));
            }
            Request::Shared { addr } => events.push(Event::Shared(addr)),
            _ => return Err(MISPLACED.to_owned()),
        }
        Ok(())
    }

    /// Hits that arrive one by one are decided about together: one change of the firewall for all
    /// that waits.
    fn hits(&self, connection: u64, more: Vec<LineHit>, events: &mut Vec<Event>) {
        if let Some(Event::Hits {
            connection: last,
            hits,
            ..
        }) = events.last_mut()
            && *last == connection
            && hits.len() < MAX_TOGETHER
        {
            return hits.extend(more);
        }
        events.push(Event::Hits {
            connection,
            stream: self.hello.stream,
            kind: self.hello.kind,
            hits: more,
        });
    }

    pub(super) fn status(&self) -> WorkerStatus {
        WorkerStatus {
            pid: self.hello.pid,
            kind: self.hello.kind,
            path: self.hello.path.clone(),
            counters: self.counters,
            reading: self.reading.clone(),
            slowest: self.slowest.clone(),
            confined: self.confined.clone(),
        }
    }
}

/// Text for people; it names no file any more.
fn shown_path(path: &Path) -> PathBuf {
    display(path.as_os_str().as_encoded_bytes(), MAX_PATH).into()
}
