//! The layout of fail2ban's files: sections, options, values over several lines, comments.
//!
//! As Python's ConfigParser reads them with fail2ban's settings: a line that begins with `#` or
//! `;` is a comment, so is what follows a `;` behind a blank, while a `#` behind a value belongs
//! to it; option names know no case; a line indented deeper than its option continues the value.

use std::collections::BTreeMap;

/// Where something stands: which file (counted from 0), line and column from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// One line of a value and where its first byte stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ValueLine {
    pub(super) text: String,
    pub(super) at: Place,
}

/// A value: its lines that are not empty.
pub(super) type Value = Vec<ValueLine>;

/// The options of one section, with the place of the section's header.
#[derive(Debug, Clone, Default)]
pub(super) struct Section {
    pub(super) at: Place,
    pub(super) options: BTreeMap<String, Value>,
}

/// Sections by name.
pub(super) type Sections = BTreeMap<String, Section>;

/// What is wrong, and where.
pub(super) type Fault = (Place, String);

/// Splits the file numbered `file` into sections. A later option of the same name replaces the
/// earlier one.
///
/// # Errors
/// Every line that is neither comment, header, option nor continuation.
pub(super) fn sections(file: usize, text: &str) -> Result<Sections, Vec<Fault>> {
    let mut sections = Sections::new();
    let mut faults = Vec::new();
    let mut section: Option<String> = None;
    let mut option: Option<(String, usize)> = None;
    for (line, raw) in (1..).zip(text.lines()) {
        let body = without_comment(raw).trim_end();
        let content = body.trim_start();
        if content.is_empty() {
            continue;
        }
        let indent = body.len() - content.len();
        let here = Place {
            file,
            line,
            column: indent + 1,
        };
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
            if let Some(section) = sections.get_mut(section) {
                let value = section.options.entry(name.clone()).or_default();
                value.push(place(content));
            }
            continue;
        }
        if let Some(name) = header(content) {
            sections.entry(name.to_owned()).or_insert_with(|| Section {
                at: here,
                ..Section::default()
            });
            section = Some(name.to_owned());
            option = None;
            continue;
        }
        let Some((name, value)) = content.split_once(['=', ':']) else {
            faults.push((
                here,
                "neither `[section]` nor `option = value`; a further pattern must be indented"
                    .to_owned(),
            ));
            continue;
        };
        let Some(section) = section.as_ref().and_then(|name| sections.get_mut(name)) else {
            faults.push((here, "an option before the first `[section]`".to_owned()));
            continue;
        };
        let name = name.trim().to_lowercase();
        let mut first = vec![place(value)];
        first.retain(|line| !line.text.is_empty());
        section.options.insert(name.clone(), first);
        option = Some((name, indent));
    }
    if faults.is_empty() {
        Ok(sections)
    } else {
        Err(faults)
    }
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
    fn comments_continuations_and_places_are_fail2bans() {
        let text = "# head\n[Definition]\nFailRegex = one # not a comment ; a comment\n   # comment\n\n    two;not\n; comment\nx: y\n [Init]\n";
        let sections = sections(0, text).unwrap();
        let failregex = &sections["Definition"].options["failregex"];
        let lines: Vec<_> = failregex
            .iter()
            .map(|l| (l.text.as_str(), l.at.line, l.at.column))
            .collect();
        assert_eq!(lines, [("one # not a comment", 3, 13), ("two;not", 6, 5)]);
        // Indented deeper than its option, even what looks like a header goes on with the value.
        assert_eq!(sections["Definition"].options["x"].len(), 2);
    }

    #[test]
    fn lines_that_are_nothing_are_named() {
        let faults = sections(0, "a = b\n[D]\nfailregex = x\ny\n").unwrap_err();
        let places: Vec<_> = faults.iter().map(|f| (f.0.line, f.0.column)).collect();
        assert_eq!(places, [(1, 1), (4, 1)]);
    }
}
