//! Bans into the kernel and into ufw; what the kernel really holds; whose addresses are ours.
//!
//! Back ends stand behind one small trait (`Backend`), as many as are configured; each has a
//! `Witness` that asks, on any thread, whether a ban is in force. ufw may mirror another one, and
//! a thread cuts what a banned client has open.
//!
//! - `nft`: the own table; `nft_sets` what is in it, `nft_bans` what should be, `nft_wire` how it
//!   is written
//! - `ufw`, `ufw_thread`: the mirror; `ufw_plan` what to do next, `ufw_rules` the words,
//!   `ufw_call` one call
//! - `ipset`: its sets; `ipset_rules` the iptables rules that ask them, `ipset_wire` the messages
//! - `command`: a program of the administrator's
//! - `deny`: the map that Apache asks; `deny_names` what it finds there
//! - `cut`: sockets of banned clients
//! - `changes`: when to look whether somebody has taken bans away
//! - `surroundings`, `ssh_ports`: who and what must be left alone
//! - `netlink`, `tool`, `notices`: the ways out
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

mod command;
mod cut;
mod deny;
mod deny_names;
mod ipset;
mod ipset_rules;
mod ipset_wire;
mod netlink;
mod nft;
mod nft_bans;
mod nft_sets;
mod nft_wire;
mod notices;
mod ssh_ports;
mod surroundings;
mod tool;
mod ufw;
mod ufw_call;
mod ufw_plan;
mod ufw_rules;
mod ufw_thread;

use crossbeam_channel::Sender;
use ipnet::IpNet;
use jiff::Timestamp;
use nix::errno::Errno;

use self::command::Command;
use self::cut::{Cutter, Target};
use self::deny::Deny;
use self::ipset::Ipset;
use self::nft::Nft;
use self::notices::Notices;
pub use self::surroundings::Watch;
use self::ufw::Ufw;
use crate::config::{self, Paths, Ports};
use crate::jail::canonical;

/// One thing to be blocked. (net, ports, behind) identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Masked and unmapped.
    pub net: IpNet,
    /// What is closed.
    pub ports: Ports,
    /// For the ufw comment.
    pub jail: String,
    /// For the ufw comment; `None`: for ever.
    pub until: Option<Timestamp>,
    /// Time left now, for the kernel's timeout; `None`: for ever.
    pub remaining: Option<Duration>,
    /// The client stands behind a proxy: only Apache itself can refuse it. An entry of its own
    /// beside one of the same (net, ports) that is not.
    pub behind: bool,
}

impl Entry {
    /// One of which only what identifies it is known: enough to lift it.
    pub fn named(net: IpNet, ports: Ports, behind: bool) -> Entry {
        Entry {
            net,
            ports,
            jail: String::new(),
            until: None,
            remaining: None,
            behind,
        }
    }
}

/// Where an entry stands in ufw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirror {
    /// ufw has the rule.
    Present,
    /// Its turn has not come yet.
    Queued,
    /// Left out: `max_rules` reached.
    Capped,
    /// Left out: it had under 10 minutes left when its turn came.
    Short,
    /// Left out: somebody has deleted its rule twice.
    Removed,
    /// ufw is not active: the rule stands in its files only.
    Inactive,
}

/// What the firewall has to tell the operator, for syslog and `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something is wrong; key identifies it (replaced or ended by the same key).
    Trouble {
        /// Identifies the trouble.
        key: &'static str,
        /// What, and what to do.
        text: String,
    },
    /// The trouble is over.
    Over {
        /// Identifies the trouble.
        key: &'static str,
    },
    /// Something happened, and was put right at once.
    Event {
        /// What.
        text: String,
    },
}

/// What went wrong, for the operator.
#[derive(Debug)]
enum Error {
    /// The kernel refused.
    Kernel {
        /// What we were at.
        doing: &'static str,
        /// Its reason.
        errno: Errno,
    },
    /// A firewall's program failed.
    Tool {
        /// As it was called.
        command: String,
        /// Exit status and what it printed, cut.
        said: String,
    },
    /// Apache's deny map cannot be changed.
    Map {
        /// Where it is.
        directory: PathBuf,
        /// The reason.
        said: String,
    },
}

