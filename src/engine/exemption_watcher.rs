//! Two threads that read what `ignoreip` refers to: one reads files when they change, one resolves
//! names. A resolver or a network file system that hangs delays nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::waker::Waker;
use crate::disk;
use crate::jail::NetSet;

/// Between two checks whether files have changed.
const CHECK_FILES: Duration = Duration::from_secs(1);

/// Between two rounds of look-ups: where all names had an answer, and where one had none.
const RESOLVE: Duration = Duration::from_secs(300);
const RESOLVE_SOON: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) enum Finding {
    File(PathBuf, Result<NetSet, String>),
    Name(String, Result<Vec<IpAddr>, String>),
}

/// The threads end with this value, a look-up that hangs a while later.
#[derive(Debug)]
pub(super) struct ExemptionWatcher {
    files: Sender<BTreeSet<PathBuf>>,
    names: Sender<BTreeSet<String>>,
    findings: Receiver<Finding>,
}

#[derive(Clone)]
struct Report {
    findings: Sender<Finding>,
    waker: Waker,
}

impl Report {
    fn send(&self, finding: Finding) {
        // The engine may be ending.
        let _ = self.findings.send(finding);
        self.waker.wake();
    }
}

impl ExemptionWatcher {
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(waker: Waker) -> io::Result<ExemptionWatcher> {
        let (sender, findings) = unbounded();
        let to_files = Report {
            findings: sender,
            waker,
        };
        let to_names = to_files.clone();
        let (files, wanted_files) = unbounded();
        let (names, wanted_names) = unbounded();
        Builder::new()
            .name("ignore-files".into())
            .spawn(move || watch_files(&wanted_files, &to_files))?;
        Builder::new()
            .name("resolve".into())
            .spawn(move || resolve_names(&wanted_names, &to_names))?;
        Ok(ExemptionWatcher {
            files,
            names,
            findings,
        })
    }

    /// From now on these are read and resolved, beginning at once.
    pub(super) fn watch(&self, files: BTreeSet<PathBuf>, names: BTreeSet<String>) {
        // The threads end with this value only.
        let _ = self.files.send(files);
        let _ = self.names.send(names);
    }

    pub(super) fn next(&self) -> Option<Finding> {
        self.findings.try_recv().ok()
    }
}

/// Tells one version of a file from another; `None`: there is no file.
type Version = Option<(u64, u64, i64, i64)>;

fn version(path: &Path) -> Version {
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

fn watch_files(wanted: &Receiver<BTreeSet<PathBuf>>, report: &Report) {
    let mut files = BTreeSet::new();
    let mut known: BTreeMap<PathBuf, Version> = BTreeMap::new();
    loop {
        let pause = if files.is_empty() {
            Duration::MAX
        } else {
            CHECK_FILES
        };
        match wanted.recv_timeout(pause) {
            Ok(new) => {
                files = new;
                known.clear();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for path in &files {
            let found = version(path);
            if known.get(path) != Some(&found) {
                known.insert(path.clone(), found);
                report.send(Finding::File(path.clone(), read(path)));
            }
        }
    }
}

pub(super) fn read(path: &Path) -> Result<NetSet, String> {
    disk::networks_in(path)
        .map(NetSet::new)
        .map_err(|problems| {
            let first = problems.first().map(ToString::to_string);
            first.unwrap_or_default()
        })
}

fn resolve_names(wanted: &Receiver<BTreeSet<String>>, report: &Report) {
    let mut names = BTreeSet::new();
    let mut pause = RESOLVE;
    loop {
        match wanted.recv_timeout(pause) {
            Ok(new) => names = new,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        pause = RESOLVE;
        for name in &names {
            if !wanted.is_empty() {
                break;
            }
            let answer = look_up(name);
            if answer.is_err() {
                pause = RESOLVE_SOON;
            }
            report.send(Finding::Name(name.clone(), answer));
        }
    }
}

/// As this host resolves names: nsswitch.conf, `/etc/hosts`, the resolver.
fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    match (name, 0).to_socket_addrs() {
        Ok(found) => Ok(found.map(|addr| addr.ip()).collect()),
        Err(error) => Err(error.to_string()),
    }
}
