//! Descriptors: bytes waiting in a pipe, and descriptors sent to another process.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// Most descriptors of one message.
const MAX_FDS: usize = 4;

/// Sends one message over a seqpacket socket, with at most 4 descriptors. Does not block.
///
/// # Errors
/// `WouldBlock` if the other side does not read; `BrokenPipe` if it is closed.
pub fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = (!raw.is_empty()).then(|| ControlMessage::ScmRights(&raw));
    sendmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(message)],
        control.as_slice(),
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )?;
    Ok(())
}

/// Most descriptors that the kernel lets anyone send with one message (SCM_MAX_FD). With room for fewer
/// some of them would be open here and owned by nobody.
const MOST_SENT: usize = 253;

/// Receives one message of at most `buffer.len()` bytes, and its descriptors. Waits for it.
/// No bytes: the other side is closed.
///
/// # Errors
/// What the kernel said; `InvalidData` with more than 4 descriptors, which are closed.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MOST_SENT]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
                received.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    match received.len() <= MAX_FDS {
        true => Ok((message.bytes, received)),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn of_too_many_descriptors_none_stays_open() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (from, to) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let (end, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        send(&from, b"x", &[writer.as_fd(); MAX_FDS]).unwrap();
        assert_eq!(receive(&to, &mut [0; 8]).unwrap().1.len(), MAX_FDS);
        send(&from, b"x", &[writer.as_fd(); 10]).unwrap();
        let error = receive(&to, &mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(writer);
        // The last writer is closed.
        assert_eq!(nix::unistd::read(&end, &mut [0; 8]), Ok(0));
    }
}
