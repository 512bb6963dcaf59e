//! The shipped native filters on labelled lines: one table by class and basis.
//!
//! `PIPEBAN_DETECT_DATA` names a directory with `attack.jsonl` and `benign.jsonl`; without it the
//! lines of `tests/corpus/labelled` are read. `PIPEBAN_DETECT_HALF` is `dev` or `held`: half of the
//! lines, by a hash. `PIPEBAN_DETECT_MISSES` names a file for the lines that go wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pipeban::filter::rules::{self, Confidence, RuleSet, Rules, Scratch};
use pipeban::record::{Kind, Parser};
use pipeban::sys::clock::thread_time;

#[derive(serde::Deserialize)]
pub(crate) struct Line {
    line: String,
    pub(crate) kind: Kind,
    #[serde(default)]
    pub(crate) class: String,
    #[serde(default)]
    pub(crate) conf: String,
    #[serde(default)]
    basis: String,
}

impl Line {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // Bytes beyond ASCII stand as latin-1 code points.
        let byte = |c: char| u8::try_from(u32::from(c)).unwrap_or(b'?');
        self.line.chars().map(byte).collect()
    }

    fn half(&self) -> &'static str {
        use sha2::Digest;
        let hash = sha2::Sha256::digest(self.line.as_bytes());
        if hash[0] & 1 == 0 { "dev" } else { "held" }
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The directory of the labelled lines.
pub(crate) fn data() -> PathBuf {
    let named = std::env::var_os("PIPEBAN_DETECT_DATA");
    named.map_or_else(|| repository("tests/corpus/labelled"), PathBuf::from)
}

pub(crate) fn lines_of(file: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Every shipped filter that has rules, by name.
fn shipped() -> BTreeMap<String, Rules> {
    let mut filters = BTreeMap::new();
    for entry in std::fs::read_dir(repository("config/filters.d")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let rules = rules::read(&file, &text).unwrap_or_else(|problems| {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", lines.join("\n"))
        });
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        filters.insert(name, rules);
    }
    filters
}

/// Compiling takes long without optimisation.
pub(crate) fn judge() -> MutexGuard<'static, Judge> {
    static JUDGE: LazyLock<Mutex<Judge>> = LazyLock::new(|| Mutex::new(Judge::new()));
    JUDGE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Judge {
    names: Vec<String>,
    set: RuleSet,
    /// For each log and filter file the jails that use it: the least weight that bans.
    jails: BTreeMap<(Kind, String), u32>,
    parsers: Vec<Parser>,
    error_parser: Parser,
    scratch: Scratch,
}

impl Judge {
    fn new() -> Judge {
        let (names, filters): (Vec<_>, Vec<_>) = shipped()
            .into_iter()
            .map(|(name, rules)| (name, vec![rules]))
            .unzip();
        let formats = [
            "pipeban",
            "vhost_combined",
            "combined",
            "vhost_common",
            "common",
        ];
        Judge {
            names,
            set: RuleSet::compile(&filters),
            jails: jails(),
            parsers: formats
                .map(|f| Parser::new(Kind::Access, f).unwrap())
                .into(),
            error_parser: Parser::new(Kind::Error, "auto").unwrap(),
            scratch: Scratch::default(),
        }
    }

    /// Filter, rule, confidence and weight of each hit; `None`: the line is not read.
    fn hits(&mut self, kind: Kind, line: &[u8]) -> Option<Vec<(&str, u32, Confidence, u32)>> {
        let record = match kind {
            Kind::Access => self.parsers.iter().find_map(|parser| parser.parse(line))?,
            Kind::Error => self.error_parser.parse(line)?,
        };
        let hits = self.set.evaluate(&record, &mut self.scratch);
        let named = hits.iter().map(|hit| {
            let name = self.names[hit.filter].as_str();
            (name, hit.rule, hit.confidence, hit.weight)
        });
        Some(named.collect())
    }

    /// Whether a shipped jail matches the line, and whether it bans the client for it.
    pub(crate) fn verdict(&mut self, kind: Kind, line: &[u8]) -> (bool, bool) {
        let hits: Vec<(String, u32)> = self
            .hits(kind, line)
            .unwrap_or_default()
            .iter()
            .map(|hit| (hit.0.to_owned(), hit.3))
            .collect();
        let (mut matched, mut alone) = (false, false);
        // A success, which `[[clear]]` finds, weighs nothing.
        for (filter, weight) in hits.into_iter().filter(|(_, weight)| *weight > 0) {
            if let Some(least) = self.jails.get(&(kind, filter)) {
                matched = true;
                alone |= weight >= *least;
            }
        }
        (matched, alone)
    }
}

/// The jails of the shipped configuration.
fn jails() -> BTreeMap<(Kind, String), u32> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pipeban.toml");
    let share = repository("config");
    std::fs::write(&file, format!("[paths]\nshare = \"{}\"\n", share.display())).unwrap();
    let config = pipeban::disk::load(&file).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut jails = BTreeMap::new();
    for jail in config.jails.values().filter(|jail| jail.enabled) {
        let (Some(kind), Some(filter)) = (jail.log.kind(), config.filters.get(&jail.filter)) else {
            continue;
        };
        for text in &filter.native {
            let name = text.file.file_stem().unwrap().to_str().unwrap().to_owned();
            let least = jail.maxretry.div_ceil(jail.weight);
            let known = jails.entry((kind, name)).or_insert(least);
            *known = (*known).min(least);
        }
    }
    jails
}

