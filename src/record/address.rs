//! Addresses as Apache writes them.

use std::net::{IpAddr, Ipv6Addr};

use super::fields::Client;

/// An address, also with a zone (`fe80::1%eth0`); `::ffff:a.b.c.d` unmapped, the text as it is.
pub(super) fn client(text: &[u8]) -> Option<Client<'_>> {
    Some(Client {
        addr: read(text)?,
        text,
    })
}

/// See [`client`].
pub(super) fn read(text: &[u8]) -> Option<IpAddr> {
    // No address begins otherwise: most names are refused without a look at the rest.
    let first = text.first()?;
    if !(first.is_ascii_hexdigit() || *first == b':') {
        return None;
    }
    if let Ok(addr) = std::str::from_utf8(text).ok()?.parse::<IpAddr>() {
        return Some(addr.to_canonical());
    }
    let at = memchr::memchr(b'%', text)?;
    let (addr, zone) = text.split_at_checked(at)?;
    let zone = zone.get(1..)?;
    let named = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
    if zone.is_empty() || !zone.iter().all(named) {
        return None;
    }
    let addr: Ipv6Addr = std::str::from_utf8(addr).ok()?.parse().ok()?;
    // Only such addresses have a zone.
    addr.is_unicast_link_local().then_some(IpAddr::V6(addr))
}
