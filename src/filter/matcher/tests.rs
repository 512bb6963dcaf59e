use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::tests::definition;
use super::*;
use crate::record::Kind;

/// Name, failregex, ignoreregex.
type TestFilter<'t> = (&'t str, &'t [&'t str], &'t [&'t str]);
/// Name, filter, vhost, not_vhost.
type TestJail<'t> = (&'t str, &'t str, &'t [&'t str], &'t [&'t str]);

struct Jails {
    filters: BTreeMap<String, Definition>,
    jails: Vec<(JailName, String, Vec<String>, Vec<String>)>,
}

impl Jails {
    fn new(filters: &[TestFilter<'_>], jails: &[TestJail<'_>]) -> Jails {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let filters = filters.iter();
        let jails = jails.iter();
        Jails {
            filters: filters
                .map(|(name, fail, ignore)| ((*name).to_owned(), definition(fail, ignore)))
                .collect(),
            jails: jails
                .map(|(name, filter, vhost, not)| {
                    let name = name.parse().unwrap();
                    (name, (*filter).to_owned(), owned(vhost), owned(not))
                })
                .collect(),
        }
    }

    fn matcher(&self, kind: Kind, format: &str) -> Matcher {
        let rules: Vec<Rule<'_>> = self
            .jails
            .iter()
            .map(|(name, filter, vhost, not_vhost)| Rule {
                jail: Some(name.clone()),
                filter,
                definition: &self.filters[filter],
                vhost,
                not_vhost,
                except: "",
                findtime: Duration::from_secs(600),
            })
            .collect();
        let parser = Parser::new(kind, format).unwrap();
        Matcher::new(&rules, InputKind::Apache(kind, parser))
    }
}

/// One jail with these patterns.
fn one(kind: Kind, fail: &[&str]) -> Matcher {
    one_of(kind, fail, "auto")
}

fn one_of(kind: Kind, fail: &[&str], format: &str) -> Matcher {
    Jails::new(&[("f", fail, &[])], &[("f", "f", &[], &[])]).matcher(kind, format)
}

const FILTERS: [TestFilter<'static>; 4] = [
    (
        "paths",
        &[
            r#"^<HOST> .*"GET /\.env"#,
            r#"(?i)^(?:\S+ )?<HOST> .*"(?:get|post) /(?:wp-login|xmlrpc)\.php"#,
        ],
        &["friend"],
    ),
    (
        "any",
        &[
            r#"^(?:\S+ )?<HOST> \S+ \S+ \[\] "\S+ /(\d)\1?"#,
            r"<HOST> .* 4\d\d ",
        ],
        &[],
    ),
    ("agent", &[r"agent of <HOST>"], &[]),
    ("broken", &["(", r"zz<HOST>"], &[]),
];

fn access() -> Jails {
    let shop = &["*.shop.example", "SHOP.example"];
    Jails::new(
        &FILTERS,
        &[
            ("agent", "agent", &[], &[]),
            ("any", "any", &[], &[]),
            ("broken", "broken", &[], &[]),
            ("other", "paths", &[], &["shop.example"]),
            ("shop", "paths", shop, &[]),
        ],
    )
}

fn line(vhost: &str, client: &str, request: &str, status: u16, agent: &str) -> String {
    format!(
        "{vhost}:80 {client} - - [22/Nov/2026:11:00:32 +0000] \"{request} HTTP/1.1\" {status} 1 \"-\" \"{agent}\"\n"
    )
}

#[test]
fn jails_see_the_lines_of_their_virtual_hosts() {
    let matcher = access().matcher(Kind::Access, "auto");
    for (vhost, jails) in [
        ("shop.example", vec!["shop"]),
        ("a.SHOP.example", vec!["other", "shop"]),
        ("www.example", vec!["other"]),
    ] {
        let block = line(vhost, "192.0.2.1", "GET /wp-login.php", 200, "x");
        let result = matcher.examine(block.as_bytes());
        let names: Vec<_> = result.hits[0].jails.iter().map(|j| j.0.as_str()).collect();
        assert_eq!(names, jails, "{vhost}");
        assert_eq!(result.hits[0].jails[0].1, 2);
        assert_eq!(&block[result.hits[0].line.clone()], block.trim_end());
        assert_eq!(result.good, []);
    }
    assert_eq!(matcher.parser().unwrap().chosen(), Some("vhost_combined"));
}

#[test]
fn a_block_is_counted_line_by_line() {
    let matcher = access().matcher(Kind::Access, "auto");
    let block = [
        line("a", "192.0.2.1", "GET /", 200, "x"),
        line("a", "192.0.2.1", "GET /", 200, "x"),
        line("a", "192.0.2.1", "GET /", 304, "y"),
        line("a", "192.0.2.1", "GET /", 500, "y"),
        line("a", "192.0.2.1", "PUT /", 200, "agent of 192.0.2.2"),
        line("a", "192.0.2.1", "PUT /", 200, "agent of 192.0.2.1"),
        line("a", "192.0.2.1", "GET /wp-login.php", 200, "friend"),
        "nonsense\n\n".to_owned(),
        line("a", "2001:db8::1", "GET /xmlrpc.php", 404, "friend")
            .trim_end()
            .to_owned(),
    ]
    .concat();
    let result = matcher.examine(block.as_bytes());
    assert_eq!((result.lines, result.unparsed, result.spoofed), (10, 2, 1));
    let hits: Vec<_> = result
        .hits
        .iter()
        .map(|h| (h.client, h.jails.len()))
        .collect();
    assert_eq!(
        hits,
        [
            ("192.0.2.1".parse().unwrap(), 1),
            ("2001:db8::1".parse().unwrap(), 1)
        ]
    );
    let agents: BTreeSet<_> = result.good.iter().map(|good| good.1).collect();
    assert_eq!((result.good.len(), agents.len()), (4, 3));
    assert_eq!(matcher.examine(b""), BlockResult::default());
}

#[test]
fn the_peer_is_reported_if_it_is_not_the_client() {
    let matcher = access().matcher(Kind::Access, "auto");
    for (peer, expected) in [
        ("198.51.100.1", Some("198.51.100.1".parse().unwrap())),
        ("192.0.2.1", None),
    ] {
        let block = line("a 192.0.2.1", "x", "GET /wp-login.php", 200, "x")
            .replace(":80 x", "")
            .replacen("a 192.0.2.1", &format!("a:80 192.0.2.1 {peer}"), 1);
        assert_eq!(
            matcher.examine(block.as_bytes()).hits[0].peer,
            expected,
            "{block}"
        );
    }
}

#[test]
fn the_tail_of_a_torn_line_hits_no_client_and_long_lines_hide_none() {
    let matcher = one(Kind::Error, &[r"\[client <HOST>:\d+\] bad"]);
    let line = |pid: u32, client: &str, text: &str| {
        format!(
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid {pid}:tid 7] [client {client}:5] {text}\n"
        )
    };
    let long = line(100, "192.0.2.1", &"a".repeat(5000));
    let torn = line(100, "192.0.2.1", "aa").trim_end().to_owned() + &line(100, "192.0.2.2", "x");
    for before in [long, torn] {
        let block = before
            + &line(100, "192.0.2.3", "x")
            + &line(4242, "203.0.113.250", "bad")
            + &line(100, "192.0.2.4", "bad");
        let result = matcher.examine(block.as_bytes());
        let hits: Vec<_> = result
            .hits
            .iter()
            .map(|hit| hit.client.to_string())
            .collect();
        assert_eq!(hits, ["192.0.2.4"]);
        assert_eq!((result.torn, result.spoofed, result.unparsed), (1, 0, 0));
    }
    // The next block is still in doubt; the doubt ends after many lines of known processes.
    let unknown = line(5000, "192.0.2.5", "bad");
    assert_eq!(matcher.examine(unknown.as_bytes()).torn, 1);
    matcher.examine(line(100, "192.0.2.4", "x").repeat(1000).as_bytes());
    assert_eq!(matcher.examine(unknown.as_bytes()).hits.len(), 1);
}

/// Confirms one process.
#[derive(Debug)]
struct Only(u64);

impl Vouch for Only {
    fn is_apaches(&self, pid: u64) -> bool {
        pid == self.0
    }
}

#[test]
fn with_a_vouch_only_apaches_lines_hit_and_a_forged_one_hides_no_other() {
    let patterns = [r"\[client <HOST>(?::\d+)?\] bad", r"^\[\] .*<HOST>.* bad"];
    let matcher = one(Kind::Error, &patterns).with_vouch(Some(Arc::new(Only(100))));
    let line = |pid: u32, client: &str, text: &str| {
        format!(
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid {pid}:tid 7] [client {client}:5] {text}\n"
        )
    };
    let seen = |block: &str| {
        let result = matcher.examine(block.as_bytes());
        (
            result.hits.len(),
            result.torn,
            result.spoofed + result.unparsed,
        )
    };
    let genuine = line(100, "192.0.2.1", "bad");
    // Apache's long lines hide no client.
    let long = line(100, "192.0.2.1", &format!("bad{}", "a".repeat(7000)));
    assert_eq!(seen(&(long + &genuine)), (2, 0, 0));
    // A script's output: raw, in the form of Apache 2.2, quoted by mod_cgi; another line.
    for forged in [
        "[Sun Nov 22 11:00:33 2026] [error] [client 203.0.113.250] bad\n".to_owned(),
        line(100, "192.0.2.1", "AH01215: [client 192.0.2.1:5] bad"),
        line(100, "192.0.2.1", "AH00127: torn")
            .trim_end()
            .to_owned()
            + &genuine,
    ] {
        assert_eq!(seen(&forged), (0, 1, 0), "{forged}");
    }
    assert_eq!(seen(&line(100, "192.0.2.1", "AH01215: bad")), (1, 0, 0));
    // A client cannot hide behind such words.
    for referer in [
        "x AH01215: [client ",
        "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 100:tid 7] x",
        &genuine.trim_end().replace("bad", "good"),
    ] {
        let hit = line(100, "192.0.2.1", &format!("bad, referer: {referer}"));
        assert_eq!(seen(&hit), (1, 0, 0), "{hit}");
    }
    // A child of Apache's that is about to become a script names no client, and hides none.
    let becoming = "[Sun Nov 22 11:00:33.366318 2026] [cgid:error] [pid 99:tid 7] AH01241: x\n";
    assert_eq!(seen(&(becoming.to_owned() + &genuine)), (1, 1, 0));
    assert_eq!(seen("[client 203.0.113.250:1] bad\n"), (0, 0, 1));
    assert_eq!(seen(&genuine), (1, 0, 0));
    // A false process number, and Apache's line directly behind it.
    let forged = line(99, "203.0.113.250", "bad");
    assert_eq!(seen(&(forged + &genuine)), (1, 1, 0));
}

