//! A filter file into a [`Definition`].

use std::path::{Path, PathBuf};

use super::expand::Names;
use super::file::{Fault, Section, ValueLine, sections};
use super::{Definition, PatternText};
use crate::config::Problem;

/// More patterns than this in one filter is a mistake.
const MOST_PATTERNS: usize = 1000;

/// Reads the filter `name` from `file` (fail2ban's format), whose text `read` fetches.
///
/// # Errors
/// Every problem found, with its place: a file that cannot be read, a line that is nothing, a
/// reference to nothing, no failregex, and what fail2ban knows and this does not yet.
pub fn read(
    name: &str,
    file: &Path,
    read: &dyn Fn(&Path) -> std::io::Result<String>,
) -> Result<Definition, Vec<Problem>> {
    let problem = |place: Option<(usize, usize)>, message: String| Problem {
        file: file.to_owned(),
        place,
        message,
    };
    let all = |faults: Vec<Fault>| {
        faults
            .into_iter()
            .map(|(line, column, message)| problem(Some((line, column)), message))
            .collect::<Vec<_>>()
    };
    let text =
        read(file).map_err(|error| vec![problem(None, format!("cannot be read: {error}"))])?;
    let sections = sections(&text).map_err(all)?;
    let Some(definition) = sections.get("Definition") else {
        let message = "no `[Definition]`: a filter in fail2ban's format holds `[Definition]` and \
                       below it `failregex = ...`";
        return Err(vec![problem(None, message.to_owned())]);
    };
    let mut faults = unsupported(&sections, definition);
    let names = Names(&sections);
    let mut patterns = |option: &str| {
        let mut patterns = Vec::new();
        for line in names.get(option).into_iter().flatten() {
            match expanded(line, &names) {
                Ok(more) => patterns.extend(more),
                Err(fault) => faults.push(fault),
            }
        }
        patterns
    };
    let failregex = patterns("failregex");
    let ignoreregex = patterns("ignoreregex");
    if failregex.is_empty() && faults.is_empty() {
        faults.push((
            definition.line,
            1,
            "no `failregex` in `[Definition]`: without one no line matches".to_owned(),
        ));
    }
    if failregex.len() + ignoreregex.len() > MOST_PATTERNS {
        faults.push((
            definition.line,
            1,
            format!("more than {MOST_PATTERNS} patterns"),
        ));
    }
    if faults.is_empty() {
        Ok(Definition {
            name: name.to_owned(),
            file: PathBuf::from(file),
            failregex,
            ignoreregex,
        })
    } else {
        faults.sort();
        Err(all(faults))
    }
}

fn unsupported(sections: &super::file::Sections, definition: &Section) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(includes) = sections.get("INCLUDES") {
        faults.push((
            includes.line,
            1,
            "`[INCLUDES]` is not supported yet: copy the lines you need into this file".to_owned(),
        ));
    }
    for (option, harmless) in [("prefregex", ""), ("maxlines", "1")] {
        let value = definition.options.get(option).and_then(|v| v.first());
        if let Some(value) = value.filter(|value| value.text != harmless) {
            faults.push((
                value.line,
                value.column,
                format!("`{option}` is not supported yet"),
            ));
        }
    }
    faults
}

/// The patterns of one line of the file: several where a reference has several lines.
fn expanded(line: &ValueLine, names: &Names<'_>) -> Result<Vec<PatternText>, Fault> {
    let at = |offset: usize| line.column + offset;
    let text = names
        .expand(&line.text)
        .map_err(|(offset, message)| (line.line, at(offset), message))?;
    if let Some(tag) = late_tag(&text, names) {
        let offset = line.text.find(tag).unwrap_or(0);
        return Err((
            line.line,
            at(offset),
            format!(
                "`{tag}` is not supported yet; the tags that are: <HOST>, <ADDR>, <IP4>, <IP6>"
            ),
        ));
    }
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|pattern| !pattern.is_empty())
        .map(|pattern| PatternText {
            text: pattern.to_owned(),
            line: line.line,
            column: line.column,
        })
        .collect())
}

