//! SQLite: bans and their history, counters, the position in each stream, the allow-list. The only
//! module that knows SQL; the engine is the only process that writes.
//!
//! WAL with `synchronous = NORMAL`: a commit survives a SIGKILL at any moment; a power failure may
//! undo the last commits.
#![forbid(unsafe_code)]

mod database;
mod evidence;
mod fail2ban;
mod history;
mod history_of;
mod model;
mod numbers;
mod open;
mod read;
mod read_only;
mod schema;
mod thread;
mod wal;
mod write;

pub use database::{Database, Home};
pub use evidence::LastLine;
pub use fail2ban::{ForeignBan, fail2ban_bans};
pub use history_of::{Past, PastBan};
pub use model::{Allowed, Error, MAX_STREAMS, Op, Saved};
pub use open::{Opened, open};
pub use read_only::ReadOnly;
pub use thread::{Done, Store};

#[cfg(test)]
mod tests;
