//! The mirror in the real ufw, and ufw alone.

use std::fs::File;
use std::time::Duration;

use crossbeam_channel::Receiver;
use pipeban::config::Ports;
use pipeban::firewall::{Firewall, Mirror, Notice};
use pipeban::sys::process::hold_lock;

use super::world::*;

const UFW: &[&str] = &["/usr/sbin/ufw", "/usr/sbin/iptables"];

fn enable() {
    run("ufw --force enable");
}

fn added() -> String {
    run("ufw show added")
}

fn present(firewall: &Firewall, entry: &pipeban::firewall::Entry) {
    wait_until("the rule is in ufw", || {
        firewall.mirror(entry) == Some(Mirror::Present)
    });
}

/// Waits for a trouble of that key; its text.
fn trouble(notices: &Receiver<Notice>, key: &str) -> String {
    loop {
        match notices.recv_timeout(PATIENCE).expect(key) {
            Notice::Trouble { key: found, text } if found == key => return text,
            _ => {}
        }
    }
}

#[test]
fn a_ban_is_seen_in_ufw_and_goes_with_the_unban() {
    in_world(UFW, |world| {
        enable();
        run("ufw allow 80");
        serve("0.0.0.0:80");
        let (mut firewall, notices) = start(&settings(true, true));
        let mut four = ban(BAD4, web(), 6000);
        four.until = Some("2099-11-22T12:00:00.5Z".parse().unwrap());
        let mut six = ban("2001:db8:1:66::/64", web(), 6000);
        six.until = None;
        firewall.ban(&[four.clone(), six.clone()]).unwrap();
        // In force at once; ufw's turn comes later.
        assert_eq!(firewall.in_force(&four), Some(true));
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        present(&firewall, &four);
        present(&firewall, &six);
        let text = added();
        for line in [
            "ufw deny from 198.51.100.66 to any port 80,443 proto tcp comment \
             'pipeban:test until 2099-11-22T12:00:00Z'",
            "ufw deny from 198.51.100.66 to any port 443 proto udp comment \
             'pipeban:test until 2099-11-22T12:00:00Z'",
            "ufw deny from 2001:db8:1:66::/64 to any port 80,443 proto tcp comment \
             'pipeban:test until further notice'",
        ] {
            assert!(text.contains(line), "`{line}` is not in\n{text}");
        }
        let status = run("ufw status numbered");
        assert!(
            status.find("198.51.100.66") < status.find("ALLOW"),
            "{status}"
        );
        firewall.unban(&[four.clone(), six]).unwrap();
        assert_eq!(firewall.mirror(&four), None);
        wait_until("the rules are gone", || !added().contains("pipeban:"));
        assert!(added().contains("ufw allow 80"));
        firewall.finish(PATIENCE);
        assert!(notices.is_empty(), "{:?}", notices.try_recv());
    });
}

#[test]
fn ufw_alone_enforces_too() {
    in_world(UFW, |world| {
        enable();
        run("ufw allow 80");
        run("ufw allow 22");
        for port in [22, 80] {
            serve(&format!("0.0.0.0:{port}"));
        }
        let (mut firewall, _notices) = start(&settings(false, true));
        let entry = ban(BAD4, web(), 6000);
        assert_eq!(firewall.in_force(&entry), Some(false));
        let mut keep_alive = world.connect(BAD4, at(HOST4, 80)).unwrap();
        let mut ssh = world.connect(BAD4, at(HOST4, 22)).unwrap();
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        wait_until("the rule is in the kernel", || {
            firewall.in_force(&entry) == Some(true)
        });
        assert!(is_cut(&mut keep_alive));
        assert!(echoes(&mut ssh));
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(world.is_served(GOOD4, at(HOST4, 80)));
        assert!(!run("nft list tables").contains("pipeban"));
        // What `ufw status` still lists and the kernel does not hold, is not in force.
        run("iptables -F ufw-user-input");
        wait_until("the flush is seen", || {
            firewall.in_force(&entry) == Some(false)
        });
        firewall.unban(&[entry]).unwrap();
        let all = ban(BAD4, Ports::AllButSsh, 6000);
        run("ufw reload");
        firewall.ban(std::slice::from_ref(&all)).unwrap();
        wait_until("ports around ssh's are closed", || {
            firewall.in_force(&all) == Some(true)
        });
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(world.is_served(BAD4, at(HOST4, 22)));
        firewall.finish(Duration::ZERO);
    });
}

#[test]
fn an_inactive_ufw_is_told_and_noticed_when_it_is_enabled() {
    in_world(UFW, |_| {
        let (mut firewall, notices) = start(&settings(true, true));
        let entry = ban(BAD4, web(), 6000);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        let text = trouble(&notices, "ufw-inactive");
        assert!(text.contains("ufw enable"), "{text}");
        assert_eq!(firewall.mirror(&entry), Some(Mirror::Inactive));
        assert_eq!(firewall.in_force(&entry), Some(true));
        assert!(!added().contains("pipeban:"), "{}", added());
        enable();
        present(&firewall, &entry);
        assert_eq!(
            notices.recv_timeout(PATIENCE),
            Ok(Notice::Over {
                key: "ufw-inactive"
            })
        );
        firewall.finish(Duration::ZERO);
    });
}