impl Error {
    fn kernel(doing: &'static str, errno: Errno) -> Error {
        Error::Kernel { doing, errno }
    }

    /// The kernel knows no nftables, or not that table.
    fn is_absence(&self) -> bool {
        matches!(
            self,
            Error::Kernel {
                errno: Errno::ENOENT
                    | Errno::EOPNOTSUPP
                    | Errno::EPROTONOSUPPORT
                    | Errno::EAFNOSUPPORT,
                ..
            }
        )
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Kernel { doing, errno } => write!(f, "{doing}: {}", errno.desc()),
            Error::Tool { command, said } => write!(f, "`{command}`: {said}"),
            Error::Map { directory, said } => {
                write!(f, "Apache's deny map {}: {said}", directory.display())
            }
        }
    }
}

impl std::error::Error for Error {}

/// What enforces bans. Entries come masked and unmapped.
trait Backend: Send {
    /// Puts entries in force, all or none. What is in force already gets the new end.
    fn ban(&mut self, entries: &[Entry]) -> Result<(), Error>;

    /// Lifts entries. What is not in force is no error, and stays so.
    fn unban(&mut self, entries: &[Entry]) -> Result<(), Error>;

    /// Puts exactly these in force: what else there is of ours goes, whoever left it.
    fn exactly(&mut self, all: &mut dyn Iterator<Item = Entry>) -> Result<(), Error>;

    /// A process before us may have put these in force; for who cannot find out by itself.
    fn left(&mut self, _entries: &mut dyn Iterator<Item = Entry>) {}

    /// Somebody who can tell what is in force; `None`: nobody can.
    fn witness(&self) -> Option<Box<dyn Witness>>;

    /// Puts back what somebody else has taken away; an error is told by a notice. Cheap where
    /// nobody has. Called some times a second.
    fn tend(&mut self);

    /// Begins nothing new after `grace` and ends threads. Bans stay in force.
    fn finish(self: Box<Self>, grace: Duration);
}

/// Says whether bans are in force: asked there, not remembered.
trait Witness: Send {
    /// For each entry whether it is; `None`: that cannot be told.
    fn holds(&mut self, entries: &[Entry]) -> Result<Vec<Option<bool>>, Error>;
}

/// The firewall as the engine sees it. No call waits for ufw or a command.
pub struct Firewall {
    /// They stop packets; none in a dry run.
    packets: Vec<Box<dyn Backend>>,
    mirror: Mirrored,
    /// It answers requests with 403, also those that a proxy passes on.
    requests: Option<Box<dyn Backend>>,
    /// `None`: it cannot be done, or who enforces does it, when it is done.
    cutter: Option<Cutter>,
    notices: Notices,
}

/// Where ufw stands beside the others.
enum Mirrored {
    Not,
    By(Ufw),
    /// It is one that enforces; this answers for it.
    Itself(ufw::Standing),
}

