//! `pipeban engine`

use super::Global;
use super::exit::Exit;

/// The engine, in the foreground
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, _global: &Global) -> Exit {
    eprintln!("pipeban: not there yet");
    Exit::Failed
}
