//! Shows the settings in force, and describes every key.

use super::jail::Log;
use super::jail_rows::{INCREMENT, JAIL};
use super::origins::Origins;
use super::row::Row;
use super::sections::{COMMAND, FIREWALL, METRICS, PATHS, PROXIES, STORE, SYSLOG};
use super::settings::Config;
use super::values::quoted_key;
use crate::jail_name::JailName;

/// The jail as TOML that reads as the same jail; behind each key its file and line. `None`: no such
/// jail.
pub fn show_jail(config: &Config, origins: &Origins, name: &JailName) -> Option<String> {
    let jail = config.jails.get(name)?;
    let mut text = format!("[jails.{}]\n", quoted_key(name.as_str()));
    for row in JAIL {
        // Jails that count bans have no filter.
        if jail.log == Log::Bans && row.name == "filter" {
            continue;
        }
        let from = origins.of_parts(name.as_str(), row.name).into_iter();
        let from = from.map(|(file, place)| format!("{}:{}", file.display(), place.0));
        let from = match from.collect::<Vec<_>>().join(", ") {
            from if from.is_empty() => "built in".to_owned(),
            from => from,
        };
        let line = format!("{} = {}", row.name, (row.show)(jail));
        text.push_str(&format!("{line:<40} # {from}\n"));
    }
    if let Some(filter) = config.filters.get(&jail.filter) {
        text.push_str(&format!("# filter file: {}\n", filter.file.display()));
    }
    Some(text)
}

/// One key of the configuration, for the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHelp {
    /// `paths`, `firewall`, `firewall.command`, `syslog`, `metrics`, `proxies`, `defaults` (the keys of each
    /// jail) or `increment`.
    pub section: &'static str,
    /// Its name.
    pub key: &'static str,
    /// As in a file; in words for `log` and `filter`.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
}

/// Every key, by section, in the order of the manual.
pub fn keys() -> Vec<KeyHelp> {
    [
        described("paths", PATHS),
        described("firewall", FIREWALL),
        described("firewall.command", COMMAND),
        described("syslog", SYSLOG),
        described("metrics", METRICS),
        described("store", STORE),
        described("proxies", PROXIES),
        described("defaults", JAIL),
        described("increment", INCREMENT),
    ]
    .concat()
}

fn described<T>(section: &'static str, rows: &[Row<T>]) -> Vec<KeyHelp> {
    let describe = |row: &Row<T>| KeyHelp {
        section,
        key: row.name,
        default: row.default,
        help: row.help,
    };
    rows.iter().map(describe).collect()
}