#[test]
fn no_jail_and_no_literal_are_accepted() {
    let block = line("a", "192.0.2.1", "GET /", 200, "x") + "\n";
    let none = Jails::new(&[], &[]).matcher(Kind::Access, "auto");
    let none = none.examine(block.as_bytes());
    assert_eq!((none.lines, none.unparsed, none.good.len()), (2, 1, 1));
    let result = one(Kind::Access, &[r"^\S+ <HOST> "]).examine(block.as_bytes());
    assert_eq!((result.hits.len(), result.good.len()), (1, 0));
}

/// The same in the plainest way: each line, each text of it, each jail, each pattern.
fn naive(
    jails: &Jails,
    filters: &BTreeMap<&str, Filter>,
    block: &[u8],
    format: &str,
) -> BlockResult {
    let parser = Parser::new(Kind::Access, format).unwrap();
    let mut result = BlockResult::default();
    let mut start = 0;
    for piece in block.split_inclusive(|b| *b == b'\n') {
        let line = piece.strip_suffix(b"\n").unwrap_or(piece);
        let range = start..start + line.len();
        start += piece.len();
        result.lines += 1;
        let Some(record) = parser.parse(line) else {
            result.unparsed += 1;
            result.unread.get_or_insert(Unread {
                number: result.lines - 1,
                line: range,
                why: "it is not of this format",
            });
            continue;
        };
        let (mut hit, mut spoofed) = (Vec::new(), false);
        for (name, filter, vhosts, not_vhosts) in &jails.jails {
            let vhost = String::from_utf8_lossy(record.vhost.unwrap_or_default()).to_lowercase();
            let is = |glob: &String| {
                let glob = glob.to_lowercase();
                let end = glob.strip_prefix('*');
                vhost == glob || end.is_some_and(|end| vhost.ends_with(end))
            };
            if !(vhosts.is_empty() || vhosts.iter().any(is)) || not_vhosts.iter().any(is) {
                continue;
            }
            let views = Views::of(line, &record);
            let outcomes = views
                .iter()
                .map(|text| filters[filter.as_str()].examine(text));
            let rank = |outcome: &Outcome| match outcome {
                Outcome::Ignored(_) | Outcome::Excepted(_) => 0,
                Outcome::Match { .. } => 1,
                Outcome::Spoof { .. } => 2,
                Outcome::Success(_) | Outcome::Miss => 3,
            };
            match outcomes.min_by_key(rank).unwrap() {
                Outcome::Match { pattern, .. } => hit.push((name.clone(), pattern, 1)),
                Outcome::Spoof { .. } => spoofed = true,
                Outcome::Ignored(_)
                | Outcome::Excepted(_)
                | Outcome::Success(_)
                | Outcome::Miss => {}
            }
        }
        let client = record.client.unwrap().addr;
        if result.clients.last() != Some(&client) {
            result.clients.push(client);
        }
        if !hit.is_empty() {
            result.hits.push(Hit {
                line: range,
                client,
                peer: record.peer.filter(|peer| *peer != client),
                vhost: record
                    .vhost
                    .map(|name| String::from_utf8_lossy(name).into_owned()),
                source: record.client_source(),
                answered: record.is_answered(),
                claim: None,
                jails: hit,
            });
        } else if spoofed {
            result.spoofed += 1;
        } else if (200..400).contains(&record.status.unwrap()) {
            let agent = text_hash(record.agent.unwrap_or_default());
            result.good.push((client, agent));
        }
    }
    result
}

