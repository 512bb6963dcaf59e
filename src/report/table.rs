//! The report for a terminal.

use std::fmt::Write as _;
use std::io;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;

use super::detail::Details;
use super::summary::Summary;
use super::words::{count, in_force, minute, number, percent, remarks};
use crate::jail::show_net;
use crate::record::{display, meaning};

/// Clients in the table.
const CLIENTS: usize = 20;

/// Clients whose evidence is shown.
const EVIDENCE: usize = 5;

/// Bytes of a line of evidence.
const LINE: usize = 150;

/// Rows of the smaller tables.
const ROWS: usize = 10;

/// Days shown one by one; the latest.
const DAYS: usize = 31;

/// Width of the longest bar.
const BAR: u64 = 40;

/// The whole text.
///
/// # Errors
/// Details cannot be read.
pub fn text(summary: &Summary, details: &dyn Details) -> io::Result<String> {
    let mut text = format!("Bans {}\n", period(summary));
    let clients = summary.clients.len() as u64;
    let repeat = match summary.repeat {
        0 => String::new(),
        repeat => format!(", {} more than once", number(repeat)),
    };
    let _ = writeln!(
        text,
        "  {} of {}{repeat}",
        count(summary.bans, "ban"),
        count(clients, "client")
    );
    if !summary.query.observed {
        let share = percent(summary.in_force, summary.bans);
        let _ = writeln!(
            text,
            "  still in force: {} ({share})",
            number(summary.in_force)
        );
    }
    for remark in remarks(summary) {
        let _ = writeln!(text, "  {remark}");
    }
    if summary.bans == 0 {
        return Ok(text);
    }
    clients_table(summary, &mut text);
    evidence(summary, details, &mut text)?;
    counted("jail", &summary.jails(), summary.bans, &mut text);
    counted(
        "class of attack",
        &summary.classes(),
        summary.bans,
        &mut text,
    );
    networks(summary, &mut text);
    let days: Vec<_> = summary.days().into_iter().collect();
    let skipped = days.len().saturating_sub(DAYS);
    let days = days.into_iter().skip(skipped);
    bars(
        "day",
        days.map(|(day, bans)| (day.to_string(), bans)),
        &mut text,
    );
    let hours = (0..).zip(summary.hours);
    bars(
        "hour",
        hours.map(|(hour, bans)| (format!("{hour:02}"), bans)),
        &mut text,
    );
    Ok(text)
}

/// `from ... to ...`, in the report's zone.
pub(super) fn period(summary: &Summary) -> String {
    let (since, until) = (summary.query.since, summary.query.until);
    let mut text = match since == Timestamp::MIN {
        true => "from the beginning".to_owned(),
        false => format!("from {}", minute(summary.local(since))),
    };
    let until = until.min(summary.now);
    let _ = write!(text, " to {}", minute(summary.local(until)));
    let query = &summary.query;
    if let Some(jail) = &query.jail {
        let _ = write!(text, ", jail {jail}");
    }
    if let Some(vhost) = &query.vhost {
        let _ = write!(text, ", virtual host {}", display(vhost.as_bytes(), LINE));
    }
    if let Some(net) = &query.net {
        let _ = write!(text, ", network {}", show_net(net));
    }
    text
}

fn clients_table(summary: &Summary, text: &mut String) {
    let mut table = table();
    table.set_header([
        "client", "bans", "first", "last", "in force", "jails", "classes",
    ]);
    for client in summary.clients.iter().take(CLIENTS) {
        table.add_row([
            show_net(&client.net),
            number(client.bans.into()),
            minute(summary.local(client.first())),
            minute(summary.local(client.last())),
            in_force(summary, client),
            summary.jails_of(client).join(" "),
            summary.classes_of(client).join(" "),
        ]);
    }
    let _ = writeln!(text, "\n{table}");
    let more = summary.clients.len().saturating_sub(CLIENTS) as u64;
    if more > 0 {
        let _ = writeln!(
            text,
            "and {} more: `--format csv` and `--format json` have all",
            number(more)
        );
    }
}

fn evidence(summary: &Summary, details: &dyn Details, text: &mut String) -> io::Result<()> {
    let mut lines = String::new();
    for client in summary.clients.iter().take(EVIDENCE) {
        if let Some((time, line)) = details.evidence(client.shown_ban)?.pop() {
            let time = summary.local(time).strftime("%Y-%m-%d %H:%M:%S");
            let line = display(line.as_bytes(), LINE);
            let _ = writeln!(lines, "  {} at {time}:\n    {line}", show_net(&client.net));
            if let Some(meaning) = meaning(&line) {
                let _ = writeln!(lines, "    {meaning}");
            }
        }
    }
    if !lines.is_empty() {
        let _ = write!(text, "\nThe last line that led to a ban:\n{lines}");
    }
    Ok(())
}

fn counted(what: &str, counted: &[(&str, u64)], whole: u64, text: &mut String) {
    if counted.is_empty() {
        return;
    }
    let mut table = table();
    table.set_header([what, "bans", "share"]);
    for (name, bans) in counted.iter().take(ROWS) {
        table.add_row([(*name).to_owned(), number(*bans), percent(*bans, whole)]);
    }
    let _ = writeln!(text, "\n{table}");
}

fn networks(summary: &Summary, text: &mut String) {
    let mut table = table();
    table.set_header(["network", "clients", "bans"]);
    for network in summary.networks.iter().take(ROWS) {
        table.add_row([
            show_net(&network.net),
            number(network.clients),
            number(network.bans),
        ]);
    }
    let _ = writeln!(text, "\n{table}");
}

/// A number and a bar for each row.
fn bars(what: &str, rows: impl Iterator<Item = (String, u64)>, text: &mut String) {
    let rows: Vec<_> = rows.collect();
    let most = rows.iter().map(|(_, bans)| *bans).max().unwrap_or(0).max(1);
    let width = number(most).len();
    let _ = writeln!(text, "\nBans per {what}:");
    for (name, bans) in rows {
        let length = bans.saturating_mul(BAR).div_ceil(most);
        let bar = "#".repeat(usize::try_from(length).unwrap_or(0));
        let row = format!("  {name} {:>width$} {bar}", number(bans));
        let _ = writeln!(text, "{}", row.trim_end());
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table
}
