//! What is known of fail2ban's jails and of this host, and what becomes of the jails.

use std::path::{Path, PathBuf};

use super::values;
use crate::config::{JailName, Log, duration};
use crate::filter::{Definition, Setting};
use crate::record::Kind;

/// What is known of this host.
pub struct Host<'a> {
    /// The kinds of Apache's logs that a pattern of file names covers.
    pub logs: &'a dyn Fn(&Path) -> Vec<Kind>,
    /// The filter that pipeban finds under a name with options.
    pub filter: &'a dyn Fn(&str) -> Option<Definition>,
    /// The tcp port of a service.
    pub service: &'a dyn Fn(&str) -> Option<u16>,
    /// Entries of `[defaults] ignoreip` in force.
    pub ignoreip: Vec<String>,
}

/// What becomes of fail2ban's enabled jails.
#[derive(Debug, Clone)]
pub struct Migration {
    /// fail2ban's directory.
    pub directory: PathBuf,
    /// `[defaults] ignoreip`; empty: as it is.
    pub ignoreip: Vec<String>,
    /// The host is behind Cloudflare.
    pub cloudflare: bool,
    /// Jails for pipeban.
    pub moved: Vec<Moved>,
    /// Jails that stay with fail2ban.
    pub kept: Vec<Kept>,
}

/// A jail for pipeban.
#[derive(Debug, Clone)]
pub struct Moved {
    /// fail2ban's jail.
    pub from: Origin,
    /// pipeban's jail.
    pub name: JailName,
    /// What it reads.
    pub log: Log,
    /// The files that fail2ban reads.
    pub paths: Vec<String>,
    /// As a jail names it; empty with [`Log::Bans`].
    pub filter: String,
    /// A file in `filters.d` that has to be written for it: its name and its text.
    pub copy: Option<(String, String)>,
    /// It counts and blocks no client.
    pub observes: bool,
    /// It bans only clients that falsely claim to be a search engine.
    pub(crate) bans_fake: bool,
    pub(crate) maxretry: u32,
    pub(crate) findtime: values::Time,
    pub(crate) bantime: values::Time,
    /// As in a file.
    pub(crate) port: String,
    /// As in a file.
    pub(crate) increment: String,
    /// Empty: as in `[defaults]`.
    pub(crate) ignoreip: Vec<String>,
    /// What is different, and what to do.
    pub notes: Vec<String>,
    /// Commented keys to choose from.
    pub(crate) hooks: Vec<String>,
    /// fail2ban's jail reads other logs, too, and stays on for them.
    pub partly: bool,
}

/// A jail that stays with fail2ban.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Which.
    pub from: Origin,
    /// The reason.
    pub why: String,
}

/// A jail of fail2ban, and where it is switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its name.
    pub jail: String,
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl Migration {
    /// The pipeban jail that gets the bans of a jail of fail2ban; `None`: it bans no client.
    pub fn successor(&self, jail: &str) -> Option<&JailName> {
        let banning = self.moved.iter().filter(|moved| !moved.observes);
        let mut of_jail = banning.filter(|moved| moved.from.jail == jail);
        of_jail.next().map(|moved| &moved.name)
    }

    /// The jails to switch off in fail2ban.
    pub fn switched_off(&self) -> Vec<&str> {
        let whole = self.moved.iter().filter(|moved| !moved.partly);
        let mut names: Vec<&str> = whole.map(|moved| moved.from.jail.as_str()).collect();
        names.dedup();
        names
    }

    /// Nothing is left for fail2ban to do.
    pub fn is_whole(&self) -> bool {
        self.kept.is_empty() && self.moved.iter().all(|moved| !moved.partly)
    }

    /// The file and line of a jail for messages: `jail.local:12`.
    pub(crate) fn place(&self, from: &Origin) -> String {
        let file = from
            .file
            .strip_prefix(&self.directory)
            .unwrap_or(&from.file);
        format!("{}:{}", file.display(), from.line)
    }
}

/// The time as in a file: `"10m"`, `"permanent"`.
pub(super) fn show(time: values::Time) -> String {
    match time {
        Some(time) => format!("\"{}\"", duration::show(Some(time))),
        None => "\"permanent\"".to_owned(),
    }
}

/// A setting that is on: `true`, `yes`, `on` or `1`.
pub(super) fn is_on(setting: Option<&Setting>) -> bool {
    setting.is_some_and(|setting| {
        ["1", "on", "true", "yes"].contains(&setting.text.to_lowercase().as_str())
    })
}