fn some_line() -> impl Strategy<Value = String> {
    let any_of = |texts: &'static [&'static str]| proptest::sample::select(texts);
    prop_oneof![
        8 => (
            any_of(&["a", "shop.example", "b.shop.example"]),
            any_of(&["192.0.2.1", "192.0.2.11", "2001:db8::1", "::ffff:192.0.2.1"]),
            any_of(&["GET /.env", "get /WP-LOGIN.php", "POST /xmlrpc.php", "GET /11", "GET /.En", "PUT /"]),
            any_of(&["200", "301", "404", "500"]),
            any_of(&["agent of 192.0.2.1", "agent of 192.0.2.11", "friend", "x 192.0.2.9 x 404 ", "zz192.0.2.1"]),
        ).prop_map(|(vhost, client, request, status, agent)| line(vhost, client, request, status.parse().unwrap(), agent)),
        1 => Just("\n".to_owned()),
        1 => Just("agent of 192.0.2.1 GET /.env\n".to_owned()),
    ]
}

#[test]
fn the_matcher_agrees_with_a_naive_one() {
    let jails = access();
    let filters = jails.filters.iter();
    let filters = filters
        .map(|(name, definition)| (name.as_str(), Filter::lenient(definition)))
        .collect();
    let matcher = jails.matcher(Kind::Access, "vhost_combined");
    let blocks = (prop::collection::vec(some_line(), 0..12), any::<bool>());
    let mut runner = proptest::test_runner::TestRunner::default();
    let checked = runner.run(&blocks, |(lines, whole)| {
        let mut block = lines.concat();
        if !whole {
            block.pop();
        }
        prop_assert_eq!(
            matcher.examine(block.as_bytes()),
            naive(&jails, &filters, block.as_bytes(), "vhost_combined")
        );
        Ok(())
    });
    checked.unwrap();
}

