//! `pipeban off`

use super::Global;
use super::exit::Exit;

/// Emergency stop: lift every ban, ban nobody
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, _global: &Global) -> Exit {
    eprintln!("pipeban: not there yet");
    Exit::Failed
}
/// End the emergency stop
#[derive(Debug, clap::Args)]
pub(super) struct OnArgs {}

pub(super) fn run_on(_args: &OnArgs, _global: &Global) -> Exit {
    eprintln!("pipeban: not there yet");
    Exit::Failed
}
