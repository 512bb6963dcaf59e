//! `pipeban off`, `pipeban on`

use std::io;

use jiff::Timestamp;

use super::Global;
use super::ask::{self, Length};
use super::exit::Exit;
use crate::config::{self, Backend};
use crate::control::{AskError, Command};
use crate::engine;

/// Emergency stop: lift every ban, ban nobody
///
/// Lines still pass and are counted. Survives restarts and reboots until `pipeban on`, and works
/// without a running engine. The bans are kept and their time runs on: `pipeban on` puts back
/// those that are not over; `pipeban unban --all` before that starts clean.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End by itself after: 10m, 1h 30m, seconds [default: until `pipeban on`]
    #[arg(long = "for", value_name = "TIME", value_parser = ask::length)]
    length: Option<Length>,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let length = args.length.and_then(|Length(length)| length);
    let seconds = length.map(|length| length.as_secs());
    match ask::ask(global, &Command::Off { seconds }) {
        Ok(reply) => ask::show(global, &reply),
        Err(error @ AskError::NotPermitted) => {
            ask::complain(global, &ask::explain(global, &error));
            Exit::NotPermitted
        }
        Err(AskError::NotRunning) => without_engine(global, length),
        Err(error @ AskError::NoAnswer(_)) => {
            // Not an answer yet: no JSON.
            eprintln!(
                "pipeban: {}; doing it without",
                ask::explain(global, &error)
            );
            without_engine(global, length)
        }
    }
}

fn without_engine(global: &Global, length: Option<std::time::Duration>) -> Exit {
    let paths = config::paths_of(&global.config);
    let off = engine::off::from_now(Timestamp::now(), length);
    if let Err(error) = engine::off::write(&paths, &off) {
        return failed(global, &paths.off_file(), &error);
    }
    let whose = if engine::is_held(&paths.state.join("engine.lock")) {
        "an engine that could not be asked sees it within a second"
    } else {
        "no engine was running"
    };
    let in_use = engine::configuration_in_use(&global.config);
    // Only the engine knows whom it gave to a program.
    let by_command = in_use
        .as_ref()
        .is_some_and(|config| config.firewall.has(Backend::Command));
    let but = match by_command {
        true => {
            "\nbut bans of the back end `command` stay until an engine starts: it lifts them first"
        }
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
                    "nobody is banned any more: the own table and {rules} ufw rules are gone; \
                     {whose}{but}"
                ));
            }
            Exit::Yes
        }
        Err(error) => {
            let text =
                format!("nobody new is banned, but not everything could be lifted: {error}{but}");
            ask::complain(global, &text);
            Exit::Failed
        }
    }
}

/// End the emergency stop
///
/// Puts back the bans whose time is not over.
#[derive(Debug, clap::Args)]
pub(super) struct OnArgs {}

pub(super) fn run_on(_args: &OnArgs, global: &Global) -> Exit {
    match ask::ask(global, &Command::On) {
        Ok(reply) => ask::show(global, &reply),
        Err(AskError::NotRunning) => {
            let paths = config::paths_of(&global.config);
            match engine::off::remove(&paths) {
                Ok(true) => {
                    let text = "the emergency stop is over; bans are back when the engine starts";
                    ask::answer(global, true, text)
                }
                Ok(false) => ask::answer(global, false, "the emergency stop is not on"),
                Err(error) => failed(global, &paths.off_file(), &error),
            }
        }
        Err(error) => {
            ask::complain(global, &ask::explain(global, &error));
            ask::exit_of(&error)
        }
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
