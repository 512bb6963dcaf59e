//! Files in memory: the input is the text of the first; a line `@@ NAME` begins another one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pipeban::filter::FilterFiles;

pub(super) struct Files {
    pub(super) texts: BTreeMap<PathBuf, String>,
    /// Files read so far.
    pub(super) read: RefCell<usize>,
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
    pub(super) fn of(first: &str, data: &[u8]) -> Files {
        let mut texts = BTreeMap::from([(first.into(), String::new())]);
        let mut name = first;
        let input = String::from_utf8_lossy(data);
        for line in input.split_inclusive('\n') {
            match line.strip_prefix("@@ ") {
                Some(next) => name = next.trim(),
                None => texts.entry(PathBuf::from(name)).or_default().push_str(line),
            }
        }
        Files {
            texts,
            read: RefCell::new(0),
        }
    }

    /// Fails where a place is in no file, or outside of it.
    pub(super) fn assert_place(&self, file: &Path, line: usize, column: usize) {
        let text = self
            .texts
            .get(file)
            .unwrap_or_else(|| panic!("{file:?} is no file"));
        // Text that nothing ends may have its fault behind the last newline.
        let mut lines = text.split('\n');
        let found = lines.nth(line.checked_sub(1).expect("lines count from 1"));
        let found = found.unwrap_or_else(|| panic!("{file:?} has no line {line}"));
        assert!(
            (1..=found.len() + 1).contains(&column),
            "{file:?}:{line} has no column {column}"
        );
    }
}
