//! The processes of this host, from /proc.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A process.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) name: String,
    /// `R`, `S`, `T` for stopped, ...
    pub(super) state: char,
    pub(super) argv: Vec<String>,
}

/// All of them; one that ends meanwhile is left out.
pub(super) fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(read).collect()
}

pub(super) fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let argv = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = argv.split(|byte| *byte == 0);
    let words = words.map(|word| String::from_utf8_lossy(word).into_owned());
    (state != 'Z').then(|| Process {
        pid,
        parent,
        name: head.split_once('(').map_or("", |(_, name)| name).to_owned(),
        state,
        argv: words.filter(|word| !word.is_empty()).collect(),
    })
}

/// Apache's main processes.
pub(super) fn apaches(all: &[Process]) -> impl Iterator<Item = &Process> {
    let child = |process: &Process| {
        let mut others = all.iter().filter(|other| is_apache(other));
        others.any(|other| other.pid == process.parent)
    };
    all.iter()
        .filter(move |process| is_apache(process) && !child(process))
}

fn is_apache(process: &Process) -> bool {
    matches!(process.name.as_str(), "apache2" | "httpd")
}

/// Whether the program that runs is no longer the one in its file. `None`: this user may not know.
pub(super) fn is_replaced(pid: u32) -> Option<bool> {
    let link = format!("/proc/{pid}/exe");
    let running = fs::metadata(&link).ok()?;
    let name = fs::read_link(&link).ok()?;
    let name = name.to_string_lossy();
    let file = PathBuf::from(name.trim_end_matches(" (deleted)"));
    let same = |file: fs::Metadata| (file.dev(), file.ino()) == (running.dev(), running.ino());
    Some(!fs::metadata(file).is_ok_and(same))
}

/// systemd's unit of the process, such as `apache2.service`.
pub(super) fn unit_of(pid: u32) -> Option<String> {
    unit_in(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

fn unit_in(cgroup: &str) -> Option<String> {
    // The unified hierarchy, or systemd's in the old form.
    let ours = |line: &&str| line.starts_with("0::") || line.contains(":name=systemd:");
    let line = cgroup.lines().find(ours)?;
    let mut parts = line.rsplit('/');
    parts
        .find(|part| part.ends_with(".service"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_read_from_either_hierarchy() {
        for (text, unit) in [
            (
                "0::/system.slice/apache2.service\n",
                Some("apache2.service"),
            ),
            (
                "0::/system.slice/system-apache2.slice/apache2@a.service/x\n",
                Some("apache2@a.service"),
            ),
            (
                "12:pids:/x\n1:name=systemd:/system.slice/pipeban.service\n",
                Some("pipeban.service"),
            ),
            ("0::/user.slice/session-1.scope\n", None),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit_in(text).as_deref(), unit, "{text}");
        }
    }

    #[test]
    fn this_process_runs_the_program_in_its_file() {
        let pid = std::process::id();
        assert_eq!(is_replaced(pid), Some(false));
        assert_eq!(read(pid).unwrap().pid, pid);
        assert!(all().iter().any(|process| process.pid == pid));
    }
}
