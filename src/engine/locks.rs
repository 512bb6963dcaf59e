//! One engine per state directory and per network namespace.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg, OFlag};

use super::Failure;

/// Each network namespace has one firewall, and needs one engine.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Held as long as the engine runs.
#[derive(Debug)]
pub(super) struct Locks {
    /// The directory, which stays locked when it is emptied, and the file in it.
    _state: (Flock<File>, Option<Flock<File>>),
    /// The namespace's file; `None`: not locked.
    _namespace: Option<Flock<File>>,
    /// A process that is no engine locks the namespace.
    pub(super) warning: Option<String>,
}

/// Takes the locks. `namespace`: whether this engine touches the firewall.
///
/// # Errors
/// Which process holds one, for the operator. A full or read-only disk does not prevent a lock.
pub(super) fn take(state: &Path, namespace: bool) -> Result<Locks, Failure> {
    let mut file = open(state)?;
    let mut holder = String::new();
    if let Some(file) = &mut file {
        // For the message.
        let _ = file.take(32).read_to_string(&mut holder);
    }
    let lock = |file: File| {
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            Failure::Second(format!(
                "another engine (pid {}) uses {}; `pipeban engine --stop` ends it",
                holder.trim(),
                state.display()
            ))
        })
    };
    let directory = File::open(state).map_err(|error| cannot_open(state, &error))?;
    close_to_others(&directory);
    let directory = lock(directory)?;
    let mut file = file.map(lock).transpose()?;
    if let Some(file) = &mut file {
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
    }
    let (namespace, warning) = if namespace {
        lock_namespace().map_err(Failure::Cannot)?
    } else {
        (None, None)
    };
    Ok(Locks {
        _state: (directory, file),
        _namespace: namespace,
        warning,
    })
}

/// Whoever can open the directory can lock it, and keep the engine from starting.
fn close_to_others(directory: &File) {
    let mode = directory
        .metadata()
        .map(|directory| directory.mode() & 0o7777);
    if let Ok(mode) = mode
        && mode & 0o007 != 0
    {
        // On a read-only disk it stays as it is.
        let _ = directory.set_permissions(Permissions::from_mode(mode & !0o007));
    }
}

/// The lock file; `None` where it cannot be created or opened (disk full, read-only).
fn open(state: &Path) -> Result<Option<File>, Failure> {
    let path = state.join("engine.lock");
    let made = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        // A FIFO in its place waits for no writer.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(&path);
    match made {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(cannot_open(&path, &error))
        }
        Err(_) => Ok(File::open(&path).ok()),
    }
}

fn cannot_open(path: &Path, error: &io::Error) -> Failure {
    let text = format!("cannot open {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::NotPermitted(text),
        _ => Failure::Cannot(text),
    }
}

/// Whether an engine uses this state directory, and so has not ended.
pub fn is_held(state: &Path) -> bool {
    let is_locked = |path: &Path| {
        File::open(path).is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
    };
    // An older engine locks only the file.
    is_locked(state) || is_locked(&state.join("engine.lock"))
}

/// The lock of the namespace, or a warning why there is none.
fn lock_namespace() -> Result<(Option<Flock<File>>, Option<String>), String> {
    let failed = |error: io::Error| format!("cannot lock this network namespace: {error}");
    let file = File::open(NAMESPACE).map_err(failed)?;
    let inode = file.metadata().map_err(failed)?.ino();
    if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        return Ok((Some(lock), None));
    }
    // Any user can lock it, also by a process that has ended and left the lock to another one; only an
    // engine can keep an engine from starting.
    let mut who = "a process that pipeban cannot see".to_owned();
    for pid in holders(inode) {
        let uid = fs::metadata(format!("/proc/{pid}")).map(|process| process.uid());
        if uid.as_ref().is_ok_and(|uid| is_engine(pid, *uid)) {
            return Err(format!(
                "another engine (pid {pid}) runs in this network namespace; with another state \
                 directory only `backend = \"dry-run\"` can run beside it"
            ));
        }
        let of = uid.map_or(String::new(), |uid| format!(" of uid {uid}"));
        who = format!("process {pid}{of}");
    }
    let warning = format!(
        "{who} locks this network namespace (`fuser -v /proc/self/ns/net`): end that process; if \
         it is an engine in a container, both change this firewall"
    );
    Ok((None, Some(warning)))
}

