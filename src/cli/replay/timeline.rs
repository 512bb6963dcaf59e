//! Jails in a log's time: blocks of lines in, decisions out. Performs none of them.

use std::ops::Range;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::cli::stamp;
use crate::config::{Config, JailName};
use crate::filter::matcher::{BlockResult, Hit, InputKind, Matcher};
use crate::jail::{self, Action, Exempt, Jails, Moment, Now, Shared};
use crate::record::time::Stamp;
use crate::record::{Kind, Parser};

/// Lines that are examined together span at most this, so that a request of yesterday does not
/// make an address shared today.
const PART: Duration = Duration::from_secs(60);
/// A log that begins so much before the latest time is named in the wrong order; requests that take
/// long are logged late.
const WRONG_ORDER: Duration = Duration::from_secs(3_600);
/// How often jails forget what no longer counts.
const SWEEP: Duration = Duration::from_secs(3_600);

/// The time of the log: the latest time of its lines so far.
pub(in crate::cli) struct Clock {
    first: Option<Timestamp>,
    latest: Option<Timestamp>,
    /// The zone of the latest line.
    zone: TimeZone,
    /// The last one that was read: many lines have the same.
    last: Option<Stamp>,
    /// The latest time at the front of a log, until its first time is read.
    before_log: Option<Timestamp>,
    /// The log begins long before the end of the one before.
    is_wrong_order: bool,
    /// Lines of this log that are long before a line before them.
    late: u64,
}

impl Clock {
    /// Whether the time of a line is later than all before.
    fn advance(&mut self, stamp: Stamp) -> bool {
        if self.last == Some(stamp) {
            return false;
        }
        self.last = Some(stamp);
        let Some(time) = stamp::zoned(stamp) else {
            return false;
        };
        if let Some(before) = self.before_log.take() {
            self.is_wrong_order = is_long_before(time.timestamp(), before);
        }
        let is_later = self.latest < Some(time.timestamp());
        let is_late = self
            .latest
            .is_some_and(|latest| is_long_before(time.timestamp(), latest));
        self.late += u64::from(is_late);
        if is_later {
            self.latest = Some(time.timestamp());
            self.first = self.first.or(self.latest);
            self.zone = time.time_zone().clone();
        }
        is_later
    }

    /// Another log begins.
    pub(super) fn begin_log(&mut self) {
        self.last = None;
        self.before_log = self.latest;
        self.is_wrong_order = false;
        self.late = 0;
    }

    /// Times in this log that are long before a time before them.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// Whether this log begins long before the end of the one before.
    pub(super) fn is_wrong_order(&self) -> bool {
        self.is_wrong_order
    }

    /// The first and the latest time, in the zone of the latest.
    pub(super) fn span(&self) -> Option<(Zoned, Zoned)> {
        Some((self.zoned(self.first?), self.zoned(self.latest?)))
    }

    pub(super) fn zoned(&self, time: Timestamp) -> Zoned {
        time.to_zoned(self.zone.clone())
    }

    /// Lines without a time have the last one that was seen, at first that of the epoch.
    fn now(&self) -> Timestamp {
        self.latest.unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn is_long_before(time: Timestamp, other: Timestamp) -> bool {
    other.duration_since(time) >= WRONG_ORDER.try_into().unwrap_or_default()
}

/// What a line led to, and when.
pub(in crate::cli) struct Event<'e> {
    /// `None`: before the first time in the log.
    pub(in crate::cli) now: Option<Now>,
    /// The jail and client of the hit; `None`: time led to it.
    pub(in crate::cli) hit: Option<&'e Hit>,
    pub(in crate::cli) action: &'e Action,
}

/// Receives the events in order.
pub(in crate::cli) type Sink<'s> = dyn FnMut(&Clock, Event<'_>) + 's;

/// Lines, and those of them that matched.
#[derive(Default)]
pub(in crate::cli) struct Counts {
    pub(in crate::cli) lines: u64,
    pub(in crate::cli) unparsed: u64,
    /// Lines that match at least one jail.
    pub(in crate::cli) hits: u64,
    /// The number of the first line that is not of the log's format, and why.
    pub(in crate::cli) first_unparsed: Option<(u64, &'static str)>,
}

pub(in crate::cli) struct Timeline {
    matcher: Matcher,
    jails: Jails,
    exempt: Exempt,
    config: Config,
    shared: Shared,
    swept: Timestamp,
    pub(in crate::cli) clock: Clock,
    pub(in crate::cli) counts: Counts,
}

impl Timeline {
    pub(in crate::cli) fn new(
        config: &Config,
        kind: Kind,
        parser: Parser,
        exempt: Exempt,
    ) -> Timeline {
        let rules = crate::config::rules_of_lines(config, kind);
        Timeline {
            matcher: Matcher::new(&rules, InputKind::Apache(kind, parser)),
            jails: Jails::new(config),
            exempt,
            config: config.clone(),
            shared: Shared::new(),
            swept: Timestamp::UNIX_EPOCH,
            clock: Clock {
                first: None,
                latest: None,
                zone: TimeZone::UTC,
                last: None,
                before_log: None,
                is_wrong_order: false,
                late: 0,
            },
            counts: Counts::default(),
        }
    }

