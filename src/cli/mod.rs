//! The command line: one file per command.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod exit;

mod allow;
mod ask;
mod ban;
mod check;
mod engine;
mod log;
mod off;
mod reload;
mod setup;
mod status;
mod test;
mod unban;

use crate::config::DEFAULT_FILE;
use exit::Exit;

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    json: bool,
}

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pipeban",
    version,
    about = "The log pipe that bans",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
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
        Err(error) => {
            let _ = error.print();
            // Apache hangs with a logger that ends at every start.
            if error.use_stderr() && std::env::args_os().any(|arg| arg == "log") {
                crate::pipe::drop_stdin();
            }
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Yes
            }
            .into();
        }
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
