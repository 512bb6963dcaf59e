//! Which addresses are never banned: the host's addresses, gateways and name servers, trusted
//! proxies, the allow-list, and what files and names of `ignoreip` stand for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::alarms::Check;
use super::exemption_watcher::{self, ExemptionWatcher, Finding};
use super::files;
use crate::alert::Severity;
use crate::config::Config;
use crate::firewall::{self, Surroundings, Watch};
use crate::jail::{Exempt, Looked, Moment, NetSet, Why, single};
use crate::store::Allowed;

/// Addresses of one name that count.
const MAX_ADDRESSES: usize = 64;

/// Bytes read of the file with addresses of names.
const MAX_NAMES_FILE: u64 = 1 << 20;

/// A read of the host's addresses is followed by a pause of so many times its length: interfaces
/// that change all the time cost a twentieth of the engine's time.
pub(super) const PAUSE: u32 = 20;

pub(super) struct Exemptions {
    watcher: ExemptionWatcher,
    host: HostAddresses,
    proxies: Vec<IpNet>,
    allowed: BTreeMap<IpNet, Allowed>,
    files: HashMap<PathBuf, NetSet>,
    /// Files that cannot be read now, and why.
    unreadable: BTreeMap<PathBuf, String>,
    names: Names,
    /// All of the above.
    exempt: Arc<Exempt>,
    /// Bans may exist of addresses that have become exempt.
    release_needed: bool,
}

/// Addresses, gateways and name servers of this host.
struct HostAddresses {
    found: Surroundings,
    watch: Watch,
    /// When they may be read again.
    read_after: Instant,
    /// Why they cannot be read.
    error: Option<String>,
}

impl Exemptions {
    /// Nothing is known yet but `proxies` and the names' last addresses in `names_file`.
    pub(super) fn new(watcher: ExemptionWatcher, names_file: PathBuf) -> Exemptions {
        Exemptions {
            watcher,
            host: HostAddresses {
                found: Surroundings::default(),
                watch: Watch::start(),
                read_after: Instant::now(),
                error: None,
            },
            proxies: Vec::new(),
            allowed: BTreeMap::new(),
            files: HashMap::new(),
            unreadable: BTreeMap::new(),
            names: Names::load(names_file),
            exempt: Arc::default(),
            release_needed: false,
        }
    }

    /// Takes a configuration into use. Files are read before this returns; names follow.
    pub(super) fn configure(&mut self, config: &Config) {
        let (mut files, mut names) = (BTreeSet::new(), BTreeSet::new());
        for jail in config.jails.values().chain([&config.defaults]) {
            files.extend(jail.ignore_files.iter().cloned());
            names.extend(jail.ignore_names.iter().cloned());
        }
        self.proxies = config.trusted_proxies.clone();
        self.names.known.retain(|name, _| names.contains(name));
        self.files.retain(|file, _| files.contains(file));
        self.unreadable.retain(|file, _| files.contains(file));
        for file in &files {
            if !self.files.contains_key(file) {
                self.note_file(file.clone(), exemption_watcher::read(file));
            }
        }
        self.watcher.watch(files, names);
        self.rebuild();
    }

    /// What is exempt now. Reads the host's addresses where the kernel says that they changed.
    pub(super) fn current(&mut self) -> Arc<Exempt> {
        let start = Instant::now();
        if start >= self.host.read_after && self.host.watch.changed() {
            match firewall::surroundings() {
                Ok(found) => {
                    self.host.error = None;
                    if found != self.host.found {
                        self.host.found = found;
                        self.release_needed = true;
                        self.rebuild();
                    }
                }
                Err(error) => {
                    self.host.watch.doubt();
                    self.host.error = Some(error.to_string());
                }
            }
            self.host.read_after = start + start.elapsed() * PAUSE;
        }
        Arc::clone(&self.exempt)
    }

    /// Takes what the watcher found. Returns what is exempt if bans of it may exist.
    pub(super) fn poll(&mut self) -> Option<Arc<Exempt>> {
        let mut changed = false;
        while let Some(finding) = self.watcher.next() {
            changed |= match finding {
                Finding::File(file, read) => self.note_file(file, read),
                Finding::Name(name, answer) => self.names.note(name, answer),
            };
        }
        if changed {
            self.release_needed = true;
            self.rebuild();
        }
        // A banned gateway would cut this host off.
        let exempt = self.current();
        std::mem::take(&mut self.release_needed).then_some(exempt)
    }

    pub(super) fn allowed(&self) -> &BTreeMap<IpNet, Allowed> {
        &self.allowed
    }

    pub(super) fn allow(&mut self, entries: impl IntoIterator<Item = Allowed>) {
        let entries = entries.into_iter().map(|entry| (entry.net, entry));
        self.allowed.extend(entries);
        self.rebuild();
    }

