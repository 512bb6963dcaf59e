//! The lines that led to a ban, kept in memory until there is one.

use std::collections::HashMap;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::config::JailName;
use crate::record::display;

/// Lines of one ban: the latest.
pub(super) const MAX_LINES: usize = 5;

/// Bytes of a line.
const MAX_LINE: usize = 400;

/// Bytes of one generation; two are kept.
const MAX_BYTES: usize = 8 << 20;

/// What an entry costs beside its lines, about.
const ENTRY: usize = 200;

type Lines = Vec<(Timestamp, String)>;

/// Lines by jail and client. A client that hits is moved into the young generation; when that is
/// full, the old one goes, and bans of those clients have no evidence of hits that long ago.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    young: HashMap<(JailName, IpNet), Lines>,
    old: HashMap<(JailName, IpNet), Lines>,
    bytes: usize,
}

impl Evidence {
    /// Keeps a line, escaped and cut whoever sent it.
    pub(super) fn note(&mut self, jail: &JailName, net: IpNet, at: Timestamp, line: &str) {
        let mut lines = self.take(jail, net);
        if lines.len() >= MAX_LINES {
            lines.remove(0);
        }
        lines.push((at, display(line.as_bytes(), MAX_LINE)));
        if self.bytes >= MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += size(&lines);
        self.young.insert((jail.clone(), net), lines);
    }

    /// The lines of a client, oldest first; they are not kept any longer.
    pub(super) fn take(&mut self, jail: &JailName, net: IpNet) -> Lines {
        let key = (jail.clone(), net);
        if let Some(lines) = self.young.remove(&key) {
            self.bytes -= size(&lines);
            return lines;
        }
        self.old.remove(&key).unwrap_or_default()
    }
}

fn size(lines: &Lines) -> usize {
    let text: usize = lines.iter().map(|(_, line)| line.len() + ENTRY / 4).sum();
    ENTRY + text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(n: u32) -> IpNet {
        IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(n)))
    }

    #[test]
    fn the_latest_lines_are_kept_escaped_and_cut() {
        let mut evidence = Evidence::default();
        let jail = "a".parse().unwrap();
        for n in 0..8 {
            let line = format!("{n} \x1b[2J\u{202e}{}", "x".repeat(5_000));
            evidence.note(&jail, net(1), Timestamp::UNIX_EPOCH, &line);
        }
        let lines = evidence.take(&jail, net(1));
        assert_eq!(lines.len(), MAX_LINES);
        assert!(
            lines[0].1.starts_with("3 \\x1b[2J\\u{202e}x"),
            "{}",
            lines[0].1
        );
        assert!(lines.iter().all(|(_, line)| line.len() <= MAX_LINE));
        assert_eq!(evidence.take(&jail, net(1)), []);
        assert_eq!(evidence.bytes, 0);
    }

    #[test]
    fn no_number_of_clients_takes_more_than_two_generations() {
        let mut evidence = Evidence::default();
        let jail = "a".parse().unwrap();
        let line = "x".repeat(5_000);
        for n in 0..60_000 {
            evidence.note(&jail, net(n), Timestamp::UNIX_EPOCH, &line);
            assert!(evidence.bytes <= MAX_BYTES + 4_096);
        }
        let kept = evidence.young.len() + evidence.old.len();
        assert!((10_000..30_000).contains(&kept), "{kept}");
        assert_eq!(evidence.take(&jail, net(59_999)).len(), 1);
        assert_eq!(evidence.take(&jail, net(0)).len(), 0);
    }
}
