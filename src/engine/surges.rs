//! Counts bans by the minute. A jail that makes more than `bans_per_minute` raises an alarm; its
//! further bans are enforced, but get neither a log line nor a hook.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decision::Event;
use crate::config::JailName;
use crate::jail::Moment;

const MINUTE: Duration = Duration::from_secs(60);

/// With so many bans in a minute, the ufw mirror sees a surge (30 in 10 s) at some time in it, and
/// makes no rules meanwhile.
const UFW_SURGE: u32 = 6 * 30;

#[derive(Debug)]
struct Minute {
    began: Moment,
    limit: u32,
    events: u32,
    suppressed: u64,
    suppressed_hooks: u64,
}

impl Minute {
    fn new(began: Moment, limit: u32) -> Minute {
        Minute {
            began,
            limit,
            events: 0,
            suppressed: 0,
            suppressed_hooks: 0,
        }
    }
}

/// The current minute of every jail that bans.
#[derive(Debug, Default)]
pub(super) struct Surges {
    minutes: BTreeMap<(JailName, Event), Minute>,
}

impl Surges {
    /// Whether this event is among the first `limit` of its minute; else it is counted as
    /// suppressed.
    pub(super) fn permits(
        &mut self,
        jail: &JailName,
        event: Event,
        limit: u32,
        has_hook: bool,
        now: Moment,
    ) -> bool {
        let minute = self
            .minutes
            .entry((jail.clone(), event))
            .or_insert_with(|| Minute::new(now, limit));
        minute.events = minute.events.saturating_add(1);
        let permitted = minute.events <= limit;
        minute.suppressed += u64::from(!permitted);
        minute.suppressed_hooks += u64::from(!permitted && has_hook);
        permitted
    }

    /// Ends minutes that are over; returns a log line for each that suppressed events. `mirrored`:
    /// ufw has rules for bans.
    pub(super) fn end_minutes(&mut self, mirrored: bool, now: Moment) -> Vec<String> {
        let mut lines = Vec::new();
        self.minutes.retain(|(jail, event), minute| {
            if now.since(minute.began) < MINUTE {
                return true;
            }
            let more = minute.suppressed;
            if more > 0 {
                let mut what = "not logged one by one".to_owned();
                if minute.suppressed_hooks > 0 {
                    what.push_str(&format!(", {} hooks not run", minute.suppressed_hooks));
                }
                if mirrored && *event == Event::Ban && minute.events >= UFW_SURGE {
                    what.push_str(", ufw rules not before the surge is over");
                }
                lines.push(format!("[{jail}] {} {more} more ({what})", event.word()));
            }
            // The next minute of the same surge begins with no events.
            *minute = Minute::new(now, minute.limit);
            more > 0
        });
        lines
    }

    /// Names the jails that make too many bans: in this minute, or in the one before.
    pub(super) fn alarm(&self) -> Option<String> {
        let banning = self.minutes.iter().filter(|((_, event), minute)| {
            event.is_ban() && (minute.suppressed > 0 || minute.events == 0)
        });
        let jails: Vec<String> = banning
            .map(|((jail, event), minute)| {
                let bans = match event {
                    Event::WouldBan => "bans (`enforce = false`)",
                    _ => "bans",
                };
                format!(
                    "jail `{jail}`: more than {} {bans} in one minute",
                    minute.limit
                )
            })
            .collect();
        (!jails.is_empty()).then(|| {
            format!(
                "{}; all are made, but further log lines and hooks are suppressed \
                 (`bans_per_minute`). Check for a flood, or for a pattern that matches visitors; \
                 `pipeban unban --all --jail NAME` lifts the bans of one jail",
                jails.join("; ")
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
    fn events_above_the_limit_are_counted_and_reported_when_the_minute_ends() {
        let mut surges = Surges::default();
        let jail = "a".parse().unwrap();
        let permitted = |surges: &mut Surges, n: usize, second| {
            (0..n)
                .filter(|_| surges.permits(&jail, Event::Ban, 100, false, at(second)))
                .count()
        };
        assert_eq!(permitted(&mut surges, 100, 0), 100);
        assert_eq!(surges.alarm(), None);
        assert_eq!(permitted(&mut surges, 4_812, 5), 0);
        assert!(
            surges
                .alarm()
                .unwrap()
                .starts_with("jail `a`: more than 100 bans in one minute;")
        );
        assert_eq!(surges.end_minutes(false, at(59)), Vec::<String>::new());
        let expected = ["[a] Ban 4812 more (not logged one by one)"];
        assert_eq!(surges.end_minutes(false, at(60)), expected);
        // a quiet minute ends the alarm
        assert!(surges.alarm().is_some());
        assert_eq!(surges.end_minutes(false, at(120)), Vec::<String>::new());
        assert_eq!(surges.alarm(), None);
        assert_eq!(permitted(&mut surges, 101, 121), 100);
    }

    #[test]
    fn each_kind_of_event_is_counted_alone_and_its_line_names_what_was_suppressed() {
        let mut surges = Surges::default();
        let jail = "a".parse().unwrap();
        for n in 0..200 {
            for event in [Event::Ban, Event::WouldBan, Event::Unban] {
                let has_hook = event != Event::WouldBan && n >= 50;
                surges.permits(&jail, event, 10, has_hook, at(0));
            }
        }
        let alarm = surges.alarm().unwrap();
        assert!(
            alarm.contains("10 bans (`enforce = false`) in one minute;"),
            "{alarm}"
        );
        assert_eq!(
            surges.end_minutes(true, at(60)),
            [
                "[a] Ban 190 more (not logged one by one, 150 hooks not run, ufw rules not before \
                 the surge is over)",
                "[a] Would Ban 190 more (not logged one by one)",
                "[a] Unban 190 more (not logged one by one, 150 hooks not run)",
            ]
        );
    }
}
