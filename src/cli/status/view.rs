//! The text of `pipeban status`. Pure: the time and the width are arguments.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::cause::{Cause, cause};
use super::text::{length, without_bans, wrap};
use crate::config::JailName;
use crate::control::{BanStatus, JailStatus, Status, WorkerStatus};

/// A worker needs attention from this share of unparsed lines on.
const UNPARSED: (u64, &str) = (100, "1 %");

/// Columns for the jails of a client at least, and for its network at most where these lack.
const JAILS: usize = 19;
const NETWORK: usize = 24;

/// Between two columns.
const GAP: usize = 2;

/// How to show it.
pub(super) struct View {
    pub(super) width: usize,
    pub(super) verbose: bool,
    /// Only one jail was asked for.
    pub(super) one_jail: bool,
    pub(super) now: Timestamp,
    pub(super) zone: TimeZone,
}

/// The bans of one client or network, one for each jail.
pub(super) type Client<'a> = (&'a str, Vec<(&'a JailName, &'a BanStatus)>);

/// Columns of the table of bans; they only grow.
#[derive(Debug, Default)]
pub(super) struct Widths([usize; 4]);

const IN_FORCE: &str = "in force";
const HEADINGS: [&str; 5] = ["client", "since", "until", IN_FORCE, "jails"];

impl View {
    /// Problems, bans, and the rest. The first one can be empty.
    pub(super) fn parts(&self, status: &Status) -> (String, String, String) {
        let problems = status.warnings.iter();
        let problems = problems.map(|text| wrap(text, "! ", 2, self.width));
        let mut rest = Vec::new();
        if !self.one_jail && !status.workers.is_empty() {
            rest.push(self.workers(&status.workers));
        }
        rest.push(self.jails(&status.jails) + "\n" + &self.engine(status));
        let problems = problems.collect::<Vec<_>>().join("\n");
        (problems, self.bans(&status.jails), rest.join("\n\n"))
    }

    fn bans(&self, jails: &[JailStatus]) -> String {
        let banned: Vec<_> = jails
            .iter()
            .flat_map(|jail| jail.banned.iter().map(move |ban| (&jail.name, ban)))
            .collect();
        let observed: Vec<_> = jails
            .iter()
            .flat_map(|jail| jail.observed.iter().map(move |ban| (&jail.name, ban)))
            .collect();
        let count = jails.iter().map(|jail| jail.currently_banned).sum();
        let mut parts = vec![self.section("banned now", count, &banned)];
        let count = jails.iter().map(|jail| jail.currently_observed).sum();
        if count > 0 {
            let title = "would be banned (enforce = false)";
            parts.push(self.section(title, count, &observed));
        }
        parts.join("\n\n")
    }

    fn section(&self, title: &str, count: u64, bans: &[(&JailName, &BanStatus)]) -> String {
        let clients = newest_first(bans);
        // One attack can lead to bans of several jails.
        let mut text = match (bans.len() as u64) < count {
            true => format!(
                "{title}: {count} bans (the {} clients banned last; `--all` shows every one)",
                clients.len()
            ),
            false => format!("{title}: {}", clients.len()),
        };
        text = wrap(&text, "", 2, self.width);
        if !bans.is_empty() {
            let mut widths = Widths::default();
            widths.fit(self, &clients);
            text.push('\n');
            text.push_str(&self.heading(&widths));
            for client in &clients {
                text.push('\n');
                text.push_str(&self.client(client, &widths));
            }
        }
        text
    }

    pub(super) fn heading(&self, widths: &Widths) -> String {
        let [client, since, until, in_force, jails] = HEADINGS;
        row([client, since, until, in_force].map(str::to_owned), widths) + jails
    }

