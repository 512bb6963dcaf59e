//! Carries a plan out: backups first, each file whole or not at all, tested by Apache, and put
//! back where Apache refuses it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, symlink,
};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::directive;
use super::plan::{Edit, Plan};

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Changed files, each with its backup.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Links made or removed.
    pub links: Vec<PathBuf>,
}

/// Why nothing has changed: whatever was, is put back.
#[derive(Debug)]
pub enum ApplyError {
    /// A file could not be read, written or linked.
    Io(PathBuf, io::Error),
    /// A file is not what it was when the plan was made.
    Changed(PathBuf, usize),
    /// Apache refuses the configuration as it was before; what it says.
    Broken(String),
    /// Apache refuses the new configuration; what it says.
    Refused(String),
    /// Apache's program is not there to test with.
    NoApache,
    /// As the first, and this could not be put back.
    NotUndone(Box<ApplyError>, Vec<String>),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyError::Io(file, error) => write!(f, "{}: {error}", file.display()),
            ApplyError::Changed(file, line) => {
                write!(
                    f,
                    "{}:{line}: the line has changed meanwhile: run it again",
                    file.display()
                )
            }
            ApplyError::Refused(text) => write!(
                f,
                "Apache refuses the change, the old files are back: {text}"
            ),
            ApplyError::Broken(text) => write!(
                f,
                "Apache's configuration is broken already, mend it first (nothing was changed): {text}"
            ),
            ApplyError::NoApache => f.write_str(
                "no apache2 or httpd in /usr/sbin to test the change with: nothing was changed",
            ),
            ApplyError::NotUndone(error, left) => {
                write!(
                    f,
                    "{error}; these could NOT be put back, do it by hand: {}",
                    left.join(", ")
                )
            }
        }
    }
}

impl std::error::Error for ApplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ApplyError::Io(_, error) => Some(error),
            ApplyError::NotUndone(error, _) => Some(error.as_ref()),
            ApplyError::Changed(..)
            | ApplyError::Broken(_)
            | ApplyError::Refused(_)
            | ApplyError::NoApache => None,
        }
    }
}

/// Something that was done, and can be undone.
enum Done {
    Written { file: PathBuf, backup: PathBuf },
    Linked(PathBuf),
    Unlinked { link: PathBuf, to: PathBuf },
}

impl Done {
    fn undo(&self) -> Result<(), String> {
        match self {
            Done::Written { file, backup } => fs::read(backup)
                .and_then(|bytes| write_whole(file, &bytes))
                .map_err(|error| format!("{} from {} ({error})", file.display(), backup.display())),
            Done::Linked(link) => fs::remove_file(link)
                .map_err(|error| format!("remove {} ({error})", link.display())),
            Done::Unlinked { link, to } => symlink(to, link)
                .map_err(|error| format!("link {} to {} ({error})", link.display(), to.display())),
        }
    }
}

/// Carries `plan` out for the configuration that begins with `root`; backups go below `backups`,
/// which no Apache includes. Apache is tested, never reloaded.
///
/// # Errors
/// Why nothing has changed.
pub fn apply(plan: &Plan, root: &Path, backups: &Path) -> Result<Applied, ApplyError> {
    let mut tester = Tester::find(root)?;
    if let Some(complaint) = tester.complaint()? {
        return Err(ApplyError::Broken(complaint));
    }
    let mut done = Vec::new();
    let result = carry_out(plan, backups, &mut done).and_then(|()| match tester.complaint()? {
        Some(complaint) => Err(ApplyError::Refused(complaint)),
        None => Ok(()),
    });
    if let Err(error) = result {
        let left: Vec<String> = done
            .iter()
            .rev()
            .filter_map(|step| step.undo().err())
            .collect();
        return Err(if left.is_empty() {
            error
        } else {
            ApplyError::NotUndone(Box::new(error), left)
        });
    }
    let mut applied = Applied::default();
    for step in done {
        match step {
            Done::Written { file, backup } => applied.files.push((file, backup)),
            Done::Linked(link) | Done::Unlinked { link, .. } => applied.links.push(link),
        }
    }
    Ok(applied)
}

