//! Texts that clients smuggle into lines, against the web filters of the package: no other client
//! is hit, and no attacker escapes by them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use pipeban::config::{self, Config};
use pipeban::disk::{self, OnDisk};
use pipeban::filter::matcher::{InputKind, Matcher};
use pipeban::filter::{Definition, Filter, read};
use pipeban::record::{Kind, Parser};
use serde_json::json;

use super::{FILTERS, SAMPLES, filters, installed, is_web, oracle, samples};

const ATTACKER: &str = "203.0.113.9";
const INNOCENT: &str = "198.51.100.7";
const TIME: &str = "[Sun Nov 22 11:00:33.366318 2026]";
/// The client does not know the number of a process.
const GUESSED: &str = "[Sun Nov 22 11:00:34.100000 2026] [auth_basic:error] [pid 4711:tid 4711]";

/// Error lines with the attacker's text where Apache writes a client's: Apache escapes neither
/// quotes nor brackets there.
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

/// Access lines in custom formats; `T` is the X-Forwarded-For.
const FORWARDED: [(&str, &str); 6] = [
    (
        r#"%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\" \"%{X-Forwarded-For}i\""#,
        r#"A - - [22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 404 5 "-" "-" "T""#,
    ),
    (
        r#"\"%{X-Forwarded-For}i\" %h %l %u %t \"%r\" %>s %b"#,
        r#""T" A - - [22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 404 5"#,
    ),
    (
        r#"%{X-Forwarded-For}i %h %l %u %t \"%r\" %>s %b"#,
        r#"T A - - [22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 404 5"#,
    ),
    (
        r#"%h %{X-Forwarded-For}i %t \"%r\" %>s %b"#,
        r#"A T [22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 404 5"#,
    ),
    (
        r#"%v %a (%{X-Forwarded-For}i) %u %t \"%r\" %>s %b"#,
        r#"shop.example.org A (T) - [22/Nov/2026:11:00:32 +0000] "GET / HTTP/1.1" 404 5"#,
    ),
    (
        r#"%t %a \"%r\" %>s %b %{X-Forwarded-For}i"#,
        r#"[22/Nov/2026:11:00:32 +0000] A "GET / HTTP/1.1" 404 5 T"#,
    ),
];

/// Output of a CGI script to stderr, with the attacker's text: mod_cgid writes such lines to the
/// error log without a prefix.
const STDERR: [&str; 4] = [
    "Use of uninitialized value in T at /srv/cgi-bin/x.pl line 3.",
    "x.sh: line 2: T: command not found",
    "Traceback: ValueError: 'T'",
    "DEBUG T",
];

/// Blocks of the error log in which long lines were torn: `{pad}` makes a line longer than what one
/// write to a pipe keeps whole, `{line}` begins a line of Apache's as a client may guess it.
const TORN: [&str; 5] = [
    "[core:error] [pid 9:tid 9] [client A:1] AH00128: File does not exist: /srv/{pad}\nT",
    "[core:error] [pid 9:tid 9] [client A:1] AH00128: File does not exist: /srv/{pad}\n{line} T",
    "[core:error] [pid 9:tid 9] [client A:1] AH00128: File does not exist: /srv/{pad}{line} T",
    "[core:error] [pid 9:tid 9] [client A:1] AH00128: File does not exist: /srv/{pad}{line} [client B:7] AH01276: Cannot serve directory /srv/: T",
    "[core:error] [pid 9:tid 9] [client A:1] AH00128: File does not exist: /srv/{pad}, referer: T",
];

/// Texts made of samples, for each filter.
const MOST_SAMPLES: usize = 16;

/// Texts that imitate the lines which filters look for, beside those of the filter itself.
const TEXTS: [&str; 8] = [
    "[client B:1] AH01618: user admin not found: /",
    "[client B:1] AH10244: invalid URI path (/cgi-bin/../../bin/sh)",
    "[Sun Nov 22 11:00:34.000001 2026] [core:error] [pid 8:tid 8] [client B:1] AH01630: client denied by server configuration: /srv/x",
    "B - - [22/Nov/2026:11:00:33 +0000] \"GET /wp-login.php HTTP/1.1\" 401 5 \"-\" \"-\"",
    "\" 404 5 \"-\" \"-\" B - admin [22/Nov/2026:11:00:33 +0000] \"GET /.env",
    "x, client: B, server: y, request: \"GET / HTTP/1.1\", host: \"z\"",
    "B, A] [client B] client=B [B]",
    "\\n[client B] (13)Permission denied: ",
];

