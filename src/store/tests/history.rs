//! What is stored about one client.

use super::super::ReadOnly;
use super::*;

#[test]
fn the_history_of_a_client_is_read_while_the_engine_has_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    assert!(ReadOnly::open(&path).unwrap().is_none());
    let boot = Home::of_this_boot(&path, MEMORY).boot_id;
    let mut database = open(&path, &boot).unwrap();
    let now = at(5_000, 0);
    let jail: JailName = "apache-auth".parse().unwrap();
    let mut ended = ban("198.51.100.7/32", now, Some(60));
    ended.id = BanId::new(1);
    let mut active = ban("198.51.100.7/32", now, Some(900));
    active.id = BanId::new(2);
    let mut wide = ban("198.51.100.0/24", now, None);
    (wide.id, wide.cause) = (BanId::new(3), Cause::Manual(Some("abuse".into())));
    let mut other = ban("198.51.101.7/32", now, None);
    other.id = BanId::new(4);
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let ops = [
        Op::Ban(ended.clone()),
        Op::End {
            jail: jail.clone(),
            net: ended.net,
            end: End::ByHand,
        },
        Op::Ban(active.clone()),
        Op::Ban(wide.clone()),
        Op::Ban(other),
        Op::Evidence {
            ban: active.id,
            lines: vec![(now.wall, "a line".into())],
            classes: Vec::new(),
            vhosts: Vec::new(),
            rule: Some("sql (a.toml:3)".into()),
        },
        Op::Counter {
            jail: jail.clone(),
            net: net("198.51.100.7/32"),
            hits: vec![(now.boot, 2)],
            findtime: Duration::from_secs(600),
        },
        Op::Allow(Allowed {
            net: net("198.51.100.0/28"),
            since: now.wall,
            until: None,
            reason: None,
        }),
    ];
    database.commit(&ops, now).unwrap();

    let reader = ReadOnly::open(&path).unwrap().unwrap();
    let of = |text: &str| reader.history_of(&net(text), std::slice::from_ref(&jail), now);
    let past = of("198.51.100.7/32").unwrap();
    let bans: Vec<(u64, Option<&str>)> = past
        .bans
        .iter()
        .map(|past| {
            let end = past.ended.as_ref().map(|(_, end)| end.as_str());
            (past.ban.id.number(), end)
        })
        .collect();
    assert_eq!(bans, [(3, None), (2, None), (1, Some("by hand"))]);
    assert_eq!(past.bans[1].ban, active);
    assert_eq!(past.bans[1].lines, [(now.wall, "a line".to_owned())]);
    assert_eq!(past.counters.len(), 1);
    assert_eq!(past.allowed.len(), 1);
    let whole = of("198.51.100.0/23").unwrap();
    assert_eq!((whole.bans.len(), whole.counters.len()), (4, 1));
    assert_eq!(of("203.0.113.9/32").unwrap(), super::super::Past::default());
}
