use super::*;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::Connection;

use crate::config::JailName;
use crate::config::Ports;
use crate::jail::{Ban, BanId, End, Moment, Now, Totals};
use crate::jail::{Cause, Mode};
use std::path::Path;
use std::sync::mpsc;

fn at(boot: i64, wall: i64) -> Now {
    Now {
        boot: Moment::from_nanos(boot * 1_000_000_000),
        wall: Timestamp::from_second(1_800_000_000 + wall).unwrap(),
    }
}

fn ban(net: &str, now: Now, seconds: Option<u64>) -> Ban {
    Ban {
        id: BanId::default(),
        jail: "apache-auth".parse().unwrap(),
        net: net.parse().unwrap(),
        ports: Ports::List {
            tcp: [80, 443].into(),
            udp: [443].into(),
        },
        mode: Mode::Enforced,
        since: now.boot,
        since_wall: now.wall,
        until: seconds.map(|s| now.boot.plus(Duration::from_secs(s))),
        failures: 5,
        within: Duration::from_secs(41),
        cause: Cause::Jail,
    }
}

const MEMORY: Duration = Duration::from_secs(86_400);

fn home(path: &Path, boot_id: &str) -> Home {
    Home {
        path: path.to_owned(),
        boot_id: boot_id.to_owned(),
        memory: MEMORY,
    }
}

fn open(path: &Path, boot_id: &str) -> Result<Database, Error> {
    home(path, boot_id).open()
}

/// A store on a database that works.
fn start<T: Send + 'static>(
    path: &Path,
    done: impl Fn(Done<T>) + Send + 'static,
) -> (Store<T>, Opened) {
    let home = home(path, "boot-a");
    let mut opened = super::open(&home, at(0, 0));
    (Store::start(home, &mut opened, done).unwrap(), opened)
}

#[test]
fn everything_is_read_back_exactly_in_the_same_boot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let now = at(100, 0);
    let jail: JailName = "apache-auth".parse().unwrap();
    let mut behind = ban("2001:db8::/64", now, None);
    behind.mode = Mode::Behind("192.0.2.7".parse().unwrap());
    behind.cause = Cause::Imported(Some("it's <b>".into()));
    let one: IpNet = "203.0.113.1/32".parse().unwrap();
    let hits = vec![(at(90, 0).boot, 1), (at(99, 0).boot, 2)];
    let findtime = Duration::from_secs(600);
    let totals = Totals {
        failed: 7,
        banned: 2,
    };
    let allowed = Allowed {
        net: "198.51.100.0/24".parse().unwrap(),
        since: now.wall,
        until: Some(at(200, 0).boot),
        reason: None,
    };
    let mut database = open(&path, "boot-a").unwrap();
    let ops = [
        Op::Ban(ban("203.0.113.9/32", now, Some(3_600))),
        Op::Ban(behind.clone()),
        Op::Ban(ban("203.0.113.10/32", now, Some(3_600))),
        Op::End {
            jail: jail.clone(),
            net: "203.0.113.10/32".parse().unwrap(),
            end: End::Over,
        },
        Op::Counter {
            jail: jail.clone(),
            net: one,
            hits: hits.clone(),
            findtime,
        },
        Op::Counter {
            jail: jail.clone(),
            net: "203.0.113.2/32".parse().unwrap(),
            hits: hits.clone(),
            findtime,
        },
        Op::Counter {
            jail: jail.clone(),
            net: "203.0.113.2/32".parse().unwrap(),
            hits: vec![],
            findtime,
        },
        Op::Totals {
            jail: jail.clone(),
            totals,
        },
        Op::Stream {
            stream: u64::MAX,
            offset: 12_345,
        },
        Op::Allow(allowed.clone()),
    ];
    database.commit(&ops, now).unwrap();
    // a change written twice has the effect of one
    database.commit(&ops, now).unwrap();
    drop(database);

    // the wall clock has jumped; the boot clock has gone on
    let later = at(110, 500_000);
    let database = open(&path, "boot-a").unwrap();
    let saved = database.load(later).unwrap();
    let mut bans = saved.bans.clone();
    bans.sort_by_key(|ban| ban.net);
    assert_eq!(bans, [ban("203.0.113.9/32", now, Some(3_600)), behind]);
    assert_eq!(saved.totals, [(jail.clone(), totals)]);
    assert_eq!(saved.streams, [(u64::MAX, 12_345)]);
    assert_eq!(saved.allowed, [allowed]);
    assert_eq!(saved.counters, [(jail, one, hits)]);
}

