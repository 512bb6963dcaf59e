//! Which clients are never banned.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::netset::NetSet;
use super::network::{is_translated, overlap, show_net, single};
use crate::config::Jail;

/// Why a client is never banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The jail's `ignoreip`.
    IgnoreIp,
    /// `pipeban allow`.
    AllowList,
    /// An address of this host, or loopback.
    Own,
    /// A gateway of this host's routes.
    Gateway,
    /// A name server of this host.
    NameServer,
    /// `[proxies] trusted`.
    TrustedProxy,
    /// A private or carrier range, without `ban_private`.
    Private,
    /// Unspecified, multicast or reserved: no client connects from there.
    NotAClient,
    /// A search engine, confirmed by reverse DNS.
    SearchEngine,
    /// A header named it, and any client may have sent that.
    Header,
}

impl Why {
    /// The word in log lines: `Ignore 203.0.113.80 by ignoreip`.
    pub fn word(self) -> &'static str {
        match self {
            Why::IgnoreIp => "ignoreip",
            Why::AllowList => "allow-list",
            Why::Own => "own-address",
            Why::Gateway => "gateway",
            Why::NameServer => "name-server",
            Why::TrustedProxy => "trusted-proxy",
            Why::Private => "private-range",
            Why::NotAClient => "reserved-range",
            Why::SearchEngine => "search-engine",
            Why::Header => "remoteip-header",
        }
    }
}

/// Why a client is never banned, and the entry that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// The kind of entry.
    pub why: Why,
    /// The entry.
    pub entry: IpNet,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entry = show_net(&self.entry);
        match self.why {
            Why::IgnoreIp => write!(f, "`ignoreip` has {entry}"),
            Why::AllowList => write!(
                f,
                "the allow-list has {entry} (`pipeban disallow {entry}` removes it)"
            ),
            Why::Own => write!(f, "{entry} is an address of this host"),
            Why::Gateway => write!(f, "{entry} is a gateway of this host"),
            Why::NameServer => write!(f, "{entry} is a name server of this host"),
            Why::TrustedProxy => write!(f, "`[proxies] trusted` has {entry}"),
            Why::Private => write!(
                f,
                "{entry} is a private or carrier range (`ban_private = true` permits it)"
            ),
            Why::NotAClient => write!(f, "no client has an address in {entry}"),
            Why::SearchEngine => write!(f, "{entry} is a search engine, as reverse DNS confirms"),
            Why::Header => write!(
                f,
                "a header named {entry}, and any client may have sent it: Apache's configuration \
                 lists no proxies"
            ),
        }
    }
}

/// The widest networks by which clients are counted, whatever the configuration says.
const WIDEST_COUNTED_V4: u8 = 16;
const WIDEST_COUNTED_V6: u8 = 48;

/// RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 link-local.
const PRIVATE: [IpNet; 7] = [
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v4(100, 64, 0, 0, 10),
    v4(169, 254, 0, 0, 16),
    v6(0xfc00, 0, 7),
    v6(0xfe80, 0, 10),
];

/// Loopback is exempt whatever the kernel says.
const LOOPBACK: [IpNet; 2] = [
    v4(127, 0, 0, 0, 8),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

const NOT_CLIENTS: [IpNet; 5] = [
    v4(0, 0, 0, 0, 8),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)),
    v6(0xff00, 0, 8),
];

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(a: u16, b: u16, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0),
        prefix,
    ))
}

/// What files and names of `ignoreip` stand for now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// Networks in each file.
    pub files: HashMap<PathBuf, NetSet>,
    /// Addresses of each host name.
    pub names: HashMap<String, NetSet>,
}

/// The addresses that no jail may ban, besides the jail's `ignoreip`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exempt {
    /// The first one that matches is the reason.
    sets: Vec<(Why, NetSet)>,
    looked: Looked,
}

