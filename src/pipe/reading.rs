//! The format that lines are read with, and the last lines that it did not fit.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::report::Report;
use crate::control::{self, MAX_UNREAD, Unread};
use crate::record::display;

/// Bytes shown of a line.
const SHOWN: usize = 120;

/// Shared by the match threads and the uplink.
#[derive(Debug)]
pub(super) struct Reading {
    state: Mutex<State>,
    report: Report,
}

#[derive(Debug, Default)]
struct State {
    known: control::Reading,
    /// Counts changes.
    version: u64,
}

impl Reading {
    pub(super) fn new(report: Report) -> Reading {
        Reading {
            state: Mutex::default(),
            report,
        }
    }

    /// A parser for this format is in use; `None`: the first lines decide. `doubt`: why its lines
    /// can ban no client.
    pub(super) fn begins(&self, format: Option<&str>, doubt: Option<&str>) {
        match doubt {
            Some(doubt) => self.report.problem("format", doubt),
            None => self
                .report
                .over("format", "lines of this log can ban again"),
        }
        let mut state = self.lock();
        state.known.doubt = doubt.map(str::to_owned);
        if format.is_some() {
            state.known.format = format.map(str::to_owned);
        }
        state.version += 1;
    }

    /// The first lines have this format.
    pub(super) fn decided(&self, format: &str) {
        let mut state = self.lock();
        if state.known.format.as_deref() == Some(format) {
            return;
        }
        state.known.format = Some(format.to_owned());
        state.version += 1;
        self.report.notice(&format!(
            "the format of the first lines is `{format}`; all lines are read with it, unless \
             `--format` is set"
        ));
    }

    /// A line that does not have the format. `number`: in the stream, from 1.
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

    /// What is known and its version, unless that is `version`.
    pub(super) fn after(&self, version: u64) -> Option<(u64, control::Reading)> {
        let state = self.lock();
        (state.version != version).then(|| (state.version, state.known.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
