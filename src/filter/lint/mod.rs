//! What a filter's patterns do that their author hardly meant: findings of `check`.
//!
//! What is said of a pattern is proved: by a line that was matched, or by automata that have no
//! text in common. Where a proof would take too long nothing is said.

mod automaton;
mod forms;
mod language;
mod overlap;
mod spoof;

use std::path::PathBuf;

use serde::Serialize;

use super::regexes::what_steps_back;
use super::translate::{Host, translate};
use super::{Definition, Filter, PatternAt, PatternText};
use crate::record::Kind;
use automaton::{Automaton, Common};
use forms::Time;
use language::Address;
use spoof::{Attack, Attacks};

/// A client; what holds for both holds for all.
const CLIENTS: [Address; 2] = [
    Address {
        text: "192.0.2.101",
        v4: true,
    },
    Address {
        text: "2001:db8:5:6::7",
        v4: false,
    },
];

/// What is wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lint {
    /// `<HOST>` can be put where a client's text stands.
    Spoofable,
    /// No line of Apache's can match it.
    NeverMatches,
    /// The same pattern stands before it.
    Duplicate,
    /// An earlier pattern matches whatever it matches.
    Shadowed,
    /// It looks around or back.
    StepsBack,
    /// There is no text that every match must hold.
    Slow,
    /// The ignoreregex matches whatever the failregex match.
    IgnoresAll,
}

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub lint: Lint,
    /// The filter, without options.
    pub filter: String,
    /// The pattern.
    pub pattern: PatternAt,
    /// Where the pattern stands.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// Its column, from 1.
    pub column: usize,
    /// What is wrong and what to do, for people.
    pub message: String,
    /// The line that proves it: with [`Lint::Spoofable`].
    pub attack: Option<String>,
}

/// Finds what is wrong with filters; knows Apache's lines.
#[derive(Debug)]
pub struct Linter {
    attacks: Attacks,
    lines: Vec<Lines>,
}

/// The lines in one log of one of [`CLIENTS`], in their order.
#[derive(Debug)]
struct Lines {
    kind: Kind,
    cut: Option<Automaton>,
    with_time: Option<Automaton>,
}

impl Default for Linter {
    fn default() -> Self {
        let logs = [Kind::Access, Kind::Error].into_iter();
        let lines = logs.flat_map(|kind| {
            CLIENTS.map(|client| Lines {
                kind,
                cut: forms::lines(kind, client, Time::Cut),
                with_time: forms::lines(kind, client, Time::Kept),
            })
        });
        Linter {
            attacks: Attacks::new(),
            lines: lines.collect(),
        }
    }
}

impl Linter {
    /// What is wrong with a filter that is fed by these logs. Empty for one that does not compile:
    /// [`Filter::compile`] says more.
    pub fn lint(&self, definition: &Definition, logs: &[Kind]) -> Vec<Finding> {
        let Ok(filter) = Filter::compile(definition) else {
            return Vec::new();
        };
        let mut findings = Findings {
            linter: self,
            definition,
            logs,
            found: Vec::new(),
        };
        findings.all(&filter);
        findings.found
    }
}

