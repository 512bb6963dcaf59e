//! What a worker reports beside its hits.

use serde::{Deserialize, Serialize};

use crate::record::display;

/// A worker's counters since Apache started its pipe; a restarted worker continues them. At any
/// moment, also under load,
///
/// - `lines = lines_written + lines_lost + lines_waiting` and
///   `bytes = written + lost + waiting`, where the log has a path;
/// - `lines = matched + unparsed + torn + shed + pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Lines read from the pipe, each counted at its newline.
    pub lines: u64,
    /// Bytes read from the pipe.
    pub bytes: u64,
    /// Lines written to the log file.
    pub lines_written: u64,
    /// Bytes written to the log file.
    pub written: u64,
    /// Lines that could not be written and were dropped.
    pub lines_lost: u64,
    /// Bytes that could not be written and were dropped.
    pub lost: u64,
    /// Lines that wait to be written.
    pub lines_waiting: u64,
    /// Bytes that wait to be written.
    pub waiting: u64,
    /// Lines that the filters saw.
    pub matched: u64,
    /// Lines that no parser understood.
    pub unparsed: u64,
    /// Lines too long to match.
    pub torn: u64,
    /// Lines not matched: matching was too slow, crashed on them, or is off.
    pub shed: u64,
    /// Lines that wait for matching.
    pub pending: u64,
    /// Of the matched: lines that match only with an address other than Apache's client field.
    pub spoofed: u64,
    /// Of the matched: lines with a hit.
    pub hits: u64,
    /// Of the hits: dropped, because the engine did not answer.
    pub unsent: u64,
    /// Times a pattern with look-around or back-references gave up on a line; such a line is no hit.
    pub undecided: u64,
    /// Restarts of the worker.
    pub restarts: u64,
    /// Whether lines are matched; false after a crash loop or without a configuration.
    pub matching: bool,
}

/// Unparsed lines kept as examples.
pub const MAX_UNREAD: usize = 3;

/// How a worker reads its lines.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reading {
    /// The format's name or its string; `None`: not detected yet.
    #[serde(default)]
    pub format: Option<String>,
    /// Why no line of this format can lead to a ban.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
    /// The last unparsed lines, at most [`MAX_UNREAD`].
    #[serde(default)]
    pub unparsed_lines: Vec<Unread>,
}

/// A line that no parser understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Its number among the lines to match, from 1.
    pub line: u64,
    /// Its first bytes, escaped for display.
    pub begins: String,
    /// Why it cannot be parsed.
    pub why: String,
}

impl Reading {
    /// The same, cut to the bounds of a correct worker, and escaped again.
    pub fn bounded(mut self) -> Reading {
        let cut = |text: &mut String, most| *text = display(text.as_bytes(), most);
        self.unparsed_lines.truncate(MAX_UNREAD);
        for unread in &mut self.unparsed_lines {
            cut(&mut unread.begins, 200);
            cut(&mut unread.why, 200);
        }
        for text in [&mut self.format, &mut self.doubt].into_iter().flatten() {
            cut(text, 1000);
        }
        self
    }
}

/// The filter that takes most of a worker's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowestFilter {
    /// Its name.
    pub filter: String,
    /// Percent of the time of all filters.
    pub share: u64,
    /// Nanoseconds per line.
    pub nanos: u64,
}
