//! Answers from what is stored and from logs that the command line names, without an engine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use pipeban::config::{JailName, Ports};
use pipeban::jail::{Ban, BanId, Cause, End, Mode, Moment, Now};
use pipeban::store::{Allowed, Home, Op};
use pipeban::sys::clock;
use serde_json::Value;

use super::{access, explain, filter};

const JAIL: &str = "[jails.probe]\nlog = \"access\"\nmaxretry = 3\n";

fn directory(more: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().display();
    let paths = format!("[paths]\nruntime = \"{state}/run\"\nstate = \"{state}\"\n");
    fs::write(
        dir.path().join("pipeban.toml"),
        format!("{paths}{more}{JAIL}"),
    )
    .unwrap();
    fs::create_dir(dir.path().join("filters.d")).unwrap();
    fs::write(dir.path().join("filters.d/probe.conf"), filter("probe")).unwrap();
    dir
}

fn first(dir: &Path, args: &[&str]) -> (String, i32, Value) {
    let output = explain(dir, &[&["--json"], args].concat());
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"));
    let code = answer["reasons"][0]["code"].as_str().unwrap_or_default();
    (code.to_owned(), output.status.code().unwrap(), answer)
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn what_is_stored_is_answered_without_an_engine() {
    let dir = directory("[firewall]\nbackend = \"dry-run\"\n");
    let now = Now {
        boot: Moment::from_boottime(clock::boottime()),
        wall: Timestamp::now(),
    };
    let jail: JailName = "probe".parse().unwrap();
    let ban = |id, host: &str, left: u64| Ban {
        id: BanId::new(id),
        jail: jail.clone(),
        net: net(host),
        ports: Ports::All,
        mode: Mode::Enforced,
        since: now.boot.minus(Duration::from_secs(60)),
        since_wall: now.wall,
        until: Some(
            now.boot
                .minus(Duration::from_secs(10))
                .plus(Duration::from_secs(left)),
        ),
        failures: 3,
        within: Duration::from_secs(41),
        cause: Cause::Jail,
    };
    let end = |host: &str, end| Op::End {
        jail: jail.clone(),
        net: net(host),
        end,
    };
    let ops = [
        Op::Ban(ban(1, "198.51.100.1/32", 3_600)),
        // No engine has noticed that its time is over.
        Op::Ban(ban(2, "198.51.100.2/32", 0)),
        Op::Ban(ban(3, "198.51.100.3/32", 0)),
        end("198.51.100.3/32", End::Over),
        Op::Ban(ban(4, "198.51.100.4/32", 3_600)),
        end("198.51.100.4/32", End::ByHand),
        Op::Counter {
            jail: jail.clone(),
            net: net("198.51.100.5/32"),
            hits: vec![(now.boot, 2)],
            findtime: Duration::from_secs(600),
        },
        Op::Allow(Allowed {
            net: net("198.51.100.6/32"),
            since: now.wall,
            until: None,
            reason: Some("monitoring".into()),
        }),
    ];
    let path = dir.path().join("pipeban.sqlite3");
    let mut database = Home::of_this_boot(&path, Duration::ZERO).open().unwrap();
    database.commit(&ops, now).unwrap();
    for (host, code, exit) in [
        ("198.51.100.1", "observe-only", 1),
        ("198.51.100.2", "expired", 1),
        ("198.51.100.3", "expired", 1),
        ("198.51.100.4", "unbanned", 1),
        ("198.51.100.5", "below-maxretry", 1),
        ("198.51.100.6", "allow-listed", 1),
        ("198.51.100.7", "not-seen", 1),
        ("127.0.0.1", "own-address", 1),
        ("198.51.100.0/28", "observe-only", 1),
        ("127.0.0.0/7", "too-wide", 1),
        ("0.0.0.0/0", "observe-only", 1),
        ("::/0", "too-wide", 1),
    ] {
        let (found, status, answer) = first(dir.path(), &[host]);
        assert_eq!((found.as_str(), status), (code, exit), "{host}: {answer:#}");
    }
    let (_, _, answer) = first(dir.path(), &["198.51.100.6"]);
    let text = answer["reasons"][0]["text"].as_str().unwrap();
    assert!(text.contains("monitoring"), "{text}");
}

#[test]
fn the_rule_its_place_and_the_line_are_shown() {
    let dir = directory("");
    let log = dir.path().join("access.log");
    let hit = access("198.51.100.1", "/probe", 1);
    fs::write(&log, access("198.51.100.1", "/", 2) + &hit).unwrap();
    let log = log.display().to_string();
    let output = explain(dir.path(), &["198.51.100.1", "--log", &log]);
    let text = String::from_utf8(output.stdout).unwrap();
    let place = dir.path().join("filters.d/probe.conf:2");
    assert!(text.starts_with("198.51.100.1 is not banned\n"), "{text}");
    assert!(text.contains(hit.trim_end()), "{text}");
    assert!(
        text.contains(&format!("probe (pattern 1, {})", place.display())),
        "{text}"
    );
    assert!(
        text.contains("2 lines of 198.51.100.1, 1 with a hit"),
        "{text}"
    );
}

#[test]
fn what_clients_send_is_escaped() {
    let dir = directory("");
    let log = dir.path().join("access.log");
    let line = access("198.51.100.1", "/\u{202e}\x1b[2J", 1);
    fs::write(&log, &line).unwrap();
    let log = log.display().to_string();
    for json in [&["--json"][..], &[]] {
        let args = [json, &["198.51.100.1", "--log", &log]].concat();
        let text = String::from_utf8(explain(dir.path(), &args).stdout).unwrap();
        assert!(
            !text.contains('\x1b') && !text.contains('\u{202e}'),
            "{text:?}"
        );
    }
}

#[test]
fn what_people_paste_is_understood() {
    let dir = directory("");
    let log = dir.path().join("access.log");
    fs::write(&log, "").unwrap();
    let log = log.display().to_string();
    for (pasted, host) in [
        (" 198.51.100.1 ", "198.51.100.1"),
        ("198.51.100.1:443", "198.51.100.1"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("[probe] Restore Ban 198.51.100.1", "198.51.100.1"),
        (
            "pipeban[4]: [probe] 2001:db8::7 already banned",
            "2001:db8::7",
        ),
    ] {
        let (code, _, answer) = first(dir.path(), &[pasted, "--log", &log]);
        assert_eq!(
            (code.as_str(), &answer["host"]),
            ("not-seen", &Value::from(host)),
            "{pasted}"
        );
    }
    let said = explain(
        dir.path(),
        &["[probe] Restore Ban 198.51.100.1", "--log", &log],
    );
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("It is no new attack"), "{said}");
    // In the format of a log of this Apache.
    let json = r#"{\"at\":\"%t\",\"client\":\"%a\",\"request\":\"%r\",\"status\":\"%>s\"}"#;
    fs::write(
        dir.path().join("site.conf"),
        format!("LogFormat \"{json}\" json\nCustomLog {log} json\n"),
    )
    .unwrap();
    let line = r#"{"at":"[22/Nov/2026:11:00:32 +0000]","client":"198.51.100.1","request":"GET /probe HTTP/1.1","status":"404"}"#;
    fs::write(&log, format!("{line}\n")).unwrap();
    for pasted in [&[line][..], &["198.51.100.1", "--log", &log]] {
        let (_, _, answer) = first(dir.path(), pasted);
        let hits = answer["evidence"][0]["matches"].to_string();
        assert!(hits.contains("probe (pattern 1,"), "{pasted:?}: {answer:#}");
    }
}

#[test]
fn wrong_words_are_usage_errors_and_missing_logs_are_named() {
    let dir = directory("");
    assert_eq!(explain(dir.path(), &["nonsense"]).status.code(), Some(64));
    let (_, status, answer) = first(dir.path(), &["198.51.100.1", "--log", "/nowhere/x.log"]);
    assert_eq!(status, 1);
    let reasons = answer["reasons"].to_string();
    assert!(
        reasons.contains("`/nowhere/x.log` cannot be read"),
        "{reasons}"
    );
    let broken = directory("[jails.x]\nnonsense = 1\n");
    let answer = explain(broken.path(), &["198.51.100.1"]);
    assert_eq!(answer.status.code(), Some(78));
}

/// Compressed logs, and the end of a long one.
#[test]
fn logs_are_read_as_replay_reads_them() {
    let dir = directory("");
    let hit = access("198.51.100.1", "/probe", 1);
    let plain = dir.path().join("access.log");
    fs::write(&plain, &hit).unwrap();
    let packed = dir.path().join("access.log.gz");
    let mut gzip = flate2::write::GzEncoder::new(
        fs::File::create(&packed).unwrap(),
        flate2::Compression::fast(),
    );
    std::io::Write::write_all(&mut gzip, hit.as_bytes()).unwrap();
    gzip.finish().unwrap();
    for log in [&plain, &packed] {
        let log = log.display().to_string();
        let (_, _, answer) = first(dir.path(), &["198.51.100.1", "--log", &log]);
        assert_eq!(answer["evidence"][0]["log"], log, "{answer:#}");
    }
    // The first line is 65 MiB before the last one.
    let mut long = hit.clone().into_bytes();
    long.resize(65 << 20, b'\n');
    long.extend(hit.replace("100.1 ", "100.2 ").as_bytes());
    fs::write(&plain, long).unwrap();
    let log = plain.display().to_string();
    let (code, _, answer) = first(dir.path(), &["198.51.100.1", "--log", &log]);
    assert_eq!(code, "not-seen", "{answer:#}");
    let text = answer["reasons"][0]["text"].as_str().unwrap();
    assert!(text.contains("without the first 1 MiB"), "{text}");
    let (code, _, answer) = first(dir.path(), &["198.51.100.2", "--log", &log]);
    assert_eq!(code, "engine-stopped", "{answer:#}");
}
