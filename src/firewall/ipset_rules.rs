//! The iptables rules that ask ipset's sets, in two chains of our own. No input or output.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::nft_sets::{Chain, PortMatch, Rule, SetKey, Shape, Verdict};

/// A set's name has 31 letters at most.
const LONGEST_NAME: usize = 29;
/// Begins the name of every set that is ours.
pub(super) const MARK: &str = "pb";
/// iptables' multiport takes 15 numbers.
const MOST_PORTS: usize = 15;

/// Our chain, and the one of iptables that jumps there.
const CHAINS: [(Chain, &str, &str); 2] = [
    (Chain::Input, "pipeban", "INPUT"),
    (Chain::Forward, "pipeban-dnat", "FORWARD"),
];

pub(super) fn set_name(set: &SetKey) -> String {
    format!("{MARK}{}", set.short_name(LONGEST_NAME - MARK.len()))
}

/// Our rules as `iptables-save` tells them: how many ask each set, and which chains are reached.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) rules: BTreeMap<String, usize>,
    /// Those rules as they stand, each with its set, in their order.
    lines: Vec<(String, String)>,
    /// Jumps to our chains.
    jumps: Vec<Chain>,
    chains: Vec<Chain>,
}

/// What of ours is in the output of `iptables-save -t filter`.
pub(super) fn parse(saved: &str) -> Found {
    let mut found = Found::default();
    for line in saved.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        for (chain, ours, theirs) in CHAINS {
            match words.as_slice() {
                [declared, ..] if declared.strip_prefix(':') == Some(ours) => {
                    found.chains.push(chain);
                }
                ["-A", place, "-j", target] if *place == theirs && *target == ours => {
                    found.jumps.push(chain);
                }
                ["-A", place, rest @ ..] if *place == ours => {
                    let mut pairs = rest.windows(2);
                    if let Some([_, set]) = pairs.find(|pair| pair.first() == Some(&"--match-set"))
                    {
                        *found.rules.entry((*set).to_owned()).or_insert(0) += 1;
                        found.lines.push(((*set).to_owned(), line.to_owned()));
                    }
                }
                _ => {}
            }
        }
    }
    found
}

impl Found {
    /// Whether all rules that these sets need are there and are reached.
    pub(super) fn is_whole<'a>(
        &self,
        sets: impl Iterator<Item = &'a SetKey>,
        shape: Shape,
    ) -> bool {
        let reached = used(shape).all(|(chain, _, _)| self.jumps.contains(&chain));
        let mut sets = sets.peekable();
        // Without a ban no chain is needed.
        if sets.peek().is_none() {
            return true;
        }
        reached && sets.all(|set| self.has_rules_of(set, shape))
    }

    pub(super) fn has_rules_of(&self, set: &SetKey, shape: Shape) -> bool {
        let there = self.rules.get(&set_name(set)).copied().unwrap_or(0);
        there >= lines(set, shape).len() && self.jumps.contains(&Chain::Input)
    }

    /// Nothing of ours is there.
    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    /// Input for `iptables-restore --noflush` that makes our chains hold the rules of these sets,
    /// and nothing else unless it is to `keep` the rules of other sets.
    pub(super) fn script<'a>(
        &self,
        sets: impl Iterator<Item = &'a SetKey>,
        shape: Shape,
        keep: bool,
    ) -> String {
        let mut text = "*filter\n".to_owned();
        for (chain, ours, _) in CHAINS {
            // It is emptied where it is there, also one that has no use any more: a set that a
            // rule asks cannot be taken away.
            if used(shape).any(|(used, _, _)| used == chain) || self.chains.contains(&chain) {
                let _ = writeln!(text, ":{ours} - [0:0]");
            }
        }
        let mut written = BTreeSet::new();
        for set in sets {
            for line in lines(set, shape) {
                let _ = writeln!(text, "{line}");
            }
            written.insert(set_name(set));
        }
        let others = self.lines.iter().filter(|(set, _)| !written.contains(set));
        for (_, line) in others.filter(|_| keep) {
            let _ = writeln!(text, "{line}");
        }
        for (chain, ours, theirs) in used(shape) {
            if !self.jumps.contains(&chain) {
                let _ = writeln!(text, "-I {theirs} 1 -j {ours}");
            }
        }
        text.push_str("COMMIT\n");
        text
    }

    /// Input for `iptables-restore --noflush` that takes all of it away.
    pub(super) fn removal(&self) -> String {
        let mut text = "*filter\n".to_owned();
        for (chain, ours, theirs) in CHAINS {
            for _ in self.jumps.iter().filter(|jump| **jump == chain) {
                let _ = writeln!(text, "-D {theirs} -j {ours}");
            }
            if self.chains.contains(&chain) {
                let _ = writeln!(text, "-F {ours}\n-X {ours}");
            }
        }
        text.push_str("COMMIT\n");
        text
    }
}

fn used(shape: Shape) -> impl Iterator<Item = (Chain, &'static str, &'static str)> {
    let all = CHAINS.into_iter();
    all.filter(move |(chain, _, _)| *chain == Chain::Input || shape.forwards)
}

