//! What is wrong with the logs of a configuration; pure.

use std::collections::BTreeMap;
use std::path::Path;

use super::formats;
use super::target::Target;
use super::walk::{Layout, LogDirective, LogKind, Place, Server};
use crate::record::Kind;

/// One thing that keeps lines from pipeban, doubles them, or endangers Apache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// The directive it is about.
    pub place: Option<Place>,
    /// One line: what, where, and what to do.
    pub text: String,
}

/// Sorts of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// A server's error lines do not reach pipeban.
    ErrorBypass,
    /// A server's access lines do not reach pipeban.
    AccessBypass,
    /// One request reaches two access pipes: it counts twice.
    TwoPipes,
    /// One request is written twice into one file.
    SameFile,
    /// `BufferedLogs On`.
    Buffered,
    /// `|$`.
    Shell,
    /// A program that does not exist: Apache ends at its next reload.
    MissingProgram,
    /// `ErrorLog` into `log access`, or the reverse.
    WrongKind,
    /// Lines of another format than pipeban expects, or that can ban nobody.
    Format,
    /// `HostnameLookups`, and names where the client should stand.
    Names,
}

impl LogDirective {
    fn pipes(&self) -> bool {
        matches!(self.target, Target::Pipeban(_))
    }
}

/// Of one server: the directives in force. A virtual host without its own inherits the main
/// server's; the last `ErrorLog` wins, access logs add up.
pub(super) struct InForce<'a> {
    pub(super) error: Option<&'a LogDirective>,
    /// Own or inherited, without `GlobalLog`.
    pub(super) access: Vec<&'a LogDirective>,
}

pub(super) fn in_force<'a>(layout: &'a Layout, server: &'a Server) -> InForce<'a> {
    let error = |server: &'a Server| server.logs.iter().rfind(|log| log.kind == LogKind::Error);
    let access = |server: &'a Server| -> Vec<&'a LogDirective> {
        let own = |log: &&LogDirective| matches!(log.kind, LogKind::Custom | LogKind::Transfer);
        server.logs.iter().filter(own).collect()
    };
    let main = layout.servers.first().unwrap_or(server);
    let own = access(server);
    InForce {
        error: error(server).or_else(|| error(main)),
        access: if own.is_empty() { access(main) } else { own },
    }
}

/// `GlobalLog`s, wherever they stand.
pub(super) fn globals(layout: &Layout) -> Vec<&LogDirective> {
    layout
        .servers
        .iter()
        .flat_map(|server| &server.logs)
        .filter(|log| log.kind == LogKind::Global)
        .collect()
}

/// All findings. `exists` tells whether a program does.
pub(super) fn findings(layout: &Layout, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for log in layout.servers.iter().flat_map(|server| &server.logs) {
        of_directive(log, exists, &mut found);
    }
    let globals = globals(layout);
    for server in &layout.servers {
        of_server(layout, server, &globals, &mut found);
        formats::findings(layout, server, &mut found);
    }
    if let Some(place) = &layout.buffered {
        found.push(Finding {
            code: Code::Buffered,
            place: Some(place.clone()),
            text: format!(
                "`BufferedLogs On` at {place} holds access lines back: bans come late; take it out"
            ),
        });
    }
    // Several hosts share what they inherit: told once.
    let mut told = BTreeMap::new();
    found.retain(|finding| {
        told.insert(
            (finding.code, finding.place.clone(), finding.text.clone()),
            (),
        )
        .is_none()
    });
    found
}

fn of_directive(log: &LogDirective, exists: &dyn Fn(&Path) -> bool, found: &mut Vec<Finding>) {
    let mut add = |code, text| {
        found.push(Finding {
            code,
            place: Some(log.place.clone()),
            text,
        })
    };
    let name = log.kind.name();
    if log.target.through_shell() {
        add(
            Code::Shell,
            format!(
                "{name} at {} starts its program through a shell (`|$`), which takes the signals meant for it: write `|`",
                log.place
            ),
        );
    }
    if let Some(program) = log.target.program()
        && !exists(program)
        // A shell finds its programs by PATH.
        && (program.is_absolute() || !log.target.through_shell())
    {
        add(
            Code::MissingProgram,
            format!(
                "{name} at {} names the program {}, which does not exist: Apache ends at its next reload; install it or take the line out",
                log.place,
                program.display()
            ),
        );
    }
    if let Target::Pipeban(pipe) = &log.target {
        let kind = if log.kind == LogKind::Error {
            Kind::Error
        } else {
            Kind::Access
        };
        if pipe.kind != Some(kind) {
            add(
                Code::WrongKind,
                format!(
                    "{name} at {} must pipe into `pipeban log {kind}`",
                    log.place
                ),
            );
        }
    }
}

