//! `pipeban test`

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anstream::AutoStream;

use super::Global;
use super::exit::Exit;
use super::problems;
use crate::config::{JailName, Problem};
use crate::record::{self, Parser};
use judge::{Judge, Rule, Sight, Word};
use lines::Lines;
pub(super) use rules::named;

pub(super) mod habit;
mod judge;
mod lines;
mod paint;
mod rules;
mod summary;
mod why;

/// Which lines match, and whom they hit
///
/// Runs the very code that runs behind Apache, and touches nothing. With --filter or --pattern
/// only that is asked; with --jail also the jail's virtual hosts and its ignoreip; without any,
/// every enabled jail of the kind of log. Ends with 0 when a line matched and 1 when none did.
///
/// A line is `spoof` when it matches only with another address than the one Apache itself names
/// as the client: it hits nobody.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pipeban test --jail apache-auth /var/log/apache2/error.log
  pipeban test --filter ./my-filter.conf --kind raw --line 'login failed: 192.0.2.1'
  pipeban test --pattern '^<HOST> .*\"GET /x' --show missed access.log
  pipeban test --jail apache-auth --near 12 error.log      why line 12 is missed
  tail -n 1000 /var/log/apache2/access.log | pipeban test --json -")]
pub(super) struct Args {
    /// Only this jail, also when it is not enabled
    #[arg(long, value_name = "JAIL", conflicts_with_all = ["filter", "pattern", "ignore"])]
    jail: Option<JailName>,
    /// Only this filter: a name, or a file in fail2ban's format, with options as fail2ban writes
    /// them: `name[mode="aggressive"]`
    #[arg(long, value_name = "FILTER", conflicts_with = "pattern")]
    filter: Option<String>,
    /// Only this failregex; several in order
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pattern: Vec<String>,
    /// An ignoreregex more, with --filter or --pattern
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    ignore: Vec<String>,
    /// Kind of log; by default the jail's, else what the first lines are. With `raw`, for
    /// filters and patterns alone, lines need not be Apache's, and the pattern's `<HOST>` decides;
    /// by default that goes for logs without a line of Apache's
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Format of the log: combined, vhost_combined, common, vhost_common, pipeban, a LogFormat or
    /// ErrorLogFormat string as in Apache's configuration, or auto
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: String,
    /// Print every line of this sort, not only the first few
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    show: Vec<Show>,
    /// Explain why this line of the file, counted from 1, does not match, as --line does
    #[arg(long, value_name = "N", conflicts_with = "line", value_parser = clap::value_parser!(u64).range(1..))]
    near: Option<u64>,
    /// Log file, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "line")]
    file: Option<PathBuf>,
    /// One line instead of a file
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    line: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Access,
    Error,
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Show {
    Matched,
    Missed,
    Ignored,
    Spoof,
    Unparsed,
    All,
}

impl Show {
    fn is(self, word: Word) -> bool {
        match self {
            Show::Matched => word == Word::Match,
            Show::Missed => word == Word::Miss,
            Show::Ignored => word == Word::Ignored,
            Show::Spoof => word == Word::Spoof,
            Show::Unparsed => word == Word::Unparsed,
            Show::All => true,
        }
    }
}

/// Why there is nothing to show.
pub(super) enum Failure {
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

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    match test(args, global) {
        Ok(true) => Exit::Yes,
        Ok(false) => Exit::No,
        Err(failure) => failure.tell(),
    }
}

impl Failure {
    /// Says it on stderr.
    pub(super) fn tell(self) -> Exit {
        let (message, exit) = match self {
            // Whoever read our output has seen enough.
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

/// Whether a line matched.
fn test(args: &Args, global: &Global) -> Result<bool, Failure> {
    together(args, global)?;
    let rules = rules::of(args, global)?;
    let prints = global.json || !args.show.is_empty();
    let mut lines = Lines::open(args, !prints || !is_terminal())?;
    let kind = kind(args, &rules, &mut lines)?;
    let judge = judge(args, kind, rules)?;
    if global.json {
        if kind == Kind::Raw && args.kind.is_none() {
            eprintln!(
                "pipeban: no line is Apache's: read as with --kind raw, the pattern's <HOST> decides"
            );
        }
        json(&judge, &mut lines)
    } else {
        people(args, &judge, &mut lines)
    }
}

/// What cannot go together, beyond what `clap` tells.
fn together(args: &Args, global: &Global) -> Result<(), Failure> {
    let alone = args.filter.is_some() || !args.pattern.is_empty();
    let wrong = if args.kind == Some(Kind::Raw) && !alone {
        "--kind raw goes with --filter or --pattern only: a jail takes the client from Apache's \
         records"
    } else if !args.ignore.is_empty() && !alone {
        "--ignore goes with --filter or --pattern"
    } else if global.json && (!args.show.is_empty() || args.near.is_some()) {
        "--show and --near are for people: --json prints every line as it is judged"
    } else {
        return Ok(());
    };
    Err(Failure::Usage(wrong.to_owned()))
}

fn json(judge: &Judge, lines: &mut Lines) -> Result<bool, Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut matched = false;
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number += 1;
        let verdict = judge.line(number, &line);
        matched |= verdict.verdict == Word::Match;
        let text = serde_json::to_string(&verdict).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    }
    out.flush()?;
    Ok(matched)
}

fn people(args: &Args, judge: &Judge, lines: &mut Lines) -> Result<bool, Failure> {
    let mut out = BufWriter::new(AutoStream::auto(io::stdout().lock()));
    let mut summary = summary::Summary::new(judge, &args.show);
    let mut chosen = None;
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number += 1;
        let verdict = judge.line(number, &line);
        summary.add(judge, &line, &verdict, &mut out)?;
        let one = args.line.is_some() && verdict.verdict != Word::Match;
        if one || args.near == Some(number) {
            chosen = Some((line, verdict));
        }
    }
    summary.print(judge, &mut out)?;
    match (&chosen, args.near) {
        (Some((line, verdict)), _) => why::print(judge, line, verdict, &mut out)?,
        (None, Some(near)) => {
            out.flush()?;
            return Err(Failure::Failed(format!(
                "there is no line {near}: the log has {number} lines"
            )));
        }
        (None, None) => {}
    }
    out.flush()?;
    Ok(summary.matched > 0)
}

fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stdout())
}

