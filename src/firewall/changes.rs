//! Tells when somebody changes this host's ruleset, so that a flushed one is mended within
//! milliseconds.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink;

/// NFNLGRP_NFTABLES is group 7: every commit, also those of iptables where it is a form of
/// nftables.
const GROUPS: u32 = 1 << 6;

/// Readable when the ruleset of the network namespace has changed, by whomever: our own changes
/// too. Each element that is added costs the kernel 2 us more while somebody listens.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Listens from now on.
    ///
    /// # Errors
    /// A kernel without nftables, or not permitted.
    pub fn listen() -> std::io::Result<Changes> {
        let socket = netlink::subscribe(SockProtocol::NetlinkNetFilter, GROUPS)?;
        Ok(Changes(socket))
    }

    /// Takes in all that has been told; an error: nothing will be told any more.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn take_in(&self) -> Result<(), Errno> {
        netlink::drain(&self.0).map(drop)
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
