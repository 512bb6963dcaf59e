//! Export and import of bans.

use std::io::Read;

use super::*;
use crate::support::process::kilobytes;

/// The parts of every ban that an import keeps.
fn bans(lab: &Lab) -> Vec<(String, String, u64, Option<jiff::Timestamp>)> {
    let (exit, text) = lab.say(&["export"]);
    assert_eq!(exit, 0, "{text}");
    let ban = |line: &str| {
        let ban: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| ban[key].as_str().unwrap().to_owned();
        let until = ban["until"].as_str().map(|until| until.parse().unwrap());
        let failures = ban["failures"].as_u64().unwrap();
        (text("jail"), text("host"), failures, until)
    };
    let mut bans: Vec<_> = text.lines().map(ban).collect();
    bans.sort_unstable();
    bans
}

#[track_caller]
fn same(left: &Lab, right: &[(String, String, u64, Option<jiff::Timestamp>)]) {
    let left = bans(left);
    assert_eq!(left.len(), right.len(), "{left:?} {right:?}");
    for (left, right) in left.iter().zip(right) {
        assert_eq!(
            (&left.0, &left.1, left.2),
            (&right.0, &right.1, right.2),
            "the same bans"
        );
        let apart = match (left.3, right.3) {
            (Some(left), Some(right)) => left.duration_since(right).abs().as_millis(),
            (left, right) => i128::from(left != right) * 1_000_000,
        };
        assert!(apart <= 10, "{left:?} {right:?}");
    }
}

