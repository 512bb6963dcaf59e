//! One fact after the other: which reason comes first.

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;
use crate::config::{JailName, Ports};
use crate::host_commands::HostCommands;
use crate::jail::{self, Cause};
use crate::record::Kind;

const NOW: i64 = 1_800_000_000;

fn at(ago: i64) -> Timestamp {
    Timestamp::from_second(NOW - ago).unwrap()
}

fn jail() -> JailName {
    "apache-auth".parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A host with one jail, an engine, pipeban's table, and a log without the client.
fn facts() -> Facts {
    Facts {
        host: net("198.51.100.7/32"),
        now: at(0),
        zone: TimeZone::UTC,
        commands: HostCommands::default(),
        engine: Engine::Running,
        database: None,
        off: None,
        dry_run: false,
        bans: Vec::new(),
        past: Vec::new(),
        counters: Vec::new(),
        exempt: Vec::new(),
        enabled: vec![jail()],
        crawler: None,
        shared: false,
        ufw: UfwFact {
            used: true,
            installed: true,
            enabled: true,
            ipv6: true,
        },
        table: true,
        max_rules: 500,
        apache_ports: vec![80, 443],
        unpiped: Vec::new(),
        workers: Vec::new(),
        logs: vec![log(Origin::Worker)],
    }
}

fn ban(in_force: bool) -> BanFact {
    BanFact {
        id: "b1".into(),
        jail: jail(),
        net: net("198.51.100.7/32"),
        ports: Ports::List {
            tcp: [80, 443].into(),
            udp: [443].into(),
        },
        since: at(600),
        until: Some(at(-3_000)),
        failures: 5,
        within: Duration::from_secs(41),
        cause: Cause::Jail,
        observed: false,
        behind: None,
        ended: None,
        lines: Vec::new(),
        answered: false,
        in_force: None,
        ufw: None,
        backends: vec![BackendFact {
            name: "pipeban's nftables table".into(),
            in_force: Some(in_force),
            trouble: None,
        }],
        accepted: None,
        forwarded: None,
    }
}

fn log(origin: Origin) -> LogFact {
    LogFact {
        name: "/var/log/apache2/error.log".into(),
        kind: Kind::Error,
        origin,
        trouble: None,
        skipped: 0,
        lines: 0,
        last: None,
        matched: 0,
        unparsed: None,
        hits: Vec::new(),
        misses: Vec::new(),
        evidence: Vec::new(),
    }
}

/// So many hits, the last one so long ago.
fn hits(origin: Origin, lines: u32, most: u32, ago: i64) -> LogFact {
    LogFact {
        lines: lines.into(),
        matched: lines.into(),
        last: Some(at(ago)),
        hits: vec![HitFact {
            jail: jail(),
            lines: lines.into(),
            pattern: "pattern 1".into(),
            last: Some(at(ago)),
            most,
            maxretry: 5,
            weight: lines,
            findtime: Duration::from_secs(600),
            banned: (most >= 5).then(|| at(ago)),
            forged: 0,
            spared: false,
            enforce: true,
        }],
        ..log(origin)
    }
}

fn miss(why: Why) -> Vec<LogFact> {
    let misses = vec![MissFact {
        lines: 1,
        line: "a line".into(),
        why,
    }];
    vec![LogFact {
        lines: 1,
        last: Some(at(10)),
        misses,
        ..log(Origin::Worker)
    }]
}

fn counter(weights: &[(i64, u32)]) -> CounterFact {
    CounterFact {
        jail: jail(),
        net: net("198.51.100.7/32"),
        hits: weights
            .iter()
            .map(|(ago, weight)| (at(*ago), *weight))
            .collect(),
        maxretry: 5,
        findtime: Duration::from_secs(600),
        enforce: true,
    }
}

fn exempt(why: jail::Why) -> Vec<ExemptFact> {
    let entry = net("198.51.100.0/24");
    vec![ExemptFact {
        jail: jail(),
        reason: jail::Reason { why, entry },
        place: Some("/etc/pipeban/pipeban.toml:3".into()),
    }]
}

fn ended(ago: i64, end: &str) -> Vec<BanFact> {
    vec![BanFact {
        ended: Some((at(ago), end.to_owned())),
        ..ban(false)
    }]
}

fn alone(change: impl FnOnce(&mut UfwFact), ban: BanFact) -> Facts {
    let mut facts = Facts {
        table: false,
        bans: vec![ban],
        ..facts()
    };
    change(&mut facts.ufw);
    facts
}

#[test]
fn an_unconfirmed_ban_says_so_while_it_lasts_and_after() {
    let unconfirmed = |ended| BanFact {
        cause: Cause::Unconfirmed,
        ended,
        ..ban(true)
    };
    let active = explain(&Facts {
        bans: vec![unconfirmed(None)],
        ..facts()
    });
    let codes: Vec<Code> = active.reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(codes, [Code::Banned, Code::Unconfirmed]);
    let over = explain(&Facts {
        past: vec![unconfirmed(Some((at(10), "over".into())))],
        ..facts()
    });
    let first = &over.reasons[0];
    assert_eq!(first.code, Code::Expired);
    assert!(
        first.text.contains("in 41s, unconfirmed)"),
        "{}",
        first.text
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn the_reason_that_matters_most_comes_first() {
    let bans = |in_force| vec![ban(in_force)];
    let passage = || Some((80, "-A INPUT -j ACCEPT".to_owned()));
    let jail_of = jail;
    let stop = Off {
        since: at(60),
        until: None,
    };
    let v6 = || BanFact {
        net: net("2001:db8::/64"),
        ..ban(false)
    };
    let table: Vec<(Facts, Code, Option<bool>)> = vec![
        (facts(), Code::NotSeen, Some(false)),
        (
            Facts {
                bans: bans(true),
                ..facts()
            },
            Code::Banned,
            Some(true),
        ),
        (
            Facts {
                bans: bans(false),
                ..facts()
            },
            Code::FirewallMissing,
            Some(false),
        ),
        (
            Facts {
                bans: bans(true),
                off: Some(stop),
                ..facts()
            },
            Code::Paused,
            Some(false),
        ),
        (
            Facts {
                off: Some(stop),
                ..facts()
            },
            Code::Paused,
            Some(false),
        ),
        (
            Facts {
                off: Some(stop),
                exempt: exempt(jail::Why::Own),
                ..facts()
            },
            Code::OwnAddress,
            Some(false),
        ),
        // The exempt entry is in these networks.
        (
            Facts {
                host: net("198.51.0.0/16"),
                exempt: exempt(jail::Why::Own),
                ..facts()
            },
            Code::NotSeen,
            Some(false),
        ),
        (
            Facts {
                host: net("0.0.0.0/0"),
                exempt: exempt(jail::Why::Own),
                ..facts()
            },
            Code::TooWide,
            Some(false),
        ),
        (
            Facts {
                host: net("::/0"),
                bans: bans(true),
                ..facts()
            },
            Code::Banned,
            Some(true),
        ),
        (
            Facts {
                bans: bans(false),
                dry_run: true,
                ..facts()
            },
            Code::ObserveOnly,
            Some(false),
        ),
        (
            Facts {
                bans: vec![BanFact {
                    observed: true,
                    ..ban(false)
                }],
                ..facts()
            },
            Code::ObserveOnly,
            Some(false),
        ),
        (
            Facts {
                bans: vec![BanFact {
                    backends: Vec::new(),
                    ..ban(false)
                }],
                ..facts()
            },
            Code::Unknown,
            None,
        ),
        (
            Facts {
                bans: vec![BanFact {
                    backends: Vec::new(),
                    behind: "192.0.2.7".parse().ok(),
                    ..ban(false)
                }],
                ..facts()
            },
            Code::BehindProxy,
            None,
        ),
        // ufw alone.
        (
            alone(|ufw| ufw.enabled = false, ban(false)),
            Code::UfwInactive,
            Some(false),
        ),
        (
            alone(|ufw| ufw.installed = false, ban(false)),
            Code::UfwInactive,
            Some(false),
        ),
        (
            alone(|ufw| ufw.ipv6 = false, v6()),
            Code::Ipv6Off,
            Some(false),
        ),
        (
            alone(|ufw| ufw.ipv6 = false, ban(true)),
            Code::Banned,
            Some(true),
        ),
        (
            alone(
                |_| {},
                BanFact {
                    accepted: passage(),
                    ..ban(true)
                },
            ),
            Code::RuleShadowed,
            Some(false),
        ),
        (
            alone(
                |_| {},
                BanFact {
                    forwarded: passage(),
                    ..ban(true)
                },
            ),
            Code::ForwardedPort,
            Some(false),
        ),
        (
            alone(
                |_| {},
                BanFact {
                    ufw: Some("capped".into()),
                    ..ban(false)
                },
            ),
            Code::FirewallMissing,
            Some(false),
        ),
        // With pipeban's table none of that matters.
        (
            Facts {
                bans: vec![BanFact {
                    accepted: passage(),
                    ..ban(true)
                }],
                ..facts()
            },
            Code::Banned,
            Some(true),
        ),
        // A port that stays open matters if the client used it.
        (
            Facts {
                bans: bans(true),
                apache_ports: vec![80, 8443],
                ..facts()
            },
            Code::Banned,
            Some(true),
        ),
        (
            Facts {
                bans: bans(true),
                apache_ports: vec![80, 8443],
                logs: vec![hits(Origin::Worker, 1, 1, 60)],
                ..facts()
            },
            Code::OtherPort,
            Some(true),
        ),
        // Exemptions.
        (
            Facts {
                exempt: exempt(jail::Why::IgnoreIp),
                ..facts()
            },
            Code::AllowListed,
            Some(false),
        ),
        (
            Facts {
                exempt: exempt(jail::Why::AllowList),
                ..facts()
            },
            Code::AllowListed,
            Some(false),
        ),
        (
            Facts {
                exempt: exempt(jail::Why::TrustedProxy),
                ..facts()
            },
            Code::TrustedProxy,
            Some(false),
        ),
        (
            Facts {
                exempt: exempt(jail::Why::Private),
                ..facts()
            },
            Code::PrivateRange,
            Some(false),
        ),
        (
            // Another jail may ban it, and has no hit.
            Facts {
                exempt: exempt(jail::Why::IgnoreIp),
                enabled: vec![jail(), "b".parse().unwrap()],
                ..facts()
            },
            Code::NotSeen,
            Some(false),
        ),
        // Counters.
        (
            Facts {
                counters: vec![counter(&[(30, 1), (20, 1)])],
                ..facts()
            },
            Code::BelowMaxretry,
            Some(false),
        ),
        (
            Facts {
                counters: vec![counter(&[(3_000, 1)])],
                ..facts()
            },
            Code::NotSeen,
            Some(false),
        ),
        (
            Facts {
                counters: vec![counter(&[(30, 4)])],
                shared: true,
                ..facts()
            },
            Code::SharedAddress,
            Some(false),
        ),
        // Earlier bans.
        (
            Facts {
                past: ended(100, "over"),
                ..facts()
            },
            Code::Expired,
            Some(false),
        ),
        (
            Facts {
                past: ended(100, "by hand"),
                ..facts()
            },
            Code::Unbanned,
            Some(false),
        ),
        (
            Facts {
                past: ended(100, "over"),
                logs: vec![hits(Origin::Worker, 5, 5, 200)],
                ..facts()
            },
            Code::Expired,
            Some(false),
        ),
        (
            Facts {
                past: ended(100, "over"),
                counters: vec![counter(&[(5, 1)])],
                logs: vec![hits(Origin::Worker, 1, 1, 5)],
                ..facts()
            },
            Code::BelowMaxretry,
            Some(false),
        ),
        // Hits in logs that do not count.
        (
            Facts {
                logs: vec![hits(Origin::Worker, 2, 2, 5_000)],
                ..facts()
            },
            Code::BelowMaxretry,
            Some(false),
        ),
        (
            Facts {
                logs: vec![hits(Origin::Worker, 9, 2, 5_000)],
                ..facts()
            },
            Code::OutsideFindtime,
            Some(false),
        ),
        (
            Facts {
                logs: vec![hits(Origin::Worker, 1, 1, 5)],
                ..facts()
            },
            Code::WrittenByHand,
            Some(false),
        ),
        (
            Facts {
                logs: vec![hits(Origin::Worker, 5, 5, 5_000)],
                ..facts()
            },
            Code::WrittenByHand,
            Some(false),
        ),
        (
            Facts {
                logs: vec![hits(Origin::Unpiped, 5, 5, 5)],
                ..facts()
            },
            Code::LogNotPiped,
            Some(false),
        ),
        (
            Facts {
                logs: vec![hits(Origin::Configured, 5, 5, 5)],
                ..facts()
            },
            Code::LogNotPiped,
            Some(false),
        ),
        (
            Facts {
                logs: vec![hits(Origin::Worker, 5, 5, 5)],
                engine: Engine::Stopped,
                ..facts()
            },
            Code::EngineStopped,
            Some(false),
        ),
        (
            Facts {
                engine: Engine::Stopped,
                ..facts()
            },
            Code::NotSeen,
            Some(false),
        ),
        (
            Facts {
                logs: vec![hits(Origin::Worker, 5, 5, 5)],
                workers: vec![WorkerFact {
                    log: "`x`".into(),
                    matching: false,
                    shed: 0,
                    unsent: 0,
                }],
                ..facts()
            },
            Code::LinesDropped,
            Some(false),
        ),
        // Lines without a hit.
        (
            Facts {
                logs: miss(Why::Near(None)),
                ..facts()
            },
            Code::NoMatch,
            Some(false),
        ),
        (
            Facts {
                logs: miss(Why::Spoof {
                    jail: jail_of(),
                    client: None,
                    named: None,
                }),
                ..facts()
            },
            Code::Spoof,
            Some(false),
        ),
        (
            Facts {
                logs: miss(Why::Vhost {
                    jail: jail_of(),
                    vhost: None,
                }),
                ..facts()
            },
            Code::WrongVhost,
            Some(false),
        ),
        (
            Facts {
                logs: miss(Why::Disabled {
                    jail: jail_of(),
                    place: None,
                }),
                ..facts()
            },
            Code::JailDisabled,
            Some(false),
        ),
        (
            Facts {
                logs: miss(Why::OtherLog {
                    jail: jail_of(),
                    reads: Kind::Access,
                }),
                ..facts()
            },
            Code::WrongLog,
            Some(false),
        ),
        (
            Facts {
                logs: miss(Why::NotReloaded { jail: jail_of() }),
                ..facts()
            },
            Code::NotReloaded,
            Some(false),
        ),
        (
            Facts {
                logs: vec![LogFact {
                    unparsed: Some((3, "no client".into())),
                    ..log(Origin::Worker)
                }],
                ..facts()
            },
            Code::Unparsed,
            Some(false),
        ),
        (
            Facts {
                unpiped: vec!["the access log of a".into()],
                ..facts()
            },
            Code::LogNotPiped,
            Some(false),
        ),
    ];
    for (number, (facts, code, in_force)) in table.into_iter().enumerate() {
        let answer = explain(&facts);
        assert_eq!(answer.reasons[0].code, code, "{number}: {answer:#?}");
        assert_eq!(answer.in_force, in_force, "{number}: {answer:#?}");
    }
}

#[test]
fn a_counter_says_how_far_and_until_when() {
    let counters = vec![counter(&[(700, 1), (500, 1), (100, 2)])];
    let answer = explain(&Facts {
        counters,
        ..facts()
    });
    let text = &answer.reasons[0].text;
    assert!(text.contains("counts 3 of 5"), "{text}");
    assert!(text.contains("2 more lead to a ban"), "{text}");
    // 100 s before the first hit in the window is ten minutes old.
    assert!(
        text.contains("stops counting at 2027-01-15 08:01:40"),
        "{text}"
    );
}

#[test]
fn a_ban_says_who_when_and_why() {
    for (cause, words) in [
        (
            Cause::Jail,
            "jail `apache-auth` banned 198.51.100.7 at 2027-01-15 07:50:00, for 1h, until 2027-01-15 08:50:00 (5 counted in 41s)",
        ),
        (
            Cause::Manual(Some("by phone".into())),
            "an administrator banned 198.51.100.7",
        ),
        (
            Cause::Imported(None),
            "an imported list banned 198.51.100.7",
        ),
        (
            Cause::Adopted,
            "the firewall had, when the engine started, a ban of 198.51.100.7",
        ),
    ] {
        let bans = vec![BanFact { cause, ..ban(true) }];
        let text = explain(&Facts { bans, ..facts() }).reasons[0].text.clone();
        assert!(
            text.contains(words) && text.contains("`pipeban unban b1` lifts it"),
            "{text}"
        );
    }
}

#[test]
fn the_words_of_codes_differ() {
    // Every code of the contract.
    for word in [
        "banned",
        "below-maxretry",
        "unconfirmed",
        "outside-findtime",
        "allow-listed",
        "own-address",
        "not-seen",
        "log-not-piped",
        "no-match",
        "spoof",
        "jail-disabled",
        "wrong-vhost",
        "observe-only",
        "paused",
        "expired",
        "unbanned",
        "firewall-missing",
        "ufw-inactive",
        "rule-shadowed",
        "other-port",
        "forwarded-port",
        "behind-proxy",
        "trusted-proxy",
        "shared-address",
    ] {
        let found = Code::ALL.iter().filter(|code| code.word() == word).count();
        assert_eq!(found, 1, "{word}");
    }
}
