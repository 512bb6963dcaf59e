//! `pipeban log`

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Global;
use super::exit::Exit;
use crate::config::DEFAULT_FILE;
use crate::pipe::{self, FILE_MODE, Names, Output, Rotation, To};
use crate::record::Kind;

/// The piped logger: Apache starts it
///
/// Writes the lines that come on stdin to PATH, unchanged, and matches them against the jails.
#[derive(Debug, clap::Args)]
#[command(after_help = "In Apache's configuration:\n  \
    GlobalLog \"|/usr/bin/pipeban log access --format pipeban\" pipeban\n  \
    ErrorLog  \"|/usr/bin/pipeban log error /var/log/apache2/error.log\"\n  \
    CustomLog \"|/usr/bin/pipeban log access /var/log/apache2/access.%F.log\" combined\n\n\
    In rotatelogs's place, with its arguments as they are (see pipeban(8)):\n  \
    CustomLog \"|/usr/bin/pipeban log access -l /var/log/apache2/access.%F.log 86400\" combined\n\n\
    To try it by hand:\n  \
    echo LINE | pipeban log error")]
pub(super) struct Args {
    /// Which of Apache's logs comes in
    kind: KindArg,
    /// Log file to append to, made where it is missing; fields of strftime(3), as %F, are filled
    /// with the local time, and the file changes when its name does. `-` is stdout. Without it
    /// lines only feed the matcher
    path: Option<PathBuf>,
    /// What stands behind the name in rotatelogs: seconds, a size as 5M, or both; and minutes of
    /// offset from UTC
    #[arg(value_name = "ROTATE", allow_negative_numbers = true)]
    words: Vec<String>,
    /// combined, vhost_combined, common, vhost_common, pipeban, a LogFormat or ErrorLogFormat
    /// string as in Apache's configuration, or auto: one of these names, or the error log's
    /// default. With a format that does not exist lines are passed on, not matched
    #[arg(long, value_name = "F", default_value = "auto")]
    format: String,
    /// Symbolic link to the file in use
    #[arg(short = 'L', long, value_name = "LINK")]
    link: Option<PathBuf>,
    /// The same as ROTATE behind PATH
    #[arg(long, value_name = "ROTATE", allow_negative_numbers = true)]
    rotate: Option<String>,
    /// Permissions of files that are made
    #[arg(long, value_name = "OCTAL", default_value = "0640")]
    mode: String,
    /// Owner and group of files that are made, as `www-data:adm` or `:www-data`
    #[arg(long, value_name = "USER:GROUP", default_value = "root:adm")]
    owner: String,
    #[command(flatten)]
    rotatelogs: Rotatelogs,
}

