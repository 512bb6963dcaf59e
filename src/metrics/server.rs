//! The process that answers: no rights, no files, and no look at what a client sends but for the
//! end of the request's head.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};

use super::hello::Hello;
use crate::sys::privileges::{Identity, drop_capabilities, irrevocably_drop_privileges};
use crate::sys::{fds, process};

/// Bytes of a request's head at most.
const MAX_HEAD: usize = 8 * 1_024;

/// Time for a request and for reading its answer, in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections that are served at once; another one cuts the oldest, so that slow clients keep no
/// other from its answer.
const MAX_CONNECTIONS: usize = 128;

/// Descriptors that it may have open.
const MAX_FILES: u64 = 256;

/// Stack of a connection's thread.
const STACK: usize = 64 * 1_024;

/// The last text.
type Latest = Arc<Mutex<Arc<Vec<u8>>>>;

/// Serves until the engine ends; stdin is the socket that the engine sends to. Returns the
/// exit status.
pub fn run() -> i32 {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return 2;
    }
    match serve(stdin.as_fd()) {
        Ok(()) => 0,
        Err(_) => 2,
    }
}

fn serve(engine: impl AsFd) -> io::Result<()> {
    let mut buffer = [0; 1_024];
    let (length, listeners) = fds::receive(&engine, &mut buffer)?;
    let hello: Hello = serde_json::from_slice(buffer.get(..length).unwrap_or_default())?;
    process::redirect_to_null(false)?;
    match hello.identity {
        Some((uid, gid)) => irrevocably_drop_privileges(Identity { uid, gid })?,
        None => drop_capabilities()?,
    }
    setrlimit(Resource::RLIMIT_NOFILE, MAX_FILES, MAX_FILES)?;
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
    let latest: Latest = Latest::default();
    let open = Open::default();
    for listener in listeners {
        let (latest, open) = (Arc::clone(&latest), open.clone());
        thread::Builder::new().spawn(move || accept(listener, &latest, &open))?;
    }
    // Until the engine closes its end.
    loop {
        let (length, files) = fds::receive(&engine, &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        if let Some(file) = files.into_iter().next() {
            let mut text = Vec::new();
            File::from(file).read_to_end(&mut text)?;
            *latest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(text);
        }
    }
}

fn accept(listener: OwnedFd, latest: &Latest, open: &Open) {
    let is_unix = getsockname::<SockaddrStorage>(std::os::fd::AsRawFd::as_raw_fd(&listener))
        .is_ok_and(|address| address.family() == Some(AddressFamily::Unix));
    let listener = match is_unix {
        true => Listener::Unix(listener.into()),
        false => Listener::Tcp(listener.into()),
    };
    loop {
        let Ok(connection) = listener.accept().map(Arc::new) else {
            // No descriptor is left, for one: the listener stays readable.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        open.add(&connection);
        let text = Arc::clone(&latest.lock().unwrap_or_else(PoisonError::into_inner));
        let (served, of) = (Arc::clone(&connection), open.clone());
        let answering = thread::Builder::new().stack_size(STACK).spawn(move || {
            // A client that goes away gets no answer.
            let _ = answer(&served, &text);
            of.remove(&served);
        });
        if answering.is_err() {
            open.remove(&connection);
        }
    }
}

/// The connections that are served, the oldest first.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<VecDeque<Arc<Connection>>>>);

impl Open {
    fn add(&self, connection: &Arc<Connection>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_CONNECTIONS
            && let Some(oldest) = all.pop_front()
        {
            oldest.cut();
        }
        all.push_back(Arc::clone(connection));
    }

    fn remove(&self, connection: &Arc<Connection>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| !Arc::ptr_eq(other, connection));
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Connection> {
        Ok(match self {
            Listener::Unix(listener) => Connection::Unix(listener.accept()?.0),
            Listener::Tcp(listener) => Connection::Tcp(listener.accept()?.0),
        })
    }
}

enum Connection {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Connection {
    /// The next read or write takes no longer than until then.
    fn limit(&self, end: Instant) -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = Some(left);
        match self {
            Connection::Unix(stream) => {
                stream.set_read_timeout(left)?;
                stream.set_write_timeout(left)
            }
            Connection::Tcp(stream) => {
                stream.set_read_timeout(left)?;
                stream.set_write_timeout(left)
            }
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Unix(stream) => { stream }.read(buffer),
            Connection::Tcp(stream) => { stream }.read(buffer),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Unix(stream) => { stream }.write(bytes),
            Connection::Tcp(stream) => { stream }.write(bytes),
        }
    }

    /// Ends what the thread that serves it waits for.
    fn cut(&self) {
        // The client may have closed it.
        let _ = match self {
            Connection::Unix(stream) => stream.shutdown(Shutdown::Both),
            Connection::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

fn answer(connection: &Connection, text: &[u8]) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut buffer = [0; 1_024];
    while !has_ended(&head) {
        connection.limit(end)?;
        let length = connection.read(&mut buffer)?;
        if length == 0 || head.len() > MAX_HEAD {
            return Ok(());
        }
        head.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
    let length = text.len();
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(text);
    let mut rest = answer.as_slice();
    while !rest.is_empty() {
        connection.limit(end)?;
        let written = connection.write(rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Whether the head of a request is whole.
fn has_ended(head: &[u8]) -> bool {
    let found = |end: &[u8]| memchr::memmem::find(head, end).is_some();
    found(b"\r\n\r\n") || found(b"\n\n")
}
