//! Bans that last: names, growth, jails that count bans, and a database that does not.

use super::*;

fn hits(lab: &Lab, offset: u64, clients: &[String]) -> Vec<String> {
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let hits = clients.iter().zip(offset..);
    let hits = hits
        .map(|(client, n)| hit(n, client, &["at-once"]))
        .collect();
    worker.send(&Request::Hits(hits)).unwrap();
    worker.ack().unwrap().1
}

#[test]
fn a_jail_that_counts_bans_needs_no_log_and_each_of_its_bans_is_longer() {
    let mut lab = Lab::new();
    lab.configure(&format!(
        "[defaults]\nincrement = {{ multipliers = [1, 5, 30] }}\n{JAILS}\
         [jails.recidive]\nlog = \"bans\"\nmaxretry = 3\nfindtime = \"1d\"\nbantime = \"1w\"\nport = \"all\"\n"
    ));
    lab.start();
    let client = ["203.0.113.9".to_owned()];
    let mut logged = Vec::new();
    for n in 1..=3 {
        if n == 3 {
            // what was counted, and what was banned, outlives an engine
            lab.kill();
            lab.start();
        }
        logged.extend(hits(&lab, n * 10, &client));
        if n < 3 {
            assert_eq!(lab.say(&["unban", "203.0.113.9", "--jail", "at-once"]).0, 0);
        }
    }
    assert_eq!(
        logged,
        [
            "[at-once] Found 203.0.113.9 (1/1 in 10m)",
            "[at-once] Ban 203.0.113.9 for 1h (1 in under 1s)",
            "[recidive] Found 203.0.113.9 (1/3 in 1d)",
            "[at-once] Found 203.0.113.9 (1/1 in 10m)",
            "[at-once] Ban 203.0.113.9 for 5h (1 in under 1s)",
            "[recidive] Found 203.0.113.9 (2/3 in 1d)",
            "[at-once] Found 203.0.113.9 (1/1 in 10m)",
            "[at-once] Ban 203.0.113.9 for 1d 6h (1 in under 1s)",
            "[recidive] Found 203.0.113.9 (3/3 in 1d)",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain(logged.last().cloned())
        .collect::<Vec<_>>()
    );
    let last = logged.last().unwrap();
    assert!(
        last.starts_with("[recidive] Ban 203.0.113.9 for 1w (3 in "),
        "{last}"
    );
    // lines that look like pipeban's are no hits
    let (mut worker, _) = Line::worker(&lab.socket(), 8).unwrap();
    let forged = Request::Hits(vec![hit(1, "203.0.113.10", &["recidive"])]);
    worker.send(&forged).unwrap();
    assert_eq!(worker.ack().unwrap().1, Vec::<String>::new());
}

#[test]
fn a_ban_is_lifted_by_its_name_and_its_evidence_is_stored() {
    let lab = Lab::started();
    hits(&lab, 1, &["203.0.113.9".into(), "203.0.113.10".into()]);
    let banned = lab.jail("at-once")["banned"].clone();
    let ids: Vec<&str> = [0, 1].map(|n| banned[n]["id"].as_str().unwrap()).to_vec();
    assert_eq!(ids, ["b1", "b2"]);
    assert!(lab.say(&["status", "-v"]).1.contains("b2"));
    let output = lab.run(&["ban", "198.51.100.9", "--json"]);
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["id"], "b3");
    let (exit, text) = lab.say(&["unban", "b2"]);
    assert_eq!(
        (exit, text.trim()),
        (0, "[at-once] Unban 203.0.113.10 (by hand) b2")
    );
    assert_eq!(lab.jail("at-once")["currently_banned"], 1);
    let (exit, text) = lab.say(&["unban", "b2"]);
    assert_eq!(exit, 1);
    assert!(text.contains("no active ban has the id b2"), "{text}");
    assert_eq!(lab.say(&["unban", "b3", "--jail", "at-once"]).0, 1);
    assert_eq!(lab.say(&["unban", "b3"]).0, 0);
    let lines: Vec<(i64, String)> = lab
        .database()
        .prepare("SELECT ban, line FROM evidence ORDER BY ban")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(lines, [(1, "GET /x".into()), (2, "GET /x".into())]);
}

#[test]
fn the_name_of_a_ban_lifts_that_ban_and_no_overlapping_one() {
    let mut lab = Lab::new();
    let increment = "[jails.at-once]\nincrement = { factor = 2, memory = \"1d\" }";
    lab.configure(&JAILS.replace("[jails.at-once]", increment));
    lab.start();
    // All by one jail: an address, the network around it, and one within that network.
    hits(&lab, 1, &["203.0.113.9".into(), "2001:db8:7::9".into()]);
    for net in ["203.0.113.0/24", "203.0.113.8/29", "2001:db8:7::/48"] {
        assert_eq!(lab.say(&["ban", net, "--jail", "at-once"]).0, 0);
    }
    let banned = |lab: &Lab| -> Vec<(String, String)> {
        let bans = lab.jail("at-once")["banned"].clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let bans = bans.as_array().unwrap().iter();
        bans.map(|ban| (text(&ban["id"]), text(&ban["host"])))
            .collect()
    };
    let before = banned(&lab);
    assert_eq!(before.len(), 5);
    for (id, host) in &before {
        let (exit, text) = lab.say(&["unban", id, "--forget"]);
        let line = format!("[at-once] Unban {host} (by hand) {id}");
        assert_eq!((exit, text.trim()), (0, line.as_str()));
        let left = banned(&lab);
        assert!(!left.contains(&(id.clone(), host.clone())));
        let gone = before.iter().position(|ban| ban.0 == *id).unwrap() + 1;
        assert_eq!(left, before[gone..], "after {id}");
    }
    // What was forgotten makes no later ban longer, in memory or after a restart.
    lab.kill();
    lab.start();
    let logged = hits(&lab, 20, &["203.0.113.9".into()]);
    assert!(logged[1].ends_with("for 1h (1 in under 1s)"), "{logged:?}");
    let id = banned(&lab)[0].0.clone();
    assert_eq!(lab.say(&["unban", &id]).0, 0);
    let logged = hits(&lab, 30, &["203.0.113.9".into()]);
    assert!(logged[1].ends_with("for 2h (1 in under 1s)"), "{logged:?}");
    let id = banned(&lab)[0].0.clone();
    assert_eq!(lab.say(&["unban", &id, "--forget"]).0, 0);
    let logged = hits(&lab, 40, &["203.0.113.9".into()]);
    assert!(logged[1].ends_with("for 2h (1 in under 1s)"), "{logged:?}");
}

