//! The answers to `pipeban status`.

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ports::PortsStatus;
use super::worker::{Counters, Reading, SlowestFilter};
use crate::config::JailName;
use crate::record::Kind;
use crate::sys::sandbox::Confined;

/// `pipeban status`, printed as this JSON (the man page describes it).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The engine.
    pub engine: EngineStatus,
    /// Connected workers.
    pub workers: Vec<WorkerStatus>,
    /// Jails.
    pub jails: Vec<JailStatus>,
    /// Clients with hits in the window of a jail that has not banned them, those that hit last
    /// first; as many as bans were requested.
    #[serde(default)]
    pub failing: Vec<FailingStatus>,
    /// Current problems, each with what to do; syslog has them too.
    pub warnings: Vec<String>,
}

/// The engine itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Process id.
    pub pid: u32,
    /// Start of the engine.
    pub since: Timestamp,
    /// Program version.
    pub version: String,
    /// Hash of the configuration in use.
    pub config: String,
    /// Back end.
    pub backend: String,
    /// The emergency stop; `None`: it is off.
    pub off: Option<OffStatus>,
    /// The tcp ports that a ban of `port = "apache"` closes.
    #[serde(default)]
    pub apache_ports: Vec<u16>,
}

/// The emergency stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OffStatus {
    /// When it began.
    pub since: Timestamp,
    /// When it ends; `None`: at `pipeban on`.
    pub until: Option<Timestamp>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Process id.
    pub pid: u32,
    /// Kind of log.
    pub kind: Kind,
    /// Log file; `None`: lines only feed the matcher.
    pub path: Option<PathBuf>,
    /// Counters.
    #[serde(flatten)]
    pub counters: Counters,
    /// How it reads lines.
    #[serde(flatten)]
    pub reading: Reading,
    /// The filter that takes most of its time; `None`: not known yet.
    #[serde(default)]
    pub slowest: Option<SlowestFilter>,
    /// What it gave up beside root, as it says.
    #[serde(default)]
    pub confined: Confined,
}

/// One jail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailStatus {
    /// What its bans close.
    #[serde(default)]
    pub ports: PortsStatus,
    /// Name.
    pub name: JailName,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether its bans are enforced.
    pub enforce: bool,
    /// Clients with hits in the window.
    pub currently_failed: u64,
    /// Hits since the first start.
    pub total_failed: u64,
    /// Active bans.
    pub currently_banned: u64,
    /// Bans since the first start.
    pub total_banned: u64,
    /// Clients that it would ban now, with `enforce = false`.
    #[serde(default)]
    pub currently_observed: u64,
    /// The active bans; of many the newest ones.
    pub banned: Vec<BanStatus>,
    /// With `enforce = false`: the clients that it would ban.
    pub observed: Vec<BanStatus>,
}

/// A client with hits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailingStatus {
    /// An address, or a network where more than one is counted together.
    pub host: String,
    /// The jail.
    pub jail: JailName,
    /// Weight in the window.
    pub count: u32,
    /// Weight that leads to a ban.
    pub maxretry: u32,
}

/// A ban in a list of several jails' bans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedBan {
    /// The jail that banned.
    pub jail: JailName,
    /// The jail has `enforce = false`.
    pub observed: bool,
    /// The ban.
    pub ban: BanStatus,
}

/// One ban.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BanStatus {
    /// Its id, like `b17`.
    #[serde(default)]
    pub id: String,
    /// An address, or a network where more than one is banned.
    pub host: String,
    /// When it began.
    pub since: Timestamp,
    /// When it ends; `None`: never.
    pub until: Option<Timestamp>,
    /// Whether the kernel enforces it; `None`: not known.
    pub in_force: Option<bool>,
    /// With ufw: `present`, `queued`, `capped`, `short`, `removed`, `inactive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ufw: Option<String>,
    /// The proxy that the client is behind: the firewall cannot block it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<IpAddr>,
    /// Why it exists: `jail`, `shared`, `unconfirmed`, `manual`, `imported` or `adopted`.
    #[serde(default)]
    pub cause: String,
    /// The same in words, where the jail's rule does not say it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule that the last line before the ban hit, in a few words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The request or message of that line, escaped and cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}
