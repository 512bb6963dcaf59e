//! The process that answers: no rights, no files, and no look at what a client sends but for the
//! end of the request's head.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};

use super::hello::Hello;
use crate::sys::privileges::{Identity, irrevocably_drop_privileges};
use crate::sys::{fds, process};

/// Bytes of a request's head at most.
const MAX_HEAD: usize = 8 * 1_024;

/// Time for a request, and for reading its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections that are served at once; another one is closed.
const MAX_CONNECTIONS: usize = 16;

/// Descriptors that it may have open.
const MAX_FILES: u64 = 64;

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
    if let Some((uid, gid)) = hello.identity {
        irrevocably_drop_privileges(Identity { uid, gid })?;
    }
    setrlimit(Resource::RLIMIT_NOFILE, MAX_FILES, MAX_FILES)?;
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
    let latest: Latest = Latest::default();
    let open = Arc::new(AtomicUsize::new(0));
    for listener in listeners {
        let (latest, open) = (Arc::clone(&latest), Arc::clone(&open));
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

fn accept(listener: OwnedFd, latest: &Latest, open: &Arc<AtomicUsize>) {
    let is_unix = getsockname::<SockaddrStorage>(std::os::fd::AsRawFd::as_raw_fd(&listener))
        .is_ok_and(|address| address.family() == Some(AddressFamily::Unix));
    let listener = match is_unix {
        true => Listener::Unix(listener.into()),
        false => Listener::Tcp(listener.into()),
    };
    loop {
        let Ok(stream) = listener.accept() else {
            // No descriptor is left, for one: the listener stays readable.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        if open.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let text = Arc::clone(&latest.lock().unwrap_or_else(PoisonError::into_inner));
        let after = Arc::clone(open);
        let answering = thread::Builder::new().stack_size(STACK).spawn(move || {
            // A client that goes away gets no answer.
            let _ = answer(stream, &text);
            after.fetch_sub(1, Ordering::AcqRel);
        });
        if answering.is_err() {
            open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Listener::Unix(listener) => Box::new(listener.accept()?.0),
            Listener::Tcp(listener) => Box::new(listener.accept()?.0),
        })
    }
}

trait Stream: Read + Write + Send {
    fn limit(&self, time: Duration) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

impl Stream for TcpStream {
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

fn answer(mut stream: Box<dyn Stream>, text: &[u8]) -> io::Result<()> {
    let begin = Instant::now();
    let mut head = Vec::new();
    let mut buffer = [0; 1_024];
    while !has_ended(&head) {
        let left = PATIENCE.saturating_sub(begin.elapsed());
        if left.is_zero() || head.len() > MAX_HEAD {
            return Ok(());
        }
        stream.limit(left)?;
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        head.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
    stream.limit(PATIENCE)?;
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(text)
}

/// Whether the head of a request is whole.
fn has_ended(head: &[u8]) -> bool {
    let found = |end: &[u8]| memchr::memmem::find(head, end).is_some();
    found(b"\r\n\r\n") || found(b"\n\n")
}
