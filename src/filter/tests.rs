use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::record::{Kind, Parser, time};

const TUTORIAL: &str = r"\[client <HOST>:\d+\] AH10244: invalid URI path \(.*cgi-bin.*bin/sh.*";

fn filter(fail: &[&str], ignore: &[&str]) -> Filter {
    Filter::compile(&definition(fail, ignore)).unwrap()
}

pub(super) fn definition(fail: &[&str], ignore: &[&str]) -> Definition {
    let patterns = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| PatternText {
                text: (*text).to_owned(),
                file: None,
                line: 1,
                column: 1,
                class: None,
                spoofable: false,
                certain: None,
            })
            .collect()
    };
    Definition {
        name: "f".to_owned(),
        file: PathBuf::from("f.conf"),
        failregex: patterns(fail),
        ignoreregex: patterns(ignore),
        prefregex: None,
        native: Vec::new(),
    }
}

fn outcome(filter: &Filter, kind: Kind, line: &str) -> Outcome {
    let parser = Parser::new(kind, "auto").unwrap();
    let record = parser.parse(line.as_bytes()).expect(line);
    filter.examine(&Subject::of(line.as_bytes(), &record))
}

fn hit(pattern: u32, host: &str) -> Outcome {
    Outcome::Match {
        pattern,
        weight: 1,
        host: host.parse().unwrap(),
    }
}

const HEAD: &str = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] ";

#[test]
fn the_filter_of_the_tutorial_works_unchanged() {
    let text = format!("[Definition]\nfailregex = {TUTORIAL}\nignoreregex =\n");
    let read = read("t", Path::new("t.conf"), &BTreeMap::new(), &|_: &Path| {
        Ok(text.clone())
    })
    .unwrap();
    let filter = Filter::compile(&read).unwrap();
    let line = format!(
        "{HEAD}[client 203.0.113.9:49108] AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/.%2e/bin/sh)"
    );
    assert_eq!(outcome(&filter, Kind::Error, &line), hit(1, "203.0.113.9"));
}

#[test]
fn a_false_address_bans_no_other_client_and_lets_none_escape() {
    let filter = filter(&[TUTORIAL], &[]);
    let fake = "[client 8.8.8.8:1] AH10244: invalid URI path (/cgi-bin/../bin/sh";
    let attack = "AH10244: invalid URI path (/cgi-bin/.%2e/bin/sh)";
    let denied = "AH01630: client denied by server configuration: /srv/x";
    for (rest, expected) in [
        (
            format!("[client 192.0.2.1:5] {denied}, referer: {fake}"),
            Outcome::Spoof { pattern: 1 },
        ),
        (
            format!("[client 192.0.2.1:5] {attack}, referer: {fake}"),
            hit(1, "192.0.2.1"),
        ),
        (
            format!("[client 192.0.2.1:5] AH10244: invalid URI path ({fake}/cgi-bin/bin/sh)"),
            hit(1, "192.0.2.1"),
        ),
        (
            format!("[client 192.0.2.1:5] {denied} {fake} [client 192.0.2.1:5] {attack}"),
            hit(1, "192.0.2.1"),
        ),
        // Another text that begins as the client's does is another client.
        (
            format!("[client 192.0.2.1:5] {denied}, referer: [client 192.0.2.11:1] {attack}"),
            Outcome::Spoof { pattern: 1 },
        ),
        (
            format!("[client 2001:db8::77:5555] {attack}"),
            hit(1, "2001:db8::77"),
        ),
        (
            format!("[client 2001:db8::7:0] {attack}"),
            hit(1, "2001:db8::7"),
        ),
        (
            format!("[client 2001:db8::7:0] {denied}, referer: [client 2001:db8::7:1:0] {attack}"),
            Outcome::Spoof { pattern: 1 },
        ),
        (
            format!("[client ::ffff:192.0.2.1:80] {attack}"),
            hit(1, "192.0.2.1"),
        ),
        (
            format!("AH00957: no client here {fake}"),
            Outcome::Spoof { pattern: 1 },
        ),
        (format!("[client 192.0.2.1:5] {denied}"), Outcome::Miss),
    ] {
        assert_eq!(
            outcome(&filter, Kind::Error, &format!("{HEAD}{rest}")),
            expected,
            "{rest}"
        );
    }
}

