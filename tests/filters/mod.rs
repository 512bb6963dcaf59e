//! Lines that hostile clients made a real Apache write, against records, filters and
//! `pipeban test`.

mod command;
mod native;
mod replay;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pipeban::filter::{Filter, Outcome, Subject, read};
use pipeban::record::{Kind, Parser};

const TUTORIAL: &str =
    r"failregex = \[client <HOST>:\d+\] AH10244: invalid URI path \(.*cgi-bin.*bin/sh.*";
const HEAD: &str = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919]";

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name)
}

struct Injected {
    line: Vec<u8>,
    kind: Kind,
    true_ip: String,
}

fn injected() -> Vec<Injected> {
    let text = std::fs::read_to_string(corpus("injection.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| value[key].as_str().unwrap().to_owned();
            Injected {
                line: text("line")
                    .chars()
                    .map(|c| u8::try_from(c).unwrap())
                    .collect(),
                kind: serde_json::from_value(value["kind"].clone()).unwrap(),
                true_ip: text("true_ip"),
            }
        })
        .collect()
}

fn filter(definition: &str) -> Filter {
    let text = format!("[Definition]\n{definition}\n");
    let read = read("f", Path::new("f.conf"), &BTreeMap::new(), &|_: &Path| {
        Ok(text.clone())
    })
    .unwrap();
    Filter::compile(&read).unwrap()
}

#[test]
fn the_client_of_every_injected_line_is_the_true_one() {
    let lines = injected();
    assert!(lines.len() > 40);
    for Injected {
        line,
        kind,
        true_ip,
    } in lines
    {
        let shown = String::from_utf8_lossy(&line).into_owned();
        let record = Parser::new(kind, "auto").unwrap();
        let record = record.parse(&line).expect(&shown);
        let client = record.client.expect(&shown);
        assert_eq!(client.text, true_ip.as_bytes(), "{shown}");
        assert_eq!(client.addr.to_string(), true_ip, "{shown}");
    }
}

#[test]
fn no_loose_pattern_hits_another_client() {
    let loose = filter(
        "failregex = client:? <HOST>\n  \\[client <HOST>(?::\\d+)?\\]\n  ^<HOST> \n  <HOST> - - \n  <HOST>",
    );
    let mut spoofs = 0;
    for pattern in [
        "client:? <HOST>",
        "<HOST> - - ",
        r"^.*<HOST>",
        r".*\[client <HOST>(:\d+)?\]",
    ] {
        let filter = filter(&format!("failregex = {pattern}"));
        for Injected {
            line,
            kind,
            true_ip,
        } in injected()
        {
            let record = Parser::new(kind, "auto").unwrap();
            let record = record.parse(&line).unwrap();
            let subject = Subject::of(&line, &record);
            for outcome in [filter.examine(&subject), loose.examine(&subject)] {
                match outcome {
                    Outcome::Match { host, .. } => assert_eq!(host.to_string(), true_ip),
                    Outcome::Spoof { .. } => spoofs += 1,
                    Outcome::Ignored(_)
                    | Outcome::Excepted(_)
                    | Outcome::Success(_)
                    | Outcome::Miss => {}
                }
            }
        }
    }
    assert!(spoofs > 3, "{spoofs}: the corpus holds lines that try");
}

#[test]
fn the_same_requests_are_read_under_each_format() {
    for (file, format) in [
        (
            "odd_combio.log",
            r#"%a %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\" %D %I %O %{X-Forwarded-For}i"#,
        ),
        ("odd_vhc.log", "vhost_combined"),
        ("odd_vhc.log", "auto"),
        (
            "odd_csv.log",
            r#"%h,%l,%u,%t,\"%r\",%>s,%b,\"%{Referer}i\",\"%{User-Agent}i\""#,
        ),
        (
            "odd_agentref.log",
            r#"%h %l %u %t \"%!200,304,302{Referer}i\" \"%{User-agent}i\""#,
        ),
        (
            "odd_sslreq.log",
            r#"%t %h TLSv1.3 TLS_AES_256_GCM_SHA384 \"%r\" %b"#,
        ),
    ] {
        let parser = Parser::new(Kind::Access, format).unwrap();
        let bytes = std::fs::read(corpus("formats").join(file)).unwrap();
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let mut clients = std::collections::BTreeMap::new();
        for line in lines {
            let shown = String::from_utf8_lossy(line);
            let record = parser
                .parse(line)
                .unwrap_or_else(|| panic!("{file}: {shown}"));
            let client = record.client.expect(&shown);
            *clients.entry(client.addr.to_string()).or_insert(0) += 1;
        }
        assert_eq!(
            clients.keys().collect::<Vec<_>>(),
            ["127.0.0.1", "::1"],
            "{file}"
        );
        assert!(clients["::1"] > 10, "{file}");
    }
}

/// A directory with a filter and a configuration, and `pipeban test` run in it.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new(filter: &str) -> Bench {
        let bench = Bench(tempfile::tempdir().unwrap());
        bench.write("f.conf", &format!("[Definition]\n{filter}\n"));
        bench
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pipeban"))
            .current_dir(self.0.path())
            .env("TZ", "UTC")
            .arg("test")
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

    fn json(&self, args: &[&str], input: &str) -> (Vec<serde_json::Value>, i32) {
        let output = self.run(&[&["--json"], args].concat(), input.as_bytes());
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        (lines.collect(), output.status.code().unwrap())
    }
}

