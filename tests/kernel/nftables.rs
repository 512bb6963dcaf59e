//! pipeban's nftables table: what it stops, for how long, and what happens to it.

use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use pipeban::config::{Backend, Blocktype, Ports};
use pipeban::firewall::Notice;
use pipeban::jail::Moment;

use super::world::*;

#[test]
fn a_ban_stops_the_client_and_nobody_else() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        serve("0.0.0.0:8080");
        serve_udp("0.0.0.0:443");
        serve_udp("0.0.0.0:53");
        let (mut firewall, notices) = table_alone();
        let entry = ban(BAD4, web(), 600);
        assert_eq!(firewall.in_force(&entry), Some(false));
        assert!(world.is_served(BAD4, at(HOST4, 80)));

        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(firewall.in_force(&entry), Some(true));
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(world.is_ignored(BAD4, at(HOST4, 443)));
        assert!(world.is_served(GOOD4, at(HOST4, 80)));
        assert!(world.is_answered(GOOD4, at(HOST4, 443)));
        // Ports that the jail does not close.
        assert!(world.is_served(BAD4, at(HOST4, 8080)));
        assert!(world.is_answered(BAD4, at(HOST4, 53)));

        firewall.unban(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(firewall.in_force(&entry), Some(false));
        assert!(world.is_served(BAD4, at(HOST4, 80)));
        // Once more is no error.
        firewall.unban(&[entry]).unwrap();
        crate::kernel::assert_quiet(&notices);
    });
}

#[test]
fn an_ipv6_network_is_banned_whole_and_no_further() {
    in_world(&[], |world| {
        serve("[::]:80");
        let (mut firewall, _notices) = table_alone();
        let entry = ban("2001:db8:1:66::/64", web(), 600);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(firewall.in_force(&entry), Some(true));
        for (client, served) in [(BAD6, false), (BESIDE6, false), (GOOD6, true)] {
            assert!(world.fares(client, at(HOST6, 80), served), "{client}");
        }
        firewall.unban(&[entry]).unwrap();
        firewall.ban(&[ban(BAD6, web(), 600)]).unwrap();
        for (client, served) in [(BAD6, false), (BESIDE6, true)] {
            assert!(world.fares(client, at(HOST6, 80), served), "{client}");
        }
        // An IPv4 network behind its mask, on a dual-stack listener.
        firewall
            .ban(&[ban("198.51.100.64/29", web(), 600)])
            .unwrap();
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(world.is_served(GOOD4, at(HOST4, 80)));
    });
}

#[test]
fn a_ban_of_apaches_ports_follows_apache() {
    in_world(&[], |world| {
        for port in [80, 8443, 8444, 22] {
            serve(&format!("0.0.0.0:{port}"));
        }
        let (mut firewall, notices) = table_alone();
        let entry = ban(BAD4, Ports::Apache, 600);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(firewall.in_force(&entry), Some(true));
        // What Apache listens on; http and https always; sshd's never.
        for (listening, closed) in [
            (&[][..], &[80][..]),
            (&[8443, 22], &[80, 8443]),
            (&[8444], &[80, 8444]),
        ] {
            firewall.apache_ports(listening);
            assert_eq!(firewall.in_force(&entry), Some(true));
            for port in [80, 8443, 8444, 22] {
                let served = !closed.contains(&port);
                assert!(
                    world.fares(BAD4, at(HOST4, port), served),
                    "{listening:?} {port}"
                );
            }
            assert!(world.is_served(GOOD4, at(HOST4, 8443)));
        }
        // Ports that another program takes out of the set come back.
        run("nft flush set inet pipeban apache_ports");
        firewall.tend();
        assert!(world.is_refused(BAD4, at(HOST4, 8444)));
        let lost = notices.try_iter().any(|notice| matches!(notice, Notice::Event { text } if text.contains("removed ports of Apache")));
        assert!(lost);
    });
}

