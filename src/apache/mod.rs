//! Apache's configuration: which logs are piped into pipeban, which are not, and the edits that
//! change it.
//!
//! Reading needs no running Apache and starts no program: the root file and what it includes are
//! followed as Apache does. What cannot be followed (macros, conditions on versions) is told.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

mod apply;
mod directive;
mod files;
mod findings;
mod formats;
mod plan;
mod target;
mod walk;

pub use apply::{Applied, ApplyError, apply};
pub use findings::{Code, Finding};
pub use plan::{Edit, Plan, Wish, fit, remove};
pub use target::{Pipe, Target};
pub use walk::{Layout, LogDirective, LogKind, Place, Server};

/// Where Apache's configuration begins on the systems we know.
const ROOTS: [&str; 3] = [
    "/etc/apache2/apache2.conf",
    "/etc/httpd/conf/httpd.conf",
    "/etc/apache2/httpd.conf",
];

/// What a host's Apache does with its logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The file it begins with.
    pub root: PathBuf,
    /// Servers and their log directives.
    pub layout: Layout,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Scan {
    /// One line for each finding, for `status` and `check`.
    pub fn warnings(&self) -> Vec<String> {
        self.findings
            .iter()
            .map(|finding| finding.text.clone())
            .collect()
    }

    /// Access logs that reach pipeban and do not name the virtual host (`%v`), as far as their
    /// format is known: a jail with `vhost` counts nothing of them.
    pub fn without_vhost(&self) -> Vec<&LogDirective> {
        let format = |log: &LogDirective| formats::of_access(&self.layout, log);
        let logs = self.layout.servers.iter().flat_map(|server| &server.logs);
        logs.filter(|log| log.kind != LogKind::Error && matches!(log.target, Target::Pipeban(_)))
            .filter(|log| format(log).is_some_and(|text| !names_vhost(&text)))
            .collect()
    }

    /// The log directives of every file of this Apache, also of sites that are not enabled and
    /// of sections that are not active: all that could name pipeban's program one day.
    pub fn everything(&self) -> Vec<LogDirective> {
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
            // pipeban's own snippet is a file of the package, not of the administrator.
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

/// Why nothing was scanned.
#[derive(Debug)]
pub enum ScanError {
    /// No configuration where one is expected.
    None,
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScanError::None => write!(
                f,
                "no Apache configuration found (looked for {}): name it with --apache-config",
                ROOTS.join(", ")
            ),
            ScanError::Unreadable(file, error) => write!(f, "{}: {error}", file.display()),
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

/// Reads the configuration that begins with `root`, by default where the system has it.
///
/// # Errors
/// When there is none, or its first file cannot be read.
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
    let findings = findings::findings(&layout, &|program| program.is_file());
    Ok(Scan {
        root,
        layout,
        findings,
    })
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