impl Firewall {
    /// Prepares the configured back ends: own table made (bans in it kept), threads started.
    /// Never fails: what does not work is told by a notice and tried again at the next ban.
    pub fn start(settings: &config::Firewall, paths: &Paths, notices: Sender<Notice>) -> Firewall {
        use config::Backend as Kind;
        let notices = Notices::to(notices);
        let mut packets: Vec<Box<dyn Backend>> = Vec::new();
        // Without mirror the own table is all there is of ufw, so it is made.
        let table = settings.has(Kind::Ufw) && (settings.instant || !settings.mirror);
        if table || settings.has(Kind::Nftables) {
            packets.push(Box::new(Nft::start(settings.blocktype, notices.another())));
        }
        if settings.has(Kind::Ipset) {
            packets.push(Box::new(Ipset::start(
                settings.blocktype,
                notices.another(),
            )));
        }
        let mut cutter = match settings.has(Kind::DryRun) {
            true => None,
            false => Cutter::start(notices.another()),
        };
        let at_once = !packets.is_empty();
        // Who enforces later cuts later: a client that is cut before comes back.
        let mut later = match at_once {
            true => None,
            false => cutter.take(),
        };
        let mut mirror = Mirrored::Not;
        if settings.has(Kind::Ufw) && settings.mirror {
            if at_once {
                mirror = Mirrored::By(Ufw::mirror(settings.max_rules, notices.another()));
            } else {
                let cutter = later.as_ref().map(Cutter::another);
                let ufw = Ufw::alone(settings.max_rules, cutter, notices.another());
                mirror = Mirrored::Itself(ufw.standing());
                packets.push(Box::new(ufw));
            }
        }
        if let (true, Some(command)) = (settings.has(Kind::Command), &settings.command) {
            let command = Command::start(command.clone(), later.take(), notices.another());
            packets.push(Box::new(command));
        }
        let requests = settings.has(Kind::Apache).then(|| {
            let deny = Deny::start(paths.deny_map(), notices.another());
            Box::new(deny) as Box<dyn Backend>
        });
        Firewall {
            packets,
            mirror,
            requests,
            cutter,
            notices,
        }
    }

    /// Puts entries in force, all in one batch, and has the clients' sockets cut.
    /// Known entries get the new end. When this returns Ok packets are dropped (with ufw alone:
    /// the rule is queued).
    ///
    /// # Errors
    /// What the kernel said, for the operator. Every back end has been asked all the same.
    pub fn ban(&mut self, entries: &[Entry]) -> Result<(), String> {
        let done = self.each(entries, |backend, entries| backend.ban(entries));
        // Also after an error: what is open ends, and a new connection is others' business.
        if let Some(cutter) = &mut self.cutter {
            let direct = entries.iter().filter(|entry| !entry.behind);
            let targets: Vec<Target> = direct.map(|entry| Target::from(&entry.normal())).collect();
            if !targets.is_empty() {
                cutter.cut(targets);
            }
        }
        done
    }

    /// Lifts entries; one that is not there is no error.
    ///
    /// # Errors
    /// What the kernel said, for the operator. Every back end has been asked all the same.
    pub fn unban(&mut self, entries: &[Entry]) -> Result<(), String> {
        self.each(entries, |backend, entries| backend.unban(entries))
    }

    /// Has every back end do something with what is its.
    fn each(
        &mut self,
        entries: &[Entry],
        act: impl Fn(&mut dyn Backend, &[Entry]) -> Result<(), Error>,
    ) -> Result<(), String> {
        let all: Vec<Entry> = entries.iter().map(Entry::normal).collect();
        let direct: Vec<Entry> = all.iter().filter(|entry| !entry.behind).cloned().collect();
        let mut failed = Vec::new();
        let mut take = |backend: &mut dyn Backend, entries: &[Entry]| {
            if !entries.is_empty() {
                failed.extend(act(backend, entries).err().map(|error| error.to_string()));
            }
        };
        for backend in &mut self.packets {
            take(backend.as_mut(), &direct);
        }
        if let Mirrored::By(ufw) = &mut self.mirror {
            take(ufw, &direct);
        }
        if let Some(requests) = &mut self.requests {
            take(requests.as_mut(), &all);
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(failed.join("; ")),
        }
    }

