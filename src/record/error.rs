//! Apache's error log in its default form, and the form of Apache 2.2.
//!
//! ```text
//! [time] [module:level] [pid N:tid N] file.c(123): (errno)text: [client IP:PORT] AHnnnnn: message, referer: X
//! [time] [level] [client IP] message
//! ```
//!
//! In the error log a client's quotes and brackets are not escaped. So the client is taken where
//! httpd writes it, directly behind the prefix, and never further right.

use super::address;
use super::fields::{Client, Record};
use super::time::{self, Stamp};

pub(super) const LEVELS: [&[u8]; 16] = [
    b"emerg", b"alert", b"crit", b"error", b"warn", b"notice", b"info", b"debug", b"trace1",
    b"trace2", b"trace3", b"trace4", b"trace5", b"trace6", b"trace7", b"trace8",
];
/// No error text and no source file name is longer.
const LONGEST_NOTE: usize = 160;

/// The fields of a line that begins with Apache's prefix, whole; `None` for any other: the stderr
/// of a CGI script, the tail of a torn line.
pub(super) fn parse(line: &[u8]) -> Option<Record<'_>> {
    let prefix = prefix(line)?;
    let text = notes(prefix.rest);
    let (client, port, message) = match client(text, prefix.pid.is_some()) {
        Some((client, port, message)) => (Some(client), port, message),
        None => (None, None, text),
    };
    Some(Record {
        client,
        port,
        module: prefix.module,
        level: Some(prefix.level),
        message: Some(message),
        time: Some(1..1 + prefix.time),
        stamp: Some(prefix.stamp),
        pid: prefix.pid,
        ..Record::default()
    })
}

/// Whether `text` begins with the prefix of Apache 2.4.
pub(super) fn begins_line(text: &[u8]) -> bool {
    prefix(text).is_some_and(|prefix| prefix.pid.is_some())
}

struct Prefix<'a> {
    /// Length of the time.
    time: usize,
    stamp: Stamp,
    module: Option<&'a [u8]>,
    level: &'a [u8],
    /// `None`: the form of Apache 2.2.
    pid: Option<u64>,
    rest: &'a [u8],
}

fn prefix(line: &[u8]) -> Option<Prefix<'_>> {
    let inner = line.strip_prefix(b"[")?;
    let (stamp, rest) = time::error(inner)?;
    let time = inner.len() - rest.len();
    let (origin, rest) = bracketed(rest.strip_prefix(b"] ")?)?;
    let Some(colon) = memchr::memchr(b':', origin) else {
        return LEVELS.contains(&origin).then_some(Prefix {
            time,
            stamp,
            module: None,
            level: origin,
            pid: None,
            rest,
        });
    };
    let (module, level) = origin.split_at_checked(colon)?;
    let named = |b: &u8| b.is_ascii_alphanumeric() || b"_.-".contains(b);
    if !module.iter().all(named) || !LEVELS.contains(&level.get(1..)?) {
        return None;
    }
    let level = level.get(1..)?;
    let (process, rest) = bracketed(rest)?;
    let process = process.strip_prefix(b"pid ")?;
    let pid = match memchr::memchr(b':', process) {
        Some(colon) => {
            let (pid, thread) = process.split_at_checked(colon)?;
            number(thread.strip_prefix(b":tid ")?)?;
            pid
        }
        None => process,
    };
    Some(Prefix {
        time,
        stamp,
        module: Some(module),
        level,
        pid: Some(number(pid)?),
        rest,
    })
}

/// `[inside] ` at the front; the last one of a line may lack its space.
fn bracketed(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = text.strip_prefix(b"[")?;
    let end = memchr::memchr(b']', inside.get(..inside.len().min(LONGEST_NOTE))?)?;
    let rest = inside.get(end + 1..)?;
    let rest = match rest.strip_prefix(b" ") {
        Some(rest) => rest,
        None if rest.is_empty() => rest,
        None => return None,
    };
    Some((inside.get(..end)?, rest))
}

