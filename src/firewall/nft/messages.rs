//! How nftables wants the table of [`super::layout`] written.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::netlink::Attribute::{self, Bytes, Nest, Text, U32, U64};
use super::super::netlink::{self, ACK, APPEND, CREATE, DUMP, REQUEST, Writer};
use super::layout::{APACHE_PORTS, Chain, PortMatch, Rule, Set, Shape, Verdict};

/// The table, in family `inet`.
pub(super) const TABLE: &str = "pipeban";
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
const GET_SET: u16 = 10;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
const GET_GENERATION: u16 = 16;

const SET_ANONYMOUS_CONSTANT: u32 = 0x3;
const SET_TIMEOUT: u32 = 0x10;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_PORT: u32 = 13;

/// An element: its network, and its timeout in milliseconds (`None`: permanent).
pub(super) type Element = (IpNet, Option<u64>);

/// One transaction: all of it or nothing.
pub(super) struct Batch {
    writer: Writer,
    /// Sequence number of the batch's first message.
    pub(super) begin: u32,
    next_set_id: u32,
}

impl Batch {
    pub(super) fn begin(sequence: u32) -> Batch {
        let mut writer = Writer::after(sequence);
        let begin = writer.message(0x10, REQUEST, &BATCH_HEADER);
        Batch {
            writer,
            begin,
            next_set_id: 0,
        }
    }

    pub(super) fn table(&mut self) {
        self.message(NEW_TABLE, CREATE, &[Text(1, TABLE), U32(2, 0)]);
    }

    pub(super) fn delete_table(&mut self) {
        self.message(DELETE_TABLE, 0, &[Text(1, TABLE)]);
    }

    pub(super) fn chains(&mut self, shape: Shape) {
        for chain in Chain::ALL {
            if chain == Chain::Forward && !shape.forwards {
                continue;
            }
            let (number, priority) = chain.hook();
            let hook = [U32(1, number), Bytes(2, &priority.to_be_bytes())];
            let chain = [
                Text(1, TABLE),
                Text(3, chain.name()),
                Nest(4, &hook),
                U32(5, 1),
                Text(7, "filter"),
            ];
            self.message(NEW_CHAIN, CREATE, &chain);
        }
    }

    /// The set and its rules.
    pub(super) fn set_with_rules(&mut self, set: &Set, shape: Shape) {
        let kind = if set.v6 { TYPE_IPV6 } else { TYPE_IPV4 };
        self.new_set(&set.name(), SET_TIMEOUT, kind, set.key_length());
        for rule in set.rules(shape) {
            self.rule(set, &rule);
        }
    }

    fn new_set(&mut self, name: &str, flags: u32, kind: u32, key_length: u8) -> u32 {
        self.next_set_id += 1;
        let id = self.next_set_id;
        let set = [
            Text(1, TABLE),
            Text(2, name),
            U32(3, flags),
            U32(4, kind),
            U32(5, key_length.into()),
            U32(10, id),
        ];
        self.message(NEW_SET, CREATE, &set);
        id
    }

    pub(super) fn add(&mut self, set: &str, elements: impl Iterator<Item = Element>) {
        self.elements(NEW_ELEMENT, CREATE, set, elements);
    }

    /// Add, delete, add: an element that exists gets the new timeout (an add alone changes it only
    /// since Linux 6.12), and the delete always finds something.
    pub(super) fn put(&mut self, set: &str, elements: &[Element]) {
        self.take(set, elements);
        self.add(set, elements.iter().copied());
    }

    /// Add, delete: to delete what does not exist would undo the whole transaction.
    pub(super) fn take(&mut self, set: &str, elements: &[Element]) {
        let bare = || elements.iter().map(|(net, _)| (*net, None));
        self.add(set, bare());
        self.elements(DELETE_ELEMENT, 0, set, bare());
    }

    /// The messages, ready to be sent. The end's message brings an acknowledgement only on new
    /// kernels, so a last harmless one requests it.
    pub(super) fn commit(mut self) -> Writer {
        self.message(NEW_TABLE, CREATE | ACK, &[Text(1, TABLE), U32(2, 0)]);
        self.end()
    }

