//! What confirms clients of lines that a script may have written.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::moment::Moment;
use crate::config::JailName;

/// The longest ban of a client that is not confirmed.
pub const UNCONFIRMED_BANTIME: Duration = Duration::from_secs(600);

/// How long a confirmation lasts, and how long after a ban it may come.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Clients remembered at most, of each kind.
pub(super) const MAX_CLIENTS: usize = 100_000;

/// An unconfirmed ban.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) jail: JailName,
    pub(super) net: IpNet,
    /// The ban's beginning.
    pub(super) since: Moment,
    /// A page elsewhere may have made the client send its last hit.
    pub(super) spoofable: bool,
}

#[derive(Debug, Default)]
pub(super) struct Confirmations {
    /// When each client was confirmed last.
    pub(super) confirmed: HashMap<IpAddr, Moment>,
    /// Unconfirmed bans by their client.
    pub(super) expected: HashMap<IpAddr, Vec<Expected>>,
    /// Clients of which no one has been asked yet.
    pub(super) new: Vec<IpAddr>,
}

impl Confirmations {
    pub(super) fn sweep(&mut self, now: Moment) {
        let fresh = |at: Moment| now.since(at) <= WINDOW;
        self.confirmed.retain(|_, at| fresh(*at));
        self.expected
            .retain(|_, bans| bans.iter().any(|ban| fresh(ban.since)));
    }
}
