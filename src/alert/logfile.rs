//! The same lines in a file, in fail2ban's columns.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use nix::fcntl::OFlag;

use super::line::{Line, Severity};
use crate::config::LineFormat;

/// A log file that is opened again after its rotation.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    form: LineFormat,
    open: Option<(File, u64, u64)>,
}

impl LogFile {
    /// Opened at the first line.
    pub(super) fn new(path: &Path, form: LineFormat) -> LogFile {
        LogFile {
            path: path.to_owned(),
            form,
            open: None,
        }
    }

    /// Appends one line, in one write.
    ///
    /// # Errors
    /// The file cannot be opened or written.
    pub(super) fn append(&mut self, line: &Line) -> io::Result<()> {
        let written = match self.form {
            LineFormat::Text => write(self.file()?, line),
            LineFormat::Json => self.file()?.write_all((line.json() + "\n").as_bytes()),
        };
        if written.is_err() {
            self.open = None;
        }
        written
    }

    fn file(&mut self) -> io::Result<&mut File> {
        let there = std::fs::symlink_metadata(&self.path);
        let same = match (&self.open, &there) {
            (Some((_, dev, ino)), Ok(meta)) => (meta.dev(), meta.ino()) == (*dev, *ino),
            _ => false,
        };
        if !same {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => create(&self.path, there.is_err())?,
        };
        Ok(&mut self.open.insert(open).0)
    }
}

/// Writes a line in fail2ban's columns, in one write.
pub(super) fn write(out: &mut impl Write, line: &Line) -> io::Result<()> {
    let level = match line.severity {
        Severity::Err => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Notice => "NOTICE",
        Severity::Info => "INFO",
    };
    let time = line.time.to_zoned(TimeZone::system());
    let text = format!(
        "{},{:03} pipeban                 [{}]: {level:<7} {}\n",
        time.strftime("%Y-%m-%d %H:%M:%S"),
        time.millisecond(),
        std::process::id(),
        line.text
    );
    out.write_all(text.as_bytes())
}

/// Opens for appending; a new file is 0640 root:adm, as Debian's logs are. Follows no link: another
/// user may own the directory.
fn create(path: &Path, new: bool) -> io::Result<(File, u64, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if new && let Ok(Some(adm)) = nix::unistd::Group::from_name("adm") {
        // Without root this fails, and the group stays.
        let _ = std::os::unix::fs::fchown(&file, None, Some(adm.gid.as_raw()));
    }
    Ok((file, meta.dev(), meta.ino()))
}