#[derive(Default, Clone, Copy)]
struct Count {
    lines: u32,
    matched: u32,
    alone: u32,
}

impl Count {
    fn percent(part: u32, whole: u32) -> f64 {
        100.0 * f64::from(part) / f64::from(whole.max(1))
    }
}

#[test]
fn shipped_filters_on_labelled_lines() {
    let directory = data();
    let half = std::env::var("PIPEBAN_DETECT_HALF").ok();
    let mut judge = judge();
    let mut wrong = String::new();
    let mut table: BTreeMap<(String, String, String), Count> = BTreeMap::new();
    for (label, file) in [("attack", "attack.jsonl"), ("benign", "benign.jsonl")] {
        for line in lines_of(&directory.join(file)) {
            if half.as_deref().is_some_and(|half| half != line.half()) {
                continue;
            }
            let (matched, alone) = judge.verdict(line.kind, &line.bytes());
            let hits = judge.hits(line.kind, &line.bytes());
            let conf = if label == "benign" {
                "benign"
            } else {
                &line.conf
            };
            let key = (conf.to_owned(), line.class.clone(), line.basis.clone());
            let count = table.entry(key).or_default();
            count.lines += 1;
            count.matched += u32::from(matched);
            count.alone += u32::from(alone);
            let bad = if label == "benign" { matched } else { !alone };
            if bad {
                let _ = writeln!(
                    wrong,
                    "{conf}\t{}\t{}\t{}\t{:?}\t{}",
                    line.class,
                    line.basis,
                    u32::from(matched) + u32::from(alone),
                    hits.as_ref().map(|hits| hits
                        .iter()
                        .map(|hit| format!("{}:{}", hit.0, hit.1))
                        .collect::<Vec<_>>()),
                    line.line
                );
            }
        }
    }
    if let Some(file) = std::env::var_os("PIPEBAN_DETECT_MISSES") {
        std::fs::write(file, wrong).unwrap();
    }
    println!(
        "{:8} {:16} {:12} {:>6} {:>9} {:>11}",
        "conf", "class", "basis", "lines", "matched %", "ban alone %"
    );
    for ((conf, class, basis), count) in &table {
        println!(
            "{conf:8} {class:16} {:12} {:6} {:9.1} {:11.1}",
            basis.chars().take(12).collect::<String>(),
            count.lines,
            Count::percent(count.matched, count.lines),
            Count::percent(count.alone, count.lines)
        );
    }
    let mut low = Vec::new();
    for conf in ["high", "probe", "crs1", "crs2", "list", "rate", "benign"] {
        let mut classes: BTreeMap<&str, Count> = BTreeMap::new();
        for ((_, class, _), count) in table.iter().filter(|((c, ..), _)| c == conf) {
            let sum = classes.entry(class).or_default();
            sum.lines += count.lines;
            sum.matched += count.matched;
            sum.alone += count.alone;
        }
        let number = f64::from(u32::try_from(classes.len()).unwrap().max(1));
        let mean = |part: fn(&Count) -> u32| {
            let each = classes
                .values()
                .map(|count| Count::percent(part(count), count.lines));
            each.sum::<f64>() / number
        };
        let all = classes.values().fold((0, 0, 0), |sum, count| {
            (
                sum.0 + count.lines,
                sum.1 + count.matched,
                sum.2 + count.alone,
            )
        });
        println!(
            "{conf:8} mean of {} classes: matched {:.2} %, ban alone {:.2} %; lines {}, matched {}, ban alone {}",
            classes.len(),
            mean(|c| c.matched),
            mean(|c| c.alone),
            all.0,
            all.1,
            all.2
        );
        let (matched, alone) = (mean(|c| c.matched), mean(|c| c.alone));
        let good = match conf {
            "high" => matched >= 97.0 && alone >= 80.0,
            "probe" => matched >= 95.0,
            "benign" => all.2 == 0 && all.1 * 200 <= all.0,
            _ => true,
        };
        if !good {
            low.push(conf);
        }
    }
    assert!(low.is_empty(), "{low:?}");
}

