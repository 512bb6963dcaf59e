//! Where a log directive sends its lines.

use std::path::{Path, PathBuf};

use super::directive::words;
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
    /// Where pipeban writes the lines; `None`: nowhere, they only feed the matcher.
    pub path: Option<PathBuf>,
    /// `--format`
    pub format: Option<String>,
}

/// Other options of `pipeban` that take a value, and may stand before PATH.
const WITH_VALUE: [&str; 1] = ["--config"];

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
        let mut rest = argv.iter().skip(1);
        while let Some(word) = rest.next() {
            if let Some(value) = word.strip_prefix("--format=") {
                format = Some(value.to_owned());
            } else if word == "--format" {
                format = rest.next().cloned();
            } else if WITH_VALUE.contains(&word.as_str()) {
                rest.next();
            } else if !word.starts_with("--") {
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
        Target::Pipeban(Pipe {
            program,
            shell,
            kind,
            path: plain.next().map(PathBuf::from),
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
