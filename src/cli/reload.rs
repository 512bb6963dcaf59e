//! `pipeban reload`

use super::Global;
use super::ask;
use super::exit::Exit;
use crate::control::Command;

/// Read the configuration again
///
/// Engine and workers take the files into use, without a restart of Apache; bans and counters
/// stay. A broken configuration is refused with its problems (exit status 78), and the old one
/// stays in use. [paths] and [firewall] take effect when the engine is restarted.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, global: &Global) -> Exit {
    ask::run(global, &Command::Reload)
}
