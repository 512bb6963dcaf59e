//! The fields of a line.

use std::net::IpAddr;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::time::Stamp;

/// Which of Apache's two kinds of log a pipe carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `CustomLog`, `TransferLog`, `GlobalLog`.
    Access,
    /// `ErrorLog`.
    Error,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Access => "access",
            Kind::Error => "error",
        })
    }
}

/// How a line shows whether its client is the peer of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientSource {
    /// The line has the peer, and it is the client.
    Peer,
    /// An error line has the port of the client.
    Port,
    /// A header named the client: the line has another peer, or port 0.
    Header,
    /// The line does not show it.
    #[default]
    Unsaid,
}

/// The client as Apache names it in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client<'a> {
    /// The address, `::ffff:a.b.c.d` already unmapped to IPv4.
    pub addr: IpAddr,
    /// The exact text in the line (without a port): what `<HOST>` matches.
    pub text: &'a [u8],
}

/// Fields of an access line that say nothing about the client, as logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rest<'a> {
    /// `%l`.
    pub ident: Option<&'a [u8]>,
    /// `%p`.
    pub port: Option<&'a [u8]>,
    /// `%>s`.
    pub status: Option<&'a [u8]>,
    /// `%b`, `%B` or `%O`.
    pub bytes: Option<&'a [u8]>,
    /// `%m`.
    pub method: Option<&'a [u8]>,
    /// `%U`, or `%U%q`.
    pub path: Option<&'a [u8]>,
    /// `%q`.
    pub query: Option<&'a [u8]>,
    /// `%H`.
    pub protocol: Option<&'a [u8]>,
}

/// The fields of one line. All borrow from the line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record<'a> {
    /// Apache's client field: `%a`, else `%h` if it is an address, else `%{c}a`;
    /// in the error log the first `[client ...]` after the prefix. `None`: the line can ban no client.
    pub client: Option<Client<'a>>,
    /// `%{c}a`, the peer of the connection, where the format carries it beside the client.
    pub peer: Option<IpAddr>,
    /// `%v`, where the format carries it, without the port.
    pub vhost: Option<&'a [u8]>,
    /// Where the (first) time is in the line, without brackets. fail2ban cuts it out before
    /// matching.
    pub time: Option<Range<usize>>,
    /// What the line's times say; `None` if they do not name the day.
    pub stamp: Option<Stamp>,
    /// `%>s`.
    pub status: Option<u16>,
    /// `%r` as logged (still escaped).
    pub request: Option<&'a [u8]>,
    /// `%{User-Agent}i` as logged.
    pub agent: Option<&'a [u8]>,
    /// `%{Referer}i` as logged.
    pub referer: Option<&'a [u8]>,
    /// `%u` as logged.
    pub user: Option<&'a [u8]>,
    /// `%b`, `%B` or `%O`.
    pub bytes: Option<u64>,
    /// Fields of the access log that only [`super::Rendered`] needs, as logged.
    pub rest: Rest<'a>,
    /// The client's port, in the error log.
    pub port: Option<u16>,
    /// The module that wrote an error line.
    pub module: Option<&'a [u8]>,
    /// The level of an error line.
    pub level: Option<&'a [u8]>,
    /// The text of an error line behind the client.
    pub message: Option<&'a [u8]>,
    /// The process that wrote an error line; `None` in the form of Apache 2.2.
    pub pid: Option<u64>,
    /// Where in a long error line a second prefix of Apache's is: what follows may be a
    /// neighbour's line, or a client's imitation of one.
    pub second: Option<usize>,
}

impl Record<'_> {
    /// Whether Apache answered with status 200, and the path names more than a site's front page,
    /// which answers whatever the query is.
    pub fn is_answered(&self) -> bool {
        let target = self
            .request
            .unwrap_or_default()
            .split(|b| *b == b' ')
            .nth(1);
        let path = target.and_then(|target| target.split(|b| *b == b'?').next());
        let name = path.and_then(|path| path.rsplit(|b| *b == b'/').next());
        let name = name.unwrap_or_default();
        self.status == Some(200) && !name.is_empty() && !name.starts_with(b"index.")
    }

    /// How the line shows whether its client is the peer of the connection.
    pub fn client_source(&self) -> ClientSource {
        let client = self.client.map(|client| client.addr);
        match (self.peer, self.port) {
            (Some(peer), _) if Some(peer) == client => ClientSource::Peer,
            (Some(_), _) | (None, Some(0)) => ClientSource::Header,
            (None, Some(_)) => ClientSource::Port,
            (None, None) => ClientSource::Unsaid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_page_answers_whatever_the_query_is() {
        for (request, status, expected) in [
            ("GET /.env HTTP/1.1", 200, true),
            (
                "GET /a/download.php?file=../../etc/passwd HTTP/1.1",
                200,
                true,
            ),
            ("POST /cgi-bin/.%2e/.%2e/bin/sh HTTP/1.1", 200, true),
            ("GET /.env HTTP/1.1", 403, false),
            ("GET /.env HTTP/1.1", 304, false),
            ("GET /?file=../../etc/passwd HTTP/1.1", 200, false),
            ("GET /blog/index.php?file=/etc/passwd HTTP/1.1", 200, false),
            ("-", 200, false),
        ] {
            let line =
                format!("192.0.2.9 - - [22/Nov/2026:11:00:32 +0000] \"{request}\" {status} 1");
            let parser = crate::record::Parser::new(Kind::Access, "common").unwrap();
            let record = parser.parse(line.as_bytes()).unwrap();
            assert_eq!(record.is_answered(), expected, "{line}");
        }
    }
}
