//! A line rendered as Apache renders it, in any format, is read as it was meant.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::format::{Format, Step};
use super::super::shape::{Field, Item, Reading};
use super::super::{Kind, Parser, access, unescape};
use super::text;
use super::{escaped, hostile};

/// One field: its directive, and what one request makes of it.
#[derive(Debug, Clone)]
struct Rendered {
    directive: String,
    /// As in the line.
    value: String,
    /// What the client sent, where Apache escaped it.
    sent: Option<Vec<u8>>,
}

fn plain(directive: &str, value: impl ToString) -> Rendered {
    Rendered {
        directive: directive.to_owned(),
        value: value.to_string(),
        sent: None,
    }
}

fn sent(directive: &str, bytes: Vec<u8>) -> Rendered {
    let value = match (directive, bytes.as_slice()) {
        ("%u", []) => r#""""#.to_owned(),
        _ => escaped(&bytes),
    };
    Rendered {
        directive: directive.to_owned(),
        value,
        sent: Some(bytes),
    }
}

const WORDS_OF_A_CLIENT: [&str; 14] = [
    "%r",
    "%u",
    "%U",
    "%q",
    "%m",
    "%H",
    "%f",
    "%V",
    "%{User-Agent}i",
    "%{Cookie}C",
    "%{X}e",
    "%{X}n",
    "%{X}^ti",
    "%{Location}o",
];
const NUMBERS: [&str; 20] = [
    "%s",
    "%>s",
    "%b",
    "%B",
    "%O",
    "%I",
    "%S",
    "%D",
    "%T",
    "%{ms}T",
    "%k",
    "%P",
    "%{tid}P",
    "%p",
    "%{remote}p",
    "%^FB",
    "%{sec}t",
    "%{usec}t",
    "%!200,304O",
    "%404,500b",
];
const WORDS: [(&str, &str); 8] = [
    ("%l", "-"),
    ("%L", "aZ09+/@k"),
    ("%X", "+"),
    ("%R", "proxy:fcgi://localhost"),
    ("%{SSL_PROTOCOL}x", "TLSv1.3"),
    ("%{hextid}P", "7f3a00"),
    ("%v", "a.example"),
    ("%v", "[::1]"),
];
const TIMES: [(&str, &str); 6] = [
    ("%t", "[22/Nov/2026:11:00:32 +0000]"),
    ("%{begin}t", "[22/Nov/2026:11:00:32 -0930]"),
    ("%{end:%T}t", "11:00:32"),
    ("%{%Y-%m-%dT%H:%M:%S%z}t", "2026-11-22T11:00:32+0100"),
    ("%{%d %b %Y, %I %p}t", "22 Nov 2026, 11 AM"),
    ("%!200t", "-"),
];
/// Between fields, as in the line.
const SEPARATORS: [&str; 12] = [
    " ",
    " ",
    " ",
    "\"",
    " \"",
    "\" ",
    "\" \"",
    "\t",
    " | ",
    ";",
    r#"","key":""#,
    " - ",
];

fn any_field() -> impl Strategy<Value = Rendered> {
    prop_oneof![
        4 => (select(&["%a", "%h", "%{c}a", "%A"][..]), any::<IpAddr>())
            .prop_map(|(directive, address)| plain(directive, address)),
        3 => (select(&NUMBERS[..]), 0u32..4_000_000_000)
            .prop_map(|(directive, number)| plain(directive, number)),
        2 => select(&WORDS[..]).prop_map(|(directive, value)| plain(directive, value)),
        2 => select(&TIMES[..]).prop_map(|(directive, value)| plain(directive, value)),
        1 => select(&["%h", "%400i", "%!200u", "%b", "%a"][..]).prop_map(|d| plain(d, "-")),
        5 => (select(&WORDS_OF_A_CLIENT[..]), hostile())
            .prop_map(|(directive, bytes)| sent(directive, bytes)),
    ]
}

