//! What the own table looks like, and how nftables wants it written.
//!
//! ```text
//! table inet pipeban {
//!   set v4_32_t80_443_u443 { type ipv4_addr; flags timeout; }
//!   set v6_64_t80_443_u443 { type ipv6_addr; flags timeout; }
//!   chain input {
//!     type filter hook input priority -10; policy accept;
//!     meta nfproto ipv4 tcp dport { 80, 443 } ip saddr @v4_32_t80_443_u443 drop
//!     meta nfproto ipv4 udp dport 443 ip saddr @v4_32_t80_443_u443 drop
//!     meta nfproto ipv6 tcp dport { 80, 443 } ip6 saddr & ffff:ffff:ffff:ffff:: @v6_64_... drop
//!   }
//!   chain forward {   # where this host passes packets on: ports that containers publish
//!     type filter hook forward priority -10; policy accept;
//!     meta l4proto tcp ct original proto-dst { 80, 443 } ip saddr @v4_32_t80_443_u443
//!       ct direction original ct status dnat drop
//!   }
//! }
//! ```
//!
//! A network is a hash set's element behind a mask: interval sets take seconds at 100 000 bans.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::netlink::{ACK, APPEND, CREATE, DUMP, REQUEST, Writer};
use super::nft_sets::{Chain, PortMatch, Rule, SetKey, Shape, Verdict};
use ipnet::IpNet;

/// The table, in family `inet`.
pub(super) const TABLE: &str = "pipeban";
/// Before ufw's chains, after conntrack.
const PRIORITY: i32 = -10;
/// An attribute holds 64 KiB: about 1 200 IPv6 elements with their timeouts.
const ELEMENTS_PER_MESSAGE: usize = 1_000;

const SUBSYSTEM: u16 = 10;
const INET: u8 = 1;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
const GET_GENERATION: u16 = 16;

const SET_ANONYMOUS_CONSTANT: u32 = 0x3;
const SET_TIMEOUT: u32 = 0x10;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PORT: u32 = 13;

