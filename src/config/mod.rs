//! Text into checked configuration.
//!
//! A value of [`Config`] has been checked: an invalid jail cannot be expressed. It is also what
//! travels, as JSON, from the engine to keepers and workers and into the state directory as the
//! last good configuration.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::filter::Definition;
use crate::record::Kind;

/// Default place of the administrator's configuration.
pub const DEFAULT_FILE: &str = "/etc/pipeban/pipeban.toml";

/// The whole checked configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `[paths]`
    pub paths: Paths,
    /// `[firewall]`
    pub firewall: Firewall,
    /// `[syslog]`
    pub syslog: Syslog,
    /// `[proxies] trusted`: never banned at the firewall.
    pub trusted_proxies: Vec<IpNet>,
    /// `[defaults]`, as a jail: what a manual ban without `--jail` uses, and `test --filter`.
    pub defaults: Jail,
    /// Every jail that is configured, also disabled ones, by name.
    pub jails: BTreeMap<JailName, Jail>,
    /// The filters that jails name, by name.
    pub filters: BTreeMap<String, Definition>,
}

/// `[paths]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Sockets. Default `/run/pipeban`.
    pub runtime: PathBuf,
    /// Database, last good configuration, emergency stop. Default `/var/lib/pipeban`.
    pub state: PathBuf,
    /// Shipped jails and filters. Default `/usr/share/pipeban`.
    pub share: PathBuf,
    /// The worker's user. Default `pipeban`.
    pub user: String,
    /// Where logins are recorded. Default `/var/log/wtmp`.
    #[serde(default = "wtmp")]
    pub wtmp: PathBuf,
}

fn wtmp() -> PathBuf {
    "/var/log/wtmp".into()
}

impl Default for Paths {
    fn default() -> Self {
        Paths {
            runtime: "/run/pipeban".into(),
            state: "/var/lib/pipeban".into(),
            share: "/usr/share/pipeban".into(),
            user: "pipeban".into(),
            wtmp: wtmp(),
        }
    }
}

impl Paths {
    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("engine.sock")
    }

    /// The last accepted configuration, as JSON of [`Config`].
    pub fn last_good(&self) -> PathBuf {
        self.state.join("last-good.json")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.state.join("pipeban.sqlite3")
    }

    /// Apache's deny map: a directory with a name for each banned client.
    pub fn deny_map(&self) -> PathBuf {
        self.runtime.join("deny")
    }

    /// What names of `ignoreip` stood for last.
    pub fn names(&self) -> PathBuf {
        self.state.join("names.json")
    }

    /// Present while the emergency stop is on.
    pub fn off_file(&self) -> PathBuf {
        self.state.join("off")
    }
}

/// `[firewall]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// What enforces bans: one or more, each once; a dry run stands alone. Default ufw.
    pub backend: Vec<Backend>,
    /// With ufw: an own nftables table puts a ban in force first. Default true.
    pub instant: bool,
    /// Most mirrored ufw rules. Default 500.
    pub max_rules: usize,
    /// False: no ufw rules, the own table alone. Default true.
    pub mirror: bool,
    /// What a banned client's packets meet in the own table and with ipset. Default drop.
    pub blocktype: Blocktype,
    /// `[firewall.command]`; there when `backend` names it.
    pub command: Option<BanCommand>,
}

impl Default for Firewall {
    fn default() -> Self {
        Firewall {
            backend: vec![Backend::Ufw],
            instant: true,
            max_rules: 500,
            mirror: true,
            blocktype: Blocktype::Drop,
            command: None,
        }
    }
}

impl Firewall {
    /// Whether this back end is among those configured.
    pub fn has(&self, backend: Backend) -> bool {
        self.backend.contains(&backend)
    }
}

/// What enforces bans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// ufw rules, with the own nftables table in front unless `instant = false`.
    Ufw,
    /// The own nftables table.
    Nftables,
    /// ipset's sets, and iptables rules that ask them.
    Ipset,
    /// The deny map that Apache itself asks: also for clients behind a proxy.
    Apache,
    /// A program of the administrator's.
    Command,
    /// Nothing is touched; everything else happens.
    DryRun,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Backend::Ufw => "ufw",
            Backend::Nftables => "nftables",
            Backend::Ipset => "ipset",
            Backend::Apache => "apache",
            Backend::Command => "command",
            Backend::DryRun => "dry-run",
        })
    }
}

/// What becomes of a banned client's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blocktype {
    /// No answer.
    Drop,
    /// tcp: a reset; else ICMP "port unreachable".
    Reject,
}

