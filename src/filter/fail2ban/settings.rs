//! fail2ban's other files (`jail`, `fail2ban`, actions), each with its includes and overrides.

use std::path::{Path, PathBuf};

use super::include::{Files, FilterFiles, problems};
use super::layout::{Place, ValueLine};
use crate::problem::Problem;

/// The options of a file, its includes and the files that override it, by section.
pub struct Settings {
    file: PathBuf,
    paths: Vec<PathBuf>,
    merged: super::expand::Merged,
}

/// The value of an option, and where it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Lines without indentation, references replaced.
    pub text: String,
    /// The file that sets it.
    pub file: PathBuf,
    /// The line, from 1; 0: in no file.
    pub line: usize,
}

impl Settings {
    /// Reads `X.conf`, the `.conf` files in `X.d/` by name, `X.local`, the `.local` files in `X.d/`;
    /// each with its includes.
    ///
    /// # Errors
    /// Every problem, with its place.
    pub fn read(file: &Path, texts: &dyn FilterFiles) -> Result<Settings, Vec<Problem>> {
        let mut files = Files::new(texts);
        files.with_directory(file);
        if files.faults.is_empty() {
            Ok(Settings {
                file: file.to_owned(),
                paths: files.paths,
                merged: files.merged,
            })
        } else {
            let faults = std::mem::take(&mut files.faults);
            Err(problems(&files.paths, file, faults))
        }
    }

    /// The sections by name, without `[DEFAULT]` and `[INCLUDES]`.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        let names = self.merged.sections.keys().map(String::as_str);
        names.filter(|name| !["DEFAULT", "INCLUDES"].contains(name) && !name.starts_with("KNOWN/"))
    }

    /// The file and line of a section's header.
    pub fn header(&self, section: &str) -> (PathBuf, usize) {
        let at = self.merged.sections.get(section).map(|section| section.at);
        let at = at.unwrap_or_default();
        (self.path(at), at.line)
    }

    /// The value of an option in a section, else in `[DEFAULT]`.
    ///
    /// # Errors
    /// A reference in it that cannot be replaced.
    pub fn value(&self, section: &str, option: &str) -> Result<Option<Setting>, Problem> {
        let Some(raw) = self.merged.in_files(section, option) else {
            return Ok(None);
        };
        let at = raw.first().map_or_else(Place::default, |line| line.at);
        let lines = self.merged.option(section, option, 0).map_err(|fault| {
            let mut found = problems(&self.paths, &self.file, vec![fault]);
            found.pop().unwrap_or_else(|| Problem {
                file: self.file.clone(),
                place: None,
                message: format!("`{option}` cannot be read"),
            })
        })?;
        let lines: Vec<&str> = lines
            .iter()
            .flatten()
            .map(|line| line.text.trim())
            .collect();
        Ok(Some(Setting {
            text: lines.join("\n").trim().to_owned(),
            file: self.path(at),
            line: at.line,
        }))
    }

    /// Sets an option in `[DEFAULT]`, as fail2ban does for its own directory.
    pub fn set_default(&mut self, option: &str, text: &str) {
        self.set("DEFAULT", option, text);
    }

    /// Sets what `%(known/option)s` in a section refers to.
    pub fn set_known(&mut self, section: &str, option: &str, text: &str) {
        self.set(&format!("KNOWN/{section}"), option, text);
    }

    fn set(&mut self, section: &str, option: &str, text: &str) {
        let lines = text.lines().map(|line| ValueLine {
            text: line.replace('%', "%%"),
            ..ValueLine::default()
        });
        let section = self.merged.sections.entry(section.to_owned()).or_default();
        section.options.insert(option.to_owned(), lines.collect());
    }

    fn path(&self, at: Place) -> PathBuf {
        self.paths.get(at.file).unwrap_or(&self.file).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io;

    struct Tree(BTreeMap<PathBuf, &'static str>);

    impl FilterFiles for Tree {
        fn read(&self, file: &Path) -> io::Result<String> {
            let found = self.0.get(file).map(|text| (*text).to_owned());
            found.ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
            let all = self.0.keys();
            let within = all.filter(|file| file.parent() == Some(directory));
            Ok(within.cloned().collect())
        }
    }

    #[test]
    fn jails_are_read_in_the_order_of_fail2ban() {
        let tree = Tree(BTreeMap::from(
            [
                ("f/jail.conf", "[INCLUDES]\nbefore = paths.conf\n[DEFAULT]\nbantime = 10m\nfilter = %(__name__)s[mode=%(mode)s]\nmode = normal\n[web]\nlogpath = %(web_log)s\n"),
                ("f/paths.conf", "[DEFAULT]\nweb_log = /var/log/*error.log\n"),
                ("f/jail.d/b.conf", "[web]\nenabled = true\nmaxretry = 7 ; seven\n"),
                ("f/jail.local", "[DEFAULT]\nbantime = 1h\n[web]\nmaxretry = 8\nmode = aggressive\nlogpath = %(known/logpath)s\n  /srv/log\n"),
                ("f/jail.d/a.local", "[web]\nmaxretry = 9\n[DEFAULT]\nbase = %(here)s/x\n"),
            ]
            .map(|(name, text)| (PathBuf::from(name), text)),
        ));
        let mut jails = Settings::read(Path::new("f/jail.conf"), &tree).unwrap();
        jails.set_default("here", "/etc/50%");
        assert_eq!(jails.sections().collect::<Vec<_>>(), ["web"]);
        let value = |option: &str| jails.value("web", option).unwrap().unwrap();
        for (option, text, file, line) in [
            ("enabled", "true", "f/jail.d/b.conf", 2),
            ("maxretry", "9", "f/jail.d/a.local", 2),
            ("bantime", "1h", "f/jail.local", 2),
            ("filter", "web[mode=aggressive]", "f/jail.conf", 5),
            (
                "logpath",
                "/var/log/*error.log\n/srv/log",
                "f/jail.local",
                6,
            ),
            ("base", "/etc/50%/x", "f/jail.d/a.local", 4),
        ] {
            let file = PathBuf::from(file);
            let text = text.to_owned();
            assert_eq!(value(option), Setting { text, file, line });
        }
        assert_eq!(jails.value("web", "nothing").unwrap(), None);
        assert_eq!(jails.header("web"), (PathBuf::from("f/jail.conf"), 7));
        jails.set_known("web", "logpath", "100%\nb");
        let text = jails.value("web", "logpath").unwrap().unwrap().text;
        assert_eq!(text, "100%\nb\n/srv/log");
    }
}