fn import(lab: &Lab, args: &[&str], text: &[u8]) -> (i32, String) {
    let mut child = lab
        .command(&[&["import"], args].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that ends early does not read it all.
    let _ = child.stdin.take().unwrap().write_all(text);
    let output = child.wait_with_output().unwrap();
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn exported_bans_are_imported_with_the_same_ends() {
    let mut lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let mut behind = hit(3, "203.0.113.12", &["at-once"]);
    behind.peer = Some("192.0.2.7".parse().unwrap());
    let hits = vec![
        hit(1, "203.0.113.9", &["at-once", "watch"]),
        hit(2, "2001:db8:7::9", &["at-once"]),
        behind,
    ];
    worker.send(&Request::Hits(hits)).unwrap();
    worker.ack().unwrap();
    for args in [
        &["203.0.113.9", "--for", "2h"][..],
        &["198.51.100.0/24", "--for", "1d", "--jail", "often"],
        &[
            "2001:db8:8::/48",
            "--for",
            "-1",
            "--reason",
            "sc\"r\u{e4}per",
        ],
        &["198.51.100.7", "--for", "30"],
    ] {
        assert_eq!(lab.say(&[&["ban"], args].concat()).0, 0);
    }
    let before = bans(&lab);
    assert_eq!(before.len(), 7, "{before:?}");
    let exported = lab.run(&["export"]).stdout;
    assert_eq!(lab.say(&["unban", "--all"]).0, 0);
    assert_eq!(bans(&lab), []);
    let (exit, text) = import(&lab, &[], &exported);
    assert_eq!((exit, text.as_str()), (0, "imported 7 bans\n"));
    same(&lab, &before);
    let status = lab.status().to_string();
    for text in ["sc\\\"r\u{e4}per", "imported", "\"behind\":\"192.0.2.7\""] {
        assert!(status.contains(text), "{text}: {status}");
    }
    until("each is logged as restored", || {
        let log = lab.log();
        log.contains("[at-once] Restore Ban 2001:db8:7::/64\n")
            && log.contains("[often] Restore Ban 198.51.100.0/24\n")
    });
    // Twice is once, also for what an engine that was killed has kept.
    lab.kill();
    lab.start();
    same(&lab, &before);
    let (exit, text) = import(&lab, &["-"], &exported);
    assert_eq!(exit, 0, "{text}");
    assert_eq!(text, "imported 0 bans; skipped 7 known bans\n");
    same(&lab, &before);
    // A ban that was made elsewhere makes no later one longer.
    assert_eq!(lab.say(&["unban", "203.0.113.9"]).0, 0);
    let (mut worker, _) = Line::worker(&lab.socket(), 8).unwrap();
    worker
        .send(&Request::Hits(vec![hit(1, "203.0.113.9", &["at-once"])]))
        .unwrap();
    assert!(worker.ack().unwrap().1[1].ends_with("for 1h (1 in under 1s)"));
}

#[test]
fn lists_and_commands_are_exported_for_other_programs() {
    let lab = Lab::started();
    for (host, jail) in [
        ("203.0.113.9", "often"),
        ("203.0.113.9", "at-once"),
        ("198.51.100.0/24", "at-once"),
        ("2001:db8:7::9", "often"),
    ] {
        assert_eq!(lab.say(&["ban", host, "--jail", jail]).0, 0);
    }
    let export = |args: &[&str]| lab.say(&[&["export"], args].concat());
    let list = "198.51.100.0/24\n203.0.113.9\n2001:db8:7::9\n";
    assert_eq!(export(&["--format", "list"]), (0, list.to_owned()));
    let commands = "fail2ban-client set at-once banip 198.51.100.0/24 203.0.113.9\n\
                    fail2ban-client set often banip 203.0.113.9 2001:db8:7::9\n";
    assert_eq!(export(&["--format", "fail2ban"]), (0, commands.to_owned()));
    let of_one = "203.0.113.9\n2001:db8:7::9\n";
    let args = ["--format", "list", "--jail", "often"];
    assert_eq!(export(&args), (0, of_one.to_owned()));
    assert_eq!(export(&["--jail", "manual"]), (0, String::new()));
    let (exit, text) = export(&["--jail", "oftn"]);
    assert!(
        exit == 2 && text.contains("the jails are: at-once"),
        "{text}"
    );
    // A list needs `--jail`.
    let (exit, text) = import(&lab, &["--jail", "count"], list.as_bytes());
    assert_eq!((exit, text.as_str()), (0, "imported 3 bans\n"));
    assert_eq!(lab.jail("count")["currently_banned"], 3);
    assert_eq!(lab.jail("count")["banned"][0]["reason"], "imported");
    let (exit, text) = import(&lab, &["--jail", "count"], list.as_bytes());
    assert_eq!(exit, 0, "{text}");
    assert_eq!(text, "imported 0 bans; skipped 3 known bans\n");
    let (exit, text) = import(&lab, &[], list.as_bytes());
    assert_eq!(exit, 2);
    assert!(
        text.contains("standard input:1: the line names no jail"),
        "{text}"
    );
    assert!(text.contains("`--jail`"), "{text}");
}

#[test]
fn an_import_shortens_no_ban_and_bans_no_exempt_address() {
    let lab = Lab::started();
    assert_eq!(lab.say(&["ban", "203.0.113.9", "--for", "1d"]).0, 0);
    assert_eq!(lab.say(&["allow", "203.0.113.64/28"]).0, 0);
    let now = jiff::Timestamp::now();
    let line = |host: &str, until: Option<u64>| {
        let until = until.map(|seconds| now + Duration::from_secs(seconds));
        format!(
            "{}\n",
            serde_json::json!({"host": host, "jail": "manual", "until": until})
        )
    };
    let hours = |lab: &Lab| {
        let until = lab.jail("manual")["banned"][0]["until"].clone();
        let until: Option<jiff::Timestamp> = until.as_str().map(|until| until.parse().unwrap());
        until.map(|until| (until.duration_since(now).as_secs_f64() / 3_600.0).round())
    };
    assert_eq!(hours(&lab), Some(24.0));
    let (exit, text) = import(&lab, &[], line("203.0.113.9", Some(3_600)).as_bytes());
    assert_eq!(
        (exit, text.as_str()),
        (0, "imported 0 bans; skipped 1 known ban\n")
    );
    assert_eq!(hours(&lab), Some(24.0));
    let (_, text) = import(&lab, &[], line("203.0.113.9", Some(200_000)).as_bytes());
    assert_eq!(text, "imported 1 ban (1 longer than before)\n");
    assert_eq!(hours(&lab), Some(56.0));
    let (_, text) = import(&lab, &[], line("203.0.113.9", None).as_bytes());
    assert_eq!(text, "imported 1 ban (1 longer than before)\n");
    assert_eq!(hours(&lab), None);
    let (_, text) = import(&lab, &[], line("203.0.113.9", Some(3_600)).as_bytes());
    assert_eq!(text, "imported 0 bans; skipped 1 known ban\n");
    assert_eq!(lab.jail("manual")["currently_banned"], 1);

    let past = serde_json::json!({"host": "203.0.113.10", "jail": "manual", "until": "0001-01-01T00:00:00Z"});
    let file = [
        line("127.0.0.1", None),
        line("203.0.113.70", None),
        line("203.0.113.0/24", None),
        line("10.1.2.3", None),
        line("::/0", None),
        line("32.0.0.0/4", None),
        line("203.0.113.10", None).replace("manual", "gone"),
        format!("{past}\n"),
        line("203.0.113.11", Some(3_600)),
    ];
    std::fs::write(lab.path("bans.json"), file.concat()).unwrap();
    let path = lab.path("bans.json").display().to_string();
    let (exit, text) = lab.say(&["import", &path]);
    assert_eq!(exit, 2, "{text}");
    for text in [
        "bans.json:1: 127.0.0.1 is never banned: `ignoreip` has 127.0.0.0/8",
        "bans.json:2: 203.0.113.70 is never banned: the allow-list has 203.0.113.64/28",
        "bans.json:3: 203.0.113.0/24 is never banned: the allow-list",
        "bans.json:4: 10.1.2.3 is never banned: 10.0.0.0/8 is a private",
        "bans.json:5: ::/0 is never banned",
        "bans.json:6: 32.0.0.0/4 is not banned: 32.0.0.0/4 is too wide",
        "bans.json:7: 203.0.113.10 is not banned: no jail `gone` exists; the jails are: at-once",
        "`--jail` gives all bans to one",
        "imported 1 ban; skipped 1 expired ban, 5 exempt addresses and 2 refused bans\n",
    ] {
        assert!(text.contains(text), "{text}: {text}");
    }
    let (exit, text) = lab.say(&["import", &path, "--jail", "gone"]);
    assert!(
        exit == 2 && text.contains("no jail `gone` exists"),
        "{text}"
    );
    // An exempt address is no failure.
    let (exit, text) = import(&lab, &["--json"], line("127.0.0.1", None).as_bytes());
    assert_eq!(exit, 0, "{text}");
    let json: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&json["never_banned"], &json["done"]),
        (&1.into(), &true.into())
    );
    assert_eq!(lab.say(&["off"]).0, 0);
    let (exit, text) = import(&lab, &[], line("203.0.113.12", None).as_bytes());
    assert!(exit == 2 && text.contains("emergency stop"), "{text}");
    drop(lab);
    let lab = Lab::new();
    for args in [&["export"][..], &["import", "no-such-file"]] {
        assert_eq!(lab.say(args).0, 2);
    }
    let (exit, text) = import(&lab, &["--jail", "often"], b"203.0.113.9\n");
    assert!(
        exit == 2 && text.contains("the engine is not running"),
        "{text}"
    );
}

