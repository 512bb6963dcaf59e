//! Plans the changes to Apache's files; pure.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::directive::quoted;
use super::finding::{Code, Finding};
use super::findings::{InForce, globals, in_force};
use super::formats;
use super::place::Place;
use super::repair;
use super::scan::{MANY, Scan};
use super::target::Target;

use super::walk::{LogDirective, LogKind, Server};
use crate::config;
use crate::record::{Kind, Parser};

/// How Apache is to use pipeban.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The program that directives name.
    pub program: PathBuf,
    /// For `--config`, if it is not the default.
    pub config: Option<PathBuf>,
    /// pipeban writes each access log, one pipe each, instead of one `GlobalLog`.
    pub files: bool,
    /// Whether Apache refuses banned clients (`pipeban-deny.conf`); `None`: it is not known.
    pub deny: Option<bool>,
}

/// A change of one directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Its first line.
    pub place: Place,
    /// Its last line.
    pub last_line: usize,
    /// Its name.
    pub directive: &'static str,
    /// The new line; `None`: the directive is deleted.
    pub new: Option<String>,
}

/// All changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// By file and line.
    pub edits: Vec<Edit>,
    /// Links to make: path and target.
    pub link: Vec<(PathBuf, PathBuf)>,
    /// Links to remove.
    pub unlink: Vec<PathBuf>,
    /// A line for the end of a file.
    pub append: Option<(PathBuf, String)>,
    /// What the administrator has to do.
    pub notes: Vec<String>,
    /// Pipeban is removed: a file that is as pipeban left it becomes again what it was before.
    pub restores: bool,
}

impl Plan {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        let Plan {
            edits,
            link,
            unlink,
            append,
            notes: _,
            restores: _,
        } = self;
        edits.is_empty() && link.is_empty() && unlink.is_empty() && append.is_none()
    }
}

const SNIPPET: &str = "pipeban.conf";
const DENY: &str = "pipeban-deny.conf";
/// The format of the snippet.
const GLOBAL_FORMAT: &str = r#"%v:%p %a %{c}a %l %u %t "%r" %>s %O "%{Referer}i" "%{User-Agent}i""#;
/// For files in a user's directory, as Apache makes them.
const AS_APACHE: &str = "--owner root:root --mode 0644";

/// Whether it is pipeban's enabled snippet.
pub(super) fn is_snippet(file: &Path) -> bool {
    file.ends_with(Path::new("conf-enabled").join(SNIPPET))
}

/// Pipes every line to pipeban, and keeps the lines of every log file.
pub fn fit(scan: &Scan, wish: &Wish) -> Plan {
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    let unfit = match wish.files {
        true => scan
            .layout
            .servers
            .iter()
            .find_map(|server| unfit(scan, server)),
        false => None,
    };
    let files = wish.files && unfit.is_none();
    plan.notes.extend(unfit.map(|why| {
        format!("{why}; so one GlobalLog pipes the requests of all, and Apache writes the files")
    }));
    for server in &scan.layout.servers {
        let logs = in_force(&scan.layout, server);
        let own = |log: &LogDirective| server.logs.iter().any(|own| own.place == log.place);
        for log in server.logs.iter().filter(|log| log.pipes()) {
            let new = repair::corrected(log, server, scan, wish);
            if let Some(new) = new.filter(|_| seen.insert(log.place.clone())) {
                plan.edits.push(Edit {
                    place: log.place.clone(),
                    last_line: log.last_line,
                    directive: log.kind.name(),
                    new: Some(new),
                });
            }
        }
        match logs.error.filter(|log| own(log)) {
            Some(log) if seen.insert(log.place.clone()) => {
                let format = formats::of_errors(&scan.layout, server)
                    .and_then(|format| formats::argument(Kind::Error, format));
                let why = formats::unusable_errors(&scan.layout, server);
                if let Some(why) = why.filter(|_| log.target.file().is_some()) {
                    plan.notes.push(format!("{}: {why}", log.place));
                }
                replace(log, server, scan, wish, format.as_deref(), &mut plan)
            }
            None if server.place.is_none() && logs.error.is_none() => plan.notes.push(format!(
                "the main server has no ErrorLog: add `ErrorLog {}` to {}",
                command(wish, "error", None, "/var/log/apache2/error.log", None),
                scan.root.display()
            )),
            _ => {}
        }
        if files
            && let Some(log) = access_to_pipe(scan, server, &logs)
            && seen.insert(log.place.clone())
        {
            let format = formats::of_access(&scan.layout, log)
                .and_then(|format| formats::argument(Kind::Access, &format));
            replace(log, server, scan, wish, format.as_deref(), &mut plan);
        }
    }
    access(scan, wish, files, &mut plan);
    many(scan, &mut plan);
    let denies = deny_snippet(scan);
    if wish.deny == Some(false) {
        plan.unlink.extend(denies.cloned());
    } else if wish.deny.is_none() || scan.layout.files.iter().any(|file| file.ends_with(DENY)) {
        // As it is.
    } else if scan.host.no_snippets {
        plan.notes.push(format!(
            "Apache reads no conf-enabled here: copy pipeban-deny.conf from pipeban's apache-conf, and \
             include it in {}",
            scan.root.display()
        ));
    } else {
        plan.link.push(snippet(scan, DENY));
    }
    plan.edits.sort_by(|a, b| a.place.cmp(&b.place));
    plan
}

