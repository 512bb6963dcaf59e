//! The formats of logs: what Apache writes, and what pipeban expects.

use super::finding::{Code, Finding};
use super::place::Place;
use super::remoteip::{self, ClientNaming};
use super::target::Target;
use super::walk::{Layout, LogDirective, LogKind, Server};
use crate::record::{Kind, Parser};

/// The LogFormat of an access log, as far as it is known.
pub(super) fn of_access(layout: &Layout, log: &LogDirective) -> Option<String> {
    let word = match log.kind {
        LogKind::Custom | LogKind::Global => log.words.get(1)?,
        LogKind::Transfer => layout.formats.get("")?,
        LogKind::Error => return None,
    };
    Some(layout.formats.get(word).unwrap_or(word).clone())
}

/// The ErrorLogFormat in force for a server; `None`: Apache's default.
pub(super) fn of_errors<'a>(layout: &'a Layout, server: &'a Server) -> Option<&'a str> {
    let main = layout.servers.first();
    let own = server.error_format.as_deref();
    own.or_else(|| main.and_then(|main| main.error_format.as_deref()))
}

/// Why no line of a server's error log can ban a client, whatever pipes it; `None`: lines can.
pub(super) fn unusable_errors(layout: &Layout, server: &Server) -> Option<String> {
    match Parser::new(Kind::Error, of_errors(layout, server)?) {
        Ok(parser) => parser.doubt().map(|doubt| format!("ErrorLog: {doubt}")),
        Err(error) => Some(cannot_match("ErrorLog", &error)),
    }
}

fn cannot_match(name: &str, error: &str) -> String {
    format!("pipeban cannot match the lines of this {name}: {error}")
}

/// The name of a format, if it has one.
pub(super) fn name(kind: Kind, format: &str) -> Option<String> {
    let parser = Parser::new(kind, format).ok()?;
    let names = [
        "combined",
        "vhost_combined",
        "common",
        "vhost_common",
        "pipeban",
    ];
    let same = |name: &&str| Parser::new(kind, name).is_ok_and(|named| named.reads_as(&parser));
    let mut names = names.into_iter().filter(|_| kind == Kind::Access);
    names.find(same).map(str::to_owned)
}

/// The argument of `--format` for lines of this format, quoted for a piped command in double
/// quotes: a name, or the format in single quotes. `None`: it cannot be quoted.
pub(super) fn argument(kind: Kind, format: &str) -> Option<String> {
    Parser::new(kind, format).ok()?;
    name(kind, format).or_else(|| in_quotes(format))
}

/// A word of a piped command in double quotes. `None`: it cannot be quoted.
pub(super) fn in_command(word: &str) -> Option<String> {
    let plain = !word.is_empty() && !word.contains([' ', '\t', '"', '\'', '\\', '\n']);
    match plain {
        true => Some(word.to_owned()),
        false => in_quotes(word),
    }
}

