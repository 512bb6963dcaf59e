//! A ban as ufw rules, and ufw's own words read back. No input or output.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashSet};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::config::Ports;

/// Begins the comment of every rule that is ours.
const MARK: &str = "pipeban:";
const FOR_EVER: &str = "further notice";
/// iptables' multiport takes 15 numbers; a range counts as two.
const MOST_PORTS: usize = 15;
const LONGEST_JAIL: usize = 64;

/// One deny rule of ufw. The address is masked and unmapped, ports are as ufw writes them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Rule {
    pub(super) net: IpNet,
    /// `None`: all, which has no ports either.
    pub(super) protocol: Option<Protocol>,
    /// `80,443` or `1:21,23:65535`; `None`: all.
    pub(super) ports: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    fn of(word: &str) -> Option<Protocol> {
        match word {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            _ => None,
        }
    }
}

/// The rules that a ban needs: ufw wants one for each protocol. Empty where ufw cannot express it
/// (all ports but sshd's, when sshd has more than six).
pub(super) fn rules(net: IpNet, ports: &Ports, ssh: &BTreeSet<u16>) -> Vec<Rule> {
    let rule = |protocol, ports| Rule {
        net,
        protocol,
        ports,
    };
    match ports {
        Ports::All => vec![rule(None, None)],
        // Ranges around sshd's ports, never an `allow` for them: that would let a banned client
        // in where the administrator does not.
        Ports::AllButSsh => {
            let around = ranges_around(ssh);
            match around.len() * 2 <= MOST_PORTS {
                true => vec![
                    rule(Some(Protocol::Tcp), Some(around.join(","))),
                    rule(Some(Protocol::Udp), None),
                ],
                false => Vec::new(),
            }
        }
        Ports::List { tcp, udp } => [(Protocol::Tcp, tcp), (Protocol::Udp, udp)]
            .into_iter()
            .flat_map(|(protocol, ports)| {
                let all: Vec<String> = ports.iter().map(u16::to_string).collect();
                all.chunks(MOST_PORTS)
                    .map(|some| rule(Some(protocol), Some(some.join(","))))
                    .collect::<Vec<_>>()
            })
            .collect(),
    }
}

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

impl Rule {
    /// `ufw` arguments that put it before all others.
    pub(super) fn prepend(&self, comment: &str) -> Vec<String> {
        let mut argv = vec!["prepend".to_owned()];
        argv.extend(self.update(comment));
        argv
    }

    /// `ufw` arguments that change the comment of the rule where it stands (`prepend` skips a
    /// rule that exists).
    pub(super) fn update(&self, comment: &str) -> Vec<String> {
        let mut argv = self.words();
        argv.extend(["comment".to_owned(), comment.to_owned()]);
        argv
    }

    /// `ufw` arguments that take it away.
    pub(super) fn delete(&self) -> Vec<String> {
        let mut argv = vec!["delete".to_owned()];
        argv.extend(self.words());
        argv
    }

    fn words(&self) -> Vec<String> {
        let mut words = vec!["deny".to_owned()];
        let mut put = |some: &[&str]| words.extend(some.iter().map(|w| (*w).to_owned()));
        if let Some(protocol) = self.protocol {
            put(&["proto", protocol.word()]);
        }
        put(&["from", &address(self.net)]);
        if let Some(ports) = &self.ports {
            put(&["to", "any", "port", ports]);
        }
        words
    }
}

/// A single address without its prefix length.
fn address(net: IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

/// `pipeban:JAIL until TIME`, in characters that ufw takes.
pub(super) fn comment(jail: &str, until: Option<Timestamp>) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let jail: String = jail
        .chars()
        .take(LONGEST_JAIL)
        .map(|c| if allowed(c) { c } else { '_' })
        .collect();
    let until = match until.map(|t| Timestamp::from_second(t.as_second())) {
        Some(Ok(whole_seconds)) => whole_seconds.to_string(),
        Some(Err(_)) | None => FOR_EVER.to_owned(),
    };
    format!("{MARK}{jail} until {until}")
}

/// Whether a comment is ours, and says that its ban is over.
pub(super) fn is_over(comment: &str, now: Timestamp) -> bool {
    comment
        .strip_prefix(MARK)
        .and_then(|rest| rest.rsplit_once(" until "))
        .and_then(|(_, end)| end.parse::<Timestamp>().ok())
        .is_some_and(|end| end <= now)
}

/// A rule as `ufw show added` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Existing {
    /// Its words after `ufw`, without comment: what `ufw delete` takes.
    pub(super) words: Vec<String>,
    /// `None`: without.
    pub(super) comment: Option<String>,
}

impl Existing {
    pub(super) fn is_ours(&self) -> bool {
        self.comment.as_ref().is_some_and(|c| c.starts_with(MARK))
    }

    pub(super) fn is_deny(&self) -> bool {
        self.words.first().is_some_and(|word| word == "deny")
    }

