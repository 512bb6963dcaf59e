//! Addresses as Apache writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::number;
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
    if let Some(addr) = v4(text) {
        return Some(IpAddr::V4(addr));
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

/// As the standard library reads it, without its check for UTF-8.
fn v4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut parts = text.split(|byte| *byte == b'.');
    let mut octets = [0; 4];
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.len() <= 3)?;
        let leading_zero = part.len() > 1 && part.starts_with(b"0");
        *octet = u8::try_from(number(part).filter(|_| !leading_zero)?).ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ipv4_is_read_as_the_standard_library_reads_it(text in "([0-2]?[0-9]{0,2}\\.?){3,5}") {
            prop_assert_eq!(v4(text.as_bytes()), text.parse().ok());
        }
    }
}
