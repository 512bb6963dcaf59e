//! Plans how Apache's files become free of pipeban; pure.

use std::path::Path;

use super::directive::quoted;
use super::plan::{Edit, Plan, around, deny_snippet, is_snippet};
use super::scan::Scan;
use super::target::Target;
use super::walk::{LogDirective, LogKind};

/// Removes every directive that names pipeban: Apache writes the log files itself, and no longer
/// reads the deny map. Includes sites that are not enabled and sections that are not active.
pub fn remove(scan: &Scan) -> Plan {
    remove_from(scan, &scan.everything())
}

pub(super) fn remove_from(scan: &Scan, logs: &[LogDirective]) -> Plan {
    let mut plan = Plan {
        restores: true,
        ..Plan::default()
    };
    plan.unlink.extend(deny_snippet(scan).cloned());
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
        // Its variables are kept.
        let raw = log.words.first().map_or("", String::as_str);
        let again = match Target::parse(raw, false, Path::new("/")) {
            again @ Target::Pipeban(_) => again,
            _ => log.target.clone(),
        };
        if matches!(&again, Target::Pipeban(pipe) if pipe.dated) {
            plan.notes.push(format!(
                "{}: the file name of this {} has strftime fields, which Apache does not replace: use rotatelogs",
                log.place,
                log.kind.name()
            ));
        }
        let path = again.file().map(|path| path.display().to_string());
        let syslog = match &again {
            Target::Pipeban(pipe) => pipe.syslog.as_ref().filter(|_| log.kind == LogKind::Error),
            _ => None,
        };
        let syslog = syslog.map(|facility| format!("syslog:{facility}"));
        let path = path.filter(|path| syslog.is_none() || path != "/dev/null");
        let quotes = log.words.first().is_some_and(|word| word.ends_with('\''));
        let new = path.or(syslog).map(|path| match quotes {
            true => around(log, &format!("\"{path}\"")),
            false => around(log, &quoted(&path)),
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