#[test]
fn two_port_lists_are_two_bans() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        serve("0.0.0.0:8080");
        let (mut firewall, _notices) = table_alone();
        let (first, second) = (ban(BAD4, web(), 600), ban(BAD4, list(&[8080], &[]), 600));
        firewall.ban(&[first.clone(), second.clone()]).unwrap();
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(world.is_refused(BAD4, at(HOST4, 8080)));
        firewall.unban(&[second]).unwrap();
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(world.is_served(BAD4, at(HOST4, 8080)));
        assert_eq!(firewall.in_force(&first), Some(true));
    });
}

#[test]
fn bans_of_all_ports_spare_ssh_and_connections_of_the_host() {
    in_world(&[], |world| {
        for port in [22, 25, 80] {
            serve(&format!("0.0.0.0:{port}"));
        }
        serve_udp("0.0.0.0:5353");
        world.as_clients(|| {
            serve(&format!("{BAD4}:9000"));
            serve_udp(&format!("{BAD4}:9053"));
        });
        let (mut firewall, _notices) = table_alone();
        let calls_out = || {
            let tcp = std::net::TcpStream::connect_timeout(&at(BAD4, 9000), Duration::from_secs(2));
            let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            udp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            udp.send_to(b"x", at(BAD4, 9053)).unwrap();
            tcp.is_ok_and(|mut stream| echoes(&mut stream)) && udp.recv(&mut [0; 9]).is_ok()
        };
        firewall.ban(&[ban(BAD4, Ports::AllButSsh, 600)]).unwrap();
        for (port, served) in [(22, true), (25, false), (80, false)] {
            assert!(world.fares(BAD4, at(HOST4, port), served), "{port}");
        }
        assert!(world.is_ignored(BAD4, at(HOST4, 5353)));
        assert!(world.is_answered(GOOD4, at(HOST4, 5353)));
        assert!(calls_out());
        firewall.ban(&[ban(BAD4, Ports::All, 600)]).unwrap();
        assert!(world.is_refused(BAD4, at(HOST4, 22)));
        assert!(world.is_served(GOOD4, at(HOST4, 22)));
        assert!(calls_out());
    });
}

#[test]
fn a_ban_ends_by_itself_and_a_new_one_of_a_known_client_lasts_longer() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        let (mut firewall, _notices) = table_alone();
        let (short, other) = (ban(BAD4, web(), 4), ban(GOOD4, web(), 4));
        firewall.ban(&[short.clone(), other.clone()]).unwrap();
        assert_eq!(firewall.in_force(&other), Some(true));
        let long = ban(BAD4, web(), 600);
        firewall.ban(std::slice::from_ref(&long)).unwrap();
        wait_until("the short ban ends", || {
            firewall.in_force(&other) == Some(false)
        });
        assert!(world.is_served(GOOD4, at(HOST4, 80)));
        assert_eq!(firewall.in_force(&long), Some(true));
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        // And shorter again: it is the new end that counts.
        firewall.ban(&[ban(BAD4, web(), 1)]).unwrap();
        wait_until("the shortened ban ends", || {
            firewall.in_force(&long) == Some(false)
        });
    });
}

#[test]
fn a_ban_without_time_left_ends_and_a_permanent_one_does_not() {
    in_world(&[], |_| {
        let (mut firewall, _notices) = table_alone();
        let over = ban(BAD4, web(), 0);
        let for_ever = ban(GOOD4, web(), 0).permanent();
        let century = ban("192.0.2.1", web(), 100 * 365 * 86_400);
        let too_far = Ban {
            until: Some(Moment::from_nanos(i64::MAX - 1)),
            ..ban("192.0.2.2", web(), 0)
        };
        firewall
            .ban(&[
                over.clone(),
                for_ever.clone(),
                century.clone(),
                too_far.clone(),
            ])
            .unwrap();
        wait_until("a ban without time left ends", || {
            firewall.in_force(&over) == Some(false)
        });
        for entry in [for_ever, century, too_far] {
            assert_eq!(firewall.in_force(&entry), Some(true), "{entry:?}");
        }
    });
}