#[test]
fn an_ipv6_client_without_a_port_in_the_pattern_is_hit_as_apache_names_it() {
    // fail2ban takes the port for a part of the address here.
    let filter = filter(
        &[r"^\[\] \[\w+:error\] \[pid \d+:tid \d+\] \[client <HOST>(:\d{1,5})?\] AH01630"],
        &[],
    );
    for client in [
        "2001:db8::77:5555",
        "2001:db8::77:15555",
        "::1:80",
        "1:2:3:4:5:6:7:8:80",
    ] {
        let line = format!("{HEAD}[client {client}] AH01630: x");
        let host = client.rsplit_once(':').unwrap().0;
        assert_eq!(outcome(&filter, Kind::Error, &line), hit(1, host));
    }
}

#[test]
fn the_time_is_cut_out_without_its_brackets() {
    let access = filter(&[r#"^<HOST> - \S+ \[\] "GET /x"#], &[]);
    let line = r#"192.0.2.1 - u [22/Nov/2026:11:00:32 +0000] "GET /x HTTP/1.1" 200 1 "-" "-""#;
    assert_eq!(outcome(&access, Kind::Access, line), hit(1, "192.0.2.1"));
}

#[test]
fn patterns_are_tried_in_order_and_ignoreregex_after_them() {
    let filter = filter(
        &[
            r#"^<HOST> .*"GET /one"#,
            r#"^<HOST> .*"GET /"#,
            r#"from <HOST>"#,
        ],
        &[r#"agent-of-ours"#, r#"ours <HOST>"#],
    );
    let line = |path: &str, agent: &str| {
        format!(
            r#"192.0.2.1 - - [22/Nov/2026:11:00:32 +0000] "{path} HTTP/1.1" 404 1 "-" "{agent}""#
        )
    };
    for (path, agent, expected) in [
        ("GET /one", "-", hit(1, "192.0.2.1")),
        ("GET /two", "-", hit(2, "192.0.2.1")),
        ("GET /two", "agent-of-ours", Outcome::Ignored(1)),
        ("GET /two", "ours 192.0.2.1", Outcome::Ignored(2)),
        ("GET /two", "ours 192.0.2.2", hit(2, "192.0.2.1")),
        ("PUT /two", "from 192.0.2.1", hit(3, "192.0.2.1")),
        ("PUT /two", "from 192.0.2.9", Outcome::Spoof { pattern: 3 }),
        ("PUT /two", "from host.example", Outcome::Miss),
        ("PUT /two", "agent-of-ours", Outcome::Miss),
    ] {
        assert_eq!(
            outcome(&filter, Kind::Access, &line(path, agent)),
            expected,
            "{path} {agent}"
        );
    }
}

#[test]
fn a_pattern_may_have_hosts_of_one_family_and_two_hosts() {
    let line = |host: &str| format!("{HEAD}[client {host}:80] x y");
    let four = filter(&[r"client <IP4>:\d+\] x"], &[]);
    let six = filter(&[r"client <IP6>:\d+\] x"], &[]);
    assert_eq!(
        outcome(&four, Kind::Error, &line("192.0.2.1")),
        hit(1, "192.0.2.1")
    );
    assert_eq!(
        outcome(&four, Kind::Error, &line("2001:db8::1")),
        Outcome::Miss
    );
    assert_eq!(
        outcome(&six, Kind::Error, &line("2001:db8::1")),
        hit(1, "2001:db8::1")
    );
    assert_eq!(
        outcome(&six, Kind::Error, &line("192.0.2.1")),
        Outcome::Miss
    );
    let twice = filter(&[r"(?:x <HOST>|client <ADDR>:\d+\] x)"], &[]);
    assert_eq!(
        outcome(&twice, Kind::Error, &line("192.0.2.1")),
        hit(1, "192.0.2.1")
    );
}

#[test]
fn a_long_line_hits_its_client_only_by_the_part_that_is_surely_its() {
    let filter = filter(
        &[
            TUTORIAL,
            r"\[client <HOST>:\d+\] .*AH10244: invalid URI path \(/bad",
        ],
        &[],
    );
    let pad = "a".repeat(4000);
    let attack = "AH10244: invalid URI path (/cgi-bin/.%2e/bin/sh)";
    let other = format!("{HEAD}[client 192.0.2.2:5] AH10244: invalid URI path (/bad)");
    for (line, expected) in [
        (
            format!("{HEAD}[client 192.0.2.1:5] {attack}{pad}, referer: {other}"),
            hit(1, "192.0.2.1"),
        ),
        (
            format!("{HEAD}[client 192.0.2.1:5] AH01630: {pad}{other}"),
            Outcome::Spoof { pattern: 2 },
        ),
        (
            format!("{HEAD}[client 192.0.2.1:5] AH01630: {other}"),
            hit(2, "192.0.2.1"),
        ),
        (
            format!("{HEAD}[client 192.0.2.1:5] {attack}{pad}{pad}"),
            hit(1, "192.0.2.1"),
        ),
    ] {
        assert_eq!(
            outcome(&filter, Kind::Error, &line),
            expected,
            "{}",
            &line[..200]
        );
    }
}

#[test]
fn without_a_record_the_pattern_names_the_host() {
    let filter = filter(&[r"^\[\] login failed from <HOST>(?: port \d+)?$"], &[]);
    for (line, expected) in [
        (
            "[22/Nov/2026:11:00:32 +0000] login failed from 192.0.2.1 port 5",
            hit(1, "192.0.2.1"),
        ),
        (
            "[] login failed from [2001:db8::77:5555]",
            hit(1, "2001:db8::77:5555"),
        ),
        ("[] login failed from ::ffff:192.0.2.1", hit(1, "192.0.2.1")),
        ("[] login failed from 999.0.2.1", Outcome::Miss),
        ("[] login failed from host.example", Outcome::Miss),
    ] {
        assert_eq!(
            {
                let time = time::find(line.as_bytes()).map(|(at, _)| at);
                filter.examine(&Subject::raw(line.as_bytes(), time))
            },
            expected,
            "{line}"
        );
    }
}

fn with_prefix(prefix: &str, fail: &[&str], ignore: &[&str]) -> Filter {
    let mut definition = definition(fail, ignore);
    let prefix = super::tests::definition(&[prefix], &[]).failregex.pop();
    definition.prefregex = prefix;
    Filter::compile(&definition).unwrap()
}

#[test]
fn a_prefix_names_the_client_and_passes_its_content_on() {
    let filter = with_prefix(
        r"^\[\] \[(?!evasive)\S+:\S+\] \[pid \d+:tid \d+\] .*\[client <HOST>(?::\d{1,5})?\] (?:AH\d+: )?<F-CONTENT>.+</F-CONTENT>$",
        &[
            r"^user <F-USER>\S*</F-USER> not found",
            r"^from <ADDR>:",
            r"^<F-NOFAIL>fine</F-NOFAIL>",
            "^fine",
        ],
        &["^user good ", "never"],
    );
    for (rest, expected) in [
        (
            "[client 192.0.2.1:5] AH01618: user x not found",
            hit(1, "192.0.2.1"),
        ),
        (
            "[client 2001:db8::7:5] AH01618: user x not found",
            hit(1, "2001:db8::7"),
        ),
        (
            "[client 192.0.2.1:5] AH01618: user good not found",
            Outcome::Ignored(1),
        ),
        (
            "[client 192.0.2.1:5] AH01618: no user x not found",
            Outcome::Miss,
        ),
        ("[client 192.0.2.1:5] fine", Outcome::Miss),
        // The prefix skips the client and finds the text it wrote.
        (
            "[client 192.0.2.1:5] x [client 192.0.2.2:5] user x not found",
            Outcome::Spoof { pattern: 1 },
        ),
        (
            "[client 192.0.2.1:5] user x not found, [client 192.0.2.2:5] y",
            hit(1, "192.0.2.1"),
        ),
        (
            "[client 192.0.2.1:5] from 192.0.2.1: x",
            hit(2, "192.0.2.1"),
        ),
        (
            "[client 192.0.2.1:5] from 192.0.2.2: x",
            Outcome::Spoof { pattern: 2 },
        ),
        ("AH01618: user x not found", Outcome::Miss),
    ] {
        let line = format!("{HEAD}{rest}");
        assert_eq!(outcome(&filter, Kind::Error, &line), expected, "{rest}");
    }
}

#[test]
fn a_pattern_that_does_not_compile_is_reported_at_its_place() {
    for (pattern, word) in [
        ("no host", "no <HOST>"),
        ("<HOST>(", "invalid pattern"),
        ("<HOST>(?=x", "invalid pattern"),
        (r"<HOST>(?P=a)", "invalid pattern"),
        (r"<HOST>(a)\1", "name the group"),
        ("<HOST>(?:x{1000}){1000}", "grows beyond"),
        ("<HOST> a<SKIPLINES>b", "leave this filter to fail2ban"),
        (
            "^<F-MLFID>a</F-MLFID> <HOST>",
            "leave this filter to fail2ban",
        ),
    ] {
        let problems = Filter::compile(&definition(&["<HOST>", pattern], &[])).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].message.contains(word),
            "{pattern}: {}",
            problems[0].message
        );
        // The live path leaves it out; the others keep their numbers.
        let lenient = Filter::lenient(&definition(&[pattern, r"\[client <HOST>:"], &[]));
        let line = format!("{HEAD}[client 192.0.2.1:5] x");
        assert_eq!(outcome(&lenient, Kind::Error, &line), hit(2, "192.0.2.1"));
    }
    let line = format!("{HEAD}[client 192.0.2.1:5] x");
    let without_ignore = Filter::lenient(&definition(&[r"\[client <HOST>:"], &["("]));
    assert_eq!(outcome(&without_ignore, Kind::Error, &line), Outcome::Miss);
}

proptest! {
    // Compiling is slow without optimisation.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The pattern with any address, which is tried first, must miss nothing.
    #[test]
    fn every_address_as_apache_writes_it_is_some_address(
        addr in any::<std::net::IpAddr>(), zeros in any::<u8>(), mapped in any::<[u8; 4]>(),
    ) {
        let filter = filter(&[r"^\[\] \[x:error\] \[pid 1\] \[client <HOST>:\d+\] y$"], &[]);
        let mut segments = match addr { std::net::IpAddr::V6(v6) => v6.segments(), std::net::IpAddr::V4(_) => [1; 8] };
        for (bit, segment) in segments.iter_mut().enumerate() {
            if zeros & (1 << bit) != 0 { *segment = 0; }
        }
        let sparse = std::net::Ipv6Addr::from(segments);
        let mapped = std::net::Ipv4Addr::from(mapped);
        for text in [addr.to_string(), sparse.to_string(), format!("::ffff:{mapped}"), format!("::{mapped}"), format!("fe80::{}%eth0", mapped.octets()[0])] {
            let line = format!("[Sun Nov 22 11:00:33 2026] [x:error] [pid 1] [client {text}:80] y");
            let outcome = outcome(&filter, Kind::Error, &line);
            let matched = matches!(outcome, Outcome::Match { .. });
            prop_assert!(matched, "{} {:?}", line, outcome);
        }
    }

    #[test]
    fn no_pattern_text_makes_reading_or_compiling_panic(
        pattern in r"[<>HOST\[\]\\(){}|?*+,0-9a-zF/%^$.&~-]{0,40}", text in r"(?s).{0,200}",
    ) {
        let _ = Filter::compile(&definition(&[&pattern, &format!("<HOST>{pattern}")], &[&pattern]));
        let text = format!("[Definition]\nfailregex = {pattern}\n {text}\n");
        let _ = read("f", Path::new("f"), &BTreeMap::new(), &|_: &Path| Ok(text.clone()));
    }
}

#[test]
fn a_line_that_hits_a_limit_hits_no_client() {
    let line = |length: usize| format!("{HEAD}[client 192.0.2.1:1] bad {}", "x".repeat(length));
    let of = |filter: &Filter, length| outcome(filter, Kind::Error, &line(length));
    let plain = r"\[client <HOST>:\d+\] bad";
    // A pattern does not match, an ignoreregex does.
    let looks = filter(&[r"\[client <HOST>:\d+\] bad(?!good)"], &[]);
    assert_eq!(of(&looks, 9), hit(1, "192.0.2.1"));
    assert_eq!(of(&looks, 9000), Outcome::Miss);
    assert_eq!(looks.limits_hit(), 1);
    let spares = filter(&[plain], &[r"bad (?!x)"]);
    assert_eq!(of(&spares, 9), hit(1, "192.0.2.1"));
    assert_eq!(of(&spares, 9000), Outcome::Ignored(1));
    let raw = line(9000);
    let raw = Subject::raw(raw.as_bytes(), None);
    assert_eq!(spares.examine(&raw), Outcome::Ignored(1));
}

#[test]
fn a_pattern_is_found_by_its_number_and_place() {
    let definition = definition(&["a", "b"], &["c"]);
    for (at, text) in [
        (PatternAt::Fail(2), Some("b")),
        (PatternAt::Ignore(1), Some("c")),
        (PatternAt::Fail(0), None),
        (PatternAt::Fail(3), None),
        (PatternAt::Prefix, None),
    ] {
        let found = definition.pattern(at);
        assert_eq!(found.map(|pattern| pattern.text.as_str()), text, "{at}");
    }
}
