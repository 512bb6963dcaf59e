//! `pipeban engine`

use std::time::{Duration, Instant};

use super::Global;
use super::ask;
use super::exit::Exit;
use crate::config;
use crate::control::{AskError, Command, Reply};
use crate::engine::{self, Failure};

/// How long a stopping engine may take: a running ufw is not cut off in the middle of its files.
const PATIENCE: Duration = Duration::from_secs(30);

/// The engine, in the foreground
///
/// One per host: it decides about hits, owns the firewall entries and the database. systemd
/// starts it (`systemctl start pipeban`); where it does not run, loggers have it started. SIGTERM
/// ends it; bans stay in force.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End the running engine and wait until it is gone; bans stay in force
    #[arg(long)]
    stop: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    if args.stop {
        return stop(global);
    }
    match engine::run(&global.config) {
        Ok(()) => Exit::Yes,
        Err(Failure::Config(problems)) => {
            eprintln!(
                "{problems}\npipeban: no usable configuration, and no last good one: \
                 `pipeban check` shows every problem"
            );
            Exit::Config
        }
        Err(Failure::Cannot(text)) => {
            eprintln!("pipeban: {text}");
            Exit::Failed
        }
        Err(Failure::NotPermitted(text)) => {
            eprintln!("pipeban: {text}; the engine runs as root");
            Exit::NotPermitted
        }
    }
}

fn stop(global: &Global) -> Exit {
    let reply = match ask::ask(global, &Command::Stop) {
        Ok(reply) => reply,
        Err(AskError::NotRunning) => {
            return ask::answer(global, false, "the engine is not running");
        }
        Err(error) => {
            ask::complain(global, &ask::explain(global, &error));
            return ask::exit_of(&error);
        }
    };
    if matches!(reply, Reply::Done { .. }) {
        let lock = config::paths_of(&global.config).state.join("engine.lock");
        let start = Instant::now();
        while engine::is_held(&lock) {
            if start.elapsed() > PATIENCE {
                eprintln!("pipeban: the engine is still ending after 30 seconds");
                return Exit::Failed;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    ask::show(global, &reply)
}
