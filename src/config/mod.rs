//! Text into checked configuration.
//!
//! A value of [`Config`] is valid: it cannot hold an invalid jail. The engine sends it as JSON to
//! keepers and workers, and stores it in the state directory as the last good configuration.
//!
//! Each key is one row of a table (`sections`, `jail_rows`): name, default, help, how it is read and
//! how it is shown. `merge` goes over the rows. `load` finds the files; it reads them through
//! [`FilterFiles`](crate::filter::FilterFiles), because this module opens none itself.
#![forbid(unsafe_code)]

pub mod duration;
mod jail;
mod settings;

mod argv;
mod document;
mod networks;
mod origins;
mod row;
mod rules;
mod search_engines;
mod values;
mod words;

mod jail_rows;
mod sections;

mod load;
mod merge;
mod show;

#[cfg(test)]
mod tests;

pub use crate::jail_name::JailName;
pub use crate::problem::Problem;
pub use argv::{COMMAND_PLACEHOLDERS, HOOK_PLACEHOLDERS, fill};
pub use jail::{Hooks, Increment, Jail, Log, Ports, SearchEngines};
pub use load::{filter_directories, load, networks_in, paths_of};
pub(crate) use merge::FAKE_GOOGLEBOT;
pub use merge::MANUAL_JAIL;
pub use origins::{Origin, Origins};
pub use rules::{rules, rules_of_lines};
pub use search_engines::SearchEngine;
pub use sections::syslog_facility;
pub use settings::{
    Backend, BanCommand, Blocktype, Config, Firewall, LineFormat, Metrics, Paths, StoreSettings,
    Syslog, SyslogFormat, SyslogTarget,
};
pub use show::{KeyHelp, keys, show_jail};
pub(crate) use values::quote;

/// Default place of the administrator's configuration.
pub const DEFAULT_FILE: &str = "/etc/pipeban/pipeban.toml";
