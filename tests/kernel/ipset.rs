//! ipset's sets and the iptables rules that ask them.

use pipeban::config::{Backend, Ports};
use pipeban::firewall::{Entry, Notice, clear_everything};

use super::world::*;

const IPSET: &[&str] = &["/usr/sbin/iptables", "/usr/sbin/ipset"];

/// As the engine does again and again, until the ban is in force again.
fn tend(firewall: &mut pipeban::firewall::Firewall, entry: &Entry) {
    wait_until("it is put back", || {
        firewall.tend();
        firewall.in_force(entry) == Some(true)
    });
}

#[test]
fn a_ban_stops_the_client_and_nobody_else() {
    in_world(IPSET, |world| {
        serve("[::]:80");
        serve("[::]:22");
        serve("[::]:8080");
        serve_udp("0.0.0.0:443");
        let (mut firewall, notices) = start(&only(Backend::Ipset));
        let four = ban(BAD4, web(), 600);
        let six = ban("2001:db8:1:66::/64", web(), 600);
        let mut keep_alive = world.connect(BAD4, at(HOST4, 80)).unwrap();
        assert!(echoes(&mut keep_alive));
        firewall.ban(&[four.clone(), six.clone()]).unwrap();
        for entry in [&four, &six] {
            assert_eq!(firewall.in_force(entry), Some(true));
        }
        assert!(is_cut(&mut keep_alive));
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(world.is_ignored(BAD4, at(HOST4, 443)));
        assert!(world.is_answered(GOOD4, at(HOST4, 443)));
        for (client, server, served) in [
            (BAD6, at(HOST6, 80), false),
            (BESIDE6, at(HOST6, 80), false),
            (GOOD6, at(HOST6, 80), true),
            (GOOD4, at(HOST4, 80), true),
            (BAD4, at(HOST4, 8080), true),
        ] {
            assert!(world.fares(client, server, served), "{client} {server}");
        }
        firewall.unban(&[four.clone(), six]).unwrap();
        assert_eq!(firewall.in_force(&four), Some(false));
        firewall.unban(&[four]).unwrap();
        firewall
            .ban(&[
                ban("198.51.100.64/29", Ports::AllButSsh, 600),
                ban(GOOD4, list(&[8080], &[]), 600),
            ])
            .unwrap();
        for (client, port, served) in [
            (BAD4, 80, false),
            (BAD4, 22, true),
            (GOOD4, 80, true),
            (GOOD4, 8080, false),
        ] {
            assert!(
                world.fares(client, at(HOST4, port), served),
                "{client} {port}"
            );
        }
        assert!(notices.is_empty(), "{:?}", notices.try_recv());
    });
}

#[test]
fn bans_of_any_length_are_taken() {
    in_world(IPSET, |_| {
        let (mut firewall, notices) = start(&only(Backend::Ipset));
        let year = ban(BAD4, web(), 365 * 86_400);
        let for_ever = Entry {
            remaining: None,
            until: None,
            ..ban(GOOD4, web(), 0)
        };
        let over = ban("192.0.2.1", web(), 0);
        firewall
            .ban(&[year.clone(), for_ever.clone(), over.clone()])
            .unwrap();
        let listed = run("ipset list pbv4_32_t80_443_u443");
        assert!(
            listed.contains(&format!("{BAD4} timeout 21474")),
            "{listed}"
        );
        assert!(listed.contains(&format!("{GOOD4} timeout 0")), "{listed}");
        wait_until("a ban without time left ends", || {
            firewall.in_force(&over) == Some(false)
        });
        for entry in [year, for_ever] {
            assert_eq!(firewall.in_force(&entry), Some(true));
        }
        assert!(notices.is_empty(), "{:?}", notices.try_recv());
    });
}

#[test]
fn what_somebody_takes_away_is_put_back() {
    in_world(IPSET, |world| {
        serve("0.0.0.0:80");
        let (mut firewall, notices) = start(&only(Backend::Ipset));
        let entry = ban(BAD4, web(), 600);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        for wipe in [
            "iptables -F pipeban",
            "iptables -D INPUT -j pipeban",
            "nft flush ruleset",
        ] {
            run(wipe);
            assert_eq!(firewall.in_force(&entry), Some(false), "{wipe}");
            tend(&mut firewall, &entry);
            assert!(world.is_refused(BAD4, at(HOST4, 80)), "{wipe}");
            let told: Vec<_> = notices.try_iter().collect();
            assert!(
                matches!(&told[..], [Notice::Event { text }] if text.contains("1 bans")),
                "{wipe}: {told:?}"
            );
        }
        let jumps = run("iptables-save").matches("-j pipeban").count();
        assert_eq!(jumps, 1);
    });
}

#[test]
fn while_iptables_fails_it_is_tried_again_and_the_trouble_lasts_until_it_worked() {
    in_world(IPSET, |world| {
        serve("0.0.0.0:80");
        let (mut firewall, notices) = start(&only(Backend::Ipset));
        let entry = ban(BAD4, web(), 600);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        let files = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize("/usr/sbin/iptables-save").unwrap();
        let (copy, failing) = (files.path().join("copy"), files.path().join("failing"));
        std::fs::copy(&real, &copy).unwrap();
        for fails in ["save", "restore"] {
            let script = format!(
                "#!/bin/bash\ncase $0 in *-{fails}) exit 4;; esac\nexec -a \"$0\" {} \"$@\"\n",
                copy.display()
            );
            std::fs::write(&failing, script).unwrap();
            run(&format!("chmod 755 {}", failing.display()));
            run(&format!(
                "mount --bind {} {}",
                failing.display(),
                real.display()
            ));
            run("nft flush ruleset");
            let mut told = Vec::new();
            wait_until("it is told", || {
                firewall.tend();
                told.extend(notices.try_iter());
                !told.is_empty()
            });
            // Nothing has changed since, and nothing has been mended.
            for _ in 0..20 {
                firewall.tend();
            }
            told.extend(notices.try_iter());
            assert!(matches!(&told[..], [Notice::Trouble { .. }]), "{told:?}");
            run(&format!("umount {}", real.display()));
            tend(&mut firewall, &entry);
            assert!(world.is_refused(BAD4, at(HOST4, 80)), "{fails}");
            wait_until("it is over", || {
                firewall.tend();
                let over = |notice| matches!(notice, Notice::Over { .. });
                notices.try_iter().any(over)
            });
        }
    });
}

