//! Which rule of iptables decides about a packet of a client, from `iptables -S`. No input or
//! output.
//!
//! Rules with conditions that are not understood (rates, marks, sets) decide nothing here.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use ipnet::IpNet;

/// Chains within chains at most.
const DEEPEST: usize = 20;

/// The first packet of a connection from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) from: IpNet,
    pub(super) port: u16,
}

/// What decides about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decided {
    /// `ACCEPT`, `DROP`, `DNAT`, ...
    pub(super) target: String,
    /// The rule as listed; of a policy its line.
    pub(super) rule: String,
}

/// Follows a tcp packet through the listed rules from the chain `first` on.
pub(super) fn decided(listed: &str, first: &str, packet: Packet) -> Option<Decided> {
    let mut chains: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut policy = None;
    for line in listed.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("-A"), Some(chain)) => chains.entry(chain).or_default().push(line),
            (Some("-P"), Some(chain)) if chain == first => policy = words.next().zip(Some(line)),
            _ => {}
        }
    }
    let decided = |(target, line): (&str, &str)| Decided {
        target: target.to_owned(),
        rule: line.to_owned(),
    };
    let rule = follow(&chains, first, packet, DEEPEST);
    rule.or(policy).map(decided)
}

fn follow<'l>(
    chains: &HashMap<&'l str, Vec<&'l str>>,
    chain: &str,
    packet: Packet,
    depth: usize,
) -> Option<(&'l str, &'l str)> {
    for line in chains.get(chain)? {
        let Some(target) = matches(line, packet) else {
            continue;
        };
        match target {
            "RETURN" => return None,
            "ACCEPT" | "DROP" | "REJECT" | "DNAT" | "REDIRECT" => return Some((target, line)),
            chain if depth > 0 => {
                let found = follow(chains, chain, packet, depth - 1);
                if found.is_some() {
                    return found;
                }
            }
            _ => {}
        }
    }
    None
}

/// The target of a rule that matches the packet.
fn matches(rule: &str, packet: Packet) -> Option<&str> {
    let mut words = rule.split_whitespace().skip(2);
    let mut not = false;
    while let Some(word) = words.next() {
        if word == "!" {
            not = true;
            continue;
        }
        let mut value = || words.next();
        let holds = match word {
            "-j" | "-g" => return value(),
            "-s" => value()?.parse::<IpNet>().ok()?.contains(&packet.from),
            "-p" => matches!(value()?, "tcp" | "all"),
            "--dport" | "--dports" => value()?.split(',').any(|port| has_port(port, packet.port)),
            "-i" => !is_inside(value()?),
            "--ctstate" | "--state" => value()?.split(',').any(|state| state == "NEW"),
            "--dst-type" => value()? == "LOCAL",
            "-m" => {
                let known = [
                    "tcp",
                    "multiport",
                    "conntrack",
                    "state",
                    "addrtype",
                    "comment",
                ];
                known.contains(&value()?)
            }
            "--comment" => {
                let mut first = value()?;
                // With blanks it is in quotes.
                let quoted = first.starts_with('"');
                while quoted && !(first.ends_with('"') && first.len() > 1) {
                    first = words.next()?;
                }
                true
            }
            _ => return None,
        };
        if holds == not {
            return None;
        }
        not = false;
    }
    None
}

/// Whether no packet from outside comes from this interface.
fn is_inside(interface: &str) -> bool {
    let inside = ["lo", "docker", "br-", "virbr", "veth", "podman", "cni"];
    inside.iter().any(|name| interface.starts_with(name))
}

fn has_port(text: &str, port: u16) -> bool {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&port),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UFW: &str = "-P INPUT DROP
-P FORWARD DROP
-N ufw-before-input
-N ufw-user-input
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
";

    fn of(more: &str, from: &str, port: u16) -> (String, String) {
        let packet = Packet {
            from: from.parse().unwrap(),
            port,
        };
        let found = decided(&format!("{UFW}{more}"), "INPUT", packet).unwrap();
        (found.target, found.rule)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        const DENY: &str =
            "-A ufw-user-input -s 198.51.100.7/32 -p tcp -m multiport --dports 80,443 -j DROP\n";
        const ALLOW: &str = "-A ufw-user-input -p tcp -m tcp --dport 80 -j ACCEPT\n";
        for (rules, target) in [
            (format!("{DENY}{ALLOW}"), "DROP"),
            (format!("{ALLOW}{DENY}"), "ACCEPT"),
            (
                format!("-A ufw-user-input -s 203.0.113.0/24 -j ACCEPT\n{DENY}"),
                "DROP",
            ),
            (
                format!("-A ufw-user-input -s 198.51.100.0/24 -j ACCEPT\n{DENY}"),
                "ACCEPT",
            ),
            (
                format!("-A ufw-user-input ! -s 203.0.113.0/24 -j ACCEPT\n{DENY}"),
                "ACCEPT",
            ),
            (
                format!("-A ufw-user-input -p tcp -m limit --limit 3/min -j ACCEPT\n{DENY}"),
                "DROP",
            ),
            (
                format!("-A ufw-user-input -p udp -m udp --dport 80 -j ACCEPT\n{DENY}"),
                "DROP",
            ),
            (
                format!(
                    "-A ufw-user-input -p tcp -m multiport --dports 1:100 -m comment --comment \"a b\" -j ACCEPT\n{DENY}"
                ),
                "ACCEPT",
            ),
        ] {
            let (found, rule) = of(&rules, "198.51.100.7/32", 80);
            assert_eq!(found, target, "{rules}: {rule}");
        }
        assert_eq!(of(DENY, "198.51.100.8/32", 80).1, "-P INPUT DROP");
        assert_eq!(of(DENY, "198.51.100.7/32", 22).0, "ACCEPT");
    }

    #[test]
    fn dockers_published_port_is_found_behind_its_conditions() {
        let nat = "-P PREROUTING ACCEPT
-N DOCKER
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
";
        let at = |port| {
            let from = "198.51.100.7/32".parse().unwrap();
            let found = decided(nat, "PREROUTING", Packet { from, port });
            found.unwrap().target
        };
        assert_eq!((at(8080).as_str(), at(80).as_str()), ("DNAT", "ACCEPT"));
    }
}
