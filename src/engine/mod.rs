//! One loop that joins several owners, which hand each other values ([`decision`]).
//!
//! - `run`: the loop; reads the clock once a turn
//! - `connections`: sockets, roles and rights; what arrives and what is answered
//! - `decider`: jails, exemptions, streams and the emergency stop (`off`); makes a `Decision` of
//!   hits, of commands (`commands`, `transfer`), of time, and of what was stored (`restore`)
//! - `crawlers`: which clients are search engines, by reverse DNS (`crawler_check`)
//! - `enforcement`: performs a `Decision`: firewall, log lines (`surges`), hooks, store
//! - `alarms`: what is wrong now, for syslog and `status`
//! - `status`: what `pipeban status` shows; `explain`: what is known about one client
//! - `start`, `settings`, `locks`, `ready`: from a configuration to a running loop
//!
//! # Invariants
//!
//! - Order, for every hit: decide, firewall, commit, acknowledge. A ban waits for nothing; an
//!   acknowledgement and the answer to a command wait until the database holds what they claim.
//! - While the database cannot be written, an alarm says so, bans are made, and nothing is
//!   acknowledged; a mark outside the database makes the next engine adopt what the firewall holds.
//! - While the emergency stop is on, bans are kept but lifted from the firewall, and their time
//!   goes on; hits only raise totals. `pipeban on` restores those that are not over. `pipeban unban
//!   --all` before it starts clean.
#![forbid(unsafe_code)]

mod alarms;
mod answered;
mod apache_ports;
mod client_naming;
mod commands;
mod confirmations;
mod connections;
mod crawler_check;
mod crawlers;
mod decider;
mod decision;
mod enforcement;
mod evidence;
mod exemption_watcher;
mod exemptions;
mod explain;
mod files;
mod held_acks;
mod locks;
mod new_bans;
pub mod off;
mod ready;
mod restore;
mod run;
mod settings;
mod shared_address_alarm;
mod start;
mod status;
mod streams;
mod surges;
mod transfer;
mod trouble_mark;
mod undecided_patterns;
mod waker;

pub(crate) use client_naming::ClientNamings;
pub(crate) use exemptions::{exempt_now, exempt_stored};
pub use locks::is_held;
pub use start::{Failure, run};

use std::path::Path;

use crate::config::Config;

/// The configuration in use if no engine answers: the last good one, else the files.
pub fn configuration_in_use(file: &Path) -> Option<Config> {
    let accepted = settings::last_good(file).or_else(|_| settings::from_files(file));
    let accepted = accepted.ok()?;
    Some(Config::clone(&accepted.config))
}
