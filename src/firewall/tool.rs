//! Runs a firewall's own program, or the administrator's.
#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use super::backend::Error;
pub(super) use crate::sys::program::start;
use crate::sys::program::{self, Failure, Started};

/// Runs to the end and gives what was printed on both outputs: see [`program::run`].
///
/// # Errors
/// It could not be started, took longer than `patience` (it is killed then, with its children),
/// or its exit status was not 0.
pub(super) fn run(program: &str, argv: &[String], patience: Duration) -> Result<String, Error> {
    run_with_input(program, argv, String::new(), patience)
}

/// The same, with something to read for it.
pub(super) fn run_with_input(
    program: &str,
    argv: &[String],
    input: String,
    patience: Duration,
) -> Result<String, Error> {
    let ran = program::run(program, argv, input, patience, &|| false);
    ran.map_err(|failure| failed(program, argv, &failure))
}

/// Waits for what was started (or was not) by these words; errors are those of [`run`].
pub(super) fn finish(
    program: &str,
    argv: &[String],
    started: io::Result<Started>,
    patience: Duration,
) -> Result<String, Error> {
    let started = started.map_err(Failure::Start);
    started
        .and_then(|started| program::finish(started, patience, &|| false))
        .map_err(|failure| failed(program, argv, &failure))
}

fn failed(program: &str, argv: &[String], failure: &Failure) -> Error {
    Error::Tool {
        command: format!("{program} {}", argv.join(" ")),
        said: failure.to_string(),
    }
}
