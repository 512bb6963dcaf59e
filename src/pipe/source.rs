//! Stdin as a pipe: opened again and locked, so that it never has two readers. A file, a terminal or
//! a socket is copied into a pipe.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use caps::{CapSet, Capability};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{dup2_stdin, pipe2};

use super::log::IGNORED;
use super::report::Report;
use crate::sys::{process, signals};

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

/// In the keeper: opens the pipe on stdin again, non-blocking, and locks it. Waits as long as another
/// reader holds the lock.
pub(super) fn open_and_lock(report: &Report) -> io::Result<OwnedFd> {
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
    loop {
        match pipe.lock() {
            Ok(()) => return Ok(pipe.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn enlarge(pipe: &File) {
    let has = |cap| caps::has_cap(None, CapSet::Effective, cap).unwrap_or(false);
    let free = has(Capability::CAP_SYS_RESOURCE) || has(Capability::CAP_SYS_ADMIN);
    let wanted: &[i32] = if free {
        &[PIPE, PIPE_WITH_QUOTA]
    } else {
        &[PIPE_WITH_QUOTA]
    };
    for size in wanted {
        let now = fcntl(pipe, FcntlArg::F_GETPIPE_SZ).unwrap_or(0);
        // A smaller pipe loses nothing, it only fills sooner.
        if now >= *size || fcntl(pipe, FcntlArg::F_SETPIPE_SZ(*size)).is_ok() {
            return;
        }
    }
}
