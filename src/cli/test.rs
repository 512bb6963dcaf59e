//! `pipeban test`

use std::io::{self, BufWriter, Write};

use anstream::AutoStream;

use super::exit::Exit;
use super::global::Global;
use crate::filter::matcher::InputKind;
use crate::record::{self, ModuleClient, Parser, display_json};
use lines::Lines;
pub(super) use lines::{LONG_FILE, bar};
use options::Kind;
pub(super) use options::{Args, Failure};
use rules::TestRule;
pub(super) use rules::named;
use verdict::{Tester, Verdict};

mod guess;
pub(super) mod habit;
mod lines;
mod options;
mod paint;
pub(super) mod rules;
mod summary;
pub(super) mod verdict;
mod why;

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    match test(args, global) {
        Ok(true) => Exit::Yes,
        Ok(false) => Exit::No,
        Err(failure) => failure.report(),
    }
}

/// Whether a line matched.
fn test(args: &Args, global: &Global) -> Result<bool, Failure> {
    together(args, global)?;
    let (rules, clients) = rules::of(args, global)?;
    let prints = global.json || !args.show.is_empty();
    let mut lines = Lines::open(args, !prints || !is_terminal())?;
    let kind = kind(args, &rules, &mut lines)?;
    let tester = tester(args, kind, rules, clients)?;
    if global.json {
        if kind == Kind::Raw && args.kind.is_none() {
            eprintln!(
                "pipeban: no line is Apache's: matching as with --kind raw, the pattern's <HOST> decides"
            );
        }
        json(&tester, &mut lines)
    } else {
        people(args, &tester, &mut lines)
    }
}

/// Refuses options that exclude each other, beyond what `clap` checks.
fn together(args: &Args, global: &Global) -> Result<(), Failure> {
    let alone = args.filter.is_some() || !args.pattern.is_empty();
    let wrong = if args.kind == Some(Kind::Raw) && !alone {
        "--kind raw needs --filter or --pattern: a jail takes the client from Apache's records"
    } else if !args.ignore.is_empty() && !alone {
        "--ignore needs --filter or --pattern"
    } else if global.json && (!args.show.is_empty() || args.near.is_some()) {
        "--show and --near cannot be used with --json, which prints every line"
    } else {
        return Ok(());
    };
    Err(Failure::Usage(wrong.to_owned()))
}

fn json(tester: &Tester, lines: &mut Lines) -> Result<bool, Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut matched = false;
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number += 1;
        let tested = tester.line(number, &line);
        matched |= tested.verdict == Verdict::Match;
        let text = serde_json::to_string(&tested).map_err(io::Error::other)?;
        let text = display_json(&text);
        writeln!(out, "{text}")?;
    }
    out.flush()?;
    Ok(matched)
}

fn people(args: &Args, tester: &Tester, lines: &mut Lines) -> Result<bool, Failure> {
    let mut out = BufWriter::new(AutoStream::auto(io::stdout().lock()));
    let mut summary = summary::Summary::new(tester, &args.show, args.kind.is_none());
    let mut chosen = None;
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number += 1;
        let tested = tester.line(number, &line);
        summary.add(&line, &tested, &mut out)?;
        let one = args.line.is_some() && tested.verdict != Verdict::Match;
        if one || args.near == Some(number) {
            chosen = Some((line, tested));
        }
    }
    summary.print(tester, &mut out)?;
    match (&chosen, args.near) {
        (Some((line, tested)), _) => why::print(tester, line, tested, &mut out)?,
        (None, Some(near)) => {
            out.flush()?;
            return Err(Failure::Failed(format!(
                "line {near} does not exist: the log has {number} lines"
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

fn tester(
    args: &Args,
    kind: Kind,
    mut rules: Vec<TestRule>,
    clients: Vec<ModuleClient>,
) -> Result<Tester, Failure> {
    let input = match kind {
        Kind::Raw => InputKind::Raw,
        Kind::Access => InputKind::Apache(
            record::Kind::Access,
            parser(record::Kind::Access, &args.format)?,
        ),
        Kind::Error => {
            let kind = record::Kind::Error;
            // `combined` and the like are formats of the other kind of log.
            let given = Parser::new(kind, &args.format);
            let other = args.kind.is_none() && given.is_err();
            let format = if other { "auto" } else { &args.format };
            InputKind::Apache(kind, parser(kind, format)?.with_module_clients(clients))
        }
    };
    if let InputKind::Apache(kind, _) = &input {
        rules.retain(|rule| rule.log.is_none_or(|log| log == *kind));
        if rules.is_empty() {
            return Err(Failure::Usage(match &args.jail {
                Some(jail) => format!("jail `{jail}` is not for an {kind} log"),
                None => format!("no enabled jail is for an {kind} log: name one with --jail"),
            }));
        }
    }
    Ok(Tester::new(rules, input))
}

fn parser(kind: record::Kind, format: &str) -> Result<Parser, Failure> {
    Parser::new(kind, format).map_err(|message| Failure::Usage(format!("--format: {message}")))
}

fn kind(args: &Args, rules: &[TestRule], lines: &mut Lines) -> Result<Kind, Failure> {
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
    // Jails match only Apache's lines, and a format is one of Apache's.
    let raw = logs == [None] && args.format == "auto";
    Ok(found.unwrap_or(if raw { Kind::Raw } else { Kind::Access }))
}

#[cfg(test)]
mod tests;
