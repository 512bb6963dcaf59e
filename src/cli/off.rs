//! `pipeban off`, `pipeban on`

use std::io;

use jiff::Timestamp;

use super::ask::{self, Length};
use super::exit::Exit;
use super::global::Global;
use crate::config::Backend;
use crate::control::{AskError, Command};
use crate::disk;
use crate::engine;

/// Emergency stop: lift all bans and make no new ones
///
/// Log lines still pass and are counted. The stop lasts across restarts and reboots until
/// `pipeban on`, and works without a running engine. `pipeban on` restores the bans that are not
/// over by then; to drop them, run `pipeban unban --all` first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End the stop after this time: 10m, 1h 30m, seconds [default: until `pipeban on`]
    #[arg(long = "for", value_name = "TIME", value_parser = ask::length)]
    length: Option<Length>,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let length = args.length.and_then(|Length(length)| length);
    let seconds = length.map(|length| length.as_secs());
    match ask::ask(global, &Command::Off { seconds }) {
        Ok(reply) => ask::show(global, &reply),
        Err(error @ AskError::NotPermitted) => ask::fail(global, &error),
        Err(AskError::NotRunning) => without_engine(global, length),
        Err(error @ AskError::NoAnswer(_)) => {
            // The answer, perhaps JSON, follows.
            eprintln!(
                "pipeban: {}; pipeban lifts the bans without it",
                ask::explain(global, &error)
            );
            without_engine(global, length)
        }
    }
}

fn without_engine(global: &Global, length: Option<std::time::Duration>) -> Exit {
    let paths = disk::paths_of(&global.config);
    let off = engine::off::from_now(Timestamp::now(), length);
    if let Err(error) = engine::off::write(&paths, &off) {
        return failed(global, &paths.off_file(), &error);
    }
    let engine_state = if engine::is_held(&paths.state) {
        "the engine, which does not answer, notices within a second"
    } else {
        "no engine was running"
    };
    let in_use = engine::configuration_in_use(&global.config);
    // Only the engine knows the bans of the back end `command`.
    let by_command = in_use
        .as_ref()
        .is_some_and(|config| config.firewall.has(Backend::Command));
    let but = match by_command {
        true => "\nbut bans of the back end `command` stay until an engine starts and lifts them",
        false => "",
    };
    match engine::off::clear_firewall(in_use.as_ref()) {
        Ok(rules) => {
            if global.json {
                let json = serde_json::json!({
                    "off": off, "ufw_rules": rules, "command_bans_stay": by_command,
                });
                ask::print(&json.to_string());
            } else {
                ask::print(&format!(
                    "all bans are lifted: pipeban's nftables table is gone, {rules} ufw rules are \
                     removed; {engine_state}{but}"
                ));
            }
            Exit::Yes
        }
        Err(error) => {
            let text = format!("no new bans are made, but some bans are not lifted: {error}{but}");
            ask::complain(global, &text);
            Exit::Failed
        }
    }
}

/// End the emergency stop
///
/// Restores the bans that are not over.
#[derive(Debug, clap::Args)]
pub(super) struct OnArgs {}

pub(super) fn run_on(_args: &OnArgs, global: &Global) -> Exit {
    match ask::ask(global, &Command::On) {
        Ok(reply) => ask::show(global, &reply),
        Err(AskError::NotRunning) => {
            let paths = disk::paths_of(&global.config);
            match engine::off::remove(&paths) {
                Ok(true) => {
                    let text =
                        "the emergency stop is off; the engine restores the bans when it starts";
                    ask::answer(global, true, text)
                }
                Ok(false) => ask::answer(global, false, "the emergency stop is not on"),
                Err(error) => failed(global, &paths.off_file(), &error),
            }
        }
        Err(error) => ask::fail(global, &error),
    }
}

fn failed(global: &Global, path: &std::path::Path, error: &io::Error) -> Exit {
    ask::complain(global, &format!("{}: {error}", path.display()));
    if error.kind() == io::ErrorKind::PermissionDenied {
        Exit::NotPermitted
    } else {
        Exit::Failed
    }
}
