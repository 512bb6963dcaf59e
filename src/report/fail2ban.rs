//! Bans from the log of fail2ban, or of pipeban, which has the same words.

use std::collections::HashMap;
use std::io;
use std::sync::LazyLock;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use regex::bytes::{Captures, Regex};

use super::detail::{Details, Evidence, Spell};
use super::query::Query;
use super::row::BanRow;
use crate::jail::canonical;

/// The jail of a line that names none.
const NO_JAIL: &str = "unknown";

/// `[jail] Ban 192.0.2.7`, anywhere in a line; what a client sends is in no such line.
static EVENT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?-u)(?:^\s*|(?:^|\s)\[(?<jail>[A-Za-z0-9][A-Za-z0-9_.-]*)\]\s+)(?<would>Would )?(?<verb>Restore Ban|Ban|Unban) (?<net>[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?)(?:\s|$)",
    )
    .ok()
});

/// `2026-11-22 11:00:33` at the front; fail2ban writes the local time.
static TIME: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?-u)^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)").ok());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Ban,
    Restore,
    Unban,
}

/// One line that matters.
#[derive(Debug)]
struct Entry {
    time: Timestamp,
    event: Event,
    observed: bool,
    jail: u32,
    net: IpNet,
}

/// One ban, put together from its lines.
#[derive(Debug)]
struct Logged {
    jail: u32,
    net: IpNet,
    observed: bool,
    since: Timestamp,
    ended: Option<Timestamp>,
}

/// The bans in some logs, whose order does not matter.
#[derive(Debug)]
pub struct Logs {
    zone: TimeZone,
    entries: Vec<Entry>,
    jails: Vec<String>,
    index: HashMap<String, u32>,
    /// Time of the last line that had one.
    last: Option<Timestamp>,
    /// Entries of this log that precede its first line with a time.
    untimed: usize,
    without_time: u64,
    bans: Vec<Logged>,
    by_net: HashMap<IpNet, Vec<usize>>,
}

impl Logs {
    /// No lines yet. `zone`: that of the times in the logs.
    pub fn new(zone: TimeZone) -> Logs {
        Logs {
            zone,
            entries: Vec::new(),
            jails: Vec::new(),
            index: HashMap::new(),
            last: None,
            untimed: 0,
            without_time: 0,
            bans: Vec::new(),
            by_net: HashMap::new(),
        }
    }

    /// Reads whole lines of a log.
    pub fn lines(&mut self, block: &[u8]) {
        for line in block.split(|byte| *byte == b'\n') {
            self.line(line);
        }
    }

    fn line(&mut self, line: &[u8]) {
        if let Some(time) = self.time(line) {
            self.last = Some(time);
            let first = self.entries.len() - self.untimed;
            for entry in self.entries.iter_mut().skip(first) {
                entry.time = time;
            }
            self.untimed = 0;
        }
        let Some(found) = EVENT.as_ref().and_then(|event| event.captures(line)) else {
            return;
        };
        let Some(net) = net(text(&found, "net")) else {
            return;
        };
        let event = match text(&found, "verb") {
            "Ban" => Event::Ban,
            "Unban" => Event::Unban,
            _ => Event::Restore,
        };
        let jail = match text(&found, "jail") {
            "" => NO_JAIL,
            jail => jail,
        };
        let entry = Entry {
            time: self.last.unwrap_or(Timestamp::MIN),
            event,
            observed: found.name("would").is_some(),
            jail: self.jail(jail),
            net,
        };
        self.untimed += usize::from(self.last.is_none());
        self.entries.push(entry);
    }

    /// The end of a log. Lines of a log without any time are of `time`.
    pub fn end_of_log(&mut self, time: Timestamp) {
        let first = self.entries.len() - self.untimed;
        for entry in self.entries.iter_mut().skip(first) {
            entry.time = time;
        }
        self.without_time += self.untimed as u64;
        self.untimed = 0;
        self.last = None;
    }

    /// Lines of logs without any time.
    pub fn without_time(&self) -> u64 {
        self.without_time
    }