fn carry_out(plan: &Plan, backups: &Path, done: &mut Vec<Done>) -> Result<(), ApplyError> {
    // One real file may be read under several names, and one line through several includes.
    let mut files: BTreeMap<PathBuf, BTreeMap<usize, &Edit>> = BTreeMap::new();
    for edit in &plan.edits {
        let file = fs::canonicalize(&edit.place.file)
            .map_err(|error| ApplyError::Io(edit.place.file.clone(), error))?;
        files.entry(file).or_default().insert(edit.place.line, edit);
    }
    for (file, edits) in files {
        let at = |error| ApplyError::Io(file.clone(), error);
        let old = fs::read(&file).map_err(at)?;
        let new = edited(&old, &edits).map_err(|line| ApplyError::Changed(file.clone(), line))?;
        let backup = back_up(&file, &old, backups)?;
        write_whole(&file, &new).map_err(at)?;
        done.push(Done::Written { file, backup });
    }
    for link in &plan.unlink {
        let at = |error| ApplyError::Io(link.clone(), error);
        let to = fs::read_link(link).map_err(at)?;
        fs::remove_file(link).map_err(at)?;
        done.push(Done::Unlinked {
            link: link.clone(),
            to,
        });
    }
    for (link, to) in &plan.link {
        let at = |error| ApplyError::Io(link.clone(), error);
        let directory = link.parent().unwrap_or(Path::new("/"));
        let target = directory.join(to);
        fs::metadata(&target).map_err(|error| ApplyError::Io(target.clone(), error))?;
        symlink(to, link).map_err(at)?;
        done.push(Done::Linked(link.clone()));
    }
    Ok(())
}

/// The text with its lines replaced; `Err`: the line where another directive stands.
/// Everything else stays byte for byte, also the indentation and the end of the line.
fn edited(old: &[u8], edits: &BTreeMap<usize, &Edit>) -> Result<Vec<u8>, usize> {
    let lines: Vec<&[u8]> = old.split_inclusive(|byte| *byte == b'\n').collect();
    let mut new = Vec::with_capacity(old.len() + 256);
    let mut skip_to = 0;
    let mut met = BTreeSet::new();
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        let Some(edit) = edits.get(&number) else {
            if number > skip_to {
                new.extend_from_slice(line);
            }
            continue;
        };
        met.insert(number);
        let text = line.trim_ascii();
        let found = text
            .get(..edit.directive.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(edit.directive.as_bytes()));
        if !found {
            return Err(number);
        }
        skip_to = edit.last_line;
        let Some(replacement) = &edit.new else {
            continue;
        };
        let indent = line.len() - line.trim_ascii_start().len();
        new.extend_from_slice(line.get(..indent).unwrap_or_default());
        new.extend_from_slice(replacement.as_bytes());
        let last = lines
            .get(edit.last_line.saturating_sub(1))
            .copied()
            .unwrap_or_default();
        new.extend_from_slice(if last.ends_with(b"\r\n") {
            b"\r\n"
        } else if last.ends_with(b"\n") {
            b"\n"
        } else {
            b""
        });
    }
    match edits.keys().find(|line| !met.contains(line)) {
        Some(missing) => Err(*missing),
        None => Ok(new),
    }
}

/// A copy `BACKUPS/etc/apache2/....pipeban-backup`; an earlier one is never overwritten.
fn back_up(file: &Path, bytes: &[u8], backups: &Path) -> Result<PathBuf, ApplyError> {
    let below = file.strip_prefix("/").unwrap_or(file);
    let mut name = backups.join(below).into_os_string();
    name.push(".pipeban-backup");
    let first = PathBuf::from(name);
    let at = |error| ApplyError::Io(first.clone(), error);
    fs::create_dir_all(first.parent().unwrap_or(backups)).map_err(at)?;
    let mut candidate = first.clone();
    for number in 1.. {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&candidate);
        match file {
            Ok(mut file) => {
                file.write_all(bytes)
                    .and_then(|()| file.sync_all())
                    .map_err(at)?;
                return Ok(candidate);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut name = first.clone().into_os_string();
                name.push(format!(".{number}"));
                candidate = name.into();
            }
            Err(error) => return Err(at(error)),
        }
    }
    Ok(candidate)
}

