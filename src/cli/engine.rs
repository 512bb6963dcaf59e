//! `pipeban engine`

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use super::ask;
use super::exit::Exit;
use super::global::Global;
use crate::control::{AskError, Command, Reply};
use crate::disk;
use crate::engine::{self, Failure};

/// How long the engine may take to stop: it waits for a running ufw.
const PATIENCE: Duration = Duration::from_secs(30);

/// Run the engine in the foreground
///
/// One engine runs per host. It decides about bans, and owns the firewall entries and the
/// database. systemd starts it (`systemctl start pipeban`), or a logger if it does not run.
/// On a terminal it prints its log lines there too. SIGTERM ends it; bans stay in force.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Stop the running engine and wait until it has ended; bans stay in force
    #[arg(long)]
    stop: bool,
    /// Remove the ufw rules and Apache's denials whose ban is over, for a host without an engine
    #[arg(long, conflicts_with = "stop")]
    clear_over: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    if args.stop {
        return stop(global);
    }
    if args.clear_over {
        return clear_over(global);
    }
    let echo = std::io::stderr().is_terminal();
    match engine::run(&global.config, echo) {
        Ok(()) => Exit::Yes,
        Err(Failure::Config(problems)) => {
            eprintln!(
                "{problems}\npipeban: the configuration is broken, and there is no last good one: \
                 `pipeban check` shows every problem"
            );
            Exit::Config
        }
        Err(Failure::Second(text) | Failure::Cannot(text)) => {
            eprintln!("pipeban: {text}");
            Exit::Failed
        }
        Err(Failure::NotPermitted(text)) => {
            eprintln!("pipeban: {text} (run the engine as root)");
            Exit::NotPermitted
        }
    }
}

fn clear_over(global: &Global) -> Exit {
    let config = engine::configuration_in_use(&global.config);
    match engine::off::clear_over(config.as_ref()) {
        Ok(count) => ask::answer(global, true, &format!("removed {count} bans that are over")),
        Err(error) => {
            let text = format!("cannot remove all bans that are over: {error}");
            ask::complain(global, &text);
            Exit::Failed
        }
    }
}

fn stop(global: &Global) -> Exit {
    let state = disk::paths_of(&global.config).state;
    let lock = state.join("engine.lock");
    // It holds the engine's process id; keepers may start the next engine at once.
    let holder = || std::fs::read_to_string(&lock).unwrap_or_default();
    let before = holder();
    let reply = match ask::ask(global, &Command::Stop) {
        Ok(reply) => reply,
        Err(AskError::NotRunning) => {
            return ask::answer(global, false, "the engine is not running");
        }
        Err(error) => return ask::fail(global, &error),
    };
    if matches!(reply, Reply::Done { .. }) {
        let start = Instant::now();
        while engine::is_held(&state) && holder() == before {
            if start.elapsed() > PATIENCE {
                eprintln!("pipeban: the engine still runs after 30 seconds");
                return Exit::Failed;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    ask::show(global, &reply)
}
