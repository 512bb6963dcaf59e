//! The formats of logs: what Apache writes, and what pipeban is told to expect.

use super::findings::{Code, Finding};
use super::target::Target;
use super::walk::{Layout, LogDirective, LogKind, Server};
use crate::record::{Kind, Parser};

/// The LogFormat of an access log, as far as it is known.
pub(super) fn of_access(layout: &Layout, log: &LogDirective) -> Option<String> {
    let word = match log.kind {
        LogKind::Custom | LogKind::Global => log.words.get(1)?,
        // The format of a TransferLog stands in any LogFormat before it.
        LogKind::Error | LogKind::Transfer => return None,
    };
    Some(layout.formats.get(word).unwrap_or(word).clone())
}

/// The ErrorLogFormat in force for a server; `None`: Apache's default.
pub(super) fn of_errors<'a>(layout: &'a Layout, server: &'a Server) -> Option<&'a str> {
    let main = layout.servers.first();
    let own = server.error_format.as_deref();
    own.or_else(|| main.and_then(|main| main.error_format.as_deref()))
}

/// What `--format` has to be for lines of this format, ready to stand in a piped command in
/// double quotes: a name, or the string in single quotes. `None`: nothing, or it would be too
/// hard to quote.
pub(super) fn argument(kind: Kind, format: &str) -> Option<String> {
    let parser = Parser::new(kind, format).ok()?;
    if kind == Kind::Access {
        for name in [
            "combined",
            "vhost_combined",
            "common",
            "vhost_common",
            "pipeban",
        ] {
            if Parser::new(kind, name).is_ok_and(|named| named.reads_as(&parser)) {
                return Some(name.to_owned());
            }
        }
    }
    if format.contains(['\'', '\n']) {
        return None;
    }
    // Apache's configuration takes one backslash of two away, and so does what splits a command
    // where a blank or a quote follows.
    let mut word = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if matches!(chars.peek(), Some(' ' | '\t' | '"')) => word.push_str("\\\\\\\\"),
            '\\' => word.push_str("\\\\"),
            '"' => word.push_str("\\\""),
            c => word.push(c),
        }
    }
    Some(format!("'{word}'"))
}