#[test]
fn the_newest_counters_are_read_where_not_all_fit() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("db"), "boot-a").unwrap();
    let ops: Vec<Op> = [3, 1, 4, 2]
        .map(|n| Op::Counter {
            jail: "apache-auth".parse().unwrap(),
            net: format!("203.0.113.{n}/32").parse().unwrap(),
            hits: vec![(at(n, 0).boot, 1)],
            findtime: Duration::from_secs(600),
        })
        .into();
    database.commit(&ops, at(5, 5)).unwrap();
    let mut saved = Saved::default();
    let reading = database.home.reading(&database.connection, at(6, 6));
    read::counters(&reading, &mut saved, 2).unwrap();
    let kept: Vec<String> = saved
        .counters
        .iter()
        .map(|(_, net, _)| net.to_string())
        .collect();
    assert_eq!(kept, ["203.0.113.3/32", "203.0.113.4/32"]);
}

#[test]
fn after_another_boot_times_are_converted_by_the_wall_clock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let now = at(1_000_000, 0);
    let jail: JailName = "apache-auth".parse().unwrap();
    let mut database = open(&path, "boot-a").unwrap();
    let net: IpNet = "203.0.113.1/32".parse().unwrap();
    let hits = vec![(at(999_990, 0).boot, 1)];
    let findtime = Duration::from_secs(600);
    let ops = [
        Op::Ban(ban("203.0.113.9/32", now, Some(3_600))),
        Op::Counter {
            jail: jail.clone(),
            net,
            hits,
            findtime,
        },
    ];
    database.commit(&ops, now).unwrap();
    drop(database);
    // 100 s later on the wall, 30 s after the new boot
    let database = open(&path, "boot-b").unwrap();
    let saved = database.load(at(30, 100)).unwrap();
    assert_eq!(saved.bans[0].until, Some(at(30 + 3_500, 0).boot));
    assert_eq!(saved.bans[0].since, at(30 - 100, 0).boot);
    assert_eq!(
        saved.counters,
        [(jail.clone(), net, vec![(at(30 - 110, 0).boot, 1)])]
    );
    assert_eq!(saved.repeats.len(), 1);
    // an hour later the ban is loaded as one that is over, and the window is
    let saved = database.load(at(30, 4_000)).unwrap();
    assert!(saved.bans[0].until.unwrap() < at(30, 0).boot);
    assert_eq!(saved.counters, []);
    // a clock that begins thirty years too early makes no ban longer than it was
    let saved = database.load(at(30, -1_000_000_000)).unwrap();
    assert_eq!(saved.bans[0].until, Some(at(30 + 3_600, 0).boot));
    assert!(saved.bans[0].since <= at(30, 0).boot);
}

#[test]
fn history_counts_for_escalation_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("db"), "boot-a").unwrap();
    let repeats = |database: &Database, memory| {
        let home = Home {
            memory: Duration::from_secs(memory),
            ..database.home.clone()
        };
        let now = at(100_000, 100_000);
        let saved = read::load(&home.reading(&database.connection, now)).unwrap();
        saved
            .repeats
            .iter()
            .map(|(_, _, times)| times.len())
            .sum::<usize>()
    };
    for second in [0, 50_000, 99_000] {
        let now = at(second, second);
        let shared = Ban {
            cause: Cause::Shared,
            ..ban("203.0.113.7/32", now, Some(60))
        };
        let by_hand = Ban {
            cause: Cause::Manual(None),
            ..ban("203.0.113.8/32", now, Some(60))
        };
        let ops = [
            Op::Ban(ban("203.0.113.9/32", now, Some(60))),
            Op::Ban(shared),
            Op::Ban(by_hand),
        ];
        database.commit(&ops, now).unwrap();
    }
    assert_eq!(repeats(&database, 60_000), 2);
    assert_eq!(repeats(&database, 200_000), 3);
    let net = Some("203.0.113.0/24".parse().unwrap());
    database
        .commit(&[Op::Forget { net, jail: None }], at(99_001, 99_001))
        .unwrap();
    // the active one is not history yet
    assert_eq!(repeats(&database, 200_000), 1);
}