    /// Counts a line that is too long to be matched.
    pub(super) fn too_long(&mut self) {
        self.counts.lines += 1;
        self.counts.unparsed += 1;
        let first = (self.counts.lines, "it is longer than 64 KiB");
        self.counts.first_unparsed.get_or_insert(first);
    }

    /// Decides about the lines of a block.
    pub(in crate::cli) fn block(&mut self, block: &[u8], sink: &mut Sink<'_>) {
        let mut began = self.clock.now();
        // The time from each of these places on.
        let mut times = vec![(0, began)];
        let mut start = 0;
        for line in lines(block) {
            let text = block.get(line.clone()).unwrap_or_default();
            let record = self.matcher.parser().and_then(|parser| parser.parse(text));
            let stamp = record.and_then(|record| record.stamp);
            if !stamp.is_some_and(|stamp| self.clock.advance(stamp)) {
                continue;
            }
            let now = self.clock.now();
            if now.duration_since(began).unsigned_abs() >= PART {
                let part = block.get(start..line.start).unwrap_or_default();
                self.part(part, &times, sink);
                (start, began) = (line.start, now);
                times.clear();
            }
            times.push((line.start - start, now));
        }
        self.part(block.get(start..).unwrap_or_default(), &times, sink);
    }

    /// Ends the bans that are over at the end of the log.
    pub(in crate::cli) fn finish(&mut self, sink: &mut Sink<'_>) {
        self.expire(moment(self.clock.now()), sink);
    }

    fn part(&mut self, lines: &[u8], times: &[(usize, Timestamp)], sink: &mut Sink<'_>) {
        if lines.is_empty() {
            return;
        }
        let found = self.matcher.examine(lines);
        let last = times
            .last()
            .map_or(Timestamp::UNIX_EPOCH, |(_, time)| *time);
        if last.duration_since(self.swept).unsigned_abs() >= SWEEP {
            self.swept = last;
            self.jails.sweep(now(last));
        }
        let since_epoch = last.as_duration().try_into().unwrap_or_default();
        for (addr, agent) in &found.good {
            if self.shared.observe(*addr, *agent, since_epoch) {
                self.jails.learn_shared(*addr, now(last));
            }
        }
        for hit in &found.hits {
            let before = times.partition_point(|(at, _)| *at <= hit.line.start);
            let time = before.checked_sub(1).and_then(|at| times.get(at));
            let now = now(time.map_or(last, |(_, time)| *time));
            self.expire(now.boot, sink);
            for (jail, pattern, weight) in &hit.jails {
                self.hit(hit, (jail, *pattern, *weight), now, sink);
            }
        }
        self.count(&found);
    }

    fn hit(
        &mut self,
        hit: &Hit,
        (jail, pattern, weight): (&JailName, u32, u32),
        now: Now,
        sink: &mut Sink<'_>,
    ) {
        if weight == 0 {
            for jail in self.config.cleared(jail, pattern) {
                self.jails.succeed(jail, hit.client, &self.exempt);
            }
            return;
        }
        let rule = self.config.rule(jail, pattern);
        let observed = jail::Hit {
            jail,
            client: hit.client,
            peer: hit.peer,
            // Apache wrote this log under a configuration that is not known.
            forgeable: false,
            unproven: false,
            claim: jail::Claim::None,
            weight,
            spoofable: rule.is_some_and(|rule| rule.spoofable),
            surge: false,
            arrived: now.boot,
        };
        let observed = self.jails.observe(&observed, now, &self.exempt);
        for action in &observed.actions {
            let event = Event {
                now: (now.wall != Timestamp::UNIX_EPOCH).then_some(now),
                hit: Some(hit),
                action,
            };
            sink(&self.clock, event);
        }
    }

    /// Ends the bans that are over, each at its end.
    fn expire(&mut self, by: Moment, sink: &mut Sink<'_>) {
        while let Some(end) = self.jails.bans().next_end().filter(|end| *end <= by) {
            let time = Timestamp::from_nanosecond(end.nanos().into());
            let now = Now {
                boot: end,
                wall: time.unwrap_or(Timestamp::MAX),
            };
            for action in &self.jails.expire(now) {
                let event = Event {
                    now: Some(now),
                    hit: None,
                    action,
                };
                sink(&self.clock, event);
            }
        }
    }

    fn count(&mut self, found: &BlockResult) {
        let counts = &mut self.counts;
        if let Some(unread) = &found.unread {
            let first = (counts.lines + unread.number + 1, unread.why);
            counts.first_unparsed.get_or_insert(first);
        }
        counts.lines += found.lines;
        counts.unparsed += found.unparsed;
        counts.hits += found.hits.iter().filter(|hit| hit.counts()).count() as u64;
    }
}

/// Windows and ends count in the log's time.
fn now(time: Timestamp) -> Now {
    Now {
        boot: moment(time),
        wall: time,
    }
}

fn moment(time: Timestamp) -> Moment {
    Moment::from_nanos(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
}

/// Lines without their newlines.
fn lines(block: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let last = (!block.ends_with(b"\n")).then_some(block.len());
    let mut start = 0;
    memchr::memchr_iter(b'\n', block)
        .chain(last)
        .map(move |end| {
            let line = start..end;
            start = end + 1;
            line
        })
}
