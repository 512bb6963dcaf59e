//! Whether only root can change a file: its owner and mode on the descriptor, and those of the
//! directories above it, of which another user could put another file in its place.

use std::fs::{self, File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, geteuid};

const STICKY: u32 = 0o1000;

/// Ok where this process is not root: it can do no more than its user.
///
/// # Errors
/// What to type, for the operator.
pub(super) fn check(path: &Path, open: &File) -> Result<(), String> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let unknown = |error: std::io::Error| format!("cannot check its owner: {error}");
    let meta = open.metadata().map_err(unknown)?;
    only_root(path, &meta, false)?;
    // Where it is, and how it was found.
    let real = fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd())).ok();
    let absolute = std::path::absolute(path).map_err(unknown)?;
    for file in [real, Some(absolute)].into_iter().flatten() {
        let link = fs::symlink_metadata(&file).map_err(unknown)?;
        if link.is_symlink() && link.uid() != 0 {
            return Err(belongs(&file, link.uid(), "-h "));
        }
        for directory in file.ancestors().skip(1) {
            let meta = fs::metadata(directory).map_err(unknown)?;
            only_root(directory, &meta, true)?;
        }
    }
    Ok(())
}

/// `above`: nobody but root may replace what is in it.
fn only_root(path: &Path, meta: &Metadata, above: bool) -> Result<(), String> {
    if meta.uid() != 0 {
        return Err(belongs(path, meta.uid(), ""));
    }
    let mode = meta.mode();
    // In /tmp each user can change what is his.
    if above && mode & STICKY != 0 {
        return Ok(());
    }
    let shown = path.display();
    if mode & 0o002 != 0 {
        return Err(format!(
            "every user can change it: type `chmod go-w {shown}`"
        ));
    }
    if mode & 0o020 != 0 && !is_roots(meta.gid()) {
        let group = Group::from_gid(Gid::from_raw(meta.gid())).ok().flatten();
        let group = group.map_or(meta.gid().to_string(), |group| group.name);
        return Err(format!(
            "group {group} can change {shown}: type `chmod g-w {shown}`"
        ));
    }
    Ok(())
}

fn belongs(path: &Path, uid: u32, option: &str) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let user = user.map_or(format!("uid {uid}"), |user| user.name);
    let shown: PathBuf = path.to_owned();
    let shown = shown.display();
    format!(
        "{shown} belongs to {user}, who could act as root by it: type `chown {option}root:root {shown}`"
    )
}

/// Root's group, or that of Debian's /usr/local, whose members are as good as root.
fn is_roots(gid: u32) -> bool {
    let staff = || Group::from_name("staff").ok().flatten();
    gid == 0 || staff().is_some_and(|staff| staff.gid.as_raw() == gid)
}