fn judge(args: &Args, kind: Kind, mut rules: Vec<Rule>) -> Result<Judge, Failure> {
    let sight = match kind {
        Kind::Raw => Sight::Raw,
        Kind::Access => Sight::Apache(
            record::Kind::Access,
            parser(record::Kind::Access, &args.format)?,
        ),
        Kind::Error => {
            let kind = record::Kind::Error;
            // `combined` and the like are formats of the other kind of log.
            let given = Parser::new(kind, &args.format);
            let other = args.kind.is_none() && given.is_err();
            let format = if other { "auto" } else { &args.format };
            Sight::Apache(kind, parser(kind, format)?)
        }
    };
    if let Sight::Apache(kind, _) = &sight {
        rules.retain(|rule| rule.log.is_none_or(|log| log == *kind));
        if rules.is_empty() {
            return Err(Failure::Usage(match &args.jail {
                Some(jail) => format!("jail `{jail}` does not look at an {kind} log"),
                None => format!("no enabled jail looks at an {kind} log: name one with --jail"),
            }));
        }
    }
    Ok(Judge { sight, rules })
}

fn parser(kind: record::Kind, format: &str) -> Result<Parser, Failure> {
    Parser::new(kind, format).map_err(|message| Failure::Usage(format!("--format: {message}")))
}

fn kind(args: &Args, rules: &[Rule], lines: &mut Lines) -> Result<Kind, Failure> {
    let of = |log| match log {
        record::Kind::Access => Kind::Access,
        record::Kind::Error => Kind::Error,
    };
    let mut logs: Vec<_> = rules.iter().map(|rule| rule.log).collect();
    logs.dedup();
    match (args.kind, logs.as_slice()) {
        (Some(kind), _) => return Ok(kind),
        (None, [Some(log)]) => return Ok(of(*log)),
        _ => {}
    }
    let (error, access) = match (
        Parser::new(record::Kind::Error, &args.format),
        Parser::new(record::Kind::Access, &args.format),
    ) {
        (Ok(_), Err(_)) => return Ok(Kind::Error),
        (Ok(error), Ok(access)) => (error, access),
        (Err(_), _) => (
            parser(record::Kind::Error, "auto")?,
            parser(record::Kind::Access, &args.format)?,
        ),
    };
    let found = lines.look_ahead(|line| {
        if error.parse(line).is_some() {
            Some(Kind::Error)
        } else {
            access.parse(line).map(|_| Kind::Access)
        }
    })?;
    // Jails look at nothing but Apache's lines, and whoever names a format has such.
    let raw = logs == [None] && args.format == "auto";
    Ok(found.unwrap_or(if raw { Kind::Raw } else { Kind::Access }))
}

#[cfg(test)]
mod tests;
