use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::filter::regexes::coarse_syntax;
use crate::filter::tests::definition;
use crate::filter::{Outcome, Subject, read};
use crate::record::Parser;

const ERROR: &[Kind] = &[Kind::Error];
const ACCESS: &[Kind] = &[Kind::Access];

static LINTER: LazyLock<Linter> = LazyLock::new(Linter::default);

const HEAD: &str = r"^\[\] \[\S+\] \[pid \d+(?::tid \d+)?\] \[client <HOST>:\d+\] ";

fn found(fail: &[&str], ignore: &[&str], logs: &[Kind]) -> Vec<(Lint, PatternAt)> {
    let findings = LINTER.lint(&definition(fail, ignore), logs);
    findings.iter().map(|f| (f.lint, f.pattern)).collect()
}

/// What is told of a single pattern.
fn told(pattern: &str, logs: &[Kind]) -> Vec<Finding> {
    LINTER.lint(&definition(&[pattern], &[]), logs)
}

#[test]
fn a_spoof_is_told_with_the_line_that_proves_it() {
    for (pattern, logs, victim) in [
        (
            r"\[client <HOST>:\d+\] AH10244: invalid URI path \(.*cgi-bin.*bin/sh.*",
            ERROR,
            "198.51.100.7",
        ),
        // Only the referrer stands at the end.
        (
            r"^.*client denied by server configuration: <HOST>$",
            ERROR,
            "198.51.100.7",
        ),
        // A module whose messages are not known here.
        (
            r"^\[\] \[mine:error\] .*\[client <HOST>:\d+\] boom",
            ERROR,
            "198.51.100.7",
        ),
        // A quote, which the error log does not escape.
        (r#"agent "x" of <HOST> failed"#, ERROR, "198.51.100.7"),
        (
            r#"^\S+ \S+ \S+ \[\] "GET /x\?from=<HOST> HTTP/1.1" 404 \d+"#,
            ACCESS,
            "198.51.100.7",
        ),
        (
            r#"^\S+ - - \[\] "POST /login [^"]*" 403 \d+ "-" "bot at <HOST>"$"#,
            ACCESS,
            "198.51.100.7",
        ),
        (r"user <HOST> \[\] .*401", ACCESS, "198.51.100.7"),
        // Its wildcard leaves <HOST> no more than one digit of each number.
        (r"^.*<HOST>.*evil", ACCESS, "8.8.8.8"),
        (r"from <IP6>, .*evil", ACCESS, "2001:db8::7"),
        (
            r"(?!x)\[client <HOST>\] (?<=\] )evil",
            ERROR,
            "198.51.100.7",
        ),
    ] {
        let findings = told(pattern, logs);
        let spoof = findings.iter().find(|f| f.lint == Lint::Spoofable);
        let spoof = spoof.unwrap_or_else(|| panic!("{pattern}: {findings:?}"));
        assert!(spoof.message.contains(victim), "{}", spoof.message);
        let line = spoof.attack.as_ref().unwrap();
        let filter = Filter::compile(&definition(&[pattern], &[])).unwrap();
        let record = Parser::new(logs[0], "auto").unwrap();
        let record = record.parse(line.as_bytes()).unwrap();
        assert_eq!(record.client.unwrap().text, b"203.0.113.66", "{line}");
        let raw = Subject::raw(line.as_bytes(), record.time.clone());
        let Outcome::Match { host, .. } = filter.examine(&raw) else {
            panic!("{pattern}: {line}");
        };
        assert_eq!(host.to_string(), victim, "{line}");
        // Behind Apache nobody else is hit.
        let live = filter.examine(&Subject::of(line.as_bytes(), &record));
        assert!(!matches!(live, Outcome::Match { host, .. } if host.to_string() == victim));
    }
}

#[test]
fn what_no_client_can_spoof_is_not_told() {
    for (pattern, logs) in [
        (&*format!(r"{HEAD}AH10244: invalid URI path \(/cgi"), ERROR),
        (r#"^<HOST> - \S+ \[\] "GET /evil"#, ACCESS),
        // Not anchored, but the first address of the line is Apache's.
        (r"<HOST> .*evil", ACCESS),
        // Quotes that Apache would have escaped.
        (r#"agent "x" of <HOST> failed"#, ACCESS),
        // The same without a wildcard before it.
        (r"^\[\] \[mine:error\] \[client <HOST>:\d+\] boom", ERROR),
    ] {
        let findings = told(pattern, logs);
        let spoof = findings.iter().find(|f| f.lint == Lint::Spoofable);
        assert_eq!(spoof, None, "{pattern}");
    }
    let ignoring = definition(&[r"evil <HOST> "], &[r"198\.51\.", r"8\.8\.", "evil"]);
    let findings = LINTER.lint(&ignoring, ACCESS);
    assert!(findings.iter().all(|f| f.lint != Lint::Spoofable));
}

#[test]
fn a_pattern_that_no_line_can_match_is_told_why() {
    for (pattern, logs, word) in [
        (
            &*format!("{HEAD}evil"),
            ACCESS,
            "give its jail `log = \"error\"`",
        ),
        (
            r#"^<HOST> - \S+ \[\] "GET /evil"#,
            ERROR,
            "give its jail `log = \"access\"`",
        ),
        (
            r#"^<HOST> - \S+ \[[^\]]+ \+0000\] "GET /evil"#,
            ACCESS,
            "the time",
        ),
        (
            r"^\[\w+ \w+ \d+ [\d:.]+ \d+\] \[core:error\] .*client <HOST>:\d+\] evil",
            ERROR,
            "the time",
        ),
        (
            r"^sshd\[\d+\]: Failed password from <HOST>",
            ERROR,
            "another program",
        ),
        (
            r"^sshd\[\d+\]: Failed password from <HOST>",
            &[Kind::Access, Kind::Error],
            "another",
        ),
    ] {
        let findings = told(pattern, logs);
        let [finding] = findings.as_slice() else {
            panic!("{pattern}: {findings:?}");
        };
        assert_eq!(finding.lint, Lint::NeverMatches);
        assert!(finding.message.contains(word), "{}", finding.message);
    }
    // One of many is told alone, all of them in one.
    let good = &*format!("{HEAD}evil");
    let never = (Lint::NeverMatches, PatternAt::Fail(1));
    assert_eq!(found(&["^x <HOST>", good], &[], ERROR), [never]);
    assert_eq!(found(&["^x <HOST>", "^y <HOST>"], &[], ERROR), [never]);
    let mut lines = definition(&["^x <HOST>"], &[]);
    lines.maxlines = 2;
    let findings = LINTER.lint(&lines, ERROR);
    assert!(findings[0].message.contains("maxlines"), "{findings:?}");
}

#[test]
fn lines_as_apache_writes_them_are_lines_here() {
    for (kind, text) in [
        (Kind::Access, r#"A - - [] "GET / HTTP/1.1" 200 5"#),
        (Kind::Access, r#"A - us er [ [] "-" 408 0 "-" "-""#),
        (Kind::Access, r#"www:443 A - - [] "" 400 - "-" "a \"b\"""#),
        (
            Kind::Access,
            r#"www:443 A 10.0.0.1 - - [] "\x16" 400 5 "-" "-""#,
        ),
        (
            Kind::Error,
            "[] [core:error] [pid 9:tid 9] [client A:1] AH1",
        ),
        (Kind::Error, "[] [:error] [pid 9] [client A:1] x"),
        (Kind::Error, "[] [error] [client A] File does not exist: /x"),
        (
            Kind::Error,
            "[] [core:info] [pid 9] (36)File name too long: [client A:1] AH00127: x, referer: y",
        ),
        (
            Kind::Error,
            "[] [ssl:info] [pid 9] ssl.c(12): [client A:1] AH02033: No",
        ),
    ] {
        for client in CLIENTS {
            let text = text.replace('A', client.text);
            let exactly = format!("^{}$", regex_syntax::escape(&text));
            let line = Automaton::new(&coarse_syntax(&exactly).unwrap()).unwrap();
            let all = forms::lines(kind, client, Time::Cut).unwrap();
            assert_eq!(line.common(&all), Common::Text(text.into_bytes()));
        }
    }
}

#[test]
fn patterns_that_others_make_needless_are_told() {
    let two = PatternAt::Fail(2);
    let plain = |text: &str| format!("^<HOST> - .*{text}");
    let (evil, worse, any) = (plain("evil"), plain("evil.*worse$"), plain("E[vV]il|good"));
    for (first, second, lint) in [
        (&*evil, &*evil, Some(Lint::Duplicate)),
        (&evil, &worse, Some(Lint::Shadowed)),
        (&worse, &evil, None),
        (&format!("(?i){evil}"), &any, None),
        (&format!("(?i){any}"), &evil, Some(Lint::Shadowed)),
        (r"^(?:\S+ )?<HOST> - .*evil", &evil, Some(Lint::Shadowed)),
        (&evil, r"^(?:\S+ )?<HOST> - .*evil", None),
        (
            r"^<HOST> - .{0,9}evil",
            r"^<HOST> - .{3,5}evil",
            Some(Lint::Shadowed),
        ),
        (r"^<HOST> - .{0,9}evil", r"^<HOST> - .{3,10}evil", None),
        (&evil, r"^<IP4> - .*evil", Some(Lint::Shadowed)),
        (r"^<IP4> - .*evil", &evil, None),
        // Looks that automata do not follow: nothing is said.
        (r"^<HOST> - .*\bevil", r"^<HOST> - .* evil ", None),
    ] {
        let expected: Vec<_> = lint.map(|lint| (lint, two)).into_iter().collect();
        assert_eq!(
            found(&[first, second], &[], ACCESS),
            expected,
            "{first} {second}"
        );
    }
    let looks = r"^<HOST> - (?!x).*evil";
    let steps = [(Lint::StepsBack, PatternAt::Fail(1))];
    assert_eq!(found(&[looks, r"^<HOST> - y.*evil"], &[], ACCESS), steps);
}

#[test]
fn an_ignoreregex_that_spares_all_is_told() {
    let evil = r"^<HOST> - .*evil";
    let told = [(Lint::IgnoresAll, PatternAt::Ignore(1))];
    for ignore in [".*", "^.*$", "evil", "^<HOST>", r"^\[?[\d.a-f:]+\]? "] {
        assert_eq!(found(&[evil], &[ignore], ACCESS), told, "{ignore}");
        let both = &[evil, r"^\S+:\d+ <HOST> .*good"];
        let message = LINTER.lint(&definition(both, &[ignore]), ACCESS);
        let all = message[0].message.contains("the filter's patterns");
        assert_eq!(
            all,
            ignore.contains(".*"),
            "{ignore}: {}",
            message[0].message
        );
    }
    for ignore in ["good", "^evil", r"192\.168\.", "^$", r"^<IP4>"] {
        assert_eq!(found(&[evil], &[ignore], ACCESS), [], "{ignore}");
    }
}

#[test]
fn what_is_slow_is_told_with_its_cause() {
    let slow = r"^<HOST> \S+ \S+ .* \d+$";
    assert_eq!(
        found(&[slow], &[], ACCESS),
        [(Lint::Slow, PatternAt::Fail(1))]
    );
    let findings = told(r"^<HOST> - .*(?<!good )evil", ACCESS);
    assert_eq!(findings[0].lint, Lint::StepsBack);
    assert!(findings[0].message.contains("look-behind `(?<!good )`"));
}

#[test]
fn a_prefix_and_its_patterns_are_seen_as_one() {
    let text = "[Definition]\nprefregex = ^\\[\\] \\[\\S+\\]( \\[pid \\d+(:\\S+ \\d+)?\\])? \\[client <HOST>(:\\d{1,5})?\\] (?:AH\\d+: )?<F-CONTENT>.+</F-CONTENT>$\nfailregex = ^user <F-USER>\\S+</F-USER> not found\\b\n            x|^evil$\n            ^user a not found: /\n            user\n";
    let read = |text: &str| {
        let read = read("f", Path::new("f.conf"), &BTreeMap::new(), &|path| {
            let found = path.extension().is_some_and(|ending| ending == "conf");
            let missing = || std::io::ErrorKind::NotFound.into();
            found.then(|| text.to_owned()).ok_or_else(missing)
        });
        read.unwrap()
    };
    assert_eq!(LINTER.lint(&read(text), ERROR), []);
    let access = LINTER.lint(&read(text), ACCESS);
    assert_eq!(access.len(), 1);
    assert_eq!((access[0].lint, access[0].line), (Lint::NeverMatches, 3));
    // Without its anchor the prefix finds itself in a referrer.
    let loose = text.replace("^\\[\\] \\[\\S+\\](", "^.*(");
    let findings = LINTER.lint(&read(&loose), ERROR);
    let spoofs: Vec<_> = findings.iter().filter_map(|f| f.attack.as_ref()).collect();
    assert_eq!(spoofs.len(), 4, "{findings:?}");
}

/// Patterns of few letters, and every short text of them.
const PIECES: [&str; 12] = [
    "a",
    "b",
    "ab",
    "a*",
    "b+",
    "[ab]",
    "(?:a|bb)",
    ".",
    "a?",
    "[^a]",
    ".*",
    "(?:ab){1,2}",
];

fn texts() -> Vec<Vec<u8>> {
    let mut texts = vec![Vec::new()];
    for at in 0.. {
        let Some(text) = texts
            .get(at)
            .cloned()
            .filter(|text: &Vec<u8>| text.len() < 6)
        else {
            break;
        };
        texts.extend(
            b"abc"
                .iter()
                .map(|byte| [text.as_slice(), &[*byte]].concat()),
        );
    }
    texts
}

fn pattern() -> impl Strategy<Value = String> {
    let pieces = proptest::collection::vec(proptest::sample::select(PIECES.as_slice()), 0..4);
    (any::<bool>(), pieces, any::<bool>()).prop_map(|(begins, pieces, ends)| {
        let front = if begins { "^" } else { "" };
        format!("{front}{}{}", pieces.concat(), if ends { "$" } else { "" })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn automata_agree_with_the_regex_crate(one in pattern(), other in pattern()) {
        let automaton = |text: &str| Automaton::new(&coarse_syntax(text).unwrap()).unwrap();
        let regex = |text: &str| regex::bytes::Regex::new(&format!("(?-u){text}")).unwrap();
        let (a, b) = (automaton(&one), automaton(&other));
        let (x, y) = (regex(&one), regex(&other));
        let whole = format!("^(?:{})$", other.trim_matches(['^', '$']));
        let z = regex(&whole);
        let texts = texts();
        let both = texts.iter().find(|text| x.is_match(text) && z.is_match(text));
        match a.common(&automaton(&whole)) {
            Common::None => prop_assert_eq!(both, None),
            Common::Text(text) => {
                prop_assert!(x.is_match(&text) && z.is_match(&text), "{:?}", text);
                prop_assert!(both.is_none_or(|both| both.len() >= text.len()));
            }
            Common::Unknown => prop_assert!(false),
        }
        let without = texts.iter().find(|text| x.is_match(text) && !y.is_match(text));
        let within = a.is_within(&b, &mut 1_000_000).unwrap();
        prop_assert_eq!(within, without.is_none(), "{:?}", without);
        prop_assert_eq!(a.is_within(&b, &mut 0), None);
    }

    #[test]
    fn no_pattern_makes_a_lint_panic(pattern in "[ -~é]{0,30}", host in 0usize..30) {
        let cut = pattern.floor_char_boundary(host);
        let pattern = format!("{}<HOST>{}", &pattern[..cut], &pattern[cut..]);
        let _ = LINTER.lint(&definition(&[&pattern, "^<HOST>"], &[&pattern]), ACCESS);
    }
}