/// `[firewall.command]`: programs with their arguments, in which `{host}` and the like are put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanCommand {
    /// Run for a ban, also again for the same one.
    pub ban: Vec<String>,
    /// Run when it ends.
    pub unban: Vec<String>,
    /// Exit status 0: the ban is in force. `None`: nobody can tell.
    pub check: Option<Vec<String>>,
    /// A program that runs longer is killed. Default 10 s, at most 5 minutes.
    pub timeout: Duration,
}

impl Default for BanCommand {
    fn default() -> Self {
        BanCommand {
            ban: Vec::new(),
            unban: Vec::new(),
            check: None,
            timeout: Duration::from_secs(10),
        }
    }
}

/// `[syslog]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syslog {
    /// Where lines go.
    pub target: SyslogTarget,
    /// How they are written.
    pub format: SyslogFormat,
    /// Facility number (RFC 5424 section 6.2.1); authpriv is 10.
    pub facility: u8,
    /// The same lines also go here. Default `/var/log/pipeban.log`; `None`: not.
    pub log_file: Option<PathBuf>,
}

impl Default for Syslog {
    fn default() -> Syslog {
        Syslog {
            target: SyslogTarget::local(),
            format: SyslogFormat::Rfc3164,
            facility: 10,
            log_file: Some("/var/log/pipeban.log".into()),
        }
    }
}

/// A syslog daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogTarget {
    /// On this host: `/dev/log` by default (`target = "local"`), else the path of `unix:PATH`.
    Unix(PathBuf),
    /// `udp://ADDRESS:PORT` (RFC 5426): no name, as nobody waits for a resolver.
    Udp(SocketAddr),
}

impl SyslogTarget {
    /// What glibc's syslog(3) writes to.
    pub fn local() -> SyslogTarget {
        SyslogTarget::Unix("/dev/log".into())
    }
}

/// The form of a syslog line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogFormat {
    /// What journald and rsyslog expect on `/dev/log`.
    Rfc3164,
    /// For targets that parse it.
    Rfc5424,
}

/// `[A-Za-z0-9_.-]{1,64}`: safe in a ufw comment, a log line and a path. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JailName(Arc<str>);

impl JailName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JailName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(JailName(name.into()))
        } else {
            Err(format!(
                "`{}` is no jail name: 1 to 64 of A-Z a-z 0-9 _ . -",
                name.escape_debug()
            ))
        }
    }
}

impl From<JailName> for String {
    fn from(name: JailName) -> String {
        name.0.to_string()
    }
}

impl std::str::FromStr for JailName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        name.to_owned().try_into()
    }
}

impl std::fmt::Display for JailName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A jail: which lines count, how many are too many, what a ban closes and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Jail {
    /// False: not matched at all.
    pub enabled: bool,
    /// False: counted and told as "Would Ban", nothing reaches a firewall.
    pub enforce: bool,
    /// What feeds it.
    pub log: Log,
    /// Key into [`Config::filters`]; empty with [`Log::Bans`].
    pub filter: String,
    /// Weight that bans, 1 or more.
    pub maxretry: u32,
    /// Window in which hits count.
    pub findtime: Duration,
    /// `None`: for ever (`bantime = -1`).
    pub bantime: Option<Duration>,
    /// What a ban closes.
    pub port: Ports,
    /// Never counted, never banned.
    pub ignoreip: Vec<IpNet>,
    /// Nor what stands in these files (`ignoreip` too).
    #[serde(default)]
    pub ignore_files: Vec<PathBuf>,
    /// Nor what these names stand for (`ignoreip` too), in lower case.
    #[serde(default)]
    pub ignore_names: Vec<String>,
    /// Whether this host's addresses, gateways and name servers are never banned; loopback never
    /// is. Default true.
    #[serde(default = "yes")]
    pub ignoreself: bool,
    /// Nobody is banned from where somebody logged in by ssh within this time. `None`: not asked.
    #[serde(default)]
    pub ignore_ssh_logins: Option<Duration>,
    /// IPv4 clients are counted and banned by this prefix, 16 to 32. Default 32.
    #[serde(default = "single_v4")]
    pub ipv4_prefix: u8,
    /// IPv6 clients are counted and banned by this prefix, 48 to 128. Default 64.
    pub ipv6_prefix: u8,
    /// Whether private and carrier ranges may be banned. Default false.
    pub ban_private: bool,
    /// What one hit counts. Default 1.
    pub weight: u32,
    /// More bans in a minute are an alarm, and told by their number. Default 300.
    #[serde(default = "most_bans")]
    pub bans_per_minute: u32,
    /// Only these virtual hosts (`*` matches any text). Empty: all.
    pub vhost: Vec<String>,
    /// Not these virtual hosts.
    pub not_vhost: Vec<String>,
    /// Escalation, off when `None`.
    pub increment: Option<Increment>,
    /// Programs that are told of bans.
    #[serde(default)]
    pub hooks: Hooks,
}

