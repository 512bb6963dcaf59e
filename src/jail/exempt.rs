//! Who is never banned.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::netset::NetSet;
use crate::config::Jail;

/// Why somebody is never banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Somebody logged in by ssh from there lately.
    SshLogin,
    /// A private or carrier range, without `ban_private`.
    Private,
    /// Unspecified, multicast or reserved: nobody connects from there.
    NotAClient,
}

impl Why {
    /// As log lines have it: `Ignore 203.0.113.80 by ignoreip`.
    pub fn word(self) -> &'static str {
        match self {
            Why::IgnoreIp => "ignoreip",
            Why::AllowList => "allow-list",
            Why::Own => "own-address",
            Why::Gateway => "gateway",
            Why::NameServer => "name-server",
            Why::TrustedProxy => "trusted-proxy",
            Why::SshLogin => "ssh-login",
            Why::Private => "private-range",
            Why::NotAClient => "reserved-range",
        }
    }
}

/// Why, and by which entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Why.
    pub why: Why,
    /// The entry that says so.
    pub entry: IpNet,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entry = show_net(&self.entry);
        match self.why {
            Why::IgnoreIp => write!(f, "`ignoreip` has {entry}"),
            Why::AllowList => write!(
                f,
                "the allow-list has {entry} (`pipeban disallow {entry}` takes it off)"
            ),
            Why::SshLogin => write!(
                f,
                "somebody logged in by ssh from {entry} (`ignore_ssh_logins`)"
            ),
            Why::Own => write!(f, "{entry} is an address of this host"),
            Why::Gateway => write!(f, "{entry} is a gateway of this host"),
            Why::NameServer => write!(f, "{entry} is a name server of this host"),
            Why::TrustedProxy => write!(f, "`[proxies] trusted` has {entry}"),
            Why::Private => write!(
                f,
                "{entry} is a private or carrier range (`ban_private = true` permits it)"
            ),
            Why::NotAClient => write!(f, "{entry} is no client's range"),
        }
    }
}

/// An address where the network is one, else the network.
pub fn show_net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// The same address without an IPv4-mapped wrapping (`::ffff:a.b.c.d`).
pub fn unmap(addr: IpAddr) -> IpAddr {
    addr.to_canonical()
}

/// Masked, and unmapped where it is a network of IPv4-mapped addresses.
pub fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && v6.prefix_len() >= 96
        && let IpAddr::V4(v4) = v6.addr().to_canonical()
        && let Ok(unmapped) = Ipv4Net::new(v4, v6.prefix_len() - 96)
    {
        return IpNet::V4(unmapped.trunc());
    }
    net.trunc()
}

/// The network of one address.
pub fn single(addr: IpAddr) -> IpNet {
    IpNet::from(unmap(addr))
}

/// Whether two networks have an address in common.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The widest network that a ban by hand takes, IPv4: a /8 is the most that one holder ever got.
pub const WIDEST_V4: u8 = 8;

/// The same for IPv6: registries have given no holder more than a /19.
pub const WIDEST_V6: u8 = 19;

/// Whether a ban of all of `net` could only be a slip: it is wider than what any one holder has,
/// or that much of IPv4 behind a translator's prefix (RFC 6052).
pub fn is_too_wide(net: &IpNet) -> bool {
    match net {
        IpNet::V4(v4) => v4.prefix_len() < WIDEST_V4,
        IpNet::V6(v6) => {
            let translated = TRANSLATED.contains(net) && v6.prefix_len() < 96 + WIDEST_V4;
            v6.prefix_len() < WIDEST_V6 || net.contains(&TRANSLATED) || translated
        }
    }
}

/// Clients are counted and banned by no wider network, whatever a configuration says.
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

/// Loopback: own whatever the kernel says.
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

/// RFC 6052: a translator shows the whole of IPv4 in this one /96. Never banned as a network.
const TRANSLATED: IpNet = v6(0x64, 0xff9b, 96);

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(a: u16, b: u16, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0),
        prefix,
    ))
}

/// What `ignoreip` and `ignore_ssh_logins` mean beyond addresses: read elsewhere, again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// What stands in files.
    pub files: HashMap<PathBuf, NetSet>,
    /// What names stand for.
    pub names: HashMap<String, NetSet>,
    /// Where somebody logged in by ssh from, and how long ago.
    pub logins: BTreeMap<IpAddr, Duration>,
}

/// Everybody whom no jail may ban, besides its own `ignoreip`: gathered anew by the engine for its
/// decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exempt {
    /// In the order in which they are named as a reason.
    sets: Vec<(Why, NetSet)>,
    looked: Looked,
}

impl Exempt {
    /// Loopback and ranges that no client has are added.
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

    /// The same, with what files, names and logins say.
    #[must_use]
    pub fn with(self, looked: Looked) -> Exempt {
        Exempt { looked, ..self }
    }

    /// Why no address of `net` may be banned by `jail`: something in it is exempt.
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

    /// What a ban of `addr` by `jail` hits: its prefix, narrowed to the address where the prefix
    /// would hit somebody who is exempt.
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
        // Who may ban private ranges may ban all of one.
        let mixed = net.contains(&TRANSLATED) || self.by_entry(jail, &net).is_some();
        if mixed { alone } else { net }
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
            .or_else(|| self.everybodys(jail, net))
            .or_else(|| self.login(jail, net).map(because(Why::SshLogin)))
    }

    fn everybodys(&self, jail: &Jail, net: &IpNet) -> Option<Reason> {
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

    fn login(&self, jail: &Jail, net: &IpNet) -> Option<IpNet> {
        let within = jail.ignore_ssh_logins?;
        let mut there = self.looked.logins.range(net.network()..=net.broadcast());
        let (addr, _) = there.find(|(_, ago)| **ago < within)?;
        Some(single(*addr))
    }
}