/// The access log in a server that gets every request and names its client, unless one is already
/// piped.
fn access_to_pipe<'a>(
    scan: &Scan,
    server: &Server,
    logs: &InForce<'a>,
) -> Option<&'a LogDirective> {
    let own = |log: &&&LogDirective| server.logs.iter().any(|own| own.place == log.place);
    let own: Vec<&LogDirective> = logs.access.iter().filter(own).copied().collect();
    if own.iter().any(|log| log.pipes()) {
        return None;
    }
    let fit = own.into_iter().filter(|log| is_fit(scan, log));
    // The first of the best.
    fit.min_by_key(|log| Reverse(judged_fields(scan, log)))
}

/// How much of a request the lines of an access log hold; 0: no filter could match them.
fn judged_fields(scan: &Scan, log: &LogDirective) -> usize {
    let format = formats::of_access(&scan.layout, log);
    // A TransferLog without a LogFormat is of the format `common`.
    let format = format.as_deref().unwrap_or("common");
    Parser::new(Kind::Access, format).map_or(0, |parser| parser.judged_fields())
}

fn is_fit(scan: &Scan, log: &LogDirective) -> bool {
    let known = formats::of_access(&scan.layout, log).filter(|format| format.contains('%'));
    let believed = known.is_none_or(|format| {
        Parser::new(Kind::Access, &format).is_ok_and(|parser| parser.doubt().is_none())
    });
    let file = log.target.file().is_some_and(|file| {
        file != Path::new("/dev/null") && !scan.host.refused.contains_key(file)
    });
    !log.conditional && believed && file && judged_fields(scan, log) > 0
}

fn is_rotator(program: &Path) -> bool {
    program.ends_with("rotatelogs") || program.ends_with("cronolog")
}

/// Why no access log of a server can be piped for all its requests; `None`: one can, or it inherits
/// the main server's.
fn unfit(scan: &Scan, server: &Server) -> Option<String> {
    let own = |log: &&LogDirective| matches!(log.kind, LogKind::Custom | LogKind::Transfer);
    let own: Vec<&LogDirective> = server.logs.iter().filter(own).collect();
    let fit = own.iter().any(|log| log.pipes() || is_fit(scan, log));
    if fit || own.is_empty() && server.place.is_some() {
        return None;
    }
    let rotated = own
        .iter()
        .find(|log| log.target.program().is_some_and(is_rotator));
    Some(match rotated.or(own.first()) {
        Some(log) if rotated.is_some() => format!(
            "{}: this log of {} pipes into another program: write `pipeban log access --link LINK \
             PATH` instead, with fields of strftime(3) such as %F in PATH",
            log.place, server.name
        ),
        Some(log) => format!(
            "{}: no access log of {} is a file that gets every request in a format with the client \
             (%a or %h) and the request (%r)",
            log.place, server.name
        ),
        None => format!("{} has no access log", server.name),
    })
}

/// Names the processes of many pipes, and the way to have one.
fn many(scan: &Scan, plan: &mut Plan) {
    let new = |log: &LogDirective| plan.edits.iter().any(|edit| edit.place == log.place);
    let own = |is_error: bool| {
        let is_own = |log: &LogDirective| (log.kind == LogKind::Error) == is_error && new(log);
        let servers = scan.layout.servers.iter();
        let servers = servers.filter(|server| server.place.is_some());
        servers
            .filter(|server| server.logs.iter().any(is_own))
            .count()
    };
    let notes = [
        (
            own(true),
            "ErrorLog",
            "to have 3, delete these lines, and use one common ErrorLog in the main server, with \
             `[%v]` in an ErrorLogFormat to tell the hosts apart; setup leaves that to you, because \
             the lines of these hosts then leave their files",
        ),
        (
            own(false),
            "CustomLog",
            "to have 3, run setup without `--files`: one GlobalLog then pipes the requests of all, \
             and Apache writes the files",
        ),
    ];
    plan.notes.extend(notes.into_iter().filter(|(own, ..)| *own >= MANY).map(|(own, log, instead)| {
        format!(
            "{own} virtual hosts have their own {log}, so Apache will start {} processes of pipeban \
             for them: {instead}",
            3 * own
        )
    }));
}

