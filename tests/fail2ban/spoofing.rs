//! What clients smuggle into lines, against the web filters of the package: nobody else is hit,
//! and nobody gets away by it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use pipeban::filter::{Filter, Outcome, Subject, read};
use pipeban::record::{Kind, Parser};

use super::{FILTERS, SAMPLES, filters, installed, is_web, samples};

const ATTACKER: &str = "203.0.113.9";
const INNOCENT: &str = "198.51.100.7";
const TIME: &str = "[Sun Nov 22 11:00:33.366318 2026]";

/// Error lines of the attacker that carry his text where Apache puts a client's: Apache escapes
/// neither quotes nor brackets there.
const ERROR: [&str; 10] = [
    "[authz_core:error] [pid 9:tid 9] [client A:49148] AH01630: client denied by server configuration: /srv/x, referer: T",
    "[authz_core:error] [pid 9:tid 9] [client A:49148] AH01630: client denied by server configuration: /srv/T",
    "[auth_basic:error] [pid 9:tid 9] [client A:49042] AH01618: user T not found: /priv/",
    "[auth_basic:error] [pid 9:tid 9] [client A:49042] AH01617: user T: authentication failure for \"/priv/\": Password Mismatch",
    "[auth_basic:error] [pid 9:tid 9] [client A:49042] AH01617: user bob: authentication failure for \"/T\": Password Mismatch, referer: T",
    "[cgid:error] [pid 9:tid 9] [client A:49202] AH01215: stderr from /srv/cgi-bin/x: T",
    "[cgid:error] [pid 9:tid 9] [client A:49202] AH01264: script not found or unable to stat: /srv/cgi-bin/T",
    "[core:error] [pid 9:tid 9] (36)File name too long: [client A:60246] AH00127: Cannot map GET /T HTTP/1.1 to file",
    "[core:error] [pid 9:tid 9] [client A:49108] AH10244: invalid URI path (/T)",
    "[php:error] [pid 9:tid 9] [client A:49108] script '/srv/T' not found or unable to stat, referer: T",
];

/// Access lines; `T` is escaped as Apache does it.
const ACCESS: [&str; 8] = [
    r#"A - T [22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 401 5 "-" "-""#,
    r#"A - - [22/Nov/2026:11:00:32 +0000] "GET /T HTTP/1.1" 404 5 "-" "-""#,
    r#"A - - [22/Nov/2026:11:00:32 +0000] "T" 400 5 "-" "-""#,
    r#"A - - [22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 200 5 "T" "-""#,
    r#"A - - [22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 200 5 "-" "T""#,
    r#"A - - [22/Nov/2026:11:00:32 +0000] "POST /?a=T HTTP/1.0" 403 5 "T" "T""#,
    r#"shop.example.org:443 A - T [22/Nov/2026:11:00:32 +0000] "GET /T HTTP/1.1" 200 5 "T" "T""#,
    r#"A - T [22/Nov/2026:11:00:32 +0000] "GET /T HTTP/1.1" 500 5"#,
];

fn examined(filter: &Filter, kind: Kind, line: &[u8]) -> Option<Outcome> {
    let parser = Parser::new(kind, "auto").unwrap();
    let record = parser.parse(line)?;
    Some(filter.examine(&Subject::of(line, &record)))
}

fn host(outcome: Option<Outcome>) -> Option<IpAddr> {
    match outcome {
        Some(Outcome::Match { host, .. }) => Some(host),
        _ => None,
    }
}

/// What an attacker would write: each matching sample of the filter with the innocent's address,
/// as it stands and from where Apache's prefix ends.
fn texts(filter: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for sample in samples::of(filter, Path::new(SAMPLES)) {
        if let Some(host) = sample.host.filter(|_| sample.matches) {
            let whole = sample.line.replace(&host, INNOCENT);
            let inner = whole.split_once("[client ").map(|(_, rest)| rest);
            texts.extend(inner.map(|rest| format!("[client {rest}")));
            texts.push(whole);
        }
    }
    texts.push(format!("[client {INNOCENT}:1]"));
    texts.push(INNOCENT.to_owned());
    texts.sort();
    texts.dedup();
    texts
}

