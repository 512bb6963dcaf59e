//! Which sets and rules of table `inet pipeban` a ban needs. No input or output.
//!
//! ```text
//! table inet pipeban {
//!   set v4_32_t80_443_u443 { type ipv4_addr; flags timeout; }
//!   set v6_64_t80_443_u443 { type ipv6_addr; flags timeout; }
//!   set v4_32_apache { type ipv4_addr; flags timeout; }
//!   set v4_32_n22 { type ipv4_addr; flags timeout; }
//!   set apache_ports { type inet_service; elements = { 80, 443, 8443 } }
//!   chain prerouting {
//!     type filter hook prerouting priority -300; policy accept;
//!     meta nfproto ipv4 tcp dport { 80, 443 } ip saddr @v4_32_t80_443_u443 fib daddr type local drop
//!     meta nfproto ipv4 udp dport 443 ip saddr @v4_32_t80_443_u443 fib daddr type local drop
//!     meta nfproto ipv4 tcp dport @apache_ports ip saddr @v4_32_apache fib daddr type local drop
//!     meta nfproto ipv6 tcp dport { 80, 443 } ip6 saddr & ffff:ffff:ffff:ffff:: @v6_64_... drop
//!   }
//!   chain input {     # bans of all ports, and `blocktype = "reject"`
//!     type filter hook input priority -10; policy accept;
//!     meta nfproto ipv4 ip saddr @v4_32_n22 ct direction reply accept
//!     meta nfproto ipv4 tcp dport != 22 ip saddr @v4_32_n22 drop
//!   }
//!   chain forward {   # the same for ports that containers publish, where this host forwards
//!     type filter hook forward priority -10; policy accept;
//!     meta nfproto ipv4 meta l4proto tcp ct original proto-dst != 22 ip saddr @v4_32_n22
//!       ct direction original ct status dnat drop
//!   }
//! }
//! ```
//!
//! At prerouting -300 a packet costs less than half of what it costs at input, conntrack does not
//! see it, and a container's port still has the number that the client used. `fib daddr type
//! local` spares packets that this host forwards to others; it comes last because it costs most.
//!
//! A network is an element of a hash set behind a mask: interval sets take seconds at 100 000
//! bans.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::config::{Blocktype, Ports};

/// The kernel takes 255 bytes.
const LONGEST_NAME: usize = 200;
/// The set of Apache's tcp ports.
pub(super) const APACHE_PORTS: &str = "apache_ports";
/// The end of the names of sets for [`Ports::Apache`].
const APACHE: &str = "_apache";
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A set: one for each family, prefix length and port list in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) v6: bool,
    pub(super) prefix: u8,
    ports: Ports,
    /// The ports that `AllButSsh` leaves open; else empty.
    spared: BTreeSet<u16>,
}

impl Set {
    pub(super) fn of(net: IpNet, ports: &Ports, ssh: &BTreeSet<u16>) -> Set {
        Set {
            v6: matches!(net, IpNet::V6(_)),
            prefix: net.prefix_len(),
            ports: ports.clone(),
            spared: match ports {
                Ports::AllButSsh => ssh.clone(),
                Ports::All | Ports::Apache | Ports::List { .. } => BTreeSet::new(),
            },
        }
    }

