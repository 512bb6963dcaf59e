//! A web server behind Apache that answers when the test says so.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::World;
use super::world::ROUTER4;

/// Port of the back end on the router.
pub(crate) const PORT: u16 = 8080;

/// Holds every request until [`Backend::answer`].
pub(crate) struct Backend {
    held: Arc<Mutex<Vec<(String, TcpStream)>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    pub(crate) fn start(world: &World) -> Backend {
        let listener = world.clients().listen(SocketAddr::new(ROUTER4, PORT));
        listener.set_nonblocking(true).expect("set");
        let held = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (held, over) = (Arc::clone(&held), Arc::clone(&over));
            move || {
                while !over.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            if let Some(target) = read_request(&stream) {
                                held.lock().expect("not poisoned").push((target, stream));
                            }
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
            }
        });
        Backend {
            held,
            over,
            thread: Some(thread),
        }
    }

    /// Requests waiting for their answer.
    pub(crate) fn waiting(&self) -> usize {
        self.held.lock().expect("not poisoned").len()
    }

    /// Answers the `most` that wait longest: 200, or nothing at all where the target says `broken`
    /// (Apache then answers 502 and writes an error line).
    pub(crate) fn answer(&self, most: usize) {
        let mut held = self.held.lock().expect("not poisoned");
        let most = most.min(held.len());
        for (target, mut stream) in held.drain(..most) {
            if !target.contains("broken") {
                // Apache may have been restarted meanwhile.
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n",
                );
            }
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads to the end of the head; the target.
fn read_request(stream: &TcpStream) -> Option<String> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut lines = BufReader::new(stream).lines();
    let target = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    for line in lines {
        if line.ok()?.is_empty() {
            return Some(target);
        }
    }
    None
}
