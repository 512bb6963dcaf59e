//! The output of `pipeban test` for people: lines by verdict, why one is missed, colours.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::docs;

use super::{Bench, HEAD, TUTORIAL};

const ATTACK: &str = "[client 203.0.113.9:49108] AH10244: invalid URI path (/cgi-bin/.%2e/bin/sh)";
const FOO: &str = "[client 203.0.113.9:49108] AH10244: invalid URI path (/foo)";

impl Bench {
    /// Standard output, the status, standard error.
    fn said(&self, args: &[&str], input: &str) -> (String, i32, String) {
        let output = self.run(args, input.as_bytes());
        (
            String::from_utf8(output.stdout).unwrap(),
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }
}

/// A log with a line of each verdict.
fn log() -> String {
    [
        format!("{HEAD} {ATTACK}"),
        format!("{HEAD} {FOO}"),
        format!("{HEAD} [client 192.0.2.1:1] AH01630: x, referer: {ATTACK}"),
        format!("{HEAD} {ATTACK} friend"),
        "stderr of a script\x1b[2J".to_owned(),
    ]
    .join("\n")
}

#[test]
fn the_summary_counts_each_verdict() {
    let bench = Bench::new(&format!("{TUTORIAL}\nignoreregex = enemy\n  friend"));
    let (said, status, errors) = bench.said(&["--filter", "f.conf", "-"], &log());
    let expected = format!(
        "Format: default (error log)
Times:  4 of 5 lines, 2026-11-22T11:00:33+00:00

filter f (f.conf)
    hits  pattern, 1 of 1
       1  1: {}
 ignored  ignoreregex, 1 of 2
       1  2: friend

1 matched
    1: 203.0.113.9: {HEAD} {ATTACK}

1 spoofed: match, but not with the client that Apache names
    3: {HEAD} [client 192.0.2.1:1] AH01630: x, referer: {ATTACK}

1 ignored
    4: {HEAD} {ATTACK} friend

1 missed
    2: {HEAD} {FOO}

1 unparsed: not of the log's format
    5: stderr of a script\\x1b[2J

1 of 5 lines matched
",
        TUTORIAL.strip_prefix("failregex = ").unwrap()
    );
    assert_eq!(said, expected);
    assert_eq!((status, errors.as_str()), (0, ""));
}

#[test]
fn show_prints_all_lines_of_a_verdict() {
    let bench = Bench::new(TUTORIAL);
    for (show, sorts) in [
        ("matched", &["1: matched: 203.0.113.9: "][..]),
        ("missed", &["2: missed: "]),
        (
            "spoof,unparsed",
            &["3: spoof: ", "5: unparsed: stderr of a script\\x1b[2J\n"],
        ),
        ("ignored", &["4: ignored: "]),
        (
            "all",
            &[
                "1: matched: ",
                "2: missed: ",
                "3: spoof: ",
                "4: ignored: ",
                "5: unparsed: ",
            ],
        ),
    ] {
        let args = [
            "--filter", "f.conf", "--ignore", "friend$", "--show", show, "-",
        ];
        let (said, status, _) = bench.said(&args, &log());
        let front: Vec<&str> = said.lines().take_while(|line| !line.is_empty()).collect();
        assert_eq!(front.len(), sorts.len(), "{said}");
        for sort in sorts {
            assert!(said.contains(sort), "{sort:?} in {said}");
            // A printed line is not sampled again.
            let number = sort.split(':').next().unwrap();
            assert!(!said.contains(&format!("\n    {number}: ")), "{said}");
        }
        assert_eq!(status, 0);
    }
    let many = format!("{HEAD} {FOO}\n").repeat(9);
    let (said, status, _) = bench.said(&["--filter", "f.conf", "-"], &many);
    assert!(said.contains("\n9 missed\n    1: "), "{said}");
    assert!(said.contains("    5: [Sun Nov 22"), "{said}");
    assert!(
        said.contains("    ... and 4 more: --show missed\n"),
        "{said}"
    );
    assert_eq!((said.contains("    6: "), status), (false, 1));
}

#[test]
fn patterns_of_the_command_line_are_a_filter() {
    let bench = Bench::new(TUTORIAL);
    let line = r#"192.0.2.1 - - [22/Nov/2026:11:00:32 +0000] "GET /y HTTP/1.1" 200 1"#;
    let pattern = ["--pattern", "^<HOST> .*/x", "--pattern", "^<HOST> .*/y"];
    let (said, status, _) =
        bench.said(&[&["--json"], &pattern[..], &["--line", line]].concat(), "");
    let matched = r#""matches":[{"jail":null,"filter":"command-line","pattern":2,"host":"192.0.2.1","weight":1,"bans_alone":false}]"#;
    assert!(said.contains(matched), "{said}");
    assert_eq!(status, 0);
    let ignored = ["--ignore", "no-match", "--ignore", "HTTP/1", "-"];
    let (lines, status) = bench.json(&[&pattern[..], &ignored].concat(), line);
    assert_eq!((lines[0]["verdict"].as_str(), status), (Some("ignored"), 1));
    for (args, text) in [
        (
            &["--pattern", "<HOST> x(", "-"][..],
            "--pattern: invalid pattern: unclosed group",
        ),
        (
            &["--pattern", "no host", "-"],
            "--pattern: the pattern has no <HOST>",
        ),
        (
            &["--pattern", "<HOST>", "--ignore", "[", "-"],
            "--ignore: invalid pattern",
        ),
        (
            &["--ignore", "x", "-"],
            "--ignore needs --filter or --pattern",
        ),
        (
            &["--filter", "^<HOST> x", "-"],
            "use --pattern for a pattern",
        ),
        (
            &["--pattern", "<HOST>", "--filter", "f.conf", "-"],
            "cannot be used with",
        ),
        (
            &["--json", "--filter", "f.conf", "--show", "all", "-"],
            "--show and --near cannot be used with --json",
        ),
        (&["--filter", "f.conf", "--near", "0", "-"], "--near"),
        (
            &["a.log", "f.conf"],
            "\n    pipeban test --filter f.conf a.log\n",
        ),
        (
            &["--print-all-missed", "a.log", "^<HOST> x"],
            " --pattern '^<HOST> x' --show missed a.log\n",
        ),
    ] {
        let (said, status, errors) = bench.said(args, "");
        assert!(errors.contains(text), "{args:?}: {errors}");
        assert_eq!((said.as_str(), status), ("", 64), "{args:?}");
    }
}

#[test]
fn a_log_without_a_line_of_apaches_is_raw_for_a_filter_but_not_for_a_jail() {
    let bench = Bench::new("failregex = login of \\S+ from <HOST>");
    let line = "Nov 22 11:00:01 host sshd[1]: login of root from 192.0.2.1";
    let (said, status, _) = bench.said(&["--filter", "f.conf", "-"], line);
    assert!(said.starts_with("Format: raw: "), "{said}");
    assert!(
        said.contains("Times:  1 of 1 lines, without a year\n"),
        "{said}"
    );
    assert!(said.contains("    1: 192.0.2.1: Nov 22"), "{said}");
    assert_eq!(status, 0);
    let (lines, _, note) = bench.said(&["--json", "--filter", "f.conf", "-"], line);
    assert!(lines.contains("\"verdict\":\"match\""), "{lines}");
    assert!(note.contains("as with --kind raw"), "{note}");
    // With one line of Apache's, the others have no client.
    let mixed = format!("{line}\n{HEAD} [client 192.0.2.7:1] AH01630: x");
    let (lines, status) = bench.json(&["--filter", "f.conf", "-"], &mixed);
    assert_eq!(
        (lines[0]["verdict"].as_str(), status),
        (Some("unparsed"), 1)
    );
    let (lines, _) = bench.json(&["--filter", "f.conf", "--kind", "access", "-"], line);
    assert_eq!(lines[0]["verdict"], "unparsed");

    let config = "[jails.f]\nenabled = true\nlog = \"error\"\nfilter = \"f\"\n";
    bench.write("p.toml", config);
    std::fs::create_dir(bench.0.path().join("filters.d")).unwrap();
    bench.write("filters.d/f.conf", &format!("[Definition]\n{TUTORIAL}\n"));
    let (lines, _) = bench.json(&["--config", "p.toml", "-"], line);
    assert_eq!(lines[0]["verdict"], "unparsed");
    let jail = ["--config", "p.toml", "--jail", "f", "--kind", "access", "-"];
    let (_, status, errors) = bench.said(&jail, line);
    assert!(
        errors.contains("jail `f` is not for an access log"),
        "{errors}"
    );
    assert_eq!(status, 64);
}

#[test]
fn a_near_miss_says_how_far_the_match_got() {
    let bench = Bench::new(TUTORIAL);
    let line = format!("{HEAD} {FOO}");
    let (said, status, _) = bench.said(&["--filter", "f.conf", "--line", &line], "");
    let expected = r"
Line 1 is missed.

filter f, failregex 1 (f.conf:2:13)
    matches up to   \[client <HOST>:\d+\] AH10244: invalid URI path \(
    then needs      .*cgi-bin
    the line has    /foo)
";
    assert!(said.ends_with(expected), "{said}");
    assert_eq!(status, 1);
    let (near, status, _) = bench.said(&["--filter", "f.conf", "--near", "2", "-"], &log());
    let expected = expected.replace("Line 1", "Line 2");
    assert!(near.ends_with(&expected), "{near}");
    assert_eq!(status, 0);

    // The nearest first, at most three.
    let patterns = [
        "^<HOST> a",
        "^<HOST> x",
        "^<HOST> x (?:y|z a) b",
        "^<HOST> x y c",
        "nothing <HOST>",
    ];
    let args: Vec<&str> = patterns
        .iter()
        .flat_map(|pattern| ["--pattern", pattern])
        .collect();
    let line = ["--line", "192.0.2.1 z"];
    let (said, _, _) = bench.said(&[&args[..], &["--kind", "raw"], &line].concat(), "");
    let order: Vec<&str> = said
        .lines()
        .filter(|l| l.contains(", failregex "))
        .collect();
    assert_eq!(order.len(), 3, "{said}");
    assert!(
        said.ends_with("\n2 more patterns match no further.\n"),
        "{said}"
    );
    assert!(!said.contains("not in the line"), "{said}");
}

#[test]
fn the_conditions_of_a_native_filter_that_do_not_hold_are_named() {
    let bench = Bench::new(TUTORIAL);
    let text = "log = \"access\"\n[[match]]\nmethod = [\"POST\"]\npath = '^/wp-login\\.php$'\n\
                status = [200, \"401-403\"]\nnot = { user_agent = 'Uptime' }\n\
                [[match]]\npath = '^/xmlrpc'\nmethod = [\"PUT\"]\n";
    bench.write("login.toml", text);
    let line = "192.0.2.1 - - [22/Nov/2026:11:00:32 +0000] \"POST /wp-login.php HTTP/1.1\" 302 1 \
                \"-\" \"Uptime/1\"";
    let (said, status, _) = bench.said(&["--filter", "login.toml", "--line", line], "");
    let expected = "
Line 1 is missed.

filter login, match 1 (login.toml:2:1)
    holds           method, path
    does not hold   status 200, 401-403
    the line has    302
    does not hold   not user_agent Uptime
    the line has    Uptime/1

filter login, match 2 (login.toml:7:1)
    does not hold   method ^(?:PUT)$
    the line has    POST
    does not hold   path ^/xmlrpc
    the line has    /wp-login.php
";
    assert!(said.ends_with(expected), "{said}");
    assert_eq!(status, 1);
}

#[test]
fn a_line_that_quotes_a_client_is_spoofed_as_on_the_live_path() {
    let bench = Bench::new(TUTORIAL);
    let line = format!(
        "{HEAD} [client 203.0.113.9:49108] AH01215: stderr from /srv/x: [client 203.0.113.9:1] \
         AH10244: invalid URI path (/cgi-bin/.%2e/bin/sh)"
    )
    .replace(" stderr from /srv/x:", "");
    let (lines, status) = bench.json(&["--filter", "f.conf", "-"], &line);
    assert_eq!((lines[0]["verdict"].as_str(), status), (Some("spoof"), 1));
    let (said, _, _) = bench.said(&["--filter", "f.conf", "--line", &line], "");
    assert!(said.contains("perhaps not by Apache's words"), "{said}");
}

#[test]
fn every_other_reason_for_a_miss_is_named() {
    let bench = Bench::new(&format!("{TUTORIAL}\nignoreregex = friend"));
    std::fs::create_dir(bench.0.path().join("filters.d")).unwrap();
    bench.write("filters.d/f.conf", &format!("[Definition]\n{TUTORIAL}\n"));
    bench.write(
        "filters.d/w.conf",
        "[Definition]\nfailregex = ^<HOST> .*GET /x\n",
    );
    bench.write(
        "p.toml",
        "[jails.f]\nlog = \"error\"\nfilter = \"f\"\nignoreip = [\"203.0.113.0/24\"]\n\
         [jails.w]\nlog = \"access\"\nfilter = \"w\"\n",
    );
    bench.write(
        "long.conf",
        "[Definition]\nfailregex = ^(?P<a>a+) <HOST> (?P=a)$\n",
    );
    let attack = format!("{HEAD} {ATTACK}");
    let spoof = format!("{HEAD} [client 192.0.2.1:1] AH01630: x, referer: {ATTACK}");
    let friend = format!("{attack} friend");
    let access = r#"192.0.2.1 - - [22/Nov/2026:11:00:32 +0000] "GET /y HTTP/1.1" 200 1"#;
    let name = "login from www.example.org";
    let long = format!("a 192.0.2.1 {}", "a".repeat(9000));
    let filter = ["--filter", "f.conf"];
    let jail = ["--config", "p.toml", "--jail", "f"];
    let raw = ["--kind", "raw", "--pattern"];
    for (how, line, words) in [
        (
            &filter[..],
            spoof.as_str(),
            "matches only with `203.0.113.9`; Apache names 192.0.2.1 as the client",
        ),
        (&filter, &friend, "so does ignoreregex 1 (`friend`)"),
        (
            &jail,
            &attack,
            "203.0.113.9 is in 203.0.113.0/24 of the jail's ignoreip",
        ),
        (
            &jail,
            access,
            "It is a line of the access log, but read as one of the error log.",
        ),
        (
            &jail,
            "x",
            "It does not have the error log's format `default`",
        ),
        (
            &["--kind", "error", "--filter", "f.conf"],
            "x",
            "or match it as plain text with --kind raw",
        ),
        (
            &[&raw[..], &["login from <HOST>"]].concat(),
            name,
            "`www.example.org` is a name",
        ),
        (
            &[&raw[..], &["login (?!from).* <HOST>"]].concat(),
            name,
            "then needs      (?!from)",
        ),
        (
            &[&raw[..], &["nothing like <HOST>"]].concat(),
            name,
            "not in the line nothing",
        ),
        (
            &[&raw[..], &["from \\S+ at <HOST>"]].concat(),
            name,
            "the line        ends here",
        ),
        (
            &[&raw[..], &["<F-NOFAIL>login</F-NOFAIL> <HOST>"]].concat(),
            "login 192.0.2.1",
            "says that this is no failure",
        ),
        (
            &["--kind", "raw", "--filter", "long.conf"],
            &long,
            "needed more than 2000 steps, or the line has more",
        ),
    ] {
        let args = [how, &["--line", line]].concat();
        let (said, status, errors) = bench.said(&args, "");
        assert!(said.contains(words), "{args:?}: {said}{errors}");
        assert_eq!(status, 1, "{args:?}");
    }
    let (_, status, errors) = bench.said(&["--filter", "f.conf", "--near", "9", "-"], &attack);
    assert!(
        errors.contains("line 9 does not exist: the log has 1 lines"),
        "{errors}"
    );
    assert_eq!(status, 2);
}

#[test]
fn the_readme_shows_the_real_output() {
    let blocks = docs::readmes_blocks("text");
    let of_test = |block: &&String| block.starts_with("$ pipeban test ");
    let block = blocks.iter().find(of_test).unwrap();
    let (command, shown) = block.split_once("\n...\n").unwrap();
    let bench = Bench::new("");
    let example = "config/examples/filters.d/apache-cgitraversal.conf";
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(example);
    bench.write(
        "apache-cgitraversal.conf",
        &std::fs::read_to_string(example).unwrap(),
    );
    bench.write("error.log", &log().replace("/foo", "/../../etc/passwd"));
    let args: Vec<&str> = command.split_whitespace().skip(3).collect();
    let (said, _, _) = bench.said(&args, "");
    let said: Vec<&str> = said.lines().map(str::trim).collect();
    assert!(said.join("\n").ends_with(shown), "{said:#?}");
}

/// The output of the command on a pseudo-terminal.
fn on_a_terminal(bench: &Bench, args: &[&str], colours: bool) -> String {
    let pty = nix::pty::openpty(None, None).unwrap();
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeban"));
    command
        .env_clear()
        .env("TERM", "xterm-256color")
        .env("TZ", "UTC");
    if !colours {
        command.env("NO_COLOR", "1");
    }
    let mut child = command
        .current_dir(bench.0.path())
        .arg("test")
        .args(args)
        .stdin(Stdio::null())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    drop((command, pty.slave));
    let mut shown = Vec::new();
    let mut terminal = File::from(pty.master);
    let mut buffer = [0; 4096];
    // With the other end closed a read fails.
    while let Ok(length) = terminal.read(&mut buffer) {
        if length == 0 {
            break;
        }
        shown.extend(&buffer[..length]);
    }
    child.wait().unwrap();
    String::from_utf8(shown).unwrap()
}

#[test]
fn on_a_terminal_the_client_is_coloured_unless_unwanted() {
    let bench = Bench::new(TUTORIAL);
    bench.write("error.log", &log());
    let args = ["--filter", "f.conf", "--near", "2", "error.log"];
    let shown = on_a_terminal(&bench, &args, true);
    let matched = format!(
        "{HEAD} [client \x1b[1m\x1b[31m203.0.113.9\x1b[0m:49108] AH10244: invalid URI path \
         (/cgi-bin/.%2e/bin/sh)\r\n"
    );
    assert!(shown.contains(&matched), "{shown:?}");
    assert!(
        shown.contains("then needs      \x1b[1m\x1b[31m.*cgi-bin\x1b[0m"),
        "{shown:?}"
    );
    // What a client sent is escaped here as everywhere.
    assert!(shown.contains("stderr of a script\\x1b[2J"), "{shown:?}");
    let plain = on_a_terminal(&bench, &args, false);
    assert!(
        !plain.contains('\x1b') && plain.contains("2 of 5 lines matched"),
        "{plain:?}"
    );
}

#[test]
fn a_long_file_has_a_bar_on_a_terminal_and_nowhere_else() {
    let bench = Bench::new(TUTORIAL);
    let mut file = File::create(bench.0.path().join("long.log")).unwrap();
    let line = format!("{HEAD} {FOO} {}\n", "x".repeat(200_000));
    for _ in 0..50 {
        file.write_all(line.as_bytes()).unwrap();
    }
    drop(file);
    bench.write("short.log", &line);
    let bar = " %  ";
    let shown = on_a_terminal(&bench, &["--filter", "f.conf", "long.log"], true);
    assert!(shown.contains(bar), "{shown:?}");
    assert!(shown.contains("of 50 lines matched"), "{shown:?}");
    let short = on_a_terminal(&bench, &["--filter", "f.conf", "short.log"], true);
    assert!(!short.contains(bar), "{short:?}");
    let json = on_a_terminal(&bench, &["--json", "--filter", "f.conf", "long.log"], true);
    assert!(
        !json.contains(bar) && json.lines().count() == 50,
        "{json:?}"
    );
    let (_, status, errors) = bench.said(&["--filter", "f.conf", "long.log"], "");
    assert_eq!((status, errors.as_str()), (1, ""));
}
