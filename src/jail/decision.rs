//! What comes in, and what a jail decides.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::bans::Ban;
use super::cause::End;
use super::exempt::Reason;
use super::moment::Moment;
use crate::config::JailName;

/// One jail's filter matched one line.
#[derive(Debug, Clone, Copy)]
pub struct Hit<'a> {
    /// The jail of the filter.
    pub jail: &'a JailName,
    /// Apache's client field.
    pub client: IpAddr,
    /// The connection's peer, where the format carries it.
    pub peer: Option<IpAddr>,
    /// Any client may have written the address: it is not counted.
    pub forgeable: bool,
    /// A script may have written the line: a ban needs a confirmation of its client
    /// ([`super::Jails::confirm`]), or lasts at most [`super::UNCONFIRMED_BANTIME`].
    pub unproven: bool,
    /// When the line arrived.
    pub arrived: Moment,
    /// What the line counts, times the weight of the jail. 1 or more.
    pub weight: u32,
    /// A page elsewhere can make a browser send it: a ban that it leads to lasts no longer than
    /// the jail's first one.
    pub spoofable: bool,
    /// Whether the client is a search engine.
    pub claim: Claim,
    /// Its worker makes too many bans: those that follow last [`super::SURGE_BANTIME`] at most.
    pub surge: bool,
}

/// Whether a client is a search engine, where its user agent says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The client is one like any other.
    None,
    /// It is a search engine: the hit is not counted.
    Confirmed,
    /// Not known yet: the hit counts, and leads to no ban.
    Open,
    /// A hit that was [`Claim::Open`] is decided: it is counted already.
    Decided,
}

/// What a jail decides.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A hit that counts.
    Found {
        /// The jail.
        jail: JailName,
        /// Apache's client field.
        client: IpAddr,
        /// Weight in the window now.
        count: u32,
        /// Weight that leads to a ban.
        maxretry: u32,
        /// Length of the window.
        findtime: Duration,
    },
    /// A new ban; `mode` says what it does.
    Ban(Ban),
    /// The client of an unconfirmed ban is confirmed: the ban has its full length.
    Confirmed(Ban),
    /// A ban from before the engine started.
    Restore(Ban),
    /// A ban ended.
    Unban {
        /// The ban.
        ban: Ban,
        /// Why it ended.
        end: End,
    },
    /// A hit of a client that is banned already.
    AlreadyBanned {
        /// The jail that banned it.
        jail: JailName,
        /// The banned network.
        net: IpNet,
    },
    /// A hit of an exempt client; not counted.
    Ignore {
        /// The jail.
        jail: JailName,
        /// The client.
        client: IpAddr,
        /// Why it is exempt.
        reason: Reason,
    },
    /// Hits that would ban another client; the address is shared, and needs more.
    Spared {
        /// The jail.
        jail: JailName,
        /// The client.
        client: IpAddr,
        /// Weight that leads to its ban.
        maxretry: u32,
    },
    /// A hit for a jail that is not in the configuration; not counted.
    NoSuchJail,
}

/// Why a person cannot ban a network.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The configuration has no such jail.
    NoSuchJail(JailName),
    /// An address in the network is exempt.
    Exempt(Reason),
    /// The network is wider than any holder has ([`super::is_too_wide`]).
    TooWide(IpNet),
}

/// What one hit led to.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use]
pub struct Observed {
    /// In order.
    pub actions: Vec<Action>,
    /// Counters that changed, by jail and client.
    pub changed: Vec<(JailName, IpNet)>,
}

/// Totals since the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Hits, also those during the emergency stop.
    pub failed: u64,
    /// Bans.
    pub banned: u64,
}

impl Observed {
    pub(super) fn only(action: Action) -> Observed {
        Observed {
            actions: vec![action],
            changed: Vec::new(),
        }
    }
}