    /// Puts exactly these in force: rules and elements of ours that are not among them go,
    /// whoever left them. What stays is in force all the while. `all` is called once for each
    /// back end.
    ///
    /// # Errors
    /// What the kernel said, for the operator. Every back end has been asked all the same.
    pub fn exactly<I: Iterator<Item = Entry>>(
        &mut self,
        all: impl Fn() -> I,
    ) -> Result<(), String> {
        let mut failed = Vec::new();
        let mut take = |backend: &mut dyn Backend, behind: bool| {
            let mut entries = all()
                .filter(|entry| behind || !entry.behind)
                .map(|entry| entry.normal());
            let done = backend.exactly(&mut entries);
            failed.extend(done.err().map(|error| error.to_string()));
        };
        for backend in &mut self.packets {
            take(backend.as_mut(), false);
        }
        if let Mirrored::By(ufw) = &mut self.mirror {
            take(ufw, false);
        }
        if let Some(requests) = &mut self.requests {
            take(requests.as_mut(), true);
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(failed.join("; ")),
        }
    }

    /// A process before us may have put these in force; [`Firewall::exactly`] lifts what is left
    /// of them. `entries` is called once for each back end, most of which ask for none.
    pub fn left<I: Iterator<Item = Entry>>(&mut self, entries: impl Fn() -> I) {
        for backend in &mut self.packets {
            backend.left(&mut entries().map(|entry| entry.normal()));
        }
    }

    /// Puts back what somebody has taken away (`nft flush ruleset`): to be called some times a
    /// second. One question to the kernel (10 us) while nothing has changed: to be told of changes
    /// would cost it 4 KiB for each element that anybody on this host puts into a set. An error is
    /// told by a notice.
    pub fn tend(&mut self) {
        for backend in self.packets.iter_mut().chain(&mut self.requests) {
            backend.tend();
        }
    }

    /// Somebody who can tell, on any thread, what is in force.
    pub fn asker(&self) -> Asker {
        let packets = self.packets.iter();
        Asker {
            packets: packets.filter_map(|backend| backend.witness()).collect(),
            enforced: !self.packets.is_empty(),
            requests: self.requests.as_ref().and_then(|backend| backend.witness()),
        }
    }

    /// Whether the entry is in force now; `None`: nothing is enforced (dry run) or it could not
    /// be asked, which is told.
    pub fn in_force(&mut self, entry: &Entry) -> Option<bool> {
        let found = self.asker().in_force(std::slice::from_ref(entry));
        self.asked(&found);
        found.ok()?.first().copied().flatten()
    }

    /// Tells whether asking worked.
    pub fn asked<T>(&mut self, found: &Result<T, String>) {
        const ASKING: &str = "firewall-asking";
        match found {
            Ok(_) => self.notices.over(ASKING),
            Err(error) => self.notices.trouble(
                ASKING,
                format!("whether bans are in force could not be asked: {error}"),
            ),
        }
    }

    /// Where the entry stands in ufw; `None`: not mirrored at all.
    pub fn mirror(&self, entry: &Entry) -> Option<Mirror> {
        if entry.behind {
            return None;
        }
        let entry = entry.normal();
        match &self.mirror {
            Mirrored::Not => None,
            Mirrored::By(ufw) => ufw.standing().of(&entry),
            Mirrored::Itself(standing) => standing.of(&entry),
        }
    }

    /// Works for ufw while there is something queued, for `grace` at most, and ends; a call of
    /// ufw that has begun is waited for, some seconds at most. Bans stay in force.
    pub fn finish(self, grace: Duration) {
        for backend in self.packets.into_iter().chain(self.requests) {
            backend.finish(grace);
        }
        if let Mirrored::By(ufw) = self.mirror {
            Box::new(ufw).finish(grace);
        }
    }
}

/// Asks back ends what is in force, on any thread.
pub struct Asker {
    packets: Vec<Box<dyn Witness>>,
    /// Whether packets are stopped at all, by whoever.
    enforced: bool,
    requests: Option<Box<dyn Witness>>,
}

