//! Table `inet pipeban`, by netlink.
//!
//! Every change is one transaction. When the kernel refuses one, or an audit finds rules or
//! elements missing (`nft flush ruleset`), a new table with all wanted bans takes the place of the
//! old one, in one transaction too.
#![forbid(unsafe_code)]

mod layout;
mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use self::layout::{Set, Shape};
use self::messages::{Batch, Element};
use super::backend::{Audit, Backend, Checker, Error};
use super::desired::{BanKey, BanState, Desired};
use super::host::ssh_ports;
use super::netlink::Socket;
use crate::config::{Blocktype, Ports};
use crate::jail::{FirewallKey, Moment};

/// The kernel rounds a timeout down to its ticks (up to 10 ms), and 0 means permanent.
const SHORTEST_MS: u64 = 1_000;
/// Ten thousand days: far, and far from what the kernel's arithmetic cannot hold.
const LONGEST_MS: u64 = 10_000 * 86_400_000;
/// Bans of an earlier engine that are read back: to list a million takes the kernel minutes.
pub(super) const MOST_LOADED: usize = 100_000;

pub(super) struct Nft {
    socket: Option<Socket>,
    ssh: BTreeSet<u16>,
    shape: Shape,
    /// The sets in the table, by group of bans, family and prefix length.
    sets: BTreeMap<SetKey, Made>,
    /// The ruleset's generation at which the table was found intact.
    audited: Option<u32>,
}

type SetKey = (u32, bool, u8);

/// A set in the kernel.
struct Made {
    set: Set,
    name: String,
    rules: usize,
    /// Of its elements the last one: an audit queries it.
    probe: Option<BanKey>,
}

impl Nft {
    pub(super) fn new(blocktype: Blocktype) -> Nft {
        Nft {
            socket: None,
            ssh: ssh_ports(),
            shape: Shape {
                blocktype,
                forwards: forwards(),
            },
            sets: BTreeMap::new(),
            audited: None,
        }
    }

    /// Calls the kernel. After a failure to talk to it the next call is on a new socket.
    fn call<T>(
        &mut self,
        doing: &'static str,
        call: impl FnOnce(&mut Socket) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let opened = match self.socket.take() {
            Some(socket) => Ok(socket),
            None => Socket::open(SockProtocol::NetlinkNetFilter),
        };
        let done = opened.and_then(|mut socket| {
            let done = call(&mut socket)?;
            self.socket = Some(socket);
            Ok(done)
        });
        done.map_err(Error::kernel(doing))
    }

    fn sequence(&self) -> u32 {
        self.socket.as_ref().map_or(0, |socket| socket.sequence)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        const DOING: &str = "changing table `inet pipeban`";
        let begin = batch.begin;
        self.call(DOING, |socket| socket.transact(batch.commit(), begin))?
            .map_err(Error::kernel(DOING))
    }

    /// The set for these bans; made in `batch` if it does not exist.
    fn set(&mut self, batch: &mut Batch, group: u32, net: IpNet, ports: &Ports) -> &mut Made {
        let key = (group, matches!(net, IpNet::V6(_)), net.prefix_len());
        let (ssh, shape) = (&self.ssh, self.shape);
        self.sets.entry(key).or_insert_with(|| {
            let set = Set::of(net, ports, ssh);
            batch.set_with_rules(&set, shape);
            Made {
                name: set.name(),
                rules: set.rules(shape).len(),
                set,
                probe: None,
            }
        })
    }
}

