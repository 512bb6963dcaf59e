//! The engine, its socket and its database, and the workers.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use jiff::Timestamp;

use super::host::{Host, Silence};
use super::outcome::{Outcome, broken, ok, warning};
use super::processes;
use crate::apache::Target;
use crate::config::Backend;
use crate::control::{Command, Reply, WorkerStatus};
use crate::engine;
use crate::record::Kind;
use crate::store::ReadOnly;
use crate::sys::systemd;

/// Lines of which an unparsed majority is no accident.
const ENOUGH_LINES: u64 = 100;

const UNKNOWN: &str = "not known: the engine does not answer";
const NOT_ROOT: &str = "not permitted to ask the engine";

/// What a link says that only the engine knows.
fn unknown() -> Vec<Outcome> {
    vec![warning(UNKNOWN, None)]
}

pub(super) fn running(host: &Host) -> Vec<Outcome> {
    let socket = host.paths.socket();
    let socket = socket.display();
    let outcome = match &host.engine {
        Ok(known) => {
            let engine = &known.engine;
            ok(format!(
                "runs as process {} since {:.0}, back end {}",
                engine.pid, engine.since, engine.backend
            ))
        }
        Err(Silence::NotRunning) => broken(
            format!("the engine is not running: no process listens at {socket}"),
            Some(host.start_engine()),
        ),
        Err(Silence::NotPermitted) => warning(NOT_ROOT, Some("sudo pipeban doctor".to_owned())),
        Err(Silence::NoAnswer(why)) => broken(
            format!("the engine does not answer at {socket}: {why}"),
            Some(host.restart_engine()),
        ),
    };
    vec![outcome]
}

pub(super) fn unit(host: &Host) -> Vec<Outcome> {
    let Ok(known) = &host.engine else {
        return unknown();
    };
    let unit = processes::unit_of(known.engine.pid);
    let within = unit.filter(|unit| {
        ["apache", "httpd"]
            .iter()
            .any(|name| unit.starts_with(name))
    });
    let outcome = match within {
        Some(unit) => warning(
            format!("the engine runs within {unit}: it ends when Apache is stopped, and bans wait"),
            systemd::has_unit().then(|| {
                let stop = host.pipeban("engine --stop");
                format!("{stop}; systemctl enable --now pipeban")
            }),
        ),
        None => ok("the engine does not depend on Apache's unit"),
    };
    vec![outcome]
}

/// From the file, which also says so while no engine runs.
pub(super) fn off(host: &Host) -> Vec<Outcome> {
    let outcome = match engine::off::read(&host.paths, Timestamp::now()) {
        Some(off) => {
            let until = match off.until {
                Some(until) => format!("until {until:.0}"),
                None => "until `pipeban on`".to_owned(),
            };
            broken(
                format!("the emergency stop is on {until}: no client is banned"),
                Some(host.pipeban("on")),
            )
        }
        None => ok("the emergency stop is off"),
    };
    vec![outcome]
}

pub(super) fn socket(host: &Host) -> Vec<Outcome> {
    let path = host.paths.socket();
    let shown = path.display();
    let found = match std::fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(error) => {
            return vec![broken(
                format!("{shown}: {error}"),
                Some(host.restart_engine()),
            )];
        }
    };
    if !found.file_type().is_socket() {
        let fix = format!("rm {shown} && {}", host.restart_engine());
        return vec![broken(format!("{shown} is not a socket"), Some(fix))];
    }
    if host.is_root && !host.engine_uids.contains(&found.uid()) {
        let text = format!(
            "{shown} belongs to uid {}, not to the engine's",
            found.uid()
        );
        return vec![broken(text, Some(format!("chown root {shown}")))];
    }
    if found.mode() & 0o007 != 0 {
        let text = format!("every user may connect to {shown}");
        return vec![broken(text, Some(format!("chmod 660 {shown}")))];
    }
    vec![ok(format!("{shown} is open to root and the group adm"))]
}

/// What the engine itself says is wrong now; other links may say it with a command.
pub(super) fn alarms(host: &Host) -> Vec<Outcome> {
    if host.engine.is_err() {
        return unknown();
    }
    let status = Command::Status {
        jail: None,
        newest: 1,
    };
    let Ok(Reply::Status(status)) = host.ask(&status) else {
        return vec![warning(
            "the engine does not say what is wrong in time",
            None,
        )];
    };
    let alarms = status.warnings.into_iter();
    let alarms: Vec<Outcome> = alarms.map(|alarm| warning(alarm, None)).collect();
    match alarms.is_empty() {
        true => vec![ok("the engine reports no problem")],
        false => alarms,
    }
}

pub(super) fn workers(host: &Host) -> Vec<Outcome> {
    let Ok(known) = &host.engine else {
        return unknown();
    };
    let Some(scan) = host.scan.as_ref().filter(|_| host.apache().is_some()) else {
        return vec![ok("Apache is not running, so there are no workers")];
    };
    let mut missing = Vec::new();
    let logs = scan.layout.servers.iter().flat_map(|server| &server.logs);
    for log in logs {
        let Target::Pipeban(pipe) = &log.target else {
            continue;
        };
        let Some(kind) = pipe.kind.filter(|_| pipe.wrong.is_empty()) else {
            continue;
        };
        let runs =
            |worker: &WorkerStatus| worker.kind == kind && (pipe.dated || worker.path == pipe.path);
        if !known.workers.iter().any(runs) {
            missing.push(broken(
                format!("{}: no worker reads this {}", log.place, log.kind.name()),
                Some(host.reload_apache()),
            ));
        }
    }
    if missing.is_empty() {
        let count = |kind| {
            known
                .workers
                .iter()
                .filter(|worker| worker.kind == kind)
                .count()
        };
        let (access, error) = (count(Kind::Access), count(Kind::Error));
        return vec![ok(format!(
            "{access} read access logs, {error} read error logs"
        ))];
    }
    missing
}

