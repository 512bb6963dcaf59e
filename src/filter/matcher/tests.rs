use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::super::tests::definition;
use super::*;
use crate::config::{Backend, Firewall, Jail, Paths, Ports, Syslog};

fn jail(log: Kind, filter: &str) -> Jail {
    Jail {
        enabled: true,
        enforce: true,
        log: log.into(),
        filter: filter.to_owned(),
        maxretry: 1,
        findtime: Duration::from_secs(600),
        bantime: Some(Duration::from_secs(600)),
        port: Ports::List {
            tcp: BTreeSet::from([80]),
            udp: BTreeSet::new(),
        },
        ignoreip: Vec::new(),
        ipv6_prefix: 64,
        ignore_files: Vec::new(),
        ignore_names: Vec::new(),
        ignoreself: true,
        ignore_ssh_logins: None,
        ipv4_prefix: 32,
        ban_private: false,
        weight: 1,
        bans_per_minute: 300,
        vhost: Vec::new(),
        not_vhost: Vec::new(),
        increment: None,
        hooks: crate::config::Hooks::default(),
    }
}

fn config(filters: &[(&str, &[&str], &[&str])], jails: Vec<(&str, Jail)>) -> Config {
    Config {
        paths: Paths::default(),
        firewall: Firewall {
            backend: vec![Backend::DryRun],
            ..Firewall::default()
        },
        syslog: Syslog::default(),
        trusted_proxies: Vec::new(),
        defaults: jail(Kind::Error, ""),
        jails: jails
            .into_iter()
            .map(|(name, jail)| (name.parse().unwrap(), jail))
            .collect::<BTreeMap<_, _>>(),
        filters: filters
            .iter()
            .map(|(name, fail, ignore)| ((*name).to_owned(), definition(fail, ignore)))
            .collect(),
    }
}

fn matcher(config: &Config, kind: Kind) -> Matcher {
    Matcher::new(config, kind, Parser::new(kind, "auto").unwrap())
}