    /// As [`Batch::commit`], for a batch after which the table must not exist.
    pub(super) fn commit_without_table(mut self) -> Writer {
        self.table();
        self.message(DELETE_TABLE, ACK, &[Text(1, TABLE)]);
        self.end()
    }

    fn end(mut self) -> Writer {
        self.writer.message(0x11, REQUEST, &BATCH_HEADER);
        self.writer
    }

    fn message(&mut self, kind: u16, flags: u16, attributes: &[Attribute<'_>]) {
        let (kind, flags) = (SUBSYSTEM << 8 | kind, REQUEST | flags);
        self.writer.message(kind, flags, &[INET, 0, 0, 0]);
        self.writer.attributes(attributes);
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        elements: impl Iterator<Item = Element>,
    ) {
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            self.message(kind, flags, &[Text(1, TABLE), Text(2, set)]);
            let w = &mut self.writer;
            let list = w.nest(3);
            for (net, timeout) in elements.by_ref().take(ELEMENTS_PER_MESSAGE) {
                with_key(net, |key| match timeout {
                    Some(left) => w.attributes(&[Nest(1, &[key, U64(4, left)])]),
                    None => w.attributes(&[Nest(1, &[key])]),
                });
            }
            w.end(list);
        }
    }

    fn rule(&mut self, set: &Set, rule: &Rule<'_>) {
        let ports = match rule.ports {
            PortMatch::Any => None,
            PortMatch::In(ports) => Some((self.port_set(ports), 0)),
            PortMatch::NotIn(ports) => Some((self.port_set(ports), 1)),
            PortMatch::Https => Some((self.port_set(&BTreeSet::from([443])), 0)),
            PortMatch::Apache => Some((0, 0)),
        };
        let place = [Text(1, TABLE), Text(2, rule.chain.name())];
        self.message(NEW_RULE, CREATE | APPEND, &place);
        let w = &mut self.writer;
        let list = w.nest(4);
        meta_is(w, 15, if set.v6 { 10 } else { 2 });
        if let Some(protocol) = rule.protocol {
            meta_is(w, 16, protocol);
        }
        if let Some((id, inverted)) = ports {
            match rule.chain {
                Chain::Prerouting | Chain::Input => payload(w, 2, 2, 2),
                Chain::Forward => {
                    expression(w, "ct", &[U32(2, 12), Bytes(3, &[ORIGINAL]), REGISTER])
                }
            }
            match rule.ports {
                PortMatch::Apache => {
                    let lookup = [Text(1, APACHE_PORTS), U32(2, 1), U32(5, 0)];
                    expression(w, "lookup", &lookup);
                }
                _ => {
                    let lookup = [Text(1, ANONYMOUS), U32(2, 1), U32(4, id), U32(5, inverted)];
                    expression(w, "lookup", &lookup);
                }
            }
        }
        match set.v6 {
            true => payload(w, 1, 8, 16),
            false => payload(w, 1, 12, 4),
        }
        if set.prefix < set.key_length() * 8 {
            bitwise(w, &netmask(set.key_length(), set.prefix));
        }
        expression(w, "lookup", &[Text(1, &set.name()), U32(2, 1), U32(5, 0)]);
        match rule.chain {
            Chain::Prerouting => to_this_host(w),
            Chain::Input => {}
            Chain::Forward => {
                direction(w, ORIGINAL);
                redirected(w);
            }
        }
        match rule.verdict {
            Verdict::AcceptAnswers => {
                direction(w, REPLY);
                verdict(w, 1);
            }
            Verdict::Drop => verdict(w, 0),
            Verdict::Reset => expression(w, "reject", &[U32(1, 1), Bytes(2, &[0])]),
            Verdict::Unreachable => expression(w, "reject", &[U32(1, 2), Bytes(2, &[1])]),
        }
        w.end(list);
    }

