mod reference;
mod transfer;

use super::jails::manual_jail;
use super::*;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::config::{
    Backend, Config, Firewall, Increment, Jail, JailName, Log, Paths, Ports, StoreSettings, Syslog,
};
use proptest::prelude::*;

fn jail() -> Jail {
    Jail {
        enabled: true,
        enforce: true,
        log: Log::Error,
        filter: "f".into(),
        maxretry: 3,
        findtime: Duration::from_secs(600),
        bantime: Some(Duration::from_secs(3_600)),
        port: Ports::All,
        ignoreip: vec!["198.51.100.0/24".parse().unwrap()],
        ipv6_prefix: 64,
        ignore_files: Vec::new(),
        ignore_names: Vec::new(),
        ignoreself: true,
        ipv4_prefix: 32,
        ban_private: false,
        weight: 1,
        bans_per_minute: 300,
        vhost: vec![],
        not_vhost: vec![],
        trap: vec![],
        except: String::new(),
        search_engines: crate::config::SearchEngines::Spare,
        increment: None,
        hooks: crate::config::Hooks::default(),
    }
}

fn at_once() -> Jail {
    Jail {
        maxretry: 1,
        ..jail()
    }
}

fn doubling() -> Increment {
    Increment {
        factor: None,
        multipliers: vec![],
        maxtime: Duration::from_secs(10_000),
        rndtime: Duration::ZERO,
        overalljails: false,
        memory: Duration::from_secs(100_000),
    }
}

fn config(jails: &[(&str, Jail)]) -> Config {
    Config {
        paths: Paths::default(),
        firewall: Firewall {
            backend: vec![Backend::DryRun],
            ..Firewall::default()
        },
        syslog: Syslog::default(),
        store: StoreSettings::default(),
        metrics: Default::default(),
        trusted_proxies: vec![],
        search_engines: vec![],
        defaults: jail(),
        jails: jails
            .iter()
            .map(|(name, jail)| (name.parse().unwrap(), jail.clone()))
            .collect(),
        filters: Default::default(),
        warnings: Vec::new(),
    }
}

fn at(seconds: i64) -> Now {
    Now {
        boot: Moment::from_nanos(seconds * 1_000_000_000),
        wall: Timestamp::from_second(1_800_000_000 + seconds).unwrap(),
    }
}

fn exempt() -> Exempt {
    let entry = |net: &str, why| (net.parse().unwrap(), why);
    Exempt::new([
        entry("192.0.2.1/32", Why::Own),
        entry("2001:db8:0:1::1/128", Why::Own),
        entry("192.0.2.254/32", Why::Gateway),
        entry("192.0.2.53/32", Why::NameServer),
        entry("192.0.2.128/28", Why::TrustedProxy),
        entry("203.0.113.200/32", Why::AllowList),
        entry("2001:db8:0:2::5/128", Why::AllowList),
    ])
}

/// A hit that counts 1, by a client of its own.
fn plain_hit<'a>(jail: &'a JailName, client: &str, second: i64) -> Hit<'a> {
    Hit {
        weight: 1,
        jail,
        client: client.parse().unwrap(),
        peer: None,
        claim: Claim::None,
        forgeable: false,
        unproven: false,
        arrived: at(second).boot,
        spoofable: false,
        surge: false,
    }
}

/// Lets `client` hit `jail` once; the actions in words.
fn hit(jails: &mut Jails, jail: &str, client: &str, second: i64) -> Vec<String> {
    hit_behind(jails, jail, client, None, second)
}

fn hit_behind(
    jails: &mut Jails,
    jail: &str,
    client: &str,
    peer: Option<&str>,
    second: i64,
) -> Vec<String> {
    let jail = jail.parse().unwrap();
    let hit = Hit {
        peer: peer.map(|peer| peer.parse().unwrap()),
        ..plain_hit(&jail, client, second)
    };
    let observed = jails.observe(&hit, at(second), &exempt());
    observed.actions.iter().map(short).collect()
}

