//! Ends the connections that a banned client has open.
//!
//! A ban drops packets; the web server's worker would wait for the next one until its time-out.
//! So the sockets are destroyed (sock_diag, SOCK_DESTROY), which ends both sides at once. Only
//! sockets on banned *local* ports: an ssh session and connections that this host opened live on.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::host::ssh_ports;
use super::netlink::{self, ACK, DUMP, REQUEST, Socket, Writer};
use super::notices::Notices;
use crate::config::Ports;

/// One listing of all sockets serves every ban that waits, so this is never reached in practice.
const QUEUE: usize = 4_096;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const LISTEN: u32 = 1 << 10;
/// All but LISTEN, SYN_SENT (opened by this host), TIME_WAIT and CLOSE; the last is half open.
const CONNECTED: u32 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11 | 1 << 12;
/// Bytes of `struct inet_diag_sockid`.
const ID: usize = 48;

const UNABLE: &str = "cutting";
const BEHIND: &str = "cutting-behind";

/// The thread that cuts.
pub(super) struct Cutter {
    queue: Sender<Vec<Target>>,
    notices: Notices,
}

/// The clients and the local ports.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) net: IpNet,
    pub(super) ports: Arc<Ports>,
}

/// A connected socket of this host.
struct Connection {
    family: u8,
    id: [u8; ID],
    local_port: u16,
    remote: IpAddr,
}

impl Cutter {
    /// Starts the thread; `None`, with a notice, where the kernel cannot do it.
    pub(super) fn start(mut notices: Notices) -> Option<Cutter> {
        if let Err(errno) = probe() {
            notices.trouble(UNABLE, unable(errno));
            return None;
        }
        let (queue, waiting) = bounded(QUEUE);
        let for_thread = notices.another();
        let started = thread::Builder::new()
            .name("cut".into())
            .spawn(move || run(&waiting, for_thread));
        match started {
            Ok(_) => Some(Cutter { queue, notices }),
            Err(error) => {
                notices.trouble(
                    UNABLE,
                    format!("open connections of banned clients stay open: no thread: {error}"),
                );
                None
            }
        }
    }

    /// For another owner.
    pub(super) fn another(&self) -> Cutter {
        Cutter {
            queue: self.queue.clone(),
            notices: self.notices.another(),
        }
    }

    /// Has these sockets cut soon. Never waits. To be called when the ban is in force: a client
    /// that is cut before comes back.
    pub(super) fn cut(&mut self, targets: Vec<Target>) {
        match self.queue.try_send(targets) {
            Ok(()) => self.notices.over(BEHIND),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.notices.trouble(
                BEHIND,
                "open connections of some banned clients were not cut: the thread that does it \
                 is not keeping up; they end at the web server's time-out"
                    .into(),
            ),
        }
    }
}

fn unable(errno: Errno) -> String {
    let why = match errno {
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::ENOENT => {
            "this kernel is built without CONFIG_INET_DIAG_DESTROY".to_owned()
        }
        other => other.to_string(),
    };
    format!(
        "open connections of banned clients are not cut ({why}): their packets are dropped, the \
         connections end at the web server's time-out"
    )
}

fn run(waiting: &Receiver<Vec<Target>>, mut notices: Notices) {
    // Ends when the firewall is dropped.
    while let Ok(mut targets) = waiting.recv() {
        targets.extend(waiting.try_iter().flatten());
        let mut cut = BTreeSet::new();
        match cut_all(&targets, &mut cut) {
            Ok(()) => notices.over(UNABLE),
            Err(errno) => notices.trouble(UNABLE, unable(errno)),
        }
        if !cut.is_empty() {
            notices.connected(cut.into_iter().collect());
        }
    }
}

/// Whether the connections of banned clients can be cut.
///
/// # Errors
/// Why not, for the operator.
pub(super) fn check() -> Result<(), String> {
    probe().map_err(unable)
}