    /// An anonymous set of ports, for the next rule.
    fn port_set(&mut self, ports: &BTreeSet<u16>) -> u32 {
        let id = self.new_set(ANONYMOUS, SET_ANONYMOUS_CONSTANT, TYPE_PORT, 2);
        self.ports(ANONYMOUS, id, ports);
        id
    }

    /// The set of Apache's tcp ports.
    pub(super) fn apache_ports(&mut self, ports: &BTreeSet<u16>) {
        let id = self.new_set(APACHE_PORTS, 0, TYPE_PORT, 2);
        if !ports.is_empty() {
            self.ports(APACHE_PORTS, id, ports);
        }
    }

    fn ports(&mut self, name: &str, id: u32, ports: &BTreeSet<u16>) {
        let set = [Text(1, TABLE), Text(2, name), U32(4, id)];
        self.message(NEW_ELEMENT, CREATE, &set);
        let list = self.writer.nest(3);
        for port in ports {
            let key = [Bytes(1, &port.to_be_bytes())];
            self.writer.attributes(&[Nest(1, &[Nest(1, &key)])]);
        }
        self.writer.end(list);
    }
}

/// The kernel numbers it.
const ANONYMOUS: &str = "__set%d";
const BATCH_HEADER: [u8; 4] = [0, 0, 0, 10];
/// The destination register of most expressions.
const REGISTER: Attribute<'_> = U32(1, 1);