fn short(action: &Action) -> String {
    match action {
        Action::Found { count, .. } => format!("found {count}"),
        Action::Ban(ban) => format!(
            "{} {} {}",
            match ban.mode {
                Mode::Enforced => "ban",
                Mode::Observed => "would-ban",
                Mode::Behind(_) => "behind",
                Mode::Proxied(_) => "proxied",
            },
            ban.net,
            ban.length().map_or(-1, |time| time.as_secs() as i64)
        ),
        Action::Confirmed(ban) => format!(
            "confirmed {} {}",
            ban.net,
            ban.length().map_or(-1, |time| time.as_secs() as i64)
        ),
        Action::Restore(ban) => format!("restore {}", ban.net),
        Action::Unban { ban, .. } => format!("unban {}", ban.net),
        Action::AlreadyBanned { net, .. } => format!("already {net}"),
        Action::Ignore { reason, .. } => format!("ignore {}", reason.why.word()),
        Action::Spared { .. } => "spared".into(),
        Action::NoSuchJail => "no-such-jail".into(),
    }
}

#[test]
fn manual_is_a_jail_name() {
    assert_eq!(manual_jail().as_str(), crate::config::MANUAL_JAIL);
}

#[test]
fn the_hit_that_reaches_maxretry_bans_and_later_ones_are_already_banned() {
    let mut jails = Jails::new(&config(&[("a", jail())]));
    assert_eq!(hit(&mut jails, "a", "203.0.113.9", 0), ["found 1"]);
    assert_eq!(hit(&mut jails, "a", "::ffff:203.0.113.9", 1), ["found 2"]);
    assert_eq!(
        hit(&mut jails, "a", "203.0.113.9", 2),
        ["found 3", "ban 203.0.113.9/32 3600"]
    );
    assert_eq!(
        hit(&mut jails, "a", "203.0.113.9", 3),
        ["already 203.0.113.9/32"]
    );
    assert_eq!(jails.expire(at(3_601)), []);
    assert_eq!(jails.expire(at(3_602)).len(), 1);
    assert_eq!(hit(&mut jails, "a", "203.0.113.9", 3_603), ["found 1"]);
    let totals = Totals {
        failed: 5,
        banned: 1,
    };
    assert_eq!(jails.totals(&"a".parse().unwrap()), totals);
}

#[test]
fn an_exempt_client_is_ignored_with_the_rule_that_says_so() {
    let mut jails = Jails::new(&config(&[("a", at_once())]));
    for (client, expected) in [
        ("198.51.100.7", "ignore ignoreip"),
        ("203.0.113.200", "ignore allow-list"),
        ("192.0.2.1", "ignore own-address"),
        ("127.0.0.2", "ignore own-address"),
        ("::1", "ignore own-address"),
        ("::ffff:192.0.2.1", "ignore own-address"),
        ("192.0.2.254", "ignore gateway"),
        ("192.0.2.53", "ignore name-server"),
        ("192.0.2.130", "ignore trusted-proxy"),
        ("10.1.2.3", "ignore private-range"),
        ("100.64.0.1", "ignore private-range"),
        ("fe80::1", "ignore private-range"),
        ("fd00::1", "ignore private-range"),
        ("0.0.0.0", "ignore reserved-range"),
        ("255.255.255.255", "ignore reserved-range"),
        ("ff02::1", "ignore reserved-range"),
        // the /64 of an address of the host and of an allow-listed one: narrowed
        ("2001:db8:0:1::1", "ignore own-address"),
        ("2001:db8:0:1::2", "ban 2001:db8:0:1::2/128 3600"),
        ("2001:db8:0:2::6", "ban 2001:db8:0:2::6/128 3600"),
        ("2001:db8:0:3::6", "ban 2001:db8:0:3::/64 3600"),
        ("64:ff9b::203.0.113.8", "ban 64:ff9b::cb00:7108/128 3600"),
        (
            "64:ff9b:1::203.0.113.8",
            "ban 64:ff9b:1::cb00:7108/128 3600",
        ),
    ] {
        let words = hit(&mut jails, "a", client, 0);
        assert_eq!(words.last().map(String::as_str), Some(expected), "{client}");
    }
}