#[test]
fn a_thousand_bans_are_one_transaction() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        let (mut firewall, _notices) = table_alone();
        let mut many: Vec<Ban> = (0..2_500u32)
            .map(|n| {
                let address = std::net::Ipv4Addr::from(0x0a00_0000 + n);
                ban(&address.to_string(), web(), 600)
            })
            .collect();
        many.push(ban(BAD4, web(), 600));
        many.extend((0..1_500).map(|n| ban(&format!("2001:db8:2::{n:x}"), web(), 600)));
        firewall.ban(&many).unwrap();
        for entry in [&many[0], &many[2_499], &many[2_500], &many[4_000]] {
            assert_eq!(firewall.in_force(entry), Some(true), "{entry:?}");
        }
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        // All again, and away again: nothing of it is an error.
        firewall.ban(&many).unwrap();
        firewall.unban(&many).unwrap();
        assert_eq!(firewall.in_force(&many[2_500]), Some(false));
        assert!(world.is_served(BAD4, at(HOST4, 80)));
        assert!(!table().contains("expires"), "{}", table());
    });
}

#[test]
fn a_wiped_table_is_restored_whole_at_the_next_ban() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        for wipe in [
            "nft flush ruleset",
            "nft delete table inet pipeban",
            "nft flush chain inet pipeban prerouting",
        ] {
            let (mut firewall, notices) = table_alone();
            let before = ban(BAD4, web(), 600);
            firewall.ban(std::slice::from_ref(&before)).unwrap();
            run(wipe);
            assert_eq!(firewall.in_force(&before), Some(false), "{wipe}");
            assert!(world.is_served(BAD4, at(HOST4, 80)), "{wipe}");
            // Another set than the one that is gone.
            firewall.ban(&[ban("2001:db8::1", web(), 600)]).unwrap();
            firewall.tend();
            assert_eq!(firewall.in_force(&before), Some(true), "{wipe}");
            assert!(world.is_refused(BAD4, at(HOST4, 80)), "{wipe}");
            let found: Vec<_> = notices.try_iter().collect();
            assert!(
                found.iter().any(|notice| matches!(
                    notice,
                    Notice::Event { text } if text.contains("2 bans")
                )),
                "{wipe}: {found:?}"
            );
            run("nft flush ruleset");
        }
    });
}

#[test]
fn foreign_changes_of_the_ruleset_are_no_trouble() {
    in_world(&[], |_| {
        let (mut firewall, notices) = table_alone();
        for n in 1..20 {
            run(&format!("nft add table inet foreign{n}"));
            let entry = ban(&format!("192.0.2.{n}"), web(), 600);
            firewall.ban(std::slice::from_ref(&entry)).unwrap();
            assert_eq!(firewall.in_force(&entry), Some(true));
        }
        assert_eq!(table().matches("drop").count(), 2, "{}", table());
        crate::kernel::assert_quiet(&notices);
    });
}

#[test]
fn a_restart_keeps_bans_in_force_until_all_are_known() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        let (kept, stale) = (ban(BAD4, web(), 600), ban(GOOD4, web(), 600));
        let (mut first, _) = table_alone();
        first.ban(&[kept.clone(), stale.clone()]).unwrap();
        first.finish(Duration::ZERO);

        let (mut second, notices) = table_alone();
        assert_eq!(second.in_force(&kept), Some(true));
        second.ban(std::slice::from_ref(&kept)).unwrap();
        assert_eq!(second.in_force(&stale), Some(true));
        assert_eq!(table().matches("drop").count(), 2, "{}", table());
        second.replace([kept.clone()].into_iter());
        assert_eq!(second.in_force(&kept), Some(true));
        assert_eq!(second.in_force(&stale), Some(false));
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(world.is_served(GOOD4, at(HOST4, 80)));
        crate::kernel::assert_quiet(&notices);
    });
}