#[test]
fn what_a_process_before_has_left_stays_until_all_bans_are_known() {
    in_world(IPSET, |world| {
        for port in [80, 8080] {
            serve(&format!("0.0.0.0:{port}"));
        }
        let left = ban(BAD4, web(), 600);
        let (mut first, _) = start(&only(Backend::Ipset));
        first.ban(std::slice::from_ref(&left)).unwrap();
        drop(first);
        // Without a database it knows of none.
        let (mut second, notices) = start(&only(Backend::Ipset));
        let same_ports = ban(GOOD4, web(), 600);
        let others = ban(GOOD4, list(&[8080], &[]), 600);
        second.ban(&[same_ports.clone(), others.clone()]).unwrap();
        run("iptables -D INPUT -j pipeban");
        tend(&mut second, &others);
        for entry in [&left, &same_ports, &others] {
            assert_eq!(second.in_force(entry), Some(true), "{entry:?}");
        }
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(world.is_served(BAD4, at(HOST4, 8080)));
        exactly(&mut second, std::slice::from_ref(&others));
        assert!(world.is_served(BAD4, at(HOST4, 80)));
        assert_eq!(run("ipset list -n"), "pbv4_32_t8080\n");
        let told: Vec<_> = notices.try_iter().collect();
        assert!(matches!(&told[..], [Notice::Event { .. }]), "{told:?}");
    });
}

#[test]
fn a_host_that_ceases_to_be_a_router_keeps_nothing_of_one() {
    in_world(IPSET, |_| {
        let forwarding = |on: &str| std::fs::write("/proc/sys/net/ipv4/ip_forward", on).unwrap();
        forwarding("1");
        let (mut firewall, notices) = start(&only(Backend::Ipset));
        let (one, other) = (ban(BAD4, web(), 600), ban(GOOD4, list(&[8080], &[]), 600));
        exactly(&mut firewall, &[one.clone(), other.clone()]);
        assert!(run("iptables-save").contains("-A pipeban-dnat"));
        forwarding("0");
        exactly(&mut firewall, std::slice::from_ref(&other));
        assert!(!run("iptables-save").contains("-A pipeban-dnat"));
        assert_eq!(firewall.in_force(&other), Some(true));
        assert_eq!(run("ipset list -n"), "pbv4_32_t8080\n");
        assert!(notices.is_empty(), "{:?}", notices.try_recv());
    });
}

#[test]
fn a_restart_drops_what_is_stale_and_the_end_leaves_nothing() {
    in_world(IPSET, |world| {
        serve("0.0.0.0:80");
        run("ipset create foreign hash:ip");
        run("iptables -A INPUT -p tcp --dport 9 -j DROP");
        let (kept, stale) = (ban(BAD4, web(), 600), ban(GOOD4, web(), 600));
        let other = ban(GOOD4, list(&[8080], &[]), 600);
        let (mut first, _) = start(&only(Backend::Ipset));
        first.ban(&[kept.clone(), stale.clone(), other]).unwrap();
        drop(first);
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        let (mut second, notices) = start(&only(Backend::Ipset));
        exactly(&mut second, std::slice::from_ref(&kept));
        assert_eq!(second.in_force(&kept), Some(true));
        assert_eq!(second.in_force(&stale), Some(false));
        assert_eq!(run("ipset list -n"), "foreign\npbv4_32_t80_443_u443\n");
        assert!(notices.is_empty(), "{:?}", notices.try_recv());
        assert_eq!(clear_everything(&pipeban::config::Paths::default()), Ok(0));
        assert!(world.is_served(BAD4, at(HOST4, 80)));
        let left = run("iptables-save");
        assert!(
            !left.contains("pipeban") && left.contains("--dport 9"),
            "{left}"
        );
        assert_eq!(run("ipset list -n"), "foreign\n");
    });
}

#[test]
fn a_port_that_a_container_publishes_is_closed_by_its_outer_number() {
    in_world(IPSET, |world| {
        let _container = world.container(|| serve("10.9.0.2:80"));
        run("nft add table ip nat");
        run("nft add chain ip nat pre { type nat hook prerouting priority -100 ; }");
        run("nft add rule ip nat pre ip daddr 198.51.100.1 tcp dport 8080 dnat to 10.9.0.2:80");
        let (mut firewall, _notices) = start(&only(Backend::Ipset));
        firewall.ban(&[ban(BAD4, web(), 600)]).unwrap();
        assert!(world.is_served(BAD4, at(HOST4, 8080)));
        firewall.ban(&[ban(BAD4, list(&[8080], &[]), 600)]).unwrap();
        assert!(world.is_refused(BAD4, at(HOST4, 8080)));
        assert!(world.is_served(GOOD4, at(HOST4, 8080)));
    });
}
