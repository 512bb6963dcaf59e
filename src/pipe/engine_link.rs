//! The keeper's side of the engine: asks it for the configuration, hears of reloads, and has it
//! started where none answers.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket;
use nix::unistd::{Pid, geteuid, setsid};

use crate::control::{Reply, Request, VERSION};
use crate::sys::{process, signals};

/// An engine that has not answered by then is not waited for any longer.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);
const CONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
const START: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
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
    /// The engine said so of itself, not because we had just connected.
    pub(super) reload: bool,
}

/// See the module.
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
        }
    }

    pub(super) fn socket(&self) -> Option<&UnixStream> {
        self.socket.as_ref()
    }

    /// When [`EngineLink::work`] is due; `None`: when the socket is readable.
    pub(super) fn due(&self) -> Option<Instant> {
        self.socket.is_none().then_some(self.connect_at)
    }

    /// Connects, and has an engine started, where that is due. Returns a child to be waited for.
    pub(super) fn work(&mut self, now: Instant) -> Option<Pid> {
        if self.socket.is_some() || now < self.connect_at {
            return None;
        }
        match self.connect() {
            Ok(socket) => {
                self.socket = Some(socket);
                self.received.clear();
                self.given = 0;
                None
            }
            Err(_) => {
                self.connect_at = now + self.connect_pause;
                self.connect_pause = (self.connect_pause * 2).min(CONNECT.1);
                self.start(now)
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
                    // Refused, or something that is not meant for a keeper.
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

    /// Has an engine started, where that is due. Only root's engine can do anything.
    fn start(&mut self, now: Instant) -> Option<Pid> {
        if now < self.start_at || !geteuid().is_root() {
            return None;
        }
        self.start_at = now + self.start_pause;
        self.start_pause = (self.start_pause * 2).min(START.1);
        let starter = self.starter.clone();
        let started = if has_unit() {
            process::fork_child(&[], systemctl_start)
        } else {
            process::fork_child(&[], move || starter.start_detached())
        };
        started.ok()
    }
}

impl Starter {
    /// In a child: forks once more, so that the engine is nobody's child here.
    fn start_detached(&self) -> i32 {
        if setsid().is_err() || as_if_new().is_err() {
            return 1;
        }
        let engine = || {
            let error = Command::new(&self.exe)
                .arg("engine")
                .arg("--config")
                .arg(&self.config_file)
                .env_clear()
                .env(
                    "PATH",
                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                )
                .current_dir("/")
                .exec();
            i32::from(error.raw_os_error().is_some())
        };
        i32::from(process::fork_child(&[], engine).is_err())
    }
}

/// Connects without waiting: an engine that is stopped takes no connections once its queue is
/// full. The socket does not block.
pub(super) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let socket = socket::socket(
        socket::AddressFamily::Unix,
        socket::SockType::Stream,
        socket::SockFlag::SOCK_CLOEXEC | socket::SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    socket::connect(socket.as_raw_fd(), &socket::UnixAddr::new(path)?)?;
    Ok(socket.into())
}

fn has_unit() -> bool {
    Path::new("/run/systemd/system").is_dir()
        && ["/etc", "/lib", "/usr/lib"].iter().any(|root| {
            Path::new(root)
                .join("systemd/system/pipeban.service")
                .exists()
        })
}

/// In a child: becomes `systemctl`.
fn systemctl_start() -> i32 {
    if as_if_new().is_err() {
        return 1;
    }
    let _ = Command::new("/usr/bin/systemctl")
        .args(["start", "--no-block", "pipeban.service"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .exec();
    1
}

/// Default signals, /dev/null for stdin, stdout and stderr.
fn as_if_new() -> io::Result<()> {
    let mut ignored = super::IGNORED.to_vec();
    ignored.push(Signal::SIGTERM);
    signals::set_default(&ignored)?;
    signals::let_all_through()?;
    process::redirect_to_null(true)
}
