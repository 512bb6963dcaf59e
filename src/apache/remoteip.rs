//! Who may name the client: what mod_remoteip is configured to believe.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};

use super::directive::Directive;
use super::files::Files;
use super::place::Place;
use super::walk::Layout;
use crate::record::Kind;

/// What one server says of mod_remoteip.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RemoteIp {
    /// `RemoteIPHeader`
    header: Option<Place>,
    /// `RemoteIPInternalProxy`, `RemoteIPTrustedProxy` or a list of them names a proxy.
    listed: bool,
    /// Those of them that are addresses or networks.
    proxies: Vec<IpNet>,
    /// They are most addresses.
    everyone: Option<Place>,
    /// `RemoteIPProxyProtocol On`
    proxy_protocol: Option<Place>,
}

impl RemoteIp {
    /// Takes a directive; false: it is none of mod_remoteip's.
    pub(super) fn take(
        &mut self,
        directive: &Directive,
        arguments: &[String],
        place: &Place,
        files: &dyn Files,
        server_root: &Path,
    ) -> bool {
        let first = arguments.first().map_or("", String::as_str);
        if directive.is("RemoteIPHeader") {
            self.header = Some(place.clone());
        } else if directive.is("RemoteIPInternalProxy") || directive.is("RemoteIPTrustedProxy") {
            let words = arguments.iter().map(String::as_str);
            self.list(words, place);
        } else if directive.is("RemoteIPInternalProxyList")
            || directive.is("RemoteIPTrustedProxyList")
        {
            // An unreadable file lists nothing.
            let text = files.read(&server_root.join(first)).unwrap_or_default();
            let lines = text.lines().map(str::trim_start);
            let lines = lines.filter(|line| !line.starts_with('#'));
            self.list(lines.flat_map(str::split_whitespace), place);
        } else if directive.is("RemoteIPProxyProtocol") {
            let on = first.eq_ignore_ascii_case("on");
            self.proxy_protocol = on.then(|| place.clone());
        } else {
            return false;
        }
        true
    }

    fn list<'w>(&mut self, words: impl Iterator<Item = &'w str>, place: &Place) {
        for word in words {
            self.listed = true;
            self.proxies.extend(network(word));
        }
        if is_everyone(&self.proxies) {
            self.everyone = Some(place.clone());
        }
    }
}

/// An address or a network as Apache takes it: `10.1.0.0/16`, `10.1.0.0/255.255.0.0` or `10.1`
/// (apr_ipsubnet_create). `None`: a name.
fn network(word: &str) -> Option<IpNet> {
    let address = || word.parse::<IpAddr>().ok().map(IpNet::from);
    let with_mask = || {
        let (address, mask) = word.split_once('/')?;
        let net = Ipv4Net::with_netmask(address.parse().ok()?, mask.parse().ok()?);
        net.ok().map(IpNet::from)
    };
    let beginning = || {
        let parts = word.trim_end_matches('.').split('.').count();
        let zeros = ".0".repeat(4_usize.checked_sub(parts)?);
        let address = format!("{}{zeros}", word.trim_end_matches('.'));
        let length = u8::try_from(8 * parts).ok()?;
        let net = Ipv4Net::new(address.parse().ok()?, length);
        net.ok().map(IpNet::from)
    };
    let net = word.parse().ok().or_else(address);
    net.or_else(with_mask).or_else(beginning)
}

/// Whether these networks together are too large to be those of proxies.
fn is_everyone(proxies: &[IpNet]) -> bool {
    let together = IpNet::aggregate(&proxies.to_vec());
    together.iter().any(|net| match net {
        IpNet::V4(net) => net.prefix_len() < 8,
        IpNet::V6(net) => net.prefix_len() < 16,
    })
}

/// Who may name the client of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientNaming {
    /// No one: the client is the connection's peer.
    Connection,
    /// The proxies that Apache's configuration lists, here those of one server.
    ListedProxies(Vec<IpNet>),
    /// Any client, by a header: `RemoteIPHeader` here, and no list of proxies, or one with most
    /// addresses.
    AnyClient(Place),
    /// Whoever connects, by the PROXY protocol: `RemoteIPProxyProtocol` here. Apache has no list
    /// for it.
    ProxyProtocol(Place),
    /// Any client, in lines of a log: Apache writes a header, or a name (`HostnameLookups`) where
    /// pipeban expects the client's address.
    AnyClientOf(Kind, Place),
}

/// What is wrong with the way in which clients are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamingProblem<'a> {
    /// The directive.
    pub place: &'a Place,
    /// Any client can name another one.
    pub is_error: bool,
    /// What is wrong, and what to do.
    pub text: &'static str,
}