#[test]
fn private_ranges_may_be_banned_where_the_jail_says_so() {
    let lab = Jail {
        maxretry: 1,
        ban_private: true,
        ..jail()
    };
    let mut jails = Jails::new(&config(&[("a", lab)]));
    assert_eq!(
        hit(&mut jails, "a", "10.1.2.3", 0)[1],
        "ban 10.1.2.3/32 3600"
    );
    assert_eq!(hit(&mut jails, "a", "127.0.0.1", 0), ["ignore own-address"]);
}

#[test]
fn repeated_bans_get_longer_up_to_maxtime_and_are_forgotten() {
    let increment = doubling();
    let repeat = Jail {
        maxretry: 1,
        increment: Some(increment),
        ..jail()
    };
    let mut jails = Jails::new(&config(&[("a", repeat)]));
    let mut lengths = Vec::new();
    for second in [0, 20_000, 40_000, 60_000, 170_000] {
        jails.expire(at(second));
        lengths.push(hit(&mut jails, "a", "203.0.113.9", second)[1].clone());
    }
    let expected = [3_600, 7_200, 10_000, 10_000, 3_600];
    assert_eq!(
        lengths,
        expected.map(|time| format!("ban 203.0.113.9/32 {time}"))
    );
    jails.unban(None, None);
    jails.forget(Some("203.0.113.9/32".parse().unwrap()), None);
    assert_eq!(
        hit(&mut jails, "a", "203.0.113.9", 170_001)[1],
        "ban 203.0.113.9/32 3600"
    );
}

#[test]
fn a_permanent_ban_stays_permanent_and_a_shared_address_gets_a_short_one() {
    let increment = doubling();
    let at_once = Jail {
        maxretry: 1,
        bantime: None,
        increment: Some(increment),
        ..jail()
    };
    let slow = Jail {
        maxretry: 2,
        ..jail()
    };
    let mut jails = Jails::new(&config(&[("at-once", at_once), ("slow", slow)]));
    assert_eq!(
        hit(&mut jails, "at-once", "203.0.113.1", 0)[1],
        "ban 203.0.113.1/32 -1"
    );
    jails.learn_shared("203.0.113.2".parse().unwrap(), at(0));
    assert_eq!(
        hit(&mut jails, "at-once", "203.0.113.2", 1)[1],
        "ban 203.0.113.2/32 600"
    );
    assert_eq!(hit(&mut jails, "slow", "203.0.113.2", 1), ["found 1"]);
    assert_eq!(
        hit(&mut jails, "slow", "203.0.113.2", 1),
        ["found 2", "spared"]
    );
    assert_eq!(hit(&mut jails, "slow", "203.0.113.2", 1), ["found 3"]);
    let later = 3_601;
    assert_eq!(hit(&mut jails, "slow", "203.0.113.2", later), ["found 1"]);
    assert_eq!(
        hit(&mut jails, "slow", "203.0.113.2", later)[1],
        "ban 203.0.113.2/32 3600"
    );
}

