//! Prometheus's text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::control::{Counters, JailStatus, Status};

/// A name, its help, its type, and how to read it.
type Row<T> = (&'static str, &'static str, Kind, fn(&T) -> u64);

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Its name ends in `_total`.
    Counter,
    Gauge,
}

/// Of each log: a pipe that Apache starts again continues it at 0.
#[rustfmt::skip] // a table
const LOGS: &[Row<Counters>] = &[
    ("log_lines_total", "Lines read from the pipe.", Kind::Counter, |c| c.lines),
    ("log_read_bytes_total", "Bytes read from the pipe.", Kind::Counter, |c| c.bytes),
    ("log_written_bytes_total", "Bytes written to the log file.", Kind::Counter, |c| c.written),
    ("log_lost_lines_total", "Lines that could not be written.", Kind::Counter, |c| c.lines_lost),
    ("log_matched_lines_total", "Lines that the filters saw.", Kind::Counter, |c| c.matched),
    ("log_unparsed_lines_total", "Lines of another format.", Kind::Counter, |c| c.unparsed),
    ("log_torn_lines_total", "Lines too long, or possibly part of another line.", Kind::Counter, |c| c.torn),
    ("log_shed_lines_total", "Lines passed on without matching.", Kind::Counter, |c| c.shed),
    ("log_spoofed_lines_total", "Lines that hit only another address than the client's.", Kind::Counter, |c| c.spoofed),
    ("log_hits_total", "Lines with a hit.", Kind::Counter, |c| c.hits),
    ("log_unsent_hits_total", "Hits that never reached the engine.", Kind::Counter, |c| c.unsent),
    ("log_undecided_total", "Times that a pattern gave up on a line.", Kind::Counter, |c| c.undecided),
    ("log_worker_restarts_total", "Restarts of the worker.", Kind::Counter, |c| c.restarts),
    ("log_pending_lines", "Lines that wait for matching.", Kind::Gauge, |c| c.pending),
    ("log_waiting_lines", "Lines that wait to be written.", Kind::Gauge, |c| c.lines_waiting),
];

#[rustfmt::skip] // a table
const JAILS: &[Row<JailStatus>] = &[
    ("jail_enabled", "Whether the jail is enabled.", Kind::Gauge, |j| u64::from(j.enabled)),
    ("jail_enforced", "Whether the jail's bans are enforced.", Kind::Gauge, |j| u64::from(j.enforce)),
    ("jail_failing_clients", "Clients with hits in the window.", Kind::Gauge, |j| j.currently_failed),
    ("jail_failures_total", "Hits since the first start.", Kind::Counter, |j| j.total_failed),
    ("jail_active_bans", "Bans in force.", Kind::Gauge, |j| j.currently_banned),
    ("jail_bans_total", "Bans since the first start.", Kind::Counter, |j| j.total_banned),
    ("jail_observed_clients", "Clients that the jail would ban, with enforce = false.", Kind::Gauge, |j| j.currently_observed),
];

