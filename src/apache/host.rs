//! What only this host can say about its logs: which files pipeban may open, and whether Apache reads
//! pipeban's snippets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::finding::{Code, Finding};
use super::target::Target;
use super::walk::Layout;
use crate::pipe;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Log files that `pipeban log` does not open, and why. Only root can tell.
    pub(super) refused: BTreeMap<PathBuf, String>,
    /// Log files in directories where others than root can write.
    pub(super) of_users: BTreeSet<PathBuf>,
    /// There are no snippets of pipeban's in `conf-available`, or Apache does not read
    /// `conf-enabled`.
    pub(super) no_snippets: bool,
}

impl Host {
    pub(super) fn read(root: &Path, layout: &Layout) -> Host {
        let snippet = root.with_file_name("conf-available").join("pipeban.conf");
        let mut host = Host {
            no_snippets: !layout.reads_snippets || !snippet.is_file(),
            ..Host::default()
        };
        if !geteuid().is_root() {
            return host;
        }
        for log in layout.servers.iter().flat_map(|server| &server.logs) {
            let user = match &log.target {
                Target::Pipeban(pipe) if pipe.dated => continue,
                Target::Pipeban(pipe) => pipe.owner.0.as_deref(),
                _ => None,
            };
            let Some(file) = log.target.file().filter(|file| file.is_absolute()) else {
                continue;
            };
            match pipe::would_open(file, user.and_then(pipe::user_id)) {
                Ok(true) => {}
                Ok(false) => {
                    host.of_users.insert(file.to_owned());
                }
                Err(error) => {
                    host.refused.insert(file.to_owned(), error.to_string());
                }
            }
        }
        host
    }

    /// Pipes whose file cannot be opened, or cannot get its owner.
    pub(super) fn findings(&self, layout: &Layout) -> Vec<Finding> {
        let logs = layout.servers.iter().flat_map(|server| &server.logs);
        let found = logs.filter(|log| log.pipes()).filter_map(|log| {
            let why = self.refused.get(log.target.file()?)?;
            let name = log.kind.name();
            let text = format!("the lines of this {name} are lost: {why}");
            Some(Finding::at(&log.place, Code::Refused, text).without(&log.place, name))
        });
        let owners = layout.servers.iter().flat_map(|server| &server.logs);
        let owners = owners.filter_map(|log| {
            let Target::Pipeban(pipe) = &log.target else {
                return None;
            };
            let (user, group) = &pipe.owner;
            let user = user.iter().filter(|name| pipe::user_id(name).is_none());
            let group = group.iter().filter(|name| pipe::group_id(name).is_none());
            let user = user.map(|name| ("user", name));
            let (what, name) = user.chain(group.map(|name| ("group", name))).next()?;
            let text = format!(
                "no {what} `{name}` exists, so new log files do not get it: correct `--owner`"
            );
            Some(Finding::at(&log.place, Code::Owner, text))
        });
        found.chain(owners).collect()
    }
}