    /// Readable in `nft list ruleset`, and the same after a restart.
    pub(super) fn name(&self) -> String {
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
            Ports::Apache => name.push_str(APACHE),
            Ports::AllButSsh => list('n', &self.spared),
            Ports::List { tcp, udp } => {
                list('t', tcp);
                list('u', udp);
            }
        }
        if name.len() > LONGEST_NAME {
            let hash = Sha256::digest(name.as_bytes());
            name.truncate(LONGEST_NAME - 33);
            name.push('_');
            for byte in hash.iter().take(16) {
                let _ = write!(name, "{byte:02x}");
            }
        }
        name
    }

    /// Reads what [`Set::name`] wrote; `None` where the name is not one, or was cut.
    pub(super) fn parse(name: &str) -> Option<Set> {
        let mut words = name.split('_');
        let v6 = match words.next()? {
            "v4" => false,
            "v6" => true,
            _ => return None,
        };
        let prefix = words.next()?.parse().ok()?;
        let (mut tcp, mut udp, mut spared) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (mut letter, mut kind) = (' ', ' ');
        let apache = name.ends_with(APACHE);
        for word in words.filter(|_| !apache) {
            if let Some(first @ ('a' | 'n' | 't' | 'u')) = word.chars().next() {
                letter = first;
                kind = if kind == ' ' { first } else { kind };
            }
            let port = word.trim_start_matches(letter).parse().ok()?;
            match letter {
                'a' => true,
                'n' => spared.insert(port),
                't' => tcp.insert(port),
                'u' => udp.insert(port),
                _ => return None,
            };
        }
        let ports = match kind {
            _ if apache => Ports::Apache,
            'a' => Ports::All,
            'n' => Ports::AllButSsh,
            't' | 'u' => Ports::List { tcp, udp },
            _ => return None,
        };
        let set = Set {
            v6,
            prefix,
            ports,
            spared,
        };
        (set.name() == name).then_some(set)
    }

    pub(super) fn ports(&self) -> &Ports {
        &self.ports
    }

    pub(super) fn holds(&self, net: &IpNet) -> bool {
        matches!(net, IpNet::V6(_)) == self.v6 && net.prefix_len() == self.prefix
    }

    /// Its rules, in their order.
    pub(super) fn rules(&self, shape: Shape) -> Vec<Rule<'_>> {
        let rule = |chain, protocol, ports, verdict| Rule {
            chain,
            protocol: Some(protocol),
            ports,
            verdict,
        };
        let mut rules = Vec::new();
        let closed = match &self.ports {
            // A connection that this host opened never has one of these as its local port: the
            // kernel gives a port that no program listens on.
            Ports::List { tcp, udp } => [(TCP, tcp), (UDP, udp)]
                .into_iter()
                .filter(|(_, ports)| !ports.is_empty())
                .map(|(protocol, ports)| (protocol, PortMatch::In(ports)))
                .collect(),
            Ports::Apache => vec![(TCP, PortMatch::Apache), (UDP, PortMatch::Https)],
            // Answers to this host's own connections come from the banned address as well: they
            // pass first. Not `ct direction original ... drop`: packets that conntrack does not
            // track (notrack) would pass then. ICMP passes: it opens nothing.
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
        let verdict = |protocol| match (shape.blocktype, protocol) {
            (Blocktype::Drop, _) => Verdict::Drop,
            (Blocktype::Reject, TCP) => Verdict::Reset,
            (Blocktype::Reject, _) => Verdict::Unreachable,
        };
        let listed = matches!(self.ports, Ports::List { .. } | Ports::Apache);
        let early = listed && shape.blocktype == Blocktype::Drop;
        let chains = match (early, shape.forwards) {
            (true, _) => &[Chain::Prerouting][..],
            (false, true) => &[Chain::Input, Chain::Forward],
            (false, false) => &[Chain::Input],
        };
        for chain in chains {
            let of = closed.iter();
            rules.extend(
                of.map(|(protocol, ports)| rule(*chain, *protocol, *ports, verdict(*protocol))),
            );
        }
        rules
    }

    /// Bytes of an address.
    pub(super) fn key_length(&self) -> u8 {
        if self.v6 { 16 } else { 4 }
    }
}

/// What is the same for all sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) blocktype: Blocktype,
    /// This host forwards packets, so that a port may be a container's. Without, the rules for
    /// that would only make the kernel track every connection.
    pub(super) forwards: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// Before conntrack: sees each packet as the client sent it.
    Prerouting,
    Input,
    /// Only packets that were redirected (DNAT) match: the rest is none of this host's business.
    Forward,
}

impl Chain {
    pub(super) const ALL: [Chain; 3] = [Chain::Prerouting, Chain::Input, Chain::Forward];

    pub(super) fn name(self) -> &'static str {
        match self {
            Chain::Prerouting => "prerouting",
            Chain::Input => "input",
            Chain::Forward => "forward",
        }
    }

    /// The hook's number and priority.
    pub(super) fn hook(self) -> (u32, i32) {
        match self {
            Chain::Prerouting => (0, -300),
            // Before ufw's chains, after conntrack.
            Chain::Input => (1, -10),
            Chain::Forward => (2, -10),
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
    /// Those in [`APACHE_PORTS`].
    Apache,
    Https,
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
    fn each_family_prefix_and_port_list_has_its_set() {
        let ssh = BTreeSet::from([22, 2222]);
        for (net, ports, expected) in [
            (
                "192.0.2.1/32",
                ports(&[80, 443], &[443]),
                "v4_32_t80_443_u443",
            ),
            ("192.0.2.0/24", ports(&[80], &[]), "v4_24_t80"),
            ("2001:db8::/64", ports(&[], &[443]), "v6_64_u443"),
            ("2001:db8::1/128", Ports::All, "v6_128_a0"),
            ("192.0.2.1/32", Ports::Apache, "v4_32_apache"),
            ("2001:db8::1/128", Ports::AllButSsh, "v6_128_n22_2222"),
        ] {
            let set = Set::of(net.parse().unwrap(), &ports, &ssh);
            assert_eq!(set.name(), expected);
            assert_eq!(Set::parse(expected), Some(set));
        }
        for name in [
            "",
            "v4",
            "v4_32",
            "v5_32_t80",
            "v4_32_t",
            "v4_32_80",
            "foreign",
            APACHE_PORTS,
        ] {
            assert_eq!(Set::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_long_port_list_has_a_unique_name() {
        let many: Vec<u16> = (60_000..60_100).collect();
        let net = "192.0.2.1/32".parse().unwrap();
        let name = |list: &[u16]| Set::of(net, &ports(list, &[]), &BTreeSet::new()).name();
        assert!(name(&many).len() <= LONGEST_NAME);
        assert_ne!(name(&many), name(&many[1..]));
        assert_ne!(name(&many), name(&many[..99]));
        assert_eq!(Set::parse(&name(&many)), None);
    }
}
