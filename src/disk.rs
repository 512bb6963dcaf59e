//! Reads configuration files from the disk, for [`config`] and [`filter`](crate::filter), which
//! open no file themselves.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ipnet::IpNet;
use nix::fcntl::OFlag;

use crate::config::{self, Config, Origins, Paths};
use crate::filter::FilterFiles;
use crate::problem::Problem;

mod owner;

/// A larger file is a mistake, or a device.
const MOST_BYTES: u64 = 4 << 20;

/// The files of this host.
#[derive(Debug, Clone, Copy)]
pub struct OnDisk;

impl FilterFiles for OnDisk {
    fn read(&self, file: &Path) -> io::Result<String> {
        text_of(fs::File::open(file)?)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(directory) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Vec::new()),
                _ => Err(error),
            },
        }
    }
}

fn text_of(file: fs::File) -> io::Result<String> {
    let mut bytes = Vec::new();
    let limited = file.take(MOST_BYTES + 1);
    { limited }.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("larger than 4 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let is_utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
        let valid = bytes.get(..error.utf8_error().valid_up_to());
        let line = 1 + memchr::memchr_iter(b'\n', valid.unwrap_or_default()).count();
        io::Error::other(match is_utf16 {
            true => "it is UTF-16: save it as UTF-8".to_owned(),
            false => format!("line {line} is not UTF-8: save the file as UTF-8"),
        })
    })?;
    // As editors of Windows save it, one of them more than once.
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// The same, and notes each file and directory that another user can change.
#[derive(Debug, Default)]
struct Checked {
    found: Mutex<Vec<Problem>>,
}

impl Checked {
    fn check(&self, path: &Path, open: &fs::File) {
        if let Err(message) = owner::check(path, open)
            && let Ok(mut found) = self.found.lock()
        {
            found.push(Problem {
                file: path.to_owned(),
                place: None,
                message,
            });
        }
    }

    fn found(self) -> Vec<Problem> {
        let mut found = self.found.into_inner().unwrap_or_default();
        found.sort_by(|one, other| one.file.cmp(&other.file));
        found.dedup();
        found
    }
}

impl FilterFiles for Checked {
    fn read(&self, file: &Path) -> io::Result<String> {
        let open = open_file(file)?;
        self.check(file, &open);
        text_of(open)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        if let Ok(open) = fs::File::open(directory) {
            self.check(directory, &open);
        }
        OnDisk.list(directory)
    }
}

/// [`config::load`] without the places of keys.
///
/// # Errors
/// Every problem of every file.
pub fn load(file: &Path) -> Result<Config, Vec<Problem>> {
    config::load(file, &OnDisk).map(|(config, _)| config)
}

/// [`load`] for what acts on it as root: the files can name programs that root runs.
///
/// # Errors
/// Every problem of every file; where this process is root also that another user can change one.
pub fn load_to_obey(file: &Path) -> Result<Config, Vec<Problem>> {
    let files = Checked::default();
    let loaded = config::load(file, &files);
    let found = files.found();
    match found.is_empty() {
        true => loaded.map(|(config, _)| config),
        false => Err(found),
    }
}

/// Why [`load_to_obey`] refuses the files where this process is root.
pub fn changeable_by_others(file: &Path) -> Vec<Problem> {
    let files = Checked::default();
    let _ = config::load(file, &files);
    files.found()
}

/// The text of a file that root acts on.
///
/// # Errors
/// It cannot be read; or this process is root, and another user can change it.
pub fn read_to_obey(file: &Path) -> io::Result<String> {
    let open = fs::File::open(file)?;
    owner::check(file, &open).map_err(io::Error::other)?;
    let mut text = String::new();
    { open }.read_to_string(&mut text)?;
    Ok(text)
}

/// Whether root can keep files in this directory.
///
/// # Errors
/// It cannot be opened; or this process is root, and another user can change it.
pub fn check_directory(directory: &Path) -> io::Result<()> {
    let open = fs::File::open(directory)?;
    owner::check(directory, &open).map_err(io::Error::other)
}

/// [`config::load`]
///
/// # Errors
/// Every problem of every file.
pub fn load_with_origins(file: &Path) -> Result<(Config, Origins), Vec<Problem>> {
    config::load(file, &OnDisk)
}

/// [`paths_of`] for what acts on it as root: where another user can change the file, the defaults,
/// unless it names directories that only root can change.
pub fn paths_to_obey(file: &Path) -> Paths {
    let paths = paths_of(file);
    let trusted = read_to_obey(file).is_ok()
        || [&paths.state, &paths.runtime]
            .iter()
            .all(|directory| check_directory(directory).is_ok());
    match trusted {
        true => paths,
        false => Paths::default(),
    }
}

/// `[paths]` of a file that can be broken or missing.
pub fn paths_of(file: &Path) -> Paths {
    let bytes = fs::read(file).unwrap_or_default();
    config::paths_of(&String::from_utf8_lossy(&bytes))
}

/// [`config::networks_in`]
///
/// # Errors
/// It cannot be read, or the lines that are something else.
pub fn networks_in(path: &Path) -> Result<Vec<IpNet>, Vec<Problem>> {
    // `ignoreip` may name a file of another user.
    config::networks_in(path, &|file: &Path| text_of(open_file(file)?))
}

/// Opens a file that may be in a directory of another user: a FIFO there waits for no writer.
///
/// # Errors
/// It cannot be opened, or is no regular file.
pub fn open_file(file: &Path) -> io::Result<fs::File> {
    let mut options = fs::File::options();
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let open = options.open(file)?;
    match open.metadata()?.is_file() {
        true => Ok(open),
        false => Err(io::Error::other("not a file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_in_place_of_a_file_waits_for_no_writer() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("access.log");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_file(&fifo).is_err());
        assert!(open_file(Path::new("/dev/zero")).is_err());
    }
}
