//! The deny map that Apache reads: a directory with an empty file for each banned client.
//!
//! At each request Apache looks for the client's name and those of its networks
//! (`apache-conf/pipeban-deny.conf`). A directory, because a look into it costs the same at any
//! size and while it changes: Apache reads a `RewriteMap` of text from its beginning for each new
//! client after each change. And a map that is missing denies no client, while Apache does not
//! start without a `RewriteMap`'s file. The file's time is the end of its ban.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ipnet::IpNet;
use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

use super::backend::{Audit, Backend, Checker, Error};
use super::desired::{BanKey, BanState, Desired};
use super::notices::Notices;
use crate::jail::{FirewallKey, Moment};

/// Names at most: 100 MB of memory where the map is in /run.
const MOST: usize = 100_000;
/// Names that one network may take.
const MOST_NAMES: u32 = 8_192;
/// Files that must be left for others in the map's file system.
const SPARE_FILES: u64 = 10_000;
/// How often that is checked, in names made.
const CHECK_EVERY: usize = 500;
/// Apache finds a name that it knows; nobody else lists who is banned.
const MODE: u32 = 0o711;
const WIDE: &str = "deny-map-wide";
const FULL: &str = "deny-map-full";

pub(super) struct DenyMap {
    directory: PathBuf,
    notices: Notices,
    /// Names in the directory.
    count: usize,
    /// Names made since room was checked.
    made: usize,
    /// The directory as this process left it; `None`: it must be audited.
    left: Option<Stamp>,
}

/// Changes when a name comes or goes.
type Stamp = (u64, u64, i64, i64);

