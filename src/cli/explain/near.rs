//! Why lines have no hit: the closest pattern, another address, another jail.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::reading::InUse;
use crate::cli::test::named;
use crate::cli::test::rules::{TestRule, rule};
use crate::cli::test::verdict::{Cause, Tester};
use crate::config::{Config, Jail, JailName};
use crate::filter::matcher::InputKind;
use crate::filter::{Near, Outcome, PatternAt, Reason};
use crate::record::{Kind, Parser, display};
use crate::report::explain::{MissFact, Why};

/// Time for finding the closest pattern: fronts of patterns are compiled for it.
const PATIENCE: Duration = Duration::from_millis(300);
/// Bytes shown of texts.
const WIDTH: usize = 100;
const LINE: usize = 300;

/// Whether the closest pattern is sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closest {
    Sought,
    NotSought,
}

/// What lines without a hit are tried with.
pub(super) struct Misses<'a> {
    net: &'a IpNet,
    closest: Closest,
    enabled: Option<Tester>,
    /// Jails of other virtual hosts, disabled ones, those of the other log, and those that wait for
    /// a reload.
    others: Vec<(Tester, Other)>,
    in_use: &'a InUse<'a>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Other {
    Vhost,
    Disabled,
    WrongLog,
    NotReloaded,
}

impl<'a> Misses<'a> {
    pub(super) fn new(
        in_use: &'a InUse<'a>,
        (kind, format): (Kind, &str),
        net: &'a IpNet,
        closest: Closest,
    ) -> Misses<'a> {
        let tester = |rules: Vec<TestRule>| {
            let parser = in_use.config.parser(kind, format).ok()?;
            (!rules.is_empty()).then(|| Tester::new(rules, InputKind::Apache(kind, parser)))
        };
        let config = in_use.config;
        let reads = |jail: &Jail, other: bool| {
            jail.log
                .kind()
                .is_some_and(|reads| (reads != kind) == other)
        };
        let enabled = of(config, in_use, |jail| jail.enabled && reads(jail, false));
        let mut others = Vec::new();
        if closest == Closest::Sought {
            let disabled = of(config, in_use, |jail| !jail.enabled && reads(jail, false));
            let other = of(config, in_use, |jail| jail.enabled && reads(jail, true));
            let waiting = in_use.waiting.map(|files| {
                let waits = |name: &JailName, jail: &Jail| {
                    let before = config.jails.get(name);
                    let same_filter =
                        config.filters.get(&jail.filter) == files.filters.get(&jail.filter);
                    before != Some(jail) || !same_filter
                };
                let jails = files.jails.iter();
                let jails = jails
                    .filter(|(name, jail)| jail.enabled && reads(jail, false) && waits(name, jail));
                let rules = jails.filter_map(|(name, jail)| {
                    let definition = files.filters.get(&jail.filter)?.clone();
                    rule(definition, Some(name.clone()), Some(jail)).ok()
                });
                rules.collect()
            });
            let limited = |jail: &Jail| !jail.vhost.is_empty() || !jail.not_vhost.is_empty();
            let mut vhosts = of(config, in_use, |jail| {
                jail.enabled && reads(jail, false) && limited(jail)
            });
            for rule in &mut vhosts {
                rule.vhost.clear();
                rule.not_vhost.clear();
            }
            let tried = [
                (vhosts, Other::Vhost),
                (waiting.unwrap_or_default(), Other::NotReloaded),
                (disabled, Other::Disabled),
                (other, Other::WrongLog),
            ];
            others.extend(
                tried
                    .into_iter()
                    .filter_map(|(rules, other)| Some((tester(rules)?, other))),
            );
        }
        Misses {
            net,
            closest,
            enabled: tester(enabled),
            others,
            in_use,
            kind,
        }
    }

    /// Why these lines have no hit: one fact for each reason, the last line of each.
    pub(super) fn of(&self, lines: &VecDeque<Vec<u8>>) -> Vec<MissFact> {
        let mut facts: Vec<MissFact> = Vec::new();
        for line in lines.iter().rev() {
            let Some(why) = self.why(line) else { continue };
            let same = |fact: &&mut MissFact| {
                fact.why == why || matches!((&fact.why, &why), (Why::Near(_), Why::Near(_)))
            };
            match facts.iter_mut().find(same) {
                Some(fact) => fact.lines += 1,
                None => {
                    let why = match (&why, self.closest) {
                        (Why::Near(_), Closest::Sought) => Why::Near(self.closest_to(line)),
                        _ => why,
                    };
                    facts.push(MissFact {
                        lines: 1,
                        line: display(line, LINE),
                        why,
                    });
                }
            }
        }
        // What an administrator can change comes first.
        facts.sort_by_key(|fact| match fact.why {
            Why::Spoof { .. } => 0,
            Why::Vhost { .. } => 1,
            Why::Ignored { .. } => 2,
            Why::NotReloaded { .. } => 3,
            Why::Disabled { .. } => 4,
            Why::OtherLog { .. } => 5,
            Why::Near(_) => 6,
        });
        facts
    }

    /// `None`: the line is another client's and says nothing about this one.
    fn why(&self, line: &[u8]) -> Option<Why> {
        let client = self.enabled.as_ref().and_then(|tester| tester.client(line));
        let parser = Parser::new(self.kind, "auto").ok();
        let client = client.or_else(|| Some(parser?.parse(line)?.client?.addr));
        let is_client = client.is_some_and(|client| self.net.contains(&client));
        let by_enabled = self.enabled.as_ref();
        let by_enabled = by_enabled.and_then(|tester| of_enabled(tester, line, client));
        if let Some(why) = by_enabled {
            let named = matches!(&why, Why::Spoof { named: Some(named), .. }
                if named.parse().is_ok_and(|addr: IpAddr| self.net.contains(&addr)));
            return (is_client || named).then_some(why);
        }
        if !is_client {
            return None;
        }
        let by_others = self.others.iter().find_map(|(tester, other)| {
            let tested = tester.line(1, line);
            let jail = tested.matches.first().and_then(|found| {
                let rule = tester.rules.get(found.rule)?;
                rule.jail.clone()
            })?;
            let vhost = || {
                let record = tester.matcher.parser()?.parse(line)?;
                record.vhost.map(|vhost| display(vhost, WIDTH))
            };
            Some(match other {
                Other::Vhost => Why::Vhost {
                    jail,
                    vhost: vhost(),
                },
                other => self.other(*other, jail),
            })
        });
        Some(by_others.unwrap_or(Why::Near(None)))
    }

    fn other(&self, other: Other, jail: JailName) -> Why {
        match other {
            Other::NotReloaded | Other::Vhost => Why::NotReloaded { jail },
            Other::Disabled => {
                let place = self.in_use.origins.of(jail.as_str(), "enabled");
                let place = place.map(|(file, (line, _))| format!("{}:{line}", file.display()));
                Why::Disabled { jail, place }
            }
            Other::WrongLog => Why::OtherLog {
                jail,
                reads: match self.kind {
                    Kind::Access => Kind::Error,
                    Kind::Error => Kind::Access,
                },
            },
        }
    }

    /// The pattern of an enabled jail that comes closest to a line.
    fn closest_to(&self, line: &[u8]) -> Option<String> {
        let tester = self.enabled.as_ref()?;
        let tested = tester.line(1, line);
        let end = Instant::now() + PATIENCE;
        let causes = tester.causes(line, &tested);
        let causes = causes.take_while(|_| Instant::now() < end);
        let nears = causes.filter_map(|(rule, cause)| match cause {
            Cause::Filter(Reason::Near(nears)) => {
                let near = nears.into_iter().find(|near| near.rest.is_some())?;
                Some((rule, near))
            }
            _ => None,
        });
        // A front that is only the client matches every line.
        let nears = nears.filter(|(_, near)| near.matched.len() > "^<HOST>".len());
        let (rule, near) = nears.max_by_key(|(_, near)| near.matched.len())?;
        Some(near_words(rule, &near))
    }
}

