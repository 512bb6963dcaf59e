//! The sockets: bytes in, whole lines out. Never waits for a client.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit};

use super::super::waker::Waker;
use super::rights::{Ids, Peer};
use super::roles::Role;
use super::socket::Socket;
use crate::control::{Lines, MAX_WORKER_MESSAGE, TooLong};

/// Connections at most; a host with a thousand piped logs has two thousand. Fewer where fewer
/// descriptors may be open.
const MAX_CONNECTIONS: usize = 8_192;

/// Descriptors kept for everything but connections; half of them where there are few.
const SPARE_DESCRIPTORS: usize = 128;

/// Connections of one user who is not root, and of all of them. Their commands only read.
const MAX_PER_USER: usize = 32;
const MAX_OF_USERS: usize = 256;

/// Bytes of such a user's command at most.
const MAX_USERS_COMMAND: usize = 4 * 1_024;

/// Connections accepted before others have their turn.
const MAX_ACCEPTED: usize = 64;

/// Pause after accepting failed (no descriptor left): the listener stays readable, and the loop
/// would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Bytes read from one connection before others have their turn.
const READ_AT_ONCE: usize = 64 * 1_024;

/// Bytes that may wait for the other side to read; more ends the connection. Acknowledgements are
/// small; an answer about half a million bans is not.
const MAX_UNSENT_WORKER: usize = 4 << 20;
const MAX_UNSENT: usize = 256 << 20;

/// The same of all commands together.
const MAX_UNSENT_TOTAL: usize = 384 << 20;

/// Between two checks of all connections.
const REGULATE: Duration = Duration::from_millis(10);

/// Bytes a second, and in a burst, from one worker: far above what matching can produce.
const WORKER_RATE: f64 = (16 << 20) as f64;

/// Time for a first message, and for reading an answer.
const PATIENCE: Duration = Duration::from_secs(30);

const LISTENER: u64 = 0;
const WAKER: u64 = 2;
const SIGNALS: u64 = 3;
const FIRST_CONNECTION: u64 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// A client connected.
    New(u64),
    /// Bytes arrived; see [`Server::next_line`].
    Read(u64),
    /// Another thread called [`Waker`].
    Woken,
    /// A signal to end.
    Signal,
}

struct Connection {
    stream: UnixStream,
    peer: Peer,
    role: Role,
    lines: Lines,
    unsent: Vec<u8>,
    /// Nothing more is read; closed when all is sent.
    closing: bool,
    /// Not read for now.
    held: bool,
    interest: EpollFlags,
    /// When it is ended.
    deadline: Option<Instant>,
    /// Bytes that may be read now, and when that was computed; `None`: not limited.
    allowance: Option<(f64, Instant)>,
}

pub(super) struct Server {
    epoll: Epoll,
    socket: Socket,
    /// No client is accepted until then.
    paused: Option<Instant>,
    most: usize,
    ids: Ids,
    waker: Waker,
    connections: HashMap<u64, Connection>,
    next: u64,
    refused: u64,
    regulated: Instant,
    buffer: Vec<u8>,
}

impl Server {
    /// Listens at `path`; replaces a file there.
    pub(super) fn listen(path: &Path, ids: Ids, signals: impl AsFd) -> io::Result<Server> {
        let socket = Socket::listen(path, ids.adm)?;
        let waker = Waker::new()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let input = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
        epoll.add(&socket.listener, input(LISTENER))?;
        epoll.add(&waker, input(WAKER))?;
        epoll.add(signals, input(SIGNALS))?;
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Ok(Server {
            epoll,
            socket,
            paused: None,
            most: MAX_CONNECTIONS.min(descriptors - SPARE_DESCRIPTORS.min(descriptors / 2)),
            ids,
            waker,
            connections: HashMap::new(),
            next: FIRST_CONNECTION,
            refused: 0,
            regulated: Instant::now(),
            buffer: vec![0; READ_AT_ONCE],
        })
    }

    /// Listens again if another process removed the socket's file (`rm -rf /run/pipeban`): new
    /// clients would not reach the engine any more. Whether that was so.
    ///
    /// # Errors
    /// It cannot be made again, or another process has replaced it.
    pub(super) fn restore_file(&mut self) -> io::Result<bool> {
        if self.socket.is_there()? {
            return Ok(false);
        }
        let socket = self.socket.again()?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
        self.epoll.add(&socket.listener, event)?;
        // Closing the old one removes it from epoll.
        self.socket = socket;
        self.paused = None;
        Ok(true)
    }