/// The network's address as an element's key.
pub(super) fn element_key(net: IpNet) -> Vec<u8> {
    match net.network() {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// An element: its key, and its timeout in milliseconds (`None`: it stays).
pub(super) type Element = (Vec<u8>, Option<u64>);

/// One transaction: all of it or nothing.
pub(super) struct Batch {
    writer: Writer,
    /// Sequence number of the batch's first message.
    pub(super) begin: u32,
    next_set_id: u32,
}

impl Batch {
    /// Begins a transaction that is refused with ERESTART when the ruleset is not of that
    /// generation any more.
    pub(super) fn begin(sequence: u32, generation: Option<u32>) -> Batch {
        let mut writer = Writer::after(sequence);
        let begin = writer.message(0x10, REQUEST, &batch_header());
        if let Some(generation) = generation {
            writer.u32(1, generation);
        }
        Batch {
            writer,
            begin,
            next_set_id: 0,
        }
    }

    pub(super) fn table(&mut self) {
        self.message(NEW_TABLE, CREATE);
        self.writer.text(1, TABLE);
        self.writer.u32(2, 0);
    }

    pub(super) fn delete_table(&mut self) {
        self.message(DELETE_TABLE, 0);
        self.writer.text(1, TABLE);
    }

    pub(super) fn chains(&mut self, shape: Shape) {
        self.chain(Chain::Input, 1);
        if shape.forwards {
            self.chain(Chain::Forward, 2);
        }
    }

    fn chain(&mut self, chain: Chain, hook_number: u32) {
        self.message(NEW_CHAIN, CREATE);
        let w = &mut self.writer;
        w.text(1, TABLE);
        w.text(3, chain.name());
        let hook = w.nest(4);
        w.u32(1, hook_number);
        w.bytes(2, &PRIORITY.to_be_bytes());
        w.end(hook);
        w.u32(5, 1);
        w.text(7, "filter");
    }

    /// The set and its rules.
    pub(super) fn set_with_rules(&mut self, set: &SetKey, shape: Shape) {
        self.message(NEW_SET, CREATE);
        self.next_set_id += 1;
        let w = &mut self.writer;
        w.text(1, TABLE);
        w.text(2, &set.name());
        w.u32(3, SET_TIMEOUT);
        w.u32(4, if set.v6 { TYPE_IPV6 } else { TYPE_IPV4 });
        w.u32(5, u32::from(set.key_length()));
        w.u32(10, self.next_set_id);
        for rule in set.rules(shape) {
            self.rule(set, &rule);
        }
    }

    pub(super) fn add(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENT, CREATE, set, None, elements);
    }

    pub(super) fn delete(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELETE_ELEMENT, 0, set, None, elements);
    }

    /// The messages, ready to be sent. The end's own message brings an acknowledgement only on
    /// new kernels, so a last harmless one asks for it.
    pub(super) fn commit(mut self) -> Writer {
        self.message(NEW_TABLE, CREATE | ACK);
        self.writer.text(1, TABLE);
        self.writer.u32(2, 0);
        self.end()
    }

    /// As [`Batch::commit`], for a batch after which the table must not be there.
    pub(super) fn commit_without_table(mut self) -> Writer {
        self.message(NEW_TABLE, CREATE);
        self.writer.text(1, TABLE);
        self.message(DELETE_TABLE, ACK);
        self.writer.text(1, TABLE);
        self.end()
    }

    fn end(mut self) -> Writer {
        self.writer.message(0x11, REQUEST, &batch_header());
        self.writer
    }

    fn message(&mut self, kind: u16, flags: u16) {
        self.writer
            .message(SUBSYSTEM << 8 | kind, REQUEST | flags, &[INET, 0, 0, 0]);
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        id: Option<u32>,
        elements: &[Element],
    ) {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.message(kind, flags);
            let w = &mut self.writer;
            w.text(1, TABLE);
            w.text(2, set);
            if let Some(id) = id {
                w.u32(4, id);
            }
            let list = w.nest(3);
            for (key, timeout) in some {
                element(w, key, *timeout);
            }
            w.end(list);
        }
    }

    fn rule(&mut self, set: &SetKey, rule: &Rule<'_>) {
        let ports = match rule.ports {
            PortMatch::Any => None,
            PortMatch::In(ports) => Some((self.port_set(ports), 0)),
            PortMatch::NotIn(ports) => Some((self.port_set(ports), 1)),
        };
        self.message(NEW_RULE, CREATE | APPEND);
        let w = &mut self.writer;
        w.text(1, TABLE);
        w.text(2, rule.chain.name());
        let list = w.nest(4);
        meta_is(w, 15, if set.v6 { 10 } else { 2 });
        if let Some(protocol) = rule.protocol {
            meta_is(w, 16, protocol);
        }
        if let Some((id, inverted)) = ports {
            match rule.chain {
                Chain::Input => payload(w, 2, 2, 2),
                Chain::Forward => original_port(w),
            }
            lookup(w, ANONYMOUS, Some(id), inverted);
        }
        match set.v6 {
            true => payload(w, 1, 8, 16),
            false => payload(w, 1, 12, 4),
        }
        if set.prefix < set.key_length() * 8 {
            bitwise(w, &netmask(set.key_length(), set.prefix));
        }
        lookup(w, &set.name(), None, 0);
        if rule.chain == Chain::Forward {
            direction(w, ORIGINAL);
            redirected(w);
        }
        match rule.verdict {
            Verdict::AcceptAnswers => {
                direction(w, REPLY);
                verdict(w, 1);
            }
            Verdict::Drop => verdict(w, 0),
            Verdict::Reset => reject(w, 1, 0),
            Verdict::Unreachable => reject(w, 2, 1),
        }
        w.end(list);
    }

    /// An anonymous set of ports, for the next rule.
    fn port_set(&mut self, ports: &BTreeSet<u16>) -> u32 {
        self.next_set_id += 1;
        let id = self.next_set_id;
        self.message(NEW_SET, CREATE);
        let w = &mut self.writer;
        w.text(1, TABLE);
        w.text(2, ANONYMOUS);
        w.u32(3, SET_ANONYMOUS_CONSTANT);
        w.u32(4, TYPE_PORT);
        w.u32(5, 2);
        w.u32(10, id);
        let elements: Vec<Element> = ports
            .iter()
            .map(|port| (port.to_be_bytes().to_vec(), None))
            .collect();
        self.elements(NEW_ELEMENT, CREATE, ANONYMOUS, Some(id), &elements);
        id
    }
}

/// The kernel numbers it.
const ANONYMOUS: &str = "__set%d";

fn batch_header() -> [u8; 4] {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    [0, 0, high, low]
}

fn element(w: &mut Writer, key: &[u8], timeout: Option<u64>) {
    let one = w.nest(1);
    let data = w.nest(1);
    w.bytes(1, key);
    w.end(data);
    if let Some(timeout) = timeout {
        w.u64(4, timeout);
    }
    w.end(one);
}

fn expression(w: &mut Writer, name: &str, data: impl FnOnce(&mut Writer)) {
    let one = w.nest(1);
    w.text(1, name);
    let inner = w.nest(2);
    data(w);
    w.end(inner);
    w.end(one);
}

/// `meta KEY == VALUE`
fn meta_is(w: &mut Writer, key: u32, value: u8) {
    expression(w, "meta", |w| {
        w.u32(2, key);
        w.u32(1, 1);
    });
    equals(w, value);
}

