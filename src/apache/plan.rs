//! Which lines of Apache's files become which; pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Scan;
use super::directive::quoted;
use super::findings::{InForce, globals, in_force};
use super::formats;
use super::target::Target;
use super::walk::{LogDirective, LogKind, Place, Server};
use crate::record::Kind;

/// How pipeban is to be fitted in.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The program that directives name.
    pub program: PathBuf,
    /// For `--config`, where it is not the default.
    pub config: Option<PathBuf>,
    /// Access logs are piped one by one and written by pipeban, instead of one `GlobalLog`.
    pub files: bool,
    /// Apache refuses banned clients itself (`pipeban-deny.conf`).
    pub deny: bool,
}

/// One directive to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Where it stands.
    pub place: Place,
    /// Its last line.
    pub last_line: usize,
    /// The name of the directive that must be found there.
    pub directive: &'static str,
    /// What stands there then; `None`: nothing.
    pub new: Option<String>,
}

/// Everything to be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the files.
    pub edits: Vec<Edit>,
    /// Links to be made: where, and to what.
    pub link: Vec<(PathBuf, PathBuf)>,
    /// Links to be removed.
    pub unlink: Vec<PathBuf>,
    /// What is left to the administrator.
    pub notes: Vec<String>,
}

impl Plan {
    /// Nothing to be changed.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.link.is_empty() && self.unlink.is_empty()
    }
}

const SNIPPET: &str = "pipeban.conf";
const DENY: &str = "pipeban-deny.conf";

/// The snippet in the directory of enabled ones.
fn is_snippet(file: &Path) -> bool {
    file.ends_with(Path::new("conf-enabled").join(SNIPPET))
}

/// What makes every line reach pipeban, and no existing file gain or lose one.
pub fn fit(scan: &Scan, wish: &Wish) -> Plan {
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    for server in &scan.layout.servers {
        let logs = in_force(&scan.layout, server);
        let own = |log: &LogDirective| server.logs.iter().any(|own| own.place == log.place);
        match logs.error.filter(|log| own(log)) {
            Some(log) if seen.insert(log.place.clone()) => {
                let format = formats::of_errors(&scan.layout, server)
                    .and_then(|format| formats::argument(Kind::Error, format));
                replace(log, server, scan, wish, format.as_deref(), &mut plan)
            }
            None if server.place.is_none() && logs.error.is_none() => plan.notes.push(format!(
                "the main server has no ErrorLog: add `ErrorLog {}` to {}",
                command(wish, "error", None, "/var/log/apache2/error.log"),
                scan.root.display()
            )),
            _ => {}
        }
        if wish.files
            && let Some(log) = access_to_pipe(server, &logs)
            && seen.insert(log.place.clone())
        {
            let format = formats::of_access(&scan.layout, log)
                .and_then(|format| formats::argument(Kind::Access, &format));
            replace(log, server, scan, wish, format.as_deref(), &mut plan);
        }
    }
    access(scan, wish, &mut plan);
    if wish.deny && !scan.layout.files.iter().any(|file| file.ends_with(DENY)) {
        plan.link.push(snippet(scan, DENY));
    }
    plan.edits.sort_by(|a, b| a.place.cmp(&b.place));
    plan
}

/// Of a server's own access logs the one that sees every request, unless one is piped already.
fn access_to_pipe<'a>(server: &Server, logs: &InForce<'a>) -> Option<&'a LogDirective> {
    let own = |log: &&&LogDirective| server.logs.iter().any(|own| own.place == log.place);
    let own: Vec<&LogDirective> = logs.access.iter().filter(own).copied().collect();
    if own
        .iter()
        .any(|log| matches!(log.target, Target::Pipeban(_)))
    {
        return None;
    }
    own.iter()
        .find(|log| !log.conditional)
        .or_else(|| own.first())
        .copied()
}

