//! Clients that try to connect all the time.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::World;
use super::network::knock;
use super::world::SERVER4;

/// A packet that has had no answer for so long was dropped; TCP would send it again after a second.
const PATIENCE: Duration = Duration::from_millis(250);

/// Attempts at a steady pace, each on a socket of its own, none waiting for those before.
pub(crate) struct Knocking {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Knocks>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Knocks {
    pub(crate) attempts: usize,
    /// When those that got through began.
    pub(crate) through: Vec<Instant>,
}

impl Knocks {
    /// From the first that got through to the last.
    pub(crate) fn span(&self) -> Duration {
        match (self.through.iter().min(), self.through.iter().max()) {
            (Some(first), Some(last)) => *last - *first,
            _ => Duration::ZERO,
        }
    }
}

impl Knocking {
    /// Begins, from these addresses in turn, with a pause between two attempts.
    pub(crate) fn from(world: &World, from: Vec<IpAddr>, pause: Duration) -> Knocking {
        let over = Arc::new(AtomicBool::new(false));
        let (clients, end) = (world.clients(), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            clients.within(|| {
                let mut knocks = Knocks::default();
                let mut open = Vec::new();
                for from in from.into_iter().cycle() {
                    if end.load(Ordering::Relaxed) {
                        break;
                    }
                    knocks.attempts += 1;
                    let began = Instant::now();
                    // Without a listener the refusal may come at once.
                    let socket = knock(from, SocketAddr::new(SERVER4, 80));
                    open.extend(socket.ok().map(|socket| (began, socket)));
                    std::thread::sleep(pause);
                    knocks.through.extend(answered(&mut open));
                }
                knocks
            })
        });
        Knocking { over, thread }
    }

    /// Ends.
    pub(crate) fn stop(self) -> Knocks {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client does not panic")
    }
}

/// When those began that are connected by now. They are closed, and so is who got no answer.
fn answered(open: &mut Vec<(Instant, OwnedFd)>) -> Vec<Instant> {
    let mut sockets: Vec<PollFd<'_>> = open
        .iter()
        .map(|(_, socket)| PollFd::new(socket.as_fd(), PollFlags::POLLOUT))
        .collect();
    poll(&mut sockets, PollTimeout::ZERO).expect("polled");
    let ready: Vec<bool> = sockets
        .iter()
        .map(|socket| socket.any().unwrap_or(false))
        .collect();
    let mut through = Vec::new();
    let mut ready = ready.into_iter();
    open.retain(|(began, socket)| {
        if !ready.next().unwrap_or(false) {
            return began.elapsed() < PATIENCE;
        }
        if getsockopt(socket, sockopt::SocketError) == Ok(0) {
            through.push(*began);
            // Closed at once, and no port is kept for it.
            let reset = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(socket, sockopt::Linger, &reset).expect("set");
        }
        false
    });
    through
}
