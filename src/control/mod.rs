//! The messages between worker, keeper, engine and commands: one JSON object per line over the
//! engine's unix socket. Types here are for the wire only.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::config::JailName;
use crate::filter::PatternAt;
use crate::record::{ClientSource, Kind};
use crate::sys::sandbox::Confined;

mod client;
mod frame;
mod known;
mod ports;
mod status;
mod transfer;
mod worker;

pub use client::{AskError, ask};
pub use frame::{Lines, TooLong, encode};
pub use known::{Known, KnownBan, KnownCounter, KnownCrawler, KnownExempt};
pub use ports::PortsStatus;
pub use status::{
    BanStatus, EngineStatus, FailingStatus, JailStatus, ListedBan, OffStatus, Status, WorkerStatus,
};
pub use transfer::{Exported, Fate, Offered, Until};
pub use worker::{Counters, MAX_UNREAD, Reading, SlowestFilter, Unread};

/// Version of this protocol. The engine refuses and logs any other; lines still pass.
pub const VERSION: u32 = 3;

/// Bytes of a worker's message at most, with its newline; a longer one ends the connection.
pub const MAX_WORKER_MESSAGE: usize = 256 * 1024;

/// Clients in one [`Reply::Watch`] or [`Request::Seen`] at most.
pub const MAX_WATCHED: usize = 200;

/// Patterns in one [`Request::Undecided`] at most; the next one has the others.
pub const MAX_UNDECIDED: usize = 20;

/// How long a ban of [`Command::Prove`] lasts at most.
pub const PROOF_SECONDS: u64 = 30;

/// Names a configuration: the first 16 hex digits of the SHA-256 of its JSON.
pub fn config_hash(text: impl AsRef<[u8]>) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(text);
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// A message to the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// First message on a worker's connection; its keeper (uid 0) sends it, and then hands the
    /// connection to the worker. Answer: [`Reply::Welcome`].
    Worker(WorkerHello),
    /// First message of a keeper (uid 0). Answer: [`Reply::Config`], again at every reload.
    Keeper {
        /// [`VERSION`]
        version: u32,
    },
    /// Hits of a worker, in stream order. Answer, when committed: [`Reply::Ack`]; one for several
    /// messages that came together.
    Hits(Vec<LineHit>),
    /// A worker's counters, about once per second while they change.
    Counters(Counters),
    /// How a worker reads its lines, when that changes.
    Reading(Reading),
    /// What a worker gave up, once per connection.
    Confined(Confined),
    /// Sent with the counters: the filter that takes most of a worker's time.
    Slowest(SlowestFilter),
    /// Patterns that gave up on lines since the last such message, in the order of the
    /// configuration; at most once per second, at most [`MAX_UNDECIDED`].
    Undecided(Vec<Undecided>),
    /// A worker saw enough good requests by different browsers from one address (`shared`).
    Shared {
        /// The shared address.
        addr: IpAddr,
    },
    /// Access records of these clients were seen, as [`Reply::Watch`] requested; at most
    /// [`MAX_WATCHED`].
    Seen {
        /// The clients.
        clients: Vec<IpAddr>,
    },
    /// First and only message of a command.
    Command(Command),
}

/// A keeper introduces its worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerHello {
    /// [`VERSION`]
    pub version: u32,
    /// The pipe's random number; a restarted worker has the same.
    pub stream: u64,
    /// Process id of the worker.
    pub pid: u32,
    /// Kind of log.
    pub kind: Kind,
    /// Where lines are written; `None` when they only feed the matcher.
    pub path: Option<PathBuf>,
    /// Hash of the configuration the worker matches with; `None`: it only passes lines through.
    pub config: Option<String>,
    /// The command line of the Apache that started the logger; empty: not known.
    #[serde(default)]
    pub apache: Vec<String>,
    /// Bytes of the stream so far: no hit has a larger offset.
    #[serde(default)]
    pub bytes: Option<u64>,
}

/// All hits of one line. Identified by (stream, offset): a line sent twice counts once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineHit {
    /// Byte offset of the line's first byte in its stream.
    pub offset: u64,
    /// CLOCK_BOOTTIME in nanoseconds when the line was read.
    pub arrived: u64,
    /// Apache's client field.
    pub client: IpAddr,
    /// The connection's peer, where the format carries it and it is not the client.
    pub peer: Option<IpAddr>,
    /// The virtual host, where the format carries it, escaped and cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    /// How the line shows whether the client is the peer.
    #[serde(default)]
    pub source: ClientSource,
    /// The search engine that the user agent names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Apache answered 200, and not with a front page: see [`crate::record::Record::is_answered`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answered: bool,
    /// The jails whose filter matched, with the pattern's number and what the hit counts; 0: a
    /// success, which clears the client's count.
    pub jails: Vec<(JailName, u32, u32)>,
    /// Hash of the configuration that matched.
    pub config: String,
    /// The line, escaped for display and cut.
    pub evidence: String,
}

/// A pattern that reached its bound on steps or length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undecided {
    /// The filter's name.
    pub filter: String,
    /// The pattern's place in the filter.
    pub pattern: PatternAt,
    /// Number of lines.
    pub times: u64,
}