/// All metrics of a status.
pub fn text(status: &Status) -> String {
    let mut text = String::new();
    let engine = &status.engine;
    family(
        &mut text,
        ("build_info", "The engine's version.", Kind::Gauge),
        [(labels(&[("version", &engine.version)]), 1)],
    );
    let since = u64::try_from(engine.since.as_second()).unwrap_or(0);
    let problems = status.warnings.len() as u64;
    for (name, help, value) in [
        (
            "start_time_seconds",
            "Start of the engine, in seconds since 1970.",
            since,
        ),
        (
            "emergency_stop",
            "Whether `pipeban off` lifts all bans.",
            u64::from(engine.off.is_some()),
        ),
        (
            "problems",
            "Problems that `pipeban status` shows.",
            problems,
        ),
        ("workers", "Connected workers.", status.workers.len() as u64),
    ] {
        family(
            &mut text,
            (name, help, Kind::Gauge),
            [(String::new(), value)],
        );
    }
    // Several pipes can have no file, or one each of the same file.
    let mut logs: BTreeMap<String, Vec<&Counters>> = BTreeMap::new();
    for worker in &status.workers {
        let path = worker.path.as_ref();
        let path = path.map_or(String::new(), |path| path.display().to_string());
        let labels = labels(&[("kind", &worker.kind.to_string()), ("path", &path)]);
        logs.entry(labels).or_default().push(&worker.counters);
    }
    let unmatched = logs.iter().map(|(labels, of)| {
        let all = of.iter().all(|counters| counters.matching);
        (labels.clone(), u64::from(all))
    });
    let row = ("log_matching", "Whether lines are matched.", Kind::Gauge);
    family(&mut text, row, unmatched);
    for (name, help, kind, read) in LOGS {
        let samples = logs.iter().map(|(labels, of)| {
            let sum = of
                .iter()
                .fold(0u64, |sum, one| sum.saturating_add(read(one)));
            (labels.clone(), sum)
        });
        family(&mut text, (name, help, *kind), samples);
    }
    for (name, help, kind, read) in JAILS {
        let samples = status
            .jails
            .iter()
            .map(|jail| (labels(&[("jail", jail.name.as_str())]), read(jail)));
        family(&mut text, (name, help, *kind), samples);
    }
    text
}

/// Writing to a String cannot fail.
fn family(
    text: &mut String,
    (name, help, kind): (&str, &str, Kind),
    samples: impl IntoIterator<Item = (String, u64)>,
) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    let _ = writeln!(
        text,
        "# HELP pipeban_{name} {help}\n# TYPE pipeban_{name} {kind}"
    );
    for (labels, value) in samples {
        let _ = writeln!(text, "pipeban_{name}{labels} {value}");
    }
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        value.replace('\n', "\\n")
    };
    let pairs = pairs.iter();
    let pairs = pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{EngineStatus, PortsStatus, Reading, WorkerStatus};
    use crate::record::Kind as Log;

    #[test]
    fn pipes_with_one_name_are_one_log_and_texts_are_escaped() {
        let worker = |path: Option<&str>, lines| WorkerStatus {
            pid: 7,
            kind: Log::Access,
            path: path.map(Into::into),
            counters: Counters {
                lines,
                matching: true,
                ..Counters::default()
            },
            reading: Reading::default(),
            slowest: None,
            confined: Default::default(),
        };
        let status = Status {
            engine: EngineStatus {
                pid: 1,
                since: jiff::Timestamp::from_second(1_800_000_000).unwrap(),
                version: "0.1.0".into(),
                config: String::new(),
                backend: "nftables".into(),
                off: None,
                apache_ports: vec![80, 443, 8443],
            },
            workers: vec![worker(None, 3), worker(None, 4), worker(Some("/a\"\\b"), 5)],
            jails: vec![JailStatus {
                name: "apache-auth".parse().unwrap(),
                enabled: true,
                enforce: true,
                ports: PortsStatus::List(vec![80, 443, 8443]),
                currently_failed: 1,
                total_failed: 2,
                currently_banned: 3,
                total_banned: 4,
                currently_observed: 0,
                banned: Vec::new(),
                observed: Vec::new(),
            }],
            failing: Vec::new(),
            warnings: Vec::new(),
        };
        let text = text(&status);
        for line in [
            "pipeban_build_info{version=\"0.1.0\"} 1",
            "pipeban_start_time_seconds 1800000000",
            "pipeban_log_lines_total{kind=\"access\",path=\"\"} 7",
            "pipeban_log_lines_total{kind=\"access\",path=\"/a\\\"\\\\b\"} 5",
            "pipeban_jail_active_bans{jail=\"apache-auth\"} 3",
            "# TYPE pipeban_jail_bans_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        // A name that ends in `_total` is a counter's, and no other is.
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            assert_eq!(
                line.contains("_total "),
                line.ends_with(" counter"),
                "{line}"
            );
        }
    }
}
