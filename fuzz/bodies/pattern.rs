//! A pattern translated, compiled and matched. The first line of the input is the pattern, a
//! second that begins with `!` an ignoreregex, one that begins with `^^` a prefregex; the rest is
//! what a client sent.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

use pipeban::config::{self, Config};
use pipeban::disk;
use pipeban::filter::matcher::{InputKind, Matcher};
use pipeban::filter::{Definition, Filter, Outcome, PatternText, Subject};
use pipeban::record::{Kind, Parser};

const CLIENT: &str = "203.0.113.9";
const HEAD: &str =
    "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 9:tid 9] [client 203.0.113.9:49108] ";
/// Longer ones find nothing new and take long.
const LONGEST_PATTERN: usize = 200;
const LONGEST_TEXT: usize = 600;

pub(super) fn check(data: &[u8]) {
    let mut lines = data.splitn(2, |b| *b == b'\n');
    let pattern = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let mut rest = lines.next().unwrap_or_default();
    let mut special = |mark: &[u8]| {
        let line = rest.split(|b| *b == b'\n').next()?.strip_prefix(mark)?;
        rest = rest.get(mark.len() + line.len() + 1..).unwrap_or_default();
        Some(String::from_utf8_lossy(line).into_owned())
    };
    let (prefix, ignore) = (special(b"^^"), special(b"!"));
    let whole = [
        &*pattern,
        prefix.as_deref().unwrap_or_default(),
        ignore.as_deref().unwrap_or_default(),
    ];
    if whole.iter().any(|text| text.len() > LONGEST_PATTERN) || rest.len() > LONGEST_TEXT {
        return;
    }
    let text = |text: &str| PatternText {
        text: text.to_owned(),
        file: None,
        line: 1,
        column: 1,
        class: None,
        spoofable: false,
        certain: None,
    };
    let definition = Definition {
        name: "f".to_owned(),
        file: PathBuf::from("f.conf"),
        prefregex: prefix.as_deref().map(text),
        failregex: vec![text(&pattern)],
        ignoreregex: ignore.as_deref().map(text).into_iter().collect(),
        native: Vec::new(),
    };
    let filter = match Filter::compile(&definition) {
        Ok(filter) => filter,
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(problem.place == Some((1, 1)) && !problem.message.is_empty());
            }
            return;
        }
    };
    let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
    raw(&filter, line);
    of_apache(&filter, line);
    as_the_live_path(&definition, &filter, line);
}

/// Without a record the host is an address in the line.
fn raw(filter: &Filter, line: &[u8]) {
    let subject = Subject::raw(line, None);
    let outcome = filter.examine(&subject);
    assert_eq!(outcome, filter.examine(&subject), "examined twice");
    if let Outcome::Match { host, pattern, .. } = outcome {
        assert_eq!(pattern, 1);
        assert!(is_in(line, host), "{host} is not in the line");
    }
}

fn is_in(line: &[u8], host: IpAddr) -> bool {
    let part = |b: &u8| b.is_ascii_hexdigit() || *b == b':' || *b == b'.';
    line.split(|b| !part(b)).any(|run| {
        (0..run.len()).any(|from| {
            let longest = run.len().min(from + 50);
            (from + 2..=longest).any(|to| {
                let text = run.get(from..to).and_then(|t| std::str::from_utf8(t).ok());
                let addr = text.and_then(|text| text.parse::<IpAddr>().ok());
                addr.is_some_and(|addr| addr.to_canonical() == host)
            })
        })
    })
}

fn error_line(sent: &[u8]) -> Vec<u8> {
    [HEAD.as_bytes(), sent].concat()
}

/// Behind Apache only the client is hit.
fn of_apache(filter: &Filter, sent: &[u8]) {
    let line = error_line(sent);
    let parser = Parser::new(Kind::Error, "auto").expect("a known format");
    let record = parser.parse(&line).expect("a line of Apache's");
    if let Outcome::Match { host, .. } = filter.examine(&Subject::of(&line, &record)) {
        assert_eq!(host.to_string(), CLIENT);
    }
}

/// The search for literals skips no line that matches.
fn as_the_live_path(definition: &Definition, filter: &Filter, sent: &[u8]) {
    let mut line = error_line(sent);
    let parser = Parser::new(Kind::Error, "auto").expect("a known format");
    let record = parser.parse(&line).expect("a line of Apache's");
    let outcome = filter.examine(&Subject::of(&line, &record));
    let limits = filter.limits_hit();
    let mut config = with_one_jail().clone();
    for filter in config.filters.values_mut() {
        filter.clone_from(definition);
    }
    let parser = Parser::new(Kind::Error, "auto").expect("a known format");
    let rules = config::rules(&config, Kind::Error);
    let matcher = Matcher::new(&rules, InputKind::Apache(Kind::Error, parser));
    line.push(b'\n');
    let result = matcher.examine(&line);
    // A limit that stopped a pattern once may stop it again.
    if limits == 0 {
        let expected = (
            usize::from(matches!(outcome, Outcome::Match { .. })),
            u64::from(matches!(outcome, Outcome::Spoof { .. })),
        );
        assert_eq!((result.hits.len(), result.spoofed), expected, "{outcome:?}");
    }
}

/// A configuration with one jail on the error log.
fn with_one_jail() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("pipeban-fuzz-{}", std::process::id()));
        let write = |name: &str, text: String| {
            let file = directory.join(name);
            std::fs::create_dir_all(file.parent().expect("in the directory")).expect("a directory");
            std::fs::write(&file, text).expect("a file");
            file
        };
        write(
            "filters.d/f.conf",
            "[Definition]\nfailregex = <HOST>\n".to_owned(),
        );
        let text =
            format!("[paths]\nshare = {directory:?}\n[jails.f]\nenabled = true\nlog = \"error\"\n");
        let file = write("pipeban.toml", text);
        let config = disk::load(&file).expect("a configuration");
        std::fs::remove_dir_all(&directory).expect("the directory is ours");
        config
    })
}
