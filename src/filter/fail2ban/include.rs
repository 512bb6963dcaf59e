//! A filter file, and what it includes, into a [`Definition`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::expand::Merged;
use super::layout::{Fault, Place, Value, ValueLine, sections};
use crate::filter::definition::{Definition, PatternText};
use crate::nearest::nearest;
use crate::problem::Problem;

/// More patterns in one filter are a mistake.
const MOST_PATTERNS: usize = 1000;
/// More files, through includes of includes, are a mistake.
const MOST_FILES: usize = 100;
/// Reads the files of filters: `filter` itself opens none.
pub trait FilterFiles {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read; [`io::ErrorKind::NotFound`] if it does not exist.
    fn read(&self, file: &Path) -> io::Result<String>;

    /// The files of a directory, in any order; none if the directory does not exist.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
}

/// For files that have no directory beside them.
impl<F: Fn(&Path) -> io::Result<String>> FilterFiles for F {
    fn read(&self, file: &Path) -> io::Result<String> {
        self(file)
    }

    fn list(&self, _directory: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
}

/// Reads the filter `name` from `file` in fail2ban's format, then the files that override it: for
/// `X.conf` the `.conf` files in `X.d/` by name, `X.local`, the `.local` files in `X.d/`. Each
/// with its includes and their `.local` files. `options` are the jail's, names in lower case
/// ([`super::split_options`]). `datepattern` is ignored.
///
/// # Errors
/// Every problem, with its place.
pub fn read(
    name: &str,
    file: &Path,
    options: &BTreeMap<String, String>,
    texts: &dyn FilterFiles,
) -> Result<Definition, Vec<Problem>> {
    let mut files = Files::new(texts);
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
    files.merged.set_logtype();
    let definition = if files.faults.is_empty() {
        files.definition(name)
    } else {
        None
    };
    match definition {
        Some(definition) if files.faults.is_empty() => Ok(definition),
        _ => {
            let faults = std::mem::take(&mut files.faults);
            Err(problems(&files.paths, file, faults))
        }
    }
}

/// The faults in order, each once, with the file of each; `file` where it has none.
pub(super) fn problems(paths: &[PathBuf], file: &Path, mut faults: Vec<Fault>) -> Vec<Problem> {
    faults.sort();
    faults.dedup();
    let problem = |(at, message): Fault| Problem {
        file: paths.get(at.file).map_or(file, PathBuf::as_path).to_owned(),
        place: (at.line > 0).then_some((at.line, at.column)),
        message,
    };
    faults.into_iter().map(problem).collect()
}

/// A file with its includes and overrides; later ones override earlier ones.
pub(super) struct Files<'t> {
    texts: &'t dyn FilterFiles,
    pub(super) paths: Vec<PathBuf>,
    pub(super) merged: Merged,
    pub(super) faults: Vec<Fault>,
}

