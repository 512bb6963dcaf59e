//! Colours for a terminal; the stream removes them elsewhere.

use std::ops::Range;

use anstyle::{AnsiColor, Style};

use super::verdict::Verdict;
use crate::record::display;

/// The part of a pattern that matches.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// The part that does not.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// The client in a line that matches.
const CLIENT: Style = AnsiColor::Red.on_default().bold();
pub(super) const HEAD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();

pub(super) fn of(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Match => AnsiColor::Green.on_default().bold(),
        Verdict::Spoof => AnsiColor::Yellow.on_default().bold(),
        Verdict::Ignored => AnsiColor::Cyan.on_default(),
        Verdict::Miss => AnsiColor::Red.on_default(),
        Verdict::Unparsed => AnsiColor::Magenta.on_default(),
    }
}

pub(super) fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// At most about `max` bytes of a line, its client marked.
pub(super) fn line(line: &[u8], client: Option<&Range<usize>>, max: usize) -> String {
    let marked = client
        .filter(|client| client.end <= max)
        .and_then(|client| {
            let before = display(line.get(..client.start)?, usize::MAX);
            let host = display(line.get(client.clone())?, usize::MAX);
            let rest = display(line.get(client.end..)?, max - client.end);
            Some(format!("{before}{}{rest}", painted(CLIENT, &host)))
        });
    marked.unwrap_or_else(|| display(line, max))
}