/// Whether the process is an engine of root, or of this user. A program that other users run with
/// root's rights (`su`) may have inherited their lock.
fn is_engine(pid: u32, uid: u32) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = exe.file_name().unwrap_or_default().as_encoded_bytes();
    (uid == 0 || uid == own) && name.starts_with(b"pipeban")
}

/// The processes that took a lock on the file with this inode, and still have it open where that
/// can be seen.
fn holders(inode: u64) -> Vec<u32> {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = |line: &str| -> Option<u32> {
        // 3: FLOCK  ADVISORY  WRITE 22537 00:04:4026531833 0 EOF
        let mut words = line.split_ascii_whitespace().skip(1);
        let (kind, pid, file) = (words.next()?, words.nth(2)?, words.next()?);
        let same = kind == "FLOCK" && file.rsplit(':').next()? == inode.to_string();
        same.then(|| pid.parse().ok()).flatten()
    };
    let found = locks.lines().filter_map(pid);
    found.filter(|pid| has_open(*pid, inode)).collect()
}

/// A process that took the lock may have ended and left it to another one; its number may be that
/// of a third one by now.
fn has_open(pid: u32, inode: u64) -> bool {
    let name = format!("net:[{inode}]");
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(files) => files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|file| file.as_os_str() == name.as_str()),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::skip;
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn one_engine_per_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), false).unwrap();
        assert!(is_held(dir.path()));
        let error = format!("{:?}", take(dir.path(), false).unwrap_err());
        assert!(
            error.contains(&format!("pid {}", std::process::id())),
            "{error}"
        );
        drop(first);
        assert!(!is_held(dir.path()));
        assert!(take(dir.path(), false).is_ok());
    }

    #[test]
    fn a_directory_that_is_emptied_stays_locked() {
        let dir = tempfile::tempdir().unwrap();
        let _first = take(dir.path(), false).unwrap();
        std::fs::remove_file(dir.path().join("engine.lock")).unwrap();
        assert!(take(dir.path(), false).is_err());
    }

    #[test]
    fn others_cannot_lock_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let _first = take(dir.path(), false).unwrap();
        let mode = std::fs::metadata(dir.path()).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o750);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_locked_too() {
        let dir = tempfile::tempdir().unwrap();
        // not even root can open a directory for writing
        std::fs::create_dir(dir.path().join("engine.lock")).unwrap();
        let first = take(dir.path(), false).unwrap();
        assert!(is_held(dir.path()));
        assert!(take(dir.path(), false).is_err());
        drop(first);
        assert!(take(dir.path(), false).is_ok());
    }

    #[test]
    fn one_engine_per_network_namespace() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let in_a_namespace = std::thread::spawn(move || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                return skip(&format!("no network namespace: {error} (needs root)"));
            }
            let first = take(one.path(), true).unwrap();
            assert!(first._namespace.is_some());
            let error = format!("{:?}", take(two.path(), true).unwrap_err());
            assert!(error.contains("network namespace"), "{error}");
            assert!(
                error.contains(&format!("pid {}", std::process::id())),
                "{error}"
            );
            // an engine without a firewall may run beside it
            drop(take(two.path(), false).unwrap());
            drop(first);
            assert!(take(two.path(), true).unwrap().warning.is_none());
        });
        in_a_namespace.join().unwrap();
    }

    #[test]
    fn a_process_that_is_no_engine_keeps_none_from_starting() {
        let state = tempfile::tempdir().unwrap();
        let in_a_namespace = std::thread::spawn(move || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                return skip(&format!("no network namespace: {error} (needs root)"));
            }
            // The process that takes the lock has ended.
            let file = File::open(NAMESPACE).unwrap();
            let mut flock = std::process::Command::new("flock");
            flock.args(["--nonblock", "0"]);
            flock.stdin(file.try_clone().unwrap());
            assert!(flock.status().unwrap().success());
            let locks = take(state.path(), true).unwrap();
            let warning = locks.warning.unwrap();
            assert!(warning.contains("cannot see"), "{warning}");
        });
        in_a_namespace.join().unwrap();
    }
}
