//! Corrects directives that start `pipeban log` in a wrong way; pure.

use super::directive::{quoted, words};
use super::finding::Code;
use super::formats;
use super::plan::Wish;
use super::scan::Scan;
use super::walk::{LogDirective, Server};
use crate::pipe;
use crate::record::{Kind, Parser};

/// The directive without its mistakes. `None`: it has none that pipeban can correct.
pub(super) fn corrected(
    log: &LogDirective,
    server: &Server,
    scan: &Scan,
    wish: &Wish,
) -> Option<String> {
    let here = |code| {
        scan.findings
            .iter()
            .any(|found| found.place.as_ref() == Some(&log.place) && found.code == code)
    };
    let to_correct = [
        Code::Shell,
        Code::MissingProgram,
        Code::WrongKind,
        Code::Arguments,
        Code::Format,
    ];
    to_correct.into_iter().any(here).then_some(())?;
    // With its variables.
    let command = log.words.first()?.strip_prefix('|')?;
    let command = command.strip_prefix(['$', '|']).unwrap_or(command);
    let old = words(command);
    let mut argv = old.iter().cloned();
    let mut program = argv.next()?;
    if here(Code::MissingProgram) {
        program = wish.program.display().to_string();
    }
    let kind = log.kind.lines();
    let mut argv = with_kind(argv.collect(), kind)?;
    argv = pipe::corrected(&argv).unwrap_or(argv);
    with_format(&mut argv, log, server, scan);
    let same = old.split_first() == Some((&program, argv.as_slice()));
    (!same || here(Code::Shell)).then_some(())?;
    let mut line = format!("{} \"|{program}", log.kind.name());
    for word in &argv {
        line.push(' ');
        line.push_str(&formats::in_command(word)?);
    }
    line.push('"');
    for word in log.words.iter().skip(1) {
        line.push(' ');
        line.push_str(&quoted(word));
    }
    Some(line)
}

/// With the right word after `log`.
fn with_kind(mut argv: Vec<String>, kind: Kind) -> Option<Vec<String>> {
    let at = argv.iter().position(|word| word == "log")? + 1;
    match argv.get_mut(at) {
        Some(word) if !word.starts_with(['-', '/', '$']) => *word = kind.to_string(),
        _ => argv.insert(at, kind.to_string()),
    }
    Some(argv)
}

/// With the `--format` of the lines that Apache writes, if it is known and can be read.
fn with_format(argv: &mut Vec<String>, log: &LogDirective, server: &Server, scan: &Scan) {
    let kind = log.kind.lines();
    let written = match kind {
        Kind::Error => formats::of_errors(&scan.layout, server).map(str::to_owned),
        Kind::Access => match formats::of_access(&scan.layout, log) {
            Some(format) if format.contains('%') => Some(format),
            // Not known.
            _ => return,
        },
    };
    let written = written.unwrap_or_else(|| "default".to_owned());
    let Ok(parser) = Parser::new(kind, &written) else {
        return;
    };
    let Some(directive) = pipe::directive(argv) else {
        return;
    };
    let expected = directive.format.as_deref().unwrap_or("auto");
    if Parser::new(kind, expected).is_ok_and(|expected| expected.reads_as(&parser)) {
        return;
    }
    let Some(log) = argv.iter().position(|word| word == "log") else {
        return;
    };
    if let Some(at) = argv.iter().position(|word| word.starts_with("--format")) {
        let with_value = argv.get(at).is_some_and(|word| word == "--format");
        argv.drain(at..(at + 1 + usize::from(with_value)).min(argv.len()));
    }
    if written != "default" {
        let format = formats::name(kind, &written).unwrap_or(written);
        let at = (log + 2).min(argv.len());
        argv.splice(at..at, ["--format".to_owned(), format]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::super::files::tests::Fake;
    use super::super::findings::findings;
    use super::super::host::Host;
    use super::super::plan::fit;
    use super::super::walk::walk;
    use super::*;

    fn scan(text: &str) -> Scan {
        let root = PathBuf::from("/e/a.conf");
        let layout = walk(&Fake::new(&[("/e/a.conf", text)]), &root, BTreeMap::new()).unwrap();
        let findings = findings(&layout, &|program| program == Path::new("/usr/bin/pipeban"));
        Scan {
            root,
            layout,
            findings,
            host: Host::default(),
        }
    }

    #[test]
    fn a_wrong_directive_is_corrected_and_then_right() {
        let wish = Wish {
            program: "/usr/bin/pipeban".into(),
            config: None,
            files: false,
            deny: Some(false),
        };
        let pipe = "|/usr/bin/pipeban log";
        let json = r#"LogFormat "{\"ip\":\"%a\",\"r\":\"%r\"}" j"#;
        for (before, wrong, right) in [
            (
                "",
                format!("CustomLog \"{pipe} access --fromat combined ${{D}}/a\" combined"),
                format!("CustomLog \"{pipe} access --format combined ${{D}}/a\" combined"),
            ),
            (
                "",
                "CustomLog \"|$/usr/bin/pipeban log access /a\" combined env=x".to_owned(),
                format!("CustomLog \"{pipe} access /a\" combined env=x"),
            ),
            (
                "",
                format!("ErrorLog \"{pipe} access --link /l '/a b'\""),
                format!("ErrorLog \"{pipe} error --link /l '/a b'\""),
            ),
            (
                "",
                format!("ErrorLog \"{pipe} /a\""),
                format!("ErrorLog \"{pipe} error /a\""),
            ),
            (
                "",
                format!("ErrorLog \"{pipe} error -L /l /a 86400\""),
                format!("ErrorLog \"{pipe} error /a\""),
            ),
            (
                "",
                "ErrorLog \"|/opt/pipeban log error /a\"".to_owned(),
                format!("ErrorLog \"{pipe} error /a\""),
            ),
            (
                "LogFormat \"%a %l %u %t \\\"%r\\\" %>s %b\" c",
                format!("CustomLog \"{pipe} access --format combined /a\" c"),
                format!("CustomLog \"{pipe} access --format common /a\" c"),
            ),
            (
                json,
                format!("CustomLog \"{pipe} access --mode 0644 /a\" j"),
                format!(
                    r#"CustomLog "{pipe} access --format '{{\"ip\":\"%a\",\"r\":\"%r\"}}' --mode 0644 /a" j"#
                ),
            ),
            (
                "",
                format!("ErrorLog \"{pipe} error --format '%t %P %a %M' /a\""),
                format!("ErrorLog \"{pipe} error /a\""),
            ),
        ] {
            let found = scan(&format!("{before}\n{wrong}"));
            let edits = fit(&found, &wish).edits;
            let new: Vec<_> = edits.iter().filter_map(|edit| edit.new.clone()).collect();
            assert_eq!(new, std::slice::from_ref(&right), "{wrong}");
            let found = scan(&format!("{before}\n{right}"));
            assert_eq!(
                fit(&found, &wish).edits,
                [],
                "{right}: {:?}",
                found.findings
            );
        }
    }

    #[test]
    fn what_cannot_be_corrected_stays() {
        for text in [
            "CustomLog \"|/usr/bin/pipeban log access /a\" \"%h %{SSL_TLS_SNI}x\"",
            "CustomLog \"|/usr/bin/pipeban log access /a\" combined",
            "ErrorLog \"|/usr/bin/pipeban log error /a\"",
        ] {
            let found = scan(text);
            let server = &found.layout.servers[0];
            let wish = Wish {
                program: "/usr/bin/pipeban".into(),
                config: None,
                files: false,
                deny: Some(false),
            };
            assert_eq!(corrected(&server.logs[0], server, &found, &wish), None);
        }
    }
}
