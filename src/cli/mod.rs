//! The command line: one file per command.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod exit;

mod allow;
mod ask;
mod ban;
mod check;
mod engine;
mod fail2ban;
mod hooks;
mod log;
mod off;
mod problems;
mod reload;
mod setup;
mod status;
mod test;
mod unban;

use crate::config::DEFAULT_FILE;
use exit::Exit;

/// Options of every command stand behind a command's own in its help.
const LAST: usize = 900;

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_FILE, display_order = LAST)]
    config: PathBuf,
    /// Print JSON, one object per line
    #[arg(long, global = true, display_order = LAST)]
    json: bool,
}

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pipeban",
    version,
    about = "The log pipe that bans: Apache pipes its logs in, attackers are out within milliseconds",
    after_help = AFTER_HELP,
    after_long_help = after_long_help(),
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Most used:
  pipeban status                        who is banned, by which jail, and what is wrong
  pipeban unban 192.0.2.7               let a client in again
  pipeban test --jail JAIL access.log   which lines a jail would count

`pipeban COMMAND --help` tells more about each, pipeban(8) everything.";

fn after_long_help() -> String {
    use std::fmt::Write as _;
    let mut text = format!("{AFTER_HELP}\n\nExit status:\n");
    for (exit, meaning) in Exit::ALL {
        let _ = writeln!(text, "  {:<4}{meaning}", exit as u8);
    }
    text + "\nFiles:\n  \
        /etc/pipeban/pipeban.toml     configuration; conf.d/*.toml beside it comes after\n  \
        /etc/pipeban/filters.d        own filters\n  \
        /usr/share/pipeban            shipped jails and filters, examples\n  \
        /var/lib/pipeban              database, last good configuration\n  \
        /var/log/pipeban.log          what syslog is told, too"
}

#[derive(Debug, Subcommand)]
enum Command {
    Log(log::Args),
    Engine(engine::Args),
    Status(status::Args),
    Ban(ban::Args),
    Unban(unban::Args),
    Allow(allow::Args),
    Disallow(allow::DisallowArgs),
    Off(off::Args),
    On(off::OnArgs),
    Setup(setup::Args),
    Test(test::Args),
    Check(check::Args),
    Reload(reload::Args),
}

/// Parses argv, runs the command, returns its status.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error).into(),
    };
    let global = cli.global;
    let exit = match cli.command {
        Command::Log(args) => log::run(&args, &global),
        Command::Engine(args) => engine::run(&args, &global),
        Command::Status(args) => status::run(&args, &global),
        Command::Ban(args) => ban::run(&args, &global),
        Command::Unban(args) => unban::run(&args, &global),
        Command::Allow(args) => allow::run(&args, &global),
        Command::Disallow(args) => allow::run_disallow(&args, &global),
        Command::Off(args) => off::run(&args, &global),
        Command::On(args) => off::run_on(&args, &global),
        Command::Setup(args) => setup::run(&args, &global),
        Command::Test(args) => test::run(&args, &global),
        Command::Check(args) => check::run(&args, &global),
        Command::Reload(args) => reload::run(&args, &global),
    };
    exit.into()
}

/// The words behind the options of every command.
fn without_globals(words: &[String]) -> &[String] {
    match words {
        [first, rest @ ..] if first == "--json" || first.starts_with("--config=") => {
            without_globals(rest)
        }
        [first, _, rest @ ..] if first == "--config" => without_globals(rest),
        words => words,
    }
}

/// What is said instead of running a command; help and version come this way too.
fn refuse(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Yes;
    }
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<String> = given
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match fail2ban::meant(without_globals(&words)) {
        Some(meant) => {
            eprintln!("pipeban: that is how fail2ban says it. Here it is:\n\n    {meant}\n")
        }
        None => {
            let _ = error.print();
        }
    }
    let is_logger = without_globals(&words)
        .first()
        .is_some_and(|word| word == "log");
    match log::misspelt(&given, error).filter(|_| is_logger) {
        Some((log, config)) => crate::pipe::run(log, config),
        None if words.iter().any(|word| word == "log") => crate::pipe::drop_stdin(),
        None => {}
    }
    Exit::Usage
}