/// Patterns as administrators write them for the `combined` format.
const SHAPES: [&str; 10] = [
    r"^<HOST> -.*PUT /login",
    r#"^<HOST> -.*"(GET|PUT).*" 403"#,
    r"^<HOST> .*PUT .*rpc\.cgi",
    r#"^<HOST>.*"PUT /login\.cgi"#,
    r#"<HOST> -.*"(GET|PUT).*login.cgi"#,
    r"<HOST> - - .*login.cgi",
    r"<HOST>.*PUT.*(login\.cgi|rpc\.cgi).* 403",
    r#"^<HOST> - \S+ \[\] "PUT /(?:login|rpc)\.cgi"#,
    r#"^\S+:\d* <HOST> - - \[\] "PUT /login"#,
    r#"^<HOST> - - \[\d+/Nov/2026:[\d:]+ \+0000\] "PUT /login"#,
];

/// One request in each format; a format that lacks the virtual host or the user last.
const WRITTEN: [(&str, &str); 8] = [
    (
        "combined",
        r#"192.0.2.1 - - [TIME] "REQUEST" 403 5 "-" "M/5.0""#,
    ),
    (
        "vhost_combined",
        r#"a.example:443 192.0.2.1 - - [TIME] "REQUEST" 403 5 "-" "M/5.0""#,
    ),
    (
        "pipeban",
        r#"a.example:443 192.0.2.1 192.0.2.1 - - [TIME] "REQUEST" 403 5 "-" "M/5.0""#,
    ),
    (
        "pipeban",
        r#"a.example:443 192.0.2.1 198.51.100.9 - - [TIME] "REQUEST" 403 5 "-" "M/5.0""#,
    ),
    ("common", r#"192.0.2.1 - - [TIME] "REQUEST" 403 5"#),
    (
        r#"{"t":"%{%Y-%m-%dT%H:%M:%S%z}t","c":"%a","r":"%r","s":"%>s","u":"%u","h":"%v","p":%p,"a":"%{User-Agent}i"}"#,
        r#"{"t":"2026-11-22T11:00:32+0000","c":"192.0.2.1","r":"REQUEST","s":"403","u":"-","h":"a.example","p":443,"a":"M/5.0"}"#,
    ),
    (
        r"%a\t%u\t%t\t%m\t%U%q\t%H\t%>s\t%v\t%p",
        "192.0.2.1\t-\t[TIME]\tPUT\tPATH\tHTTP/1.1\t403\ta.example\t443",
    ),
    (
        r#"%v %p %a %u %{%s}t "%r" %>s %D"#,
        r#"a.example 443 192.0.2.1 - 1795345232 "REQUEST" 403 77"#,
    ),
];

fn written(line: &str, path: &str) -> String {
    line.replace("TIME", "22/Nov/2026:11:00:32 +0000")
        .replace("REQUEST", &format!("PUT {path} HTTP/1.1"))
        .replace("PATH", path)
}

#[test]
fn a_pattern_for_combined_matches_whatever_the_pipe_carries() {
    for (format, line) in WRITTEN {
        for shape in SHAPES {
            let matcher = Jails::new(&[("f", &[shape], &[])], &[("f", "f", &[], &[])]);
            let matcher = matcher.matcher(Kind::Access, format);
            let line = |path| written(line, path) + "\n";
            let attack = line("/login.cgi?rpc.cgi");
            let hits = matcher.examine(attack.as_bytes()).hits.len();
            // `[^:]*:\d*` needs a port.
            let lacks = shape.starts_with(r"^\S+:") && ["combined", "common"].contains(&format);
            assert_eq!(hits, usize::from(!lacks), "{shape} {format}: {attack}");
            let harmless = line("/x").replace("403", "200").replace("PUT", "POST");
            assert_eq!(
                matcher.examine(harmless.as_bytes()).hits,
                [],
                "{shape} {format}"
            );
        }
    }
}

#[test]
fn a_field_that_the_format_lacks_is_not_an_empty_one() {
    let empty = [
        r#"^<HOST> .*"PUT .*" "(?:-|)"$"#,
        r#"^<HOST> - - .*"PUT .*" """#,
    ];
    for (format, line) in WRITTEN {
        let line = written(&line.replace("M/5.0", "agent"), "/x") + "\n";
        let hits = one_of(Kind::Access, &empty, format)
            .examine(line.as_bytes())
            .hits;
        assert_eq!(hits, [], "{format}");
    }
    let other = r#"a.example 443 192.0.2.1 alice 1795345232 "PUT /login.cgi HTTP/1.1" 403 77"#;
    let matcher = one_of(Kind::Access, &[SHAPES[5]], WRITTEN[7].0);
    assert_eq!(matcher.examine(other.as_bytes()).hits, []);
}

#[test]
fn an_ignoreregex_for_any_format_counts() {
    for ignore in [
        r"^<HOST> - - .*kind",
        r"^a\.example:443 <HOST> .*kind",
        r"2026-11-22T",
    ] {
        let jails = Jails::new(&[("f", &[SHAPES[3]], &[ignore])], &[("f", "f", &[], &[])]);
        let (format, line) = WRITTEN[5];
        let line = written(line, "/login.cgi?kind");
        let found = jails.matcher(Kind::Access, format);
        let found = found.examine_line(line.as_bytes()).outcomes;
        assert_eq!(found, [(0, Outcome::Ignored(1))], "{ignore}");
    }
}

#[test]
fn the_literal_search_lets_every_rendered_line_through() {
    let names: Vec<String> = (0..SHAPES.len()).map(|at| format!("f{at}")).collect();
    let filters: Vec<TestFilter<'_>> = (names.iter().zip(SHAPES.chunks(1)))
        .map(|(name, shape)| (name.as_str(), shape, &[][..]))
        .collect();
    let jails: Vec<TestJail<'_>> = names
        .iter()
        .map(|name| (name.as_str(), name.as_str(), &[][..], &[][..]))
        .collect();
    let jails = Jails::new(&filters, &jails);
    let filters = jails.filters.iter();
    let filters = filters
        .map(|(name, definition)| (name.as_str(), Filter::lenient(definition)))
        .collect();
    let any_of = |texts: &'static [&'static str]| proptest::sample::select(texts);
    let parts = (
        0..WRITTEN.len(),
        any_of(&["/login.cgi", "/x", "/rpc.cgi?a", "/a/LOGIN.cgi"]),
        any_of(&["403", "200"]),
        any_of(&["PUT", "POST", "GET"]),
        any_of(&["M/5.0", "192.0.2.1 - - PUT /login.cgi", "-"]),
    );
    let matchers = WRITTEN.map(|(format, _)| jails.matcher(Kind::Access, format));
    let mut runner = proptest::test_runner::TestRunner::default();
    let checked = runner.run(&parts, |(at, path, status, method, agent)| {
        let (format, line) = WRITTEN[at];
        let line = written(line, path)
            .replace("403", status)
            .replace("M/5.0", agent);
        let line = line.replace("PUT /", &format!("{method} /"));
        let found = matchers[at].examine(line.as_bytes());
        let expected = naive(&jails, &filters, line.as_bytes(), format);
        let names = |result: &BlockResult| -> Vec<_> {
            let jails = result.hits.iter().flat_map(|hit| &hit.jails);
            jails.map(|(name, ..)| name.clone()).collect()
        };
        prop_assert_eq!(names(&found), names(&expected), "{}: {}", format, line);
        Ok(())
    });
    checked.unwrap();
}

