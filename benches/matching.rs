//! How fast lines are read and matched: `cargo bench --bench matching [-- ACCESS_LOG]`.
//!
//! Without a log, lines of ordinary traffic with one attack in a hundred are made up.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use pipeban::config::{Backend, Config, Firewall, Hooks, Jail, Paths, Ports, Syslog};
use pipeban::filter::matcher::Matcher;
use pipeban::filter::read;
use pipeban::record::{Kind, Parser};

const BLOCK: usize = 64 * 1024;
const LEAST: Duration = Duration::from_secs(1);

const ACCESS: &str = r#"[Definition]
failregex = ^(?:\S+ )?<HOST> .*"(?:GET|POST|HEAD) /\.env
            ^(?:\S+ )?<HOST> .*"[A-Z]+ /(?:cgi-bin|icons)/(?:\.|%%2e|%%%%32%%65){2}
            ^(?:\S+ )?<HOST> .*"POST /(?:wp-login|xmlrpc)\.php
            ^(?:\S+ )?<HOST> .*"GET /[^"]*(?:union|UNION)[+ %%][^"]*(?:select|SELECT)
            ^(?:\S+ )?<HOST> .*"GET /(?:phpmyadmin|pma|myadmin)/
            ^(?:\S+ )?<HOST> .*/etc/passwd
            ^(?:\S+ )?<HOST> .*"\\x16\\x03
            ^(?:\S+ )?<HOST> .*(?i)(?:nikto|sqlmap|masscan|zgrab)
            ^(?:\S+ )?<HOST> .*"GET /\.git/
            ^(?:\S+ )?<HOST> .*eval-stdin\.php
"#;
const ERROR: &str = r"[Definition]
failregex = \[client <HOST>:\d+\] AH10244: invalid URI path \(.*cgi-bin.*bin/sh.*
            \[client <HOST>:\d+\] AH0161[78]: user
            \[client <HOST>(?::\d{1,5})?\] AH01630: client denied by server configuration: .*\.ht
";

fn main() {
    let named = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let access = match &named {
        Some(file) => std::fs::read(file).unwrap_or_default(),
        None => made_up(|n, client| {
            let path = if n % 100 == 0 {
                ".env"
            } else {
                "assets/site.css?v=12"
            };
            format!(
                "www.example.org:443 {client} - - [22/Nov/2026:11:00:32 +0000] \"GET /{path} HTTP/1.1\" \
                 200 5120 \"https://www.example.org/page/{n}\" \"Mozilla/5.0 (X11; Linux x86_64) \
                 AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\"\n"
            )
        }),
    };
    let error = made_up(|n, client| {
        let text = if n % 10 == 0 {
            "AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/.%2e/bin/sh)"
        } else {
            "AH01276: Cannot serve directory /srv/www/: No matching DirectoryIndex"
        };
        format!(
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] \
             [client {client}:49108] {text}\n"
        )
    });
    let spoofs = made_up(|n, client| {
        format!(
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] \
             [client 2001:db8::{n:x}:49108] AH01630: x, referer: [client {client}:1] AH01617: user \
             , AH10244: invalid URI path (/cgi-bin/bin/sh\n"
        )
    });
    measure("access", Kind::Access, ACCESS, &access);
    measure("error", Kind::Error, ERROR, &error);
    measure(
        "error, every line a spoof of a new client",
        Kind::Error,
        ERROR,
        &spoofs,
    );
}

fn made_up(line: impl Fn(u32, std::net::Ipv4Addr) -> String) -> Vec<u8> {
    (0..20_000u32)
        .map(|n| line(n, std::net::Ipv4Addr::from(0xc612_0000 + n)))
        .collect::<String>()
        .into_bytes()
}

fn measure(name: &str, kind: Kind, filter: &str, log: &[u8]) {
    let lines: Vec<&[u8]> = log
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .collect();
    let Ok(parser) = Parser::new(kind, "auto") else {
        return;
    };
    let started = Instant::now();
    let mut parsed = 0u32;
    while started.elapsed() < LEAST {
        for line in &lines {
            black_box(parser.parse(line));
            parsed += 1;
        }
    }
    println!(
        "{name}: {} ns to parse a line ({})",
        (started.elapsed() / parsed.max(1)).as_nanos(),
        parser.chosen().unwrap_or("none")
    );
    let Some(config) = config(kind, filter) else {
        return;
    };
    let matcher = Matcher::new(&config, kind, parser);
    let started = Instant::now();
    let (mut seen, mut hits, mut spoofed) = (0, 0, 0);
    while started.elapsed() < LEAST {
        for block in blocks(log) {
            let result = matcher.examine(block);
            seen += result.lines;
            hits += result.hits.len();
            spoofed += result.spoofed;
        }
    }
    println!(
        "{name}: {:.0} lines/s, {hits} hits and {spoofed} spoofs in {seen} lines",
        seen as f64 / started.elapsed().as_secs_f64()
    );
}

/// Blocks of whole lines.
fn blocks(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = log;
    std::iter::from_fn(move || {
        let end = rest
            .get(..BLOCK)
            .and_then(|b| b.iter().rposition(|b| *b == b'\n'));
        let (block, after) = rest.split_at_checked(end.map_or(rest.len(), |end| end + 1))?;
        rest = after;
        (!block.is_empty()).then_some(block)
    })
}

fn config(kind: Kind, filter: &str) -> Option<Config> {
    let jail = Jail {
        enabled: true,
        enforce: true,
        log: kind.into(),
        filter: "bench".to_owned(),
        maxretry: 1,
        findtime: Duration::from_secs(600),
        bantime: None,
        port: Ports::List {
            tcp: BTreeSet::new(),
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
        hooks: Hooks::default(),
    };
    let definition = read(
        "bench",
        Path::new("bench.conf"),
        &Default::default(),
        &|_| Ok(filter.to_owned()),
    )
    .ok()?;
    Some(Config {
        paths: Paths::default(),
        firewall: Firewall {
            backend: vec![Backend::DryRun],
            ..Firewall::default()
        },
        syslog: Syslog::default(),
        trusted_proxies: Vec::new(),
        defaults: jail.clone(),
        jails: BTreeMap::from([("bench".parse().ok()?, jail)]),
        filters: BTreeMap::from([("bench".to_owned(), definition)]),
    })
}
