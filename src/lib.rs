//! pipeban: the log pipe that bans.
//!
//! Apache starts `pipeban log` as a piped logger. Lines arrive on stdin the moment Apache writes
//! them and are written through, unchanged, to the normal log file; then worker threads match
//! them against jails. A client that breaks a jail's rule is banned within milliseconds: by an
//! own nftables table first, visible in ufw a moment later, told to syslog, kept across restarts.
//!
//! ```text
//! Apache --pipe--> pipeban log      one set per piped-log directive
//!                   stub   (root)   what Apache knows: exits on TERM, at once
//!                   keeper (root)   parses no line: holds stdin, opens files, restarts the worker
//!                   worker (none)   reads, writes through, matches whole lines
//!                     | unix socket: hits, numbered, acknowledged, sent again after a break
//!                   pipeban engine  one per host: jails -> firewall, syslog, store
//!                     | unix socket
//!                   pipeban status|ban|unban|...
//! ```
//!
//! # The map, in reading order
//!
//! Values and decisions: no file, socket, thread, clock or environment.
//! - [`record`]: a line into fields; which address is Apache's own word for the client
//! - [`filter`]: fail2ban's filter files into patterns; does this line match, and whom does it hit
//! - [`jail`]: hits counted in time windows; who is banned, for how long, and who never is
//! - [`config`]: text into checked configuration, every error with file, line and column
//!
//! Edges: input and output, as plain as possible.
//! - [`sys`]: the only unsafe code
//! - [`control`]: the messages between worker, keeper, engine and commands
//! - [`pipe`]: Apache's side: stub, keeper, reader, match threads, uplink
//! - [`firewall`]: nftables by netlink, the ufw mirror, cutting of sockets, the host's own addresses
//! - [`store`]: SQLite; the only module that knows SQL
//! - [`alert`]: syslog, the log file, and programs that are told of bans
//! - [`apache`]: reads Apache's configuration: which logs are piped, and which are not
//!
//! Conductors: join the two.
//! - [`engine`]: one loop that owns the jails, reads the clock and performs what they decide
//! - [`cli`]: one file per command
//!
//! # Invariants
//!
//! - Edges use values, conductors use edges, never the other way.
//! - No line waits for matching, the engine, a firewall or the database; no line is lost by a
//!   process that ends, however it ends.
//! - A ban hits the address of Apache's own client field and nothing else that stands in a line.
//! - `jail` never reads a clock: time is an argument.
//! - The worker that reads what strangers wrote is not root; the engine trusts no worker.

pub mod config;
pub mod filter;
pub mod jail;
pub mod record;

pub mod alert;
pub mod apache;
pub mod control;
pub mod firewall;
pub mod pipe;
pub mod store;
pub mod sys;

pub mod cli;
pub mod engine;
