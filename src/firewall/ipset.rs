//! ipset's sets by netlink, with timeouts of the kernel, and iptables rules that ask them.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::ipset_rules::{self, Found, MARK, set_name};
use super::ipset_wire::{self, Change};
use super::netlink::Socket;
use super::nft::{forwards, ruleset_generation};
use super::nft_bans::InForce;
use super::nft_sets::{SetKey, Shape};
use super::notices::Notices;
use super::{Backend, Entry, Error, Witness, ssh_ports, tool};
use crate::config::Blocktype;
use crate::sys::clock;

/// The kernel takes no longer timeout, in seconds: 24.8 days.
const LONGEST: u32 = 2_147_483;
/// Between two times that longer bans are renewed.
const RENEW: Duration = Duration::from_secs(86_400);
/// Between two looks at rules where nothing tells that they have changed (iptables-legacy).
const LOOK: Duration = Duration::from_secs(60);
/// Between two walks through all elements.
const WALK: Duration = Duration::from_secs(60);
/// What a look at the rules took, so many times is waited before the next one, a second at most:
/// printing them may be work for others, too.
const REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_secs(1);
/// What a vain try to put all in place took (it may have waited for xtables' lock), so many times
/// is waited before the next one.
const REST_AFTER_FAILURE: u32 = 4;
/// Elements asked for in one look.
const ASKED_AT_ONCE: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(5);
const TROUBLE: &str = "ipset";

/// iptables of both families.
const FAMILIES: [Family; 2] = [
    Family {
        v6: false,
        save: "/usr/sbin/iptables-save",
        restore: "/usr/sbin/iptables-restore",
    },
    Family {
        v6: true,
        save: "/usr/sbin/ip6tables-save",
        restore: "/usr/sbin/ip6tables-restore",
    },
];

struct Family {
    v6: bool,
    save: &'static str,
    restore: &'static str,
}

impl Family {
    fn found(&self) -> Result<Found, Error> {
        let argv = ["-t", "filter"].map(str::to_owned);
        Ok(ipset_rules::parse(&tool::run(self.save, &argv, PATIENCE)?))
    }

    fn restore(&self, script: String) -> Result<(), Error> {
        let argv = ["-w", "2", "--noflush"].map(str::to_owned);
        tool::run_with_input(self.restore, &argv, script, PATIENCE).map(drop)
    }
}

pub(super) struct Ipset {
    notices: Notices,
    ssh: BTreeSet<u16>,
    shape: Shape,
    in_force: InForce,
    /// Sets that are there with all their rules, as far as we know.
    made: BTreeSet<SetKey>,
    /// Rules and sets that nobody wants are a process's before us until then: they stay.
    settled: bool,
    looked: Instant,
    generation: Option<u32>,
    belief: Belief,
    /// What a thread finds among iptables' rules; printing them may take seconds.
    look: Option<Receiver<Look>>,
    /// No other look before that.
    rested: Instant,
    renewed: Instant,
    walk: Walk,
}

/// In the order of [`FAMILIES`], and what it took.
type Look = (Result<Vec<Found>, Error>, Duration);

/// What the kernel has, as far as we know.
enum Belief {
    Whole,
    /// Rules may be missing: not to be believed before a look has found all of them.
    Doubted,
    /// Not all could be put in place; tried again then.
    Broken(Instant),
}

/// The walk through all elements.
enum Walk {
    After(Option<(SetKey, IpNet)>),
    Rest(Instant),
}

impl Ipset {
    /// Bans of a process before us stay in force until [`Backend::exactly`].
    pub(super) fn start(blocktype: Blocktype, notices: Notices) -> Ipset {
        Ipset {
            notices,
            ssh: ssh_ports::read(),
            shape: Shape {
                blocktype,
                forwards: forwards(),
            },
            in_force: InForce::new(),
            made: BTreeSet::new(),
            settled: false,
            looked: Instant::now(),
            generation: None,
            belief: Belief::Whole,
            look: None,
            rested: Instant::now(),
            renewed: Instant::now(),
            walk: Walk::Rest(Instant::now()),
        }
    }

    fn tell(&mut self, error: Option<&Error>) {
        match error {
            Some(error) => self.notices.trouble(
                TROUBLE,
                format!(
                    "bans do not reach ipset: {error}; the engine needs CAP_NET_ADMIN, a kernel \
                     with ip_set and xt_set, and iptables"
                ),
            ),
            None if matches!(self.belief, Belief::Whole) => self.notices.over(TROUBLE),
            // Whether it is over is not known yet.
            None => {}
        }
    }