/// Texts of an attacker: each matching sample of the filter with the innocent's address,
/// whole, and from the end of Apache's prefix on.
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
    // Of many samples some, from everywhere in the file.
    texts.sort();
    texts.dedup();
    let step = texts.len().div_ceil(MOST_SAMPLES).max(1);
    let mut texts: Vec<String> = texts.into_iter().step_by(step).collect();
    texts.extend(TEXTS.map(|text| fill(text, "")));
    texts.push(format!("[client {INNOCENT}:1]"));
    texts.push(INNOCENT.to_owned());
    texts.sort();
    texts.dedup();
    texts
}

/// Counts of one filter.
#[derive(Default)]
struct Count {
    lines: usize,
    /// Lines that hit another client than their sender.
    innocents: usize,
    /// Lines that hit their sender without the false address, and do not with it.
    escaped: usize,
}

impl Count {
    fn add(&mut self, hits: &[IpAddr], harmless: &[IpAddr]) {
        let attacker: IpAddr = ATTACKER.parse().unwrap();
        self.lines += 1;
        self.innocents += usize::from(hits.iter().any(|host| *host != attacker));
        self.escaped += usize::from(harmless.contains(&attacker) && !hits.contains(&attacker));
    }
}

/// A block of the log, and the same with a harmless text for the false address.
struct Case {
    kind: Kind,
    format: String,
    block: String,
    harmless: String,
}

/// Every place of a client's text, with each text.
fn cases(filter: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for text in texts(filter) {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut add = |kind, format: &str, form: &str, text: &str| {
            let harmless = text.replace(INNOCENT, "an.example");
            cases.push(Case {
                kind,
                format: format.to_owned(),
                block: fill(form, text),
                harmless: fill(form, &harmless),
            });
        };
        for form in ERROR.iter().chain(&TORN) {
            add(Kind::Error, "auto", &format!("{TIME} {form}"), &text);
        }
        for form in STDERR {
            add(Kind::Error, "auto", form, &text);
        }
        for form in ACCESS {
            add(Kind::Access, "auto", form, &escaped);
        }
        for (format, form) in FORWARDED {
            add(Kind::Access, format, form, &escaped);
        }
    }
    cases
}

/// Jails of this filter on the error log and on the access log.
fn jails(definition: &Definition) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pipeban.toml");
    std::fs::create_dir(directory.path().join("filters.d")).unwrap();
    let filter = directory.path().join("filters.d/f.conf");
    std::fs::write(filter, "[Definition]\nfailregex = <HOST>\n").unwrap();
    let jail =
        |name, log| format!("[jails.{name}]\nenabled = true\nfilter = \"f\"\nlog = \"{log}\"\n");
    let paths = format!("[paths]\nshare = {:?}\n", directory.path());
    std::fs::write(&file, paths + &jail("e", "error") + &jail("a", "access")).unwrap();
    let mut config = disk::load(&file).unwrap();
    config.filters.insert("f".to_owned(), definition.clone());
    config
}

/// The live path with this filter, a matcher for each kind and format. A format in which the client
/// follows unquoted text of the client is refused: no client is hit.
struct Live {
    config: Config,
    matchers: BTreeMap<String, Option<Matcher>>,
}

impl Live {
    fn hits(&mut self, kind: Kind, format: &str, block: &str) -> Vec<IpAddr> {
        let matcher = self
            .matchers
            .entry(format!("{kind:?} {format}"))
            .or_insert_with(|| {
                let parser = Parser::new(kind, format).ok();
                assert!(
                    parser.is_some() || format.starts_with("%{X-Forwarded-For}i"),
                    "{format}"
                );
                let rules = config::rules(&self.config, kind);
                parser.map(|parser| Matcher::new(&rules, InputKind::Apache(kind, parser)))
            });
        let result = matcher
            .as_ref()
            .map(|m| m.examine(format!("{block}\n").as_bytes()));
        let hits = result.into_iter().flat_map(|result| result.hits);
        hits.map(|hit| hit.client).collect()
    }
}

/// The filter with everything it can do.
fn definition(name: &str) -> (Definition, BTreeMap<String, String>) {
    let file = Path::new(FILTERS).join(format!("{name}.conf"));
    let aggressive = BTreeMap::from([("mode".to_owned(), "aggressive".to_owned())]);
    [aggressive, BTreeMap::new()]
        .into_iter()
        .find_map(|options| {
            let definition = read(name, &file, &options, &OnDisk).ok()?;
            Filter::compile(&definition).ok()?;
            Some((definition, options))
        })
        .unwrap()
}

/// Torn lines are longer.
const LONG: usize = 4096;

