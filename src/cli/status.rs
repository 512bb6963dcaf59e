//! `pipeban status`

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Global;
use super::ask::{self, print};
use super::exit::Exit;
use crate::apache;
use crate::config::{self, JailName};
use crate::control::{BanStatus, Command, JailStatus, Reply, Status, WorkerStatus};
use crate::engine;

/// Bans shown for one jail in the overview.
const SHOWN_IN_OVERVIEW: usize = 10;

/// Engine, workers, jails and bans
///
/// What is wrong comes first. "In force" is what the kernel says of each ban, not what ufw says.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    pipeban status\n  \
    pipeban status apache-auth\n  \
    pipeban status --json | jq '.jails[].banned[].host'")]
pub(super) struct Args {
    /// Only this jail, with all its bans
    jail: Option<JailName>,
}

pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let jail = args.jail.clone();
    let reply = match ask::ask(global, &Command::Status { jail }) {
        Ok(reply) => reply,
        Err(error) => {
            if is_off(global) {
                eprintln!("! not banning at all: the emergency stop is on; `pipeban on` ends it");
            }
            ask::complain(global, &ask::explain(global, &error));
            return ask::exit_of(&error);
        }
    };
    let Reply::Status(mut status) = reply else {
        return ask::show(global, &reply);
    };
    // A host without Apache's configuration has no logs to name.
    if let Ok(scan) = apache::scan(None) {
        status.warnings.extend(scan.warnings());
    }
    if global.json {
        match serde_json::to_string(&status) {
            Ok(text) => print(&text),
            Err(error) => {
                eprintln!("pipeban: {error}");
                return Exit::Failed;
            }
        }
        return Exit::Yes;
    }
    show(&status, args.jail.is_some());
    Exit::Yes
}

/// Whether the emergency stop is on, as far as this user may see.
fn is_off(global: &Global) -> bool {
    let paths = config::paths_of(&global.config);
    paths.off_file().exists() && engine::off::read(&paths, Timestamp::now()).is_some()
}

fn show(status: &Status, one_jail: bool) {
    for warning in &status.warnings {
        print(&format!("! {warning}"));
    }
    let engine = &status.engine;
    print(&format!(
        "engine: pid {}, version {}, since {}, back end {}, configuration {}",
        engine.pid,
        engine.version,
        local(engine.since),
        engine.backend,
        engine.config
    ));
    if !one_jail && !status.workers.is_empty() {
        print(&workers(&status.workers).to_string());
        for worker in &status.workers {
            if let Some(text) = reading(worker) {
                print(&text);
            }
        }
    }
    print(&jails(&status.jails).to_string());
    for jail in &status.jails {
        bans(jail, one_jail);
    }
}

fn workers(workers: &[WorkerStatus]) -> Table {
    let mut table = table();
    table.set_header([
        "worker", "log", "to", "lines", "bytes", "waiting", "lost", "unparsed", "torn", "shed",
    ]);
    for worker in workers {
        let counters = &worker.counters;
        let log = if counters.matching {
            worker.kind.to_string()
        } else {
            format!("{} (not matched)", worker.kind)
        };
        let path = worker.path.as_ref().map(|path| path.display().to_string());
        table.add_row([
            worker.pid.to_string(),
            log,
            path.unwrap_or_else(|| "matcher only".into()),
            counters.lines.to_string(),
            counters.bytes.to_string(),
            counters.lines_waiting.to_string(),
            counters.lines_lost.to_string(),
            counters.unparsed.to_string(),
            counters.torn.to_string(),
            counters.shed.to_string(),
        ]);
    }
    table
}

/// As what a worker reads its lines, and what it could not read.
fn reading(worker: &WorkerStatus) -> Option<String> {
    let (reading, counters) = (&worker.reading, &worker.counters);
    let format = reading.format.as_deref();
    // What is as it always is needs no line.
    if matches!(format, Some("default") | None) && counters.unparsed == 0 {
        return None;
    }
    let format = match format {
        Some(format) => format!("format `{format}`"),
        None => "format not known".to_owned(),
    };
    let mut text = format!("worker {}: {} log, {format}", worker.pid, worker.kind);
    if counters.unparsed > 0 {
        let percent = counters.unparsed.saturating_mul(100) / counters.lines.max(1);
        let percent = match percent {
            0 => "less than 1".to_owned(),
            percent => percent.to_string(),
        };
        text.push_str(&format!(", {percent} % unparsed"));
    }
    for unread in &reading.unparsed_lines {
        let (line, begins, why) = (unread.line, &unread.begins, &unread.why);
        text.push_str(&format!("\n  line {line} begins `{begins}`: {why}"));
    }
    if let Some(doubt) = &reading.doubt {
        text.push_str(&format!("\n  {doubt}"));
    }
    Some(text)
}

fn jails(jails: &[JailStatus]) -> Table {
    let mut table = table();
    table.set_header([
        "jail",
        "failed now",
        "failed ever",
        "banned now",
        "banned ever",
    ]);
    for jail in jails {
        let name = match (jail.enabled, jail.enforce) {
            (false, _) => format!("{} (disabled)", jail.name),
            (true, false) => format!("{} (only observes)", jail.name),
            (true, true) => jail.name.to_string(),
        };
        table.add_row([
            name,
            jail.currently_failed.to_string(),
            jail.total_failed.to_string(),
            jail.currently_banned.to_string(),
            jail.total_banned.to_string(),
        ]);
    }
    table
}

fn bans(jail: &JailStatus, all: bool) {
    for (title, bans) in [
        ("banned", &jail.banned),
        ("would be banned", &jail.observed),
    ] {
        if bans.is_empty() {
            continue;
        }
        print(&format!("{title} by {}:", jail.name));
        let mut table = table();
        table.set_header(["id", "client", "since", "until", "in force", "ufw", "why"]);
        let shown = if all { bans.len() } else { SHOWN_IN_OVERVIEW };
        for ban in bans.iter().take(shown) {
            table.add_row(row(ban));
        }
        print(&table.to_string());
        if bans.len() > shown {
            let (more, name) = (bans.len() - shown, &jail.name);
            print(&format!("and {more} more: `pipeban status {name}`"));
        }
    }
}

fn row(ban: &BanStatus) -> [String; 7] {
    let in_force = match (ban.in_force, ban.behind) {
        (_, Some(peer)) => format!("no: behind {peer}"),
        (Some(true), None) => "yes".into(),
        (Some(false), None) => "NO".into(),
        (None, None) => "-".into(),
    };
    [
        ban.id.clone(),
        ban.host.clone(),
        local(ban.since),
        ban.until.map_or_else(|| "for ever".into(), local),
        in_force,
        ban.ufw.clone().unwrap_or_else(|| "-".into()),
        ban.reason.clone().unwrap_or_default(),
    ]
}

fn table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn local(time: Timestamp) -> String {
    let time = time.to_zoned(TimeZone::system());
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}
