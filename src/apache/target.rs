//! Where a log directive sends its lines.

use std::path::{Path, PathBuf};

use super::directive::words;
use crate::pipe::Names;
use crate::record::Kind;

/// Where a log directive sends its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file; relative names are joined to ServerRoot.
    File(PathBuf),
    /// Another program.
    Program {
        /// Its path, the first word of the command.
        program: PathBuf,
        /// Started through a shell (`|$`).
        shell: bool,
    },
    /// `pipeban log`.
    Pipeban(Pipe),
    /// `syslog`, `syslog:facility`, or a provider of a module.
    Other(String),
}

/// A directive that pipes into `pipeban log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipe {
    /// The program's path as it stands.
    pub program: PathBuf,
    /// Started through a shell (`|$`).
    pub shell: bool,
    /// What the command line says; `None`: neither `access` nor `error`.
    pub kind: Option<Kind>,
    /// The file that pipeban writes the lines to, or its name with fields of the time; `None`:
    /// none, they only feed the matcher or go to stdout.
    pub path: Option<PathBuf>,
    /// `--format`
    pub format: Option<String>,
    /// The file's name changes with the time.
    pub dated: bool,
}

/// Other options of `pipeban` that take a value, and may stand before PATH.
const WITH_VALUE: [&str; 5] = ["--config", "--link", "--rotate", "--mode", "--owner"];
/// The same among its letters: what stands behind one is its value.
const LETTERS_WITH_VALUE: [char; 3] = ['L', 'n', 'p'];

fn takes_next_word(option: &str) -> bool {
    let letters = option
        .strip_prefix('-')
        .filter(|rest| !rest.starts_with('-'));
    match letters.and_then(|letters| {
        letters
            .find(LETTERS_WITH_VALUE)
            .map(|at| at + 1 == letters.len())
    }) {
        Some(last) => last,
        None => WITH_VALUE.contains(&option),
    }
}

impl Target {
    /// Reads the first word of a log directive, variables already put in. `syslog` names are
    /// known to `ErrorLog` only.
    pub(super) fn parse(word: &str, error_log: bool, server_root: &Path) -> Target {
        if let Some(command) = word.strip_prefix('|') {
            return Self::parse_command(command);
        }
        let provider = word.split_once(':').map_or(word, |(name, _)| name);
        if error_log && provider == "syslog" {
            return Target::Other(word.to_owned());
        }
        Target::File(server_root.join(word))
    }

    fn parse_command(command: &str) -> Target {
        let (shell, command) = match command.strip_prefix('$') {
            Some(command) => (true, command),
            None => (false, command.strip_prefix('|').unwrap_or(command)),
        };
        let argv = words(command);
        let program = PathBuf::from(argv.first().map_or("", String::as_str));
        if program.file_name().is_none_or(|name| name != "pipeban") {
            return Target::Program { program, shell };
        }
        let (mut plain, mut format) = (Vec::new(), None);
        let mut rotates = false;
        let mut rest = argv.iter().skip(1);
        while let Some(word) = rest.next() {
            rotates |= word.starts_with("--rotate");
            if let Some(value) = word.strip_prefix("--format=") {
                format = Some(value.to_owned());
            } else if word == "--format" {
                format = rest.next().cloned();
            } else if takes_next_word(word) {
                rest.next();
            } else if word == "-" || !word.starts_with('-') {
                plain.push(word.as_str());
            }
        }
        let mut plain = plain.into_iter();
        if plain.next() != Some("log") {
            return Target::Program { program, shell };
        }
        let kind = match plain.next() {
            Some("access") => Some(Kind::Access),
            Some("error") => Some(Kind::Error),
            _ => None,
        };
        let path = plain
            .next()
            .filter(|path| *path != "-" && !path.starts_with('|'))
            .map(PathBuf::from);
        rotates |= plain.next().is_some();
        let names = path.map(|path| Names::new(&path, None));
        let fixed = names.as_ref().and_then(Names::fixed);
        Target::Pipeban(Pipe {
            program,
            shell,
            kind,
            dated: names.is_some() && (rotates || fixed.is_none()),
            path: fixed.or_else(|| Some(names?.path().to_owned())),
            format,
        })
    }

