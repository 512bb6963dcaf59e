//! A command's connection to the engine.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Command, Reply, Request, encode};

/// Bytes of an answer at most.
const MAX_REPLY: u64 = 1 << 30;

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// No process listens at the socket.
    NotRunning,
    /// This user has no permission to use the socket.
    NotPermitted,
    /// The engine gave no valid answer.
    NoAnswer(io::Error),
}

/// Sends a command and waits for the answer, at most `patience` for each step.
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
    // An engine that refuses the caller answers and closes without reading.
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
