//! A filter file, and what it includes, into a [`Definition`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::expand::Merged;
use super::file::{Fault, Place, Value, ValueLine, sections};
use super::{Definition, PatternText};
use crate::config::Problem;

/// More patterns than this in one filter is a mistake.
const MOST_PATTERNS: usize = 1000;
/// More files than this, by includes of includes, is one, too.
const MOST_FILES: usize = 100;
/// Lines that one pattern may see together.
const MOST_LINES: u32 = 100;

/// Where the texts of filters come from.
pub trait Texts {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read; [`io::ErrorKind::NotFound`] where there is none.
    fn read(&self, file: &Path) -> io::Result<String>;

    /// The files of a directory, in any order; none where there is no such directory.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
}

/// [`read_from`] for texts that stand in no directory.
///
/// # Errors
/// As those.
pub fn read(
    name: &str,
    file: &Path,
    options: &BTreeMap<String, String>,
    text: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Definition, Vec<Problem>> {
    struct Alone<'t>(&'t dyn Fn(&Path) -> io::Result<String>);
    impl Texts for Alone<'_> {
        fn read(&self, file: &Path) -> io::Result<String> {
            (self.0)(file)
        }

        fn list(&self, _directory: &Path) -> io::Result<Vec<PathBuf>> {
            Ok(Vec::new())
        }
    }
    read_from(name, file, options, &Alone(text))
}

/// Reads the filter `name` from `file` (fail2ban's format), and after it what fail2ban lays over
/// it: for `X.conf` the `.conf` files in `X.d/` by name, `X.local`, the `.local` files in `X.d/`.
/// Each with everything it includes and the `.local` files beside that. `options` are the jail's,
/// names in lower case ([`super::split_options`]).
///
/// # Errors
/// Every problem found, with its place: a file that cannot be read, a line that is nothing, a
/// reference to nothing, no failregex.
pub fn read_from(
    name: &str,
    file: &Path,
    options: &BTreeMap<String, String>,
    texts: &dyn Texts,
) -> Result<Definition, Vec<Problem>> {
    let mut files = Files {
        texts,
        paths: Vec::new(),
        merged: Merged::default(),
        faults: Vec::new(),
    };
    files.with_directory(file);
    let option = |(name, value): (&String, &String)| {
        let lines = value.lines().map(|line| ValueLine {
            text: line.to_owned(),
            at: Place {
                file: 0,
                line: 1,
                column: 1,
            },
        });
        (name.clone(), lines.collect())
    };
    files.merged.given = options.iter().map(option).collect();
    files.merged.say_logtype();
    let definition = if files.faults.is_empty() {
        files.definition(name)
    } else {
        None
    };
    match definition {
        Some(definition) if files.faults.is_empty() => Ok(definition),
        _ => {
            files.faults.sort();
            files.faults.dedup();
            let (paths, faults) = (files.paths, files.faults);
            Err(faults
                .into_iter()
                .map(|(at, message)| Problem {
                    file: paths
                        .get(at.file)
                        .cloned()
                        .unwrap_or_else(|| file.to_owned()),
                    place: (at.line > 0).then_some((at.line, at.column)),
                    message,
                })
                .collect())
        }
    }
}

/// The files of one filter, those read later over those read earlier.
struct Files<'t> {
    texts: &'t dyn Texts,
    paths: Vec<PathBuf>,
    merged: Merged,
    faults: Vec<Fault>,
}

