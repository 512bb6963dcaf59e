//! `pipeban log`

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;

use super::exit::Exit;
use super::global::Global;
use super::replay;
use crate::config::DEFAULT_FILE;
use crate::pipe;
use crate::sys::signals;

/// The piped logger: Apache starts it
///
/// Appends the lines from stdin to PATH, unchanged, and matches them against the jails. If stdin is a
/// terminal or a file, it bans no client and says what would happen, as `replay` does; a pipe counts
/// as real.
#[derive(Debug, clap::Args)]
#[command(after_help = "In Apache's configuration:\n  \
    GlobalLog \"|/usr/bin/pipeban log access --format pipeban\" pipeban\n  \
    ErrorLog  \"|/usr/bin/pipeban log error /var/log/apache2/error.log\"\n  \
    CustomLog \"|/usr/bin/pipeban log access /var/log/apache2/%F.log\" combined\n\n\
    By hand:\n  \
    pipeban log error < FILE           what would happen\n  \
    echo LINE | pipeban log error      bans")]
pub(super) struct Args {
    #[command(flatten)]
    arguments: pipe::Arguments,
}

/// Passes lines through whatever else is wrong. A wrong argument is logged and is the exit status.
pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let log = args.arguments.log();
    let wrong = complain(&log);
    let stdin = io::stdin();
    let of_file = || again(&stdin).ok().flatten();
    let rehearsed = match (args.arguments.for_real() || wrong, stdin.is_terminal()) {
        (true, _) => None,
        (false, true) => Some(None),
        (false, false) => of_file().map(Some),
    };
    let Some(file) = rehearsed else {
        pipe::run(log, global.config.clone());
        return if wrong { Exit::Usage } else { Exit::Yes };
    };
    let kind = log.kind;
    let passes = log.output.is_some();
    let exit = match (passes, file) {
        // What is typed is read once.
        (true, None) => {
            pass(log, global);
            Exit::Yes
        }
        (_, file) => {
            if passes {
                pass(log, global);
            }
            let name = file.as_ref().map_or("-".to_owned(), |file| {
                format!("/proc/self/fd/{}", file.as_raw_fd())
            });
            // As in the logger, once it can be ended.
            let _ = signals::let_all_through();
            replay::of_one(kind, args.arguments.format(), name, global)
        }
    };
    let _ = io::stdout().flush();
    eprintln!("pipeban: no client was banned, because stdin is not a pipe: `--for-real` bans");
    match exit {
        Exit::No => Exit::Yes,
        // The lines have passed.
        _ if passes => Exit::Yes,
        exit => exit,
    }
}

/// Stdin opened again, if it is a file. To open a pipe could wait for a writer.
fn again(stdin: &io::Stdin) -> io::Result<Option<File>> {
    let file = File::from(stdin.as_fd().try_clone_to_owned()?);
    match file.metadata()?.is_file() {
        true => File::open("/proc/self/fd/0").map(Some),
        false => Ok(None),
    }
}

fn pass(log: pipe::Log, global: &Global) {
    let log = pipe::Log {
        pass_only: true,
        ..log
    };
    pipe::run(log, global.config.clone());
}

/// Runs with a command line that clap refuses, if that names a file: see [`pipe::salvage`].
pub(super) fn run_refused(words: &[OsString], error: &clap::Error) -> bool {
    let Some((log, config)) = pipe::salvage(words, error) else {
        return false;
    };
    complain(&log);
    pipe::run(log, config.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE)));
    true
}

fn complain(log: &pipe::Log) -> bool {
    for refused in &log.refused {
        eprintln!("pipeban: log {}: {refused}", log.kind);
    }
    !log.refused.is_empty()
}