    /// The program that Apache starts for it, if any.
    pub fn program(&self) -> Option<&Path> {
        match self {
            Target::Program { program, .. } => Some(program),
            Target::Pipeban(pipe) => Some(&pipe.program),
            Target::File(_) | Target::Other(_) => None,
        }
    }

    /// The file that lines end in, as far as it can be known.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Target::File(file) => Some(file),
            Target::Pipeban(pipe) => pipe.path.as_deref(),
            Target::Program { .. } | Target::Other(_) => None,
        }
    }

    /// Started through a shell, which takes the signals meant for the program.
    pub fn through_shell(&self) -> bool {
        match self {
            Target::Program { shell, .. } => *shell,
            Target::Pipeban(pipe) => pipe.shell,
            Target::File(_) | Target::Other(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_apache_makes_of_it() {
        let with_format = |kind, path: Option<&str>, shell, format: Option<&str>| {
            Target::Pipeban(Pipe {
                program: "/usr/bin/pipeban".into(),
                shell,
                kind,
                path: path.map(PathBuf::from),
                format: format.map(str::to_owned),
                dated: path.is_some_and(|path| path.starts_with("/dated")),
            })
        };
        let pipeban = |kind, path, shell| with_format(kind, path, shell, None);
        for (word, error_log, expected) in [
            ("/var/log/x", true, Target::File("/var/log/x".into())),
            ("logs/x", false, Target::File("/etc/apache2/logs/x".into())),
            ("syslog:local1", true, Target::Other("syslog:local1".into())),
            ("syslog", false, Target::File("/etc/apache2/syslog".into())),
            (
                "|/usr/bin/pipeban log error /e",
                true,
                pipeban(Some(Kind::Error), Some("/e"), false),
            ),
            (
                "||/usr/bin/pipeban log access",
                false,
                pipeban(Some(Kind::Access), None, false),
            ),
            (
                "|$/usr/bin/pipeban log access",
                false,
                pipeban(Some(Kind::Access), None, true),
            ),
            (
                "|/usr/bin/pipeban --config /c.toml log access --format combined '/a b'",
                false,
                with_format(Some(Kind::Access), Some("/a b"), false, Some("combined")),
            ),
            (
                r#"|/usr/bin/pipeban log access --format '%a "%r" \t\\ x'"#,
                false,
                with_format(Some(Kind::Access), None, false, Some(r#"%a "%r" \t\ x"#)),
            ),
            (
                "|/usr/bin/pipeban log access -fl -L /cur --mode 0644 /dated 86400 -60",
                false,
                pipeban(Some(Kind::Access), Some("/dated"), false),
            ),
            (
                "|/usr/bin/pipeban log access -L/cur --rotate=5M /dated.%%%Y",
                false,
                pipeban(Some(Kind::Access), Some("/dated.%%%Y"), false),
            ),
            (
                "|/usr/bin/pipeban log error --owner a:b /a%%Y%",
                false,
                pipeban(Some(Kind::Error), Some("/a%Y%"), false),
            ),
            (
                "|/usr/bin/pipeban log error -",
                false,
                pipeban(Some(Kind::Error), None, false),
            ),
            ("|/usr/bin/pipeban log", false, pipeban(None, None, false)),
            (
                "|/usr/bin/pipeban status",
                false,
                Target::Program {
                    program: "/usr/bin/pipeban".into(),
                    shell: false,
                },
            ),
            (
                "|/usr/bin/rotatelogs /x 86400",
                false,
                Target::Program {
                    program: "/usr/bin/rotatelogs".into(),
                    shell: false,
                },
            ),
            (
                "|",
                false,
                Target::Program {
                    program: "".into(),
                    shell: false,
                },
            ),
        ] {
            assert_eq!(
                Target::parse(word, error_log, Path::new("/etc/apache2")),
                expected,
                "{word}"
            );
        }
    }
}