/// rotatelogs's other options: what pipeban does anyway, and what it does not.
#[derive(Debug, clap::Args)]
struct Rotatelogs {
    #[arg(short = 'l', hide = true)]
    local: bool,
    #[arg(short = 'f', hide = true)]
    at_once: bool,
    #[arg(short = 'c', hide = true)]
    empty_ones: bool,
    #[arg(short = 'D', hide = true)]
    directories: bool,
    #[arg(short = 'v', hide = true)]
    verbose: bool,
    #[arg(short = 'p', hide = true)]
    program: Option<String>,
    #[arg(short = 'n', hide = true)]
    number: Option<String>,
    #[arg(short = 't', hide = true)]
    truncate: bool,
    #[arg(short = 'T', hide = true)]
    truncate_later: bool,
    #[arg(short = 'e', hide = true)]
    echo: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KindArg {
    /// CustomLog, TransferLog, GlobalLog
    Access,
    /// ErrorLog
    Error,
}

/// Lines are passed on whatever else is wrong: what cannot be done is told, and is the status.
pub(super) fn run(args: &Args, global: &Global) -> Exit {
    let mut refused = refused_options(&args.rotatelogs);
    let log = pipe::Log {
        kind: match args.kind {
            KindArg::Access => Kind::Access,
            KindArg::Error => Kind::Error,
        },
        format: Some(args.format.clone()),
        output: output(args, &mut refused),
        refused: refused.clone(),
    };
    for refused in &refused {
        eprintln!("pipeban: log {}: {refused}", log.kind);
    }
    pipe::run(log, global.config.clone());
    if refused.is_empty() {
        Exit::Yes
    } else {
        Exit::Usage
    }
}

/// What is done with a command line that clap refuses: Apache hangs with a logger that ends at
/// every start, and an option misspelt before the nightly reload is to cost no line. `None`: no
/// file is named. With the configuration file.
pub(super) fn misspelt(words: &[OsString], error: &clap::Error) -> Option<(pipe::Log, PathBuf)> {
    // What stands behind an option may be its value, and another file of root's.
    let is_path = |at: usize, word: &OsString| {
        let before = at.checked_sub(1).and_then(|before| words.get(before));
        word.as_bytes().starts_with(b"/") && !before.is_some_and(|b| b.as_bytes().starts_with(b"-"))
    };
    let mut paths = words.iter().enumerate();
    let (_, path) = paths.rfind(|(at, word)| is_path(*at, word))?;
    let config = words.windows(2).find_map(|pair| match pair {
        [option, file] if option == "--config" => Some(PathBuf::from(file)),
        _ => None,
    });
    let error = error.to_string();
    let error = error.lines().next().unwrap_or_default();
    let log = pipe::Log {
        kind: match words.iter().any(|word| word == "error") {
            true => Kind::Error,
            false => Kind::Access,
        },
        format: None,
        output: Some(Output {
            to: To::File(Names::new(Path::new(path), None)),
            link: None,
            mode: FILE_MODE,
            user: None,
            group: None,
        }),
        refused: vec![format!(
            "{error}; until that is put right all lines go to {}, and nobody is banned",
            Path::new(path).display()
        )],
    };
    Some((log, config.unwrap_or_else(|| DEFAULT_FILE.into())))
}

fn output(args: &Args, refused: &mut Vec<String>) -> Option<Output> {
    let path = args.path.as_deref()?;
    if path.as_os_str().as_bytes().starts_with(b"|") {
        refused.push(
            "`| program` is not possible: pipeban starts no other program with root's rights, and \
             what stood in its pipe would be lost whenever it ends; lines are matched and not \
             written. Give that program a log directive of its own"
                .into(),
        );
        return None;
    }
    let rotation = refuse(rotation(args), refused).flatten();
    let (user, group) = refuse(owner(&args.owner), refused).unwrap_or_default();
    Some(Output {
        to: if path == Path::new("-") {
            To::Stdout
        } else {
            To::File(Names::new(path, rotation))
        },
        link: args.link.clone(),
        mode: refuse(mode(&args.mode), refused).unwrap_or(FILE_MODE),
        user,
        group,
    })
}

fn refuse<T>(result: Result<T, String>, refused: &mut Vec<String>) -> Option<T> {
    result.map_err(|error| refused.push(error)).ok()
}

fn rotation(args: &Args) -> Result<Option<Rotation>, String> {
    let option = args.rotate.as_deref().unwrap_or_default();
    let mut words: Vec<&str> = option.split_whitespace().collect();
    words.extend(args.words.iter().map(String::as_str));
    if words.is_empty() && args.rotate.is_none() {
        return Ok(None);
    }
    Rotation::parse(&words, args.rotatelogs.local)
        .map(Some)
        .map_err(|error| format!("no rotation: {error}; lines go to one file"))
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("`--mode {text}`: write it as 0640")),
    }
}

/// User and group; `None` is what is taken where nothing else is said.
type Owner = (Option<String>, Option<String>);

fn owner(text: &str) -> Result<Owner, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if text.is_empty() || group.contains(':') {
        return Err(format!("`--owner {text}`: write it as `www-data:adm`"));
    }
    let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    // Nobody is surprised by a host without adm.
    Ok((
        named(user).filter(|name| name != "root"),
        named(group).filter(|name| name != "adm"),
    ))
}