    /// As one of our rules, where it says no more than those do. The action may be another one:
    /// for ufw, what differs only in its action is the same rule.
    pub(super) fn rule(&self) -> Option<Rule> {
        let mut words = self.words.iter().map(String::as_str);
        words.next()?;
        let (mut net, mut ports, mut protocol) = (None, None, None);
        while let Some(word) = words.next() {
            match word {
                "from" => net = Some(network(words.next()?)?),
                "to" => {
                    (words.next()? == "any" && words.next()? == "port").then_some(())?;
                    ports = Some(words.next()?.to_owned());
                }
                "proto" => protocol = Some(Protocol::of(words.next()?)?),
                _ => return None,
            }
        }
        Some(Rule {
            net: net?,
            protocol,
            ports,
        })
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?)))
}

/// The rules in the output of `ufw show added`; other lines say nothing.
pub(super) fn parse_added(output: &str) -> Vec<Existing> {
    output
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix("ufw ")?;
            // A comment holds no quote: ufw refuses it.
            let (words, comment) = match rest.split_once(" comment '") {
                Some((words, comment)) => (words, Some(comment.strip_suffix('\'')?.to_owned())),
                None => (rest, None),
            };
            Some(Existing {
                words: words.split_whitespace().map(str::to_owned).collect(),
                comment,
            })
        })
        .collect()
}

/// The rule in a line of `iptables -S ufw-user-input`, if it drops.
pub(super) fn parse_kernel(line: &str) -> Option<Rule> {
    let mut words = line.split_whitespace();
    (words.next()? == "-A").then_some(())?;
    words.next()?;
    let (mut net, mut ports, mut protocol, mut drops) = (None, None, None, false);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word {
            "-s" => net = Some(network(value)?),
            "-p" => protocol = Some(Protocol::of(value)?),
            "-m" => matches!(value, "tcp" | "udp" | "multiport").then_some(())?,
            "--dport" | "--dports" => ports = Some(value.to_owned()),
            "-j" => drops = value == "DROP",
            _ => return None,
        }
    }
    drops.then_some(Rule {
        net: net?,
        protocol,
        ports,
    })
}

