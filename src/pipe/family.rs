//! The processes of the Apache that started the logger.

use std::collections::HashMap;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, getppid};

use crate::filter::matcher::Vouch;

/// Apache's main process is the logger's parent, or has a shell between (`|$`).
const GENERATIONS: usize = 3;
/// Words of a command line at most: they must fit into a socket's buffer.
const MAX_WORDS: usize = 100;
/// A process is looked up again after this time.
const FRESH: Duration = Duration::from_secs(1);
/// What it wrote last may be matched this long after its end.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Most processes that are remembered: prefork can have thousands.
const MAX_KNOWN: usize = 20_000;
/// Look-ups in a second: each costs some microseconds, and forged lines may come in thousands.
const MAX_LOOKUPS: u32 = 2000;

/// The process that started the logger, if it is Apache's main process. Called in the stub, which is
/// its child.
pub(super) fn apache() -> Option<Pid> {
    let mut pid = getppid();
    for _ in 0..GENERATIONS {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let name = name.trim_end();
        if name == "apache2" || name.starts_with("httpd") {
            return Some(pid);
        }
        pid = parent(pid)?;
    }
    None
}

/// The words of a process's command line; empty where they cannot be read.
pub(super) fn command_line(pid: Pid) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = text
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .take(MAX_WORDS)
        .collect()
}

/// Vouches for Apache's main process and its children.
#[derive(Debug)]
pub(super) struct Family {
    main: Pid,
    name: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When each was seen alive.
    known: HashMap<u64, Instant>,
    /// In the second that began then.
    lookups: (Instant, u32),
}

impl Family {
    /// `None` where this process cannot see the parents of processes: no /proc, or `hidepid`.
    pub(super) fn of(main: Pid) -> Option<Family> {
        let (name, _) = stat(main)?;
        Some(Family {
            main,
            name,
            state: Mutex::new(State {
                known: HashMap::new(),
                lookups: (Instant::now(), 0),
            }),
        })
    }

    fn is_child(&self, pid: u64) -> bool {
        let Ok(pid) = i32::try_from(pid).map(Pid::from_raw) else {
            return false;
        };
        if pid == self.main {
            return true;
        }
        let Some((name, above)) = stat(pid) else {
            return false;
        };
        // mpm-itk forks once more for each connection; a script has another name.
        let twice = || {
            name == self.name
                && stat(above).is_some_and(|(name, top)| name == self.name && top == self.main)
        };
        above == self.main || twice()
    }
}

impl Vouch for Family {
    fn is_apaches(&self, pid: u64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let seen = state.known.get(&pid).map(|at| now - *at);
        if seen.is_some_and(|age| age < FRESH) {
            return true;
        }
        if now - state.lookups.0 >= Duration::from_secs(1) {
            state.lookups = (now, 0);
        }
        state.lookups.1 += 1;
        if state.lookups.1 <= MAX_LOOKUPS && self.is_child(pid) {
            if state.known.len() >= MAX_KNOWN {
                state.known.retain(|_, at| now - *at < REMEMBERED);
            }
            if state.known.len() < MAX_KNOWN {
                state.known.insert(pid, now);
            }
            return true;
        }
        seen.is_some_and(|age| age < REMEMBERED)
    }
}

fn parent(pid: Pid) -> Option<Pid> {
    stat(pid).map(|(_, parent)| parent)
}

/// A process's name and its parent.
fn stat(pid: Pid) -> Option<(String, Pid)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything.
    let (head, rest) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let parent = rest.split(' ').nth(1)?.parse().ok()?;
    Some((name.to_owned(), Pid::from_raw(parent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_main_process_and_its_children_are_vouched_for() {
        let own = Family::of(nix::unistd::getpid()).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let number = |pid: u32| u64::from(pid);
        assert!(own.is_apaches(number(std::process::id())));
        assert!(own.is_apaches(number(child.id())));
        assert!(!own.is_apaches(1) && !own.is_apaches(u64::MAX) && !own.is_apaches(0));
        let other = Family::of(Pid::from_raw(i32::try_from(child.id()).unwrap())).unwrap();
        assert!(!other.is_apaches(number(std::process::id())));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            own.is_apaches(number(child.id())),
            "its last lines are still on their way"
        );
        assert!(Family::of(Pid::from_raw(i32::try_from(child.id()).unwrap())).is_none());
        assert!(apache().is_none(), "a test is no Apache");
    }
}