    /// One client: a line, and its cause behind it where that fits, else below.
    pub(super) fn client(&self, client: &Client<'_>, widths: &Widths) -> String {
        let (host, bans) = client;
        let mut cells = self.cells(client);
        let mut text = String::new();
        let [column, ..] = widths.0;
        if length(host) > column {
            let [host, ..] = &mut cells;
            text = std::mem::take(host) + "\n";
        }
        let row = row(cells, widths);
        text.push_str(&row);
        let jails = self.jails_of(bans, self.width.saturating_sub(length(&row)));
        let causes = self.causes(bans);
        let used = length(&row) + length(&jails);
        if used <= self.width {
            text.push_str(&jails);
        } else {
            text.truncate(text.trim_end().len());
            text.push('\n');
            text.push_str(&wrap(&jails, "    ", 4, self.width));
        }
        match causes.as_slice() {
            [cause] if used.saturating_add(GAP + length(&cause.line())) <= self.width => {
                text.push_str("  ");
                text.push_str(&cause.line());
            }
            causes => {
                for cause in causes {
                    text.push('\n');
                    text.push_str(&cause.lines(self.width));
                }
            }
        }
        text
    }

    fn cells(&self, (host, bans): &Client<'_>) -> [String; 4] {
        let since = bans.iter().map(|(_, ban)| ban.since).min();
        let until = bans.iter().map(|(_, ban)| ban.until);
        let until = until
            .max_by_key(|until| (until.is_none(), *until))
            .flatten();
        [
            (*host).to_owned(),
            since.map_or(String::new(), |since| self.time(since)),
            until.map_or_else(|| "for ever".into(), |until| left(until, self.now)),
            in_force(bans),
        ]
    }

    /// The jails of a client. Where these fit neither in `width` nor in a line, that with the newest
    /// ban, whose cause is shown, and how many more; all with `-v`.
    fn jails_of(&self, bans: &[(&JailName, &BanStatus)], width: usize) -> String {
        let jails: Vec<String> = bans
            .iter()
            .map(|(jail, ban)| self.jail(jail, ban))
            .collect();
        let all = jails.join(", ");
        let newest = bans.iter().rev().max_by_key(|(_, ban)| ban.since);
        let Some((jail, _)) = newest.filter(|_| bans.len() > 1 && !self.verbose) else {
            return all;
        };
        let short = format!("{jail} and {} more", bans.len() - 1);
        let fits_a_line = length(&all).saturating_add(4) <= self.width;
        match length(&all) <= width || (fits_a_line && length(&short) > width) {
            true => all,
            false => short,
        }
    }

    /// A jail of a client's; with what only some administrators want.
    fn jail(&self, jail: &JailName, ban: &BanStatus) -> String {
        if !self.verbose {
            return jail.to_string();
        }
        let ufw = ban.ufw.as_ref();
        let ufw = ufw.map_or(String::new(), |ufw| format!(" ufw: {ufw}"));
        format!("{jail} ({}{ufw})", ban.id)
    }

    /// Why: of the newest ban, or with `-v` of each one.
    fn causes(&self, bans: &[(&JailName, &BanStatus)]) -> Vec<Cause> {
        let whole = self.verbose || self.width == usize::MAX;
        let mut newest = bans.to_vec();
        newest.sort_by_key(|(_, ban)| std::cmp::Reverse(ban.since));
        let mut causes: Vec<Cause> = Vec::new();
        for cause in newest
            .into_iter()
            .filter_map(|(jail, ban)| cause(jail, ban, whole))
        {
            if !causes.contains(&cause) {
                causes.push(cause);
            }
        }
        causes.truncate(if self.verbose { usize::MAX } else { 1 });
        causes
    }

