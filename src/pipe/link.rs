//! The messages between keeper and worker, over a seqpacket socket pair.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Deserialize, Serialize};

use super::layout::Files;
use crate::alert::Severity;
use crate::record::{Kind, display};
use crate::sys::fds;

/// Longest message without its descriptors. A LogFormat string is at most 8 KiB.
const MAX_MESSAGE: usize = 64 * 1024;

const START: u8 = b'S';
const CONFIG: u8 = b'C';
const OFF: u8 = b'N';
const END: u8 = b'E';
const ENGINE: u8 = b'G';
const ANSWERS: u8 = b'A';
const CONNECT: u8 = b'K';
const REPORT: u8 = b'R';

/// Bytes of a worker's report at most.
const MAX_REPORT: usize = 2_000;

/// What a worker is started with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// Workers are numbered from 1.
    pub(super) number: u64,
    pub(super) kind: Kind,
    /// See [`super::Log::format`].
    pub(super) format: Option<String>,
    /// Where lines go, for messages and `pipeban status`.
    pub(super) path: Option<PathBuf>,
    /// Apache's main process, if it started the stub.
    pub(super) apache: Option<i32>,
    /// User and group to become; `None`: the keeper is not root.
    pub(super) identity: Option<(u32, u32)>,
}

/// Keeper to worker.
#[derive(Debug)]
pub(super) enum ToWorker {
    /// The first message; with the shared memory, and the descriptor that wakes the worker.
    Start(Start, Files, OwnedFd),
    /// Match with this.
    Config { hash: String, text: Vec<u8> },
    /// Do not match.
    Off,
    /// Answer to [`FromWorker::Connect`]: a connection on which the keeper has introduced the
    /// worker with this hash of a configuration (empty: none).
    Engine(UnixStream, String),
    /// The same answer where no engine can be reached.
    NoEngine,
    /// No block will follow.
    End,
}

/// Worker to keeper, which trusts none of it.
#[derive(Debug)]
pub(super) enum FromWorker {
    /// What the engine answered to the last hits, as lines.
    Answers(Vec<u8>),
    /// Connect me to the engine.
    Connect,
    /// To be logged.
    Report(Severity, String),
}

/// Both ends, close-on-exec.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// A configuration in memory that no process can change.
pub(super) fn sealed(text: &[u8]) -> io::Result<OwnedFd> {
    let memory = memfd_create(
        c"pipeban-config",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?;
    let mut file = File::from(memory);
    file.write_all(text)?;
    file.rewind()?;
    fcntl(
        &file,
        FcntlArg::F_ADD_SEALS(
            SealFlag::F_SEAL_SEAL
                | SealFlag::F_SEAL_SHRINK
                | SealFlag::F_SEAL_GROW
                | SealFlag::F_SEAL_WRITE,
        ),
    )?;
    Ok(file.into())
}

pub(super) fn send_start(
    socket: &OwnedFd,
    start: &Start,
    files: &Files,
    wake: impl AsFd,
) -> io::Result<()> {
    let mut message = vec![START];
    serde_json::to_writer(&mut message, start)?;
    let fds = [files.ring.as_fd(), files.page.as_fd(), wake.as_fd()];
    fds::send(socket, &message, &fds)
}

/// `memory`: see [`sealed`].
pub(super) fn send_config(socket: &OwnedFd, hash: &str, memory: &OwnedFd) -> io::Result<()> {
    let mut message = vec![CONFIG];
    message.extend_from_slice(hash.as_bytes());
    fds::send(socket, &message, &[memory.as_fd()])
}

pub(super) fn send_off(socket: &OwnedFd) -> io::Result<()> {
    fds::send(socket, &[OFF], &[])
}

pub(super) fn send_end(socket: &OwnedFd) -> io::Result<()> {
    fds::send(socket, &[END], &[])
}

/// `hash`: of the configuration that the hello names; empty: none.
pub(super) fn send_engine(
    socket: &OwnedFd,
    engine: Option<&UnixStream>,
    hash: &str,
) -> io::Result<()> {
    let mut message = vec![ENGINE];
    message.extend_from_slice(hash.as_bytes());
    let engine: Vec<_> = engine.iter().map(|engine| engine.as_fd()).collect();
    fds::send(socket, &message, &engine)
}

/// To the keeper: connect me to the engine.
pub(super) fn request_engine(socket: &OwnedFd) -> io::Result<()> {
    fds::send(socket, &[CONNECT], &[])
}

/// To the keeper: log this. It is lost if the keeper does not read.
pub(super) fn send_report(socket: &OwnedFd, severity: Severity, text: &str) {
    let mut message = vec![REPORT, severity as u8];
    message.extend_from_slice(text.as_bytes());
    message.truncate(MAX_REPORT);
    let _ = fds::send(socket, &message, &[]);
}

/// To the keeper: what the engine answered to the last hits.
pub(super) fn send_answers(socket: &OwnedFd, lines: &[String]) -> io::Result<()> {
    let mut message = vec![ANSWERS];
    for line in lines {
        message.extend_from_slice(line.as_bytes());
        message.push(b'\n');
    }
    message.truncate(MAX_MESSAGE);
    fds::send(socket, &message, &[])
}

/// In the worker: waits for the next message. `None`: the keeper has ended.
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<ToWorker>> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let (len, fds) = fds::receive(socket, &mut buffer)?;
    let message = buffer.get(..len).unwrap_or_default();
    let Some((kind, rest)) = message.split_first() else {
        return Ok(None);
    };
    let mut fds = fds.into_iter();
    Ok(Some(match (*kind, fds.next(), fds.next(), fds.next()) {
        (START, Some(ring), Some(page), Some(wake)) => {
            ToWorker::Start(serde_json::from_slice(rest)?, Files { ring, page }, wake)
        }
        (CONFIG, Some(memory), ..) => {
            // The keeper's descriptor shares its position with this one: read from the start.
            let mut memory = File::from(memory);
            memory.rewind()?;
            let mut text = Vec::new();
            memory.read_to_end(&mut text)?;
            let hash = String::from_utf8_lossy(rest).into_owned();
            ToWorker::Config { hash, text }
        }
        (ENGINE, Some(engine), ..) => {
            let hash = String::from_utf8_lossy(rest).into_owned();
            ToWorker::Engine(engine.into(), hash)
        }
        (ENGINE, None, ..) => ToWorker::NoEngine,
        (OFF, ..) => ToWorker::Off,
        (END, ..) => ToWorker::End,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }))
}

/// In the keeper: the worker's next message. `None`: the worker has ended.
pub(super) fn receive_from_worker(socket: &OwnedFd) -> io::Result<Option<FromWorker>> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let (len, _) = fds::receive(socket, &mut buffer)?;
    Ok(match buffer.get(..len).unwrap_or_default() {
        [] => None,
        [ANSWERS, lines @ ..] => Some(FromWorker::Answers(lines.to_vec())),
        [CONNECT] => Some(FromWorker::Connect),
        [REPORT, severity, text @ ..] => {
            let severity = match severity {
                3 => Severity::Err,
                4 => Severity::Warning,
                _ => Severity::Notice,
            };
            Some(FromWorker::Report(severity, display(text, MAX_REPORT)))
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    })
}
