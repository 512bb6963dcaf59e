//! `pipeban log`

use std::path::PathBuf;

use super::Global;
use super::exit::Exit;
use crate::pipe;
use crate::record::Kind;

/// The piped logger: Apache starts it
///
/// Writes the lines that come on stdin to PATH, unchanged, and matches them against the jails.
#[derive(Debug, clap::Args)]
#[command(after_help = "In Apache's configuration:\n  \
    GlobalLog \"|/usr/bin/pipeban log access --format pipeban\" pipeban\n  \
    ErrorLog  \"|/usr/bin/pipeban log error /var/log/apache2/error.log\"\n\n\
    To try it by hand:\n  \
    echo LINE | pipeban log error")]
pub(super) struct Args {
    /// Which of Apache's logs comes in
    kind: KindArg,
    /// Log file to append to, made 0640 root:adm where it is missing. Without it lines only feed
    /// the matcher
    path: Option<PathBuf>,
    /// combined, vhost_combined, common, vhost_common, pipeban, a LogFormat or ErrorLogFormat
    /// string as in Apache's configuration, or auto: one of these names, or the error log's
    /// default. With a format that does not exist lines are passed on, not matched
    #[arg(long, value_name = "F", default_value = "auto")]
    format: String,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KindArg {
    /// CustomLog, TransferLog, GlobalLog
    Access,
    /// ErrorLog
    Error,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let log = pipe::Log {
        kind: match args.kind {
            KindArg::Access => Kind::Access,
            KindArg::Error => Kind::Error,
        },
        format: args.format.clone(),
        path: args.path.clone(),
    };
    pipe::run(log, global.config.clone());
    Exit::Yes
}
