//! The logs of each server: which ones pipeban writes, and which ones go past it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::findings::{globals, in_force};
use super::formats;
use super::place::Place;
use super::scan::Scan;
use super::target::Target;
use super::walk::LogDirective;
use crate::record::Kind;

/// A log of one or more servers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerLog {
    /// The directive.
    pub place: Place,
    /// Its lines.
    pub kind: Kind,
    /// The first server that writes it.
    pub server: String,
    /// Whether it pipes into pipeban.
    pub piped: bool,
    /// Whether pipeban gets the lines, by this directive or by another one.
    pub reaches: bool,
    /// The file with the lines; `None`: there is none, or its name changes with time.
    pub file: Option<PathBuf>,
    /// The format, as `--format` takes it; `None`: to be detected.
    pub format: Option<String>,
}

impl Scan {
    /// Every log that a server writes, each directive once. What another program or syslog gets has
    /// no file.
    pub fn logs(&self) -> Vec<ServerLog> {
        let layout = &self.layout;
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for server in &layout.servers {
            let logs = in_force(layout, server);
            let access: Vec<&LogDirective> = globals(layout).chain(logs.access).collect();
            let piped = access.iter().any(|log| log.pipes() && !log.conditional);
            for log in access.into_iter().chain(logs.error) {
                if seen.insert(log.place.clone()) {
                    let reaches = log.pipes() || piped && log.kind.lines() == Kind::Access;
                    found.push(self.server_log(log, &server.name, reaches));
                }
            }
        }
        found
    }

    fn server_log(&self, log: &LogDirective, server: &str, reaches: bool) -> ServerLog {
        let known = formats::of_access(&self.layout, log).filter(|text| text.contains('%'));
        let (file, format) = match &log.target {
            Target::Pipeban(pipe) => {
                let file = pipe.path.clone().filter(|_| !pipe.dated);
                (file, pipe.format.clone().or(known))
            }
            Target::File(file) => (Some(file.clone()), known),
            Target::Program { .. } | Target::Other(_) => (None, None),
        };
        ServerLog {
            place: log.place.clone(),
            kind: log.kind.lines(),
            server: server.to_owned(),
            piped: log.pipes(),
            reaches,
            file,
            format,
        }
    }
}
