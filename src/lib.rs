//! pipeban: a piped logger for Apache that bans attackers.
//!
//! Apache starts `pipeban log` as a piped logger. Lines arrive on stdin the moment Apache writes
//! them. pipeban appends them unchanged to the normal log file; then worker threads match them
//! against jails. A client that breaks a jail's rule is banned within milliseconds by pipeban's
//! nftables table; the ufw rule follows. The ban is logged to syslog and restored after a restart.
//!
//! ```text
//! Apache --pipe--> pipeban log      one set per piped-log directive
//!                   stub   (root)   what Apache knows: exits at once on TERM
//!                   keeper (root)   reads the pipe, writes the log, shares each block; parses nothing
//!                   worker (none)   maps the blocks read-only, matches whole lines
//!                     | unix socket, opened by the keeper: hits, sent again until acknowledged
//!                   pipeban engine  one per host: jails -> firewall, syslog, store
//!                     | unix socket
//!                   pipeban status|ban|unban|...
//! ```
//!
//! # The map, in reading order
//!
//! Values and decisions: no file, socket, thread, clock or environment.
//! - [`record`]: a line into fields; which address is Apache's client field
//! - [`decode`]: a field into its canonical form, without the encodings that attackers use
//! - [`filter`]: filter files into patterns and rules; which lines match, and which client they hit
//! - [`jail`]: hits counted in time windows; which client is banned, for how long, and which never is
//! - [`config`]: text into checked configuration, every error with file, line and column
//! - [`report`]: the history of bans into answers (table, JSON, CSV, HTML), and why a client is banned
//! - [`migrate`]: fail2ban's configuration into pipeban's
//!
//! Edges: input and output, as plain as possible.
//! - [`sys`]: the only unsafe code
//! - [`disk`]: reads configuration files, for `config` and `filter`
//! - [`control`]: the messages between worker, keeper, engine and commands
//! - [`pipe`]: Apache's side: stub, keeper (reads and writes), worker (matches)
//! - [`firewall`]: the desired bans, the back ends that enforce them, sockets to cut, this host's addresses
//! - [`store`]: SQLite; the only module that knows SQL
//! - [`alert`]: syslog, the log file, and programs that run for bans
//! - [`metrics`]: counters for Prometheus, and the process without rights that serves them
//! - [`apache`]: reads Apache's configuration: which logs are piped, and which are not
//!
//! Conductors: join the two.
//! - [`engine`]: one loop that joins connections, decisions, enforcement and alarms; reads the clock
//! - [`cli`]: one file per command
//!
//! # Invariants
//!
//! - Edges use values, conductors use edges, never the other way.
//! - No line waits for matching, the engine, a firewall or the database; no line is lost by a
//!   process that ends, however it ends.
//! - A ban hits the address in Apache's client field and no other address in a line.
//! - `jail` never reads a clock: time is an argument.
//! - The worker, which reads the text of clients, is not root; the engine trusts no worker.

/// In place of the standard one, which ends the process when stderr cannot be written (a full disk),
/// and passes characters that a terminal obeys.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let text = $crate::record::display_lines(&format!($($text)*));
        let _ = writeln!(std::io::stderr(), "{text}");
    }};
}

pub mod config;
pub mod decode;
pub mod filter;
pub mod host_commands;
pub mod jail;
mod jail_name;
pub mod migrate;
mod nearest;
mod problem;
pub mod record;
pub mod report;

pub mod alert;
pub mod apache;
pub mod control;
pub mod disk;
pub mod firewall;
pub mod metrics;
pub mod pipe;
pub mod store;
pub mod sys;

pub mod cli;
pub mod engine;

#[cfg(test)]
#[path = "../tests/support/skip.rs"]
mod skip; // the one way to skip a test, for unit tests