fn of_server(
    layout: &Layout,
    server: &Server,
    globals: &[&LogDirective],
    found: &mut Vec<Finding>,
) {
    let logs = in_force(layout, server);
    // What is inherited belongs to the main server's finding.
    let owns = |log: &LogDirective| server.logs.iter().any(|own| own.place == log.place);
    match logs.error {
        Some(error) if !error.pipes() && owns(error) => found.push(Finding {
            code: Code::ErrorBypass,
            place: Some(error.place.clone()),
            text: format!("error lines of {} bypass pipeban: ErrorLog at {}; see `pipeban setup`", server.name, error.place),
        }),
        None if server.place.is_none() => found.push(Finding {
            code: Code::ErrorBypass,
            place: None,
            text: "error lines of the main server bypass pipeban: it has no ErrorLog; add `ErrorLog \"|/usr/bin/pipeban log error /var/log/apache2/error.log\"`".into(),
        }),
        _ => {}
    }
    let pipes: Vec<&LogDirective> = globals
        .iter()
        .copied()
        .chain(logs.access.iter().copied())
        .filter(|log| log.pipes())
        .collect();
    let own_access = logs.access.iter().any(|log| owns(log));
    // Two conditional ones may exclude each other.
    let sure = pipes.iter().copied().find(|log| !log.conditional);
    let second =
        |first: &LogDirective| pipes.iter().copied().find(|log| !std::ptr::eq(*log, first));
    if let Some(first) = sure
        && let Some(second) = second(first)
        && (own_access || server.place.is_none())
    {
        let some = if second.conditional { "some " } else { "" };
        found.push(Finding {
            code: Code::TwoPipes,
            place: Some(second.place.clone()),
            text: format!(
                "{some}requests to {} reach two access pipes and count twice: {} at {} and {} at {}; keep one",
                server.name, first.kind.name(), first.place, second.kind.name(), second.place
            ),
        });
    }
    if sure.is_none() && (own_access || server.place.is_none()) {
        let place = logs.access.first().map(|log| log.place.clone());
        let at = place
            .as_ref()
            .map_or(String::new(), |place| format!(": {place}"));
        found.push(Finding {
            code: Code::AccessBypass,
            place,
            text: format!(
                "access lines of {} bypass pipeban{at}; `a2enconf pipeban` feeds it every request",
                server.name
            ),
        });
    }
    same_file(server, globals, &logs, found);
}

fn same_file(
    server: &Server,
    globals: &[&LogDirective],
    logs: &InForce<'_>,
    found: &mut Vec<Finding>,
) {
    let mut files: BTreeMap<&Path, &LogDirective> = BTreeMap::new();
    for log in globals
        .iter()
        .copied()
        .chain(logs.access.iter().copied())
        .filter(|log| !log.conditional)
    {
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
            found.push(Finding {
                code: Code::SameFile,
                place: Some(log.place.clone()),
                text: format!(
                    "requests to {} are written twice into {}: {} at {} and {} at {}; keep one",
                    server.name,
                    file.display(),
                    first.kind.name(),
                    first.place,
                    log.kind.name(),
                    log.place
                ),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::files::tests::Fake;
    use super::super::walk::walk;
    use super::*;

    fn told(text: &str) -> Vec<(Code, usize)> {
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
    fn debians_stock_hosts_bypass_a_global_pipe() {
        let stock = "<VirtualHost *:80>\nErrorLog /v\nCustomLog /a combined\n</VirtualHost>\n";
        assert_eq!(
            told(&format!("ErrorLog /e\n{stock}")),
            [
                (Code::ErrorBypass, 1),
                (Code::AccessBypass, 0),
                (Code::ErrorBypass, 3),
                (Code::AccessBypass, 4)
            ]
        );
        assert_eq!(
            told(&format!("{ERROR}{GLOBAL}{stock}")),
            [(Code::ErrorBypass, 4)]
        );
        assert_eq!(
            told(&format!("{ERROR}{GLOBAL}<VirtualHost *>\n</VirtualHost>")),
            []
        );
    }

    #[test]
    fn requests_that_reach_two_pipes_are_named() {
        let own = "<VirtualHost *:80>\nCustomLog \"|/usr/bin/pipeban log access /a\" combined\n</VirtualHost>\n";
        assert_eq!(
            told(&format!("{ERROR}{GLOBAL}{own}")),
            [(Code::TwoPipes, 4)]
        );
        assert_eq!(told(&format!("{ERROR}{own}")), [(Code::AccessBypass, 0)]);
        assert_eq!(
            told(&format!("{ERROR}{GLOBAL}{GLOBAL}")),
            [(Code::TwoPipes, 3)]
        );
        let some = own.replace("combined", "combined env=x");
        assert_eq!(
            told(&format!("{ERROR}{GLOBAL}{some}")),
            [(Code::TwoPipes, 4)]
        );
    }

    #[test]
    fn one_file_behind_two_directives_is_named() {
        let text = format!(
            "{ERROR}GlobalLog \"|/usr/bin/pipeban log access /a\" combined\nCustomLog /a common\n<VirtualHost *>\nCustomLog /b x\nCustomLog /b y env=z\n</VirtualHost>"
        );
        assert_eq!(told(&text), [(Code::SameFile, 3)]);
    }

    #[test]
    fn shells_missing_programs_wrong_kinds_and_buffers_are_named() {
        let text = format!(
            "{GLOBAL}ErrorLog \"|$/usr/bin/pipeban log access /e\"\nCustomLog \"|/opt/none x\" combined\nCustomLog \"|$none x\" combined\nBufferedLogs On"
        );
        assert_eq!(
            told(&text),
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
    fn the_last_error_log_of_a_server_counts() {
        assert_eq!(told(&format!("ErrorLog /x\n{ERROR}{GLOBAL}")), []);
        assert_eq!(
            told(&format!("{ERROR}ErrorLog /x\n{GLOBAL}")),
            [(Code::ErrorBypass, 2)]
        );
    }
}