#[test]
fn a_ban_by_hand_without_a_time_shortens_no_ban() {
    let lab = Lab::started();
    let until = |args: &[&str]| -> jiff::Timestamp {
        let mut all = vec!["ban", "203.0.113.9", "--json"];
        all.extend(args);
        let output = lab.run(&all);
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        made["until"].as_str().unwrap().parse().unwrap()
    };
    let day = until(&["--for", "1d"]);
    let same = until(&[]);
    assert!(
        same.duration_since(day).abs().as_secs() <= 1,
        "{day} {same}"
    );
    let hour = until(&["--for", "1h"]);
    assert!(hour < day);
}

#[test]
fn too_many_bans_in_a_minute_raise_an_alarm_and_are_all_in_force() {
    let mut lab = Lab::new();
    lab.configure(&JAILS.replace("[jails.at-once]", "[jails.at-once]\nbans_per_minute = 3"));
    lab.start();
    let clients: Vec<String> = (1..=20).map(|n| format!("203.0.113.{n}")).collect();
    hits(&lab, 1, &clients);
    assert_eq!(lab.jail("at-once")["currently_banned"], 20);
    until("it is logged", || {
        let warnings = lab.status()["warnings"].to_string();
        warnings.contains("jail `at-once`: more than 3")
    });
    assert_eq!(lab.log().matches("[at-once] Ban ").count(), 3);
}

#[test]
fn a_database_that_is_removed_while_the_engine_runs_is_written_again() {
    let mut lab = Lab::started();
    hits(&lab, 1, &["203.0.113.9".into()]);
    lab.say(&["allow", "198.51.100.0/24"]);
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(lab.path(&format!("state/pipeban.sqlite3{ending}")));
    }
    hits(&lab, 10, &["203.0.113.10".into()]);
    until("all of it is there again", || {
        let count = lab.database().query_row(
            "SELECT (SELECT count(*) FROM bans WHERE ended IS NULL) + (SELECT count(*) FROM allow)",
            [],
            |row| row.get::<_, i64>(0),
        );
        count == Ok(3)
    });
    lab.kill();
    lab.start();
    assert_eq!(lab.jail("at-once")["currently_banned"], 2);
    assert_eq!(lab.jail("at-once")["total_banned"], 2);
    assert!(lab.say(&["allow", "--list"]).1.contains("198.51.100.0/24"));
}

/// By `make bench`.
#[cfg(feature = "measure")]
mod measure {
    use super::*;
    use crate::support::process::kilobytes;

    /// Proportional set size of this process in MB.
    fn memory() -> f64 {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        kilobytes(&text, "Pss:") as f64 / 1_024.0
    }

    #[test]
    fn measure_the_memory_of_a_million_clients_and_bans() {
        use pipeban::jail::{Exempt, Hit, Jails, Moment, Now};
        const MANY: u32 = 1_000_000;
        let lab = Lab::new();
        let config = pipeban::disk::load(&lab.path("pipeban.toml")).unwrap();
        let exempt = Exempt::new([]);
        for (jail, rounds) in [("count", 3), ("at-once", 1)] {
            let mut jails = Jails::new(&config);
            let name = jail.parse().unwrap();
            let before = memory();
            for round in 1..=rounds {
                let start = Instant::now();
                for n in 0..MANY {
                    // 32.0.0.0 and on: no private range
                    let addr = std::net::Ipv4Addr::from(0x2000_0000 + n);
                    let boot = Moment::from_nanos(i64::from(round) * 1_000_000_000 + i64::from(n));
                    let wall = jiff::Timestamp::UNIX_EPOCH;
                    let hit = Hit {
                        jail: &name,
                        client: addr.into(),
                        peer: None,
                        claim: pipeban::jail::Claim::None,
                        forgeable: false,
                        arrived: boot,
                        weight: 1,
                        spoofable: false,
                        surge: false,
                        unproven: false,
                    };
                    let _ = jails.observe(&hit, Now { boot, wall }, &exempt);
                }
                let (took, used) = (start.elapsed(), memory() - before);
                eprintln!(
                    "{jail}: {} clients counted, {} banned, {} dropped, {round} hits each: {used:.0} MB, \
                 {:.2} us a hit",
                    jails.tracked(),
                    jails.bans().len(),
                    jails.dropped().0,
                    took.as_secs_f64() * 1e6 / f64::from(MANY),
                );
                if jail == "count" {
                    assert_eq!(jails.tracked(), MANY as usize);
                    assert!(used < 150.0);
                }
            }
        }
    }
}