/// The first `<tag>` that fail2ban would replace and this does not.
fn late_tag<'t>(text: &'t str, names: &Names<'_>) -> Option<&'t str> {
    let mut from = 0;
    while let Some(open) = text.get(from..)?.find('<').map(|at| at + from) {
        from = open + 1;
        let group = text.get(..open).is_some_and(|s| s.ends_with("(?P"));
        let Some(close) = text.get(open..)?.find('>').map(|at| at + open) else {
            break;
        };
        let name = text.get(open + 1..close)?;
        let word = |c: char| c.is_ascii_alphanumeric() || "_-/".contains(c);
        if group || name.is_empty() || !name.chars().all(word) {
            continue;
        }
        let known = ["HOST", "ADDR", "IP4", "IP6"].contains(&name);
        let fail2bans = ["DNS", "CIDR", "SUBNET", "SKIPLINES"].contains(&name)
            || name.starts_with("F-")
            || name.starts_with("/F-");
        if !known && (fail2bans || names.get(name).is_some()) {
            return text.get(open..=close);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Places = Vec<(Option<(usize, usize)>, String)>;

    fn definition(text: &str) -> Result<Definition, Places> {
        read("f", Path::new("f.conf"), &|_| Ok(text.to_owned()))
            .map_err(|problems| problems.into_iter().map(|p| (p.place, p.message)).collect())
    }

    #[test]
    fn patterns_come_in_order_with_their_places() {
        let read = definition(
            "[DEFAULT]\n_c = client <HOST>:\\d+\nmany = m1 <HOST>\n  m2 <HOST>\n[Definition]\nfailregex = ^\\[%(_c)s\\] 100%%\n            ^two <HOST>$\n            %(many)s\nignoreregex =\n",
        )
        .unwrap();
        let patterns: Vec<_> = read
            .failregex
            .iter()
            .map(|p| (p.text.as_str(), p.line, p.column))
            .collect();
        assert_eq!(
            patterns,
            [
                ("^\\[client <HOST>:\\d+\\] 100%", 6, 13),
                ("^two <HOST>$", 7, 13),
                ("m1 <HOST>", 8, 13),
                ("m2 <HOST>", 8, 13),
            ]
        );
        assert!(read.ignoreregex.is_empty());
    }

    #[test]
    fn what_is_not_supported_yet_is_said_with_its_place() {
        for (text, place, word) in [
            (
                "[INCLUDES]\nbefore = x.conf\n[Definition]\nfailregex = <HOST>\n",
                (1, 1),
                "INCLUDES",
            ),
            (
                "[Definition]\nprefregex = ^<F-CONTENT>.+</F-CONTENT>$\nfailregex = <HOST>\n",
                (2, 13),
                "prefregex",
            ),
            (
                "[Definition]\nmaxlines = 10\nfailregex = <HOST>\n",
                (2, 12),
                "maxlines",
            ),
            (
                "[Definition]\nfailregex = ^<HOST> <F-USER>x</F-USER>\n",
                (2, 21),
                "<F-USER>",
            ),
            (
                "[Init]\nblock = x\n[Definition]\nfailregex = ^<HOST> <block>\n",
                (4, 21),
                "<block>",
            ),
            ("[Definition]\nfailregex = ^<HOST> 5%\n", (2, 22), "`%%`"),
            ("[Definition]\nignoreregex =\n", (1, 1), "no `failregex`"),
        ] {
            let problems = definition(text).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].0, Some(place), "{problems:?}");
            assert!(problems[0].1.contains(word), "{problems:?}");
        }
        assert!(definition("failregex = x").is_err());
        assert!(
            definition("[Definition]\nfailregex = <br><script>(?P<HOSTX>a)<HOST> <x y>\n").is_ok()
        );
    }
}