/// Logs that are piped into pipeban and whose lines it would not understand, or could ban nobody
/// by.
pub(super) fn findings(layout: &Layout, server: &Server, found: &mut Vec<Finding>) {
    for log in &server.logs {
        let Target::Pipeban(pipe) = &log.target else {
            continue;
        };
        let (kind, format) = match log.kind {
            LogKind::Error => (Kind::Error, of_errors(layout, server).map(str::to_owned)),
            _ => (Kind::Access, of_access(layout, log)),
        };
        if pipe.kind.is_some_and(|told| told != kind) {
            continue;
        }
        // A nickname that no LogFormat gives.
        if format
            .as_deref()
            .is_some_and(|format| !format.contains('%'))
            || format.is_none() && kind == Kind::Access
        {
            continue;
        }
        let written = Parser::new(kind, format.as_deref().unwrap_or("default"));
        let name = log.kind.name();
        let mut add = |code, text| {
            found.push(Finding {
                code,
                place: Some(log.place.clone()),
                text: format!("{name} at {}: {text}", log.place),
            });
        };
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                add(
                    Code::Format,
                    format!("pipeban passes its lines on and cannot read them: {error}"),
                );
                continue;
            }
        };
        if let Some(doubt) = written.doubt() {
            add(Code::Format, doubt.to_owned());
            continue;
        }
        let told = pipe.format.as_deref().unwrap_or("auto");
        if !Parser::new(kind, told).is_ok_and(|told| told.reads_as(&written)) {
            let format = format.as_deref().unwrap_or("default");
            let mend = match argument(kind, format) {
                _ if format == "default" => "take --format out".to_owned(),
                Some(argument) => format!("write `--format {argument}` behind `log {kind}`"),
                None => "give the log a format without single quotes".to_owned(),
            };
            add(
                Code::Format,
                format!(
                    "Apache writes another format than pipeban expects (`{told}`), so no line is \
                     understood: {mend}"
                ),
            );
        }
        if let Some(lookups) = &layout.lookups
            && written.is_client_by_name()
        {
            add(
                Code::Names,
                format!(
                    "with HostnameLookups at {lookups} a name stands where its format has %h: it \
                     bans nobody, or somebody else where the name reads like an address; put %a \
                     in its place"
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::directive::words;
    use super::super::files::tests::Fake;
    use super::super::walk::walk;
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let files = Fake::new(&[("/e/a.conf", text)]);
        let layout = walk(&files, Path::new("/e/a.conf"), BTreeMap::new()).unwrap();
        let mut found = Vec::new();
        for server in &layout.servers {
            findings(&layout, server, &mut found);
        }
        found.into_iter().map(|finding| finding.text).collect()
    }

    const PIPE: &str = "CustomLog \"|/usr/bin/pipeban log access\"";

    #[test]
    fn a_format_that_pipeban_does_not_expect_is_named_with_what_mends_it() {
        let json = r#"LogFormat "{\"ip\":\"%a\",\"r\":\"%r\"}" j"#;
        let error = "ErrorLogFormat \"[%t] [pid %P] [client\\ %a] %M\"\nErrorLog \"|/usr/bin/pipeban log error\"";
        for text in [format!("{json}\n{PIPE} j"), error.to_owned()] {
            let told_first = told(&text);
            let [finding] = told_first.as_slice() else {
                panic!("{told_first:?}")
            };
            let (_, mend) = finding.split_once("write `").unwrap();
            let (mend, place) = mend.split_once("` behind `").unwrap();
            let place = place.trim_end_matches('`');
            assert_eq!(
                told(&text.replace(place, &format!("{place} {mend}"))),
                [""; 0],
                "{text}"
            );
        }
    }

    #[test]
    fn formats_that_can_ban_nobody_are_named() {
        for (text, word) in [
            (
                format!(
                    "LogFormat \"%{{X-Forwarded-For}}i %l %u %t \\\"%r\\\" %>s %b\" p\n{PIPE} p"
                ),
                "what a client says",
            ),
            (format!("{PIPE} \"%U %h %t\""), "could be forged"),
            (
                format!("{PIPE} \"%h %{{SSL_TLS_SNI}}x\""),
                "cannot read them",
            ),
            (
                format!("HostnameLookups On\n{PIPE} \"%h %l %u %t \\\"%r\\\" %>s %b\""),
                "HostnameLookups",
            ),
            (
                "ErrorLogFormat \"%t %M\"\nErrorLog \"|/usr/bin/pipeban log error\"".to_owned(),
                "before the message",
            ),
            (
                "ErrorLog \"|/usr/bin/pipeban log error --format '%t %P %a %M'\"".to_owned(),
                "take --format out",
            ),
        ] {
            let found = told(&text);
            assert!(
                found.len() == 1 && found[0].contains(word),
                "{text}: {found:?}"
            );
        }
        for text in [
            format!("LogFormat \"%v:%p %a %l %u %t \\\"%r\\\" %>s %b\" v\n{PIPE} v"),
            format!("LogFormat \"%h %l %u %t \\\"%r\\\" %>s %b\" common\n{PIPE} common"),
            format!("{PIPE} unknown"),
            "TransferLog \"|/usr/bin/pipeban log access\"".to_owned(),
            "ErrorLog \"|/usr/bin/pipeban log error\"".to_owned(),
            format!("HostnameLookups Off\n{PIPE} \"%h %l %u %t \\\"%r\\\" %>s %b\""),
        ] {
            let found = told(&text);
            assert!(found.is_empty(), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_is_quoted_for_a_command_comes_out_of_it() {
        for format in [
            r#"%a %l "%r""#,
            r"[%t] %P [client\ %a] %M% ,\ referer",
            r#"{"a":"%a","t":"%{%F %T}t"}"#,
            r"%a\t%U\t%s",
        ] {
            let kind = if format.contains("%M") {
                Kind::Error
            } else {
                Kind::Access
            };
            let line = format!(
                "\"|/usr/bin/pipeban log access --format {}\"",
                argument(kind, format).unwrap()
            );
            let Target::Pipeban(pipe) = Target::parse(&words(&line)[0], false, Path::new("/e"))
            else {
                panic!("{line}")
            };
            assert_eq!(pipe.format.as_deref(), Some(format));
        }
        assert_eq!(argument(Kind::Access, "%a '%r'"), None);
        let common = argument(Kind::Access, "%h %l %u %t \"%r\" %s %b");
        assert_eq!(common.as_deref(), Some("common"));
    }
}
