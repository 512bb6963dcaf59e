//! The emergency stop as the running engine sees it: in its memory, and in the file that other
//! processes may write or remove when they cannot reach it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::off;
use crate::config::Paths;
use crate::control::OffStatus;
use crate::jail::{Moment, Now};

/// Whether the stop is on.
#[derive(Debug, Default)]
pub(super) struct Stop {
    on: Option<On>,
    /// The file as it was when we last read or wrote it; `None`: not there.
    file: Option<Stamp>,
}

#[derive(Debug)]
struct On {
    status: OffStatus,
    /// On the clock that nobody sets.
    ends: Option<Moment>,
}

/// Inode and time of its last change: every writer makes a new file.
type Stamp = (u64, i64, i64);

impl Stop {
    /// As the file says.
    pub(super) fn read(paths: &Paths, now: Now) -> Stop {
        let mut stop = Stop {
            on: None,
            file: stamp(paths).unwrap_or_default(),
        };
        stop.set(off::read(paths, now.wall), now);
        stop
    }

    pub(super) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    pub(super) fn status(&self) -> Option<OffStatus> {
        self.on.as_ref().map(|on| on.status.clone())
    }

    pub(super) fn is_over(&self, now: Now) -> bool {
        let ends = self.on.as_ref().and_then(|on| on.ends);
        ends.is_some_and(|ends| ends <= now.boot)
    }

    /// On from now; and whether the file could be written.
    pub(super) fn begin(
        &mut self,
        paths: &Paths,
        length: Option<Duration>,
        now: Now,
    ) -> (OffStatus, io::Result<()>) {
        let status = off::from_now(now.wall, length);
        let written = off::write(paths, &status);
        self.set(Some(status.clone()), now);
        self.file = stamp(paths).unwrap_or_default();
        (status, written)
    }

    /// Not on any more.
    ///
    /// # Errors
    /// The file is still there.
    pub(super) fn end(&mut self, paths: &Paths) -> io::Result<()> {
        self.on = None;
        let removed = off::remove(paths).map(drop);
        self.file = stamp(paths).unwrap_or_default();
        removed
    }

    /// What another process has made of it since we last looked: `Some(None)` not on any more.
    pub(super) fn changed_by_others(
        &mut self,
        paths: &Paths,
        now: Now,
    ) -> Option<Option<OffStatus>> {
        let file = stamp(paths).ok()?;
        if file == self.file {
            return None;
        }
        self.file = file;
        let before = self.status();
        self.set(off::read(paths, now.wall), now);
        let after = self.status();
        (before != after).then_some(after)
    }

    fn set(&mut self, status: Option<OffStatus>, now: Now) {
        self.on = status.map(|status| On {
            ends: status.until.map(|until| now.moment_of(until)),
            status,
        });
    }
}

fn stamp(paths: &Paths) -> io::Result<Option<Stamp>> {
    match std::fs::symlink_metadata(paths.off_file()) {
        Ok(there) => Ok(Some((there.ino(), there.mtime(), there.mtime_nsec()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn at(boot: i64, wall: i64) -> Now {
        Now {
            boot: Moment::from_nanos(boot * 1_000_000_000),
            wall: Timestamp::from_second(wall).unwrap(),
        }
    }

    fn paths(dir: &tempfile::TempDir) -> Paths {
        Paths {
            state: dir.path().to_owned(),
            ..Paths::default()
        }
    }

    #[test]
    fn a_clock_that_is_set_neither_lengthens_nor_shortens_the_stop() {
        let dir = tempfile::tempdir().unwrap();
        let mut stop = Stop::default();
        let hour = Some(Duration::from_secs(3_600));
        let (_, written) = stop.begin(&paths(&dir), hour, at(100, 1_800_000_000));
        written.unwrap();
        for wall in [0, 1_800_000_000, 1_900_000_000] {
            assert!(!stop.is_over(at(3_699, wall)), "{wall}");
            assert!(stop.is_over(at(3_700, wall)), "{wall}");
        }
    }

    #[test]
    fn what_others_write_or_remove_is_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, now) = (paths(&dir), at(100, 1_800_000_000));
        let mut stop = Stop::read(&paths, now);
        assert_eq!(stop.changed_by_others(&paths, now), None);
        let off = off::from_now(now.wall, None);
        off::write(&paths, &off).unwrap();
        assert_eq!(stop.changed_by_others(&paths, now), Some(Some(off)));
        assert_eq!(stop.changed_by_others(&paths, now), None);
        assert!(stop.is_on());
        off::remove(&paths).unwrap();
        assert_eq!(stop.changed_by_others(&paths, now), Some(None));
        assert!(!stop.is_on());
        // what we do ourselves is no news
        stop.begin(&paths, None, now).1.unwrap();
        assert_eq!(stop.changed_by_others(&paths, now), None);
        stop.end(&paths).unwrap();
        assert_eq!(stop.changed_by_others(&paths, now), None);
    }
}
