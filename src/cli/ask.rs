//! One question to the engine, from a command.

use std::io::Write;
use std::time::Duration;

use ipnet::IpNet;

use super::Global;
use super::exit::Exit;
use crate::config::{self, duration};
use crate::control::{self, AskError, Command, Reply};
use crate::jail::canonical;

/// A reload checks every pattern; everything else is answered in milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks, prints the answer, says how it ended.
pub(super) fn run(global: &Global, command: &Command) -> Exit {
    match ask(global, command) {
        Ok(reply) => show(global, &reply),
        Err(error) => {
            complain(global, &explain(global, &error));
            exit_of(&error)
        }
    }
}

/// Asks the engine of this configuration.
pub(super) fn ask(global: &Global, command: &Command) -> Result<Reply, AskError> {
    let socket = config::paths_of(&global.config).socket();
    control::ask(&socket, command, PATIENCE)
}

/// What to do when there is no answer.
pub(super) fn explain(global: &Global, error: &AskError) -> String {
    let socket = config::paths_of(&global.config).socket();
    let socket = socket.display();
    match error {
        AskError::NotRunning => format!(
            "the engine is not running (nobody at {socket}): start it with `systemctl start \
             pipeban`, or `pipeban engine` in the foreground"
        ),
        AskError::NotPermitted => format!("not permitted to ask at {socket}: try `sudo`"),
        AskError::NoAnswer(error) => format!("no answer from the engine at {socket}: {error}"),
    }
}

/// How such a command ends.
pub(super) fn exit_of(error: &AskError) -> Exit {
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
        | Reply::Ack { .. }
        | Reply::Bans { .. }
        | Reply::Taken { .. }
        | Reply::Status(_) => {
            eprintln!("pipeban: the engine gave an answer to another question");
            Exit::Failed
        }
    }
}

/// Says why something was not done; with `--json` also as an object.
pub(super) fn complain(global: &Global, text: &str) {
    if global.json {
        print(&serde_json::json!({"done": false, "text": text}).to_string());
    }
    eprintln!("pipeban: {text}");
}

/// Says that something was done, or what the answer is.
pub(super) fn answer(global: &Global, yes: bool, text: &str) -> Exit {
    let reply = Reply::Done {
        text: text.to_owned(),
        json: Vec::new(),
        yes,
    };
    show(global, &reply)
}

/// A line to stdout. Nobody reading it is no error.
pub(super) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// An address or a network; host bits are masked, `::ffff:192.0.2.7` is 192.0.2.7.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    net.map(canonical).map_err(|_| {
        "neither an address nor a network: 203.0.113.9, 2001:db8::7, 203.0.113.0/24; names are \
         not looked up"
            .into()
    })
}

/// A duration as in the configuration; `permanent` and -1 are for ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length(pub(super) Option<Duration>);

pub(super) fn length(text: &str) -> Result<Length, String> {
    match duration::parse(text)? {
        Some(Duration::ZERO) => Err("nothing lasts no time".into()),
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
