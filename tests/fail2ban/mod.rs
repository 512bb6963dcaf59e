//! fail2ban's filters on fail2ban's sample lines, from the installed package; none of it is kept
//! here.
//!
//! A line of Apache's is matched with its record, as behind Apache; any other as plain text.

mod differential;
mod lints;
mod migrate;
mod oracle;
mod own_text;
mod samples;
mod side_by_side;
mod spoofing;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use pipeban::filter::{Filter, Outcome, Subject, read};
use pipeban::record::time::{self, Stamp};
use pipeban::record::{Kind, Parser};
use samples::Sample;

use crate::support::skip_without;

const FILTERS: &str = "/etc/fail2ban/filter.d";
const SAMPLES: &str = "/usr/lib/python3/dist-packages/fail2ban/tests/files/logs";

/// Filters of web applications and servers: every sample must agree.
const WEB: [&str; 10] = [
    "php-url-fopen",
    "nginx-botsearch",
    "nginx-bad-request",
    "nginx-http-auth",
    "zoneminder",
    "traefik-auth",
    "suhosin",
    "roundcube-auth",
    "drupal-auth",
    "haproxy-http-auth",
];

fn is_web(filter: &str) -> bool {
    filter.starts_with("apache-") || WEB.contains(&filter)
}

/// Whether the package is there; says loudly when it is not.
fn installed() -> bool {
    let there = Path::new(FILTERS).is_dir() && Path::new(SAMPLES).is_dir();
    if !there {
        skip_without("fail2ban");
    }
    there
}

fn compiled(name: &str, options: &BTreeMap<String, String>) -> Result<Filter, String> {
    let file = Path::new(FILTERS).join(format!("{name}.conf"));
    let read = read(name, &file, options, &|path: &Path| {
        std::fs::read_to_string(path)
    });
    read.and_then(|definition| Filter::compile(&definition))
        .map_err(|problems| problems.iter().map(|p| format!("{p}; ")).collect())
}

/// The outcome of a sample, and the time in its line.
fn examined(filter: &Filter, sample: &Sample) -> (Outcome, Option<Stamp>) {
    let line = sample.line.as_bytes();
    let as_apache = [Kind::Error, Kind::Access].into_iter().find_map(|kind| {
        let parser = Parser::new(kind, "auto").unwrap();
        let record = parser
            .parse(line)
            .filter(|record| record.client.is_some())?;
        Some((filter.examine(&Subject::of(line, &record)), record.stamp))
    });
    as_apache.unwrap_or_else(|| {
        // A line from the journal has no time.
        let time = time::find(line).filter(|_| !sample.journal);
        let (at, stamp) = time.unzip();
        (filter.examine(&Subject::raw(line, at)), stamp.flatten())
    })
}

/// What is wrong with the outcome of a sample.
fn difference(filter: &Filter, sample: &Sample) -> Option<String> {
    let (outcome, stamp) = examined(filter, sample);
    let Outcome::Match { host, .. } = outcome else {
        let wanted = || format!("not matched ({outcome:?}), host {:?}", sample.host);
        return sample.matches.then(wanted);
    };
    if !sample.matches {
        return Some(format!("matched for {host}"));
    }
    if let Some(wanted) = &sample.host
        && wanted.parse::<IpAddr>().map(|a| a.to_canonical()) != Ok(host)
    {
        return Some(format!("host {host} instead of {wanted}"));
    }
    let wanted = sample.time.as_ref().zip(stamp.and_then(local))?;
    let (whole, _) = wanted.0.split_once('.').unwrap_or((wanted.0, ""));
    let time = DateTime::strptime("%Y-%m-%dT%H:%M:%S", whole).unwrap();
    (wanted.1 != time).then(|| format!("time {} instead of {time}", wanted.1))
}

/// The time in the zone of the samples.
fn local(stamp: Stamp) -> Option<DateTime> {
    let zone = TimeZone::posix("CET-01CEST-02,M3.5.0,M10.5.0").unwrap();
    let time = jiff::civil::time(stamp.hour, stamp.minute, stamp.second.min(59), 0);
    let stated = Date::new(stamp.year, stamp.month, stamp.day)
        .ok()?
        .to_datetime(time);
    let Some(seconds) = stamp.offset else {
        return Some(stated);
    };
    let offset = jiff::tz::Offset::from_seconds(seconds).ok()?;
    Some(offset.to_timestamp(stated).ok()?.to_zoned(zone).datetime())
}

/// Cases of one filter and those that disagree.
#[derive(Default)]
struct Row {
    cases: usize,
    wrong: Vec<String>,
}

fn compare(filter: &str) -> Row {
    let mut row = Row::default();
    let mut filters: BTreeMap<String, Result<Filter, String>> = BTreeMap::new();
    for sample in samples::of(filter, Path::new(SAMPLES)) {
        row.cases += 1;
        let key = format!("{:?}", sample.options);
        let compiled = filters
            .entry(key)
            .or_insert_with(|| compiled(filter, &sample.options));
        let wrong = match compiled {
            Ok(compiled) => difference(compiled, &sample),
            Err(message) => Some(message.clone()),
        };
        if let Some(wrong) = wrong {
            let (number, options) = (sample.number, &sample.options);
            row.wrong
                .push(format!("{filter}:{number} {options:?}: {wrong}"));
        }
    }
    row
}

/// Every filter of the package that has samples.
fn filters() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(FILTERS)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().ok()?;
            Some(name.strip_suffix(".conf")?.to_owned())
        })
        .filter(|name| Path::new(SAMPLES).join(name).is_file())
        .collect();
    names.sort();
    names
}

#[test]
fn web_filters_agree_with_every_sample() {
    if !installed() {
        return;
    }
    let mut cases = 0;
    let mut wrong = Vec::new();
    for filter in filters().iter().filter(|name| is_web(name)) {
        let row = compare(filter);
        assert!(row.cases > 0, "{filter} has no samples");
        cases += row.cases;
        wrong.extend(row.wrong);
    }
    println!("{cases} cases");
    assert!(cases > 150, "{cases}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn filters_that_need_several_lines_are_refused() {
    if !installed() {
        return;
    }
    for name in ["sshd", "dovecot", "exim-spam", "froxlor-auth"] {
        let file = Path::new(FILTERS).join(format!("{name}.conf"));
        let text = std::fs::read_to_string(&file).unwrap();
        let several = text.contains("<F-MLFID>") || text.contains("\nmaxlines =");
        let refused = compiled(name, &BTreeMap::new());
        let leave = |error: &String| error.contains("leave this filter to fail2ban");
        assert_eq!(
            refused.as_ref().is_err_and(leave),
            several,
            "{name}: {refused:?}"
        );
    }
}