/// Calls `write` with the key of the network's element.
fn with_key<T>(net: IpNet, write: impl FnOnce(Attribute<'_>) -> T) -> T {
    match net.network() {
        IpAddr::V4(a) => write(Nest(1, &[Bytes(1, &a.octets())])),
        IpAddr::V6(a) => write(Nest(1, &[Bytes(1, &a.octets())])),
    }
}

fn expression(w: &mut Writer, name: &str, attributes: &[Attribute<'_>]) {
    w.attributes(&[Nest(1, &[Text(1, name), Nest(2, attributes)])]);
}

/// `meta KEY == VALUE`
fn meta_is(w: &mut Writer, key: u32, value: u8) {
    expression(w, "meta", &[U32(2, key), REGISTER]);
    compare(w, EQUAL, &[value]);
}

const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

fn compare(w: &mut Writer, how: u32, value: &[u8]) {
    let value = [Bytes(1, value)];
    expression(w, "cmp", &[REGISTER, U32(2, how), Nest(3, &value)]);
}

/// `fib daddr type local`
fn to_this_host(w: &mut Writer) {
    const ADDRESS_TYPE: u32 = 3;
    const DESTINATION: u32 = 2;
    const LOCAL: u32 = 2;
    let fib = [REGISTER, U32(2, ADDRESS_TYPE), U32(3, DESTINATION)];
    expression(w, "fib", &fib);
    compare(w, EQUAL, &LOCAL.to_ne_bytes());
}

/// Loads bytes of the network (1) or transport (2) header.
fn payload(w: &mut Writer, base: u32, offset: u32, length: u32) {
    let payload = [REGISTER, U32(2, base), U32(3, offset), U32(4, length)];
    expression(w, "payload", &payload);
}

/// Register 1 and these bits.
fn bitwise(w: &mut Writer, ones: &[u8]) {
    let zeros = vec![0; ones.len()];
    let (mask, xor) = ([Bytes(1, ones)], [Bytes(1, &zeros)]);
    let length = u32::try_from(ones.len()).unwrap_or(0);
    let bitwise = [
        REGISTER,
        U32(2, 1),
        U32(3, length),
        Nest(4, &mask),
        Nest(5, &xor),
    ];
    expression(w, "bitwise", &bitwise);
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

const ORIGINAL: u8 = 0;
const REPLY: u8 = 1;

/// `ct direction`: original from the side that opened the connection, reply to it.
fn direction(w: &mut Writer, which: u8) {
    expression(w, "ct", &[U32(2, 1), REGISTER]);
    compare(w, EQUAL, &[which]);
}

/// `ct status dnat`
fn redirected(w: &mut Writer) {
    const DST_NAT: u32 = 1 << 5;
    expression(w, "ct", &[U32(2, 2), REGISTER]);
    bitwise(w, &DST_NAT.to_ne_bytes());
    compare(w, UNEQUAL, &[0; 4]);
}

fn verdict(w: &mut Writer, code: u32) {
    let verdict = [Nest(2, &[U32(1, code)])];
    expression(w, "immediate", &[U32(1, 0), Nest(2, &verdict)]);
}

pub(super) fn get_generation(sequence: u32) -> Writer {
    let mut w = Writer::after(sequence);
    w.message(SUBSYSTEM << 8 | GET_GENERATION, REQUEST, &[0; 4]);
    w
}

pub(super) fn generation(payload: &[u8]) -> Option<u32> {
    let value = netlink::attribute(payload.get(4..)?, 1)?;
    netlink::array(value, 0).map(u32::from_be_bytes)
}

fn get(sequence: u32, kind: u16, flags: u16, attributes: &[Attribute<'_>]) -> Writer {
    let mut w = Writer::after(sequence);
    w.message(SUBSYSTEM << 8 | kind, REQUEST | flags, &[INET, 0, 0, 0]);
    w.attributes(&[Text(1, TABLE)]);
    w.attributes(attributes);
    w
}

/// Lists the rules of the table.
pub(super) fn get_rules(sequence: u32) -> Writer {
    get(sequence, GET_RULE, DUMP, &[])
}

/// The named set in which a rule looks an address up.
pub(super) fn set_of_rule(payload: &[u8]) -> Option<String> {
    let expressions = netlink::attribute(payload.get(4..)?, 4)?;
    netlink::attributes(expressions)
        .filter(|(_, one)| {
            netlink::attribute(one, 1).map(netlink::text) == Some(b"lookup".as_slice())
        })
        .filter_map(|(_, one)| netlink::attribute(netlink::attribute(one, 2)?, 1))
        .map(|name| String::from_utf8_lossy(netlink::text(name)).into_owned())
        .find(|name| !name.starts_with("__set") && name != APACHE_PORTS)
}

/// Lists the sets of the table.
pub(super) fn get_sets(sequence: u32) -> Writer {
    get(sequence, GET_SET, DUMP, &[])
}

pub(super) fn set_name(payload: &[u8]) -> Option<String> {
    let name = netlink::attribute(payload.get(4..)?, 2)?;
    Some(String::from_utf8_lossy(netlink::text(name)).into_owned())
}

/// Queries one element.
pub(super) fn get_element(sequence: u32, set: &str, net: IpNet) -> Writer {
    with_key(net, |key| {
        let elements = [Nest(1, &[key])];
        get(
            sequence,
            GET_ELEMENT,
            0,
            &[Text(2, set), Nest(3, &elements)],
        )
    })
}

/// Queries one of Apache's ports.
pub(super) fn get_apache_port(sequence: u32, port: u16) -> Writer {
    let key = [Bytes(1, &port.to_be_bytes())];
    let elements = [Nest(1, &[Nest(1, &key)])];
    let attributes = [Text(2, APACHE_PORTS), Nest(3, &elements)];
    get(sequence, GET_ELEMENT, 0, &attributes)
}

/// Lists the elements of a set.
pub(super) fn get_elements(sequence: u32, set: &str) -> Writer {
    get(sequence, GET_ELEMENT, DUMP, &[Text(2, set)])
}

/// Address and time left in milliseconds (`None`: permanent) of each element.
pub(super) fn elements(payload: &[u8]) -> impl Iterator<Item = (IpAddr, Option<u64>)> {
    let list = payload
        .get(4..)
        .and_then(|some| netlink::attribute(some, 3));
    netlink::attributes(list.unwrap_or(&[])).filter_map(|(_, one)| {
        let key = netlink::attribute(netlink::attribute(one, 1)?, 1)?;
        let address = match key.len() {
            4 => IpAddr::from(netlink::array::<4>(key, 0)?),
            _ => IpAddr::from(netlink::array::<16>(key, 0)?),
        };
        let left = netlink::attribute(one, 5).and_then(|left| netlink::array(left, 0));
        Some((address, left.map(u64::from_be_bytes)))
    })
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
