//! One question to the engine, from a command.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Command, Reply, Request, encode};

/// An answer longer than this is not the engine's.
const MAX_REPLY: u64 = 1 << 30;

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody listens at the socket.
    NotRunning,
    /// The socket may not be used.
    NotPermitted,
    /// The engine was there but gave no (understandable) answer.
    NoAnswer(io::Error),
}

/// Asks the engine and waits for its answer, `patience` at most for each step.
///
/// # Errors
/// See [`AskError`].
pub fn ask(socket: &Path, command: &Command, patience: Duration) -> Result<Reply, AskError> {
    let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning,
        io::ErrorKind::PermissionDenied => AskError::NotPermitted,
        _ => AskError::NoAnswer(error),
    })?;
    converse(stream, command, patience).map_err(AskError::NoAnswer)
}

fn converse(mut stream: UnixStream, command: &Command, patience: Duration) -> io::Result<Reply> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // An engine that refuses the caller answers and closes without reading: its answer counts.
    let sent = stream.write_all(&encode(&Request::Command(command.clone())));
    let mut line = Vec::new();
    let read = BufReader::new(stream)
        .take(MAX_REPLY)
        .read_until(b'\n', &mut line);
    if line.last() != Some(&b'\n') {
        sent?;
        read?;
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the engine closed the connection",
        ));
    }
    serde_json::from_slice(&line).map_err(io::Error::from)
}