/// Digits alone.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let next = |number: u64, byte: &u8| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    };
    (!text.is_empty()).then(|| text.iter().try_fold(0, next))?
}

/// Skips `file.c(123): ` and `(36)File name too long: `, once each, in either order.
fn notes(text: &[u8]) -> &[u8] {
    let skip = |text: &'_ [u8], length: Option<usize>| -> Option<usize> {
        text.get(length?..)?
            .starts_with(b": ")
            .then_some(length? + 2)
    };
    let after_file = |text| skip(text, source_line(text)).and_then(|at| text.get(at..));
    let after_errno = |text| skip(text, errno(text)).and_then(|at| text.get(at..));
    match after_errno(text) {
        Some(rest) => after_file(rest).unwrap_or(rest),
        None => {
            let rest = after_file(text).unwrap_or(text);
            after_errno(rest).unwrap_or(rest)
        }
    }
}

/// The length of `(36)File name too long` at the front, up to its colon. The text is the C
/// library's: it has no colon and no bracket, so nothing of a client's is ever taken for part of
/// it.
pub(super) fn errno(text: &[u8]) -> Option<usize> {
    let inside = text.strip_prefix(b"(")?;
    let close = memchr::memchr(b')', inside.get(..inside.len().min(20))?)?;
    let code = inside.get(..close)?;
    // APR's forms: `(EAI 2)`, `(OS 5)`, `(os 0x00000005)`.
    let code = [&b"EAI "[..], b"OS ", b"os 0x", b"-"]
        .iter()
        .find_map(|form| code.strip_prefix(*form))
        .unwrap_or(code);
    (!code.is_empty() && code.iter().all(u8::is_ascii_hexdigit)).then_some(())?;
    let words = inside.get(close + 1..)?;
    let length = words
        .iter()
        .take(LONGEST_NOTE)
        .position(|b| !(b.is_ascii_alphanumeric() || b" ()/,.'_-".contains(b)))
        .unwrap_or(words.len().min(LONGEST_NOTE));
    Some(close + 2 + length)
}

/// The length of `mod_ssl.c(123)` at the front. A file has a suffix: `mod_qos(031)` is how the
/// messages of that module begin.
pub(super) fn source_line(text: &[u8]) -> Option<usize> {
    let name = text
        .iter()
        .take(LONGEST_NOTE)
        .position(|b| !(b.is_ascii_alphanumeric() || b"_./-".contains(b)))?;
    let stem = memchr::memrchr(b'.', text.get(..name)?)?;
    if stem == 0 || stem + 1 == name {
        return None;
    }
    let line = text.get(name..)?.strip_prefix(b"(")?;
    let close = memchr::memchr(b')', line.get(..line.len().min(10))?)?;
    number(line.get(..close)?)?;
    Some(name + close + 2)
}

