//! Carries out a plan: makes backups, replaces each file as a whole, lets Apache test the result,
//! and restores the old files if Apache refuses it.

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
use super::finding::Code;
use super::plan::{Edit, Plan};

/// What was changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Changed files, each with its backup.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// Links that were made or removed.
    pub links: Vec<PathBuf>,
}

/// Why nothing has changed; every step was undone.
#[derive(Debug)]
pub enum ApplyError {
    /// Reading, writing or linking failed.
    Io(PathBuf, io::Error),
    /// A file has changed since the plan was made.
    Changed(PathBuf, usize),
    /// Apache refuses the old configuration, with this message.
    Broken(String),
    /// Apache refuses the new configuration, or a program is missing.
    Refused(String),
    /// Apache's program, which tests the result, is missing.
    NoApache,
    /// The error, and the steps that could not be undone.
    NotUndone(Box<ApplyError>, Vec<String>),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyError::Io(file, error) => write!(f, "{}: {error}", file.display()),
            ApplyError::Changed(file, line) => {
                write!(
                    f,
                    "{}:{line}: the line has changed since: run the command again",
                    file.display()
                )
            }
            ApplyError::Refused(text) => write!(
                f,
                "Apache refuses the change, so the old files are restored: {text}"
            ),
            ApplyError::Broken(text) => write!(
                f,
                "Apache's configuration is already broken and was not changed: fix it first: {text}"
            ),
            ApplyError::NoApache => f.write_str(
                "found no apache2 or httpd in /usr/sbin to test the change: nothing was changed",
            ),
            ApplyError::NotUndone(error, left) => {
                write!(
                    f,
                    "{error}; pipeban could NOT undo these steps, do it by hand: {}",
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

/// A step that can be undone.
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

/// Carries out `plan` for the configuration that begins with `root`. Backups go below `backups`,
/// which no Apache includes. Apache tests the result and is not reloaded.
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
        None => missing_program(root),
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

/// Apache does not test this: without its logger program it ends at its next reload.
fn missing_program(root: &Path) -> Result<(), ApplyError> {
    let findings = super::scan::scan(Some(root))
        .map(|scan| scan.findings)
        .unwrap_or_default();
    match findings
        .into_iter()
        .find(|finding| finding.code == Code::MissingProgram)
    {
        Some(finding) => Err(ApplyError::Refused(finding.to_string())),
        None => Ok(()),
    }
}

fn carry_out(plan: &Plan, backups: &Path, done: &mut Vec<Done>) -> Result<(), ApplyError> {
    // Apache can read one file under several names, and one line through several includes.
    let mut files: BTreeMap<PathBuf, BTreeMap<usize, &Edit>> = BTreeMap::new();
    for edit in &plan.edits {
        let file = fs::canonicalize(&edit.place.file)
            .map_err(|error| ApplyError::Io(edit.place.file.clone(), error))?;
        files.entry(file).or_default().insert(edit.place.line, edit);
    }
    let mut append = None;
    if let Some((file, line)) = &plan.append {
        let file = fs::canonicalize(file).map_err(|error| ApplyError::Io(file.clone(), error))?;
        files.entry(file.clone()).or_default();
        append = Some((file, line));
    }
    for (file, edits) in files {
        let at = |error| ApplyError::Io(file.clone(), error);
        let old = fs::read(&file).map_err(at)?;
        let mut new =
            edited(&old, &edits).map_err(|line| ApplyError::Changed(file.clone(), line))?;
        if let Some((_, line)) = append.as_ref().filter(|(to, _)| *to == file) {
            if !new.ends_with(b"\n") {
                new.push(b'\n');
            }
            new.extend_from_slice(format!("{line}\n").as_bytes());
        }
        if plan.restores
            && let Some(before) = before(&file, &old, backups)
        {
            new = before;
        }
        let backup = back_up(&file, &old, backups)?;
        fs::write(written(&backup), &new).map_err(at)?;
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

/// The text with its lines replaced; `Err`: a line that has another directive. Everything else is
/// unchanged, with the indentation and the end of each line.
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

/// The text that the file had before pipeban changed it; `None`: it has changed since.
fn before(file: &Path, now: &[u8], backups: &Path) -> Option<Vec<u8>> {
    let copies = (0..).map(|number| backup_of(file, backups, number));
    let copies: Vec<PathBuf> = copies.take_while(|copy| copy.exists()).collect();
    let mut text = now.to_vec();
    for copy in copies.iter().rev() {
        if fs::read(written(copy)).is_ok_and(|new| new == text) {
            text = fs::read(copy).ok()?;
            if !String::from_utf8_lossy(&text).contains("pipeban log") {
                return Some(text);
            }
        }
    }
    None
}

/// Beside a backup: what pipeban wrote in its place.
fn written(backup: &Path) -> PathBuf {
    let mut name = backup.as_os_str().to_owned();
    name.push(".written");
    name.into()
}

fn backup_of(file: &Path, backups: &Path, number: u32) -> PathBuf {
    let below = file.strip_prefix("/").unwrap_or(file);
    let mut name = backups.join(below).into_os_string();
    name.push(".pipeban-backup");
    if number > 0 {
        name.push(format!(".{number}"));
    }
    name.into()
}

/// Makes the copy `BACKUPS/etc/apache2/....pipeban-backup`, and overwrites no earlier one.
fn back_up(file: &Path, bytes: &[u8], backups: &Path) -> Result<PathBuf, ApplyError> {
    let first = backup_of(file, backups, 0);
    let at = |error| ApplyError::Io(first.clone(), error);
    fs::create_dir_all(first.parent().unwrap_or(backups)).map_err(at)?;
    for number in 0.. {
        let candidate = backup_of(file, backups, number);
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
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at(error)),
        }
    }
    Err(at(io::ErrorKind::AlreadyExists.into()))
}

/// Replaces a file by rename, and keeps its owner and mode.
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

/// The command that tests Apache's configuration.
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

    /// Apache's complaint about the configuration as it is now.
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
        // A hint about the host's name.
        let said: Vec<_> = said
            .lines()
            .filter(|line| !line.contains("AH00558"))
            .collect();
        Ok(Some(said.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::Place;
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
    fn a_mode_is_kept_and_no_backup_is_overwritten() {
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

    #[test]
    fn a_file_becomes_again_what_it_was_unless_it_has_changed_since() {
        let directory = tempfile::tempdir().unwrap();
        let backups = directory.path().join("b");
        let file = Path::new("/etc/apache2/site.conf");
        let change = |old: &str, new: &str| {
            let backup = back_up(file, old.as_bytes(), &backups).unwrap();
            fs::write(written(&backup), new).unwrap();
        };
        let before = |now: &str| before(file, now.as_bytes(), &backups).map(String::from_utf8);
        assert_eq!(before("|pipeban log 1"), None);
        change("one", "|pipeban log 1");
        change("|pipeban log 1", "|pipeban log 2");
        for now in ["|pipeban log 1", "|pipeban log 2"] {
            assert_eq!(before(now), Some(Ok("one".to_owned())));
        }
        assert_eq!(before("|pipeban log 2 "), None);
        // An administrator has added a line between two runs.
        change("|pipeban log 3", "|pipeban log 4");
        assert_eq!(before("|pipeban log 4"), None);
        // Removed, and set up once more.
        change("|pipeban log 2", "one");
        change("one", "|pipeban log 1");
        assert_eq!(before("|pipeban log 1"), Some(Ok("one".to_owned())));
    }
}
