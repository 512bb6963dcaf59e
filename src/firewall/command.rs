//! The administrator's own program: run for each ban and each unban, one at a time, on a thread.
//!
//! Nobody waits for it. Of several wishes for one entry only the last is carried out; what fails
//! is tried again.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use ipnet::IpNet;

use super::cut::{Cutter, Target};
use super::notices::Notices;
use super::{Backend, Entry, Error, Witness, ssh_ports, tool, ufw_rules};
use crate::config::{BanCommand, Ports, fill};
use crate::jail::{ban_values, show_net};

/// Wishes that may wait; a program takes some milliseconds at least.
const MOST_WAITING: usize = 50_000;
/// Between two tries of what failed.
const AGAIN: Duration = Duration::from_secs(30);
/// How long `status` asks the program at most; what was not asked by then is not known.
const ASKING: Duration = Duration::from_secs(20);
/// How long unbans that wait may take when the engine ends.
const LAST_UNBANS: Duration = Duration::from_secs(10);
const FAILED: &str = "command-failed";

type Key = (IpNet, Ports);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Ban,
    /// Only where the program does not say that it is there.
    Ensure,
    Unban,
}

#[derive(Default)]
struct State {
    wishes: HashMap<Key, (Wish, Entry)>,
    order: VecDeque<Key>,
    /// Failed, to be tried again.
    later: Vec<Key>,
    /// Bans that were wished for: what else is lifted by [`Backend::exactly`].
    given: HashSet<Key>,
    /// What a process before us may have given, until [`Backend::exactly`].
    left: HashSet<Key>,
    /// Bans for which the program may have run.
    begun: HashSet<Key>,
    stop: Option<Instant>,
}

impl State {
    /// False: there is no room.
    fn wish(&mut self, wish: Wish, entry: &Entry) -> bool {
        let key = (entry.net, entry.ports.clone());
        // A ban that is lifted before its turn costs no call.
        let waits = matches!(self.wishes.get(&key), Some((Wish::Ban, _)));
        if wish == Wish::Unban && waits && !self.begun.contains(&key) {
            self.wishes.remove(&key);
            self.given.remove(&key);
            return true;
        }
        if !self.wishes.contains_key(&key) {
            if self.wishes.len() >= MOST_WAITING {
                return false;
            }
            self.order.push_back(key.clone());
        } else if let Some(place) = self.later.iter().position(|known| *known == key) {
            self.later.swap_remove(place);
            self.order.push_back(key.clone());
        }
        match wish {
            Wish::Unban => self.given.remove(&key),
            Wish::Ban | Wish::Ensure => self.given.insert(key.clone()),
        };
        self.wishes.insert(key, (wish, entry.clone()));
        true
    }

