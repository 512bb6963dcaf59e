//! `pipeban allow`

use super::Global;
use super::exit::Exit;

/// Never ban an address or a network
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, _global: &Global) -> Exit {
    eprintln!("pipeban: not there yet");
    Exit::Failed
}
/// Take an address off the allow-list
#[derive(Debug, clap::Args)]
pub(super) struct DisallowArgs {}

pub(super) fn run_disallow(_args: &DisallowArgs, _global: &Global) -> Exit {
    eprintln!("pipeban: not there yet");
    Exit::Failed
}