fn yes() -> bool {
    true
}

fn single_v4() -> u8 {
    32
}

fn most_bans() -> u32 {
    300
}

/// Programs with their arguments, in which [`HOOK_PLACEHOLDERS`] are put: told of a jail's bans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Run for each new ban. Empty: nothing is.
    pub on_ban: Vec<String>,
    /// Run when a ban is over or lifted. Empty: nothing is.
    pub on_unban: Vec<String>,
    /// A program that runs longer is killed (`hook_timeout`). Default 30 s, at most 5 minutes.
    pub timeout: Duration,
}

impl Hooks {
    /// Those that there are, by their keys.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let both = [("on_ban", &self.on_ban), ("on_unban", &self.on_unban)];
        let named = both.into_iter().filter(|(_, argv)| !argv.is_empty());
        named.map(|(key, argv)| (key, argv.as_slice()))
    }
}

impl Default for Hooks {
    fn default() -> Hooks {
        Hooks {
            on_ban: Vec::new(),
            on_unban: Vec::new(),
            timeout: Duration::from_secs(30),
        }
    }
}

/// What feeds a jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// Access lines.
    Access,
    /// Error lines.
    Error,
    /// Bans that other jails make: what fail2ban's recidive reads from its own log.
    Bans,
}

impl Log {
    /// The kind of lines; `None`: it reads none.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Log::Access => Some(Kind::Access),
            Log::Error => Some(Kind::Error),
            Log::Bans => None,
        }
    }
}

impl PartialEq<Kind> for Log {
    fn eq(&self, kind: &Kind) -> bool {
        self.kind() == Some(*kind)
    }
}

impl From<Kind> for Log {
    fn from(kind: Kind) -> Log {
        match kind {
            Kind::Access => Log::Access,
            Kind::Error => Log::Error,
        }
    }
}

impl std::fmt::Display for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Log::Access => "access",
            Log::Error => "error",
            Log::Bans => "bans",
        })
    }
}

/// Escalation of repeated bans. The first ban has the jail's bantime; the ban after n earlier ones
/// within `memory` has bantime times `factor` to the power of n, or, with `multipliers`, times
/// `factor` times their n-th (from 0; the last one goes on).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Increment {
    /// 1 or more. `None`: 2, with multipliers 1.
    pub factor: Option<f64>,
    /// Empty: powers of the factor.
    #[serde(default)]
    pub multipliers: Vec<u32>,
    /// No ban gets longer than this, but for `rndtime`.
    pub maxtime: Duration,
    /// Up to so much is added to each repeated ban, so that nobody knows when it ends.
    #[serde(default)]
    pub rndtime: Duration,
    /// Bans by every jail count.
    #[serde(default)]
    pub overalljails: bool,
    /// Bans older than this are forgotten.
    pub memory: Duration,
}

/// Local ports that a ban closes to the client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    /// Every port but sshd's.
    AllButSsh,
    /// Every port, sshd's too (`"all"` and `"ssh"` both named).
    All,
    /// These. `http` is tcp 80; `https` is tcp 443 and udp 443; `ssh` is tcp 22; a number is tcp.
    List {
        /// tcp ports, at most 15 (iptables' multiport limit).
        tcp: BTreeSet<u16>,
        /// udp ports.
        udp: BTreeSet<u16>,
    },
}

pub mod duration;

mod argv;
mod backends;
mod document;
mod load;
mod merge;
mod networks;
mod schema;
mod show;
mod words;

pub use argv::{COMMAND_PLACEHOLDERS, HOOK_PLACEHOLDERS, fill};
pub use load::{
    OnDisk, Problem, filter_directories, load, load_with_origins, networks_in, paths_of,
};
pub use merge::{MANUAL_JAIL, Origin, Origins};
pub use show::show_jail;

/// The keys of a jail and of `[defaults]`, in the order in which they are shown.
pub fn jail_keys() -> impl Iterator<Item = &'static str> {
    schema::JAIL.iter().map(|key| key.name)
}
