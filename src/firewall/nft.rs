//! The own nftables table, by netlink.
//!
//! Everything changes in transactions that name the ruleset's generation: when somebody else has
//! changed anything since we looked, the kernel refuses, we look again, and what is missing (all
//! of it after `nft flush ruleset`) is put back from what this process knows. Where that does not
//! work, a new table takes the place of the old one.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{self, Socket, Writer};
use super::nft_bans::InForce;
use super::nft_sets::{SetKey, Shape};
use super::nft_wire::{self, Batch, Element};
use super::notices::Notices;
use super::{Backend, Entry, Error, Witness, ssh_ports};
use crate::config::Blocktype;
use crate::sys::clock;

/// Somebody may be changing the ruleset all the time (ufw does, a few times per rule).
const ATTEMPTS: usize = 8;
const TROUBLE: &str = "nftables";
/// Elements asked for in one look, where somebody else has changed the ruleset: some
/// milliseconds.
const ASKED_AT_ONCE: usize = 1_000;

pub(super) struct Nft {
    socket: Option<Socket>,
    notices: Notices,
    ssh: BTreeSet<u16>,
    in_force: InForce,
    /// Sets that were complete once, by name: a handful, one for each port list in use.
    made: BTreeSet<String>,
    seen: Option<Seen>,
    shape: Shape,
    check: Check,
    /// The table may hold what is not in force, or lack what is.
    doubtful: bool,
}

/// Whether all elements are there is asked after a foreign change, some at a time.
enum Check {
    Done,
    /// All up to here are there; `None`: begins.
    After(Option<(SetKey, IpNet)>),
}

/// Entries of one call, by set.
type Groups = BTreeMap<SetKey, BTreeSet<IpNet>>;

/// The ruleset as it was when we last looked or committed.
struct Seen {
    generation: u32,
    /// Rules of our chain that look an address up, by set.
    rules: BTreeMap<String, usize>,
}

/// What a transaction does with its entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

impl Nft {
    /// Makes the table, or takes over the one that a process before us has left: its bans stay in
    /// force until [`Backend::exactly`]. An error is told by a notice.
    pub(super) fn start(blocktype: Blocktype, notices: Notices) -> Nft {
        let mut nft = Nft::new(blocktype, notices);
        let made = nft.change(Change::Add, &Groups::new());
        nft.tell(made.as_ref().err());
        nft
    }

    fn new(blocktype: Blocktype, notices: Notices) -> Nft {
        Nft {
            socket: None,
            notices,
            ssh: ssh_ports::read(),
            in_force: InForce::new(),
            made: BTreeSet::new(),
            seen: None,
            shape: Shape {
                blocktype,
                forwards: forwards(),
            },
            check: Check::Done,
            doubtful: false,
        }
    }

    fn tell(&mut self, error: Option<&Error>) {
        match error {
            Some(error) => self.notices.trouble(
                TROUBLE,
                format!(
                    "bans do not reach the kernel: {error}; the engine needs CAP_NET_ADMIN and a \
                     kernel with nf_tables (try `nft list ruleset` as root)"
                ),
            ),
            None => self.notices.over(TROUBLE),
        }
    }

    /// After a failure to talk, the next attempt is on a new socket.
    fn lost(&mut self, doing: &'static str, errno: Errno) -> Error {
        self.socket = None;
        self.seen = None;
        Error::kernel(doing, errno)
    }

    fn socket(&mut self) -> Result<&mut Socket, Error> {
        if self.socket.is_none() {
            let opened = Socket::open(SockProtocol::NetlinkNetFilter)
                .map_err(|errno| Error::kernel("opening the nftables socket", errno))?;
            self.socket = Some(opened);
        }
        self.socket
            .as_mut()
            .ok_or_else(|| Error::kernel("opening the nftables socket", Errno::EBADF))
    }

    /// Reads which of our rules there are, unless nothing has changed since.
    fn look(&mut self) -> Result<&Seen, Error> {
        // Before the dump: a change in between makes the next transaction be refused.
        const DOING: &str = "asking nftables for its generation";
        let asked = generation(self.socket()?);
        let generation = asked.map_err(|errno| self.lost(DOING, errno))?;
        let fresh = self
            .seen
            .take()
            .filter(|seen| seen.generation == generation);
        let seen = match fresh {
            Some(seen) => seen,
            None => {
                self.check = Check::After(None);
                let rules = read_rules(self.socket()?).map_err(|errno| {
                    self.lost("reading the rules of table `inet pipeban`", errno)
                })?;
                Seen { generation, rules }
            }
        };
        Ok(self.seen.insert(seen))
    }