/// A command. Answer: [`Reply::Done`] or [`Reply::Refused`], where no other is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// `pipeban status [JAIL]`. Answer: [`Reply::Status`].
    Status {
        /// Only this jail.
        jail: Option<JailName>,
        /// Clients at most whose bans are listed, those banned last; never more than 1000.
        #[serde(default)]
        newest: usize,
    },
    /// All bans of `pipeban status`, a page of them. Answer: [`Reply::StatusPage`].
    StatusPage {
        /// Only this jail's bans.
        jail: Option<JailName>,
        /// Only enforced ones (`false`), or those of jails with `enforce = false`.
        observed: Option<bool>,
        /// Only those of networks after this one; `None`: the first page.
        after: Option<IpNet>,
    },
    /// `pipeban ban ADDR`
    Ban {
        /// Address or network.
        net: IpNet,
        /// The jail; `None`: `manual`, with `[defaults]`.
        jail: Option<JailName>,
        /// Length of the ban.
        bantime: BanTime,
        /// The text that `status` and the log show.
        reason: Option<String>,
    },
    /// `pipeban unban ADDR|--all`
    Unban {
        /// `None`: all.
        net: Option<IpNet>,
        /// Only the ban with this id, like `b17`.
        #[serde(default)]
        id: Option<String>,
        /// Only this jail's bans.
        jail: Option<JailName>,
        /// Remove the bans from the history too.
        forget: bool,
    },
    /// `pipeban allow ADDR`
    Allow {
        /// Address or network.
        net: IpNet,
        /// Seconds; `None`: for ever.
        seconds: Option<u64>,
        /// Shown by `allow --list`.
        reason: Option<String>,
    },
    /// `pipeban disallow ADDR`
    Disallow {
        /// Address or network.
        net: IpNet,
    },
    /// `pipeban allow --list`
    AllowList,
    /// `pipeban off [--for 1h]`
    Off {
        /// Seconds; `None`: until `pipeban on`.
        seconds: Option<u64>,
    },
    /// `pipeban on`
    On,
    /// `pipeban export`, a page of it. Answer: [`Reply::Bans`].
    Export {
        /// Only this jail's bans.
        jail: Option<JailName>,
        /// Only those of networks after this one; `None`: the first page.
        after: Option<IpNet>,
    },
    /// `pipeban import`, some of it. Answer: [`Reply::Taken`].
    Import {
        /// The jail that gets all of them; unknown: the command is refused.
        jail: Option<JailName>,
        /// The bans, each with its jail.
        bans: Vec<Offered>,
    },
    /// `pipeban purge ADDR`
    Purge {
        /// Address or network.
        net: IpNet,
    },
    /// `pipeban explain ADDR`. Answer: [`Reply::Known`].
    Explain {
        /// Address or network.
        net: IpNet,
    },
    /// `pipeban doctor`: a ban by hand that lasts for [`PROOF_SECONDS`] and runs no hook.
    Prove {
        /// An address that belongs to no client.
        net: IpNet,
        /// The ban is to end now, and to leave no history.
        end: bool,
    },
    /// `pipeban reload`
    Reload,
    /// `pipeban engine --stop`
    Stop,
}

/// The length of a ban that a person makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BanTime {
    /// The jail's bantime, without escalation.
    Jail,
    /// Seconds.
    Seconds(u64),
    /// For ever.
    ForEver,
}

/// A message of the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To a worker: the engine has the hits up to this offset.
    Welcome {
        /// [`VERSION`]
        version: u32,
        /// Offset of the last line; `None`: the stream is new.
        high_water: Option<u64>,
    },
    /// To a keeper: the configuration to match with.
    Config {
        /// Its hash.
        hash: String,
        /// JSON of [`crate::config::Config`].
        text: String,
    },
    /// To a worker of an access log: report whether these clients had a record in the last 5
    /// seconds, or have one in the next 60; at most [`MAX_WATCHED`].
    Watch {
        /// The clients.
        clients: Vec<IpAddr>,
    },
    /// To a worker: hits up to this offset are committed.
    Ack {
        /// Offset of the last line.
        offset: u64,
        /// The log lines of those hits, for `pipeban log` on a terminal.
        log_lines: Vec<String>,
    },
    /// To a command: done.
    Done {
        /// The answer as text.
        text: String,
        /// The answer with `--json`: objects, one per line.
        json: Vec<serde_json::Value>,
        /// False: the answer is no, exit status 1.
        yes: bool,
    },
    /// To [`Command::Export`].
    Bans {
        /// In the order of their networks.
        bans: Vec<Exported>,
        /// The next page has the networks after this one; `None`: there is none.
        next: Option<IpNet>,
    },
    /// To [`Command::Import`].
    Taken {
        /// The fate of each ban, in order.
        fates: Vec<Fate>,
        /// Why imported bans are not in force.
        trouble: Option<String>,
    },
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::Explain`].
    Known(Box<Known>),
    /// To [`Command::StatusPage`].
    StatusPage {
        /// In the order of their networks.
        bans: Vec<ListedBan>,
        /// The next page has the networks after this one; `None`: there is none.
        next: Option<IpNet>,
    },
    /// To a command: not done.
    Refused {
        /// Exit status: 1, 2, 64, 77 or 78.
        exit: u8,
        /// Why, and what to do.
        text: String,
    },
}
