//! Files and names of `ignoreip`: read again when they change, kept when they fail.

use std::fs;
use std::process::Command;

use super::*;
use crate::support::skip;

fn decide(lab: &Lab, worker: &mut Line, offset: u64, client: &str) -> String {
    worker
        .send(&Request::Hits(vec![hit(offset, client, &["at-once"])]))
        .unwrap();
    let logged = worker.ack().unwrap().1.join("\n");
    assert!(!logged.is_empty(), "{}", lab.log());
    logged
}

#[test]
fn a_changed_file_of_ignoreip_is_read_again_and_a_broken_one_changes_nothing() {
    let mut lab = Lab::new();
    let file = lab.path("office.txt");
    fs::write(&file, "# office\n203.0.113.0/28\n").unwrap();
    lab.configure(&format!(
        "[defaults]\nignoreip = [\"{}\"]\n{JAILS}",
        file.display()
    ));
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let logged = decide(&lab, &mut worker, 1, "203.0.113.9");
    assert_eq!(logged, "[at-once] Ignore 203.0.113.9 by ignoreip");
    let logged = decide(&lab, &mut worker, 2, "198.51.100.9");
    assert!(logged.contains("Ban 198.51.100.9"), "{logged}");
    // an address that the file has now is unbanned
    fs::write(&file, "198.51.100.9\n203.0.113.0/28\n").unwrap();
    until("it is read again", || {
        lab.jail("at-once")["currently_banned"] == 0
    });
    // a slip, and no file at all
    for (text, says) in [
        (Some("198.51.100.9/40\n"), "office.txt:1:1"),
        (None, "cannot read it"),
    ] {
        match text {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        until("it is logged", || {
            lab.status()["warnings"].to_string().contains(says)
        });
        let logged = decide(
            &lab,
            &mut worker,
            if text.is_some() { 3 } else { 4 },
            "198.51.100.9",
        );
        assert_eq!(logged, "[at-once] Ignore 198.51.100.9 by ignoreip");
    }
    // a FIFO in its place is waited for by nobody
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    until("it is logged", || {
        lab.status()["warnings"].to_string().contains("not a file")
    });
    let (exit, text) = lab.say(&["reload"]);
    assert!(exit == 78 && text.contains("not a file"), "{exit} {text}");
    fs::remove_file(&file).unwrap();
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
    let logged = decide(&lab, &mut worker, 5, "203.0.113.9");
    assert!(logged.contains("Ban 203.0.113.9"), "{logged}");
}

/// Starts the engine in new namespaces that a script prepares; false: they cannot be created.
pub(super) fn start_apart(lab: &mut Lab, script: &str) -> bool {
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
            skip(&format!("no namespaces here: {status}"));
            return false;
        }
        assert!(start.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

#[test]
fn a_name_of_ignoreip_is_resolved_while_hits_are_decided_and_its_last_answer_counts() {
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
    let logged = decide(&lab, &mut worker, 1, "203.0.113.9");
    assert!(logged.contains("Ban 203.0.113.9"), "{logged}");
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
    // A new engine without a name server: the last answer counts.
    drop(worker);
    lab.kill();
    fs::write(lab.path("hosts"), "127.0.0.1 localhost\n").unwrap();
    assert!(start_apart(&mut lab, script));
    let (mut worker, _) = Line::worker(&lab.socket(), 8).unwrap();
    let logged = decide(&lab, &mut worker, 1, "203.0.113.9");
    assert_eq!(logged, "[at-once] Ignore 203.0.113.9 by ignoreip");
}

#[test]
fn an_address_that_becomes_a_gateway_or_this_hosts_is_unbanned() {
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
        let logged = decide(&lab, &mut worker, offset, client);
        assert!(logged.contains(&format!("Ban {client}")), "{logged}");
    }
    there("route add default via 192.0.2.1");
    there("addr add 203.0.113.5/24 dev d0");
    until("they are let in", || {
        lab.jail("at-once")["currently_banned"] == 1
    });
    let left = &lab.jail("at-once")["banned"][0]["host"];
    assert_eq!(left, "203.0.113.6", "beside this host, and not it");
}
