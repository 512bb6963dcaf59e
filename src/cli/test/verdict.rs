//! The verdict on one line: what `--json` prints.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::rules::TestRule;
use crate::cli::stamp;
use crate::config::JailName;
use crate::filter::matcher::{InputKind, LineResult, Matcher, Rule};
use crate::filter::{Outcome, Reason};
use crate::record::time;

/// Rules, and the matcher that the live path uses.
pub(in crate::cli) struct Tester {
    pub(in crate::cli) matcher: Matcher,
    pub(in crate::cli) rules: Vec<TestRule>,
}

/// The verdict on a line; of several rules the first of these decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Verdict {
    Match,
    Spoof,
    Ignored,
    Miss,
    Unparsed,
}

/// The JSON object of a line.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct TestedLine {
    pub(super) line: u64,
    pub(in crate::cli) verdict: Verdict,
    pub(super) host: Option<IpAddr>,
    pub(in crate::cli) matches: Vec<Match>,
    pub(super) time: Option<String>,
    /// Whether a time was found; a time without a year is not in `time`.
    #[serde(skip)]
    pub(super) has_time: bool,
    /// Where the client is in the line.
    #[serde(skip)]
    pub(super) client: Option<Range<usize>>,
    /// Rules that would match, and what ignores the line.
    #[serde(skip)]
    pub(super) ignored: Vec<(usize, Ignored)>,
    /// See [`LineResult::torn`].
    #[serde(skip)]
    torn: bool,
}

/// What ignores a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Ignored {
    /// The ignoreregex of this number.
    Regex(u32),
    /// The jail's `[[except]]` of this number.
    Except(u32),
    /// This network of the jail's ignoreip, and the client in it.
    Address(IpNet, IpAddr),
}

/// Why a rule does not match a line.
pub(in crate::cli) enum Cause {
    /// The jail is for other virtual hosts.
    Vhost,
    /// It matches by words that may not be Apache's.
    Torn,
    Ignored(Ignored),
    Filter(Reason),
}

/// One rule that matched.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Match {
    jail: Option<JailName>,
    filter: String,
    pub(in crate::cli) pattern: u32,
    host: IpAddr,
    weight: u32,
    bans_alone: bool,
    /// Index into [`Tester::rules`].
    #[serde(skip)]
    pub(in crate::cli) rule: usize,
}

impl Tester {
    pub(in crate::cli) fn new(rules: Vec<TestRule>, input: InputKind) -> Tester {
        let of_matcher: Vec<Rule<'_>> = rules
            .iter()
            .map(|rule| Rule {
                jail: rule.jail.clone(),
                filter: &rule.filter,
                definition: &rule.definition,
                vhost: &rule.vhost,
                not_vhost: &rule.not_vhost,
                except: &rule.except,
                // It counts nothing.
                findtime: Duration::ZERO,
            })
            .collect();
        let matcher = Matcher::new(&of_matcher, input);
        Tester { matcher, rules }
    }

    /// Line `number`, without its newline.
    pub(in crate::cli) fn line(&self, number: u64, line: &[u8]) -> TestedLine {
        let found = self.matcher.examine_line(line);
        let mut tested = TestedLine {
            line: number,
            verdict: match found.unparsed {
                true => Verdict::Unparsed,
                false => Verdict::Miss,
            },
            host: None,
            matches: Vec::new(),
            time: None,
            has_time: false,
            client: None,
            ignored: Vec::new(),
            torn: found.torn,
        };
        let stamp = match (&found.record, self.matcher.input()) {
            (Some(record), _) => record.stamp.map(Some),
            (None, InputKind::Raw) => time::find(line).map(|(_, stamp)| stamp),
            (None, InputKind::Apache(..)) => None,
        };
        tested.has_time = stamp.is_some();
        let time = stamp.flatten().and_then(stamp::zoned);
        tested.time = time.map(|time| stamp::rfc3339(&time));
        for (index, outcome) in &found.outcomes {
            if let Some(rule) = self.rules.get(*index) {
                let verdict = tested.add(*index, rule, *outcome);
                tested.verdict = tested.verdict.min(verdict);
            }
        }
        tested.client = tested.host.and_then(|host| client(line, &found, host));
        tested
    }

    /// Why each rule that does not match a line does not; nothing for a line of another format.
    pub(in crate::cli) fn causes<'t>(
        &'t self,
        line: &'t [u8],
        tested: &'t TestedLine,
    ) -> impl Iterator<Item = (&'t TestRule, Cause)> {
        let record = self.matcher.parser().and_then(|parser| parser.parse(line));
        let others = |index: usize| tested.matches.iter().all(|found| found.rule != index);
        let rules = (0..).zip(&self.rules);
        rules
            .filter(move |(index, _)| others(*index))
            .map(move |(index, rule)| {
                let ignored = tested.ignored.iter().find(|(at, _)| *at == index);
                let wants = |record| self.matcher.wants(index, record);
                let cause = match (ignored, self.matcher.why_not(index, line)) {
                    _ if !record.as_ref().is_none_or(wants) => Cause::Vhost,
                    (Some((_, ignored)), _) => Cause::Ignored(*ignored),
                    (None, Some(reason)) => Cause::Filter(reason),
                    (None, None) => Cause::Torn,
                };
                (rule, cause)
            })
    }

    /// The client that Apache names in a line.
    pub(in crate::cli) fn client(&self, line: &[u8]) -> Option<IpAddr> {
        Some(self.matcher.parser()?.parse(line)?.client?.addr)
    }
}

impl TestedLine {
    fn add(&mut self, index: usize, rule: &TestRule, outcome: Outcome) -> Verdict {
        match outcome {
            Outcome::Match { .. } if self.torn => Verdict::Spoof,
            Outcome::Match {
                pattern,
                host,
                weight,
            } => {
                let weight = rule.weight.saturating_mul(weight);
                if let Some(net) = rule.ignoreip.iter().find(|net| net.contains(&host)) {
                    self.ignored.push((index, Ignored::Address(*net, host)));
                    return Verdict::Ignored;
                }
                self.host = Some(host);
                self.matches.push(Match {
                    jail: rule.jail.clone(),
                    filter: rule.definition.name.clone(),
                    pattern,
                    host,
                    weight,
                    bans_alone: weight >= rule.maxretry,
                    rule: index,
                });
                Verdict::Match
            }
            Outcome::Spoof { .. } => Verdict::Spoof,
            Outcome::Ignored(number) => {
                self.ignored.push((index, Ignored::Regex(number)));
                Verdict::Ignored
            }
            Outcome::Excepted(number) => {
                self.ignored.push((index, Ignored::Except(number)));
                Verdict::Ignored
            }
            Outcome::Success(_) | Outcome::Miss => Verdict::Miss,
        }
    }
}

/// Where the client is in a line: as Apache names it, else the first place of its address.
fn client(line: &[u8], found: &LineResult<'_>, host: IpAddr) -> Option<Range<usize>> {
    let named = found.record.as_ref().and_then(|record| record.client);
    let (from, length) = match named {
        Some(client) => {
            let from = client
                .text
                .as_ptr()
                .addr()
                .checked_sub(line.as_ptr().addr())?;
            (from, client.text.len())
        }
        None => {
            let text = host.to_string();
            (memchr::memmem::find(line, text.as_bytes())?, text.len())
        }
    };
    Some(from..from + length)
}
