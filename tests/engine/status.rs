//! What `pipeban status` says of many bans, of the cause of one, and of a host with nothing wrong.

use std::net::Ipv4Addr;

use super::*;

/// Bans of so many clients, each by one hit.
fn ban(lab: &Lab, count: u32) {
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let hits = (0..count).map(|n| {
        let client = Ipv4Addr::from(0xcb00_7100 + n).to_string();
        LineHit {
            evidence: format!(
                "{client} - - [22/Nov/2026:11:00:32 +0000] \"GET /shell.php?n={n} HTTP/1.1\" 404 5"
            ),
            ..hit(u64::from(n) + 1, &client, &["at-once"])
        }
    });
    let hits: Vec<LineHit> = hits.collect();
    for some in hits.chunks(500) {
        worker.send(&Request::Hits(some.to_vec())).unwrap();
        worker.ack().unwrap();
    }
}

#[test]
fn a_ban_is_shown_with_the_rule_and_the_request() {
    let lab = Lab::started();
    ban(&lab, 1);
    let ban = lab.jail("at-once")["banned"][0].clone();
    assert_eq!(ban["rule"], "f (f.conf:2)");
    assert_eq!(ban["request"], "GET /shell.php?n=0 HTTP/1.1");
    let (_, text) = lab.say(&["status"]);
    let line = text.lines().find(|line| line.starts_with("203.0.113.0 "));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("at-once"), "{text}");
    assert!(
        line.ends_with("f (f.conf:2): GET /shell.php?n=0 HTTP/1.1"),
        "{text}"
    );
    assert!(text.contains("jails without a hit: "), "{text}");
}

#[test]
fn an_attack_that_was_answered_with_200_is_an_alarm() {
    let mut lab = Lab::new();
    let filter = "class = \"secrets\"\n[[match]]\nconfidence = \"certain\"\npath = '/\\.env$'\n";
    std::fs::write(lab.path("filters.d/secrets.toml"), filter).unwrap();
    lab.configure("[jails.secrets]\nlog = \"error\"\nmaxretry = 10\n");
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let attack = |offset, client: &str, answered| LineHit {
        answered,
        jails: vec![("secrets".parse().unwrap(), 1, 10)],
        evidence: format!("{client} GET /.env"),
        ..hit(offset, client, &[])
    };
    let hits = vec![
        attack(1, "203.0.113.8", false),
        attack(2, "203.0.113.9", true),
        attack(3, "203.0.113.10", true),
    ];
    worker.send(&Request::Hits(hits)).unwrap();
    worker.ack().unwrap();
    let alarm = "(secrets: 203.0.113.9 GET /.env)";
    until("status has the alarm", || {
        lab.say(&["status"]).1.replace("\n  ", " ").contains(alarm)
    });
    let log = || std::fs::read_to_string(lab.path("pipeban.log")).unwrap();
    until("the log has the alarm", || log().contains(alarm));
    assert_eq!(log().matches("status 200").count(), 1, "{}", log());
    for (client, answered) in [("203.0.113.8", false), ("203.0.113.9", true)] {
        let (_, text) = lab.say(&["explain", client]);
        let says = text.contains("answered one of its attacks with status 200");
        assert_eq!(says, answered, "{text}");
    }
    let (_, text) = lab.say(&["report", "--format", "csv"]);
    let classes: Vec<_> = text
        .lines()
        .filter(|line| line.contains("answered-200"))
        .collect();
    assert_eq!(classes.len(), 2, "{text}");
}

#[test]
fn a_success_clears_the_counts_of_every_jail_of_its_class() {
    let mut lab = Lab::new();
    let filter = |class: &str| {
        format!("class = \"{class}\"\n[[match]]\npath = '/a'\n[[clear]]\npath = '/b'\n")
    };
    let mut jails = String::new();
    for (name, class) in [("one", "login"), ("two", "login"), ("three", "other")] {
        std::fs::write(lab.path(&format!("filters.d/{name}.toml")), filter(class)).unwrap();
        jails += &format!("[jails.{name}]\nlog = \"error\"\nmaxretry = 3\n");
    }
    lab.configure(&jails);
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let failed = |lab: &Lab| {
        ["one", "two", "three"].map(|jail| lab.jail(jail)["currently_failed"].as_u64().unwrap())
    };
    let success = LineHit {
        jails: vec![("one".parse().unwrap(), 2, 0)],
        ..hit(3, "203.0.113.9", &[])
    };
    let all = ["one", "two", "three"];
    for (hit, expected) in [
        (hit(1, "203.0.113.9", &all), [1, 1, 1]),
        (hit(2, "203.0.113.8", &all), [2, 2, 2]),
        (success, [1, 1, 2]),
    ] {
        worker.send(&Request::Hits(vec![hit])).unwrap();
        worker.ack().unwrap();
        assert_eq!(failed(&lab), expected);
    }
    // What is cleared stays cleared, and what counts counts.
    lab.kill();
    lab.start();
    assert_eq!(failed(&lab), [1, 1, 2]);
    let (_, text) = lab.say(&["explain", "203.0.113.9"]);
    assert!(
        text.contains("`three`") && !text.contains("`one`"),
        "{text}"
    );
}

