//! Opens what lines go to, as root, in directories that may belong to others.
//!
//! A path is walked name by name, so that root opens nothing that another user could have placed:
//! - a symbolic link is followed only where root alone can write into its directory, and
//!   directories are made only there;
//! - where others can write, a file that exists is used only if it is a regular one with one name,
//!   and belongs to root, to the owner that is requested, or to the owner of the directory;
//! - owner and mode are set only on what was made here, just now.
//!
//! "Root" is whoever this process is, too.
//!
//! Over 500 lines because the walk, and what is decided at its end, share the directory that it holds.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, symlinkat, unlinkat};

/// Most symbolic links on the way; what the kernel takes.
const MAX_LINKS: u32 = 40;
/// Another process may create, rename or remove the file between the check and the open: most
/// attempts.
const TRIES: u32 = 5;
/// Mode of directories that are made.
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o750);
/// The inode of the root of procfs.
const PROC_ROOT: u64 = 1;

/// Owner and mode of a file that is made. Directories on the way have the same group.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) uid: Option<Uid>,
    pub(super) gid: Option<Gid>,
    pub(super) mode: Mode,
}

/// A stream of this process that a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What was opened.
#[derive(Debug)]
pub(super) enum Opened {
    /// For appending, blocking.
    File(File),
    /// Another process's stream; by its path it cannot be recognised.
    OfProcess(File),
    /// Whoever started this process has it.
    Own(Stream),
}

/// Opens `path`, absolute, for appending; makes it, and the directories on the way, where they are
/// not there. Never truncates, and waits for no reader of a FIFO.
///
/// # Errors
/// Why lines cannot go there, and what to do.
pub(super) fn open(path: &Path, made: &Made) -> io::Result<Opened> {
    for _ in 0..TRIES {
        let opened = match Walk::new(path, Some(made))?.end()? {
            End::Own(stream) => return Ok(Opened::Own(stream)),
            End::OfProcess(place) => return place.follow().map(Opened::OfProcess),
            End::There(place, stat) => place.append(&stat, made)?,
            End::Missing(place) => place.create(made)?,
        };
        if let Some(file) = opened {
            return Ok(Opened::File(file));
        }
    }
    Err(io::Error::other(format!(
        "{} changes all the time: another process replaces it",
        path.display()
    )))
}

