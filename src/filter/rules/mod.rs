//! Native filters: conditions on the fields of a record, in canonical form.
//!
//! The rules of all filters are compiled together. Each rule has a few literals of which every hit
//! must hold one; one search in each field finds them, so that a harmless line costs a few
//! searches and no regex. pipeban-filters(5) specifies the files.

mod client;
mod fields;
mod file;
mod holds;
mod near;
mod needed;
mod part;
mod pattern;
mod rule;
mod scratch;
mod set;
mod target;

use std::path::{Path, PathBuf};

pub use file::{excepts, read};
pub use near::{RuleNear, Unmet};
pub use rule::{Confidence, Rule, Rules, Sample};
pub use scratch::Scratch;
pub use set::{RuleHit, RuleSet};

use super::compile::Outcome;
use super::definition::{Definition, PatternText, RuleText};
use super::fail2ban::FilterFiles;
use crate::problem::Problem;
use crate::record::{Kind, ModuleClient, Record};

/// The word beside the class of an attack that Apache answered with status 200.
pub const ANSWERED: &str = "answered-200";

/// The class of [`claims`].
const CLAIMS: &str = "fake-bot";

/// The hit of a filter that counts most; an `[[except]]` above all.
fn strongest(hits: &[RuleHit], filter: usize) -> Option<RuleHit> {
    let mut of_filter = hits.iter().filter(|hit| hit.filter == filter);
    if let Some(except) = of_filter.clone().find(|hit| hit.excepts) {
        return of_filter.any(|hit| !hit.excepts).then_some(*except);
    }
    of_filter.copied().rev().max_by_key(|hit| hit.weight)
}

/// The outcome of the rules that `record` hits, for one filter.
pub(super) fn outcome(hits: &[RuleHit], filter: usize, record: &Record<'_>) -> Outcome {
    match (strongest(hits, filter), record.client) {
        (Some(hit), _) if hit.excepts => Outcome::Ignored(hit.rule),
        (Some(hit), _) if hit.weight == 0 => Outcome::Success(hit.rule),
        (Some(hit), Some(client)) => Outcome::Match {
            pattern: hit.rule,
            host: client.addr,
            weight: hit.weight,
        },
        (Some(hit), None) => Outcome::Spoof { pattern: hit.rule },
        (None, _) => Outcome::Miss,
    }
}

/// Whether a rule of a native filter is for this log; true for fail2ban's filters.
pub fn reads(definition: &Definition, kind: Kind) -> bool {
    let mut files = definition.native.iter();
    let logs = |file: &RuleText| Some(read(&file.file, &file.text).ok()?.log);
    definition.native.is_empty()
        || files.any(|file| logs(file).is_none_or(|log| log.is_none_or(|log| log == kind)))
}

/// The `[[client]]` of native filters.
pub fn module_clients<'d>(
    definitions: impl IntoIterator<Item = &'d Definition>,
) -> Vec<ModuleClient> {
    let files = definitions.into_iter().flat_map(|filter| &filter.native);
    // To read all files takes long.
    let files = files.filter(|file| file.text.contains("client"));
    let read = files.filter_map(|file| read(&file.file, &file.text).ok());
    read.flat_map(|rules| rules.clients).collect()
}

/// The filter of a jail with `trap`: a request for one of these paths counts `weight`, so that one
/// bans.
pub fn trap(jail: &str, paths: &[String], weight: u32) -> Definition {
    let paths = paths.iter().map(|path| {
        let end = if path.ends_with('/') { "" } else { "$" };
        regex_syntax::escape(path) + end
    });
    let pattern = toml::Value::String(format!("^(?:{})", paths.collect::<Vec<_>>().join("|")));
    let weight = weight.min(1000);
    let text = format!("path = {pattern}\nspoofable = true\nweight = {weight}\n");
    built_in(jail, "trap", &text)
}

/// The filter of a jail with `search_engines = "ban-fake"`: every line whose user agent holds one of
/// these words, each user agent of a client once.
pub fn claims<'w>(jail: &str, words: impl Iterator<Item = &'w str>) -> Definition {
    let pattern = toml::Value::String(claim_pattern(words));
    let text = format!("user_agent = {pattern}\ndistinct = \"user_agent\"\n");
    built_in(jail, CLAIMS, &text)
}

