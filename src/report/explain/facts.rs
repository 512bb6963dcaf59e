//! What is known about a client. Facts decide nothing.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::{JailName, Ports};
use crate::host_commands::HostCommands;
use crate::jail::{Cause, Reason};
use crate::record::Kind;

/// What is known about a client or network.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The client or network.
    pub host: IpNet,
    /// When it was asked.
    pub now: Timestamp,
    /// The zone in which times are shown.
    pub zone: TimeZone,
    /// What an administrator types on this host.
    pub commands: HostCommands,
    /// Whether an engine runs.
    pub engine: Engine,
    /// Why the database could not be read.
    pub database: Option<String>,
    /// The emergency stop.
    pub off: Option<Off>,
    /// The back end is `dry-run`.
    pub dry_run: bool,
    /// Active bans, the one that ends last first.
    pub bans: Vec<BanFact>,
    /// Ended bans, the latest first.
    pub past: Vec<BanFact>,
    /// What jails count now.
    pub counters: Vec<CounterFact>,
    /// Which enabled jails may not ban it.
    pub exempt: Vec<ExemptFact>,
    /// Every enabled jail.
    pub enabled: Vec<JailName>,
    /// What reverse DNS says, where its user agent names a search engine.
    pub crawler: Option<CrawlerFact>,
    /// Many browsers use the address.
    pub shared: bool,
    /// ufw on this host.
    pub ufw: UfwFact,
    /// pipeban's own table enforces bans.
    pub table: bool,
    /// `[firewall] max_rules`
    pub max_rules: usize,
    /// Ports that Apache listens on, as far as they are known.
    pub apache_ports: Vec<u16>,
    /// Logs that Apache writes past pipeban and that cannot be read either: what they are, and where
    /// that is set.
    pub unpiped: Vec<String>,
    /// Connected workers; empty where the engine gave no answer.
    pub workers: Vec<WorkerFact>,
    /// Its lines in logs.
    pub logs: Vec<LogFact>,
}

/// A client whose user agent names a search engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrawlerFact {
    /// The search engine.
    pub engine: String,
    /// Whether reverse DNS confirms it; `None`: no answer.
    pub confirmed: Option<bool>,
    /// The client's name where that confirms it, else why not.
    pub text: String,
    /// When it was looked up.
    pub at: Timestamp,
}

/// Whether an engine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// It answered.
    Running,
    /// It did not answer: what to say about it.
    Silent(String),
    /// None runs.
    Stopped,
}

/// The emergency stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Off {
    /// When it began.
    pub since: Timestamp,
    /// `None`: at `pipeban on`.
    pub until: Option<Timestamp>,
}

/// A ban, active or ended.
#[derive(Debug, Clone, PartialEq)]
pub struct BanFact {
    /// Its id.
    pub id: String,
    /// The jail.
    pub jail: JailName,
    /// The banned client or network.
    pub net: IpNet,
    /// The closed ports.
    pub ports: Ports,
    /// When it began.
    pub since: Timestamp,
    /// `None`: for ever.
    pub until: Option<Timestamp>,
    /// Weight that led to it.
    pub failures: u32,
    /// Time in which that weight arrived.
    pub within: Duration,
    /// Why it exists.
    pub cause: Cause,
    /// `enforce = false`.
    pub observed: bool,
    /// The proxy that the client is behind.
    pub behind: Option<IpAddr>,
    /// When it ended, and the word of the end; `None`: it is active.
    pub ended: Option<(Timestamp, String)>,
    /// The lines that led to it.
    pub lines: Vec<(Timestamp, String)>,
    /// Apache answered 200 to an attack that led to it.
    pub answered: bool,
    /// What the engine says; `None`: nothing.
    pub in_force: Option<bool>,
    /// The state of its ufw rule, as the engine says.
    pub ufw: Option<String>,
    /// What each back end says.
    pub backends: Vec<BackendFact>,
    /// The port and the earlier rule of iptables that accepts.
    pub accepted: Option<(u16, String)>,
    /// The port and the rule that forwards it.
    pub forwarded: Option<(u16, String)>,
}

/// What a back end says about a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendFact {
    /// Its name.
    pub name: String,
    /// `None`: it cannot be found out.
    pub in_force: Option<bool>,
    /// Why not.
    pub trouble: Option<String>,
}

