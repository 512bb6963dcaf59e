//! The deny map that Apache itself asks: a directory with an empty file for each banned client.
//!
//! Apache looks for the client's name and those of its networks (`apache-conf/pipeban-deny.conf`)
//! at each request. A directory, because a look at it costs the same at any size and while it
//! changes: a `RewriteMap` of text is read from its beginning for each new client after each
//! change. And a map that is missing denies nobody, where Apache does not start without a
//! `RewriteMap`'s file. The file's time is the end of its ban.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

use super::deny_names::names;
use super::notices::Notices;
use super::{Backend, Entry, Error, Witness};
use crate::config::Ports;

/// Names at most: 100 MB of memory where the map is in /run.
const MOST: usize = 100_000;
/// Files that must be left for others in the map's file system.
const SPARE_FILES: u64 = 10_000;
/// How often that is looked at, in names made.
const LOOK_EVERY: usize = 500;
const WIDE: &str = "deny-map-wide";
const FULL: &str = "deny-map-full";
const DAMAGED: &str = "deny-map";

pub(super) struct Deny {
    directory: PathBuf,
    notices: Notices,
    /// Entries of each network, and the latest end (`None`: for ever) of them.
    wanted: HashMap<IpNet, Vec<Owner>>,
    /// Networks of each name.
    names: HashMap<String, BTreeSet<IpNet>>,
    /// Names made since room was looked for.
    made: usize,
    /// As we left it.
    left: Option<Stamp>,
    /// Names that nobody wants are a process's before us until then: they stay.
    settled: bool,
}

struct Owner {
    ports: Ports,
    behind: bool,
    until: Option<Timestamp>,
}

/// Changes when a name comes or goes.
type Stamp = (u64, u64, i64, i64);

impl Deny {
    /// Takes over the map that a process before us has left, until [`Backend::exactly`].
    pub(super) fn start(directory: PathBuf, notices: Notices) -> Deny {
        Deny {
            directory,
            notices,
            wanted: HashMap::new(),
            names: HashMap::new(),
            made: LOOK_EVERY,
            left: None,
            settled: false,
        }
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::Map {
            directory: self.directory.clone(),
            said: error.to_string(),
        }
    }

    /// Notes an entry down; the names that it brings, none where there cannot be any.
    fn want(&mut self, entry: &Entry) -> Vec<String> {
        let Some(names) = names(entry.net) else {
            self.notices.trouble(
                WIDE,
                format!(
                    "Apache's deny map cannot hold {}: it takes IPv6 networks of /128, /64, /48 \
                     and /32, and those of up to {} of them",
                    entry.net,
                    super::deny_names::MOST_NAMES
                ),
            );
            return Vec::new();
        };
        let owners = self.wanted.entry(entry.net).or_default();
        owners.retain(|owner| !owner.is(entry));
        owners.push(Owner {
            ports: entry.ports.clone(),
            behind: entry.behind,
            until: entry.until,
        });
        for name in &names {
            let nets = self.names.entry(name.clone()).or_default();
            nets.insert(entry.net);
        }
        names
    }

    /// Forgets an entry; the names that nothing needs any more.
    fn forget(&mut self, entry: &Entry) -> Vec<String> {
        let Some(owners) = self.wanted.get_mut(&entry.net) else {
            return Vec::new();
        };
        owners.retain(|owner| !owner.is(entry));
        if !owners.is_empty() {
            return Vec::new();
        }
        self.wanted.remove(&entry.net);
        let mut free = names(entry.net).unwrap_or_default();
        free.retain(|name| {
            let Some(nets) = self.names.get_mut(name) else {
                return true;
            };
            nets.remove(&entry.net);
            nets.is_empty()
        });
        for name in &free {
            self.names.remove(name);
        }
        free
    }

    fn end_of(&self, name: &str) -> Option<Timestamp> {
        let nets = self.names.get(name)?;
        let owners = nets.iter().filter_map(|net| self.wanted.get(net)).flatten();
        // `None`, for ever, is the latest.
        let key = |end: &Option<Timestamp>| (end.is_none(), *end);
        owners.map(|owner| owner.until).max_by_key(key)?
    }

    fn make(&mut self, name: &str) -> io::Result<()> {
        if self.made >= LOOK_EVERY {
            self.made = 0;
            let room = statvfs(&self.directory)?;
            // A file system that does not count its files says 0 of 0.
            if room.files() > 0 && room.files_available() < SPARE_FILES {
                return Err(io::Error::other(
                    "its file system has hardly any files left",
                ));
            }
        }
        self.made += 1;
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.directory.join(name))?;
        file.set_modified(time_of(self.end_of(name)))
    }

    fn add(&mut self, names: &[String]) -> Result<(), Error> {
        if self.names.len() > MOST {
            // No try again would mend it.
            let text = format!(
                "Apache's deny map is full: it holds {MOST} names, further bans are not in it"
            );
            self.notices.trouble(FULL, text);
            return Ok(());
        }
        self.notices.over(FULL);
        for name in names {
            self.make(name).map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }

    /// Makes the directory hold exactly the names there are; how many were missing.
    fn put_right(&mut self) -> io::Result<usize> {
        if !self.directory.is_dir() {
            if let Some(parent) = self.directory.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::DirBuilder::new().mode(0o755).create(&self.directory)?;
        }
        let mut there = HashSet::new();
        for file in fs::read_dir(&self.directory)? {
            let name = file?.file_name();
            match name.to_str() {
                Some(known) if self.names.contains_key(known) => {
                    there.insert(known.to_owned());
                }
                _ if !self.settled => {}
                _ => fs::remove_file(self.directory.join(&name))?,
            }
        }
        let names: Vec<String> = self.names.keys().take(MOST).cloned().collect();
        let missing = names.iter().filter(|name| !there.contains(*name)).count();
        for name in &names {
            self.make(name)?;
        }
        self.left = stamp(&self.directory);
        Ok(missing)
    }
}