fn refused_options(options: &Rotatelogs) -> Vec<String> {
    let words = [
        (
            options.program.is_some(),
            "-p: pipeban starts no other program with root's rights; a timer, or a path unit on \
             the link (-L), does that",
        ),
        (
            options.number.is_some(),
            "-n: no log is ever overwritten; files are named by the time, remove old ones with \
             find or logrotate",
        ),
        (
            options.truncate,
            "-t: no log is ever emptied; a link (-L) is the stable name to follow, with tail -F",
        ),
        (
            options.truncate_later,
            "-T: no log is ever emptied; a file that is there already is appended to",
        ),
        (
            options.echo,
            "-e: lines go to one place; give Apache a second directive, or follow the file",
        ),
    ];
    words
        .into_iter()
        .filter(|(asked, _)| *asked)
        .map(|(_, why)| format!("not done: {why}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn read(line: &str) -> (Option<Output>, Vec<String>) {
        let words = std::iter::once("log").chain(line.split_whitespace());
        let args = Line::try_parse_from(words).unwrap().args;
        let mut refused = refused_options(&args.rotatelogs);
        (output(&args, &mut refused), refused)
    }

    #[test]
    fn the_same_rotation_however_it_is_written() {
        let names = |line: &str| match read(line) {
            (
                Some(Output {
                    to: To::File(names),
                    ..
                }),
                refused,
            ) if refused.is_empty() => names,
            other => panic!("{line}: {other:?}"),
        };
        let expected = Rotation::parse(&["86400", "5M", "-120"], false).unwrap();
        let expected = Names::new(Path::new("/x"), Some(expected));
        for line in [
            "access /x 86400 5M -120",
            "access -f -c -D -v /x 86400 5M -120",
            "access -fcDv -L /cur /x 86400 5M -120",
            "error --rotate=86400 /x 5M -120",
        ] {
            assert_eq!(names(line), expected, "{line}");
        }
        let local = Rotation::parse(&["86400"], true).unwrap();
        assert_eq!(
            names("access -l /x 86400"),
            Names::new(Path::new("/x"), Some(local))
        );
        assert_eq!(names("access -l /x"), Names::new(Path::new("/x"), None));
    }

    #[test]
    fn what_is_not_done_is_said_and_lines_still_go_to_the_file() {
        for (line, why) in [
            ("access -n 5 /x 86400", "overwritten"),
            ("access -t /x 86400", "emptied"),
            ("access -T /x 86400", "emptied"),
            ("access -e /x 86400", "second directive"),
            ("access -p /bin/gz /x 86400", "no other program"),
            ("access /x 5m", "no rotation"),
            ("access /x 1 2 3 4 5", "no rotation"),
            ("access --rotate= /x", "no rotation"),
            ("access -l /x 86400 60", "local time"),
            ("access --mode 8 /x", "0640"),
            ("access --mode 4755 /x", "0640"),
            ("access --owner a:b:c /x", "www-data:adm"),
        ] {
            let (output, refused) = read(line);
            assert!(output.is_some(), "{line}");
            assert_eq!(refused.len(), 1, "{line}: {refused:?}");
            assert!(refused[0].contains(why), "{line}: {refused:?}");
        }
        let (output, refused) = read("access | /usr/bin/gzip x");
        assert!(output.is_none());
        assert!(refused[0].contains("no other program"), "{refused:?}");
    }

    #[test]
    fn a_misspelt_command_line_names_its_file_all_the_same() {
        for (line, file) in [
            (
                "log access --formt common /var/log/a.log",
                Some("/var/log/a.log"),
            ),
            (
                "log acces /var/log/a.log --rotat=/x",
                Some("/var/log/a.log"),
            ),
            (
                "log error --x /y /var/log/%F.log 86400",
                Some("/var/log/%F.log"),
            ),
            (
                "--config /etc/p.toml log error /var/log/a.log --link /cur -z",
                Some("/var/log/a.log"),
            ),
            (
                "log access /var/log/a.log --confg /etc/p.toml",
                Some("/var/log/a.log"),
            ),
            ("log access --confg /etc/p.toml", None),
            ("log nonsense", None),
            ("--config /etc/p.toml log error -z", None),
        ] {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let error = Line::try_parse_from(["log", "-z"]).unwrap_err();
            let found = misspelt(&words, &error).map(|(log, _)| match log.output.unwrap().to {
                To::File(names) => names,
                To::Stdout => panic!("{line}"),
            });
            assert_eq!(
                found,
                file.map(|file| Names::new(Path::new(file), None)),
                "{line}"
            );
        }
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