/// One `GlobalLog`, unless access logs have pipes.
fn access(scan: &Scan, wish: &Wish, files: bool, plan: &mut Plan) {
    let global = globals(&scan.layout).find(|log| log.pipes());
    if files {
        if let Some(global) = global {
            if is_snippet(&global.place.file) {
                plan.unlink.push(global.place.file.clone());
            } else {
                plan.notes.push(format!(
                    "the GlobalLog at {} pipes every request a second time: delete it",
                    global.place
                ));
            }
        }
        return;
    }
    if global.is_some() {
        return;
    }
    let one_by_one = scan
        .layout
        .servers
        .iter()
        .flat_map(|server| &server.logs)
        .any(|log| log.kind != LogKind::Error && matches!(log.target, Target::Pipeban(_)));
    if one_by_one {
        let bypass = |found: &Finding| found.code == Code::AccessBypass;
        if !scan.findings.iter().any(bypass) {
            return;
        }
        let instead = match wish.files {
            false => "run `pipeban setup --files` to pipe the other access logs too",
            true => "run `pipeban setup --remove --write`, then `pipeban setup --write`",
        };
        plan.notes.push(format!(
            "some access logs have a pipe, and a GlobalLog would count their requests twice, so \
             pipeban adds none: {instead}"
        ));
        return;
    }
    if scan.host.no_snippets {
        let command = command(wish, "access", Some("pipeban"), "", None);
        let line = format!("GlobalLog {command} {}", quoted(GLOBAL_FORMAT));
        plan.append = Some((scan.root.clone(), line));
    } else {
        plan.link.push(snippet(scan, SNIPPET));
    }
}

/// The link that enables one of pipeban's snippets, and its target.
fn snippet(scan: &Scan, name: &str) -> (PathBuf, PathBuf) {
    let link = base(scan).join("conf-enabled").join(name);
    (link, Path::new("../conf-available").join(name))
}

/// The directory of the first file, which relative names start from.
fn base(scan: &Scan) -> &Path {
    scan.root.parent().unwrap_or(Path::new("/"))
}