    /// Whether the allow-list had it.
    pub(super) fn disallow(&mut self, net: &IpNet) -> bool {
        let found = self.allowed.remove(net).is_some();
        if found {
            self.rebuild();
        }
        found
    }

    /// Takes entries off the allow-list that end by `now`, and returns them.
    pub(super) fn expire(&mut self, now: Moment) -> Vec<IpNet> {
        let over = |entry: &&Allowed| entry.until.is_some_and(|until| until <= now);
        let ended: Vec<IpNet> = self.allowed.values().filter(over).map(|e| e.net).collect();
        for net in &ended {
            self.disallow(net);
        }
        ended
    }

    pub(super) fn checks(&self) -> [Check; 4] {
        let host = self.host.error.as_ref().map(|error| {
            format!("cannot read this host's addresses: {error}; the last known ones stay exempt")
        });
        let unreadable: Vec<&str> = self.unreadable.values().map(String::as_str).collect();
        let files = (!unreadable.is_empty()).then(|| {
            format!(
                "cannot read files of `ignoreip`; their last entries stay exempt: {}",
                unreadable.join("; ")
            )
        });
        [
            ("surroundings", Severity::Err, host),
            ("ignore-files", Severity::Err, files),
            ("names", Severity::Warning, self.names.failing()),
            (
                "names-file",
                Severity::Warning,
                self.names.unwritten.clone(),
            ),
        ]
    }

    fn rebuild(&mut self) {
        let exempt = Exempt::new(
            never_banned(&self.host.found, &self.proxies)
                .chain(self.allowed.keys().map(|net| (*net, Why::AllowList))),
        );
        let looked = Looked {
            files: self.files.clone(),
            names: self.names.sets(),
        };
        self.exempt = Arc::new(exempt.with(looked));
    }

    /// Whether it changes what is exempt. A file that cannot be read changes nothing.
    fn note_file(&mut self, file: PathBuf, read: Result<NetSet, String>) -> bool {
        match read {
            Ok(nets) => {
                self.unreadable.remove(&file);
                let before = self.files.insert(file, nets.clone());
                before.as_ref() != Some(&nets)
            }
            Err(error) => {
                self.unreadable.insert(file, error);
                false
            }
        }
    }
}

/// What a configuration and this host exempt now, and what cannot be read. The allow-list and the
/// names of `ignoreip` are not part of it: they are the engine's.
pub(crate) fn exempt_now(config: &Config) -> (Exempt, Vec<String>) {
    let (host, looked, unreadable) = look_now(config);
    let exempt = Exempt::new(never_banned(&host, &config.trusted_proxies));
    (exempt.with(looked), unreadable)
}

/// This host, the files of `ignoreip`, and what cannot be read of them.
fn look_now(config: &Config) -> (Surroundings, Looked, Vec<String>) {
    let mut unreadable = Vec::new();
    let host = firewall::surroundings().unwrap_or_else(|error| {
        unreadable.push(format!("cannot read this host's addresses: {error}"));
        Surroundings::default()
    });
    let mut looked = Looked::default();
    for file in config.jails.values().flat_map(|jail| &jail.ignore_files) {
        match exemption_watcher::read(file) {
            Ok(nets) => drop(looked.files.insert(file.clone(), nets)),
            Err(error) => unreadable.push(error),
        }
    }
    (host, looked, unreadable)
}

/// The same, with what the engine keeps: the allow-list, and the last addresses of names.
pub(crate) fn exempt_stored(
    config: &Config,
    allowed: impl IntoIterator<Item = IpNet>,
) -> (Exempt, Vec<String>) {
    let (host, looked, unreadable) = look_now(config);
    let names = saved_names(&config.paths.names()).into_iter();
    let names = names.map(|(name, addresses)| {
        let nets = addresses.into_iter().take(MAX_ADDRESSES).map(single);
        (name, NetSet::new(nets))
    });
    let looked = Looked {
        names: names.collect(),
        ..looked
    };
    let allowed = allowed.into_iter().map(|net| (net, Why::AllowList));
    let never = never_banned(&host, &config.trusted_proxies).chain(allowed);
    (Exempt::new(never).with(looked), unreadable)
}

/// This host's addresses, gateways and name servers, and the trusted proxies.
fn never_banned<'h>(
    host: &'h Surroundings,
    proxies: &'h [IpNet],
) -> impl Iterator<Item = (IpNet, Why)> + 'h {
    let own = host.own.iter().map(|net| {
        // An interface's address comes with its network, of which other hosts are part.
        let whole = net.trunc() == *net || net.addr().is_loopback();
        let net = if whole { *net } else { net.addr().into() };
        (net, Why::Own)
    });
    let one = |why| move |addr: &IpAddr| (IpNet::from(*addr), why);
    own.chain(host.gateways.iter().map(one(Why::Gateway)))
        .chain(host.name_servers.iter().map(one(Why::NameServer)))
        .chain(proxies.iter().map(|net| (*net, Why::TrustedProxy)))
}