#[test]
fn a_replacement_lets_no_packet_through() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        let (mut firewall, _notices) = table_alone();
        let entry = [ban(BAD4, web(), 600)];
        firewall.ban(&entry).unwrap();
        let here = namespace();
        let replacing = std::thread::spawn(move || {
            setns(here, CloneFlags::CLONE_NEWNET).unwrap();
            let end = Instant::now() + Duration::from_secs(1);
            let mut rounds = 0;
            while Instant::now() < end {
                firewall.replace(entry.iter().cloned());
                rounds += 1;
            }
            rounds
        });
        while !replacing.is_finished() {
            assert!(world.is_refused(BAD4, at(HOST4, 80)));
        }
        assert!(replacing.join().unwrap() > 10);
    });
}

#[test]
fn a_foreign_table_of_the_same_name_is_replaced() {
    in_world(&[], |_| {
        run("nft add table inet pipeban");
        run("nft add chain inet pipeban input { type filter hook input priority 5 ; }");
        let (mut firewall, notices) = table_alone();
        let entry = ban(BAD4, web(), 600);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        assert_eq!(firewall.in_force(&entry), Some(true));
        assert!(
            table().contains("hook prerouting priority raw"),
            "{}",
            table()
        );
        crate::kernel::assert_quiet(&notices);
    });
}

#[test]
fn the_table_reads_as_documented() {
    in_world(&[], |_| {
        let (mut firewall, _notices) = table_alone();
        firewall
            .ban(&[
                ban(BAD4, web(), 600),
                ban("2001:db8:1:66::/64", web(), 600),
                ban(BAD4, Ports::AllButSsh, 600),
            ])
            .unwrap();
        let text = table();
        for line in [
            "type filter hook prerouting priority raw; policy accept;",
            "type filter hook input priority filter - 10; policy accept;",
            "tcp dport { 80, 443 } ip saddr @v4_32_t80_443_u443 fib daddr type local drop",
            "udp dport { 443 } ip saddr @v4_32_t80_443_u443 fib daddr type local drop",
            "ip6 saddr & ffff:ffff:ffff:ffff:: == @v6_64_t80_443_u443 fib daddr type local drop",
            "ip saddr @v4_32_n22 ct direction reply accept",
            "tcp dport != { 22 } ip saddr @v4_32_n22 drop",
            "meta l4proto udp ip saddr @v4_32_n22 drop",
        ] {
            assert!(text.contains(line), "`{line}` is not in\n{text}");
        }
    });
}

#[test]
fn a_port_that_a_container_publishes_is_closed_by_its_outer_number() {
    in_world(&[], |world| {
        world.as_clients(|| {
            run("ip route add 10.9.0.0/24 via 198.51.100.1");
            serve(&format!("{BAD4}:80"));
        });
        let (mut firewall, notices) = table_alone();
        // As Docker does it, while the engine runs: port 8080 here is port 80 there.
        let container = world.container(|| serve("10.9.0.2:80"));
        run("nft add table ip nat");
        run("nft add chain ip nat pre { type nat hook prerouting priority -100 ; }");
        run("nft add rule ip nat pre ip daddr 198.51.100.1 tcp dport 8080 dnat to 10.9.0.2:80");
        let calls_out = || {
            container.run(|| {
                let stream = std::net::TcpStream::connect_timeout(&at(BAD4, 80), PATIENCE);
                stream.is_ok_and(|mut stream| echoes(&mut stream))
            })
        };
        assert!(world.is_served(BAD4, at(HOST4, 8080)));
        firewall.tend();

        let outer = ban(BAD4, list(&[8080], &[]), 600);
        firewall.ban(std::slice::from_ref(&outer)).unwrap();
        assert_eq!(firewall.in_force(&outer), Some(true));
        assert!(world.is_refused(BAD4, at(HOST4, 8080)));
        assert!(world.is_served(GOOD4, at(HOST4, 8080)));
        // What is routed past this host is none of its ports.
        assert!(world.is_served(BAD4, at("10.9.0.2", 80)));

        // The container's own number means nothing to a client, nor to the container's calls.
        firewall.unban(&[outer]).unwrap();
        firewall.ban(&[ban(BAD4, web(), 600)]).unwrap();
        assert!(world.is_served(BAD4, at(HOST4, 8080)));
        assert!(calls_out());
        firewall.ban(&[ban(BAD4, Ports::AllButSsh, 600)]).unwrap();
        assert!(world.is_refused(BAD4, at(HOST4, 8080)));
        assert!(calls_out());
        crate::kernel::assert_quiet(&notices);
    });
}

