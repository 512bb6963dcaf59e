//! The messages between worker, keeper, engine and commands: one JSON object per line over the
//! engine's unix socket. Types here are for the wire only.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::JailName;
use crate::filter::PatternAt;
use crate::record::{Kind, display};

mod client;
mod frame;
mod transfer;

pub use client::{AskError, ask};
pub use frame::{Lines, TooLong, encode};
pub use transfer::{Exported, Fate, Offered, Until};

/// Version of this protocol. An engine refuses another one, and says so; lines still pass.
pub const VERSION: u32 = 1;

/// Longest message a worker may send, in bytes with its newline; more ends the connection.
pub const MAX_WORKER_MESSAGE: usize = 256 * 1024;

/// Patterns in one [`Request::Undecided`]; the others come with the next.
pub const MAX_UNDECIDED: usize = 20;

/// Names a configuration: the first 16 hex digits of the SHA-256 of its JSON.
pub fn config_hash(text: impl AsRef<[u8]>) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(text);
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// What is said to the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// First message of a worker. Answer: [`Reply::Welcome`].
    Worker(WorkerHello),
    /// First message of a keeper (uid 0). Answer: [`Reply::Config`], again at every reload.
    Keeper {
        /// [`VERSION`]
        version: u32,
    },
    /// Hits of a worker, in stream order. Answer, when committed: [`Reply::Ack`]; one for several
    /// messages that came together.
    Hits(Vec<LineHit>),
    /// A worker's counters, about once a second while they change.
    Counters(Counters),
    /// How a worker reads its lines, when that changes.
    Reading(Reading),
    /// With the counters: the filter that takes most of a worker's time.
    Slowest(SlowestFilter),
    /// Patterns of a worker that gave up on lines since it last said so, in the order of the
    /// configuration; at most once a second, at most [`MAX_UNDECIDED`].
    Undecided(Vec<Undecided>),
    /// A worker saw enough good requests by different browsers from one address (`shared`).
    Shared {
        /// Whose.
        addr: IpAddr,
    },
    /// First and only message of a command.
    Command(Command),
}

/// Who a worker is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerHello {
    /// [`VERSION`]
    pub version: u32,
    /// Names the pipe (the keeper drew it at random); a worker started again has the same.
    pub stream: u64,
    /// Process id of the worker.
    pub pid: u32,
    /// Which log.
    pub kind: Kind,
    /// Where lines are written; `None` when they only feed the matcher.
    pub path: Option<PathBuf>,
    /// Hash of the configuration the worker matches with; `None`: it only passes lines through.
    pub config: Option<String>,
}

/// All that one line hit. Identified by (stream, offset): the same line sent again counts once.
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
    /// The jails whose filter matched, with the pattern's number.
    pub jails: Vec<(JailName, u32)>,
    /// Hash of the configuration that matched.
    pub config: String,
    /// The line, escaped for display and cut.
    pub evidence: String,
}

/// A pattern that a bound on steps or length kept from an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undecided {
    /// The filter, as jails name it.
    pub filter: String,
    /// Which of its patterns.
    pub pattern: PatternAt,
    /// How often.
    pub times: u64,
}

/// A worker's counters since Apache started its pipe; a worker that is started again goes on with
/// them. At any moment, also in the middle of a load,
///
/// - `lines = lines_written + lines_lost + lines_waiting` and
///   `bytes = written + lost + waiting`, where the log has a path;
/// - `lines = matched + unparsed + torn + shed + pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Lines read from the pipe. A line counts when its end is there.
    pub lines: u64,
    /// Bytes read from the pipe.
    pub bytes: u64,
    /// Lines written to the log file.
    pub lines_written: u64,
    /// Bytes written to the log file.
    pub written: u64,
    /// Lines that could not be written and were given up.
    pub lines_lost: u64,
    /// Bytes that could not be written and were given up.
    pub lost: u64,
    /// Lines that wait to be written.
    pub lines_waiting: u64,
    /// Bytes that wait to be written.
    pub waiting: u64,
    /// Lines that the filters saw, whatever came of it.
    pub matched: u64,
    /// Lines no parser understood.
    pub unparsed: u64,
    /// Lines that are too long to be matched.
    pub torn: u64,
    /// Lines that were not matched: matching was behind, had crashed on them, or is off.
    pub shed: u64,
    /// Lines that wait to be matched.
    pub pending: u64,
    /// Of the matched: only with an address that is not Apache's client field.
    pub spoofed: u64,
    /// Of the matched: lines that hit.
    pub hits: u64,
    /// Of the hits: given up, because the engine did not answer.
    pub unsent: u64,
    /// Times a pattern that looks around or back gave up on a line: such a line hits nobody.
    pub undecided: u64,
    /// Times the worker was started again.
    pub restarts: u64,
    /// Whether lines are matched at all (false: crash loop or no configuration).
    pub matching: bool,
}

