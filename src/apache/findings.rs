//! What is wrong with the logs of a configuration; pure.

use std::collections::BTreeMap;
use std::path::Path;

use super::finding::{Code, Finding, Remedy};
use super::formats;
use super::remoteip::ClientNaming;
use super::target::Target;
use super::walk::{Layout, LogDirective, LogKind, Server};

/// The log directives in force for one server. A virtual host without its own inherits the main
/// server's; the last `ErrorLog` wins, access logs add up.
pub(super) struct InForce<'a> {
    pub(super) error: Option<&'a LogDirective>,
    /// Without `GlobalLog`.
    pub(super) access: Vec<&'a LogDirective>,
}

pub(super) fn in_force<'a>(layout: &'a Layout, server: &'a Server) -> InForce<'a> {
    let error = |server: &'a Server| server.logs.iter().rfind(|log| log.kind == LogKind::Error);
    let access = |server: &'a Server| -> Vec<&'a LogDirective> {
        let access = |log: &&LogDirective| matches!(log.kind, LogKind::Custom | LogKind::Transfer);
        server.logs.iter().filter(access).collect()
    };
    let main = layout.servers.first().unwrap_or(server);
    let of_server = access(server);
    InForce {
        error: error(server).or_else(|| error(main)),
        access: if of_server.is_empty() {
            access(main)
        } else {
            of_server
        },
    }
}

/// Every `GlobalLog`.
pub(super) fn globals(layout: &Layout) -> impl Iterator<Item = &LogDirective> {
    let logs = layout.servers.iter().flat_map(|server| &server.logs);
    logs.filter(|log| log.kind == LogKind::Global)
}

/// All findings. `exists` says whether a file exists.
pub(super) fn findings(layout: &Layout, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for log in layout.servers.iter().flat_map(|server| &server.logs) {
        of_directive(log, exists, &mut found);
    }
    for server in &layout.servers {
        of_server(layout, server, &mut found);
        formats::findings(layout, server, &mut found);
    }
    found.extend(client_named(layout));
    if let Some(place) = &layout.buffered {
        let text = "`BufferedLogs On` delays access lines, and bans: delete it";
        let finding = Finding::at(place, Code::Buffered, text);
        found.push(finding.without(place, "BufferedLogs"));
    }
    // Hosts can share what they inherit.
    let mut unique: Vec<Finding> = Vec::new();
    for finding in found {
        if !unique.contains(&finding) {
            unique.push(finding);
        }
    }
    unique
}

/// A client that others can name.
fn client_named(layout: &Layout) -> Option<Finding> {
    let naming = formats::client_naming(layout);
    let problem = naming.problem()?;
    let code = match problem.is_error {
        true => Code::AnyClient,
        false => Code::ProxyProtocol,
    };
    let finding = Finding::at(problem.place, code, problem.text);
    // `setup` pipes the format with the peer.
    Some(match &naming {
        ClientNaming::AnyClient(place) => finding.without(place, "RemoteIPHeader"),
        ClientNaming::AnyClientOf(_, place) => {
            let mut logs = layout.servers.iter().flat_map(|server| &server.logs);
            let log = logs.find(|log| log.place == *place);
            finding.without(place, log.map_or("HostnameLookups", |log| log.kind.name()))
        }
        _ => finding,
    })
}

