//! `pipeban report`

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::ask;
use super::exit::Exit;
use super::global::Global;
use crate::config::JailName;
use crate::disk;
use crate::engine;
use crate::record::display_lines;
use crate::report::{
    Collector, Detail, Details, Query, Summary, csv, html, json, log_lines, table,
};
use period::Time;
use source::Source;

mod period;
mod source;

/// Show who was banned: when, how often, by which jails and for which attacks
///
/// Counts the bans that began in a period, repeat offenders first. Reads the database, with or
/// without a running engine, and changes nothing. Whether a ban is still in force is what the
/// database says; `pipeban status` asks the firewall.
///
/// Exit status 1: no client was banned in this time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pipeban report
  pipeban report --since 30d --format html --output report.html
  pipeban report --since 2026-11-01 --until '2026-11-15 12:00' --jail apache-auth
  pipeban report --fail2ban-log /var/log/fail2ban.log*
  pipeban report --explain-log")]
pub(super) struct Args {
    /// Bans from this time on: a duration before now, a date, or a date and a time; `all` is
    /// everything [default: 7d; of logs: all]
    #[arg(long, value_name = "TIME", value_parser = period::parse)]
    since: Option<Time>,
    /// Bans before this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = period::parse)]
    until: Option<Time>,
    /// Only bans for requests to this virtual host, where the log format has it
    #[arg(long, value_name = "NAME", conflicts_with = "fail2ban_log")]
    vhost: Option<String>,
    /// Only this jail's bans
    #[arg(long)]
    jail: Option<JailName>,
    /// Only clients in this network, or with this address
    #[arg(long, value_name = "ADDR", value_parser = ask::network)]
    net: Option<IpNet>,
    /// Show what jails with `enforce = false` would have banned instead
    #[arg(long)]
    observed: bool,
    /// table: for the terminal; json: one object per client, then the totals; csv: one row per
    /// client; html: one page with charts [default: table]
    #[arg(long, value_enum, hide_possible_values = true)]
    format: Option<Format>,
    /// Write to this file; a new one can be read by its owner only
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Read these logs of fail2ban instead of the database; plain, .gz or .xz, in any order
    #[arg(long, value_name = "FILE", num_args = 1..)]
    fail2ban_log: Vec<String>,
    /// Explain what each kind of line in the logs of pipeban and fail2ban means
    #[arg(long)]
    explain_log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
    Html,
}

/// Why there is no report.
enum Failure {
    Usage(String),
    Cannot(String),
    NotPermitted(String),
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let done = match args.explain_log {
        true => explain_log(args, global).map(|()| true),
        false => report(args, global),
    };
    let (text, exit) = match done {
        Ok(true) => return Exit::Yes,
        Ok(false) => return Exit::No,
        Err(Failure::Usage(text)) => (text, Exit::Usage),
        Err(Failure::Cannot(text)) => (text, Exit::Failed),
        Err(Failure::NotPermitted(text)) => (text, Exit::NotPermitted),
    };
    ask::complain(global, &text);
    exit
}

/// Whether a client was banned.
fn report(args: &Args, global: &Global) -> Result<bool, Failure> {
    let format = format(args, global)?;
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let from_logs = !args.fail2ban_log.is_empty();
    let time = |time: Option<Time>, default: Timestamp| match time {
        None => Ok(default),
        Some(time) => time.at(now, &zone).map_err(Failure::Usage),
    };
    let week = Time::before(7 * 86_400);
    let since = match from_logs {
        true => Timestamp::MIN,
        false => week.at(now, &zone).map_err(Failure::Usage)?,
    };
    let query = Query {
        since: time(args.since, since)?,
        until: time(args.until, Timestamp::MAX)?,
        jail: args.jail.clone(),
        vhost: args.vhost.clone(),
        net: args.net,
        observed: args.observed,
    };
    if query.since >= query.until {
        return Err(Failure::Usage("--since must be before --until".into()));
    }
    let source = Source::open(&args.fail2ban_log, global, &zone)?;
    let mut collector = Collector::new(query, now, zone);
    source.rows(&mut collector)?;
    if !from_logs && is_off(global, now) {
        collector.note("the emergency stop is on: no ban is in force until `pipeban on`".into());
    }
    let summary = collector.finish(match format {
        Format::Table | Format::Html => html::CLIENTS,
        Format::Json | Format::Csv => usize::MAX,
    });
    let details = source.details(&summary.query);
    match &args.output {
        None => {
            let stdout = io::stdout().lock();
            let written = write(&summary, &*details, format, &mut BufWriter::new(stdout));
            match written {
                // The reader closed the pipe.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written.map_err(|error| {
                    Failure::Cannot(format!("cannot write the report: {error}"))
                })?,
            }
        }
        Some(path) => {
            let failed = |error: io::Error| {
                let text = format!("cannot write {}: {error}", path.display());
                match error.kind() {
                    io::ErrorKind::PermissionDenied => Failure::NotPermitted(text),
                    _ => Failure::Cannot(text),
                }
            };
            let file = create(path).map_err(failed)?;
            write(&summary, &*details, format, &mut BufWriter::new(file)).map_err(failed)?;
        }
    }
    Ok(summary.bans > 0)
}

/// Only its owner may read the addresses of clients.
fn create(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn format(args: &Args, global: &Global) -> Result<Format, Failure> {
    match (args.format, global.json) {
        (None | Some(Format::Json), true) => Ok(Format::Json),
        (Some(_), true) => Err(Failure::Usage(
            "--json and --format contradict each other".into(),
        )),
        (format, false) => Ok(format.unwrap_or(Format::Table)),
    }
}

/// Whether the emergency stop is on, as far as this user can read that.
fn is_off(global: &Global, now: Timestamp) -> bool {
    let paths = disk::paths_of(&global.config);
    paths.off_file().exists() && engine::off::read(&paths, now).is_some()
}

fn write(
    summary: &Summary,
    details: &dyn Details,
    format: Format,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Json => return json::write(summary, details, out),
        Format::Csv => return csv::write(summary, details, out),
        Format::Table => {
            out.write_all(display_lines(&table::text(summary, details)?).as_bytes())?
        }
        Format::Html => {
            let shown = summary.clients.iter().take(html::CLIENTS).enumerate();
            let shown = shown.map(|(place, client)| {
                let bans = match place < html::TIMELINES {
                    true => details.bans(&client.net, html::SPELLS)?,
                    false => Vec::new(),
                };
                let evidence = details.evidence(client.shown_ban)?;
                Ok(Detail { bans, evidence })
            });
            let shown: Vec<Detail> = shown.collect::<io::Result<_>>()?;
            let page = html::page(summary, &shown).map_err(io::Error::other)?;
            out.write_all(display_lines(&page).as_bytes())?;
        }
    }
    out.flush()
}

fn explain_log(args: &Args, global: &Global) -> Result<(), Failure> {
    let json = format(args, global)? == Format::Json;
    for log_lines::LogLine { by, line, meaning } in log_lines::LOG_LINES {
        if json {
            let object = serde_json::json!({"line": line, "by": by, "meaning": meaning});
            ask::print(&object.to_string());
        } else {
            ask::print(&format!("{line}   ({by})\n    {meaning}\n"));
        }
    }
    Ok(())
}
