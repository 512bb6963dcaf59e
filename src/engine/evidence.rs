//! The lines that led to a ban, kept in memory until there is one.

use std::collections::HashMap;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::config::JailName;
use crate::control::LineHit;
use crate::jail::{BanId, is_ban_of};
use crate::record::display;
use crate::store::Op;

/// Lines, classes and virtual hosts kept of one client: the latest.
const MAX_LINES: usize = 5;

/// Bytes kept of a line.
const MAX_LINE: usize = 400;

/// Bytes kept of the name of a virtual host; DNS allows 253.
const MAX_NAME: usize = 255;

/// Bytes of one generation; two are kept.
const MAX_BYTES: usize = 8 << 20;

/// Bytes of an entry beside its texts, about.
const ENTRY: usize = 200;

/// What led to a ban.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Clues {
    /// Oldest first.
    lines: Vec<(Timestamp, String)>,
    classes: Vec<String>,
    vhosts: Vec<String>,
    /// Number of the pattern that the last line hit; 0: of another jail's filter.
    pub(super) pattern: u32,
}

impl Clues {
    fn size(&self) -> usize {
        let lines = self.lines.iter().map(|(_, line)| line);
        let texts = lines.chain(&self.classes).chain(&self.vhosts);
        let text: usize = texts.map(|text| text.len() + ENTRY / 4).sum();
        ENTRY + text
    }

    /// Has the store keep it.
    pub(super) fn of_ban(self, ban: BanId, rule: Option<String>) -> Op {
        Op::Evidence {
            ban,
            lines: self.lines,
            classes: self.classes,
            vhosts: self.vhosts,
            rule,
        }
    }
}

/// Clues by jail and client. A client that hits moves into the young generation; when that is full
/// it becomes the old one, and the clues of the old one are lost.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    young: HashMap<(JailName, IpNet), Clues>,
    old: HashMap<(JailName, IpNet), Clues>,
    bytes: usize,
}

impl Evidence {
    /// Keeps the line of a hit, escaped and cut, with the classes of its attack.
    pub(super) fn note(
        &mut self,
        jail: &JailName,
        net: IpNet,
        at: Timestamp,
        hit: &LineHit,
        (pattern, of_attack): (u32, &[&str]),
    ) {
        let mut clues = self.take(jail, net);
        if clues.lines.len() >= MAX_LINES {
            clues.lines.remove(0);
        }
        let line = display(hit.evidence.as_bytes(), MAX_LINE);
        clues.lines.push((at, line));
        clues.pattern = pattern;
        for class in of_attack {
            add(&mut clues.classes, Some((*class).to_owned()));
        }
        let vhost = hit.vhost.as_ref();
        add(
            &mut clues.vhosts,
            vhost.map(|name| display(name.as_bytes(), MAX_NAME)),
        );
        if self.bytes >= MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += clues.size();
        self.young.insert((jail.clone(), net), clues);
    }

    /// Removes the clues against a client and returns them.
    pub(super) fn take(&mut self, jail: &JailName, net: IpNet) -> Clues {
        let key = (jail.clone(), net);
        if let Some(clues) = self.young.remove(&key) {
            self.bytes -= clues.size();
            return clues;
        }
        self.old.remove(&key).unwrap_or_default()
    }

    /// Removes the clues against every client in `net`.
    pub(super) fn forget(&mut self, net: &IpNet) {
        let others = |(_, client): &(JailName, IpNet)| !is_ban_of(net, client, 1);
        self.old.retain(|key, _| others(key));
        self.young.retain(|key, _| others(key));
        self.bytes = self.young.values().map(Clues::size).sum();
    }
}

/// Adds a word that is not in the list.
fn add(words: &mut Vec<String>, word: Option<String>) {
    if let Some(word) = word.filter(|word| !words.contains(word)) {
        if words.len() >= MAX_LINES {
            words.remove(0);
        }
        words.push(word);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::engine) fn hit(line: &str) -> LineHit {
        LineHit {
            offset: 0,
            arrived: 0,
            client: std::net::Ipv4Addr::LOCALHOST.into(),
            peer: None,
            source: Default::default(),
            claim: None,
            vhost: Some("shop.example.org".to_owned()),
            answered: false,
            jails: Vec::new(),
            config: String::new(),
            evidence: line.to_owned(),
        }
    }

    fn net(n: u32) -> IpNet {
        IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(n)))
    }

    #[test]
    fn the_latest_lines_are_kept_escaped_and_cut() {
        let mut evidence = Evidence::default();
        let jail = "a".parse().unwrap();
        for n in 0..8 {
            let line = format!("{n} \x1b[2J\u{202e}{}", "x".repeat(5_000));
            let class = ["sql", "xss"][n % 2];
            evidence.note(
                &jail,
                net(1),
                Timestamp::UNIX_EPOCH,
                &hit(&line),
                (1, &[class]),
            );
        }
        let Clues {
            lines,
            classes,
            vhosts,
            pattern: _,
        } = evidence.take(&jail, net(1));
        assert_eq!(classes, ["sql", "xss"]);
        assert_eq!(vhosts, ["shop.example.org"]);
        assert_eq!(lines.len(), MAX_LINES);
        assert!(
            lines[0].1.starts_with("3 \\x1b[2J\\u{202e}x"),
            "{}",
            lines[0].1
        );
        assert!(lines.iter().all(|(_, line)| line.len() <= MAX_LINE));
        assert_eq!(evidence.take(&jail, net(1)), Clues::default());
        assert_eq!(evidence.bytes, 0);
        evidence.note(&jail, net(1), Timestamp::UNIX_EPOCH, &hit("a"), (1, &[]));
        evidence.note(&jail, net(2), Timestamp::UNIX_EPOCH, &hit("b"), (1, &[]));
        evidence.forget(&net(1));
        assert_eq!(evidence.take(&jail, net(1)), Clues::default());
        assert_eq!(evidence.take(&jail, net(2)).lines.len(), 1);
        assert_eq!(evidence.bytes, 0);
    }

    #[test]
    fn however_many_clients_hit_memory_is_bounded() {
        let mut evidence = Evidence::default();
        let jail = "a".parse().unwrap();
        let line = hit(&"x".repeat(5_000));
        for n in 0..60_000 {
            evidence.note(&jail, net(n), Timestamp::UNIX_EPOCH, &line, (1, &[]));
            assert!(evidence.bytes <= MAX_BYTES + 4_096);
        }
        let kept = evidence.young.len() + evidence.old.len();
        assert!((10_000..30_000).contains(&kept), "{kept}");
        assert_eq!(evidence.take(&jail, net(59_999)).lines.len(), 1);
        assert_eq!(evidence.take(&jail, net(0)).lines.len(), 0);
    }
}