/// `[client IP:PORT] ` at the front. IPv6 has no brackets: the port is behind the last
/// colon. `[remote ...]` is a server that Apache called, not a client.
fn client(text: &[u8], ports: bool) -> Option<(Client<'_>, Option<u16>, &[u8])> {
    let (peer, message) = bracketed(text)?;
    let peer = peer.strip_prefix(b"client ")?;
    let with_port = || {
        let colon = memchr::memrchr(b':', peer)?;
        let port = u16::try_from(number(peer.get(colon + 1..)?)?).ok()?;
        Some((address::client(peer.get(..colon)?)?, port))
    };
    match with_port().filter(|_| ports) {
        Some((client, port)) => Some((client, Some(port), message)),
        None => Some((address::client(peer)?, None, message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] ";

    fn client_of(line: &str) -> Option<String> {
        parse(line.as_bytes())
            .expect(line)
            .client
            .map(|c| format!("{} {}", std::str::from_utf8(c.text).unwrap(), c.addr))
    }

    #[test]
    fn the_client_is_what_follows_the_prefix_directly() {
        for (rest, client) in [
            (
                "[client 127.0.0.1:49108] AH10244: invalid URI path (/)",
                Some("127.0.0.1 127.0.0.1"),
            ),
            ("[client ::1:47626] AH01630: x", Some("::1 ::1")),
            (
                "[client 2001:db8::77:5555] AH01630: x",
                Some("2001:db8::77 2001:db8::77"),
            ),
            ("[client 2001:db8::7:0] x", Some("2001:db8::7 2001:db8::7")),
            (
                "[client 1:2:3:4:5:6:7:8:80] x",
                Some("1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:8"),
            ),
            ("[client fe80::1%eth0:80] x", Some("fe80::1%eth0 fe80::1")),
            (
                "[client ::ffff:192.0.2.1:80] x",
                Some("::ffff:192.0.2.1 192.0.2.1"),
            ),
            ("[client 192.0.2.1] x", Some("192.0.2.1 192.0.2.1")),
            (
                "(36)File name too long: [client 192.0.2.1:6] AH00127: Cannot map",
                Some("192.0.2.1 192.0.2.1"),
            ),
            (
                "mod_x.c(123): [client 192.0.2.1:6] AH00127: x",
                Some("192.0.2.1 192.0.2.1"),
            ),
            (
                "mod_x.c(12): (2)No such file or directory: [client 192.0.2.1:6] x",
                Some("192.0.2.1 192.0.2.1"),
            ),
            (
                "(2)No such file or directory: core.c(12): [client 192.0.2.1:6] x",
                Some("192.0.2.1 192.0.2.1"),
            ),
            (
                "(20014)Internal error (specific information not available): [client 192.0.2.1:6] x",
                Some("192.0.2.1 192.0.2.1"),
            ),
            // Other values, and all that a client could have written, name no client.
            ("[remote 192.0.2.1:80] AH01102: error reading", None),
            (
                "(111)Connection refused: AH00957: http: attempt to connect to 127.0.0.1:1",
                None,
            ),
            ("(36)File name: too long: [client 192.0.2.1:6] x", None),
            ("(36)File [x: [client 192.0.2.1:6] x", None),
            ("AH00001: x [client 192.0.2.1:6] x", None),
            (" [client 192.0.2.1:6] x", None),
            ("[client 192.0.2.1:66000] x", None),
            ("[client 192.0.2.1:6]x", None),
            ("[client host.example:6] x", None),
            ("[client 192.0.2.1:6", None),
            ("", None),
        ] {
            assert_eq!(
                client_of(&format!("{HEAD}{rest}")).as_deref(),
                client,
                "{rest}"
            );
        }
    }

    #[test]
    fn the_old_form_has_no_port() {
        let head = "[Wed Oct 11 14:32:52 2000] [error] ";
        assert_eq!(
            client_of(&format!("{head}[client ::1] x")).unwrap(),
            "::1 ::1"
        );
        assert_eq!(client_of(&format!("{head}x [client ::1] x")), None);
    }

    #[test]
    fn a_line_whose_prefix_is_not_wholly_apaches_is_no_record() {
        for line in [
            "",
            "Traceback (most recent call last):",
            "[client 192.0.2.1:6] AH10244: invalid URI path (/cgi-bin/../bin/sh)",
            " [Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] [client 192.0.2.1:6] x",
            "[Sun Nov 22 11:00:33.366318 2026] [core:bad] [pid 1:tid 2] [client 192.0.2.1:6] x",
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid x:tid 2] [client 192.0.2.1:6] x",
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [client 192.0.2.1:6] x",
            "[Sun Nov 22 11:00:33.366318 2026] [co re:error] [pid 1:tid 2] [client 192.0.2.1:6] x",
            "[Sun Nov 22 11:00:33.366318 2026] [pid 1:tid 2] [client 192.0.2.1:6] x",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        for line in [
            "[Sun Nov 22 11:00:33 2026] [:error] [pid 1] [client 192.0.2.1:6] PHP",
            "[Sun Nov 22 11:00:33.3 2026] [mpm_event:notice] [pid 1:tid 140000000000000] AH00489: x",
        ] {
            assert!(parse(line.as_bytes()).is_some(), "{line}");
        }
    }
}