impl Files<'_> {
    /// The filter's own file, and all that is laid over it.
    fn with_directory(&mut self, file: &Path) {
        let nowhere = Place::default();
        self.one(file, &[], nowhere);
        if file.extension().is_none_or(|ending| ending == "local") {
            return;
        }
        let directory = file.with_extension("d");
        let mut more = self.texts.list(&directory).unwrap_or_else(|error| {
            let message = format!("`{}` cannot be read: {error}", directory.display());
            self.faults.push((nowhere, message));
            Vec::new()
        });
        more.sort();
        // As a shell's `*.conf` would have it.
        more.retain(|path| {
            let name = path.file_name();
            name.is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
        });
        let with = |wanted: &str| {
            let is = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == wanted);
            more.iter().filter(is).cloned().collect::<Vec<_>>()
        };
        for path in with("conf") {
            self.one(&path, &[], nowhere);
        }
        self.one(&file.with_extension("local"), &[], nowhere);
        for path in with("local") {
            self.one(&path, &[], nowhere);
        }
    }

    /// A file and the `.local` beside it, which may be missing. `chain`: the files that include
    /// this one; `from`: where.
    fn with_local(&mut self, file: &Path, chain: &[PathBuf], from: Place) {
        self.one(file, chain, from);
        if file.extension().is_none_or(|ending| ending != "local") {
            self.one(&file.with_extension("local"), chain, from);
        }
    }

    fn one(&mut self, file: &Path, chain: &[PathBuf], from: Place) {
        if chain.iter().any(|including| including == file) {
            return;
        }
        let number = self.paths.len();
        if number == MOST_FILES {
            let message = format!("more than {MOST_FILES} files include each other");
            return self.faults.push((from, message));
        }
        let text = match self.texts.read(file) {
            Ok(text) => text,
            // As in fail2ban, whose own files include `.local` files that nobody has.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && file.extension().is_some_and(|ending| ending == "local") =>
            {
                return;
            }
            Err(error) if chain.is_empty() => {
                self.paths.push(file.to_owned());
                let at = Place {
                    file: number,
                    ..Place::default()
                };
                return self.faults.push((at, format!("cannot be read: {error}")));
            }
            Err(error) => {
                let message = format!("`{}` cannot be read: {error}", file.display());
                return self.faults.push((from, message));
            }
        };
        self.paths.push(file.to_owned());
        let sections = match sections(number, &text) {
            Ok(sections) => sections,
            Err(faults) => return self.faults.extend(faults),
        };
        let chain = [chain, &[file.to_owned()]].concat();
        let included = |option: &str| {
            let includes = sections.get("INCLUDES");
            let value = includes.and_then(|section| section.options.get(option));
            value.cloned().unwrap_or_default()
        };
        let (before, after) = (included("before"), included("after"));
        self.include(file, &before, &chain);
        self.merged.add(sections);
        self.include(file, &after, &chain);
    }

    fn include(&mut self, file: &Path, names: &Value, chain: &[PathBuf]) {
        for name in names.iter().filter(|name| !name.text.is_empty()) {
            // A path of its own, where it is absolute.
            let included = file.with_file_name("").join(&name.text);
            self.with_local(&included, chain, name.at);
        }
    }

    fn definition(&mut self, name: &str) -> Option<Definition> {
        let Some(at) = self.merged.sections.get("Definition").map(|s| s.at) else {
            let message = "no `[Definition]`: a filter in fail2ban's format holds `[Definition]` \
                           and below it `failregex = ...`";
            self.faults.push((Place::default(), message.to_owned()));
            return None;
        };
        let failregex = self.patterns("failregex");
        let ignoreregex = self.patterns("ignoreregex");
        if failregex.is_empty() && self.faults.is_empty() {
            let message = "no `failregex` in `[Definition]`: without one no line matches";
            self.faults.push((at, message.to_owned()));
        }
        if failregex.len() + ignoreregex.len() > MOST_PATTERNS {
            let message = format!("more than {MOST_PATTERNS} patterns");
            self.faults.push((at, message));
        }
        Some(Definition {
            name: name.to_owned(),
            file: self.paths.first()?.clone(),
            prefregex: self.whole("prefregex"),
            failregex,
            ignoreregex,
            maxlines: self.maxlines(),
            datepattern: self.patterns("datepattern"),
        })
    }

    fn value(&mut self, option: &str) -> Value {
        match self.merged.resolved(option) {
            Ok(value) => value.unwrap_or_default(),
            Err(fault) => {
                self.faults.push(fault);
                Value::new()
            }
        }
    }

    fn patterns(&mut self, option: &str) -> Vec<PatternText> {
        let lines = self.value(option);
        lines
            .into_iter()
            .filter(|line| !line.text.trim().is_empty())
            .map(|line| self.placed(line))
            .collect()
    }

    /// A value that is one pattern.
    fn whole(&mut self, option: &str) -> Option<PatternText> {
        let value = self.value(option).into_iter();
        let mut lines = value.skip_while(|line| line.text.trim().is_empty());
        let mut whole = lines.next()?;
        for line in lines {
            whole.text.push('\n');
            whole.text.push_str(&line.text);
        }
        (!whole.text.trim().is_empty()).then(|| self.placed(whole))
    }

    fn placed(&self, line: ValueLine) -> PatternText {
        PatternText {
            text: line.text,
            line: line.at.line,
            column: line.at.column,
            file: (line.at.file > 0)
                .then(|| self.paths.get(line.at.file).cloned())
                .flatten(),
        }
    }

    fn maxlines(&mut self) -> u32 {
        let mut lines = self.value("maxlines").into_iter();
        let Some(line) = lines.find(|line| !line.text.trim().is_empty()) else {
            return 1;
        };
        match line.text.trim().parse() {
            Ok(lines @ 1..=MOST_LINES) => lines,
            _ => {
                let message = format!("`maxlines` is a number from 1 to {MOST_LINES}");
                self.faults.push((line.at, message));
                1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Places = Vec<(Option<(usize, usize)>, String)>;

    fn from_files(files: &[(&str, &str)]) -> Result<Definition, Vec<Problem>> {
        read("f", Path::new("d/f.conf"), &BTreeMap::new(), &|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            let text = found.map(|(_, text)| (*text).to_owned());
            text.ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn definition(text: &str) -> Result<Definition, Places> {
        from_files(&[("d/f.conf", text)])
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
                ("m1 <HOST>", 3, 8),
                ("m2 <HOST>", 4, 3),
            ]
        );
        assert!(read.ignoreregex.is_empty());
    }

    #[test]
    fn includes_and_local_files_are_laid_over_one_another() {
        let read = from_files(&[
            ("d/f.conf", "[INCLUDES]\nbefore = a.conf\n  sub/b.conf\nafter = c.local\n[Definition]\nfailregex = ^%(who)s <HOST> <word>\n"),
            ("d/f.local", "[Definition]\nignoreregex = I\nmaxlines = 3\n"),
            ("d/a.conf", "[INCLUDES]\nbefore = f.conf\n[DEFAULT]\nwho = a\nword = x\n"),
            ("d/a.local", "[DEFAULT]\nword = y\nprefregex = ^<F-CONTENT>.+</F-CONTENT>\n"),
            ("d/sub/b.conf", "[DEFAULT]\nwho = b\n"),
        ])
        .unwrap();
        assert_eq!(read.failregex[0].text, "^b <HOST> y");
        assert_eq!(read.failregex[0].file, None);
        assert_eq!(read.ignoreregex[0].text, "I");
        assert_eq!(read.maxlines, 3);
        let prefix = read.prefregex.unwrap();
        assert_eq!(prefix.file, Some(PathBuf::from("d/a.local")));
        assert_eq!((prefix.line, prefix.column), (3, 13));
    }

    #[test]
    fn the_files_of_its_directory_are_laid_over_a_filter() {
        #[derive(Default)]
        struct Drawer(std::cell::RefCell<Vec<String>>);
        impl Texts for Drawer {
            fn read(&self, file: &Path) -> io::Result<String> {
                let name = file.strip_prefix("d").unwrap().to_str().unwrap();
                self.0.borrow_mut().push(name.to_owned());
                Ok(match name {
                    "f.conf" => "[Definition]\nfailregex = <HOST> <last>\n".to_owned(),
                    _ => format!("[DEFAULT]\nlast = {name}\n"),
                })
            }

            fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
                let names = ["2.conf", "1.local", "1.conf", "README", ".3.conf"];
                Ok(names.map(|name| directory.join(name)).to_vec())
            }
        }
        let drawer = Drawer::default();
        let read = read_from("f", Path::new("d/f.conf"), &BTreeMap::new(), &drawer).unwrap();
        assert_eq!(read.failregex[0].text, "<HOST> f.d/1.local");
        let order = [
            "f.conf",
            "f.d/1.conf",
            "f.d/2.conf",
            "f.local",
            "f.d/1.local",
        ];
        assert_eq!(drawer.0.into_inner(), order);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, place, word) in [
            (
                "[INCLUDES]\nbefore = x.conf\n[Definition]\nfailregex = <HOST>\n",
                (2, 10),
                "x.conf",
            ),
            (
                "[Definition]\nmaxlines = many\nfailregex = <HOST>\n",
                (2, 12),
                "maxlines",
            ),
            ("[Definition]\nfailregex = ^<HOST> 5%\n", (2, 22), "`%%`"),
            ("[Definition]\nignoreregex =\n", (1, 1), "no `failregex`"),
        ] {
            let problems = definition(text).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].0, Some(place), "{problems:?}");
            assert!(problems[0].1.contains(word), "{problems:?}");
        }
        let problems = definition("[Other]\n").unwrap_err();
        assert!(problems[0].0.is_none() && problems[0].1.contains("[Definition]"));
    }
}
