//! How lines are read: as which format, and the last ones that were not of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::tell::Tell;
use crate::control::{self, MAX_UNREAD, Unread};
use crate::record::display;

/// Bytes shown of a line.
const SHOWN: usize = 120;

/// Shared by match threads, which find out, and the uplink, which tells the engine.
#[derive(Debug)]
pub(super) struct Reading {
    state: Mutex<State>,
    tell: Tell,
}

#[derive(Debug, Default)]
struct State {
    known: control::Reading,
    /// Counts changes.
    version: u64,
}

impl Reading {
    pub(super) fn new(tell: Tell) -> Reading {
        Reading {
            state: Mutex::default(),
            tell,
        }
    }

    /// A parser for this format is in use from now on; `None`: the first lines decide. `doubt`:
    /// why none of its lines can ban anybody.
    pub(super) fn begins(&self, format: Option<&str>, doubt: Option<&str>) {
        match doubt {
            Some(doubt) => self.tell.trouble("format", doubt),
            None => self.tell.over("format", "its lines can ban again"),
        }
        let mut state = self.lock();
        state.known.doubt = doubt.map(str::to_owned);
        if format.is_some() {
            state.known.format = format.map(str::to_owned);
        }
        state.version += 1;
    }

    /// The first lines have decided for this format: told once.
    pub(super) fn decided(&self, format: &str) {
        let mut state = self.lock();
        if state.known.format.as_deref() == Some(format) {
            return;
        }
        state.known.format = Some(format.to_owned());
        state.version += 1;
        self.tell.note(&format!(
            "its first lines are of the format `{format}`, and so all are taken; `--format` says \
             otherwise"
        ));
    }

    /// A line that could not be read. `number`: among those that came to be matched, from 1.
    pub(super) fn could_not_read(&self, number: u64, line: &[u8], why: &str) {
        let mut state = self.lock();
        let unread = &mut state.known.unparsed_lines;
        if unread.len() >= MAX_UNREAD {
            unread.remove(0);
        }
        unread.push(Unread {
            line: number,
            begins: display(line, SHOWN),
            why: why.to_owned(),
        });
        state.version += 1;
    }

    /// What is known and how often it changed, where that is not `version`.
    pub(super) fn after(&self, version: u64) -> Option<(u64, control::Reading)> {
        let state = self.lock();
        (state.version != version).then(|| (state.version, state.known.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
