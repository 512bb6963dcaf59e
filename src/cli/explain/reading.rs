//! The lines of a client in logs, run through the matcher and the jails as `replay` does.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use jiff::Timestamp;
use memchr::memmem;

use super::logs::{Source, Text};
use super::near::{Closest, Misses};
use crate::cli::global::Global;
use crate::cli::replay::input::{Block, Blocks};
use crate::cli::replay::timeline::{Event, Timeline};
use crate::cli::stamp;
use crate::config::{Config, JailName, Origins, rules};
use crate::disk;
use crate::engine::ClientNamings;
use crate::filter::PatternAt;
use crate::jail::{Action, Exempt, Now};
use crate::record::{Kind, Parser, display};
use crate::report::explain::{HitFact, LogFact, Origin, Why};

/// Bytes read at the end of a plain log.
const TAIL: u64 = 64 << 20;
/// Bytes read of a compressed log, decompressed.
const MOST: u64 = 512 << 20;
/// Lines of the client that are run through the jails: the last ones.
const MOST_LINES: usize = 5_000;
/// Lines without a hit of which the reason is sought: the last ones.
const MOST_MISSES: usize = 20;
/// Lines shown.
const MOST_EVIDENCE: usize = 5;
/// Bytes shown of a line.
const WIDTH: usize = 400;

/// What lines are run through.
pub(super) struct InUse<'a> {
    pub(super) config: &'a Config,
    /// The files, where the engine has not taken them into use.
    pub(super) waiting: Option<&'a Config>,
    pub(super) origins: &'a Origins,
    pub(super) exempt: &'a Exempt,
    pub(super) naming: &'a ClientNamings,
    /// Of the host's logs: of a log that the command line names, one may fit.
    pub(super) formats: Vec<(Kind, String)>,
    pub(super) global: &'a Global,
}

/// The client's lines in each log.
pub(super) fn logs(in_use: &InUse<'_>, sources: &[Source], net: &IpNet) -> Vec<LogFact> {
    let facts = sources.iter().filter_map(|source| {
        let mut fact = LogFact {
            name: source.name.clone(),
            kind: source.kind.unwrap_or(Kind::Access),
            origin: source.origin,
            trouble: None,
            skipped: 0,
            lines: 0,
            last: None,
            matched: 0,
            unparsed: None,
            hits: Vec::new(),
            misses: Vec::new(),
            evidence: Vec::new(),
        };
        match candidates(source, net) {
            Ok(found) => {
                fact.skipped = found.skipped;
                of_log(in_use, source, net, found, &mut fact);
            }
            // A log that Apache's configuration names need not exist yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match source.origin {
                Origin::Given => fact.trouble = Some(error.to_string()),
                _ => return None,
            },
            Err(error) => fact.trouble = Some(error.to_string()),
        }
        Some(fact)
    });
    facts.collect()
}

/// Lines that may be about the client.
#[derive(Default)]
struct Candidates {
    lines: VecDeque<Vec<u8>>,
    /// Bytes before the part that was read.
    skipped: u64,
}

impl Candidates {
    fn add(&mut self, block: &[u8], needle: &Needle) {
        let text = needle.text.as_bytes();
        let mut from = 0;
        while let Some(at) = block.get(from..).and_then(|rest| memmem::find(rest, text)) {
            let at = from + at;
            if !needle.is_alone(block, at) {
                from = at + 1;
                continue;
            }
            let before = block.get(..at).unwrap_or_default();
            let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
            let rest = block.get(at..).unwrap_or_default();
            let end = memchr::memchr(b'\n', rest).map_or(block.len(), |newline| at + newline);
            let line = block.get(start..end).unwrap_or_default();
            self.lines.push_back(line.to_vec());
            if self.lines.len() > MOST_LINES {
                self.lines.pop_front();
            }
            from = (end + 1).min(block.len());
            if text.is_empty() && from >= block.len() {
                break;
            }
        }
    }
}

/// A text that every line of a client has.
struct Needle {
    /// Empty: there is none.
    text: String,
    /// It is a whole address.
    whole: bool,
}

