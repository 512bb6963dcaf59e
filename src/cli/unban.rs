//! `pipeban unban`

use ipnet::IpNet;

use super::Global;
use super::ask;
use super::exit::Exit;
use crate::config::JailName;
use crate::control::Command;
use crate::jail::BanId;

/// End bans
///
/// Lifts every ban of the address, of what lies in the network, and of the IPv6 prefix that the
/// address lies in; or, by its id, one ban alone; and starts the client's counters again at nothing. Exit status 1 when nobody
/// was banned there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban unban 203.0.113.9\n  \
    pipeban unban b17\n  \
    pipeban unban --all --jail apache-auth\n\n\
    To keep somebody from being banned again: pipeban allow ADDR")]
pub(super) struct Args {
    /// Address, network, or the id of one ban as `status` shows it (b17)
    #[arg(value_name = "ADDR", value_parser = whom, required_unless_present = "all")]
    whom: Option<Whom>,
    /// Everybody
    #[arg(long, conflicts_with = "whom")]
    all: bool,
    /// Only this jail's bans
    #[arg(long)]
    jail: Option<JailName>,
    /// Take the ban out of its history too: the next one is not longer because of it
    #[arg(long)]
    forget: bool,
}

/// Whose ban.
#[derive(Debug, Clone)]
enum Whom {
    Net(IpNet),
    Ban(BanId),
}

fn whom(text: &str) -> Result<Whom, String> {
    match text.parse() {
        Ok(id) => Ok(Whom::Ban(id)),
        Err(_) => ask::network(text).map(Whom::Net),
    }
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let (net, id) = match args.whom {
        Some(Whom::Net(net)) => (Some(net), None),
        Some(Whom::Ban(id)) => (None, Some(id.to_string())),
        None => (None, None),
    };
    let command = Command::Unban {
        net,
        id,
        jail: args.jail.clone(),
        forget: args.forget,
    };
    ask::run(global, &command)
}
