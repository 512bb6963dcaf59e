//! The command line of `pipeban log`, read the same way when Apache starts the logger and when a
//! directive of Apache's configuration is checked.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use super::log::Log;
use super::names::Names;
use super::output::{FILE_MODE, Output, To};
use crate::config;
use crate::record::Kind;

/// The arguments of `pipeban log`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which of Apache's logs the lines are from
    kind: KindArg,
    /// Log file to append to; pipeban creates it if it is missing. Fields of strftime(3), such as
    /// %F, are replaced by the local time, and the file changes when its name changes. `-` is
    /// stdout. Without PATH lines are only matched
    path: Option<PathBuf>,
    /// combined, vhost_combined, common, vhost_common, pipeban, a LogFormat or ErrorLogFormat
    /// string as in Apache's configuration, or auto: one of these names, or the error log's
    /// default. If the format is unknown, lines are passed through and not matched
    #[arg(long, value_name = "F", default_value = "auto", value_parser = no_path)]
    format: String,
    /// Send each line to the syslog of this host, too, with this facility, such as local1
    #[arg(long, value_name = "FACILITY", value_parser = no_path)]
    syslog: Option<String>,
    /// Symbolic link that always leads to the current file
    #[arg(long, value_name = "LINK")]
    link: Option<PathBuf>,
    /// Permissions of files that pipeban creates
    #[arg(long, value_name = "OCTAL", default_value = "0640", value_parser = no_path)]
    mode: String,
    /// Owner and group of files that pipeban creates, as `www-data:adm` or `:www-data`
    #[arg(
        long,
        value_name = "USER:GROUP",
        default_value = "root:adm",
        value_parser = no_path
    )]
    owner: String,
    /// Ban also for lines of a terminal or a file
    #[arg(long)]
    for_real: bool,
}

/// A path here is PATH, and the option's value was forgotten.
fn no_path(text: &str) -> Result<String, &'static str> {
    match text.starts_with('/') {
        true => Err("the option has no value"),
        false => Ok(text.to_owned()),
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KindArg {
    /// CustomLog, TransferLog, GlobalLog
    Access,
    /// ErrorLog
    Error,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Kind {
        match kind {
            KindArg::Access => Kind::Access,
            KindArg::Error => Kind::Error,
        }
    }
}

impl Arguments {
    /// `--format`
    pub fn format(&self) -> &str {
        &self.format
    }

    /// `--for-real`
    pub fn for_real(&self) -> bool {
        self.for_real
    }

    /// What the logger is started for. Wrong values are in `refused`, and lines still go to PATH.
    pub fn log(&self) -> Log {
        let mut refused = Vec::new();
        Log {
            kind: self.kind.into(),
            format: Some(self.format.clone()),
            output: output(self, &mut refused),
            refused,
            pass_only: false,
        }
    }
}

/// A directive's command line, without the program.
#[derive(Parser)]
#[command(
    name = "pipeban",
    disable_help_flag = true,
    disable_help_subcommand = true
)]
struct Line {
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: OnlyLog,
}

#[derive(Subcommand)]
enum OnlyLog {
    Log(Arguments),
}

/// What the command line of a directive means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// `None`: neither `access` nor `error`.
    pub kind: Option<Kind>,
    /// The file, possibly with strftime fields; `None`: no file.
    pub path: Option<PathBuf>,
    /// `--format`, if it is given.
    pub format: Option<String>,
    /// User and group in `--owner`.
    pub owner: Owner,
    /// `--syslog`
    pub syslog: Option<String>,
    /// `--config`
    pub config: Option<PathBuf>,
    /// What is wrong with the arguments; lines are then not matched.
    pub wrong: Vec<String>,
}

