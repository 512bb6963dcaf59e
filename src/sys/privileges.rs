//! Who a worker is.

use nix::unistd::{Uid, User};

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
