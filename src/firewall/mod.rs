//! Bans into the kernel and into ufw; what the kernel really holds; whose addresses are ours.
#![forbid(unsafe_code)]

use std::time::Duration;

use crossbeam_channel::Sender;
use ipnet::IpNet;
use jiff::Timestamp;

use crate::config::{self, Ports};

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
}

/// The firewall as the engine sees it. No call waits for ufw.
pub struct Firewall {}

impl Firewall {
    /// Prepares the configured back end: own table made (bans in it kept), ufw's thread started.
    /// Never fails: what does not work is told by a notice and tried again at the next ban.
    pub fn start(settings: &config::Firewall, notices: Sender<Notice>) -> Firewall {
        let _ = (settings, notices);
        Firewall {}
    }

    /// Puts entries in force, all in one batch, and has the clients' sockets cut.
    /// Known entries get the new end. When this returns Ok packets are dropped.
    ///
    /// # Errors
    /// What the kernel said, for the operator.
    pub fn ban(&mut self, entries: &[Entry]) -> Result<(), String> {
        let _ = entries;
        Ok(())
    }

    /// Lifts entries; one that is not there is no error.
    ///
    /// # Errors
    /// What the kernel said, for the operator.
    pub fn unban(&mut self, entries: &[Entry]) -> Result<(), String> {
        let _ = entries;
        Ok(())
    }

    /// All bans of now have been given: what else is there, of an earlier engine, goes.
    pub fn settled(&mut self) {}

    /// Whether the kernel holds the entry now; `None`: nothing is enforced (dry run) or it could
    /// not be asked.
    pub fn in_force(&mut self, entry: &Entry) -> Option<bool> {
        let _ = entry;
        None
    }

    /// Where the entry stands in ufw; `None`: not mirrored at all.
    pub fn mirror(&self, entry: &Entry) -> Option<Mirror> {
        let _ = entry;
        None
    }

    /// Ends the threads after what is queued for ufw (at most `grace`); bans stay in force.
    pub fn finish(self, grace: Duration) {
        let _ = grace;
    }
}

/// Takes away all that pipeban ever put into this host's firewall: own table, ufw rules by their
/// comment. Needs no engine. Returns how many ufw rules went.
///
/// # Errors
/// What could not be removed, for the operator.
pub fn clear_everything() -> Result<usize, String> {
    Ok(0)
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

/// Reads them (rtnetlink; a dump of addresses and routes, some ten microseconds on most hosts).
///
/// # Errors
/// What the kernel said.
pub fn surroundings() -> std::io::Result<Surroundings> {
    Ok(Surroundings::default())
}