impl Backend for Nft {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn remedy(&self) -> &'static str {
        "the engine needs CAP_NET_ADMIN and a kernel with nf_tables: try `nft list ruleset` as root"
    }

    fn load(&mut self, now: Moment) -> Result<Vec<(FirewallKey, Option<Moment>)>, Error> {
        const DOING: &str = "listing the bans in table `inet pipeban`";
        let mut names = Vec::new();
        let listed = self.call(DOING, |socket| {
            let request = messages::get_sets(socket.sequence);
            socket.ask(request, false, |_, payload| {
                names.extend(messages::set_name(payload));
                true
            })
        });
        match listed {
            Err(error) if error.is_absence() => return Ok(Vec::new()),
            other => other?,
        }
        let mut found = Vec::new();
        for (name, set) in names
            .iter()
            .filter_map(|name| Some((name, Set::parse(name)?)))
        {
            self.call(DOING, |socket| {
                let request = messages::get_elements(socket.sequence, name);
                socket.ask(request, false, |_, payload| {
                    for (address, left) in messages::elements(payload) {
                        let until = left.map(|left| now.plus(Duration::from_millis(left)));
                        let net = IpNet::new(address, set.prefix).ok();
                        found.extend(net.map(|net| {
                            let key = FirewallKey {
                                net,
                                ports: set.ports().clone(),
                                behind: false,
                            };
                            (key, until)
                        }));
                    }
                    found.len() < MOST_LOADED
                })
            })?;
            // The rest of a listing that was given up would be in the way.
            self.socket = None;
        }
        Ok(found)
    }

    fn apply(&mut self, changed: &[BanKey], wanted: &Desired, now: Moment) -> Result<(), Error> {
        let mut batch = Batch::begin(self.sequence());
        let mut changes: BTreeMap<SetKey, (Vec<Element>, Vec<Element>)> = BTreeMap::new();
        for (key, (group, id)) in changed.iter().filter_map(|id| {
            let (group, number) = (wanted.group(*id)?, id.group());
            let key = (number, matches!(id.net, IpNet::V6(_)), id.net.prefix_len());
            Some((key, (group, *id)))
        }) {
            let state = wanted.get(id);
            if state.is_none() && !self.sets.contains_key(&key) {
                continue;
            }
            let (put, take) = changes.entry(key).or_default();
            match state {
                Some(state) => put.push((id.net, timeout(state, now))),
                None => take.push((id.net, None)),
            }
            let made = self.set(&mut batch, key.0, id.net, &group.ports);
            made.probe = state.map(|_| id).or(made.probe);
        }
        for (key, (mut put, mut take)) in changes {
            let Some(made) = self.sets.get(&key) else {
                continue;
            };
            for list in [&mut put, &mut take] {
                list.sort_unstable();
                list.dedup();
            }
            batch.take(&made.name, &take);
            batch.put(&made.name, &put);
        }
        self.commit(batch)?;
        // The kernel adds one at each commit; where another program has changed the ruleset
        // meanwhile this is a wrong guess, and the next audit looks again.
        self.audited = self.audited.map(|known| known.wrapping_add(1).max(1));
        Ok(())
    }

    fn replace(&mut self, wanted: &Desired, now: Moment) -> Result<(), Error> {
        self.ssh = ssh_ports();
        self.shape.forwards = forwards();
        self.audited = None;
        self.sets.clear();
        let mut batch = Batch::begin(self.sequence());
        batch.table();
        batch.delete_table();
        batch.table();
        batch.chains(self.shape);
        if let Ports::List { tcp, .. } = &**wanted.apache() {
            batch.apache_ports(tcp);
        }
        for (number, group) in wanted.groups().filter(|(_, group)| !group.behind) {
            let bans = || group.bans().filter(|(_, state)| !state.is_over(now));
            let mut last = None;
            for (net, _) in bans() {
                let kind = (matches!(net, IpNet::V6(_)), net.prefix_len());
                if last != Some(kind) {
                    last = Some(kind);
                    self.set(&mut batch, number, net, &group.ports);
                }
            }
            for made in self.sets.values_mut().filter(|made| made.probe.is_none()) {
                let set = &made.set;
                let mut probe = None;
                let elements = bans()
                    .filter(|(net, _)| set.holds(net))
                    .map(|(net, state)| {
                        probe = Some(net);
                        (net, timeout(state, now))
                    });
                batch.add(&made.name, elements);
                made.probe = probe.map(|net| BanKey::new(number, net));
            }
        }
        self.commit(batch)
    }

    fn audit(&mut self, wanted: &Desired, now: Moment) -> Result<Audit, Error> {
        const DOING: &str = "checking table `inet pipeban`";
        if self.shape.forwards != forwards() {
            return Ok(Audit::Outdated);
        }
        // Before the rest: a change in between is found at the next audit.
        let generation = self.call(DOING, generation)?;
        if self.audited == Some(generation) {
            return Ok(Audit::Intact);
        }
        let rules = self.call(DOING, read_rules)?;
        let complete = |made: &Made| rules.get(&made.name).copied().unwrap_or(0) >= made.rules;
        if !self.sets.values().all(complete) {
            let text =
                "another program removed rules of table `inet pipeban` (`nft flush ruleset`?)";
            return Ok(Audit::Lost(text.into()));
        }
        let soon = now.plus(Duration::from_millis(SHORTEST_MS));
        let lasts = |id: &BanKey| wanted.get(*id).is_some_and(|state| !state.is_over(soon));
        let mut probes = Vec::new();
        for ((number, ..), made) in &mut self.sets {
            if !made.probe.as_ref().is_some_and(lasts) {
                let group = wanted.groups().find(|(group, _)| group == number);
                let mut bans = group.into_iter().flat_map(|(_, group)| group.bans());
                let found = bans.find(|(net, state)| made.set.holds(net) && !state.is_over(soon));
                made.probe = found.map(|(net, _)| BanKey::new(*number, net));
            }
            probes.extend(made.probe.map(|probe| (made.name.clone(), probe.net)));
        }
        for (name, net) in probes {
            if !self.call(DOING, |socket| has_element(socket, &name, net))? {
                let text = format!(
                    "another program removed bans from set `{name}` of table `inet pipeban`"
                );
                return Ok(Audit::Lost(text));
            }
        }
        let mut sets = self.sets.values();
        if sets.any(|made| *made.set.ports() == Ports::Apache)
            && let Ports::List { tcp, .. } = &**wanted.apache()
            && let Some(port) = tcp.last()
            && !self.call(DOING, |socket| {
                let request = messages::get_apache_port(socket.sequence, *port);
                found(socket.ask(request, true, |_, _| true))
            })?
        {
            let text = "another program removed ports of Apache from table `inet pipeban`";
            return Ok(Audit::Lost(text.into()));
        }
        self.audited = Some(generation);
        Ok(Audit::Intact)
    }

    fn checker(&self) -> Box<dyn Checker> {
        Box::new(Query {
            ssh: self.ssh.clone(),
            shape: self.shape,
        })
    }
}