#[test]
fn malformed_lines_are_skipped_and_the_others_imported() {
    let lab = Lab::started();
    let mut file = Vec::new();
    let mut good = 0;
    for bad in [
        &b"\0\0\0"[..],
        b"203.0.113.9\0",
        b"\xff\xfe2\x000\x003",
        b"{\"host\": \"203.0.113.9\xff\", \"jail\": \"often\"}",
        b"{\"host\": \"203.0.113.9\", \"jail\": \"often\"",
        b"{\"host\": \"203.0.113.9\", \"jail\": \"$(reboot)\"}",
        b"{\"host\": \"example.org\", \"jail\": \"often\"}",
        b"{\"host\": \"203.0.113.9\", \"jail\": \"often\", \"until\": \"tomorrow\"}",
        b"{\"host\": \"203.0.113.9\", \"jail\": \"often\", \"until\": 1e999}",
        b"{\"host\": \"203.0.113.9\", \"jail\": \"often\", \"failures\": -1}",
        b"{\"jail\": \"often\"}",
        b"203.0.113.9/33",
        b"203.0.113.9 && reboot",
        b"fail2ban-client set often banip 203.0.113.9",
        &[b'9'; 5_000],
        &vec![b'['; 1 << 20],
        &[b"{\"host\": ".as_slice(), &vec![b'['; 3_000]].concat(),
    ] {
        good += 1;
        file.extend_from_slice(bad);
        file.extend_from_slice(format!("\n# a comment\n\r\n 198.51.100.{good} \r\n").as_bytes());
    }
    file.extend_from_slice(b"198.51.100.200");
    let (exit, text) = import(&lab, &["--jail", "count"], &file);
    assert_eq!(exit, 2, "{text}");
    let last = format!(
        "imported {} bans; skipped {good} malformed lines\n",
        good + 1
    );
    assert!(text.ends_with(&last), "{text}");
    assert!(
        text.contains("standard input:17:39: EOF while parsing an object"),
        "{text}"
    );
    assert!(
        text.contains("standard input:57: the line has more than 4096 bytes"),
        "{text}"
    );
    assert!(!text.contains('\0') && text.len() < 10_000, "{text}");
    assert_eq!(lab.jail("count")["currently_banned"], good + 1);
}

