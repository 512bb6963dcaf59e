//! `pipeban check`

use super::Global;
use super::exit::Exit;

/// Check configuration and filters
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, _global: &Global) -> Exit {
    eprintln!("pipeban: not there yet");
    Exit::Failed
}
