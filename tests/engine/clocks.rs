//! A clock that is set while the engine runs: bans last as long as they should, by the clock since
//! boot; after a boot, no longer than that.
//!
//! libfaketime changes CLOCK_REALTIME only.

use std::path::PathBuf;

use super::*;
use crate::kernel::world::{in_world, run, wait_until};
use crate::support::skip_without;

const DAY: i64 = 86_400;
const HOUR: u64 = 3_600;
const FIREWALL: &str = "backend = \"nftables\"";

/// Where Debian's package puts it, whatever the architecture.
fn libfaketime() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let library = entry.path().join("faketime/libfaketime.so.1");
            library.exists().then_some(library)
        });
    if found.is_none() {
        skip_without("libfaketime");
    }
    found
}

/// Sets the clock of the engine, also of one that runs, so many seconds from the true one.
fn set(lab: &Lab, seconds: i64) {
    let new = lab.path("clock.new");
    std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
    std::fs::rename(new, lab.path("clock")).unwrap();
}

/// What the engine takes for the time.
fn shown(lab: &Lab) -> jiff::Timestamp {
    let (exit, text) = lab.say(&["ban", "192.0.2.99", "--for", "1h", "--json"]);
    assert_eq!(exit, 0, "{text}");
    let made: Value = serde_json::from_str(&text).unwrap();
    let until: jiff::Timestamp = made["until"].as_str().unwrap().parse().unwrap();
    until - Duration::from_secs(HOUR)
}

#[track_caller]
fn is_set(lab: &Lab, seconds: i64) {
    let off = shown(lab).duration_since(jiff::Timestamp::now()).as_secs() - seconds;
    assert!(off.abs() < 60, "{off} seconds off");
}

fn with_clock(test: impl FnOnce(&mut Lab) + Send + 'static) {
    let Some(library) = libfaketime() else { return };
    in_world(&[], move |_| {
        let mut lab = Lab::new();
        lab.configure_with(FIREWALL, JAILS);
        lab.environment = vec![
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", lab.path("clock")),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ];
        set(&lab, 0);
        lab.start();
        test(&mut lab);
    });
}

/// Bans of an hour by a hit, of three days, and for ever.
fn ban_three(lab: &Lab) {
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let hits = Request::Hits(vec![hit(1, "203.0.113.1", &["at-once"])]);
    worker.send(&hits).unwrap();
    worker.ack().unwrap();
    for (client, time) in [("203.0.113.2", "3d"), ("203.0.113.3", "-1")] {
        assert_eq!(
            lab.say(&["ban", client, "--jail", "at-once", "--for", time])
                .0,
            0
        );
    }
}

/// Who is banned still by the database, `status` and the kernel, each with no less time left than
/// a minute under these seconds, and no more; 0: for ever.
#[track_caller]
fn are_left(lab: &Lab, expected: &[(&str, u64)]) {
    let held = held();
    for (client, seconds) in expected {
        let left = held.get(*client).copied().unwrap_or(Some(0));
        let right = match seconds {
            0 => left.is_none(),
            most => left.is_some_and(|left| left <= *most && left + 60 > *most),
        };
        assert!(right, "{client}: {left:?}, not {seconds}");
    }
    let clients: BTreeSet<String> = expected
        .iter()
        .map(|(client, _)| (*client).into())
        .collect();
    let kernel: BTreeSet<String> = held
        .into_keys()
        .filter(|net| net.starts_with("203."))
        .collect();
    assert_eq!(kernel, clients, "in the kernel");
    let status = lab.banned("at-once");
    assert!(status.values().all(|in_force| *in_force), "{status:?}");
    assert_eq!(
        status.into_keys().collect::<BTreeSet<_>>(),
        clients,
        "by `status`"
    );
    wait_until("the database has the same", || {
        lab.stored("at-once") == clients
    });
}

const ALL: &[(&str, u64)] = &[
    ("203.0.113.1", HOUR),
    ("203.0.113.2", 3 * DAY.unsigned_abs()),
    ("203.0.113.3", 0),
];

fn a_day_aside(jump: i64) {
    with_clock(move |lab| {
        ban_three(lab);
        are_left(lab, ALL);
        let (mut worker, _) = Line::worker(&lab.socket(), 8).unwrap();
        let (one, two) = (
            hit(1, "203.0.113.50", &["often"]),
            hit(2, "203.0.113.50", &["often"]),
        );
        worker.send(&Request::Hits(vec![one, two])).unwrap();
        worker.ack().unwrap();
        let short = ["ban", "192.0.2.1", "--for", "3"];
        let (exit, text) = lab.say(&short);
        assert_eq!(exit, 0, "{text}");

        set(lab, jump);
        is_set(lab, jump);
        are_left(lab, ALL);
        // What was counted before counts.
        worker
            .send(&Request::Hits(vec![hit(3, "203.0.113.50", &["often"])]))
            .unwrap();
        let logged = worker.ack().unwrap().1;
        assert!(
            logged[1].starts_with("[often] Ban 203.0.113.50 for 1h (3 in "),
            "{logged:?}"
        );
        assert_eq!(lab.say(&["unban", "203.0.113.50"]).0, 0);
        // A ban that began before it ends in its time, and so does one that began after it.
        assert_eq!(lab.say(&["ban", "192.0.2.2", "--for", "3"]).0, 0);
        wait_until("both are over", || {
            lab.stored("manual") == BTreeSet::from(["192.0.2.99".to_owned()])
        });

        lab.kill();
        lab.start();
        is_set(lab, jump);
        are_left(lab, ALL);
        // And back again, while no engine runs.
        lab.kill();
        set(lab, 0);
        lab.start();
        is_set(lab, 0);
        are_left(lab, ALL);
    });
}

#[test]
fn a_clock_set_back_a_day_changes_no_ban() {
    a_day_aside(-DAY);
}

#[test]
fn a_clock_set_forward_a_day_changes_no_ban() {
    a_day_aside(DAY);
}

/// What the engine takes for another boot.
fn boot(lab: &mut Lab, name: u32) {
    lab.kill();
    let id = lab.path("boot_id");
    std::fs::write(&id, format!("00000000-0000-4000-8000-{name:012}\n")).unwrap();
    run(&format!(
        "mount --bind {} /proc/sys/kernel/random/boot_id",
        id.display()
    ));
    run("nft flush ruleset");
}

#[test]
fn after_a_boot_with_a_clock_a_day_behind_no_ban_is_longer() {
    with_clock(|lab| {
        ban_three(lab);
        boot(lab, 1);
        set(lab, -DAY);
        lab.start();
        is_set(lab, -DAY);
        are_left(lab, ALL);
        // The clock is put right, and the engine restarted: nothing has been lost by it.
        lab.kill();
        set(lab, 0);
        lab.start();
        are_left(lab, ALL);
    });
}

#[test]
fn after_a_boot_with_a_clock_a_day_ahead_bans_are_a_day_shorter() {
    with_clock(|lab| {
        ban_three(lab);
        boot(lab, 1);
        set(lab, DAY);
        lab.start();
        is_set(lab, DAY);
        are_left(
            lab,
            &[("203.0.113.2", 2 * DAY.unsigned_abs()), ("203.0.113.3", 0)],
        );
    });
}
