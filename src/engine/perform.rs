//! What jails decided, performed: firewall first, then words, then the store.

use std::collections::HashSet;

use super::hooks::Due;
use super::hub::{Engine, Then, now};
use super::surge::Event;
use crate::alert::{Severity, words};
use crate::config::JailName;
use crate::firewall::Entry;
use crate::jail::{Action, End, Given, Hold, Now};
use crate::store::Op;

/// The troubles of a firewall that refuses.
pub(super) const BAN_REFUSED: &str = "firewall-ban";
pub(super) const UNBAN_REFUSED: &str = "firewall-unban";
pub(super) const SETTLE_REFUSED: &str = "firewall-settle";

/// Restored bans of a jail that are told one by one.
const MOST_RESTORED: u32 = 5_000;

/// A line to be told.
#[derive(Debug)]
pub(super) struct Line {
    severity: Severity,
    text: String,
    /// One of many perhaps: only so many of a jail are told one by one.
    of: Option<(JailName, Event)>,
    /// A hook may be told too.
    due: Option<Due>,
}

/// What is to be done together.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// What the firewall must look at again.
    pub(super) touched: HashSet<Given>,
    /// To be told, when the firewall has it.
    pub(super) lines: Vec<Line>,
    /// To be stored.
    pub(super) ops: Vec<Op>,
    /// All that the firewall holds of ours is to be what the bans say; `touched` is part of it.
    pub(super) clear: bool,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.lines.is_empty() && self.ops.is_empty() && !self.clear
    }

    pub(super) fn say(&mut self, severity: Severity, text: String) {
        self.lines.push(Line {
            severity,
            text,
            of: None,
            due: None,
        });
    }

    pub(super) fn take(&mut self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            let due = Due::of(&action);
            self.take_one(action, due);
        }
    }

    /// `due`: what the hook is told of it.
    pub(super) fn take_one(&mut self, action: Action, due: Option<Due>) {
        if let Some((severity, text)) = words(&action) {
            self.lines.push(Line {
                severity,
                text,
                of: Event::of(&action),
                due,
            });
        }
        let (ban, op) = match action {
            Action::Ban(ban) => (ban.clone(), Some(Op::Ban(ban))),
            Action::Restore(ban) => (ban, None),
            Action::Unban { ban, end } => {
                let op = Op::End {
                    jail: ban.jail.clone(),
                    net: ban.net,
                    why: match end {
                        End::Over => "over",
                        End::ByHand => "by hand",
                        End::Exempt(_) => "exempt",
                        End::NoRoom => "no room",
                        End::Replaced => "replaced",
                    },
                };
                (ban, Some(op))
            }
            _ => return,
        };
        self.ops.extend(op);
        self.touched.extend(ban.given());
    }
}

impl Engine {
    /// Performs `work`; `then` follows when it is committed.
    pub(super) fn perform(&mut self, work: Work, now: Now, then: Vec<Then>) {
        match work.clear {
            true => self.settle(),
            false => self.enforce(work.touched, now),
        }
        for line in work.lines {
            self.tell(line, now);
        }
        if !work.ops.is_empty() || !then.is_empty() {
            self.parts.store.submit(work.ops, now, then);
        }
    }

    /// Tells a line and its hook, unless there are too many of the kind.
    fn tell(&mut self, line: Line, now: Now) {
        if let Some((jail, event)) = &line.of {
            let settings = self.settings(jail);
            let limit = match event {
                Event::Restore => settings.bans_per_minute.max(MOST_RESTORED),
                _ => settings.bans_per_minute,
            };
            let hooked = line
                .due
                .as_ref()
                .is_some_and(|due| due.hook(settings).is_some());
            if !self.surges.tells(jail, *event, limit, hooked, now.boot) {
                return;
            }
        }
        self.parts.alerts.tell(line.severity, &line.text);
        if let Some(due) = line.due {
            self.hook(due, now);
        }
    }

    /// Makes the firewall hold exactly what the bans say: nothing while the stop is on.
    pub(super) fn settle(&mut self) {
        let now = now();
        let bans = self.parts.jails.bans();
        let off = self.parts.off.is_on();
        let all = || {
            let holds = bans.holds().filter(move |_| !off);
            holds.map(move |(given, hold)| entry(given, &hold, now))
        };
        match self.parts.firewall.exactly(all) {
            Ok(()) => {
                self.undone.clear();
                for key in [SETTLE_REFUSED, BAN_REFUSED, UNBAN_REFUSED] {
                    self.over(key);
                }
            }
            Err(error) => {
                let text = format!(
                    "bans are not in force, or bans that are over still are: {error}; tried again"
                );
                self.trouble(SETTLE_REFUSED, Severity::Err, text);
            }
        }
    }

    /// Makes the firewall hold of these what the bans say; what it refuses is tried again.
    pub(super) fn enforce(&mut self, touched: HashSet<Given>, now: Now) {
        let (mut give, mut lift) = (Vec::new(), Vec::new());
        for key in touched {
            match self.entry(&key, now) {
                Some(entry) if !self.parts.off.is_on() => give.push((key, entry)),
                _ => lift.push((key.clone(), gone(key))),
            }
        }
        let refused_give = self.attempt(give, BAN_REFUSED, "bans are not in force", true);
        let refused_lift = self.attempt(lift, UNBAN_REFUSED, "bans are not lifted", false);
        self.undone.extend(refused_give);
        self.undone.extend(refused_lift);
    }

    fn attempt(
        &mut self,
        work: Vec<(Given, Entry)>,
        key: &'static str,
        what: &str,
        ban: bool,
    ) -> Vec<Given> {
        if work.is_empty() {
            return Vec::new();
        }
        let (keys, entries): (Vec<_>, Vec<_>) = work.into_iter().unzip();
        let done = if ban {
            self.parts.firewall.ban(&entries)
        } else {
            self.parts.firewall.unban(&entries)
        };
        match done {
            Ok(()) => {
                self.over(key);
                Vec::new()
            }
            Err(error) => {
                let text = format!("{what}: {error}; tried again every 5 seconds");
                self.trouble(key, Severity::Err, text);
                keys
            }
        }
    }

    /// What the firewall is to hold; `None`: nothing.
    pub(super) fn entry(&self, given: &Given, now: Now) -> Option<Entry> {
        let hold = self.parts.jails.bans().hold(given)?;
        Some(entry(given, &hold, now))
    }
}

fn entry(given: &Given, hold: &Hold, now: Now) -> Entry {
    Entry {
        jail: hold.jail.to_string(),
        until: hold.until.map(|until| now.wall_of(until)),
        remaining: hold.until.map(|until| until.since(now.boot)),
        ..gone(given.clone())
    }
}

/// An entry to be lifted: only what identifies it.
pub(super) fn gone(given: Given) -> Entry {
    Entry::named(given.net, given.ports, given.behind)
}
