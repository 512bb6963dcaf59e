//! Who may name the client, as the configurations of the Apaches that log here say: where any
//! client may, an address that a header named is not banned.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::alarms::Check;
use crate::alert::Severity;
use crate::apache::{self, ClientNaming, Scan, ScanError};
use crate::config::{Backend, Firewall};
use crate::control::LineHit;
use crate::jail::Exempt;
use crate::record::{ClientSource, Kind};
use crate::sys::clock;

/// Apaches known at most; the others count as unreadable.
const MAX_APACHES: usize = 32;
/// A reload of Apache starts many loggers: to read its configuration takes at most one part in so
/// many of the time.
const SHARE: u32 = 20;

/// What is known of the configurations. Lines do not say which Apache wrote them: all count.
#[derive(Debug, Default)]
pub(crate) struct ClientNamings {
    /// By their first file; `None`: the system's.
    known: BTreeMap<Option<PathBuf>, Known>,
    /// Read at the start, before any worker named its Apache.
    provisional: bool,
    overflow: bool,
}

#[derive(Debug)]
struct Known {
    read: Instant,
    /// The processor time it took: on a busy host the next reading does not wait longer.
    took: Duration,
    /// To be read again: a worker connected after it was read.
    is_due: bool,
    /// Else why it cannot be read.
    naming: Result<ClientNaming, String>,
}

impl ClientNamings {
    /// Takes the system's Apache configuration, where there is one, until a worker names its
    /// Apache.
    pub(super) fn begin(&mut self, scan: &Result<Scan, ScanError>) {
        if let Some(naming) = known(scan, Duration::ZERO) {
            self.known.insert(None, naming);
            self.provisional = true;
        }
    }

    /// What the Apache with this first file says; `None`: the system's, where there is one.
    pub(crate) fn of(root: Option<PathBuf>) -> ClientNamings {
        let known = read(root.clone()).map(|known| (root, known));
        ClientNamings {
            known: known.into_iter().collect(),
            ..ClientNamings::default()
        }
    }

    /// A worker has connected: the loggers of the Apache with this command line may be new, and so
    /// may its configuration be, which is read before the next line that depends on it. Without a
    /// command line nothing changes.
    pub(super) fn apache(&mut self, command_line: &[String]) {
        if command_line.is_empty() {
            return;
        }
        let roots = apache::roots_named_by(command_line);
        let first = roots.first().cloned();
        let root = roots.into_iter().find(|root| root.is_file()).or(first);
        if std::mem::take(&mut self.provisional) {
            self.known.clear();
        }
        if let Some(known) = self.known.get_mut(&root) {
            known.is_due = true;
            return;
        }
        if self.known.len() >= MAX_APACHES && !self.known.contains_key(&root) {
            self.overflow = true;
            return;
        }
        let naming = read(root.clone()).unwrap_or_else(|| Known {
            read: Instant::now(),
            took: Duration::ZERO,
            is_due: false,
            naming: Err(ScanError::None.to_string()),
        });
        self.known.insert(root, naming);
    }

    /// Reads all of them again.
    pub(super) fn reload(&mut self) {
        for (root, known) in &mut self.known {
            if let Some(again) = read(root.clone()) {
                *known = again;
            }
        }
    }

    /// Whether any client may have written the address of this line's client. `proxies`: those
    /// that pipeban trusts.
    pub(super) fn is_forgeable(&mut self, line: &LineHit, proxies: &[IpNet]) -> bool {
        if line.source != ClientSource::Peer {
            self.read_due();
        }
        self.may_forge(line.source, line.peer, proxies)
    }

    /// The same for a line with this source of its client, and this peer.
    pub(crate) fn may_forge(
        &self,
        source: ClientSource,
        peer: Option<IpAddr>,
        proxies: &[IpNet],
    ) -> bool {
        let namings = || self.known.values().map(|known| &known.naming);
        let by_protocol = || namings().any(|n| matches!(n, Ok(ClientNaming::ProxyProtocol(_))));
        let by_header = || namings().any(|n| matches!(n, Ok(ClientNaming::AnyClient(_))));
        let in_log = |kinds: &[Kind]| {
            namings().any(
                |n| matches!(n, Ok(ClientNaming::AnyClientOf(kind, _)) if kinds.contains(kind)),
            )
        };
        let by_anyone = || by_header() || in_log(&[Kind::Access, Kind::Error]);
        match source {
            ClientSource::Peer => false,
            ClientSource::Port => by_protocol() || in_log(&[Kind::Error]),
            ClientSource::Unsaid => {
                by_anyone() || by_protocol() || self.overflow || namings().any(Result::is_err)
            }
            ClientSource::Header => {
                let listed = namings().any(|n| matches!(n, Ok(ClientNaming::ListedProxies(_))));
                let trusted = |peer| proxies.iter().any(|net| net.contains(&peer));
                let by_trusted = by_protocol() && peer.is_some_and(trusted);
                by_anyone() || !(listed || by_trusted)
            }
        }
    }

