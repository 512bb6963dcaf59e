//! Patterns that gave up on lines: told once for each filter, shown by `status`.

use std::collections::{BTreeMap, BTreeSet};

use super::hub::Engine;
use crate::alert::Severity;
use crate::control::{MAX_UNDECIDED, Undecided};
use crate::filter::{Definition, PatternAt};

/// Patterns that `status` names; of the others it says how many there are.
const MOST_SHOWN: usize = 10;

/// What workers said. Holds nothing that the configuration does not hold, so it is bounded.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    times: BTreeMap<(String, PatternAt), u64>,
    /// Filters that syslog has been told of since the engine started.
    told: BTreeSet<String>,
}

impl Patterns {
    /// Other patterns are in use from now on.
    pub(super) fn forget(&mut self) {
        self.times.clear();
    }
}

impl Engine {
    /// A worker's patterns gave up. What the configuration in use does not hold is passed over: the
    /// worker may still have an older one.
    pub(super) fn undecided(&mut self, patterns: Vec<Undecided>) {
        for told in patterns.into_iter().take(MAX_UNDECIDED) {
            let Some(which) = self.which(&told.filter, told.pattern) else {
                continue;
            };
            if self.undecided.told.insert(told.filter.clone()) {
                let text = format!("{which} gave up on a line; {CAUSE}");
                self.parts.alerts.tell(Severity::Warning, &text);
            }
            let times = self.undecided.times.entry((told.filter, told.pattern));
            let times = times.or_default();
            *times = times.saturating_add(told.times);
        }
    }

    /// For `status`.
    pub(super) fn undecided_warnings(&self) -> Vec<String> {
        let all = &self.undecided.times;
        let shown = all.iter().take(MOST_SHOWN);
        let mut warnings: Vec<String> = shown
            .filter_map(|((filter, pattern), times)| {
                let which = self.which(filter, *pattern)?;
                Some(format!("{which} gave up on lines {times} times; {CAUSE}"))
            })
            .collect();
        if all.len() > MOST_SHOWN {
            let more = all.len() - MOST_SHOWN;
            warnings.push(format!("so did {more} more patterns"));
        }
        warnings
    }

    /// The pattern and its place; `None`: there is none such.
    fn which(&self, filter: &str, at: PatternAt) -> Option<String> {
        let definition: &Definition = self.parts.accepted.config.filters.get(filter)?;
        let (file, (line, _)) = definition.place(definition.pattern(at)?);
        Some(format!(
            "filter `{filter}`: {at} ({}:{line})",
            file.display()
        ))
    }
}

/// Why, what comes of it, and what to do.
const CAUSE: &str = "it looks around or back, which is bounded: too many steps, or a line over \
                     8192 bytes. By this pattern nobody is hit for such a line: write it without \
                     look-around and back references (`pipeban check` shows which it has)";