#[test]
fn rejected_clients_get_an_answer_at_once() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        serve_udp("0.0.0.0:443");
        serve("[::]:443");
        let mut settings = only(Backend::Nftables);
        settings.blocktype = Blocktype::Reject;
        let (mut firewall, notices) = start(&settings);
        let bans = [ban(BAD4, web(), 600), ban("2001:db8:1:66::/64", web(), 600)];
        firewall.ban(&bans).unwrap();
        for (client, server) in [(BAD4, at(HOST4, 80)), (BAD6, at(HOST6, 443))] {
            let error = world.connect(client, server).unwrap_err();
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionRefused,
                "{client}"
            );
        }
        assert!(world.is_ignored(BAD4, at(HOST4, 443)));
        let text = table();
        for line in [
            "ip saddr @v4_32_t80_443_u443 reject with tcp reset",
            "udp dport { 443 } ip saddr @v4_32_t80_443_u443 reject\n",
        ] {
            assert!(text.contains(line), "`{line}` is not in\n{text}");
        }
        crate::kernel::assert_quiet(&notices);
    });
}

#[test]
fn a_set_that_another_program_empties_is_restored() {
    in_world(&[], |_| {
        let (mut firewall, notices) = table_alone();
        let bans: Vec<Ban> = (0..2_500u32)
            .map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string())
            .map(|address| ban(&address, web(), 600))
            .chain([ban("2001:db8::/64", web(), 600)])
            .collect();
        firewall.ban(&bans).unwrap();
        firewall.tend();
        for set in ["v4_32_t80_443_u443", "v6_64_t80_443_u443"] {
            run(&format!("nft flush set inet pipeban {set}"));
            firewall.tend();
            let found: Vec<_> = notices.try_iter().collect();
            assert!(
                matches!(&found[..], [Notice::Event { text }]
                    if text.contains(set) && text.contains("2501 bans")),
                "{found:?}"
            );
            for entry in [&bans[7], &bans[2_499], &bans[2_500]] {
                assert_eq!(firewall.in_force(entry), Some(true), "{entry:?}");
            }
        }
    });
}

/// Entries of this thread's network namespace in the table of conntrack.
fn tracked(address: &str) -> usize {
    let all = std::fs::read_to_string("/proc/net/nf_conntrack").unwrap_or_default();
    all.lines().filter(|line| line.contains(address)).count()
}

/// Counts the packets of the bad client for which conntrack made an entry.
fn track() {
    run("nft add table inet track");
    run("nft add chain inet track pre { type filter hook prerouting priority -200 ; }");
    run("nft add counter inet track news");
    run("nft add rule inet track pre ip saddr 198.51.100.66 ct state new counter name news");
}

#[test]
fn a_packet_of_a_banned_client_never_reaches_conntrack() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        track();
        let (mut firewall, _notices) = table_alone();
        let seen = || {
            let counter = run("nft list counter inet track news");
            let packets = counter.split("packets ").nth(1).unwrap();
            packets.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        assert!(world.is_served(BAD4, at(HOST4, 80)));
        assert!(seen() > 0);
        firewall.ban(&[ban(BAD4, web(), 600)]).unwrap();
        let (before, entries) = (seen(), tracked(BAD4));
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert_eq!((seen(), tracked(BAD4)), (before, entries));
    });
}

