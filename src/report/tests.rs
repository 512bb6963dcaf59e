use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::{TimeZone, offset};

use super::*;
use crate::jail::show_net;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn row<'t>(net: &'t str, jail: &'t str, since: &str) -> BanRow<'t> {
    BanRow {
        id: 0,
        jail,
        net: net.parse().unwrap(),
        observed: false,
        behind: false,
        since: time(since),
        until: None,
        ended: None,
        cause: "jail",
        classes: "",
        vhosts: "",
    }
}

fn query() -> Query {
    Query {
        since: Timestamp::MIN,
        until: Timestamp::MAX,
        jail: None,
        vhost: None,
        net: None,
        observed: false,
    }
}

const NOW: &str = "2026-11-22T12:00:00Z";

fn summary(query: Query, rows: &[BanRow<'_>]) -> Summary {
    let mut collector = Collector::new(query, time(NOW), TimeZone::fixed(offset(1)));
    rows.iter().for_each(|row| collector.add(row));
    collector.finish(usize::MAX)
}

#[test]
fn bans_are_counted_by_client_jail_class_hour_day_and_network() {
    let first = row("203.0.113.7/32", "a", "2026-11-20T22:59:59Z");
    let rows = [
        BanRow {
            ended: Some(time("2026-11-20T23:30:00Z")),
            ..first
        },
        BanRow {
            classes: r#"["sql","xss"]"#,
            id: 7,
            ..row("203.0.113.7/32", "b", "2026-11-20T23:00:00Z")
        },
        BanRow {
            // Its time is over; no engine has noted it.
            until: Some(time("2026-11-21T00:00:00Z")),
            classes: r#"["sql"]"#,
            ..row("203.0.113.9/32", "a", "2026-11-20T23:10:00Z")
        },
        BanRow {
            behind: true,
            ..row("2001:db8:0:1::/64", "a", "2026-11-21T12:00:00Z")
        },
        BanRow {
            observed: true,
            ..row("2001:db8::/64", "watch", "2026-11-21T12:00:00Z")
        },
    ];
    let summary = summary(query(), &rows);
    assert_eq!((summary.bans, summary.in_force, summary.behind), (4, 1, 1));
    // Two jails saw one attack.
    assert_eq!((summary.repeat, summary.of_other_jails), (0, 1));
    assert_eq!(summary.clients_in_force(), 1);
    assert_eq!(summary.jails(), [("a", 3), ("b", 1)]);
    assert_eq!(summary.classes(), [("sql", 2), ("xss", 1)]);
    let clients: Vec<_> = summary
        .clients
        .iter()
        .map(|c| (show_net(&c.net), c.bans, c.in_force, c.until().is_some()))
        .collect();
    let expected = [
        ("203.0.113.7", 2, true, true),
        ("2001:db8:0:1::/64", 1, false, true),
        ("203.0.113.9", 1, false, false),
    ];
    let expected = expected.map(|(net, bans, force, until)| (net.to_owned(), bans, force, until));
    assert_eq!(clients, expected);
    assert_eq!(summary.jails_of(&summary.clients[0]), ["a", "b"]);
    assert_eq!(summary.classes_of(&summary.clients[0]), ["sql", "xss"]);
    assert_eq!(summary.clients[0].shown_ban, 7);
    // In the zone of the report the second one is of the next day.
    let days: Vec<_> = summary
        .days()
        .into_iter()
        .map(|(day, n)| (day.to_string(), n))
        .collect();
    assert_eq!(
        days,
        [("2026-11-20".to_owned(), 1), ("2026-11-21".to_owned(), 3)]
    );
    let hours: Vec<_> = (0..).zip(summary.hours).filter(|(_, n)| *n > 0).collect();
    assert_eq!(hours, [(0, 2), (13, 1), (23, 1)]);
    let networks: Vec<_> = summary
        .networks
        .iter()
        .map(|n| (n.net.to_string(), n.clients, n.bans))
        .collect();
    let expected = [
        ("203.0.113.0/24".to_owned(), 2, 3),
        ("2001:db8::/48".to_owned(), 1, 1),
    ];
    assert_eq!(networks, expected);
}

/// Details of clients whose lines try to leave their place.
struct Hostile;

const HOSTILE: &str = "<script>\"'&</pre>{{x}}\r\n=1";

impl Details for Hostile {
    fn bans(&self, _: &IpNet, _: usize) -> std::io::Result<Vec<Spell>> {
        Ok(Vec::new())
    }

    fn evidence(&self, _: u64) -> std::io::Result<Evidence> {
        Ok(vec![(time(NOW), HOSTILE.to_owned())])
    }
}

#[test]
fn text_of_clients_stays_text() {
    let one = BanRow {
        classes: r#"["<b>=1\"'&"]"#,
        ..row("203.0.113.7/32", "a", "2026-11-20T22:59:59Z")
    };
    let mut query = query();
    query.vhost = None;
    let summary = summary(query, &[one]);
    let mut out = Vec::new();
    json::write(&summary, &Hostile, &mut out).unwrap();
    let first = out.split(|b| *b == b'\n').next().unwrap();
    let object: serde_json::Value = serde_json::from_slice(first).unwrap();
    assert_eq!(object["evidence"][0]["line"], HOSTILE);
    let detail = Detail {
        bans: vec![Spell {
            jail: "a".into(),
            since: time(NOW),
            end: None,
            cause: HOSTILE.into(),
        }],
        evidence: Hostile.evidence(0).unwrap(),
    };
    let page = html::page(&summary, &[detail]).unwrap();
    assert!(!page.contains("<script"), "{page}");
    assert!(!page.contains("<b>="));
    assert!(page.contains("&#60;script&#62;&#34;&#39;&#38;&#60;/pre&#62;{{x}}"));
    let text = table::text(&summary, &Hostile).unwrap();
    assert!(text.contains("{{x}}\\x0d\\x0a=1"), "{text}");
    out.clear();
    csv::write(&summary, &Hostile, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains(r#""<script>""'&</pre>{{x}}"#), "{text}");
}

#[test]
fn a_report_without_bans_is_whole_too() {
    let summary = summary(query(), &[]);
    let page = html::page(&summary, &[]).unwrap();
    assert!(page.contains("No client was banned"), "{page}");
    assert!(page.ends_with("</html>"));
    let text = table::text(&summary, &Hostile).unwrap();
    assert!(text.contains("0 bans of 0 clients"), "{text}");
}
