//! Empties back ends of what no engine lifts.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::thread;

use jiff::Timestamp;
use nix::unistd::geteuid;

use super::backend::Error;
use super::notices::Notices;
use super::{apache, nft, ufw};
use crate::config::{self, Backend, Paths};

const LEFT: &str = "firewall-left";

/// The back ends that are not configured. What pipeban has put there is not listed as a ban any
/// more, and nothing would lift it.
pub(super) struct Unused {
    table: bool,
    ufw: bool,
    deny_map: Option<PathBuf>,
}

impl Unused {
    /// `None`: with a dry run the bans there can be those of another engine.
    pub(super) fn of(settings: &config::Firewall, paths: &Paths) -> Option<Unused> {
        let deny_map = (!settings.has(Backend::Apache)).then(|| paths.deny_map());
        (!settings.has(Backend::DryRun)).then(|| Unused {
            table: !settings.has_table(),
            // Only root can read its rules.
            ufw: !settings.mirrors_to_ufw() && geteuid().is_root(),
            deny_map,
        })
    }

    /// Empties them on a thread of its own: ufw takes 0.2 s for each rule.
    pub(super) fn clear(self, mut notices: Notices) {
        let clear = move || {
            let done = [self.clear_table(), self.clear_ufw(), self.clear_deny_map()];
            let mut removed = Vec::new();
            let mut failed = Vec::new();
            for done in done {
                match done {
                    Ok(text) => removed.extend(text),
                    Err(error) => failed.push(error.to_string()),
                }
            }
            if !removed.is_empty() {
                notices.event(format!(
                    "removed bans from back ends that are not configured any more: {}",
                    removed.join(", ")
                ));
            }
            if !failed.is_empty() {
                notices.trouble(
                    LEFT,
                    format!(
                        "a back end that is not configured any more may still hold bans, which \
                         `unban` does not lift: {}; correct that and restart the engine",
                        failed.join("; ")
                    ),
                );
            }
        };
        // Without a thread the next start of the engine does it.
        let _ = thread::Builder::new().name("unused".into()).spawn(clear);
    }

    fn clear_table(&self) -> Result<Option<String>, Error> {
        if !(self.table && nft::has_table()?) {
            return Ok(None);
        }
        nft::delete_table()?;
        Ok(Some("table `inet pipeban`".to_owned()))
    }

    fn clear_ufw(&self) -> Result<Option<String>, Error> {
        let rules = if self.ufw { ufw::clear(None)? } else { 0 };
        Ok((rules > 0).then(|| format!("{rules} ufw rules")))
    }

    fn clear_deny_map(&self) -> Result<Option<String>, Error> {
        let names = match &self.deny_map {
            Some(deny_map) => apache::clear(deny_map, None)?,
            None => 0,
        };
        Ok((names > 0).then(|| format!("{names} names in Apache's deny map")))
    }
}

/// Removes all that pipeban ever put into this host's firewall: its table, Apache's deny map, its
/// ufw rules. Needs no engine. Returns how many ufw rules it removed. What does not exist (ufw, the
/// table, nftables) is no error. ufw takes 0.2 s a rule.
///
/// # Errors
/// What could not be removed, for the operator; the rest is removed all the same.
pub fn clear_everything(paths: &Paths) -> Result<usize, String> {
    let others = [
        nft::delete_table(),
        apache::clear(&paths.deny_map(), None).map(drop),
    ];
    let rules = ufw::clear(None).map_err(|error| error.to_string())?;
    for cleared in others {
        cleared.map_err(|error| error.to_string())?;
    }
    Ok(rules)
}

/// Removes ufw rules and names in Apache's deny map whose ban is over, when no engine does it; the
/// kernel ends the rest. Returns how many.
///
/// # Errors
/// What could not be removed, for the operator; the rest is removed all the same.
pub fn clear_over(paths: &Paths, now: Timestamp) -> Result<usize, String> {
    let names = apache::clear(&paths.deny_map(), Some(now)).map_err(|error| error.to_string());
    let rules = ufw::clear(Some(now)).map_err(|error| error.to_string())?;
    Ok(names? + rules)
}
