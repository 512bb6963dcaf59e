//! The log file in the keeper: which one it is now, and when to look whether it still is.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Zoned;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Group, Uid, User};

use super::names::{Names, Stamp};
use super::opening::{self, Made, Opened, Stream};
use super::output::{Output, Streams, To, wall};
use super::tell::Tell;

/// So often it is looked whether the path still leads to the file that is open, and whether one
/// that cannot be opened can be.
const LOOK: Duration = Duration::from_secs(1);
/// A path that leads nowhere is looked at again after this time, before a file is made there:
/// logrotate has moved the old one and is about to make its own.
const MOVED: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub(super) struct LogFile {
    output: Output,
    made: Made,
    streams: Streams,
    current: Option<Current>,
    /// `None`: not before the first line, or never again.
    look_at: Option<Instant>,
    awaits_line: bool,
    untold: bool,
}

#[derive(Debug)]
struct Current {
    file: File,
    path: PathBuf,
    stamp: Stamp,
    /// Device and inode; `None`: no file of the path's own.
    identity: Option<(u64, u64)>,
    /// The path led nowhere when it was looked at last.
    moved: bool,
    linked: bool,
}

/// What the worker must hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// There is another file.
    Opened,
    /// There is none: what would be written is kept.
    Gone,
}

/// What looking at the current file's path has shown.
enum Seen {
    Same,
    Moved,
    Another,
}

impl LogFile {
    pub(super) fn new(output: Output, streams: Streams, now: Instant, tell: &Tell) -> LogFile {
        let begins_anew = matches!(&output.to, To::File(names) if names.begins_anew());
        LogFile {
            made: made(&output, tell),
            streams,
            current: None,
            // Apache starts every logger twice: a file of each start would be one too many.
            look_at: (!begins_anew).then_some(now),
            awaits_line: begins_anew,
            untold: false,
            output,
        }
    }

    /// The file, where one is open.
    pub(super) fn file(&self) -> Option<&File> {
        self.current.as_ref().map(|current| &current.file)
    }

    /// When [`LogFile::look`] is to be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether the first line must be told by [`LogFile::begin`].
    pub(super) fn awaits_line(&self) -> bool {
        self.awaits_line
    }

    /// The pipe has lines, or (`any` false) is at its end without one.
    pub(super) fn begin(&mut self, any: bool, now: Instant) {
        self.awaits_line = false;
        self.look_at = any.then_some(now);
    }

    /// The time to look at.
    pub(super) fn wall(&self) -> Zoned {
        match &self.output.to {
            To::Stdout => Zoned::default(),
            To::File(names) => wall(names),
        }
    }

    /// The worker could not be told of the last change: the next look tells it again.
    pub(super) fn tell_again(&mut self, now: Instant) {
        self.untold = true;
        self.look_at = Some(now + LOOK);
    }

    /// Opens the file that the time wants, if it is another one than the one in use, or if its
    /// path leads to another one. `now` is when the next look is counted from.
    pub(super) fn look(&mut self, now: Instant, wall: &Zoned, tell: &Tell) -> Option<Change> {
        let (path, stamp) = match &self.output.to {
            To::Stdout => (PathBuf::from("-"), None),
            To::File(names) => {
                let stamp = names.next(
                    self.current.as_ref().map(|c| c.stamp),
                    wall,
                    self.full(names),
                );
                (names.name(stamp, wall.time_zone()), Some(stamp))
            }
        };
        self.look_at = self.next_look(now, wall);
        let stamp = stamp.unwrap_or_default();
        if let Some(current) = self.current.as_mut().filter(|current| current.path == path) {
            current.stamp = stamp;
            match current.seen() {
                Seen::Same => {
                    self.link(tell);
                    return std::mem::take(&mut self.untold).then_some(Change::Opened);
                }
                Seen::Moved => {
                    self.look_at = Some(now + MOVED);
                    return None;
                }
                Seen::Another => {}
            }
        }
        match self.open(path, stamp) {
            Ok(current) => {
                self.current = Some(current);
                tell.over("open", "the log file is open; lines go there again");
                self.link(tell);
                Some(Change::Opened)
            }
            Err(error) => self.failed(&error, now, tell),
        }
    }