impl DenyMap {
    pub(super) fn new(directory: PathBuf, notices: Notices) -> DenyMap {
        DenyMap {
            directory,
            notices,
            count: 0,
            made: CHECK_EVERY,
            left: None,
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::Map {
            directory: self.directory.clone(),
            error,
        }
    }

    fn blocks(&mut self, net: IpNet) -> Vec<IpNet> {
        let found = blocks(net);
        if found.is_none() {
            let text = format!(
                "Apache's deny map cannot hold {net}: it takes IPv6 networks of /128, /64, /48 and \
                 /32, and those of up to {MOST_NAMES} of them; ban a narrower network"
            );
            self.notices.trouble(WIDE, text);
        }
        found.unwrap_or_default()
    }

    fn make(&mut self, block: IpNet, end: SystemTime) -> io::Result<()> {
        let path = self.directory.join(name(block));
        if !path.exists() {
            if self.count >= MOST {
                let text = format!(
                    "Apache's deny map is full: it holds {MOST} names, further bans are not in it"
                );
                self.notices.trouble(FULL, text);
                return Ok(());
            }
            if self.made >= CHECK_EVERY {
                self.made = 0;
                let room = statvfs(&self.directory)?;
                // A file system that does not count its files says 0 of 0.
                if room.files() > 0 && room.files_available() < SPARE_FILES {
                    let text = "its file system has hardly any free inodes: make room";
                    return Err(io::Error::other(text));
                }
            }
            self.made += 1;
            self.count += 1;
        }
        let mut options = File::options();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.set_modified(end)
    }

    fn change(&mut self, changed: &[BanKey], wanted: &Desired, now: Moment) -> io::Result<()> {
        let full = self.count >= MOST;
        for net in changed.iter().map(|id| id.net) {
            for block in self.blocks(net) {
                let removed = match end_of(block, wanted) {
                    Some(state) => {
                        self.make(block, time_of(state, now))?;
                        continue;
                    }
                    None => fs::remove_file(self.directory.join(name(block))),
                };
                match removed {
                    Ok(()) => self.count = self.count.saturating_sub(1),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if full && self.count < MOST {
            // Names that found no room have it now.
            self.notices.over(FULL);
            self.left = None;
        }
        Ok(())
    }

    fn replace_all(&mut self, wanted: &Desired, now: Moment) -> io::Result<()> {
        if !self.directory.is_dir() {
            if let Some(parent) = self.directory.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::DirBuilder::new().mode(MODE).create(&self.directory)?;
        }
        // Whatever the umask, or an earlier version, made of it.
        fs::set_permissions(&self.directory, fs::Permissions::from_mode(MODE))?;
        let names = self.names(wanted);
        let there = names_in(&self.directory)?;
        self.count = there.len();
        for name in there {
            let known = name.to_str().is_some_and(|name| names.contains_key(name));
            if wanted.complete && !known {
                fs::remove_file(self.directory.join(name))?;
                self.count -= 1;
            }
        }
        for block in names.into_values() {
            if let Some(state) = end_of(block, wanted) {
                self.make(block, time_of(state, now))?;
            }
        }
        self.left = stamp(&self.directory);
        Ok(())
    }

    fn names(&mut self, wanted: &Desired) -> BTreeMap<String, IpNet> {
        let mut names = BTreeMap::new();
        for (net, _) in wanted.groups().flat_map(|(_, group)| group.bans()) {
            if names.len() >= MOST {
                break;
            }
            let blocks = self.blocks(net).into_iter();
            names.extend(blocks.map(|block| (name(block), block)));
        }
        names
    }
}

impl Backend for DenyMap {
    fn name(&self) -> &'static str {
        "apache"
    }

    fn remedy(&self) -> &'static str {
        "the engine must be able to write there"
    }

    fn takes_behind(&self) -> bool {
        true
    }

    /// Names of an earlier engine stay until every ban is known.
    fn load(&mut self, _now: Moment) -> Result<Vec<(FirewallKey, Option<Moment>)>, Error> {
        Ok(Vec::new())
    }

    fn apply(&mut self, changed: &[BanKey], wanted: &Desired, now: Moment) -> Result<(), Error> {
        // Where another program has changed it, the next audit finds that.
        let intact = self.left.is_some() && self.left == stamp(&self.directory);
        let done = self.change(changed, wanted, now);
        if intact && self.left.is_some() && done.is_ok() {
            self.left = stamp(&self.directory);
        }
        done.map_err(|error| self.failed(error))
    }

    fn replace(&mut self, wanted: &Desired, now: Moment) -> Result<(), Error> {
        let done = self.replace_all(wanted, now);
        done.map_err(|error| self.failed(error))
    }

    fn audit(&mut self, wanted: &Desired, _now: Moment) -> Result<Audit, Error> {
        let now = stamp(&self.directory);
        if self.left.is_some() && self.left == now {
            return Ok(Audit::Intact);
        }
        let there: HashSet<OsString> = names_in(&self.directory)
            .unwrap_or_default()
            .into_iter()
            .collect();
        let names = self.names(wanted);
        let missing = names
            .keys()
            .filter(|name| !there.contains(name.as_str().as_ref() as &std::ffi::OsStr));
        let missing = missing.count();
        if missing > 0 && self.left.is_some() {
            let directory = self.directory.display();
            let text = format!(
                "another program removed {missing} names from Apache's deny map {directory}"
            );
            return Ok(Audit::Lost(text));
        }
        if missing > 0 || now.is_none() || (wanted.complete && there.len() > names.len()) {
            return Ok(Audit::Outdated);
        }
        self.left = now;
        Ok(Audit::Intact)
    }

    fn checker(&self) -> Box<dyn Checker> {
        Box::new(Look(self.directory.clone()))
    }
}

/// Looks into the map at this place.
pub(super) fn look(directory: PathBuf) -> Box<dyn Checker> {
    Box::new(Look(directory))
}

/// Looks where Apache looks.
struct Look(PathBuf);

impl Checker for Look {
    fn in_force(&mut self, bans: &[FirewallKey]) -> Result<Vec<Option<bool>>, Error> {
        let there = |block: &IpNet| self.0.join(name(*block)).is_file();
        let in_force = |ban: &FirewallKey| blocks(ban.net).is_some_and(|all| all.iter().all(there));
        Ok(bans.iter().map(|ban| Some(in_force(ban))).collect())
    }
}

fn stamp(directory: &Path) -> Option<Stamp> {
    let data = fs::metadata(directory).ok()?;
    // The size is the number of names on a tmpfs: times have ticks.
    Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}

fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(directory)?
        .map(|file| Ok(file?.file_name()))
        .collect()
}

/// On the wall clock; the epoch for a permanent ban.
fn time_of(state: BanState, now: Moment) -> SystemTime {
    match state.until {
        Some(until) => SystemTime::now() + until.since(now),
        None => SystemTime::UNIX_EPOCH,
    }
}

/// Removes the names that are over at `now`, or all (`None`); returns how many. A missing map is
/// no error.
pub(super) fn clear(directory: &Path, now: Option<Timestamp>) -> Result<usize, Error> {
    let clear = || {
        let mut gone = 0;
        for file in fs::read_dir(directory)? {
            let file = file?;
            let end = file.metadata()?.modified()?;
            let over = |now| end != SystemTime::UNIX_EPOCH && end <= SystemTime::from(now);
            if now.is_none_or(over) {
                fs::remove_file(directory.join(file.file_name()))?;
                gone += 1;
            }
        }
        Ok::<_, io::Error>(gone)
    };
    match clear() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Map {
            directory: directory.to_owned(),
            error,
        }),
        other => Ok(other.unwrap_or(0)),
    }
}

// Apache can cut an address only where its text has a dot or colon. So a name is an IPv4 network
// of /8, /16, /24 or /32, or an IPv6 network of /32, /48, /64 or /128; another prefix takes
// several names of the next longer kind.

/// The prefix length of the names for a network of `prefix`.
fn level(v6: bool, prefix: u8) -> u8 {
    let levels = if v6 {
        [32, 48, 64, 128]
    } else {
        [8, 16, 24, 32]
    };
    let longer = levels.into_iter().find(|level| *level >= prefix);
    longer.unwrap_or(prefix)
}