/// What the workers did with their lines.
pub(super) fn lines(host: &Host) -> Vec<Outcome> {
    let Ok(known) = &host.engine else {
        return unknown();
    };
    let mut found: Vec<Outcome> = known
        .workers
        .iter()
        .filter_map(|worker| of_worker(host, worker))
        .collect();
    if found.is_empty() {
        let lines: u64 = known
            .workers
            .iter()
            .map(|worker| worker.counters.lines)
            .sum();
        let hits: u64 = known
            .workers
            .iter()
            .map(|worker| worker.counters.hits)
            .sum();
        found.push(ok(format!("{lines} read, {hits} of them hits")));
    }
    found
}

fn of_worker(host: &Host, worker: &WorkerStatus) -> Option<Outcome> {
    let counters = &worker.counters;
    let name = format!("worker {} of the {} log", worker.pid, worker.kind);
    if !counters.matching {
        let text = format!("{name} passes lines on and matches none: syslog says why");
        return Some(broken(text, Some(host.reload_apache())));
    }
    if let Some(doubt) = &worker.reading.doubt {
        return Some(broken(format!("{name}: {doubt}"), Some(host.setup())));
    }
    if counters.lines >= ENOUGH_LINES && counters.unparsed > counters.lines / 2 {
        let why = worker.reading.unparsed_lines.first();
        let why = why.map_or(String::new(), |unread| format!(": {}", unread.why));
        let text = format!(
            "{name} cannot read {} of {} lines{why}",
            counters.unparsed, counters.lines
        );
        return Some(broken(text, Some(host.setup())));
    }
    let lost = [
        ("could not be written", counters.lines_lost),
        ("were passed on without matching", counters.shed),
        ("were hits that never reached the engine", counters.unsent),
    ];
    let lost: Vec<String> = lost
        .iter()
        .filter(|(_, lines)| *lines > 0)
        .map(|(what, lines)| format!("{lines} lines {what}"))
        .collect();
    (!lost.is_empty()).then(|| warning(format!("{name}: {}", lost.join(", ")), None))
}

/// What the kernel lets a worker give up beside root.
pub(super) fn sandbox(host: &Host) -> Vec<Outcome> {
    let Ok(known) = &host.engine else {
        return unknown();
    };
    let mut missing: Vec<String> = known
        .workers
        .iter()
        .flat_map(|worker| worker.confined.missing())
        .collect();
    missing.sort();
    missing.dedup();
    vec![match missing.is_empty() {
        true => ok("workers have no rights, no files and no network"),
        false => warning(
            format!(
                "this kernel does not confine workers by {}",
                missing.join(", ")
            ),
            None,
        ),
    }]
}

pub(super) fn versions(host: &Host) -> Vec<Outcome> {
    let Ok(known) = &host.engine else {
        return unknown();
    };
    let mut found = Vec::new();
    let engine = &known.engine;
    let replaced = processes::is_replaced(engine.pid) == Some(true);
    if engine.version != env!("CARGO_PKG_VERSION") || replaced {
        found.push(warning(
            format!(
                "the engine runs version {} of a program that was replaced",
                engine.version
            ),
            Some(host.restart_engine()),
        ));
    }
    let old = |worker: &&WorkerStatus| processes::is_replaced(worker.pid) == Some(true);
    let old: Vec<String> = known
        .workers
        .iter()
        .filter(old)
        .map(|worker| worker.pid.to_string())
        .collect();
    if !old.is_empty() {
        found.push(warning(
            format!("workers of a program that was replaced: {}", old.join(", ")),
            Some(host.reload_apache()),
        ));
    }
    if found.is_empty() {
        found.push(ok(format!(
            "engine and workers run version {}",
            engine.version
        )));
    }
    found
}

pub(super) fn database(host: &Host) -> Vec<Outcome> {
    let path = host.paths.database();
    let shown = path.display();
    if !host.is_root {
        return vec![warning(
            "only root can read it",
            Some("sudo pipeban doctor".into()),
        )];
    }
    let opened = match ReadOnly::open(&path) {
        Ok(opened) => opened,
        Err(error) => {
            let text = format!("{shown} cannot be used: {error}");
            return vec![broken(text, Some(host.restart_engine()))];
        }
    };
    if opened.is_none() && !host.config.firewall.has(Backend::DryRun) {
        let text = format!("{shown} does not exist: bans do not survive a restart");
        return vec![broken(text, Some(host.restart_engine()))];
    }
    let broken_ones = std::fs::read_dir(&host.paths.state).into_iter().flatten();
    let broken_ones = broken_ones.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().contains(".broken-")
    });
    match broken_ones.count() {
        0 => vec![ok(format!("{shown} can be read"))],
        _ => vec![warning(
            "a damaged database was set aside; its allow-list and history are lost",
            Some(format!("rm {shown}.broken-*")),
        )],
    }
}