#[test]
fn one_line_has_the_same_result_as_in_a_block() {
    let matcher = access().matcher(Kind::Access, "auto");
    let block = line("a", "192.0.2.1", "GET /wp-login.php", 200, "friend");
    let one = matcher.examine_line(block.trim_end().as_bytes());
    let (ignored, other) = (Outcome::Ignored(1), matcher.examine(block.as_bytes()));
    assert!(
        one.outcomes.iter().all(|(_, outcome)| *outcome == ignored),
        "{one:?}"
    );
    assert_eq!(
        (one.torn, one.unparsed, other.hits.len()),
        (false, false, 0)
    );
    assert!(matcher.examine_line(b"x").unparsed);
    let error = definition(&[r"\[client <HOST>:\d+\] bad"], &[]);
    let rule = Rule {
        jail: None,
        filter: "f",
        definition: &error,
        vhost: &[],
        not_vhost: &[],
        except: "",
        findtime: Duration::ZERO,
    };
    let quoted = b"[Sun Nov 22 11:00:33.366318 2026] [cgid:error] [pid 1:tid 7] [client 192.0.2.1:5] AH01215: [client 192.0.2.1:5] bad";
    for (input, torn, host) in [
        (
            InputKind::Apache(Kind::Error, Parser::new(Kind::Error, "auto").unwrap()),
            true,
            "192.0.2.1",
        ),
        (InputKind::Raw, false, "192.0.2.1"),
    ] {
        let matcher = Matcher::new(std::slice::from_ref(&rule), input);
        let found = matcher.examine_line(quoted);
        assert_eq!(found.torn, torn);
        let host = host.parse().unwrap();
        assert_eq!(
            found.outcomes,
            [(
                0,
                Outcome::Match {
                    pattern: 1,
                    host,
                    weight: 1
                }
            )]
        );
    }
}

