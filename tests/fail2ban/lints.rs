//! Warnings of `check` about the package's filters: no false alarm, and each spoof is proved.

use std::collections::BTreeMap;
use std::path::Path;

use pipeban::filter::lint::{Finding, Lint, lint};
use pipeban::filter::{Definition, Filter, Outcome, Subject, read};
use pipeban::record::{Kind, Parser};

use super::{FILTERS, installed, is_web};

const BOTH: &[Kind] = &[Kind::Access, Kind::Error];

/// Filters that read the access log.
const ACCESS: [&str; 5] = [
    "apache-badbots",
    "apache-fakegooglebot",
    "apache-pass",
    "php-url-fopen",
    "nginx-bad-request",
];

fn definition(name: &str) -> Option<Definition> {
    let file = Path::new(FILTERS).join(format!("{name}.conf"));
    let options = BTreeMap::new();
    read(name, &file, &options, &|path: &Path| {
        std::fs::read_to_string(path)
    })
    .ok()
}

/// Every filter of the package that is one by itself.
fn definitions() -> Vec<Definition> {
    let files = std::fs::read_dir(FILTERS).unwrap();
    let mut names: Vec<String> = files
        .filter_map(|file| {
            let name = file.unwrap().file_name().into_string().ok()?;
            Some(name.strip_suffix(".conf")?.to_owned())
        })
        .collect();
    names.sort();
    names.iter().filter_map(|name| definition(name)).collect()
}

#[test]
fn apaches_filters_cause_no_false_alarm() {
    if !installed() {
        return;
    }
    let mut seen = 0;
    for definition in definitions() {
        let access = ACCESS.contains(&definition.name.as_str());
        if !access && !definition.name.starts_with("apache-") {
            continue;
        }
        seen += 1;
        let kind = match access {
            true => Kind::Access,
            false => Kind::Error,
        };
        let findings = lint(&definition, &[kind]);
        let alarm = |finding: &&Finding| finding.lint != Lint::Backtracks;
        assert_eq!(findings.iter().find(alarm), None);
    }
    assert!(seen >= 12, "{seen}");
}

#[test]
fn each_spoof_is_proved_by_its_line() {
    if !installed() {
        return;
    }
    let mut spoofs = 0;
    for definition in definitions() {
        let loose = ["oracleims", "pam-generic", "portsentry", "proftpd"];
        if !is_web(&definition.name) && !loose.contains(&definition.name.as_str()) {
            continue;
        }
        let Ok(filter) = Filter::compile(&definition) else {
            continue;
        };
        for finding in lint(&definition, BOTH) {
            let Some(line) = &finding.attack else {
                continue;
            };
            spoofs += 1;
            let line = line.as_bytes();
            let mut parsers = BOTH.iter().map(|kind| Parser::new(*kind, "auto").unwrap());
            let record_of = |parser: Parser| {
                parser.parse(line).map(|record| {
                    (
                        record.time.clone(),
                        record.client.map(|c| c.addr.to_string()),
                    )
                })
            };
            let (time, client) = parsers.find_map(record_of).unwrap();
            assert_eq!(client.as_deref(), Some("203.0.113.66"));
            let Outcome::Match { host, .. } = filter.examine(&Subject::raw(line, time)) else {
                panic!("{finding:?}");
            };
            assert!(
                finding.message.contains(&host.to_string()),
                "{finding:?} {host}"
            );
        }
    }
    println!("{spoofs} spoofs");
    assert!(spoofs > 0);
}

/// By `make bench`.
#[cfg(feature = "measure")]
mod measure {
    use super::*;

    /// All of the package at once, as `check` would with a jail for each.
    #[test]
    fn measure_lints() {
        if !installed() {
            return;
        }
        let definitions = definitions();
        let patterns: usize = definitions.iter().map(|d| d.failregex.len()).sum();
        let start = std::time::Instant::now();
        let mut slowest = (std::time::Duration::ZERO, "");
        for definition in &definitions {
            let start = std::time::Instant::now();
            lint(definition, BOTH);
            slowest = slowest.max((start.elapsed(), &definition.name));
        }
        println!(
            "{} filters, {patterns} patterns: {:?}; slowest {slowest:?}",
            definitions.len(),
            start.elapsed()
        );
    }
}