/// Input for `iptables-restore --noflush` that deletes those of the listed rules; empty where
/// there is none.
pub(super) fn without(listed: &str, rules: &HashSet<Rule>) -> String {
    let deletions: String = listed
        .lines()
        .filter(|line| parse_kernel(line).is_some_and(|rule| rules.contains(&rule)))
        .filter_map(|line| Some(format!("-D{}\n", line.strip_prefix("-A")?)))
        .collect();
    match deletions.is_empty() {
        true => deletions,
        false => format!("*filter\n{deletions}COMMIT\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tcp: &[u16], udp: &[u16]) -> Ports {
        Ports::List {
            tcp: tcp.iter().copied().collect(),
            udp: udp.iter().copied().collect(),
        }
    }

    fn of(net: &str, ports: &Ports) -> Vec<Rule> {
        rules(net.parse().unwrap(), ports, &BTreeSet::from([22]))
    }

    #[test]
    fn a_ban_is_told_to_ufw_in_numbers_one_rule_a_protocol() {
        for (net, ports, expected) in [
            (
                "203.0.113.5/32",
                list(&[80, 443], &[443]),
                vec![
                    "deny proto tcp from 203.0.113.5 to any port 80,443",
                    "deny proto udp from 203.0.113.5 to any port 443",
                ],
            ),
            (
                "2001:db8:1::/64",
                list(&[8080], &[]),
                vec!["deny proto tcp from 2001:db8:1::/64 to any port 8080"],
            ),
            (
                "203.0.113.0/24",
                Ports::All,
                vec!["deny from 203.0.113.0/24"],
            ),
            (
                "2001:db8::1/128",
                Ports::AllButSsh,
                vec![
                    "deny proto tcp from 2001:db8::1 to any port 1:21,23:65535",
                    "deny proto udp from 2001:db8::1",
                ],
            ),
        ] {
            let words: Vec<_> = of(net, &ports)
                .iter()
                .map(|rule| rule.words().join(" "))
                .collect();
            assert_eq!(words, expected);
        }
    }

    #[test]
    fn more_ports_than_multiport_takes_are_more_rules() {
        let many: Vec<u16> = (1..=17).collect();
        let found = of("192.0.2.1/32", &list(&many, &[]));
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].ports.as_deref(), Some("16,17"));
    }

    #[test]
    fn ranges_leave_out_exactly_the_spared_ports() {
        for (spared, expected) in [
            (vec![], vec!["1:65535"]),
            (vec![22], vec!["1:21", "23:65535"]),
            (vec![1, 3], vec!["2", "4:65535"]),
            (vec![22, 23, 65535], vec!["1:21", "24:65534"]),
        ] {
            let spared = spared.into_iter().collect();
            assert_eq!(ranges_around(&spared), expected, "{spared:?}");
        }
        let seven = (1..8).map(|n| n * 1000).collect();
        let net = "192.0.2.1/32".parse().unwrap();
        assert!(rules(net, &Ports::AllButSsh, &seven).is_empty());
    }

    #[test]
    fn arguments_are_words_of_their_own() {
        let found = of("203.0.113.5/32", &list(&[80], &[]));
        let text = comment("wp-login", Some("2026-11-22T12:00:00.75Z".parse().unwrap()));
        assert_eq!(text, "pipeban:wp-login until 2026-11-22T12:00:00Z");
        assert_eq!(
            found[0].prepend(&text),
            [
                "prepend",
                "deny",
                "proto",
                "tcp",
                "from",
                "203.0.113.5",
                "to",
                "any",
                "port",
                "80",
                "comment",
                &text
            ]
        );
        assert_eq!(found[0].update(&text)[0], "deny");
        assert_eq!(
            found[0].delete(),
            [
                "delete",
                "deny",
                "proto",
                "tcp",
                "from",
                "203.0.113.5",
                "to",
                "any",
                "port",
                "80"
            ]
        );
    }

    #[test]
    fn a_comment_has_nothing_that_ufw_refuses() {
        assert_eq!(
            comment("it's \u{202e}bad", None),
            "pipeban:it_s__bad until further notice"
        );
        assert!(comment(&"x".repeat(500), None).len() < 110);
    }

    #[test]
    fn only_our_comments_end() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("pipeban:a until 2026-11-22T11:59:59Z", true),
            ("pipeban:a until 2026-11-22T12:00:00Z", true),
            ("pipeban:a until 2026-11-22T12:00:01Z", false),
            ("pipeban:a until further notice", false),
            ("pipeban:a", false),
            ("mine until 2020-01-01T00:00:00Z", false),
        ] {
            assert_eq!(is_over(text, now), expected, "{text}");
        }
    }

    #[test]
    fn what_ufw_shows_is_read_back() {
        let output = "Added user rules (see 'ufw status' for running firewall):\n\
            ufw deny from 198.51.100.0/24 to any port 8080 proto tcp\n\
            ufw deny from 203.0.113.7 comment 'pipeban:a until further notice'\n\
            ufw deny from 203.0.113.6 proto udp comment 'pipeban:a until further notice'\n\
            ufw allow 80\n\
            ufw allow in on eth0 to any port 22 proto tcp comment 'it is mine'\n\
            ufw deny from 2001:db8:1::/64 to any port 443 proto udp comment 'pipeban:b until x'\n\
            (None)\n";
        let found = parse_added(output);
        assert_eq!(found.len(), 6);
        let ours: Vec<_> = found.iter().map(Existing::is_ours).collect();
        assert_eq!(ours, [false, true, true, false, false, true]);
        let rules: Vec<_> = found
            .iter()
            .map(|one| one.rule().map(|rule| rule.words().join(" ")))
            .collect();
        assert_eq!(
            rules,
            [
                Some("deny proto tcp from 198.51.100.0/24 to any port 8080".to_owned()),
                Some("deny from 203.0.113.7".to_owned()),
                Some("deny proto udp from 203.0.113.6".to_owned()),
                None,
                None,
                Some("deny proto udp from 2001:db8:1::/64 to any port 443".to_owned()),
            ]
        );
    }

    #[test]
    fn the_kernels_rules_are_read_back() {
        for (line, expected) in [
            (
                "-A ufw-user-input -s 203.0.113.5/32 -p tcp -m multiport --dports 80,443 -j DROP",
                Some("deny proto tcp from 203.0.113.5 to any port 80,443"),
            ),
            (
                "-A ufw-user-input -s 198.51.100.0/24 -p tcp -m tcp --dport 8080 -j DROP",
                Some("deny proto tcp from 198.51.100.0/24 to any port 8080"),
            ),
            (
                "-A ufw6-user-input -s 2001:db8::7/128 -j DROP",
                Some("deny from 2001:db8::7"),
            ),
            ("-A ufw-user-input -s 192.0.2.1/32 -j ACCEPT", None),
            ("-A ufw-user-input -s 192.0.2.1/32 -i eth0 -j DROP", None),
            ("-A ufw-user-input -p tcp -m tcp --dport 80 -j ACCEPT", None),
            ("-N ufw-user-input", None),
        ] {
            let found = parse_kernel(line).map(|rule| rule.words().join(" "));
            assert_eq!(found.as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn only_the_rules_named_are_taken_out_of_the_running_chain() {
        let listed = "-N ufw-user-input\n\
            -A ufw-user-input -s 192.0.2.7/32 -p tcp -m multiport --dports 80,443 -j DROP\n\
            -A ufw-user-input -s 192.0.2.7/32 -p tcp -m multiport --dports 80,443 -j ACCEPT\n\
            -A ufw-user-input -s 192.0.2.8/32 -p tcp -m multiport --dports 80,443 -j DROP\n";
        let ports = Ports::List {
            tcp: BTreeSet::from([80, 443]),
            udp: BTreeSet::from([443]),
        };
        let net = "192.0.2.7/32".parse().unwrap();
        let ours: HashSet<Rule> = rules(net, &ports, &BTreeSet::new()).into_iter().collect();
        assert_eq!(
            without(listed, &ours),
            "*filter\n-D ufw-user-input -s 192.0.2.7/32 -p tcp -m multiport --dports 80,443 \
             -j DROP\nCOMMIT\n"
        );
        assert_eq!(without(listed, &HashSet::new()), "");
    }
}