/// Queries the table that bans with this `blocktype` are in.
pub(super) fn query(blocktype: Blocktype) -> Box<dyn Checker> {
    Nft::new(blocktype).checker()
}

/// Queries the kernel on a socket that it opens.
struct Query {
    ssh: BTreeSet<u16>,
    shape: Shape,
}

impl Checker for Query {
    fn knows_apache(&self) -> bool {
        true
    }

    fn in_force(&mut self, bans: &[FirewallKey]) -> Result<Vec<Option<bool>>, Error> {
        let query = || {
            let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
            let rules = read_rules(&mut socket)?;
            let in_force = |ban: &FirewallKey| {
                let set = Set::of(ban.net, &ban.ports, &self.ssh);
                let name = set.name();
                // An element stops no packet where no rule looks it up.
                let used = rules.get(&name).copied().unwrap_or(0) >= set.rules(self.shape).len();
                Ok(Some(used && has_element(&mut socket, &name, ban.net)?))
            };
            let found: Result<Vec<_>, Errno> = bans.iter().map(in_force).collect();
            found
        };
        query().map_err(Error::kernel("querying table `inet pipeban`"))
    }
}

fn has_element(socket: &mut Socket, set: &str, net: IpNet) -> Result<bool, Errno> {
    let request = messages::get_element(socket.sequence, set, net);
    found(socket.ask(request, true, |_, _| true))
}