#[test]
fn what_is_too_old_is_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("db"), "boot-a").unwrap();
    let jail: JailName = "apache-auth".parse().unwrap();
    let old = at(0, 0);
    let mut ops = vec![Op::Ban(ban("203.0.113.9/32", old, Some(60)))];
    ops.push(Op::End {
        jail,
        net: "203.0.113.9/32".parse().unwrap(),
        end: End::Over,
    });
    ops.extend((0..MAX_STREAMS as u64 + 5).map(|stream| Op::Stream { stream, offset: 1 }));
    database.commit(&ops, old).unwrap();
    let count = |database: &Database, table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        database
            .connection
            .query_row(&sql, [], |row| row.get(0))
            .unwrap()
    };
    let keep = Some(Duration::from_secs(90 * 86_400));
    database.commit(&[Op::Prune { keep }], at(1, 1)).unwrap();
    assert_eq!(count(&database, "streams"), MAX_STREAMS as i64);
    assert_eq!(count(&database, "bans"), 1);
    let late = at(91 * 86_400, 91 * 86_400);
    database.commit(&[Op::Prune { keep: None }], late).unwrap();
    assert_eq!(count(&database, "streams"), 0);
    assert_eq!(count(&database, "bans"), 1);
    database.commit(&[Op::Prune { keep }], late).unwrap();
    assert_eq!(count(&database, "bans"), 0);
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let database = open(&path, "boot-a").unwrap();
    database
        .connection
        .pragma_update(None, "user_version", 99)
        .unwrap();
    drop(database);
    let error = open(&path, "boot-a").unwrap_err();
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
    let kept: i64 = Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 99);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    std::fs::write(
        &path,
        "not a database, and longer than the header of one: ".repeat(50),
    )
    .unwrap();
    assert!(open(&path, "boot-a").is_err());
    assert!(open(&dir.path().join("missing/db"), "boot-a").is_err());
}

#[test]
fn nothing_is_written_to_a_file_that_was_removed_or_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut database = open(&path, "boot-a").unwrap();
    let now = at(100, 0);
    database.commit(&[Op::Prune { keep: None }], now).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = database
        .commit(&[Op::Prune { keep: None }], now)
        .unwrap_err();
    assert!(error.to_string().contains("removed or replaced"), "{error}");
    std::fs::write(&path, "another").unwrap();
    assert!(matches!(
        database.commit(&[Op::Prune { keep: None }], now),
        Err(Error::Gone)
    ));
}

#[test]
fn what_follows_comes_after_the_commit_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (send, done) = mpsc::channel();
    let reader = path.clone();
    let (store, _) = start(&path, move |group: Done<u64>| {
        let kept: i64 = Connection::open(&reader)
            .unwrap()
            .query_row("SELECT offset FROM streams WHERE stream = 1", [], |row| {
                row.get(0)
            })
            .unwrap();
        send.send((group, kept)).unwrap();
    });
    for offset in 1..=1_000 {
        store.submit(
            vec![Op::Stream { stream: 1, offset }],
            at(1, 1),
            vec![offset],
        );
    }
    let mut all = Vec::new();
    while all.len() < 1_000 {
        let (group, kept) = done.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(group.trouble, None);
        all.extend(group.then);
        assert!(kept >= all.last().copied().unwrap() as i64);
    }
    assert!(all.is_sorted());
    store.finish();
}

mod broken;
mod history;
mod reports;
