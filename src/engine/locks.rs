//! One engine per state directory and per network namespace.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::Failure;

/// Abstract, so that it lives in the network namespace, whose firewall it stands for.
const NAMESPACE: &str = "pipeban-engine";

/// Held as long as the engine runs.
#[derive(Debug)]
pub(super) struct Locks {
    _state: Flock<File>,
    /// Its connections are accepted and dropped, or its queue would fill.
    pub(super) namespace: Option<UnixListener>,
    /// Something to tell: the namespace's name is taken by somebody who is no engine.
    pub(super) warning: Option<String>,
}

/// Takes the locks. `namespace`: whether this engine touches the firewall.
///
/// # Errors
/// Who holds one, for the operator. A full disk or a read-only one keeps no engine from running.
pub(super) fn take(state: &Path, namespace: bool) -> Result<Locks, Failure> {
    let mut file = open(state)?;
    let mut holder = String::new();
    // Only to name it.
    let _ = (&mut file).take(32).read_to_string(&mut holder);
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        Failure::Cannot(format!(
            "another engine (pid {}) has {}; `pipeban engine --stop` ends it",
            holder.trim(),
            state.display()
        ))
    })?;
    let _ = lock
        .set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()));
    let (namespace, warning) = if namespace {
        own_namespace().map_err(Failure::Cannot)?
    } else {
        (None, None)
    };
    Ok(Locks {
        _state: lock,
        namespace,
        warning,
    })
}

/// The lock file; where it cannot be made or written (disk full, read-only), as it is, else the
/// directory itself: all of them can be locked.
fn open(state: &Path) -> Result<File, Failure> {
    let path = state.join("engine.lock");
    let made = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(&path);
    let error = match made {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    let text = format!("{} cannot be opened: {error}", path.display());
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Err(Failure::NotPermitted(text));
    }
    File::open(&path)
        .or_else(|_| File::open(state))
        .map_err(|_| Failure::Cannot(text))
}

/// Whether some engine holds this lock file; its end is seen so, whatever its socket says.
pub fn is_held(lock: &Path) -> bool {
    File::open(lock).is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}

fn own_namespace() -> Result<(Option<UnixListener>, Option<String>), String> {
    let addr = SocketAddr::from_abstract_name(NAMESPACE).map_err(|error| error.to_string())?;
    match UnixListener::bind_addr(&addr) {
        Ok(listener) => {
            listener
                .set_nonblocking(true)
                .map_err(|error| error.to_string())?;
            Ok((Some(listener), None))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = UnixStream::connect_addr(&addr)
                .ok()
                .and_then(|stream| getsockopt(&stream, PeerCredentials).ok());
            match holder {
                // Anybody may take an abstract name; only root's word keeps us from starting.
                Some(holder) if holder.uid() != 0 && holder.uid() != own_uid() => {
                    let (pid, uid) = (holder.pid(), holder.uid());
                    Ok((
                        None,
                        Some(format!(
                            "@{NAMESPACE} is taken by pid {pid} of uid {uid}, which is no engine: \
                             end that process"
                        )),
                    ))
                }
                Some(holder) => Err(format!(
                    "another engine (pid {}) rules this network namespace; with another state \
                     directory only `backend = \"dry-run\"` can run beside it",
                    holder.pid()
                )),
                None => Err(format!(
                    "another engine rules this network namespace (@{NAMESPACE})"
                )),
            }
        }
        Err(error) => Err(format!("@{NAMESPACE} cannot be taken: {error}")),
    }
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn one_engine_per_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), false).unwrap();
        assert!(is_held(&dir.path().join("engine.lock")));
        let error = format!("{:?}", take(dir.path(), false).unwrap_err());
        assert!(
            error.contains(&format!("pid {}", std::process::id())),
            "{error}"
        );
        drop(first);
        assert!(!is_held(&dir.path().join("engine.lock")));
        assert!(take(dir.path(), false).is_ok());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_locked_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        // what cannot be opened as a file for writing, even by root
        std::fs::create_dir(dir.path().join("engine.lock")).unwrap();
        let first = take(dir.path(), false).unwrap();
        assert!(is_held(&dir.path().join("engine.lock")));
        assert!(take(dir.path(), false).is_err());
        drop(first);
        assert!(take(dir.path(), false).is_ok());
    }

    #[test]
    fn one_engine_per_network_namespace() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let in_a_namespace = std::thread::spawn(move || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                eprintln!("SKIPPED: no network namespace of one's own: {error} (needs root)");
                return;
            }
            let first = take(one.path(), true).unwrap();
            assert!(first.namespace.is_some());
            let error = format!("{:?}", take(two.path(), true).unwrap_err());
            assert!(error.contains("network namespace"), "{error}");
            assert!(
                error.contains(&format!("pid {}", std::process::id())),
                "{error}"
            );
            // one that touches no firewall may run beside it
            drop(take(two.path(), false).unwrap());
            drop(first);
            assert!(take(two.path(), true).is_ok());
        });
        in_a_namespace.join().unwrap();
    }
}
