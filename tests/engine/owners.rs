//! A client that several jails ban is one element in the kernel: it leaves with the last of them.

use super::*;
use crate::kernel::world::{BAD4, HOST4, World, at, in_world, serve, wait_until};

const TWO: &str = "
[jails.first]
log = \"error\"
filter = \"f\"
maxretry = 1
bantime = \"2h\"
[jails.second]
log = \"error\"
filter = \"f\"
maxretry = 1
bantime = \"1h\"
[jails.elsewhere]
log = \"error\"
filter = \"f\"
maxretry = 1
port = [\"8080\"]
";

const FIREWALL: &str = "backend = \"nftables\"";

/// Seconds that the client's one element has left; `None`: there is none, and the client is served.
#[track_caller]
fn left(world: &World) -> Option<u64> {
    let held = held();
    assert_eq!(
        held.contains_key(BAD4),
        world.is_refused(BAD4, at(HOST4, 80)),
        "{held:?}"
    );
    held.get(BAD4).map(|left| left.expect("not for ever"))
}

fn banned_by_two(ask: impl FnOnce(&World, &mut Lab) + Send + 'static) {
    in_world(&[], |world| {
        serve(&format!("{HOST4}:80"));
        let mut lab = Lab::new();
        lab.configure_with(FIREWALL, TWO);
        lab.start();
        let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
        let hits = Request::Hits(vec![hit(1, BAD4, &["first", "second"])]);
        worker.send(&hits).unwrap();
        worker.ack().unwrap();
        assert_eq!(held().len(), 1);
        assert!(left(world) > Some(3_600));
        ask(world, &mut lab);
    });
}

#[test]
fn a_ban_lifted_in_one_jail_stays_in_force_by_another() {
    banned_by_two(|world, lab| {
        assert_eq!(lab.say(&["unban", BAD4, "--jail", "first"]).0, 0);
        assert!(left(world).is_some_and(|left| left <= 3_600));
        assert_eq!(lab.banned("first").len(), 0);
        assert!(lab.banned("second")[BAD4]);
        // the other way round, and over a restart
        assert_eq!(lab.say(&["ban", BAD4, "--jail", "first"]).0, 0);
        assert!(left(world) > Some(3_600));
        assert_eq!(lab.say(&["unban", BAD4, "--jail", "second"]).0, 0);
        lab.kill();
        lab.start();
        assert!(lab.banned("first")[BAD4]);
        assert!(left(world) > Some(3_600));
        assert_eq!(lab.say(&["unban", BAD4, "--jail", "first"]).0, 0);
        assert_eq!(left(world), None);
    });
}

#[test]
fn a_ban_that_ends_in_one_jail_stays_in_force_by_another() {
    banned_by_two(|world, lab| {
        for (short, long) in [("first", "second"), ("second", "first")] {
            let (exit, text) = lab.say(&["ban", BAD4, "--jail", short, "--for", "2"]);
            assert_eq!(exit, 0, "{text}");
            wait_until("its time is over", || lab.banned(short).is_empty());
            assert!(lab.banned(long)[BAD4]);
            assert!(left(world).is_some());
            assert_eq!(lab.say(&["ban", BAD4, "--jail", short]).0, 0);
        }
        // both at once: nothing is left behind
        for jail in ["first", "second"] {
            assert_eq!(lab.say(&["ban", BAD4, "--jail", jail, "--for", "2"]).0, 0);
        }
        wait_until("both are over", || held().is_empty());
        for jail in ["first", "second"] {
            wait_until("the database knows", || lab.stored(jail).is_empty());
        }
        assert_eq!(left(world), None);
    });
}

#[test]
fn bans_of_a_jail_that_a_reload_disables_or_removes_stay_until_their_end() {
    banned_by_two(|world, lab| {
        for without in [
            TWO.replace("[jails.first]", "[jails.first]\nenabled = false"),
            TWO.split("[jails.second]")
                .nth(1)
                .map_or(String::new(), |rest| format!("[jails.second]{rest}")),
        ] {
            lab.configure_with(FIREWALL, &without);
            let (exit, text) = lab.say(&["reload"]);
            assert_eq!(exit, 0, "{text}");
            assert!(lab.banned("first")[BAD4] && lab.banned("second")[BAD4]);
            assert!(left(world) > Some(3_600));
        }
        assert_eq!(lab.say(&["unban", BAD4, "--jail", "first"]).0, 0);
        assert!(left(world).is_some_and(|left| left <= 3_600));
        assert_eq!(lab.say(&["unban", BAD4, "--jail", "second"]).0, 0);
        assert_eq!(left(world), None);
    });
}

#[test]
fn bans_of_two_port_lists_end_independently() {
    banned_by_two(|world, lab| {
        serve(&format!("{HOST4}:8080"));
        let elsewhere = || world.is_served(BAD4, at(HOST4, 8080));
        assert!(elsewhere());
        assert_eq!(lab.say(&["ban", BAD4, "--jail", "elsewhere"]).0, 0);
        assert!(world.is_refused(BAD4, at(HOST4, 8080)));
        assert_eq!(lab.say(&["unban", BAD4, "--jail", "elsewhere"]).0, 0);
        assert!(elsewhere());
        assert!(left(world).is_some());
        assert_eq!(lab.say(&["unban", BAD4]).0, 0);
        assert_eq!(left(world), None);
    });
}
