//! A program of the administrator's: here nft itself.

use std::time::Duration;

use pipeban::config::{self, Backend, BanCommand};
use pipeban::firewall::Notice;

use super::world::*;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// The administrator's table, and the program that changes it.
fn nft() -> config::Firewall {
    run("nft add table inet admin");
    run("nft add set inet admin bad { type ipv4_addr ; }");
    run("nft add chain inet admin input { type filter hook input priority 5 ; }");
    run("nft add rule inet admin input ip saddr @bad drop");
    let nft = |what: &str| {
        let change = format!("{what} element inet admin bad {{ {{host}} }}");
        vec!["/usr/sbin/nft".to_owned(), change]
    };
    config::Firewall {
        command: Some(BanCommand {
            ban: nft("add"),
            unban: nft("delete"),
            check: Some(nft("get")),
            timeout: Duration::from_secs(20),
        }),
        ..only(Backend::Command)
    }
}

#[test]
fn the_program_is_run_and_queried() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        let (mut firewall, notices) = start(&nft());
        let entry = ban(BAD4, web(), 600);
        assert_eq!(firewall.in_force(&entry), Some(false));
        let mut keep_alive = world.connect(BAD4, at(HOST4, 80)).unwrap();
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        wait_until("the program has run", || {
            firewall.in_force(&entry) == Some(true)
        });
        assert!(is_cut(&mut keep_alive));
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(world.is_served(GOOD4, at(HOST4, 80)));
        firewall.unban(std::slice::from_ref(&entry)).unwrap();
        wait_until("and again", || firewall.in_force(&entry) == Some(false));
        // All but what is wanted goes; what is there is not done again.
        let other = ban(GOOD4, web(), 600);
        firewall.ban(&[entry.clone(), other.clone()]).unwrap();
        firewall.replace([other.clone()].into_iter());
        wait_until("one of two", || {
            firewall.in_force(&entry) == Some(false) && firewall.in_force(&other) == Some(true)
        });
        firewall.finish(PATIENCE);
        crate::kernel::assert_quiet(&notices);
        // A ban that ended between two engines is lifted by the second, also at its own end.
        let (mut firewall, _) = start(&nft());
        assert_eq!(firewall.in_force(&other), Some(true));
        firewall.left(&other);
        firewall.replace(std::iter::empty());
        firewall.finish(Duration::ZERO);
        let (mut firewall, _) = start(&nft());
        assert_eq!(firewall.in_force(&other), Some(false));
        firewall.finish(PATIENCE);
    });
}

#[test]
fn a_program_that_hangs_is_reported_and_delays_no_other_back_end() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        let mut settings = nft();
        settings.backend = vec![Backend::Nftables, Backend::Command];
        let command = settings.command.as_mut().unwrap();
        command.ban = words("/bin/sleep 1000");
        command.timeout = Duration::from_secs(1);
        command.check = None;
        let (mut firewall, notices) = start(&settings);
        let entry = ban(BAD4, web(), 600);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        let notice = notices.recv_timeout(PATIENCE).unwrap();
        assert!(
            matches!(&notice, Notice::Trouble { key: "command-failed", text }
                if text.contains(BAD4) && text.contains("killed")),
            "{notice:?}"
        );
        assert_eq!(firewall.in_force(&entry), Some(true));
        firewall.finish(Duration::ZERO);
    });
}