/// One `GlobalLog`, or none where each access log has its own pipe.
fn access(scan: &Scan, wish: &Wish, plan: &mut Plan) {
    let piped = |log: &&LogDirective| matches!(log.target, Target::Pipeban(_));
    let global = globals(&scan.layout).into_iter().find(piped);
    if wish.files {
        if let Some(global) = global {
            if is_snippet(&global.place.file) {
                plan.unlink.push(global.place.file.clone());
            } else {
                plan.notes.push(format!(
                    "the GlobalLog at {} feeds pipeban every request a second time: take it out",
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
        plan.notes.push("access logs are piped one by one: no GlobalLog is added, `setup --files` completes them".into());
        return;
    }
    plan.link.push(snippet(scan, SNIPPET));
}

/// The link that enables one of our files, and where it leads.
fn snippet(scan: &Scan, name: &str) -> (PathBuf, PathBuf) {
    let link = base(scan).join("conf-enabled").join(name);
    (link, Path::new("../conf-available").join(name))
}

/// Where the configuration begins, and relative names too.
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
        Target::Program { program, .. } if program.ends_with("rotatelogs") => Err(format!(
            "pipes into rotatelogs (`{} log {kind}` in its place takes its arguments as they are)",
            wish.program.display()
        )),
        Target::Program { program, .. } => Err(format!("pipes into {}", program.display())),
        Target::Other(name) => Err(format!("goes to {name}")),
    };
    let file = match file {
        Ok(file) => file,
        Err(elsewhere) => {
            plan.notes.push(format!(
                "{} of {} at {} {elsewhere}: left alone, pipeban does not see its lines",
                log.kind.name(),
                server.name,
                log.place
            ));
            return;
        }
    };
    // The path as it stands, with its variables; a relative one has to be made absolute, and one
    // whose variable brings a blank has to be quoted.
    let raw = log.words.first().map_or("", String::as_str);
    let whole = file.display().to_string();
    let relative = raw.starts_with("${") && file.starts_with(base(scan));
    let blank = whole.contains([' ', '\t']) && !raw.contains([' ', '\t']);
    let percent = whole.contains('%') && !raw.contains('%');
    let path = if (raw.starts_with('/') || raw.starts_with("${")) && !relative && !blank && !percent
    {
        raw.to_owned()
    } else {
        whole
    };
    // No field of a time.
    let path = path.replace('%', "%%");
    if path.contains(['\'', '"', '\\', '|', '\n']) {
        plan.notes.push(format!(
            "{} at {}: the name of its file has a quote in it; change this line by hand",
            log.kind.name(),
            log.place
        ));
        return;
    }
    let mut new = format!("{} {}", log.kind.name(), command(wish, kind, format, &path));
    for word in log.words.iter().skip(1) {
        new.push(' ');
        new.push_str(&quoted(word));
    }
    plan.edits.push(Edit {
        place: log.place.clone(),
        last_line: log.last_line,
        directive: log.kind.name(),
        new: Some(new),
    });
}

/// `"|/usr/bin/pipeban log error /path"`, quotes included.
fn command(wish: &Wish, kind: &str, format: Option<&str>, path: &str) -> String {
    use std::fmt::Write as _;
    let mut command = format!("\"|{}", wish.program.display());
    if let Some(config) = &wish.config {
        let _ = write!(command, " --config {}", config.display());
    }
    let _ = write!(command, " log {kind}");
    if let Some(format) = format {
        let _ = write!(command, " --format {format}");
    }
    if path.contains([' ', '\t']) {
        let _ = write!(command, " '{path}'");
    } else {
        let _ = write!(command, " {path}");
    }
    command.push('"');
    command
}

/// What takes every directive of `logs` that pipes into pipeban out again: the files they name
/// are written by Apache itself as before, and banned clients are not asked for any more. `logs`
/// are those of all files, in use or not.
pub fn remove(scan: &Scan, logs: &[LogDirective]) -> Plan {
    let mut plan = Plan::default();
    let enabled = Path::new("conf-enabled").join(DENY);
    let deny = scan
        .layout
        .files
        .iter()
        .find(|file| file.ends_with(&enabled));
    plan.unlink.extend(deny.cloned());
    for log in logs {
        if !matches!(log.target, Target::Pipeban(_)) {
            continue;
        }
        if is_snippet(&log.place.file) {
            if !plan.unlink.contains(&log.place.file) {
                plan.unlink.push(log.place.file.clone());
            }
            continue;
        }
        // Read once more without its variables put in: they stay.
        let raw = log.words.first().map_or("", String::as_str);
        let again = match Target::parse(raw, false, Path::new("/")) {
            again @ Target::Pipeban(_) => again,
            _ => log.target.clone(),
        };
        if matches!(&again, Target::Pipeban(pipe) if pipe.dated) {
            plan.notes.push(format!(
                "{} at {}: its file's name changed with the time; Apache writes one file of exactly that name, rotatelogs does the other",
                log.kind.name(),
                log.place
            ));
        }
        let path = again.file().map(Path::to_owned);
        let new = path.map(|path| {
            let mut line = format!(
                "{} {}",
                log.kind.name(),
                quoted(&path.display().to_string())
            );
            for word in log.words.iter().skip(1) {
                line.push(' ');
                line.push_str(&quoted(word));
            }
            line
        });
        plan.edits.push(Edit {
            place: log.place.clone(),
            last_line: log.last_line,
            directive: log.kind.name(),
            new,
        });
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::files::tests::Fake;
    use super::super::walk::{logs_in, walk};
    use super::*;

    fn scan(text: &str) -> Scan {
        let variables = BTreeMap::from([("LOGS".to_owned(), "/var/log/apache2".to_owned())]);
        let root = PathBuf::from("/e/apache2.conf");
        let layout = walk(&Fake::new(&[("/e/apache2.conf", text)]), &root, variables).unwrap();
        Scan {
            root,
            layout,
            findings: Vec::new(),
        }
    }

    fn wish(files: bool) -> Wish {
        Wish {
            program: "/usr/bin/pipeban".into(),
            config: None,
            files,
            deny: false,
        }
    }

    fn new_lines(plan: &Plan) -> Vec<(usize, &str)> {
        plan.edits
            .iter()
            .map(|edit| (edit.place.line, edit.new.as_deref().unwrap_or("-")))
            .collect()
    }

    const STOCK: &str = "LogFormat \"%h %l %u %t \\\"%r\\\" %>s %O \\\"%{Referer}i\\\" \\\"%{User-Agent}i\\\"\" combined\n\
        ErrorLog ${LOGS}/error.log\n<VirtualHost *:80>\nErrorLog logs/e%1\nCustomLog ${LOGS}/access.log combined\nCustomLog /second combined env=x\n</VirtualHost>\n";

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
    fn with_files_each_host_has_one_access_pipe_and_there_is_no_global_one() {
        let plan = fit(&scan(STOCK), &wish(true));
        assert_eq!(
            new_lines(&plan)[2],
            (
                5,
                "CustomLog \"|/usr/bin/pipeban log access --format combined ${LOGS}/access.log\" combined"
            )
        );
        assert_eq!(plan.edits.len(), 3);
        assert!(plan.link.is_empty());
    }

    #[test]
    fn what_goes_elsewhere_is_left_alone_and_told() {
        let plan = fit(
            &scan(
                "ErrorLog syslog:local1\n<VirtualHost *>\nErrorLog \"|/usr/bin/rotatelogs /x 1\"\n</VirtualHost>\n<VirtualHost *>\nErrorLog /dev/null\n</VirtualHost>\n<VirtualHost *>\nErrorLog \"/a'b\"\n</VirtualHost>",
            ),
            &wish(false),
        );
        assert_eq!(plan.edits, []);
        assert_eq!(plan.notes.len(), 4, "{:?}", plan.notes);
        assert!(plan.notes[1].contains("`/usr/bin/pipeban log error` in its place"));
        assert!(fit(&scan(""), &wish(false)).notes[0].contains("has no ErrorLog"));
    }

    #[test]
    fn a_variable_stays_unless_its_value_needs_more() {
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
    fn the_deny_map_is_asked_where_it_is_wanted_and_until_it_is_removed() {
        let deny = PathBuf::from("/e/conf-enabled/pipeban-deny.conf");
        let mut scan = scan(STOCK);
        let mut wish = wish(true);
        assert_eq!(fit(&scan, &wish).link, []);
        wish.deny = true;
        let target = "../conf-available/pipeban-deny.conf".into();
        assert_eq!(fit(&scan, &wish).link, [(deny.clone(), target)]);
        scan.layout.files.insert(deny.clone());
        assert_eq!(fit(&scan, &wish).link, []);
        assert_eq!(remove(&scan, &[]).unlink, [deny]);
    }

    #[test]
    fn pipeban_is_told_what_a_nickname_means_and_of_an_errorlogformat() {
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
    fn removing_gives_back_what_was_there() {
        let text = "ErrorLog ${LOGS}/error.log\n<VirtualHost *:80>\nErrorLog /e%1\nCustomLog \"/a b\" \"%h \\\"%r\\\"\" env=!x\nTransferLog /t\n</VirtualHost>\n";
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
            assert_eq!(edited(&fitted, &remove(&scan(""), &logs)), text);
        }
    }

    #[test]
    fn a_percent_stays_what_it_is_and_a_name_that_changes_is_told_when_it_no_longer_does() {
        let text = "Define HALF /50%Y\nErrorLog ${HALF}/e\n";
        assert_eq!(
            new_lines(&fit(&scan(text), &wish(false))),
            [(2, "ErrorLog \"|/usr/bin/pipeban log error /50%%Y/e\"")]
        );
        let text = "CustomLog \"|/usr/bin/pipeban log access -l /a 86400\" x\n";
        let logs = logs_in(Path::new("/e/x"), text, &BTreeMap::new(), Path::new("/e"));
        let plan = remove(&scan(""), &logs);
        assert_eq!(edited(text, &plan), "CustomLog /a x\n");
        assert!(plan.notes[0].contains("rotatelogs"), "{:?}", plan.notes);
    }

    #[test]
    fn removing_takes_out_what_only_feeds_the_matcher() {
        let text = "ErrorLog \"|/usr/bin/pipeban log error\"\nGlobalLog \"|/usr/bin/pipeban log access\" pipeban\n<IfModule none>\nCustomLog \"|/usr/bin/pipeban log access /a\" x\n</IfModule>\n";
        let logs = logs_in(Path::new("/e/x"), text, &BTreeMap::new(), Path::new("/e"));
        assert_eq!(
            edited(text, &remove(&scan(""), &logs)),
            "<IfModule none>\nCustomLog /a x\n</IfModule>\n"
        );
        let logs = logs_in(
            Path::new("/e/conf-enabled/pipeban.conf"),
            text,
            &BTreeMap::new(),
            Path::new("/e"),
        );
        assert_eq!(
            remove(&scan(""), &logs).unlink,
            [PathBuf::from("/e/conf-enabled/pipeban.conf")]
        );
    }
}