#[test]
fn a_success_clears_only_after_a_failure_and_once_in_a_period() {
    let mut login = definition(&[], &[]);
    login.native = vec![crate::filter::definition::RuleText {
        file: "login.toml".into(),
        text: "[[match]]\nstatus = 401\n[[clear]]\nstatus = [200, 302]\n".into(),
    }];
    let rule = Rule {
        jail: Some("login".parse().unwrap()),
        filter: "login",
        definition: &login,
        vhost: &[],
        not_vhost: &[],
        except: "",
        findtime: Duration::from_secs(600),
    };
    let parser = Parser::new(Kind::Access, "auto").unwrap();
    let matcher = Matcher::new(&[rule], InputKind::Apache(Kind::Access, parser));
    for (time, client, status, expected, good) in [
        ("11:00", 1, 200, None, true),
        ("11:00", 1, 401, Some(1), false),
        ("11:00", 2, 302, None, true),
        ("11:01", 1, 302, Some(0), true),
        ("11:01", 1, 302, None, true),
        ("11:02", 1, 401, Some(1), false),
        ("11:03", 1, 302, None, true),
        ("11:11", 1, 401, Some(1), false),
        ("11:12", 1, 302, Some(0), true),
    ] {
        let line = format!(
            "192.0.2.{client} - - [22/Nov/2026:{time}:32 +0000] \"GET / HTTP/1.1\" {status} 1 \"-\" \"x\"\n"
        );
        let result = matcher.examine(line.as_bytes());
        let weight = result.hits.first().map(|hit| hit.jails[0].2);
        assert_eq!((weight, result.good.len() == 1), (expected, good), "{line}");
        let counts = result.hits.first().is_some_and(Hit::counts);
        assert_eq!(counts, expected == Some(1), "{line}");
        let success = matches!(
            matcher.examine_line(line.trim_end().as_bytes()).outcomes[..],
            [(0, Outcome::Success(2))]
        );
        assert_eq!(success, status != 401, "{line}");
    }
}
