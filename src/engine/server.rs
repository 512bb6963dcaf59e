//! Connections: bytes in, whole lines out, never waiting for anybody.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::files;
use crate::control::{Lines, MAX_WORKER_MESSAGE, TooLong};
use crate::sys;

/// Connections at most; a host with a thousand piped logs has two thousand. Fewer where fewer
/// descriptors may be open.
const MAX_CONNECTIONS: usize = 8_192;

/// Descriptors kept for everything but connections.
const SPARE_DESCRIPTORS: usize = 128;

/// Connections of one process that is not root's: a worker needs one, and must not take them all.
const MAX_PER_PROCESS: usize = 16;

/// When accepting fails (no descriptor left), nobody is accepted for this long: the listener stays
/// readable, and the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Bytes read from one connection before others have their turn.
const READ_AT_ONCE: usize = 64 * 1_024;

/// Bytes that may wait for a reader; more ends the connection. Acknowledgements are small; an
/// answer about half a million bans is not.
const MAX_UNSENT_WORKER: usize = 4 << 20;
const MAX_UNSENT: usize = 256 << 20;

/// Between two looks at all connections.
const REGULATE: Duration = Duration::from_millis(10);

/// Bytes a second, and in a burst, from one worker: far above what matching can produce.
const WORKER_RATE: f64 = (16 << 20) as f64;

/// Time for a first message, and for taking an answer.
const PATIENCE: Duration = Duration::from_secs(30);

const LISTENER: u64 = 0;
const NAMESPACE: u64 = 1;
const WAKER: u64 = 2;
const SIGNALS: u64 = 3;
const FIRST_CONNECTION: u64 = 16;

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) pid: i32,
    /// Primary and supplementary.
    pub(super) groups: Vec<u32>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// Somebody connected.
    New(u64),
    /// Bytes arrived; see [`Server::next_line`].
    Read(u64),
    /// The other side has gone; the connection is forgotten.
    Gone(u64),
    /// Another thread called [`Waker::wake`].
    Woken,
    /// A signal asks for the end.
    Signal,
}

/// Wakes the loop from another thread.
#[derive(Debug, Clone)]
pub(super) struct Waker(Arc<EventFd>);

impl Waker {
    pub(super) fn wake(&self) {
        // A full counter has been seen by nobody yet: the loop will wake all the same.
        let _ = self.0.write(1);
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    peer: Peer,
    lines: Lines,
    unsent: Vec<u8>,
    /// Nothing more is read; closed when all is sent.
    closing: bool,
    /// Not read for now.
    held: bool,
    interest: EpollFlags,
    /// Something must have happened by then.
    deadline: Option<Instant>,
    /// Bytes that may be read now; `None`: not limited.
    allowance: Option<(f64, Instant)>,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Server {
    epoll: Epoll,
    path: PathBuf,
    listener: UnixListener,
    /// Device and inode of the listener's file.
    file: (u64, u64),
    /// Nobody is accepted until then.
    paused: Option<Instant>,
    most: usize,
    namespace: Option<UnixListener>,
    waker: Waker,
    connections: HashMap<u64, Connection>,
    next: u64,
    refused: u64,
    regulated: Instant,
    buffer: Vec<u8>,
}

impl Server {
    /// Listens at `socket`, which everybody may connect to; replaces what stands there.
    pub(super) fn listen(
        socket: &Path,
        namespace: Option<UnixListener>,
        signals: impl AsFd,
    ) -> io::Result<Server> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (listener, file) = bind(socket)?;
        let waker = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let input = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
        epoll.add(&listener, input(LISTENER))?;
        if let Some(namespace) = &namespace {
            epoll.add(namespace, input(NAMESPACE))?;
        }
        epoll.add(&waker, input(WAKER))?;
        epoll.add(signals, input(SIGNALS))?;
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Ok(Server {
            epoll,
            path: socket.to_owned(),
            listener,
            file,
            paused: None,
            most: MAX_CONNECTIONS.min(descriptors.saturating_sub(SPARE_DESCRIPTORS)),
            namespace,
            waker: Waker(Arc::new(waker)),
            connections: HashMap::new(),
            next: FIRST_CONNECTION,
            refused: 0,
            regulated: Instant::now(),
            buffer: vec![0; READ_AT_ONCE],
        })
    }

    /// Listens again where somebody has removed the socket's file (`rm -rf /run/pipeban`): nobody
    /// new would reach the engine any more. Whether that was so.
    ///
    /// # Errors
    /// It cannot be made again, or somebody else's stands in its place.
    pub(super) fn mend(&mut self) -> io::Result<bool> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == self.file => return Ok(false),
            Ok(_) => return Err(io::Error::other("another process has put its own there")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(directory) = self.path.parent() {
            files::directory(directory, 0o755)?;
        }
        let (listener, file) = bind(&self.path)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
        self.epoll.add(&listener, event)?;
        // Closing the old one takes it out of epoll.
        self.listener = listener;
        self.file = file;
        self.paused = None;
        Ok(true)
    }

    /// Removes the socket's file, if it is still ours.
    pub(super) fn remove_file(&self) {
        let there = std::fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == self.file) {
            // Left behind, it is replaced by the next engine.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Connections not taken for want of room, since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Waits for something to happen, `timeout` at most.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<Vec<Ready>> {
        let mut events = [EpollEvent::empty(); 256];
        let timeout = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::ZERO);
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut ready = Vec::new();
        for event in events.iter().take(count) {
            match event.data() {
                LISTENER => self.accept(&mut ready),
                NAMESPACE => {
                    if let Some(namespace) = &self.namespace {
                        while namespace.accept().is_ok() {}
                    }
                }
                WAKER => {
                    let _ = self.waker.0.read();
                    ready.push(Ready::Woken);
                }
                SIGNALS => ready.push(Ready::Signal),
                id => self.serve(id, event.events(), &mut ready),
            }
        }
        Ok(ready)
    }