/// Requests as written, and encoded to get past filters: which share of the plain ones' hits the
/// encoded ones keep.
#[test]
fn encoded_attacks_are_found_like_plain_ones() {
    let directory = data();
    let mut judge = judge();
    let lines: Vec<String> = lines_of(&directory.join("attack.jsonl"))
        .into_iter()
        .filter(|line| line.kind == Kind::Access && line.conf == "high")
        .map(|line| line.line)
        .collect();
    let mut lost = String::new();
    let mut low = Vec::new();
    for (name, encode) in ENCODINGS {
        let (mut plain, mut kept) = (0, 0);
        for line in &lines {
            let Some((before, target, after)) = target_of(line) else {
                continue;
            };
            let encoded = encode(target);
            if encoded == target || !is_matched(&mut judge, line) {
                continue;
            }
            plain += 1;
            let encoded = format!("{before}{encoded}{after}");
            if is_matched(&mut judge, &encoded) {
                kept += 1;
            } else {
                let _ = writeln!(lost, "{name}\t{encoded}");
            }
        }
        let share = Count::percent(kept, plain);
        println!("{name:16} {kept} of {plain}: {share:.1} %");
        if share < 95.0 {
            low.push(name);
        }
    }
    if let Some(file) = std::env::var_os("PIPEBAN_DETECT_MISSES") {
        std::fs::write(file, lost).unwrap();
    }
    assert!(low.is_empty(), "{low:?}");
}

/// Whether a jail that is on matches the line.
fn is_matched(judge: &mut Judge, line: &str) -> bool {
    let bytes: Vec<u8> = line
        .chars()
        .map(|c| u8::try_from(c).unwrap_or(b'?'))
        .collect();
    judge.verdict(Kind::Access, &bytes).0
}

/// The line before the request's target, the target, and what follows.
fn target_of(line: &str) -> Option<(&str, &str, &str)> {
    let start = line.find("] \"")? + 3;
    let start = start + line[start..].find(' ')? + 1;
    let end = start + line[start..].find(" HTTP/")?;
    Some((&line[..start], &line[start..end], &line[end..]))
}

