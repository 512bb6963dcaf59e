//! Apache's deny map as files; what Apache does with it is in `journey`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

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

fn only_deny() -> (Firewall, crossbeam_channel::Receiver<Notice>) {
    start(&only(Backend::Apache))
}

#[test]
fn a_name_stays_until_its_last_ban_ends() {
    in_world(&[], |_| {
        let (mut firewall, notices) = only_deny();
        let direct = ban(BAD4, web(), 600);
        let behind = ban(BAD4, web(), 60).behind();
        let net = ban("198.51.100.66/31", web(), 600);
        firewall
            .ban(&[direct.clone(), behind.clone(), net.clone()])
            .unwrap();
        assert_eq!(names(), [BAD4, "198.51.100.67"]);
        // Apache looks for names that it knows; other users cannot list who is banned.
        let mode = fs::metadata(MAP).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o711);
        for entry in [&direct, &behind, &net] {
            assert_eq!(firewall.in_force(entry), Some(true));
        }
        firewall.unban(&[direct, net]).unwrap();
        assert_eq!(names(), [BAD4]);
        firewall.unban(std::slice::from_ref(&behind)).unwrap();
        assert_eq!(names(), [""; 0]);
        assert_eq!(firewall.in_force(&behind), Some(false));
        firewall.ban(&[ban("2001:db8::/96", web(), 600)]).unwrap();
        let found = notices.try_recv().unwrap();
        assert!(
            matches!(
                found,
                Notice::Trouble {
                    key: "deny-map-wide",
                    ..
                }
            ),
            "{found:?}"
        );
    });
}

#[test]
fn names_that_another_program_removes_or_adds_are_corrected() {
    in_world(&[], |_| {
        let (mut firewall, notices) = only_deny();
        let entry = ban(BAD4, web(), 600);
        firewall.replace(std::iter::empty());
        firewall.ban(std::slice::from_ref(&entry)).unwrap();
        firewall.tend();
        crate::kernel::assert_quiet(&notices);
        // The directory's time has ticks.
        let tick = fs::metadata(MAP).unwrap().modified().unwrap();
        wait_until("the clock has ticked", || {
            fs::write("/run/tick", "").unwrap();
            fs::metadata("/run/tick").unwrap().modified().unwrap() > tick
        });
        fs::remove_file(format!("{MAP}/{BAD4}")).unwrap();
        fs::write(format!("{MAP}/{GOOD4}"), "").unwrap();
        firewall.tend();
        assert_eq!(names(), [BAD4]);
        assert!(matches!(notices.try_recv(), Ok(Notice::Event { .. })));
        fs::remove_dir_all(MAP).unwrap();
        firewall.tend();
        assert_eq!(names(), [BAD4]);
        // A ban restores it too.
        fs::remove_dir_all(MAP).unwrap();
        firewall.ban(&[ban(GOOD4, web(), 600)]).unwrap();
        assert_eq!(names(), [BAD4, GOOD4]);
    });
}

#[test]
fn names_that_are_over_go_without_an_engine() {
    in_world(&[], |_| {
        let (mut firewall, _notices) = only_deny();
        let over = ban(BAD4, web(), 1);
        let permanent = ban(GOOD4, web(), 600).permanent();
        let all = [over, permanent, ban("192.0.2.1", web(), 600)];
        firewall.replace(all.into_iter());
        drop(firewall);
        let paths = Paths::default();
        wait_until("one ban is over", || {
            clear_over(&paths, jiff::Timestamp::now()) == Ok(1)
        });
        assert_eq!(names(), ["192.0.2.1", GOOD4]);
        // A new engine knows better.
        let (mut firewall, _notices) = only_deny();
        firewall.replace([ban(BAD4, web(), 600)].into_iter());
        assert_eq!(names(), [BAD4]);
        clear_everything(&paths).unwrap();
        assert_eq!(names(), [""; 0]);
    });
}