    fn failed(&mut self, error: &io::Error, now: Instant, tell: &Tell) -> Option<Change> {
        self.look_at = Some(now + LOOK);
        let before = self.current.is_some() || std::mem::take(&mut self.untold);
        // Who has it open and nobody has a name for it: what is written there is lost.
        self.current = self.current.take().filter(|current| !current.is_deleted());
        let meanwhile = match &self.current {
            Some(_) => "lines go on to the one that was open",
            None => "lines are kept",
        };
        tell.trouble(
            "open",
            &format!("the log file cannot be opened: {error}; trying again, {meanwhile}"),
        );
        (before && self.current.is_none()).then_some(Change::Gone)
    }

    fn full(&self, names: &Names) -> bool {
        let len = self
            .file()
            .and_then(|file| file.metadata().ok())
            .map_or(0, |meta| meta.len());
        names.size().is_some_and(|size| len > size)
    }

    fn next_look(&self, now: Instant, wall: &Zoned) -> Option<Instant> {
        match &self.output.to {
            To::Stdout => None,
            To::File(names) if names.fixed().is_some() => Some(now + LOOK),
            // Names change with the second.
            To::File(_) => {
                let past = Duration::from_nanos(wall.subsec_nanosecond().unsigned_abs().into());
                Some(now + LOOK.saturating_sub(past))
            }
        }
    }

    fn open(&self, path: PathBuf, stamp: Stamp) -> io::Result<Current> {
        let opened = match self.output.to {
            To::Stdout => Opened::Own(Stream::Stdout),
            To::File(_) => opening::open(&path, &self.made)?,
        };
        let (file, identity) = match opened {
            Opened::File(file) => {
                let meta = file.metadata()?;
                (file, Some((meta.dev(), meta.ino())))
            }
            Opened::OfProcess(file) => (file, None),
            Opened::Own(stream) => {
                let stream = self.streams.get(stream).ok_or_else(|| {
                    io::Error::other(format!(
                        "{} has led to the terminal or pipe that Apache was started with only \
                         since then: reload Apache",
                        path.display()
                    ))
                })?;
                (stream.try_clone()?.into(), None)
            }
        };
        Ok(Current {
            file,
            path,
            stamp,
            identity,
            moved: false,
            linked: false,
        })
    }

    fn link(&mut self, tell: &Tell) {
        let (Some(link), Some(current)) = (&self.output.link, &mut self.current) else {
            return;
        };
        if current.linked {
            return;
        }
        match opening::link(link, &current.path, &self.made) {
            Ok(()) => {
                current.linked = true;
                tell.over("link", "the link leads to the log file");
            }
            Err(error) => tell.trouble("link", &format!("{error}; lines are written")),
        }
    }
}

impl Current {
    fn seen(&mut self) -> Seen {
        let Some(identity) = self.identity else {
            return Seen::Same;
        };
        match std::fs::metadata(&self.path) {
            Ok(meta) if (meta.dev(), meta.ino()) == identity => {
                self.moved = false;
                Seen::Same
            }
            Ok(_) => Seen::Another,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                if std::mem::replace(&mut self.moved, true) || self.is_deleted() {
                    Seen::Another
                } else {
                    Seen::Moved
                }
            }
            // It may be there, and what is open can be written.
            Err(_) => Seen::Same,
        }
    }

    fn is_deleted(&self) -> bool {
        self.identity.is_some() && self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }
}

fn made(output: &Output, tell: &Tell) -> Made {
    let unknown = |what: &str, name: &str| {
        tell.trouble(
            "owner",
            &format!("there is no {what} `{name}`: new log files do not get it"),
        );
    };
    let uid = output.user.as_deref().and_then(|name| {
        let found = by_number_or(name, |name| Some(User::from_name(name).ok()??.uid.as_raw()));
        if found.is_none() {
            unknown("user", name);
        }
        found.map(Uid::from_raw)
    });
    let group = output.group.as_deref();
    let gid = by_number_or(group.unwrap_or("adm"), |name| {
        Some(Group::from_name(name).ok()??.gid.as_raw())
    });
    if let (Some(name), None) = (group, gid) {
        unknown("group", name);
    }
    Made {
        uid,
        gid: gid.map(Gid::from_raw),
        mode: Mode::from_bits_truncate(output.mode),
    }
}

fn by_number_or(name: &str, look_up: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    name.parse().ok().or_else(|| look_up(name))
}

#[cfg(test)]
mod tests;
