//! fail2ban's configuration as pipeban's: which jails read Apache's logs, and what becomes of each.
#![forbid(unsafe_code)]

mod actions;
mod growth;
mod jail;
mod logs;
mod model;
mod patterns;
mod ports;
mod text;
mod values;

use std::path::Path;

use crate::config::Log;
use crate::filter::{FilterFiles, Settings};
use crate::problem::Problem;

pub use model::{Host, Kept, Migration, Moved, Origin};
pub use text::Text;

/// Reads fail2ban's configuration in `directory`.
///
/// # Errors
/// What fail2ban would refuse, too; or it cannot be read.
pub fn plan(
    directory: &Path,
    host: &Host<'_>,
    files: &dyn FilterFiles,
) -> Result<Migration, Vec<Problem>> {
    let mut jails = Settings::read(&directory.join("jail.conf"), files)?;
    jails.set_default("fail2ban_confpath", &directory.display().to_string());
    jails.set_default("fail2ban_version", "1.0.2");
    let mut migration = Migration {
        directory: directory.to_owned(),
        ignoreip: Vec::new(),
        cloudflare: false,
        moved: Vec::new(),
        kept: Vec::new(),
    };
    let defaults = jails.value("DEFAULT", "ignoreip").ok().flatten();
    let ignored = defaults.map_or_else(Vec::new, |setting| values::words(&setting.text));
    migration.ignoreip = more_than(&host.ignoreip, &ignored);
    let all = if migration.ignoreip.is_empty() {
        host.ignoreip.clone()
    } else {
        migration.ignoreip.clone()
    };
    let names: Vec<String> = jails.sections().map(str::to_owned).collect();
    for name in names {
        let source = jail::Source {
            directory,
            name: &name,
            host,
            files,
            ignored: &ignored,
            defaults: &all,
        };
        source.read(&mut jails, &mut migration);
    }
    finish_recidive(&mut migration);
    Ok(migration)
}

/// The entries in force with those of fail2ban; empty if nothing is new.
fn more_than(inforce: &[String], ignored: &[String]) -> Vec<String> {
    let bare = |entry: &str| {
        let entry = entry.to_lowercase();
        let whole = ["/32", "/128"]
            .iter()
            .find_map(|end| entry.strip_suffix(end));
        whole.unwrap_or(&entry).to_owned()
    };
    let loopback = |entry: &String| {
        let entry = bare(entry);
        entry.starts_with("127.") || entry == "::1" || entry == "localhost"
    };
    let known = |entry: &String| inforce.iter().any(|known| bare(known) == bare(entry));
    let new: Vec<&String> = ignored
        .iter()
        .filter(|entry| !loopback(entry) && !known(entry))
        .collect();
    if new.is_empty() {
        return Vec::new();
    }
    inforce.iter().chain(new).cloned().collect()
}

/// `recidive` counts the bans of the other jails: those of fail2ban still need fail2ban's.
fn finish_recidive(migration: &mut Migration) {
    let others = migration.moved.iter().any(|moved| moved.log != Log::Bans);
    let is_needed = !migration.kept.is_empty()
        || migration
            .moved
            .iter()
            .any(|moved| moved.partly && moved.log != Log::Bans);
    let (counting, reading): (Vec<Moved>, Vec<Moved>) = std::mem::take(&mut migration.moved)
        .into_iter()
        .partition(|moved| moved.log == Log::Bans);
    migration.moved = reading;
    for mut moved in counting {
        if !others {
            migration.kept.push(Kept {
                from: moved.from,
                why: "it counts the bans of jails that stay with fail2ban".to_owned(),
            });
            continue;
        }
        if is_needed {
            moved.partly = true;
            moved.notes.push(
                "counts pipeban's bans; fail2ban's jail stays on for those of fail2ban".to_owned(),
            );
        }
        migration.moved.push(moved);
    }
}
