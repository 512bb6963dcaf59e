use super::*;
use crate::control::{Counters, EngineStatus, PortsStatus, Reading, Unread};
use crate::record::Kind;

const NOW: &str = "2026-11-30T12:00:00Z";

fn view(width: usize, verbose: bool) -> View {
    View {
        width,
        verbose,
        one_jail: false,
        now: NOW.parse().unwrap(),
        zone: TimeZone::UTC,
    }
}

fn ban(number: u32, host: &str) -> BanStatus {
    let now: Timestamp = NOW.parse().unwrap();
    let seconds = |n: u32| jiff::SignedDuration::from_secs(i64::from(n));
    BanStatus {
        id: format!("b{number}"),
        host: host.to_owned(),
        since: now - seconds(number * 2_000),
        until: (number % 7 != 3).then(|| now + seconds(3_500 * (number + 1))),
        in_force: Some(number % 11 != 5),
        ufw: Some("present".into()),
        behind: None,
        cause: "jail".into(),
        reason: None,
        rule: Some("command-injection (apache-command.toml:7)".into()),
        request: Some("GET /cgi-bin/.%2e/%2e%2e/%2e%2e/%2e%2e/bin/sh?a=b HTTP/1.1".into()),
    }
}

fn jail(name: &str, banned: Vec<BanStatus>) -> JailStatus {
    let count = banned.len() as u64;
    JailStatus {
        ports: PortsStatus::List(vec![80, 443, 8443]),
        name: name.parse().unwrap(),
        enabled: true,
        enforce: true,
        currently_failed: count / 4,
        total_failed: count * 1_234,
        currently_banned: count,
        total_banned: count * 12,
        currently_observed: 0,
        banned,
        observed: Vec::new(),
    }
}

fn worker(number: u32, kind: Kind) -> WorkerStatus {
    WorkerStatus {
        pid: 4_700 + number,
        kind,
        path: Some(format!("/var/log/apache2/shop-{number}.example.org-{kind}.log").into()),
        counters: Counters {
            lines: 120_000 + u64::from(number),
            bytes: 24_000_000,
            matched: 120_000,
            unparsed: 3,
            matching: true,
            ..Counters::default()
        },
        reading: Reading {
            format: Some("combined".into()),
            ..Reading::default()
        },
        slowest: None,
        confined: crate::sys::sandbox::Confined::default(),
    }
}

