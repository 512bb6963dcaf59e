//! A ban as ufw rules, and what ufw wrote read back. No input or output.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use super::super::host::ranges_around;
use crate::config::Ports;

/// Begins the comment of each of pipeban's rules.
const MARK: &str = "pipeban:";
const FOR_EVER: &str = "further notice";
/// iptables' multiport takes 15 numbers; a range counts as two.
const MOST_PORTS: usize = 15;
const LONGEST_JAIL: usize = 64;

/// One deny rule of ufw.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Rule {
    pub(super) net: IpNet,
    /// `deny proto tcp from 192.0.2.7 to any port 80,443`: ufw's words, always in this order.
    pub(super) words: String,
}

impl Rule {
    /// `protocol`: `tcp`, `udp`, or empty for both, without ports. `ports`: empty for all.
    fn new(net: IpNet, protocol: &str, ports: &str) -> Rule {
        let mut words = "deny".to_owned();
        if !protocol.is_empty() {
            words = format!("{words} proto {protocol}");
        }
        words = format!("{words} from {}", address(net));
        if !ports.is_empty() {
            words = format!("{words} to any port {ports}");
        }
        Rule { net, words }
    }

    /// Protocol and ports; empty: all.
    fn parts(&self) -> (&str, &str) {
        let after = |word| self.words.split_once(word).map_or("", |(_, rest)| rest);
        let first = |text: &'_ str| text.split(' ').next().map_or(0, str::len);
        let (protocol, ports) = (after(" proto "), after(" port "));
        (
            protocol.get(..first(protocol)).unwrap_or(""),
            ports.get(..first(ports)).unwrap_or(""),
        )
    }

    /// Whether some packet of a client in `other` matches both.
    fn covers_some_of(&self, other: &Rule) -> bool {
        let ((protocol, ports), (other_protocol, other_ports)) = (self.parts(), other.parts());
        let protocols = protocol.is_empty() || other_protocol.is_empty();
        let range = |text: &str| {
            let (first, last) = text.split_once(':').unwrap_or((text, text));
            Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?))
        };
        let meets = |one: &str| {
            let one = range(one);
            let others = other_ports.split(',').map(range);
            let meets = |(a, b): ((u16, u16), (u16, u16))| a.0 <= b.1 && b.0 <= a.1;
            others
                .into_iter()
                .any(|other| one.zip(other).is_some_and(meets))
        };
        self.net.contains(&other.net)
            && (protocols || protocol == other_protocol)
            && (ports.is_empty() || other_ports.is_empty() || ports.split(',').any(meets))
    }

    /// `ufw` arguments: `first` (`prepend` or `delete`; empty to change the comment of a rule that
    /// exists), the rule, and its comment.
    pub(super) fn argv(&self, first: &str, comment: &str) -> Vec<String> {
        let words = first.split(' ').chain(self.words.split(' '));
        let words = words.filter(|word| !word.is_empty()).map(str::to_owned);
        let comment = (!comment.is_empty()).then(|| ["comment".to_owned(), comment.to_owned()]);
        words.chain(comment.into_iter().flatten()).collect()
    }
}

/// The rules that a ban needs: ufw takes one for each protocol. Empty where ufw cannot express it
/// (all ports but sshd's, when sshd has more than six).
pub(super) fn rules(net: IpNet, ports: &Ports, ssh: &BTreeSet<u16>) -> Vec<Rule> {
    match ports {
        Ports::All => vec![Rule::new(net, "", "")],
        Ports::Apache => rules(net, &Ports::web(), ssh),
        // Ranges around sshd's ports, never an `allow` for them: that would let a banned client
        // in where the administrator does not.
        Ports::AllButSsh => {
            let around = ranges_around(ssh);
            match around.len() * 2 <= MOST_PORTS {
                true => vec![
                    Rule::new(net, "tcp", &around.join(",")),
                    Rule::new(net, "udp", ""),
                ],
                false => Vec::new(),
            }
        }
        Ports::List { tcp, udp } => {
            let mut rules = Vec::new();
            for (protocol, ports) in [("tcp", tcp), ("udp", udp)] {
                let all: Vec<String> = ports.iter().map(u16::to_string).collect();
                let chunks = all.chunks(MOST_PORTS);
                rules.extend(chunks.map(|some| Rule::new(net, protocol, &some.join(","))));
            }
            rules
        }
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

/// Whether a comment is one of pipeban's, and its ban is over.
pub(super) fn is_over(comment: &str, now: Timestamp) -> bool {
    comment.starts_with(MARK) && end_of(comment).is_some_and(|end| end <= now)
}

fn end_of(comment: &str) -> Option<Timestamp> {
    comment.rsplit_once(" until ")?.1.parse().ok()
}

/// Whether two comments name the same jail and, but for some seconds, the same end: clocks drift.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let (Some(end), Some(other_end)) = (end_of(one), end_of(other)) else {
        return one == other;
    };
    let words = |text: &str| text.rsplit_once(" until ").map(|(jail, _)| jail.to_owned());
    words(one) == words(other)
        && end.duration_since(other_end).unsigned_abs() <= Duration::from_secs(5)
}

