//! A database that cannot be written, that is damaged or gone; and a worker that bans too much.

use super::*;
use crate::kernel::world::{BAD4, in_world};

const FIREWALL: &str = "backend = \"nftables\"";

const LONG_JAILS: &str = "
[jails.day]
log = \"error\"
filter = \"f\"
maxretry = 1
bantime = \"1h\"
[jails.ever]
log = \"error\"
filter = \"f\"
maxretry = 1
bantime = \"permanent\"
";

/// Another process holds the database until this is dropped.
fn lock(lab: &Lab) -> rusqlite::Connection {
    let database = lab.database();
    database.busy_timeout(LONG).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    database
}

fn send(worker: &mut Line, offset: u64, client: &str, jail: &str) {
    let hits = Request::Hits(vec![hit(offset, client, &[jail])]);
    worker.send(&hits).unwrap();
}

#[track_caller]
fn is_not_acknowledged(lab: &Lab, worker: &mut Line) {
    until("the alarm", || {
        let warnings = lab.status()["warnings"].to_string();
        warnings.contains("cannot write the database")
    });
    let soon = Duration::from_millis(300);
    worker.stream.set_read_timeout(Some(soon)).unwrap();
    assert!(worker.receive().is_err());
    worker.stream.set_read_timeout(Some(LONG)).unwrap();
}

#[test]
fn hits_are_acknowledged_when_the_database_has_them_and_bans_do_not_wait() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let held = lock(&lab);
    for n in 1..=3 {
        send(&mut worker, n, &format!("203.0.113.{n}"), "at-once");
    }
    until("banned", || lab.banned("at-once").len() == 3);
    is_not_acknowledged(&lab, &mut worker);
    // An administrator is answered.
    assert_eq!(lab.say(&["unban", "203.0.113.1"]).0, 0);
    // A worker that comes back sends them again, and they count once.
    let (mut worker, known) = Line::worker(&lab.socket(), 7).unwrap();
    assert_eq!(known, None);
    send(&mut worker, 3, "203.0.113.3", "at-once");
    is_not_acknowledged(&lab, &mut worker);
    drop(held);
    assert_eq!(worker.ack().unwrap().0, 3);
    assert_eq!(lab.jail("at-once")["total_failed"], 3);
    until("the alarm is over", || {
        let warnings = lab.status()["warnings"].to_string();
        !warnings.contains("cannot write the database")
    });
    assert!(!lab.path("run/database-incomplete").exists());
}

/// An engine in a namespace, with a ban that is in the database.
fn with_a_ban(then: impl FnOnce(&mut Lab, &mut Line) + Send + 'static) {
    in_world(&[], |_| {
        let mut lab = Lab::new();
        lab.configure_with(FIREWALL, LONG_JAILS);
        lab.start();
        let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
        send(&mut worker, 1, "11.0.0.1", "day");
        worker.ack().unwrap();
        then(&mut lab, &mut worker);
    });
}

/// That `manual` has these, which the firewall holds for a day at most.
#[track_caller]
fn are_adopted(lab: &Lab, clients: &[&str]) {
    let jail = lab.jail("manual");
    let bans = jail["banned"].as_array().unwrap();
    let hosts: Vec<&str> = bans
        .iter()
        .map(|ban| ban["host"].as_str().unwrap())
        .collect();
    assert_eq!(hosts, clients, "{jail}");
    let held = held();
    for ban in bans {
        assert_eq!(ban["cause"], "adopted");
        assert_eq!(ban["in_force"], true);
        let left = held[ban["host"].as_str().unwrap()].expect("an end");
        assert!(left <= 86_400, "{left}");
    }
}

