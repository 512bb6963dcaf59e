//! Where a log directive sends its lines.

use std::path::{Path, PathBuf};

use super::directive::words;
use crate::pipe::{self, Names};
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
    /// `pipeban log`
    Pipeban(Pipe),
    /// `syslog`, `syslog:facility`, or a provider of a module.
    Other(String),
}

/// A directive that pipes into `pipeban log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipe {
    /// The program's path.
    pub program: PathBuf,
    /// Started through a shell (`|$`).
    pub shell: bool,
    /// `None`: neither `access` nor `error`.
    pub kind: Option<Kind>,
    /// The file that pipeban writes, possibly with strftime fields; `None`: no file.
    pub path: Option<PathBuf>,
    /// `--format`
    pub format: Option<String>,
    /// User and group in `--owner`.
    pub(super) owner: pipe::Owner,
    /// The facility in `--syslog`.
    pub(super) syslog: Option<String>,
    /// `--config`.
    pub(super) config: Option<PathBuf>,
    /// The file's name has strftime fields.
    pub dated: bool,
    /// What is wrong with its arguments: see [`pipe::Directive`].
    pub wrong: Vec<String>,
}

impl Target {
    /// Reads the first word of a log directive, with variables replaced. Only `ErrorLog` has
    /// `syslog`.
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

    /// The lines are not kept in a file: dropped, or syslog's.
    pub(super) fn is_elsewhere(&self) -> bool {
        match self {
            Target::File(file) => file == Path::new("/dev/null"),
            Target::Other(_) => true,
            Target::Program { .. } | Target::Pipeban(_) => false,
        }
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
        let Some(directive) = pipe::directive(argv.get(1..).unwrap_or_default()) else {
            return Target::Program { program, shell };
        };
        let names = directive.path.map(|path| Names::new(&path));
        let fixed = names.as_ref().and_then(Names::fixed);
        Target::Pipeban(Pipe {
            program,
            shell,
            kind: directive.kind,
            dated: names.is_some() && fixed.is_none(),
            path: fixed.or_else(|| Some(names?.path().to_owned())),
            format: directive.format,
            owner: directive.owner,
            syslog: directive.syslog,
            config: directive.config,
            wrong: directive.wrong,
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

    /// The file that gets the lines, if it is known.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Target::File(file) => Some(file),
            Target::Pipeban(pipe) => pipe.path.as_deref(),
            Target::Program { .. } | Target::Other(_) => None,
        }
    }

    /// Whether Apache starts it through a shell, which intercepts signals for the program.
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
    fn targets_are_read_as_apache_reads_them() {
        let with_format = |kind, path: Option<&str>, shell, format: Option<&str>| {
            Target::Pipeban(Pipe {
                program: "/usr/bin/pipeban".into(),
                shell,
                kind,
                path: path.map(PathBuf::from),
                owner: Default::default(),
                syslog: None,
                config: None,
                format: format.map(str::to_owned),
                dated: path.is_some_and(|path| path.starts_with("/dated")),
                wrong: Vec::new(),
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
                "|/usr/bin/pipeban log access -fl -L /cur --mode 0644 /fixed 86400 -60",
                false,
                pipeban(Some(Kind::Access), Some("/fixed"), false),
            ),
            (
                "|/usr/bin/pipeban log access --link /cur /dated.%%%Y",
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
            let mut target = Target::parse(word, error_log, Path::new("/etc/apache2"));
            if let Target::Pipeban(pipe) = &mut target {
                let wrong = word.contains("86400") || pipe.kind.is_none();
                assert_eq!(pipe.wrong.len(), usize::from(wrong), "{word}: {pipe:?}");
                let config = word.contains("--config").then(|| "/c.toml".into());
                assert_eq!(pipe.config.take(), config, "{word}");
                pipe.wrong.clear();
                pipe.owner = Default::default();
            }
            assert_eq!(target, expected, "{word}");
        }
    }
}
