//! Words into lines that fit a terminal.

use std::io::{IsTerminal, stdout};

use comfy_table::Table;

use crate::config::JailName;

/// Columns of the terminal, or of `COLUMNS`. Elsewhere lines are as long as they are, so that
/// `grep` finds a client and its cause in one.
pub(super) fn width() -> usize {
    let terminal = || stdout().is_terminal().then(|| Table::new().width());
    let variable = || std::env::var("COLUMNS").ok()?.parse().ok();
    let columns = terminal().flatten().map(usize::from).or_else(variable);
    columns.unwrap_or(usize::MAX)
}

/// Breaks `text` between words. The first line begins with `first`, the others with `other`
/// spaces. A word that is longer than a line stays whole.
pub(super) fn wrap(text: &str, first: &str, other: usize, width: usize) -> String {
    let mut lines = first.to_owned();
    let mut used = length(first);
    let mut begun = false;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let space = usize::from(begun);
        if begun && used + space + length(word) > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(other));
            used = other;
        } else if begun {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += length(word);
        begun = true;
    }
    lines
}

/// Characters of a text; what clients send is escaped, so each takes one column.
pub(super) fn length(text: &str) -> usize {
    text.chars().count()
}

/// Names the jails that ban no client (each with `enabled` and `enforce`), and the line that
/// changes this.
pub(in crate::cli) fn without_bans<'j>(
    jails: impl Iterator<Item = (&'j JailName, bool, bool)>,
) -> Vec<String> {
    let (mut off, mut observe) = (Vec::new(), Vec::new());
    for (name, enabled, enforce) in jails {
        match (enabled, enforce) {
            (false, _) => off.push(name.as_str()),
            (true, false) => observe.push(name.as_str()),
            (true, true) => {}
        }
    }
    let lists = [
        ("are off", off, "enabled = true"),
        ("only observe", observe, "enforce = true"),
    ];
    let lists = lists.into_iter().filter(|(_, jails, _)| !jails.is_empty());
    lists
        .map(|(what, jails, line)| {
            let jails = jails.join(", ");
            format!("jails that {what} (`{line}` below `[jails.NAME]` changes this): {jails}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_stay_whole_and_lines_fit(
            words in prop::collection::vec("[a-z]{1,30}", 0..30),
            width in 34usize..90,
        ) {
            let wrapped = wrap(&words.join(" "), "! ", 4, width);
            for line in wrapped.lines() {
                prop_assert!(length(line) <= width, "{line}");
            }
            let found: Vec<&str> = wrapped.split_whitespace().skip(1).collect();
            prop_assert_eq!(found, words);
        }
    }
}