/// What a jail counts now.
#[derive(Debug, Clone, PartialEq)]
pub struct CounterFact {
    /// The jail.
    pub jail: JailName,
    /// The client, by the jail's prefix.
    pub net: IpNet,
    /// Arrival and weight of each hit in the window, oldest first.
    pub hits: Vec<(Timestamp, u32)>,
    /// Weight that leads to a ban.
    pub maxretry: u32,
    /// Length of the window.
    pub findtime: Duration,
    /// `enforce`
    pub enforce: bool,
}

/// Why a jail may not ban it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExemptFact {
    /// The jail.
    pub jail: JailName,
    /// Why.
    pub reason: Reason,
    /// Where the entry is written.
    pub place: Option<String>,
}

/// ufw, and what the configuration wants of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UfwFact {
    /// pipeban makes ufw rules.
    pub used: bool,
    /// The program exists.
    pub installed: bool,
    /// `ufw enable` was run.
    pub enabled: bool,
    /// `IPV6=yes`
    pub ipv6: bool,
}

/// A connected worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerFact {
    /// Its log.
    pub log: String,
    /// Whether it matches lines.
    pub matching: bool,
    /// Lines that it passed on unmatched.
    pub shed: u64,
    /// Hits that it could not send.
    pub unsent: u64,
}

/// How the lines of a log get to pipeban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A worker writes it.
    Worker,
    /// Apache's configuration pipes it, and no worker is connected.
    Configured,
    /// Apache writes it past pipeban.
    Unpiped,
    /// The command line names it.
    Given,
    /// A line on the command line.
    Line,
}

/// The lines of a client in a log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFact {
    /// The file.
    pub name: String,
    /// Kind of lines.
    pub kind: Kind,
    /// How its lines get to pipeban.
    pub origin: Origin,
    /// Why it cannot be read.
    pub trouble: Option<String>,
    /// Bytes before the part that was read.
    pub skipped: u64,
    /// Lines of the client.
    pub lines: u64,
    /// Time of the last one.
    pub last: Option<Timestamp>,
    /// Of these: lines with a hit.
    pub matched: u64,
    /// Lines with the address that are not of the log's format, and why.
    pub unparsed: Option<(u64, String)>,
    /// Hits by jail.
    pub hits: Vec<HitFact>,
    /// Why lines without a hit have none: the last of each kind.
    pub misses: Vec<MissFact>,
    /// The last lines, with the jails that match.
    pub evidence: Vec<(Option<Timestamp>, String, Vec<String>)>,
}

/// What a jail makes of the lines in a log.
#[derive(Debug, Clone, PartialEq)]
pub struct HitFact {
    /// The jail.
    pub jail: JailName,
    /// Lines that hit.
    pub lines: u64,
    /// The pattern of the last one, with its place.
    pub pattern: String,
    /// Time of the last one.
    pub last: Option<Timestamp>,
    /// The most weight in one window.
    pub most: u32,
    /// Weight that leads to a ban, for this client.
    pub maxretry: u32,
    /// All weight.
    pub weight: u32,
    /// Length of the window.
    pub findtime: Duration,
    /// When the jail would have banned.
    pub banned: Option<Timestamp>,
    /// Of the lines: a header named the client, and any client may have sent that.
    pub forged: u64,
    /// It was spared as a shared address.
    pub spared: bool,
    /// `enforce`
    pub enforce: bool,
}

/// Why a line has no hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissFact {
    /// Lines.
    pub lines: u64,
    /// The last of them, escaped.
    pub line: String,
    /// Why.
    pub why: Why,
}

/// Why a line has no hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The pattern matches with another address.
    Spoof {
        /// The jail.
        jail: JailName,
        /// Apache's client, and the address that the pattern found.
        client: Option<IpAddr>,
        /// The address or name that the pattern found.
        named: Option<String>,
    },
    /// The jail is for other virtual hosts.
    Vhost {
        /// The jail.
        jail: JailName,
        /// The line's virtual host.
        vhost: Option<String>,
    },
    /// An `ignoreregex` matches too, or an `[[except]]` of the jail.
    Ignored {
        /// The jail.
        jail: JailName,
        /// Which of these.
        by: &'static str,
        /// Its number.
        number: u32,
    },
    /// A disabled jail would match.
    Disabled {
        /// The jail.
        jail: JailName,
        /// Where `enabled` is set.
        place: Option<String>,
    },
    /// A jail of the other log would match.
    OtherLog {
        /// The jail.
        jail: JailName,
        /// What it reads.
        reads: Kind,
    },
    /// A jail in the files on disk would match.
    NotReloaded {
        /// The jail.
        jail: JailName,
    },
    /// No pattern matches; how far the closest one does.
    Near(Option<String>),
}