impl Owner {
    fn is(&self, entry: &Entry) -> bool {
        self.ports == entry.ports && self.behind == entry.behind
    }
}

impl Backend for Deny {
    fn ban(&mut self, entries: &[Entry]) -> Result<(), Error> {
        let names: Vec<String> = entries.iter().flat_map(|entry| self.want(entry)).collect();
        // Somebody else's changes are found by `tend`, which looks at the time once more.
        let ours = self.left == stamp(&self.directory);
        let added = match self.add(&names) {
            Err(_) if !self.directory.is_dir() => self
                .put_right()
                .map(drop)
                .map_err(|error| self.failed(&error)),
            other => other,
        };
        if ours {
            self.left = stamp(&self.directory);
        }
        added
    }

    fn unban(&mut self, entries: &[Entry]) -> Result<(), Error> {
        let ours = self.left == stamp(&self.directory);
        let full = self.names.len() > MOST;
        for entry in entries {
            for name in self.forget(entry) {
                match fs::remove_file(self.directory.join(&name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        // `tend` takes out what nobody wants any more.
                        self.left = None;
                        return Err(self.failed(&error));
                    }
                    _ => {}
                }
            }
        }
        if full && self.names.len() <= MOST {
            // There is room for those that were left out: `tend` puts them in.
            self.left = None;
        } else if ours {
            self.left = stamp(&self.directory);
        }
        Ok(())
    }

    fn exactly(&mut self, all: &mut dyn Iterator<Item = Entry>) -> Result<(), Error> {
        self.settled = true;
        self.wanted.clear();
        self.names.clear();
        for entry in all {
            self.want(&entry);
        }
        self.put_right().map_err(|error| self.failed(&error))?;
        self.add(&[])
    }

    fn witness(&self) -> Option<Box<dyn Witness>> {
        Some(Box::new(Looking(self.directory.clone())))
    }

    fn tend(&mut self) {
        if self.left.is_some() && self.left == stamp(&self.directory) {
            return;
        }
        match self.put_right() {
            Ok(missing) => {
                self.notices.over(DAMAGED);
                if missing > 0 {
                    let directory = self.directory.display();
                    self.notices.event(format!(
                        "somebody took {missing} names out of Apache's deny map {directory}; put \
                         back: `pipeban unban` lifts a ban"
                    ));
                }
            }
            Err(error) => {
                let text = format!(
                    "Apache refuses not all whom it should: {}",
                    self.failed(&error)
                );
                self.notices.trouble(DAMAGED, text);
            }
        }
    }

    fn finish(self: Box<Self>, _grace: Duration) {}
}

/// Looks where Apache looks.
struct Looking(PathBuf);

impl Witness for Looking {
    fn holds(&mut self, entries: &[Entry]) -> Result<Vec<Option<bool>>, Error> {
        let there = |name: &String| self.0.join(name).is_file();
        let holds = |entry: &Entry| names(entry.net).is_some_and(|names| names.iter().all(there));
        Ok(entries.iter().map(|entry| Some(holds(entry))).collect())
    }
}

fn stamp(directory: &Path) -> Option<Stamp> {
    let data = fs::metadata(directory).ok()?;
    // The size is the number of names on a tmpfs: times have ticks.
    Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}

/// For ever is the beginning of time.
fn time_of(end: Option<Timestamp>) -> SystemTime {
    end.map_or(SystemTime::UNIX_EPOCH, SystemTime::from)
}

/// Takes names out whose ban is over at `now`, or all where it is `None`; how many went. No map
/// is no error.
pub(super) fn clear(directory: &Path, now: Option<Timestamp>) -> Result<usize, Error> {
    let cleared = (|| {
        let mut gone = 0;
        for file in fs::read_dir(directory)? {
            let file = file?;
            let end = file.metadata()?.modified()?;
            let over =
                now.is_none_or(|now| end != SystemTime::UNIX_EPOCH && end <= SystemTime::from(now));
            if over {
                fs::remove_file(directory.join::<OsString>(file.file_name()))?;
                gone += 1;
            }
        }
        Ok::<_, io::Error>(gone)
    })();
    match cleared {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Map {
            directory: directory.to_owned(),
            said: error.to_string(),
        }),
        other => Ok(other.unwrap_or(0)),
    }
}