fn of_directive(log: &LogDirective, exists: &dyn Fn(&Path) -> bool, found: &mut Vec<Finding>) {
    let name = log.kind.name();
    let mut add = |code, text: String| {
        let finding = Finding::at(&log.place, code, text);
        // `setup` corrects pipeban's own directives.
        found.push(match log.pipes() {
            true => finding,
            false => finding.without(&log.place, name),
        });
    };
    let shell = log.target.through_shell();
    if shell {
        let text = format!(
            "{name} starts its program through a shell, which intercepts Apache's signals: write \
             `|` instead of `|$`"
        );
        add(Code::Shell, text);
    }
    if let Some(program) = log.target.program()
        && !exists(program)
        // A shell searches PATH.
        && (program.is_absolute() || !shell)
    {
        let text = format!(
            "{name} starts {}, which does not exist, so Apache ends at its next reload: install \
             it, or delete the line",
            program.display()
        );
        add(Code::MissingProgram, text);
    }
    if let Target::Pipeban(pipe) = &log.target {
        let kind = log.kind.lines();
        if pipe.kind != Some(kind) {
            let text = format!("{name} gets the wrong command: write `pipeban log {kind}`");
            add(Code::WrongKind, text);
        }
        for wrong in &pipe.wrong {
            add(Code::Arguments, format!("{name}: {wrong}"));
        }
        if let Some(file) = pipe.config.as_deref()
            && file.is_absolute()
            && !exists(file)
        {
            let text = format!(
                "{name}: `--config` names {}, which does not exist: correct it, or delete `--config`",
                file.display()
            );
            add(Code::Refused, text);
        }
    }
}

fn of_server(layout: &Layout, server: &Server, found: &mut Vec<Finding>) {
    let logs = in_force(layout, server);
    let is_main = server.place.is_none();
    let name = &server.name;
    // What is inherited is a finding of the main server.
    let has = |log: &LogDirective| {
        server
            .logs
            .iter()
            .any(|of_server| of_server.place == log.place)
    };
    match logs.error {
        Some(error) if !error.pipes() && has(error) => {
            let text = format!("error lines of {name} do not reach pipeban: run `pipeban setup`");
            found.push(Finding::at(&error.place, Code::ErrorBypass, text));
        }
        None if is_main => found.push(Finding {
            place: None,
            code: Code::ErrorBypass,
            text: "error lines of the main server do not reach pipeban, because it has no \
                   ErrorLog: add `ErrorLog \"|/usr/bin/pipeban log error \
                   /var/log/apache2/error.log\"`"
                .into(),
            remedy: Remedy::Setup,
        }),
        _ => {}
    }
    let access: Vec<&LogDirective> = globals(layout).chain(logs.access.iter().copied()).collect();
    if is_main || logs.access.iter().any(|log| has(log)) {
        let pipes: Vec<&LogDirective> = access.iter().copied().filter(|log| log.pipes()).collect();
        // Two conditional ones can exclude each other.
        match pipes.iter().find(|log| !log.conditional) {
            Some(first) => {
                let mut others = pipes.iter().filter(|log| !std::ptr::eq(**log, *first));
                found.extend(others.next().map(|second| two_pipes(name, first, second)));
            }
            None => {
                let text =
                    format!("access lines of {name} do not reach pipeban: run `pipeban setup`");
                found.push(Finding {
                    place: logs.access.first().map(|log| log.place.clone()),
                    code: Code::AccessBypass,
                    text,
                    remedy: Remedy::Setup,
                });
            }
        }
    }
    same_file(name, &access, found);
}

fn two_pipes(server: &str, first: &LogDirective, second: &LogDirective) -> Finding {
    let some = if second.conditional { "some " } else { "" };
    let text = format!(
        "{some}requests to {server} reach two pipes and count twice: delete this {}, or {}",
        second.kind.name(),
        first.named()
    );
    Finding::at(&second.place, Code::TwoPipes, text).without(&second.place, second.kind.name())
}