impl Needle {
    fn of(net: &IpNet) -> Needle {
        let prefix = usize::from(net.prefix_len());
        let whole = net.prefix_len() == net.max_prefix_len();
        let text = match net.addr() {
            addr if whole => addr.to_string(),
            IpAddr::V4(addr) => {
                let octets = addr.octets().into_iter().take(prefix / 8);
                octets.map(|octet| format!("{octet}.")).collect()
            }
            IpAddr::V6(addr) => {
                let segments = addr.segments().into_iter().take(prefix / 16);
                // Zeros may be written as `::`.
                let segments = segments.take_while(|segment| *segment != 0);
                segments.map(|segment| format!("{segment:x}:")).collect()
            }
        };
        Needle { text, whole }
    }

    /// Whether the text at this place is no part of another address; a port may follow.
    fn is_alone(&self, block: &[u8], at: usize) -> bool {
        let byte = |at: Option<usize>| at.and_then(|at| block.get(at)).copied();
        let (before, behind) = (byte(at.checked_sub(1)), byte(Some(at + self.text.len())));
        let v6 = self.text.contains(':');
        let goes_on = |byte: u8| match v6 {
            true => byte.is_ascii_hexdigit(),
            false => byte.is_ascii_digit(),
        };
        let joins = |byte: u8| byte == if v6 { b':' } else { b'.' };
        let starts = before.is_none_or(|byte| !goes_on(byte) && !joins(byte));
        !self.whole || (starts && behind.is_none_or(|byte| !goes_on(byte)))
    }
}

fn candidates(source: &Source, net: &IpNet) -> io::Result<Candidates> {
    let mut found = Candidates::default();
    let file = match &source.text {
        Text::Line(line) => {
            found.lines.push_back(line.as_bytes().to_vec());
            return Ok(found);
        }
        Text::File(file) => file,
    };
    let needle = Needle::of(net);
    let (input, skipped) = open(file)?;
    found.skipped = skipped;
    let mut blocks = Blocks::new(input)?;
    let mut first = skipped > 0;
    let mut read = 0;
    while let Some(block) = blocks.next()? {
        let Block::Lines(lines) = block else { continue };
        read += lines.len() as u64;
        // The front of the first line was not read.
        let front = match std::mem::take(&mut first) {
            true => memchr::memchr(b'\n', lines).map_or(lines.len(), |newline| newline + 1),
            false => 0,
        };
        found.add(lines.get(front..).unwrap_or_default(), &needle);
        if read > MOST {
            break;
        }
    }
    Ok(found)
}

/// The end of a plain log, or all of a compressed one; and the bytes before it.
fn open(file: &Path) -> io::Result<(Box<dyn Read>, u64)> {
    let mut input = disk::open_file(file)?;
    let length = input.metadata()?.len();
    let mut front = [0; 6];
    let read = input.read(&mut front)?;
    let front = front.get(..read).unwrap_or_default();
    let compressed = front.starts_with(&[0x1f, 0x8b]) || front.starts_with(b"\xfd7zXZ\0");
    let skipped = match compressed {
        true => 0,
        false => length.saturating_sub(TAIL),
    };
    input.seek(SeekFrom::Start(skipped))?;
    Ok((Box::new(input), skipped))
}

fn of_log(in_use: &InUse<'_>, source: &Source, net: &IpNet, found: Candidates, fact: &mut LogFact) {
    if found.lines.is_empty() {
        return;
    }
    let format = parser(in_use, source, &found);
    let lines = format.and_then(|format| Lines::new(in_use, format, net));
    let Some(mut lines) = lines else {
        let why = "no format of Apache's fits".to_owned();
        fact.unparsed = Some((found.lines.len() as u64, why));
        return;
    };
    fact.kind = lines.kind;
    for line in &found.lines {
        lines.line(line, fact);
    }
    lines.finish(fact);
}

/// The kind and the format of a log, by its lines where they are not known.
fn parser(in_use: &InUse<'_>, source: &Source, found: &Candidates) -> Option<(Kind, String)> {
    let fits = |kind: Kind, format: &str| {
        let parser = Parser::new(kind, format).ok()?;
        let mut lines = found.lines.iter();
        lines
            .any(|line| parser.parse(line).is_some())
            .then(|| (kind, format.to_owned()))
    };
    let kinds = match source.kind {
        Some(kind) => vec![kind],
        None => vec![Kind::Error, Kind::Access],
    };
    let formats = source.format.as_deref().into_iter().chain(["auto"]);
    let detected = kinds
        .iter()
        .find_map(|kind| formats.clone().find_map(|format| fits(*kind, format)));
    let of_host = in_use
        .formats
        .iter()
        .filter(|(kind, _)| kinds.contains(kind));
    detected.or_else(|| {
        of_host
            .clone()
            .find_map(|(kind, format)| fits(*kind, format))
    })
}