#[test]
fn of_many_bans_the_newest_are_shown_and_all_and_json_have_every_one() {
    let lab = Lab::started();
    ban(&lab, 2_345);
    lab.say(&["ban", "198.51.100.7", "--reason", "abuse"]);
    let (_, text) = lab.say(&["status"]);
    assert!(
        text.contains(
            "banned now: 2346 bans (the 50 clients banned last; `--all` shows every one)"
        ),
        "{text}"
    );
    // The last ones, the ban by hand first.
    let clients = |text: &str| -> Vec<String> {
        let is_client = |line: &&str| line.starts_with("203.0.") || line.starts_with("198.51.");
        let clients = text.lines().filter(is_client);
        clients
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    let shown = clients(&text);
    assert_eq!(shown.len(), 50);
    assert!(text.contains("by hand: abuse"), "{text}");
    assert!(shown.contains(&"198.51.100.7".to_owned()));
    let last = Ipv4Addr::from(0xcb00_7100 + 2_344).to_string();
    assert!(shown.contains(&last), "{shown:?}");
    let (_, text) = lab.say(&["status", "--all"]);
    assert_eq!(clients(&text).len(), 2_346);
    let status = lab.status();
    let bans = |jail: &str| {
        let jails = status["jails"].as_array().unwrap();
        let jail = jails.iter().find(|found| found["name"] == jail).unwrap();
        let banned = jail["banned"].as_array().unwrap();
        assert_eq!(jail["currently_banned"], banned.len());
        banned.len()
    };
    assert_eq!((bans("at-once"), bans("manual")), (2_345, 1));
    assert!(status["engine"]["pid"].is_u64() && status["warnings"].is_array());
}

#[test]
fn a_client_banned_by_several_jails_counts_once_among_the_newest() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let hits = (0..51).map(|n| {
        let client = format!("203.0.113.{n}");
        hit(n + 1, &client, &["at-once", "watch"])
    });
    worker.send(&Request::Hits(hits.collect())).unwrap();
    worker.ack().unwrap();
    let (_, text) = lab.say(&["status"]);
    for title in ["banned now", "would be banned (enforce = false)"] {
        let line =
            format!("{title}: 51 bans (the 50 clients banned last; `--all` shows every one)");
        assert!(text.lines().any(|shown| shown == line), "{text}");
    }
    let shown = text.lines().filter(|line| line.starts_with("203.0.113."));
    assert_eq!(shown.count(), 100, "{text}");
}

#[test]
fn clients_that_would_be_banned_are_a_list_of_their_own() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let hits = vec![hit(1, "203.0.113.9", &["watch"])];
    worker.send(&Request::Hits(hits)).unwrap();
    worker.ack().unwrap();
    let watch = lab.jail("watch");
    assert_eq!(
        (&watch["currently_banned"], &watch["currently_observed"]),
        (&0.into(), &1.into())
    );
    for args in [&["status"][..], &["status", "--all"]] {
        let (_, text) = lab.say(args);
        let (banned, observed) = text
            .split_once("would be banned (enforce = false):")
            .unwrap();
        assert!(banned.contains("banned now: 0"), "{text}");
        assert!(observed.contains("203.0.113.9 "), "{text}");
    }
}

#[test]
fn without_syslog_and_without_a_problem_there_is_no_alarm() {
    let mut lab = Lab::new();
    let dir = lab.dir.path().display();
    let text = format!(
        "[paths]\nruntime = \"{dir}/run\"\nstate = \"{dir}/state\"\nshare = \"{dir}/share\"\n\
         [firewall]\nbackend = \"dry-run\"\n\
         [syslog]\ntarget = \"none\"\nlog_file = \"{dir}/pipeban.log\"\n{JAILS}"
    );
    std::fs::write(lab.path("pipeban.toml"), text).unwrap();
    lab.start();
    ban(&lab, 1);
    let (worker, _) = Line::worker(&lab.socket(), 8).unwrap();
    until("it is logged", || lab.log().contains("] Ban 203.0.113.0"));
    let warnings = lab.status()["warnings"].as_array().unwrap().clone();
    // This machine's Apache, if any, is not pipeban's.
    let ours = warnings
        .iter()
        .filter(|text| !text.to_string().contains("/apache2/"));
    assert_eq!(ours.count(), 0, "{warnings:?}");
    drop(worker);
}

