//! Apache's deny map as files; what Apache makes of it is in `journey`.

use std::fs;

use pipeban::config::{Backend, Paths};
use pipeban::firewall::{Notice, clear_everything, clear_over};

use super::world::*;

const MAP: &str = "/run/pipeban/deny";

fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(MAP)
        .map(|files| {
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            names.collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

fn only_deny() -> (
    pipeban::firewall::Firewall,
    crossbeam_channel::Receiver<Notice>,
) {
    start(&only(Backend::Apache))
}

#[test]
fn a_name_stays_until_its_last_ban_ends() {
    in_world(&[], |_| {
        let (mut firewall, notices) = only_deny();
        let direct = ban(BAD4, web(), 600);
        let mut behind = ban(BAD4, web(), 60);
        behind.behind = true;
        let net = ban("198.51.100.66/31", web(), 600);
        firewall
            .ban(&[direct.clone(), behind.clone(), net.clone()])
            .unwrap();
        assert_eq!(names(), [BAD4, "198.51.100.67"]);
        for entry in [&direct, &behind, &net] {
            assert_eq!(firewall.in_force(entry), Some(true));
        }
        firewall.unban(&[direct, net]).unwrap();
        assert_eq!(names(), [BAD4]);
        firewall.unban(std::slice::from_ref(&behind)).unwrap();
        assert_eq!(names(), [""; 0]);
        assert_eq!(firewall.in_force(&behind), Some(false));
        firewall.ban(&[ban("2001:db8::/96", web(), 600)]).unwrap();
        let told = notices.try_recv().unwrap();
        assert!(
            matches!(
                told,
                Notice::Trouble {
                    key: "deny-map-wide",
                    ..
                }
            ),
            "{told:?}"
        );
    });
}

#[test]
fn what_somebody_takes_out_or_puts_in_is_put_right() {
    in_world(&[], |_| {
        let (mut firewall, notices) = only_deny();
        let entry = ban(BAD4, web(), 600);
        exactly(&mut firewall, &[]);
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        firewall.tend();
        assert!(notices.is_empty(), "{:?}", notices.try_recv());
        // The directory's time has ticks.
        std::thread::sleep(std::time::Duration::from_millis(50));
        fs::remove_file(format!("{MAP}/{BAD4}")).unwrap();
        fs::write(format!("{MAP}/{GOOD4}"), "").unwrap();
        firewall.tend();
        assert_eq!(names(), [BAD4]);
        assert!(matches!(notices.try_recv(), Ok(Notice::Event { .. })));
        fs::remove_dir_all(MAP).unwrap();
        firewall.tend();
        assert_eq!(names(), [BAD4]);
        // Also without waiting for that.
        fs::remove_dir_all(MAP).unwrap();
        firewall.ban(&[ban(GOOD4, web(), 600)]).unwrap();
        assert_eq!(names(), [BAD4, GOOD4]);
    });
}

#[test]
fn what_is_over_goes_without_an_engine() {
    in_world(&[], |_| {
        let (mut firewall, _notices) = only_deny();
        let mut over = ban(BAD4, web(), 600);
        over.until = Some("2020-01-01T00:00:00Z".parse().unwrap());
        let mut for_ever = ban(GOOD4, web(), 600);
        for_ever.until = None;
        exactly(
            &mut firewall,
            &[over, for_ever, ban("192.0.2.1", web(), 600)],
        );
        drop(firewall);
        let paths = Paths::default();
        assert_eq!(clear_over(&paths, jiff::Timestamp::now()), Ok(1));
        assert_eq!(names(), ["192.0.2.1", GOOD4]);
        // A new engine knows better.
        let (mut firewall, _notices) = only_deny();
        exactly(&mut firewall, &[ban(BAD4, web(), 600)]);
        assert_eq!(names(), [BAD4]);
        clear_everything(&paths).unwrap();
        assert_eq!(names(), [""; 0]);
    });
}
