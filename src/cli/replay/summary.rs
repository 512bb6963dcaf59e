//! The output of `pipeban replay`: events as they come, and what they add up to.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use ipnet::IpNet;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use super::timeline::{Clock, Counts, Event};
use crate::alert;
use crate::cli::stamp;
use crate::config::{Config, JailName};
use crate::jail::{Action, Ban, Mode, Now, show_net};
use crate::record::{Kind, display_json};

/// What the events add up to.
pub(super) struct Summary {
    json: bool,
    jails: BTreeMap<JailName, OfJail>,
    bans: u64,
    banned: HashSet<IpNet>,
}

#[derive(Default)]
struct OfJail {
    observes: bool,
    hits: u64,
    ignored: u64,
    /// With `enforce = false` those that it would have made.
    bans: u64,
    clients: HashSet<IpAddr>,
}

/// The JSON object of an event.
#[derive(Serialize)]
struct EventLine<'e> {
    time: Option<String>,
    event: &'static str,
    jail: &'e JailName,
    host: String,
    failures: u32,
    until: Option<String>,
}

/// The last JSON object.
#[derive(Serialize)]
struct SummaryLine {
    event: &'static str,
    lines: u64,
    unparsed: u64,
    hits: u64,
    bans: u64,
    hosts: usize,
}

impl Summary {
    pub(super) fn new(config: &Config, kind: Kind, json: bool) -> Summary {
        // Jails without a kind of log count the bans of the others.
        let reads = |log: crate::config::Log| log.kind().is_none_or(|of_jail| of_jail == kind);
        let jails = config.jails.iter();
        let jails = jails.filter(|(_, jail)| jail.enabled && reads(jail.log));
        let jails = jails.map(|(name, jail)| {
            let of_jail = OfJail {
                observes: !jail.enforce,
                ..OfJail::default()
            };
            (name.clone(), of_jail)
        });
        Summary {
            json,
            jails: jails.collect(),
            bans: 0,
            banned: HashSet::new(),
        }
    }

    /// Whether a client would have been banned.
    pub(super) fn has_bans(&self) -> bool {
        self.bans > 0
    }

    /// Counts an event, and appends its line to `out` if it has one.
    pub(super) fn add(&mut self, clock: &Clock, event: &Event<'_>, out: &mut String) {
        self.count(event);
        if self.json {
            let Some(line) = json(clock, event) else {
                return;
            };
            out.push_str(&display_json(
                &serde_json::to_string(&line).unwrap_or_default(),
            ));
        } else {
            let is_shown = matches!(event.action, Action::Ban(_) | Action::Unban { .. });
            let Some((_, words)) = alert::words(event.action).filter(|_| is_shown) else {
                return;
            };
            let time = event.now.map(|now| clock.zoned(now.wall));
            out.push_str(&time.as_ref().map_or_else(|| "no time".to_owned(), plain));
            out.push(' ');
            out.push_str(&words);
        }
        out.push('\n');
    }

    fn count(&mut self, event: &Event<'_>) {
        let (jail, hits, ignored) = match event.action {
            Action::Found { jail, .. } | Action::AlreadyBanned { jail, .. } => (jail, 1, 0),
            Action::Ignore { jail, .. } => (jail, 1, 1),
            Action::Spared { jail, .. } => (jail, 0, 1),
            Action::Ban(ban) => {
                if ban.mode != Mode::Observed {
                    self.bans += 1;
                    self.banned.insert(ban.net);
                }
                self.jails.entry(ban.jail.clone()).or_default().bans += 1;
                return;
            }
            Action::Restore(_)
            | Action::Confirmed(_)
            | Action::Unban { .. }
            | Action::NoSuchJail => return,
        };
        let of_jail = self.jails.entry(jail.clone()).or_default();
        of_jail.hits += hits;
        of_jail.ignored += ignored;
        of_jail.clients.extend(event.hit.map(|hit| hit.client));
    }

    /// What everything adds up to.
    pub(super) fn finish(&self, counts: &Counts, clock: &Clock, took: Duration) -> String {
        if self.json {
            let line = SummaryLine {
                event: "summary",
                lines: counts.lines,
                unparsed: counts.unparsed,
                hits: counts.hits,
                bans: self.bans,
                hosts: self.banned.len(),
            };
            return display_json(&serde_json::to_string(&line).unwrap_or_default()) + "\n";
        }
        let mut text = format!("\n{}\n\nlines: {}", self.table(), counts.lines);
        if let Some((first, last)) = clock.span() {
            text += &format!(", {} to {}", plain(&first), plain(&last));
        }
        text += &format!(
            "; unparsed: {}, hits: {}, bans: {}, clients: {}; {:.2} s\n",
            counts.unparsed,
            counts.hits,
            self.bans,
            self.banned.len(),
            took.as_secs_f64()
        );
        if let Some((number, why)) = counts.first_unparsed {
            text += &format!("line {number} is the first unparsed one: {why}\n");
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(["jail", "hits", "ignored", "bans", "clients"]);
        for (name, jail) in &self.jails {
            let name = match jail.observes {
                true => format!("{name} (observe only)"),
                false => name.to_string(),
            };
            table.add_row([
                name,
                jail.hits.to_string(),
                jail.ignored.to_string(),
                jail.bans.to_string(),
                jail.clients.len().to_string(),
            ]);
        }
        table
    }
}

/// `None`: the action is no event.
fn json<'e>(clock: &Clock, event: &Event<'e>) -> Option<EventLine<'e>> {
    let shown = |time: Timestamp| stamp::rfc3339(&clock.zoned(time));
    let time = event.now.map(|now| shown(now.wall));
    let of_ban = |event, ban: &'e Ban, now: Option<Now>| EventLine {
        time: time.clone(),
        event,
        jail: &ban.jail,
        host: show_net(&ban.net),
        failures: ban.failures,
        until: ban.until.zip(now).map(|(end, now)| shown(now.wall_of(end))),
    };
    Some(match event.action {
        Action::Ban(ban) => match ban.mode {
            Mode::Observed => of_ban("would-ban", ban, event.now),
            _ => of_ban("ban", ban, event.now),
        },
        Action::Unban { ban, .. } => match ban.mode {
            Mode::Observed => of_ban("would-unban", ban, event.now),
            _ => of_ban("unban", ban, event.now),
        },
        Action::Restore(ban) | Action::Confirmed(ban) => of_ban("restore", ban, event.now),
        Action::Ignore { jail, client, .. } | Action::Spared { jail, client, .. } => EventLine {
            time,
            event: "ignored",
            jail,
            host: client.to_string(),
            failures: 0,
            until: None,
        },
        Action::Found { .. } | Action::AlreadyBanned { .. } | Action::NoSuchJail => return None,
    })
}

fn plain(time: &Zoned) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}