#[test]
fn a_shared_address_needs_five_times_as_many_hits_and_is_banned_for_an_hour_at_most() {
    let slow = || Jail {
        maxretry: 5,
        bantime: None,
        increment: Some(doubling()),
        ..jail()
    };
    let heavy = || Jail {
        weight: 4,
        ..slow()
    };
    let quick = || Jail {
        maxretry: 5,
        bantime: Some(Duration::from_secs(60)),
        ..jail()
    };
    let config = config(&[("slow", slow()), ("heavy", heavy()), ("quick", quick())]);
    let day = 86_400;
    // jail, when the attacks begin, and the bans, each with the number of its hit
    for (name, begins, expected) in [
        ("slow", vec![0, 700], vec!["25 600", "25 3600"]),
        (
            "slow",
            vec![0, day - 1, 3 * day],
            vec!["25 600", "25 3600", "25 600"],
        ),
        ("heavy", vec![0, 700], vec!["7 600", "7 3600"]),
        ("quick", vec![0, 700], vec!["25 60", "25 60"]),
    ] {
        let mut jails = Jails::new(&config);
        let mut bans = Vec::new();
        for begin in begins {
            jails.expire(at(begin));
            jails.learn_shared("203.0.113.2".parse().unwrap(), at(begin));
            let counted = (1..=500).filter_map(|n| {
                let words = hit(&mut jails, name, "203.0.113.2", begin);
                let ban = words
                    .iter()
                    .find_map(|w| w.strip_prefix("ban 203.0.113.2/32 "));
                ban.map(|length| format!("{n} {length}"))
            });
            bans.extend(counted);
        }
        assert_eq!(bans, expected, "{name}");
    }
    // Ten times `maxretry` in one line.
    let mut jails = Jails::new(&config);
    jails.learn_shared("203.0.113.2".parse().unwrap(), at(0));
    for (client, weight, expected) in [("203.0.113.2", 50, Some(3_600)), ("203.0.113.3", 50, None)]
    {
        let slow = "slow".parse().unwrap();
        let line = Hit {
            weight,
            ..plain_hit(&slow, client, 0)
        };
        let observed = jails.observe(&line, at(0), &exempt());
        let Some(Action::Ban(ban)) = observed.actions.last() else {
            panic!("{observed:?}");
        };
        assert_eq!(ban.length().map(|length| length.as_secs()), expected);
    }
}

#[test]
fn a_claim_that_is_open_counts_without_a_ban_and_a_confirmed_one_does_not_count() {
    let mut jails = Jails::new(&config(&[(
        "a",
        Jail {
            maxretry: 2,
            ..jail()
        },
    )]));
    let name = "a".parse().unwrap();
    let mut say = |claim, second| {
        let hit = Hit {
            claim,
            ..plain_hit(&name, "203.0.113.9", second)
        };
        let observed = jails.observe(&hit, at(second), &exempt());
        let words: Vec<String> = observed.actions.iter().map(short).collect();
        words.join(", ")
    };
    for (claim, second, expected) in [
        (Claim::Open, 0, "found 1"),
        (Claim::Decided, 1, ""),
        (Claim::Open, 2, "found 2"),
        (Claim::Open, 3, "found 3"),
        (Claim::Confirmed, 4, "ignore search-engine"),
        (Claim::Decided, 5, "ban 203.0.113.9/32 3600"),
    ] {
        assert_eq!(say(claim, second), expected, "{claim:?} at {second}");
    }
    assert_eq!(jails.totals(&name).failed, 3);
}

#[test]
fn a_ban_that_a_page_elsewhere_can_provoke_does_not_grow_when_it_is_confirmed() {
    let often = Jail {
        maxretry: 1,
        increment: Some(doubling()),
        ..jail()
    };
    let mut jails = Jails::new(&config(&[("a", often)]));
    let (jail, client) = ("a".parse().unwrap(), "203.0.113.1");
    for second in [0, 4_000, 8_000] {
        jails.expire(at(second));
        let line = Hit {
            unproven: true,
            spoofable: true,
            ..plain_hit(&jail, client, second)
        };
        let _ = jails.observe(&line, at(second), &exempt());
        let confirmed = jails.confirm(client.parse().unwrap(), at(second), &exempt());
        let words: Vec<String> = confirmed.actions.iter().map(short).collect();
        assert_eq!(words, ["confirmed 203.0.113.1/32 3600"], "at {second}");
    }
}