impl Exempt {
    /// Adds loopback and the ranges that no client has.
    pub fn new(networks: impl IntoIterator<Item = (IpNet, Why)>) -> Exempt {
        let mut order: Vec<Why> = Vec::new();
        let mut by_why: HashMap<Why, Vec<IpNet>> = HashMap::new();
        let not_clients = NOT_CLIENTS.iter().map(|net| (*net, Why::NotAClient));
        for (net, why) in networks.into_iter().chain(not_clients) {
            let nets = by_why.entry(why).or_default();
            if nets.is_empty() {
                order.push(why);
            }
            nets.push(net);
        }
        let sets = order.into_iter().map(|why| {
            let nets = by_why.remove(&why).unwrap_or_default();
            (why, NetSet::new(nets))
        });
        Exempt {
            sets: sets.collect(),
            looked: Looked::default(),
        }
    }

    /// The same, with what files and names of `ignoreip` stand for.
    #[must_use]
    pub fn with(self, looked: Looked) -> Exempt {
        Exempt { looked, ..self }
    }

    /// Why `jail` may not ban `net`: an address in it is exempt.
    pub fn reason(&self, jail: &Jail, net: &IpNet) -> Option<Reason> {
        self.by_entry(jail, net).or_else(|| {
            PRIVATE
                .iter()
                .find(|private| !jail.ban_private && overlap(private, net))
                .map(|entry| Reason {
                    why: Why::Private,
                    entry: *entry,
                })
        })
    }

    /// What `jail` bans for the client `addr`: its prefix, or the address alone where the prefix
    /// contains an exempt address.
    pub fn target(&self, jail: &Jail, addr: IpAddr) -> IpNet {
        let alone = single(addr);
        let prefix = match alone {
            IpNet::V4(_) => jail.ipv4_prefix.clamp(WIDEST_COUNTED_V4, 32),
            IpNet::V6(_) => jail.ipv6_prefix.clamp(WIDEST_COUNTED_V6, 128),
        };
        if prefix == alone.max_prefix_len() {
            return alone;
        }
        let Ok(net) = IpNet::new(alone.addr(), prefix) else {
            return alone;
        };
        let net = net.trunc();
        // A jail with `ban_private` may ban all of a private range.
        let mixed = is_translated(&net) || self.by_entry(jail, &net).is_some();
        if mixed { alone } else { net }
    }

    /// Whether it is an address of this host, or loopback.
    pub(super) fn is_of_this_host(&self, addr: IpAddr) -> bool {
        self.has_own(&single(addr))
    }

    fn has_own(&self, net: &IpNet) -> bool {
        let mut own = self.sets.iter().filter(|(why, _)| *why == Why::Own);
        LOOPBACK.iter().any(|entry| overlap(entry, net))
            || own.any(|(_, set)| set.overlapping(net).is_some())
    }

    /// Whether all of a network is elsewhere. A container of this host may be in a private range.
    pub fn is_elsewhere(&self, net: &IpNet) -> bool {
        !(self.has_own(net) || PRIVATE.iter().any(|range| overlap(range, net)))
    }

    fn by_entry(&self, jail: &Jail, net: &IpNet) -> Option<Reason> {
        let because = |why| move |entry| Reason { why, entry };
        let ignored = jail.ignoreip.iter().find(|entry| overlap(entry, net));
        let files = || {
            let mut sets = jail
                .ignore_files
                .iter()
                .filter_map(|file| self.looked.files.get(file));
            sets.find_map(|set| set.overlapping(net))
        };
        let names = || {
            let mut sets = jail
                .ignore_names
                .iter()
                .filter_map(|name| self.looked.names.get(name));
            sets.find_map(|set| set.overlapping(net))
        };
        let ignored = ignored.copied().or_else(files).or_else(names);
        ignored
            .map(because(Why::IgnoreIp))
            .or_else(|| self.for_all_jails(jail, net))
    }

    fn for_all_jails(&self, jail: &Jail, net: &IpNet) -> Option<Reason> {
        let loopback = LOOPBACK.iter().find(|entry| overlap(entry, net));
        let spared =
            |why: Why| jail.ignoreself || !matches!(why, Why::Own | Why::Gateway | Why::NameServer);
        let mut sets = self.sets.iter().filter(|(why, _)| spared(*why));
        let found = || {
            sets.find_map(|(why, set)| {
                let entry = set.overlapping(net)?;
                Some(Reason { why: *why, entry })
            })
        };
        loopback
            .map(|entry| Reason {
                why: Why::Own,
                entry: *entry,
            })
            .or_else(found)
    }
}
