//! Log lines in colours, for a terminal; the stream that takes them knows whether it is one.

use std::ops::Range;

use anstyle::{AnsiColor, Style};

use super::judge::Word;
use crate::filter::Place;
use crate::record::display;

/// What a pattern matched.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What it wants and does not find.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// The client in a match.
const HOST: Style = AnsiColor::Red.on_default().bold();
pub(super) const HEAD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();

/// The style of a verdict.
pub(super) fn of(word: Word) -> Style {
    match word {
        Word::Match => AnsiColor::Green.on_default().bold(),
        Word::Spoof => AnsiColor::Yellow.on_default().bold(),
        Word::Ignored => AnsiColor::Cyan.on_default(),
        Word::Miss => AnsiColor::Red.on_default(),
        Word::Unparsed => AnsiColor::Magenta.on_default(),
    }
}

pub(super) fn painted(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// At most `max` bytes of a line and the mark that it was cut, what matched and the client in it marked.
pub(super) fn line(line: &[u8], place: Option<&Place>, max: usize) -> String {
    let none = Place {
        whole: 0..0,
        host: None,
    };
    let Place { whole, host } = place.unwrap_or(&none);
    let host = host.clone().unwrap_or(whole.end..whole.end);
    let parts: [(Range<usize>, Style); 5] = [
        (0..whole.start, Style::new()),
        (whole.start..host.start, GOOD),
        (host.start..host.end, HOST),
        (host.end..whole.end, GOOD),
        (whole.end..line.len(), Style::new()),
    ];
    let mut left = max;
    let mut out = String::new();
    for (range, style) in parts {
        let Some(part) = line.get(range).filter(|part| !part.is_empty()) else {
            continue;
        };
        let whole = display(part, usize::MAX);
        if whole.len() > left {
            out.push_str(&painted(style, &display(part, left.max(3))));
            break;
        }
        out.push_str(&painted(style, &whole));
        left -= whole.len();
    }
    out
}