    fn groups(&self, entries: &[Entry]) -> Groups {
        let mut groups = Groups::new();
        for entry in entries {
            groups
                .entry(SetKey::of(entry.net, &entry.ports, &self.ssh))
                .or_default()
                .insert(entry.net);
        }
        groups
    }

    /// Adds or removes in one transaction, and mends what is missing of the table on the way.
    /// `in_force` has the change already.
    fn change(&mut self, change: Change, groups: &Groups) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            if self.doubtful {
                break;
            }
            if self.seen.is_none() {
                self.look()?;
            }
            let damaged = self.damaged(groups);
            if damaged.iter().any(|set| self.is_there(set)) {
                self.tell_if_mended(&damaged);
                break;
            }
            let batch = self.batch(change, groups, &damaged);
            let begin = batch.begin;
            match self.transact(batch.commit(), begin)? {
                Ok(()) => {
                    self.tell_if_mended(&damaged);
                    self.committed(&damaged);
                    return Ok(());
                }
                // Refused because of a foreign change, or an element ended in the middle of it.
                Err(Errno::ERESTART | Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => {
                    self.seen = None;
                }
                // Something of that name is there that is not as ours.
                Err(_) => break,
            }
        }
        self.replace()
    }

    /// Sets in use that lack rules (or are not there at all).
    fn damaged(&self, wanted: &Groups) -> Vec<SetKey> {
        let seen = self.seen.as_ref();
        let complete = |set: &SetKey| {
            let count = seen.and_then(|seen| seen.rules.get(&set.name()));
            count.is_some_and(|count| *count >= set.rules(self.shape).len())
        };
        let used: BTreeSet<&SetKey> = self.in_force.sets.keys().chain(wanted.keys()).collect();
        used.into_iter()
            .filter(|set| !complete(set))
            .cloned()
            .collect()
    }

    /// Some of its rules are there.
    fn is_there(&self, set: &SetKey) -> bool {
        let seen = self.seen.as_ref();
        seen.is_some_and(|seen| seen.rules.contains_key(&set.name()))
    }

    fn batch(&self, change: Change, groups: &Groups, damaged: &[SetKey]) -> Batch {
        let now = clock::boottime();
        let sequence = self.socket.as_ref().map_or(0, |socket| socket.sequence);
        let generation = self.seen.as_ref().map(|seen| seen.generation);
        let mut batch = Batch::begin(sequence, generation);
        batch.table();
        batch.chains(self.shape);
        for set in damaged {
            batch.set_with_rules(set, self.shape);
            put(&mut batch, set, &self.in_force.elements(set, now));
        }
        for (set, nets) in groups {
            let elements: Vec<Element> = nets
                .iter()
                .map(|net| {
                    (
                        nft_wire::element_key(*net),
                        self.in_force.timeout(set, net, now),
                    )
                })
                .collect();
            match change {
                Change::Add if damaged.contains(set) => {}
                Change::Add => put(&mut batch, set, &elements),
                Change::Remove => take(&mut batch, set, &elements),
            }
        }
        batch
    }

    /// Sends a transaction and reads the kernel's answer to it.
    fn transact(&mut self, messages: Writer, begin: u32) -> Result<Result<(), Errno>, Error> {
        self.socket()?
            .transact(messages, begin)
            .map_err(|errno| self.lost("changing table `inet pipeban`", errno))
    }

    fn committed(&mut self, made: &[SetKey]) {
        for set in made {
            self.made.insert(set.name());
        }
        if let Some(seen) = &mut self.seen {
            // What the kernel does at each commit; a wrong guess costs one more look.
            seen.generation = seen.generation.wrapping_add(1).max(1);
            for set in made {
                *seen.rules.entry(set.name()).or_insert(0) += set.rules(self.shape).len();
            }
        }
    }

    fn tell_if_mended(&mut self, damaged: &[SetKey]) {
        // The first use of a set is no damage.
        let bans: usize = damaged
            .iter()
            .filter(|set| self.made.contains(&set.name()))
            .filter_map(|set| self.in_force.sets.get(set))
            .map(BTreeMap::len)
            .sum();
        if bans > 0 {
            self.notices.event(format!(
                "somebody removed rules of table `inet pipeban` (`nft flush ruleset`?); made \
                 again, with {bans} bans"
            ));
        }
    }

    /// Puts a new table with exactly what is in force in the place of whatever is there, in one
    /// transaction: no packet meets a host without it.
    fn replace(&mut self) -> Result<(), Error> {
        self.doubtful = true;
        self.shape.forwards = forwards();
        let now = clock::boottime();
        self.in_force.purge(now);
        let sequence = self.socket()?.sequence;
        let mut batch = Batch::begin(sequence, None);
        batch.table();
        batch.delete_table();
        batch.table();
        batch.chains(self.shape);
        for set in self.in_force.sets.keys() {
            batch.set_with_rules(set, self.shape);
            batch.add(&set.name(), &self.in_force.elements(set, now));
        }
        self.seen = None;
        let begin = batch.begin;
        self.transact(batch.commit(), begin)?
            .map_err(|errno| Error::kernel("making table `inet pipeban`", errno))?;
        self.made = self.in_force.sets.keys().map(SetKey::name).collect();
        self.doubtful = false;
        Ok(())
    }
}