#[test]
fn the_tutorials_attack_matches_as_the_contract_prints_it() {
    let bench = Bench::new(TUTORIAL);
    let line = format!(
        "{HEAD} [client 203.0.113.9:49108] AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/.%2e/bin/sh)"
    );
    let output = bench.run(&["--json", "--filter", "./f.conf", "--line", &line], b"");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "{\"line\":1,\"verdict\":\"match\",\"host\":\"203.0.113.9\",\"matches\":[{\"jail\":null,\"filter\":\"f\",\"pattern\":1,\"host\":\"203.0.113.9\",\"weight\":1,\"bans_alone\":false}],\"time\":\"2026-11-22T11:00:33+00:00\"}\n"
    );
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn each_verdict_is_printed_and_no_match_ends_with_1() {
    let bench = Bench::new(&format!("{TUTORIAL}\nignoreregex = friend"));
    let attack = "AH10244: invalid URI path (/cgi-bin/.%2e/bin/sh)";
    let input = [
        format!("{HEAD} [client 192.0.2.1:1] AH01630: x, referer: [client 8.8.8.8:1] {attack}"),
        format!("{HEAD} [client 192.0.2.1:1] {attack} friend"),
        format!("{HEAD} [client 192.0.2.1:1] AH01630: x"),
        "no line of Apache's".to_owned(),
        String::new(),
        format!("[client 192.0.2.1:1] {attack}"),
    ]
    .join("\n");
    let (lines, status) = bench.json(&["--filter", "f.conf", "-"], &input);
    let words: Vec<_> = lines
        .iter()
        .map(|line| line["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(
        words,
        [
            "spoof", "ignored", "miss", "unparsed", "unparsed", "unparsed"
        ]
    );
    assert!(
        lines
            .iter()
            .all(|line| line["host"].is_null() && line["matches"] == serde_json::json!([]))
    );
    assert_eq!(lines[5]["time"], serde_json::Value::Null);
    assert_eq!(status, 1);

    let (lines, status) = bench.json(&["--filter", "f.conf", "--kind", "raw", "-"], &input);
    assert_eq!(lines[5]["host"], "192.0.2.1");
    assert_eq!(
        lines[0]["host"], "8.8.8.8",
        "without a record the pattern decides"
    );
    assert_eq!(status, 0);
}

#[test]
fn the_time_of_an_access_line_keeps_its_zone() {
    let bench = Bench::new("failregex = ^<HOST> .*GET /x");
    let line = r#"192.0.2.1 - - [22/Nov/2026:11:00:32 -0230] "GET /x HTTP/1.1" 200 1 "-" "-""#;
    let (lines, status) = bench.json(&["--filter", "f.conf", "-"], line);
    assert_eq!(lines[0]["time"], "2026-11-22T11:00:32-02:30");
    assert_eq!((lines[0]["verdict"].as_str(), status), (Some("match"), 0));
}

#[test]
fn the_output_for_people_is_escaped_and_counted() {
    let bench = Bench::new("failregex = ^<HOST> .*GET /x\n  ^<HOST> .*GET /y");
    let mut input =
        b"192.0.2.1 - - [22/Nov/2026:11:00:32 +0000] \"GET /y HTTP/1.1\" 200 1\n".to_vec();
    input.extend(b"\x1b[2J\xff\xe2\x80\xae\n");
    let output = bench.run(&["--filter", "f.conf", "-"], &input);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "Format: common (access log)\nTimes:  1 of 2 lines, 2026-11-22T11:00:32+00:00\n",
        "    hits  pattern, 1 of 2\n       1  2: ^<HOST> .*GET /y\n\n",
        "\n1 matched\n    1: 192.0.2.1: 192.0.2.1 - - [",
        "2: \\x1b[2J\\xff\\u{202e}\n",
        "\n1 of 2 lines matched\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn each_failure_has_its_status_and_message() {
    let bench = Bench::new("failregex = ^<HOST>\n            no host in this");
    bench.write("good.conf", "[Definition]\nfailregex = ^<HOST>\n");
    std::fs::write(bench.0.path().join("old.gz"), [0x1f, 0x8b, 8, 0]).unwrap();
    for (args, status, text) in [
        (vec!["--filter", "good.conf", "old.gz"], 2, "`zcat old.gz |"),
        (
            vec!["--filter", "f.conf", "-"],
            78,
            "f.conf:3:13: the pattern has no <HOST>",
        ),
        (
            vec!["--filter", "none.conf", "-"],
            2,
            "cannot read `none.conf`",
        ),
        (
            vec!["--filter", "good.conf", "none.log"],
            2,
            "cannot read `none.log`",
        ),
        (
            vec!["--filter", "good.conf", "192.0.2.1 a line"],
            2,
            "; use --line for one line",
        ),
        (
            vec!["--filter", "no-such-filter", "-"],
            2,
            "no filter `no-such-filter` exists",
        ),
        (
            vec![
                "--filter",
                "good.conf",
                "--format",
                "%Y",
                "--kind",
                "access",
                "-",
            ],
            64,
            "`%Y`",
        ),
        (
            vec!["--filter", "good[mode=x", "-"],
            64,
            "options are written",
        ),
        (vec!["--kind", "raw", "-"], 64, "--filter"),
        (vec!["--filter", "good.conf"], 64, "FILE"),
    ] {
        let output = bench.run(&args, b"");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?} {stderr}");
        assert!(stderr.contains(text), "{args:?} {stderr}");
        assert_eq!(output.stdout, b"", "{args:?}");
    }
}
