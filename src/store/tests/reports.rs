//! The reader of reports, beside an engine that writes and after one that was killed.

use rusqlite::StatementStatus;

use super::super::{ReadOnly, history_of};
use super::*;

/// Id, network, whether it is active, classes.
type Shown = (u64, String, bool, String);

fn shown(history: &ReadOnly, since: Timestamp, until: Timestamp, now: Timestamp) -> Vec<Shown> {
    let mut found = Vec::new();
    let read = history.bans(since, until, true, |ban| {
        found.push((
            ban.id,
            ban.net.to_string(),
            ban.is_active(now),
            ban.classes.to_owned(),
        ));
    });
    read.unwrap();
    found
}

fn named(id: u64, net: &str, now: Now, seconds: Option<u64>) -> Op {
    Op::Ban(Ban {
        id: BanId::new(id),
        ..ban(net, now, seconds)
    })
}

fn evidence(id: u64, line: &str, now: Now) -> Op {
    Op::Evidence {
        ban: BanId::new(id),
        lines: vec![(now.wall, line.to_owned())],
        classes: vec!["sql".to_owned(), "xss".to_owned()],
        vhosts: vec!["shop.example.org".to_owned()],
        rule: Some("sql (a.toml:3)".into()),
    }
}

#[test]
fn bans_are_read_while_an_engine_writes_and_after_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut database = open(&path, "boot-a").unwrap();
    let (first, second, third) = (at(100, 0), at(200, 100), at(300, 200));
    let ops = [
        named(1, "203.0.113.1/32", first, Some(50)),
        evidence(1, "GET /a", first),
    ];
    database.commit(&ops, first).unwrap();
    // The same jail bans the same client again while it is banned: one ban, not two.
    let ops = [
        named(2, "203.0.113.2/32", second, None),
        named(3, "203.0.113.2/32", second, None),
    ];
    database.commit(&ops, second).unwrap();

    let history = ReadOnly::open(&path).unwrap().unwrap();
    let all = [
        (
            1,
            "203.0.113.1/32".to_owned(),
            false,
            r#"["sql","xss"]"#.to_owned(),
        ),
        (3, "203.0.113.2/32".to_owned(), true, String::new()),
    ];
    let read = |history: &ReadOnly| shown(history, first.wall, third.wall, third.wall);
    assert_eq!(read(&history), all);
    assert_eq!(
        history.evidence(1).unwrap(),
        [(first.wall, "GET /a".to_owned())]
    );
    // One state: what is written meanwhile is not in it, and the writer does not wait.
    let later = [named(4, "203.0.113.4/32", second, None)];
    database.commit(&later, second).unwrap();
    assert_eq!(read(&history), all);
    drop(history);

    // The copy is what a killed engine leaves: the log is not merged.
    let copy = dir.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(dir.path().join("db-wal"), dir.path().join("copy-wal")).unwrap();
    assert_eq!(read(&ReadOnly::open(&copy).unwrap().unwrap()).len(), 3);
    drop(database);
    let history = ReadOnly::open(&path).unwrap().unwrap();
    assert_eq!(read(&history).len(), 3);
    let after_first = shown(&history, second.wall, third.wall, third.wall);
    assert_eq!(after_first.len(), 2);
    assert_eq!(shown(&history, third.wall, third.wall, third.wall), []);

    let mut of_one = Vec::new();
    let net = "203.0.113.2/32".parse().unwrap();
    let read = history.bans_of(&net, 1, |ban| of_one.push((ban.id, ban.vhosts.to_owned())));
    read.unwrap();
    assert_eq!(of_one, [(3, String::new())]);
}

#[test]
fn purge_deletes_ended_bans_and_evidence_of_one_client() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut database = open(&path, "boot-a").unwrap();
    let now = at(100, 0);
    let end = |net: &str| Op::End {
        jail: "apache-auth".parse().unwrap(),
        net: net.parse().unwrap(),
        end: End::Over,
    };
    let nets = [
        "2001:db8::/64",
        "2001:db8:0:1::/64",
        "203.0.113.0/24",
        "203.0.113.1/32",
    ];
    let mut ops = Vec::new();
    for (id, net) in (1..).zip(nets) {
        ops.extend([named(id, net, now, None), evidence(id, net, now), end(net)]);
    }
    // An active one.
    ops.extend([named(9, "203.0.113.1/32", now, None), evidence(9, "x", now)]);
    database.commit(&ops, now).unwrap();
    let ids = || -> Vec<(u64, usize)> {
        let history = ReadOnly::open(&path).unwrap().unwrap();
        let read = shown(&history, now.wall, at(0, 1).wall, now.wall);
        let lines = |id| history.evidence(id).unwrap().len();
        read.into_iter().map(|(id, ..)| (id, lines(id))).collect()
    };
    assert_eq!(ids(), [(1, 1), (2, 1), (3, 1), (4, 1), (9, 1)]);
    // The address of a client whose /64 was banned.
    let purge = |net: &str| Op::Purge(net.parse().unwrap());
    database.commit(&[purge("2001:db8::7/128")], now).unwrap();
    assert_eq!(ids(), [(2, 1), (3, 1), (4, 1), (9, 1)]);
    // A jail banned that /24 as one client.
    database.commit(&[purge("203.0.113.1/32")], now).unwrap();
    assert_eq!(ids(), [(2, 1), (9, 0)]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    assert!(ReadOnly::open(&path).unwrap().is_none());
    assert!(!path.exists());
    drop(open(&path, "boot-a").unwrap());
    let raw = Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 1).unwrap();
    let older = ReadOnly::open(&path).unwrap_err();
    assert!(matches!(older, Error::Older { found: 1, .. }), "{older}");
    std::fs::write(dir.path().join("text"), "not a database\n".repeat(100)).unwrap();
    let damaged = ReadOnly::open(&dir.path().join("text")).unwrap_err();
    assert!(matches!(damaged, Error::Sqlite(_)), "{damaged}");
}

#[test]
fn the_statement_for_evidence_is_compiled_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut database = open(&path, "boot-a").unwrap();
    let ops = (1..5).map(|id| evidence(id, "GET /a", at(100, 0)));
    database
        .commit(&ops.collect::<Vec<_>>(), at(100, 0))
        .unwrap();
    let history = ReadOnly::open(&path).unwrap().unwrap();
    for ban in 1..5 {
        assert_eq!(history.evidence(ban).unwrap().len(), 1);
    }
    let cached = history.connection.prepare_cached(history_of::EVIDENCE);
    let compiled = cached.unwrap().get_status(StatementStatus::RePrepare);
    assert_eq!(compiled, 0);
}