/// Rules of the jails that are wanted, with their filters.
fn of(config: &Config, in_use: &InUse<'_>, wanted: impl Fn(&Jail) -> bool) -> Vec<TestRule> {
    let jails = config.jails.iter().filter(|(_, jail)| wanted(jail));
    let rules = jails.filter_map(|(name, jail)| {
        let definition = match config.filters.get(&jail.filter) {
            Some(definition) => definition.clone(),
            // Filters of disabled jails are not loaded.
            None => named(&jail.filter, in_use.global, None).ok()?,
        };
        rule(definition, Some(name.clone()), Some(jail)).ok()
    });
    rules.collect()
}

/// Why enabled jails, whose patterns match, do not count a line; the first of them.
fn of_enabled(tester: &Tester, line: &[u8], client: Option<IpAddr>) -> Option<Why> {
    let found = tester.matcher.examine_line(line);
    found.outcomes.iter().find_map(|(index, outcome)| {
        let jail = tester.rules.get(*index)?.jail.clone()?;
        Some(match outcome {
            Outcome::Ignored(number) | Outcome::Excepted(number) => Why::Ignored {
                jail,
                by: match outcome {
                    Outcome::Excepted(_) => "`[[except]]`",
                    _ => "ignoreregex",
                },
                number: *number,
            },
            Outcome::Spoof { .. } => {
                let named = match tester.matcher.why_not(*index, line) {
                    Some(Reason::Spoof { named, .. }) => named,
                    _ => None,
                };
                Why::Spoof {
                    jail,
                    client,
                    named: named.map(|named| display(&named, WIDTH)),
                }
            }
            Outcome::Match { .. } if found.torn => Why::Spoof {
                jail,
                client,
                named: None,
            },
            Outcome::Match { .. } | Outcome::Success(_) | Outcome::Miss => return None,
        })
    })
}

fn near_words(rule: &TestRule, near: &Near) -> String {
    let definition = &rule.definition;
    let at = near.pattern.map_or(PatternAt::Prefix, PatternAt::Fail);
    let place = definition.pattern(at).map_or(String::new(), |text| {
        let (file, (line, column)) = definition.place(text);
        format!(" ({}:{line}:{column})", file.display())
    });
    let rest = near.rest.as_deref().unwrap_or_default();
    let has = match rest.is_empty() {
        true => "the line ends".to_owned(),
        false => format!("the line has `{}`", display(rest, WIDTH)),
    };
    format!(
        "{at} of {}{place} matches up to `{}`, then needs `{}`, and {has}",
        rule.name(),
        display(near.matched.as_bytes(), WIDTH),
        display(near.wanted.as_bytes(), WIDTH)
    )
}
