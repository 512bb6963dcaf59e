//! The layout of fail2ban's files: sections, options, values over several lines, comments.
//!
//! As Python's ConfigParser reads them with fail2ban's settings: a line that begins with `#` or
//! `;` is a comment, and so is the rest of a line from ` ;` on, while a `#` behind a value belongs
//! to the value. Case does not count in names of options. A line indented deeper than its option
//! continues the value, and so does an empty line before such a line. A file holds a section or an
//! option once.

use std::collections::btree_map::{BTreeMap, Entry};

/// The file (from 0), the line and the column (from 1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// One line of a value, and the place of its first byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ValueLine {
    pub(super) text: String,
    pub(super) at: Place,
}

/// A value: its lines, the last of them not empty.
pub(super) type Value = Vec<ValueLine>;

/// The options of one section, and the place of its header.
#[derive(Debug, Clone, Default)]
pub(super) struct Section {
    pub(super) at: Place,
    pub(super) options: BTreeMap<String, Value>,
}

/// Sections by name.
pub(super) type Sections = BTreeMap<String, Section>;

/// What is wrong, and where.
pub(super) type Fault = (Place, String);

/// Splits the file numbered `file` into sections.
///
/// # Errors
/// Every line that is no comment, header, option or continuation, and every repeated option or
/// section except `[DEFAULT]`.
pub(super) fn sections(file: usize, text: &str) -> Result<Sections, Vec<Fault>> {
    let mut sections = Sections::new();
    let mut faults = Vec::new();
    let mut section: Option<String> = None;
    let mut option: Option<(String, usize)> = None;
    for (line, raw) in (1..).zip(text.lines()) {
        let body = without_comment(raw).trim_end();
        let content = body.trim_start();
        let indent = body.len() - content.len();
        let here = Place {
            file,
            line,
            column: indent + 1,
        };
        if content.is_empty() {
            // A comment leaves no empty line in a value.
            if raw.trim().is_empty()
                && let (Some(section), Some((name, _))) = (&section, &option)
                && let Some(value) = value_of(&mut sections, section, name)
            {
                value.push(ValueLine {
                    text: String::new(),
                    at: here,
                });
            }
            continue;
        }
        let place = |text: &str| {
            let text = text.trim();
            let offset = text.as_ptr() as usize - raw.as_ptr() as usize;
            ValueLine {
                text: text.to_owned(),
                at: Place {
                    column: offset + 1,
                    ..here
                },
            }
        };
        if let (Some(section), Some((name, depth))) = (&section, &option)
            && indent > *depth
        {
            if let Some(value) = value_of(&mut sections, section, name) {
                value.push(place(content));
            }
            continue;
        }
        if let Some(name) = header(content) {
            match sections.entry(name.to_owned()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Section {
                        at: here,
                        ..Section::default()
                    });
                }
                Entry::Occupied(_) if name == "DEFAULT" => {}
                Entry::Occupied(first) => {
                    let line = first.get().at.line;
                    let message = format!("`[{name}]` is already in line {line}: merge the two");
                    faults.push((here, message));
                }
            }
            section = Some(name.to_owned());
            option = None;
            continue;
        }
        let pair = content.split_once(['=', ':']);
        let Some((name, value)) = pair.filter(|(name, _)| !name.is_empty()) else {
            faults.push((
                here,
                "neither `[section]` nor `option = value`: indent it if it continues the value above"
                    .to_owned(),
            ));
            continue;
        };
        let Some(section) = section.as_ref().and_then(|name| sections.get_mut(name)) else {
            faults.push((here, "an option before the first `[section]`".to_owned()));
            continue;
        };
        let name = name.trim().to_lowercase();
        if let Some(first) = section.options.insert(name.clone(), vec![place(value)]) {
            let line = first.first().map_or(0, |line| line.at.line);
            let message = format!("`{name}` is already in line {line}: merge the two");
            faults.push((here, message));
        }
        option = Some((name, indent));
    }
    let values = sections.values_mut().flat_map(|s| s.options.values_mut());
    for value in values {
        while value.pop_if(|line| line.text.is_empty()).is_some() {}
    }
    if faults.is_empty() {
        Ok(sections)
    } else {
        Err(faults)
    }
}

fn value_of<'s>(sections: &'s mut Sections, section: &str, name: &str) -> Option<&'s mut Value> {
    sections.get_mut(section)?.options.get_mut(name)
}

fn header(content: &str) -> Option<&str> {
    let inside = content.strip_prefix('[')?;
    let (name, _) = inside.rsplit_once(']')?;
    (!name.is_empty()).then_some(name)
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with(['#', ';']) {
        return "";
    }
    let comment = line
        .char_indices()
        .zip(line.chars().skip(1))
        .find_map(|((at, before), c)| (before.is_whitespace() && c == ';').then_some(at));
    comment.and_then(|at| line.get(..at)).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_continuations_and_places_are_as_in_fail2ban() {
        let text = "# head\n[Definition]\nFailRegex = one # not a comment ; a comment\n   # comment\n\n    two;not\n; comment\nx: y\n [Init]\n";
        let sections = sections(0, text).unwrap();
        let failregex = &sections["Definition"].options["failregex"];
        let lines: Vec<_> = failregex
            .iter()
            .map(|l| (l.text.as_str(), l.at.line, l.at.column))
            .collect();
        assert_eq!(
            lines,
            [
                ("one # not a comment", 3, 13),
                ("", 5, 1),
                ("two;not", 6, 5)
            ]
        );
        // Indented deeper than its option, even a header continues the value.
        assert_eq!(sections["Definition"].options["x"].len(), 2);
    }

    #[test]
    fn malformed_lines_are_reported() {
        for (text, places) in [
            ("a = b\n[D]\nfailregex = x\ny\n", [(1, 1), (4, 1)]),
            // fail2ban refuses repeated ones, too.
            ("[D]\na = b\nA: c\n[E]\n[D]\n", [(3, 1), (5, 1)]),
            ("[DEFAULT]\n[DEFAULT]\n = x\n[]\n", [(3, 2), (4, 1)]),
        ] {
            let faults = sections(0, text).unwrap_err();
            let found: Vec<_> = faults.iter().map(|f| (f.0.line, f.0.column)).collect();
            assert_eq!(found, places, "{text}");
        }
    }
}