fn replace(
    log: &LogDirective,
    server: &Server,
    scan: &Scan,
    wish: &Wish,
    format: Option<&str>,
    plan: &mut Plan,
) {
    let kind = if log.kind == LogKind::Error {
        "error"
    } else {
        "access"
    };
    let file = match &log.target {
        Target::Pipeban(_) => return,
        Target::File(file) if file == Path::new("/dev/null") => Err("goes to /dev/null".into()),
        Target::File(file) => Ok(file),
        Target::Program { program, .. } if is_rotator(program) => Err(format!(
            "pipes into {} (write `{} log {kind} --link LINK PATH` instead, with fields of strftime(3) such as %F in PATH)",
            program.display(),
            wish.program.display()
        )),
        Target::Program { program, .. } if program.ends_with("logger") => Err(format!(
            "pipes into {} (write `{} log {kind} --syslog local1 PATH` instead, with its facility, \
             which also appends its lines to PATH)",
            program.display(),
            wish.program.display()
        )),
        Target::Program { program, .. } => Err(format!("pipes into {}", program.display())),
        Target::Other(name) => match facility(name) {
            Some(facility) => Err(format!(
                "goes to {name} (write `{} log {kind} --syslog {facility} PATH` instead, which also \
                 appends its lines to PATH)",
                wish.program.display()
            )),
            None => Err(format!("goes to {name}")),
        },
    };
    let file = match file {
        Ok(file) => file,
        Err(elsewhere) => {
            plan.notes.push(format!(
                "{}: pipeban does not see the lines of {}: its {} {elsewhere}",
                log.place,
                server.name,
                log.kind.name()
            ));
            return;
        }
    };
    if let Some(why) = scan.host.refused.get(file) {
        plan.notes.push(format!(
            "{}: this {} of {} stays as it is: {why}",
            log.place,
            log.kind.name(),
            server.name
        ));
        return;
    }
    // The path with its variables, unless it is relative, or a variable has a blank or a `%`.
    let raw = log.words.first().map_or("", String::as_str);
    // A parameter may be the root, or begin with `%`.
    let absolute = raw.starts_with('/') || raw.starts_with("${");
    if log.in_macro && (!absolute || raw.contains('%')) {
        plan.notes.push(format!(
            "{}: the file name of this {} is known only with the arguments of its macro: change \
             the line by hand",
            log.place,
            log.kind.name()
        ));
        return;
    }
    let whole = match log.in_macro {
        true => base(scan).join(raw).display().to_string(),
        false => file.display().to_string(),
    };
    let relative = raw.starts_with("${") && file.starts_with(base(scan));
    let blank = whole.contains([' ', '\t']) && !raw.contains([' ', '\t']);
    let percent = whole.contains('%') && !raw.contains('%');
    let path = if absolute && !relative && !blank && !percent {
        raw.to_owned()
    } else {
        whole
    };
    // No strftime field.
    let path = path.replace('%', "%%");
    if path.contains(['\'', '"', '\\', '|', '\n']) {
        plan.notes.push(format!(
            "{}: the file name of this {} has a quote or backslash: change the line by hand",
            log.place,
            log.kind.name()
        ));
        return;
    }
    let owner = scan.host.of_users.contains(file).then_some(AS_APACHE);
    // Single quotes: the file was in quotes, and is again when the pipe is removed.
    let path = match log.quotes || path.contains([' ', '\t']) {
        true => format!("'{path}'"),
        false => path,
    };
    plan.edits.push(Edit {
        place: log.place.clone(),
        last_line: log.last_line,
        directive: log.kind.name(),
        new: Some(around(log, &command(wish, kind, format, &path, owner))),
    });
}

/// The facility in `syslog`, `syslog:local1`, `syslog:local1:PROGRAM`, if `pipeban log --syslog`
/// takes it.
fn facility(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("syslog")?;
    let facility = rest
        .split(':')
        .nth(1)
        .filter(|facility| !facility.is_empty());
    // Apache's default.
    let facility = facility.unwrap_or("local7");
    config::syslog_facility(facility).map(|_| facility)
}

/// The directive with another first word, and with everything else as it is written.
pub(super) fn around(log: &LogDirective, first: &str) -> String {
    format!("{}{first}{}", log.around.0, log.around.1)
}

/// `"|/usr/bin/pipeban log error /path"`, with the quotes.
fn command(
    wish: &Wish,
    kind: &str,
    format: Option<&str>,
    path: &str,
    owner: Option<&str>,
) -> String {
    use std::fmt::Write as _;
    let mut command = format!("\"|{}", wish.program.display());
    if let Some(config) = &wish.config {
        let _ = write!(command, " --config {}", config.display());
    }
    let _ = write!(command, " log {kind}");
    if let Some(format) = format {
        let _ = write!(command, " --format {format}");
    }
    if let Some(owner) = owner {
        let _ = write!(command, " {owner}");
    }
    if !path.is_empty() {
        let _ = write!(command, " {path}");
    }
    command.push('"');
    command
}