/// The lines of one log, in order.
struct Lines<'n> {
    in_use: &'n InUse<'n>,
    net: &'n IpNet,
    parser: Parser,
    timeline: Timeline,
    kind: Kind,
    format: String,
    hits: BTreeMap<JailName, HitFact>,
    missed: VecDeque<Vec<u8>>,
    patterns: BTreeMap<(JailName, u32), String>,
}

impl<'n> Lines<'n> {
    fn new(
        in_use: &'n InUse<'n>,
        (kind, format): (Kind, String),
        net: &'n IpNet,
    ) -> Option<Lines<'n>> {
        let parser = || in_use.config.parser(kind, &format).ok();
        let timeline = Timeline::new(in_use.config, kind, parser()?, in_use.exempt.clone());
        let patterns = rules(in_use.config, kind).into_iter().flat_map(|rule| {
            let jail = rule.jail.clone();
            let definition = rule.definition;
            definition.patterns().filter_map(move |(at, text)| {
                let PatternAt::Fail(number) = at else {
                    return None;
                };
                let (file, (line, _)) = definition.place(text);
                let place = format!("pattern {number}, {}:{line}", file.display());
                Some(((jail.clone()?, number), place))
            })
        });
        Some(Lines {
            in_use,
            net,
            parser: parser()?,
            timeline,
            kind,
            patterns: patterns.collect(),
            hits: BTreeMap::new(),
            missed: VecDeque::new(),
            format,
        })
    }

    fn line(&mut self, line: &[u8], fact: &mut LogFact) {
        let Some(record) = self.parser.parse(line) else {
            let why = self.parser.complaint(line);
            let lines = fact.unparsed.as_ref().map_or(0, |(lines, _)| *lines);
            fact.unparsed = Some((lines + 1, why.to_owned()));
            return;
        };
        let is_client = record
            .client
            .is_some_and(|client| self.net.contains(&client.addr));
        let time = record
            .stamp
            .and_then(stamp::zoned)
            .map(|time| time.timestamp());
        if !is_client {
            // It may be named by the text of another client.
            self.miss(line);
            return;
        }
        fact.lines += 1;
        fact.last = fact.last.max(time);
        let forged = self.in_use.naming.may_forge(
            record.client_source(),
            record.peer,
            &self.in_use.config.trusted_proxies,
        );
        let mut matches = Vec::new();
        let (hits, patterns) = (&mut self.hits, &self.patterns);
        let whole = [line, b"\n"].concat();
        self.timeline.block(&whole, &mut |_, event| {
            matches.extend(of_event(hits, patterns, (time, forged), &event));
        });
        match matches.is_empty() {
            true => self.miss(line),
            false => fact.matched += 1,
        }
        fact.evidence.push((time, display(line, WIDTH), matches));
        if fact.evidence.len() > MOST_EVIDENCE {
            // Lines with a hit stay longer.
            let harmless = fact
                .evidence
                .iter()
                .position(|(.., found)| found.is_empty());
            fact.evidence.remove(harmless.unwrap_or(0));
        }
    }

    fn miss(&mut self, line: &[u8]) {
        self.missed.push_back(line.to_vec());
        if self.missed.len() > MOST_MISSES {
            self.missed.pop_front();
        }
    }

    fn finish(self, fact: &mut LogFact) {
        let in_use = self.in_use;
        fact.hits = self.hits.into_values().collect();
        for hit in &mut fact.hits {
            if let Some(jail) = in_use.config.jails.get(&hit.jail) {
                hit.enforce = jail.enforce;
                hit.findtime = jail.findtime;
                hit.maxretry = hit.maxretry.max(jail.maxretry);
            }
        }
        if self.missed.is_empty() {
            return;
        }
        let closest = match fact.matched {
            0 => Closest::Sought,
            _ => Closest::NotSought,
        };
        let misses = Misses::new(in_use, (self.kind, &self.format), self.net, closest);
        fact.misses = misses.of(&self.missed);
        // Only the last lines were tried; what no jail wants is all the rest.
        let others = fact
            .misses
            .iter()
            .filter(|miss| !matches!(miss.why, Why::Near(_)));
        let others: u64 = others.map(|miss| miss.lines).sum();
        let rest = fact
            .lines
            .saturating_sub(fact.matched)
            .saturating_sub(others);
        for miss in &mut fact.misses {
            if matches!(miss.why, Why::Near(_)) {
                miss.lines = miss.lines.max(rest);
            }
        }
    }
}