#[test]
fn no_line_of_a_client_hits_another_and_none_escapes_by_a_false_address() {
    if !installed() {
        return;
    }
    let (mut lines, mut hits, mut spoofs) = (0, 0, 0);
    for name in filters().iter().filter(|name| is_web(name)) {
        let file = Path::new(FILTERS).join(format!("{name}.conf"));
        let compiled = |options: &BTreeMap<String, String>| {
            let definition = read(name, &file, options, &|path| std::fs::read_to_string(path));
            definition.and_then(|definition| Filter::compile(&definition))
        };
        let aggressive = ("mode".to_owned(), "aggressive".to_owned());
        let filter = compiled(&BTreeMap::from([aggressive]))
            .or_else(|_| compiled(&BTreeMap::new()))
            .unwrap();
        for text in texts(name) {
            let harmless = text.replace(INNOCENT, "an.example");
            let error = ERROR.map(|form| (Kind::Error, format!("{TIME} {form}"), text.clone()));
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let access = ACCESS.map(|form| (Kind::Access, form.to_owned(), escaped.clone()));
            for (kind, form, text) in error.into_iter().chain(access) {
                let fill = |text: &str| fill(&form, text);
                let line = fill(&text);
                let outcome = examined(&filter, kind, line.as_bytes());
                lines += 1;
                let hit = host(outcome);
                assert!(
                    hit.is_none_or(|hit| hit.to_string() == ATTACKER),
                    "{name}: {hit:?} is hit by {line}"
                );
                hits += u32::from(hit.is_some());
                spoofs += u32::from(matches!(outcome, Some(Outcome::Spoof { .. })));
                let without = host(examined(&filter, kind, fill(&harmless).as_bytes()));
                assert!(
                    without.is_none() || hit.is_some(),
                    "{name}: the false address saves the attacker in {line}"
                );
            }
        }
    }
    println!("{lines} lines, {hits} hit their sender, {spoofs} are spoofs");
    assert!(lines > 1000 && hits > 100, "{lines} {hits}");
}

/// Puts the attacker's address for ` A` and his text for a `T` of its own.
fn fill(form: &str, text: &str) -> String {
    let mut line = String::new();
    let mut rest = form;
    while let Some(c) = rest.chars().next() {
        let before = line.chars().last().unwrap_or(' ');
        let after = rest.chars().nth(1).unwrap_or(' ');
        let alone = !before.is_ascii_alphanumeric() && !after.is_ascii_alphanumeric();
        match c {
            'A' if alone => line.push_str(ATTACKER),
            'T' if alone => line.push_str(text),
            _ => line.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    line
}

/// Lines of 8 KB that made fail2ban's patterns step back without end, against every filter.
#[test]
#[ignore = "a measurement: make bench"]
fn measure_slow_lines() {
    if !installed() {
        return;
    }
    let groups = "[a \"b\"] ".repeat(24);
    let lines = [
        format!(
            "A - - [22/Nov/2026:11:00:32 +0000] \"GET /{} HTTP/1.1\" 200 5 \"-\" \"-\"",
            "x".repeat(8100)
        ),
        format!(
            "A - - [22/Nov/2026:11:00:32 +0000] {} 200 5",
            "\"GETHTTP\"".repeat(740)
        ),
        format!(
            "A - - [22/Nov/2026:11:00:32 +0000] \"GET /{} HTTP/1.1\" 200 5 \"-\" \"-\"",
            "?=http://".repeat(905)
        ),
        format!("{TIME} [security2:error] [pid 9:tid 9] [client A:1] ModSecurity: {groups}x"),
    ]
    .map(|line| fill(&line, ""));
    let mut slowest = (std::time::Duration::ZERO, String::new());
    for name in filters() {
        let file = Path::new(FILTERS).join(format!("{name}.conf"));
        let definition = read(&name, &file, &BTreeMap::new(), &|path| {
            std::fs::read_to_string(path)
        });
        let filter = Filter::compile(&definition.unwrap()).unwrap();
        for (number, line) in (1..).zip(&lines) {
            for kind in [Kind::Error, Kind::Access] {
                // The first time compiles what the lines need.
                let _ = examined(&filter, kind, line.as_bytes());
                let start = std::time::Instant::now();
                let _ = examined(&filter, kind, line.as_bytes());
                let took = start.elapsed();
                if took > slowest.0 {
                    slowest = (took, format!("{name}, line {number}"));
                }
            }
        }
    }
    println!("slowest: {slowest:?}");
    assert!(
        slowest.0 < std::time::Duration::from_millis(5),
        "{slowest:?}"
    );
}
