//! The checked configuration, except for jails.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::jail::Jail;
use super::search_engines::SearchEngine;
use crate::filter::Definition;
use crate::jail_name::JailName;
use crate::problem::Problem;

/// The whole checked configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `[paths]`
    pub paths: Paths,
    /// `[firewall]`
    pub firewall: Firewall,
    /// `[syslog]`
    pub syslog: Syslog,
    /// `[store]`
    #[serde(default)]
    pub store: StoreSettings,
    /// `[metrics]`
    #[serde(default)]
    pub metrics: Metrics,
    /// `[proxies] trusted`: never banned at the firewall.
    pub trusted_proxies: Vec<IpNet>,
    /// Search engines that reverse DNS can confirm.
    #[serde(default)]
    pub search_engines: Vec<SearchEngine>,
    /// `[defaults]`: for bans by hand without `--jail`, and for `test --filter`.
    pub defaults: Jail,
    /// Every configured jail, disabled ones included.
    pub jails: BTreeMap<JailName, Jail>,
    /// The filters of enabled jails, by the name that the jail gives.
    pub filters: BTreeMap<String, Definition>,
    /// Settings that no longer have an effect, each with its replacement.
    #[serde(default)]
    pub warnings: Vec<Problem>,
}

/// `[paths]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Sockets.
    pub runtime: PathBuf,
    /// Database, last good configuration, emergency stop.
    pub state: PathBuf,
    /// Shipped jails and filters.
    pub share: PathBuf,
    /// The worker's user.
    pub user: String,
}

impl Default for Paths {
    fn default() -> Self {
        Paths {
            runtime: "/run/pipeban".into(),
            state: "/var/lib/pipeban".into(),
            share: "/usr/share/pipeban".into(),
            user: "pipeban".into(),
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

    /// Apache's deny map: a directory with one file for each banned client.
    pub fn deny_map(&self) -> PathBuf {
        self.runtime.join("deny")
    }

    /// The last known addresses of the names in `ignoreip`.
    pub fn names(&self) -> PathBuf {
        self.state.join("names.json")
    }

    /// This file exists while the emergency stop is on.
    pub fn off_file(&self) -> PathBuf {
        self.state.join("off")
    }
}

/// `[firewall]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// At least one, each once; [`Backend::DryRun`] only alone.
    pub backend: Vec<Backend>,
    /// With ufw: pipeban's nftables table enforces a ban first.
    pub instant: bool,
    /// The largest number of ufw rules that pipeban adds.
    pub max_rules: usize,
    /// False: no ufw rules, only pipeban's nftables table.
    pub mirror: bool,
    /// What pipeban's nftables table does with a banned client's packets.
    pub blocktype: Blocktype,
    /// `[firewall.command]`; present if `backend` has [`Backend::Command`].
    pub command: Option<BanCommand>,
}

impl Default for Firewall {
    fn default() -> Self {
        Firewall {
            backend: vec![Backend::Auto],
            instant: true,
            max_rules: 500,
            mirror: true,
            blocktype: Blocktype::Drop,
            command: None,
        }
    }
}

impl Firewall {
    /// Whether bans get ufw rules.
    pub fn mirrors_to_ufw(&self) -> bool {
        (self.has(Backend::Ufw) || self.has(Backend::Auto)) && self.mirror
    }

    /// Whether it is a fault that ufw is not there or not active.
    pub fn needs_ufw(&self) -> bool {
        self.has(Backend::Ufw) || (self.mirrors_to_ufw() && !self.instant)
    }

    /// Whether pipeban's nftables table enforces bans.
    pub fn has_table(&self) -> bool {
        let with_ufw = self.has(Backend::Ufw) || self.has(Backend::Auto);
        self.has(Backend::Nftables) || (with_ufw && (self.instant || !self.mirror))
    }

    /// Whether `backend` is configured.
    pub fn has(&self, backend: Backend) -> bool {
        self.backend.contains(&backend)
    }
}

/// What enforces bans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// pipeban's nftables table, mirrored as ufw rules wherever ufw is active.
    Auto,
    /// ufw rules, behind pipeban's nftables table unless `instant = false`.
    Ufw,
    /// pipeban's nftables table. A stored configuration of an earlier version can say `ipset`.
    #[serde(alias = "ipset")]
    Nftables,
    /// The deny map that Apache reads: also for clients behind a proxy.
    Apache,
    /// The administrator's program.
    Command,
    /// Decides and reports bans, and enforces none.
    DryRun,
}

