//! Bans by the minute: too many are an alarm, and are told by their number, without a hook. They
//! are in force all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::JailName;
use crate::jail::{Action, Ban, Mode, Moment};

/// What is counted together.
const MINUTE: Duration = Duration::from_secs(60);

/// So many bans in a minute are, in some part of it, what the ufw mirror calls a surge (30 in 10
/// s) and makes no rule for.
const NO_RULES: u32 = 6 * 30;

/// What is told of each ban, unless there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Ban,
    WouldBan,
    Restore,
    Unban,
    WouldUnban,
}

impl Event {
    /// One of many perhaps; what a person does is told each time.
    pub(super) fn of(action: &Action) -> Option<(JailName, Event)> {
        let would = |ban: &Ban| ban.mode == Mode::Observed;
        let (ban, event) = match action {
            Action::Ban(ban) if ban.failures == 0 => return None,
            Action::Ban(ban) if would(ban) => (ban, Event::WouldBan),
            Action::Ban(ban) => (ban, Event::Ban),
            Action::Restore(ban) => (ban, Event::Restore),
            Action::Unban { ban, .. } if would(ban) => (ban, Event::WouldUnban),
            Action::Unban { ban, .. } => (ban, Event::Unban),
            _ => return None,
        };
        Some((ban.jail.clone(), event))
    }

    fn word(self) -> &'static str {
        match self {
            Event::Ban => "Ban",
            Event::WouldBan => "Would Ban",
            Event::Restore => "Restore Ban",
            Event::Unban => "Unban",
            Event::WouldUnban => "Would Unban",
        }
    }

    fn is_ban(self) -> bool {
        matches!(self, Event::Ban | Event::WouldBan)
    }
}

#[derive(Debug)]
struct Minute {
    began: Moment,
    limit: u32,
    events: u32,
    untold: u64,
    /// Of those, such as a hook would have been told of.
    unhooked: u64,
}

impl Minute {
    fn new(began: Moment, limit: u32) -> Minute {
        Minute {
            began,
            limit,
            events: 0,
            untold: 0,
            unhooked: 0,
        }
    }
}

/// The running minute of every jail that bans.
#[derive(Debug, Default)]
pub(super) struct Surges {
    minutes: BTreeMap<(JailName, Event), Minute>,
}

impl Surges {
    /// Whether this one is to be told, by a line of its own and to a hook, if there is one.
    /// `limit`: those in a minute that are.
    pub(super) fn tells(
        &mut self,
        jail: &JailName,
        event: Event,
        limit: u32,
        hooked: bool,
        now: Moment,
    ) -> bool {
        let minute = self
            .minutes
            .entry((jail.clone(), event))
            .or_insert_with(|| Minute::new(now, limit));
        minute.events = minute.events.saturating_add(1);
        let tell = minute.events <= limit;
        minute.untold += u64::from(!tell);
        minute.unhooked += u64::from(!tell && hooked);
        tell
    }

    /// Ends minutes that are over: the lines that count what was not told. `mirrored`: ufw's rules
    /// follow bans.
    pub(super) fn turn(&mut self, mirrored: bool, now: Moment) -> Vec<String> {
        let mut lines = Vec::new();
        self.minutes.retain(|(jail, event), minute| {
            if now.since(minute.began) < MINUTE {
                return true;
            }
            let more = minute.untold;
            if more > 0 {
                let mut cut = "not told one by one".to_owned();
                if minute.unhooked > 0 {
                    cut.push_str(&format!(", {} hooks not run", minute.unhooked));
                }
                if mirrored && *event == Event::Ban && minute.events >= NO_RULES {
                    cut.push_str(", ufw rules not before the surge is over");
                }
                lines.push(format!("[{jail}] {} {more} more ({cut})", event.word()));
            }
            // One that goes on is one surge, not two.
            *minute = Minute::new(now, minute.limit);
            more > 0
        });
        lines
    }

    /// Jails that ban more than is told one by one: this minute, or the one before.
    pub(super) fn alarm(&self) -> Option<String> {
        let banning = self.minutes.iter().filter(|((_, event), minute)| {
            event.is_ban() && (minute.untold > 0 || minute.events == 0)
        });
        let jails: Vec<String> = banning
            .map(|((jail, event), minute)| {
                let only = match event {
                    Event::WouldBan => " (`enforce = false`)",
                    _ => "",
                };
                format!("{jail} more than {}{only}", minute.limit)
            })
            .collect();
        (!jails.is_empty()).then(|| {
            format!(
                "so many bans in a minute: {}; they are made all the same, but told by their \
                 number and to no hook (`bans_per_minute`). A flood, or does a pattern match \
                 visitors? `pipeban unban --all --jail NAME` lifts one jail's",
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
                .filter(|_| surges.tells(&jail, Event::Ban, 100, false, at(second)))
                .count()
        };
        assert_eq!(tells(&mut surges, 100, 0), 100);
        assert_eq!(surges.alarm(), None);
        assert_eq!(tells(&mut surges, 4_812, 5), 0);
        assert!(surges.alarm().unwrap().contains("a more than 100;"));
        assert_eq!(surges.turn(false, at(59)), Vec::<String>::new());
        assert_eq!(
            surges.turn(false, at(60)),
            ["[a] Ban 4812 more (not told one by one)"]
        );
        // a quiet minute ends the alarm
        assert!(surges.alarm().is_some());
        assert_eq!(surges.turn(false, at(120)), Vec::<String>::new());
        assert_eq!(surges.alarm(), None);
        assert_eq!(tells(&mut surges, 101, 121), 100);
    }

    #[test]
    fn the_line_says_what_was_cut() {
        let mut surges = Surges::default();
        let jail = "a".parse().unwrap();
        for n in 0..200 {
            for event in [Event::Ban, Event::WouldBan, Event::Unban] {
                let hooked = event != Event::WouldBan && n >= 50;
                surges.tells(&jail, event, 10, hooked, at(0));
            }
        }
        assert!(
            surges
                .alarm()
                .unwrap()
                .contains("a more than 10, a more than 10 (`enforce")
        );
        assert_eq!(
            surges.turn(true, at(60)),
            [
                "[a] Ban 190 more (not told one by one, 150 hooks not run, ufw rules not before \
                 the surge is over)",
                "[a] Would Ban 190 more (not told one by one)",
                "[a] Unban 190 more (not told one by one, 150 hooks not run)",
            ]
        );
    }

    #[test]
    fn jails_and_events_are_counted_each_for_itself() {
        let mut surges = Surges::default();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        for (jail, event) in [(&a, Event::Ban), (&b, Event::Ban), (&a, Event::Unban)] {
            assert!(surges.tells(jail, event, 1, false, at(0)));
            assert!(!surges.tells(jail, event, 1, false, at(0)));
        }
        let lines = surges.turn(false, at(60)).join("\n");
        assert_eq!(lines.lines().count(), 3);
        assert!(lines.contains("[a] Unban 1 more"), "{lines}");
    }
}
