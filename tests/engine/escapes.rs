//! Text from outside reaches no terminal, log or file as it came.

use super::*;
use pipeban::control::{Reading, Unread};

/// Moves a terminal's cursor, changes the order of what follows, is invisible, ends a line.
const EVIL: &str = "a\u{1b}[2J\u{9b}31m\u{202e}gnp\u{200b}\u{e0041}\u{7f}\rb\nc";

#[track_caller]
fn harmless(what: &str, text: &str) {
    let hidden = |c: char| {
        (c.is_control() && !"\n\t".contains(c))
            || matches!(c, '\u{202e}' | '\u{200b}' | '\u{e0041}')
    };
    assert!(!text.contains(hidden), "{what}: {text:?}");
}

/// Runs each command, also with `--json` where it can.
#[track_caller]
fn all_harmless(lab: &Lab, commands: &[&[&str]]) {
    for args in commands {
        let formatted = args.contains(&"--format") || args.contains(&"--show");
        for json in [false, true].into_iter().take(2 - usize::from(formatted)) {
            let mut all = args.to_vec();
            if json {
                all.push("--json");
            }
            let output = lab.run(&all);
            let what = format!("{args:?}");
            let stdout = String::from_utf8(output.stdout).unwrap();
            // Rows of CSV end so.
            let stdout = stdout.replace("\r\n", "\n");
            harmless(&what, &stdout);
            harmless(&what, &String::from_utf8(output.stderr).unwrap());
            if json {
                for line in stdout.lines() {
                    serde_json::from_str::<Value>(line)
                        .unwrap_or_else(|e| panic!("{what}: {e}: {line}"));
                }
            }
        }
    }
}

#[test]
fn no_output_has_a_character_that_a_terminal_obeys() {
    let lab = Lab::started();
    let syslog = std::os::unix::net::UnixDatagram::bind(lab.path("log.sock")).unwrap();
    syslog.set_read_timeout(Some(LONG)).unwrap();
    let mut worker = Line::connect(&lab.socket()).unwrap();
    let Request::Worker(mut about) = hello(7, VERSION) else {
        unreachable!()
    };
    about.path = Some(EVIL.into());
    worker.send(&Request::Worker(about)).unwrap();
    worker.receive().unwrap();
    worker
        .send(&Request::Reading(Reading {
            format: Some(EVIL.into()),
            doubt: Some(EVIL.into()),
            unparsed_lines: vec![Unread {
                line: 1,
                begins: EVIL.into(),
                why: EVIL.into(),
            }],
        }))
        .unwrap();
    let counters = Counters {
        unparsed: 1,
        shed: 1,
        matching: true,
        ..Counters::default()
    };
    worker.send(&Request::Counters(counters)).unwrap();
    let mut evil = hit(1, "203.0.113.9", &["at-once"]);
    evil.evidence = EVIL.into();
    worker.send(&Request::Hits(vec![evil])).unwrap();
    worker.ack().unwrap();
    worker.stream.write_all(b"\x1b[2J\n").unwrap();
    worker.receive().unwrap();
    let (mut again, _) = Line::worker(&lab.socket(), 8).unwrap();
    let Request::Worker(mut about) = hello(9, VERSION) else {
        unreachable!()
    };
    about.path = Some(EVIL.into());
    let mut third = Line::connect(&lab.socket()).unwrap();
    third.send(&Request::Worker(about)).unwrap();
    third.receive().unwrap();
    again.send(&Request::Counters(counters)).unwrap();

    let logs = lab.path(&format!("log {EVIL}"));
    let found =
        format!("2026-11-22 11:00:00,000 fail2ban.actions [1]: NOTICE [{EVIL}] Ban 192.0.2.7\n");
    std::fs::write(&logs, format!("203.0.113.9 {EVIL}\n{found}")).unwrap();
    let logs = logs.display().to_string();
    let missing = format!("{logs}{EVIL}");
    let access =
        format!("203.0.113.9 - {EVIL} [22/Nov/2026:11:00:32 +0000] \"{EVIL}\" 404 5 \"-\" \"-\"");
    let list = lab.path("list");
    let bans = format!(
        "{{\"host\":\"203.0.113.30\",\"jail\":\"often\",\"reason\":{}}}\n",
        serde_json::to_string(EVIL).unwrap()
    );
    std::fs::write(&list, bans).unwrap();
    let list = list.display().to_string();
    let line = format!("203.0.113.7 {EVIL}");
    let commands: &[&[&str]] = &[
        &["ban", "203.0.113.20", "--reason", EVIL],
        &["allow", "203.0.113.21", "--reason", EVIL],
        &["allow", "--list"],
        &["import", &list],
        &["status"],
        &["status", "203.0.113.9"],
        &["export"],
        &["test", "--jail", "at-once", "--line", &line],
        &["test", "--filter", EVIL, "--line", &line],
        &["explain", "203.0.113.9"],
        &["explain", "203.0.113.20", "--log", &logs],
        &["explain", "203.0.113.9", "--log", &missing],
        &["explain", EVIL],
        &["explain", &line],
        &["explain", &access],
        &["status", EVIL],
        &["report"],
        &["report", "--format", "csv"],
        &["report", "--format", "html"],
        &["report", "--vhost", EVIL],
        &["report", "--fail2ban-log", &logs],
        &["report", "--fail2ban-log", &missing],
        &["replay", "--kind", "access", &logs],
        &["purge", EVIL],
        &["unban", EVIL],
        &["doctor"],
        &["check"],
    ];
    all_harmless(&lab, commands);
    let mut top = top::Top::start(&lab);
    top.until_drawn("203.0.113.30");
    top.press("w");
    top.until_drawn("problems");
    top.press("xe");
    top.until_drawn("Enter: back to");
    top.press("\n");
    top.press("q");
    let drawn = top.drawn();
    let unwanted = [
        "\u{9b}",
        "\u{202e}",
        "\u{200b}",
        "\u{e0041}",
        "\u{7f}",
        "a\u{1b}[2J",
    ];
    assert!(
        !unwanted.iter().any(|text| drawn.contains(text)),
        "{drawn:?}"
    );
    assert_eq!(top.ended(), Some(0));
    let bans = lab.jail("often")["banned"].to_string();
    assert!(bans.contains("203.0.113.30"), "{bans}");
    until("the log has it", || lab.log().contains("203.0.113.20"));
    harmless("the log", &lab.log());
    let mut buffer = [0; 4_096];
    loop {
        let length = syslog.recv(&mut buffer).unwrap();
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        harmless("syslog", text.trim_end_matches('\n'));
        if text.contains("203.0.113.20") {
            break;
        }
    }
}