impl Backend for Nft {
    fn ban(&mut self, entries: &[Entry]) -> Result<(), Error> {
        let now = clock::boottime();
        for entry in entries {
            self.in_force.put(entry, &self.ssh, now);
        }
        let result = self.change(Change::Add, &self.groups(entries));
        self.tell(result.as_ref().err());
        result
    }

    fn unban(&mut self, entries: &[Entry]) -> Result<(), Error> {
        let groups = self.groups(entries);
        for (set, nets) in &groups {
            for net in nets {
                self.in_force.remove(set, net);
            }
        }
        let result = self.change(Change::Remove, &groups);
        self.tell(result.as_ref().err());
        result
    }

    fn exactly(&mut self, all: &mut dyn Iterator<Item = Entry>) -> Result<(), Error> {
        self.ssh = ssh_ports::read();
        self.in_force = InForce::new();
        let now = clock::boottime();
        for entry in all {
            self.in_force.put(&entry, &self.ssh, now);
        }
        let result = self.replace();
        self.tell(result.as_ref().err());
        result
    }

    fn witness(&self) -> Option<Box<dyn Witness>> {
        Some(Box::new(Asking {
            ssh: self.ssh.clone(),
            shape: self.shape,
        }))
    }

    fn tend(&mut self) {
        let mut whole = self.look().map(drop);
        self.doubtful |= self.shape.forwards != forwards();
        if whole.is_ok() && (self.doubtful || !self.damaged(&Groups::new()).is_empty()) {
            whole = self.change(Change::Add, &Groups::new());
        }
        if whole.is_ok() {
            whole = self.check_some();
        }
        self.tell(whole.as_ref().err());
    }

    fn finish(self: Box<Self>, _grace: Duration) {}
}

impl Nft {
    /// Puts back elements that somebody has taken out.
    fn check_some(&mut self) -> Result<(), Error> {
        let Check::After(from) = &self.check else {
            return Ok(());
        };
        let some = self.in_force.after(from.as_ref(), ASKED_AT_ONCE);
        let Some(last) = some.last().cloned() else {
            self.check = Check::Done;
            return Ok(());
        };
        let now = clock::boottime();
        let mut missing = Groups::new();
        let socket = self.socket()?;
        let mut failed = None;
        for (set, net) in &some {
            match has_element(socket, &set.name(), *net) {
                Ok(true) => {}
                Ok(false) => {
                    missing.entry(set.clone()).or_default().insert(*net);
                }
                Err(errno) => failed = Some(errno),
            }
        }
        if let Some(errno) = failed {
            return Err(self.lost(ASKING, errno));
        }
        // A foreign change that is met from here on begins it anew.
        self.check = Check::After(Some(last));
        missing.retain(|set, nets| {
            nets.retain(|net| !self.in_force.is_over(set, net, now));
            !nets.is_empty()
        });
        if let Some(net) = missing.values().flatten().next() {
            let net = crate::jail::show_net(net);
            let bans: usize = missing.values().map(BTreeSet::len).sum();
            let text = format!(
                "somebody took {bans} bans out of table `inet pipeban` ({net} is one); put back: \
                 `pipeban unban {net}` lifts a ban"
            );
            self.change(Change::Add, &missing)?;
            self.notices.event(text);
        }
        Ok(())
    }
}

const ASKING: &str = "asking for a ban's element";

/// Asks the kernel on a socket of its own.
struct Asking {
    ssh: BTreeSet<u16>,
    shape: Shape,
}