/// Unread lines that are kept as examples.
pub const MAX_UNREAD: usize = 3;

/// How a worker reads its lines.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reading {
    /// The name of the format, or its string; `None`: no line has decided yet.
    #[serde(default)]
    pub format: Option<String>,
    /// Why no line of this format can ban anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
    /// The last of those that no parser understood, at most [`MAX_UNREAD`].
    #[serde(default)]
    pub unparsed_lines: Vec<Unread>,
}

/// A line that no parser understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Its number among the lines that this worker was given to match, from 1.
    pub line: u64,
    /// Its first bytes, escaped for display.
    pub begins: String,
    /// What is wrong with it.
    pub why: String,
}

impl Reading {
    /// Cut to what an honest worker sends, and escaped anew.
    pub fn bounded(mut self) -> Reading {
        let cut = |text: &mut String, most| *text = display(text.as_bytes(), most);
        self.unparsed_lines.truncate(MAX_UNREAD);
        for unread in &mut self.unparsed_lines {
            cut(&mut unread.begins, 200);
            cut(&mut unread.why, 200);
        }
        for text in [&mut self.format, &mut self.doubt].into_iter().flatten() {
            cut(text, 1000);
        }
        self
    }
}

/// The filter that takes most of a worker's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowestFilter {
    /// Its name.
    pub filter: String,
    /// Percent of the time of all filters.
    pub share: u64,
    /// Nanoseconds for one line that it looked at.
    pub nanos: u64,
}

/// What a person asks for. Answer: [`Reply::Done`] or [`Reply::Refused`], where nothing else is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// `pipeban status [JAIL]`
    Status {
        /// Only this jail.
        jail: Option<JailName>,
    },
    /// `pipeban ban ADDR`
    Ban {
        /// Whom.
        net: IpNet,
        /// On whose behalf; `None`: jail `manual`, with `[defaults]`.
        jail: Option<JailName>,
        /// How long.
        bantime: BanTime,
        /// Shown in history.
        reason: Option<String>,
    },
    /// `pipeban unban ADDR|--all`
    Unban {
        /// `None`: all.
        net: Option<IpNet>,
        /// The one ban of this name instead, like `b17`.
        #[serde(default)]
        id: Option<String>,
        /// Only this jail's bans.
        jail: Option<JailName>,
        /// Take the ban out of its history too.
        forget: bool,
    },
    /// `pipeban allow ADDR`
    Allow {
        /// Whom.
        net: IpNet,
        /// Seconds; `None`: for ever.
        seconds: Option<u64>,
        /// Shown by `allow --list`.
        reason: Option<String>,
    },
    /// `pipeban disallow ADDR`
    Disallow {
        /// Whom.
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
        /// Only those of networks behind this one; `None`: the first page.
        after: Option<IpNet>,
    },
    /// `pipeban import`, some of it. Answer: [`Reply::Taken`].
    Import {
        /// The jail that all are given to; nothing is done where there is none of that name.
        jail: Option<JailName>,
        /// The bans, each with the jail it goes to.
        bans: Vec<Offered>,
    },
    /// `pipeban reload`
    Reload,
    /// `pipeban engine --stop`
    Stop,
}