/// Notes what a jail makes of a line; its name with the pattern, for people.
fn of_event(
    hits: &mut BTreeMap<JailName, HitFact>,
    patterns: &BTreeMap<(JailName, u32), String>,
    (time, forged): (Option<Timestamp>, bool),
    event: &Event<'_>,
) -> Option<String> {
    let (jail, counted) = match event.action {
        Action::Found {
            jail,
            count,
            maxretry,
            ..
        } => (jail, Some((*count, *maxretry))),
        Action::AlreadyBanned { jail, .. } | Action::Ignore { jail, .. } => (jail, None),
        Action::Ban(ban) => {
            let banned = event.now.map(|Now { wall, .. }| wall);
            if let Some(hit) = hits.get_mut(&ban.jail) {
                hit.banned = hit.banned.or(banned).or(Some(Timestamp::UNIX_EPOCH));
            }
            return None;
        }
        Action::Spared { jail, .. } => {
            if let Some(hit) = hits.get_mut(jail) {
                hit.spared = true;
            }
            return None;
        }
        Action::Restore(_) | Action::Confirmed(_) | Action::Unban { .. } | Action::NoSuchJail => {
            return None;
        }
    };
    let found = event.hit.and_then(|hit| {
        let mut jails = hit.jails.iter();
        jails.find(|(name, ..)| name == jail)
    });
    let (number, weight) = found.map_or((0, 1), |(_, number, weight)| (*number, *weight));
    let pattern = patterns
        .get(&(jail.clone(), number))
        .cloned()
        .unwrap_or_default();
    let hit = hits.entry(jail.clone()).or_insert_with(|| HitFact {
        jail: jail.clone(),
        lines: 0,
        pattern: String::new(),
        last: None,
        most: 0,
        maxretry: 0,
        weight: 0,
        findtime: std::time::Duration::ZERO,
        banned: None,
        forged: 0,
        spared: false,
        enforce: true,
    });
    hit.lines += 1;
    hit.forged += u64::from(forged);
    hit.last = hit.last.max(time);
    hit.weight = hit.weight.saturating_add(weight);
    hit.pattern.clone_from(&pattern);
    if let Some((count, maxretry)) = counted {
        hit.most = hit.most.max(count);
        hit.maxretry = hit.maxretry.max(maxretry);
    }
    Some(format!("{jail} ({pattern})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_addresses_are_no_candidates() {
        for (net, lines, expected) in [
            (
                "203.0.113.7/32",
                "203.0.113.7 a\n203.0.113.70 b\n1203.0.113.7 c\n",
                vec!["203.0.113.7 a"],
            ),
            (
                "203.0.113.7/32",
                "x 203.0.113.70 203.0.113.7:80 y\nz",
                vec!["x 203.0.113.70 203.0.113.7:80 y"],
            ),
            (
                "2001:db8::7/128",
                "[client 2001:db8::7:4000] a\n[client 2001:db8::70:1] b\n",
                vec!["[client 2001:db8::7:4000] a"],
            ),
            (
                "203.0.113.0/24",
                "203.0.113.7 a\n203.0.114.7 b\n",
                vec!["203.0.113.7 a"],
            ),
            ("0.0.0.0/0", "a\nb\n", vec!["a", "b"]),
        ] {
            let mut found = Candidates::default();
            found.add(lines.as_bytes(), &Needle::of(&net.parse().unwrap()));
            let found: Vec<String> = found
                .lines
                .iter()
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect();
            assert_eq!(found, expected, "{net}");
        }
    }
}
