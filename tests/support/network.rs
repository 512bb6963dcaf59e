//! Sockets in another network namespace, from any address of it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, setsockopt,
    socket, sockopt,
};

/// How long a connection may take; a packet that is dropped says nothing.
pub(crate) const CONNECT: Duration = Duration::from_millis(1500);

/// A network namespace.
pub(crate) struct Network(File);

impl Network {
    pub(crate) fn open(path: &Path) -> Network {
        Network(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Runs `work` in a thread that is in this namespace. Sockets it makes stay there.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("namespace entered");
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A connection from this very address.
    ///
    /// # Errors
    /// As of `connect`; `TimedOut` after [`CONNECT`]: that is what a drop looks like.
    pub(crate) fn connect(&self, from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
        self.within(|| connect_here(from, to, CONNECT))
    }

    pub(crate) fn listen(&self, at: SocketAddr) -> TcpListener {
        self.within(|| TcpListener::bind(at)).expect("listens")
    }
}

/// As [`Network::connect`], by a thread that is where the client is.
///
/// # Errors
/// As of `connect`; `TimedOut` after `patience`.
pub(crate) fn connect_here(
    from: IpAddr,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<TcpStream> {
    let socket = knock(from, to)?;
    let limit = PollTimeout::try_from(patience).map_err(io::Error::other)?;
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, limit)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match getsockopt(&socket, sockopt::SocketError)? {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    stream.set_write_timeout(Some(Duration::from_secs(15)))?;
    Ok(stream)
}

/// Asks for a connection and waits for nothing.
///
/// # Errors
/// As of `connect`.
pub(crate) fn knock(from: IpAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if from.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(
        socket.as_raw_fd(),
        &SockaddrStorage::from(SocketAddr::new(from, 0)),
    )?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}
