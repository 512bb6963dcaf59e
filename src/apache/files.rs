//! The file system as [`super::walk`] needs it; tests have one in memory.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::disk::open_file;

pub(super) trait Files {
    fn read(&self, file: &Path) -> io::Result<String>;
    /// Names in a directory, sorted.
    fn names(&self, directory: &Path) -> io::Result<Vec<String>>;
    fn is_directory(&self, path: &Path) -> bool;
    fn exists(&self, path: &Path) -> bool;
}

pub(super) struct Disk;

impl Files for Disk {
    fn read(&self, file: &Path) -> io::Result<String> {
        // Apache reads no other kind of file, except this one.
        if file == Path::new("/dev/null") {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        open_file(file)?.read_to_end(&mut bytes)?;
        // Apache reads bytes; pipeban needs names of files and hosts.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = std::fs::read_dir(directory)?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

/// The files that `Include PATTERN` reads, in Apache's order; of a directory all files below it.
pub(super) fn included(files: &dyn Files, pattern: &Path) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/")];
    for part in pattern.components().skip(1) {
        let part = part.as_os_str().to_string_lossy();
        let mut next = Vec::new();
        for path in paths {
            if part.contains(['*', '?', '[']) {
                let names = files.names(&path).unwrap_or_default();
                next.extend(
                    names
                        .iter()
                        .filter(|name| matches(&part, name))
                        .map(|name| path.join(name)),
                );
            } else {
                next.push(path.join(part.as_ref()));
            }
        }
        paths = next;
    }
    let mut all = Vec::new();
    for path in paths {
        below(files, &path, 0, &mut all);
    }
    all
}

/// Deeper directories are a loop.
const DEEPEST: usize = 16;

fn below(files: &dyn Files, path: &Path, depth: usize, all: &mut Vec<PathBuf>) {
    if depth > DEEPEST {
        return;
    }
    if files.is_directory(path) {
        for name in files.names(path).unwrap_or_default() {
            below(files, &path.join(name), depth + 1, all);
        }
    } else if files.exists(path) {
        all.push(path.to_owned());
    }
}

/// Whether a pattern of file names, as a shell has them, covers the file.
pub fn covers(pattern: &Path, file: &Path) -> bool {
    let (pattern, file) = (pattern.to_string_lossy(), file.to_string_lossy());
    let (mut patterns, mut names) = (pattern.split('/'), file.split('/'));
    loop {
        match (patterns.next(), names.next()) {
            (Some(pattern), Some(name)) if matches(pattern, name) => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// fnmatch(3) as Apache calls it: `*`, `?`, `[a-z]`; only a dot matches a leading dot.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    wild(&pattern, &name)
}

fn wild(pattern: &[char], name: &[char]) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return name.is_empty();
    };
    if *first == '*' {
        return (0..=name.len()).any(|skip| name.get(skip..).is_some_and(|left| wild(rest, left)));
    }
    let Some((c, left)) = name.split_first() else {
        return false;
    };
    match first {
        '?' => wild(rest, left),
        '[' => {
            let Some(end) = rest.iter().skip(1).position(|c| *c == ']').map(|at| at + 1) else {
                return *c == '[' && wild(rest, left);
            };
            let (class, after) = rest.split_at(end);
            in_class(class, *c)
                && after
                    .split_first()
                    .is_some_and(|(_, after)| wild(after, left))
        }
        literal => literal == c && wild(rest, left),
    }
}

fn in_class(class: &[char], c: char) -> bool {
    let (negated, mut class) = match class.split_first() {
        Some(('!' | '^', rest)) => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    while let Some((low, rest)) = class.split_first() {
        if let [dash, high, after @ ..] = rest
            && *dash == '-'
        {
            found |= (*low..=*high).contains(&c);
            class = after;
        } else {
            found |= *low == c;
            class = rest;
        }
    }
    found != negated
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Files in memory.
    pub(in super::super) struct Fake(pub(in super::super) BTreeMap<PathBuf, String>);

    impl Fake {
        pub(in super::super) fn new(files: &[(&str, &str)]) -> Fake {
            Fake(
                files
                    .iter()
                    .map(|(path, text)| ((*path).into(), (*text).into()))
                    .collect(),
            )
        }
    }

    impl Files for Fake {
        fn read(&self, file: &Path) -> io::Result<String> {
            self.0
                .get(file)
                .cloned()
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }
        fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
            let mut names: Vec<String> = self
                .0
                .keys()
                .filter_map(|path| path.strip_prefix(directory).ok())
                .filter_map(|rest| rest.components().next())
                .map(|part| part.as_os_str().to_string_lossy().into_owned())
                .collect();
            names.dedup();
            Ok(names)
        }
        fn is_directory(&self, path: &Path) -> bool {
            self.0
                .keys()
                .any(|file| file != path && file.starts_with(path))
        }
        fn exists(&self, path: &Path) -> bool {
            self.0.keys().any(|file| file.starts_with(path))
        }
    }

    #[test]
    fn a_pattern_covers_files_of_its_directory() {
        for (pattern, file, yes) in [
            (
                "/var/log/apache2/*error.log",
                "/var/log/apache2/shop_error.log",
                true,
            ),
            (
                "/var/log/apache2/*error.log",
                "/var/log/apache2/old/error.log",
                false,
            ),
            ("/srv/*/logs/access.log", "/srv/a/logs/access.log", true),
            (
                "/var/log/apache2/access.log",
                "/var/log/apache2/access.log",
                true,
            ),
            ("/var/log/apache2", "/var/log/apache2/access.log", false),
        ] {
            assert_eq!(
                covers(Path::new(pattern), Path::new(file)),
                yes,
                "{pattern}"
            );
        }
    }

    #[test]
    fn patterns_match_as_fnmatch() {
        for (pattern, name, yes) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".a.conf", false),
            ("*.conf", "a.conf~", false),
            ("00?-*", "000-default.conf", true),
            ("[0-9][!a]*", "1b", true),
            ("[0-9][!a]*", "1a", false),
            ("[", "[", true),
            ("*", "", true),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXbYY", false),
        ] {
            assert_eq!(matches(pattern, name), yes, "{pattern} {name}");
        }
    }

    #[test]
    fn includes_come_in_name_order_and_directories_whole() {
        let files = Fake::new(&[
            ("/e/b.conf", ""),
            ("/e/a.conf", ""),
            ("/e/a.conf~", ""),
            ("/e/d/x/1", ""),
            ("/e/d/0", ""),
        ]);
        let shown = |pattern: &str| -> Vec<String> {
            included(&files, Path::new(pattern))
                .iter()
                .map(|p| p.display().to_string())
                .collect()
        };
        assert_eq!(shown("/e/*.conf"), ["/e/a.conf", "/e/b.conf"]);
        assert_eq!(shown("/e/d"), ["/e/d/0", "/e/d/x/1"]);
        assert_eq!(shown("/e/none.conf"), Vec::<String>::new());
    }
}
