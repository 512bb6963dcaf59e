//! Whether a closed door opens for a moment.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::World;
use super::network::knock;
use super::world::SERVER4;

/// Between two of them.
const PACE: Duration = Duration::from_millis(1);
/// How long each waits for an answer: less than the kernel does before it asks a second time.
const PATIENCE: Duration = Duration::from_millis(250);

/// Clients that ask for connections to the server's port 80 in turn, a thousand times a second;
/// none waits for the answer to another.
pub(crate) struct Knocks {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Knocked>,
}

/// What became of them.
#[derive(Debug, Default)]
pub(crate) struct Knocked {
    /// First packets sent.
    pub(crate) asked: usize,
    /// Connections that came about.
    pub(crate) answered: usize,
    /// From the first of those to the last.
    pub(crate) open: Duration,
}

impl Knocks {
    pub(crate) fn start(world: &World, clients: Vec<IpAddr>) -> Knocks {
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (network, over) = (world.clients(), Arc::clone(&over));
            move || network.within(|| until(&over, &clients))
        });
        Knocks { over, thread }
    }

    pub(crate) fn stop(self) -> Knocked {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

fn until(over: &AtomicBool, clients: &[IpAddr]) -> Knocked {
    let mut knocked = Knocked::default();
    let mut waiting = VecDeque::new();
    let mut opened = None;
    for client in clients.iter().cycle() {
        let stopping = over.load(Ordering::Relaxed);
        if stopping && waiting.is_empty() {
            break;
        }
        while let Some((asked, door)) = waiting.pop_front() {
            let asked: Instant = asked;
            if asked.elapsed() < PATIENCE {
                waiting.push_front((asked, door));
                break;
            }
            if is_answered(door) {
                knocked.answered += 1;
                knocked.open = asked - *opened.get_or_insert(asked);
            }
        }
        if !stopping {
            waiting.push_back((Instant::now(), knock(*client, SocketAddr::new(SERVER4, 80))));
            knocked.asked += 1;
        }
        std::thread::sleep(PACE);
    }
    knocked
}

fn is_answered(door: io::Result<OwnedFd>) -> bool {
    let door = match door {
        Ok(door) => door,
        // A reject of before.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return false,
        Err(error) => panic!("a client cannot even ask: {error}"),
    };
    TcpStream::from(door).peer_addr().is_ok()
}
