//! Networks: how they are compared and shown.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The address, where the network is a single one.
pub fn show_net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// `::ffff:a.b.c.d` as the IPv4 address that it means.
pub fn unmap(addr: IpAddr) -> IpAddr {
    addr.to_canonical()
}

/// Masked; a network of IPv4-mapped addresses becomes one of IPv4.
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

/// The network of one household: an IPv4 address, also behind a translator, or an IPv6 /64.
pub fn household(addr: IpAddr) -> IpNet {
    let net = single(addr);
    match net {
        IpNet::V6(v6) if !is_translated(&net) => {
            Ipv6Net::new(v6.addr(), 64).map_or(net, |net| IpNet::V6(net.trunc()))
        }
        _ => net,
    }
}

/// Whether two networks have an address in common.
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Prefix of the widest IPv4 network that a person can ban: no holder has more than a /8.
pub const WIDEST_V4: u8 = 8;

/// The same for IPv6: no holder has more than a /19.
pub const WIDEST_V6: u8 = 19;

/// Whether no single holder has all of `net`, so that its ban is a mistake. Looks through a
/// translator's prefix too.
pub fn is_too_wide(net: &IpNet) -> bool {
    match net {
        IpNet::V4(v4) => v4.prefix_len() < WIDEST_V4,
        IpNet::V6(v6) => {
            let length = v6.prefix_len();
            length < WIDEST_V6 || (is_translated(net) && length < 96 + WIDEST_V4)
        }
    }
}

/// Whether there are IPv4 addresses in `net`, as a translator shows them.
pub(super) fn is_translated(net: &IpNet) -> bool {
    TRANSLATED.iter().any(|all| overlap(all, net))
}

/// All of IPv4 as translators show it (RFC 6052, RFC 8215). Never banned as a network.
const TRANSLATED: [IpNet; 2] = [
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
        96,
    )),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0),
        48,
    )),
];
