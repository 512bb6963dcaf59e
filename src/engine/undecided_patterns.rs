//! Patterns that gave up on lines: logged once for each filter, shown by `status`.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::control::{MAX_UNDECIDED, Undecided};
use crate::filter::PatternAt;

/// Patterns that `status` names.
const NAMED: usize = 10;

/// What follows from it, and what to do.
const CAUSE: &str = "with look-around or back references a pattern takes at most 2000 steps on at \
                     most 8192 bytes. Such a line is no hit for this pattern: write it without \
                     them (`pipeban check` shows where they are)";

/// Holds nothing but patterns of the configuration, so it is bounded.
#[derive(Debug, Default)]
pub(super) struct UndecidedPatterns {
    times: BTreeMap<(String, PatternAt), u64>,
    /// Filters logged since the engine started.
    logged: BTreeSet<String>,
}

impl UndecidedPatterns {
    /// Counts what a worker reports; returns the lines to log. Patterns that the configuration
    /// lacks are skipped: the worker may still have an older one.
    pub(super) fn add(&mut self, patterns: Vec<Undecided>, config: &Config) -> Vec<String> {
        let mut lines = Vec::new();
        for undecided in patterns.into_iter().take(MAX_UNDECIDED) {
            let Some(place) = place(config, &undecided.filter, undecided.pattern) else {
                continue;
            };
            if self.logged.insert(undecided.filter.clone()) {
                lines.push(format!("{place} gave up on a line; {CAUSE}"));
            }
            let times = self.times.entry((undecided.filter, undecided.pattern));
            let times = times.or_default();
            *times = times.saturating_add(undecided.times);
        }
        lines
    }

    /// Another configuration is in use.
    pub(super) fn forget(&mut self) {
        self.times.clear();
    }

    /// For `status`.
    pub(super) fn warnings(&self, config: &Config) -> Vec<String> {
        let named = self.times.iter().take(NAMED);
        let mut warnings: Vec<String> = named
            .filter_map(|((filter, pattern), times)| {
                let place = place(config, filter, *pattern)?;
                Some(format!("{place} gave up on lines {times} times; {CAUSE}"))
            })
            .collect();
        if self.times.len() > NAMED {
            let more = self.times.len() - NAMED;
            warnings.push(format!("{more} more patterns gave up on lines"));
        }
        warnings
    }
}

/// A pattern with file and line; `None`: there is none such.
fn place(config: &Config, filter: &str, at: PatternAt) -> Option<String> {
    let definition = config.filters.get(filter)?;
    let (file, (line, _)) = definition.place(definition.pattern(at)?);
    let file = file.display();
    Some(format!("filter `{filter}`: {at} ({file}:{line})"))
}