type Encoding = (&'static str, fn(&str) -> String);
const ENCODINGS: [Encoding; 9] = [
    ("double percent", |target| target.replace('%', "%25")),
    ("overlong", |target| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let long = |text: &str| {
            let text = text
                .replace("%2e", ".")
                .replace("%2E", ".")
                .replace("%2f", "/");
            text.replace("%2F", "/")
                .replace("..", "%c0%ae%c0%ae")
                .replace("/etc", "%c0%afetc")
        };
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{mark}{}", long(path), long(query).replace('/', "%c0%af"))
    }),
    ("%u", |target| {
        let mut text = target.replace("%3C", "%u003c").replace("%27", "%u0027");
        for (plain, encoded) in [
            ("'", "%u0027"),
            ("<", "%u003c"),
            ("(", "%u0028"),
            ("..", "%uff0e%uff0e"),
        ] {
            text = text.replace(plain, encoded);
        }
        text
    }),
    ("mixed case", |target| {
        let upper = |(at, c): (usize, char)| {
            if at % 2 == 0 {
                c.to_ascii_uppercase()
            } else {
                c
            }
        };
        target.chars().enumerate().map(upper).collect()
    }),
    ("comment padding", |target| with_blanks(target, "/**/")),
    ("long comments", |target| {
        with_blanks(target, &format!("/*{}*/", "A".repeat(300)))
    }),
    ("line comments", |target| with_blanks(target, "--%20%2b%0a")),
    ("control", |target| with_blanks(target, "%01")),
    ("path tricks", |target| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{mark}{query}", path.replace('/', "/.//"))
    }),
];

/// With this in place of the blanks of the query.
fn with_blanks(target: &str, blank: &str) -> String {
    match target.split_once('?') {
        Some((path, query)) => {
            let query = query.replace('+', blank).replace("%20", blank);
            format!("{path}?{query}")
        }
        None => target.to_owned(),
    }
}

