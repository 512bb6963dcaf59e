//! `pipeban ban`

use ipnet::IpNet;

use super::ask::{self, Length};
use super::exit::Exit;
use super::global::Global;
use crate::config::JailName;
use crate::control::{BanTime, Command};

/// Ban an address or a network
///
/// The ban is in force when the command returns, and lasts across restarts. pipeban refuses
/// addresses that it never bans (of this host, its gateways and name servers, trusted proxies,
/// ignoreip, the allow-list) and networks wider than /8 (IPv6: /19), and says why.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban ban 203.0.113.9\n  \
    pipeban ban 2001:db8:77::/48 --for 1w --reason 'scraper, mail of 3 May'")]
pub(super) struct Args {
    /// Address or network; host bits are masked
    #[arg(value_name = "ADDR", value_parser = ask::network)]
    net: IpNet,
    /// Ban with the ports and bantime of this jail [default: jail `manual`, from [defaults]]
    #[arg(long)]
    jail: Option<JailName>,
    /// Duration: 10m, 1h 30m, 1w, seconds, permanent [default: the jail's bantime]
    #[arg(long = "for", value_name = "TIME", value_parser = ask::length, allow_hyphen_values = true)]
    length: Option<Length>,
    /// Text that status and the log show
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let command = Command::Ban {
        net: args.net,
        jail: args.jail.clone(),
        bantime: match args.length {
            None => BanTime::Jail,
            Some(Length(Some(length))) => BanTime::Seconds(length.as_secs()),
            Some(Length(None)) => BanTime::ForEver,
        },
        reason: args.reason.clone(),
    };
    ask::run(global, &command)
}
