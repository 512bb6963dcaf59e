//! Where lines go, as the command line gives it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::names::Names;
use super::opening::{self, Stream};

/// Default mode of a log file that pipeban creates.
pub const FILE_MODE: u32 = 0o640;

/// Where lines go.
#[derive(Debug, Clone)]
pub struct Output {
    /// Stdout, or a file.
    pub to: To,
    /// A symbolic link to the file in use.
    pub link: Option<PathBuf>,
    /// Permissions of new files, at most 0777.
    pub mode: u32,
    /// Their owner; `None`: root.
    pub user: Option<String>,
    /// Their group; `None`: adm, if it exists.
    pub group: Option<String>,
    /// The facility with which lines also go to syslog.
    pub syslog: Option<u8>,
}

/// See [`Output`].
#[derive(Debug, Clone)]
pub enum To {
    /// The stdout that the command was started with.
    Stdout,
    /// A file, by its name at each time.
    File(Names),
}

impl Output {
    /// With absolute paths.
    pub(super) fn absolute(self) -> Output {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Output {
            to: match self.to {
                To::Stdout => To::Stdout,
                To::File(names) => To::File(names.below(&here)),
            },
            link: self.link.map(absolute),
            ..self
        }
    }

    /// `-`, or PATH as the command line gives it.
    pub(super) fn shown(&self) -> &Path {
        match &self.to {
            To::Stdout => Path::new("-"),
            To::File(names) => names.path(),
        }
    }
}

pub(super) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The time to name files by. The time zone is read only if a name needs it: that costs memory in
/// each process.
pub(super) fn wall(names: &Names) -> Zoned {
    Timestamp::now().to_zoned(if names.fixed().is_none() {
        TimeZone::system()
    } else {
        TimeZone::UTC
    })
}

/// The streams this program was started with, if lines go there. They are Apache's: an unused copy
/// would keep its terminal or its pipe open.
#[derive(Debug, Default)]
pub(super) struct Streams {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Streams {
    /// The stream that `output` leads to, also by links, as in container images.
    pub(super) fn wanted(output: Option<&Output>) -> std::io::Result<Streams> {
        let wanted = output.and_then(|output| match &output.to {
            To::Stdout => Some(Stream::Stdout),
            To::File(names) => opening::own_stream(&names.name(&wall(names))),
        });
        let mut streams = Streams::default();
        match wanted {
            None => {}
            Some(Stream::Stdout) => {
                streams.stdout = Some(std::io::stdout().as_fd().try_clone_to_owned()?);
            }
            Some(Stream::Stderr) => {
                streams.stderr = Some(std::io::stderr().as_fd().try_clone_to_owned()?);
            }
        }
        Ok(streams)
    }

    pub(super) fn get(&self, stream: Stream) -> Option<&OwnedFd> {
        match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }

    pub(super) fn try_clone(&self) -> std::io::Result<Streams> {
        let copy = |fd: &Option<OwnedFd>| fd.as_ref().map(OwnedFd::try_clone).transpose();
        Ok(Streams {
            stdout: copy(&self.stdout)?,
            stderr: copy(&self.stderr)?,
        })
    }

    #[cfg(test)]
    pub(super) fn from_stdout(stdout: OwnedFd) -> Streams {
        Streams {
            stdout: Some(stdout),
            stderr: None,
        }
    }

    pub(super) fn raw(&self) -> impl Iterator<Item = RawFd> {
        [&self.stdout, &self.stderr]
            .into_iter()
            .flatten()
            .map(AsRawFd::as_raw_fd)
    }
}
