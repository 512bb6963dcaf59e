//! `pipeban allow`, `pipeban disallow`

use ipnet::IpNet;

use super::ask::{self, Length};
use super::exit::Exit;
use super::global::Global;
use crate::control::Command;

/// Never ban an address or a network
///
/// Takes effect at once and lifts bans of the address. The allow-list is in the engine's database;
/// put permanent exemptions of a jail in `ignoreip` of the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban allow 203.0.113.9 --for 7d --reason 'penetration test'\n  \
    pipeban allow --list")]
pub(super) struct Args {
    /// Address or network
    #[arg(value_name = "ADDR", value_parser = ask::network, required_unless_present = "list")]
    net: Option<IpNet>,
    /// Show the allow-list
    #[arg(long, conflicts_with_all = ["net", "length", "reason"])]
    list: bool,
    /// Duration: 10m, 1h 30m, 1w, seconds [default: until `pipeban disallow`]
    #[arg(long = "for", value_name = "TIME", value_parser = ask::length, allow_hyphen_values = true)]
    length: Option<Length>,
    /// Text that --list shows
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let command = match args.net {
        Some(net) => Command::Allow {
            net,
            seconds: args
                .length
                .and_then(|Length(length)| length)
                .map(|length| length.as_secs()),
            reason: args.reason.clone(),
        },
        None => Command::AllowList,
    };
    ask::run(global, &command)
}

/// Remove an address from the allow-list
///
/// pipeban can ban it from now on; hits from before do not count. Exit status 1: the list has no
/// such entry.
#[derive(Debug, clap::Args)]
pub(super) struct DisallowArgs {
    /// Address or network, as `pipeban allow --list` shows it
    #[arg(value_name = "ADDR", value_parser = ask::network)]
    net: IpNet,
}

pub(super) fn run_disallow(args: &DisallowArgs, global: &Global) -> Exit {
    ask::run(global, &Command::Disallow { net: args.net })
}
