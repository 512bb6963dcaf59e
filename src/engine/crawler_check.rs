//! Threads that find out whether a client is a search engine: its name ends in a domain of one, and
//! that name has the client's address.
//!
//! Not the thread that resolves names of `ignoreip`: an attacker's name server that never answers
//! holds a look-up for as long as resolv.conf permits.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::Builder;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::waker::Waker;
use crate::config::SearchEngine;
use crate::record::display;
use crate::sys::resolver::{Answer, has_address, name_of};

/// Clients that wait for a look-up at most; a further one is not looked up.
const MAX_WAITING: usize = 1_000;

/// Bytes shown of a name, which an attacker chooses.
const MAX_NAME: usize = 80;

/// Look-ups at once.
const THREADS: usize = 4;

pub(super) type Engines = Arc<[SearchEngine]>;

/// What DNS says about a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is this one, with this name.
    Yes(String, String),
    /// It is none; why.
    No(String),
    /// A look-up had no answer; why.
    Unknown(String),
}

/// The threads end with this value, a look-up that hangs a while later.
#[derive(Debug)]
pub(super) struct CrawlerCheck {
    clients: Sender<(IpAddr, Engines)>,
    verdicts: Receiver<(IpAddr, Verdict)>,
}

impl CrawlerCheck {
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(waker: &Waker) -> io::Result<CrawlerCheck> {
        let (clients, wanted) = bounded::<(IpAddr, Engines)>(MAX_WAITING);
        let (sender, verdicts) = unbounded();
        for _ in 0..THREADS {
            let (wanted, sender, waker) = (wanted.clone(), sender.clone(), waker.clone());
            Builder::new().name("crawlers".into()).spawn(move || {
                for (addr, engines) in &wanted {
                    // The engine may be ending.
                    let _ = sender.send((addr, check(addr, &engines)));
                    waker.wake();
                }
            })?;
        }
        Ok(CrawlerCheck { clients, verdicts })
    }

    /// False: too many wait.
    pub(super) fn ask(&self, addr: IpAddr, engines: &Engines) -> bool {
        self.clients.try_send((addr, Arc::clone(engines))).is_ok()
    }

    pub(super) fn next(&self) -> Option<(IpAddr, Verdict)> {
        self.verdicts.try_recv().ok()
    }
}

fn check(addr: IpAddr, engines: &[SearchEngine]) -> Verdict {
    let name = match name_of(addr) {
        Answer::Found(name) => name,
        Answer::None => return Verdict::No("it has no name".to_owned()),
        Answer::Failed(error) => return Verdict::Unknown(error),
    };
    let Some(engine) = engines.iter().find(|engine| engine.owns(&name)) else {
        return Verdict::No(format!(
            "its name is `{}`",
            display(name.as_bytes(), MAX_NAME)
        ));
    };
    match has_address(&name, addr) {
        Answer::Found(()) => Verdict::Yes(engine.name.clone(), name),
        Answer::None => Verdict::No(format!("`{name}` has another address")),
        Answer::Failed(error) => Verdict::Unknown(error),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Plays the threads.
    pub(in crate::engine) struct Dns {
        wanted: Receiver<(IpAddr, Engines)>,
        sender: Sender<(IpAddr, Verdict)>,
    }

    impl Dns {
        pub(in crate::engine) fn asked(&self) -> Option<IpAddr> {
            self.wanted.try_recv().ok().map(|(addr, _)| addr)
        }

        pub(in crate::engine) fn answer(&self, addr: IpAddr, verdict: Verdict) {
            self.sender.send((addr, verdict)).unwrap();
        }
    }

    impl CrawlerCheck {
        pub(in crate::engine) fn by_hand() -> (CrawlerCheck, Dns) {
            let (clients, wanted) = bounded(MAX_WAITING);
            let (sender, verdicts) = unbounded();
            (CrawlerCheck { clients, verdicts }, Dns { wanted, sender })
        }
    }
}
