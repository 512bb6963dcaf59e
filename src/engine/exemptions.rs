//! Who is exempt, gathered from everywhere.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;

use super::files;
use super::hub::{Engine, now};
use super::looker::{Looker, Seen, Wanted};
use super::names::Names;
use super::perform::Work;
use crate::alert::Severity;
use crate::firewall::{self, Surroundings, Watch};
use crate::jail::{Exempt, Looked, NetSet, Now, Why};

/// Bytes of what an earlier engine kept of names.
const MOST_KEPT: u64 = 1 << 20;

/// What is known of who is exempt.
pub(super) struct Exemptions {
    looker: Looker,
    exempt: Arc<Exempt>,
    surroundings: Surroundings,
    /// Bans are to be held against who is exempt by now.
    moved: bool,
    /// When that may be: it takes one twentieth of the time at most, however many bans there are
    /// and however often interfaces come and go.
    release: Instant,
    watch: Watch,
    /// When they may be read again: reading takes one twentieth of the time at most.
    stale: Instant,
    files: HashMap<PathBuf, NetSet>,
    /// Files that cannot be read now, and why.
    unreadable: BTreeMap<PathBuf, String>,
    names: Names,
    logins: BTreeMap<IpAddr, Timestamp>,
}

impl Exemptions {
    pub(super) fn new(looker: Looker) -> Exemptions {
        Exemptions {
            looker,
            exempt: Arc::new(Exempt::new([])),
            surroundings: Surroundings::default(),
            moved: false,
            release: Instant::now(),
            watch: Watch::start(),
            stale: Instant::now(),
            files: HashMap::new(),
            unreadable: BTreeMap::new(),
            names: Names::default(),
            logins: BTreeMap::new(),
        }
    }
}

impl Engine {
    /// Who never is banned, as things stand now.
    pub(super) fn exempt(&mut self) -> Arc<Exempt> {
        let start = Instant::now();
        if start >= self.exemptions.stale && self.exemptions.watch.changed() {
            match firewall::surroundings() {
                Ok(found) => {
                    if found != self.exemptions.surroundings {
                        self.exemptions.surroundings = found;
                        self.exemptions.moved = true;
                        self.exemptions_changed();
                    }
                    self.over("surroundings");
                }
                Err(error) => {
                    self.exemptions.watch.doubt();
                    let text =
                        format!("own addresses cannot be read, the last known are spared: {error}");
                    self.trouble("surroundings", Severity::Err, text);
                }
            }
            self.exemptions.stale = start + start.elapsed() * 20;
        }
        Arc::clone(&self.exemptions.exempt)
    }

    /// Gathers who never is banned.
    pub(super) fn exemptions_changed(&mut self) {
        let wall = now().wall;
        let known = &self.exemptions;
        let own = known.surroundings.own.iter().map(|net| {
            // An interface's address comes with its network, which is not ours alone.
            let whole = net.trunc() == *net || net.addr().is_loopback();
            let net = if whole { *net } else { net.addr().into() };
            (net, Why::Own)
        });
        let one = |why| move |addr: &IpAddr| (IpNet::from(*addr), why);
        let gateways = known.surroundings.gateways.iter();
        let name_servers = known.surroundings.name_servers.iter();
        let proxies = self.parts.accepted.config.trusted_proxies.iter();
        let logins = known.logins.iter().map(|(addr, at)| {
            let ago = Duration::try_from(wall.duration_since(*at));
            // A clock that was ahead then.
            (*addr, ago.unwrap_or_default())
        });
        let looked = Looked {
            files: known.files.clone(),
            names: known.names.sets(),
            logins: logins.collect(),
        };
        let exempt = Exempt::new(
            own.chain(gateways.map(one(Why::Gateway)))
                .chain(name_servers.map(one(Why::NameServer)))
                .chain(proxies.map(|net| (*net, Why::TrustedProxy)))
                .chain(self.allowed.keys().map(|net| (*net, Why::AllowList))),
        );
        self.exemptions.exempt = Arc::new(exempt.with(looked));
    }