fn same_file(server: &str, access: &[&LogDirective], found: &mut Vec<Finding>) {
    let mut files: BTreeMap<&Path, &LogDirective> = BTreeMap::new();
    for &log in access.iter().filter(|log| !log.conditional) {
        let Some(file) = log
            .target
            .file()
            .filter(|file| *file != Path::new("/dev/null"))
        else {
            continue;
        };
        if let Some(first) = files.insert(file, log)
            && first.place != log.place
        {
            let text = format!(
                "requests to {server} are written twice to {}: delete this {}, or {}",
                file.display(),
                log.kind.name(),
                first.named()
            );
            let finding = Finding::at(&log.place, Code::SameFile, text);
            found.push(finding.without(&log.place, log.kind.name()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::files::tests::Fake;
    use super::super::walk::walk;
    use super::*;

    fn codes(text: &str) -> Vec<(Code, usize)> {
        let files = Fake::new(&[("/e/a.conf", text)]);
        let layout = walk(&files, Path::new("/e/a.conf"), BTreeMap::new()).unwrap();
        findings(&layout, &|program| program == Path::new("/usr/bin/pipeban"))
            .into_iter()
            .map(|finding| (finding.code, finding.place.map_or(0, |place| place.line)))
            .collect()
    }

    const ERROR: &str = "ErrorLog \"|/usr/bin/pipeban log error /e\"\n";
    const GLOBAL: &str = "GlobalLog \"|/usr/bin/pipeban log access\" pipeban\n";

    #[test]
    fn error_logs_of_debians_stock_hosts_are_not_piped() {
        let stock = "<VirtualHost *:80>\nErrorLog /v\nCustomLog /a combined\n</VirtualHost>\n";
        assert_eq!(
            codes(&format!("ErrorLog /e\n{stock}")),
            [
                (Code::ErrorBypass, 1),
                (Code::AccessBypass, 0),
                (Code::ErrorBypass, 3),
                (Code::AccessBypass, 4)
            ]
        );
        assert_eq!(
            codes(&format!("{ERROR}{GLOBAL}{stock}")),
            [(Code::ErrorBypass, 4)]
        );
        assert_eq!(
            codes(&format!("{ERROR}{GLOBAL}<VirtualHost *>\n</VirtualHost>")),
            []
        );
    }

    #[test]
    fn requests_that_reach_two_pipes_are_found() {
        let own = "<VirtualHost *:80>\nCustomLog \"|/usr/bin/pipeban log access /a\" combined\n</VirtualHost>\n";
        assert_eq!(
            codes(&format!("{ERROR}{GLOBAL}{own}")),
            [(Code::TwoPipes, 4)]
        );
        assert_eq!(codes(&format!("{ERROR}{own}")), [(Code::AccessBypass, 0)]);
        assert_eq!(
            codes(&format!("{ERROR}{GLOBAL}{GLOBAL}")),
            [(Code::TwoPipes, 3)]
        );
        let some = own.replace("combined", "combined env=x");
        assert_eq!(
            codes(&format!("{ERROR}{GLOBAL}{some}")),
            [(Code::TwoPipes, 4)]
        );
    }

    #[test]
    fn one_file_of_two_directives_is_found() {
        let text = format!(
            "{ERROR}GlobalLog \"|/usr/bin/pipeban log access /a\" combined\nCustomLog /a common\n<VirtualHost *>\nCustomLog /b x\nCustomLog /b y env=z\n</VirtualHost>"
        );
        assert_eq!(codes(&text), [(Code::SameFile, 3)]);
    }

    #[test]
    fn shells_missing_programs_wrong_kinds_and_buffers_are_found() {
        let text = format!(
            "{GLOBAL}ErrorLog \"|$/usr/bin/pipeban log access /e\"\nCustomLog \"|/opt/none x\" combined\nCustomLog \"|$none x\" combined\nBufferedLogs On"
        );
        assert_eq!(
            codes(&text),
            [
                (Code::Shell, 2),
                (Code::WrongKind, 2),
                (Code::MissingProgram, 3),
                (Code::Shell, 4),
                (Code::Buffered, 5)
            ]
        );
    }

    #[test]
    fn a_header_of_any_client_is_an_error() {
        let header = format!("{ERROR}{GLOBAL}RemoteIPHeader X-Forwarded-For\n");
        assert_eq!(codes(&header), [(Code::AnyClient, 3)]);
        assert_eq!(
            codes(&format!("{header}RemoteIPInternalProxy 10.0.0.1")),
            []
        );
    }

    #[test]
    fn the_last_error_log_of_a_server_counts() {
        assert_eq!(codes(&format!("ErrorLog /x\n{ERROR}{GLOBAL}")), []);
        assert_eq!(
            codes(&format!("{ERROR}ErrorLog /x\n{GLOBAL}")),
            [(Code::ErrorBypass, 2)]
        );
    }
}
