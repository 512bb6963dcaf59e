//! This host: its addresses, gateways and name servers, which a ban must never hit, and the ports
//! of sshd, so that closing all ports does not close the way back in.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{self, DUMP, REQUEST, Socket, Writer};
use crate::config::Ports;

/// The second names the servers behind systemd-resolved's stub.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// A router of the Internet's core has a million routes. The kernel lists the shortest prefixes
/// first, so the default routes are among the first.
const MOST_ROUTES: usize = 20_000;

/// RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// Without a change they are read again after this time.
const BELIEVED: Duration = Duration::from_secs(10);

const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTN_LOCAL: u8 = 2;
const TABLE_LOCAL: u8 = 255;

/// Addresses that must never be banned, as the kernel has them now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Every address of every interface, loopback networks included.
    pub own: Vec<IpNet>,
    /// Gateways of the routing tables.
    pub gateways: Vec<IpAddr>,
    /// Name servers of /etc/resolv.conf.
    pub name_servers: Vec<IpAddr>,
}

/// Reads them for this thread's network namespace (rtnetlink; under a millisecond on most hosts).
///
/// # Errors
/// What the kernel said, or /etc/resolv.conf.
pub fn surroundings() -> io::Result<Surroundings> {
    let mut found = Found::default();
    found.own.extend(loopback());
    let mut socket = Socket::open(SockProtocol::NetlinkRoute)?;
    addresses(&mut socket, &mut found)?;
    for family in [AF_INET, AF_INET6] {
        // A new socket: the rest of a dump given up early would be in the way.
        routes(
            &mut Socket::open(SockProtocol::NetlinkRoute)?,
            family,
            &mut found,
        )?;
    }
    let mut resolvers = BTreeSet::new();
    for file in RESOLV_CONF {
        match fs::read(file) {
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

/// Finds out in a few microseconds whether the surroundings may have changed: to read them takes
/// as long as the rest of a decision.
pub struct Watch {
    /// Subscribed to addresses and routes; `None`: the kernel refuses, so they may always have
    /// changed.
    socket: Option<OwnedFd>,
    files: [Option<Stamp>; RESOLV_CONF.len()],
    /// When [`Watch::changed`] returned true last.
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
            let there = fs::metadata(file).ok()?;
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

    /// Makes the next call return true.
    pub fn doubt(&mut self) {
        self.said = None;
    }

    /// Reads the kernel's messages.
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

const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
const SSHD_CONFIG_DIR: &str = "/etc/ssh/sshd_config.d";
/// Where systemd finds `ssh.socket` and what was added to it (Ubuntu generates it from sshd's).
const SOCKET_UNITS: [&str; 4] = [
    "/usr/lib/systemd/system/ssh.socket",
    "/etc/systemd/system/ssh.socket",
    "/etc/systemd/system/ssh.socket.d",
    "/run/systemd/generator/ssh.socket.d",
];

/// The ports of sshd's configuration and of `ssh.socket`; 22 where sshd's names none. Of two
/// mistakes, to leave one port too many open to a banned client is the smaller: so all are taken.
pub(super) fn ssh_ports() -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for file in with_parts(Path::new(SSHD_CONFIG), Path::new(SSHD_CONFIG_DIR)) {
        ports.extend(of_sshd_config(&text(&file)));
    }
    if ports.is_empty() {
        ports.insert(22);
    }
    for unit in SOCKET_UNITS {
        let unit = Path::new(unit);
        for file in with_parts(unit, unit) {
            ports.extend(of_socket_unit(&text(&file)));
        }
    }
    ports
}

/// What [`Ports::Apache`] is while Apache listens on these tcp ports: with http and https, without
/// sshd's ports.
pub(super) fn ports_of_apache(listening: &BTreeSet<u16>) -> Ports {
    match Ports::web_and(listening.iter().copied()) {
        Ports::List { tcp, udp } => Ports::List {
            tcp: tcp.difference(&ssh_ports()).copied().collect(),
            udp,
        },
        other => other,
    }
}

/// All other ports, as iptables writes ranges.
pub(super) fn ranges_around(spared: &BTreeSet<u16>) -> Vec<String> {
    let mut ranges = Vec::new();
    let mut from = 1u32;
    for end in spared.iter().map(|p| u32::from(*p)).chain([65_536]) {
        match end.checked_sub(from) {
            None | Some(0) => {}
            Some(1) => ranges.push(from.to_string()),
            Some(_) => ranges.push(format!("{from}:{}", end - 1)),
        }
        from = end + 1;
    }
    ranges
}

/// The file, and the `.conf` files of the directory.
fn with_parts(file: &Path, directory: &Path) -> Vec<PathBuf> {
    let parts = fs::read_dir(directory).into_iter().flatten().flatten();
    std::iter::once(file.to_owned())
        .chain(
            parts
                .map(|part| part.path())
                .filter(|path| path.extension().is_some_and(|e| e == "conf")),
        )
        .collect()
}

/// Empty for a missing file and for a directory.
fn text(file: &Path) -> String {
    fs::read(file)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn of_sshd_config(text: &str) -> impl Iterator<Item = u16> {
    text.lines().filter_map(|line| {
        let (word, rest) = line.trim().split_once([' ', '\t', '='])?;
        let value = rest.trim_matches([' ', '\t', '=', '"']);
        let value = value.split(char::is_whitespace).next()?;
        match word.to_ascii_lowercase().as_str() {
            "port" => value.parse().ok(),
            "listenaddress" => listen_port(value),
            _ => None,
        }
    })
}

/// `ListenStream=22`, `ListenStream=0.0.0.0:2222`, `ListenStream=[::]:2222`
fn of_socket_unit(text: &str) -> impl Iterator<Item = u16> {
    text.lines().filter_map(|line| {
        let (word, value) = line.split_once('=')?;
        (word.trim() == "ListenStream").then_some(())?;
        let value = value.trim();
        value.parse().ok().or_else(|| listen_port(value))
    })
}

/// The port of `HOST:PORT` or `[HOST]:PORT`; an IPv6 address without brackets has none.
fn listen_port(value: &str) -> Option<u16> {
    let (host, port) = value.rsplit_once(':')?;
    if host.contains(':') && !host.ends_with(']') {
        return None;
    }
    port.parse().ok()
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
    fn loopback_addresses_are_the_hosts() {
        let found = surroundings().unwrap();
        for net in ["127.0.0.0/8", "::1/128"] {
            assert!(found.own.contains(&net.parse().unwrap()), "{found:?}");
        }
    }

    #[test]
    fn ports_of_sshd_are_found_as_people_write_them() {
        for (text, expected) in [
            ("", vec![]),
            ("#Port 22\n", vec![]),
            ("Port 2222\nPort 22\n", vec![2222, 22]),
            ("  port\t2200 # why\n", vec![2200]),
            ("PORT=2201\nPort = \"2202\"\n", vec![2201, 2202]),
            ("ListenAddress 192.0.2.1\n", vec![]),
            ("ListenAddress 192.0.2.1:2203\n", vec![2203]),
            ("ListenAddress [2001:db8::1]:2204 rdomain x\n", vec![2204]),
            ("ListenAddress 2001:db8::1\nListenAddress ::\n", vec![]),
            ("Port 70000\nPort abc\nPort\n", vec![]),
        ] {
            assert_eq!(of_sshd_config(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn ports_of_the_socket_unit_are_found() {
        let text = "[Socket]\nListenStream=\nListenStream=22\nListenStream=0.0.0.0:2222\n\
                    ListenStream=[::]:2223\nListenStream=/run/x\nAccept=no\n";
        assert_eq!(of_socket_unit(text).collect::<Vec<_>>(), [22, 2222, 2223]);
    }

    proptest::proptest! {
        #[test]
        fn no_route_makes_the_reader_loop_or_panic(bytes: Vec<u8>) {
            let _ = route(&bytes, &mut Found::default());
        }
    }
}
