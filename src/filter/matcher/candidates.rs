//! The patterns that may match the current line.

use std::cell::RefCell;

use crate::filter::rules::Scratch;

/// A pattern, numbered over all filters.
#[derive(Debug)]
pub(super) struct Owner {
    /// Index of its filter.
    pub(super) filter: usize,
    /// It has no literal: it is tried on every line.
    pub(super) always: bool,
}

/// Marks by line number, so that a new line costs nothing.
#[derive(Debug)]
pub(super) struct Candidates<'p> {
    patterns: &'p [Owner],
    line: u64,
    pattern_marks: Vec<u64>,
    filter_marks: Vec<u64>,
    /// The last line with any mark.
    any_mark: u64,
    any_always: bool,
    /// What native filters remember.
    pub(super) native: RefCell<Scratch>,
    /// What the `[[except]]` of jails remember.
    pub(super) excepts: RefCell<Scratch>,
}

/// A mark for every line.
const ALWAYS: u64 = u64::MAX;

impl<'p> Candidates<'p> {
    pub(super) fn new(patterns: &'p [Owner], filters: usize) -> Candidates<'p> {
        let mut filter_marks = vec![0; filters];
        for pattern in patterns.iter().filter(|pattern| pattern.always) {
            if let Some(mark) = filter_marks.get_mut(pattern.filter) {
                *mark = ALWAYS;
            }
        }
        Candidates {
            patterns,
            line: 0,
            pattern_marks: patterns
                .iter()
                .map(|pattern| if pattern.always { ALWAYS } else { 0 })
                .collect(),
            any_always: filter_marks.contains(&ALWAYS),
            filter_marks,
            any_mark: 0,
            native: RefCell::default(),
            excepts: RefCell::default(),
        }
    }

    pub(super) fn next_line(&mut self) {
        self.line += 1;
    }

    /// Lines begin at 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The line holds a literal of this pattern.
    pub(super) fn add(&mut self, pattern: usize) {
        let Some(owner) = self.patterns.get(pattern) else {
            return;
        };
        for mark in [
            self.pattern_marks.get_mut(pattern),
            self.filter_marks.get_mut(owner.filter),
        ]
        .into_iter()
        .flatten()
        {
            *mark = (*mark).max(self.line);
        }
        self.any_mark = self.line;
    }

    pub(super) fn any(&self) -> bool {
        self.any_always || self.any_mark == self.line
    }

    pub(super) fn filter(&self, filter: usize) -> bool {
        self.marked(self.filter_marks.get(filter))
    }

    pub(super) fn pattern(&self, pattern: usize) -> bool {
        self.marked(self.pattern_marks.get(pattern))
    }

    fn marked(&self, mark: Option<&u64>) -> bool {
        mark.is_some_and(|mark| *mark == self.line || *mark == ALWAYS)
    }
}
