//! `pipeban check`

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::exit::Exit;
use super::{Global, hooks, problems, test};
use crate::apache;
use crate::config::{self, Config, JailName, Origins, Problem};
use crate::filter::Filter;
use crate::filter::lint::{Finding, Linter};
use crate::record::Kind;

/// Check configuration, filters, and what Apache pipes in
///
/// Every error is shown with file, line and column. Then come warnings, about patterns (one that a
/// client can have ban others, with the line that proves it; one that no line can match; one that
/// another makes needless; a slow one) and about logs that never reach pipeban; then hints.
/// Nothing is changed. A configuration with errors ends with status 78.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print this jail as it is in force, each key with the file and line it comes from
    #[arg(long, value_name = "JAIL")]
    show: Option<JailName>,
    /// Only this filter: a name, or a file in fail2ban's format, with options as fail2ban writes
    /// them: `name[mode="aggressive"]`
    #[arg(long, value_name = "FILTER", conflicts_with_all = ["show", "apache_config"])]
    filter: Option<String>,
    /// Apache's configuration, where it is not in the usual place
    #[arg(long, value_name = "FILE")]
    apache_config: Option<PathBuf>,
}

/// Something that is allowed and works, and is hardly meant.
struct Warning {
    text: String,
    json: Value,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    if let Some(name) = &args.filter {
        return check_filter(name, global);
    }
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
    let mut warnings = filter_warnings(&config);
    warnings.extend(
        hooks::warnings(&config, &origins)
            .iter()
            .map(|problem| Warning {
                text: problem.to_string(),
                json: problem_json("warning", problem),
            }),
    );
    match apache::scan(args.apache_config.as_deref()) {
        Ok(scan) => {
            let mut found = scan.warnings();
            found.extend(dead_by_vhost(&config, &scan));
            // What could not be followed may hide a log.
            found.extend(scan.layout.notes);
            warnings.extend(found.into_iter().map(|text| Warning {
                json: json!({"severity": "warning", "message": &text}),
                text,
            }));
        }
        Err(apache::ScanError::None) if args.apache_config.is_none() => {}
        Err(error) => {
            eprintln!("pipeban: {error}");
            return Exit::Failed;
        }
    }
    let hints = hints(&config, &origins);
    let (text, summary) = (
        format!(
            "OK: {} ({} enabled), {}, {}, {}",
            count(config.jails.len(), "jail"),
            enabled(&config),
            count(config.filters.len(), "filter"),
            count(warnings.len(), "warning"),
            count(hints.len(), "hint")
        ),
        json!({"event": "summary", "jails": config.jails.len(), "enabled": enabled(&config), "filters": config.filters.len(), "warnings": warnings.len(), "hints": hints.len()}),
    );
    print(global, &warnings, &hints, &text, &summary)
}

/// `--filter`
fn check_filter(name: &str, global: &Global) -> Exit {
    // A filter is checked whatever the configuration is like.
    let config = config::load(&global.config).ok();
    let definition = match test::named(name, global, config.as_ref()) {
        Ok(definition) => definition,
        Err(failure) => return failure.tell(),
    };
    if let Err(found) = Filter::compile(&definition) {
        return test::Failure::Config(found).tell();
    }
    let mut logs = config.map_or_else(Vec::new, |config| logs_of(&config, name));
    if logs.is_empty() {
        logs = vec![Kind::Error, Kind::Access];
    }
    let findings = Linter::default().lint(&definition, &logs);
    let warnings: Vec<Warning> = findings.into_iter().map(warning).collect();
    let patterns = definition.failregex.len();
    let text = format!(
        "OK: filter `{}`, {}, {}",
        definition.name,
        count(patterns, "pattern"),
        count(warnings.len(), "warning")
    );
    let summary = json!({"event": "summary", "filter": definition.name, "patterns": patterns, "warnings": warnings.len()});
    print(global, &warnings, &[], &text, &summary)
}

/// The logs whose jails name this filter.
fn logs_of(config: &Config, filter: &str) -> Vec<Kind> {
    let jails = config.jails.values().filter(|jail| jail.filter == filter);
    let logs: BTreeSet<Kind> = jails.filter_map(|jail| jail.log.kind()).collect();
    logs.into_iter().collect()
}

/// What is wrong with the patterns of every jail's filter, also of disabled ones.
fn filter_warnings(config: &Config) -> Vec<Warning> {
    let linter = Linter::default();
    let filters = config.filters.iter();
    let mut findings: Vec<Finding> = filters
        .flat_map(|(name, definition)| linter.lint(definition, &logs_of(config, name)))
        .collect();
    // Jails may share a filter and give it different options.
    findings.sort_by(|a, b| {
        let place = |f: &Finding| (f.file.clone(), f.line, f.column, f.lint);
        place(a).cmp(&place(b))
    });
    findings.dedup();
    findings.into_iter().map(warning).collect()
}

fn warning(finding: Finding) -> Warning {
    let Finding {
        file,
        line,
        column,
        message,
        ..
    } = &finding;
    let mut text = format!("{}:{line}:{column}: {message}", file.display());
    if let Some(attack) = &finding.attack {
        text.push_str(":\n    ");
        text.push_str(attack);
    }
    let json = json!({
        "severity": "warning",
        "file": file,
        "line": line,
        "column": column,
        "lint": finding.lint,
        "filter": finding.filter,
        "option": finding.pattern.option(),
        "pattern": finding.pattern.number(),
        "message": message,
        "attack": finding.attack,
    });
    Warning { text, json }
}

fn print(
    global: &Global,
    warnings: &[Warning],
    hints: &[Problem],
    text: &str,
    summary: &Value,
) -> Exit {
    let mut out = std::io::stdout().lock();
    // A reader that has seen enough is no error.
    let _ = if global.json {
        let warnings = warnings.iter().map(|warning| warning.json.to_string());
        let hints = hints
            .iter()
            .map(|hint| problem_json("hint", hint).to_string());
        lines(&mut out, warnings.chain(hints).chain([summary.to_string()]))
    } else {
        let warnings = warnings
            .iter()
            .map(|warning| format!("warning: {}", warning.text));
        let hints = hints.iter().map(|hint| format!("hint: {hint}"));
        lines(&mut out, warnings.chain(hints).chain([text.to_owned()]))
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
