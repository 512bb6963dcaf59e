//! `pipeban unban`

use ipnet::IpNet;

use super::Global;
use super::ask;
use super::exit::Exit;
use crate::config::JailName;
use crate::control::Command;

/// End bans
///
/// Lifts every ban of the address, of what lies in the network, and of the IPv6 prefix that the
/// address lies in; and starts the client's counters again at nothing. Exit status 1 when nobody
/// was banned there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban unban 203.0.113.9\n  \
    pipeban unban --all --jail apache-auth\n\n\
    To keep somebody from being banned again: pipeban allow ADDR")]
pub(super) struct Args {
    /// Address or network
    #[arg(value_name = "ADDR", value_parser = ask::network, required_unless_present = "all")]
    net: Option<IpNet>,
    /// Everybody
    #[arg(long, conflicts_with = "net")]
    all: bool,
    /// Only this jail's bans
    #[arg(long)]
    jail: Option<JailName>,
    /// Take the ban out of its history too: the next one is not longer because of it
    #[arg(long)]
    forget: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let command = Command::Unban {
        net: args.net,
        jail: args.jail.clone(),
        forget: args.forget,
    };
    ask::run(global, &command)
}
