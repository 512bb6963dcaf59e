//! ipset's messages, as the kernel wants them (protocol 6, `linux/netfilter/ipset/ip_set.h`).
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;

use super::netlink::{self, ACK, DUMP, REQUEST, Socket, Writer};

const SUBSYSTEM: u16 = 6;
const CREATE: u16 = 2;
const DESTROY: u16 = 3;
const SWAP: u16 = 6;
const LIST: u16 = 7;
const ADD: u16 = 9;
const DELETE: u16 = 10;
const TEST: u16 = 11;

const PROTOCOL: u8 = 6;
const NET_ORDER: u16 = 0x4000;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Sets grow as needed; this is only the bound.
const MOST_ELEMENTS: u32 = 4_000_000;
/// An attribute holds 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 1_000;

/// What is done with elements.
#[derive(Clone, Copy)]
pub(super) enum Change {
    /// One that is there gets the new timeout.
    Add,
    /// One that is not there is no error.
    Delete,
}

/// Makes a set of networks of that prefix, unless it is there.
pub(super) fn create(socket: &mut Socket, name: &str, v6: bool, prefix: u8) -> Result<(), Errno> {
    request(socket, CREATE, |w| {
        w.text(2, name);
        w.text(3, "hash:ip");
        w.bytes(4, &[0]);
        w.bytes(5, &[if v6 { AF_INET6 } else { AF_INET }]);
        let data = w.nest(7);
        w.bytes(6 | NET_ORDER, &0u32.to_be_bytes());
        w.bytes(19 | NET_ORDER, &MOST_ELEMENTS.to_be_bytes());
        if prefix < if v6 { 128 } else { 32 } {
            w.bytes(20, &[prefix]);
        }
        w.end(data);
    })
}

/// Destroys a set; none is no error.
pub(super) fn destroy(socket: &mut Socket, name: &str) -> Result<(), Errno> {
    match request(socket, DESTROY, |w| w.text(2, name)) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Has two sets change places.
pub(super) fn swap(socket: &mut Socket, one: &str, other: &str) -> Result<(), Errno> {
    request(socket, SWAP, |w| {
        w.text(2, one);
        w.text(3, other);
    })
}

/// Adds or deletes elements, each with its timeout in seconds (0: for ever).
pub(super) fn change(
    socket: &mut Socket,
    what: Change,
    set: &str,
    elements: &[(IpNet, u32)],
) -> Result<(), Errno> {
    let kind = match what {
        Change::Add => ADD,
        Change::Delete => DELETE,
    };
    for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
        request(socket, kind, |w| {
            w.text(2, set);
            w.u32(9 | NET_ORDER, 1);
            let list = w.nest(8);
            for (net, timeout) in some {
                let one = w.nest(7);
                address(w, *net);
                if matches!(what, Change::Add) {
                    w.bytes(6 | NET_ORDER, &timeout.to_be_bytes());
                }
                w.end(one);
            }
            w.end(list);
        })?;
    }
    Ok(())
}

/// Whether an element is in a set.
pub(super) fn has(socket: &mut Socket, set: &str, net: IpNet) -> Result<bool, Errno> {
    let asked = request(socket, TEST, |w| {
        w.text(2, set);
        let data = w.nest(7);
        address(w, net);
        w.end(data);
    });
    match asked {
        Ok(()) => Ok(true),
        // No such set; and ipset's own number for "not in it", which no errno has.
        Err(Errno::ENOENT | Errno::UnknownErrno) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The names of all sets of this host.
pub(super) fn names(socket: &mut Socket) -> Result<Vec<String>, Errno> {
    const NAMES_ONLY: u32 = 1 << 1;
    let mut w = begin(socket, LIST, DUMP);
    w.bytes(6 | NET_ORDER, &NAMES_ONLY.to_be_bytes());
    let mut names = Vec::new();
    socket.ask(w, false, |_, payload| {
        let name = payload
            .get(4..)
            .and_then(|attrs| netlink::attribute(attrs, 2));
        names.extend(name.map(|name| String::from_utf8_lossy(netlink::text(name)).into_owned()));
        true
    })?;
    Ok(names)
}

fn address(w: &mut Writer, net: IpNet) {
    let ip = w.nest(1);
    match net.network() {
        IpAddr::V4(address) => w.bytes(1 | NET_ORDER, &address.octets()),
        IpAddr::V6(address) => w.bytes(2 | NET_ORDER, &address.octets()),
    }
    w.end(ip);
}

fn begin(socket: &Socket, kind: u16, flags: u16) -> Writer {
    let mut w = Writer::after(socket.sequence);
    w.message(SUBSYSTEM << 8 | kind, REQUEST | flags, &[AF_INET, 0, 0, 0]);
    w.bytes(1, &[PROTOCOL]);
    w
}

fn request(socket: &mut Socket, kind: u16, fill: impl FnOnce(&mut Writer)) -> Result<(), Errno> {
    let mut w = begin(socket, kind, ACK);
    fill(&mut w);
    socket.ask(w, true, |_, _| true)
}