/// Whether [`open`] would take `path`, as far as that is known before: nothing is opened or made.
/// True: root alone can write into its directory. `uid`: the owner that is requested.
///
/// # Errors
/// Why it would refuse.
pub(crate) fn would_open(path: &Path, uid: Option<Uid>) -> io::Result<bool> {
    match Walk::new(path, None)?.end() {
        Ok(End::There(place, stat)) => {
            let safe = place.roots_alone()?;
            place.check(&stat, safe, uid)?;
            Ok(safe)
        }
        Ok(End::Missing(place)) => place.roots_alone(),
        Ok(End::Own(_) | End::OfProcess(_)) => Ok(true),
        // Directories are made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// The stream of this process that `path` leads to, if any; opens nothing.
pub(super) fn own_stream(path: &Path) -> Option<Stream> {
    match Walk::new(path, None).and_then(Walk::end) {
        Ok(End::Own(stream)) => Some(stream),
        _ => None,
    }
}

/// Makes `link` a symbolic link to `file`; takes the place of another symbolic link at once, and
/// of nothing else. Directories on the way are made.
///
/// # Errors
/// Why it cannot be made, and what to do.
pub(super) fn link(link: &Path, file: &Path, made: &Made) -> io::Result<()> {
    let mut walk = Walk::new(link, Some(made))?;
    let name = walk.approach()?;
    let place = walk.place(name);
    let target = match file.file_name() {
        // The directory may be seen by another name from elsewhere.
        Some(name) if file.parent() == Some(&place.at) => Path::new(name),
        _ => file,
    };
    if !place.roots_alone()? {
        return Err(place.denied("is not created as a link", "give it another directory"));
    }
    match readlinkat(&place.dir, place.name.as_os_str()) {
        Ok(now) if now == target.as_os_str() => return Ok(()),
        Ok(_) | Err(Errno::ENOENT) => {}
        Err(Errno::EINVAL) => {
            return Err(io::Error::other(format!(
                "{} is not a symbolic link and is not replaced: remove it, and pipeban creates the link",
                place.path().display()
            )));
        }
        Err(error) => return Err(place.error("cannot be read", error)),
    }
    let new = format!(".pipeban-link.{}", std::process::id());
    let new = new.as_str();
    // What another process of this number left.
    let _ = unlinkat(&place.dir, new, UnlinkatFlags::NoRemoveDir);
    symlinkat(target, &place.dir, new)
        .and_then(|()| renameat(&place.dir, new, &place.dir, place.name.as_os_str()))
        .map_err(|error| place.error("cannot be created as a link", error))
}

/// Where a walk ended.
enum End {
    There(Place, FileStat),
    Missing(Place),
    OfProcess(Place),
    Own(Stream),
}

/// A name in a directory that is held.
struct Place {
    dir: OwnedFd,
    /// The directory's path, without links.
    at: PathBuf,
    name: OsString,
}

struct Walk<'m> {
    dir: OwnedFd,
    at: PathBuf,
    /// Names to come, the next one last.
    names: Vec<OsString>,
    links: u32,
    made: Option<&'m Made>,
}

impl<'m> Walk<'m> {
    fn new(path: &Path, made: Option<&'m Made>) -> io::Result<Walk<'m>> {
        let mut walk = Walk {
            dir: root()?,
            at: PathBuf::from("/"),
            names: Vec::new(),
            links: 0,
            made,
        };
        walk.push(path)?;
        Ok(walk)
    }

    fn push(&mut self, path: &Path) -> io::Result<()> {
        if path.is_absolute() {
            self.dir = root()?;
            self.at = PathBuf::from("/");
        }
        let names = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        self.names.extend(names);
        Ok(())
    }

    /// Enters every directory but the last name, which is returned.
    fn approach(&mut self) -> io::Result<OsString> {
        loop {
            match self.names.pop() {
                None => {
                    return Err(io::Error::other(format!(
                        "{} is a directory",
                        self.at.display()
                    )));
                }
                Some(name) if name == ".." => {
                    self.dir = self.look("..".as_ref())?;
                    self.at.pop();
                }
                Some(name) if self.names.is_empty() => return Ok(name),
                Some(name) => self.enter(name)?,
            }
        }
    }

    /// Follows links to the end.
    fn end(mut self) -> io::Result<End> {
        loop {
            let name = self.approach()?;
            let found = match self.look(&name) {
                Ok(found) => found,
                Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
                    return Ok(End::Missing(self.place(name)));
                }
                Err(error) => return Err(self.place(name).error("cannot be opened", error)),
            };
            let stat = fstat(&found)?;
            if kind(&stat) != SFlag::S_IFLNK {
                return Ok(End::There(self.place(name), stat));
            }
            if self.is_magic()? {
                return self.of_process(name);
            }
            self.follow(name, &found)?;
        }
    }

    fn place(self, name: OsString) -> Place {
        Place {
            dir: self.dir,
            at: self.at,
            name,
        }
    }

    fn here(&self, name: &OsStr) -> io::Result<Place> {
        Ok(Place {
            dir: self.dir.try_clone()?,
            at: self.at.clone(),
            name: name.to_owned(),
        })
    }

    /// A handle that neither opens nor follows.
    fn look(&self, name: &OsStr) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.dir, name, flags, Mode::empty())?)
    }

    fn enter(&mut self, name: OsString) -> io::Result<()> {
        let found = match self.look(&name) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
                self.make(&name)?;
                self.look(&name)
            }
            found => found,
        };
        let found =
            found.or_else(|error| Err(self.here(&name)?.error("cannot be entered", error)))?;
        match kind(&fstat(&found)?) {
            SFlag::S_IFDIR => {
                self.dir = found;
                self.at.push(name);
                Ok(())
            }
            SFlag::S_IFLNK => self.follow(name, &found),
            _ => Err(self.here(&name)?.error("cannot be entered", Errno::ENOTDIR)),
        }
    }

    fn follow(&mut self, name: OsString, link: &OwnedFd) -> io::Result<()> {
        let place = self.here(&name)?;
        if !place.roots_alone()? {
            return Err(place.denied(
                "is a symbolic link and is not followed",
                "use the path it leads to as PATH",
            ));
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(place.error("cannot be followed", Errno::ELOOP));
        }
        if self.is_magic()? {
            return Err(place.error("cannot be entered", Errno::ELOOP));
        }
        let target = readlinkat(link, "")?;
        self.push(Path::new(&target))
    }

    /// Whether links here are the kernel's: their text does not say where they lead.
    fn is_magic(&self) -> io::Result<bool> {
        Ok(fstatfs(&self.dir)?.filesystem_type() == PROC_SUPER_MAGIC
            && fstat(&self.dir)?.st_ino != PROC_ROOT)
    }

    /// At a link of `/proc/PID/fd`.
    fn of_process(self, name: OsString) -> io::Result<End> {
        let own = self.at.starts_with(format!("/proc/{}", std::process::id()));
        match name.to_str() {
            Some("1") if own => return Ok(End::Own(Stream::Stdout)),
            Some("2") if own => return Ok(End::Own(Stream::Stderr)),
            _ => {}
        }
        let (fds, place) = (self.at.ends_with("fd"), self.place(name));
        if own || !fds {
            return Err(place.error("cannot be opened", Errno::ELOOP));
        }
        if !place.roots_alone()? {
            return Err(place.denied("is not opened", "give another PATH"));
        }
        Ok(End::OfProcess(place))
    }

    fn make(&self, name: &OsStr) -> io::Result<()> {
        let place = self.here(name)?;
        let Some(made) = self.made else {
            return Err(place.error("cannot be entered", Errno::ENOENT));
        };
        if !place.roots_alone()? {
            return Err(place.denied("does not exist and is not created", "create it by hand"));
        }
        match mkdirat(&place.dir, name, Mode::S_IRWXU) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Ok(()),
            Err(error) => return Err(place.error("cannot be created", error)),
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = openat(&place.dir, name, flags, Mode::empty())?;
        // Only convenience: where it fails the directory is root's alone.
        let _ = fchown(&dir, None, made.gid);
        let _ = fchmod(&dir, DIRECTORY_MODE);
        Ok(())
    }
}