    fn next(&mut self) -> Option<(Wish, Entry)> {
        loop {
            let key = self.order.pop_front()?;
            if let Some((wish, entry)) = self.wishes.remove(&key) {
                match wish {
                    Wish::Unban => self.begun.remove(&key),
                    Wish::Ban | Wish::Ensure => self.begun.insert(key),
                };
                return Some((wish, entry));
            }
        }
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Command {
    shared: Arc<Shared>,
    settings: BanCommand,
    ended: Receiver<()>,
}

impl Command {
    /// Starts the thread. With a cutter it cuts what a ban has just closed.
    pub(super) fn start(
        settings: BanCommand,
        cutter: Option<Cutter>,
        mut notices: Notices,
    ) -> Command {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (ending, ended) = bounded(1);
        let mut worker = Worker {
            shared: Arc::clone(&shared),
            templates: Templates::new(settings.clone()),
            cutter,
            notices: notices.another(),
            tried: Instant::now(),
        };
        let started = thread::Builder::new()
            .name("command".into())
            .spawn(move || worker.run(&ending));
        if let Err(error) = started {
            notices.trouble(
                FAILED,
                format!("no ban reaches the command: no thread: {error}"),
            );
        }
        Command {
            shared,
            settings,
            ended,
        }
    }

    fn wish(&self, wish: Wish, entries: &[Entry]) -> Result<(), Error> {
        let mut state = self.shared.lock();
        let all = entries.iter().all(|entry| state.wish(wish, entry));
        drop(state);
        self.shared.changed.notify_all();
        self.fits(all)
    }

    fn fits(&self, all: bool) -> Result<(), Error> {
        match all {
            true => Ok(()),
            false => Err(Error::Tool {
                command: self.settings.ban.join(" "),
                said: format!("{MOST_WAITING} calls wait already: it is too slow"),
            }),
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.shared.lock().stop.get_or_insert_with(Instant::now);
        self.shared.changed.notify_all();
    }
}

impl Backend for Command {
    fn ban(&mut self, entries: &[Entry]) -> Result<(), Error> {
        self.wish(Wish::Ban, entries)
    }

    fn unban(&mut self, entries: &[Entry]) -> Result<(), Error> {
        self.wish(Wish::Unban, entries)
    }

    fn left(&mut self, entries: &[Entry]) {
        let keys = entries.iter().map(|entry| (entry.net, entry.ports.clone()));
        self.shared.lock().left.extend(keys);
    }

    /// What a process before this one left, and the store does not know, stays: nobody can list
    /// it.
    fn exactly(&mut self, all: &mut dyn Iterator<Item = Entry>) -> Result<(), Error> {
        let mut state = self.shared.lock();
        let known = std::mem::take(&mut state.given);
        let mut stale = std::mem::take(&mut state.left);
        stale.extend(known.iter().cloned());
        let mut fits = true;
        for entry in all {
            let key = (entry.net, entry.ports.clone());
            stale.remove(&key);
            // One that is known is done, or waits: nobody else's place is taken for it.
            match known.contains(&key) {
                true => _ = state.given.insert(key),
                false => fits &= state.wish(Wish::Ensure, &entry),
            }
        }
        for (net, ports) in stale {
            if !state.wish(Wish::Unban, &Entry::named(net, ports.clone(), false)) {
                state.given.insert((net, ports));
                fits = false;
            }
        }
        drop(state);
        self.shared.changed.notify_all();
        self.fits(fits)
    }

    fn witness(&self) -> Option<Box<dyn Witness>> {
        self.settings.check.as_ref()?;
        Some(Box::new(Templates::new(self.settings.clone())))
    }

    fn tend(&mut self) {}

    fn finish(self: Box<Self>, grace: Duration) {
        let grace = grace.max(LAST_UNBANS);
        let mut state = self.shared.lock();
        // Bans are found again at the next start; nobody would lift these any more.
        state.wishes.retain(|_, (wish, _)| *wish == Wish::Unban);
        let later = std::mem::take(&mut state.later);
        state.order.extend(later);
        state.stop = Some(Instant::now() + grace);
        drop(state);
        self.shared.changed.notify_all();
        // The thread ends, or the program hangs and is killed: either way we go on.
        let last_call = self.settings.timeout.min(Duration::from_secs(5));
        let _ = self.ended.recv_timeout(grace.saturating_add(last_call));
    }
}

struct Worker {
    shared: Arc<Shared>,
    templates: Templates,
    cutter: Option<Cutter>,
    notices: Notices,
    /// When what failed was tried last.
    tried: Instant,
}

impl Worker {
    fn run(&mut self, ending: &Sender<()>) {
        while let Some((wish, entry)) = self.wait() {
            self.perform(wish, &entry);
        }
        // Nobody may be waiting any more.
        let _ = ending.try_send(());
    }

    /// The next thing to do; `None`: it is over.
    fn wait(&mut self) -> Option<(Wish, Entry)> {
        let mut state = self.shared.lock();
        loop {
            if self.tried.elapsed() >= AGAIN {
                self.tried = Instant::now();
                let later = std::mem::take(&mut state.later);
                state.order.extend(later);
            }
            let stop = state.stop;
            if stop.is_some_and(|stop| Instant::now() >= stop) {
                return None;
            }
            if let Some(next) = state.next() {
                return Some(next);
            }
            if stop.is_some() {
                return None;
            }
            let waited = self.shared.changed.wait_timeout(state, AGAIN);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn perform(&mut self, wish: Wish, entry: &Entry) {
        let done = match wish {
            Wish::Ensure if self.templates.check(entry) == Some(true) => Ok(()),
            Wish::Ban | Wish::Ensure => self.templates.ban(entry),
            Wish::Unban => match self.templates.unban(entry) {
                // It is gone already.
                Err(_) if self.templates.check(entry) == Some(false) => Ok(()),
                other => other,
            },
        };
        match done {
            Ok(()) => {
                let nothing_left = self.shared.lock().later.is_empty();
                if nothing_left {
                    self.notices.over(FAILED);
                }
                if let (Wish::Ban, Some(cutter)) = (wish, &mut self.cutter) {
                    cutter.cut(vec![Target::from(entry)]);
                }
            }
            Err(error) => {
                let again = AGAIN.as_secs();
                let text = format!(
                    "{} is {}: {error}; tried again every {again} seconds",
                    show_net(&entry.net),
                    match wish {
                        Wish::Unban => "not unbanned",
                        Wish::Ban | Wish::Ensure => "not banned",
                    }
                );
                self.notices.trouble(FAILED, text);
                let key = (entry.net, entry.ports.clone());
                let mut state = self.shared.lock();
                // Unless something newer was wished for meanwhile.
                if !state.wishes.contains_key(&key) {
                    state.wishes.insert(key.clone(), (wish, entry.clone()));
                    state.later.push(key);
                }
            }
        }
    }
}

/// The program's calls with an entry's values in their words.
struct Templates {
    settings: BanCommand,
    ssh: BTreeSet<u16>,
}

impl Templates {
    fn new(settings: BanCommand) -> Templates {
        Templates {
            settings,
            ssh: ssh_ports::read(),
        }
    }

    fn ban(&self, entry: &Entry) -> Result<(), Error> {
        self.call(&self.settings.ban, entry)
    }

    fn unban(&self, entry: &Entry) -> Result<(), Error> {
        self.call(&self.settings.unban, entry)
    }

    /// `None`: nobody can tell.
    fn check(&self, entry: &Entry) -> Option<bool> {
        Some(self.call(self.settings.check.as_ref()?, entry).is_ok())
    }

    fn call(&self, template: &[String], entry: &Entry) -> Result<(), Error> {
        let mut argv = fill(template, &values(entry, &self.ssh)).into_iter();
        let program = argv.next().unwrap_or_default();
        let argv: Vec<String> = argv.collect();
        tool::run(&program, &argv, self.settings.timeout).map(drop)
    }
}

impl Witness for Templates {
    fn holds(&mut self, entries: &[Entry]) -> Result<Vec<Option<bool>>, Error> {
        let end = Instant::now() + ASKING;
        let holds = |entry: &Entry| match Instant::now() < end {
            true => self.check(entry),
            false => None,
        };
        Ok(entries.iter().map(holds).collect())
    }
}

/// What [`crate::config::COMMAND_PLACEHOLDERS`] stand for, in their order.
fn values(entry: &Entry, ssh: &BTreeSet<u16>) -> Vec<(&'static str, String)> {
    let list = |ports: &BTreeSet<u16>| {
        let words: Vec<String> = ports.iter().map(u16::to_string).collect();
        words.join(",")
    };
    const ALL: &str = "1:65535";
    let (tcp, udp) = match &entry.ports {
        Ports::All => (ALL.to_owned(), ALL.to_owned()),
        Ports::AllButSsh => (ufw_rules::ranges_around(ssh).join(","), ALL.to_owned()),
        Ports::List { tcp, udp } => (list(tcp), list(udp)),
    };
    let mut values = ban_values(&entry.net, &entry.jail, entry.remaining, entry.until).to_vec();
    values.extend([("tcp", tcp), ("udp", udp)]);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::COMMAND_PLACEHOLDERS;

    fn entry(net: &str, ports: Ports) -> Entry {
        Entry {
            net: net.parse().unwrap(),
            ports,
            jail: "wp-login".into(),
            until: Some("2026-11-22T12:00:00.7Z".parse().unwrap()),
            remaining: Some(Duration::from_millis(400)),
            behind: false,
        }
    }

    #[test]
    fn words_are_filled_with_what_the_ban_is() {
        let list = Ports::List {
            tcp: BTreeSet::from([80, 443]),
            udp: BTreeSet::new(),
        };
        let ssh = BTreeSet::from([22]);
        let one = values(&entry("192.0.2.1/32", list), &ssh);
        let names: Vec<&str> = one.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, COMMAND_PLACEHOLDERS);
        let filled = |values, word: &str| fill(&[word.to_owned()], values).join("");
        assert_eq!(
            filled(
                &one,
                "{host} {net} v{family} {tcp}/{udp}/ {jail} {seconds} {until}"
            ),
            "192.0.2.1 192.0.2.1/32 v4 80,443// wp-login 1 2026-11-22T12:00:00Z"
        );
        let six = values(&entry("2001:db8::/64", Ports::AllButSsh), &ssh);
        assert_eq!(
            filled(&six, "{host} {tcp} {udp}"),
            "2001:db8::/64 1:21,23:65535 1:65535"
        );
    }

    #[test]
    fn of_several_wishes_for_one_entry_the_last_is_carried_out() {
        let mut state = State::default();
        let (one, two) = (
            entry("192.0.2.1/32", Ports::All),
            entry("192.0.2.2/32", Ports::All),
        );
        assert!(state.wish(Wish::Ban, &one));
        assert!(state.wish(Wish::Ban, &two));
        assert!(state.wish(Wish::Unban, &one));
        // Lifted before its turn: it costs no call.
        assert!(state.next() == Some((Wish::Ban, two.clone())));
        assert!(state.next().is_none());
        assert!(state.wish(Wish::Ban, &two));
        assert!(state.wish(Wish::Unban, &two));
        assert!(state.next() == Some((Wish::Unban, two)));
        assert!(state.next().is_none() && state.given.is_empty());
    }

    #[test]
    fn wishes_are_bounded() {
        let mut state = State::default();
        let fits = (0..60_000u32)
            .map(|n| std::net::Ipv4Addr::from(n).to_string())
            .filter(|host| state.wish(Wish::Ban, &entry(&format!("{host}/32"), Ports::All)))
            .count();
        assert_eq!((fits, state.order.len()), (MOST_WAITING, MOST_WAITING));
    }
}
