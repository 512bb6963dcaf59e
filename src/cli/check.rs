//! `pipeban check`

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::exit::Exit;
use super::global::Global;
use super::{ask, foreign, hooks, problems, test};
use crate::apache;
use crate::config::{self, Config, JailName, Origins, Ports, Problem};
use crate::disk;
use crate::filter::lint::{Finding, lint};
use crate::filter::{Definition, Filter};
use crate::record::Kind;

/// Check the configuration, filters, and the logs that Apache pipes
///
/// Shows every error with file, line and column. Then come warnings: removed settings; patterns that
/// a client can abuse to ban others, with a line that proves it; other faults of patterns; logs that
/// do not reach pipeban; ports of Apache that a ban leaves open. Hints come last. Nothing changes. A
/// configuration with errors ends with status 78, and so does Apache's if it starts `pipeban log` with
/// wrong arguments or for a file that pipeban does not open, or if any client can name the address that Apache logs (RemoteIPHeader without a
/// list of proxies).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the settings in force for this jail, each with its file and line
    #[arg(long, value_name = "JAIL")]
    show: Option<JailName>,
    /// Check only this filter: a name, or a file in fail2ban's format, with options as in
    /// `name[mode="aggressive"]`
    #[arg(long, value_name = "FILTER", conflicts_with_all = ["show", "apache_config"])]
    filter: Option<String>,
    /// The first file of Apache's configuration, if it is not in a usual place
    #[arg(long, value_name = "FILE")]
    apache_config: Option<PathBuf>,
}

/// Something that works and is probably a mistake.
struct Warning {
    text: String,
    json: Value,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    if let Some(name) = &args.filter {
        return check_filter(name, global);
    }
    let (config, origins) = match disk::load_with_origins(&global.config) {
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
    let idle =
        (enabled(&config) == 0).then(|| "no jail is enabled, so pipeban bans no client".to_owned());
    let texts = foreign::warnings(&config).into_iter();
    let texts = texts.chain(exempt_from_all(&config)).chain(idle);
    warnings.extend(texts.map(|text| Warning {
        json: json!({"severity": "warning", "message": &text}),
        text,
    }));
    warnings.extend(
        disk::changeable_by_others(&global.config)
            .iter()
            .map(|problem| Warning {
                text: format!("{problem}; until then the engine, which is root, refuses it"),
                json: problem_json("warning", problem),
            }),
    );
    warnings.extend(
        config
            .warnings
            .iter()
            .chain(&hooks::warnings(&config, &origins))
            .map(|problem| Warning {
                text: problem.to_string(),
                json: problem_json("warning", problem),
            }),
    );
    let mut apache_errors: Vec<String> = Vec::new();
    match apache::scan(args.apache_config.as_deref()) {
        Ok(scan) => {
            let errors = scan.findings.iter().filter(|finding| finding.is_error());
            apache_errors.extend(errors.map(ToString::to_string));
            let mut found = scan.grouped_warnings();
            found.extend(dead_by_vhost(&config, &scan));
            found.extend(open_ports(&config, &scan));
            // What pipeban cannot follow can hide a log.
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
    let mut hints = hints(&config, &origins);
    hints.extend(shadowed(&config, &origins, global));
    let begin = match apache_errors.len() {
        0 => "OK".to_owned(),
        errors => count(errors, "error"),
    };
    let (text, summary) = (
        format!(
            "{begin}: {} ({} enabled), {}, {}, {}",
            count(config.jails.len(), "jail"),
            enabled(&config),
            count(config.filters.len(), "filter"),
            count(warnings.len(), "warning"),
            count(hints.len(), "hint")
        ),
        json!({"event": "summary", "jails": config.jails.len(), "enabled": enabled(&config), "filters": config.filters.len(), "errors": apache_errors.len(), "warnings": warnings.len(), "hints": hints.len()}),
    );
    print_errors(global, &apache_errors);
    let exit = print(global, &warnings, &hints, &text, &summary);
    match apache_errors.is_empty() {
        true => exit,
        false => Exit::Config,
    }
}

/// Errors in Apache's configuration.
fn print_errors(global: &Global, errors: &[String]) {
    for error in errors {
        let object = json!({"severity": "error", "message": error});
        ask::print_one(global, &object, format_args!("error: {error}"));
    }
}

/// `--filter`
fn check_filter(name: &str, global: &Global) -> Exit {
    // A broken configuration does not matter here.
    let config = disk::load(&global.config).ok();
    let definition = match test::named(name, global, config.as_ref()) {
        Ok(definition) => definition,
        Err(failure) => return failure.report(),
    };
    if let Err(found) = Filter::compile(&definition) {
        return test::Failure::Config(found).report();
    }
    let mut logs = config.map_or_else(Vec::new, |config| logs_of(&config, name));
    if logs.is_empty() {
        logs = vec![Kind::Error, Kind::Access];
    }
    let findings = lint(&definition, &logs);
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

/// The logs of the jails with this filter.
fn logs_of(config: &Config, filter: &str) -> Vec<Kind> {
    let jails = config.jails.values().filter(|jail| jail.filter == filter);
    let logs: BTreeSet<Kind> = jails.filter_map(|jail| jail.log.kind()).collect();
    logs.into_iter().collect()
}

/// What is wrong with the patterns of every jail's filter.
fn filter_warnings(config: &Config) -> Vec<Warning> {
    let filters = config.filters.iter();
    let mut findings: Vec<Finding> = filters
        .flat_map(|(name, definition)| lint(definition, &logs_of(config, name)))
        .collect();
    // Jails can share a filter with different options.
    findings.sort_by(|a, b| {
        let place = |f: &Finding| (f.file.clone(), f.line, f.column, f.lint);
        place(a).cmp(&place(b))
    });
    findings.dedup();
    let hidden = config.filters.values().filter_map(hidden);
    findings.into_iter().map(warning).chain(hidden).collect()
}

/// A file in fail2ban's format that a native filter of the same name hides.
fn hidden(filter: &Definition) -> Option<Warning> {
    let other = filter.file.with_extension("conf");
    if filter.native.is_empty() || !other.exists() {
        return None;
    }
    let text = format!(
        "{}: this file is not used, because {} has the same name: delete or rename one",
        other.display(),
        filter.file.display()
    );
    let json = json!({"severity": "warning", "file": other, "message": &text});
    Some(Warning { text, json })
}

/// Files of fail2ban's that a shipped filter of the same name hides from an administrator's jail.
fn shadowed(config: &Config, origins: &Origins, global: &Global) -> Vec<Problem> {
    let [own, shipped, fail2ban] = config::filter_directories(&global.config, &config.paths);
    let is_shipped = |name: &JailName| {
        let set = origins.of(name.as_str(), "filter");
        set.is_some_and(|(file, _)| file.starts_with(&config.paths.share))
    };
    let jails = config.jails.iter().filter(|(name, _)| !is_shipped(name));
    let names: BTreeSet<&String> = jails.map(|(_, jail)| &jail.filter).collect();
    let other = |name| {
        let filter = config.filters.get(name)?;
        let file = fail2ban.join(filter.file.with_extension("conf").file_name()?);
        (filter.file.starts_with(&shipped) && file.exists()).then(|| Problem {
            place: None,
            message: format!(
                "this file is not used, because the shipped {} has the same name: to use it, copy \
                 it to {}",
                filter.file.display(),
                own.display()
            ),
            file,
        })
    };
    names.into_iter().filter_map(other).collect()
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
    for warning in warnings {
        let text = format_args!("warning: {}", warning.text);
        ask::print_one(global, &warning.json, text);
    }
    for hint in hints {
        let text = format_args!("hint: {hint}");
        ask::print_one(global, &problem_json("hint", hint), text);
    }
    ask::print_one(global, summary, text);
    Exit::Yes
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
        ask::print(text.trim_end());
        return Exit::Yes;
    }
    let known: Vec<_> = config.jails.keys().map(JailName::as_str).collect();
    eprintln!(
        "pipeban: no jail `{name}` exists; the jails are: {}",
        known.join(", ")
    );
    Exit::No
}

fn print_json(found: &[Problem]) {
    for problem in found {
        ask::print(&problem_json("error", problem).to_string());
    }
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

/// Jails for some virtual hosts, and logs without the virtual host.
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
            "{}: the format of this {} lacks the virtual host, so jail `{name}` ignores its lines: add %v, as in `vhost_combined`",
            log.place,
            log.kind.name()
        )
    })
    .collect()
}

