//! How fast lines are read and matched, beside `regex`'s RegexSet on the same lines and patterns:
//! `cargo bench --bench matching [-- ACCESS_LOG]`. One thread, all in memory.
//!
//! Without a log, lines of ordinary traffic are made up: half of the requests are new, one in a
//! hundred is an attack.

use std::hint::black_box;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use pipeban::config;
use pipeban::disk;
use pipeban::filter::matcher::{InputKind, Matcher, Rule};
use pipeban::filter::{Definition, read};
use pipeban::record::{Kind, Parser};
use pipeban::sys::clock::thread_time;
use regex::bytes::{RegexSet, RegexSetBuilder};

const BLOCK: usize = 32 * 1024;
const LEAST: Duration = Duration::from_secs(1);
const LINES: u32 = 100_000;

const ATTACKS: [&str; 5] = [
    "/.env",
    "/wp-login.php",
    "/cgi-bin/.%2e/.%2e/bin/sh",
    "/vendor/phpunit/src/Util/PHP/eval-stdin.php",
    "/x?id=1+union+all+select+1",
];
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0",
    "Mozilla/5.0 (compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
    "curl/8.11.0",
];

fn main() {
    let named = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let read = named.and_then(|file| std::fs::read(file).ok());
    let access = |attacks: u32| read.clone().unwrap_or_else(|| access_log(attacks));
    let (calm, one, many) = (access(0), access(1), access(20));
    let error = made_up(|n, client| {
        let text = match n % 100 {
            0 => "AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/.%2e/bin/sh)".to_owned(),
            at if at % 3 == 0 => {
                format!("AH01630: client denied by server configuration: /srv/www/private/{n}")
            }
            _ => "AH01276: Cannot serve directory /srv/www/: No matching DirectoryIndex".to_owned(),
        };
        format!(
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] \
             [client {client}:49108] {text}\n"
        )
    });
    read_only("access", Kind::Access, &calm);
    read_only("error", Kind::Error, &error);
    shipped("shipped jails, no attack", Kind::Access, &calm);
    shipped("shipped jails, 1 % attacks", Kind::Access, &one);
    shipped("shipped jails, 20 % attacks", Kind::Access, &many);
    shipped("shipped jails, error log", Kind::Error, &error);
    for count in [1, 5, 40, 120] {
        let patterns: Vec<String> = (0..count).map(pattern).collect();
        for (percent, log) in [(1, &one), (20, &many)] {
            let name = format!("{count} patterns, {percent} % attacks");
            beside_a_set(&name, &patterns, log);
        }
    }
}

/// Pattern number `n`, as administrators write them.
fn pattern(n: usize) -> String {
    let words = words();
    let word = one(&words, n);
    let more = match n / words.len() {
        0 => String::new(),
        round => format!(".*variant{round}"),
    };
    format!("^<HOST> .*(?i:{word}{more})")
}

/// What forty patterns look for, a line each.
fn words() -> Vec<&'static str> {
    include_str!("words.txt").lines().collect()
}

fn one<'t>(texts: &[&'t str], n: usize) -> &'t str {
    texts.get(n % texts.len()).copied().unwrap_or_default()
}

fn access_log(attacks: u32) -> Vec<u8> {
    made_up(|n, client| {
        let path = match n % 100 {
            at if at < attacks => one(&ATTACKS, n as usize).to_owned(),
            at if at % 2 == 0 => format!("/shop/item-{n}.html?ref=list&page={}", n % 7),
            at => format!("/assets/site.css?v={at}"),
        };
        let agent = one(&AGENTS, n as usize / 7);
        format!(
            "{client} - - [22/Nov/2026:11:00:32 +0000] \"GET {path} HTTP/1.1\" 200 5120 \
             \"https://www.example.org/page/{}\" \"{agent}\"\n",
            n % 500
        )
    })
}