/// The networks that have a name each; `None`: too many.
fn blocks(net: IpNet) -> Option<Vec<IpNet>> {
    let level = level(matches!(net, IpNet::V6(_)), net.prefix_len());
    let count = 1u32.checked_shl((level - net.prefix_len()).into())?;
    if count > MOST_NAMES {
        return None;
    }
    let step = |n: u32| match net.network() {
        IpAddr::V4(first) => {
            IpAddr::V4((u32::from(first).wrapping_add(n << (32 - u32::from(level)))).into())
        }
        IpAddr::V6(first) => IpAddr::V6(
            (u128::from(first).wrapping_add(u128::from(n) << (128 - u32::from(level)))).into(),
        ),
    };
    (0..count)
        .map(|n| IpNet::new(step(n), level).ok())
        .collect()
}

/// What Apache makes of the address of a client in that network.
fn name(block: IpNet) -> String {
    match block {
        IpNet::V4(net) => {
            let octets = net.addr().octets();
            let parts = octets.iter().take(usize::from(net.prefix_len() / 8));
            parts.map(u8::to_string).collect::<Vec<_>>().join(".")
        }
        IpNet::V6(net) if net.prefix_len() == 128 => net.addr().to_string(),
        IpNet::V6(net) => {
            let groups = net.addr().segments();
            let parts = groups.iter().take(usize::from(net.prefix_len() / 16));
            parts
                .map(|group| format!("{group:x}"))
                .collect::<Vec<_>>()
                .join(":")
        }
    }
}

/// The latest end of the bans that need the name of this network; `None`: no ban does.
fn end_of(block: IpNet, wanted: &Desired) -> Option<BanState> {
    let widest = block.prefix_len().saturating_sub(13);
    let v6 = matches!(block, IpNet::V6(_));
    (widest..=block.prefix_len())
        .filter(|prefix| level(v6, *prefix) == block.prefix_len())
        .filter_map(|prefix| Some(IpNet::new(block.addr(), prefix).ok()?.trunc()))
        .filter_map(|net| wanted.latest_end(&net))
        .max_by_key(BanState::end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_names_that_apache_makes_of_its_addresses() {
        for (net, expected) in [
            ("203.0.113.9/32", &["203.0.113.9"][..]),
            ("203.0.113.8/31", &["203.0.113.8", "203.0.113.9"]),
            ("203.0.113.0/24", &["203.0.113"]),
            ("203.0.112.0/23", &["203.0.112", "203.0.113"]),
            ("203.0.0.0/16", &["203.0"]),
            ("10.0.0.0/8", &["10"]),
            ("10.0.0.0/7", &["10", "11"]),
            (
                "255.255.255.254/31",
                &["255.255.255.254", "255.255.255.255"],
            ),
            ("2001:db8::1/128", &["2001:db8::1"]),
            ("2001:db8:1:66::/64", &["2001:db8:1:66"]),
            ("2001:db8::/64", &["2001:db8:0:0"]),
            ("2001:db8:0:2::/63", &["2001:db8:0:2", "2001:db8:0:3"]),
            ("2001:db8:7::/48", &["2001:db8:7"]),
            ("2001:db8::/32", &["2001:db8"]),
        ] {
            let found = blocks(net.parse().unwrap()).unwrap();
            let found: Vec<String> = found.into_iter().map(name).collect();
            assert_eq!(found, expected, "{net}");
        }
        for (net, count) in [
            ("2001:db8::/56", Some(256)),
            ("2000::/19", Some(8_192)),
            ("2001:db8::/50", None),
            ("2001:db8::/65", None),
            ("2001:db8::/96", None),
            ("::/0", None),
            ("0.0.0.0/0", Some(256)),
        ] {
            let found = blocks(net.parse().unwrap()).map(|names| names.len());
            assert_eq!(found, count, "{net}");
        }
    }

    #[test]
    fn a_name_stays_as_long_as_any_ban_needs_it() {
        let mut wanted = Desired::default();
        let key = |net: &str| FirewallKey {
            net: net.parse().unwrap(),
            ports: crate::config::Ports::All,
            behind: false,
        };
        let state = |until| crate::jail::FirewallState {
            jail: "a".parse().unwrap(),
            until: Some(Moment::from_nanos(until)),
        };
        wanted.set(&key("203.0.112.0/23"), Some(state(7)));
        wanted.set(&key("203.0.113.0/24"), Some(state(5)));
        let block = "203.0.113.0/24".parse().unwrap();
        let end = |wanted: &Desired| end_of(block, wanted).map(|state| state.end().nanos());
        assert_eq!(end(&wanted), Some(7));
        wanted.set(&key("203.0.112.0/23"), None);
        assert_eq!(end(&wanted), Some(5));
        wanted.set(&key("203.0.113.0/24"), None);
        assert_eq!(end(&wanted), None);
    }
}