/// Whether the kernel can destroy sockets: tried with one that cannot exist.
fn probe() -> Result<(), Errno> {
    let mut socket = Socket::open(SockProtocol::NetlinkSockDiag)?;
    match destroy(&mut socket, AF_INET, &[0; ID]) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// `cut`: the clients whose sockets were found.
fn cut_all(targets: &[Target], cut: &mut BTreeSet<IpAddr>) -> Result<(), Errno> {
    let mut socket = Socket::open(SockProtocol::NetlinkSockDiag)?;
    let every_port = targets
        .iter()
        .any(|target| matches!(*target.ports, Ports::All | Ports::AllButSsh));
    let listening = match every_port {
        true => connections(&mut socket, LISTEN)?
            .iter()
            .map(|listener| listener.local_port)
            .collect(),
        false => BTreeSet::new(),
    };
    let ssh = match every_port {
        true => ssh_ports(),
        false => BTreeSet::new(),
    };
    let mut failed = Ok(());
    for connection in connections(&mut socket, CONNECTED)? {
        let hit = |target: &Target| {
            target.net.contains(&connection.remote)
                && closes(&target.ports, connection.local_port, &listening, &ssh)
        };
        if targets.iter().any(hit) {
            cut.insert(connection.remote);
            match destroy(&mut socket, connection.family, &connection.id) {
                // It has ended meanwhile; or it waits for its end, which older kernels
                // do not shorten.
                Ok(()) | Err(Errno::ENOENT | Errno::EOPNOTSUPP) => {}
                Err(errno) => failed = Err(errno),
            }
        }
    }
    failed
}

/// Whether a ban of `ports` closes that local port. A connection that this host opened has a local
/// port that no program listens on.
fn closes(ports: &Ports, port: u16, listening: &BTreeSet<u16>, ssh: &BTreeSet<u16>) -> bool {
    match ports {
        Ports::List { tcp, .. } => tcp.contains(&port),
        Ports::Apache => closes(&Ports::web(), port, listening, ssh),
        Ports::All => listening.contains(&port),
        Ports::AllButSsh => listening.contains(&port) && !ssh.contains(&port),
    }
}

/// TCP sockets in those states. Behind a dual-stack listener an IPv4 client is among the IPv6
/// ones, with a mapped address.
fn connections(socket: &mut Socket, states: u32) -> Result<Vec<Connection>, Errno> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let mut request = Writer::after(socket.sequence);
        let header = request_header(family, states, &[0; ID]);
        request.message(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, &header);
        socket.ask(request, false, |_, payload| {
            found.extend(connection(payload));
            true
        })?;
    }
    Ok(found)
}

/// `struct inet_diag_msg`
fn connection(payload: &[u8]) -> Option<Connection> {
    let [family, ..] = netlink::array::<4>(payload, 0)?;
    let id: [u8; ID] = netlink::array(payload, 4)?;
    let remote = match family {
        AF_INET => IpAddr::V4(Ipv4Addr::from(netlink::array::<4>(&id, 20)?)),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(netlink::array::<16>(&id, 20)?)).to_canonical(),
        _ => return None,
    };
    Some(Connection {
        family,
        local_port: u16::from_be_bytes(netlink::array(&id, 0)?),
        id,
        remote,
    })
}

/// `struct inet_diag_req_v2`
fn request_header(family: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut header = vec![family, IPPROTO_TCP, 0, 0];
    header.extend_from_slice(&states.to_ne_bytes());
    header.extend_from_slice(id);
    header
}

fn destroy(socket: &mut Socket, family: u8, id: &[u8; ID]) -> Result<(), Errno> {
    let mut request = Writer::after(socket.sequence);
    let header = request_header(family, u32::MAX, id);
    request.message(SOCK_DESTROY, REQUEST | ACK, &header);
    socket.ask(request, true, |_, _| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_cuts_only_connections_to_ports_it_closes() {
        let list = Ports::List {
            tcp: BTreeSet::from([80, 443]),
            udp: BTreeSet::new(),
        };
        let listening = BTreeSet::from([22, 80, 25]);
        let ssh = BTreeSet::from([22]);
        for (ports, port, expected) in [
            (&list, 80, true),
            (&list, 443, true),
            (&list, 22, false),
            (&list, 40_000, false),
            (&Ports::AllButSsh, 25, true),
            (&Ports::AllButSsh, 22, false),
            (&Ports::AllButSsh, 40_000, false),
            (&Ports::All, 22, true),
            (&Ports::All, 40_000, false),
        ] {
            assert_eq!(
                closes(ports, port, &listening, &ssh),
                expected,
                "{ports:?} {port}"
            );
        }
    }
}