fn made_up(line: impl Fn(u32, Ipv4Addr) -> String) -> Vec<u8> {
    (0..LINES)
        .map(|n| line(n, Ipv4Addr::from(0xc612_0000 + n % 5_000)))
        .collect::<String>()
        .into_bytes()
}

/// Does `work` for a while with the log; the processor's time for the log once, which other programs
/// do not change much.
fn time(mut work: impl FnMut()) -> Duration {
    let started = thread_time();
    let mut times = 0;
    loop {
        work();
        times += 1;
        let took = thread_time().saturating_sub(started);
        if took >= LEAST {
            return took / times;
        }
    }
}

fn show(name: &str, log: &[u8], took: Duration, more: &str) {
    let lines = memchr::memchr_iter(b'\n', log).count();
    println!(
        "{name}: {:.0} MB/s, {} ns a line{more}",
        log.len() as f64 / 1e6 / took.as_secs_f64(),
        took.as_nanos() / lines.max(1) as u128,
    );
}

fn read_only(name: &str, kind: Kind, log: &[u8]) {
    let Ok(parser) = Parser::new(kind, "auto") else {
        return;
    };
    let took = time(|| {
        for line in lines(log) {
            black_box(parser.parse(line));
        }
    });
    show(&format!("{name}, only read"), log, took, "");
}

fn shipped(name: &str, kind: Kind, log: &[u8]) {
    let share = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let file = tempfile::NamedTempFile::new();
    let Ok(mut file) = file else { return };
    let written = writeln!(file, "[paths]\nshare = {share:?}");
    let (Ok(()), Ok(config)) = (written, disk::load(file.path())) else {
        return println!("{name}: the shipped configuration cannot be read");
    };
    let (took, hits) = examine(&config::rules(&config, kind), kind, log);
    show(name, log, took, &format!(", {hits} hits"));
}

fn examine(rules: &[Rule<'_>], kind: Kind, log: &[u8]) -> (Duration, usize) {
    let Ok(parser) = Parser::new(kind, "auto") else {
        return Default::default();
    };
    let matcher = Matcher::new(rules, InputKind::Apache(kind, parser));
    let mut hits = 0;
    let took = time(|| hits = blocks(log).map(|b| matcher.examine(b).hits.len()).sum());
    (took, hits)
}

fn beside_a_set(name: &str, patterns: &[String], log: &[u8]) {
    let Some(definition) = definition(patterns) else {
        return;
    };
    let rule = Rule {
        jail: "bench".parse().ok(),
        filter: "bench",
        definition: &definition,
        vhost: &[],
        not_vhost: &[],
        except: "",
        findtime: Duration::ZERO,
    };
    let (took, hits) = examine(&[rule], Kind::Access, log);
    let Some(set) = set(patterns) else { return };
    let mut theirs = 0;
    let of_set = time(|| theirs = lines(log).filter(|line| set.is_match(line)).count());
    let ratio = of_set.as_secs_f64() / took.as_secs_f64();
    show(
        name,
        log,
        took,
        &format!(", {hits} hits; {ratio:.2} times as fast as RegexSet, {theirs} lines"),
    );
}

fn set(patterns: &[String]) -> Option<RegexSet> {
    let plain = patterns.iter().map(|p| p.replace("<HOST>", r"[\d.]+"));
    let mut set = RegexSetBuilder::new(plain);
    set.unicode(false)
        .dfa_size_limit(32 << 20)
        .size_limit(64 << 20);
    set.build().ok()
}

fn definition(patterns: &[String]) -> Option<Definition> {
    let text = format!("[Definition]\nfailregex = {}\n", patterns.join("\n    "));
    let files = move |_: &Path| Ok(text.clone());
    read(
        "bench",
        Path::new("bench.conf"),
        &Default::default(),
        &files,
    )
    .ok()
}

fn lines(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', log).filter_map(move |end| {
        let line = log.get(start..end);
        start = end + 1;
        line
    })
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
