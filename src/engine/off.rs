//! The emergency stop: a file in the state directory, so that it survives restarts and needs no
//! running engine.

use std::io;
use std::time::Duration;

use jiff::Timestamp;

use super::files;
use crate::config::{Backend, Config, Paths};
use crate::control::OffStatus;
use crate::firewall;

/// What the file says; `None`: the stop is not on, or its time is over. A file that cannot be
/// understood means on: somebody wanted it.
pub fn read(paths: &Paths, now: Timestamp) -> Option<OffStatus> {
    let text = match std::fs::read_to_string(paths.off_file()) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => String::new(),
    };
    let off = serde_json::from_str(&text).unwrap_or(OffStatus {
        since: now,
        until: None,
    });
    off.until.is_none_or(|until| until > now).then_some(off)
}

/// A stop from now on; without a length until `pipeban on`.
pub fn from_now(now: Timestamp, length: Option<Duration>) -> OffStatus {
    OffStatus {
        since: now,
        until: length.map(|length| now.checked_add(length).unwrap_or(Timestamp::MAX)),
    }
}

/// Writes the file.
///
/// # Errors
/// What the file system said.
pub fn write(paths: &Paths, off: &OffStatus) -> io::Result<()> {
    files::directory(&paths.state, 0o750)?;
    let text = serde_json::to_string(off).map_err(io::Error::from)?;
    files::replace(&paths.off_file(), &text)
}

/// Removes the file; whether there was one.
///
/// # Errors
/// What the file system said.
pub fn remove(paths: &Paths) -> io::Result<bool> {
    match std::fs::remove_file(paths.off_file()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes away everything in the firewall without an engine; how many ufw rules went.
///
/// # Errors
/// What could not be removed.
pub fn clear_firewall(config: Option<&Config>) -> Result<usize, String> {
    match config {
        Some(config) if config.firewall.has(Backend::DryRun) => Ok(0),
        // Also what other back ends of an earlier configuration put there.
        Some(config) => firewall::clear_everything(&config.paths),
        None => firewall::clear_everything(&Paths::default()),
    }
}
