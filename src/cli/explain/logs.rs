//! Which logs have a client's lines: those that workers write, and those of Apache's configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::apache::Scan;
use crate::control::Known;
use crate::disk::open_file;
use crate::record::Kind;
use crate::report::explain::Origin;

/// A log to search.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: Text,
    /// `None`: to be detected.
    pub(super) kind: Option<Kind>,
    /// `None`: to be detected.
    pub(super) format: Option<String>,
    pub(super) origin: Origin,
}

#[derive(Debug, Clone)]
pub(super) enum Text {
    File(PathBuf),
    Line(String),
}

impl Source {
    /// A file that the command line names.
    pub(super) fn given(file: &Path) -> Source {
        Source {
            name: file.display().to_string(),
            text: Text::File(file.to_owned()),
            kind: None,
            format: None,
            origin: Origin::Given,
        }
    }

    /// A line on the command line.
    pub(super) fn line(kind: Kind, line: &str) -> Source {
        Source {
            name: "the line".to_owned(),
            text: Text::Line(line.to_owned()),
            kind: Some(kind),
            format: None,
            origin: Origin::Line,
        }
    }
}

/// The logs of this host.
pub(super) fn of_host(scan: Option<&Scan>, known: Option<&Known>) -> Vec<Source> {
    let mut found: Vec<Source> = Vec::new();
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let mut add = |file: &Path, kind, format: Option<String>, origin| {
        let real = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        if file != Path::new("/dev/null") && seen.insert(real) {
            found.push(Source {
                name: file.display().to_string(),
                text: Text::File(file.to_owned()),
                kind: Some(kind),
                format,
                origin,
            });
        }
    };
    let workers = known
        .map(|known| known.workers.as_slice())
        .unwrap_or_default();
    for worker in workers {
        if let Some(path) = &worker.path {
            add(
                path,
                worker.kind,
                worker.reading.format.clone(),
                Origin::Worker,
            );
        }
    }
    let connected = |kind: Kind| workers.iter().any(|worker| worker.kind == kind);
    for log in scan.map(Scan::logs).unwrap_or_default() {
        let Some(file) = &log.file else { continue };
        let origin = match (log.reaches, log.piped, known) {
            (false, ..) => Origin::Unpiped,
            // Which workers there are is not known.
            (true, _, None) => Origin::Worker,
            // It is written beside the pipe.
            (true, false, Some(_)) if connected(log.kind) => Origin::Worker,
            (true, ..) => Origin::Configured,
        };
        add(file, log.kind, log.format.clone(), origin);
    }
    found
}

/// The formats of this host's logs.
pub(super) fn formats(scan: &Scan) -> Vec<(Kind, String)> {
    let logs = scan.logs().into_iter();
    let mut formats: Vec<_> = logs
        .filter_map(|log| Some((log.kind, log.format?)))
        .collect();
    formats.dedup();
    formats
}

/// The logs that Apache writes past pipeban and that cannot be searched, for people.
pub(super) fn unpiped(scan: &Scan) -> Vec<String> {
    let searched = |file: &PathBuf| open_file(file).is_ok();
    let unpiped = scan.logs().into_iter().filter(|log| !log.reaches);
    let logs = unpiped.filter(|log| !log.file.as_ref().is_some_and(searched));
    let words = logs.map(|log| format!("the {} log of {} ({})", log.kind, log.server, log.place));
    words.take(5).collect()
}
