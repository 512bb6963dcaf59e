//! Which open connections of a banned client end, and which live on.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use pipeban::config::Ports;

use super::world::*;

fn lives(stream: &mut TcpStream) -> bool {
    echoes(stream)
}

#[test]
fn a_keep_alive_connection_ends_and_everything_else_lives_on() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        serve("0.0.0.0:22");
        world.as_clients(|| serve(&format!("{BAD4}:80")));
        let mut keep_alive = world.connect(BAD4, at(HOST4, 80)).unwrap();
        let mut ssh = world.connect(BAD4, at(HOST4, 22)).unwrap();
        let mut other = world.connect(GOOD4, at(HOST4, 80)).unwrap();
        let mut outgoing = TcpStream::connect(at(BAD4, 80)).unwrap();
        for stream in [&mut keep_alive, &mut ssh, &mut other, &mut outgoing] {
            assert!(lives(stream));
        }
        let (mut firewall, notices) = table_alone();
        firewall.ban(&[ban(BAD4, web(), 600)]).unwrap();
        assert!(is_cut(&mut keep_alive));
        for stream in [&mut ssh, &mut other, &mut outgoing] {
            assert!(lives(stream));
        }
        crate::kernel::assert_quiet(&notices);
    });
}

#[test]
fn ipv6_and_mapped_ipv4_peers_of_a_dual_stack_listener_are_cut() {
    in_world(&[], |world| {
        serve("[::]:80");
        let (mut firewall, _notices) = table_alone();
        let mut mapped = world.connect(BAD4, at(HOST4, 80)).unwrap();
        let mut six = world.connect(BAD6, at(HOST6, 80)).unwrap();
        let mut beside = world.connect(BESIDE6, at(HOST6, 80)).unwrap();
        let mut good = world.connect(GOOD6, at(HOST6, 80)).unwrap();
        firewall
            .ban(&[ban(BAD4, web(), 600), ban("2001:db8:1:66::/64", web(), 600)])
            .unwrap();
        for stream in [&mut mapped, &mut six, &mut beside] {
            assert!(is_cut(stream));
        }
        assert!(lives(&mut good));
    });
}

#[test]
fn all_ports_cut_what_the_client_opened_and_nothing_else() {
    in_world(&[], |world| {
        for port in [22, 80, 8080] {
            serve(&format!("0.0.0.0:{port}"));
        }
        world.as_clients(|| serve(&format!("{BAD4}:9000")));
        let (mut firewall, _notices) = table_alone();
        let mut ssh = world.connect(BAD4, at(HOST4, 22)).unwrap();
        let mut odd = world.connect(BAD4, at(HOST4, 8080)).unwrap();
        let mut outgoing = TcpStream::connect(at(BAD4, 9000)).unwrap();
        // Both sides have spoken before conntrack is asked for the first time.
        assert!(lives(&mut outgoing) && lives(&mut ssh));
        firewall.ban(&[ban(BAD4, Ports::AllButSsh, 600)]).unwrap();
        assert!(is_cut(&mut odd));
        assert!(lives(&mut ssh));
        assert!(lives(&mut outgoing));
        firewall.ban(&[ban(BAD4, Ports::All, 600)]).unwrap();
        assert!(is_cut(&mut ssh));
        assert!(lives(&mut outgoing));
    });
}

/// Numbers for the note; no claim about them, the machine may be busy.
#[test]
fn costs() {
    in_world(&[], |world| {
        serve("0.0.0.0:80");
        let (mut firewall, _notices) = table_alone();
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        let single = (1..=250)
            .map(|n| {
                let entry = [ban(&format!("192.0.2.{n}"), web(), 600)];
                let start = Instant::now();
                firewall.ban(&entry).unwrap();
                start.elapsed()
            })
            .collect();
        let many: Vec<_> = (0..1_000u32)
            .map(|n| {
                ban(
                    &std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string(),
                    web(),
                    600,
                )
            })
            .collect();
        let start = Instant::now();
        firewall.ban(&many).unwrap();
        let thousand = start.elapsed();
        let start = Instant::now();
        firewall.ban(&many).unwrap();
        let thousand_again = start.elapsed();
        let start = Instant::now();
        firewall.replace(many.iter().cloned());
        let settled = start.elapsed();
        let surroundings = (0..100)
            .map(|_| {
                let start = Instant::now();
                pipeban::firewall::surroundings().unwrap();
                start.elapsed()
            })
            .collect();
        let cut = (0..50)
            .map(|_| {
                let entry = [ban(BAD4, web(), 600)];
                firewall.unban(&entry).unwrap();
                let mut open = world.connect(BAD4, at(HOST4, 80)).unwrap();
                let start = Instant::now();
                firewall.ban(&entry).unwrap();
                assert!(is_cut(&mut open));
                start.elapsed()
            })
            .collect();
        eprintln!(
            "one ban {:?}, a thousand {thousand:?}, again {thousand_again:?}, settled \
             {settled:?}, surroundings {:?}, ban to cut {:?}",
            median(single),
            median(surroundings),
            median(cut),
        );
    });
}