#[test]
fn bans_of_a_time_without_a_database_are_adopted_for_a_day_at_most() {
    with_a_ban(|lab, worker| {
        assert_eq!(lab.say(&["ban", "11.0.0.9"]).0, 0);
        assert_eq!(lab.say(&["ban", "11.0.0.8"]).0, 0);
        let database = lock(lab);
        for (offset, client, jail) in [
            (2, BAD4, "ever"),
            (3, "11.0.0.3", "day"),
            (4, "11.0.0.4", "day"),
            (5, "11.0.0.5", "day"),
        ] {
            send(worker, offset, client, jail);
        }
        until("they are banned", || held().len() == 7);
        is_not_acknowledged(lab, worker);
        // One that the database has, and one that it has not.
        for client in ["11.0.0.4", "11.0.0.8"] {
            assert_eq!(lab.say(&["unban", client]).0, 0);
        }
        lab.kill();
        drop(database);
        // By then one of them is exempt.
        lab.configure_with(
            FIREWALL,
            &format!("[defaults]\nignoreip = [\"11.0.0.5\"]\n{LONG_JAILS}"),
        );
        lab.start();
        let mut adopted = ["11.0.0.3", BAD4];
        adopted.sort_by_key(|client| client.parse::<std::net::Ipv4Addr>().unwrap());
        let of_manual = lab.jail("manual");
        assert!(of_manual.to_string().contains("11.0.0.9"), "{of_manual}");
        assert_eq!(lab.say(&["unban", "11.0.0.9"]).0, 0);
        are_adopted(lab, &adopted);
        assert!(lab.banned("day").contains_key("11.0.0.1"));
        let held = held();
        for client in ["11.0.0.4", "11.0.0.5", "11.0.0.8"] {
            assert!(!held.contains_key(client), "{client}: {held:?}");
        }
        assert!(!lab.banned("manual").contains_key("11.0.0.8"));
        assert!(lab.log().contains("the database did not know 2 bans"));
        // The next engine knows them; what was not acknowledged is sent again.
        lab.kill();
        lab.start();
        are_adopted(lab, &adopted);
        let (mut worker, known) = Line::worker(&lab.socket(), 7).unwrap();
        assert_eq!(known, Some(1));
        send(&mut worker, 2, BAD4, "ever");
        assert_eq!(worker.ack().unwrap().0, 2);
        assert!(lab.banned("ever")[BAD4]);
        assert_eq!(lab.say(&["unban", BAD4]).0, 0);
        assert!(!super::held().contains_key(BAD4));
    });
}

#[test]
fn a_database_that_is_gone_or_whose_log_was_overwritten_lifts_no_ban() {
    for case in ["gone", "log"] {
        with_a_ban(move |lab, _| {
            lab.kill();
            let database = lab.path("state/pipeban.sqlite3");
            if case == "gone" {
                for ending in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{ending}", database.display()));
                }
            } else {
                use std::os::unix::fs::FileExt;
                let log = format!("{}-wal", database.display());
                let log = std::fs::File::options().write(true).open(log).unwrap();
                log.write_at(&[0; 32], 0).unwrap();
            }
            lab.start();
            assert_eq!(held().len(), 1, "{case}");
            are_adopted(lab, &["11.0.0.1"]);
            if case == "log" {
                let warnings = lab.status()["warnings"].to_string();
                assert!(warnings.contains("was damaged"), "{warnings}");
                assert!(lab.log().contains("the log of the database"));
            }
        });
    }
}

#[test]
fn a_worker_that_bans_too_much_makes_short_bans_only() {
    let mut lab = Lab::new();
    let jails = "[jails.many]\nlog = \"error\"\nfilter = \"f\"\nmaxretry = 1\n\
                 bantime = \"1d\"\nincrement = { factor = 2 }\n";
    lab.configure(jails);
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let (mut other, _) = Line::worker(&lab.socket(), 8).unwrap();
    let client = |n: u64| format!("11.0.{}.{}", n / 250, n % 250 + 1);
    for part in 0..15 {
        let hits = (0..100).map(|n| part * 100 + n);
        let hits = hits.map(|n| hit(n + 1, &client(n), &["many"])).collect();
        worker.send(&Request::Hits(hits)).unwrap();
        worker.ack().unwrap();
    }
    other
        .send(&Request::Hits(vec![hit(1, "11.9.9.9", &["many"])]))
        .unwrap();
    other.ack().unwrap();
    let jail = lab.jail("many");
    let (mut long, mut short) = (0, 0);
    for ban in jail["banned"].as_array().unwrap() {
        let time = |key: &str| -> jiff::Timestamp { ban[key].as_str().unwrap().parse().unwrap() };
        let length = time("until").duration_since(time("since")).as_secs();
        match ban["cause"].as_str().unwrap() {
            "jail" => {
                assert!(length >= 86_399, "{ban}");
                long += 1;
            }
            "surge" => {
                assert!(length <= 600, "{ban}");
                short += 1;
            }
            other => panic!("{other}"),
        }
    }
    // All within one minute, unless the machine is very slow.
    assert!(short >= 1 && long + short == 1_501, "{long} {short}");
    assert!(long >= 1_001, "{long}");
    until("the alarm", || {
        let warnings = lab.status()["warnings"].to_string();
        warnings.contains("a worker made more than 1000 new bans in a minute")
    });
}
