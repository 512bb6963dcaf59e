//! HTTP as an attacker speaks it: what is sent is what was written here, byte for byte.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::network::Network;

/// The tutorial's attack; Apache answers 400 and writes AH10244.
pub(crate) const ATTACK: &str = "/cgi-bin/.%2e/.%2e/.%2e/.%2e/.%2e/.%2e/.%2e/.%2e/.%2e/bin/sh";

/// As Apache writes it to the error log, of this client.
pub(crate) fn attack_line(client: impl std::fmt::Display) -> String {
    format!(
        "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] [client {client}:49108] \
         AH10244: invalid URI path (/cgi-bin/.%2e/bin/sh)\n"
    )
}

/// An open connection.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// # Errors
    /// As of [`Network::connect`].
    pub(crate) fn open(network: &Network, from: &str, server: IpAddr) -> io::Result<Connection> {
        let from: IpAddr = from.parse().expect("an address");
        let stream = network.connect(from, SocketAddr::new(server, 80))?;
        Ok(Connection::over(stream))
    }

    pub(crate) fn over(stream: TcpStream) -> Connection {
        Connection(BufReader::new(stream))
    }

    /// Sends a GET and reads its answer; the connection stays open.
    ///
    /// # Errors
    /// When the connection ends or is silent too long.
    pub(crate) fn get(&mut self, target: &str, headers: &str) -> io::Result<u16> {
        self.ask(target, headers)?;
        self.answer()
    }

    /// As [`Connection::get`], of another site.
    ///
    /// # Errors
    /// When the connection ends or is silent too long.
    pub(crate) fn get_of(&mut self, host: &str, target: &str, headers: &str) -> io::Result<u16> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        self.answer()
    }

    /// Sends an empty POST and reads its answer.
    ///
    /// # Errors
    /// When the connection ends or is silent too long.
    pub(crate) fn post(&mut self, target: &str) -> io::Result<u16> {
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: www.example.org\r\nContent-Length: 0\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        self.answer()
    }

    /// Sends a GET.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) fn ask(&mut self, target: &str, headers: &str) -> io::Result<()> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: www.example.org\r\n{headers}\r\n");
        self.0.get_mut().write_all(request.as_bytes())
    }

    /// Reads one whole answer; its status.
    ///
    /// # Errors
    /// When the connection ends or is silent too long.
    pub(crate) fn answer(&mut self) -> io::Result<u16> {
        let mut status = None;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if status.is_none() {
                status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        io::copy(&mut (&mut self.0).take(length), &mut io::sink())?;
        status.ok_or_else(|| io::Error::other("no status line"))
    }

    /// How long a read may wait from now on.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        let stream = self.0.get_mut();
        stream.set_read_timeout(Some(patience)).expect("set");
    }

    /// Whether the server has cut this connection; waits as long as a read does.
    pub(crate) fn is_cut(&mut self) -> bool {
        match self.0.get_mut().read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ),
        }
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// As of [`Network::connect`] and [`Connection::get`].
pub(crate) fn get(network: &Network, from: &str, server: IpAddr, target: &str) -> io::Result<u16> {
    Connection::open(network, from, server)?.get(target, "Connection: close\r\n")
}

/// The tutorial's attack on a connection of its own.
#[track_caller]
pub(crate) fn attack(network: &Network, from: &str, server: IpAddr) {
    let mut connection = Connection::open(network, from, server).expect("not banned yet");
    connection.ask(ATTACK, "").expect("sent");
    // The ban may cut the connection before the answer comes.
    if let Ok(status) = connection.answer() {
        assert!(
            matches!(status, 400 | 403 | 404),
            "the attack was answered with {status}"
        );
    }
}
