//! Bans by the minute: too many are an alarm, and are told by their number. They are in force all
//! the same.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::JailName;
use crate::jail::Moment;

/// What is counted together.
const MINUTE: Duration = Duration::from_secs(60);

/// What is told of each ban, unless there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Ban,
    Restore,
    Unban,
}

impl Event {
    fn word(self) -> &'static str {
        match self {
            Event::Ban => "Ban",
            Event::Restore => "Restore Ban",
            Event::Unban => "Unban",
        }
    }
}

#[derive(Debug)]
struct Minute {
    began: Moment,
    limit: u32,
    events: u32,
    untold: u64,
}

/// The running minute of every jail that bans.
#[derive(Debug, Default)]
pub(super) struct Surges {
    minutes: BTreeMap<(JailName, Event), Minute>,
}

impl Surges {
    /// Whether this one is to be told by a line of its own. `limit`: those in a minute that are.
    pub(super) fn tells(&mut self, jail: &JailName, event: Event, limit: u32, now: Moment) -> bool {
        let minute = self.minutes.entry((jail.clone(), event)).or_insert(Minute {
            began: now,
            limit,
            events: 0,
            untold: 0,
        });
        minute.events = minute.events.saturating_add(1);
        let tell = minute.events <= limit;
        minute.untold += u64::from(!tell);
        tell
    }

    /// Ends minutes that are over: the lines that count what was not told.
    pub(super) fn turn(&mut self, now: Moment) -> Vec<String> {
        let mut lines = Vec::new();
        self.minutes.retain(|(jail, event), minute| {
            if now.since(minute.began) < MINUTE {
                return true;
            }
            if minute.untold > 0 {
                let (word, more) = (event.word(), minute.untold);
                lines.push(format!("[{jail}] {word} {more} more (not told one by one)"));
            }
            // One that goes on is one surge, not two.
            let goes_on = minute.untold > 0;
            *minute = Minute {
                began: now,
                events: 0,
                untold: 0,
                ..*minute
            };
            goes_on
        });
        lines
    }

    /// Jails that ban more than is told one by one: this minute, or the one before.
    pub(super) fn alarm(&self) -> Option<String> {
        let banning = self.minutes.iter().filter(|((_, event), minute)| {
            *event == Event::Ban && (minute.untold > 0 || minute.events == 0)
        });
        let jails: Vec<String> = banning
            .map(|((jail, _), minute)| format!("{jail} more than {}", minute.limit))
            .collect();
        (!jails.is_empty()).then(|| {
            format!(
                "so many bans in a minute: {}; all are in force, but told by their number \
                 (`bans_per_minute`). A flood, or does a pattern match visitors? \
                 `pipeban unban --all --jail NAME` lifts one jail's",
                jails.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn what_is_above_the_limit_is_counted_and_told_when_the_minute_ends() {
        let mut surges = Surges::default();
        let jail = "a".parse().unwrap();
        let tells = |surges: &mut Surges, n: usize, second| {
            (0..n)
                .filter(|_| surges.tells(&jail, Event::Ban, 100, at(second)))
                .count()
        };
        assert_eq!(tells(&mut surges, 100, 0), 100);
        assert_eq!(surges.alarm(), None);
        assert_eq!(tells(&mut surges, 4_812, 5), 0);
        assert!(surges.alarm().unwrap().contains("a more than 100;"));
        assert_eq!(surges.turn(at(59)), Vec::<String>::new());
        assert_eq!(
            surges.turn(at(60)),
            ["[a] Ban 4812 more (not told one by one)"]
        );
        // a quiet minute ends the alarm
        assert!(surges.alarm().is_some());
        assert_eq!(surges.turn(at(120)), Vec::<String>::new());
        assert_eq!(surges.alarm(), None);
        assert_eq!(tells(&mut surges, 101, 121), 100);
    }

    #[test]
    fn jails_and_events_are_counted_each_for_itself() {
        let mut surges = Surges::default();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        for (jail, event) in [(&a, Event::Ban), (&b, Event::Ban), (&a, Event::Unban)] {
            assert!(surges.tells(jail, event, 1, at(0)));
            assert!(!surges.tells(jail, event, 1, at(0)));
        }
        let lines = surges.turn(at(60)).join("\n");
        assert_eq!(lines.lines().count(), 3);
        assert!(lines.contains("[a] Unban 1 more"), "{lines}");
    }
}
