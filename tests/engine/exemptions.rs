//! Who is ignored by files, by names, by logins: read again when they change, kept when they fail.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

fn decide(lab: &Lab, worker: &mut Line, offset: u64, client: &str) -> String {
    worker
        .send(&Request::Hits(vec![hit(offset, client, &["at-once"])]))
        .unwrap();
    let told = worker.ack().unwrap().1.join("\n");
    assert!(!told.is_empty(), "{}", lab.log());
    told
}

#[test]
fn a_file_of_ignoreip_is_read_again_and_one_that_breaks_un_ignores_nobody() {
    let mut lab = Lab::new();
    let file = lab.path("office.txt");
    fs::write(&file, "# office\n203.0.113.0/28\n").unwrap();
    lab.configure(&format!(
        "[defaults]\nignoreip = [\"{}\"]\n{JAILS}",
        file.display()
    ));
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let told = decide(&lab, &mut worker, 1, "203.0.113.9");
    assert_eq!(told, "[at-once] Ignore 203.0.113.9 by ignoreip");
    let told = decide(&lab, &mut worker, 2, "198.51.100.9");
    assert!(told.contains("Ban 198.51.100.9"), "{told}");
    // who stands in it now is let in again
    fs::write(&file, "198.51.100.9\n203.0.113.0/28\n").unwrap();
    until("it is read again", || {
        lab.jail("at-once")["currently_banned"] == 0
    });
    // a slip, and no file at all
    for (text, says) in [
        (Some("198.51.100.9/40\n"), "office.txt:1:1"),
        (None, "cannot be read"),
    ] {
        match text {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        until("it is told", || {
            lab.status()["warnings"].to_string().contains(says)
        });
        let told = decide(
            &lab,
            &mut worker,
            if text.is_some() { 3 } else { 4 },
            "198.51.100.9",
        );
        assert_eq!(told, "[at-once] Ignore 198.51.100.9 by ignoreip");
    }
    // and a start or reload with it is refused, with the place where it is named
    let (exit, text) = lab.say(&["reload"]);
    assert_eq!(exit, 78);
    assert!(text.contains("`ignoreip` names"), "{text}");
    fs::write(&file, "203.0.113.77\n").unwrap();
    until("it is over", || {
        !lab.status()["warnings"]
            .to_string()
            .contains("files of `ignoreip`")
    });
    let told = decide(&lab, &mut worker, 5, "203.0.113.9");
    assert!(told.contains("Ban 203.0.113.9"), "{told}");
}

/// Starts the engine in namespaces of its own, made ready by a script; false: that cannot be.
fn start_apart(lab: &mut Lab, script: &str) -> bool {
    let engine = Command::new("unshare")
        .args([
            "--mount", "--net", "sh", "-c", script, "sh", PIPEBAN, "--config",
        ])
        .args([lab.path("pipeban.toml"), "engine".into()])
        .current_dir(lab.path(""))
        .spawn();
    lab.engine = Some(engine.unwrap());
    let start = Instant::now();
    while UnixStream::connect(lab.socket()).is_err() {
        if let Some(status) = lab.engine.as_mut().unwrap().try_wait().unwrap() {
            eprintln!("SKIPPED: no namespaces ({status})");
            return false;
        }
        assert!(start.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

#[test]
fn a_name_is_looked_up_beside_and_a_resolver_that_hangs_keeps_nobody_waiting() {
    let mut lab = Lab::new();
    lab.configure(&format!(
        "[defaults]\nignoreip = [\"office.test\"]\n{JAILS}"
    ));
    fs::write(lab.path("hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::write(lab.path("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    // Packets to the name server vanish.
    let script = "ip link set lo up && ip link add d0 type veth peer name d1 && ip link set d1 up \
                  && ip addr add 192.0.2.2/24 dev d0 && ip link set d0 up && mount --bind hosts /etc/hosts \
                  && mount --bind resolv.conf /etc/resolv.conf && exec \"$@\"";
    if !start_apart(&mut lab, script) {
        return;
    }
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let told = decide(&lab, &mut worker, 1, "203.0.113.9");
    assert!(told.contains("Ban 203.0.113.9"), "{told}");
    fs::write(lab.path("hosts"), "203.0.113.9 office.test\n").unwrap();
    until("the name is known", || {
        lab.say(&["reload"]);
        std::thread::sleep(Duration::from_millis(200));
        lab.jail("at-once")["currently_banned"] == 0
    });
    until("it is kept", || {
        let kept = fs::read_to_string(lab.path("state/names.json")).unwrap_or_default();
        kept.contains("203.0.113.9")
    });
    // Another engine, and nobody answers any more: what was known still counts.
    drop(worker);
    lab.kill();
    fs::write(lab.path("hosts"), "127.0.0.1 localhost\n").unwrap();
    assert!(start_apart(&mut lab, script));
    let (mut worker, _) = Line::worker(&lab.socket(), 8).unwrap();
    let told = decide(&lab, &mut worker, 1, "203.0.113.9");
    assert_eq!(told, "[at-once] Ignore 203.0.113.9 by ignoreip");
}

/// Makes a wtmp of logins: address, and seconds ago.
fn wtmp(lab: &Lab, logins: &[(&str, i64)]) {
    let now = jiff::Timestamp::now();
    let lines: String = logins
        .iter()
        .map(|(addr, ago)| {
            let at = now - jiff::SignedDuration::from_secs(*ago);
            let time = at.strftime("%Y-%m-%dT%H:%M:%S,000000+00:00");
            format!(
                "[7] [00900] [ts/0] [alice   ] [pts/0       ] [{addr:<20}] [{addr:<15}] [{time}]\n"
            )
        })
        .collect();
    let file = fs::File::create(lab.path("wtmp.new")).unwrap();
    let mut dump = Command::new("utmpdump")
        .arg("-r")
        .stdin(Stdio::piped())
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    dump.stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    assert!(dump.wait().unwrap().success());
    fs::rename(lab.path("wtmp.new"), lab.path("wtmp")).unwrap();
}

#[test]
fn where_somebody_logged_in_by_ssh_nobody_is_banned_for_a_while() {
    let mut lab = Lab::new();
    lab.configure(&format!("[defaults]\nignore_ssh_logins = \"7d\"\n{JAILS}"));
    wtmp(&lab, &[("203.0.113.5", 3_600), ("203.0.113.6", 8 * 86_400)]);
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let mut offset = 0;
    until("the logins are read", || {
        offset += 1;
        let told = decide(&lab, &mut worker, offset, "203.0.113.5");
        lab.say(&["unban", "203.0.113.5"]);
        told == "[at-once] Ignore 203.0.113.5 by ssh-login"
    });
    let told = decide(&lab, &mut worker, offset + 1, "203.0.113.6");
    assert!(told.contains("Ban 203.0.113.6"), "{told}");
    // who gets in afterwards is let in
    wtmp(&lab, &[("203.0.113.5", 3_600), ("203.0.113.6", 1)]);
    until("it is read again", || {
        lab.jail("at-once")["currently_banned"] == 0
    });
    let (exit, text) = lab.say(&["ban", "203.0.113.6"]);
    assert_eq!(exit, 2);
    assert!(text.contains("logged in by ssh"), "{text}");
}

#[test]
fn who_becomes_a_gateway_or_this_host_is_let_in_again() {
    let mut lab = Lab::new();
    let script = "ip link set lo up && ip link add d0 type veth peer name d1 && ip link set d1 up \
                  && ip addr add 192.0.2.2/24 dev d0 && ip link set d0 up && exec \"$@\"";
    if !start_apart(&mut lab, script) {
        return;
    }
    let process = lab.engine.as_ref().unwrap().id().to_string();
    let there = |line: &str| {
        let words = line.split(' ');
        let status = Command::new("nsenter")
            .args(["--net", "--target", &process, "ip"])
            .args(words)
            .status();
        assert!(status.unwrap().success(), "{line}");
    };
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let clients = ["192.0.2.1", "203.0.113.5", "203.0.113.6"];
    for (offset, client) in (1..).zip(clients) {
        let told = decide(&lab, &mut worker, offset, client);
        assert!(told.contains(&format!("Ban {client}")), "{told}");
    }
    there("route add default via 192.0.2.1");
    there("addr add 203.0.113.5/24 dev d0");
    until("they are let in", || {
        lab.jail("at-once")["currently_banned"] == 1
    });
    let left = &lab.jail("at-once")["banned"][0]["host"];
    assert_eq!(left, "203.0.113.6", "beside this host, and not it");
}
