//! The arguments of `pipeban test`, and why it cannot run.

use std::io;
use std::path::PathBuf;

use crate::cli::exit::Exit;
use crate::cli::problems;
use crate::config::{JailName, Problem};

/// Show which lines match a filter or jail, and which client they hit
///
/// Runs the code that runs behind Apache, and changes nothing. --filter or --pattern tests that
/// filter; --jail tests a jail with its virtual hosts and its ignoreip; without any of them every
/// enabled jail of this kind of log is tested. The exit status is 0 if a line matched, else 1.
///
/// A line is `spoof` if it matches, but not with the client that Apache names: with another address,
/// in the output of a script, or in a torn line. It hits no client.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pipeban test --jail apache-auth /var/log/apache2/error.log
  pipeban test --filter ./my-filter.conf --kind raw --line 'login failed: 192.0.2.1'
  pipeban test --pattern '^<HOST> .*\"GET /x' --show missed access.log
  pipeban test --jail apache-auth --near 12 error.log      why line 12 is missed
  tail -n 1000 /var/log/apache2/access.log | pipeban test --json -")]
pub(in crate::cli) struct Args {
    /// Test this jail, even if it is not enabled
    #[arg(long, value_name = "JAIL", conflicts_with_all = ["filter", "pattern", "ignore"])]
    pub(super) jail: Option<JailName>,
    /// Test this filter: a name, or a file in fail2ban's format, with options as fail2ban writes
    /// them: `name[mode="aggressive"]`
    #[arg(long, value_name = "FILTER", conflicts_with = "pattern")]
    pub(super) filter: Option<String>,
    /// Test this failregex; may be repeated
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pub(super) pattern: Vec<String>,
    /// Add this ignoreregex, with --filter or --pattern
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pub(super) ignore: Vec<String>,
    /// Kind of log; by default the jail's, else the kind of the first lines. With `raw`, only for
    /// --filter and --pattern, lines need not be Apache's, and the pattern's `<HOST>` decides;
    /// this is the default for logs without a line of Apache's
    #[arg(long, value_enum)]
    pub(super) kind: Option<Kind>,
    /// Format of the log: combined, vhost_combined, common, vhost_common, pipeban, a LogFormat or
    /// ErrorLogFormat string as in Apache's configuration, or auto
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub(super) format: String,
    /// Print every line with this verdict, not only the first few
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    pub(super) show: Vec<Show>,
    /// Explain why this line of the file, counted from 1, does not match, as --line does
    #[arg(long, value_name = "N", conflicts_with = "line", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) near: Option<u64>,
    /// Log file, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "line")]
    pub(super) file: Option<PathBuf>,
    /// One line instead of a file
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    pub(super) line: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    Access,
    Error,
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Show {
    Matched,
    Missed,
    Ignored,
    Spoof,
    Unparsed,
    All,
}

/// Why `test` cannot run.
pub(in crate::cli) enum Failure {
    Usage(String),
    Failed(String),
    Config(Vec<Problem>),
    Write(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Write(error)
    }
}

impl Failure {
    /// Prints it to stderr.
    pub(in crate::cli) fn report(self) -> Exit {
        let (message, exit) = match self {
            // The reader of the output has seen enough.
            Failure::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Exit::Yes;
            }
            Failure::Write(error) => (format!("cannot write: {error}"), Exit::Failed),
            Failure::Failed(message) => (message, Exit::Failed),
            Failure::Usage(message) => (message, Exit::Usage),
            Failure::Config(problems) => {
                problems::print(&problems);
                return Exit::Config;
            }
        };
        eprintln!("pipeban: {message}");
        exit
    }
}