/// The deny map where it is enabled.
pub(super) fn deny_snippet(scan: &Scan) -> Option<&PathBuf> {
    let enabled = Path::new("conf-enabled").join(DENY);
    let mut files = scan.layout.files.iter();
    files.find(|file| file.ends_with(&enabled))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::files::tests::Fake;
    use super::super::findings::findings;
    use super::super::host::Host;
    use super::super::removal::remove_from;
    use super::super::walk::{logs_in, walk};
    use super::*;

    fn scan(text: &str) -> Scan {
        let variables = BTreeMap::from([("LOGS".to_owned(), "/var/log/apache2".to_owned())]);
        let root = PathBuf::from("/e/apache2.conf");
        let layout = walk(&Fake::new(&[("/e/apache2.conf", text)]), &root, variables).unwrap();
        let findings = findings(&layout, &|program| {
            program != Path::new("/opt/none/pipeban")
        });
        Scan {
            root,
            layout,
            findings,
            host: Host::default(),
        }
    }

    fn wish(files: bool) -> Wish {
        Wish {
            program: "/usr/bin/pipeban".into(),
            config: None,
            files,
            deny: Some(false),
        }
    }

    fn new_lines(plan: &Plan) -> Vec<(usize, &str)> {
        plan.edits
            .iter()
            .map(|edit| (edit.place.line, edit.new.as_deref().unwrap_or("-")))
            .collect()
    }

    const STOCK: &str = "LogFormat \"%h %l %u %t \\\"%r\\\" %>s %O \\\"%{Referer}i\\\" \\\"%{User-Agent}i\\\"\" combined\n\
        ErrorLog ${LOGS}/error.log\n<VirtualHost *:80>\nErrorLog logs/e%1\nCustomLog ${LOGS}/access.log combined\nCustomLog /second combined env=x\n</VirtualHost>\nCustomLog /main combined\n";

    #[test]
    fn error_logs_keep_their_files_and_one_snippet_feeds_the_rest() {
        let plan = fit(&scan(STOCK), &wish(false));
        assert_eq!(
            new_lines(&plan),
            [
                (
                    2,
                    "ErrorLog \"|/usr/bin/pipeban log error ${LOGS}/error.log\""
                ),
                (4, "ErrorLog \"|/usr/bin/pipeban log error /e/logs/e%%1\""),
            ]
        );
        assert_eq!(
            plan.link,
            [(
                "/e/conf-enabled/pipeban.conf".into(),
                "../conf-available/pipeban.conf".into()
            )]
        );
        assert_eq!(plan.notes, Vec::<String>::new());
    }

    #[test]
    fn with_files_each_host_has_one_access_pipe_and_no_global_one() {
        let plan = fit(&scan(STOCK), &wish(true));
        assert_eq!(
            new_lines(&plan)[2],
            (
                5,
                "CustomLog \"|/usr/bin/pipeban log access --format combined ${LOGS}/access.log\" combined"
            )
        );
        assert_eq!(plan.edits.len(), 4);
        assert!(plan.link.is_empty());
    }

    #[test]
    fn other_targets_are_unchanged_and_noted() {
        let plan = fit(
            &scan(
                "ErrorLog syslog:local1:web\n<VirtualHost *>\nErrorLog \"|/usr/bin/rotatelogs /x 1\"\n</VirtualHost>\n<VirtualHost *>\nErrorLog /dev/null\n</VirtualHost>\n<VirtualHost *>\nErrorLog \"/a'b\"\n</VirtualHost>",
            ),
            &wish(false),
        );
        assert_eq!(plan.edits, []);
        assert_eq!(plan.notes.len(), 4, "{:?}", plan.notes);
        for (target, facility) in [
            ("syslog:local1:web", Some("local1")),
            ("syslog", Some("local7")),
            ("syslog::web", Some("local7")),
            ("syslog:LOCAL2", Some("LOCAL2")),
            ("syslog:none", None),
            ("journald:x", None),
        ] {
            assert_eq!(super::facility(target), facility, "{target}");
        }
        assert!(
            plan.notes[0].contains("--syslog local1 PATH"),
            "{:?}",
            plan.notes
        );
        assert!(plan.notes[1].contains("`/usr/bin/pipeban log error --link LINK PATH`"));
        assert!(fit(&scan(""), &wish(false)).notes[0].contains("has no ErrorLog"));
    }

    #[test]
    fn a_variable_is_kept_unless_its_value_needs_quotes() {
        let text = "Define SUB logs\nDefine BLANK \"/a b\"\nErrorLog ${LOGS}/e\n<VirtualHost *>\nErrorLog ${SUB}/e\n</VirtualHost>\n<VirtualHost *>\nErrorLog ${BLANK}/e\n</VirtualHost>\n";
        let program = "ErrorLog \"|/usr/bin/pipeban log error";
        assert_eq!(
            new_lines(&fit(&scan(text), &wish(false))),
            [
                (3, format!("{program} ${{LOGS}}/e\"").as_str()),
                (5, format!("{program} /e/logs/e\"").as_str()),
                (8, format!("{program} '/a b/e'\"").as_str()),
            ]
        );
    }

    #[test]
    fn the_deny_map_is_linked_and_removed() {
        let deny = PathBuf::from("/e/conf-enabled/pipeban-deny.conf");
        let mut scan = scan(STOCK);
        let mut wish = wish(true);
        assert_eq!(fit(&scan, &wish).link, []);
        wish.deny = Some(true);
        let target = "../conf-available/pipeban-deny.conf".into();
        assert_eq!(fit(&scan, &wish).link, [(deny.clone(), target)]);
        scan.layout.files.insert(deny.clone());
        assert_eq!(fit(&scan, &wish).link, []);
        assert!(fit(&scan, &wish).unlink.is_empty());
        wish.deny = None;
        assert!(fit(&scan, &wish).unlink.is_empty());
        wish.deny = Some(false);
        assert_eq!(fit(&scan, &wish).unlink, std::slice::from_ref(&deny));
        assert_eq!(remove_from(&scan, &[]).unlink, [deny]);
    }

    #[test]
    fn the_format_argument_follows_the_nickname_or_the_errorlogformat() {
        let text = STOCK.replace("%h %l", "{%h");
        let plan = fit(&scan(&text), &wish(true));
        assert_eq!(
            new_lines(&plan)[2].1,
            concat!(
                "CustomLog \"|/usr/bin/pipeban log access --format '{%h %u %t \\\"%r\\\" %>s %O ",
                "\\\"%{Referer}i\\\" \\\"%{User-Agent}i\\\"' ${LOGS}/access.log\" combined"
            )
        );
        let text = "ErrorLogFormat \"[%t] %P [client\\ %a] %M\"\nErrorLog /e\n";
        assert_eq!(
            new_lines(&fit(&scan(text), &wish(false)))[0].1,
            r#"ErrorLog "|/usr/bin/pipeban log error --format '[%t] %P [client\\\\ %a] %M' /e""#
        );
    }

    /// Applies edits to a text of one-line directives.
    fn edited(text: &str, plan: &Plan) -> String {
        let mut lines: Vec<Option<String>> =
            text.lines().map(|line| Some(line.to_owned())).collect();
        for edit in &plan.edits {
            lines[edit.place.line - 1] = edit.new.clone();
        }
        lines
            .into_iter()
            .flatten()
            .map(|line| line + "\n")
            .collect()
    }

    #[test]
    fn removing_restores_the_old_text() {
        let text = "ErrorLog  \"${LOGS}/error.log\"\n<VirtualHost *:80>\nerrorLog\tsyslog:local1\n</VirtualHost>\n<VirtualHost *:80>\nErrorLog /e%1\nCustomLog\t\"/a b\"  \"%h \\\"%r\\\"\" env=!x\nTransferLog /t\n</VirtualHost>\n";
        for files in [false, true] {
            let fitted = edited(text, &fit(&scan(text), &wish(files)));
            assert_ne!(fitted, text);
            assert_eq!(
                fit(&scan(&fitted), &wish(files)).edits,
                [],
                "a second run changes nothing"
            );
            let logs = logs_in(
                Path::new("/e/x"),
                &fitted,
                &BTreeMap::new(),
                Path::new("/e"),
            );
            assert_eq!(edited(&fitted, &remove_from(&scan(""), &logs)), text);
        }
    }

    #[test]
    fn a_percent_is_kept_and_strftime_fields_are_noted_at_removal() {
        let text = "Define HALF /50%Y\nErrorLog ${HALF}/e\n";
        assert_eq!(
            new_lines(&fit(&scan(text), &wish(false))),
            [(2, "ErrorLog \"|/usr/bin/pipeban log error /50%%Y/e\"")]
        );
        let text = "CustomLog \"|/usr/bin/pipeban log access /a.%F\" x\n";
        let logs = logs_in(Path::new("/e/x"), text, &BTreeMap::new(), Path::new("/e"));
        let plan = remove_from(&scan(""), &logs);
        assert_eq!(edited(text, &plan), "CustomLog /a.%F x\n");
        assert!(plan.notes[0].contains("rotatelogs"), "{:?}", plan.notes);
    }

    #[test]
    fn removing_deletes_pipes_without_a_file() {
        let text = "ErrorLog \"|/usr/bin/pipeban log error\"\nGlobalLog \"|/usr/bin/pipeban log access\" pipeban\n<IfModule none>\nCustomLog \"|/usr/bin/pipeban log access /a\" x\n</IfModule>\n";
        let logs = logs_in(Path::new("/e/x"), text, &BTreeMap::new(), Path::new("/e"));
        assert_eq!(
            edited(text, &remove_from(&scan(""), &logs)),
            "<IfModule none>\nCustomLog /a x\n</IfModule>\n"
        );
        let logs = logs_in(
            Path::new("/e/conf-enabled/pipeban.conf"),
            text,
            &BTreeMap::new(),
            Path::new("/e"),
        );
        assert_eq!(
            remove_from(&scan(""), &logs).unlink,
            [PathBuf::from("/e/conf-enabled/pipeban.conf")]
        );
    }
}
