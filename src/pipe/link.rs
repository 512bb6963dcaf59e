//! What keeper and worker say to each other, over a seqpacket socket pair.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::sys::fds;

/// Longest message without its descriptor: what a rehearsal tells.
const MAX_MESSAGE: usize = 32 * 1024;

const CONFIG: u8 = b'C';
const OFF: u8 = b'N';
const LOG_FILE: u8 = b'L';
const NO_FILE: u8 = b'X';
const TOLD: u8 = b'T';

/// Keeper to worker.
#[derive(Debug)]
pub(super) enum ToWorker {
    /// Match with this.
    Config { hash: String, text: Vec<u8> },
    /// Only pass lines.
    Off,
    /// Append to this.
    LogFile(File),
    /// Append to none: keep what would be written.
    NoFile,
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

/// A configuration in memory that nobody can change any more.
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

/// To the worker: match with the configuration in `memory` (see [`sealed`]).
pub(super) fn send_config(socket: &OwnedFd, hash: &str, memory: &OwnedFd) -> io::Result<()> {
    let mut message = vec![CONFIG];
    message.extend_from_slice(hash.as_bytes());
    fds::send(socket, &message, Some(memory))
}

/// To the worker: only pass lines.
pub(super) fn send_off(socket: &OwnedFd) -> io::Result<()> {
    fds::send(socket, &[OFF], None)
}

/// To the worker: append to this file.
pub(super) fn send_log_file(socket: &OwnedFd, file: &OwnedFd) -> io::Result<()> {
    fds::send(socket, &[LOG_FILE], Some(file))
}

/// To the worker: there is no file to append to.
pub(super) fn send_no_file(socket: &OwnedFd) -> io::Result<()> {
    fds::send(socket, &[NO_FILE], None)
}

/// To the keeper: what the engine told of the last hits.
pub(super) fn send_told(socket: &OwnedFd, lines: &[String]) -> io::Result<()> {
    let mut message = vec![TOLD];
    for line in lines {
        message.extend_from_slice(line.as_bytes());
        message.push(b'\n');
    }
    message.truncate(MAX_MESSAGE);
    fds::send(socket, &message, None)
}

/// In the worker: the next message, `None` when the keeper is gone. Blocks.
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<ToWorker>> {
    let mut buffer = vec![0; 256];
    let (len, fd) = fds::receive(socket, &mut buffer)?;
    let message = buffer.get(..len).unwrap_or_default();
    match (message.split_first(), fd) {
        (None, _) => Ok(None),
        (Some((&CONFIG, hash)), Some(memory)) => {
            // The keeper's descriptor shares its position with this one: read from the start.
            let mut memory = File::from(memory);
            memory.rewind()?;
            let mut text = Vec::new();
            memory.read_to_end(&mut text)?;
            Ok(Some(ToWorker::Config {
                hash: String::from_utf8_lossy(hash).into_owned(),
                text,
            }))
        }
        (Some((&LOG_FILE, _)), Some(file)) => Ok(Some(ToWorker::LogFile(file.into()))),
        (Some((&NO_FILE, _)), _) => Ok(Some(ToWorker::NoFile)),
        (Some((&OFF, _)), _) => Ok(Some(ToWorker::Off)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// In the keeper: what the worker told, `None` when it is gone.
pub(super) fn receive_told(socket: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let (len, _) = fds::receive(socket, &mut buffer)?;
    match buffer.get(..len).and_then(<[u8]>::split_first) {
        None => Ok(None),
        Some((&TOLD, lines)) => Ok(Some(lines.to_vec())),
        Some(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}
