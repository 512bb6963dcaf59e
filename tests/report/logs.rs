use std::io::Write as _;

use serde_json::json;

use super::Place;

/// As fail2ban 1.0 writes them; the first file is the older one.
const OLD: &str = "\
2026-11-20 10:00:00,123 fail2ban.server         [612]: INFO    Starting Fail2ban v1.0.2
2026-11-20 10:00:01,200 fail2ban.filter         [612]: INFO    [apache-access-traversal] Found 204.48.26.17 - 2026-11-20 10:00:01
2026-11-20 10:00:02,300 fail2ban.actions        [612]: NOTICE  [apache-access-traversal] Ban 204.48.26.17
2026-11-20 11:00:00,000 fail2ban.actions        [612]: NOTICE  [apache-auth] Ban 203.0.113.70
2026-11-20 12:00:00,000 fail2ban.actions        [612]: NOTICE  [apache-auth] Unban 203.0.113.70
2026-11-20 12:00:01,000 fail2ban.actions        [612]: WARNING [apache-auth] 203.0.113.70 already banned
2026-11-20 13:00:00,000 fail2ban.actions        [612]: NOTICE  [apache-access-traversal] Unban 204.48.26.17
";
const NEW: &str = "\
2026-11-21 00:00:01,000 fail2ban.actions        [801]: NOTICE  [apache-access-traversal] Restore Ban 204.48.26.17
2026-11-21 00:00:01,000 fail2ban.actions        [801]: NOTICE  [apache-auth] Restore Ban 2001:db8::7
2026-11-21 09:00:00,000 fail2ban.actions        [801]: NOTICE  [apache-auth] Ban 203.0.113.70
2026-11-22 03:04:05,678 fail2ban.actions        [801]: NOTICE  [apache-access-traversal] Ban 137.131.43.224
2026-11-22 03:04:06,000 fail2ban.actions        [801]: NOTICE  [recidive] Increase Ban 137.131.43.224 (2 # 0:20:00 -> 2026-11-22 03:24:06)
";

fn gzip(text: &str) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap().stdout
}

#[test]
fn rotated_logs_of_fail2ban_are_read_in_any_order() {
    let place = Place::new();
    let (old, new) = (place.path("fail2ban.log.1.gz"), place.path("fail2ban.log"));
    std::fs::write(&old, gzip(OLD)).unwrap();
    std::fs::write(&new, NEW).unwrap();
    let (old, new) = (old.to_str().unwrap(), new.to_str().unwrap());
    for files in [[old, new], [new, old]] {
        let words = ["--fail2ban-log", files[0], files[1]];
        let (clients, summary) = place.json(&words);
        let shown: Vec<_> = clients
            .iter()
            .map(|c| {
                let first = &c["first"].as_str().unwrap()[..16];
                json!([c["host"], c["bans"], first, c["in_force"], c["jails"]])
            })
            .collect();
        assert_eq!(
            shown,
            [
                json!(["203.0.113.70", 2, "2026-11-20T11:00", true, ["apache-auth"]]),
                json!([
                    "137.131.43.224",
                    1,
                    "2026-11-22T03:04",
                    true,
                    ["apache-access-traversal"]
                ]),
                // Only its restoration is in the logs.
                json!(["2001:db8::7", 1, "2026-11-21T00:00", true, ["apache-auth"]]),
                // Restored after fail2ban was started again: one ban.
                json!([
                    "204.48.26.17",
                    1,
                    "2026-11-20T10:00",
                    true,
                    ["apache-access-traversal"]
                ]),
            ]
        );
        assert_eq!(summary["bans"], 5);
        assert_eq!(summary["since"], json!(null));
        let jail = place
            .json(&[&words[..], &["--jail", "apache-auth"]].concat())
            .1;
        assert_eq!(jail["bans"], 3);
        let late = place
            .json(&[&words[..], &["--since", "2026-11-21 06:00"]].concat())
            .1;
        assert_eq!(late["bans"], 2);
        let page = place.report(&[&words[..], &["--format", "html"]].concat());
        assert!(page.contains("137.131.43.224"));
        assert!(page.contains("until its `Unban` line") || page.contains("until its"));
    }
}

#[test]
fn the_lines_as_a_tutorial_prints_them() {
    let place = Place::new();
    let log = place.path("lines");
    let lines = "[apache-access-traversal] Restore Ban 204.48.26.17\nBan 137.131.43.224\n\
                 [apache-auth] Would Ban 203.0.113.9 for 1h (5 in 41s)\n\
                 text of a client: [x] Ban not-an-address\n";
    std::fs::write(&log, lines).unwrap();
    let (clients, summary) = place.json(&["--fail2ban-log", log.to_str().unwrap()]);
    let hosts: Vec<_> = clients
        .iter()
        .map(|c| (&c["host"], &c["jails"][0]))
        .collect();
    assert_eq!(
        hosts,
        [
            (&json!("137.131.43.224"), &json!("unknown")),
            (&json!("204.48.26.17"), &json!("apache-access-traversal")),
        ]
    );
    assert_eq!(summary["bans_of_other_jails"], 1);
    assert!(
        summary["notes"]
            .to_string()
            .contains("3 lines have no time")
    );
}

#[test]
fn every_kind_of_log_line_is_explained() {
    let place = Place::new();
    let text = place.report(&["--explain-log"]);
    for word in [
        "Found ADDR",
        "Restore Ban ADDR",
        "already banned",
        "Would Ban",
        "Unban ADDR",
    ] {
        assert!(text.contains(word), "{word}");
    }
    let objects = place.report(&["--explain-log", "--json"]);
    assert!(objects.lines().count() > 15);
    // The manual's lines are among them.
    let manual = include_str!("../../man/pipeban.8");
    let section = manual
        .split(".Sh LOG LINES")
        .nth(1)
        .unwrap()
        .split(".Sh ")
        .next()
        .unwrap();
    for line in section
        .lines()
        .filter_map(|line| line.strip_prefix(".It Li \"[apache-auth] "))
    {
        let words: String = line.split("203.0.113.70").collect::<Vec<_>>().join("ADDR");
        let verb = words
            .split(" for ")
            .next()
            .unwrap()
            .split(" (")
            .next()
            .unwrap();
        let verb = verb.trim_end_matches('"').replace("203.0.113.80", "ADDR");
        let verb = verb.split(" by ").next().unwrap();
        assert!(text.contains(verb), "{verb}");
    }
}
