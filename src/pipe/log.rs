//! What a piped logger is started for, and what its processes share.

use std::path::Path;

use nix::sys::signal::Signal;

use super::output::Output;
use crate::record::Kind;

/// Signals that all processes here ignore; SIGTERM ends the stub only.
pub(super) const IGNORED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGPIPE,
    Signal::SIGXFSZ,
];

/// First argument of the worker's process. The keeper starts it; it is not a command for users.
pub const WORKER: &str = "worker";
/// Exit status of keeper and worker: everything is done.
pub(super) const END_OF_INPUT: i32 = 0;
/// Exit status of keeper and worker: another one is to be started.
pub(super) const FAILED: i32 = 2;

/// What a piped logger is started for.
#[derive(Debug, Clone)]
pub struct Log {
    /// Which of Apache's logs the lines are from.
    pub kind: Kind,
    /// See [`crate::record::Parser::new`]; `None`: unknown, so lines are not matched.
    pub format: Option<String>,
    /// Where lines go; `None`: they are only matched.
    pub output: Option<Output>,
    /// Errors of the command line, for syslog.
    pub refused: Vec<String>,
    /// Lines are only passed through: not matched, and no engine gets to know of them.
    pub pass_only: bool,
}

impl Log {
    pub(super) fn path(&self) -> Option<&Path> {
        self.output.as_ref().map(Output::shown)
    }
}