#[test]
fn ufw_without_ipv6_is_told_once() {
    in_world(UFW, |_| {
        let defaults = std::fs::read_to_string("/etc/default/ufw").unwrap();
        let without = defaults.replace("IPV6=yes", "IPV6=no");
        std::fs::write("/etc/default/ufw", without).unwrap();
        enable();
        let (mut firewall, notices) = start(&settings(true, true));
        let entries = [
            ban("2001:db8::1", web(), 6000),
            ban("2001:db8::2", web(), 6000),
            ban(BAD4, web(), 6000),
        ];
        firewall.ban(&entries).unwrap();
        let text = trouble(&notices, "ufw-ipv6");
        assert!(text.contains("IPV6=yes"), "{text}");
        present(&firewall, &entries[2]);
        assert_eq!(firewall.mirror(&entries[0]), Some(Mirror::Inactive));
        assert_eq!(firewall.in_force(&entries[0]), Some(true));
        assert!(!added().contains("2001:db8"));
        firewall.finish(Duration::ZERO);
        assert!(notices.is_empty(), "{:?}", notices.try_recv());
    });
}

#[test]
fn after_a_restart_rules_are_not_added_twice_and_stale_ones_go_when_settled() {
    in_world(UFW, |_| {
        enable();
        let (kept, stale) = (ban(BAD4, web(), 6000), ban(GOOD4, web(), 6000));
        let (mut first, _) = start(&settings(true, true));
        first.ban(&[kept.clone(), stale.clone()]).unwrap();
        first.finish(PATIENCE);
        assert_eq!(added().matches("pipeban:").count(), 4);

        let (mut second, notices) = start(&settings(true, true));
        second.ban(std::slice::from_ref(&kept)).unwrap();
        present(&second, &kept);
        assert_eq!(added().matches("pipeban:").count(), 4);
        exactly(&mut second, std::slice::from_ref(&kept));
        wait_until("the stale rules are gone", || {
            added().matches("pipeban:").count() == 2
        });
        assert!(!added().contains(GOOD4));
        // A later end changes the comment, and nothing is there twice.
        let mut longer = kept.clone();
        longer.until = Some("2099-01-01T00:00:00Z".parse().unwrap());
        second.ban(std::slice::from_ref(&longer)).unwrap();
        present_with(&second, &longer, "2099-01-01T00:00:00Z");
        assert_eq!(added().matches("pipeban:").count(), 2);
        second.finish(PATIENCE);
        let told: Vec<_> = notices.try_iter().collect();
        assert!(
            matches!(&told[..], [Notice::Event { text }] if text.contains("2 rules of pipeban's")),
            "{told:?}"
        );
    });
}

#[test]
fn a_rule_that_was_deleted_by_hand_comes_back_once() {
    in_world(UFW, |_| {
        enable();
        let (mut firewall, notices) = start(&settings(true, true));
        let entry = ban(BAD4, list(&[80], &[]), 6000);
        let other = ban(GOOD4, list(&[80], &[]), 6000);
        firewall.ban(&[entry.clone(), other.clone()]).unwrap();
        present(&firewall, &entry);
        present(&firewall, &other);
        let told = || match notices.recv_timeout(PATIENCE) {
            Ok(Notice::Event { text }) => text,
            other => panic!("{other:?}"),
        };
        let delete = "ufw delete deny proto tcp from 198.51.100.66 to any port 80";
        // What goes within the second after our call is put back without a word.
        let seen = || std::thread::sleep(Duration::from_secs(3));
        seen();
        run(delete);
        let text = told();
        assert!(
            text.contains("put back") && text.contains("pipeban unban 198.51.100.66"),
            "{text}"
        );
        wait_until("the rule is back", || added().contains(BAD4));
        seen();
        run(delete);
        let text = told();
        assert!(text.contains("left out"), "{text}");
        assert_eq!(firewall.mirror(&entry), Some(Mirror::Removed));
        assert_eq!(firewall.in_force(&entry), Some(true));
        present(&firewall, &other);
        firewall.finish(PATIENCE);
        assert!(!added().contains(BAD4));
    });
}

#[test]
fn after_ufw_reset_the_mirror_is_filled_again_when_ufw_is_enabled() {
    in_world(UFW, |_| {
        enable();
        let (mut firewall, notices) = start(&settings(true, true));
        let entry = ban(BAD4, web(), 6000);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        present(&firewall, &entry);
        run("ufw --force reset");
        trouble(&notices, "ufw-inactive");
        assert_eq!(firewall.in_force(&entry), Some(true));
        assert_eq!(firewall.mirror(&entry), Some(Mirror::Inactive));
        enable();
        present(&firewall, &entry);
        assert_eq!(added().matches("pipeban:").count(), 2);
        firewall.finish(Duration::ZERO);
        let events: Vec<_> = notices
            .try_iter()
            .filter(|notice| matches!(notice, Notice::Event { .. }))
            .collect();
        assert!(events.is_empty(), "nothing was deleted by hand: {events:?}");
    });
}

