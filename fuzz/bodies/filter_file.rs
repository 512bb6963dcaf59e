//! fail2ban's files read and expanded. The input is the text of `f.conf`; a line `@@ name` begins
//! another file, `@@ options` the jail's options, one `name=value` a line.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pipeban::filter::{Definition, Filter, FilterFiles, PatternText, read};

/// Longer than what a pattern may grow to, of which there are a thousand at most.
const LONGEST: usize = 2 << 20;

struct Files {
    texts: BTreeMap<PathBuf, String>,
    read: RefCell<usize>,
}

impl FilterFiles for Files {
    fn read(&self, file: &Path) -> io::Result<String> {
        *self.read.borrow_mut() += 1;
        let text = self.texts.get(file).cloned();
        text.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let inside = |file: &&PathBuf| file.parent() == Some(directory);
        Ok(self.texts.keys().filter(inside).cloned().collect())
    }
}

impl Files {
    /// Fails where a place is in no file, or outside of it.
    fn assert_place(&self, file: &Path, line: usize, column: usize) {
        let text = self
            .texts
            .get(file)
            .unwrap_or_else(|| panic!("{file:?} is no file"));
        let found = text
            .lines()
            .nth(line.checked_sub(1).expect("lines count from 1"));
        // An option of the jail has the place of the first line.
        let found = found.unwrap_or_else(|| {
            assert!(line == 1, "{file:?} has no line {line}");
            ""
        });
        assert!(
            (1..=found.len() + 1).contains(&column),
            "{file:?}:{line} has no column {column}"
        );
    }
}

pub(super) fn check(data: &[u8]) {
    let input = String::from_utf8_lossy(data);
    let mut files = Files {
        texts: BTreeMap::new(),
        read: RefCell::new(0),
    };
    let mut options = BTreeMap::new();
    let mut name = "f.conf";
    files.texts.insert("f.conf".into(), String::new());
    for line in input.split_inclusive('\n') {
        if let Some(next) = line.strip_prefix("@@ ") {
            name = next.trim();
        } else if name == "options" {
            let pair = line.trim_end().split_once('=');
            options.extend(pair.map(|(name, value)| (name.to_lowercase(), value.to_owned())));
        } else {
            files.texts.entry(name.into()).or_default().push_str(line);
        }
    }
    let file = Path::new("f.conf");
    let definition = read("f", file, &options, &files);
    assert!(*files.read.borrow() <= 1000, "includes without end");
    match &definition {
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(!problem.message.is_empty());
                match problem.place {
                    Some((line, column)) => files.assert_place(&problem.file, line, column),
                    None => assert!(files.texts.contains_key(&problem.file)),
                }
            }
        }
        Ok(definition) => {
            assert!(!definition.failregex.is_empty());
            for pattern in patterns(definition) {
                let place = pattern.file.as_deref().unwrap_or(file);
                files.assert_place(place, pattern.line, pattern.column);
                assert!(!pattern.text.trim().is_empty() && pattern.text.len() < LONGEST);
            }
        }
    }
    assert_eq!(definition, read("f", file, &options, &files), "read twice");
    let Ok(mut definition) = definition else {
        return;
    };
    // Compiling is the other target's: a little of it.
    definition.failregex.truncate(2);
    definition.ignoreregex.truncate(2);
    if patterns(&definition).all(|pattern| pattern.text.len() < 100)
        && let Err(problems) = Filter::compile(&definition)
    {
        for problem in problems {
            let (line, column) = problem.place.expect("a pattern has a place");
            files.assert_place(&problem.file, line, column);
        }
    }
}

fn patterns(definition: &Definition) -> impl Iterator<Item = &PatternText> {
    definition.patterns().map(|(_, pattern)| pattern)
}
