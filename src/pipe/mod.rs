//! Apache's side: `pipeban log`.
//!
//! ```text
//! stub    what Apache knows; exits on TERM, at once; makes ring and private pipe; starts keepers
//! keeper  holds the pipe and its lock, opens the log file, asks the engine for the configuration,
//!         has an engine started, starts workers
//! worker  reader thread: pipe -> (tee) -> ring -> writer thread -> log file; then out of the pipe
//!         match threads: block -> hits; uplink thread: hits -> engine
//! ```
//!
//! Where lines go: `names` says which file at which time, `logfile` (in the keeper) looks whether it
//! is the one that is open, `opening` opens it, `destination` (in the worker) goes over to it at
//! the end of a line.
//!
//! Each of them may be killed at any moment:
//! - worker: its keeper starts another one, which finds in the ring and in the private pipe how
//!   far each block got. At most the block in flight is written twice, or torn once.
//! - keeper: its worker reads on; the stub starts another keeper, which waits for the lock; the
//!   worker sees that, stops between two blocks, and the new keeper's worker goes on.
//! - stub: keeper and worker read to the end of input.
#![forbid(unsafe_code)]

mod books;
mod crashes;
mod destination;
mod engine_link;
mod family;
mod keeper;
mod link;
mod logfile;
mod matching;
mod names;
mod opening;
mod output;
mod reader;
mod reading;
mod ring;
mod source;
mod stub;
mod tell;
mod uplink;
mod worker;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::record::Kind;
pub use names::{FIELDS, Names, Rotation};
pub use output::{FILE_MODE, Output, To};

/// Signals that end nobody here; SIGTERM ends the stub alone.
const IGNORED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGPIPE,
    Signal::SIGXFSZ,
];

/// What a piped logger is started for.
#[derive(Debug, Clone)]
pub struct Log {
    /// Which of Apache's logs comes in.
    pub kind: Kind,
    /// See [`crate::record::Parser::new`]; `None`: not understood, so nothing is matched.
    pub format: Option<String>,
    /// Where lines go; `None`: only to the matcher.
    pub output: Option<Output>,
    /// What the command line asks for and is not done: told by syslog.
    pub refused: Vec<String>,
}

impl Log {
    /// Where lines go, as the operator knows it.
    fn path(&self) -> Option<&Path> {
        self.output.as_ref().map(Output::shown)
    }
}

/// Passes stdin on and has it matched, until the end of input. `config` is the configuration file.
/// Whatever is broken (configuration, engine, log file): lines are read, and it is told by syslog.
///
/// To be called in a process with one thread.
pub fn run(log: Log, config: PathBuf) {
    let log = Log {
        output: log.output.map(Output::absolute),
        ..log
    };
    // Remembered now: later the file may have been replaced.
    let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/pipeban"));
    let starter = engine_link::Starter {
        exe,
        config_file: stub::absolute(config),
    };
    stub::run(log, starter);
}

/// Reads stdin to its end and drops it: what a logger with an unusable command line does, because
/// Apache hangs with a logger that ends. A terminal is not read.
pub fn drop_stdin() {
    let mut stdin = std::io::stdin();
    if !std::io::IsTerminal::is_terminal(&stdin) {
        // An error is an end too.
        let _ = std::io::copy(&mut stdin, &mut std::io::sink());
    }
}
