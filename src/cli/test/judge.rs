//! One line and every rule: what `--json` prints.

use std::cell::RefCell;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::civil;
use jiff::tz::{Offset, TimeZone};
use serde::Serialize;

use crate::config::JailName;
use crate::filter::{Dates, Definition, Filter, Moment, Outcome, Sequence, Subject, matcher};
use crate::record::time::Stamp;
use crate::record::{Kind, Parser, Record};

/// How lines are read.
pub(super) enum Sight {
    /// As Apache's records.
    Apache(Parser),
    /// As text: the pattern names the host.
    Raw,
}

/// A filter, and the jail it stands in.
pub(super) struct Rule {
    pub(super) jail: Option<JailName>,
    pub(super) log: Option<Kind>,
    pub(super) definition: Definition,
    pub(super) filter: Filter,
    /// Where the time stands, where there are no records.
    pub(super) dates: Dates,
    /// What earlier lines left behind, there.
    pub(super) sequence: RefCell<Sequence>,
    pub(super) weight: u32,
    pub(super) bans_alone: bool,
    pub(super) ignoreip: Vec<IpNet>,
    pub(super) vhost: Vec<String>,
    pub(super) not_vhost: Vec<String>,
}

/// Everything that is asked of each line.
pub(super) struct Judge {
    pub(super) sight: Sight,
    pub(super) rules: Vec<Rule>,
}

/// What came of a line; the worst of all rules first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    Match,
    Spoof,
    Ignored,
    Miss,
    Unparsed,
}

/// The JSON object of a line.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) line: u64,
    pub(super) verdict: Word,
    pub(super) host: Option<IpAddr>,
    pub(super) matches: Vec<Match>,
    pub(super) time: Option<String>,
}

/// One rule that matched.
#[derive(Debug, Serialize)]
pub(super) struct Match {
    pub(super) jail: Option<JailName>,
    pub(super) filter: String,
    pub(super) pattern: u32,
    pub(super) host: IpAddr,
    pub(super) weight: u32,
    pub(super) bans_alone: bool,
    /// Which of [`Judge::rules`].
    #[serde(skip)]
    pub(super) rule: usize,
}

impl Judge {
    /// Line `number`, without newline.
    pub(super) fn line(&self, number: u64, line: &[u8]) -> Verdict {
        let mut verdict = Verdict {
            line: number,
            verdict: Word::Miss,
            host: None,
            matches: Vec::new(),
            time: None,
        };
        match &self.sight {
            Sight::Raw => {
                for (index, rule) in self.rules.iter().enumerate() {
                    let (cut, moment) = rule.dates.find(line).unzip();
                    verdict.time = verdict.time.or_else(|| of_moment(moment?));
                    self.ask_rule(&mut verdict, index, rule, &Subject::raw(line, cut));
                }
            }
            Sight::Apache(parser) => match parser.parse(line) {
                Some(record) => {
                    let time = record.time.clone();
                    verdict.time = time.and_then(|time| rfc3339(Stamp::read(line.get(time)?)?));
                    self.ask(&mut verdict, &Subject::of(line, &record), &record);
                }
                None => verdict.verdict = Word::Unparsed,
            },
        }
        verdict
    }

    fn ask(&self, verdict: &mut Verdict, subject: &Subject<'_>, record: &Record<'_>) {
        for (index, rule) in self.rules.iter().enumerate() {
            if matcher::wants(&rule.vhost, &rule.not_vhost, record) {
                self.ask_rule(verdict, index, rule, subject);
            }
        }
    }

    fn ask_rule(&self, verdict: &mut Verdict, index: usize, rule: &Rule, subject: &Subject<'_>) {
        let outcome = match &self.sight {
            Sight::Raw => rule.sequence.borrow_mut().examine(&rule.filter, subject),
            Sight::Apache(_) => rule.filter.examine(subject),
        };
        let word = match outcome {
            Outcome::Match { host, .. } if rule.ignores(host) => Word::Ignored,
            Outcome::Match { pattern, host } => {
                verdict.host = Some(host);
                verdict.matches.push(Match {
                    jail: rule.jail.clone(),
                    filter: rule.definition.name.clone(),
                    pattern,
                    host,
                    weight: rule.weight,
                    bans_alone: rule.bans_alone,
                    rule: index,
                });
                Word::Match
            }
            Outcome::Spoof { .. } => Word::Spoof,
            Outcome::Ignored => Word::Ignored,
            Outcome::Miss => Word::Miss,
        };
        verdict.verdict = verdict.verdict.min(word);
    }
}

impl Rule {
    fn ignores(&self, host: IpAddr) -> bool {
        self.ignoreip.iter().any(|net| net.contains(&host))
    }
}

/// As [`rfc3339`]; `None` where the line leaves out the year or the day.
fn of_moment(moment: Moment) -> Option<String> {
    if let Some(epoch) = moment.epoch {
        let time = jiff::Timestamp::from_second(epoch).ok()?;
        return Some(time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
    }
    rfc3339(Stamp {
        year: moment.year?,
        month: moment.month?,
        day: moment.day?,
        hour: moment.hour,
        minute: moment.minute,
        second: moment.second,
        offset: moment.offset,
    })
}

/// The line's own time; without a zone of its own in the local one.
fn rfc3339(stamp: Stamp) -> Option<String> {
    let (year, month, day) = (stamp.year, stamp.month, stamp.day);
    let (hour, minute, second) = (stamp.hour, stamp.minute, stamp.second.min(59));
    let time = civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let zone = match stamp.offset {
        Some(seconds) => TimeZone::fixed(Offset::from_seconds(seconds).ok()?),
        None => TimeZone::system(),
    };
    let zoned = zone.to_ambiguous_zoned(time).compatible().ok()?;
    Some(zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
}
