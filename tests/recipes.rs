//! The scripts of config/examples/hooks, against a local server and a sendmail that keeps its input.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::support::skip_without;

/// An HTTP server that gives these answers in order; the requests it got.
struct Server {
    address: String,
    requests: Receiver<String>,
}

impl Server {
    fn new(answers: Vec<(&'static str, &'static str)>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                sender.send(request(&mut stream)).unwrap();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Server { address, requests }
    }

    /// The next request: head and body.
    #[track_caller]
    fn next(&self) -> (String, String) {
        let request = self.requests.try_recv().expect("a request");
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[track_caller]
    fn none(&self) {
        assert!(self.requests.try_recv().is_err(), "no request");
    }
}

fn request(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                let is = name.eq_ignore_ascii_case("content-length");
                is.then(|| value.parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the request is cut: {text}");
        bytes.extend_from_slice(&chunk[..read]);
    }
}

/// A directory with a secret, and what runs the scripts there.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    /// `None` where a program is missing; says so.
    fn new() -> Option<Host> {
        if !Path::new("/usr/bin/curl").exists() {
            skip_without("curl");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        Some(Host { directory })
    }

    /// A file that only its owner can read.
    fn secret(&self, text: &str) -> String {
        let path = self.directory.path().join("secret");
        std::fs::write(&path, text).unwrap();
        self.mode(0o600);
        path.display().to_string()
    }

    fn mode(&self, mode: u32) {
        let path = self.directory.path().join("secret");
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    /// A program that is found before the system's.
    fn program(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Runs a script with the small environment that hooks get, and the address of a service.
    fn run(&self, script: &str, args: &[&str], service: (&str, &str)) -> Output {
        let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/hooks");
        let path = self.directory.path().display();
        Command::new(hooks.join(script))
            .args(args)
            .env_clear()
            .env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"))
            .env("LC_ALL", "C")
            .env("ABUSEIPDB_STATE", self.directory.path().join("reports"))
            .env(service.0, service.1)
            .current_dir("/")
            .output()
            .unwrap()
    }
}

#[track_caller]
fn done(output: &Output) {
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[track_caller]
fn fails(output: &Output, text: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains(text),
        "{output:?}"
    );
}

const NONE: (&str, &str) = ("NONE", "");

#[test]
fn a_mail_is_sent_by_sendmail() {
    let Some(host) = Host::new() else { return };
    let kept = host.directory.path().join("mail").display().to_string();
    host.program("sendmail", &format!("echo \"$@\" >{kept}; cat >>{kept}"));
    let args = ["web@example.org", "apache-auth", "203.0.113.9", "3600", "5"];
    done(&host.run("mail", &args, NONE));
    let mail = std::fs::read_to_string(&kept).unwrap();
    assert!(
        mail.starts_with("-i -- web@example.org\nTo: web@example.org\nSubject: [pipeban] "),
        "{mail}"
    );
    let (head, body) = mail.split_once("\n\n").unwrap();
    assert!(head.contains(": apache-auth bans 203.0.113.9\n"), "{mail}");
    assert!(
        body.contains(" bans 203.0.113.9 for 3600 seconds, after 5 hits (jail apache-auth).\n")
    );
    assert!(
        body.contains("\nLift it:  pipeban unban 203.0.113.9\n"),
        "{mail}"
    );
    done(&host.run("mail", &["root", "manual", "2001:db8::/64", "0", "0"], NONE));
    let mail = std::fs::read_to_string(&kept).unwrap();
    assert!(
        mail.contains(" bans 2001:db8::/64 for ever, by hand "),
        "{mail}"
    );
    host.program("sendmail", "exit 75");
    assert!(!host.run("mail", &args, NONE).status.success());
}

#[test]
fn a_webhook_gets_what_each_service_expects() {
    let Some(host) = Host::new() else { return };
    let server = Server::new(vec![("200 OK", ""); 5]);
    let secret = host.secret(&format!("{}/hook?token=T0ken\nNtfyToken\n", server.address));
    for (kind, pointer) in [
        ("slack", "/text"),
        ("discord", "/content"),
        ("gotify", "/message"),
    ] {
        let args = [kind, &secret, "apache-auth", "203.0.113.9", "3600", "5"];
        done(&host.run("webhook", &args, NONE));
        let (head, body) = server.next();
        assert!(
            head.starts_with("POST /hook?token=T0ken HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.contains("\r\nContent-Type: application/json"),
            "{head}"
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        let text = body.pointer(pointer).unwrap().as_str().unwrap();
        assert!(
            text.ends_with(": apache-auth bans 203.0.113.9 for 3600 s (5 hits)"),
            "{text}"
        );
    }
    let args = ["ntfy", &secret, "apache-auth", "2001:db8::/64", "0", "5"];
    done(&host.run("webhook", &args, NONE));
    let (head, body) = server.next();
    assert!(
        head.contains("\r\nAuthorization: Bearer NtfyToken"),
        "{head}"
    );
    assert!(
        body.ends_with(": apache-auth bans 2001:db8::/64 for ever (5 hits)"),
        "{body}"
    );
    // Nothing in a word breaks out of the text.
    let args = ["slack", &secret, "a\",\"b\\\n$(id)`id`", "@x", "1", "5"];
    done(&host.run("webhook", &args, NONE));
    let body: Value = serde_json::from_str(&server.next().1).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1);
    assert!(
        body["text"]
            .as_str()
            .unwrap()
            .contains("a\",\"b\\$(id)`id` bans"),
        "{body}"
    );
    // A refusal is an error, so that `status` names the hook.
    let refusing = Server::new(vec![("403 Forbidden", "no")]);
    let secret = host.secret(&refusing.address);
    let args = ["slack", &secret, "a", "203.0.113.9", "1", "5"];
    fails(&host.run("webhook", &args, NONE), "403");
    host.mode(0o640);
    fails(&host.run("webhook", &args, NONE), "can be read by others");
    host.secret("");
    fails(&host.run("webhook", &args, NONE), "has no address");
}

#[test]
fn reports_to_abuseipdb_stay_within_its_limits() {
    let Some(host) = Host::new() else { return };
    let server = Server::new(vec![
        ("200 OK", "{}"),
        ("200 OK", "{}"),
        ("429 Too Many Requests\r\nRetry-After: 3000", "{}"),
    ]);
    let url = format!("{}/api/v2/report", server.address);
    let secret = host.secret("0123abcdKEY\n");
    let report = |address: &str, jail: &str, failures: &str| {
        let args = [secret.as_str(), jail, address, failures];
        host.run("abuseipdb", &args, ("ABUSEIPDB_URL", &url))
    };
    done(&report("203.0.113.9", "apache-auth", "5"));
    let (head, body) = server.next();
    assert!(
        head.starts_with("POST /api/v2/report HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nKey: 0123abcdKEY"), "{head}");
    let expected =
        "ip=203.0.113.9&categories=18%2C21&comment=pipeban%3A+jail+apache-auth%2C+5+hits";
    assert!(body.starts_with(expected), "{body}");
    // By hand, a network, and the same address again.
    done(&report("203.0.113.10", "manual", "0"));
    done(&report("2001:db8::/64", "apache-auth", "5"));
    done(&report("203.0.113.9", "apache-php-rce", "10"));
    server.none();
    done(&report("203.0.113.11", "apache-php-rce", "10"));
    assert!(server.next().1.contains("categories=21&"));
    // The service wants no more for a while.
    done(&report("203.0.113.12", "a", "1"));
    server.next();
    done(&report("203.0.113.13", "a", "1"));
    server.none();
    let state = host.directory.path().join("reports");
    let text = std::fs::read_to_string(&state).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    // An account's own limit.
    let busy = Server::new(vec![("200 OK", "{}"), ("401 Unauthorized", "{}")]);
    std::fs::remove_file(&state).unwrap();
    let secret = host.secret("KEY\n1\n");
    let send = |address: &str| {
        let args = [secret.as_str(), "a", address, "1"];
        host.run("abuseipdb", &args, ("ABUSEIPDB_URL", &busy.address))
    };
    done(&send("203.0.113.9"));
    busy.next();
    done(&send("203.0.113.10"));
    busy.none();
    std::fs::remove_file(&state).unwrap();
    fails(&send("203.0.113.10"), "AbuseIPDB answers 401");
    host.mode(0o604);
    fails(&send("203.0.113.10"), "can be read by others");
}

/// As Cloudflare's documentation shows them; ids are 32 hexadecimal digits.
const RULE: &str = r#"{"result":{"id":"92f17202ed8bd63d69a66b86a49a8f6b","notes":"pipeban apache-auth","allowed_modes":["block"],"mode":"block","configuration":{"target":"ip","value":"203.0.113.9"},"scope":{"id":"7c5dae5552338874e5053f2534d2767a","type":"zone"}},"success":true,"errors":[],"messages":[]}"#;
const RULES: &str = r#"{"result":[{"id":"92f17202ed8bd63d69a66b86a49a8f6b","notes":"pipeban apache-auth","mode":"block","configuration":{"target":"ip","value":"203.0.113.9"},"scope":{"id":"7c5dae5552338874e5053f2534d2767a","type":"zone"}}],"success":true,"errors":[],"messages":[]}"#;
const MANUAL: &str = r#"{"result":[{"id":"92f17202ed8bd63d69a66b86a49a8f6b","notes":"by the boss","mode":"block"}],"success":true,"errors":[],"messages":[]}"#;
const DUPLICATE: &str = r#"{"result":null,"success":false,"errors":[{"code":10009,"message":"firewallaccessrules.api.duplicate_of_existing"}],"messages":[]}"#;
const DENIED: &str = r#"{"result":null,"success":false,"errors":[{"code":10000,"message":"Authentication error"}],"messages":[]}"#;

#[test]
fn a_ban_is_a_rule_at_cloudflare_until_it_ends() {
    let Some(host) = Host::new() else { return };
    host.program("pipeban", "exit 1");
    let server = Server::new(vec![
        ("200 OK", RULE),
        ("400 Bad Request", DUPLICATE),
        ("200 OK", RULES),
        (
            "200 OK",
            r#"{"result":{},"success":true,"errors":[],"messages":[]}"#,
        ),
        ("200 OK", MANUAL),
        ("403 Forbidden", DENIED),
    ]);
    let secret = host.secret("To-ken_1\nzone9\n");
    let run = |what: &str, client: &str| {
        let args = [secret.as_str(), what, "apache-auth", client];
        host.run("cloudflare", &args, ("CLOUDFLARE_URL", &server.address))
    };
    let rules = "/zones/zone9/firewall/access_rules/rules";
    done(&run("ban", "203.0.113.9"));
    let (head, body) = server.next();
    assert!(
        head.starts_with(&format!("POST {rules} HTTP/1.1\r\n")),
        "{head}"
    );
    assert!(
        head.contains("\r\nAuthorization: Bearer To-ken_1"),
        "{head}"
    );
    let body: Value = serde_json::from_str(&body).unwrap();
    let expected = serde_json::json!({
        "mode": "block", "notes": "pipeban apache-auth",
        "configuration": {"target": "ip", "value": "203.0.113.9"},
    });
    assert_eq!(body, expected);
    done(&run("ban", "2001:db8::/64"));
    assert!(
        server
            .next()
            .1
            .contains(r#""target":"ip_range","value":"2001:db8::/64""#)
    );
    done(&run("unban", "203.0.113.9"));
    let (head, _) = server.next();
    assert!(head.starts_with(&format!("GET {rules}?")), "{head}");
    assert!(head.contains("configuration.value=203.0.113.9"), "{head}");
    let (head, _) = server.next();
    let delete = format!("DELETE {rules}/92f17202ed8bd63d69a66b86a49a8f6b HTTP/1.1");
    assert!(head.starts_with(&delete), "{head}");
    // A rule of the administrator's stays.
    done(&run("unban", "203.0.113.9"));
    server.next();
    fails(&run("ban", "2001:db8::7"), "Authentication error");
    assert!(server.next().1.contains(r#""target":"ip6""#));
    // Another jail bans it still.
    host.program("pipeban", "exit 0");
    done(&run("unban", "203.0.113.9"));
    server.none();
    host.secret("token\n");
    fails(
        &run("ban", "203.0.113.9"),
        "needs a token and the id of a zone",
    );
}

#[test]
fn each_script_names_the_line_to_write_and_keeps_its_secret_from_arguments() {
    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/hooks");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&hooks).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#!/bin/sh\n# "), "{name}");
        assert!(
            text.contains("[\"/usr/share/pipeban/examples/hooks/"),
            "{name}"
        );
        let line = text.lines().find(|line| line.contains("on_ban ")).unwrap();
        let keys = line.trim_start_matches('#').trim();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pipeban.toml");
        let share = directory.path().display();
        std::fs::write(
            &file,
            format!("[paths]\nshare = \"{share}\"\n[defaults]\n{keys}\n"),
        )
        .unwrap();
        pipeban::disk::load(&file).unwrap();
        assert!(
            !text.contains("--header \"Authorization") && !text.contains("--header \"Key"),
            "{name}"
        );
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name}");
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["abuseipdb", "cloudflare", "mail", "webhook"]);
}
