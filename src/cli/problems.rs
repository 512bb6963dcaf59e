//! Configuration problems with their place, the line and a caret.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::config::Problem;
use crate::record::{display_columns, display_lines};

/// Prints all of them to stderr, in colours when that is a terminal.
pub(super) fn print(problems: &[Problem]) {
    let stderr = std::io::stderr();
    let renderer = if stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let _ = stderr
        .lock()
        .write_all(show(problems, &renderer).as_bytes());
}

/// `path:12:9: message`, then the line with a caret below the column.
fn show(problems: &[Problem], renderer: &Renderer) -> String {
    let mut texts: BTreeMap<&Path, String> = BTreeMap::new();
    let mut shown = String::new();
    for problem in problems {
        let text = texts
            .entry(&problem.file)
            .or_insert_with(|| std::fs::read_to_string(&problem.file).unwrap_or_default());
        let line = problem
            .place
            .and_then(|(line, _)| text.lines().nth(line.checked_sub(1)?))
            .map(display_columns);
        let title = display_lines(&problem.to_string());
        let title = Level::ERROR.no_name().primary_title(title);
        let group = match (&line, problem.place) {
            (Some(source), Some((line, column))) => title.element(
                Snippet::source(source.as_str())
                    .line_start(line)
                    .annotation(AnnotationKind::Primary.span(word_at(source, column))),
            ),
            _ => title.elements(std::iter::empty::<
                Snippet<'_, annotate_snippets::Annotation<'_>>,
            >()),
        };
        shown.push_str(&renderer.render(&[group]));
        shown.push_str("\n\n");
    }
    shown
}

/// The bytes of the word (or quoted text) that begins at this column, counted in characters.
fn word_at(line: &str, column: usize) -> std::ops::Range<usize> {
    let start = line
        .char_indices()
        .nth(column.saturating_sub(1))
        .map_or(line.len(), |(at, _)| at);
    let rest = line.get(start..).unwrap_or("");
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let length = match quote {
        Some(quote) => rest
            .get(1..)
            .and_then(|inner| inner.find(quote))
            .map_or(rest.len(), |end| end + 2),
        None => rest
            .find([' ', '\t', '=', ',', ']', '}'])
            .filter(|end| *end > 0)
            .unwrap_or(rest.len().min(1)),
    };
    start..start + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_and_a_caret_are_below_the_message() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.toml");
        std::fs::write(&file, "[defaults]\nx = \"é\"\nmax_retry = 3\n").unwrap();
        let problem = |place, message: &str| Problem {
            file: file.clone(),
            place,
            message: message.into(),
        };
        let shown = show(
            &[
                problem(Some((3, 1)), "no such key"),
                problem(None, "not there"),
                problem(Some((9, 9)), "beyond"),
            ],
            &Renderer::plain(),
        );
        let path = file.display();
        assert_eq!(
            shown,
            format!(
                "{path}:3:1: no such key\n  |\n3 | max_retry = 3\n  | ^^^^^^^^^\n\n{path}: not there\n\n{path}:9:9: beyond\n\n"
            )
        );
    }

    #[test]
    fn hidden_characters_are_shown_and_move_no_caret() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.toml");
        std::fs::write(&file, "a = [\"\u{9b}\u{200b}\u{1b}\", x]\n").unwrap();
        let problem = Problem {
            file,
            place: Some((1, 12)),
            message: "not \u{9b}31m".into(),
        };
        let shown = show(&[problem], &Renderer::plain());
        let marked = "1 | a = [\"\u{fffd}\u{fffd}\u{fffd}\", x]\n  |            ^\n\n";
        assert!(shown.ends_with(marked), "{shown}");
        assert!(shown.contains(":1:12: not \\u{9b}31m\n"), "{shown}");
    }

    #[test]
    fn the_mark_covers_one_word() {
        for (line, column, marked) in [
            ("a = \"b c\" # d", 5, "\"b c\""),
            ("é = [1, 22]", 9, "22"),
            ("a", 9, ""),
            ("", 1, ""),
            ("= x", 1, "="),
            ("'open é", 1, "'open é"),
        ] {
            assert_eq!(&line[word_at(line, column)], marked, "{line}");
        }
    }
}
