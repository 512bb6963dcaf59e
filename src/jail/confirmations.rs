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

#[derive(Debug, Default)]
pub(super) struct Confirmations {
    /// When each client was confirmed last.
    pub(super) confirmed: HashMap<IpAddr, Moment>,
    /// Unconfirmed bans by their client, with their beginning.
    pub(super) expected: HashMap<IpAddr, Vec<(JailName, IpNet, Moment)>>,
    /// Clients of which no one has been asked yet.
    pub(super) new: Vec<IpAddr>,
}

impl Confirmations {
    pub(super) fn sweep(&mut self, now: Moment) {
        let fresh = |at: Moment| now.since(at) <= WINDOW;
        self.confirmed.retain(|_, at| fresh(*at));
        self.expected
            .retain(|_, bans| bans.iter().any(|(_, _, since)| fresh(*since)));
    }
}