    /// A configuration is taken into use: looks at what it names. Files are read before anything
    /// is decided; names and logins follow.
    pub(super) fn look_anew(&mut self, now: Now) {
        let wanted = Wanted::by(&self.parts.accepted.config);
        let known = &mut self.exemptions;
        if known.names.kept().is_empty() {
            known
                .names
                .restore(kept(&self.parts.paths.names()), now.boot);
        }
        known.names.want(&wanted.names);
        known.files.retain(|file, _| wanted.files.contains(file));
        known
            .unreadable
            .retain(|file, _| wanted.files.contains(file));
        if wanted.wtmp.is_none() {
            known.logins.clear();
        }
        known.looker.want(wanted.clone());
        let unknown = |file: &PathBuf| !known.files.contains_key(file);
        let unknown: Vec<PathBuf> = wanted.files.into_iter().filter(unknown).collect();
        for file in unknown {
            let read = crate::config::networks_in(&file);
            let read = read.map(NetSet::new).map_err(|problems| {
                problems
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default()
            });
            self.file_seen(file, read);
        }
        self.exemptions_changed();
        self.tell_of_lookups();
    }

    /// Takes in what was seen since.
    pub(super) fn look(&mut self, work: &mut Work, now: Now) {
        let mut changed = false;
        let mut seen = false;
        while let Ok(news) = self.exemptions.looker.seen.try_recv() {
            seen = true;
            match news {
                Seen::File(file, read) => changed |= self.file_seen(file, read),
                Seen::Name(name, answer) => {
                    if self.exemptions.names.answer(&name, answer, now.boot) {
                        changed = true;
                        self.keep_names();
                    }
                }
                Seen::Logins(Ok(logins)) => {
                    changed |= self.exemptions.logins != logins;
                    self.exemptions.logins = logins;
                    self.over("wtmp");
                }
                Seen::Logins(Err(error)) => {
                    let text = format!(
                        "logins by ssh cannot be read ({error}): the last known are spared"
                    );
                    self.trouble("wtmp", Severity::Err, text);
                }
            }
        }
        if changed {
            self.exemptions_changed();
        }
        // A gateway or an address of our own that is banned would cut this host off.
        self.exempt();
        self.exemptions.moved |= changed;
        let start = Instant::now();
        if self.exemptions.moved && start >= self.exemptions.release {
            self.exemptions.moved = false;
            self.release(work);
            self.exemptions.release = start + start.elapsed() * 20;
        }
        if seen {
            self.tell_of_lookups();
        }
    }

    /// Ends bans of those who are exempt by now.
    pub(super) fn release(&mut self, work: &mut Work) {
        let exempt = self.exempt();
        work.take(self.parts.jails.release(&exempt));
    }

    /// Whether it changes who is ignored. What cannot be read un-ignores nobody.
    fn file_seen(&mut self, file: PathBuf, read: Result<NetSet, String>) -> bool {
        match read {
            Ok(nets) => {
                self.exemptions.unreadable.remove(&file);
                let before = self.exemptions.files.insert(file, nets.clone());
                before.as_ref() != Some(&nets)
            }
            Err(error) => {
                self.exemptions.unreadable.insert(file, error);
                false
            }
        }
    }

    fn tell_of_lookups(&mut self) {
        match self.exemptions.names.trouble() {
            Some(text) => self.trouble("names", Severity::Warning, text),
            None => self.over("names"),
        }
        let wrong: Vec<String> = self.exemptions.unreadable.values().cloned().collect();
        if wrong.is_empty() {
            return self.over("ignore-files");
        }
        let text = format!(
            "files of `ignoreip` that cannot be read, who was ignored by them still is: {}",
            wrong.join("; ")
        );
        self.trouble("ignore-files", Severity::Err, text);
    }

    fn keep_names(&mut self) {
        let path = self.parts.paths.names();
        let kept = self.exemptions.names.kept();
        let written = serde_json::to_string(&kept)
            .map_err(std::io::Error::from)
            .and_then(|text| files::replace(&path, &text));
        match written {
            Ok(()) => self.over("names-file"),
            Err(error) => {
                let text = format!(
                    "{} cannot be written ({error}): what names stand for is forgotten at a restart",
                    path.display()
                );
                self.trouble("names-file", Severity::Warning, text);
            }
        }
    }
}

/// What an earlier engine kept; nothing where that makes no sense.
fn kept(path: &std::path::Path) -> BTreeMap<String, Vec<IpAddr>> {
    let small = std::fs::metadata(path).is_ok_and(|file| file.len() <= MOST_KEPT);
    let text = small.then(|| std::fs::read_to_string(path).ok()).flatten();
    text.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}