impl ClientNaming {
    /// Why pipeban does not ban some clients; `None`: it bans all.
    pub fn problem(&self) -> Option<NamingProblem<'_>> {
        match self {
            ClientNaming::Connection | ClientNaming::ListedProxies(_) => None,
            ClientNaming::AnyClient(place) => Some(NamingProblem {
                place,
                is_error: true,
                text: "any client can pretend to be another address with this `RemoteIPHeader`, \
                       because no list of proxies, or one with most addresses, limits it, so \
                       pipeban bans no client that the header may have named: add \
                       `RemoteIPInternalProxy` or \
                       `RemoteIPTrustedProxy` with the addresses of your proxies, or delete the \
                       line",
            }),
            ClientNaming::AnyClientOf(Kind::Error, place) => Some(NamingProblem {
                place,
                is_error: true,
                text: "a client or a script can pretend to be another address in this log, because \
                       its ErrorLogFormat has no %a before the message %M, where pipeban expects \
                       the client, so pipeban bans no client of such lines: put `[client\\ %a]` \
                       before %M",
            }),
            ClientNaming::AnyClientOf(Kind::Access, place) => Some(NamingProblem {
                place,
                is_error: true,
                text: "any client can pretend to be another address, because Apache logs what a \
                       client says (a header, or its name in reverse DNS) where pipeban reads the \
                       client's address, so pipeban bans no client of such lines: put %a first in \
                       the format",
            }),
            ClientNaming::ProxyProtocol(place) => Some(NamingProblem {
                place,
                is_error: false,
                text: "with `RemoteIPProxyProtocol` any program that connects can name the client, \
                       so pipeban bans clients only by access lines whose format has %{c}a beside %a, and \
                       behind a proxy only if `[proxies] trusted` has it: use the format `pipeban`",
            }),
        }
    }
}

/// Who may name the client by mod_remoteip, on the server that is least careful: lines do not say
/// which server wrote them.
pub(super) fn client_naming(layout: &Layout) -> ClientNaming {
    let main = layout.servers.first().map(|server| &server.remoteip);
    let mut naming = ClientNaming::Connection;
    for server in &layout.servers {
        let own = &server.remoteip;
        let inherits = || main.into_iter();
        let header = own.header.as_ref();
        let header = header.or_else(|| inherits().find_map(|main| main.header.as_ref()));
        // A server with a list of its own does not have the main server's.
        let list = match own.listed {
            true => Some(own),
            false => inherits().find(|main| main.listed),
        };
        let protocol = own.proxy_protocol.as_ref();
        if let Some(place) = header
            && list.is_none_or(|list| list.everyone.is_some())
        {
            return ClientNaming::AnyClient(place.clone());
        }
        if let Some(place) = protocol {
            naming = ClientNaming::ProxyProtocol(place.clone());
        } else if header.is_some() && naming == ClientNaming::Connection {
            let proxies = list.map(|list| list.proxies.clone());
            naming = ClientNaming::ListedProxies(proxies.unwrap_or_default());
        }
    }
    naming
}

/// The first files of the configuration of a running Apache, as its command line names it: one of
/// them exists. Empty: it names none, and the usual places apply.
pub fn roots_named_by(arguments: &[String]) -> Vec<PathBuf> {
    let after = |flag: &str| {
        let mut words = arguments.iter().skip(1);
        let mut found = None;
        while let Some(word) = words.next() {
            match word.strip_prefix(flag) {
                Some("") => found = words.next().map(PathBuf::from),
                Some(joined) => found = Some(PathBuf::from(joined)),
                None => {}
            }
        }
        found
    };
    let bases: Vec<PathBuf> = match after("-d") {
        Some(base) => vec![base],
        None => BASES.iter().map(PathBuf::from).collect(),
    };
    match (after("-f"), after("-d")) {
        (Some(file), _) => bases.iter().map(|base| base.join(&file)).collect(),
        (None, Some(base)) => NAMES.iter().map(|name| base.join(name)).collect(),
        (None, None) => Vec::new(),
    }
}