#[test]
fn a_line_that_a_script_may_have_written_bans_for_ten_minutes_until_its_client_is_confirmed() {
    let often = || Jail {
        maxretry: 1,
        increment: Some(doubling()),
        ..jail()
    };
    let recidive = Jail {
        log: Log::Bans,
        maxretry: 2,
        ..jail()
    };
    let mut jails = Jails::new(&config(&[("a", often()), ("r", recidive)]));
    let unproven = |jails: &mut Jails, client: &str, second| {
        let jail = "a".parse().unwrap();
        let line = Hit {
            unproven: true,
            ..plain_hit(&jail, client, second)
        };
        let observed = jails.observe(&line, at(second), &exempt());
        let words: Vec<String> = observed.actions.iter().map(short).collect();
        words[1..].to_vec()
    };
    let confirm = |jails: &mut Jails, client: &str, second| -> Vec<String> {
        let observed = jails.confirm(client.parse().unwrap(), at(second), &exempt());
        observed.actions.iter().map(short).collect()
    };
    // Never confirmed: it does not make later bans longer, and recidive does not count it.
    let (forged, real) = ("203.0.113.1", "203.0.113.2");
    for second in [0, 1_000, 2_000] {
        jails.expire(at(second));
        assert_eq!(
            unproven(&mut jails, forged, second),
            ["ban 203.0.113.1/32 600"]
        );
    }
    assert_eq!(confirm(&mut jails, forged, 2_061), [""; 0], "too late");
    // Confirmed afterwards: the full length from the beginning, which grows and is counted.
    assert_eq!(
        unproven(&mut jails, real, 3_000),
        ["ban 203.0.113.2/32 600"]
    );
    assert_eq!(
        confirm(&mut jails, real, 3_060),
        ["confirmed 203.0.113.2/32 3600", "found 1"]
    );
    assert_eq!(confirm(&mut jails, real, 3_060), [""; 0]);
    // Confirmed before, for 60 seconds.
    jails.unban(None, None);
    assert_eq!(
        unproven(&mut jails, real, 3_120),
        ["ban 203.0.113.2/32 7200", "found 1"]
    );
    jails.unban(None, None);
    assert_eq!(
        unproven(&mut jails, real, 3_121),
        ["ban 203.0.113.2/32 600"]
    );
    // A ban that was lifted meanwhile stays lifted.
    jails.unban(None, None);
    assert_eq!(confirm(&mut jails, real, 3_122), [""; 0]);
}

#[test]
fn a_ban_behind_a_proxy_reaches_the_firewall_when_the_client_connects_directly() {
    let mut jails = Jails::new(&config(&[("a", at_once())]));
    let behind = |jails: &mut Jails, second| {
        hit_behind(jails, "a", "203.0.113.9", Some("192.0.2.7"), second)
    };
    assert_eq!(behind(&mut jails, 0)[1], "behind 203.0.113.9/32 3600");
    assert_eq!(behind(&mut jails, 1), ["already 203.0.113.9/32"]);
    assert_eq!(jails.bans().holds().count(), 0);
    let same = hit_behind(&mut jails, "a", "203.0.113.9", Some("203.0.113.9"), 2);
    assert_eq!(
        same[1..],
        ["unban 203.0.113.9/32", "ban 203.0.113.9/32 3600"]
    );
    assert_eq!(jails.bans().holds().count(), 1);
    assert_eq!(behind(&mut jails, 3), ["already 203.0.113.9/32"]);
}

#[test]
fn the_firewall_blocks_the_clients_of_a_proxy_on_this_host() {
    for (peer, expected) in [
        ("127.0.0.1", "ban 203.0.113.9/32 3600"),
        ("::1", "ban 203.0.113.9/32 3600"),
        ("192.0.2.1", "ban 203.0.113.9/32 3600"),
        ("::ffff:192.0.2.1", "ban 203.0.113.9/32 3600"),
        ("192.0.2.254", "behind 203.0.113.9/32 3600"),
        ("10.0.0.1", "behind 203.0.113.9/32 3600"),
    ] {
        let mut jails = Jails::new(&config(&[("a", at_once())]));
        let actions = hit_behind(&mut jails, "a", "203.0.113.9", Some(peer), 0);
        assert_eq!(actions[1], expected, "{peer}");
    }
}

#[test]
fn a_jail_that_only_observes_has_no_entry_in_the_firewall() {
    let watching = Jail {
        maxretry: 1,
        enforce: false,
        ..jail()
    };
    let mut jails = Jails::new(&config(&[("a", watching)]));
    assert_eq!(
        hit(&mut jails, "a", "203.0.113.9", 0)[1],
        "would-ban 203.0.113.9/32 3600"
    );
    assert_eq!(jails.bans().holds().count(), 0);
    assert_eq!(jails.totals(&"a".parse().unwrap()).banned, 0);
}