/// Reads the words after the program's name; `None`: the command is not `log`.
pub fn directive(words: &[String]) -> Option<Directive> {
    let at = words.iter().position(|word| word == "log")?;
    let mut kind = match words.get(at + 1).map(String::as_str) {
        Some("access") => Some(Kind::Access),
        Some("error") => Some(Kind::Error),
        _ => None,
    };
    let (mut syslog, mut config) = (None, None);
    let (log, format) = match parse(words) {
        Ok((arguments, file)) => {
            config = file;
            let given = |word: &String| word == "--format" || word.starts_with("--format=");
            let format = words.iter().any(given).then(|| arguments.format.clone());
            syslog.clone_from(&arguments.syslog);
            kind = Some(arguments.kind.into());
            (arguments.log(), format)
        }
        Err(error) => {
            let given: Vec<OsString> = words.iter().map(OsString::from).collect();
            let Some((log, _)) = salvage(&given, &error) else {
                let why = reason(&error);
                return Some(Directive {
                    kind,
                    path: None,
                    format: None,
                    owner: Owner::default(),
                    syslog: None,
                    config: None,
                    wrong: vec![format!(
                        "{why}; until this is corrected, its lines are neither written nor matched"
                    )],
                });
            };
            (log, None)
        }
    };
    let path = log.output.as_ref().and_then(|output| match &output.to {
        To::File(names) => Some(names.path().to_owned()),
        To::Stdout => None,
    });
    Some(Directive {
        kind,
        path,
        format,
        owner: log
            .output
            .map(|output| (output.user, output.group))
            .unwrap_or_default(),
        syslog,
        config,
        wrong: log.refused,
    })
}

/// The arguments of `log`, and `--config`.
fn parse(words: &[String]) -> Result<(Arguments, Option<PathBuf>), clap::Error> {
    let words = words.iter().map(String::as_str);
    let Line {
        command: OnlyLog::Log(arguments),
        config,
        ..
    } = Line::try_parse_from(std::iter::once("pipeban").chain(words))?;
    Ok((arguments, config))
}

/// The words with which the logger does what the administrator most likely wants: misspelt options
/// are spelt as they should be, a second path and wrong values are dropped, and of rotatelogs's
/// arguments the path is kept. `None`: the words are right, or nothing can be said.
pub fn corrected(words: &[String]) -> Option<Vec<String>> {
    let mut new = words.to_vec();
    // Each round removes or replaces a word.
    for _ in 0..words.len() {
        let error = match parse(&new) {
            Ok((arguments, _)) => {
                for (option, wrong) in [
                    ("--mode", mode(&arguments.mode).is_err()),
                    ("--owner", owner(&arguments.owner).is_err()),
                    (
                        "--syslog",
                        arguments
                            .syslog
                            .as_deref()
                            .is_some_and(|name| facility(name).is_err()),
                    ),
                ] {
                    if wrong {
                        remove_option(&mut new, option);
                    }
                }
                return (new != words).then_some(new);
            }
            Err(error) => error,
        };
        let wrong = said(&error, ContextKind::InvalidArg)?;
        let at = new.iter().position(|word| {
            *word == wrong || word.split_once('=').is_some_and(|(name, _)| name == wrong)
        })?;
        let given: Vec<OsString> = new.iter().map(OsString::from).collect();
        if given.iter().any(|word| is_rotatelogs(word)) {
            let log = new.iter().position(|word| word == "log")?;
            let path = path_of(&given)?.to_str()?.to_owned();
            new.truncate(log + 2);
            new.push(path);
        } else if let Some(right) = said(&error, ContextKind::SuggestedArg) {
            let word = new.get_mut(at)?;
            *word = word.replacen(&wrong, &right, 1);
        } else {
            new.remove(at);
        }
    }
    None
}

/// Removes an option and its value.
fn remove_option(words: &mut Vec<String>, option: &str) {
    let Some(at) = words.iter().position(|word| word.starts_with(option)) else {
        return;
    };
    let with_value = words.get(at).is_some_and(|word| word == option);
    let end = (at + 1 + usize::from(with_value)).min(words.len());
    words.drain(at..end);
}

