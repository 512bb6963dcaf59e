//! Imported bans.

use super::*;

fn offer(host: u8, until: OfferedEnd, behind: bool) -> Offer {
    Offer {
        net: format!("203.0.113.{host}/32").parse().unwrap(),
        jail: "a".parse().unwrap(),
        since: Timestamp::from_second(1_700_000_000).unwrap(),
        until,
        failures: 5,
        reason: None,
        behind: behind.then(|| "192.0.2.7".parse().unwrap()),
    }
}

fn ends_at(seconds: i64) -> OfferedEnd {
    OfferedEnd::At(Some(
        Timestamp::from_second(1_800_000_000 + seconds).unwrap(),
    ))
}

#[test]
fn what_comes_in_pushes_nothing_out() {
    let mut jails = Jails::bounded(&config(&[("a", jail())]), 10, 2);
    let mut take = |host, until| {
        let offer = offer(host, until, false);
        jails.take_in(offer, at(0), &exempt()).unwrap()
    };
    assert!(matches!(take(1, ends_at(100)), Taken::New(_)));
    assert!(matches!(take(2, OfferedEnd::Jail), Taken::New(_)));
    assert_eq!(take(3, OfferedEnd::At(None)), Taken::NoRoom);
    assert!(matches!(take(1, ends_at(200)), Taken::Longer(_)));
    assert_eq!(take(4, ends_at(0)), Taken::Over);
    let hosts: Vec<String> = jails.bans().iter().map(|ban| show_net(&ban.net)).collect();
    assert_eq!(hosts, ["203.0.113.1", "203.0.113.2"]);
}

#[test]
fn no_clock_makes_an_old_ban_a_new_one() {
    let mut jails = Jails::new(&config(&[("a", jail())]));
    for (until, since) in [
        (Timestamp::MIN, Timestamp::MIN),
        (Timestamp::UNIX_EPOCH, Timestamp::MAX),
    ] {
        let offer = Offer {
            since,
            ..offer(1, OfferedEnd::At(Some(until)), false)
        };
        assert_eq!(jails.take_in(offer, at(0), &exempt()), Ok(Taken::Over));
    }
    for since in [Timestamp::MIN, Timestamp::MAX] {
        let offer = Offer {
            since,
            ..offer(1, OfferedEnd::At(Some(Timestamp::MAX)), false)
        };
        let taken = jails.take_in(offer, at(0), &exempt());
        assert!(taken.is_ok(), "{taken:?}");
        let ban = jails.bans().iter().next().unwrap();
        assert!(ban.since <= at(0).boot && ban.since_wall <= at(0).wall);
        jails.unban(None, None);
    }
}

proptest! {
    /// Whatever comes in after whatever: no ban ends earlier, the last offer's end is reached,
    /// a second import changes nothing, and no ban at the firewall becomes one of Apache's.
    #[test]
    fn no_ban_is_shortened(
        steps in prop::collection::vec(
            (1u8..4, prop::option::of(prop::option::of(1i64..5_000)), any::<bool>(), 0i64..500),
            1..30,
        ),
    ) {
        let mut jails = Jails::new(&config(&[("a", jail())]));
        let mut time = 0;
        for (host, until, behind, later) in steps {
            time += later;
            jails.expire(at(time));
            let until = match until {
                None => OfferedEnd::Jail,
                Some(until) => match until {
                    None => OfferedEnd::At(None),
                    Some(until) => ends_at(time + until),
                },
            };
            let offered = offer(host, until, behind);
            let (net, name) = (offered.net, offered.jail.clone());
            let before = jails.bans().get(&name, &net).cloned();
            let taken = jails.take_in(offered.clone(), at(time), &exempt()).unwrap();
            let after = jails.bans().get(&name, &net).cloned().unwrap();
            if let Some(before) = &before {
                let forever = |until: Option<Moment>| until.unwrap_or(Moment::from_nanos(i64::MAX));
                prop_assert!(forever(after.until) >= forever(before.until));
                prop_assert!(before.mode != Mode::Enforced || after.mode == Mode::Enforced);
            }
            match offered.until {
                OfferedEnd::Jail => {}
                OfferedEnd::At(None) => prop_assert_eq!(after.until, None),
                OfferedEnd::At(Some(end)) => {
                    let end = at(time).moment_of(end).minus(Duration::from_secs(1));
                    prop_assert!(after.until.is_none_or(|until| until >= end));
                }
            }
            prop_assert_eq!(matches!(taken, Taken::New(_)), before.is_none());
            let again = jails.take_in(offered, at(time), &exempt()).unwrap();
            prop_assert_eq!(again, Taken::Known);
        }
    }
}
