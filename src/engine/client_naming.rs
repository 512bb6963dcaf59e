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
use crate::control::LineHit;
use crate::record::ClientSource;

/// Apaches known at most; the others count as unreadable.
const MAX_APACHES: usize = 32;
/// A reload of Apache starts many loggers: its configuration is read once.
const FRESH: Duration = Duration::from_secs(1);

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
    /// To be read again: a worker connected soon after it was read.
    is_due: bool,
    /// Else why it cannot be read.
    naming: Result<ClientNaming, String>,
}

impl ClientNamings {
    /// Takes the system's Apache configuration, where there is one, until a worker names its
    /// Apache.
    pub(super) fn begin(&mut self, scan: &Result<Scan, ScanError>) {
        if let Some(naming) = known(scan) {
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
    /// may its configuration be. Without a command line nothing changes.
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
        if let Some(known) = self.known.get_mut(&root)
            && known.read.elapsed() < FRESH
        {
            known.is_due = true;
            return;
        }
        if self.known.len() >= MAX_APACHES && !self.known.contains_key(&root) {
            self.overflow = true;
            return;
        }
        let naming = read(root.clone()).unwrap_or_else(|| Known {
            read: Instant::now(),
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
    pub(super) fn is_forgeable(&self, line: &LineHit, proxies: &[IpNet]) -> bool {
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
        let by_anyone = || namings().any(|n| matches!(n, Ok(ClientNaming::AnyClient(_))));
        match source {
            ClientSource::Peer => false,
            ClientSource::Port => by_protocol(),
            ClientSource::Unsaid => {
                by_anyone() || by_protocol() || self.overflow || namings().any(Result::is_err)
            }
            ClientSource::Header => {
                let listed = namings().any(|n| matches!(n, Ok(ClientNaming::ListedProxies)));
                let trusted = |peer| proxies.iter().any(|net| net.contains(&peer));
                let by_trusted = by_protocol() && peer.is_some_and(trusted);
                by_anyone() || !(listed || by_trusted)
            }
        }
    }

    /// Reads again what changed soon after it was read.
    fn read_due(&mut self) {
        for (root, known) in &mut self.known {
            if known.is_due && known.read.elapsed() >= FRESH {
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
    known(&apache::scan(root.as_deref()))
}

fn known(scan: &Result<Scan, ScanError>) -> Option<Known> {
    let naming = match scan {
        Ok(scan) => Ok(scan.client_naming()),
        Err(ScanError::None) => return None,
        Err(error) => Err(error.to_string()),
    };
    Some(Known {
        read: Instant::now(),
        is_due: false,
        naming,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let (listed, plain) = (
            || Ok(ClientNaming::ListedProxies),
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
                        is_due: false,
                        naming,
                    },
                )
            });
            let namings = ClientNamings {
                known: known.collect(),
                ..ClientNamings::default()
            };
            for source in [Peer, Port, Unsaid, Header] {
                let line = LineHit {
                    offset: 0,
                    arrived: 0,
                    client: [192, 0, 2, 1].into(),
                    peer: None,
                    source,
                    claim: None,
                    vhost: None,
                    answered: false,
                    jails: Vec::new(),
                    config: String::new(),
                    evidence: String::new(),
                };
                let found = namings.is_forgeable(&line, &[]);
                assert_eq!(found, forgeable.contains(&source), "{namings:?} {source:?}");
            }
        }
    }
}