/// What clap says of an error.
fn said(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

/// Why clap refuses the words, in one line.
fn reason(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(wrong) = said(error, ContextKind::InvalidArg)
    {
        let option = wrong.starts_with('-');
        return match said(error, ContextKind::SuggestedArg).filter(|_| option) {
            Some(right) => format!("`{wrong}` is not an option: write `{right}`"),
            None if option => format!("`{wrong}` is not an option of `pipeban log`"),
            None => format!("`{wrong}` is one path too many: a logger writes one file"),
        };
    }
    let text = error.to_string();
    if error.kind() == ErrorKind::ValueValidation
        && let Some(option) = said(error, ContextKind::InvalidArg)
    {
        let option = option.split(' ').next().unwrap_or_default();
        return format!("`{option}` has no value");
    }
    let first = text.lines().next().unwrap_or_default();
    first.trim_start_matches("error: ").to_owned()
}

/// What to do with a command line that clap refuses: lines go to PATH and are not matched. Apache
/// would hang with a logger that ends at once, and a mistaken option must not cost a line. With
/// `--config`. `None`: the command line names no file.
pub fn salvage(words: &[OsString], error: &clap::Error) -> Option<(Log, Option<PathBuf>)> {
    let path = path_of(words)?;
    let kind = match words.iter().any(|word| word == "error") {
        true => Kind::Error,
        false => Kind::Access,
    };
    let config = words.windows(2).find_map(|pair| match pair {
        [option, file] if option == "--config" => Some(PathBuf::from(file)),
        _ => None,
    });
    let reason = if words.iter().any(|word| is_rotatelogs(word)) {
        let path = path.display().to_string();
        let field = if path.contains('%') { "" } else { ".%F" };
        format!(
            "rotatelogs's and cronolog's arguments are not supported: write `pipeban log {kind} \
             --link LINK PATH`, with fields of strftime(3) in PATH, such as {path}{field}"
        )
    } else {
        reason(error)
    };
    let log = Log {
        kind,
        format: None,
        output: Some(Output {
            to: To::File(Names::new(path)),
            link: None,
            mode: FILE_MODE,
            user: None,
            group: None,
            syslog: None,
        }),
        refused: vec![format!(
            "{reason}; until this is corrected, all lines go to {} and are not matched",
            path.display()
        )],
        pass_only: false,
    };
    Some((log, config))
}

/// The log file in a command line that clap refuses: the first word with a `/` that follows no
/// option. The value of an option may be another file, such as a link, and is never taken; but
/// rotatelogs's and cronolog's flags have no value.
fn path_of(words: &[OsString]) -> Option<&Path> {
    let flag = |word: &OsStr| {
        let letters = word.as_bytes().strip_prefix(b"-").unwrap_or_default();
        !letters.is_empty() && letters.iter().all(|letter| b"lftTvecDoa".contains(letter))
    };
    // Options whose value is no path: it was forgotten.
    let no_path = |word: &OsStr| {
        let names = ["--format", "--mode", "--owner", "--syslog"];
        names.iter().any(|name| word == *name)
    };
    let has_value = |word: &OsStr| word.as_bytes().iter().any(|byte| b"=/".contains(byte));
    let behind = |follows: &dyn Fn(&OsStr) -> bool| {
        words.iter().enumerate().find_map(|(at, word)| {
            let before = at.checked_sub(1).and_then(|before| words.get(before))?;
            let follows = follows(before);
            let named =
                word.as_bytes().contains(&b'/') && !b"-|".contains(word.as_bytes().first()?);
            (named && follows).then_some(Path::new(word))
        })
    };
    // cronolog's `-l` has a value, a link: a path that follows no option is the better one.
    behind(&|before| !before.as_bytes().starts_with(b"-") || has_value(before))
        .or_else(|| behind(&|before| flag(before) || no_path(before)))
}

/// Whether rotatelogs or cronolog takes such a word and pipeban does not: a short option, an
/// interval, a size, an offset.
fn is_rotatelogs(word: &OsStr) -> bool {
    let word = word.as_bytes();
    match word.strip_prefix(b"-").unwrap_or(word).split_last() {
        Some((last, rest)) if rest.iter().all(u8::is_ascii_digit) => {
            last.is_ascii_digit()
                || (b"BKMG".contains(last) && !rest.is_empty())
                || word.starts_with(b"-")
        }
        _ => {
            matches!(word, [b'-', letter, ..] if letter.is_ascii_alphabetic())
                || word.starts_with(b"--rotate")
                || word.starts_with(b"--symlink")
                || word.starts_with(b"--hardlink")
                || word.starts_with(b"--period")
        }
    }
}

fn output(args: &Arguments, refused: &mut Vec<String>) -> Option<Output> {
    let syslog = args.syslog.as_deref().map(facility);
    let syslog = syslog.and_then(|facility| refuse(facility, refused));
    // Only for syslog.
    let nowhere = syslog.is_some().then_some(Path::new("/dev/null"));
    if args.path.is_none() && args.link.is_some() {
        refused.push(
            "`--link` without PATH: lines are matched and written nowhere; add PATH".to_owned(),
        );
    }
    let path = args.path.as_deref().or(nowhere)?;
    if path.as_os_str().as_bytes().starts_with(b"|") {
        refused.push(
            "`| program` is not supported: pipeban starts no program with root's rights, and lines \
             would be lost when that program ends; lines are matched and not written. Give the \
             program its own log directive"
                .into(),
        );
        return None;
    }
    let (user, group) = refuse(owner(&args.owner), refused).unwrap_or_default();
    Some(Output {
        to: if path == Path::new("-") {
            To::Stdout
        } else {
            To::File(Names::new(path))
        },
        link: args.link.clone(),
        mode: refuse(mode(&args.mode), refused).unwrap_or(FILE_MODE),
        user,
        group,
        syslog,
    })
}

fn facility(name: &str) -> Result<u8, String> {
    config::syslog_facility(name)
        .ok_or_else(|| format!("`--syslog {name}`: write a facility of syslog, such as local1"))
}

fn refuse<T>(result: Result<T, String>, refused: &mut Vec<String>) -> Option<T> {
    result.map_err(|error| refused.push(error)).ok()
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("`--mode {text}`: write it as 0640")),
    }
}

