//! What one hit of a jail counts.

use super::*;

#[test]
fn hits_count_by_their_jails_weight_and_test_shows_it() {
    let mut lab = Lab::new();
    let jail = |name: &str, weight: u32| {
        format!(
            "[jails.{name}]\nlog = \"error\"\nfilter = \"f\"\nmaxretry = 5\nweight = {weight}\n"
        )
    };
    lab.configure(
        &[("light", 2), ("heavy", 3), ("at-once", 5)]
            .map(|(n, w)| jail(n, w))
            .concat(),
    );
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let all = ["light", "heavy", "at-once"];
    let hits = (1..=2).map(|n| hit(n, "203.0.113.9", &all));
    worker.send(&Request::Hits(hits.collect())).unwrap();
    assert_eq!(
        worker.ack().unwrap().1,
        [
            "[light] Found 203.0.113.9 (2/5 in 10m)",
            "[heavy] Found 203.0.113.9 (3/5 in 10m)",
            "[at-once] Found 203.0.113.9 (5/5 in 10m)",
            "[at-once] Ban 203.0.113.9 for 1h (5 in under 1s)",
            "[light] Found 203.0.113.9 (4/5 in 10m)",
            "[heavy] Found 203.0.113.9 (6/5 in 10m)",
            "[heavy] Ban 203.0.113.9 for 1h (6 in under 1s)",
            "[at-once] 203.0.113.9 already banned",
        ]
    );
    // What is counted keeps its weight over a restart.
    lab.kill();
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let last = vec![hit(3, "203.0.113.9", &["light"])];
    worker.send(&Request::Hits(last)).unwrap();
    let logged = worker.ack().unwrap().1;
    assert_eq!(logged[0], "[light] Found 203.0.113.9 (6/5 in 10m)");
    assert!(
        logged[1].starts_with("[light] Ban 203.0.113.9 "),
        "{logged:?}"
    );
    // Not by address: where many browsers share one, only who bans at once may.
    let addr = "203.0.113.10".parse().unwrap();
    worker.send(&Request::Shared { addr }).unwrap();
    let hits = (4..=6).map(|n| hit(n, "203.0.113.10", &all));
    worker.send(&Request::Hits(hits.collect())).unwrap();
    let logged = worker.ack().unwrap().1;
    let bans: Vec<&String> = logged
        .iter()
        .filter(|line| line.contains("] Ban"))
        .collect();
    assert_eq!(bans.len(), 1, "{logged:?}");
    assert!(bans[0].starts_with("[at-once] Ban 203.0.113.10 for 10m "));
    let line = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] [client 203.0.113.9:1] \
                AH01630: client denied by server configuration: 203.0.113.9";
    for (jail, weight, alone) in [
        ("light", 2, false),
        ("heavy", 3, false),
        ("at-once", 5, true),
    ] {
        let output = lab.run(&["--json", "test", "--jail", jail, "--line", line]);
        let logged: Value = serde_json::from_slice(&output.stdout).unwrap();
        let matched = &logged["matches"][0];
        assert_eq!(matched["jail"], jail, "{logged}");
        assert_eq!(matched["weight"], weight);
        assert_eq!(matched["bans_alone"], alone);
    }
}