fn in_quotes(text: &str) -> Option<String> {
    if text.contains(['\'', '\n']) {
        return None;
    }
    // Apache's configuration removes one backslash of two. Before a blank or a quote, splitting the
    // command does so again.
    let mut word = String::new();
    let mut chars = text.chars().peekable();
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

/// Who may name the client.
pub(super) fn client_naming(layout: &Layout) -> ClientNaming {
    match (forgeable(layout), remoteip::client_naming(layout)) {
        (None, naming) | (Some((Kind::Access, _)), naming @ ClientNaming::AnyClient(_)) => naming,
        // Both together name the client in every line.
        (Some((_, place)), ClientNaming::ProxyProtocol(_)) => {
            ClientNaming::AnyClientOf(Kind::Error, place)
        }
        (Some((kind, place)), _) => ClientNaming::AnyClientOf(kind, place),
    }
}

/// The first piped log in which a client of its choice can be read: where pipeban expects the client,
/// Apache writes a client's words. The place is that of the log, or of `HostnameLookups`.
fn forgeable(layout: &Layout) -> Option<(Kind, Place)> {
    let mut logs = layout
        .servers
        .iter()
        .flat_map(|server| server.logs.iter().map(move |log| (server, log)));
    logs.find_map(|(server, log)| {
        let kind = log.kind.lines();
        let Target::Pipeban(pipe) = &log.target else {
            return None;
        };
        let written = match kind {
            Kind::Error => of_errors(layout, server)?.to_owned(),
            Kind::Access => of_access(layout, log)?,
        };
        let written = Parser::new(kind, &written).ok()?;
        let expected = Parser::new(kind, pipe.format.as_deref().unwrap_or("auto")).ok()?;
        let lookups = layout.lookups.as_ref();
        let lookups = lookups.filter(|_| written.is_client_by_name());
        let place = written.doubt().map(|_| &log.place).or(lookups)?;
        expected.doubt().is_none().then(|| (kind, place.clone()))
    })
}

/// Piped logs with lines that pipeban cannot read, or that can ban no client.
pub(super) fn findings(layout: &Layout, server: &Server, found: &mut Vec<Finding>) {
    for log in &server.logs {
        let Some((code, text)) = of_log(layout, server, log) else {
            continue;
        };
        let finding = Finding::at(&log.place, code, text);
        found.push(match (&layout.lookups, code) {
            (Some(lookups), Code::Names) => finding.without(lookups, "HostnameLookups"),
            _ => finding,
        });
    }
}

fn of_log(layout: &Layout, server: &Server, log: &LogDirective) -> Option<(Code, String)> {
    let Target::Pipeban(pipe) = &log.target else {
        return None;
    };
    let (kind, name) = (log.kind.lines(), log.kind.name());
    let format = match kind {
        Kind::Error => of_errors(layout, server).unwrap_or("default").to_owned(),
        Kind::Access => of_access(layout, log)?,
    };
    // Something else is wrong.
    if pipe.kind != Some(kind) || !pipe.wrong.is_empty() {
        return None;
    }
    // Without `%` it is a nickname that no LogFormat defines.
    if format != "default" && !format.contains('%') {
        return None;
    }
    let written = match Parser::new(kind, &format) {
        Ok(written) => written,
        Err(error) => return Some((Code::Format, cannot_match(name, &error))),
    };
    if let Some(doubt) = written.doubt() {
        return Some((Code::Format, format!("{name}: {doubt}")));
    }
    let expected = pipe.format.as_deref().unwrap_or("auto");
    if !Parser::new(kind, expected).is_ok_and(|expected| expected.reads_as(&written)) {
        let remedy = match argument(kind, &format) {
            _ if format == "default" => "delete `--format`".to_owned(),
            Some(argument) => format!("write `--format {argument}` after `log {kind}`"),
            None => "use a format without single quotes".to_owned(),
        };
        let text = format!(
            "pipeban expects the format `{expected}` and Apache writes another, so no line of \
             this {name} matches: {remedy}"
        );
        return Some((Code::Format, text));
    }
    let lookups = layout
        .lookups
        .as_ref()
        .filter(|_| written.is_client_by_name())?;
    let text = format!(
        "with HostnameLookups at {lookups}, %h in the format of this {name} is a host name, which \
         bans no client or another one: write %a instead"
    );
    Some((Code::Names, text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::directive::words;
    use super::super::files::tests::Fake;
    use super::super::walk::walk;
    use super::*;

    fn texts(text: &str) -> Vec<String> {
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
    fn an_unexpected_format_is_found_and_the_remedy_works() {
        let json = r#"LogFormat "{\"ip\":\"%a\",\"r\":\"%r\"}" j"#;
        let error = "ErrorLogFormat \"[%t] [pid %P] [client\\ %a] %M\"\nErrorLog \"|/usr/bin/pipeban log error\"";
        for text in [format!("{json}\n{PIPE} j"), error.to_owned()] {
            let found = texts(&text);
            let [finding] = found.as_slice() else {
                panic!("{found:?}")
            };
            let (_, remedy) = finding.split_once("write `").unwrap();
            let (remedy, place) = remedy.split_once("` after `").unwrap();
            let place = place.trim_end_matches('`');
            assert_eq!(
                texts(&text.replace(place, &format!("{place} {remedy}"))),
                [""; 0],
                "{text}"
            );
        }
    }

    #[test]
    fn formats_that_can_ban_no_client_are_found() {
        for (text, word) in [
            (
                format!(
                    "LogFormat \"%{{X-Forwarded-For}}i %l %u %t \\\"%r\\\" %>s %b\" p\n{PIPE} p"
                ),
                "what a client says",
            ),
            (format!("{PIPE} \"%U %h %t\""), "could be forged"),
            (format!("{PIPE} \"%h %{{SSL_TLS_SNI}}x\""), "cannot match"),
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
                "delete `--format`",
            ),
        ] {
            let found = texts(&text);
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
            let found = texts(&text);
            assert!(found.is_empty(), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_quoted_format_reads_as_the_same_format() {
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

    #[test]
    fn a_log_whose_client_is_a_header_lets_any_client_name_the_client() {
        let rest = r#"%l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\""#;
        let header = format!("LogFormat \"%{{X-Forwarded-For}}i {rest}\" combined\n");
        let remote = format!("LogFormat \"%h {rest}\" combined\n");
        let pipe =
            |options: &str| format!("CustomLog \"|/usr/bin/pipeban log {options}\" combined\n");
        let error = "ErrorLogFormat \"[%t] [%m:%l] [pid %P:tid %T] [client\\ %{X-Forwarded-For}i] %M\"\n\
                     ErrorLog \"|/usr/bin/pipeban log error /e\"\n";
        let protocol = "RemoteIPProxyProtocol On\n";
        for (text, expected) in [
            (format!("{header}{}", pipe("access /a")), "access 2"),
            (
                format!("{header}{}", pipe("access --format combined /a")),
                "access 2",
            ),
            // The worker knows that it can believe no client.
            (
                "CustomLog \"|/usr/bin/pipeban log access --format '%{X-Forwarded-For}i %t'\" \
                 \"%{X-Forwarded-For}i %t\""
                    .to_owned(),
                "connection",
            ),
            (format!("{remote}{}", pipe("access /a")), "connection"),
            (format!("{header}CustomLog /a combined\n"), "connection"),
            (
                format!("HostnameLookups On\n{remote}{}", pipe("access /a")),
                "access 1",
            ),
            (
                format!(
                    "{}TransferLog \"|/usr/bin/pipeban log access /a\"\n",
                    header.replace(" combined", "")
                ),
                "access 2",
            ),
            (error.to_owned(), "error 2"),
            (
                format!("{protocol}{header}{}", pipe("access /a")),
                "error 3",
            ),
        ] {
            let files = Fake::new(&[("/e/a.conf", &text)]);
            let layout = walk(&files, Path::new("/e/a.conf"), BTreeMap::new()).unwrap();
            let naming = match client_naming(&layout) {
                ClientNaming::Connection => "connection".to_owned(),
                ClientNaming::AnyClientOf(kind, place) => format!("{kind} {}", place.line),
                other => panic!("{other:?}"),
            };
            assert_eq!(naming, expected, "{text}");
        }
    }
}
