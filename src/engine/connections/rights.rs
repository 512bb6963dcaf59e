//! Who is at the other end of a connection, and what it may request.

use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::control::Command;
use crate::sys;

/// The other end, as the kernel reports it (SO_PEERCRED).
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) pid: i32,
    gid: u32,
    /// Supplementary.
    groups: Vec<u32>,
}

impl Peer {
    /// Without its supplementary groups, which cost an allocation.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Peer> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        Ok(Peer {
            uid: credentials.uid(),
            pid: credentials.pid(),
            gid: credentials.gid(),
            groups: Vec::new(),
        })
    }

    pub(super) fn read_groups(&mut self, stream: &UnixStream) {
        self.groups = sys::peer::groups(stream).unwrap_or_default();
    }

    fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    All,
    Status,
    None,
}

impl Rights {
    pub(super) fn permit(self, command: &Command) -> bool {
        let reads = matches!(
            command,
            Command::Status { .. }
                | Command::StatusPage { .. }
                | Command::Export { .. }
                | Command::Explain { .. }
        );
        self == Rights::All || (self == Rights::Status && reads)
    }
}

/// The ids that carry rights. A worker's carries none: its keeper opens the worker's connection.
pub(super) struct Ids {
    engine: u32,
    /// May read what the engine knows; the socket's group.
    pub(super) adm: Option<u32>,
}

impl Ids {
    pub(super) fn of_this_host() -> Ids {
        let adm = nix::unistd::Group::from_name("adm").ok().flatten();
        Ids {
            engine: nix::unistd::geteuid().as_raw(),
            adm: adm.map(|group| group.gid.as_raw()),
        }
    }

    /// Whether this uid may do everything.
    pub(super) fn commands(&self, uid: u32) -> bool {
        uid == 0 || uid == self.engine
    }

    pub(super) fn rights(&self, peer: &Peer) -> Rights {
        if self.commands(peer.uid) {
            Rights::All
        } else if self.adm.is_some_and(|adm| peer.is_in(adm)) {
            Rights::Status
        } else {
            Rights::None
        }
    }
}