    fn workers(&self, workers: &[WorkerStatus]) -> String {
        let (sick, healthy): (Vec<_>, Vec<_>) =
            workers.iter().partition(|worker| needs_attention(worker));
        let lines: u64 = healthy.iter().map(|worker| worker.counters.lines).sum();
        let mut text = match healthy.len() {
            0 => String::new(),
            1 => format!("workers: 1 healthy, {lines} lines read"),
            healthy => format!("workers: {healthy} healthy, {lines} lines read"),
        };
        let in_full = if self.verbose {
            workers.iter().collect()
        } else {
            sick
        };
        for worker in in_full {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&self.worker(worker));
        }
        text
    }

    fn worker(&self, worker: &WorkerStatus) -> String {
        let (reading, counters) = (&worker.reading, &worker.counters);
        let format = match reading.format.as_deref() {
            Some(format) => format!("format `{format}`"),
            None => "format not detected yet".to_owned(),
        };
        let mut title = format!("worker {}: {} log, {format}", worker.pid, worker.kind);
        if counters.unparsed > 0 {
            let percent = counters.unparsed.saturating_mul(100) / counters.lines.max(1);
            let percent = match percent {
                0 => format!("less than {}", UNPARSED.1),
                percent => format!("{percent} %"),
            };
            title.push_str(&format!(", {percent} unparsed"));
        }
        if !counters.matching && counters.lines > 0 {
            title.push_str(", NOT MATCHED: lines only pass");
        }
        let mut parts = vec![wrap(&title, "", 2, self.width)];
        let path = worker.path.as_ref();
        let path = path.map_or("matcher only".into(), |path| path.display().to_string());
        parts.push(format!("  {path}"));
        let numbers = [
            ("lines", counters.lines),
            ("bytes", counters.bytes),
            ("waiting", counters.lines_waiting),
            ("lost", counters.lines_lost),
            ("unparsed", counters.unparsed),
            ("torn", counters.torn),
            ("shed", counters.shed),
            ("hits", counters.hits),
            ("unsent", counters.unsent),
            ("restarts", counters.restarts),
        ];
        let numbers = numbers.map(|(name, number)| format!("{name}\u{a0}{number}"));
        let numbers = wrap(&numbers.join(", "), "  ", 2, self.width);
        parts.push(numbers.replace('\u{a0}', " "));
        for unread in &reading.unparsed_lines {
            let (line, begins, why) = (unread.line, &unread.begins, &unread.why);
            let text = format!("line {line} begins `{begins}`: {why}");
            parts.push(wrap(&text, "  ", 4, self.width));
        }
        if let Some(doubt) = &reading.doubt {
            parts.push(wrap(doubt, "  ", 2, self.width));
        }
        parts.join("\n")
    }

    fn jails(&self, jails: &[JailStatus]) -> String {
        let all = self.verbose || self.one_jail;
        let counts = |jail: &JailStatus| {
            [
                jail.currently_failed,
                jail.total_failed,
                jail.currently_banned,
                jail.total_banned,
            ]
        };
        let idle = |jail: &&JailStatus| {
            let observed = jail.currently_observed;
            !all && observed == 0 && counts(jail) == [0; 4]
        };
        let (idle, shown): (Vec<_>, Vec<_>) = jails.iter().partition(idle);
        let mut parts = Vec::new();
        if !shown.is_empty() {
            let mut table = Table::new();
            table
                .load_style(presets::NOTHING)
                .set_content_arrangement(ContentArrangement::Disabled);
            table.set_header([
                "jail",
                "Currently\nfailed",
                "Total\nfailed",
                "Currently\nbanned",
                "Total\nbanned",
            ]);
            for jail in shown {
                let name = match (jail.enabled, jail.enforce) {
                    (false, _) => format!("{} (disabled)", jail.name),
                    (true, false) => format!("{} (observes)", jail.name),
                    (true, true) => jail.name.to_string(),
                };
                let counts = counts(jail).map(|count| count.to_string());
                table.add_row([name].into_iter().chain(counts));
            }
            let lines = table.to_string();
            // Without the blank column on the left, which a table without borders has.
            let lines = lines
                .lines()
                .map(|line| line.get(1..).unwrap_or(line).trim_end());
            parts.push(lines.collect::<Vec<_>>().join("\n"));
        }
        let enabled: Vec<String> = idle
            .iter()
            .filter(|jail| jail.enabled)
            .map(|jail| jail.name.to_string())
            .collect();
        if !enabled.is_empty() {
            let text = format!("jails without a hit: {}", enabled.join(", "));
            parts.push(wrap(&text, "", 2, self.width));
        }
        if !self.one_jail {
            let jails = jails.iter();
            let without_bans =
                without_bans(jails.map(|jail| (&jail.name, jail.enabled, jail.enforce)));
            parts.extend(
                without_bans
                    .iter()
                    .map(|text| wrap(text, "", 2, self.width)),
            );
        }
        parts.join("\n")
    }

    fn engine(&self, status: &Status) -> String {
        let engine = &status.engine;
        let ports: Vec<String> = engine.apache_ports.iter().map(u16::to_string).collect();
        let text = format!(
            "engine: pid {}, version {}, since {}, back end {}, Apache's ports {}, configuration {}",
            engine.pid,
            engine.version,
            self.time(engine.since),
            engine.backend,
            ports.join(" "),
            engine.config
        );
        wrap(&text, "", 2, self.width)
    }

    /// As short as it can be understood; whole with `-v`.
    fn time(&self, time: Timestamp) -> String {
        let (time, now) = (
            time.to_zoned(self.zone.clone()),
            self.now.to_zoned(self.zone.clone()),
        );
        let format = match () {
            () if self.verbose => "%Y-%m-%d %H:%M:%S",
            () if time.date() == now.date() => "%H:%M",
            () if time.year() == now.year() => "%b %d %H:%M",
            () => "%Y-%m-%d",
        };
        time.strftime(format).to_string()
    }
}