/// Addresses of names in `ignoreip`: the last answer counts until there is another one.
struct Names {
    /// Keeps the addresses for the next engine.
    file: PathBuf,
    known: BTreeMap<String, Name>,
    /// Why the file cannot be written.
    unwritten: Option<String>,
}

#[derive(Default)]
struct Name {
    addresses: BTreeSet<IpAddr>,
    /// Why the last look-up had no answer.
    error: Option<String>,
}

impl Names {
    fn load(file: PathBuf) -> Names {
        let known = saved_names(&file).into_iter().map(|(name, addresses)| {
            let addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
            (
                name,
                Name {
                    addresses,
                    error: None,
                },
            )
        });
        Names {
            known: known.collect(),
            file,
            unwritten: None,
        }
    }

    /// Whether it changes what is exempt.
    fn note(&mut self, name: String, answer: Result<Vec<IpAddr>, String>) -> bool {
        let known = self.known.entry(name).or_default();
        match answer {
            Ok(found) => {
                known.error = None;
                let found: BTreeSet<IpAddr> = found.into_iter().take(MAX_ADDRESSES).collect();
                if found == known.addresses {
                    return false;
                }
                known.addresses = found;
                self.save();
                true
            }
            Err(error) => {
                known.error = Some(error);
                false
            }
        }
    }

    fn save(&mut self) {
        let known = self.known.iter();
        let addresses: BTreeMap<_, _> = known.map(|(name, n)| (name, &n.addresses)).collect();
        let written = serde_json::to_string(&addresses)
            .map_err(std::io::Error::from)
            .and_then(|text| files::replace(&self.file, &text));
        self.unwritten = written.err().map(|error| {
            let file = self.file.display();
            format!(
                "cannot write {file}: {error}; after a restart names of `ignoreip` have no address \
                 until they are resolved"
            )
        });
    }

    fn sets(&self) -> HashMap<String, NetSet> {
        let set = |known: &Name| NetSet::new(known.addresses.iter().map(|addr| single(*addr)));
        let known = self.known.iter();
        known
            .map(|(name, known)| (name.clone(), set(known)))
            .collect()
    }

    fn failing(&self) -> Option<String> {
        let failing = self.known.iter().filter_map(|(name, known)| {
            let error = known.error.as_ref()?;
            let meanwhile = match known.addresses.len() {
                0 => "it exempts no address".to_owned(),
                some => format!("its last {some} addresses stay exempt"),
            };
            Some(format!("{name} ({error}; {meanwhile})"))
        });
        let all: Vec<String> = failing.collect();
        let names = all.join(", ");
        (!all.is_empty()).then(|| format!("cannot resolve names of `ignoreip`: {names}"))
    }
}

/// Empty if the file cannot be read or is malformed.
fn saved_names(path: &Path) -> BTreeMap<String, Vec<IpAddr>> {
    let small = std::fs::metadata(path).is_ok_and(|file| file.len() <= MAX_NAMES_FILE);
    let text = small.then(|| std::fs::read_to_string(path).ok()).flatten();
    text.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(text: &str) -> Vec<IpAddr> {
        let addrs = text.split_whitespace();
        addrs.map(|addr| addr.parse().unwrap()).collect()
    }

    fn ignored(names: &Names) -> String {
        let sets = names.sets();
        let all: Vec<String> = sets["office"].iter().map(IpNet::to_string).collect();
        all.join(" ")
    }

    #[test]
    fn the_last_answer_of_a_name_counts_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("names.json");
        let mut names = Names::load(file.clone());
        let note = |names: &mut Names, answer| names.note("office".into(), answer);
        let none = || Err("no answer".to_owned());
        assert!(!note(&mut names, none()));
        assert!(names.failing().unwrap().contains("it exempts no address"));
        assert!(note(&mut names, Ok(addrs("192.0.2.1 2001:db8::1"))));
        assert_eq!(names.failing(), None);
        assert!(!note(&mut names, none()));
        assert!(names.failing().unwrap().contains("last 2 addresses"));
        assert_eq!(ignored(&names), "192.0.2.1/32 2001:db8::1/128");

        let mut names = Names::load(file);
        assert_eq!(ignored(&names), "192.0.2.1/32 2001:db8::1/128");
        assert!(!note(&mut names, none()));
        assert!(note(&mut names, Ok(addrs("192.0.2.7"))));
        assert_eq!(ignored(&names), "192.0.2.7/32");
        let many = (0..500u32).map(|n| std::net::Ipv4Addr::from(n).into());
        note(&mut names, Ok(many.collect()));
        assert_eq!(names.known["office"].addresses.len(), MAX_ADDRESSES);
    }
}