#[test]
fn hits_of_unknown_and_disabled_jails_count_for_nothing() {
    let mut jails = Jails::new(&config(&[(
        "off",
        Jail {
            enabled: false,
            ..jail()
        },
    )]));
    for name in ["off", "never-heard-of", "manual"] {
        assert_eq!(hit(&mut jails, name, "203.0.113.9", 0), ["no-such-jail"]);
    }
}

#[test]
fn a_manual_ban_of_an_exempt_address_is_refused_with_the_entry() {
    let mut jails = Jails::new(&config(&[("a", jail())]));
    for (net, entry) in [
        ("203.0.113.200/32", "203.0.113.200/32"),
        ("203.0.113.0/24", "203.0.113.200/32"),
        ("198.51.100.9/32", "198.51.100.0/24"),
        ("192.0.2.1/32", "192.0.2.1/32"),
        ("127.1.1.1/32", "127.0.0.0/8"),
        ("0.0.0.0/0", "198.51.100.0/24"),
        ("::/0", "::1/128"),
        ("::ffff:192.0.2.1/128", "192.0.2.1/32"),
        ("10.0.0.1/32", "10.0.0.0/8"),
        ("11.0.0.0/7", "10.0.0.0/8"),
    ] {
        let answer = jails.ban_by_hand(None, net.parse().unwrap(), None, None, at(0), &exempt());
        match answer {
            Err(Refusal::Exempt(reason)) => assert_eq!(reason.entry.to_string(), entry, "{net}"),
            other => panic!("{net}: {other:?}"),
        }
    }
    let other = Some(&"nope".parse().unwrap());
    let net = "203.0.113.9/32".parse().unwrap();
    assert!(
        jails
            .ban_by_hand(other, net, None, None, at(0), &exempt())
            .is_err()
    );
    let host_bits = "203.0.113.9/27".parse().unwrap();
    let made = jails.ban_by_hand(None, host_bits, Some(None), None, at(0), &exempt());
    assert_eq!(
        made.unwrap().iter().map(short).collect::<Vec<_>>(),
        ["ban 203.0.113.0/27 -1"]
    );
}

#[test]
fn a_manual_ban_is_refused_where_the_network_is_wider_than_a_holder_has() {
    for (net, taken) in [
        ("32.0.0.0/3", false),
        ("52.0.0.0/7", false),
        ("52.0.0.0/8", true),
        ("2600::/18", false),
        ("2600::/19", true),
        ("64:ff9b::/64", false),
        ("64:ff9b::/96", false),
        ("64:ff9b::3400:0/103", false),
        ("64:ff9b:1::/64", false),
        ("64:ff9b::3400:0/104", true),
    ] {
        let mut jails = Jails::new(&config(&[]));
        let answer = jails.ban_by_hand(None, net.parse().unwrap(), None, None, at(0), &exempt());
        match taken {
            true => assert!(answer.is_ok(), "{net}: {answer:?}"),
            false => assert!(
                matches!(answer, Err(Refusal::TooWide(_))),
                "{net}: {answer:?}"
            ),
        }
    }
}

#[test]
fn unban_lifts_bans_inside_the_network_and_the_prefix_around_an_address() {
    let mut jails = Jails::new(&config(&[(
        "a",
        Jail {
            maxretry: 2,
            ..jail()
        },
    )]));
    let bans = ["203.0.113.1", "203.0.113.2", "2001:db8:0:3::9"];
    for (client, _) in bans.iter().flat_map(|c| [(c, 0), (c, 1)]) {
        hit(&mut jails, "a", client, 0);
    }
    hit(&mut jails, "a", "203.0.113.3", 0);
    let mut unban = |net: &str| {
        let (actions, reset) = jails.unban(Some(net.parse().unwrap()), None);
        (actions.len(), reset.len())
    };
    assert_eq!(unban("203.0.113.3/32"), (0, 1));
    assert_eq!(unban("2001:db8:0:3::77/128"), (1, 0));
    assert_eq!(unban("203.0.113.0/24"), (2, 0));
    // a wide IPv4 ban is not lifted by one address in it
    let wide = "203.0.113.0/25".parse().unwrap();
    jails
        .ban_by_hand(None, wide, None, None, at(0), &exempt())
        .unwrap();
    assert_eq!(
        jails.unban(Some("203.0.113.9/32".parse().unwrap()), None).0,
        []
    );
}