impl Files<'_> {
    pub(super) fn new(texts: &dyn FilterFiles) -> Files<'_> {
        Files {
            texts,
            paths: Vec::new(),
            merged: Merged::default(),
            faults: Vec::new(),
        }
    }

    /// The file, and the files that override it.
    pub(super) fn with_directory(&mut self, file: &Path) {
        let nowhere = Place::default();
        self.one(file, &[], nowhere);
        if file.extension().is_none_or(|ending| ending == "local") {
            return;
        }
        let directory = file.with_extension("d");
        let mut more = self.texts.list(&directory).unwrap_or_else(|error| {
            let message = format!("cannot read `{}`: {error}", directory.display());
            self.faults.push((nowhere, message));
            Vec::new()
        });
        more.sort();
        // As a shell's `*.conf`: no hidden files.
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

    /// A file and the `.local` file beside it, which may be missing. `chain`: the files that
    /// include this one; `from`: the place of the include.
    fn with_local(&mut self, file: &Path, chain: &[PathBuf], from: Place) {
        if chain.iter().any(|including| including == file) {
            return;
        }
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
            // fail2ban's files include `.local` files that do not exist.
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
                return self.faults.push((at, format!("cannot read it: {error}")));
            }
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", file.display());
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
            // `join` takes an absolute path as it is.
            let included = file.with_file_name("").join(&name.text);
            self.with_local(&included, chain, name.at);
        }
    }

    fn definition(&mut self, name: &str) -> Option<Definition> {
        let Some(at) = self.merged.sections.get("Definition").map(|s| s.at) else {
            let names = self.merged.sections.iter();
            let like = |name: &&str| nearest(name, ["Definition"].into_iter()).is_some();
            let fault = match names
                .map(|(name, section)| (name, section.at))
                .find(|(name, _)| like(&name.as_str()))
            {
                Some((name, at)) => (
                    at,
                    format!("nothing reads `[{name}]`: write `[Definition]`"),
                ),
                None => {
                    let message = "the filter has no section `[Definition]`: put `failregex = ...` \
                                   below a line `[Definition]`";
                    (Place::default(), message.to_owned())
                }
            };
            self.faults.push(fault);
            return None;
        };
        self.refuse_several_lines();
        self.faults.extend(self.merged.unknown_option(name));
        self.faults.extend(self.merged.misspelt());
        let failregex = self.patterns("failregex");
        let ignoreregex = self.patterns("ignoreregex");
        if failregex.is_empty() && self.faults.is_empty() {
            let message = "`[Definition]` has no `failregex`: without one no line matches";
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
            native: Vec::new(),
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
            class: None,
            spoofable: false,
            certain: None,
            file: (line.at.file > 0)
                .then(|| self.paths.get(line.at.file).cloned())
                .flatten(),
        }
    }

    fn refuse_several_lines(&mut self) {
        let lines = self.value("maxlines");
        let mut lines = lines.iter().filter(|line| !line.text.trim().is_empty());
        if let Some(line) = lines.next()
            && line.text.trim() != "1"
        {
            let message = "the filter needs several lines at once (`maxlines`), and pipeban \
                           matches one line at a time: leave this filter to fail2ban";
            self.faults.push((line.at, message.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Places = Vec<(Option<(usize, usize)>, String)>;

    fn from_files(files: &[(&str, &str)]) -> Result<Definition, Vec<Problem>> {
        read(
            "f",
            Path::new("d/f.conf"),
            &BTreeMap::new(),
            &|path: &Path| {
                let found = files.iter().find(|(name, _)| Path::new(name) == path);
                let text = found.map(|(_, text)| (*text).to_owned());
                text.ok_or_else(|| io::ErrorKind::NotFound.into())
            },
        )
    }

    fn definition(text: &str) -> Result<Definition, Places> {
        from_files(&[("d/f.conf", text)])
            .map_err(|problems| problems.into_iter().map(|p| (p.place, p.message)).collect())
    }

    #[test]
    fn patterns_keep_their_order_and_places() {
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
    fn later_files_override_earlier_ones() {
        let read = from_files(&[
            ("d/f.conf", "[INCLUDES]\nbefore = a.conf\n  sub/b.conf\nafter = c.local\n[Definition]\nfailregex = ^%(who)s <HOST> <word>\n"),
            ("d/f.local", "[Definition]\nignoreregex = I\nmaxlines = 1\ndatepattern = x(\n"),
            ("d/a.conf", "[INCLUDES]\nbefore = f.conf\n[DEFAULT]\nwho = a\nword = x\n"),
            ("d/a.local", "[DEFAULT]\nword = y\nprefregex = ^<F-CONTENT>.+</F-CONTENT>\n"),
            ("d/sub/b.conf", "[DEFAULT]\nwho = b\n"),
        ])
        .unwrap();
        assert_eq!(read.failregex[0].text, "^b <HOST> y");
        assert_eq!(read.failregex[0].file, None);
        assert_eq!(read.ignoreregex[0].text, "I");
        let prefix = read.prefregex.unwrap();
        assert_eq!(prefix.file, Some(PathBuf::from("d/a.local")));
        assert_eq!((prefix.line, prefix.column), (3, 13));
    }

    #[test]
    fn the_files_of_the_directory_override_the_filter() {
        #[derive(Default)]
        struct Directory(std::cell::RefCell<Vec<String>>);
        impl FilterFiles for Directory {
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
        let directory = Directory::default();
        let read = read("f", Path::new("d/f.conf"), &BTreeMap::new(), &directory).unwrap();
        assert_eq!(read.failregex[0].text, "<HOST> f.d/1.local");
        let order = [
            "f.conf",
            "f.d/1.conf",
            "f.d/2.conf",
            "f.local",
            "f.d/1.local",
        ];
        assert_eq!(directory.0.into_inner(), order);
    }

    #[test]
    fn each_problem_has_its_place() {
        for (text, place, word) in [
            (
                "[INCLUDES]\nbefore = x.conf\n[Definition]\nfailregex = <HOST>\n",
                (2, 10),
                "x.conf",
            ),
            (
                "[Definition]\nmaxlines = 2\nfailregex = <HOST>\n",
                (2, 12),
                "maxlines",
            ),
            ("[Definition]\nfailregex = ^<HOST> 5%\n", (2, 22), "`%%`"),
            (
                "[Definition]\nignoreregex =\n",
                (1, 1),
                "has no `failregex`",
            ),
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