struct Findings<'d> {
    linter: &'d Linter,
    definition: &'d Definition,
    logs: &'d [Kind],
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn all(&mut self, filter: &Filter) {
        self.steps_back();
        if self.definition.maxlines > 1 {
            let message = "wants several lines at once (`maxlines`), but in Apache's logs lines of many \
                       clients stand between each other: only `pipeban test --kind raw` takes \
                       such a filter";
            self.add(Lint::NeverMatches, PatternAt::Fail(1), message.to_owned());
            return;
        }
        let alive = self.reach();
        for number in &alive {
            self.spoofable(*number);
            self.slow(filter, *number);
        }
        self.overlap(filter, &alive);
    }

    fn add(&mut self, lint: Lint, pattern: PatternAt, message: String) {
        self.add_with(lint, pattern, message, None);
    }

    fn add_with(&mut self, lint: Lint, at: PatternAt, message: String, attack: Option<String>) {
        let Some(pattern) = self.definition.pattern(at) else {
            return;
        };
        let (file, (line, column)) = self.definition.place(pattern);
        let filter = self.definition.name.clone();
        let message = format!("{at} of filter `{filter}` {message}");
        self.found.push(Finding {
            lint,
            filter,
            pattern: at,
            file,
            line,
            column,
            message,
            attack,
        });
    }

    fn fail(&self, number: u32) -> Option<&PatternText> {
        self.definition.pattern(PatternAt::Fail(number))
    }

    fn steps_back(&mut self) {
        let definition = self.definition;
        let prefix = definition.prefregex.iter().map(|_| PatternAt::Prefix);
        let fail = (1..).zip(&definition.failregex);
        let ignore = (1..).zip(&definition.ignoreregex);
        let all = prefix
            .chain(fail.map(|(number, _)| PatternAt::Fail(number)))
            .chain(ignore.map(|(number, _)| PatternAt::Ignore(number)));
        for at in all {
            let Some(pattern) = definition.pattern(at) else {
                continue;
            };
            let (translated, _) = translate(&pattern.text, Host::Any);
            if let Some((what, name)) = what_steps_back(&translated) {
                let message = format!(
                    "needs backtracking for its {name} `{what}`: it is given 2000 steps and lines \
                     up to 8192 bytes, and nobody is hit for a line that takes more; write it \
                     without, where that is possible"
                );
                self.add(Lint::StepsBack, at, message);
            }
        }
    }

    /// Says which patterns no line can match; the numbers of the others.
    fn reach(&mut self) -> Vec<u32> {
        let numbers = (1..).zip(&self.definition.failregex);
        let unreached: Vec<(u32, Option<String>)> = numbers
            .map(|(number, pattern)| (number, self.unreached(pattern)))
            .collect();
        let alive = unreached.iter().filter(|(_, why)| why.is_none());
        let alive: Vec<u32> = alive.map(|(number, _)| *number).collect();
        let all = alive.is_empty() && unreached.len() > 1;
        for (number, why) in unreached {
            let Some(why) = why else {
                continue;
            };
            if all {
                let count = self.definition.failregex.len();
                let message = format!("{why} (so it is with all its {count} patterns)");
                self.add(Lint::NeverMatches, PatternAt::Fail(number), message);
                break;
            }
            self.add(Lint::NeverMatches, PatternAt::Fail(number), why);
        }
        alive
    }

    /// Why no line of these logs can hit its client by the pattern; `None`: one may.
    fn unreached(&self, pattern: &PatternText) -> Option<String> {
        let languages = CLIENTS.map(|client| language::of_lines(self.definition, pattern, client));
        // Whether it is proved that none is matched.
        let never = |kind: Kind, time: Time| {
            let lines = self.linter.lines.iter().filter(|lines| lines.kind == kind);
            lines.zip(&languages).all(|(lines, language)| {
                let form = match time {
                    Time::Cut => lines.cut.as_ref(),
                    Time::Kept => lines.with_time.as_ref(),
                };
                let both = language.as_ref().zip(form);
                both.is_some_and(|(language, form)| language.common(form) == Common::None)
            })
        };
        let logs = self.logs;
        if !logs.iter().all(|kind| never(*kind, Time::Cut)) {
            return None;
        }
        let other = match logs {
            [Kind::Access] => Some(Kind::Error),
            [Kind::Error] => Some(Kind::Access),
            _ => None,
        };
        let names: Vec<String> = logs.iter().map(|kind| format!("{kind} log")).collect();
        let names = names.join(" or ");
        let advice = if logs.iter().any(|kind| !never(*kind, Time::Kept)) {
            "it spells out the time, which is cut out of a line before it is matched, as fail2ban \
             does: write `\\[\\]` where the time stands"
                .to_owned()
        } else if let Some(other) = other.filter(|other| !never(*other, Time::Cut)) {
            format!("it fits the {other} log: give its jail `log = \"{other}\"`")
        } else {
            "either it is for another program's log, or it wants a form of Apache's lines that \
             LogFormat or ErrorLogFormat made; `pipeban test` shows whether a line of yours matches"
                .to_owned()
        };
        Some(format!(
            "matches no line of Apache's {names} in its usual forms: {advice}"
        ))
    }

    fn spoofable(&mut self, number: u32) {
        let attacks = &self.linter.attacks;
        let attack = self
            .fail(number)
            .and_then(|pattern| attacks.on(self.definition, pattern, self.logs));
        let Some(Attack { line, victim }) = attack else {
            return;
        };
        let attacker = forms::ATTACKER;
        let message = format!(
            "takes what a client writes for its <HOST>: by the line below {attacker} has fail2ban \
             ban {victim}, and whomever else it likes; a pipeban jail bans only the client that \
             Apache itself names, here nobody, `pipeban test --kind raw` takes the line as fail2ban \
             does. Begin the pattern with `^` and spell out all that stands before <HOST>"
        );
        self.add_with(
            Lint::Spoofable,
            PatternAt::Fail(number),
            message,
            Some(line),
        );
    }

    fn slow(&mut self, filter: &Filter, number: u32) {
        let at = usize::try_from(number).unwrap_or(0).saturating_sub(1);
        if filter
            .literals()
            .nth(at)
            .is_some_and(|texts| texts.is_none())
        {
            let message = "has no text of three letters or more that every match must hold, so it \
                           is tried on every line: spell out a word that is always there";
            self.add(Lint::Slow, PatternAt::Fail(number), message.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