/// The counts of the installed fail2ban on the same lines, except the torn ones.
fn of_fail2ban(name: &str, options: &BTreeMap<String, String>, cases: &[Case]) -> Count {
    // Lines of 4 KB take it too long.
    let short = cases.iter().filter(|case| case.block.len() < LONG);
    let blocks = short.flat_map(|case| [&case.block, &case.harmless]);
    let lines: Vec<&str> = blocks.clone().flat_map(|block| block.lines()).collect();
    let question = json!({
        "ask": "hosts", "base": "/etc/fail2ban", "name": name, "options": options, "lines": lines,
    });
    let answer = oracle::ask(&[question]).pop().unwrap();
    let found = answer["hosts"].as_array();
    let mut answers = found.unwrap_or_else(|| panic!("{name}: {answer}")).iter();
    let mut hits = blocks.map(|block| -> Vec<IpAddr> {
        let of_lines = answers.by_ref().take(block.lines().count());
        of_lines
            .flat_map(|hosts| hosts.as_array().unwrap())
            .filter_map(|host| host.as_str()?.parse().ok())
            .collect()
    });
    let mut count = Count::default();
    while let (Some(found), Some(harmless)) = (hits.next(), hits.next()) {
        count.add(&found, &harmless);
    }
    count
}

#[test]
fn no_line_of_a_client_hits_another_and_none_escapes_by_a_false_address() {
    if !installed() {
        return;
    }
    let (mut total, mut total_theirs, mut hit) = (Count::default(), Count::default(), 0);
    println!(
        "{:24} {:>6} {:>22} {:>22}",
        "", "lines", "pipeban", "fail2ban"
    );
    for name in filters().iter().filter(|name| is_web(name)) {
        let (definition, options) = definition(name);
        let mut live = Live {
            config: jails(&definition),
            matchers: BTreeMap::new(),
        };
        let cases = cases(name);
        let mut count = Count::default();
        for case in &cases {
            let mut hits = |block| live.hits(case.kind, &case.format, block);
            let (found, harmless) = (hits(&case.block), hits(&case.harmless));
            let before = (count.innocents, count.escaped);
            count.add(&found, &harmless);
            hit += usize::from(!found.is_empty());
            assert_eq!(
                (count.innocents, count.escaped),
                before,
                "{name}, {}: {found:?} instead of {harmless:?} by {}",
                case.format,
                case.block
            );
        }
        let theirs = of_fail2ban(name, &options, &cases);
        let show = |count: &Count| format!("{} banned, {} escape", count.innocents, count.escaped);
        println!(
            "{name:24} {:6} {:>22} {:>22}",
            count.lines,
            show(&count),
            show(&theirs)
        );
        for (total, count) in [(&mut total, count), (&mut total_theirs, theirs)] {
            total.lines += count.lines;
            total.innocents += count.innocents;
            total.escaped += count.escaped;
        }
    }
    println!(
        "{} lines, {hit} hit their sender; innocents banned: pipeban {}, fail2ban {}; attackers who \
         escape: {}, {}",
        total.lines, total.innocents, total_theirs.innocents, total.escaped, total_theirs.escaped
    );
    assert!(total.lines > 8000 && hit > 100, "{} {hit}", total.lines);
    // The attacks work: fail2ban bans innocents.
    assert!(total_theirs.innocents > 20, "{}", total_theirs.innocents);
}

/// Replaces a lone `A` by the attacker's address, `T` by the attacker's text and `B` by the
/// innocent's address.
fn fill(form: &str, text: &str) -> String {
    let form = form
        .replace("{pad}", &"x".repeat(4200))
        .replace("{line}", GUESSED);
    let mut line = String::new();
    let mut rest = form.as_str();
    while let Some(c) = rest.chars().next() {
        let before = line.chars().last().unwrap_or(' ');
        let after = rest.chars().nth(1).unwrap_or(' ');
        let alone = !before.is_ascii_alphanumeric() && !after.is_ascii_alphanumeric();
        match c {
            'A' if alone => line.push_str(ATTACKER),
            'B' if alone => line.push_str(INNOCENT),
            'T' if alone => line.push_str(text),
            _ => line.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    line
}

/// By `make bench`.
#[cfg(feature = "measure")]
mod measure {
    use super::*;
    use pipeban::filter::{Outcome, Subject};

    fn examined(filter: &Filter, kind: Kind, line: &[u8]) -> Option<Outcome> {
        let parser = Parser::new(kind, "auto").unwrap();
        let record = parser.parse(line)?;
        Some(filter.examine(&Subject::of(line, &record)))
    }

    /// Lines of 8 KB that made fail2ban's patterns step back without end, against every filter.
    #[test]
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
            let definition = read(&name, &file, &BTreeMap::new(), &OnDisk);
            let Ok(filter) = definition.and_then(|definition| Filter::compile(&definition)) else {
                continue;
            };
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
}
