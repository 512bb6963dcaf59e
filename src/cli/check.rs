//! `pipeban check`

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::json;

use super::exit::Exit;
use super::{Global, problems};
use crate::apache;
use crate::config::{self, Config, JailName, Origins, Problem};
use crate::record::Kind;

/// Check configuration, filters, and what Apache pipes in
///
/// Every error is shown with file, line and column. Then come warnings about logs that never reach
/// pipeban, and hints. Nothing is changed. A configuration with errors ends with status 78.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print this jail as it is in force, each key with the file and line it comes from
    #[arg(long, value_name = "JAIL")]
    show: Option<JailName>,
    /// Apache's configuration, where it is not in the usual place
    #[arg(long, value_name = "FILE")]
    apache_config: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let (config, origins) = match config::load_with_origins(&global.config) {
        Ok(loaded) => loaded,
        Err(found) => {
            if global.json {
                print_json(&found);
            } else {
                problems::print(&found);
                eprintln!(
                    "pipeban: {} in the configuration; a running engine keeps the last good one",
                    count(found.len(), "error")
                );
            }
            return Exit::Config;
        }
    };
    if let Some(name) = &args.show {
        return show(&config, &origins, name);
    }
    let warnings = match apache::scan(args.apache_config.as_deref()) {
        Ok(scan) => {
            let mut warnings = scan.warnings();
            warnings.extend(dead_by_vhost(&config, &scan));
            // What could not be followed may hide a log.
            warnings.extend(scan.layout.notes);
            warnings
        }
        Err(apache::ScanError::None) if args.apache_config.is_none() => Vec::new(),
        Err(error) => {
            eprintln!("pipeban: {error}");
            return Exit::Failed;
        }
    };
    let hints = hints(&config, &origins);
    let mut out = std::io::stdout().lock();
    // A reader that has seen enough is no error.
    let _ = if global.json {
        lines(&mut out, warnings.iter().map(|text| json!({"severity": "warning", "message": text}).to_string()))
            .and_then(|()| lines(&mut out, hints.iter().map(|hint| problem_json("hint", hint).to_string())))
            .and_then(|()| writeln!(out, "{}", json!({"event": "summary", "jails": config.jails.len(), "enabled": enabled(&config), "filters": config.filters.len(), "warnings": warnings.len(), "hints": hints.len()})))
    } else {
        lines(
            &mut out,
            warnings.iter().map(|text| format!("warning: {text}")),
        )
        .and_then(|()| lines(&mut out, hints.iter().map(|hint| format!("hint: {hint}"))))
        .and_then(|()| {
            writeln!(
                out,
                "OK: {} ({} enabled), {}, {}, {}",
                count(config.jails.len(), "jail"),
                enabled(&config),
                count(config.filters.len(), "filter"),
                count(warnings.len(), "warning"),
                count(hints.len(), "hint")
            )
        })
    };
    Exit::Yes
}

fn lines(
    out: &mut impl std::io::Write,
    mut lines: impl Iterator<Item = String>,
) -> std::io::Result<()> {
    lines.try_for_each(|line| writeln!(out, "{line}"))
}

fn enabled(config: &Config) -> usize {
    config.jails.values().filter(|jail| jail.enabled).count()
}

fn count(number: usize, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}

fn show(config: &Config, origins: &Origins, name: &JailName) -> Exit {
    if let Some(text) = config::show_jail(config, origins, name) {
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        return Exit::Yes;
    }
    let known: Vec<_> = config.jails.keys().map(JailName::as_str).collect();
    eprintln!("pipeban: no jail `{name}`; there are: {}", known.join(", "));
    Exit::No
}

fn print_json(found: &[Problem]) {
    let mut out = std::io::stdout().lock();
    let _ = lines(
        &mut out,
        found
            .iter()
            .map(|problem| problem_json("error", problem).to_string()),
    );
}

fn problem_json(severity: &str, problem: &Problem) -> serde_json::Value {
    json!({
        "severity": severity,
        "file": problem.file,
        "line": problem.place.map(|place| place.0),
        "column": problem.place.map(|place| place.1),
        "message": problem.message,
    })
}

/// Jails for some virtual hosts, and logs that do not name theirs.
fn dead_by_vhost(config: &Config, scan: &apache::Scan) -> Vec<String> {
    let mut jails = config
        .jails
        .iter()
        .filter(|(_, jail)| jail.enabled && jail.log == Kind::Access && !jail.vhost.is_empty());
    let Some((name, _)) = jails.next() else {
        return Vec::new();
    };
    let logs = scan.without_vhost().into_iter();
    logs.map(|log| {
        format!(
            "jail `{name}` counts only some virtual hosts, and {} at {} does not name them: nothing of it counts there; put %v into its format, like `vhost_combined`",
            log.kind.name(),
            log.place
        )
    })
    .collect()
}

/// What is allowed and perhaps not meant.
fn hints(config: &Config, origins: &Origins) -> Vec<Problem> {
    let mut hints = Vec::new();
    for definition in config.filters.values() {
        for (index, pattern) in definition.failregex.iter().enumerate() {
            // Behind the inline flags, where there are any.
            let start = pattern.text.trim_start_matches("(?i)");
            if !start.starts_with('^') {
                hints.push(Problem {
                    file: definition.file.clone(),
                    place: Some((pattern.line, pattern.column)),
                    message: format!(
                        "pattern {} of filter `{}` does not begin with `^`: what a client writes could match it (it would be told as spoof and ban nobody else)",
                        index + 1,
                        definition.name
                    ),
                });
            }
        }
    }
    for (name, jail) in &config.jails {
        let only_disabled = !jail.enabled && origins.own_keys(name.as_str()) == ["enabled"];
        if only_disabled && let Some((file, place)) = origins.header(name.as_str()) {
            hints.push(Problem {
                file: file.clone(),
                place: Some(*place),
                message: format!(
                    "jail `{name}` is switched off here and defined nowhere: is its name right?"
                ),
            });
        }
    }
    hints
}
