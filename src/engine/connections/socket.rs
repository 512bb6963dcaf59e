//! The socket's file: who can connect, and what to do when it is removed.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::sys::directory;

pub(super) struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    group: Option<u32>,
    /// Device and inode of the listener's file.
    file: (u64, u64),
}

impl Socket {
    /// Listens at `path`; replaces a file there. The engine's user and this group may connect; what
    /// they may request depends on the peer's ids.
    pub(super) fn listen(path: &Path, group: Option<u32>) -> io::Result<Socket> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Socket::bind(path, group)
    }

    fn bind(path: &Path, group: Option<u32>) -> io::Result<Socket> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let there = std::fs::symlink_metadata(path)?;
        // An engine of this group need not change it, and may not be permitted to.
        let is_groups = |group| there.gid() == group || lchown(path, None, Some(group)).is_ok();
        let mode = if group.is_some_and(is_groups) {
            0o660
        } else {
            0o600
        };
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok(Socket {
            listener,
            path: path.to_owned(),
            group,
            file: (there.dev(), there.ino()),
        })
    }

    /// False: the file was removed.
    ///
    /// # Errors
    /// Another process has replaced it.
    pub(super) fn is_there(&self) -> io::Result<bool> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == self.file => Ok(true),
            Ok(_) => Err(io::Error::other("another process has replaced it")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Another socket at the same place, where there is no file.
    pub(super) fn again(&self) -> io::Result<Socket> {
        if let Some(directory) = self.path.parent() {
            directory::create(directory, 0o755)?;
        }
        Socket::bind(&self.path, self.group)
    }

    /// Unless another process has replaced it.
    pub(super) fn remove_file(&self) {
        if self.is_there().is_ok_and(|there| there) {
            // The next engine replaces one that is left.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
