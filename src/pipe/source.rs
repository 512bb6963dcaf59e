//! Stdin as a pipe: opened again and locked, so that it never has two readers. A file, a terminal or
//! a socket is copied into a pipe.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use caps::{CapSet, Capability};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{dup2_stdin, geteuid, pipe2};

use super::log::IGNORED;
use super::report::Report;
use crate::sys::{directory, process, signals};

/// What Apache can write while the pipe is not read.
const PIPE: i32 = 1024 * 1024;
/// The same where the owner's quota of pipe memory counts: 64 MiB are soon used up.
const PIPE_WITH_QUOTA: i32 = 256 * 1024;

/// In the stub: if stdin is not a pipe, replaces it with one, and a process that copies into it.
pub(super) fn make_stdin_a_pipe() -> io::Result<()> {
    let stdin = io::stdin();
    let mode = SFlag::from_bits_truncate(fstat(&stdin)?.st_mode);
    if mode & SFlag::S_IFMT == SFlag::S_IFIFO {
        return Ok(());
    }
    let terminal = stdin.is_terminal();
    let (out, into) = pipe2(OFlag::O_CLOEXEC)?;
    let raw = into.as_raw_fd();
    process::fork_child(&[raw], move || {
        if terminal {
            // It would go on reading what is typed for the shell.
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        } else {
            let _ = signals::ignore(&IGNORED).and(signals::ignore(&[Signal::SIGTERM]));
        }
        let _ = signals::let_all_through();
        let _ = process::redirect_to_null(false);
        i32::from(copy(into).is_err())
    })?;
    dup2_stdin(&out)?;
    Ok(())
}

/// `std::io::copy` would move a whole file with one system call that cannot be interrupted, or fail
/// on what cannot be spliced.
fn copy(into: OwnedFd) -> io::Result<()> {
    let mut into = File::from(into);
    let mut from = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => into.write_all(buffer.get(..n).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Keeps other readers out as long as it exists. `None`: the pipe itself is locked.
pub(super) type Lock = Option<File>;

/// In the keeper: opens the pipe on stdin again, non-blocking, and locks it. Waits as long as another
/// reader holds the lock.
///
/// A lock on the pipe itself would not do: a script of Apache's has the pipe as its stderr, and could
/// hold the lock for ever. So the lock is a byte, the number of the pipe, of a file in `runtime` that
/// only root can open. Where that file cannot be had the scripts run as this user anyway.
pub(super) fn open_and_lock(runtime: &Path, report: &Report) -> io::Result<(OwnedFd, Lock)> {
    let opened = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open("/proc/self/fd/0");
    let pipe = match opened {
        Ok(pipe) => pipe,
        Err(error) => {
            // No /proc, or another user's pipe.
            report.warning(&format!(
                "cannot open the pipe again ({error}): it is read as inherited, and a second \
                 reader is not kept out"
            ));
            let pipe = io::stdin().as_fd().try_clone_to_owned()?;
            fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            File::from(pipe)
        }
    };
    enlarge(&pipe);
    let number = i64::try_from(pipe.metadata()?.ino()).unwrap_or_default();
    let lock = lock_file(runtime).and_then(|file| process::lock_byte(&file, number).map(|()| file));
    if lock.is_err() {
        lock_pipe(&pipe)?;
    }
    Ok((pipe.into(), lock.ok()))
}

/// The file whose bytes are the locks of pipes.
fn lock_file(runtime: &Path) -> io::Result<File> {
    // As the engine creates it, which may come later.
    directory::create(runtime, 0o755)?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(runtime.join("pipes.lock"))?;
    let found = file.metadata()?;
    let is_ours = found.is_file() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0;
    is_ours
        .then_some(file)
        .ok_or(io::ErrorKind::PermissionDenied.into())
}

fn lock_pipe(pipe: &File) -> io::Result<()> {
    loop {
        match pipe.lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}

/// Makes the pipe large again: a script of Apache's, whose stderr it is, can have made it small.
pub(super) fn keep_large(pipe: &OwnedFd) {
    if fcntl(pipe, FcntlArg::F_GETPIPE_SZ).is_ok_and(|size| size < PIPE_WITH_QUOTA) {
        enlarge(pipe);
    }
}

fn enlarge(pipe: impl AsFd) {
    let has = |cap| caps::has_cap(None, CapSet::Effective, cap).unwrap_or(false);
    let free = has(Capability::CAP_SYS_RESOURCE) || has(Capability::CAP_SYS_ADMIN);
    let wanted: &[i32] = if free {
        &[PIPE, PIPE_WITH_QUOTA]
    } else {
        &[PIPE_WITH_QUOTA]
    };
    for size in wanted {
        let now = fcntl(&pipe, FcntlArg::F_GETPIPE_SZ).unwrap_or(0);
        // A smaller pipe loses nothing, it only fills sooner.
        if now >= *size || fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(*size)).is_ok() {
            return;
        }
    }
}
