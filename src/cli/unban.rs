//! `pipeban unban`

use ipnet::IpNet;

use super::ask;
use super::exit::Exit;
use super::global::Global;
use crate::config::JailName;
use crate::control::Command;
use crate::jail::BanId;

/// End bans
///
/// Lifts every ban of the address, of any address in the network, and of the IPv6 prefix that
/// contains the address; or one ban by its id. Resets the client's counters. Exit status 1: there
/// was no such ban.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban unban 203.0.113.9 2001:db8::7\n  \
    pipeban unban b17\n  \
    pipeban unban --all --jail apache-auth\n\n\
    To never ban a client again: pipeban allow ADDR")]
pub(super) struct Args {
    /// Addresses, networks, or the ids of single bans as `status` shows them (b17)
    #[arg(value_name = "ADDR", value_parser = target, required_unless_present = "all")]
    targets: Vec<Target>,
    /// All bans
    #[arg(long, conflicts_with = "targets")]
    all: bool,
    /// Only this jail's bans
    #[arg(long)]
    jail: Option<JailName>,
    /// Remove the ban from the history too, so that it does not make the next one longer
    #[arg(long)]
    forget: bool,
}

#[derive(Debug, Clone)]
enum Target {
    Net(IpNet),
    Ban(BanId),
}

fn target(text: &str) -> Result<Target, String> {
    match text.parse() {
        Ok(id) => Ok(Target::Ban(id)),
        Err(_) => ask::network(text).map(Target::Net),
    }
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    if args.all {
        return unban((None, None), args, global);
    }
    let each = args.targets.iter().map(|target| match target {
        Target::Net(net) => unban((Some(*net), None), args, global),
        Target::Ban(id) => unban((None, Some(id.to_string())), args, global),
    });
    // The first that failed.
    let failed = each.fold(None, |failed, exit| match exit {
        Exit::Yes => failed,
        exit => failed.or(Some(exit)),
    });
    failed.unwrap_or(Exit::Yes)
}

fn unban((net, id): (Option<IpNet>, Option<String>), args: &Args, global: &Global) -> Exit {
    let command = Command::Unban {
        net,
        id,
        jail: args.jail.clone(),
        forget: args.forget,
    };
    ask::run(global, &command)
}