/// How long a ban by hand lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BanTime {
    /// The jail's bantime, without escalation.
    Jail,
    /// So many seconds.
    Seconds(u64),
    /// For ever.
    ForEver,
}

/// What the engine says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To a worker: hits up to and with this offset are known already.
    Welcome {
        /// [`VERSION`]
        version: u32,
        /// High-water mark of the worker's stream.
        high_water: Option<u64>,
    },
    /// To a keeper: match with this.
    Config {
        /// Names it.
        hash: String,
        /// JSON of [`crate::config::Config`].
        text: String,
    },
    /// To a worker: counters and high-water mark are committed up to and with this offset.
    Ack {
        /// Offset of the last line.
        offset: u64,
        /// What came of those hits, one log line each, for a rehearsal by hand.
        told: Vec<String>,
    },
    /// To a command: done.
    Done {
        /// For people.
        text: String,
        /// With `--json`: objects to print, one a line.
        json: Vec<serde_json::Value>,
        /// False: exit status 1, the answer is no.
        yes: bool,
    },
    /// To [`Command::Export`].
    Bans {
        /// In the order of their networks.
        bans: Vec<Exported>,
        /// Behind which network the next page begins; `None`: there is none.
        next: Option<IpNet>,
    },
    /// To [`Command::Import`].
    Taken {
        /// Of each ban, in order.
        fates: Vec<Fate>,
        /// Why some of them are not in force, though they are kept.
        trouble: Option<String>,
    },
    /// To `pipeban status`.
    Status(Box<Status>),
    /// To a command: not done.
    Refused {
        /// Exit status: 1, 2, 64, 77 or 78.
        exit: u8,
        /// Why, and what to do.
        text: String,
    },
}

/// `pipeban status`. Printed as JSON as it stands (see the man page for the contract).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The engine.
    pub engine: EngineStatus,
    /// Connected workers.
    pub workers: Vec<WorkerStatus>,
    /// Jails.
    pub jails: Vec<JailStatus>,
    /// What is wrong now, each with what to do; also told to syslog.
    pub warnings: Vec<String>,
}

/// The engine itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Process id.
    pub pid: u32,
    /// Since when.
    pub since: Timestamp,
    /// Program version.
    pub version: String,
    /// Hash of the configuration in use.
    pub config: String,
    /// Back end.
    pub backend: String,
    /// Emergency stop on; `None`: off is not on.
    pub off: Option<OffStatus>,
}

/// The emergency stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OffStatus {
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: until `pipeban on`.
    pub until: Option<Timestamp>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Process id.
    pub pid: u32,
    /// Which log.
    pub kind: Kind,
    /// Where lines go.
    pub path: Option<PathBuf>,
    /// Counters.
    #[serde(flatten)]
    pub counters: Counters,
    /// How it reads lines.
    #[serde(flatten)]
    pub reading: Reading,
    /// The filter that takes most of its time; `None` while too little is known.
    #[serde(default)]
    pub slowest: Option<SlowestFilter>,
}

/// One jail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailStatus {
    /// Name.
    pub name: JailName,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether its bans reach a firewall.
    pub enforce: bool,
    /// Clients with hits in the window.
    pub currently_failed: u64,
    /// Hits ever.
    pub total_failed: u64,
    /// Bans now.
    pub currently_banned: u64,
    /// Bans ever.
    pub total_banned: u64,
    /// The bans now.
    pub banned: Vec<BanStatus>,
    /// With `enforce = false`: who would be banned now.
    pub observed: Vec<BanStatus>,
}

/// One ban.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BanStatus {
    /// Its short name, like `b17`.
    #[serde(default)]
    pub id: String,
    /// An address, or a network where more than one is banned.
    pub host: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: for ever.
    pub until: Option<Timestamp>,
    /// What the firewall says; `None`: it cannot be told.
    pub in_force: Option<bool>,
    /// With ufw: `present`, `queued`, `capped`, `short`, `removed`, `inactive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ufw: Option<String>,
    /// The peer the client stands behind: the firewall cannot keep it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<IpAddr>,
    /// What the operator said, or the shared-address rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