    /// The peer of a line's client. An error line with port 0 does not show it: it is one of the
    /// listed proxies, if no firewall of this host can block the client because all of them are
    /// elsewhere, or if Apache refuses it.
    pub(super) fn peer(
        &self,
        line: &LineHit,
        exempt: &Exempt,
        firewall: &Firewall,
    ) -> Option<IpAddr> {
        if line.source != ClientSource::Header || line.peer.is_some() {
            return line.peer;
        }
        let namings = self.known.values().map(|known| &known.naming);
        let mut proxies = namings.flat_map(|naming| match naming {
            Ok(ClientNaming::ListedProxies(proxies)) => proxies.as_slice(),
            _ => &[],
        });
        let elsewhere = |net| exempt.is_elsewhere(net);
        let proxy = proxies.next()?;
        let denies = firewall.has(Backend::Apache);
        let is_behind = denies || (elsewhere(proxy) && proxies.all(elsewhere));
        is_behind.then(|| proxy.addr())
    }

    /// Reads again what may have changed.
    fn read_due(&mut self) {
        for (root, known) in &mut self.known {
            if known.is_due && known.read.elapsed() >= SHARE * known.took {
                known.is_due = false;
                if let Some(again) = read(root.clone()) {
                    *known = again;
                }
            }
        }
    }

    /// Why some clients are not banned.
    pub(super) fn checks(&mut self) -> [Check; 2] {
        self.read_due();
        let namings = || self.known.values().map(|known| &known.naming);
        let problem = namings().flatten().find_map(ClientNaming::problem);
        let is_error = problem.as_ref().is_some_and(|problem| problem.is_error);
        let severity = if is_error {
            Severity::Err
        } else {
            Severity::Warning
        };
        let problem = problem.map(|problem| format!("{}: {}", problem.place, problem.text));
        let unread = namings().find_map(|naming| naming.as_ref().err());
        let unread = unread.map(|error| {
            format!(
                "{error}: pipeban does not know whether Apache takes a client's address from a \
                 header of any client, so it bans no client of an access log without %{{c}}a, and \
                 none that has port 0 in the error log"
            )
        });
        [
            ("client-naming", severity, problem),
            ("client-naming-unread", Severity::Warning, unread),
        ]
    }
}

/// `None`: there is no configuration in a usual place.
fn read(root: Option<PathBuf>) -> Option<Known> {
    let begun = clock::thread_time();
    let scan = apache::scan(root.as_deref());
    known(&scan, clock::thread_time().saturating_sub(begun))
}