/// A rule in ufw's files with no more than pipeban's rules have. Its action may be another one:
/// for ufw, rules that differ only in the action are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Existing {
    pub(super) rule: Rule,
    pub(super) is_deny: bool,
    /// Empty: none.
    pub(super) comment: String,
}

impl Existing {
    pub(super) fn is_ours(&self) -> bool {
        self.is_deny && self.comment.starts_with(MARK)
    }
}

/// The rules in `/etc/ufw/user.rules` or `user6.rules`, in lines like
/// `### tuple ### deny tcp 80,443 0.0.0.0/0 any 192.0.2.7 in comment=HEX`.
pub(super) fn parse_file(text: &str) -> Vec<Existing> {
    text.lines().filter_map(parse_tuple).collect()
}

/// The sources of ufw's rules that allow single addresses or networks.
pub fn allowed_by_ufw(rules: &str) -> BTreeSet<String> {
    let source = |line| {
        let (words, _) = tuple(line)?;
        let (action, source) = (words.first()?, words.get(5)?);
        let net = source.parse::<IpNet>().ok();
        let is_one =
            source.parse::<IpAddr>().is_ok() || net.is_some_and(|net| net.prefix_len() > 0);
        (*action == "allow" && is_one).then(|| (*source).to_owned())
    };
    rules.lines().filter_map(source).collect()
}

/// The words of a rule, and its comment.
fn tuple(line: &str) -> Option<(Vec<&str>, &str)> {
    let line = line.strip_prefix("### tuple ###")?;
    let (line, comment) = line.split_once(" comment=").unwrap_or((line, ""));
    Some((line.split_whitespace().collect(), comment))
}

fn parse_tuple(line: &str) -> Option<Existing> {
    let (words, comment) = tuple(line)?;
    let [action, protocol, ports, to, "any", from, "in"] = words[..] else {
        return None;
    };
    // `route:deny` is about packets that the host forwards.
    (matches!(to, "0.0.0.0/0" | "::/0") && !action.contains(':')).then_some(())?;
    Some(Existing {
        rule: Rule::new(network(from)?, any_is_empty(protocol), any_is_empty(ports)),
        is_deny: action == "deny",
        comment: unhex(comment.trim()),
    })
}

fn any_is_empty(word: &str) -> &str {
    if word == "any" { "" } else { word }
}

fn unhex(hex: &str) -> String {
    let digits: Vec<u8> = hex
        .chars()
        .map_while(|c| u8::try_from(c.to_digit(16)?).ok())
        .collect();
    let bytes = digits.chunks_exact(2).map(|pair| match pair {
        [high, low] => high << 4 | low,
        _ => b'?',
    });
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

/// Of rules in ufw's order the first that allows what a later one of pipeban's denies: its words
/// behind `allow`.
pub(super) fn shadow(rules: &[Existing]) -> Option<String> {
    rules.iter().enumerate().find_map(|(at, ours)| {
        let earlier = rules.get(..at)?;
        let allows = |other: &&Existing| !other.is_deny && other.rule.covers_some_of(&ours.rule);
        let allow = earlier.iter().filter(|_| ours.is_ours()).find(allows)?;
        let any = allow.rule.net.prefix_len() == 0;
        let from = if any {
            "any".to_owned()
        } else {
            address(allow.rule.net)
        };
        let words = allow.rule.words.strip_prefix("deny ")?;
        Some(words.replace(&address(allow.rule.net), &from))
    })
}

/// `NAME=yes` or `no`, the last of them.
pub(super) fn parse_setting(text: &str, name: &str) -> Option<bool> {
    text.lines().rev().find_map(|line| {
        let (word, value) = line.split_once('=')?;
        (word.trim() == name).then(|| value.trim().trim_matches('"').eq_ignore_ascii_case("yes"))
    })
}

fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?)))
}

/// The rule in a line of `iptables -S ufw-user-input`, if it drops.
pub(super) fn parse_kernel(line: &str) -> Option<Rule> {
    let mut words = line.split_whitespace();
    (words.next()? == "-A").then_some(())?;
    words.next()?;
    let (mut net, mut ports, mut protocol, mut drops) = (None, "", "", false);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word {
            "-s" => net = Some(network(value)?),
            "-p" => protocol = value,
            "-m" => matches!(value, "tcp" | "udp" | "multiport").then_some(())?,
            "--dport" | "--dports" => ports = value,
            "-j" => drops = value == "DROP",
            _ => return None,
        }
    }
    drops.then_some(Rule::new(net?, protocol, ports))
}

