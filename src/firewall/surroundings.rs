//! Whom a ban must never hit: this host, its gateways, its name servers.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::Surroundings;
use super::netlink::{self, DUMP, REQUEST, Socket, Writer};

/// The second names the servers behind systemd-resolved's stub.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// A router of the Internet's core has a million routes. The kernel lists the shortest prefixes
/// first, so the default routes are among the first.
const MOST_ROUTES: usize = 20_000;

/// RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// Longest that silence is believed.
const BELIEVED: Duration = Duration::from_secs(10);

const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTN_LOCAL: u8 = 2;
const TABLE_LOCAL: u8 = 255;

/// Reads them from the kernel of this thread's network namespace.
pub(super) fn read() -> io::Result<Surroundings> {
    let mut found = Found::default();
    found.own.extend(loopback());
    let mut socket = Socket::open(SockProtocol::NetlinkRoute)?;
    addresses(&mut socket, &mut found)?;
    for family in [AF_INET, AF_INET6] {
        // A socket of its own: the rest of a dump given up early would be in the way.
        routes(
            &mut Socket::open(SockProtocol::NetlinkRoute)?,
            family,
            &mut found,
        )?;
    }
    let mut resolvers = BTreeSet::new();
    for file in RESOLV_CONF {
        match std::fs::read(file) {
            Ok(bytes) => resolvers.extend(name_servers(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Surroundings {
        own: found.own.into_iter().collect(),
        gateways: found.gateways.into_iter().collect(),
        name_servers: resolvers.into_iter().collect(),
    })
}

/// Tells when the surroundings may have changed: reading them takes as long as the rest of a
/// decision, asking here a few microseconds.
pub struct Watch {
    /// Subscribed to addresses and routes; `None`: it cannot be told, so always.
    socket: Option<OwnedFd>,
    files: [Option<Stamp>; RESOLV_CONF.len()],
    /// When [`Watch::changed`] has said so last.
    said: Option<Instant>,
}

/// Inode and time of the last change.
type Stamp = (u64, i64, i64);

impl Watch {
    /// Watches the network namespace of this thread.
    pub fn start() -> Watch {
        Watch {
            socket: netlink::subscribe(SockProtocol::NetlinkRoute, GROUPS).ok(),
            files: Default::default(),
            said: None,
        }
    }

    /// Whether they may have changed since the last call; now and then without a reason.
    pub fn changed(&mut self) -> bool {
        let news = self.news();
        let files = RESOLV_CONF.map(|file| {
            let there = std::fs::metadata(file).ok()?;
            Some((there.ino(), there.mtime(), there.mtime_nsec()))
        });
        let changed =
            news || files != self.files || self.said.is_none_or(|said| said.elapsed() >= BELIEVED);
        self.files = files;
        if changed {
            self.said = Some(Instant::now());
        }
        changed
    }

    /// Says `true` next time, too.
    pub fn doubt(&mut self) {
        self.said = None;
    }

    /// Takes in all that the kernel has told.
    fn news(&mut self) -> bool {
        let news = match &self.socket {
            Some(socket) => netlink::drain(socket),
            None => return true,
        };
        news.unwrap_or_else(|_| {
            self.socket = None;
            true
        })
    }
}

#[derive(Default)]
struct Found {
    own: BTreeSet<IpNet>,
    gateways: BTreeSet<IpAddr>,
}

/// Also where the loopback interface is down.
fn loopback() -> [IpNet; 2] {
    [
        IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
    ]
}

/// Every address of every interface, as single addresses; the far end of a point-to-point link
/// counts as a gateway.
fn addresses(socket: &mut Socket, found: &mut Found) -> Result<(), Errno> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index
    let mut request = Writer::after(socket.sequence);
    request.message(GET_ADDRESS, REQUEST | DUMP, &[0; 8]);
    socket.ask(request, false, |_, payload| {
        let family = payload.first().copied().unwrap_or(0);
        let of = |kind| {
            let attrs = payload.get(8..)?;
            address(family, netlink::attribute(attrs, kind)?)
        };
        let (address, local) = (of(1), of(2));
        found.own.extend(local.or(address).map(IpNet::from));
        if local.is_some() && local != address {
            found.gateways.extend(address);
        }
        true
    })
}

/// Gateways, and what the kernel takes for itself (127.0.0.0/8, `ip route add local ...`).
fn routes(socket: &mut Socket, family: u8, found: &mut Found) -> Result<(), Errno> {
    // struct rtmsg: family, destination length, source length, tos, table, protocol, scope, type
    let mut request = Writer::after(socket.sequence);
    let mut header = [0; 12];
    if let Some(place) = header.first_mut() {
        *place = family;
    }
    request.message(GET_ROUTE, REQUEST | DUMP, &header);
    let mut count = 0;
    socket.ask(request, false, |_, payload| {
        count += 1;
        route(payload, found);
        count < MOST_ROUTES
    })
}

fn route(payload: &[u8], found: &mut Found) -> Option<()> {
    let [family, prefix, _, _, table, _, _, kind] = netlink::array(payload, 0)?;
    let attrs = payload.get(12..)?;
    if kind == RTN_LOCAL {
        // Not `local default` in another table, as transparent proxies have it: not all the world
        // is this host.
        (table == TABLE_LOCAL && prefix > 0).then_some(())?;
        let to = address(family, netlink::attribute(attrs, 1)?)?;
        found.own.extend(IpNet::new(to, prefix));
        return Some(());
    }
    gateways(family, attrs, found);
    if let Some(mut hops) = netlink::attribute(attrs, 9) {
        // struct rtnexthop: length, flags, hops, interface; then attributes
        while let Some(length) = netlink::array(hops, 0).map(u16::from_ne_bytes) {
            let length = usize::from(length);
            gateways(family, hops.get(8..length)?, found);
            hops = hops.get(length.next_multiple_of(4)..)?;
        }
    }
    Some(())
}

/// RTA_GATEWAY, and RTA_VIA: a gateway of the other family.
fn gateways(family: u8, attrs: &[u8], found: &mut Found) {
    let gateway = netlink::attribute(attrs, 5).and_then(|value| address(family, value));
    let via = netlink::attribute(attrs, 18).and_then(|value| {
        let via = u8::try_from(u16::from_ne_bytes(netlink::array(value, 0)?)).ok()?;
        address(via, value.get(2..)?)
    });
    found.gateways.extend(gateway.into_iter().chain(via));
}

fn address(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(netlink::array::<4>(value, 0)?).into()),
        AF_INET6 => Some(Ipv6Addr::from(netlink::array::<16>(value, 0)?).into()),
        _ => None,
    }
}

/// `nameserver 192.0.2.53`, `nameserver fe80::1%eth0`
fn name_servers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            words.next()?.split('%').next()?.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_the_resolver_reads_them() {
        let text = "# nameserver 192.0.2.1\nsearch example\nnameserver 192.0.2.53\n\
                    nameserver\t2001:db8::53 \nnameserver fe80::1%eth0\nnameserver x\nnameserver\n";
        let expected: Vec<IpAddr> = ["192.0.2.53", "2001:db8::53", "fe80::1"]
            .iter()
            .map(|a| a.parse().unwrap())
            .collect();
        assert_eq!(name_servers(text), expected);
    }

    #[test]
    fn this_host_is_its_own() {
        let found = read().unwrap();
        for net in ["127.0.0.0/8", "::1/128"] {
            assert!(found.own.contains(&net.parse().unwrap()), "{found:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_route_makes_the_reader_loop_or_panic(bytes: Vec<u8>) {
            let _ = route(&bytes, &mut Found::default());
        }
    }
}