#[test]
fn clients_that_this_host_routes_keep_their_connections() {
    in_world(&[], |world| {
        // A gateway: clients on one side, servers on the other.
        world.as_clients(|| run("ip route add 10.9.0.0/24 via 198.51.100.1"));
        let _servers = world.container(|| {
            serve("10.9.0.2:80");
            serve("10.9.0.2:8080");
        });
        for port in [80, 8080] {
            serve(&format!("0.0.0.0:{port}"));
        }
        let (mut firewall, _notices) = table_alone();
        let mut through = world.connect(BAD4, at("10.9.0.2", 80)).unwrap();
        let all = [ban(BAD4, web(), 600), ban(BAD4, list(&[8080], &[]), 600)];
        firewall.ban(&all).unwrap();
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert!(echoes(&mut through));
        assert!(world.is_served(BAD4, at("10.9.0.2", 80)));
        // Every address of the host is closed, on whatever side.
        assert!(world.is_refused(BAD4, at("10.9.0.1", 8080)));
        firewall.ban(&[ban(BAD4, Ports::All, 600)]).unwrap();
        assert!(echoes(&mut through));
        assert!(world.is_served(BAD4, at("10.9.0.2", 8080)));
    });
}

#[test]
fn a_banned_client_browses_through_a_gateway_that_hides_it() {
    in_world(&[], |world| {
        world.as_clients(|| run("ip route add 10.9.0.0/24 via 198.51.100.1"));
        let servers = world.container(|| serve("10.9.0.2:80"));
        // Servers see the gateway's address only.
        servers.run(|| run("ip route del default"));
        run("nft add table ip nat");
        run("nft add chain ip nat post { type nat hook postrouting priority 100 ; }");
        run("nft add rule ip nat post oifname outside0 masquerade");
        serve("0.0.0.0:80");
        let (mut firewall, _notices) = table_alone();
        for ports in [web(), Ports::AllButSsh, Ports::All] {
            firewall.ban(&[ban(BAD4, ports, 600)]).unwrap();
            assert!(world.is_refused(BAD4, at(HOST4, 80)));
            assert!(world.is_served(BAD4, at("10.9.0.2", 80)));
        }
    });
}

#[test]
fn the_host_reaches_a_banned_address() {
    in_world(&[], |world| {
        for address in [BAD4, BAD6] {
            world.as_clients(move || serve(&std::net::SocketAddr::to_string(&at(address, 80))));
        }
        serve("[::]:80");
        let (mut firewall, _notices) = table_alone();
        for ports in [web(), Ports::AllButSsh, Ports::All] {
            let mut open: Vec<_> = [BAD4, BAD6]
                .map(|to| std::net::TcpStream::connect(at(to, 80)).unwrap())
                .into();
            let bans = [ban(BAD4, ports.clone(), 600), ban(BAD6, ports.clone(), 600)];
            firewall.ban(&bans).unwrap();
            for (from, host) in [(BAD4, HOST4), (BAD6, HOST6)] {
                assert!(world.is_refused(from, at(host, 80)), "{ports:?} {from}");
                let new = std::net::TcpStream::connect_timeout(&at(from, 80), PATIENCE);
                open.push(new.unwrap());
            }
            for stream in &mut open {
                assert!(echoes(stream), "{ports:?}");
            }
        }
    });
}

#[test]
fn a_dry_run_touches_nothing() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        let mut settings = settings(true, true);
        settings.backend = vec![Backend::DryRun];
        let (mut firewall, _notices) = start(&settings);
        let entry = ban(BAD4, web(), 600);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        firewall.replace([entry.clone()].into_iter());
        assert_eq!(firewall.in_force(&entry), None);
        assert_eq!(firewall.ufw(&entry), None);
        assert!(world.is_served(BAD4, at(HOST4, 80)));
        assert_eq!(run("nft list tables"), "");
        firewall.unban(&[entry]).unwrap();
    });
}
