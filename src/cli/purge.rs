//! `pipeban purge`

use ipnet::IpNet;

use super::ask;
use super::exit::Exit;
use super::global::Global;
use crate::control::Command;

/// Delete what the database keeps of a client: its bans that have ended, and evidence
///
/// Its next ban is not longer for earlier ones. Active bans stay: lift them first, with `pipeban
/// unban ADDR`. Lines of syslog and of the log files stay. Needs a running engine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  pipeban unban 203.0.113.9 && pipeban purge 203.0.113.9

The key `keep` in [store] says how long everything else is kept.")]
pub(super) struct Args {
    /// Address or network
    #[arg(value_name = "ADDR", value_parser = ask::network)]
    net: IpNet,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    ask::run(global, &Command::Purge { net: args.net })
}
