//! Bans into the kernel and into ufw; what the kernel really holds; whose addresses are ours.
//!
//! One back end enforces (`Backend`: the own nftables table, or ufw alone, or nothing in a dry
//! run), ufw may mirror it, and a thread cuts what a banned client has open. Another back end
//! (ipset, a command, Apache's deny map) is one more implementation of the trait and one more arm
//! in [`Firewall::start`].
//!
//! - `nft`: the own table; `nft_sets` what is in it, `nft_bans` what should be, `nft_wire` how it
//!   is written
//! - `ufw`, `ufw_thread`: the mirror; `ufw_plan` what to do next, `ufw_rules` the words
//! - `cut`: sockets of banned clients
//! - `surroundings`, `ssh_ports`: who and what must be left alone
//! - `netlink`, `tool`, `notices`: the ways out
#![forbid(unsafe_code)]

use std::time::Duration;

mod cut;
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
mod ufw_plan;
mod ufw_rules;
mod ufw_thread;

use crossbeam_channel::Sender;
use ipnet::IpNet;
use jiff::Timestamp;
use nix::errno::Errno;

use self::cut::{Cutter, Target};
use self::nft::Nft;
use self::notices::Notices;
pub use self::surroundings::Watch;
use self::ufw::Ufw;
use crate::config::{self, Ports};
use crate::jail::canonical;

/// One thing to be blocked. (net, ports) identifies it.
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

    /// Whether the kernel stops this entry's packets now: asked there, not remembered.
    fn holds(&mut self, entry: &Entry) -> Result<bool, Error>;

    /// All bans have been given: what else is there of ours, left by a process before this one,
    /// goes. Called again, it changes nothing.
    fn settled(&mut self) -> Result<(), Error>;

    /// Puts back what somebody else has taken away; an error is told by a notice. Cheap where
    /// nobody has.
    fn tend(&mut self);

    /// Begins nothing new after `grace` and ends threads. Bans stay in force.
    fn finish(self: Box<Self>, grace: Duration);
}

/// The firewall as the engine sees it. No call waits for ufw.
pub struct Firewall {
    /// `None`: a dry run.
    enforcer: Option<Box<dyn Backend>>,
    mirror: Mirrored,
    /// `None`: it cannot be done, or the enforcer does it itself.
    cutter: Option<Cutter>,
    notices: Notices,
}

/// Where ufw stands beside the enforcer.
enum Mirrored {
    Not,
    By(Ufw),
    /// It is the enforcer itself; this answers for it.
    Itself(ufw::Standing),
}

impl Firewall {
    /// Prepares the configured back end: own table made (bans in it kept), ufw's thread started.
    /// Never fails: what does not work is told by a notice and tried again at the next ban.
    pub fn start(settings: &config::Firewall, notices: Sender<Notice>) -> Firewall {
        let notices = Notices::to(notices);
        let ufw_alone = settings.mirror && !settings.instant;
        let mut cutter = match settings.backend {
            config::Backend::DryRun => None,
            config::Backend::Ufw => Cutter::start(notices.another()),
        };
        let (enforcer, mirror): (Option<Box<dyn Backend>>, _) = match settings.backend {
            config::Backend::DryRun => (None, Mirrored::Not),
            config::Backend::Ufw if ufw_alone => {
                // It cuts itself, when the rule is there.
                let ufw = Ufw::alone(settings.max_rules, cutter.take(), notices.another());
                let standing = ufw.standing();
                (Some(Box::new(ufw)), Mirrored::Itself(standing))
            }
            // Without mirror the own table is all there is, so it is made.
            config::Backend::Ufw => (
                Some(Box::new(Nft::start(notices.another()))),
                match settings.mirror {
                    true => Mirrored::By(Ufw::mirror(settings.max_rules, notices.another())),
                    false => Mirrored::Not,
                },
            ),
        };
        Firewall {
            enforcer,
            mirror,
            cutter,
            notices,
        }
    }

