//! Lines to a syslog daemon, by the `syslog` crate with a custom format and a custom socket: the
//! crate's socket blocks and does not reconnect, its time is UTC.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use jiff::tz::TimeZone;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use syslog::{LogFormat, Logger};

use super::line::{Line, Severity};
use crate::config::{self, LineFormat, SyslogFormat, SyslogTarget};

/// The header of a line.
#[derive(Debug)]
struct Form {
    format: SyslogFormat,
    text: LineFormat,
    facility: u8,
    /// `None`: the daemon on this host adds it.
    host: Option<String>,
    pid: u32,
}

impl Form {
    fn new(settings: &config::Syslog) -> Form {
        let local = matches!(settings.target, SyslogTarget::Unix(_));
        let named = !local || settings.format == SyslogFormat::Rfc5424;
        let host = || {
            let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
            // RFC 5424 section 6.2.4: printable ASCII, `-` where it is not known.
            let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
            plain.then_some(name)
        };
        Form {
            format: settings.format,
            text: settings.log_format,
            facility: settings.facility,
            host: named.then(|| host().unwrap_or_else(|| "-".to_owned())),
            pid: std::process::id(),
        }
    }
}

impl LogFormat<&Line> for Form {
    fn format<W: Write>(
        &self,
        w: &mut W,
        severity: syslog::Severity,
        line: &Line,
    ) -> syslog::Result<()> {
        let priority = self.facility.wrapping_mul(8) | severity as u8;
        let time = line.time.to_zoned(TimeZone::system());
        let pid = self.pid;
        let text = match self.text {
            LineFormat::Text => Cow::Borrowed(&line.text),
            LineFormat::Json => Cow::Owned(line.json()),
        };
        let host = self.host.as_deref().unwrap_or_default();
        match self.format {
            // Local time; a host name over the network, none on /dev/log.
            SyslogFormat::Rfc3164 => {
                let time = time.strftime("%b %e %H:%M:%S");
                let space = if host.is_empty() { "" } else { " " };
                write!(w, "<{priority}>{time}{space}{host} pipeban[{pid}]: {text}")
            }
            SyslogFormat::Rfc5424 => {
                let time = time.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z");
                write!(w, "<{priority}>1 {time} {host} pipeban {pid} - - {text}")
            }
        }
        .map_err(syslog::Error::Write)
    }
}

#[derive(Debug)]
enum Socket {
    Datagram(UnixDatagram),
    Stream(UnixStream),
    Udp(UdpSocket),
    /// Takes every line, and keeps none.
    Null,
}

/// The daemon's socket. Never blocks; connects again after a restart of the daemon. Each message is
/// one datagram, also through `write_fmt`.
#[derive(Debug)]
struct Daemon {
    target: SyslogTarget,
    socket: Option<Socket>,
}

impl Daemon {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => connect(&self.target)?,
        };
        let sent = socket.send(message).or_else(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                return Err(error);
            }
            socket = connect(&self.target)?;
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
            Socket::Udp(socket) => socket.send(message).map(drop),
            Socket::Null => Ok(()),
            Socket::Stream(stream) => {
                // On a stream a NUL ends a message. After a message that did not fit the connection
                // is closed, so that the next one does not continue it.
                let framed = [message, b"\0"].concat();
                match stream.write(&framed)? {
                    n if n == framed.len() => Ok(()),
                    _ => Err(io::ErrorKind::WriteZero.into()),
                }
            }
        }
    }
}

fn connect(target: &SyslogTarget) -> io::Result<Socket> {
    let path = match target {
        SyslogTarget::Unix(path) => path,
        SyslogTarget::None => return Ok(Socket::Null),
        SyslogTarget::Udp(address) => {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(address)?;
            return Ok(Socket::Udp(socket));
        }
    };
    let datagram = UnixDatagram::unbound()?;
    match datagram.connect(path) {
        Ok(()) => {
            datagram.set_nonblocking(true)?;
            Ok(Socket::Datagram(datagram))
        }
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EPROTOTYPE as i32) => {
            // `UnixStream::connect` would wait for a daemon that accepts no connection.
            let stream = socket::socket(
                AddressFamily::Unix,
                SockType::Stream,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                None,
            )?;
            socket::connect(stream.as_raw_fd(), &UnixAddr::new(path.as_path())?)?;
            Ok(Socket::Stream(stream.into()))
        }
        Err(error) => Err(error),
    }
}

/// Whether a daemon accepts messages at the target. Sends none.
///
/// # Errors
/// What the kernel said.
pub fn reachable(target: &SyslogTarget) -> io::Result<()> {
    connect(target).map(drop)
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
    logger: Logger<Daemon, Form>,
}

impl Syslog {
    /// Connects at the first line.
    pub(super) fn new(settings: &config::Syslog) -> Syslog {
        let daemon = Daemon {
            target: settings.target.clone(),
            socket: None,
        };
        Syslog {
            logger: Logger::new(daemon, Form::new(settings)),
        }
    }

    /// Sends one line.
    ///
    /// # Errors
    /// The daemon does not run, or its queue is full.
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
