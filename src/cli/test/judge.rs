//! One line and every rule: what `--json` prints.

use std::cell::RefCell;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::civil;
use jiff::tz::{Offset, TimeZone};
use serde::Serialize;

use crate::config::JailName;
use crate::filter::{
    Dates, Definition, Filter, Moment, Outcome, Place, Reason, Sequence, Subject, matcher,
};
use crate::record::time::Stamp;
use crate::record::{Kind, Parser, Record};

/// How lines are read.
pub(super) enum Sight {
    /// As Apache's records.
    Apache(Kind, Parser),
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
    /// Whether a time was found; one that leaves out the year is none for [`Verdict::time`].
    #[serde(skip)]
    pub(super) timed: bool,
    /// Rules that would have matched, and what ignores the line there.
    #[serde(skip)]
    pub(super) ignored: Vec<(usize, Ignored)>,
}

/// What ignores a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ignored {
    /// The ignoreregex of this number.
    Regex(u32),
    /// This network of the jail's ignoreip, and who is in it.
    Address(IpNet, IpAddr),
}

/// Why one rule does not match a line.
pub(super) enum Cause {
    /// The jail looks at other virtual hosts.
    Vhost,
    /// Alone the line matches; lines before it make the difference.
    Before,
    Ignored(Ignored),
    Filter(Reason),
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
            timed: false,
            ignored: Vec::new(),
        };
        match &self.sight {
            Sight::Raw => {
                for (index, rule) in self.rules.iter().enumerate() {
                    let (cut, moment) = rule.dates.find(line).unzip();
                    verdict.timed |= moment.is_some();
                    verdict.time = verdict.time.or_else(|| of_moment(moment?));
                    self.ask_rule(&mut verdict, index, rule, &Subject::raw(line, cut));
                }
            }
            Sight::Apache(_, parser) => match parser.parse(line) {
                Some(record) => {
                    verdict.time = record.stamp.and_then(rfc3339);
                    verdict.timed = verdict.time.is_some();
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
            Sight::Apache(..) => rule.filter.examine(subject),
        };
        let word = match outcome {
            Outcome::Match { pattern, host } => {
                if let Some(net) = rule.ignores(host) {
                    verdict.ignored.push((index, Ignored::Address(net, host)));
                    return verdict.be(Word::Ignored);
                }
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
            Outcome::Ignored => {
                let number = rule.filter.ignored_by(subject).unwrap_or(1);
                verdict.ignored.push((index, Ignored::Regex(number)));
                Word::Ignored
            }
            Outcome::Miss => Word::Miss,
        };
        verdict.be(word);
    }

    /// Where a line matches by the first of its matches.
    pub(super) fn place(&self, line: &[u8], verdict: &Verdict) -> Option<Place> {
        let found = verdict.matches.first()?;
        let rule = self.rules.get(found.rule)?;
        // Where several lines are matched together, a place is not one of this line.
        let alone = rule.definition.maxlines == 1;
        let subject = self.subject(rule, line).filter(|_| alone)?;
        rule.filter.place(&subject, found.pattern)
    }

    /// Why each rule that does not match a line does not; nothing where the line cannot be read.
    pub(super) fn causes<'j>(
        &'j self,
        line: &'j [u8],
        verdict: &'j Verdict,
    ) -> impl Iterator<Item = (&'j Rule, Cause)> {
        let others = |index: usize| verdict.matches.iter().all(|found| found.rule != index);
        let rules = self.rules.iter().enumerate();
        rules
            .filter(move |(index, _)| others(*index))
            .filter_map(|(index, rule)| {
                let subject = self.subject(rule, line)?;
                let ignored = verdict.ignored.iter().find(|(at, _)| *at == index);
                let cause = if self.is_elsewhere(rule, line) {
                    Cause::Vhost
                } else if let Some((_, ignored)) = ignored {
                    Cause::Ignored(*ignored)
                } else {
                    let reason = rule.filter.why_not(&subject);
                    reason.map_or(Cause::Before, Cause::Filter)
                };
                Some((rule, cause))
            })
    }

    /// The line as the rule sees it; `None` where it cannot be read.
    fn subject<'l>(&self, rule: &Rule, line: &'l [u8]) -> Option<Subject<'l>> {
        match &self.sight {
            Sight::Raw => Some(Subject::raw(
                line,
                rule.dates.find(line).map(|(cut, _)| cut),
            )),
            Sight::Apache(_, parser) => Some(Subject::of(line, &parser.parse(line)?)),
        }
    }

    fn is_elsewhere(&self, rule: &Rule, line: &[u8]) -> bool {
        match &self.sight {
            Sight::Raw => false,
            Sight::Apache(_, parser) => parser
                .parse(line)
                .is_some_and(|record| !matcher::wants(&rule.vhost, &rule.not_vhost, &record)),
        }
    }

    /// Whom Apache names as the client of a line.
    pub(super) fn client(&self, line: &[u8]) -> Option<IpAddr> {
        match &self.sight {
            Sight::Raw => None,
            Sight::Apache(_, parser) => Some(parser.parse(line)?.client?.addr),
        }
    }
}

impl Verdict {
    /// The worst word of all rules stays.
    fn be(&mut self, word: Word) {
        self.verdict = self.verdict.min(word);
    }
}

impl Rule {
    /// The network of its ignoreip that the host is in.
    fn ignores(&self, host: IpAddr) -> Option<IpNet> {
        self.ignoreip
            .iter()
            .find(|net| net.contains(&host))
            .copied()
    }

    /// As people are told of it.
    pub(super) fn name(&self) -> String {
        let filter = &self.definition.name;
        match &self.jail {
            Some(jail) if jail.as_str() == filter => format!("jail {jail}"),
            Some(jail) => format!("jail {jail}, filter {filter}"),
            None => format!("filter {filter}"),
        }
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