/// How long until then, in two units at most.
pub(in crate::cli) fn left(until: Timestamp, now: Timestamp) -> String {
    let seconds = until.as_second().saturating_sub(now.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match days {
        7.. => format!("{days}d left"),
        1.. => format!("{days}d {}h left", hours % 24),
        _ if hours > 0 => format!("{hours}h {}m left", minutes % 60),
        _ if minutes > 0 => format!("{minutes}m left"),
        _ => format!("{seconds}s left"),
    }
}

impl Widths {
    pub(super) fn fit(&mut self, view: &View, clients: &[Client<'_>]) {
        let headings = HEADINGS.into_iter().map(length);
        grow(&mut self.0, headings);
        for client in clients {
            grow(
                &mut self.0,
                view.cells(client).iter().map(|cell| length(cell)),
            );
        }
        let whole: usize = self.0.iter().map(|width| width + GAP).sum();
        if whole + JAILS > view.width {
            // Longer cells have a line of their own, or push the jails to the next one.
            let [client, _, _, in_force] = &mut self.0;
            *client = (*client).min(NETWORK);
            *in_force = (*in_force).min(IN_FORCE.len());
        }
    }
}

fn grow(widths: &mut [usize], cells: impl Iterator<Item = usize>) {
    for (width, cell) in widths.iter_mut().zip(cells) {
        *width = cell.max(*width);
    }
}

/// Cells with their gaps.
fn row(cells: [String; 4], widths: &Widths) -> String {
    let cells = cells.iter().zip(widths.0);
    let padded = cells.map(|(cell, width)| format!("{cell:width$}{:GAP$}", ""));
    padded.collect()
}

/// One entry for each client, that with the newest ban first.
fn newest_first<'a>(bans: &[(&'a JailName, &'a BanStatus)]) -> Vec<Client<'a>> {
    let mut clients: BTreeMap<&str, Vec<(&JailName, &BanStatus)>> = BTreeMap::new();
    for (jail, ban) in bans {
        clients
            .entry(ban.host.as_str())
            .or_default()
            .push((jail, ban));
    }
    let mut clients: Vec<Client<'_>> = clients.into_iter().collect();
    let newest = |client: &Client<'_>| client.1.iter().map(|(_, ban)| ban.since).max();
    clients.sort_by_key(|client| std::cmp::Reverse(newest(client)));
    clients
}

/// Of several bans the one that is worst off.
pub(in crate::cli) fn in_force(bans: &[(&JailName, &BanStatus)]) -> String {
    let words = bans
        .iter()
        .map(|(_, ban)| match (ban.in_force, ban.behind) {
            (Some(false), _) => (4, "NO".to_owned()),
            (None, Some(peer)) => (3, format!("no: behind {peer}")),
            (None, None) => (2, "-".to_owned()),
            (Some(true), Some(_)) => (1, "403 by Apache".to_owned()),
            (Some(true), None) => (0, "yes".to_owned()),
        });
    words.max().map_or(String::new(), |(_, word)| word)
}

fn needs_attention(worker: &WorkerStatus) -> bool {
    let counters = &worker.counters;
    // A worker prepares its patterns at its first line.
    !counters.matching && counters.lines > 0
        || counters.lines_lost > 0
        || counters.shed > 0
        || counters.unsent > 0
        || worker.reading.doubt.is_some()
        || counters.unparsed > counters.lines / UNPARSED.0
}

#[cfg(test)]
pub(super) mod tests;