/// A set's rules as iptables takes them.
fn lines(set: &SetKey, shape: Shape) -> Vec<String> {
    let name = set_name(set);
    let rules = set.rules(shape);
    let lines = rules.iter().flat_map(|rule| {
        let asks = format!("-m set --match-set {name} src");
        matches(rule)
            .into_iter()
            .map(move |(what, verdict)| format!("-A {what} {asks} -j {verdict}"))
    });
    lines.collect()
}

/// Chain and matches of one rule, and what becomes of the packet; several where iptables needs
/// several.
fn matches(rule: &Rule<'_>) -> Vec<(String, &'static str)> {
    let ours = match rule.chain {
        Chain::Input => "pipeban",
        Chain::Forward => "pipeban-dnat",
    };
    let protocol = match rule.protocol {
        Some(6) => " -p tcp",
        Some(_) => " -p udp",
        None => "",
    };
    let verdict = match rule.verdict {
        Verdict::AcceptAnswers => {
            return vec![(format!("{ours} -m conntrack --ctdir REPLY"), "RETURN")];
        }
        Verdict::Drop => "DROP",
        Verdict::Reset => "REJECT --reject-with tcp-reset",
        Verdict::Unreachable => "REJECT",
    };
    match (rule.chain, rule.ports) {
        (Chain::Input, PortMatch::Any) => vec![(format!("{ours}{protocol}"), verdict)],
        (Chain::Input, PortMatch::In(ports)) => {
            let all: Vec<String> = ports.iter().map(u16::to_string).collect();
            let some = all.chunks(MOST_PORTS).map(|some| some.join(","));
            some.map(|some| {
                (
                    format!("{ours}{protocol} -m multiport --dports {some}"),
                    verdict,
                )
            })
            .collect()
        }
        (Chain::Input, PortMatch::NotIn(ports)) => spared(ports, |port| {
            format!("{ours}{protocol} -m multiport --dports {port}")
        })
        .chain([(format!("{ours}{protocol}"), verdict)])
        .collect(),
        (Chain::Forward, ports) => {
            let redirected =
                format!("{ours}{protocol} -m conntrack --ctstate DNAT --ctdir ORIGINAL");
            match ports {
                PortMatch::Any => vec![(redirected, verdict)],
                PortMatch::In(ports) => ports
                    .iter()
                    .map(|port| (format!("{redirected} --ctorigdstport {port}"), verdict))
                    .collect(),
                PortMatch::NotIn(ports) => {
                    spared(ports, |port| format!("{redirected} --ctorigdstport {port}"))
                        .chain([(redirected.clone(), verdict)])
                        .collect()
                }
            }
        }
    }
}

/// Ports that a ban leaves open go back before the rest is closed.
fn spared(
    ports: &std::collections::BTreeSet<u16>,
    line: impl Fn(u16) -> String,
) -> impl Iterator<Item = (String, &'static str)> {
    ports.iter().map(move |port| (line(*port), "RETURN"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Blocktype, Ports};
    use std::collections::BTreeSet;

    fn set(ports: Ports) -> SetKey {
        let net = "192.0.2.0/24".parse().unwrap();
        SetKey::of(net, &ports, &BTreeSet::from([22]))
    }

    fn shape(forwards: bool) -> Shape {
        Shape {
            blocktype: Blocktype::Drop,
            forwards,
        }
    }

    #[test]
    fn what_is_written_is_found_whole() {
        let list = set(Ports::List {
            tcp: BTreeSet::from([80, 443]),
            udp: BTreeSet::from([443]),
        });
        for forwards in [false, true] {
            let all = [list.clone(), set(Ports::AllButSsh), set(Ports::All)];
            let script = Found::default().script(all.iter(), shape(forwards), false);
            // As iptables-save prints a jump.
            let saved = script
                .replace("-I INPUT 1", "-A INPUT")
                .replace("-I FORWARD 1", "-A FORWARD");
            let found = parse(&saved);
            assert!(found.is_whole(all.iter(), shape(forwards)), "{saved}");
            assert!(
                !found
                    .script(all.iter(), shape(forwards), false)
                    .contains("-I "),
                "once only"
            );
            for line in saved.lines().filter(|line| line.starts_with("-A")) {
                let damaged = parse(&saved.replace(&format!("{line}\n"), ""));
                assert!(
                    !damaged.is_whole(all.iter(), shape(forwards)),
                    "without {line}"
                );
            }
            assert!(!found.is_empty() && Found::default().is_empty());
            let rules = |text: &str| text.matches("-A ").count();
            let jumps = if forwards { 2 } else { 1 };
            for (keep, expected) in [(true, rules(&saved) - jumps), (false, 0)] {
                let script = found.script([].into_iter(), shape(forwards), keep);
                assert_eq!(rules(&script), expected, "{script}");
            }
            let script = found.script(all.iter(), shape(forwards), true);
            assert_eq!(rules(&script), rules(&saved) - jumps, "none twice");
        }
    }

    #[test]
    fn names_fit_and_differ() {
        let many = |n: u16| {
            set(Ports::List {
                tcp: (60_000..60_000 + n).collect(),
                udp: BTreeSet::new(),
            })
        };
        let names: BTreeSet<String> = (1..15).map(|n| set_name(&many(n))).collect();
        assert_eq!(names.len(), 14);
        assert!(
            names
                .iter()
                .all(|name| name.len() <= LONGEST_NAME && name.starts_with(MARK))
        );
    }
}