#[test]
fn no_text_of_a_file_reaches_the_terminal_as_it_is() {
    let lab = Lab::new();
    let evil = EVIL.replace(['\r', '\n'], "");
    let quoted = serde_json::to_string(&evil)
        .unwrap()
        .replace('\u{7f}', "\\u007f");
    let write = |name: &str, text: String| {
        std::fs::write(lab.path(name), text).unwrap();
        lab.path(name).display().to_string()
    };
    let fail2ban = lab.path("fail2ban").display().to_string();
    std::fs::create_dir_all(lab.path("fail2ban/filter.d")).unwrap();
    write(
        "fail2ban/filter.d/f.conf",
        "[Definition]\nfailregex = ^<HOST>$\n".to_owned(),
    );
    write("fail2ban/jail.conf", String::new());
    write(
        "fail2ban/jail.local",
        format!(
            "[{evil}]\nenabled = true\nfilter = f\nlogpath = /var/log/{evil}\n\
             [apache-{evil}]\nenabled = true\nfilter = f\nlogpath = /var/log/apache2/{evil}/error.log\n\
             maxretry = {evil}\nport = {evil}\nignoreip = {evil}\naction = x-{evil}\n  sendmail[dest={evil}]\n\
             ignorecommand = {evil}\n"
        ),
    );
    let apache = write(
        "apache2.conf",
        format!(
            "ServerRoot {}\nErrorLog \"|/usr/bin/pipeban log error --{evil}\"\nInclude /nowhere{evil}\n\
             ErrorLogFormat \"{evil}\"\nLogFormat \"%h {evil}\" {evil}\n\
             CustomLog \"|/usr/bin/pipeban log access {evil}\" combined\nCustomLog /x{evil} {evil}\n",
            lab.dir.path().display()
        ),
    );
    let filter = write(
        "bad.conf",
        format!("[Definition]\nfailregex = ^{evil}<HOST>(\n"),
    );
    let new = lab.path("new.toml").display().to_string();
    lab.configure(&format!(
        "[jails.at-once]\nlog = \"error\"\nfilter = \"f\"\non_ban = [\"/{}]\n",
        &quoted[1..]
    ));
    let commands: &[&[&str]] = &[
        &["migrate", &fail2ban],
        &["migrate", &fail2ban, "-o", &new],
        &["check", "--apache-config", &apache],
        &["check", "--show", "at-once"],
        &["check", "--filter", &filter],
        &["test", "--filter", &filter, "--line", "x"],
        &["setup", "--apache-config", &apache],
        &["setup", "--remove", "--apache-config", &apache],
    ];
    all_harmless(&lab, commands);
    let (_, shown) = lab.say(&["check", "--apache-config", &apache]);
    assert!(
        shown.contains("runs /a\\x1b[2J\\u{9b}31m\\u{202e}gnp"),
        "{shown}"
    );
    let (_, shown) = lab.say(&["migrate", &fail2ban]);
    assert!(shown.contains("[apache-a\\x1b[2J\\u{9b}31m"), "{shown}");
    let written = std::fs::read_to_string(&new).unwrap();
    harmless("the new file", &written);
    let table: toml::Table = written.parse().unwrap();
    let mut jails = table["jails"].as_table().unwrap().values();
    let ignored = jails.next().unwrap()["ignoreip"].as_array().unwrap();
    assert_eq!(ignored.last().unwrap().as_str(), Some(evil.as_str()));

    lab.configure(&format!(
        "[jails.a]\nlog = 5 # {}\n",
        evil.replace(['\u{1b}', '\u{7f}'], "")
    ));
    all_harmless(&lab, &[&["check"], &["test", "--jail", "a", "--line", "x"]]);
    let missing = Command::new(PIPEBAN)
        .args(["--config", EVIL, "check"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(78));
    harmless(
        "the name of the configuration",
        &String::from_utf8(missing.stderr).unwrap(),
    );
}

#[test]
fn an_error_that_cannot_be_printed_ends_no_command_early() {
    let lab = Lab::new();
    // Nothing can be written to it.
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = lab.command(&["log", "error", "--no-such-option"]);
    command
        .stdin(Stdio::piped())
        .stderr(full.try_clone().unwrap());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a line\n").unwrap();
    assert!(child.wait().unwrap().code().is_some());
    let status = lab.command(&["status"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
