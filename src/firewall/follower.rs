//! The threads of back ends that take their time. One loop for all: it waits for changes, and
//! after an error it waits longer and longer.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use super::backend::{Follower, Next, Shared};
use super::notices::Notices;

/// After a failure, doubling up to the second.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// For what has begun when the engine stops: a program may be writing its files.
const LAST_CALL: Duration = Duration::from_secs(5);

/// A round that takes longer is reported: a program may wait for an answer.
const SLOW: Duration = Duration::from_secs(20);

/// A running thread. It ends soon after this is dropped.
pub(super) struct Running {
    name: &'static str,
    /// When the round that runs began.
    begun: Arc<Mutex<Option<Instant>>>,
    shared: Arc<Shared>,
    ended: Receiver<()>,
    last_work: Duration,
}

/// Starts the thread; `key` identifies its trouble.
pub(super) fn start(
    name: &'static str,
    key: &'static str,
    shared: &Arc<Shared>,
    mut follower: Box<dyn Follower>,
    mut notices: Notices,
) -> Running {
    let (ending, ended) = bounded(1);
    let last_work = follower.last_work();
    let (for_thread, mut for_start) = (Arc::clone(shared), notices.another());
    let begun = Arc::new(Mutex::new(None));
    let clock = Arc::clone(&begun);
    let started = thread::Builder::new().name(name.into()).spawn(move || {
        run(
            name,
            key,
            &for_thread,
            follower.as_mut(),
            &mut notices,
            &clock,
        );
        // Nothing may wait for it any more.
        let _ = ending.try_send(());
    });
    if let Err(error) = started {
        let text = format!("bans do not reach {name}: cannot start a thread: {error}");
        for_start.trouble(key, text);
    }
    Running {
        name,
        begun,
        shared: Arc::clone(shared),
        ended,
        last_work,
    }
}

fn run(
    name: &'static str,
    key: &'static str,
    shared: &Shared,
    follower: &mut dyn Follower,
    notices: &mut Notices,
    clock: &Mutex<Option<Instant>>,
) {
    let note = |begun| *clock.lock().unwrap_or_else(PoisonError::into_inner) = begun;
    let mut pause = PAUSE;
    loop {
        let (version, stopping) = {
            let state = shared.lock();
            (state.desired.version, state.stop.is_some())
        };
        if shared.is_over(follower.last_work()) {
            return;
        }
        note(Some(Instant::now()));
        let done = follower.round(shared);
        note(None);
        let next = match done {
            Ok(next) => {
                pause = PAUSE;
                notices.over(key);
                next
            }
            Err(error) if !shared.is_over(follower.last_work()) => {
                let text = format!("bans do not reach {name}: {error}; pipeban tries again");
                notices.trouble(key, text);
                let next = Next::After(pause);
                pause = LONGEST_PAUSE.min(pause * 2);
                next
            }
            Err(_) => return,
        };
        match next {
            Next::Now => {}
            _ if stopping => return,
            Next::Within(most) => shared.wait(version, stopping, most),
            Next::After(time) => {
                let end = Instant::now() + time;
                while Instant::now() < end && shared.lock().stop.is_none() {
                    let version = shared.lock().desired.version;
                    shared.wait(
                        version,
                        false,
                        end.saturating_duration_since(Instant::now()),
                    );
                }
            }
        }
    }
}

impl Running {
    /// Why bans do not reach it now, if its work takes longer than it should.
    pub(super) fn is_slow(&self, now: Instant) -> Option<String> {
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.name;
        begun.filter(|begun| now.saturating_duration_since(*begun) >= SLOW).map(|_| {
            format!(
                "bans do not reach {name}: a call of it has not ended for {} seconds (does it wait for \
                 another `{name}`, or for an answer?)",
                SLOW.as_secs()
            )
        })
    }

    /// Waits until it has done what it can in `grace` after a stop; a call that has begun gets some
    /// seconds more.
    pub(super) fn finish(self, grace: Duration) {
        let most = grace.saturating_add(self.last_work + LAST_CALL);
        let _ = self.ended.recv_timeout(most);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop_at(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::backend::Error;
    use crossbeam_channel::{Sender, unbounded};

    /// Its round ends when the test says so.
    struct Waits(Sender<()>, Receiver<()>);

    impl Follower for Waits {
        fn round(&mut self, _: &Shared) -> Result<Next, Error> {
            let _ = self.0.send(());
            let _ = self.1.recv();
            Ok(Next::Within(Duration::from_secs(3_600)))
        }
    }

    #[test]
    fn a_round_that_does_not_end_is_reported_while_it_lasts() {
        let (began, begins) = unbounded();
        let (end, ends) = unbounded();
        let shared = Arc::new(Shared::default());
        let (notices, _heard) = unbounded();
        let waits = Box::new(Waits(began, ends));
        let running = start("ufw", "ufw-failed", &shared, waits, Notices::to(notices));
        begins.recv().unwrap();
        assert_eq!(running.is_slow(Instant::now()), None);
        let later = Instant::now() + SLOW;
        assert!(running.is_slow(later).unwrap().contains("ufw"));
        end.send(()).unwrap();
        while running.is_slow(later).is_some() {
            thread::yield_now();
        }
    }
}