/// The most memory that a process has had, in KiB.
fn most_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    kilobytes(&status, "VmHWM:")
}

#[test]
fn an_endless_file_needs_little_memory_and_few_messages() {
    let lab = Lab::started();
    let mut child = lab
        .command(&["import"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let piece = b"x\n\n".repeat(10_000);
    for _ in 0..40 {
        stdin.write_all(&piece).unwrap();
    }
    let piece = vec![b'{'; 1 << 20];
    for _ in 0..100 {
        stdin.write_all(&piece).unwrap();
    }
    let most = most_memory(child.id());
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(2));
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text.lines().count(), 21, "{text}");
    assert!(
        text.ends_with("399981 more lines with such problems\n"),
        "{text}"
    );
    assert!(most < 40_000, "{most} KiB");
}

#[test]
fn thousands_of_bans_are_moved_in_pages_while_hits_are_decided() {
    const BANS: u32 = 5_000;
    let lab = Lab::started();
    let host = |n: u32| std::net::Ipv4Addr::from(0x2d00_0000 + n);
    let list: String = (0..BANS).map(|n| format!("{}\n", host(n))).collect();
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| import(&lab, &["--jail", "count"], list.as_bytes()));
        let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
        let mut offset = 0;
        while !importing.is_finished() {
            offset += 1;
            let client = std::net::Ipv4Addr::from(0xc633_6400 + offset as u32 % 250).to_string();
            worker
                .send(&Request::Hits(vec![hit(offset, &client, &["at-once"])]))
                .unwrap();
            worker.ack().unwrap();
        }
        let (exit, text) = importing.join().unwrap();
        assert_eq!((exit, text), (0, format!("imported {BANS} bans\n")));
    });
    let args = ["export", "--format", "list", "--jail", "count"];
    assert_eq!(lab.say(&args), (0, list));
    // One line for each, up to a bound.
    until("all are logged", || {
        lab.log().matches("[count] Restore Ban 45.0.").count() == BANS as usize
    });
    assert!(
        !lab.status()["warnings"]
            .to_string()
            .contains("bans in one minute")
    );
}