#[test]
fn a_saved_ban_that_is_over_or_exempt_is_not_restored() {
    let mut first = Jails::new(&config(&[("a", at_once())]));
    let mut kept = Vec::new();
    for client in ["203.0.113.1", "203.0.113.200", "203.0.113.3"] {
        let jail = "a".parse().unwrap();
        let hit = plain_hit(&jail, client, 0);
        let observed = first.observe(&hit, at(0), &Exempt::new([]));
        kept.extend(
            observed
                .actions
                .into_iter()
                .filter_map(|action| match action {
                    Action::Ban(ban) => Some(ban),
                    _ => None,
                }),
        );
    }
    kept[2].until = Some(at(10).boot);
    let mut again = Jails::new(&config(&[("a", jail())]));
    let actions = again.restore(kept, at(10), &exempt());
    let words: Vec<String> = actions.iter().map(short).collect();
    assert_eq!(
        words,
        [
            "restore 203.0.113.1/32",
            "unban 203.0.113.200/32",
            "unban 203.0.113.3/32"
        ]
    );
    assert_eq!(again.bans().len(), 1);
}

#[test]
fn an_address_exempted_later_is_released() {
    let mut jails = Jails::new(&config(&[("a", at_once())]));
    hit(&mut jails, "a", "203.0.113.9", 0);
    hit(&mut jails, "a", "203.0.113.10", 0);
    let allowed = Exempt::new([("203.0.113.8/31".parse().unwrap(), Why::AllowList)]);
    let words: Vec<String> = jails.release(&allowed).iter().map(short).collect();
    assert_eq!(words, ["unban 203.0.113.9/32"]);
}

#[test]
fn a_ban_outlives_the_configuration_of_its_jail() {
    let mut jails = Jails::new(&config(&[("a", at_once())]));
    hit(&mut jails, "a", "203.0.113.9", 0);
    jails.configure(&config(&[]));
    assert_eq!(hit(&mut jails, "a", "203.0.113.10", 0), ["no-such-jail"]);
    assert_eq!(jails.names().len(), 1);
    assert_eq!(jails.bans().len(), 1);
}

#[test]
fn beyond_the_bound_the_ban_that_ends_first_is_lifted() {
    let config = config(&[("a", at_once())]);
    let mut jails = Jails::bounded(&config, 10, 2);
    for n in 1..=3 {
        let words = hit(&mut jails, "a", &format!("203.0.113.{n}"), n);
        if n == 3 {
            assert_eq!(words[2], "unban 203.0.113.1/32");
        }
    }
    assert_eq!(jails.dropped().1, 1);
}

proptest! {
    /// Whatever the hits, no ban contains an exempt address.
    #[test]
    fn never_bans_an_exempt_address(
        hits in prop::collection::vec((0usize..14, 0u8..4, any::<bool>()), 1..120),
        prefix in 48u8..=128,
    ) {
        let clients = [
            "192.0.2.1", "192.0.2.254", "192.0.2.53", "192.0.2.130", "203.0.113.200",
            "2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::5", "2001:db8:0:2::6",
            "198.51.100.7", "10.0.0.1", "127.0.0.1", "203.0.113.9", "::ffff:203.0.113.200",
        ];
        let rule = Jail { maxretry: 2, ipv6_prefix: prefix, ..jail() };
        let mut jails = Jails::new(&config(&[("a", rule)]));
        let exempt = exempt();
        for (n, (client, step, proxied)) in hits.into_iter().enumerate() {
            let second = n as i64 * i64::from(step);
            hit_behind(&mut jails, "a", clients[client], proxied.then_some("192.0.2.7"), second);
            for ban in jails.bans().iter() {
                prop_assert_eq!(exempt.reason(&jail(), &ban.net), None);
            }
        }
    }
}
