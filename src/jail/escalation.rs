//! How long a repeated ban lasts.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use ipnet::IpNet;

use super::moment::Moment;
use crate::config::Increment;

/// The length of a ban of `net` at `now` after `earlier` bans; at least `bantime`.
pub(super) fn bantime(
    bantime: Duration,
    increment: &Increment,
    earlier: u32,
    (net, now): (IpNet, Moment),
) -> Duration {
    if earlier == 0 {
        return bantime;
    }
    let times = match nth(&increment.multipliers, earlier) {
        Some(multiplier) => increment.factor.unwrap_or(1.0) * f64::from(multiplier),
        None => {
            let exponent = i32::try_from(earlier).unwrap_or(i32::MAX);
            increment.factor.unwrap_or(2.0).powi(exponent)
        }
    };
    let longer = Duration::try_from_secs_f64(bantime.as_secs_f64() * times.max(1.0));
    longer
        .unwrap_or(increment.maxtime)
        .min(increment.maxtime)
        .max(bantime)
        .saturating_add(some_of(increment.rndtime, (net, now)))
}

/// The multiplier after `earlier` bans; the last one applies to all later bans.
fn nth(multipliers: &[u32], earlier: u32) -> Option<u32> {
    let index = usize::try_from(earlier).unwrap_or(usize::MAX);
    multipliers.get(index).or(multipliers.last()).copied()
}

/// A random number of seconds up to `most`: the client does not know the nanosecond of its ban.
fn some_of(most: Duration, what: (IpNet, Moment)) -> Duration {
    let mut hasher = std::hash::DefaultHasher::new();
    what.hash(&mut hasher);
    let seconds = most.as_secs().saturating_add(1);
    Duration::from_secs(hasher.finish() % seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn increment(factor: Option<f64>, multipliers: &[u32], rndtime: u64) -> Increment {
        Increment {
            factor,
            multipliers: multipliers.to_vec(),
            maxtime: Duration::from_secs(10_000),
            rndtime: Duration::from_secs(rndtime),
            overalljails: false,
            memory: Duration::from_secs(86_400),
        }
    }

    fn at(nanos: i64) -> (IpNet, Moment) {
        ("203.0.113.9/32".parse().unwrap(), Moment::from_nanos(nanos))
    }

    #[test]
    fn each_ban_is_longer_by_the_rule_up_to_maxtime() {
        for (factor, multipliers, seconds) in [
            (None, &[][..], [60, 120, 240, 480, 960]),
            (Some(3.0), &[], [60, 180, 540, 1_620, 4_860]),
            (Some(100.0), &[], [60, 6_000, 10_000, 10_000, 10_000]),
            // the first ban has the plain bantime whatever the first multiplier is
            (None, &[7, 5, 30], [60, 300, 1_800, 1_800, 1_800]),
            (Some(2.0), &[1, 5, 30], [60, 600, 3_600, 3_600, 3_600]),
            (None, &[1], [60, 60, 60, 60, 60]),
        ] {
            let increment = increment(factor, multipliers, 0);
            let minute = Duration::from_secs(60);
            let times = [0, 1, 2, 3, 4].map(|n| bantime(minute, &increment, n, at(0)).as_secs());
            assert_eq!(times, seconds, "{factor:?} {multipliers:?}");
        }
    }

    proptest! {
        #[test]
        fn never_shorter_than_bantime_nor_longer_than_maxtime_and_rndtime(
            first in 1u64..1_000_000,
            factor in prop::option::of(1.0..1000.0f64),
            multipliers in prop::collection::vec(1u32..1_000_000, 0..4),
            rndtime in 0u64..1_000,
            earlier: u32,
            nanos: i64,
        ) {
            let first = Duration::from_secs(first);
            let increment = increment(factor, &multipliers, rndtime);
            let time = bantime(first, &increment, earlier, at(nanos));
            prop_assert!(time >= first);
            prop_assert!(time <= increment.maxtime.max(first) + increment.rndtime);
        }
    }

    #[test]
    fn the_random_part_differs_from_ban_to_ban() {
        let increment = increment(None, &[], 600);
        let times: std::collections::BTreeSet<_> = (0..50)
            .map(|n| bantime(Duration::from_secs(60), &increment, 1, at(n)))
            .collect();
        assert!(times.len() > 20);
        assert!(times.iter().all(|time| time.as_secs() >= 120));
    }
}
