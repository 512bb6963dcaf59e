//! `on_ban` and `on_unban`: what runs, when, with which arguments, and what is logged when it fails.

use super::*;

/// Writes an executable script; its path.
fn script(lab: &Lab, name: &str, text: &str) -> String {
    let path = lab.path(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// A script that notes its words, in brackets, a line a call.
fn noting(lab: &Lab) -> String {
    let notes = lab.path("notes").display().to_string();
    script(
        lab,
        "note",
        &format!("(for word in \"$@\"; do printf '<%s>' \"$word\"; done; echo) >>{notes}"),
    )
}

fn notes(lab: &Lab) -> Vec<String> {
    let text = std::fs::read_to_string(lab.path("notes")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn until_noted(lab: &Lab, expected: &[&str]) {
    until("noted", || notes(lab).len() >= expected.len());
    assert_eq!(notes(lab), expected);
}

fn ban(worker: &mut Line, offset: u64, client: &str, jail: &str) {
    worker
        .send(&Request::Hits(vec![hit(offset, client, &[jail])]))
        .unwrap();
    worker.ack().unwrap();
}

/// A zombie has no words any more.
fn is_running(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| !words.is_empty())
}

#[test]
fn hooks_run_for_bans_by_hits_and_by_hand_and_for_their_ends() {
    let mut lab = Lab::new();
    let note = noting(&lab);
    lab.configure(&format!(
        "[defaults]\nincrement = {{ multipliers = [1, 60] }}\n\
         on_ban = [\"{note}\", \"ban {{jail}}\", \"{{host}}\", \"{{family}}\", \"{{seconds}}\", \"{{failures}}\", \"$(id)* `{{id}}`;\"]\n\
         on_unban = [\"{note}\", \"unban {{jail}}\", \"{{net}}\", \"{{seconds}}\", \"{{id}}\"]\n\
         {JAILS}[jails.short]\nlog = \"error\"\nfilter = \"f\"\nmaxretry = 1\nbantime = 1\n\
         [jails.quiet]\nlog = \"error\"\nfilter = \"f\"\nmaxretry = 1\non_ban = []\non_unban = []\n"
    ));
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    ban(&mut worker, 1, "203.0.113.9", "short");
    let first = [
        "<ban short><203.0.113.9><4><1><1><$(id)* `b1`;>",
        "<unban short><203.0.113.9/32><1><b1>",
    ];
    until_noted(&lab, &first);
    // Neither jail has a hook.
    ban(&mut worker, 2, "203.0.113.10", "quiet");
    ban(&mut worker, 3, "203.0.113.10", "watch");
    // The second ban is longer.
    ban(&mut worker, 4, "203.0.113.9", "short");
    // What the firewall cannot do, a hook may.
    let mut behind = hit(5, "203.0.113.12", &["at-once"]);
    behind.peer = Some("192.0.2.7".parse().unwrap());
    worker.send(&Request::Hits(vec![behind])).unwrap();
    worker.ack().unwrap();
    lab.say(&[
        "ban",
        "2001:db8:7::/64",
        "--for",
        "permanent",
        "--reason",
        "$(id);`id`",
    ]);
    lab.say(&["unban", "--all"]);
    let mut all = first.to_vec();
    all.extend([
        "<ban short><203.0.113.9><4><60><1><$(id)* `b4`;>",
        "<ban at-once><203.0.113.12><4><3600><1><$(id)* `b5`;>",
        "<ban manual><2001:db8:7::/64><6><0><0><$(id)* `b6`;>",
        "<unban short><203.0.113.9/32><60><b4>",
        "<unban at-once><203.0.113.12/32><3600><b5>",
        "<unban manual><2001:db8:7::/64><0><b6>",
    ]);
    until_noted(&lab, &all);
    assert!(!lab.status()["warnings"].to_string().contains("hooks"));
}

#[test]
fn neither_a_restart_nor_the_emergency_stop_runs_hooks() {
    let mut lab = Lab::new();
    let note = noting(&lab);
    let jails = format!(
        "[defaults]\non_ban = [\"{note}\", \"ban\", \"{{host}}\"]\n\
         on_unban = [\"{note}\", \"unban\", \"{{host}}\", \"{{until}}\"]\n{JAILS}"
    );
    lab.configure(&jails);
    lab.start();
    lab.say(&["ban", "203.0.113.9", "--for", "1d"]);
    lab.say(&["ban", "203.0.113.10", "--for", "2s"]);
    let first = ["<ban><203.0.113.9>", "<ban><203.0.113.10>"];
    until_noted(&lab, &first);
    lab.say(&["off"]);
    lab.say(&["on"]);
    lab.kill();
    let ended = Instant::now();
    while ended.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(50));
    }
    lab.start();
    // What ended meanwhile has ended.
    until("the end is logged", || notes(&lab).len() > 2);
    let last = notes(&lab).pop().unwrap();
    assert!(last.starts_with("<unban><203.0.113.10><20"), "{last}");
    until("it is logged", || {
        lab.log().contains("Restore Ban 203.0.113.9")
    });
    lab.say(&["unban", "203.0.113.9"]);
    until("and this one", || notes(&lab).len() > 3);
    let all = notes(&lab);
    assert_eq!(all.len(), 4, "{all:?}");
}

#[test]
fn an_import_that_replaces_a_ban_runs_no_on_unban() {
    let mut lab = Lab::new();
    let note = noting(&lab);
    lab.configure(&format!(
        "[defaults]\non_ban = [\"{note}\", \"ban\", \"{{host}}\", \"{{id}}\"]\n\
         on_unban = [\"{note}\", \"unban\", \"{{host}}\", \"{{id}}\"]\n{JAILS}"
    ));
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let mut behind = hit(1, "203.0.113.12", &["at-once"]);
    behind.peer = Some("192.0.2.7".parse().unwrap());
    worker.send(&Request::Hits(vec![behind])).unwrap();
    worker.ack().unwrap();
    std::fs::write(lab.path("list"), "203.0.113.12\n").unwrap();
    let list = lab.path("list").display().to_string();
    let (exit, said) = lab.say(&["import", &list, "--jail", "at-once"]);
    assert_eq!(exit, 0, "{said}");
    // The ban of the client behind the proxy has gone for one of packets.
    until("it is logged", || {
        let log = lab.log();
        log.contains("Unban 203.0.113.12 (replaced by a new ban)")
            && log.contains("Restore Ban 203.0.113.12\n")
    });
    lab.say(&["unban", "203.0.113.12"]);
    until_noted(
        &lab,
        &["<ban><203.0.113.12><b1>", "<unban><203.0.113.12><b2>"],
    );
}

#[test]
fn a_hook_that_hangs_delays_neither_bans_nor_the_end_of_the_engine() {
    let mut lab = Lab::new();
    let hang = script(
        &lab,
        "hang",
        &format!(
            "trap '' TERM; (sleep 1477; touch {0}/late) & echo $! >{0}/child; sleep 1477",
            lab.dir.path().display()
        ),
    );
    let jails = |timeout: &str| {
        format!("[defaults]\non_ban = [\"{hang}\"]\nhook_timeout = \"{timeout}\"\n{JAILS}")
    };
    lab.configure(&jails("5m"));
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    for n in 1..=20 {
        ban(&mut worker, n, &format!("203.0.113.{n}"), "at-once");
    }
    // All are banned and acknowledged while the first hook hangs.
    assert_eq!(lab.jail("at-once")["currently_banned"], 20);
    let file = lab.path("child");
    let child = || -> Option<u32> {
        let pid = std::fs::read_to_string(&file).ok()?;
        pid.trim().parse().ok()
    };
    until("it runs", || child().is_some_and(is_running));
    let running = child().unwrap();
    lab.stop();
    until("it is gone with its child", || !is_running(running));
    until("it is logged", || {
        lab.log()
            .contains("pipeban stops: 20 hooks were not started or did not finish")
    });
    // A short time-out ends it, which is logged once.
    lab.configure(&jails("1s"));
    lab.start();
    std::fs::remove_file(&file).unwrap();
    lab.say(&["ban", "198.51.100.1"]);
    until("it is logged", || {
        lab.log().contains("no end after 1 s, killed")
    });
    until("it is gone", || {
        child().is_some_and(|child| !is_running(child))
    });
    let warnings = lab.status()["warnings"].to_string();
    assert!(
        warnings.contains("[manual] on_ban for 198.51.100.1:"),
        "{warnings}"
    );
}

#[test]
fn a_hook_that_fails_is_logged_once_with_its_output_escaped() {
    let mut lab = Lab::new();
    let broken = lab.path("broken").display().to_string();
    let fails = script(
        &lab,
        "fails",
        &format!("[ -e {broken} ] || exit 0; printf 'no \\033[31mroute' >&2; exit 7"),
    );
    std::fs::write(&broken, "").unwrap();
    lab.configure(&format!("[defaults]\non_ban = [\"{fails}\"]\n{JAILS}"));
    lab.start();
    for n in 1..=5 {
        lab.say(&["ban", &format!("203.0.113.{n}")]);
    }
    let said = format!("on_ban for 203.0.113.1: {fails}: exit status: 7: no \\x1b[31mroute");
    until("it is logged", || lab.log().contains(&said));
    std::fs::remove_file(&broken).unwrap();
    lab.say(&["ban", "203.0.113.6"]);
    until("it is over", || lab.log().contains("over: hooks fail"));
    assert_eq!(lab.log().matches("hooks fail").count(), 2, "{}", lab.log());
    assert!(!lab.status()["warnings"].to_string().contains("hooks"));
}

#[test]
fn too_many_bans_in_a_minute_are_in_force_without_log_lines_and_hooks() {
    let mut lab = Lab::new();
    let note = noting(&lab);
    lab.configure(&format!(
        "[defaults]\non_ban = [\"{note}\", \"{{host}}\"]\nbans_per_minute = 3\n{JAILS}"
    ));
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let hits = (1..=20u64).map(|n| hit(n, &format!("203.0.113.{n}"), &["at-once"]));
    worker.send(&Request::Hits(hits.collect())).unwrap();
    worker.ack().unwrap();
    assert_eq!(lab.jail("at-once")["currently_banned"], 20);
    // A ban by hand is always logged, and comes after those.
    lab.say(&["ban", "198.51.100.1"]);
    until_noted(
        &lab,
        &[
            "<203.0.113.1>",
            "<203.0.113.2>",
            "<203.0.113.3>",
            "<198.51.100.1>",
        ],
    );
    until("that one is logged", || {
        lab.log().contains("[manual] Ban 198.51.100.1")
    });
    assert_eq!(lab.log().matches("[at-once] Ban ").count(), 3);
}

#[test]
fn hooks_that_do_not_fit_the_queue_are_counted_until_it_is_empty() {
    let mut lab = Lab::new();
    let gate = lab.path("gate").display().to_string();
    let begun = lab.path("begun").display().to_string();
    let waits = script(
        &lab,
        "waits",
        &format!("touch {begun}; while [ ! -e {gate} ]; do sleep 0.05; done"),
    );
    lab.configure(&format!(
        "[defaults]\nbans_per_minute = 10000\non_ban = [\"{waits}\"]\n{JAILS}"
    ));
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    ban(&mut worker, 1, "198.51.100.1", "at-once");
    until("the first runs", || Path::new(&begun).exists());
    let client = |n: u64| format!("203.0.{}.{}", 100 + n / 250, 1 + n % 250);
    let hits = (2..=1_009u64).map(|n| hit(n, &client(n), &["at-once"]));
    worker.send(&Request::Hits(hits.collect())).unwrap();
    worker.ack().unwrap();
    until("the loss is logged", || {
        lab.log().contains("1000 wait, 8 were dropped")
    });
    std::fs::write(&gate, "").unwrap();
    until("the loss is over", || {
        lab.log().contains("over: hooks are slower than bans")
    });
}

#[test]
fn an_error_in_a_hook_names_its_place_in_the_file() {
    let lab = Lab::new();
    for (line, place, said) in [
        ("on_ban = [\"hook\"]", 11, "begins with `/`"),
        ("on_ban = \"/bin/true {host}\"", 10, "expected a list"),
        (
            "on_ban = [\"/bin/true\", \"{tcp}\"]",
            24,
            "{failures}, {id}",
        ),
        ("hook_timeout = \"1h\"", 16, "5 minutes"),
    ] {
        let (exit, text) = checked(&lab, line, place, said);
        assert_eq!(exit, 78, "{line}: {text}");
        assert!(text.contains("1 error in"), "{line}: {text}");
    }
}

/// Checks a configuration with this line, and returns what `check` prints.
fn checked(lab: &Lab, line: &str, place: usize, said: &str) -> (i32, String) {
    lab.configure(&format!("[defaults]\n{line}\n{JAILS}"));
    let before = std::fs::read_to_string(lab.path("pipeban.toml")).unwrap();
    let number = before.lines().position(|l| l == line).unwrap() + 1;
    let (exit, text) = lab.say(&["check"]);
    assert!(
        text.contains(&format!("pipeban.toml:{number}:{place}: ")) && text.contains(said),
        "{line}: {text}"
    );
    (exit, text)
}

#[test]
fn a_hook_that_cannot_be_run_is_a_warning_and_bans_work() {
    let mut lab = Lab::new();
    let fine = noting(&lab);
    let plain = lab.path("plain").display().to_string();
    std::fs::write(&plain, "").unwrap();
    for (line, said) in [
        ("on_unban = [\"/\"]", "which is not a file"),
        (&format!("on_ban = [\"{plain}\"]"), "chmod 755"),
        ("on_ban = [\"/no/such/hook\"]", "which does not exist"),
    ] {
        let (exit, text) = checked(&lab, line, 1, said);
        assert_eq!(exit, 0, "{line}: {text}");
    }
    // Nothing was ever good before.
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    ban(&mut worker, 1, "203.0.113.9", "at-once");
    assert_eq!(lab.jail("at-once")["currently_banned"], 1);
    until("it is logged", || {
        let log = lab.log();
        log.contains("hooks fail") && log.contains("/no/such/hook: No such file")
    });
    // A program that another user may change is a warning.
    lab.configure(&format!(
        "[defaults]\non_ban = [\"{fine}\", \"{{host}}\"]\n{JAILS}"
    ));
    let (exit, text) = lab.say(&["check"]);
    assert!(exit == 0 && !text.contains("as root"), "{text}");
    std::fs::set_permissions(&fine, PermissionsExt::from_mode(0o777)).unwrap();
    let (exit, text) = lab.say(&["check"]);
    assert_eq!(exit, 0, "{text}");
    let expected = format!("runs {fine} as root, and all users can write {fine}: ");
    assert_eq!(text.matches(&expected).count(), 1, "{text}");
    let (_, shown) = lab.say(&["check", "--show", "at-once"]);
    assert!(
        shown.contains(&format!("on_ban = [\"{fine}\", \"{{host}}\"]")),
        "{shown}"
    );
}
