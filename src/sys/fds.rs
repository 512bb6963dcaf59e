//! Descriptors: bytes waiting in a pipe, and descriptors sent to another process.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Bytes that can be read from a pipe now.
///
/// # Errors
/// What the kernel said.
pub fn waiting(pipe: impl AsFd) -> io::Result<usize> {
    let mut bytes: nix::libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, and `bytes` is one.
    let rc = unsafe {
        nix::libc::ioctl(
            pipe.as_fd().as_raw_fd(),
            nix::libc::FIONREAD,
            &raw mut bytes,
        )
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Sends one message over a seqpacket socket, perhaps with a descriptor. Does not block.
///
/// # Errors
/// What the kernel said; `WouldBlock` where the other side does not read.
pub fn send(socket: impl AsFd, message: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
    let raw = fd.map(|fd| [fd.as_raw_fd()]);
    let control = raw.as_ref().map(|raw| ControlMessage::ScmRights(raw));
    sendmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(message)],
        control.as_slice(),
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )?;
    Ok(())
}

/// Receives one message of at most `buffer.len()` bytes, with the descriptor that came along.
/// `Ok((0, None))`: the other side is gone.
///
/// # Errors
/// What the kernel said.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!(nix::libc::c_int);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut received = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
                received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, received))
}