/// User and group; `None`: the default.
pub type Owner = (Option<String>, Option<String>);

fn owner(text: &str) -> Result<Owner, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if text.is_empty() || group.contains(':') {
        return Err(format!("`--owner {text}`: write it as `www-data:adm`"));
    }
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    // The default is no error on a host without the group adm.
    Ok((
        named(user).filter(|name| name != "root"),
        named(group).filter(|name| name != "adm"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn read(line: &str) -> (Option<Output>, Vec<String>) {
        let log = parse(&words(&format!("log {line}"))).unwrap().0.log();
        (log.output, log.refused)
    }

    #[test]
    fn a_wrong_value_is_refused_and_lines_still_go_to_the_file() {
        for (line, why) in [
            ("access --mode 8 /x", "0640"),
            ("access --mode 4755 /x", "0640"),
            ("access --owner a:b:c /x", "www-data:adm"),
        ] {
            let (output, refused) = read(line);
            assert!(output.is_some(), "{line}");
            assert_eq!(refused.len(), 1, "{line}: {refused:?}");
            assert!(refused[0].contains(why), "{line}: {refused:?}");
        }
        let (output, refused) = read("access --link /cur");
        assert!(output.is_none() && refused.len() == 1, "{refused:?}");
        let (output, refused) = read("access |/usr/bin/gzip");
        assert!(output.is_none());
        assert!(refused[0].contains("starts no program"), "{refused:?}");
    }

    #[test]
    fn a_refused_command_line_passes_its_lines_to_path_and_never_to_a_link() {
        for (line, file, rotatelogs) in [
            ("log access --formt common /a.log", Some("/a.log"), false),
            ("log acces /a.log --rotate=/x", Some("/a.log"), true),
            ("log error --x /y /%F.log 86400", Some("/%F.log"), true),
            (
                "--config /p.toml log error /a.log --lnk /cur",
                Some("/a.log"),
                false,
            ),
            ("log access /a.log --confg /p.toml", Some("/a.log"), false),
            ("log access --confg /p.toml", None, false),
            ("log nonsense", None, false),
            ("--config /p.toml log error -z", None, false),
            // As rotatelogs takes them.
            ("log access /a 86400", Some("/a"), true),
            ("log access /a 5M", Some("/a"), true),
            ("log access /a 86400 5M -120", Some("/a"), true),
            ("log access -l /a 86400", Some("/a"), true),
            ("log access -L /cur /a 86400", Some("/a"), true),
            ("log access -l -f -L /cur /a 86400", Some("/a"), true),
            ("log access -fcD -L /cur -l /a 86400", Some("/a"), true),
            ("log access -lL /cur /a 86400", Some("/a"), true),
            ("log access -L/cur /a 86400", Some("/a"), true),
            ("log access -n 5 /a 86400", Some("/a"), true),
            ("log access -p /bin/gz -t /a 86400", Some("/a"), true),
            ("log access logs/a 86400", Some("logs/a"), true),
            ("log access -L /cur", None, true),
            // As cronolog does.
            ("log access -l /cur /%Y/a", Some("/%Y/a"), true),
            ("log access -S /cur /%Y/a", Some("/%Y/a"), true),
            ("log access --symlink=/cur /%Y/a", Some("/%Y/a"), true),
            ("log access --symlink /cur /%Y/a", Some("/%Y/a"), true),
            ("log access -P /prev -S /cur /%Y/a", Some("/%Y/a"), true),
            ("log access -o /%Y/a", Some("/%Y/a"), true),
            ("log access -a /%Y/a", Some("/%Y/a"), true),
            // A value was forgotten.
            ("log access --format /a.log", Some("/a.log"), false),
            ("log error --mode /a.log", Some("/a.log"), false),
            ("log error --owner /a.log --mode=640", Some("/a.log"), false),
            (
                "log access --link /cur --syslog /a.log",
                Some("/a.log"),
                false,
            ),
        ] {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let error = parse(&["-z".to_owned()]).unwrap_err();
            let log = salvage(&words, &error).map(|(log, _)| log);
            let names = log
                .as_ref()
                .map(|log| match &log.output.as_ref().unwrap().to {
                    To::File(names) => names.clone(),
                    To::Stdout => panic!("{line}"),
                });
            assert_eq!(
                names,
                file.map(|file| Names::new(Path::new(file))),
                "{line}"
            );
            if let Some(log) = log {
                let says = log.refused[0].contains("--link LINK PATH");
                assert_eq!(says, rotatelogs, "{line}: {:?}", log.refused);
            }
        }
    }

    #[test]
    fn a_wrong_directive_is_named_and_corrected() {
        for (line, why, new) in [
            (
                "log access --fromat combined /a",
                "`--fromat` is not an option: write `--format`",
                "log access --format combined /a",
            ),
            (
                "log access --owner=root:adm --mod=0644 /a",
                "`--mod` is not an option: write `--mode`",
                "log access --owner=root:adm --mode=0644 /a",
            ),
            (
                "log error /a /b",
                "`/b` is one path too many",
                "log error /a",
            ),
            ("log access /a 86400", "--link LINK PATH", "log access /a"),
            (
                "--config /c log access -L /cur /a 86400",
                "--link LINK PATH",
                "--config /c log access /a",
            ),
            (
                "log access --mode 8 /a",
                "`--mode 8`: write it as 0640",
                "log access /a",
            ),
            ("log access --zzz", "`--zzz` is not an option", "log access"),
            ("log acces /a", "invalid value 'acces'", ""),
            ("log access --format /a", "`--format` has no value", ""),
            ("log access --mode /a", "`--mode` has no value", ""),
            (
                "log access --owner= /a",
                "`--owner `: write it as",
                "log access /a",
            ),
            (
                "log access --syslog local9 /a",
                "`--syslog local9`: write a facility",
                "log access /a",
            ),
        ] {
            let read = directive(&words(line)).unwrap();
            let [wrong] = read.wrong.as_slice() else {
                panic!("{line}: {read:?}")
            };
            assert!(wrong.contains(why), "{line}: {wrong}");
            let corrected = corrected(&words(line));
            let corrected = corrected.map_or(String::new(), |words| words.join(" "));
            assert_eq!(corrected, new, "{line}");
            if !new.is_empty() {
                let read = directive(&words(new)).unwrap();
                assert_eq!(read.wrong, [""; 0], "{new}");
            }
        }
        for right in [
            "--format common access /a",
            "access --for-real /a",
            "access -- /a",
        ] {
            let read = directive(&words(&format!("log {right}"))).unwrap();
            assert_eq!(
                (read.kind, read.wrong.len()),
                (Some(Kind::Access), 0),
                "{right}"
            );
        }
        assert_eq!(directive(&words("status")), None);
        assert_eq!(corrected(&words("log access /a")), None);
    }

    #[test]
    fn owner_and_mode() {
        for (line, mode, user, group) in [
            ("error /x", 0o640, None, None),
            (
                "error --mode 0664 --owner alice /x",
                0o664,
                Some("alice"),
                None,
            ),
            ("error --owner :www-data /x", 0o640, None, Some("www-data")),
            ("error --owner 33:33 -", 0o640, Some("33"), Some("33")),
        ] {
            let (output, refused) = read(line);
            let output = output.unwrap();
            assert_eq!(refused, [""; 0], "{line}");
            let found = (output.mode, output.user.as_deref(), output.group.as_deref());
            assert_eq!(found, (mode, user, group), "{line}");
        }
    }
}
