//! Calls of ufw, each of which sees what the one before it has written.
//!
//! ufw (0.36) reads its rules first and takes its lock afterwards (the end of /usr/sbin/ufw): of
//! two calls at a time the second writes what it had read over what the first has written, and an
//! administrator's rule is lost. So pipeban's calls have the lock before they begin: the child
//! takes it before its `exec`, and for a process that has the lock ufw's `lockf` (`create_lock` in
//! ufw/util.py) changes nothing. Where two meet it is pipeban's rule that is lost, and restored.
#![forbid(unsafe_code)]

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::super::backend::Error;
use super::super::tool;
use crate::sys::process::{hold_lock, holder_of_lock};

pub(super) const UFW: &str = "/usr/sbin/ufw";
const LOCK: &str = "/run/ufw.lock";
/// A call takes 0.3 s, with 10 000 rules 4 s; as long again for another ufw to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two of pipeban's calls, and two checks of the lock: another ufw that waits gets it.
pub(super) const GIVE_WAY: Duration = Duration::from_millis(50);

/// Calls ufw, after other calls have ended; returns what it printed.
///
/// # Errors
/// It failed, or the lock was not free for a minute or until `stop` said true.
pub(super) fn run(argv: &[String], stop: impl Fn() -> bool) -> Result<String, Error> {
    let free = Instant::now() + PATIENCE;
    loop {
        thread::sleep(GIVE_WAY);
        // Without it ufw reports what is wrong.
        let Some(lock) = lock() else {
            return tool::run(UFW, argv, PATIENCE);
        };
        let over = stop() || Instant::now() >= free;
        match holder_of_lock(&lock) {
            Ok(Some(holder)) if over => return Err(held_by(holder, argv)),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                match tool::start(UFW, argv, |command: &mut Command| hold_lock(command, lock)) {
                    Err(error) if was_taken(&error) && !over => {}
                    other => return tool::finish(UFW, argv, other, PATIENCE),
                }
            }
        }
    }
}

fn held_by(holder: i32, argv: &[String]) -> Error {
    Error::Tool {
        command: format!("{UFW} {}", argv.join(" ")),
        said: format!(
            "process {holder} has held {LOCK} for up to {} s: does a `ufw` wait for an answer?",
            PATIENCE.as_secs()
        ),
    }
}

/// The lock's file; `None` where it cannot be opened, or /usr/sbin/ufw only starts the real ufw:
/// the first would have the lock, and ufw would wait for it. ufw creates it so that any user can
/// open and lock it, and hold up ufw as long as that process runs; from now on only root can.
fn lock() -> Option<File> {
    let mut begin = Vec::new();
    let ufw = File::open(UFW).ok()?;
    ufw.take(64).read_to_end(&mut begin).ok()?;
    let first = begin.split(|byte| *byte == b'\n').next()?;
    let first = String::from_utf8_lossy(first);
    let is_python = first.starts_with("#!") && first.contains("python");
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = is_python.then(|| options.open(LOCK).ok()).flatten()?;
    let _ = lock.set_permissions(Permissions::from_mode(0o600));
    Some(lock)
}

/// Whether another ufw is at work: it may be writing its files.
pub(super) fn is_busy() -> bool {
    lock().is_some_and(|lock| matches!(holder_of_lock(&lock), Ok(Some(_))))
}

/// Another process was faster; or, with the same error, there is no room for a process.
fn was_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAGAIN as i32)
}
