//! Looks again and again at what exempts clients and is not in the configuration itself: files
//! and names of `ignoreip`, logins by ssh. In threads of its own: a resolver that hangs or a
//! network file system that is gone keeps nobody else waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select, unbounded};
use jiff::Timestamp;

use super::logins;
use super::server::Waker;
use crate::config::{self, Config};
use crate::jail::NetSet;

/// Between two looks at files.
const EACH: Duration = Duration::from_secs(1);

/// Between two look-ups of a name: after an answer, and after none.
const AGAIN: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(30);

/// Without an answer for so long, none is expected any more.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Look-ups under way at most.
const AT_ONCE: usize = 8;

/// What to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) files: BTreeSet<PathBuf>,
    pub(super) names: BTreeSet<String>,
    /// `None`: no jail asks for logins.
    pub(super) wtmp: Option<PathBuf>,
}

impl Wanted {
    pub(super) fn by(config: &Config) -> Wanted {
        let mut wanted = Wanted::default();
        for jail in config.jails.values().chain([&config.defaults]) {
            wanted.files.extend(jail.ignore_files.iter().cloned());
            wanted.names.extend(jail.ignore_names.iter().cloned());
            if jail.ignore_ssh_logins.is_some() {
                wanted.wtmp = Some(config.paths.wtmp.clone());
            }
        }
        wanted
    }
}

/// What was seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// A file was read, or could not be.
    File(PathBuf, Result<NetSet, String>),
    /// A name was looked up, or could not be.
    Name(String, Result<Vec<IpAddr>, String>),
    /// The last logins by ssh.
    Logins(Result<BTreeMap<IpAddr, Timestamp>, String>),
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Looker {
    wanted: Sender<Wanted>,
    /// What was seen, in order.
    pub(super) seen: Receiver<Seen>,
}

impl Looker {
    /// Starts the thread. It ends with this value, but for a look-up that hangs.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(super) fn start(waker: Waker) -> std::io::Result<Looker> {
        let (wanted, wishes) = unbounded();
        let (tell, seen) = unbounded();
        let mut eye = Eye {
            wanted: Wanted::default(),
            files: BTreeMap::new(),
            logins: BTreeMap::new(),
            names: BTreeMap::new(),
            tell,
            waker,
        };
        std::thread::Builder::new()
            .name("ignore".into())
            .spawn(move || eye.run(&wishes))?;
        Ok(Looker { wanted, seen })
    }

    /// Looks at these from now on, and at once.
    pub(super) fn want(&self, wanted: Wanted) {
        // The thread ends with this value only.
        let _ = self.wanted.send(wanted);
    }
}

/// Tells one version of a file from another.
type Version = Option<(u64, u64, i64, i64)>;

#[derive(Debug, Default)]
struct Name {
    /// `None`: now.
    due: Option<Instant>,
    asked: Option<Instant>,
    /// Told that there is no answer, which may still come.
    given_up: bool,
}

struct Eye {
    wanted: Wanted,
    files: BTreeMap<PathBuf, Version>,
    logins: BTreeMap<PathBuf, Version>,
    names: BTreeMap<String, Name>,
    tell: Sender<Seen>,
    waker: Waker,
}

impl Eye {
    fn run(&mut self, wishes: &Receiver<Wanted>) {
        let (answer, answers) = unbounded();
        loop {
            select! {
                recv(wishes) -> wanted => match wanted {
                    Ok(wanted) => self.begin(wanted),
                    Err(_) => return,
                },
                recv(answers) -> answer => if let Ok((name, answer)) = answer {
                    self.answered(name, answer);
                },
                default(EACH) => {}
            }
            self.look_at_files();
            self.look_at_logins();
            self.ask(&answer);
        }
    }

    fn begin(&mut self, wanted: Wanted) {
        self.names.retain(|name, _| wanted.names.contains(name));
        for name in &wanted.names {
            self.names.entry(name.clone()).or_default().due = None;
        }
        self.files.clear();
        self.logins.clear();
        self.wanted = wanted;
    }

    fn tell(&self, seen: Seen) {
        // Nobody listens while the engine ends.
        let _ = self.tell.send(seen);
        self.waker.wake();
    }

    fn look_at_files(&mut self) {
        for path in &self.wanted.files {
            let found = version(path);
            if self.files.get(path) == Some(&found) {
                continue;
            }
            self.files.insert(path.clone(), found);
            let read = config::networks_in(path)
                .map(NetSet::new)
                .map_err(|problems| problems.first().map(|p| p.to_string()).unwrap_or_default());
            self.tell(Seen::File(path.clone(), read));
        }
    }

    fn look_at_logins(&mut self) {
        let Some(wtmp) = &self.wanted.wtmp else {
            return;
        };
        let files = logins::files(wtmp);
        let found: BTreeMap<PathBuf, Version> = files
            .iter()
            .map(|file| (file.clone(), version(file)))
            .collect();
        if self.logins == found {
            return;
        }
        self.logins = found;
        let mut last: BTreeMap<IpAddr, Timestamp> = BTreeMap::new();
        let mut wrong = None;
        for file in &files {
            match logins::read(file) {
                Ok(logins) => {
                    for (addr, at) in logins {
                        let known = last.entry(addr).or_insert(at);
                        *known = at.max(*known);
                    }
                }
                Err(error) => wrong = Some(format!("{}: {error}", file.display())),
            }
        }
        self.tell(Seen::Logins(wrong.map_or(Ok(last), Err)));
    }

    /// Has names looked up whose time has come.
    fn ask(&mut self, answers: &Sender<(String, Result<Vec<IpAddr>, String>)>) {
        let now = Instant::now();
        let mut late = Vec::new();
        for (name, state) in &mut self.names {
            let asked = state.asked.filter(|_| !state.given_up);
            if asked.is_some_and(|asked| now >= asked + TIMEOUT) {
                state.given_up = true;
                late.push(name.clone());
            }
        }
        for name in late {
            let error = format!("no answer within {} s", TIMEOUT.as_secs());
            self.tell(Seen::Name(name, Err(error)));
        }
        let mut under_way = self
            .names
            .values()
            .filter(|name| name.asked.is_some())
            .count();
        for (name, state) in &mut self.names {
            let due = state.due.is_none_or(|due| now >= due);
            if under_way >= AT_ONCE || !due || state.asked.is_some() {
                continue;
            }
            let (asked, answers) = (name.clone(), answers.clone());
            let started = std::thread::Builder::new()
                .name("resolve".into())
                .spawn(move || {
                    let answer = look_up(&asked);
                    let _ = answers.send((asked, answer));
                });
            match started {
                Ok(_) => {
                    under_way += 1;
                    state.asked = Some(now);
                    state.given_up = false;
                }
                Err(_) => state.due = Some(now + SOON),
            }
        }
    }

    fn answered(&mut self, name: String, answer: Result<Vec<IpAddr>, String>) {
        let Some(state) = self.names.get_mut(&name) else {
            return;
        };
        state.asked = None;
        let pause = if answer.is_ok() { AGAIN } else { SOON };
        state.due = Some(Instant::now() + pause);
        self.tell(Seen::Name(name, answer));
    }
}

/// As this host looks up names: `/etc/hosts`, the resolver, whatever nsswitch.conf says.
fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    match (name, 0).to_socket_addrs() {
        Ok(found) => Ok(found.map(|addr| addr.ip()).collect()),
        Err(error) => Err(error.to_string()),
    }
}

fn version(path: &Path) -> Version {
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}
