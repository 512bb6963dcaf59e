//! Reads networks: a file of them, and the entries of `ignoreip`.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::document::Place;

/// The largest number of networks in one file.
pub(super) const MOST_NETWORKS: usize = 200_000;

/// An entry of `ignoreip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ignored {
    Network(IpNet),
    File(PathBuf),
    Name(String),
}

/// An address or a network, masked; an IPv4 address mapped into IPv6 becomes IPv4.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let network = match network {
        IpNet::V6(v6) => match v6.addr().to_ipv4_mapped() {
            Some(v4) if v6.prefix_len() >= 96 => {
                IpNet::new(v4.into(), v6.prefix_len() - 96).ok()?
            }
            _ => network,
        },
        IpNet::V4(_) => network,
    };
    Some(network.trunc())
}

/// An address, a network, `/a/file`, `file:/a/file` (as fail2ban writes it) or a host's name.
pub(super) fn ignored(text: &str) -> Option<Ignored> {
    if let Some(network) = network(text) {
        return Some(Ignored::Network(network));
    }
    let path = text.strip_prefix("file:").unwrap_or(text);
    if path.starts_with('/') {
        // file:///a/file, too
        let path = format!("/{}", path.trim_start_matches('/'));
        return (path.len() > 1).then(|| Ignored::File(path.into()));
    }
    host_name(text).map(Ignored::Name)
}

/// A host's name in lower case. A name that ends in a number is a mistyped address.
pub(super) fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(allowed) && !label.starts_with('-')
    };
    let last = name.rsplit('.').next()?;
    let named = last.bytes().any(|b| b.is_ascii_alphabetic());
    (name.len() <= 253 && named && name.split('.').all(label)).then(|| name.to_ascii_lowercase())
}

/// One address or network per line; `#` and `;` begin a comment.
///
/// # Errors
/// The first 20 lines that are something else.
pub(super) fn list(text: &str) -> Result<Vec<IpNet>, Vec<(Place, String)>> {
    let mut networks = Vec::new();
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split(['#', ';']).next().unwrap_or("");
        let word = entry.trim();
        if word.is_empty() {
            continue;
        }
        match network(word) {
            Some(network) if networks.len() < MOST_NETWORKS => networks.push(network),
            found => {
                let column = entry.chars().take_while(|c| c.is_whitespace()).count() + 1;
                let message = match found {
                    Some(_) => format!("more than {MOST_NETWORKS} networks"),
                    None => format!(
                        "`{}` is not an address or network: write one per line, like `192.0.2.0/24`",
                        word.chars().take(60).collect::<String>().escape_debug()
                    ),
                };
                wrong.push(((index + 1, column), message));
                // Every line of another kind of file is wrong.
                if wrong.len() >= 20 {
                    break;
                }
            }
        }
    }
    if wrong.is_empty() {
        Ok(networks)
    } else {
        Err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_ignoreip_are_distinguished() {
        let net = |text: &str| Some(Ignored::Network(text.parse().unwrap()));
        let file = |text: &str| Some(Ignored::File(text.into()));
        let name = |text: &str| Some(Ignored::Name(text.into()));
        for (text, expected) in [
            ("192.0.2.7", net("192.0.2.7/32")),
            ("::ffff:192.0.2.7", net("192.0.2.7/32")),
            ("2001:db8::1/64", net("2001:db8::/64")),
            ("/etc/pipeban/office.txt", file("/etc/pipeban/office.txt")),
            ("file:/a", file("/a")),
            ("file:///a/b", file("/a/b")),
            ("Office.example.ORG.", name("office.example.org")),
            ("localhost", name("localhost")),
            ("a1.b2", name("a1.b2")),
            ("192.0.2.300", None),
            ("192.0.2", None),
            ("192.0.2.0/33", None),
            ("300", None),
            ("::g", None),
            ("file:a", None),
            ("/", None),
            ("a..b", None),
            ("-a.b", None),
            ("ex ample", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(ignored(text), expected, "{text}");
        }
    }

    #[test]
    fn a_list_has_one_network_per_line_and_every_error_has_a_place() {
        let text = "# from https://example.net/ips\n192.0.2.0/24\n\n  2001:db8::/32 # six\n";
        let read: Vec<String> = list(text).unwrap().iter().map(IpNet::to_string).collect();
        assert_eq!(read, ["192.0.2.0/24", "2001:db8::/32"]);
        let wrong = list("192.0.2.1\n  10.0.0.0/40\noffice.example.org\n").unwrap_err();
        let places: Vec<_> = wrong.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [(2, 3), (3, 1)]);
        assert!(list(&"<html>\n".repeat(1_000)).unwrap_err().len() <= 20);
    }
}