impl Backend {
    pub(super) const WORDS: [(&str, Backend); 6] = [
        ("auto", Backend::Auto),
        ("ufw", Backend::Ufw),
        ("nftables", Backend::Nftables),
        ("apache", Backend::Apache),
        ("command", Backend::Command),
        ("dry-run", Backend::DryRun),
    ];
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word_of(&Backend::WORDS, *self))
    }
}

/// What happens to a banned client's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blocktype {
    /// No answer.
    Drop,
    /// tcp: a reset; else ICMP "port unreachable".
    Reject,
}

impl Blocktype {
    pub(super) const WORDS: [(&str, Blocktype); 2] =
        [("drop", Blocktype::Drop), ("reject", Blocktype::Reject)];
}

/// `[firewall.command]`: programs with arguments, with [`super::COMMAND_PLACEHOLDERS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanCommand {
    /// Runs for a ban, possibly more than once for the same ban.
    pub ban: Vec<String>,
    /// Runs when the ban ends.
    pub unban: Vec<String>,
    /// Exit status 0: the ban is in force. `None`: pipeban cannot check it.
    pub check: Option<Vec<String>>,
    /// A program that runs longer is killed. At most 5 minutes.
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
    /// The form of a line.
    pub format: SyslogFormat,
    /// Facility number (RFC 5424 section 6.2.1).
    pub facility: u8,
    /// The form of a line's text.
    #[serde(default)]
    pub log_format: LineFormat,
    /// A file that gets the same lines.
    pub log_file: Option<PathBuf>,
}

impl Default for Syslog {
    fn default() -> Syslog {
        Syslog {
            target: SyslogTarget::local(),
            format: SyslogFormat::Rfc3164,
            facility: 10,
            log_format: LineFormat::Text,
            log_file: Some("/var/log/pipeban.log".into()),
        }
    }
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSettings {
    /// How long ended bans, with their addresses, and evidence are kept; `None`: for ever, within
    /// the bounds of the store.
    pub keep: Option<Duration>,
}

impl Default for StoreSettings {
    fn default() -> StoreSettings {
        StoreSettings {
            keep: Some(Duration::from_secs(90 * 86_400)),
        }
    }
}

/// A syslog daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogTarget {
    /// A socket on this host: `/dev/log` for `"local"`, else the path of `unix:PATH`.
    Unix(PathBuf),
    /// `udp://ADDRESS:PORT` (RFC 5426). An address, because logging must not wait for a resolver.
    Udp(SocketAddr),
    /// No daemon.
    None,
}

impl SyslogTarget {
    /// The socket that syslog(3) writes to.
    pub fn local() -> SyslogTarget {
        SyslogTarget::Unix("/dev/log".into())
    }
}

/// `[metrics]`: where they are served; both `None`: nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// A unix socket.
    pub socket: Option<PathBuf>,
    /// A TCP port.
    pub listen: Option<SocketAddr>,
}

/// What a log line consists of, in syslog and in the log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineFormat {
    /// Fail2ban's words.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

impl LineFormat {
    pub(super) const WORDS: [(&str, LineFormat); 2] =
        [("text", LineFormat::Text), ("json", LineFormat::Json)];
}

/// The form of a syslog line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogFormat {
    /// `Nov 22 11:00:33 pipeban[1]: text`: for `/dev/log`.
    Rfc3164,
    /// With version, host and structured data.
    Rfc5424,
}

impl SyslogFormat {
    pub(super) const WORDS: [(&str, SyslogFormat); 2] = [
        ("rfc3164", SyslogFormat::Rfc3164),
        ("rfc5424", SyslogFormat::Rfc5424),
    ];
}

/// The word for `value` in a table that has every value.
pub(super) fn word_of<V: Copy + PartialEq>(words: &[(&'static str, V)], value: V) -> &'static str {
    let found = words.iter().find(|(_, known)| *known == value);
    found.map_or("", |(word, _)| word)
}
