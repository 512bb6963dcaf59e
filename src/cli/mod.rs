//! The command line: one file per command.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub mod exit;

mod allow;
mod ask;
mod ban;
mod check;
mod completions;
mod doctor;
mod engine;
mod explain;
mod export;
mod fail2ban;
mod foreign;
mod global;
mod hooks;
mod import;
mod log;
mod migrate;
mod off;
mod problems;
mod purge;
mod reload;
mod replay;
mod report;
mod setup;
mod stamp;
mod status;
mod test;
mod top;
mod unban;

use crate::record::display_lines;
use exit::Exit;
use global::Global;

use crate::sys::{signals, systemd};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pipeban",
    version,
    about = "Reads Apache's logs through a pipe, and bans attackers within milliseconds",
    after_help = AFTER_HELP,
    after_long_help = after_long_help()
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Most used:
  pipeban status                        show bans, jails and problems
  pipeban explain 192.0.2.7             show why a client is banned or is not
  pipeban unban 192.0.2.7               lift the bans of a client
  pipeban test --jail JAIL access.log   show which lines a jail counts

See `pipeban COMMAND --help` for a command. Manuals:
  pipeban(8)           commands, log lines, formats, how to uninstall
  pipeban.toml(5)      jails, and every key with its default; how to log bans without banning
  pipeban-filters(5)   how to write and test a filter";

fn after_long_help() -> String {
    use std::fmt::Write as _;
    let mut text = format!("{AFTER_HELP}\n\nExit status:\n");
    for (exit, meaning) in Exit::ALL {
        let _ = writeln!(text, "  {:<4}{meaning}", exit as u8);
    }
    text + "\nFiles:\n  \
        /etc/pipeban/pipeban.toml     configuration, then conf.d/*.toml\n  \
        /etc/pipeban/filters.d        your filters\n  \
        /usr/share/pipeban            shipped jails and filters, examples\n  \
        /var/lib/pipeban              database, last good configuration\n  \
        /var/log/pipeban.log          the same lines as syslog"
}

#[derive(Debug, Subcommand)]
enum Command {
    Log(log::Args),
    Engine(engine::Args),
    Status(status::Args),
    Explain(explain::Args),
    Ban(ban::Args),
    Unban(unban::Args),
    Allow(allow::Args),
    Disallow(allow::DisallowArgs),
    Off(off::Args),
    On(off::OnArgs),
    Export(export::Args),
    Import(import::Args),
    Purge(purge::Args),
    Setup(setup::Args),
    Test(test::Args),
    Replay(replay::Args),
    Report(report::Args),
    Check(check::Args),
    Migrate(migrate::Args),
    Completions(completions::Args),
    Doctor(doctor::Args),
    Reload(reload::Args),
    Top(top::Args),
}

/// Parses argv, runs the command, returns its status.
pub fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == crate::pipe::WORKER)
    {
        return u8::try_from(crate::pipe::run_worker()).unwrap_or(2).into();
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == crate::metrics::SERVER)
    {
        return u8::try_from(crate::metrics::run()).unwrap_or(2).into();
    }
    // A SIGTERM that comes before a logger has a keeper would leave the pipe without a reader.
    let held = signals::hold_all();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error).into(),
    };
    let _held = matches!(cli.command, Command::Log(_)).then_some(held);
    let global = cli.global;
    let exit = match cli.command {
        Command::Log(args) => log::run(&args, &global),
        Command::Engine(args) => engine::run(&args, &global),
        Command::Status(args) => status::run(&args, &global),
        Command::Explain(args) => explain::run(&args, &global),
        Command::Ban(args) => ban::run(&args, &global),
        Command::Unban(args) => unban::run(&args, &global),
        Command::Allow(args) => allow::run(&args, &global),
        Command::Disallow(args) => allow::run_disallow(&args, &global),
        Command::Off(args) => off::run(&args, &global),
        Command::On(args) => off::run_on(&args, &global),
        Command::Export(args) => export::run(&args, &global),
        Command::Import(args) => import::run(&args, &global),
        Command::Purge(args) => purge::run(&args, &global),
        Command::Setup(args) => setup::run(&args, &global),
        Command::Test(args) => test::run(&args, &global),
        Command::Replay(args) => replay::run(&args, &global),
        Command::Report(args) => report::run(&args, &global),
        Command::Check(args) => check::run(&args, &global),
        Command::Migrate(args) => migrate::run(&args, &global),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Doctor(args) => doctor::run(&args, &global),
        Command::Reload(args) => reload::run(&args, &global),
        Command::Top(args) => top::run(&args, &global),
    };
    exit.into()
}

/// The words after the options of every command.
fn without_globals(words: &[String]) -> &[String] {
    match words {
        [first, rest @ ..] if first == "--json" || first.starts_with("--config=") => {
            without_globals(rest)
        }
        [first, _, rest @ ..] if first == "--config" => without_globals(rest),
        words => words,
    }
}

/// Prints usage errors, help and version.
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
    match fail2ban::meant(without_globals(&words), systemd::commands()) {
        Some(meant) => {
            let meant = display_lines(&meant);
            eprintln!("pipeban: unknown command or option; run:\n\n    {meant}\n")
        }
        None => {
            // The words that were typed are in it.
            let text = display_lines(&error.render().to_string());
            let _ = write!(io::stderr(), "{text}");
        }
    }
    let is_logger = without_globals(&words)
        .first()
        .is_some_and(|word| word == "log");
    let ran = is_logger && log::run_refused(&given, error);
    if !ran && words.iter().any(|word| word == "log") {
        crate::pipe::drop_stdin();
    }
    Exit::Usage
}
