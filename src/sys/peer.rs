//! The groups of whoever is at the other end of a unix socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// More groups than this are not looked at.
const MAX_GROUPS: usize = 1_024;

/// Supplementary groups that the peer had when it connected (SO_PEERGROUPS).
///
/// # Errors
/// What getsockopt said; also that there are more than 1024.
pub fn groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0 as libc::gid_t; MAX_GROUPS];
    let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice()))
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer and the length describe `groups`, which outlives the call; the kernel
    // writes at most `bytes` bytes and says in `bytes` how many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(bytes as usize / size_of::<libc::gid_t>());
    Ok(groups)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peers_groups_are_those_of_the_process() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut expected: Vec<u32> = nix::unistd::getgroups()
            .unwrap()
            .iter()
            .map(|gid| gid.as_raw())
            .collect();
        let mut found = super::groups(&one).unwrap();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
