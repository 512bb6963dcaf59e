//! The ports that a ban closes.

use super::actions::Entry;
use super::values::words;

/// More than this do not fit a ufw rule.
const MOST: usize = 15;

/// The value of `port` in a file, and what to say about it.
pub(super) fn ports(
    jail: &str,
    firewall: Option<&Entry>,
    service: &dyn Fn(&str) -> Option<u16>,
) -> (String, Option<String>) {
    let all = || "\"all\"".to_owned();
    let text = match firewall {
        Some(entry) if entry.closes_all_ports() => return (all(), None),
        Some(entry) => match entry.options.get("port") {
            Some(port) => port.as_str(),
            // Without a port, the action's file closes that of ssh.
            None => {
                let note = format!(
                    "fail2ban's action `{}` names no port, and closes that of ssh only; pipeban \
                     closes Apache's",
                    entry.name
                );
                return ("[\"http\", \"https\"]".to_owned(), Some(note));
            }
        },
        None => jail,
    };
    let mut ports: Vec<String> = Vec::new();
    let mut unknown = Vec::new();
    for word in words(text) {
        match word.as_str() {
            "all" | "anyport" | "any" | "0:65535" | "1:65535" => return (all(), None),
            "http" | "https" | "ssh" => ports.push(format!("\"{word}\"")),
            _ => match range(&word).or_else(|| service(&word).map(|port| port..=port)) {
                Some(range) if range.len() > MOST => {
                    let note = format!("`{word}` is more than {MOST} ports: all are closed");
                    return (all(), Some(note));
                }
                Some(range) => ports.extend(range.map(|port| port.to_string())),
                None => unknown.push(word),
            },
        }
    }
    ports.dedup();
    if ports.len() > MOST {
        let note = format!("more than {MOST} ports: all are closed");
        return (all(), Some(note));
    }
    let note = (!unknown.is_empty()).then(|| {
        format!(
            "skipped ports that pipeban does not know: {}",
            unknown.join(", ")
        )
    });
    if ports.is_empty() {
        return ("[\"http\", \"https\"]".to_owned(), note);
    }
    (format!("[{}]", ports.join(", ")), note)
}

/// `8080`, `8000:8010`, `8000-8010`
fn range(word: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = word.split_once([':', '-']).unwrap_or((word, word));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::actions::entries;

    #[test]
    fn ports_of_fail2ban_are_those_of_pipeban() {
        let service = |name: &str| (name == "http-alt").then_some(8080);
        for (jail, action, port, noted) in [
            ("http,https", "", "[\"http\", \"https\"]", false),
            (
                "http,https",
                "iptables-multiport[port=\"http,8443\"]",
                "[\"http\", 8443]",
                false,
            ),
            ("http,https", "iptables-allports[name=a]", "\"all\"", false),
            ("http", "ufw", "\"all\"", false),
            (
                "http",
                "iptables-multiport[name=a]",
                "[\"http\", \"https\"]",
                true,
            ),
            ("0:65535", "", "\"all\"", false),
            ("8000:8002", "", "[8000, 8001, 8002]", false),
            ("80,http-alt,nonsense", "", "[80, 8080]", true),
            ("8000:9000", "", "\"all\"", true),
        ] {
            let entries = entries(action);
            let (text, note) = ports(jail, entries.first(), &service);
            assert_eq!(
                (text.as_str(), note.is_some()),
                (port, noted),
                "{jail} {action}"
            );
        }
    }
}
