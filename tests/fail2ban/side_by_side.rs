//! `fail2ban-regex` and `pipeban test` on the same filter and the same lines.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{FILTERS, SAMPLES, installed};

/// Lines of each verdict.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    ignored: usize,
    matched: usize,
    missed: usize,
}

fn fail2ban(log: &Path, filter: &Path) -> Counts {
    let output = Command::new("fail2ban-regex")
        .arg("--usedns=no")
        .args([log, filter])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts = said.lines().find(|line| line.starts_with("Lines:"));
    let counts = counts.unwrap_or_else(|| panic!("{said}"));
    let count = |what: &str| {
        let mut parts = counts
            .split(", ")
            .filter_map(|part| part.strip_suffix(what));
        parts.next().unwrap().parse().unwrap()
    };
    Counts {
        ignored: count(" ignored"),
        matched: count(" matched"),
        missed: count(" missed"),
    }
}

/// The same, and the number of spoofed lines.
fn pipeban(kind: &[&str], log: &Path, filter: &Path) -> (Counts, usize) {
    let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .args(["test", "--json"])
        .args(kind)
        .arg("--filter")
        .args([filter, log])
        .output()
        .unwrap();
    let mut counts = Counts::default();
    let mut spoofs = 0;
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        match value["verdict"].as_str().unwrap() {
            "match" => counts.matched += 1,
            "ignored" => counts.ignored += 1,
            "spoof" => spoofs += 1,
            _ => counts.missed += 1,
        }
    }
    (counts, spoofs)
}

#[test]
fn the_tutorials_filter_counts_as_with_fail2ban_regex_but_for_the_spoofed_line() {
    if !installed() {
        return;
    }
    let filter = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config/examples/filters.d/apache-cgitraversal.conf");
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("error.log");
    let head = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919]";
    let attack = "[client 203.0.113.9:49108] AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/bin/sh)";
    let honest = [
        format!("{head} {attack}"),
        format!("{head} [client 203.0.113.9:49108] AH10244: invalid URI path (/../../etc/passwd)"),
        format!(
            "{head} [client 203.0.113.9:49108] AH01630: client denied by server configuration: /x"
        ),
        "stderr of a script".to_owned(),
    ];
    std::fs::write(&log, honest.join("\n") + "\n").unwrap();
    let counts = Counts {
        ignored: 0,
        matched: 1,
        missed: 3,
    };
    assert_eq!(fail2ban(&log, &filter), counts);
    assert_eq!(pipeban(&[], &log, &filter), (counts, 0));

    let spoof = format!("{head} [client 192.0.2.1:1] AH01630: x, referer: {attack}\n");
    std::fs::write(&log, spoof).unwrap();
    assert_eq!(
        fail2ban(&log, &filter).matched,
        1,
        "bans a client that sent nothing"
    );
    assert_eq!(pipeban(&[], &log, &filter), (Counts::default(), 1));
}

#[test]
fn fail2bans_filters_count_the_same_on_its_samples() {
    if !installed() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let compare = &|name: &str| {
        let bytes = std::fs::read(Path::new(SAMPLES).join(name)).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines = text
            .lines()
            .filter(|l| !l.starts_with('#') && !l.trim().is_empty());
        let lines: Vec<&str> = lines.collect();
        let log: PathBuf = directory.path().join(name);
        std::fs::write(&log, lines.join("\n") + "\n").unwrap();
        let filter = Path::new(FILTERS).join(format!("{name}.conf"));
        // Its samples are of many hosts and formats: without records, as fail2ban reads them.
        let (counts, _) = pipeban(&["--kind", "raw"], &log, &filter);
        assert_eq!(counts, fail2ban(&log, &filter), "{name}");
        assert!(counts.matched > 0, "{name}");
    };
    std::thread::scope(|scope| {
        for names in [
            ["apache-auth", "apache-noscript", "apache-botsearch"],
            ["nginx-http-auth", "drupal-auth", "dovecot"],
        ] {
            scope.spawn(move || names.iter().for_each(|name| compare(name)));
        }
    });
}
