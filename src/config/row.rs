//! A row of a section's table: one key, with all that is known of it.

use std::path::Path;

use super::document::{Located, Member, Place};
use super::words::{advice, nearest, removed};
use crate::problem::Problem;

/// One key of a section that is read into a `T`.
pub(super) struct Row<T: 'static> {
    pub(super) name: &'static str,
    /// As in a file; for `log` and `filter`, which have none, in words.
    pub(super) default: &'static str,
    /// One line for the manual.
    pub(super) help: &'static str,
    /// Reads a value, or reports what is wrong with it.
    pub(super) set: fn(&mut T, &Located, &mut Faults<'_>),
    /// The value as in a file; [`Row::set`] reads it again.
    pub(super) show: fn(&T) -> String,
}

pub(super) const fn row<T>(
    name: &'static str,
    default: &'static str,
    help: &'static str,
    set: fn(&mut T, &Located, &mut Faults<'_>),
    show: fn(&T) -> String,
) -> Row<T> {
    Row {
        name,
        default,
        help,
        set,
        show,
    }
}

/// Collects what is wrong in one file.
pub(super) struct Faults<'a> {
    pub(super) file: &'a Path,
    pub(super) found: &'a mut Vec<Problem>,
    pub(super) warnings: &'a mut Vec<Problem>,
}

impl Faults<'_> {
    pub(super) fn at(&mut self, place: Place, message: impl Into<String>) {
        self.found.push(self.problem(place, message.into()));
    }

    pub(super) fn expected(&mut self, what: &str, found: &Located) {
        let message = format!("expected {what}, found {}", found.value);
        self.at(found.place, message);
    }

    /// Warns of a setting that was removed. It has no effect.
    pub(super) fn removed(&mut self, place: Place, setting: &str, advice: &str) {
        let message = format!("`{setting}` was removed: {advice}");
        self.warn(place, message);
    }

    pub(super) fn warn(&mut self, place: Place, message: String) {
        self.warnings.push(self.problem(place, message));
    }

    fn problem(&self, place: Place, message: String) -> Problem {
        Problem {
            file: self.file.to_owned(),
            place: Some(place),
            message,
        }
    }
}

/// Puts every member of `table` into `target`, and reports unknown keys.
pub(super) fn apply<T>(
    section: &str,
    rows: &[Row<T>],
    table: &[Member],
    target: &mut T,
    faults: &mut Faults<'_>,
) {
    for member in table {
        let key = member.key.as_str();
        if let Some(row) = rows.iter().find(|row| row.name == key) {
            (row.set)(target, &member.value, faults);
        } else if let Some(advice) = removed(section, key) {
            faults.removed(member.place, key, advice);
        } else {
            let names = rows.iter().map(|row| row.name);
            faults.at(member.place, unknown_key(section, key, names));
        }
    }
}

fn unknown_key(section: &str, key: &str, known: impl Iterator<Item = &'static str>) -> String {
    let shown = key.escape_debug();
    if let Some(advice) = advice(section, key) {
        return format!("`{shown}` is not a key of `[{section}]`: {advice}");
    }
    let known: Vec<_> = known.collect();
    let hint = match nearest(key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the keys are {}", known.join(", ")),
    };
    format!("unknown key `{shown}` in `[{section}]`: {hint}")
}

/// `{ key = value, ... }` with every key.
pub(super) fn inline_table<T>(rows: &[Row<T>], target: &T) -> String {
    let shown = rows
        .iter()
        .map(|row| format!("{} = {}", row.name, (row.show)(target)));
    format!("{{ {} }}", shown.collect::<Vec<_>>().join(", "))
}