fn present_with(firewall: &Firewall, entry: &pipeban::firewall::Entry, end: &str) {
    wait_until("the comment is the new one", || {
        added().matches(end).count() == 2
    });
    present(firewall, entry);
}

#[test]
fn the_administrators_own_rule_of_the_same_words_stays() {
    in_world(UFW, |_| {
        enable();
        let rule = "from 198.51.100.66 to any port 8080 proto tcp";
        run(&format!("ufw deny {rule}"));
        let (mut firewall, _notices) = start(&settings(true, true));
        let entry = ban(BAD4, list(&[8080], &[]), 6000);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        present(&firewall, &entry);
        firewall.unban(&[entry]).unwrap();
        exactly(&mut firewall, &[]);
        firewall.finish(PATIENCE);
        assert!(
            added().contains(&format!("ufw deny {rule}\n")),
            "{}",
            added()
        );
    });
}

#[test]
fn a_flushed_ufw_is_told_and_the_ban_is_in_force_all_the_same() {
    in_world(UFW, |_| {
        enable();
        let (mut firewall, notices) = start(&settings(true, true));
        let first = ban(GOOD4, web(), 6000);
        firewall.ban(std::slice::from_ref(&first)).unwrap();
        present(&firewall, &first);
        run("nft flush ruleset");
        let entry = ban(BAD4, web(), 6000);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(firewall.in_force(&entry), Some(true));
        assert_eq!(firewall.in_force(&first), Some(true));
        let text = trouble(&notices, "ufw-inactive");
        assert!(text.contains("ufw reload"), "{text}");
        firewall.finish(Duration::ZERO);
    });
}

#[test]
fn no_more_rules_than_configured() {
    in_world(UFW, |_| {
        enable();
        let mut settings = settings(true, true);
        settings.max_rules = 2;
        let (mut firewall, _notices) = start(&settings);
        exactly(&mut firewall, &[]);
        let bans: Vec<_> = (1..=3)
            .map(|n| ban(&format!("192.0.2.{n}"), list(&[80], &[]), 6000 * n))
            .collect();
        firewall.ban(&bans).unwrap();
        assert_eq!(firewall.mirror(&bans[0]), Some(Mirror::Capped));
        present(&firewall, &bans[1]);
        present(&firewall, &bans[2]);
        assert_eq!(firewall.in_force(&bans[0]), Some(true));
        firewall.finish(PATIENCE);
        assert_eq!(added().matches("pipeban:").count(), 2);
    });
}

/// Somebody who has ufw's lock until he is dropped.
struct Holder(std::process::Child);

impl Holder {
    fn new() -> Holder {
        let mut command = std::process::Command::new("sleep");
        command.arg("1000");
        hold_lock(&mut command, File::create("/run/ufw.lock").unwrap());
        Holder(command.spawn().unwrap())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The process has read ufw's rules, and waits for its lock.
fn waits(process: u32) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let who = process.to_string();
    locks
        .lines()
        .any(|line| line.contains("->") && line.split_whitespace().any(|word| word == who))
}

#[test]
fn rules_that_an_administrator_makes_meanwhile_are_all_kept() {
    in_world(UFW, |_| {
        enable();
        let (mut firewall, notices) = start(&settings(true, true));
        let bans: Vec<_> = (1..=4)
            .map(|n| ban(&format!("192.0.2.{n}"), list(&[80], &[]), 6000))
            .collect();
        firewall.ban(&bans[..1]).unwrap();
        present(&firewall, &bans[0]);
        for (n, entry) in bans.iter().enumerate().skip(1) {
            let holder = Holder::new();
            // A rule without an address would be there once more, for IPv6.
            let rule = format!("allow from {GOOD4} to any port 200{n} proto tcp");
            let mut administrator = std::process::Command::new("ufw")
                .args(rule.split(' '))
                .spawn()
                .unwrap();
            wait_until("the administrator waits", || waits(administrator.id()));
            firewall.ban(std::slice::from_ref(entry)).unwrap();
            firewall.unban(&bans[n - 1..n]).unwrap();
            // Our call would have read by now what the administrator is about to change.
            std::thread::sleep(Duration::from_secs(2));
            drop(holder);
            assert!(administrator.wait().unwrap().success());
            present(&firewall, entry);
        }
        wait_until("what is over is gone", || {
            added().matches("pipeban:").count() == 1
        });
        let text = added();
        for n in 1..bans.len() {
            let rule = format!("ufw allow from {GOOD4} to any port 200{n} proto tcp\n");
            assert!(text.contains(&rule), "`{rule}` is lost:\n{text}");
        }
        firewall.finish(PATIENCE);
        let told: Vec<_> = notices.try_iter().collect();
        assert!(told.is_empty(), "nobody deleted anything: {told:?}");
    });
}
