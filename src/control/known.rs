//! What the engine knows about one client, for `pipeban explain`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EngineStatus, WorkerStatus};
use crate::config::{JailName, Ports};
use crate::jail::Why;

/// What the engine knows about a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// The engine.
    pub engine: EngineStatus,
    /// Connected workers.
    pub workers: Vec<WorkerStatus>,
    /// Active bans that share an address with it.
    pub bans: Vec<KnownBan>,
    /// Hits in the windows of jails; for a single address only.
    pub counters: Vec<KnownCounter>,
    /// Which jails may not ban it, and why.
    pub exempt: Vec<KnownExempt>,
    /// What reverse DNS says, where its user agent names a search engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crawler: Option<KnownCrawler>,
    /// Many browsers use it.
    pub shared: bool,
    /// Why the firewall could not be queried.
    pub trouble: Option<String>,
}

/// An active ban.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownBan {
    /// Its id, like `b17`.
    pub id: String,
    /// The jail that banned.
    pub jail: JailName,
    /// The banned client or network.
    pub net: IpNet,
    /// The closed ports.
    pub ports: Ports,
    /// When it began.
    pub since: Timestamp,
    /// When it ends; `None`: never.
    pub until: Option<Timestamp>,
    /// Weight that led to it; 0 where a person banned.
    pub failures: u32,
    /// Time in which that weight arrived.
    pub within: Duration,
    /// The word of [`crate::jail::Cause`].
    pub cause: String,
    /// The text that a person gave.
    pub given: Option<String>,
    /// `enforce = false`.
    pub observed: bool,
    /// The proxy that the client is behind.
    pub behind: Option<IpAddr>,
    /// Whether a back end enforces it; `None`: not known.
    pub in_force: Option<bool>,
    /// The state of its ufw rule, as in [`super::BanStatus`].
    pub ufw: Option<String>,
}

/// What a jail counts of a client now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownCounter {
    /// The jail.
    pub jail: JailName,
    /// The client, by the jail's prefix.
    pub net: IpNet,
    /// Arrival and weight of each hit in the window.
    pub hits: Vec<(Timestamp, u32)>,
}

/// A client whose user agent names a search engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownCrawler {
    /// The search engine.
    pub engine: String,
    /// Whether reverse DNS confirms it; `None`: no answer.
    pub confirmed: Option<bool>,
    /// The client's name where that confirms it, else why not.
    pub text: String,
    /// When it was looked up.
    pub at: Timestamp,
}

/// Why a jail may not ban it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownExempt {
    /// The jail.
    pub jail: JailName,
    /// The kind of entry.
    pub why: Why,
    /// The entry.
    pub entry: IpNet,
}