/// Input for `iptables-restore --noflush` that deletes those of the listed rules; empty where none
/// is listed.
pub(super) fn deletions(listed: &str, rules: &HashSet<Rule>) -> String {
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

    fn list(tcp: impl IntoIterator<Item = u16>, udp: impl IntoIterator<Item = u16>) -> Ports {
        Ports::List {
            tcp: tcp.into_iter().collect(),
            udp: udp.into_iter().collect(),
        }
    }

    fn of(net: &str, ports: &Ports) -> Vec<String> {
        let rules = rules(net.parse().unwrap(), ports, &BTreeSet::from([22]));
        rules.into_iter().map(|rule| rule.words).collect()
    }

    #[test]
    fn addresses_that_ufw_allows_are_found() {
        let rules = "### RULES ###\n\n### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n\
                     ### tuple ### allow any any 0.0.0.0/0 any 198.51.100.0/24 in\n\
                     ### tuple ### deny any any 0.0.0.0/0 any 203.0.113.9 in comment=78\n\
                     ### tuple ### allow tcp 22 ::/0 any 2001:db8::7 in\n\
                     ### tuple ### allow tcp 22 ::/0 any ::/0 in\n-A ufw-user-input\n";
        let found: Vec<String> = allowed_by_ufw(rules).into_iter().collect();
        assert_eq!(found, ["198.51.100.0/24", "2001:db8::7"]);
    }
    #[test]
    fn an_allow_rule_before_pipebans_is_found() {
        let ours = "### tuple ### deny tcp 80,443 0.0.0.0/0 any 198.51.100.7 in comment=7069706562616e3a61\n";
        let theirs = "### tuple ### deny tcp 80,443 0.0.0.0/0 any 198.51.100.7 in\n";
        for (allow, expected) in [
            (
                "allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in",
                Some("proto tcp from any to any port 80"),
            ),
            (
                "allow any any 0.0.0.0/0 any 198.51.100.0/24 in",
                Some("from 198.51.100.0/24"),
            ),
            (
                "limit tcp 1:100 0.0.0.0/0 any 0.0.0.0/0 in",
                Some("proto tcp from any to any port 1:100"),
            ),
            ("allow udp 443 0.0.0.0/0 any 0.0.0.0/0 in", None),
            ("allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", None),
            ("allow tcp 80 0.0.0.0/0 any 203.0.113.0/24 in", None),
            ("allow tcp 80 ::/0 any ::/0 in", None),
            ("deny tcp 80 0.0.0.0/0 any 0.0.0.0/0 in", None),
        ] {
            let allow = format!("### tuple ### {allow}\n");
            let found = |text: &str| shadow(&parse_file(text));
            assert_eq!(
                found(&format!("{allow}{ours}")).as_deref(),
                expected,
                "{allow}"
            );
            assert_eq!(found(&format!("{ours}{allow}")), None, "{allow}");
            assert_eq!(found(&format!("{allow}{theirs}")), None, "{allow}");
        }
    }

    #[test]
    fn a_ban_is_one_rule_for_each_protocol() {
        for (net, ports, first, second) in [
            (
                "203.0.113.5/32",
                list([80, 443], [443]),
                "proto tcp from 203.0.113.5 to any port 80,443",
                "proto udp from 203.0.113.5 to any port 443",
            ),
            (
                "2001:db8:1::/64",
                list([8080], []),
                "proto tcp from 2001:db8:1::/64 to any port 8080",
                "",
            ),
            ("203.0.113.0/24", Ports::All, "from 203.0.113.0/24", ""),
            (
                "2001:db8::1/128",
                Ports::AllButSsh,
                "proto tcp from 2001:db8::1 to any port 1:21,23:65535",
                "proto udp from 2001:db8::1",
            ),
            (
                "192.0.2.1/32",
                list(1..=17, []),
                "proto tcp from 192.0.2.1 to any port 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
                "proto tcp from 192.0.2.1 to any port 16,17",
            ),
        ] {
            let expected = [first, second]
                .into_iter()
                .filter(|words| !words.is_empty());
            let expected: Vec<_> = expected.map(|words| format!("deny {words}")).collect();
            assert_eq!(of(net, &ports), expected);
        }
        let rule = Rule::new("192.0.2.1/32".parse().unwrap(), "", "");
        let words = "prepend deny from 192.0.2.1 comment";
        let argv = rule.argv("prepend", "pipeban:a until x");
        assert_eq!(argv.join(" "), format!("{words} pipeban:a until x"));
        assert_eq!(argv.len(), 6);
        assert_eq!(
            rule.argv("delete", ""),
            ["delete", "deny", "from", "192.0.2.1"]
        );
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
    fn a_comment_names_jail_and_end_in_characters_that_ufw_takes() {
        let end: Timestamp = "2026-11-22T12:00:00.75Z".parse().unwrap();
        let text = comment("wp-login", Some(end));
        assert_eq!(text, "pipeban:wp-login until 2026-11-22T12:00:00Z");
        let odd = comment("it's \u{202e}bad", None);
        assert_eq!(odd, "pipeban:it_s__bad until further notice");
        assert!(comment(&"x".repeat(500), None).len() < 110);
        for (other, is_over_then, same) in [
            ("pipeban:wp-login until 2026-11-22T11:59:55Z", true, true),
            ("pipeban:wp-login until 2026-11-22T12:00:00Z", true, true),
            ("pipeban:wp-login until 2026-11-22T12:00:05Z", false, true),
            ("pipeban:wp-login until 2026-11-22T12:00:06Z", false, false),
            ("pipeban:b until 2026-11-22T12:00:00Z", true, false),
            ("pipeban:wp-login until further notice", false, false),
            ("pipeban:wp-login", false, false),
            ("mine until 2020-01-01T00:00:00Z", false, false),
        ] {
            assert_eq!(is_over(other, end), is_over_then, "{other}");
            assert_eq!(is_same(&text, other), same, "{other}");
        }
    }

    #[test]
    fn ufws_files_are_read() {
        let ours = "comment=7069706562616e3a61";
        for (tuple, words) in [
            (
                "deny tcp 8080 0.0.0.0/0 any 198.51.100.0/24 in",
                "proto tcp from 198.51.100.0/24 to any port 8080",
            ),
            (
                "deny any any 0.0.0.0/0 any 203.0.113.7 in",
                "from 203.0.113.7",
            ),
            (
                "deny udp 443 ::/0 any 2001:db8:1::/64 in",
                "proto udp from 2001:db8:1::/64 to any port 443",
            ),
            (
                "allow udp any 0.0.0.0/0 any 203.0.113.6 in",
                "proto udp from 203.0.113.6",
            ),
            ("deny tcp 22 0.0.0.0/0 any 192.0.2.1 in_eth0", ""),
            ("route:deny tcp 22 0.0.0.0/0 any 192.0.2.1 in", ""),
            ("deny tcp 22 0.0.0.0/0 any 192.0.2.1 App - in", ""),
        ] {
            for comment in ["", ours] {
                let text = format!("*filter\n\n### tuple ### {tuple} {comment}\n-A x\n");
                let found = parse_file(&text);
                let found = found.first();
                let expected = (!words.is_empty()).then(|| format!("deny {words}"));
                assert_eq!(found.map(|one| one.rule.words.clone()), expected, "{tuple}");
                let is_ours = tuple.starts_with("deny") && comment == ours;
                assert!(found.is_none_or(|one| one.is_ours() == is_ours), "{tuple}");
            }
        }
        for (text, expected) in [
            ("ENABLED=yes\n", Some(true)),
            ("# ENABLED=yes\nENABLED=no\n", Some(false)),
            ("ENABLED=\"YES\"", Some(true)),
            ("IPV6=yes\n", None),
            ("", None),
        ] {
            assert_eq!(parse_setting(text, "ENABLED"), expected, "{text}");
        }
    }

    #[test]
    fn the_kernels_rules_are_read_and_deleted_by_name() {
        let lines = [
            (
                "-s 203.0.113.5/32 -p tcp -m multiport --dports 80,443 -j DROP",
                "proto tcp from 203.0.113.5 to any port 80,443",
            ),
            (
                "-s 198.51.100.0/24 -p tcp -m tcp --dport 8080 -j DROP",
                "proto tcp from 198.51.100.0/24 to any port 8080",
            ),
            ("-s 2001:db8::7/128 -j DROP", "from 2001:db8::7"),
            ("-s 192.0.2.1/32 -j ACCEPT", ""),
            ("-s 192.0.2.1/32 -i eth0 -j DROP", ""),
            ("-p tcp -m tcp --dport 80 -j ACCEPT", ""),
        ];
        let mut listed = "-N ufw-user-input\n".to_owned();
        for (line, words) in lines {
            let line = format!("-A ufw-user-input {line}");
            let found = parse_kernel(&line).map(|rule| rule.words);
            let expected = (!words.is_empty()).then(|| format!("deny {words}"));
            assert_eq!(found, expected, "{line}");
            listed = format!("{listed}{line}\n");
        }
        let gone = HashSet::from([Rule::new("2001:db8::7/128".parse().unwrap(), "", "")]);
        let expected = "*filter\n-D ufw-user-input -s 2001:db8::7/128 -j DROP\nCOMMIT\n";
        assert_eq!(deletions(&listed, &gone), expected);
        assert_eq!(deletions(&listed, &HashSet::new()), "");
    }
}