fn equals(w: &mut Writer, value: u8) {
    expression(w, "cmp", |w| {
        w.u32(1, 1);
        w.u32(2, 0);
        let data = w.nest(3);
        w.bytes(1, &[value]);
        w.end(data);
    });
}

/// Loads bytes of the network (1) or transport (2) header.
fn payload(w: &mut Writer, base: u32, offset: u32, length: u32) {
    expression(w, "payload", |w| {
        w.u32(1, 1);
        w.u32(2, base);
        w.u32(3, offset);
        w.u32(4, length);
    });
}

/// Register 1 and these bits.
fn bitwise(w: &mut Writer, ones: &[u8]) {
    expression(w, "bitwise", |w| {
        w.u32(1, 1);
        w.u32(2, 1);
        w.u32(3, ones.len() as u32);
        for (kind, value) in [(4, ones), (5, &vec![0; ones.len()])] {
            let data = w.nest(kind);
            w.bytes(1, value);
            w.end(data);
        }
    });
}

/// `prefix` ones in `length` bytes.
fn netmask(length: u8, prefix: u8) -> Vec<u8> {
    (0..length)
        .map(|n| match prefix.saturating_sub(n.saturating_mul(8)) {
            bits @ 0..8 => !(0xff_u8 >> bits),
            _ => 0xff,
        })
        .collect()
}

fn lookup(w: &mut Writer, set: &str, id: Option<u32>, flags: u32) {
    expression(w, "lookup", |w| {
        w.text(1, set);
        w.u32(2, 1);
        if let Some(id) = id {
            w.u32(4, id);
        }
        w.u32(5, flags);
    });
}

const ORIGINAL: u8 = 0;
const REPLY: u8 = 1;

/// `ct direction`: original from whoever opened the connection, reply to him.
fn direction(w: &mut Writer, which: u8) {
    expression(w, "ct", |w| {
        w.u32(2, 1);
        w.u32(1, 1);
    });
    equals(w, which);
}

/// Loads `ct original proto-dst`.
fn original_port(w: &mut Writer) {
    expression(w, "ct", |w| {
        w.u32(2, 12);
        w.bytes(3, &[ORIGINAL]);
        w.u32(1, 1);
    });
}

/// `ct status dnat`
fn redirected(w: &mut Writer) {
    const DST_NAT: u32 = 1 << 5;
    expression(w, "ct", |w| {
        w.u32(2, 2);
        w.u32(1, 1);
    });
    bitwise(w, &DST_NAT.to_ne_bytes());
    expression(w, "cmp", |w| {
        w.u32(1, 1);
        w.u32(2, 1);
        let data = w.nest(3);
        w.bytes(1, &[0; 4]);
        w.end(data);
    });
}

fn reject(w: &mut Writer, kind: u32, code: u8) {
    expression(w, "reject", |w| {
        w.u32(1, kind);
        w.bytes(2, &[code]);
    });
}

fn verdict(w: &mut Writer, code: u32) {
    expression(w, "immediate", |w| {
        w.u32(1, 0);
        let data = w.nest(2);
        let inner = w.nest(2);
        w.u32(1, code);
        w.end(inner);
        w.end(data);
    });
}

/// Asks for the ruleset's generation.
pub(super) fn ask_generation(sequence: u32) -> Writer {
    let mut w = Writer::after(sequence);
    w.message(SUBSYSTEM << 8 | GET_GENERATION, REQUEST, &[0; 4]);
    w
}

/// Asks for the rules of the own table.
pub(super) fn ask_rules(sequence: u32) -> Writer {
    let mut w = Writer::after(sequence);
    w.message(SUBSYSTEM << 8 | GET_RULE, REQUEST | DUMP, &[INET, 0, 0, 0]);
    w.text(1, TABLE);
    w
}

/// Asks for one element.
pub(super) fn ask_element(sequence: u32, set: &str, key: &[u8]) -> Writer {
    let mut w = Writer::after(sequence);
    w.message(SUBSYSTEM << 8 | GET_ELEMENT, REQUEST, &[INET, 0, 0, 0]);
    w.text(1, TABLE);
    w.text(2, set);
    let list = w.nest(3);
    element(&mut w, key, None);
    w.end(list);
    w
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_as_many_ones_as_the_prefix_is_long() {
        for (length, prefix, expected) in [
            (4, 0, "00000000"),
            (4, 1, "80000000"),
            (4, 24, "ffffff00"),
            (4, 31, "fffffffe"),
            (4, 32, "ffffffff"),
            (16, 52, "fffffffffffff0000000000000000000"),
            (16, 64, "ffffffffffffffff0000000000000000"),
        ] {
            let mask: String = netmask(length, prefix)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(mask, expected, "/{prefix}");
        }
    }
}