    /// Puts the bans together, once all logs are read.
    pub fn finish(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        // Stable: lines of one second stay in their order.
        entries.sort_by_key(|entry| entry.time);
        let mut latest: HashMap<(u32, IpNet), usize> = HashMap::new();
        for entry in entries {
            let key = (entry.jail, entry.net);
            let known = latest.get(&key).copied();
            let known = known.and_then(|place| Some((place, self.bans.get_mut(place)?)));
            match (entry.event, known) {
                (Event::Unban, Some((_, ban))) => {
                    ban.ended.get_or_insert(entry.time);
                }
                // The log of its beginning is not here.
                (Event::Unban, None) => {}
                // fail2ban stops with an `Unban` of each client.
                (Event::Restore, Some((_, ban))) => ban.ended = None,
                (Event::Ban, Some((_, ban))) if ban.ended.is_none() && ban.since == entry.time => {}
                (Event::Ban | Event::Restore, known) => {
                    if let Some((_, ban)) = known {
                        ban.ended.get_or_insert(entry.time);
                    }
                    let place = self.bans.len();
                    latest.insert(key, place);
                    self.by_net.entry(entry.net).or_default().push(place);
                    self.bans.push(Logged {
                        jail: entry.jail,
                        net: entry.net,
                        observed: entry.observed,
                        since: entry.time,
                        ended: None,
                    });
                }
            }
        }
    }

    /// The bans, in the order of time.
    pub fn bans(&self) -> impl Iterator<Item = BanRow<'_>> {
        self.bans.iter().map(|ban| self.row(ban))
    }

    fn row(&self, ban: &Logged) -> BanRow<'_> {
        let jail = usize::try_from(ban.jail)
            .ok()
            .and_then(|jail| self.jails.get(jail));
        BanRow {
            id: 0,
            jail: jail.map_or("", String::as_str),
            net: ban.net,
            observed: ban.observed,
            behind: false,
            since: ban.since,
            until: None,
            ended: ban.ended,
            cause: "jail",
            classes: "",
            vhosts: "",
        }
    }

    fn jail(&mut self, name: &str) -> u32 {
        if let Some(jail) = self.index.get(name) {
            return *jail;
        }
        let jail = u32::try_from(self.jails.len()).unwrap_or(u32::MAX);
        self.jails.push(name.to_owned());
        self.index.insert(name.to_owned(), jail);
        jail
    }

    fn time(&self, line: &[u8]) -> Option<Timestamp> {
        let found = TIME.as_ref()?.captures(line)?;
        let part = |number| std::str::from_utf8(found.get(number)?.as_bytes()).ok();
        let time: DateTime = format!("{}T{}", part(1)?, part(2)?).parse().ok()?;
        let time = self.zone.to_ambiguous_timestamp(time).compatible();
        time.ok()
    }
}

/// The bans have neither an id nor evidence.
#[derive(Debug)]
pub struct LogDetails<'l> {
    /// The logs, finished.
    pub logs: &'l Logs,
    /// What the report is about.
    pub query: &'l Query,
}

impl Details for LogDetails<'_> {
    fn bans(&self, net: &IpNet, most: usize) -> io::Result<Vec<Spell>> {
        let logs = self.logs;
        let places = logs.by_net.get(net).into_iter().flatten();
        let bans = places.filter_map(|place| logs.bans.get(*place));
        let mut spells: Vec<Spell> = bans
            .filter_map(|ban| Spell::of(&logs.row(ban), self.query))
            .collect();
        spells.drain(..spells.len().saturating_sub(most));
        Ok(spells)
    }

    fn evidence(&self, _ban: u64) -> io::Result<Evidence> {
        Ok(Vec::new())
    }
}

fn text<'l>(found: &Captures<'l>, name: &str) -> &'l str {
    let bytes = found.name(name).map_or(&b""[..], |part| part.as_bytes());
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn net(text: &str) -> Option<IpNet> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    net.ok().map(canonical)
}