/// Ports of Apache that jails leave open to the clients they ban.
fn open_ports(config: &Config, scan: &apache::Scan) -> Vec<String> {
    let mut jails: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, jail) in config.jails.iter().filter(|(_, jail)| jail.enabled) {
        let Ports::List { tcp, .. } = &jail.port else {
            continue;
        };
        let open = scan
            .layout
            .listens
            .keys()
            .filter(|port| !tcp.contains(port));
        let open: Vec<String> = open.map(u16::to_string).collect();
        if !open.is_empty() {
            jails
                .entry(open.join(", "))
                .or_default()
                .push(name.as_str());
        }
    }
    let each = jails.into_iter().map(|(open, jails)| {
        format!(
            "a client banned by jail `{}` can still reach Apache on port {open}: set `port = \
             \"apache\"`, or add that port",
            jails.join("`, `")
        )
    });
    each.collect()
}

/// The exempt networks that hold a large part of all addresses, and what bans no client of them.
fn exempt_from_all(config: &Config) -> Vec<String> {
    let is_huge = |net: &&IpNet| match net {
        IpNet::V4(net) => net.prefix_len() < 8,
        // Private addresses are a /7.
        IpNet::V6(net) => net.prefix_len() < 7,
    };
    let trusted = config.trusted_proxies.iter().filter(is_huge);
    let mut all: Vec<String> = trusted
        .map(|net| format!("no jail bans a client of {net}: it is in `trusted` of [proxies]"))
        .collect();
    let mut jails: BTreeMap<IpNet, Vec<&str>> = BTreeMap::new();
    for (name, jail) in config.jails.iter().filter(|(_, jail)| jail.enabled) {
        for net in jail.ignoreip.iter().filter(is_huge) {
            jails.entry(*net).or_default().push(name.as_str());
        }
    }
    all.extend(jails.into_iter().map(|(net, jails)| {
        let which = match jails.len() == enabled(config) {
            true => "no jail bans".to_owned(),
            false => format!("jail `{}` never bans", jails.join("`, `")),
        };
        format!("{which} a client of {net}: it is in `ignoreip`")
    }));
    all
}

/// Settings that work and are possibly a mistake.
fn hints(config: &Config, origins: &Origins) -> Vec<Problem> {
    let mut hints = Vec::new();
    for (name, jail) in &config.jails {
        let only_disabled = !jail.enabled && origins.keys_in_jail(name.as_str()) == ["enabled"];
        if only_disabled && let Some((file, place)) = origins.header(name.as_str()) {
            hints.push(Problem {
                file: file.clone(),
                place: Some(*place),
                message: format!(
                    "jail `{name}` is disabled here and defined nowhere: check its name"
                ),
            });
        }
    }
    hints
}
