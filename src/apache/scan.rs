//! Reads a host's Apache configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::finding::{Code, Finding, Remedy};
use super::host::Host;
use super::remoteip::ClientNaming;
use super::target::Target;
use super::walk::{self, Layout, LogDirective, LogKind};
use super::{directive, files, findings, formats};
use crate::record::Kind;

/// The first file of Apache's configuration on supported systems.
const ROOTS: [&str; 3] = [
    "/etc/apache2/apache2.conf",
    "/etc/httpd/conf/httpd.conf",
    "/etc/apache2/httpd.conf",
];

/// From this number on, virtual hosts with their own logs are too many to name one by one, and too
/// many for a pipe each.
pub(super) const MANY: usize = 50;

/// The logs of a host's Apache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Its first file.
    pub root: PathBuf,
    /// Servers and their log directives.
    pub layout: Layout,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What this host says about the logs.
    pub(super) host: Host,
}

impl Scan {
    /// One line for each finding, for `status` and `check`.
    pub fn warnings(&self) -> Vec<String> {
        self.findings.iter().map(Finding::to_string).collect()
    }

    /// Who may name the client of a request.
    pub fn client_naming(&self) -> ClientNaming {
        formats::client_naming(&self.layout)
    }

    /// What `setup` leaves to the administrator.
    pub fn left(&self) -> impl Iterator<Item = &Finding> {
        let left = |found: &&Finding| matches!(found.remedy, Remedy::CommentOut(..));
        self.findings.iter().filter(left)
    }

    /// What `status` shows: one line for each kind of finding. An error log that goes to
    /// /dev/null or to syslog does so because an administrator wants it; only `check` names it.
    pub fn alarms(&self) -> Vec<String> {
        let wanted = |finding: &&Finding| !self.is_deliberate(finding);
        let kinds = by_kind(self.findings.iter().filter(wanted)).into_iter();
        let alarms = kinds.map(|(first, more)| match more {
            0 => first.to_string(),
            more => format!("{first} (and {more} more like this: `pipeban check`)"),
        });
        alarms.collect()
    }

    /// What `check` shows beside errors: every finding, but only the first of a kind with
    /// [`MANY`] or more.
    pub fn grouped_warnings(&self) -> Vec<String> {
        let mut many = by_kind(self.warnings_only());
        many.retain(|(_, more)| *more + 1 >= MANY);
        let shown = self.warnings_only().filter_map(|finding| {
            match many.iter().find(|(first, _)| first.code == finding.code) {
                None => Some(finding.to_string()),
                Some((first, more)) => std::ptr::eq(*first, finding)
                    .then(|| format!("{first} (and {more} more like this)")),
            }
        });
        shown.collect()
    }

    fn warnings_only(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.is_error())
    }

    fn is_deliberate(&self, finding: &Finding) -> bool {
        let bypass = finding.code == Code::ErrorBypass;
        let mut logs = self.layout.servers.iter().flat_map(|server| &server.logs);
        let log = logs.find(|log| finding.place.as_ref() == Some(&log.place));
        bypass && log.is_some_and(|log| log.target.is_elsewhere())
    }

    /// Access logs that reach pipeban with a format that is known to lack the virtual host (`%v`): a
    /// jail with `vhost` ignores their lines.
    pub fn without_vhost(&self) -> Vec<&LogDirective> {
        let format = |log: &LogDirective| formats::of_access(&self.layout, log);
        let logs = self.layout.servers.iter().flat_map(|server| &server.logs);
        logs.filter(|log| log.kind != LogKind::Error && log.pipes())
            .filter(|log| format(log).is_some_and(|text| !names_vhost(&text)))
            .collect()
    }

    /// The files that log directives name, also through pipeban, and their kind of lines.
    pub fn log_files(&self) -> Vec<(PathBuf, Kind)> {
        let file = |log: LogDirective| match log.target {
            Target::File(path) => Some((path, log.kind.lines())),
            Target::Pipeban(pipe) => pipe.path.map(|path| (path, log.kind.lines())),
            Target::Program { .. } | Target::Other(_) => None,
        };
        self.everything().into_iter().filter_map(file).collect()
    }

    /// The log directives of every file of this Apache, with sites that are not enabled and
    /// sections that are not active.
    pub(super) fn everything(&self) -> Vec<LogDirective> {
        let mut files: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        let base = self.root.parent().unwrap_or(Path::new("/"));
        let known = self.layout.files.iter().cloned();
        let others = ["sites-available", "conf-available"]
            .into_iter()
            .flat_map(|directory| {
                let directory = base.join(directory);
                let names = files::Files::names(&files::Disk, &directory).unwrap_or_default();
                names.into_iter().map(move |name| directory.join(name))
            });
        for file in known.chain(others) {
            // This snippet belongs to the package, not to the administrator.
            if !file.ends_with("conf-available/pipeban.conf")
                && let Ok(real) = std::fs::canonicalize(&file)
            {
                files.entry(real).or_insert(file);
            }
        }
        let variables = variables(&self.root);
        files
            .values()
            .filter_map(|file| Some((file, files::Files::read(&files::Disk, file).ok()?)))
            .flat_map(|(file, text)| walk::logs_in(file, &text, &variables, base))
            .collect()
    }
}

