//! Runs a firewall's own program, or the administrator's.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::Error;
use crate::sys::program;

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
    program::run(program, argv, input, patience, &|| false).map_err(|failure| Error::Tool {
        command: format!("{program} {}", argv.join(" ")),
        said: failure.to_string(),
    })
}
