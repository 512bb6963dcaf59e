//! `pipeban setup`

use super::Global;
use super::exit::Exit;

/// Fit pipeban into this host's Apache
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, _global: &Global) -> Exit {
    eprintln!("pipeban: not there yet");
    Exit::Failed
}
