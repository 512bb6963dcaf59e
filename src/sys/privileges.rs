//! Giving up root, for good and verified.

use std::io;

use caps::CapSet;
use nix::sys::prctl;
use nix::unistd::{
    Gid, Uid, User, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid,
};

/// Who a worker is once it is no longer root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id, never 0.
    pub uid: u32,
    /// Group id, never 0.
    pub gid: u32,
}

/// The worker's identity: the user of that name; where there is none (or it is root), the first
/// uid of 61184 to 65519 that no account has, with the same gid. Systemd's range for dynamic
/// users: no package gives it to an account.
pub fn worker_identity(user: &str) -> Identity {
    if let Ok(Some(user)) = User::from_name(user)
        && !user.uid.is_root()
        && user.gid.as_raw() != 0
    {
        return Identity {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        };
    }
    let unused = |uid: &u32| matches!(User::from_uid(Uid::from_raw(*uid)), Ok(None));
    let uid = (61184..=65519).find(unused).unwrap_or(65519);
    Identity { uid, gid: uid }
}

/// The uid a worker of this host has: see [`worker_identity`].
pub fn worker_uid(user: &str) -> u32 {
    worker_identity(user).uid
}

/// Gives up root: groups, gid, uid, every capability set, the way back through set-uid programs.
/// Then tries to get uid 0 back, and reads everything again.
///
/// # Errors
/// The step that failed or was found undone. The process must then do nothing that needs trust.
pub fn irrevocably_drop_privileges(to: Identity) -> io::Result<()> {
    let step = |what: &str, error: String| io::Error::other(format!("{what}: {error}"));
    let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));

    // While still root: later it cannot be changed.
    caps::clear(None, CapSet::Bounding).map_err(|e| step("bounding set", e.to_string()))?;
    caps::clear(None, CapSet::Ambient).map_err(|e| step("ambient set", e.to_string()))?;
    setgroups(&[]).map_err(|e| step("setgroups", e.to_string()))?;
    setresgid(gid, gid, gid).map_err(|e| step("setresgid", e.to_string()))?;
    setresuid(uid, uid, uid).map_err(|e| step("setresuid", e.to_string()))?;
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        caps::clear(None, set).map_err(|e| step("capabilities", e.to_string()))?;
    }
    prctl::set_no_new_privs().map_err(|e| step("no_new_privs", e.to_string()))?;
    prctl::set_dumpable(false).map_err(|e| step("dumpable", e.to_string()))?;
    verify(uid, gid)
}

/// For a process that is not root: gives up every capability, as those that systemd grants an engine
/// of another user, and the way back.
///
/// # Errors
/// The step that failed or was found undone. The process must then do nothing that needs trust.
pub fn drop_capabilities() -> io::Result<()> {
    let sets = [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Inheritable,
        CapSet::Permitted,
    ];
    for set in sets {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    for set in sets {
        if !caps::read(None, set).map_err(io::Error::other)?.is_empty() {
            return Err(io::Error::other("not given up: capabilities"));
        }
    }
    Ok(())
}

fn verify(uid: Uid, gid: Gid) -> io::Result<()> {
    let undone = |what: &str| Err(io::Error::other(format!("not given up: {what}")));
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    if setresuid(root.0, root.0, root.0).is_ok() || nix::unistd::setuid(root.0).is_ok() {
        return undone("uid 0 came back");
    }
    if setresgid(root.1, root.1, root.1).is_ok() {
        return undone("gid 0 came back");
    }
    let (users, groups) = (getresuid()?, getresgid()?);
    if [users.real, users.effective, users.saved] != [uid; 3] {
        return undone("user ids");
    }
    if [groups.real, groups.effective, groups.saved] != [gid; 3] {
        return undone("group ids");
    }
    if !getgroups()?.iter().all(|group| *group == gid) {
        return undone("supplementary groups");
    }
    for set in [
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
        CapSet::Ambient,
        CapSet::Bounding,
    ] {
        if !caps::read(None, set).map_err(io::Error::other)?.is_empty() {
            return undone("capabilities");
        }
    }
    if !prctl::get_no_new_privs()? || prctl::get_dumpable()? {
        return undone("no_new_privs, dumpable");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_does_not_exist_yields_an_unused_uid() {
        let identity = worker_identity("no-such-user-of-pipeban");
        assert!((61184..=65519).contains(&identity.uid));
        assert_eq!(identity.uid, identity.gid);
        assert!(
            User::from_uid(Uid::from_raw(identity.uid))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn root_is_never_the_worker() {
        assert_ne!(worker_identity("root").uid, 0);
    }
}