/// Whether it is a filter of [`claims`].
pub fn is_claims(definition: &Definition) -> bool {
    let mut patterns = definition.failregex.iter();
    let is_built_in = definition.file.to_string_lossy().starts_with("[jails.");
    is_built_in && patterns.any(|p| p.class.as_deref() == Some(CLAIMS))
}

/// Compiles a pattern as native filters do.
pub(super) fn regex(pattern: &str) -> Result<regex::bytes::Regex, regex::Error> {
    pattern::regex(pattern, pattern::MOST_BYTES)
}

/// A user agent with one of these words, which is the first group.
pub(super) fn claim_pattern<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<String> = words.map(regex_syntax::escape).collect();
    format!("(?:^|[^a-z0-9])({})(?:[^a-z0-9]|$)", words.join("|"))
}

/// A filter that follows from the keys of a jail: one rule, whose first line is its condition.
fn built_in(jail: &str, class: &str, rule: &str) -> Definition {
    let file = PathBuf::from(format!("[jails.{jail}]"));
    let condition = rule.lines().next().unwrap_or_default();
    let native = RuleText {
        file: file.clone(),
        text: format!("[[match]]\n{rule}class = \"{class}\"\n"),
    };
    Definition {
        name: jail.to_owned(),
        file,
        prefregex: None,
        failregex: vec![PatternText {
            text: format!("{class}: {condition}"),
            file: None,
            line: 1,
            column: 1,
            class: Some(class.to_owned()),
            spoofable: rule.contains("\nspoofable = true\n"),
            certain: None,
        }],
        ignoreregex: Vec::new(),
        native: vec![native],
    }
}

/// Reads a native filter and the files that it includes, which `find` finds by their names.
///
/// # Errors
/// Every problem of every file.
pub fn definition(
    name: &str,
    file: &Path,
    files: &dyn FilterFiles,
    find: impl Fn(&str) -> Option<PathBuf>,
) -> Result<Definition, Vec<Problem>> {
    let load = |file: &Path| -> Result<(RuleText, Rules), Vec<Problem>> {
        let text = files.read(file).map_err(|error| {
            vec![Problem {
                file: file.to_owned(),
                place: None,
                message: format!("cannot read it: {error}"),
            }]
        })?;
        let rules = read(file, &text)?;
        let file = file.to_owned();
        Ok((RuleText { file, text }, rules))
    };
    let (text, rules) = load(file)?;
    let (mut native, mut all, mut problems) = (vec![text], Vec::new(), Vec::new());
    let at = |place, message| Problem {
        file: file.to_owned(),
        place: Some(place),
        message,
    };
    for (included, place) in &rules.include {
        let path = find(included).filter(|path| path.extension().is_some_and(|e| e == "toml"));
        match path.map(|path| load(&path)) {
            Some(Ok((_, rules))) if !rules.include.is_empty() => {
                problems.push(at(
                    *place,
                    format!("`{included}` includes other filters itself"),
                ));
            }
            Some(Ok((text, rules))) => {
                native.push(text);
                all.push(rules);
            }
            Some(Err(found)) => problems.extend(found),
            None => problems.push(at(*place, format!("no native filter `{included}` exists"))),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    all.insert(0, rules);
    let described = |excepts| {
        let rules = all
            .iter()
            .flat_map(|file| file.rules.iter().map(move |rule| (file, rule)));
        let rules = rules.filter(move |(_, rule)| rule.excepts == excepts);
        rules.map(|(file, rule)| PatternText {
            text: rule.description.clone(),
            file: Some(file.file.clone()),
            line: rule.place.0,
            column: rule.place.1,
            class: (!rule.class.is_empty()).then(|| rule.class.clone()),
            spoofable: rule.spoofable,
            certain: (rule.confidence == Confidence::Certain).then_some(rule.weight),
        })
    };
    Ok(Definition {
        name: name.to_owned(),
        file: file.to_owned(),
        prefregex: None,
        failregex: described(false).collect(),
        ignoreregex: described(true).collect(),
        native,
    })
}

#[cfg(test)]
mod tests;
