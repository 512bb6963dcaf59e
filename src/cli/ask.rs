//! How a command asks the engine, prints the answer and ends.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::exit::Exit;
use super::global::Global;
use crate::config::duration;
use crate::control::{self, AskError, Command, Reply};
use crate::disk;
use crate::jail::canonical;
use crate::record::{display_json, display_lines};
use crate::sys::systemd;

/// A reload checks every pattern; other answers take milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a command to the engine and prints the answer.
pub(super) fn run(global: &Global, command: &Command) -> Exit {
    match ask(global, command) {
        Ok(reply) => show(global, &reply),
        Err(error) => fail(global, &error),
    }
}

/// Sends a command to the engine of this configuration.
pub(super) fn ask(global: &Global, command: &Command) -> Result<Reply, AskError> {
    let socket = disk::paths_of(&global.config).socket();
    control::ask(&socket, command, PATIENCE)
}

/// Why there is no answer, and what to do.
pub(super) fn explain(global: &Global, error: &AskError) -> String {
    let socket = disk::paths_of(&global.config).socket();
    let socket = socket.display();
    match error {
        AskError::NotRunning => format!(
            "the engine is not running (no process listens at {socket}): start it with `{}`, or \
             `pipeban engine` in the foreground",
            systemd::commands().start_engine
        ),
        AskError::NotPermitted => format!(
            "no permission to use {socket}: run this as root (`sudo`); members of the group `adm` may \
             run the commands that only read"
        ),
        AskError::NoAnswer(error) => format!("no answer from the engine at {socket}: {error}"),
    }
}

/// Prints why there is no answer.
pub(super) fn fail(global: &Global, error: &AskError) -> Exit {
    complain(global, &explain(global, error));
    match error {
        AskError::NotPermitted => Exit::NotPermitted,
        AskError::NotRunning | AskError::NoAnswer(_) => Exit::Failed,
    }
}

/// Prints an answer.
pub(super) fn show(global: &Global, reply: &Reply) -> Exit {
    match reply {
        Reply::Done { text, json, yes } => {
            if global.json {
                for object in json {
                    print(&object.to_string());
                }
                if json.is_empty() {
                    print(&serde_json::json!({"done": yes, "text": text}).to_string());
                }
            } else if !text.is_empty() {
                print(text);
            }
            if *yes { Exit::Yes } else { Exit::No }
        }
        Reply::Refused { exit, text } => {
            complain(global, text);
            match exit {
                1 => Exit::No,
                64 => Exit::Usage,
                77 => Exit::NotPermitted,
                78 => Exit::Config,
                _ => Exit::Failed,
            }
        }
        Reply::Welcome { .. }
        | Reply::Config { .. }
        | Reply::Watch { .. }
        | Reply::Ack { .. }
        | Reply::Bans { .. }
        | Reply::Taken { .. }
        | Reply::Status(_)
        | Reply::StatusPage { .. }
        | Reply::Known(_) => {
            eprintln!("pipeban: the engine sent an unexpected answer");
            Exit::Failed
        }
    }
}

/// Prints why something was not done; with `--json` also as an object.
pub(super) fn complain(global: &Global, text: &str) {
    if global.json {
        print(&serde_json::json!({"done": false, "text": text}).to_string());
    }
    eprintln!("pipeban: {text}");
}

/// Prints an answer without the engine.
pub(super) fn answer(global: &Global, yes: bool, text: &str) -> Exit {
    let reply = Reply::Done {
        text: text.to_owned(),
        json: Vec::new(),
        yes,
    };
    show(global, &reply)
}

/// Prints text or JSON to stdout, without characters that a terminal would obey. A closed pipe is
/// no error.
pub(super) fn print(text: &str) {
    let shown = match text.starts_with('{') {
        true => display_json(text),
        false => display_lines(text),
    };
    let _ = writeln!(std::io::stdout(), "{shown}");
}

/// Prints an object with `--json`, and the text without it.
pub(super) fn print_one(global: &Global, object: &Value, text: impl Display) {
    print(&match global.json {
        true => object.to_string(),
        false => text.to_string(),
    });
}

/// An address or a network; host bits are masked, `::ffff:192.0.2.7` is 192.0.2.7.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    net.map(canonical).map_err(|_| {
        "neither an address nor a network (like 203.0.113.9, 2001:db8::7 or 203.0.113.0/24); host \
         names are not resolved"
            .into()
    })
}

/// A duration as in the configuration; `permanent` and -1 are for ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length(pub(super) Option<Duration>);

pub(super) fn length(text: &str) -> Result<Length, String> {
    match duration::parse(text)? {
        Some(Duration::ZERO) => Err("the duration must be greater than zero".into()),
        length => Ok(Length(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_masked_and_unmapped() {
        for (text, net) in [
            ("203.0.113.9", "203.0.113.9/32"),
            ("203.0.113.9/24", "203.0.113.0/24"),
            ("2001:db8::7", "2001:db8::7/128"),
            ("2001:db8::7/64", "2001:db8::/64"),
            ("::ffff:203.0.113.9", "203.0.113.9/32"),
            ("::ffff:203.0.113.9/120", "203.0.113.0/24"),
        ] {
            assert_eq!(network(text).map(|net| net.to_string()), Ok(net.into()));
        }
        for text in [
            "",
            "example.org",
            "203.0.113.9/33",
            "203.0.113",
            "[::1]",
            "1.2.3.4;x",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