/// A format, the line that Apache writes in it, and where each value is.
#[derive(Debug, Clone)]
struct Line {
    format: String,
    line: String,
    fields: Vec<(Rendered, usize)>,
}

fn any_line() -> impl Strategy<Value = Line> {
    let fields = prop::collection::vec((any_field(), select(&SEPARATORS[..])), 1..9);
    let heads = select(&["", "", r#"{"key":""#, "["][..]);
    (heads, fields, any::<Index>(), any::<bool>()).prop_map(
        |(head, mut fields, at, ends_in_field)| {
            // Most formats name the client.
            let at = at.index(fields.len() + 1);
            fields.insert(at, (plain("%a", "198.51.100.77"), " "));
            if ends_in_field && let Some((_, separator)) = fields.last_mut() {
                *separator = "";
            }
            let mut line = Line {
                format: head.to_owned(),
                line: head.to_owned(),
                fields: Vec::new(),
            };
            for (field, separator) in fields {
                line.format.push_str(&field.directive);
                line.format.push_str(&separator.replace('\t', "\\t"));
                let start = line.line.len();
                line.line.push_str(&field.value);
                line.line.push_str(separator);
                line.fields.push((field, start));
            }
            line
        },
    )
}

fn fields(format: &Format) -> Vec<&Field> {
    let mut fields = Vec::new();
    for step in &format.steps {
        let (items, closed) = match step {
            Step::Item(item) => (vec![item], None),
            Step::Open(open) => (open.head.iter().chain(&open.tail).collect(), None),
            Step::Closed(field, _) => (Vec::new(), Some(field)),
        };
        fields.extend(closed);
        fields.extend(items.into_iter().filter_map(|item| match item {
            Item::Field(field) => Some(field),
            Item::Literal(_) => None,
        }));
    }
    fields
}

/// Whether no two words of a client's are in one part of the line that no fence divides.
fn is_certain(format: &Format) -> bool {
    format.steps.iter().all(|step| match step {
        Step::Open(open) => open.head.len() == 1,
        _ => true,
    })
}

/// The directives that may name the client, the best first.
const CLIENTS: [&str; 3] = ["%a", "%h", "%{c}a"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_apache_renders_in_any_format_is_read_as_it_was_meant(line in any_line()) {
        let format = Format::compile(&line.format).unwrap();
        let mut reading = Reading::new(line.line.as_bytes());
        let read = access::read(&format, line.line.as_bytes(), &mut reading).map(|()| reading);
        if is_certain(&format) {
            let read = read.as_ref().expect("a certain format is read");
            let fields = fields(&format);
            // Times side by side are one field.
            let joined = fields.iter().any(|field| field.name.matches("}t").count() > 1);
            prop_assert!(joined || fields.len() == line.fields.len());
            for (field, (rendered, _)) in fields.iter().zip(&line.fields).filter(|_| !joined) {
                prop_assert_eq!(&field.name, &rendered.directive);
                let value = read.values[&std::ptr::from_ref(*field).addr()];
                prop_assert_eq!(value, rendered.value.as_bytes(), "{}", field.name);
                if let Some(sent) = &rendered.sent && rendered.value != r#""""# {
                    let value = unescape(value);
                    prop_assert_eq!(value.as_ref(), sent.as_slice());
                }
            }
        }
        let best = CLIENTS.iter().find(|name| line.fields.iter().any(|(f, _)| f.directive == **name));
        let (client, start) = line.fields.iter().find(|(f, _)| Some(&f.directive.as_str()) == best).unwrap();
        let parser = Parser::new(Kind::Access, &line.format).unwrap();
        let record = parser.parse(line.line.as_bytes());
        if let Some(found) = record.as_ref().map(|record| record.client.unwrap()) {
            // Nobody but the client where Apache wrote it.
            let at = found.text.as_ptr().addr() - line.line.as_ptr().addr();
            prop_assert_eq!(at, *start);
            prop_assert_eq!(found.text, client.value.as_bytes());
        }
        let addressed = client.value.parse::<IpAddr>().is_ok();
        let sure = parser.doubt().is_none() && is_certain(&format);
        prop_assert!(record.is_some() || !addressed || !sure);
        prop_assert!(record.is_none() || parser.doubt().is_none());
    }

    #[test]
    fn no_line_of_another_kind_names_a_client_elsewhere(line in any_line(), other in any_line()) {
        let parser = Parser::new(Kind::Access, &line.format).unwrap();
        if let Some(record) = parser.parse(other.line.as_bytes()) {
            let client = record.client.unwrap();
            let at = client.text.as_ptr().addr() - other.line.as_ptr().addr();
            prop_assert_eq!(&other.line.as_bytes()[at..at + client.text.len()], client.text);
        }
    }
}

/// A part of an ErrorLogFormat; what Apache writes for it, where it writes it.
type ErrorPart = (&'static str, Option<String>);

fn error_parts() -> impl Strategy<Value = (Vec<ErrorPart>, IpAddr, u16, u32)> {
    let values = (any::<IpAddr>(), any::<u16>(), any::<u32>());
    let some = prop::collection::vec(any::<bool>(), 8);
    (values, some, prop::collection::vec(any::<bool>(), 8)).prop_map(
        |((client, port, pid), used, written)| {
            let optional = [
                (" [%-m:%l]", "[core:error]".to_owned()),
                (" [R:%L]", "[R:aZ09+/x]".to_owned()),
                (" [C:%{C}L]", "[C:bZ09+/x]".to_owned()),
                (" %7F:", "http_core.c(123):".to_owned()),
                (" %E:", "(36)File name too long:".to_owned()),
                (" {%A}", format!("{{{client}:{port}}}")),
                (" k%k", format!("k{port}")),
                (" %v", "a.example".to_owned()),
            ];
            let mut parts = vec![
                (
                    "[%{u}t]",
                    Some("[Sun Nov 22 11:00:33.366318 2026]".to_owned()),
                ),
                (" [pid %P]", Some(format!(" [pid {pid}]"))),
            ];
            for (((format, value), used), written) in optional.into_iter().zip(used).zip(written) {
                // A level and a name never lack.
                let written = written || format == " [%-m:%l]";
                if used {
                    parts.push((format, written.then(|| format!(" {value}"))));
                }
            }
            (parts, client, port, pid)
        },
    )
}

proptest! {
    #[test]
    fn an_error_line_of_any_format_names_the_client_and_nobody_else(
        (mut parts, client, port, pid) in error_parts(), at in any::<Index>(),
        connected in any::<bool>(), message in hostile(),
    ) {
        let at = 2 + at.index(parts.len() - 1);
        let field = connected.then(|| format!(" [client {client}:{port}]"));
        parts.insert(at, (" [client\\ %a]", field));
        let format: String = parts.iter().map(|(format, _)| *format).collect();
        let head: String = parts.iter().filter_map(|(_, value)| value.clone()).collect();
        // A server's messages begin with their number.
        let message = format!(" {}{}", if connected { "" } else { "AH00489: " }, escaped(&message));
        let line = format!("{head}{message}, referer: x");
        let parser = Parser::new(Kind::Error, &format!("{format} %M% ,\\ referer:\\ %{{Referer}}i")).unwrap();
        prop_assert_eq!(parser.doubt(), None);
        let record = parser.parse(line.as_bytes()).unwrap();
        prop_assert_eq!(record.pid, Some(u64::from(pid)));
        prop_assert_eq!(&line[record.time.unwrap()], "Sun Nov 22 11:00:33.366318 2026");
        let found = text(record.client.map(|c| c.text)).map(str::to_owned);
        prop_assert_eq!(found, connected.then(|| client.to_string()));
        let named = parts.iter().any(|(format, value)| *format == " %v" && value.is_some());
        prop_assert!(!named || record.vhost == Some(b"a.example"));
    }
}
