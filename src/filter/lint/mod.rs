//! Warnings of `check` about the patterns of a filter.

mod spoof;

use std::path::PathBuf;

use serde::Serialize;

use super::compile::Filter;
use super::definition::{Definition, PatternAt, PatternText};
use super::fail2ban::translate::{Host, translate};
use super::regexes::what_backtracks;
use super::rules::{RuleSet, Scratch};
use crate::record::{Kind, Parser};
use spoof::{ATTACKER, Attack};

/// The kind of a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lint {
    /// A client can choose the address in place of `<HOST>`.
    Spoofable,
    /// An earlier pattern is the same.
    Duplicate,
    /// The pattern looks around or back.
    Backtracks,
    /// No text is in every match.
    Slow,
    /// A sample of a native rule does not do what it says.
    Sample,
}

/// One warning, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub lint: Lint,
    /// The filter, without options.
    pub filter: String,
    /// The pattern.
    pub pattern: PatternAt,
    /// The file of the pattern.
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

/// The warnings about a filter that is fed by these logs. Empty for one that does not compile:
/// [`Filter::compile`] reports that.
pub fn lint(definition: &Definition, logs: &[Kind]) -> Vec<Finding> {
    let mut findings = Findings {
        definition,
        found: Vec::new(),
    };
    // A native rule hits only Apache's client, in linear time.
    if !definition.native.is_empty() {
        findings.samples();
        return findings.found;
    }
    let Ok(filter) = Filter::compile(definition) else {
        return Vec::new();
    };
    for (at, pattern) in definition.patterns() {
        findings.backtracks(at, pattern);
        findings.duplicate(at, pattern);
    }
    for (pattern, literals) in (1..).zip(&definition.failregex).zip(filter.literals()) {
        let (number, pattern) = pattern;
        findings.spoofable(PatternAt::Fail(number), pattern, logs);
        if literals.is_none() {
            let message = "is slow: it has no rare text that every match contains, so pipeban \
                           tries it on every line; write out a word that every match contains";
            findings.add(Lint::Slow, PatternAt::Fail(number), message.to_owned());
        }
    }
    findings.found
}

struct Findings<'d> {
    definition: &'d Definition,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, lint: Lint, at: PatternAt, message: String) {
        let Some(pattern) = self.definition.pattern(at) else {
            return;
        };
        let (file, (line, column)) = self.definition.place(pattern);
        let filter = self.definition.name.clone();
        self.found.push(Finding {
            lint,
            message: format!("{at} of filter `{filter}` {message}"),
            filter,
            pattern: at,
            file,
            line,
            column,
            attack: None,
        });
    }

    /// The samples of native rules.
    fn samples(&mut self) {
        let rules = RuleSet::of([self.definition]);
        let mut scratch = Scratch::default();
        for (number, rule) in rules.of_filter(0) {
            for sample in &rule.samples {
                let (kind, format) = match sample.line.starts_with('[') {
                    true => (Kind::Error, "auto"),
                    false => (Kind::Access, "combined"),
                };
                let parser = Parser::new(kind, format).ok();
                let parser = parser.map(|parser| parser.with_module_clients(rules.clients()));
                let line = sample.line.as_bytes();
                let record = parser.as_ref().and_then(|parser| parser.parse(line));
                let hits = record.map(|record| rules.evaluate(&record, &mut scratch));
                let mut hits = hits.iter().flatten();
                if hits.any(|hit| !hit.excepts && hit.rule == number) != sample.hits {
                    let (does, key) = match sample.hits {
                        true => ("does not hit", "hit"),
                        false => ("hits", "miss"),
                    };
                    let message = format!("{does} a sample of its `{key}`: {}", sample.line);
                    self.add(Lint::Sample, PatternAt::Fail(number), message);
                }
            }
        }
    }

    fn backtracks(&mut self, at: PatternAt, pattern: &PatternText) {
        let (translated, _) = translate(&pattern.text, Host::Any);
        if let Some((part, name)) = what_backtracks(&translated) {
            let message = format!(
                "backtracks for its {name} `{part}`: it gets 2000 steps and lines up to 8192 \
                 bytes, and a line that needs more hits no client; rewrite it without, if possible"
            );
            self.add(Lint::Backtracks, at, message);
        }
    }

    fn duplicate(&mut self, at: PatternAt, pattern: &PatternText) {
        let mut same = self
            .definition
            .patterns()
            .take_while(|(other, _)| *other != at);
        let first =
            same.find(|(other, text)| other.option() == at.option() && text.text == pattern.text);
        if let Some((first, _)) = first {
            self.add(
                Lint::Duplicate,
                at,
                format!("is the same as {first}: remove one"),
            );
        }
    }

    fn spoofable(&mut self, at: PatternAt, pattern: &PatternText, logs: &[Kind]) {
        let attack = spoof::attack(self.definition, pattern, logs);
        let Some(Attack { line, victim }) = attack else {
            return;
        };
        let message = format!(
            "is spoofable: with the line below client {ATTACKER} makes fail2ban ban {victim}. A \
             jail of pipeban bans only the client that Apache names, but `pipeban test --kind raw` \
             takes the line as fail2ban does. Begin the pattern with `^` and spell out everything \
             before <HOST>"
        );
        self.add(Lint::Spoofable, at, message);
        if let Some(finding) = self.found.last_mut() {
            finding.attack = Some(line);
        }
    }
}

#[cfg(test)]
mod tests;