fn known(scan: &Result<Scan, ScanError>, took: Duration) -> Option<Known> {
    let naming = match scan {
        Ok(scan) => Ok(scan.client_naming()),
        Err(ScanError::None) => return None,
        Err(error) => Err(error.to_string()),
    };
    Some(Known {
        read: Instant::now(),
        took,
        is_due: false,
        naming,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::evidence::tests::hit;

    fn line_of(source: ClientSource) -> LineHit {
        LineHit { source, ..hit("") }
    }

    #[test]
    fn a_reload_of_apache_counts_from_the_first_line_of_its_loggers() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("apache2.conf");
        let header = "RemoteIPHeader X-Forwarded-For\n";
        std::fs::write(&root, header).unwrap();
        let command = ["apache2".into(), "-f".into(), root.display().to_string()];
        let mut namings = ClientNamings::default();
        namings.apache(&command);
        let is_forgeable = |namings: &mut ClientNamings, took| {
            for known in namings.known.values_mut() {
                known.took = took;
            }
            namings.is_forgeable(&line_of(ClientSource::Header), &[])
        };
        assert!(is_forgeable(&mut namings, Duration::ZERO));
        // However soon after the last one.
        let list = "RemoteIPInternalProxy 198.51.100.99\n";
        std::fs::write(&root, format!("{header}{list}")).unwrap();
        assert!(is_forgeable(&mut namings, Duration::ZERO), "no reload");
        namings.apache(&command);
        let hour = Duration::from_secs(3_600);
        assert!(is_forgeable(&mut namings, hour), "too much work");
        assert!(!is_forgeable(&mut namings, Duration::ZERO));
    }

    #[test]
    fn the_client_of_an_error_line_with_port_0_is_behind_a_listed_proxy() {
        use crate::jail::Why;
        let exempt = Exempt::new([("203.0.113.2/32".parse().unwrap(), Why::Own)]);
        let line = line_of(ClientSource::Header);
        for (proxies, denies, peer) in [
            (&["198.51.100.99/32"][..], false, Some("198.51.100.99")),
            (
                &["198.51.100.0/24", "2001:db8::/32"],
                false,
                Some("198.51.100.0"),
            ),
            // On this host, or perhaps in a container of it: a firewall blocks the client.
            (&["127.0.0.1/32"], false, None),
            (&["172.17.0.2/32"], false, None),
            (&["198.51.100.99/32", "203.0.113.0/24"], false, None),
            (&["172.17.0.2/32"], true, Some("172.17.0.2")),
            (&[], true, None),
        ] {
            let proxies = proxies.iter().map(|net| net.parse().unwrap()).collect();
            let known = Known {
                read: Instant::now(),
                took: Duration::ZERO,
                is_due: false,
                naming: Ok(ClientNaming::ListedProxies(proxies)),
            };
            let namings = ClientNamings {
                known: [(None, known)].into(),
                ..ClientNamings::default()
            };
            let mut firewall = Firewall::default();
            firewall.backend.extend(denies.then_some(Backend::Apache));
            let found = namings.peer(&line, &exempt, &firewall);
            assert_eq!(found, peer.map(|peer| peer.parse().unwrap()), "{namings:?}");
            let seen = namings.peer(&line_of(ClientSource::Port), &exempt, &firewall);
            assert_eq!(seen, None);
        }
    }

    #[test]
    fn a_header_is_believed_where_proxies_are_listed_and_nothing_else_says_otherwise() {
        use ClientSource::{Header, Peer, Port, Unsaid};
        let place = || apache::Place {
            file: "/etc/apache2/apache2.conf".into(),
            line: 7,
        };
        let (any, protocol) = (
            || Ok(ClientNaming::AnyClient(place())),
            || Ok(ClientNaming::ProxyProtocol(place())),
        );
        let of = |kind| Ok(ClientNaming::AnyClientOf(kind, place()));
        let (listed, plain) = (
            || Ok(ClientNaming::ListedProxies(Vec::new())),
            || Ok(ClientNaming::Connection),
        );
        let unread = || Err("cannot read".to_owned());
        // the configurations, and the sources of which any client may be the author
        for (namings, forgeable) in [
            (vec![], vec![Header]),
            (vec![plain()], vec![Header]),
            (vec![listed()], vec![]),
            (vec![any()], vec![Unsaid, Header]),
            (vec![protocol()], vec![Port, Unsaid, Header]),
            (vec![of(Kind::Access)], vec![Unsaid, Header]),
            (vec![of(Kind::Error)], vec![Port, Unsaid, Header]),
            (vec![of(Kind::Access), listed()], vec![Unsaid, Header]),
            (vec![unread()], vec![Unsaid, Header]),
            (vec![plain(), listed()], vec![]),
            (vec![listed(), any()], vec![Unsaid, Header]),
        ] {
            let known = (0..).zip(namings).map(|(n, naming)| {
                let read = Instant::now();
                (
                    Some(PathBuf::from(format!("/{n}"))),
                    Known {
                        read,
                        took: Duration::ZERO,
                        is_due: false,
                        naming,
                    },
                )
            });
            let mut namings = ClientNamings {
                known: known.collect(),
                ..ClientNamings::default()
            };
            for source in [Peer, Port, Unsaid, Header] {
                let found = namings.is_forgeable(&line_of(source), &[]);
                assert_eq!(found, forgeable.contains(&source), "{namings:?} {source:?}");
            }
        }
    }
}