impl Place {
    /// Opens what is there; `None`: it is not there any more, or another one is.
    fn append(&self, stat: &FileStat, made: &Made) -> io::Result<Option<File>> {
        let safe = self.roots_alone()?;
        self.check(stat, safe, made.uid)?;
        let file = match self.open(OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT | Errno::ELOOP) => return Ok(None),
            Err(Errno::ENXIO) => {
                return Err(io::Error::other(format!(
                    "no process reads the FIFO {}",
                    self.path().display()
                )));
            }
            Err(error) => return Err(self.error("cannot be opened", error)),
        };
        let now = fstat(&file)?;
        if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
            return Ok(None);
        }
        if kind(stat) == SFlag::S_IFREG && !safe && !self.is_only_name_of(&now)? {
            return Ok(None);
        }
        blocking(file).map(Some)
    }

    /// `safe`: root alone can write into the directory.
    fn check(&self, stat: &FileStat, safe: bool, uid: Option<Uid>) -> io::Result<()> {
        match kind(stat) {
            SFlag::S_IFREG if safe => Ok(()),
            SFlag::S_IFREG => self.check_foreign(stat, uid),
            SFlag::S_IFIFO | SFlag::S_IFCHR if safe => Ok(()),
            SFlag::S_IFIFO | SFlag::S_IFCHR => Err(self.denied(
                "is not a regular file and is not opened",
                "give another PATH",
            )),
            _ => Err(io::Error::other(format!(
                "{} is neither a file nor a FIFO nor a terminal: give another PATH",
                self.path().display()
            ))),
        }
    }

    /// Whether this is the only name of a file. While a rename replaces a name, the kernel still
    /// finds the old file by it, and no longer counts the link. Reading the directory waits for
    /// such a rename; several checks in a row must agree.
    fn is_only_name_of(&self, file: &FileStat) -> io::Result<bool> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        for _ in 0..TRIES {
            let mut directory = Dir::openat(&self.dir, ".", flags, Mode::empty())?;
            directory.iter().next().transpose()?;
            let named = match fstatat(
                &self.dir,
                self.name.as_os_str(),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            ) {
                Ok(named) => named,
                Err(Errno::ENOENT) => return Ok(false),
                Err(error) => return Err(self.error("cannot be read", error)),
            };
            if (named.st_dev, named.st_ino) != (file.st_dev, file.st_ino) || named.st_nlink != 1 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Creates the file; `None`: another process just did.
    fn create(&self, made: &Made) -> io::Result<Option<File>> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let file = match self.open(flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => file,
            Err(Errno::EEXIST) => return Ok(None),
            Err(error) => return Err(self.error("cannot be created", error)),
        };
        // Only convenience: where it fails the file is root's alone.
        let _ = fchown(&file, made.uid, made.gid);
        let _ = fchmod(&file, made.mode);
        blocking(file).map(Some)
    }

    fn follow(&self) -> io::Result<File> {
        let file = self
            .open(OFlag::empty(), Mode::empty())
            .map_err(|error| self.error("cannot be opened", error))?;
        match kind(&fstat(&file)?) {
            SFlag::S_IFREG | SFlag::S_IFIFO | SFlag::S_IFCHR => blocking(file),
            _ => Err(self.error("cannot be written", Errno::EINVAL)),
        }
    }

    fn open(&self, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        // A FIFO without a reader is an error then, not the end of this process.
        let always = OFlag::O_WRONLY
            | OFlag::O_APPEND
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        openat(&self.dir, self.name.as_os_str(), always | flags, mode)
    }

    /// A file where others can write.
    fn check_foreign(&self, stat: &FileStat, uid: Option<Uid>) -> io::Result<()> {
        if stat.st_nlink != 1 {
            return Err(self.denied(
                "has a second name (a hard link) and is not opened",
                "remove it",
            ));
        }
        let dir = fstat(&self.dir)?;
        let one_others = dir.st_mode & 0o022 == 0;
        let wanted = uid.is_some_and(|uid| uid.as_raw() == stat.st_uid);
        if is_root(stat.st_uid) || wanted || (one_others && stat.st_uid == dir.st_uid) {
            return Ok(());
        }
        Err(self.denied(
            &format!("belongs to uid {} and is not opened", stat.st_uid),
            "remove it, or give it to root",
        ))
    }

    /// Whether root alone can write into the directory. An access list shows as the group's right.
    fn roots_alone(&self) -> io::Result<bool> {
        let stat = fstat(&self.dir)?;
        let group = stat.st_mode & 0o020 == 0 || stat.st_gid == 0;
        Ok(is_root(stat.st_uid) && group && stat.st_mode & 0o002 == 0)
    }

    fn path(&self) -> PathBuf {
        self.at.join(&self.name)
    }

    fn error(&self, what: &str, error: impl Into<io::Error>) -> io::Error {
        let error = error.into();
        io::Error::new(
            error.kind(),
            format!("{} {what}: {error}", self.path().display()),
        )
    }

    fn denied(&self, what: &str, instead: &str) -> io::Error {
        let dir = self.at.display();
        io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} {what}, because users other than root can write into {dir}: {instead}, or \
                 `chown root:root {dir}; chmod go-w {dir}`",
                self.path().display()
            ),
        )
    }
}

fn root() -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(AT_FDCWD, "/", flags, Mode::empty())?)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn is_root(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

fn blocking(file: impl AsFd + Into<File>) -> io::Result<File> {
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests;