impl Witness for Asking {
    fn holds(&mut self, entries: &[Entry]) -> Result<Vec<Option<bool>>, Error> {
        let asking = |errno| Error::kernel(ASKING, errno);
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(asking)?;
        let rules = read_rules(&mut socket).map_err(asking)?;
        let mut found = Vec::with_capacity(entries.len());
        for entry in entries {
            let set = SetKey::of(entry.net, &entry.ports, &self.ssh);
            let name = set.name();
            // An element in a set that no rule asks stops nobody.
            let asked = rules.get(&name).copied().unwrap_or(0) >= set.rules(self.shape).len();
            let holds = asked && has_element(&mut socket, &name, entry.net).map_err(asking)?;
            found.push(Some(holds));
        }
        Ok(found)
    }
}

fn has_element(socket: &mut Socket, set: &str, net: IpNet) -> Result<bool, Errno> {
    let request = nft_wire::ask_element(socket.sequence, set, &nft_wire::element_key(net));
    match socket.ask(request, true, |_, _| true) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// How many of the own table's rules look an address up, by set.
fn read_rules(socket: &mut Socket) -> Result<BTreeMap<String, usize>, Errno> {
    let mut rules = BTreeMap::new();
    let request = nft_wire::ask_rules(socket.sequence);
    socket.ask(request, false, |_, payload| {
        if let Some(set) = payload.get(4..).and_then(set_of_rule) {
            *rules.entry(set).or_insert(0) += 1;
        }
        true
    })?;
    Ok(rules)
}

/// What changes with every change of this host's ruleset, also by iptables where that is a form
/// of nftables; `None`: it cannot be told.
pub(super) fn ruleset_generation() -> Option<u32> {
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).ok()?;
    generation(&mut socket).ok()
}

fn generation(socket: &mut Socket) -> Result<u32, Errno> {
    let mut generation = None;
    let request = nft_wire::ask_generation(socket.sequence);
    socket.ask(request, true, |_, payload| {
        generation = payload
            .get(4..)
            .and_then(|attrs| netlink::attribute(attrs, 1))
            .and_then(|value| netlink::array(value, 0))
            .map(u32::from_be_bytes);
        true
    })?;
    generation.ok_or(Errno::EPROTO)
}

/// Whether this host passes packets on.
pub(super) fn forwards() -> bool {
    [
        "/proc/sys/net/ipv4/conf/all/forwarding",
        "/proc/sys/net/ipv6/conf/all/forwarding",
    ]
    .iter()
    .any(|file| fs::read_to_string(file).is_ok_and(|text| text.trim() == "1"))
}

/// Add, delete, add: an element that is there already gets the new timeout (an add alone changes
/// it only since Linux 6.12), and the delete always finds something.
fn put(batch: &mut Batch, set: &SetKey, elements: &[Element]) {
    take(batch, set, elements);
    batch.add(&set.name(), elements);
}

/// Add, delete: deleting what is not there would undo the whole transaction.
fn take(batch: &mut Batch, set: &SetKey, elements: &[Element]) {
    let name = set.name();
    let bare: Vec<Element> = elements
        .iter()
        .map(|(key, _)| (key.clone(), None))
        .collect();
    batch.add(&name, &bare);
    batch.delete(&name, &bare);
}

/// The named set in which a rule of ours looks an address up.
fn set_of_rule(attrs: &[u8]) -> Option<String> {
    let expressions = netlink::attribute(attrs, 4)?;
    netlink::attributes(expressions)
        .filter(|(_, one)| {
            netlink::attribute(one, 1).map(netlink::text) == Some(b"lookup".as_slice())
        })
        .filter_map(|(_, one)| netlink::attribute(netlink::attribute(one, 2)?, 1))
        .map(|name| String::from_utf8_lossy(netlink::text(name)).into_owned())
        .find(|name| !name.starts_with("__set"))
}

/// Deletes the own table with all that is in it; none is no error, no nftables neither.
pub(super) fn delete_table() -> Result<(), Error> {
    let mut nft = Nft::new(Blocktype::Drop, Notices::nowhere());
    let batch = Batch::begin(0, None);
    let begin = batch.begin;
    let result = nft.transact(batch.commit_without_table(), begin);
    match result.and_then(|done| {
        done.map_err(|errno| Error::kernel("deleting table `inet pipeban`", errno))
    }) {
        Err(error) if error.is_absence() => Ok(()),
        other => other,
    }
}