/// Twelve sites, thirty bans, a sick worker.
pub(in crate::cli) fn busy_host() -> Status {
    let mut bans: Vec<BanStatus> = (0..27)
        .map(|n| ban(n, &format!("198.51.100.{}", 10 + n)))
        .collect();
    bans.push(ban(27, "2001:db8:a000:1::/64"));
    let mut proxied = ban(28, "203.0.113.200");
    proxied.in_force = None;
    proxied.behind = Some("192.0.2.7".parse().unwrap());
    bans.push(proxied);
    let mut by_hand = ban(29, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff");
    by_hand.cause = "manual".into();
    by_hand.reason = Some("abuse reported by the provider".into());
    by_hand.rule = None;
    by_hand.request = None;
    let mut both = ban(2, "198.51.100.12");
    both.rule = Some("apache-auth (apache-auth.conf:31)".into());
    let mut workers: Vec<WorkerStatus> = (0..12)
        .flat_map(|n| [worker(n, Kind::Access), worker(n, Kind::Error)])
        .collect();
    let sick = &mut workers[4];
    sick.counters.shed = 4_711;
    sick.counters.unparsed = 60_000;
    sick.reading.unparsed_lines = vec![Unread {
        line: 5,
        begins: r#"{"ip":"203.0.113.9","agent":"Mozilla/5.0 (X11; Linux x86_64)"#.into(),
        why: "it is not of the format `combined`".into(),
    }];
    let mut watched = jail("apache-scanners", Vec::new());
    watched.enforce = false;
    watched.currently_observed = 1;
    watched.observed = vec![ban(1, "203.0.113.77")];
    Status {
        engine: EngineStatus {
            pid: 422,
            since: "2026-11-29T05:17:54Z".parse().unwrap(),
            version: "0.1.0".into(),
            config: "e68644c3e4906bf7".into(),
            backend: "ufw".into(),
            off: None,
            apache_ports: vec![80, 443, 8443],
        },
        workers,
        jails: vec![
            jail("apache-attacks", bans),
            jail("apache-auth", vec![both]),
            jail("apache-badbots", Vec::new()),
            jail("apache-noscript", Vec::new()),
            watched,
            jail("manual", vec![by_hand]),
        ],
        failing: Vec::new(),
        warnings: vec![
            "worker 4702 of the access log passed 4711 lines on without matching them: it was \
             behind, or crashed on them; filter `apache-attacks` takes 80 % of the time, 900 ns a \
             line"
                .into(),
        ],
    }
}

fn shown(view: &View, status: &Status) -> String {
    let (problems, bans, rest) = view.parts(status);
    [problems, bans, rest].join("\n\n") + "\n"
}

#[test]
fn a_busy_host_fits_80_columns_and_no_word_is_broken() {
    let text = shown(&view(80, false), &busy_host());
    for line in text.lines() {
        assert!(length(line) <= 80, "{line}");
        assert_eq!(line, line.trim_end());
    }
    assert_eq!(text, include_str!("busy_host.txt"));
}

#[test]
fn elsewhere_a_client_and_its_cause_are_one_line() {
    let text = shown(&view(usize::MAX, true), &busy_host());
    let line = text.lines().find(|line| line.starts_with("198.51.100.11 "));
    let line = line.expect("shown");
    for part in [
        "b1 ufw: present",
        "GET /cgi-bin/",
        "command-injection",
        "yes",
    ] {
        assert!(line.contains(part), "{line}");
    }
    // With -v all that is healthy or idle too.
    assert_eq!(text.matches("\nworker ").count(), 24);
    assert!(text.contains("apache-badbots "), "{text}");
}

#[test]
fn many_jails_of_one_client_are_counted() {
    let names = ["a", "apache-command-injection", "b", "c", "d"];
    let jails = (0..).zip(names).map(|(n, name)| {
        let since = NOW.parse::<Timestamp>().unwrap() - jiff::SignedDuration::from_secs(n % 2);
        let ban = BanStatus {
            since,
            ..ban(1, "198.51.100.11")
        };
        jail(name, vec![ban])
    });
    let status = Status {
        jails: jails.collect(),
        warnings: Vec::new(),
        ..busy_host()
    };
    let of = |view: &View| {
        let (_, bans, _) = view.parts(&status);
        let lines = bans.lines().skip(2);
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let short = of(&view(80, false));
    assert!(short[0].ends_with("  a and 4 more"), "{short:#?}");
    assert_eq!(short.len(), 2, "{short:#?}");
    for whole in [of(&view(80, true)), of(&view(usize::MAX, false))] {
        let whole = whole.join(" ");
        assert!(names.iter().all(|name| whole.contains(name)), "{whole}");
    }
}

#[test]
fn a_client_is_as_well_off_as_its_worst_ban() {
    let name: JailName = "a".parse().unwrap();
    let of = |in_force, behind: Option<&str>| BanStatus {
        in_force,
        behind: behind.map(|peer| peer.parse().unwrap()),
        ..ban(1, "192.0.2.1")
    };
    let peer = Some("192.0.2.7");
    for (bans, expected) in [
        (vec![of(Some(true), None)], "yes"),
        (vec![of(Some(true), None), of(Some(false), None)], "NO"),
        (vec![of(Some(true), peer)], "403 by Apache"),
        (
            vec![of(None, peer), of(Some(true), None)],
            "no: behind 192.0.2.7",
        ),
        (vec![of(None, None)], "-"),
    ] {
        let bans: Vec<_> = bans.iter().map(|ban| (&name, ban)).collect();
        assert_eq!(in_force(&bans), expected);
    }
}

#[test]
fn a_ban_by_hand_says_so_once() {
    let name: JailName = "manual".parse().unwrap();
    for (reason, expected) in [
        (None, "by hand"),
        (Some("abuse"), "by hand: abuse"),
        (Some("by hand"), "by hand"),
        (Some("by hand: abuse"), "by hand: abuse"),
    ] {
        let ban = BanStatus {
            cause: "manual".into(),
            reason: reason.map(str::to_owned),
            rule: None,
            request: None,
            ..ban(1, "192.0.2.1")
        };
        assert_eq!(cause(&name, &ban, false).unwrap().line(), expected);
    }
}

#[test]
fn times_are_short() {
    let view = view(80, false);
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    for (until, expected) in [
        ("2026-11-30T12:00:42Z", "42s left"),
        ("2026-11-30T12:58:59Z", "58m left"),
        ("2026-11-30T14:03:00Z", "2h 3m left"),
        ("2026-12-06T11:00:00Z", "5d 23h left"),
        ("2027-11-29T11:00:00Z", "363d left"),
        ("2026-11-30T11:59:59Z", "0s left"),
    ] {
        assert_eq!(left(at(until), view.now), expected);
    }
    for (since, expected) in [
        ("2026-11-30T00:03:00Z", "00:03"),
        ("2026-11-29T23:03:00Z", "Nov 29 23:03"),
        ("2025-11-29T23:03:00Z", "2025-11-29"),
    ] {
        assert_eq!(view.time(at(since)), expected);
    }
}