    fn put(&mut self, socket: &mut Socket, nets: &[(SetKey, IpNet)]) -> Result<(), Error> {
        let sets: BTreeSet<&SetKey> = nets.iter().map(|(set, _)| set).collect();
        let mut new = false;
        for set in &sets {
            if !self.made.contains(*set) {
                let name = set_name(set);
                ipset_wire::create(socket, &name, set.v6, set.prefix).map_err(failed)?;
                new = true;
            }
        }
        let now = clock::boottime();
        for set in sets {
            let of = nets.iter().filter(|(other, _)| other == set);
            let elements: Vec<(IpNet, u32)> = of
                .map(|(set, net)| (*net, seconds(self.in_force.timeout(set, net, now))))
                .collect();
            ipset_wire::change(socket, Change::Add, &set_name(set), &elements).map_err(failed)?;
        }
        match new {
            true => self.put_rules(),
            false => Ok(()),
        }
    }

    /// Makes the rules be those of all sets in use.
    fn put_rules(&mut self) -> Result<(), Error> {
        let shape = Shape {
            forwards: forwards(),
            ..self.shape
        };
        let used: Vec<SetKey> = self.in_force.sets.keys().cloned().collect();
        for family in &FAMILIES {
            let of: Vec<&SetKey> = used.iter().filter(|set| set.v6 == family.v6).collect();
            let found = family.found()?;
            if of.is_empty() && found.is_empty() {
                continue;
            }
            let keep = !self.settled;
            family.restore(found.script(of.iter().copied(), shape, keep))?;
        }
        self.shape = shape;
        self.made = used.into_iter().collect();
        // What is under way was begun before.
        self.look = None;
        Ok(())
    }

    /// Puts everything in place.
    fn fill(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        let filled = self.fill_sets();
        self.belief = match filled {
            Ok(()) => Belief::Whole,
            Err(_) => Belief::Broken(Instant::now() + begun.elapsed() * REST_AFTER_FAILURE),
        };
        filled
    }