#[test]
fn honest_clients_are_not_banned_by_a_line() {
    let mut judge = judge();
    let text = std::fs::read_to_string(repository("tests/corpus/honest.log")).unwrap();
    let mut wrong = String::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let kind = if line.starts_with('[') {
            Kind::Error
        } else {
            Kind::Access
        };
        let hits = judge.hits(kind, line.as_bytes()).map(|hits| {
            let hits = hits.into_iter().map(|hit| (hit.0.to_owned(), hit.3));
            hits.collect::<Vec<_>>()
        });
        // Anyone mistypes a password; a jail that is off bans nobody.
        let harmless = |(name, weight): &(String, u32)| {
            let least = judge.jails.get(&(kind, name.clone()));
            least.is_none_or(|least| name.starts_with("apache-login") && weight < least)
        };
        if !hits.as_ref().is_some_and(|hits| hits.iter().all(harmless)) {
            let _ = writeln!(wrong, "{hits:?} {line}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn a_hit_is_of_the_true_client() {
    #[derive(serde::Deserialize)]
    struct Injection {
        line: String,
        kind: Kind,
        true_ip: std::net::IpAddr,
    }
    let mut judge = judge();
    let text = std::fs::read_to_string(repository("tests/corpus/injection.jsonl")).unwrap();
    for line in text.lines() {
        let injection: Injection = serde_json::from_str(line).unwrap();
        let bytes: Vec<u8> = injection
            .line
            .chars()
            .map(|c| u8::try_from(c).unwrap_or(b'?'))
            .collect();
        let parser = match injection.kind {
            Kind::Access => Parser::new(Kind::Access, "combined").unwrap(),
            Kind::Error => Parser::new(Kind::Error, "auto").unwrap(),
        };
        let hits = judge.hits(injection.kind, &bytes).unwrap_or_default();
        if !hits.is_empty() {
            let client = parser.parse(&bytes).and_then(|record| record.client);
            assert_eq!(
                client.map(|client| client.addr),
                Some(injection.true_ip),
                "{line}"
            );
        }
    }
}

#[test]
fn every_rule_hits_its_samples_and_misses_the_others() {
    let mut judge = judge();
    let mut wrong = String::new();
    for (name, rules) in shipped() {
        for (number, rule) in (1..).zip(&rules.rules) {
            let place = format!("{}:{}", rules.file.display(), rule.place.0);
            if !rule.samples.iter().any(|sample| sample.hits) {
                let _ = writeln!(wrong, "{place}: the rule has no sample that hits it");
            }
            for sample in &rule.samples {
                let kind = if sample.line.starts_with('[') {
                    Kind::Error
                } else {
                    Kind::Access
                };
                let hits = judge.hits(kind, sample.line.as_bytes());
                let found = hits.as_ref().is_some_and(|hits| {
                    hits.iter()
                        .any(|hit| (hit.0, hit.1) == (name.as_str(), number))
                });
                if hits.is_none() || found != sample.hits {
                    let _ = writeln!(wrong, "{place}: {}: {hits:?}", sample.line);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Rules that a further parameter does switch off: PHP reads options only from a query without `=`.
const OF_WHOLE_QUERIES: [(&str, u32); 1] = [("apache-php-rce", 3)];

/// A harmless parameter does not hide an attack, whatever the rules spare.
#[test]
fn no_second_parameter_hides_an_attack() {
    let mut judge = judge();
    let mut hidden = String::new();
    let mut tried = 0;
    for (name, rules) in shipped() {
        let rules = (1..).zip(&rules.rules);
        for (number, rule) in rules.filter(|(n, _)| !OF_WHOLE_QUERIES.contains(&(&name, *n))) {
            let queries = |hits| {
                let samples = rule
                    .samples
                    .iter()
                    .filter(move |sample| sample.hits == hits);
                samples.filter_map(|sample| {
                    let (before, target, after) = target_of(&sample.line)?;
                    Some((before, target.split_once('?')?, after))
                })
            };
            for (_, (_, spared), _) in queries(false) {
                for (before, (path, query), after) in queries(true) {
                    for query in [format!("{query}&{spared}"), format!("{spared}&{query}")] {
                        let line = format!("{before}{path}?{query}{after}");
                        let hits = judge.hits(Kind::Access, line.as_bytes());
                        let mut hits = hits.into_iter().flatten();
                        tried += 1;
                        if !hits.any(|hit| (hit.0, hit.1) == (name.as_str(), number)) {
                            let _ = writeln!(hidden, "{name}:{number} {line}");
                        }
                    }
                }
            }
        }
    }
    assert!(tried > 100, "{tried}");
    assert!(hidden.is_empty(), "\n{hidden}");
}

/// A bounded repetition between two words that may both come again has as many states as there are
/// ways to count.
#[test]
fn words_that_come_again_cost_little_more_than_others() {
    let mut judge = judge();
    let mut time = |words: [&str; 4]| {
        let mut random = 1u64;
        let mut spent = Duration::ZERO;
        for _ in 0..5 {
            let mut query = String::new();
            while query.len() < 8_000 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                query.push_str(words[(random >> 62) as usize]);
            }
            let line = format!(
                "192.0.2.7 - - [22/Nov/2026:11:00:32 +0000] \"GET /?q={query} HTTP/1.1\" 200 5 \"-\" \"-\""
            );
            let begin = thread_time();
            judge.verdict(Kind::Access, line.as_bytes());
            spent += thread_time() - begin;
        }
        spent
    };
    let ordinary = time(["shirt+", "x+", "yy+", "blue+"]);
    for words in [
        ["select+", "x+", "yy+", "from+"],
        ["union+", "x+", "select+", "from+"],
    ] {
        let spent = time(words);
        eprintln!("{words:?}: {spent:?}, others {ordinary:?}");
        assert!(
            spent < ordinary * 4,
            "{words:?}: {spent:?}, others {ordinary:?}"
        );
    }
}
