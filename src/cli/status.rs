//! `pipeban status`

mod all;
mod cause;
mod text;
mod view;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::ask::{self, print};
use super::exit::Exit;
use super::explain;
use super::global::Global;
use crate::apache;
use crate::config::JailName;
use crate::control::{Command, Reply, Status};
use crate::disk;
use crate::engine;
use crate::metrics;
pub(super) use cause::cause;
pub(super) use text::without_bans;
use view::View;
#[cfg(test)]
pub(super) use view::tests::busy_host;
pub(super) use view::{in_force, left};

/// How long `status` prints nothing while the engine does not answer.
const QUIET: Duration = Duration::from_secs(1);

/// Clients in the overview: those banned last.
const IN_OVERVIEW: usize = 50;

/// Show who is banned and why, and what is wrong
///
/// Problems come first, then the 50 clients banned last, the workers, and the jails that have counted
/// something. "In force" says whether the kernel has the ban, whatever ufw says.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban status\n  \
    pipeban status apache-auth --all\n  \
    pipeban status --json | jq '.jails[].banned[].host'")]
pub(super) struct Args {
    /// Show only this jail; an address or a network is answered as by `pipeban explain`
    #[arg(value_name = "JAIL|ADDR")]
    shown: Option<Shown>,
    /// Show every ban, by address
    #[arg(long)]
    all: bool,
    /// Show also ids, ufw's rules, healthy workers, idle jails and every cause
    #[arg(long, short)]
    verbose: bool,
    /// Print metrics in Prometheus's text format, for node_exporter's textfile collector
    #[arg(long, conflicts_with_all = ["shown", "all", "verbose"])]
    prometheus: bool,
}

/// What a status is about.
#[derive(Debug, Clone)]
enum Shown {
    Jail(JailName),
    Client(IpNet),
}

impl std::str::FromStr for Shown {
    type Err = String;

    fn from_str(text: &str) -> Result<Shown, String> {
        match ask::network(text) {
            Ok(net) => Ok(Shown::Client(net)),
            Err(_) => JailName::try_from(text.to_owned()).map(Shown::Jail),
        }
    }
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let jail = match &args.shown {
        Some(Shown::Client(net)) => return explain::of(*net, global),
        Some(Shown::Jail(jail)) => Some(jail),
        None => None,
    };
    let newest = match (global.json, args.all || args.prometheus) {
        (true, _) => all::AT_ONCE,
        (false, true) => 0,
        (false, false) => IN_OVERVIEW,
    };
    let mut status = match ask(jail.cloned(), newest, global) {
        Ok(status) => status,
        Err(exit) => return exit,
    };
    // A host without Apache's configuration has no logs to name.
    if let Ok(scan) = apache::scan(None) {
        let alarms = match args.verbose {
            true => scan.warnings(),
            false => scan.alarms(),
        };
        status.warnings.extend(alarms);
    }
    if args.prometheus {
        print(metrics::text(&status).trim_end());
        return Exit::Yes;
    }
    if global.json {
        return all::json(*status, global);
    }
    let view = View {
        width: text::width(),
        verbose: args.verbose,
        one_jail: jail.is_some(),
        now: Timestamp::now(),
        zone: TimeZone::system(),
    };
    let (problems, bans, rest) = view.parts(&status);
    if !problems.is_empty() {
        print(&(problems + "\n"));
    }
    if args.all {
        if let Err(exit) = all::text(jail, &view, global) {
            return exit;
        }
    } else {
        print(&bans);
    }
    print(&format!("\n{rest}"));
    Exit::Yes
}

/// Asks the engine; what is wrong is printed.
fn ask(jail: Option<JailName>, newest: usize, global: &Global) -> Result<Box<Status>, Exit> {
    // A jail can have such a name, too.
    let may_be_host = jail
        .as_ref()
        .is_some_and(|jail| jail.as_str().contains('.'));
    let answer = thread::scope(|scope| {
        let (answered, wait) = mpsc::channel::<()>();
        scope.spawn(move || {
            if wait.recv_timeout(QUIET) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!(
                    "pipeban: waiting for the engine, which is busy; without it, `pipeban doctor`, \
                     `pipeban explain` and `pipeban report` answer"
                );
            }
        });
        let answer = ask::ask(global, &Command::Status { jail, newest });
        drop(answered);
        answer
    });
    match answer {
        Ok(Reply::Status(status)) => Ok(status),
        Ok(Reply::Refused { exit, text }) if may_be_host => {
            let text = format!("{text}; names of hosts are not looked up: give the address");
            Err(ask::show(global, &Reply::Refused { exit, text }))
        }
        Ok(reply) => Err(ask::show(global, &reply)),
        Err(error) => {
            if is_off(global) {
                eprintln!("! not banning at all: the emergency stop is on; `pipeban on` ends it");
            }
            Err(ask::fail(global, &error))
        }
    }
}

/// Whether the emergency stop is on, as far as this user can read that.
fn is_off(global: &Global) -> bool {
    let paths = disk::paths_of(&global.config);
    paths.off_file().exists() && engine::off::read(&paths, Timestamp::now()).is_some()
}