const FILTERS: [(&str, &[&str], &[&str]); 4] = [
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

fn access_config() -> Config {
    let mut shop = jail(Kind::Access, "paths");
    shop.vhost = vec!["*.shop.example".to_owned(), "SHOP.example".to_owned()];
    let mut other = jail(Kind::Access, "paths");
    other.not_vhost = vec!["shop.example".to_owned()];
    let mut disabled = jail(Kind::Access, "any");
    disabled.enabled = false;
    config(
        &FILTERS,
        vec![
            ("shop", shop),
            ("other", other),
            ("any", jail(Kind::Access, "any")),
            ("agent", jail(Kind::Access, "agent")),
            ("disabled", disabled),
            ("error", jail(Kind::Error, "any")),
            ("missing", jail(Kind::Access, "nowhere")),
            ("broken", jail(Kind::Access, "broken")),
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
    let config = access_config();
    let matcher = matcher(&config, Kind::Access);
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
    assert_eq!(matcher.parser().chosen(), Some("vhost_combined"));
}

#[test]
fn a_block_is_counted_line_by_line() {
    let config = access_config();
    let matcher = matcher(&config, Kind::Access);
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
fn the_peer_is_told_where_it_is_another() {
    let config = access_config();
    let matcher = matcher(&config, Kind::Access);
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
fn the_tail_of_a_torn_line_hits_nobody_and_long_lines_hide_nobody() {
    let error = config(
        &[("bad", &[r"\[client <HOST>:\d+\] bad"], &[])],
        vec![("bad", jail(Kind::Error, "bad"))],
    );
    let matcher = matcher(&error, Kind::Error);
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
    // The next block is still in doubt; behind many lines of known processes nobody is.
    let unknown = line(5000, "192.0.2.5", "bad");
    assert_eq!(matcher.examine(unknown.as_bytes()).torn, 1);
    matcher.examine(line(100, "192.0.2.4", "x").repeat(1000).as_bytes());
    assert_eq!(matcher.examine(unknown.as_bytes()).hits.len(), 1);
}

/// Vouches for one process.
#[derive(Debug)]
struct Only(u64);

impl Vouch for Only {
    fn is_apaches(&self, pid: u64) -> bool {
        pid == self.0
    }
}

#[test]
fn with_a_vouch_only_apaches_own_lines_hit_and_a_forged_one_puts_the_next_in_doubt() {
    let error = config(
        &[(
            "bad",
            &[r"\[client <HOST>(?::\d+)?\] bad", r"^\[\] .*<HOST>.* bad"],
            &[],
        )],
        vec![("bad", jail(Kind::Error, "bad"))],
    );
    let matcher = matcher(&error, Kind::Error).with_vouch(Some(Arc::new(Only(100))));
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
    // Long lines of Apache's own hide nobody.
    let long = line(100, "192.0.2.1", &format!("bad{}", "a".repeat(7000)));
    assert_eq!(seen(&(long + &genuine)), (2, 0, 0));
    // A script's words: raw, in the form of Apache 2.2, quoted by mod_cgi; a neighbour's line.
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
    // Nobody hides behind such words of his own.
    for referer in [
        "x AH01215: [client ",
        "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 100:tid 7] x",
        &genuine.trim_end().replace("bad", "good"),
    ] {
        let hit = line(100, "192.0.2.1", &format!("bad, referer: {referer}"));
        assert_eq!(seen(&hit), (1, 0, 0), "{hit}");
    }
    // A child of Apache's that is about to become a script names nobody, and blinds nobody.
    let becoming = "[Sun Nov 22 11:00:33.366318 2026] [cgid:error] [pid 99:tid 7] AH01241: x\n";
    assert_eq!(seen(&(becoming.to_owned() + &genuine)), (1, 1, 0));
    assert_eq!(seen("[client 203.0.113.250:1] bad\n"), (0, 0, 1));
    assert_eq!(seen(&genuine), (1, 0, 0));
    // A guess of a process number, and a right one directly behind it.
    let guesses = line(99, "203.0.113.250", "bad") + &line(100, "203.0.113.250", "bad");
    assert_eq!(seen(&guesses), (0, 2, 0));
    assert_eq!(seen(&genuine.repeat(60)), (11, 49, 0), "doubt ends");
}

#[test]
fn no_jail_and_no_literal_are_no_trouble() {
    let block = line("a", "192.0.2.1", "GET /", 200, "x") + "\n";
    let none = matcher(&config(&[], Vec::new()), Kind::Access).examine(block.as_bytes());
    assert_eq!((none.lines, none.unparsed, none.good.len()), (2, 1, 1));
    let loose = config(
        &[("l", &[r"^\S+ <HOST> "], &[])],
        vec![("l", jail(Kind::Access, "l"))],
    );
    let result = matcher(&loose, Kind::Access).examine(block.as_bytes());
    assert_eq!((result.hits.len(), result.good.len()), (1, 0));
}

/// The same by the plainest means: each line, each jail, each pattern.
fn naive(config: &Config, filters: &BTreeMap<&str, Filter>, block: &[u8]) -> BlockResult {
    let parser = Parser::new(Kind::Access, "vhost_combined").unwrap();
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
        let (mut jails, mut spoofed) = (Vec::new(), false);
        for (name, jail) in &config.jails {
            let vhost = String::from_utf8_lossy(record.vhost.unwrap()).to_lowercase();
            let is = |glob: &String| {
                let glob = glob.to_lowercase();
                vhost == glob
                    || glob
                        .strip_prefix('*')
                        .is_some_and(|end| vhost.ends_with(end))
            };
            let wanted = (jail.vhost.is_empty() || jail.vhost.iter().any(is))
                && !jail.not_vhost.iter().any(is);
            let Some(filter) = filters.get(jail.filter.as_str()) else {
                continue;
            };
            if !jail.enabled || jail.log != Kind::Access || !wanted {
                continue;
            }
            match filter.examine(&Subject::of(line, &record)) {
                Outcome::Match { pattern, .. } => jails.push((name.clone(), pattern)),
                Outcome::Spoof { .. } => spoofed = true,
                Outcome::Ignored | Outcome::Miss => {}
            }
        }
        let client = record.client.unwrap().addr;
        if !jails.is_empty() {
            result.hits.push(Hit {
                line: range,
                client,
                peer: None,
                jails,
            });
        } else if spoofed {
            result.spoofed += 1;
        } else if (200..400).contains(&record.status.unwrap()) {
            let mut hasher = DefaultHasher::new();
            record.agent.hash(&mut hasher);
            result.good.push((client, hasher.finish()));
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
fn clever_equals_naive() {
    let config = access_config();
    let filters = config
        .filters
        .iter()
        .map(|(name, definition)| (name.as_str(), Filter::lenient(definition)))
        .collect();
    let parser = Parser::new(Kind::Access, "vhost_combined").unwrap();
    let matcher = Matcher::new(&config, Kind::Access, parser);
    let blocks = (prop::collection::vec(some_line(), 0..12), any::<bool>());
    let mut runner = proptest::test_runner::TestRunner::default();
    let checked = runner.run(&blocks, |(lines, whole)| {
        let mut block = lines.concat();
        if !whole {
            block.pop();
        }
        prop_assert_eq!(
            matcher.examine(block.as_bytes()),
            naive(&config, &filters, block.as_bytes())
        );
        Ok(())
    });
    checked.unwrap();
}