/// Apache's `ServerRoot` as built, on supported systems.
const BASES: [&str; 3] = ["/etc/apache2", "/etc/httpd", "/usr/local/apache2"];
const NAMES: [&str; 3] = ["apache2.conf", "conf/httpd.conf", "httpd.conf"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::files::tests::Fake;
    use super::super::walk::walk;
    use super::*;

    fn naming(text: &str) -> String {
        let files = Fake::new(&[
            ("/e/a.conf", text),
            ("/e/proxies", "# proxies\n10.0.0.1\n 10.1.0.0/16 # two\n"),
            ("/e/empty", "# none\n\n"),
            ("/e/all", "10.0.0.1\n0.0.0.0/0\n"),
        ]);
        let layout = walk(&files, Path::new("/e/a.conf"), BTreeMap::new()).unwrap();
        match client_naming(&layout) {
            ClientNaming::Connection => "connection".into(),
            ClientNaming::ListedProxies(_) => "listed".into(),
            ClientNaming::AnyClient(place) => format!("any client {}", place.line),
            ClientNaming::ProxyProtocol(place) => format!("proxy protocol {}", place.line),
            ClientNaming::AnyClientOf(..) => unreachable!("of no log"),
        }
    }

    #[test]
    fn a_header_without_a_list_of_proxies_lets_any_client_name_the_client() {
        let header = "RemoteIPHeader X-Forwarded-For\n";
        let host = |text: &str| format!("<VirtualHost *:80>\n{text}</VirtualHost>\n");
        for (text, expected) in [
            (String::new(), "connection"),
            ("RemoteIPInternalProxy 10.0.0.1".into(), "connection"),
            (header.into(), "any client 1"),
            (
                format!("{header}RemoteIPInternalProxy 10.0.0.1 10.0.0.2"),
                "listed",
            ),
            (
                format!("{header}remoteiptrustedproxy proxy.example.org"),
                "listed",
            ),
            (
                format!("{header}RemoteIPInternalProxyList proxies"),
                "listed",
            ),
            (
                format!("{header}RemoteIPTrustedProxyList /e/proxies"),
                "listed",
            ),
            // Lists that list nothing, or everything.
            (
                format!("{header}RemoteIPTrustedProxyList empty"),
                "any client 1",
            ),
            (
                format!("{header}RemoteIPTrustedProxyList none"),
                "any client 1",
            ),
            (
                format!("{header}RemoteIPTrustedProxyList all"),
                "any client 1",
            ),
            (
                format!("{header}RemoteIPInternalProxy ::/0"),
                "any client 1",
            ),
            (
                format!("{header}RemoteIPInternalProxy 0.0.0.0/0.0.0.0"),
                "any client 1",
            ),
            (
                format!("{header}RemoteIPTrustedProxy 0.0.0.0/1 128.0.0.0/1"),
                "any client 1",
            ),
            (
                format!("{header}RemoteIPInternalProxy 10.0.0.0/255.0.0.0 192.168"),
                "listed",
            ),
            // As Apache reads it.
            (
                "\"RemoteIPHeader\" X-Forwarded-For\n".into(),
                "any client 1",
            ),
            (
                format!("Define H \"{}\"\n${{H}}\n", header.trim()),
                "any client 2",
            ),
            // Hosts inherit, and the least careful one counts.
            (host(header), "any client 2"),
            (
                format!("RemoteIPInternalProxy 10.0.0.1\n{}", host(header)),
                "listed",
            ),
            (
                format!("{header}{}", host("RemoteIPInternalProxy 10.0.0.1\n")),
                "any client 1",
            ),
            (
                format!(
                    "{header}RemoteIPInternalProxy 10.0.0.1\n{}",
                    host("RemoteIPInternalProxy 0.0.0.0/0\n")
                ),
                "any client 1",
            ),
            (host("RemoteIPProxyProtocol On\n"), "proxy protocol 2"),
            (host("RemoteIPProxyProtocol Off\n"), "connection"),
            (
                format!("<IfModule mod_remoteip.c>\n{header}</IfModule>"),
                "connection",
            ),
            (
                format!(
                    "LoadModule remoteip_module m/mod_remoteip.so\n<IfModule mod_remoteip.c>\n{header}</IfModule>"
                ),
                "any client 3",
            ),
        ] {
            assert_eq!(naming(&text), expected, "{text}");
        }
    }

    #[test]
    fn the_command_line_of_apache_names_its_configuration() {
        for (line, expected) in [
            ("/usr/sbin/apache2 -k start", vec![]),
            (
                "apache2 -f /var/site/a.conf -k start",
                vec!["/var/site/a.conf"],
            ),
            ("httpd -f/a.conf -DFOREGROUND", vec!["/a.conf"]),
            ("httpd -d /srv/h -f conf/x.conf", vec!["/srv/h/conf/x.conf"]),
            (
                "apache2 -d /etc/apache2-two",
                vec![
                    "/etc/apache2-two/apache2.conf",
                    "/etc/apache2-two/conf/httpd.conf",
                    "/etc/apache2-two/httpd.conf",
                ],
            ),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let mut roots = roots_named_by(&words);
            roots.dedup();
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(roots, expected, "{line}");
        }
        let relative: Vec<String> = ["httpd", "-f", "x.conf"].map(str::to_owned).into();
        assert_eq!(roots_named_by(&relative).len(), 3);
    }
}