    /// Fills each set anew beside the old one, which it then replaces, and puts the rules.
    fn fill_sets(&mut self) -> Result<(), Error> {
        let mut socket = open()?;
        let now = clock::boottime();
        self.in_force.purge(now);
        if !self.settled {
            let sets = self.in_force.sets.iter();
            let all = sets.flat_map(|(set, nets)| nets.keys().map(|net| (set.clone(), *net)));
            let all: Vec<(SetKey, IpNet)> = all.collect();
            self.made.clear();
            return self.put(&mut socket, &all);
        }
        for set in self.in_force.sets.keys() {
            let (name, new) = (set_name(set), format!("{}_n", set_name(set)));
            ipset_wire::destroy(&mut socket, &new).map_err(failed)?;
            ipset_wire::create(&mut socket, &name, set.v6, set.prefix).map_err(failed)?;
            ipset_wire::create(&mut socket, &new, set.v6, set.prefix).map_err(failed)?;
            let nets = self.in_force.sets.get(set).into_iter().flatten();
            let elements: Vec<(IpNet, u32)> = nets
                .map(|(net, _)| (*net, seconds(self.in_force.timeout(set, net, now))))
                .collect();
            ipset_wire::change(&mut socket, Change::Add, &new, &elements).map_err(failed)?;
            ipset_wire::swap(&mut socket, &name, &new).map_err(failed)?;
            ipset_wire::destroy(&mut socket, &new).map_err(failed)?;
        }
        self.put_rules()?;
        let used: BTreeSet<String> = self.made.iter().map(set_name).collect();
        for name in ours(&mut socket)? {
            if !used.contains(&name) {
                ipset_wire::destroy(&mut socket, &name).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Puts rules back that somebody has taken away.
    fn check_rules(&mut self) -> Result<(), Error> {
        if self.in_force.sets.is_empty() {
            self.belief = Belief::Whole;
            return Ok(());
        }
        match self.belief {
            Belief::Broken(until) if Instant::now() < until => return Ok(()),
            Belief::Broken(_) => return self.fill(),
            _ if forwards() != self.shape.forwards => return self.fill(),
            _ => {}
        }
        let Some(look) = self.look.take() else {
            self.begin_look();
            return Ok(());
        };
        let (found, took) = match look.try_recv() {
            Ok(look) => look,
            Err(TryRecvError::Empty) => {
                self.look = Some(look);
                return Ok(());
            }
            // Still doubted: the next call looks again.
            Err(TryRecvError::Disconnected) => return Ok(()),
        };
        self.rested = Instant::now() + (took * REST).min(LONGEST_REST);
        let found = found?;
        let whole = FAMILIES.iter().zip(found).all(|(family, found)| {
            let sets = self.in_force.sets.keys().filter(|set| set.v6 == family.v6);
            found.is_whole(sets, self.shape)
        });
        if !whole {
            self.fill()?;
            let bans: usize = self.in_force.sets.values().map(|nets| nets.len()).sum();
            self.notices.event(format!(
                "somebody removed iptables rules of pipeban; made again, with {bans} bans"
            ));
        }
        self.belief = Belief::Whole;
        Ok(())
    }

    /// Where rules may be missing; what cannot be begun, the next call begins.
    fn begin_look(&mut self) {
        if Instant::now() < self.rested {
            return;
        }
        // Asked before looking: what changes meanwhile is looked at again.
        let generation = ruleset_generation();
        let changed = generation.is_some() && generation != self.generation;
        let doubted = matches!(self.belief, Belief::Doubted);
        if changed || doubted || self.looked.elapsed() >= LOOK {
            self.belief = Belief::Doubted;
            self.looked = Instant::now();
            self.generation = generation;
            self.look = look_at_rules();
        }
    }

    /// Puts elements back that somebody has taken out.
    fn check_some(&mut self) -> Result<(), Error> {
        let from = match &self.walk {
            Walk::Rest(until) if Instant::now() < *until => return Ok(()),
            Walk::Rest(_) => None,
            Walk::After(from) => from.as_ref(),
        };
        let some = self.in_force.after(from, ASKED_AT_ONCE);
        let next = match some.last() {
            Some(last) => Walk::After(Some(last.clone())),
            None => Walk::Rest(Instant::now() + WALK),
        };
        let (mut socket, now) = (open()?, clock::boottime());
        let mut missing = Vec::new();
        for (set, net) in some {
            let there = ipset_wire::has(&mut socket, &set_name(&set), net).map_err(failed)?;
            if !there && !self.in_force.is_over(&set, &net, now) {
                missing.push((set, net));
            }
        }
        self.walk = next;
        if let Some((_, net)) = missing.first() {
            let net = crate::jail::show_net(net);
            let text = format!(
                "somebody took {} bans out of ipset's sets ({net} is one); put back: `pipeban \
                 unban {net}` lifts a ban",
                missing.len()
            );
            self.made.clear();
            if self.put(&mut socket, &missing).is_err() {
                self.fill()?;
            }
            self.notices.event(text);
        }
        Ok(())
    }

    /// Gives bans that are longer than a timeout can be a new one.
    fn renew(&mut self) -> Result<(), Error> {
        if self.renewed.elapsed() < RENEW {
            return Ok(());
        }
        let now = clock::boottime();
        let sets = self.in_force.sets.iter();
        let all = sets.flat_map(|(set, nets)| nets.iter().map(move |(net, end)| (set, net, end)));
        let due: Vec<(SetKey, IpNet)> = all
            .filter(|(_, _, end)| end.is_some_and(|end| is_due(end, now)))
            .map(|(set, net, _)| (set.clone(), *net))
            .collect();
        self.put(&mut open()?, &due)?;
        self.renewed = Instant::now();
        Ok(())
    }
}

impl Backend for Ipset {
    fn ban(&mut self, entries: &[Entry]) -> Result<(), Error> {
        let now = clock::boottime();
        let mut nets = Vec::with_capacity(entries.len());
        for entry in entries {
            self.in_force.put(entry, &self.ssh, now);
            nets.push((SetKey::of(entry.net, &entry.ports, &self.ssh), entry.net));
        }
        let mut result = open().and_then(|mut socket| self.put(&mut socket, &nets));
        if result.is_err() {
            // Something is not as we left it.
            result = self.fill();
        }
        self.tell(result.as_ref().err());
        result
    }

    fn unban(&mut self, entries: &[Entry]) -> Result<(), Error> {
        let result = (|| {
            let mut socket = open()?;
            for entry in entries {
                let set = SetKey::of(entry.net, &entry.ports, &self.ssh);
                self.in_force.remove(&set, &entry.net);
                let element = [(entry.net, 0)];
                let gone =
                    ipset_wire::change(&mut socket, Change::Delete, &set_name(&set), &element);
                match gone {
                    Ok(()) | Err(Errno::ENOENT | Errno::UnknownErrno) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
            Ok(())
        })();
        self.tell(result.as_ref().err());
        result
    }

    fn exactly(&mut self, all: &mut dyn Iterator<Item = Entry>) -> Result<(), Error> {
        self.settled = true;
        self.ssh = ssh_ports::read();
        self.in_force = InForce::new();
        let now = clock::boottime();
        for entry in all {
            self.in_force.put(&entry, &self.ssh, now);
        }
        let result = self.fill();
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
        let result = self
            .check_rules()
            .and_then(|()| self.check_some())
            .and_then(|()| self.renew());
        self.tell(result.as_ref().err());
    }

    fn finish(self: Box<Self>, _grace: Duration) {}
}

/// Asks the kernel on a socket of its own.
struct Asking {
    ssh: BTreeSet<u16>,
    shape: Shape,
}

impl Witness for Asking {
    fn holds(&mut self, entries: &[Entry]) -> Result<Vec<Option<bool>>, Error> {
        let mut socket = open()?;
        let mut found = Vec::new();
        for family in &FAMILIES {
            let asked = entries
                .iter()
                .any(|entry| matches!(entry.net, IpNet::V6(_)) == family.v6);
            found.push(match asked {
                true => family.found()?,
                false => Found::default(),
            });
        }
        let mut held = Vec::with_capacity(entries.len());
        for entry in entries {
            let set = SetKey::of(entry.net, &entry.ports, &self.ssh);
            // An element in a set that no rule asks stops nobody.
            let asked = found
                .get(usize::from(set.v6))
                .is_some_and(|found| found.has_rules_of(&set, self.shape));
            let there = asked
                && ipset_wire::has(&mut socket, &set_name(&set), entry.net).map_err(failed)?;
            held.push(Some(there));
        }
        Ok(held)
    }
}

/// Has a thread look; without one the next look will.
fn look_at_rules() -> Option<Receiver<Look>> {
    let (sender, look) = bounded(1);
    let started = thread::Builder::new()
        .name("iptables".into())
        .spawn(move || {
            let begun = Instant::now();
            let found = FAMILIES.iter().map(Family::found).collect();
            // Nobody may be waiting any more.
            let _ = sender.try_send((found, begun.elapsed()));
        });
    started.ok().map(|_| look)
}

fn open() -> Result<Socket, Error> {
    Socket::open(SockProtocol::NetlinkNetFilter).map_err(failed)
}

fn failed(errno: Errno) -> Error {
    Error::kernel("changing ipset's sets", errno)
}

/// Sets of ours.
fn ours(socket: &mut Socket) -> Result<Vec<String>, Error> {
    let mut names = ipset_wire::names(socket).map_err(failed)?;
    let mark = [format!("{MARK}v4_"), format!("{MARK}v6_")];
    names.retain(|name| mark.iter().any(|mark| name.starts_with(mark)));
    Ok(names)
}

/// A timeout as ipset takes it; 0: for ever.
fn seconds(timeout: Option<u64>) -> u32 {
    let Some(millis) = timeout else { return 0 };
    let seconds = u32::try_from(millis.div_ceil(1_000)).unwrap_or(u32::MAX);
    seconds.clamp(1, LONGEST)
}

/// Whether the timeout that a ban got at the last renewal may end before the ban does.
fn is_due(end: Duration, now: Duration) -> bool {
    let left = end.saturating_sub(now);
    left + RENEW * 2 > Duration::from_secs(u64::from(LONGEST))
}

/// Takes rules and sets of ours away; none is no error.
pub(super) fn clear() -> Result<(), Error> {
    for family in &FAMILIES {
        if !Path::new(family.save).exists() {
            continue;
        }
        // Without iptables in this kernel there are no rules either.
        let found = family.found().unwrap_or_default();
        if !found.is_empty() {
            family.restore(found.removal())?;
        }
    }
    let mut socket = open()?;
    // A kernel without ipset has no sets.
    for name in ours(&mut socket).unwrap_or_default() {
        ipset_wire::destroy(&mut socket, &name).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_of_any_length_fits_a_timeout_and_is_renewed_in_time() {
        let day = 86_400_000;
        for (timeout, expected) in [
            (None, 0),
            (Some(1), 1),
            (Some(1_500), 2),
            (Some(24 * day), 24 * 86_400),
            (Some(25 * day), LONGEST),
            (Some(u64::MAX), LONGEST),
        ] {
            assert_eq!(seconds(timeout), expected, "{timeout:?}");
        }
        // Whatever its length, no ban's timeout ends between two renewals.
        let end = Duration::from_secs(400 * 86_400);
        let mut kernel = Duration::from_secs(u64::from(LONGEST));
        let mut now = Duration::ZERO;
        while now < end {
            assert!(kernel > now, "open at day {}", now.as_secs() / 86_400);
            if is_due(end, now) {
                let left = u64::try_from((end - now).as_millis()).unwrap();
                kernel = now + Duration::from_secs(u64::from(seconds(Some(left))));
            }
            now += RENEW;
        }
        assert_eq!(kernel, end);
    }
}
