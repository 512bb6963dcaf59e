//! `pipeban replay`: logs through the jails in the time of their lines.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use super::corpus;

/// A directory with a configuration of two jails for each kind of log, and its logs.
struct Replay(tempfile::TempDir);

const CONFIG: &str = r#"
[jails.probe]
log = "access"
filter = "probe"
maxretry = 3
findtime = "10m"
bantime = "1h"

[jails.once]
log = "access"
filter = "once"
maxretry = 1
bantime = "5m"
ignoreip = ["203.0.113.80"]

[jails.uri]
log = "error"
filter = "uri"
maxretry = 1
bantime = -1

[jails.auth]
log = "error"
filter = "auth"
maxretry = 2
findtime = "10m"
bantime = "10m"
enforce = false
"#;

impl Replay {
    fn new() -> Replay {
        let replay = Replay(tempfile::tempdir().unwrap());
        let share = replay.0.path().display();
        replay.write(
            "p.toml",
            format!("[paths]\nshare = \"{share}\"\n{CONFIG}").as_bytes(),
        );
        std::fs::create_dir(replay.0.path().join("filters.d")).unwrap();
        for (name, pattern) in [
            ("probe", r#"^<HOST> .*"GET /probe"#),
            ("once", r#"^<HOST> .*"GET /once"#),
            ("uri", r"\[client <HOST>:\d+\] AH10244: invalid URI path"),
            ("auth", r"\[client <HOST>:\d+\] AH01617: user \S+: "),
        ] {
            let text = format!("[Definition]\nfailregex = {pattern}\n");
            replay.write(&format!("filters.d/{name}.conf"), text.as_bytes());
        }
        replay
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pipeban"))
            .current_dir(self.0.path())
            .env("TZ", "UTC")
            .args(["replay", "--config", "p.toml"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses its arguments reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Standard output and the status; nothing may come on standard error.
    fn said(&self, args: &[&str], input: &[u8]) -> (String, i32) {
        let output = self.run(args, input);
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        let said = String::from_utf8(output.stdout).unwrap();
        (said, output.status.code().unwrap())
    }
}

fn access(host: &str, time: &str, path: &str) -> String {
    format!("{host} - - [22/Nov/2026:{time} +0100] \"GET {path} HTTP/1.1\" 404 1\n")
}

/// Bans by each jail, hits that are too far from each other, lines out of order, an exempt client.
fn access_log() -> String {
    [
        access("203.0.113.7", "11:00:00", "/probe"),
        access("203.0.113.8", "11:01:00", "/probe"),
        access("203.0.113.7", "11:02:00", "/probe"),
        access("203.0.113.9", "11:03:00", "/once"),
        // This request took long; the log's time does not go back.
        access("203.0.113.7", "10:30:00", "/probe"),
        access("203.0.113.80", "11:04:00", "/once"),
        "not a line of Apache's\n".to_owned(),
        access("203.0.113.7", "11:05:00", "/probe"),
        access("203.0.113.8", "11:12:01", "/probe"),
        access("203.0.113.8", "11:23:02", "/probe"),
        access("203.0.113.50", "12:30:00", "/"),
    ]
    .concat()
}

const ACCESS_GOLDEN: &str = r#"{"time":"2026-11-22T11:03:00+01:00","event":"ban","jail":"once","host":"203.0.113.9","failures":1,"until":"2026-11-22T11:08:00+01:00"}
{"time":"2026-11-22T11:03:00+01:00","event":"ban","jail":"probe","host":"203.0.113.7","failures":3,"until":"2026-11-22T12:03:00+01:00"}
{"time":"2026-11-22T11:04:00+01:00","event":"ignored","jail":"once","host":"203.0.113.80","failures":0,"until":null}
{"time":"2026-11-22T11:08:00+01:00","event":"unban","jail":"once","host":"203.0.113.9","failures":1,"until":"2026-11-22T11:08:00+01:00"}
{"time":"2026-11-22T12:03:00+01:00","event":"unban","jail":"probe","host":"203.0.113.7","failures":3,"until":"2026-11-22T12:03:00+01:00"}
{"event":"summary","lines":11,"unparsed":1,"hits":9,"bans":2,"hosts":2}
"#;

#[test]
fn an_access_log_is_replayed_in_its_own_time() {
    let replay = Replay::new();
    let log = access_log();
    replay.write("access.log", log.as_bytes());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(log.as_bytes()).unwrap();
    // Compression shows in the bytes, whatever the name.
    replay.write("access.log.1", &gzip.finish().unwrap());
    let xz = corpus("replay-access.log.xz").display().to_string();
    for (file, input) in [
        ("access.log", ""),
        ("access.log.1", ""),
        (xz.as_str(), ""),
        ("-", log.as_str()),
    ] {
        let args = ["--kind", "access", "--json", file];
        let (said, status) = replay.said(&args, input.as_bytes());
        assert_eq!((said.as_str(), status), (ACCESS_GOLDEN, 0), "{file}");
    }
}

#[test]
fn several_logs_are_one() {
    let replay = Replay::new();
    let log = access_log();
    let middle = log.match_indices('\n').nth(3).unwrap().0;
    replay.write("1.log", &log.as_bytes()[..middle]);
    replay.write("2.log", &log.as_bytes()[middle + 1..]);
    let args = ["--kind", "access", "--json", "1.log", "2.log"];
    assert_eq!(replay.said(&args, b""), (ACCESS_GOLDEN.to_owned(), 0));
}

#[test]
fn logs_in_the_wrong_order_are_a_warning() {
    let replay = Replay::new();
    replay.write("old.log", access("203.0.113.7", "09:00:00", "/").as_bytes());
    replay.write("new.log", access("203.0.113.7", "11:00:00", "/").as_bytes());
    for (files, warned) in [
        (["old.log", "new.log"], false),
        (["new.log", "old.log"], true),
    ] {
        let output = replay.run(&[&["--kind", "access"][..], &files].concat(), b"");
        let errors = String::from_utf8(output.stderr).unwrap();
        let text = "pipeban: `old.log` begins before the log before it ends";
        assert_eq!(errors.contains(text), warned, "{errors}");
        assert_eq!(output.status.code(), Some(1));
    }
    let mixed = ["11:00:00", "09:00:00"].map(|time| access("203.0.113.7", time, "/"));
    let output = replay.run(&["--kind", "access", "-"], mixed.concat().as_bytes());
    let errors = String::from_utf8(output.stderr).unwrap();
    let text = "pipeban: `-` is not in the order of time: some lines";
    assert!(errors.contains(text), "{errors}");
}

/// A permanent ban, and one by a jail that only observes.
fn error_log() -> String {
    let line = |time: &str, client: &str, text: &str| {
        format!(
            "[Sun Nov 22 {time}.366318 2026] [core:error] [pid 22912:tid 22919] [client {client}:1] {text}\n"
        )
    };
    let auth = "AH01617: user joe: authentication failure for \"/\": Password Mismatch";
    [
        line("11:00:00", "203.0.113.7", auth),
        line(
            "11:00:30",
            "203.0.113.9",
            "AH10244: invalid URI path (/%2e)",
        ),
        line(
            "11:00:31",
            "203.0.113.9",
            "AH10244: invalid URI path (/%2e)",
        ),
        line("11:01:00", "203.0.113.7", auth),
        line("11:30:00", "203.0.113.50", "AH00128: File does not exist"),
    ]
    .concat()
}

#[test]
fn an_error_log_has_the_local_time() {
    let replay = Replay::new();
    let golden = r#"{"time":"2026-11-22T11:00:30+00:00","event":"ban","jail":"uri","host":"203.0.113.9","failures":1,"until":null}
{"time":"2026-11-22T11:01:00+00:00","event":"would-ban","jail":"auth","host":"203.0.113.7","failures":2,"until":"2026-11-22T11:11:00+00:00"}
{"time":"2026-11-22T11:11:00+00:00","event":"would-unban","jail":"auth","host":"203.0.113.7","failures":2,"until":"2026-11-22T11:11:00+00:00"}
{"event":"summary","lines":5,"unparsed":0,"hits":4,"bans":1,"hosts":1}
"#;
    let args = ["--kind", "error", "--json", "-"];
    let (said, status) = replay.said(&args, error_log().as_bytes());
    assert_eq!((said.as_str(), status), (golden, 0));
}

#[test]
fn people_see_the_log_lines_of_bans_and_a_table() {
    let replay = Replay::new();
    let (said, status) = replay.said(&["--kind", "error", "-"], error_log().as_bytes());
    let (events, rest) = said.split_once("\n\n").unwrap();
    assert_eq!(
        events,
        "2026-11-22 11:00:30 [uri] Ban 203.0.113.9 for ever (1 in under 1s)\n\
         2026-11-22 11:01:00 [auth] Would Ban 203.0.113.7 for 10m (2 in 1m)\n\
         2026-11-22 11:11:00 [auth] Would Unban 203.0.113.7"
    );
    let rows: Vec<Vec<&str>> = rest
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["jail", "hits", "ignored", "bans", "clients"]);
    assert_eq!(rows[1], ["auth", "(observe", "only)", "2", "0", "1", "1"]);
    assert_eq!(rows[2], ["uri", "2", "0", "1", "1"]);
    let last = rest.lines().last().unwrap();
    let expected = "lines: 5, 2026-11-22 11:00:00 to 2026-11-22 11:30:00; unparsed: 0, hits: 4, bans: 1, clients: 1; ";
    assert!(last.starts_with(expected), "{last}");
    assert_eq!(status, 0);

    let (said, status) = replay.said(&["--kind", "access", "-"], b"a\nb\n");
    let expected = "line 1 is the first unparsed one: it has no known format";
    assert!(said.contains(expected), "{said}");
    assert_eq!(status, 1);
}

#[test]
fn lines_that_are_too_long_or_without_an_end_are_counted() {
    let replay = Replay::new();
    let mut log = String::new();
    for client in 0..3_000 {
        let minute = client / 60;
        let time = format!("11:{minute:02}:00");
        let host = format!("198.51.{}.{}", client / 250, client % 250);
        log += &access(&host, &time, "/once");
        if client % 1_000 == 0 {
            writeln!(log, "{}", "x".repeat(200_000)).unwrap();
        }
    }
    replay.write("long.log", log.trim_end().as_bytes());
    let (said, status) = replay.said(&["--kind", "access", "--json", "long.log"], b"");
    let last = said.lines().last().unwrap();
    let expected =
        r#"{"event":"summary","lines":3003,"unparsed":3,"hits":3000,"bans":3000,"hosts":3000}"#;
    assert_eq!((last, status), (expected, 0));
}

#[test]
fn each_failure_of_a_replay_has_its_status_and_message() {
    let replay = Replay::new();
    replay.write("broken.toml", b"[jails.x]\nmax_retry = 1\n");
    replay.write("none.toml", b"[paths]\nshare = \"/nonexistent\"\n");
    replay.write("cut.gz", &[0x1f, 0x8b, 8, 0]);
    for (args, status, text) in [
        (
            &["--kind", "access", "none.log"][..],
            2,
            "cannot read `none.log`",
        ),
        (
            &["--kind", "access", "cut.gz"],
            2,
            "pipeban: cannot read `cut.gz`",
        ),
        (&["--kind", "access", "."], 2, "cannot read `.`"),
        (&["--kind", "access"], 64, "FILE"),
        (&["-"], 64, "--kind"),
        (
            &["--kind", "access", "--format", "%Y", "-"],
            64,
            "--format: ",
        ),
    ] {
        let output = replay.run(args, b"");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(text), "{args:?}: {errors}");
        assert_eq!(output.status.code(), Some(status), "{args:?}: {errors}");
    }
    for (config, text) in [
        ("broken.toml", "max_retry"),
        ("none.toml", "no enabled jail is for an access log"),
        ("missing.toml", "not found"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
            .current_dir(replay.0.path())
            .args(["replay", "--config", config, "--kind", "access", "-"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains(text), "{config}: {errors}");
        assert_eq!(output.status.code(), Some(78), "{config}: {errors}");
    }
}

#[test]
fn without_a_configuration_the_shipped_jails_are_used() {
    let file = std::path::Path::new(pipeban::config::DEFAULT_FILE);
    if file.exists() {
        return crate::support::skip("this host has a configuration");
    }
    let line = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] \
                [client 203.0.113.9:49108] AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/.%2e/bin/sh)";
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("error.log");
    std::fs::write(&log, line).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .args(["replay", "--kind", "error"])
        .arg(&log)
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("using the shipped jails in "), "{errors}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("[apache-cgitraversal] Ban 203.0.113.9 for 1h"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(0));
}
