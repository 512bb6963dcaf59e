//! `pipeban doctor`: the chain from Apache's log to the firewall, link by link.
//!
//! - `host`: what the links look at, gathered once
//! - `links`: every link with its probe, in the order of a line's way; `outcome`: what one finds
//! - `apache`, `engine`, `firewall`, `system`, `proof`: the probes

mod apache;
mod engine;
mod firewall;
mod host;
mod links;
mod outcome;
mod processes;
mod proof;
mod system;

use serde_json::json;

use super::ask;
use super::exit::Exit;
use super::global::Global;
use host::Host;
use links::LINKS;
use outcome::{Outcome, Verdict};

/// Check the whole chain on this host, link by link, and show what repairs it
///
/// Each link is ok, a warning, or broken; what is not ok comes with the command that repairs it. The
/// last link is a proof: an address that belongs to no client is banned for a moment, the firewall is
/// asked for it, and it is unbanned. Run it as root; other users cannot see every link. Nothing
/// changes.
///
/// The status is 0 if nothing is broken, 1 if a link is broken, and 2 if the configuration of pipeban
/// or of Apache cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sudo pipeban doctor\n  \
    sudo pipeban doctor --json | jq 'select(.verdict != \"ok\")'")]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, global: &Global) -> Exit {
    let host = match Host::gather(global) {
        Ok(host) => host,
        Err(text) => {
            ask::complain(global, &text);
            return Exit::Failed;
        }
    };
    let mut broken = false;
    for link in LINKS {
        for outcome in (link.probe)(&host) {
            broken |= outcome.verdict == Verdict::Broken;
            show(global, link.name, &outcome);
        }
    }
    if broken { Exit::No } else { Exit::Yes }
}

/// Columns of the verdict and of the name.
const VERDICT: usize = 8;
const NAME: usize = 14;

fn show(global: &Global, link: &str, outcome: &Outcome) {
    let Outcome { verdict, text, fix } = outcome;
    if global.json {
        let object = json!({"link": link, "verdict": verdict.word(), "text": text, "fix": fix});
        return ask::print(&object.to_string());
    }
    ask::print(&format!("{:VERDICT$} {link:NAME$} {text}", verdict.word()));
    if let Some(fix) = fix {
        ask::print(&format!("{:VERDICT$} {:NAME$} fix: {fix}", "", ""));
    }
}