    /// The next whole line of a connection.
    pub(super) fn next_line(&mut self, id: u64) -> Result<Option<Vec<u8>>, TooLong> {
        match self.connections.get_mut(&id) {
            Some(connection) if !connection.closing => {
                Ok(connection.lines.next_line()?.map(<[u8]>::to_vec))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn peer(&self, id: u64) -> Option<&Peer> {
        self.connections.get(&id).map(|connection| &connection.peer)
    }

    /// Sends now what fits, the rest when the other side reads.
    pub(super) fn send(&mut self, id: u64, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.unsent.extend_from_slice(bytes);
            self.flush(id);
        }
    }

    /// Closes when all is sent; nothing more is read.
    pub(super) fn close(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.closing = true;
            connection.deadline = Some(Instant::now() + PATIENCE);
            self.flush(id);
        }
    }

    /// Has said who it is: no deadline any more. A worker is limited.
    pub(super) fn introduced(&mut self, id: u64, worker: bool) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.deadline = None;
            connection.allowance = worker.then(|| (WORKER_RATE, Instant::now()));
        }
    }

    /// Reads no worker while `hold`, and none that has used up its allowance; forgets who let a
    /// deadline pass. When to call again, at the latest.
    pub(super) fn regulate(&mut self, hold: bool, gone: &mut Vec<u64>) -> Duration {
        let now = Instant::now();
        if now.duration_since(self.regulated) < REGULATE {
            return REGULATE;
        }
        self.regulated = now;
        let mut again = Duration::from_secs(1);
        if self.paused.is_some_and(|until| until <= now) {
            self.listen_again(EpollFlags::EPOLLIN);
            self.paused = None;
        }
        let mut changed = Vec::new();
        for (id, connection) in &mut self.connections {
            if connection.deadline.is_some_and(|deadline| deadline <= now) {
                gone.push(*id);
                continue;
            }
            if let Some((allowance, since)) = &mut connection.allowance {
                let gained = now.duration_since(*since).as_secs_f64() * WORKER_RATE;
                *allowance = (*allowance + gained).min(WORKER_RATE);
                *since = now;
                let held = hold || *allowance < READ_AT_ONCE as f64;
                if held {
                    again = REGULATE;
                }
                if held != connection.held {
                    connection.held = held;
                    changed.push(*id);
                }
            }
        }
        for id in changed {
            self.watch(id);
        }
        for id in gone {
            self.connections.remove(id);
        }
        again
    }

    fn listen_again(&mut self, interest: EpollFlags) {
        let mut event = EpollEvent::new(interest, LISTENER);
        // It is in there, and changing it needs no memory.
        let _ = self.epoll.modify(&self.listener, &mut event);
    }

    /// Whether there is room for one more. Root is always let in: it must be able to stop us.
    fn has_room(&self, peer: &Peer) -> bool {
        // Processes of other namespaces all have the number 0.
        let of_process =
            |connection: &&Connection| peer.pid != 0 && connection.peer.pid == peer.pid;
        peer.uid == 0
            || (self.connections.len() < self.most
                && self.connections.values().filter(of_process).count() < MAX_PER_PROCESS)
    }

    fn accept(&mut self, ready: &mut Vec<Ready>) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_temporary(&error) => continue,
                Err(_) => {
                    self.paused = Some(Instant::now() + ACCEPT_PAUSE);
                    self.listen_again(EpollFlags::empty());
                    return;
                }
            };
            let Ok(peer) = peer_of(&stream) else { continue };
            if !self.has_room(&peer) {
                self.refused += 1;
                continue;
            }
            let id = self.next;
            self.next += 1;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, id);
            if stream.set_nonblocking(true).is_err() || self.epoll.add(&stream, event).is_err() {
                continue;
            }
            self.connections.insert(
                id,
                Connection {
                    stream,
                    peer,
                    lines: Lines::new(MAX_WORKER_MESSAGE),
                    unsent: Vec::new(),
                    closing: false,
                    held: false,
                    interest: EpollFlags::EPOLLIN,
                    deadline: Some(Instant::now() + PATIENCE),
                    allowance: None,
                },
            );
            ready.push(Ready::New(id));
        }
    }

    fn serve(&mut self, id: u64, events: EpollFlags, ready: &mut Vec<Ready>) {
        if events.contains(EpollFlags::EPOLLOUT) {
            self.flush(id);
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            ready.push(Ready::Gone(id));
            return;
        };
        if connection.closing {
            if events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
                self.connections.remove(&id);
                ready.push(Ready::Gone(id));
            }
            return;
        }
        if !events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return;
        }
        match connection.stream.read(&mut self.buffer) {
            Ok(0) => {
                self.connections.remove(&id);
                ready.push(Ready::Gone(id));
            }
            Ok(n) => {
                connection.lines.push(self.buffer.get(..n).unwrap_or(&[]));
                if let Some((allowance, _)) = &mut connection.allowance {
                    *allowance -= n as f64;
                }
                ready.push(Ready::Read(id));
            }
            Err(error) if is_temporary(&error) => {}
            Err(_) => {
                self.connections.remove(&id);
                ready.push(Ready::Gone(id));
            }
        }
    }

    fn flush(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let mut broken = false;
        let mut sent = 0;
        while let Some(rest) = connection.unsent.get(sent..)
            && !rest.is_empty()
        {
            match connection.stream.write(rest) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_temporary(&error) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        connection.unsent.drain(..sent);
        let most = match connection.allowance {
            Some(_) => MAX_UNSENT_WORKER,
            None => MAX_UNSENT,
        };
        if connection.unsent.len() > most {
            broken = true;
        }
        if broken || (connection.closing && connection.unsent.is_empty()) {
            // The loop learns of it by the end of file that follows; a connection whose other
            // side is gone has nobody to be told.
            let _ = connection.stream.shutdown(std::net::Shutdown::Both);
            connection.closing = true;
            connection.unsent.clear();
        }
        self.watch(id);
    }

    fn watch(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let mut interest = EpollFlags::empty();
        if !connection.closing && !connection.held {
            interest |= EpollFlags::EPOLLIN;
        }
        if !connection.unsent.is_empty() {
            interest |= EpollFlags::EPOLLOUT;
        }
        if interest != connection.interest {
            let mut event = EpollEvent::new(interest, id);
            if self.epoll.modify(&connection.stream, &mut event).is_ok() {
                connection.interest = interest;
            }
        }
    }
}

/// Everybody may connect; what somebody may ask is decided by who he is.
fn bind(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    let there = std::fs::symlink_metadata(path)?;
    Ok((listener, (there.dev(), there.ino())))
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = getsockopt(stream, PeerCredentials)?;
    let mut groups = sys::peer::groups(stream).unwrap_or_default();
    groups.push(credentials.gid());
    Ok(Peer {
        uid: credentials.uid(),
        pid: credentials.pid(),
        groups,
    })
}
