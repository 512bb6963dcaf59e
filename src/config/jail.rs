//! A jail: which lines count, how many are too many, what a ban closes and for how long.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::settings::word_of;
use crate::record::Kind;

/// The settings of a jail. A key that a stored configuration lacks has its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Jail {
    /// False: its lines are not matched.
    pub enabled: bool,
    /// False: bans are decided and reported as "Would Ban", and not enforced.
    pub enforce: bool,
    /// The log it reads.
    pub log: Log,
    /// Key into [`super::Config::filters`]; empty with [`Log::Bans`].
    pub filter: String,
    /// Weight of hits that leads to a ban, 1 or more.
    pub maxretry: u32,
    /// Hits count for this long.
    pub findtime: Duration,
    /// `None`: permanent (`bantime = -1`).
    pub bantime: Option<Duration>,
    /// Ports that a ban closes.
    pub port: Ports,
    /// Networks in `ignoreip`: never counted, never banned.
    pub ignoreip: Vec<IpNet>,
    /// Files in `ignoreip`.
    pub ignore_files: Vec<PathBuf>,
    /// Host names in `ignoreip`, in lower case.
    pub ignore_names: Vec<String>,
    /// The host's addresses, gateways and name servers are never banned. Loopback never is.
    pub ignoreself: bool,
    /// IPv4 clients are counted and banned by this prefix, 16 to 32.
    pub ipv4_prefix: u8,
    /// IPv6 clients are counted and banned by this prefix, 48 to 128.
    pub ipv6_prefix: u8,
    /// Private and carrier ranges can be banned.
    pub ban_private: bool,
    /// Weight of one hit.
    pub weight: u32,
    /// More bans in one minute raise an alarm, and are logged as a number only.
    pub bans_per_minute: u32,
    /// Only these virtual hosts (`*` matches any text). Empty: all.
    pub vhost: Vec<String>,
    /// Not these virtual hosts.
    pub not_vhost: Vec<String>,
    /// Paths to which nothing links: one request for one is a ban. Takes the place of a filter.
    pub trap: Vec<String>,
    /// The jail's `[[except]]` as the text of a native filter: what they match is no hit. Empty: none.
    pub except: String,
    /// What a jail does about clients that say that they are a search engine.
    pub search_engines: SearchEngines,
    /// `None`: repeated bans do not grow.
    pub increment: Option<Increment>,
    /// Programs that run at a ban.
    pub hooks: Hooks,
}

impl Default for Jail {
    fn default() -> Jail {
        let loopback = [
            Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8).map(IpNet::V4),
            Ipv6Net::new(Ipv6Addr::LOCALHOST, 128).map(IpNet::V6),
        ];
        Jail {
            enabled: true,
            enforce: true,
            log: Log::Access,
            filter: String::new(),
            maxretry: 5,
            findtime: Duration::from_secs(600),
            bantime: Some(Duration::from_secs(3_600)),
            port: Ports::Apache,
            ignoreip: loopback.into_iter().flatten().collect(),
            ignore_files: Vec::new(),
            ignore_names: Vec::new(),
            ignoreself: true,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            ban_private: false,
            weight: 1,
            bans_per_minute: 300,
            vhost: Vec::new(),
            not_vhost: Vec::new(),
            trap: Vec::new(),
            except: String::new(),
            search_engines: SearchEngines::Spare,
            increment: None,
            hooks: Hooks::default(),
        }
    }
}

/// Programs with arguments, with [`super::HOOK_PLACEHOLDERS`]. Empty: no program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Runs for each new ban.
    pub on_ban: Vec<String>,
    /// Runs when a ban ends or is lifted.
    pub on_unban: Vec<String>,
    /// `hook_timeout`: a program that runs longer is killed. At most 5 minutes.
    pub timeout: Duration,
}

impl Hooks {
    /// The configured programs, by key.
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

/// What a jail does about clients whose user agent names a search engine. Reverse DNS decides whether
/// they are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SearchEngines {
    /// A search engine is not banned, except by a rule with `confidence = "certain"`.
    Spare,
    /// The same as about every client.
    Ban,
    /// Only a client that is none is banned.
    BanFake,
}

impl SearchEngines {
    pub(super) const WORDS: [(&str, SearchEngines); 3] = [
        ("spare", SearchEngines::Spare),
        ("ban", SearchEngines::Ban),
        ("ban-fake", SearchEngines::BanFake),
    ];
}

/// What a jail reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// Access lines.
    Access,
    /// Error lines.
    Error,
    /// Bans that other jails make, as fail2ban's recidive jail does.
    Bans,
}

impl Log {
    pub(super) const WORDS: [(&str, Log); 3] = [
        ("access", Log::Access),
        ("error", Log::Error),
        ("bans", Log::Bans),
    ];

    /// The kind of lines; `None` for [`Log::Bans`].
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

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word_of(&Log::WORDS, *self))
    }
}

/// Growth of repeated bans. The first ban lasts `bantime`. With n earlier bans within `memory`, a
/// ban lasts `bantime` times `factor` to the power of n or, with `multipliers`, times `factor`
/// times the n-th multiplier (counted from 0; the last one repeats).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Increment {
    /// 1 or more. `None`: 2, or 1 with multipliers.
    pub factor: Option<f64>,
    /// Empty: powers of `factor`.
    pub multipliers: Vec<u32>,
    /// The longest ban, before `rndtime` is added.
    pub maxtime: Duration,
    /// A random time up to this is added to each repeated ban.
    pub rndtime: Duration,
    /// Bans by all jails count.
    pub overalljails: bool,
    /// Older bans do not count.
    pub memory: Duration,
}

impl Default for Increment {
    fn default() -> Increment {
        Increment {
            factor: None,
            multipliers: Vec::new(),
            maxtime: Duration::from_secs(7 * 86_400),
            rndtime: Duration::ZERO,
            overalljails: false,
            memory: Duration::from_secs(30 * 86_400),
        }
    }
}

/// Local ports that a ban closes to the client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    /// Every port except sshd's.
    AllButSsh,
    /// Every port (`"all"` and `"ssh"` both named).
    All,
    /// Every port that Apache listens on, http and https, without sshd's: see [`Ports::resolved`].
    Apache,
    /// `http` is tcp 80; `https` is tcp 443 and udp 443; `ssh` is tcp 22; a number is tcp.
    List {
        /// tcp ports, at most 15 (the limit of iptables' multiport match).
        tcp: BTreeSet<u16>,
        /// udp ports.
        udp: BTreeSet<u16>,
    },
}

impl Ports {
    /// http and https.
    pub fn web() -> Ports {
        Ports::web_and([])
    }

    /// http and https, and these tcp ports.
    pub fn web_and(more: impl IntoIterator<Item = u16>) -> Ports {
        Ports::List {
            tcp: [80, 443].into_iter().chain(more).collect(),
            udp: BTreeSet::from([443]),
        }
    }

    /// With `apache` in place of [`Ports::Apache`].
    pub fn resolved<'p>(&'p self, apache: &'p Ports) -> &'p Ports {
        match self {
            Ports::Apache => apache,
            Ports::AllButSsh | Ports::All | Ports::List { .. } => self,
        }
    }
}
