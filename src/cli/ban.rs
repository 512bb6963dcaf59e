//! `pipeban ban`

use super::Global;
use super::exit::Exit;

/// Ban an address or a network
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, _global: &Global) -> Exit {
    eprintln!("pipeban: not there yet");
    Exit::Failed
}
