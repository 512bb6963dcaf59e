//! The keeper's connection to the engine: gets the configuration, also at each reload, and has an
//! engine started if none answers.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket;
use nix::unistd::geteuid;

use super::log::IGNORED;
use super::report::Report;
use super::uplink::SEND_PATIENCE;
use crate::control::{Reply, Request, VERSION, WorkerHello, encode};
use crate::sys::{process, systemd};

/// How long the keeper waits for the engine's configuration before it uses the last good one.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);
const CONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
const START: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A start may be late on a busy host; after more than these without an answer it is reported.
const PATIENT_STARTS: usize = 3;
/// A configuration is not longer than this.
const MAX_REPLY: usize = 64 * 1024 * 1024;

/// How to start an engine.
#[derive(Debug, Clone)]
pub(super) struct Starter {
    /// This program.
    pub(super) exe: PathBuf,
    pub(super) config_file: PathBuf,
}

/// A configuration from the engine.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) hash: String,
    pub(super) text: Vec<u8>,
    /// The engine sent it because of a reload, not because the keeper has just connected.
    pub(super) reload: bool,
}

#[derive(Debug)]
pub(super) struct EngineLink {
    path: PathBuf,
    starter: Starter,
    socket: Option<UnixStream>,
    received: Vec<u8>,
    /// Configurations on this connection so far.
    given: usize,
    connect_at: Instant,
    connect_pause: Duration,
    start_at: Instant,
    start_pause: Duration,
    /// Engines started since one answered.
    started: usize,
}

impl EngineLink {
    pub(super) fn new(path: PathBuf, starter: Starter, now: Instant) -> EngineLink {
        EngineLink {
            path,
            starter,
            socket: None,
            received: Vec::new(),
            given: 0,
            connect_at: now,
            connect_pause: CONNECT.0,
            start_at: now + PATIENCE,
            start_pause: START.0,
            started: 0,
        }
    }

    pub(super) fn socket(&self) -> Option<&UnixStream> {
        self.socket.as_ref()
    }

    /// When [`EngineLink::work`] is due; `None`: when the socket is readable.
    pub(super) fn due(&self) -> Option<Instant> {
        self.socket.is_none().then_some(self.connect_at)
    }

    /// Connects, and has an engine started, when that is due.
    pub(super) fn work(&mut self, now: Instant, report: &Report) {
        if self.socket.is_some() || now < self.connect_at {
            return;
        }
        match self.connect() {
            Ok(socket) => {
                self.socket = Some(socket);
                self.received.clear();
                self.given = 0;
                self.started = 0;
                report.over("engine", "an engine answers");
            }
            Err(_) => {
                self.connect_at = now + self.connect_pause;
                self.connect_pause = (self.connect_pause * 2).min(CONNECT.1);
                self.start(now, report);
            }
        }
    }

    /// Reads what has come. An error or the end closes the connection.
    pub(super) fn read(&mut self, now: Instant) -> Vec<Given> {
        let mut given = Vec::new();
        if self.read_all(&mut given).is_err() {
            self.socket = None;
            self.connect_at = now + self.connect_pause;
            self.connect_pause = (self.connect_pause * 2).min(CONNECT.1);
            // A restarting engine has a moment before another one is started.
            self.start_at = self.start_at.max(now + PATIENCE);
        }
        given
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let mut socket = connect_now(&self.path)?;
        let mut hello = serde_json::to_vec(&Request::Keeper { version: VERSION })?;
        hello.push(b'\n');
        // It fits into the socket's buffer.
        socket.write_all(&hello)?;
        Ok(socket)
    }

    fn read_all(&mut self, given: &mut Vec<Given>) -> io::Result<()> {
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match socket.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    let part = buffer.get(..n).unwrap_or_default();
                    self.received.extend_from_slice(part);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            while let Some(end) = memchr::memchr(b'\n', &self.received) {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let Reply::Config { hash, text } = serde_json::from_slice(&line)? else {
                    // Refused, or a message that is not for keepers.
                    return Err(ErrorKind::InvalidData.into());
                };
                given.push(Given {
                    hash,
                    text: text.into_bytes(),
                    reload: self.given > 0,
                });
                self.given += 1;
                self.connect_pause = CONNECT.0;
                self.start_pause = START.0;
            }
            if self.received.len() > MAX_REPLY {
                return Err(ErrorKind::InvalidData.into());
            }
        }
    }

    /// Has an engine started, when that is due. Only root's engine can do anything.
    fn start(&mut self, now: Instant, report: &Report) {
        if now < self.start_at || !geteuid().is_root() {
            return;
        }
        self.start_at = now + self.start_pause;
        self.start_pause = (self.start_pause * 2).min(START.1);
        let mut command = if systemd::has_unit() {
            let mut command = Command::new("/usr/bin/systemctl");
            command.args(["start", "--no-block", "pipeban.service"]);
            command
        } else {
            let mut command = Command::new(&self.starter.exe);
            command
                .args(["engine", "--config"])
                .arg(&self.starter.config_file);
            command
        };
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        process::detach(&mut command, &IGNORED);
        let spawned = command.spawn().and_then(|mut child| child.wait());
        self.started += 1;
        let problem = match spawned {
            Err(error) => error.to_string(),
            Ok(status) if !status.success() => status.to_string(),
            Ok(_) if self.started <= PATIENT_STARTS => return,
            Ok(_) => "none answers".to_owned(),
        };
        report.problem(
            "engine",
            &format!(
                "an engine was started {} times: {problem}; `pipeban engine` on a terminal says \
                 why; hits wait",
                self.started
            ),
        );
    }
}

/// A worker's connection: the engine has its keeper's hello, and takes nothing but a worker's
/// messages on it. Whoever opens a connection has the rights of its user, so only a connection with
/// a whole hello may leave this function. It blocks, for [`SEND_PATIENCE`] at most.
pub(super) fn connect_worker(path: &Path, hello: WorkerHello) -> io::Result<UnixStream> {
    let mut socket = connect_now(path)?;
    let hello = encode(&Request::Worker(hello));
    let sent = socket.write(&hello)?;
    if sent < hello.len() {
        return Err(ErrorKind::WriteZero.into());
    }
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(SEND_PATIENCE))?;
    Ok(socket)
}

/// Connects without waiting: an engine that is stopped takes no connections once its queue is
/// full. The socket does not block.
fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let socket = socket::socket(
        socket::AddressFamily::Unix,
        socket::SockType::Stream,
        socket::SockFlag::SOCK_CLOEXEC | socket::SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    socket::connect(socket.as_raw_fd(), &socket::UnixAddr::new(path)?)?;
    Ok(socket.into())
}
