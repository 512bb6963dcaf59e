//! Opens the log file as root: appending, never truncating, never through somebody else's link.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Group, geteuid};

const MODE: u32 = 0o640;

/// Opens `path` for appending; makes it, 0640 root:adm, where it is not there. A symbolic link is
/// followed only when root (or whoever we are) made it.
///
/// # Errors
/// Why lines cannot go there.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Not blocking: a FIFO nobody reads is an error, not the end of the keeper.
    let base = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits();
    let no_link = base | OFlag::O_NOFOLLOW.bits();
    options.append(true).mode(MODE).custom_flags(no_link);

    let created = options.clone().create_new(true).open(path);
    let file = match created {
        Ok(file) => {
            give_to_adm(&file);
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match options.open(path) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => {
                trust_link(path)?;
                options.custom_flags(base).create(true).open(path)?
            }
            opened => opened?,
        },
        Err(error) => return Err(error),
    };
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

/// Only convenience: where it fails the file is still root's alone.
fn give_to_adm(file: &File) {
    let _ = file.set_permissions(std::fs::Permissions::from_mode(MODE));
    if geteuid().is_root()
        && let Ok(Some(adm)) = Group::from_name("adm")
    {
        let _ = fchown(file, None, Some(adm.gid.as_raw()));
    }
}

fn trust_link(path: &Path) -> io::Result<()> {
    let owner = std::fs::symlink_metadata(path)?.uid();
    if owner == 0 || owner == geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("a symbolic link of uid {owner}: not followed"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn appends_creates_and_never_truncates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        open(&path).unwrap().write_all(b"one\n").unwrap();
        open(&path).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn own_links_are_followed_and_a_fifo_nobody_reads_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("link"), dir.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        open(&link).unwrap().write_all(b"x").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"x");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open(&fifo).is_err());
        assert!(open(dir.path()).is_err());
    }
}
