//! Lines to the local syslog daemon, by the `syslog` crate with an own format and an own socket.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use syslog::{LogFormat, Logger};

use super::Severity;

/// A line and when it was said.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) time: Timestamp,
    pub(super) severity: Severity,
    pub(super) text: String,
}

/// RFC 3164 as journald and rsyslog expect it on /dev/log: local time, no host name.
#[derive(Debug)]
struct Local3164 {
    facility: u8,
    pid: u32,
}

impl LogFormat<&Line> for Local3164 {
    fn format<W: Write>(
        &self,
        w: &mut W,
        severity: syslog::Severity,
        line: &Line,
    ) -> syslog::Result<()> {
        let priority = self.facility.wrapping_mul(8) | severity as u8;
        let time = line.time.to_zoned(TimeZone::system());
        let time = time.strftime("%b %e %H:%M:%S");
        let (pid, text) = (self.pid, &line.text);
        write!(w, "<{priority}>{time} pipeban[{pid}]: {text}").map_err(syslog::Error::Write)
    }
}

#[derive(Debug)]
enum Socket {
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

/// The daemon's socket. Never blocks; connects again when the daemon was started anew. Each
/// message is one datagram, also through `write_fmt`.
#[derive(Debug)]
struct Daemon {
    path: PathBuf,
    socket: Option<Socket>,
}

impl Daemon {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(&self.path)?,
        };
        let sent = socket.send(message).or_else(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                return Err(error);
            }
            socket = connect(&self.path)?;
            socket.send(message)
        });
        if sent.is_ok() || matches!(&sent, Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
            self.socket = Some(socket);
        }
        sent
    }
}

impl Socket {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Socket::Datagram(socket) => socket.send(message).map(drop),
            Socket::Stream(stream) => {
                // On a stream a NUL ends a message. A part that did not fit would tear it: the
                // connection is given up then.
                let framed = [message, b"\0"].concat();
                match stream.write(&framed)? {
                    n if n == framed.len() => Ok(()),
                    _ => Err(io::ErrorKind::WriteZero.into()),
                }
            }
        }
    }
}

fn connect(path: &Path) -> io::Result<Socket> {
    let datagram = UnixDatagram::unbound()?;
    match datagram.connect(path) {
        Ok(()) => {
            datagram.set_nonblocking(true)?;
            Ok(Socket::Datagram(datagram))
        }
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EPROTOTYPE as i32) => {
            // A daemon that accepts nobody must not hold us: no `UnixStream::connect`.
            let stream = socket::socket(
                AddressFamily::Unix,
                SockType::Stream,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                None,
            )?;
            socket::connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
            Ok(Socket::Stream(stream.into()))
        }
        Err(error) => Err(error),
    }
}

impl Write for Daemon {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.send(message).map(|()| message.len())
    }

    fn write_fmt(&mut self, message: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.send(message.to_string().as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The way to the daemon.
pub(super) struct Syslog {
    logger: Logger<Daemon, Local3164>,
}

impl Syslog {
    /// Connects at the first line.
    pub(super) fn new(path: &Path, facility: u8) -> Syslog {
        let daemon = Daemon {
            path: path.to_owned(),
            socket: None,
        };
        let pid = std::process::id();
        Syslog {
            logger: Logger::new(daemon, Local3164 { facility, pid }),
        }
    }

    /// Sends one line.
    ///
    /// # Errors
    /// The daemon is not there, or its queue is full now.
    pub(super) fn send(&mut self, line: &Line) -> io::Result<()> {
        let sent = match line.severity {
            Severity::Err => self.logger.err(line),
            Severity::Warning => self.logger.warning(line),
            Severity::Notice => self.logger.notice(line),
            Severity::Info => self.logger.info(line),
        };
        sent.map_err(|error| match error {
            syslog::Error::Write(error) | syslog::Error::Io(error) => error,
            other => io::Error::other(other.to_string()),
        })
    }
}
