//! One loop that owns the jails, reads the clocks and performs what the jails decide.
//!
//! Order, for every hit: decide, firewall, commit, acknowledge. A ban waits for nobody; an
//! acknowledgement and the answer to a command wait until the database holds what they claim.
//! Where the database cannot be written, that is told, and hits are acknowledged all the same:
//! otherwise workers would hold them back and nobody would be banned any more.
//!
//! # The emergency stop
//!
//! While it is on, bans are kept but lifted from the firewall, and their time runs on; hits only
//! raise totals. `pipeban on` puts back what is not over. Who wants to start clean says `pipeban
//! unban --all` before.
#![forbid(unsafe_code)]

mod commands;
mod evidence;
mod exemptions;
mod files;
mod hits;
mod hooks;
mod hub;
mod locks;
mod logins;
mod looker;
mod names;
pub mod off;
mod perform;
mod ready;
mod server;
mod settings;
mod start;
mod status;
mod stop;
mod surge;
mod undecided;

pub use locks::is_held;
pub use start::{Failure, run};

use std::path::Path;

use crate::config::Config;

/// The configuration in use where no engine can be asked: the last good one, else the files.
pub fn configuration_in_use(file: &Path) -> Option<Config> {
    settings::in_use(file)
}
