//! The emergency stop: a file in the state directory, so that it survives restarts and works
//! without an engine. The engine also notices when another process writes or removes the file.

use std::io;
use std::time::Duration;

use jiff::Timestamp;

use super::alarms::Check;
use super::files;
use crate::alert::Severity;
use crate::config::{Backend, Config, Paths};
use crate::control::OffStatus;
use crate::firewall;
use crate::jail::{Moment, Now};
use crate::sys::directory;

/// What the file says; `None`: the stop is off, or its time is over. A file that is malformed,
/// or cannot be read, means on.
pub fn read(paths: &Paths, now: Timestamp) -> Option<OffStatus> {
    match text_of(paths) {
        Ok(text) => parse(&text?, now),
        Err(_) => parse("", now),
    }
}

fn text_of(paths: &Paths) -> io::Result<Option<String>> {
    match std::fs::read_to_string(paths.off_file()) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(text: &str, now: Timestamp) -> Option<OffStatus> {
    let off = serde_json::from_str(text).unwrap_or(OffStatus {
        since: now,
        until: None,
    });
    off.until.is_none_or(|until| until > now).then_some(off)
}

/// A stop from `now`; without a length until `pipeban on`.
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
    directory::create(&paths.state, 0o750)?;
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

/// Removes everything of pipeban's from the firewall without an engine; returns how many ufw rules
/// were removed.
///
/// # Errors
/// What could not be removed.
pub fn clear_firewall(config: Option<&Config>) -> Result<usize, String> {
    match config {
        Some(config) if config.firewall.has(Backend::DryRun) => Ok(0),
        // Also what back ends of an earlier configuration left.
        Some(config) => firewall::clear_everything(&config.paths),
        None => firewall::clear_everything(&Paths::default()),
    }
}

/// Removes the ufw rules and the names in Apache's deny map whose ban is over; returns how many.
/// For a host on which no engine runs: nftables ends its bans without one.
///
/// # Errors
/// What could not be removed.
pub fn clear_over(config: Option<&Config>) -> Result<usize, String> {
    match config {
        Some(config) if config.firewall.has(Backend::DryRun) => Ok(0),
        Some(config) => firewall::clear_over(&config.paths, Timestamp::now()),
        None => firewall::clear_over(&Paths::default(), Timestamp::now()),
    }
}

/// The emergency stop as the engine knows it.
pub(super) struct EmergencyStop {
    paths: Paths,
    on: Option<On>,
    /// The text of the file, as last read or written; `None`: there was no file.
    text: Option<String>,
    /// Why the file does not say what it should.
    file_error: Option<String>,
}

struct On {
    status: OffStatus,
    /// By the clock that is never set.
    ends: Option<Moment>,
}

impl EmergencyStop {
    pub(super) fn load(paths: &Paths, now: Now) -> EmergencyStop {
        let mut stop = EmergencyStop {
            paths: paths.clone(),
            on: None,
            text: text_of(paths).unwrap_or_default(),
            file_error: None,
        };
        stop.set(read(paths, now.wall), now);
        stop
    }

    pub(super) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    pub(super) fn status(&self) -> Option<&OffStatus> {
        self.on.as_ref().map(|on| &on.status)
    }

    /// For syslog and `status`, while it is on.
    pub(super) fn warning(&self) -> Option<String> {
        let until = match self.status()?.until {
            Some(until) => format!("until {until:.0}"),
            None => "until `pipeban on`".into(),
        };
        Some(format!(
            "not banning at all: the emergency stop is on {until}"
        ))
    }

    pub(super) fn is_over(&self, now: Now) -> bool {
        let ends = self.on.as_ref().and_then(|on| on.ends);
        ends.is_some_and(|ends| ends <= now.boot)
    }

    /// Switches it on; returns an error text if that ends with this engine.
    pub(super) fn begin(&mut self, length: Option<Duration>, now: Now) -> Option<&str> {
        let status = from_now(now.wall, length);
        let written = write(&self.paths, &status);
        self.set(Some(status), now);
        self.text = text_of(&self.paths).unwrap_or_default();
        self.file_error = written.err().map(|error| {
            let path = self.paths.off_file();
            let path = path.display();
            format!("cannot write {path}: {error}; the emergency stop ends with this engine")
        });
        self.file_error.as_deref()
    }

    pub(super) fn end(&mut self) {
        self.on = None;
        let removed = remove(&self.paths);
        self.text = text_of(&self.paths).unwrap_or_default();
        self.file_error = removed.err().map(|error| {
            let path = self.paths.off_file();
            let path = path.display();
            format!("cannot remove {path}: {error}; after a restart the emergency stop is on again")
        });
    }

    /// Whether another process switched it on or off by the file.
    pub(super) fn changed_by_file(&mut self, now: Now) -> bool {
        let Ok(text) = text_of(&self.paths) else {
            return false;
        };
        if text == self.text {
            return false;
        }
        let before = self.status().cloned();
        self.set(text.as_deref().and_then(|text| parse(text, now.wall)), now);
        self.text = text;
        before.as_ref() != self.status()
    }

    pub(super) fn check(&self) -> Check {
        ("off-file", Severity::Err, self.file_error.clone())
    }

    fn set(&mut self, status: Option<OffStatus>, now: Now) {
        self.on = status.map(|status| On {
            ends: status.until.map(|until| now.moment_of(until)),
            status,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: i64, wall: i64) -> Now {
        Now {
            boot: Moment::from_nanos(boot * 1_000_000_000),
            wall: Timestamp::from_second(wall).unwrap(),
        }
    }

    #[test]
    fn setting_the_clock_neither_lengthens_nor_shortens_the_stop() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            state: dir.path().to_owned(),
            ..Paths::default()
        };
        let mut stop = EmergencyStop::load(&paths, at(100, 1_800_000_000));
        let hour = Some(Duration::from_secs(3_600));
        assert_eq!(stop.begin(hour, at(100, 1_800_000_000)), None);
        for wall in [0, 1_800_000_000, 1_900_000_000] {
            assert!(!stop.changed_by_file(at(3_699, wall)), "{wall}");
            assert!(!stop.is_over(at(3_699, wall)), "{wall}");
            assert!(stop.is_over(at(3_700, wall)), "{wall}");
        }
    }

    #[test]
    fn a_file_that_another_process_writes_or_removes_is_noticed_once() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths {
            state: dir.path().to_owned(),
            ..Paths::default()
        };
        let now = at(100, 1_800_000_000);
        let mut stop = EmergencyStop::load(&paths, now);
        assert!(!stop.changed_by_file(now));
        std::fs::write(paths.off_file(), "no JSON").unwrap();
        assert!(stop.changed_by_file(now) && stop.is_on());
        assert!(!stop.changed_by_file(now));
        remove(&paths).unwrap();
        assert!(stop.changed_by_file(now) && !stop.is_on());
        // the engine's own changes
        stop.begin(None, now);
        assert!(!stop.changed_by_file(now));
        stop.end();
        assert!(!stop.changed_by_file(now) && !stop.is_on());
    }
}