    /// Removes the socket's file, unless another process has replaced it.
    pub(super) fn remove_file(&self) {
        self.socket.remove_file();
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Connections refused because there are too many, since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Waits for at most `timeout`. Workers are not read while `hold`.
    pub(super) fn wait(&mut self, hold: bool, timeout: Duration) -> io::Result<Vec<Ready>> {
        let timeout = self.regulate(hold).min(timeout);
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
                WAKER => {
                    self.waker.reset();
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

    pub(super) fn role(&mut self, id: u64) -> Option<&mut Role> {
        let connection = self.connections.get_mut(&id)?;
        Some(&mut connection.role)
    }

    /// The roles of all connections that are not being closed.
    pub(super) fn roles(&self) -> impl Iterator<Item = (u64, &Role)> {
        let open = self.connections.iter().filter(|(_, c)| !c.closing);
        open.map(|(id, connection)| (*id, &connection.role))
    }

    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Closes at once.
    pub(super) fn end(&mut self, id: u64) {
        // Closing it removes it from epoll.
        self.connections.remove(&id);
    }

    /// Sends now what fits, the rest when the other side reads. A command whose answer does not fit
    /// beside those of others is ended.
    pub(super) fn send(&mut self, id: u64, bytes: &[u8]) {
        let commands = self.connections.values().filter(|c| c.allowance.is_none());
        let is_large = bytes.len() > READ_AT_ONCE;
        if is_large
            && commands.map(|c| c.unsent.len()).sum::<usize>() + bytes.len() > MAX_UNSENT_TOTAL
        {
            self.refused += 1;
            return self.end(id);
        }
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

    /// Ends its deadline; a worker's bytes are limited from now on.
    pub(super) fn set_role(&mut self, id: u64, role: Role) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let is_worker = matches!(role, Role::Worker(_));
            connection.deadline = None;
            connection.allowance = is_worker.then(|| (WORKER_RATE, Instant::now()));
            connection.role = role;
        }
    }

    /// Stops reading workers while `hold`, and a worker that has used up its allowance; ends
    /// connections whose deadline has passed. Returns when to call again, at the latest.
    fn regulate(&mut self, hold: bool) -> Duration {
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
        let is_over = |connection: &Connection| connection.deadline.is_some_and(|at| at <= now);
        self.connections
            .retain(|_, connection| !is_over(connection));
        let mut changed = Vec::new();
        for (id, connection) in &mut self.connections {
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
        again
    }

    fn listen_again(&mut self, interest: EpollFlags) {
        let mut event = EpollEvent::new(interest, LISTENER);
        // It is part of the epoll, and a change needs no memory.
        let _ = self.epoll.modify(&self.socket.listener, &mut event);
    }

    /// Whether there is room for one more. Root always has: it must be able to stop the engine.
    fn has_room(&self, peer: &Peer) -> bool {
        if self.ids.commands(peer.uid) {
            return true;
        }
        let users = self.connections.values().map(|c| c.peer.uid);
        let users = users.filter(|uid| !self.ids.commands(*uid));
        let (mut all, mut same) = (0, 0);
        for uid in users {
            all += 1;
            same += usize::from(uid == peer.uid);
        }
        same < MAX_PER_USER && all < MAX_OF_USERS && self.connections.len() < self.most
    }

    fn accept(&mut self, ready: &mut Vec<Ready>) {
        for _ in 0..MAX_ACCEPTED {
            let stream = match self.socket.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_temporary(&error) => continue,
                Err(_) => {
                    self.paused = Some(Instant::now() + ACCEPT_PAUSE);
                    self.listen_again(EpollFlags::empty());
                    return;
                }
            };
            let Ok(mut peer) = Peer::of(&stream) else {
                continue;
            };
            if !self.has_room(&peer) {
                self.refused += 1;
                continue;
            }
            peer.read_groups(&stream);
            let id = self.next;
            self.next += 1;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, id);
            if stream.set_nonblocking(true).is_err() || self.epoll.add(&stream, event).is_err() {
                continue;
            }
            let most = match self.ids.commands(peer.uid) {
                true => MAX_WORKER_MESSAGE,
                false => MAX_USERS_COMMAND,
            };
            self.connections.insert(
                id,
                Connection {
                    stream,
                    peer,
                    role: Role::Unknown,
                    lines: Lines::new(most),
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
            return;
        };
        if connection.closing {
            if events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
                self.connections.remove(&id);
            }
            return;
        }
        if !events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return;
        }
        match connection.stream.read(&mut self.buffer) {
            Ok(n) if n > 0 => {
                connection.lines.push(self.buffer.get(..n).unwrap_or(&[]));
                if let Some((allowance, _)) = &mut connection.allowance {
                    *allowance -= n as f64;
                }
                ready.push(Ready::Read(id));
            }
            Err(error) if is_temporary(&error) => {}
            Ok(_) | Err(_) => {
                self.connections.remove(&id);
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
            // The loop learns of it by the end of file that follows.
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

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