#[test]
fn on_a_terminal_the_engine_prints_its_log_lines() {
    let mut lab = Lab::new();
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = lab.command(&["engine"]);
    command.stdin(Stdio::null()).stderr(terminal.slave);
    lab.engine = Some(command.spawn().unwrap());
    drop(command);
    until("the engine listens", || {
        UnixStream::connect(lab.socket()).is_ok()
    });
    ban(&lab, 1);
    lab.stop();
    // Until the last process has closed it.
    let mut said = Vec::new();
    let mut terminal = std::fs::File::from(terminal.master);
    let mut buffer = [0; 4_096];
    while let Ok(length @ 1..) = std::io::Read::read(&mut terminal, &mut buffer) {
        said.extend_from_slice(&buffer[..length]);
    }
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("[at-once] Ban 203.0.113.0 "), "{said}");
    assert!(said.contains("pipeban stops; bans stay in force"), "{said}");
}

#[test]
fn a_log_of_which_no_line_can_be_read_is_an_alarm() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let mut counters = Counters {
        lines: 100,
        unparsed: 100,
        matching: true,
        ..Counters::default()
    };
    let warnings = || lab.status()["warnings"].to_string();
    worker.send(&Request::Counters(counters)).unwrap();
    until("the alarm", || {
        warnings().contains("none of 100 lines of the error log /var/log/apache2/error.log")
    });
    (counters.lines, counters.matched) = (101, 1);
    worker.send(&Request::Counters(counters)).unwrap();
    until("it is over", || !warnings().contains("none of 100 lines"));
}

#[test]
fn attacks_through_a_proxy_of_this_network_are_an_alarm_with_the_remedy() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let warnings = || lab.status()["warnings"].to_string();
    for (offset, client, shared) in [
        (1, "10.1.2.3", false),
        (2, "172.17.0.1", true),
        (3, "127.0.0.1", true),
        (4, "::1", true),
        (5, "fd00::7", true),
        (6, "100.64.3.4", true),
        (7, "169.254.7.7", false),
    ] {
        if shared {
            let addr = client.parse().unwrap();
            worker.send(&Request::Shared { addr }).unwrap();
        }
        let hits = vec![hit(offset, client, &["at-once"])];
        worker.send(&Request::Hits(hits)).unwrap();
        worker.ack().unwrap();
        let warnings = warnings();
        assert!(warnings.contains(client), "{client}: {warnings}");
        let remedy = warnings.contains("RemoteIPHeader");
        assert_eq!(remedy, shared, "{client}: {warnings}");
    }
    // What the worker counts may show only after the last attack that many browsers use it.
    let addr = "169.254.7.7".parse().unwrap();
    worker.send(&Request::Shared { addr }).unwrap();
    until("the remedy", || {
        let warnings = warnings();
        warnings.contains("169.254.7.7") && warnings.contains("RemoteIPHeader")
    });
}

#[test]
fn a_name_of_a_host_is_not_looked_up() {
    let lab = Lab::started();
    let (status, said) = lab.say(&["status", "www.example.org"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("give the address"), "{said}");
    let (_, said) = lab.say(&["status", "www"]);
    assert!(!said.contains("address"), "{said}");
}

#[test]
fn several_bans_are_lifted_at_once() {
    let lab = Lab::started();
    ban(&lab, 2);
    let both = ["unban", "203.0.113.0", "203.0.113.1"];
    assert_eq!(lab.say(&both).0, 0);
    assert_eq!(lab.jail("at-once")["currently_banned"], 0);
    assert_eq!(lab.say(&both).0, 1, "there is none");
}

#[test]
fn while_the_engine_does_not_answer_status_says_so() {
    use nix::sys::signal::{Signal, kill};
    let lab = Lab::started();
    let engine = nix::unistd::Pid::from_raw(lab.engine.as_ref().unwrap().id().cast_signed());
    kill(engine, Signal::SIGSTOP).unwrap();
    let mut command = lab.command(&["status"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    kill(engine, Signal::SIGCONT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(said.contains("waiting for the engine"), "{said}");
    assert!(output.status.success(), "{output:?}");
}