    /// Puts entries in force, all in one batch, and has the clients' sockets cut.
    /// Known entries get the new end. When this returns Ok packets are dropped (with ufw alone:
    /// the rule is queued).
    ///
    /// # Errors
    /// What the kernel said, for the operator. A mirrored ufw rule is queued all the same.
    pub fn ban(&mut self, entries: &[Entry]) -> Result<(), String> {
        let Some(enforcer) = &mut self.enforcer else {
            return Ok(());
        };
        if entries.is_empty() {
            return Ok(());
        }
        let entries: Vec<Entry> = entries.iter().map(Entry::normal).collect();
        let enforced = enforcer.ban(&entries);
        if let Mirrored::By(ufw) = &mut self.mirror {
            ufw.ban(&entries).map_err(|error| error.to_string())?;
        }
        // Also after an error: what is open ends, and a new connection is ufw's business.
        if let Some(cutter) = &mut self.cutter {
            cutter.cut(entries.iter().map(Target::from).collect());
        }
        enforced.map_err(|error| error.to_string())
    }

    /// Lifts entries; one that is not there is no error.
    ///
    /// # Errors
    /// What the kernel said, for the operator.
    pub fn unban(&mut self, entries: &[Entry]) -> Result<(), String> {
        let Some(enforcer) = &mut self.enforcer else {
            return Ok(());
        };
        if entries.is_empty() {
            return Ok(());
        }
        let entries: Vec<Entry> = entries.iter().map(Entry::normal).collect();
        let lifted = enforcer.unban(&entries);
        if let Mirrored::By(ufw) = &mut self.mirror {
            ufw.unban(&entries).map_err(|error| error.to_string())?;
        }
        lifted.map_err(|error| error.to_string())
    }

    /// All bans of the store have been given to [`Firewall::ban`] since the start: rules and
    /// elements that a process before this one left, and that are not among them, go. Until then
    /// they stay in force. Call it once, after the restore.
    ///
    /// # Errors
    /// What the kernel said, for the operator.
    pub fn settled(&mut self) -> Result<(), String> {
        if let Mirrored::By(ufw) = &mut self.mirror {
            ufw.settled().map_err(|error| error.to_string())?;
        }
        match &mut self.enforcer {
            Some(enforcer) => enforcer.settled().map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// Puts back the own table's rules where somebody has taken them away (`nft flush ruleset`):
    /// to be called every few seconds. One question to the kernel while nothing has changed. An
    /// error is told by a notice.
    pub fn tend(&mut self) {
        if let Some(enforcer) = &mut self.enforcer {
            enforcer.tend();
        }
    }

    /// Whether the kernel holds the entry now; `None`: nothing is enforced (dry run) or it could
    /// not be asked.
    pub fn in_force(&mut self, entry: &Entry) -> Option<bool> {
        const ASKING: &str = "firewall-asking";
        match self.enforcer.as_mut()?.holds(&entry.normal()) {
            Ok(holds) => {
                self.notices.over(ASKING);
                Some(holds)
            }
            Err(error) => {
                self.notices.trouble(
                    ASKING,
                    format!("whether bans are in force could not be asked: {error}"),
                );
                None
            }
        }
    }

    /// Where the entry stands in ufw; `None`: not mirrored at all.
    pub fn mirror(&self, entry: &Entry) -> Option<Mirror> {
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
        if let Some(enforcer) = self.enforcer {
            enforcer.finish(grace);
        }
        if let Mirrored::By(ufw) = self.mirror {
            Box::new(ufw).finish(grace);
        }
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

/// Takes away all that pipeban ever put into this host's firewall: own table, ufw rules by their
/// comment. Needs no engine. Returns how many ufw rules went. What is not there (no ufw, no
/// table, no nftables) is no error. ufw takes 0.2 s a rule.
///
/// # Errors
/// What could not be removed, for the operator; the rest is gone all the same.
pub fn clear_everything() -> Result<usize, String> {
    let table = nft::delete_table();
    let rules = ufw::clear(|_| true).map_err(|error| error.to_string())?;
    table.map_err(|error| error.to_string())?;
    Ok(rules)
}

/// Takes away ufw rules of ours whose comment says that their ban is over: a clean-up that needs
/// no engine. Returns how many went.
///
/// # Errors
/// What could not be removed, for the operator; the rest is gone all the same.
pub fn clear_over(now: Timestamp) -> Result<usize, String> {
    ufw::clear_over(now).map_err(|error| error.to_string())
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
            };
            assert_eq!(entry.normal().net, expected.parse().unwrap(), "{given}");
        }
    }
}