fn found(answer: Result<(), Errno>) -> Result<bool, Errno> {
    match answer {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// How many rules look an address up, by set.
fn read_rules(socket: &mut Socket) -> Result<BTreeMap<String, usize>, Errno> {
    let mut rules = BTreeMap::new();
    let request = messages::get_rules(socket.sequence);
    let read = socket.ask(request, false, |_, payload| {
        if let Some(set) = messages::set_of_rule(payload) {
            *rules.entry(set).or_insert(0) += 1;
        }
        true
    });
    match read {
        Ok(()) | Err(Errno::ENOENT) => Ok(rules),
        Err(errno) => Err(errno),
    }
}

/// Changes with every change of this host's ruleset, also by iptables where that is a form of
/// nftables; `None`: it cannot be found out.
pub(super) fn ruleset_generation() -> Option<u32> {
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).ok()?;
    generation(&mut socket).ok()
}

fn generation(socket: &mut Socket) -> Result<u32, Errno> {
    let mut found = None;
    let request = messages::get_generation(socket.sequence);
    socket.ask(request, true, |_, payload| {
        found = messages::generation(payload);
        true
    })?;
    found.ok_or(Errno::EPROTO)
}

/// Whether this host forwards packets.
fn forwards() -> bool {
    [
        "/proc/sys/net/ipv4/conf/all/forwarding",
        "/proc/sys/net/ipv6/conf/all/forwarding",
    ]
    .iter()
    .any(|file| fs::read_to_string(file).is_ok_and(|text| text.trim() == "1"))
}

/// The time left, in milliseconds.
fn timeout(state: BanState, now: Moment) -> Option<u64> {
    let left = state.until?.since(now).as_millis();
    let left = u64::try_from(left).unwrap_or(u64::MAX);
    Some(left.clamp(SHORTEST_MS, LONGEST_MS))
}

/// Whether the table exists.
pub(super) fn has_table() -> Result<bool, Error> {
    let list = |socket: &mut Socket| {
        let request = messages::get_sets(socket.sequence);
        socket.ask(request, false, |_, _| true)
    };
    let listed =
        Socket::open(SockProtocol::NetlinkNetFilter).and_then(|mut socket| list(&mut socket));
    match listed.map_err(Error::kernel("searching for table `inet pipeban`")) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absence() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes the table with all that is in it. It is no error when there is none, or no nftables.
pub(super) fn delete_table() -> Result<(), Error> {
    const DOING: &str = "deleting table `inet pipeban`";
    let mut nft = Nft::new(Blocktype::Drop);
    let batch = Batch::begin(0);
    let begin = batch.begin;
    let deleted = nft.call(DOING, |socket| {
        socket.transact(batch.commit_without_table(), begin)
    });
    match deleted.and_then(|done| done.map_err(Error::kernel(DOING))) {
        Err(error) if error.is_absence() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jail::FirewallState;

    #[test]
    fn a_timeout_is_never_zero_and_never_overflows() {
        let now = Moment::from_boottime(Duration::from_secs(1_000_000));
        let mut desired = Desired::default();
        for (until, expected) in [
            (None, None),
            (Some(now), Some(SHORTEST_MS)),
            (Some(Moment::default()), Some(SHORTEST_MS)),
            (Some(now.plus(Duration::from_millis(1))), Some(SHORTEST_MS)),
            (Some(now.plus(Duration::from_secs(90))), Some(90_000)),
            (
                Some(now.plus(Duration::from_secs(100_000 * 86_400))),
                Some(LONGEST_MS),
            ),
        ] {
            let key = FirewallKey {
                net: "192.0.2.1/32".parse().unwrap(),
                ports: crate::config::Ports::All,
                behind: false,
            };
            let state = FirewallState {
                jail: "a".parse().unwrap(),
                until,
            };
            let id = desired.set(&key, Some(state));
            assert_eq!(
                timeout(desired.get(id).unwrap(), now),
                expected,
                "{until:?}"
            );
        }
    }
}
