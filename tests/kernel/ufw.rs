//! The mirror in the real ufw, and ufw alone.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use nix::sys::stat;
use pipeban::config::{self, Ports};
use pipeban::firewall::{Notice, UfwState};
use pipeban::sys::process::hold_lock;

use super::world::*;

const UFW: &[&str] = &["/usr/sbin/ufw", "/usr/sbin/iptables"];

fn enable() {
    run("ufw --force enable");
}

fn added() -> String {
    run("ufw show added")
}

fn present(firewall: &Firewall, entry: &Ban) {
    wait_until("the rule is in ufw", || {
        firewall.ufw(entry) == Some(UfwState::Present)
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
fn ufw_may_come_and_go_and_is_not_missed() {
    in_world(UFW, |world| {
        serve("0.0.0.0:80");
        let (mut firewall, notices) = start(&config::Firewall::default());
        let entry = ban(BAD4, web(), 3600);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        let in_force = |firewall: &mut Firewall| {
            assert_eq!(firewall.in_force(&entry), Some(true));
            assert!(world.is_refused(BAD4, at(HOST4, 80)));
        };
        in_force(&mut firewall);
        enable();
        present(&firewall, &entry);
        assert!(added().contains("198.51.100.66"), "{}", added());
        run("ufw disable");
        wait_until("it is not claimed to be in ufw", || {
            firewall.ufw(&entry).is_none()
        });
        in_force(&mut firewall);
        enable();
        present(&firewall, &entry);
        firewall.finish(PATIENCE);
        crate::kernel::assert_quiet(&notices);
    });
}

#[test]
fn a_rule_for_apaches_ports_follows_apache() {
    in_world(UFW, |_| {
        enable();
        let (mut firewall, _notices) = start(&settings(true, true));
        let entry = ban(BAD4, Ports::Apache, 3600);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        present(&firewall, &entry);
        assert!(added().contains("port 80,443 proto tcp"), "{}", added());
        firewall.apache_ports(&[80, 8443]);
        wait_until("the new ports are in ufw", || {
            let rules = added();
            rules.contains("port 80,443,8443 proto tcp") && !rules.contains("port 80,443 proto tcp")
        });
    });
}

#[test]
fn a_ban_is_seen_in_ufw_and_goes_with_the_unban() {
    in_world(UFW, |world| {
        enable();
        run("ufw allow 80");
        serve("0.0.0.0:80");
        let (mut firewall, notices) = start(&settings(true, true));
        let four = ban(BAD4, web(), 0).until("2099-11-22T12:00:00.5Z");
        let six = ban("2001:db8:1:66::/64", web(), 0).permanent();
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
        assert_eq!(firewall.ufw(&four), None);
        wait_until("the rules are gone", || !added().contains("pipeban:"));
        assert!(added().contains("ufw allow 80"));
        firewall.finish(PATIENCE);
        crate::kernel::assert_quiet(&notices);
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
fn an_inactive_ufw_is_reported_until_it_is_enabled() {
    in_world(UFW, |_| {
        let (mut firewall, notices) = start(&settings(true, true));
        let entry = ban(BAD4, web(), 6000);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        let text = trouble(&notices, "ufw-inactive");
        assert!(text.contains("ufw enable"), "{text}");
        wait_until("status shows it", || {
            firewall.ufw(&entry) == Some(UfwState::Inactive)
        });
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
fn ufw_without_ipv6_is_reported_once() {
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
        wait_until("status shows it", || {
            firewall.ufw(&entries[0]) == Some(UfwState::Inactive)
        });
        assert_eq!(firewall.in_force(&entries[0]), Some(true));
        assert!(!added().contains("2001:db8"));
        firewall.finish(Duration::ZERO);
        crate::kernel::assert_quiet(&notices);
    });
}

#[test]
fn after_a_restart_no_rule_is_added_twice_and_stale_ones_go() {
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
        second.replace([kept.clone()].into_iter());
        wait_until("the stale rules are gone", || {
            added().matches("pipeban:").count() == 2
        });
        assert!(!added().contains(GOOD4));
        // A later end changes the comment, and nothing is there twice.
        let longer = kept.clone().until("2099-01-01T00:00:00.5Z");
        second.ban(std::slice::from_ref(&longer)).unwrap();
        present_with(&second, &longer, "2099-01-01T00:00:00Z");
        assert_eq!(added().matches("pipeban:").count(), 2);
        second.finish(PATIENCE);
        let found: Vec<_> = notices.try_iter().collect();
        assert!(
            matches!(&found[..], [Notice::Event { text }] if text.contains("2 rules of pipeban's")),
            "{found:?}"
        );
    });
}

#[test]
fn a_rule_that_was_deleted_by_hand_is_restored_once() {
    in_world(UFW, |_| {
        enable();
        let (mut firewall, notices) = start(&settings(true, true));
        let entry = ban(BAD4, list(&[80], &[]), 6000);
        let other = ban(GOOD4, list(&[80], &[]), 6000);
        firewall.ban(&[entry.clone(), other.clone()]).unwrap();
        present(&firewall, &entry);
        present(&firewall, &other);
        let delete = "ufw delete deny proto tcp from 198.51.100.66 to any port 80";
        // A rule that goes within a second of pipeban's call is restored without a word: a call of
        // ufw may have written over it. So the test deletes one that is older.
        let deleted = || {
            let mut event = None;
            while event.is_none() {
                wait_until("the rule is there", || added().contains(BAD4));
                std::thread::sleep(Duration::from_millis(1_500));
                run(delete);
                wait_until("the rule is back, or its end is reported", || {
                    event = notices.try_iter().find_map(|notice| match notice {
                        Notice::Event { text } => Some(text),
                        _ => None,
                    });
                    event.is_some() || added().contains(BAD4)
                });
            }
            event.unwrap()
        };
        let text = deleted();
        assert!(
            text.contains("restores") && text.contains("pipeban unban 198.51.100.66"),
            "{text}"
        );
        let text = deleted();
        assert!(text.contains("does not restore it again"), "{text}");
        wait_until("the rule is left out", || {
            firewall.ufw(&entry) == Some(UfwState::Removed)
        });
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
        wait_until("status shows it", || {
            firewall.ufw(&entry) == Some(UfwState::Inactive)
        });
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

fn present_with(firewall: &Firewall, entry: &Ban, end: &str) {
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
        firewall.replace(std::iter::empty());
        firewall.finish(PATIENCE);
        assert!(
            added().contains(&format!("ufw deny {rule}\n")),
            "{}",
            added()
        );
    });
}

#[test]
fn a_flushed_ufw_is_reported_and_bans_stay_in_force() {
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
        firewall.replace(std::iter::empty());
        let bans: Vec<_> = (1..=3)
            .map(|n| ban(&format!("192.0.2.{n}"), list(&[80], &[]), 6000 * n))
            .collect();
        firewall.ban(&bans).unwrap();
        wait_until("one ban has no place", || {
            firewall.ufw(&bans[0]) == Some(UfwState::Capped)
        });
        present(&firewall, &bans[1]);
        present(&firewall, &bans[2]);
        assert_eq!(firewall.in_force(&bans[0]), Some(true));
        firewall.finish(PATIENCE);
        assert_eq!(added().matches("pipeban:").count(), 2);
    });
}

/// Holds ufw's lock until it is dropped.
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

/// The processes that have read ufw's rules and wait for its lock. The kernel lists one twice or
/// not at all while other locks come and go.
fn waiting(lock: &File) -> BTreeSet<u32> {
    let file = lock.metadata().unwrap();
    let (major, minor) = (stat::major(file.dev()), stat::minor(file.dev()));
    let inode = format!(" {major:02x}:{minor:02x}:{} ", file.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let waits = |line: &&str| line.contains("->") && line.contains(&inode);
    let process = |line: &str| line.split_whitespace().nth(5)?.parse().ok();
    locks.lines().filter(waits).filter_map(process).collect()
}

#[test]
fn rules_that_an_administrator_adds_meanwhile_are_all_kept() {
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
            let lock = File::open("/run/ufw.lock").unwrap();
            wait_until("the administrator waits", || {
                waiting(&lock).contains(&administrator.id())
            });
            firewall.ban(std::slice::from_ref(entry)).unwrap();
            firewall.unban(&bans[n - 1..n]).unwrap();
            // A call of pipeban's would read now what the administrator is about to change.
            let end = Instant::now() + Duration::from_secs(2);
            while Instant::now() < end {
                let others = waiting(&lock)
                    .into_iter()
                    .filter(|id| *id != administrator.id());
                assert_eq!(others.count(), 0);
            }
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
        let found: Vec<_> = notices.try_iter().collect();
        assert!(found.is_empty(), "no rule was deleted by hand: {found:?}");
    });
}
