//! `pipeban reload`

use super::ask;
use super::exit::Exit;
use super::global::Global;
use crate::control::Command;

/// Read the configuration again
///
/// The engine and the workers use the new files without a restart of Apache; bans and counters
/// stay. A broken configuration is refused with a list of its problems (exit status 78), and the old
/// one stays in use. [paths] and [firewall] take effect after a restart of the engine.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, global: &Global) -> Exit {
    ask::run(global, &Command::Reload)
}
