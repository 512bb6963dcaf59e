//! `pipeban replay`

use std::io::{self, IsTerminal as _, Read, Write as _};
use std::time::Instant;

use indicatif::ProgressBar;

use super::exit::Exit;
use super::global::Global;
use super::test::{Failure, LONG_FILE, bar};
use crate::config::Problem;
use crate::engine;
use crate::record::{self, Parser};
use input::{Block, Blocks};
use summary::Summary;
use timeline::Timeline;

pub(super) mod config;
pub(super) mod input;
mod summary;
pub(super) mod timeline;

/// Show which clients the enabled jails would have banned, from existing logs
///
/// Runs the logs through the code that runs behind Apache, in the time of their lines, and
/// changes nothing: no engine, no firewall, no database. Name rotated logs from the oldest to the
/// newest; plain, .gz and .xz files are read. Without a configuration it uses the shipped jails.
///
/// A line without a time has the time of the line before, and time never goes back. Bans by jails
/// with `enforce = false` are shown as `Would Ban` and do not count. The allow-list and host names
/// in ignoreip are not used. The exit status is 0 if a client would have been banned, else 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pipeban replay --kind access /var/log/apache2/access.log
  pipeban replay --kind error error.log.2.gz error.log.1 error.log
  pipeban replay --kind access $(ls -tr /var/log/apache2/access.log*)
  xzcat access.log.xz | pipeban replay --kind access --json -")]
pub(super) struct Args {
    /// Kind of the logs
    #[arg(long, value_enum)]
    kind: Kind,
    /// Format of the logs, as for `pipeban test`
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: String,
    /// Logs in the order of time, plain or compressed by gzip or xz; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Access,
    Error,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    match replay(args, global) {
        Ok(true) => Exit::Yes,
        Ok(false) => Exit::No,
        Err(failure) => failure.report(),
    }
}

/// Runs one log: a file or, with `-`, standard input.
pub(super) fn of_one(kind: record::Kind, format: &str, file: String, global: &Global) -> Exit {
    let kind = match kind {
        record::Kind::Access => Kind::Access,
        record::Kind::Error => Kind::Error,
    };
    let format = format.to_owned();
    let files = vec![file];
    run(
        &Args {
            kind,
            format,
            files,
        },
        global,
    )
}

/// Whether a client would have been banned.
fn replay(args: &Args, global: &Global) -> Result<bool, Failure> {
    let start = Instant::now();
    let kind = match args.kind {
        Kind::Access => record::Kind::Access,
        Kind::Error => record::Kind::Error,
    };
    let parser = Parser::new(kind, &args.format)
        .map_err(|message| Failure::Usage(format!("--format: {message}")))?;
    let config = config::load(global).map_err(Failure::Config)?;
    if crate::config::rules_of_lines(&config, kind).is_empty() {
        return Err(Failure::Config(vec![Problem {
            file: global.config.clone(),
            place: None,
            message: format!("no enabled jail is for an {kind} log"),
        }]));
    }
    let (exempt, warnings) = engine::exempt_now(&config);
    for warning in warnings {
        eprintln!("pipeban: {warning}");
    }
    let mut inputs = Vec::new();
    let mut length = 0;
    for name in &args.files {
        let (input, bytes) = input::open(name).map_err(|error| unreadable(name, &error))?;
        inputs.push((name, input));
        length += bytes;
    }
    let mut output = Output::new(length);
    let mut timeline = Timeline::new(&config, kind, parser, exempt);
    let mut summary = Summary::new(&config, kind, global.json);
    for (name, input) in inputs {
        let failed = |error| unreadable(name, &error);
        timeline.clock.begin_log();
        let mut blocks = Blocks::new(output.counted(input)).map_err(failed)?;
        while let Some(block) = blocks.next().map_err(failed)? {
            match block {
                Block::Lines(lines) => timeline.block(lines, &mut |clock, event| {
                    summary.add(clock, &event, &mut output.text);
                }),
                Block::TooLong => timeline.too_long(),
            }
            output.flush()?;
        }
        if timeline.clock.is_wrong_order() {
            output.warn(&format!(
                "`{name}` begins before the log before it ends, so its lines count at the end of \
                 that log: name the logs from the oldest to the newest"
            ));
        } else if timeline.clock.late() > 0 {
            output.warn(&format!(
                "`{name}` is not in the order of time: some lines are an hour or more older than a \
                 line before them, and count at the time of that line; sort the log first"
            ));
        }
    }
    timeline.finish(&mut |clock, event| summary.add(clock, &event, &mut output.text));
    output.text += &summary.finish(&timeline.counts, &timeline.clock, start.elapsed());
    output.flush()?;
    Ok(summary.has_bans())
}

/// Standard output, and the bar on standard error.
struct Output {
    text: String,
    bar: Option<ProgressBar>,
}

impl Output {
    /// The bar is for so many bytes; short logs have none.
    fn new(length: u64) -> Output {
        let shown = length >= LONG_FILE && io::stderr().is_terminal();
        Output {
            text: String::new(),
            bar: shown.then(|| bar(length)),
        }
    }

    /// The input, with the bar moved by what is read of it.
    fn counted(&self, input: Box<dyn Read>) -> Box<dyn Read> {
        match &self.bar {
            Some(bar) => Box::new(bar.wrap_read(input)),
            None => input,
        }
    }

    fn warn(&self, text: &str) {
        let warn = || eprintln!("pipeban: {text}");
        match &self.bar {
            Some(bar) => bar.suspend(warn),
            None => warn(),
        }
    }

    /// Writes the text.
    fn flush(&mut self) -> io::Result<()> {
        if self.text.is_empty() {
            return Ok(());
        }
        let text = std::mem::take(&mut self.text);
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot read `{name}`: {error}"))
}
