use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::filter::tests::definition;
use crate::filter::{Outcome, Subject, read};
use crate::record::Parser;

const ERROR: &[Kind] = &[Kind::Error];
const ACCESS: &[Kind] = &[Kind::Access];

const HEAD: &str = r"^\[\] \[\S+\] \[pid \d+(?::tid \d+)?\] \[client <HOST>:\d+\] ";

fn found(fail: &[&str], ignore: &[&str], logs: &[Kind]) -> Vec<(Lint, PatternAt)> {
    let findings = lint(&definition(fail, ignore), logs);
    findings.iter().map(|f| (f.lint, f.pattern)).collect()
}

#[test]
fn a_spoofable_pattern_is_reported_with_a_line_that_proves_it() {
    for (pattern, logs, victim) in [
        (
            r"\[client <HOST>:\d+\] AH10244: invalid URI path \(.*cgi-bin.*bin/sh.*",
            ERROR,
            "198.51.100.7",
        ),
        // Only the referrer is at the end.
        (
            r"^.*client denied by server configuration: <HOST>$",
            ERROR,
            "198.51.100.7",
        ),
        // A module with unknown messages.
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
        let findings = lint(&definition(&[pattern], &[]), logs);
        let spoof = findings.iter().find(|f| f.lint == Lint::Spoofable);
        let spoof = spoof.unwrap_or_else(|| panic!("{pattern}: {findings:?}"));
        assert!(spoof.message.contains(victim), "{}", spoof.message);
        let line = spoof.attack.as_ref().unwrap();
        let filter = Filter::compile(&definition(&[pattern], &[])).unwrap();
        let parser = Parser::new(logs[0], "auto").unwrap();
        let record = parser.parse(line.as_bytes()).unwrap();
        assert_eq!(record.client.unwrap().text, b"203.0.113.66", "{line}");
        let raw = Subject::raw(line.as_bytes(), record.time.clone());
        let Outcome::Match { host, .. } = filter.examine(&raw) else {
            panic!("{pattern}: {line}");
        };
        assert_eq!(host.to_string(), victim, "{line}");
        // Behind Apache the victim is not hit.
        let live = filter.examine(&Subject::of(line.as_bytes(), &record));
        assert!(!matches!(live, Outcome::Match { host, .. } if host.to_string() == victim));
    }
}

#[test]
fn a_pattern_that_no_client_can_spoof_is_not_reported() {
    for (pattern, logs) in [
        (&*format!(r"{HEAD}AH10244: invalid URI path \(/cgi"), ERROR),
        (r#"^<HOST> - \S+ \[\] "GET /evil"#, ACCESS),
        // Not anchored, but the first address of the line is Apache's.
        (r"<HOST> .*evil", ACCESS),
        // Apache escapes these quotes.
        (r#"agent "x" of <HOST> failed"#, ACCESS),
        // Without a wildcard before it.
        (r"^\[\] \[mine:error\] \[client <HOST>:\d+\] boom", ERROR),
    ] {
        let findings = lint(&definition(&[pattern], &[]), logs);
        let spoof = findings.iter().find(|f| f.lint == Lint::Spoofable);
        assert_eq!(spoof, None, "{pattern}");
    }
    let ignoring = definition(&[r"evil <HOST> "], &[r"198\.51\.", r"8\.8\.", "evil"]);
    let findings = lint(&ignoring, ACCESS);
    assert!(findings.iter().all(|f| f.lint != Lint::Spoofable));
}

#[test]
fn a_duplicate_is_reported() {
    let (evil, good) = ("^<HOST> - .*evil", "^<HOST> - .*good");
    let two = (Lint::Duplicate, PatternAt::Fail(2));
    assert_eq!(found(&[evil, evil, good], &["a", "b"], ACCESS), [two]);
    let ignore = (Lint::Duplicate, PatternAt::Ignore(2));
    assert_eq!(found(&[evil], &["abc", "abc"], ACCESS), [ignore]);
}

#[test]
fn slow_patterns_are_reported_with_the_cause() {
    let slow = r"^<HOST> \S+ \S+ .* \d+$";
    let expected = [(Lint::Slow, PatternAt::Fail(1))];
    assert_eq!(found(&[slow], &[], ACCESS), expected);
    let findings = lint(&definition(&[r"^<HOST> - .*(?<!good )evil"], &[]), ACCESS);
    assert_eq!(findings[0].lint, Lint::Backtracks);
    assert!(findings[0].message.contains("look-behind `(?<!good )`"));
}

#[test]
fn a_prefix_and_its_patterns_are_checked_as_one() {
    let text = "[Definition]\nprefregex = ^\\[\\] \\[\\S+\\]( \\[pid \\d+(:\\S+ \\d+)?\\])? \\[client <HOST>(:\\d{1,5})?\\] (?:AH\\d+: )?<F-CONTENT>.+</F-CONTENT>$\nfailregex = ^user <F-USER>\\S+</F-USER> not found\\b\n            x|^evil$\n            ^user a not found: /\n            user\n";
    let read = |text: &str| {
        let read = read(
            "f",
            Path::new("f.conf"),
            &BTreeMap::new(),
            &|path: &Path| {
                let found = path.extension().is_some_and(|ending| ending == "conf");
                let missing = || std::io::ErrorKind::NotFound.into();
                found.then(|| text.to_owned()).ok_or_else(missing)
            },
        );
        read.unwrap()
    };
    assert_eq!(lint(&read(text), ERROR), []);
    // Without its anchor the prefix finds itself in a referrer.
    let loose = text.replace("^\\[\\] \\[\\S+\\](", "^.*(");
    let findings = lint(&read(&loose), ERROR);
    let spoofs: Vec<_> = findings.iter().filter_map(|f| f.attack.as_ref()).collect();
    assert_eq!(spoofs.len(), 4, "{findings:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_pattern_makes_a_lint_panic(pattern in "[ -~é]{0,30}", host in 0usize..30) {
        let cut = pattern.floor_char_boundary(host);
        let pattern = format!("{}<HOST>{}", &pattern[..cut], &pattern[cut..]);
        let _ = lint(&definition(&[&pattern, "^<HOST>"], &[&pattern]), ACCESS);
    }
}
