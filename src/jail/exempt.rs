//! Who is never banned.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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

/// Everybody whom no jail may ban, besides its own `ignoreip`: gathered anew by the engine for its
/// decisions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exempt {
    networks: Vec<(IpNet, Why)>,
}

impl Exempt {
    /// `networks` are taken as they are; loopback and ranges that no client has are added.
    pub fn new(networks: impl IntoIterator<Item = (IpNet, Why)>) -> Exempt {
        let mut all: Vec<(IpNet, Why)> = LOOPBACK.iter().map(|net| (*net, Why::Own)).collect();
        all.extend(networks.into_iter().map(|(net, why)| (canonical(net), why)));
        all.extend(NOT_CLIENTS.iter().map(|net| (*net, Why::NotAClient)));
        Exempt { networks: all }
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

    /// What a ban of `addr` by `jail` hits: the IPv6 prefix, narrowed to the address where the
    /// prefix would hit somebody who is exempt.
    pub fn target(&self, jail: &Jail, addr: IpAddr) -> IpNet {
        let alone = single(addr);
        let IpNet::V6(v6) = alone else { return alone };
        match Ipv6Net::new(v6.addr(), jail.ipv6_prefix.clamp(48, 128)) {
            Ok(net) => {
                let net = IpNet::V6(net.trunc());
                if net.contains(&TRANSLATED) || self.by_entry(jail, &net).is_some() {
                    alone
                } else {
                    net
                }
            }
            Err(_) => alone,
        }
    }

    fn by_entry(&self, jail: &Jail, net: &IpNet) -> Option<Reason> {
        let found = |(entry, why): (&IpNet, Why)| overlap(entry, net).then_some((*entry, why));
        jail.ignoreip
            .iter()
            .map(|entry| (entry, Why::IgnoreIp))
            .chain(self.networks.iter().map(|(entry, why)| (entry, *why)))
            .find_map(found)
            .map(|(entry, why)| Reason { why, entry })
    }
}
