//! Which sets and rules of the own table a ban needs. No input or output.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::config::{Blocktype, Ports};

/// The kernel takes 255 bytes.
const LONGEST_NAME: usize = 200;

/// Which set an entry is in: one for each family, prefix length and port list in use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SetKey {
    pub(super) v6: bool,
    pub(super) prefix: u8,
    ports: Ports,
    /// What `AllButSsh` leaves open; else empty.
    spared: BTreeSet<u16>,
}

impl SetKey {
    pub(super) fn of(net: IpNet, ports: &Ports, ssh: &BTreeSet<u16>) -> SetKey {
        SetKey {
            v6: matches!(net, IpNet::V6(_)),
            prefix: net.prefix_len(),
            ports: ports.clone(),
            spared: match ports {
                Ports::AllButSsh => ssh.clone(),
                Ports::All | Ports::List { .. } => BTreeSet::new(),
            },
        }
    }

    /// Readable in `nft list ruleset`, and the same after a restart.
    pub(super) fn name(&self) -> String {
        self.short_name(LONGEST_NAME)
    }

    /// The same in `most` letters at most, 20 or more: a long port list becomes its hash.
    pub(super) fn short_name(&self, most: usize) -> String {
        let mut name = format!("v{}_{}", if self.v6 { 6 } else { 4 }, self.prefix);
        let mut list = |letter: char, ports: &BTreeSet<u16>| {
            for (n, port) in ports.iter().enumerate() {
                let _ = match n {
                    0 => write!(name, "_{letter}{port}"),
                    _ => write!(name, "_{port}"),
                };
            }
        };
        match &self.ports {
            Ports::All => list('a', &BTreeSet::from([0])),
            Ports::AllButSsh => list('n', &self.spared),
            Ports::List { tcp, udp } => {
                list('t', tcp);
                list('u', udp);
            }
        }
        if name.len() > most {
            let hash = Sha256::digest(name.as_bytes());
            // `v6_128` stays: what is ours is known by it.
            let bytes = 16.min(most.saturating_sub(7) / 2);
            name.truncate(most.saturating_sub(1 + 2 * bytes));
            name.push('_');
            for byte in hash.iter().take(bytes) {
                let _ = write!(name, "{byte:02x}");
            }
        }
        name
    }

    /// The rules that a set needs, in their order.
    pub(super) fn rules(&self, shape: Shape) -> Vec<Rule<'_>> {
        let mut rules = Vec::new();
        let closed = match &self.ports {
            // A connection that this host opened never has one of these as its local port: the
            // kernel gives a port that is bound to nobody else. Nothing to spare, and no
            // conntrack that could take a client's old connection for one of ours.
            Ports::List { tcp, udp } => [(TCP, tcp), (UDP, udp)]
                .into_iter()
                .filter(|(_, ports)| !ports.is_empty())
                .map(|(protocol, ports)| (protocol, PortMatch::In(ports)))
                .collect(),
            // Answers to what this host asked come in from the banned address as well: let them
            // pass first. Not `ct direction original ... drop`: packets that conntrack does not
            // track (notrack) would not be dropped then. ICMP passes: it opens nothing.
            Ports::All | Ports::AllButSsh => {
                rules.push(Rule {
                    chain: Chain::Input,
                    protocol: None,
                    ports: PortMatch::Any,
                    verdict: Verdict::AcceptAnswers,
                });
                let tcp = match self.spared.is_empty() {
                    true => PortMatch::Any,
                    false => PortMatch::NotIn(&self.spared),
                };
                vec![(TCP, tcp), (UDP, PortMatch::Any)]
            }
        };
        let chains = match shape.forwards {
            true => &[Chain::Input, Chain::Forward][..],
            false => &[Chain::Input],
        };
        for chain in chains {
            rules.extend(closed.iter().map(|(protocol, ports)| Rule {
                chain: *chain,
                protocol: Some(*protocol),
                ports: *ports,
                verdict: match (shape.blocktype, *protocol) {
                    (Blocktype::Drop, _) => Verdict::Drop,
                    (Blocktype::Reject, TCP) => Verdict::Reset,
                    (Blocktype::Reject, _) => Verdict::Unreachable,
                },
            }));
        }
        rules
    }

    /// Bytes of an address.
    pub(super) fn key_length(&self) -> u8 {
        if self.v6 { 16 } else { 4 }
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What is the same for all sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) blocktype: Blocktype,
    /// This host passes packets on: a port may be a container's. Without, the rules for that
    /// would only make the kernel track every connection.
    pub(super) forwards: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    Input,
    /// Here ports are those that the client asked for, and only what was redirected (DNAT)
    /// matches: what this host routes to others is none of its business.
    Forward,
}

impl Chain {
    pub(super) fn name(self) -> &'static str {
        match self {
            Chain::Input => "input",
            Chain::Forward => "forward",
        }
    }
}

/// A rule on a set.
pub(super) struct Rule<'a> {
    pub(super) chain: Chain,
    /// `None`: any protocol.
    pub(super) protocol: Option<u8>,
    pub(super) ports: PortMatch<'a>,
    pub(super) verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answers to connections that this host opened pass this chain.
    AcceptAnswers,
    Drop,
    /// `reject with tcp reset`
    Reset,
    /// `reject with icmpx port-unreachable`
    Unreachable,
}

#[derive(Clone, Copy)]
pub(super) enum PortMatch<'a> {
    Any,
    In(&'a BTreeSet<u16>),
    NotIn(&'a BTreeSet<u16>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(tcp: &[u16], udp: &[u16]) -> Ports {
        Ports::List {
            tcp: tcp.iter().copied().collect(),
            udp: udp.iter().copied().collect(),
        }
    }

    #[test]
    fn each_family_prefix_and_port_list_has_its_own_set() {
        let ssh = BTreeSet::from([22, 2222]);
        let name = |net: &str, ports: &Ports| SetKey::of(net.parse().unwrap(), ports, &ssh).name();
        for (net, ports, expected) in [
            (
                "192.0.2.1/32",
                ports(&[80, 443], &[443]),
                "v4_32_t80_443_u443",
            ),
            ("192.0.2.0/24", ports(&[80], &[]), "v4_24_t80"),
            ("2001:db8::/64", ports(&[], &[443]), "v6_64_u443"),
            ("2001:db8::1/128", Ports::All, "v6_128_a0"),
            ("2001:db8::1/128", Ports::AllButSsh, "v6_128_n22_2222"),
        ] {
            assert_eq!(name(net, &ports), expected);
        }
    }

    #[test]
    fn a_long_port_list_still_has_a_name_of_its_own() {
        let many: Vec<u16> = (60_000..60_100).collect();
        let net = "192.0.2.1/32".parse().unwrap();
        let name = |list: &[u16]| SetKey::of(net, &ports(list, &[]), &BTreeSet::new()).name();
        assert!(name(&many).len() <= LONGEST_NAME);
        assert_ne!(name(&many), name(&many[1..]));
        assert_ne!(name(&many), name(&many[..99]));
    }
}