/// The first finding of each kind, and how many more there are.
fn by_kind<'a>(findings: impl Iterator<Item = &'a Finding>) -> Vec<(&'a Finding, usize)> {
    let mut kinds: Vec<(&Finding, usize)> = Vec::new();
    for finding in findings {
        match kinds
            .iter_mut()
            .find(|(first, _)| first.code == finding.code)
        {
            Some((_, more)) => *more += 1,
            None => kinds.push((finding, 0)),
        }
    }
    kinds
}

/// Why pipeban cannot scan Apache's configuration.
#[derive(Debug)]
pub enum ScanError {
    /// There is none in a usual place.
    None,
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScanError::None => write!(
                f,
                "found no Apache configuration (searched for {}): name it with `--apache-config`",
                ROOTS.join(", ")
            ),
            ScanError::Unreadable(file, error) => {
                write!(f, "cannot read {}: {error}", file.display())
            }
        }
    }
}

impl std::error::Error for ScanError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ScanError::None => None,
            ScanError::Unreadable(_, error) => Some(error),
        }
    }
}

/// Reads the configuration that begins with `root`, by default the system's.
///
/// # Errors
/// There is none, or its first file cannot be read.
pub fn scan(root: Option<&Path>) -> Result<Scan, ScanError> {
    let root = match root {
        Some(root) => std::path::absolute(root)
            .map_err(|error| ScanError::Unreadable(root.to_owned(), error))?,
        None => ROOTS
            .iter()
            .map(PathBuf::from)
            .find(|root| root.exists())
            .ok_or(ScanError::None)?,
    };
    let layout = walk::walk(&files::Disk, &root, variables(&root))
        .map_err(|error| ScanError::Unreadable(root.clone(), error))?;
    let host = Host::read(&root, &layout);
    let mut findings = findings::findings(&layout, &|program| program.is_file());
    findings.extend(host.findings(&layout));
    Ok(Scan {
        root,
        layout,
        findings,
        host,
    })
}

/// Whether [`scan`] finds this first file without being given it.
pub fn is_usual(root: &Path) -> bool {
    let mut roots = ROOTS.iter().map(Path::new);
    roots.find(|usual| usual.exists()) == Some(root)
}

/// `%v` or `%V`, also with Apache's modifiers (`%>v`, `%!404v`).
fn names_vhost(format: &str) -> bool {
    format.split('%').skip(1).any(|field| {
        let field = field.trim_start_matches(|c: char| c.is_ascii_digit() || "!<>,".contains(c));
        field.starts_with(['v', 'V'])
    })
}

/// Debian's `envvars` beside the root file.
fn variables(root: &Path) -> BTreeMap<String, String> {
    std::fs::read_to_string(root.with_file_name("envvars"))
        .map(|text| directive::envvars(&text))
        .unwrap_or_default()
}
