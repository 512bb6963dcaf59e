//! The log file: opened by its name at the time of writing, and checked for being moved away.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::{Timestamp, Zoned};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Group, Uid, User};

use super::names::Names;
use super::opening::{self, Made, Opened, Stream};
use super::output::{Output, Streams, To, wall};
use super::report::Report;
use crate::alert::{self, Severity};

/// A path is checked at most so often, before a write; what cannot be opened is tried again after
/// this time.
const CHECK: Duration = Duration::from_secs(1);
/// A path that leads nowhere is checked again after this time, before a file is created there:
/// logrotate has moved the old one and may be about to create its own.
const MOVED: Duration = Duration::from_millis(250);

/// Bytes kept of a line that is not yet complete; [`alert::log`] cuts it further.
const MAX_SYSLOG: usize = 8192;

#[derive(Debug)]
pub(super) struct LogFile {
    output: Output,
    made: Made,
    streams: Streams,
    current: Option<Current>,
    /// `None`: never again.
    due: Option<Instant>,
    /// Bytes were written since the last check.
    written: bool,
    /// A line that is not yet complete, for syslog.
    begun: Vec<u8>,
    report: Report,
}

#[derive(Debug)]
struct Current {
    file: File,
    path: PathBuf,
    /// The time that `path` was made of.
    named_by: Timestamp,
    /// Device and inode; `None`: a stream of another process, which has no name.
    identity: Option<(u64, u64)>,
    /// The path led nowhere at the last check.
    moved: bool,
    linked: bool,
}

/// Where the current file's path leads.
enum Seen {
    Same,
    Nowhere,
    Another,
}

impl LogFile {
    pub(super) fn new(output: Output, streams: Streams, report: Report) -> LogFile {
        LogFile {
            made: made(&output, &report),
            streams,
            current: None,
            due: Some(Instant::now()),
            written: false,
            begun: Vec::new(),
            report,
            output,
        }
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    /// The file to append to, if one is open.
    pub(super) fn file(&self) -> Option<&File> {
        self.current.as_ref().map(|current| &current.file)
    }

    /// When to [`LogFile::check`] before the next write.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// When to check also without another write: a file that was moved away is replaced soon. A
    /// log without lines is not checked.
    pub(super) fn check_at(&self) -> Option<Instant> {
        let moved = self.current.as_ref().is_some_and(|current| current.moved);
        self.due.filter(|_| moved || self.written)
    }

    /// Bytes were written. `--syslog` gets their lines; what its daemon does not take is dropped.
    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        self.written = true;
        let Some(facility) = self.output.syslog else {
            return;
        };
        let settings = self.report.syslog(facility);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_SYSLOG.saturating_sub(self.begun.len());
            self.begun.extend(part.iter().take(room));
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.begun);
                let line = line.trim_ascii_end();
                let text = String::from_utf8_lossy(line);
                alert::log(&settings, severity(line), &text);
            }
        }
    }

    /// Opens the file that the time and the path name, unless it is open already.
    pub(super) fn check(&mut self) {
        let wall = match &self.output.to {
            To::Stdout => Zoned::default(),
            To::File(names) => wall(names),
        };
        self.check_at_time(Instant::now(), &wall);
    }

    fn check_at_time(&mut self, now: Instant, wall: &Zoned) {
        let last = self.current.as_ref().map(|current| current.named_by);
        let named_by = Names::next(last, wall.timestamp());
        let path = match &self.output.to {
            To::Stdout => PathBuf::from("-"),
            To::File(names) => names.name(&named_by.to_zoned(wall.time_zone().clone())),
        };
        self.due = self.next_check(now, wall);
        self.written = false;
        if let Some(current) = self.current.as_mut().filter(|current| current.path == path) {
            current.named_by = named_by;
            match current.seen() {
                Seen::Same => return self.link(),
                Seen::Nowhere => {
                    self.due = Some(now + MOVED);
                    return;
                }
                Seen::Another => {}
            }
        }
        match self.open(path, named_by) {
            Ok(current) => {
                self.current = Some(current);
                self.report.over("open", "the log file is open again");
                self.link();
            }
            Err(error) => self.failed(&error, now),
        }
    }

    fn failed(&mut self, error: &io::Error, now: Instant) {
        self.due = Some(now + CHECK);
        // A deleted file has no reader: what is written there is lost.
        self.current = self.current.take().filter(|current| !current.is_deleted());
        let meanwhile = match &self.current {
            Some(_) => "lines go to the file that was open before",
            None => "up to 16 MiB of lines are kept",
        };
        self.report.problem(
            "open",
            &format!("cannot open the log file: {error}; trying again, {meanwhile}"),
        );
    }

    fn next_check(&self, now: Instant, wall: &Zoned) -> Option<Instant> {
        match &self.output.to {
            To::Stdout => None,
            To::File(names) if names.fixed().is_some() => Some(now + CHECK),
            // Names change with the second.
            To::File(_) => {
                let past = Duration::from_nanos(wall.subsec_nanosecond().unsigned_abs().into());
                Some(now + CHECK.saturating_sub(past))
            }
        }
    }

    fn open(&self, path: PathBuf, named_by: Timestamp) -> io::Result<Current> {
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
                        "{} leads to the terminal or pipe that Apache was started with, and did \
                         not when the logger was started: reload Apache",
                        path.display()
                    ))
                })?;
                (stream.try_clone()?.into(), None)
            }
        };
        Ok(Current {
            file,
            path,
            named_by,
            identity,
            moved: false,
            linked: false,
        })
    }

    fn link(&mut self) {
        let (Some(link), Some(current)) = (&self.output.link, &mut self.current) else {
            return;
        };
        if current.linked {
            return;
        }
        match opening::link(link, &current.path, &self.made) {
            Ok(()) => {
                current.linked = true;
                self.report.over("link", "the link leads to the log file");
            }
            Err(error) => self.report.problem(
                "link",
                &format!("cannot create the link: {error}; lines are written"),
            ),
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
                    Seen::Nowhere
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

/// The level in `[core:error]`.
fn severity(line: &[u8]) -> Severity {
    let front = line.get(..line.len().min(100)).unwrap_or_default();
    let has = |level: &[u8]| memchr::memmem::find(front, level).is_some();
    match front {
        _ if has(b":warn]") => Severity::Warning,
        _ if has(b":notice]") => Severity::Notice,
        _ if has(b":info]") || has(b":debug]") || has(b":trace") => Severity::Info,
        _ => Severity::Err,
    }
}

fn made(output: &Output, report: &Report) -> Made {
    let unknown = |what: &str, name: &str| {
        report.problem(
            "owner",
            &format!("no {what} `{name}` exists: new log files do not get it"),
        );
    };
    let uid = output.user.as_deref().and_then(|name| {
        let found = user_id(name);
        if found.is_none() {
            unknown("user", name);
        }
        found
    });
    let group = output.group.as_deref();
    let gid = group_id(group.unwrap_or("adm"));
    if let (Some(name), None) = (group, gid) {
        unknown("group", name);
    }
    Made {
        uid,
        gid,
        mode: Mode::from_bits_truncate(output.mode),
    }
}

/// By its number or its name.
pub(crate) fn user_id(name: &str) -> Option<Uid> {
    let by_name = || Some(User::from_name(name).ok()??.uid);
    name.parse().ok().map(Uid::from_raw).or_else(by_name)
}

/// By its number or its name.
pub(crate) fn group_id(name: &str) -> Option<Gid> {
    let by_name = || Some(Group::from_name(name).ok()??.gid);
    name.parse().ok().map(Gid::from_raw).or_else(by_name)
}

#[cfg(test)]
mod tests;