impl Asker {
    /// For each entry whether a client that comes itself is stopped by one of the back ends, or
    /// one behind a proxy refused by Apache; `None`: nobody can tell.
    ///
    /// # Errors
    /// What the kernel said, for the operator.
    pub fn in_force(&mut self, entries: &[Entry]) -> Result<Vec<Option<bool>>, String> {
        let entries: Vec<Entry> = entries.iter().map(Entry::normal).collect();
        let mut found = vec![None; entries.len()];
        let mut ask = |witness: &mut dyn Witness, which: &dyn Fn(&Entry) -> bool| {
            let (places, some): (Vec<usize>, Vec<Entry>) = entries
                .iter()
                .enumerate()
                .filter(|(_, entry)| which(entry))
                .map(|(place, entry)| (place, entry.clone()))
                .unzip();
            let held = witness.holds(&some).map_err(|error| error.to_string())?;
            for (place, holds) in places.into_iter().zip(held) {
                if let Some(found) = found.get_mut(place) {
                    // One is enough.
                    *found = (*found).max(holds);
                }
            }
            Ok::<_, String>(())
        };
        for witness in &mut self.packets {
            ask(witness.as_mut(), &|entry| !entry.behind)?;
        }
        let enforced = self.enforced;
        if let Some(witness) = &mut self.requests {
            ask(witness.as_mut(), &|entry| entry.behind || !enforced)?;
        }
        Ok(found)
    }
}

impl Entry {
    /// Masked and unmapped, whoever made it: `::ffff:192.0.2.1` is no IPv6 client.
    fn normal(&self) -> Entry {
        Entry {
            net: canonical(self.net),
            ..self.clone()
        }
    }
}

/// Takes away all that pipeban ever put into this host's firewall: own table, sets of ipset with
/// their rules, Apache's deny map, ufw rules by their comment. Needs no engine. Returns how many
/// ufw rules went. What is not there (no ufw, no table, no nftables) is no error. ufw takes 0.2 s
/// a rule.
///
/// # Errors
/// What could not be removed, for the operator; the rest is gone all the same.
pub fn clear_everything(paths: &Paths) -> Result<usize, String> {
    let others = [
        nft::delete_table(),
        ipset::clear(),
        deny::clear(&paths.deny_map(), None).map(drop),
    ];
    let rules = ufw::clear(|_| true).map_err(|error| error.to_string())?;
    for cleared in others {
        cleared.map_err(|error| error.to_string())?;
    }
    Ok(rules)
}

/// Takes away ufw rules and names of Apache's deny map whose ban is over: a clean-up that needs no
/// engine. Returns how many went.
///
/// # Errors
/// What could not be removed, for the operator; the rest is gone all the same.
pub fn clear_over(paths: &Paths, now: Timestamp) -> Result<usize, String> {
    let names = deny::clear(&paths.deny_map(), Some(now)).map_err(|error| error.to_string())?;
    let rules = ufw::clear_over(now).map_err(|error| error.to_string())?;
    Ok(names + rules)
}

/// Addresses of this host that must never be banned, read from the kernel now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Every address of every interface, loopback networks included.
    pub own: Vec<IpNet>,
    /// Gateways of the routing tables.
    pub gateways: Vec<std::net::IpAddr>,
    /// Name servers of /etc/resolv.conf.
    pub name_servers: Vec<std::net::IpAddr>,
}

/// Reads them (rtnetlink; a dump of addresses and routes, under a millisecond on most hosts).
///
/// # Errors
/// What the kernel said, or /etc/resolv.conf.
pub fn surroundings() -> std::io::Result<Surroundings> {
    surroundings::read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_masked_and_unmapped() {
        for (given, expected) in [
            ("192.0.2.1/32", "192.0.2.1/32"),
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("2001:db8::77:1/64", "2001:db8::/64"),
            ("::ffff:192.0.2.1/128", "192.0.2.1/32"),
            ("::ffff:192.0.2.77/120", "192.0.2.0/24"),
            ("::/0", "::/0"),
        ] {
            let entry = Entry {
                net: given.parse().unwrap(),
                ports: Ports::All,
                jail: "j".into(),
                until: None,
                remaining: None,
                behind: false,
            };
            assert_eq!(entry.normal().net, expected.parse().unwrap(), "{given}");
        }
    }
}