/// A new file beside the old one, with its owner and mode, put in its place by rename.
fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let metadata = fs::metadata(file)?;
    // A leading dot keeps it out of Apache's `*.conf`.
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = file.with_file_name(format!(".{name}.pipeban-{}", std::process::id()));
    let result = (|| {
        let mut new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        new.write_all(bytes)?;
        fchown(&new, Some(metadata.uid()), Some(metadata.gid()))?;
        new.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        new.sync_all()?;
        fs::rename(&temporary, file)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// How this host's Apache checks a configuration.
struct Tester(Command);

impl Tester {
    fn find(root: &Path) -> Result<Tester, ApplyError> {
        let control = Path::new("/usr/sbin/apache2ctl");
        if root == Path::new("/etc/apache2/apache2.conf") && control.is_file() {
            let mut command = Command::new(control);
            command.arg("-t");
            return Ok(Tester(command));
        }
        let program = ["/usr/sbin/apache2", "/usr/sbin/httpd"]
            .into_iter()
            .find(|program| Path::new(program).is_file())
            .ok_or(ApplyError::NoApache)?;
        let mut command = Command::new(program);
        command
            .arg("-t")
            .arg("-d")
            .arg(root.parent().unwrap_or(Path::new("/")))
            .arg("-f")
            .arg(root);
        let envvars = fs::read_to_string(root.with_file_name("envvars")).unwrap_or_default();
        command.envs(directive::envvars(&envvars));
        Ok(Tester(command))
    }

    /// What Apache has against it as it stands now.
    fn complaint(&mut self) -> Result<Option<String>, ApplyError> {
        let program = PathBuf::from(self.0.get_program());
        let output = self
            .0
            .output()
            .map_err(|error| ApplyError::Io(program, error))?;
        if output.status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // Only a hint about the host's name.
        let said: Vec<_> = said
            .lines()
            .filter(|line| !line.contains("AH00558"))
            .collect();
        Ok(Some(said.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::walk::Place;
    use super::*;

    fn edit(line: usize, last_line: usize, new: Option<&str>) -> Edit {
        Edit {
            place: Place {
                file: "/x".into(),
                line,
            },
            last_line,
            directive: "ErrorLog",
            new: new.map(str::to_owned),
        }
    }

    fn run(text: &str, edits: &[Edit]) -> Result<String, usize> {
        let edits = edits.iter().map(|edit| (edit.place.line, edit)).collect();
        edited(text.as_bytes(), &edits).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn only_the_named_lines_change() {
        let text = "a\r\n\terrorlog x\r\nb \u{e9}\nErrorLog \\\n y\nErrorLog z";
        let edits = [
            edit(2, 2, Some("N")),
            edit(4, 5, Some("M")),
            edit(6, 6, Some("L")),
        ];
        assert_eq!(run(text, &edits), Ok("a\r\n\tN\r\nb \u{e9}\nM\nL".into()));
        assert_eq!(
            run(text, &[edit(4, 5, None)]),
            Ok("a\r\n\terrorlog x\r\nb \u{e9}\nErrorLog z".into())
        );
    }

    #[test]
    fn a_file_that_has_changed_is_not_touched() {
        assert_eq!(run("CustomLog x\n", &[edit(1, 1, None)]), Err(1));
        assert_eq!(run("", &[edit(3, 3, None)]), Err(3));
    }

    #[test]
    fn mode_is_kept_and_backups_are_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("site.conf");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        write_whole(&file, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let backups = directory.path().join("b");
        let one = back_up(&file, b"1", &backups).unwrap();
        let two = back_up(&file, b"2", &backups).unwrap();
        assert_eq!(
            (fs::read(one).unwrap(), fs::read(two).unwrap()),
            (b"1".to_vec(), b"2".to_vec())
        );
    }
}
