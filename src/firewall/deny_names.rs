//! A network as names of the deny map: those that Apache makes of a client's address to look it
//! up. No input or output.
//!
//! Apache can cut an address only where its text has a dot or colon. So names stand for /8, /16,
//! /24 and /32 of IPv4, /32, /48, /64 and /128 of IPv6; other prefixes are several names of the
//! next longer kind.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Names that one network may take.
pub(super) const MOST_NAMES: u32 = 8_192;

/// `None`: it would take too many.
pub(super) fn names(net: IpNet) -> Option<Vec<String>> {
    match net {
        IpNet::V4(net) => {
            let (level, count) = level(net.prefix_len(), &[8, 16, 24, 32])?;
            let first = u32::from(net.network());
            let step = |n: u32| first.wrapping_add(n << (32 - u32::from(level)));
            Some((0..count).map(|n| name_v4(step(n), level)).collect())
        }
        IpNet::V6(net) => {
            let (level, count) = level(net.prefix_len(), &[32, 48, 64, 128])?;
            let first = u128::from(net.network());
            let step = |n: u32| first.wrapping_add(u128::from(n) << (128 - u32::from(level)));
            Some((0..count).map(|n| name_v6(step(n), level)).collect())
        }
    }
}

/// The shortest kind that is not shorter than `prefix`, and how many of them `prefix` holds.
fn level(prefix: u8, levels: &[u8]) -> Option<(u8, u32)> {
    let level = *levels.iter().find(|level| **level >= prefix)?;
    let count = 1u32.checked_shl(u32::from(level - prefix))?;
    (count <= MOST_NAMES).then_some((level, count))
}

fn name_v4(address: u32, level: u8) -> String {
    let octets = Ipv4Addr::from(address).octets();
    let parts = octets.iter().take(usize::from(level / 8));
    parts.map(u8::to_string).collect::<Vec<_>>().join(".")
}

fn name_v6(address: u128, level: u8) -> String {
    let address = Ipv6Addr::from(address);
    if level == 128 {
        return address.to_string();
    }
    let groups = address.segments();
    let parts = groups.iter().take(usize::from(level / 16));
    let parts: Vec<String> = parts.map(|group| format!("{group:x}")).collect();
    parts.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_names_that_apache_makes_of_its_addresses() {
        for (net, expected) in [
            ("203.0.113.9/32", &["203.0.113.9"][..]),
            ("203.0.113.8/31", &["203.0.113.8", "203.0.113.9"]),
            ("203.0.113.0/24", &["203.0.113"]),
            ("203.0.112.0/23", &["203.0.112", "203.0.113"]),
            ("203.0.0.0/16", &["203.0"]),
            ("10.0.0.0/8", &["10"]),
            ("10.0.0.0/7", &["10", "11"]),
            (
                "255.255.255.254/31",
                &["255.255.255.254", "255.255.255.255"],
            ),
            ("2001:db8::1/128", &["2001:db8::1"]),
            ("2001:db8:1:66::/64", &["2001:db8:1:66"]),
            ("2001:db8::/64", &["2001:db8:0:0"]),
            ("2001:db8:0:2::/63", &["2001:db8:0:2", "2001:db8:0:3"]),
            ("2001:db8:7::/48", &["2001:db8:7"]),
            ("2001:db8::/32", &["2001:db8"]),
        ] {
            let found = names(net.parse().unwrap());
            assert_eq!(
                found.as_deref(),
                Some(
                    &expected
                        .iter()
                        .map(|name| (*name).to_owned())
                        .collect::<Vec<_>>()[..]
                ),
                "{net}"
            );
        }
    }

    #[test]
    fn what_would_take_too_many_names_takes_none() {
        for (net, count) in [
            ("2001:db8::/56", Some(256)),
            ("2000::/19", Some(8_192)),
            ("2001:db8::/50", None),
            ("2001:db8::/65", None),
            ("2001:db8::/96", None),
            ("::/0", None),
            ("0.0.0.0/0", Some(256)),
        ] {
            let found = names(net.parse().unwrap()).map(|names| names.len());
            assert_eq!(found, count, "{net}");
        }
    }
}
