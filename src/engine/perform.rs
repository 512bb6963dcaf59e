//! What jails decided, performed: firewall first, then words, then the store.

use std::collections::HashSet;

use ipnet::IpNet;

use super::hub::{Engine, Then};
use super::surge::Event;
use crate::alert::{Severity, words};
use crate::config::{JailName, Ports};
use crate::firewall::Entry;
use crate::jail::{Action, End, Mode, Now};
use crate::store::Op;

/// The troubles of a firewall that refuses.
pub(super) const BAN_REFUSED: &str = "firewall-ban";
pub(super) const UNBAN_REFUSED: &str = "firewall-unban";

/// Restored bans of a jail that are told one by one.
const MOST_RESTORED: u32 = 5_000;

/// A line to be told.
#[derive(Debug)]
pub(super) struct Line {
    severity: Severity,
    text: String,
    /// One of many perhaps: only so many of a jail are told one by one.
    of: Option<(JailName, Event)>,
}

/// What is to be done together.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// What the firewall must look at again.
    pub(super) touched: HashSet<(IpNet, Ports)>,
    /// To be told, when the firewall has it.
    pub(super) lines: Vec<Line>,
    /// To be stored.
    pub(super) ops: Vec<Op>,
    /// Whatever else of ours is in the firewall goes, too.
    pub(super) clear: bool,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.lines.is_empty() && self.ops.is_empty() && !self.clear
    }

    pub(super) fn say(&mut self, severity: Severity, text: String) {
        let of = None;
        self.lines.push(Line { severity, text, of });
    }

    pub(super) fn take(&mut self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            if let Some((severity, text)) = words(&action) {
                let of = match &action {
                    Action::Ban(ban) if ban.failures > 0 => Some((ban.jail.clone(), Event::Ban)),
                    Action::Restore(ban) => Some((ban.jail.clone(), Event::Restore)),
                    Action::Unban { ban, .. } => Some((ban.jail.clone(), Event::Unban)),
                    _ => None,
                };
                self.lines.push(Line { severity, text, of });
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
                _ => continue,
            };
            self.ops.extend(op);
            if ban.mode == Mode::Enforced {
                self.touched.insert((ban.net, ban.ports));
            }
        }
    }
}

impl Engine {
    /// Performs `work`; `then` follows when it is committed.
    pub(super) fn perform(&mut self, work: Work, now: Now, then: Vec<Then>) {
        self.enforce(work.touched, now);
        if work.clear {
            self.settle();
        }
        for line in &work.lines {
            let told = line.of.as_ref().is_none_or(|(jail, event)| {
                let settings = self.parts.jails.settings(jail);
                let default = &self.parts.accepted.config.defaults;
                let limit = settings.unwrap_or(default).bans_per_minute;
                let limit = match event {
                    Event::Restore => limit.max(MOST_RESTORED),
                    Event::Ban | Event::Unban => limit,
                };
                self.surges.tells(jail, *event, limit, now.boot)
            });
            if told {
                self.parts.alerts.tell(line.severity, &line.text);
            }
        }
        if !work.ops.is_empty() || !then.is_empty() {
            self.parts.store.submit(work.ops, now, then);
        }
    }

    /// What the firewall holds of ours and no ban wants goes.
    pub(super) fn settle(&mut self) {
        match self.parts.firewall.settled() {
            Ok(()) => self.over("settled"),
            Err(error) => {
                let text = format!("bans of an earlier engine may still be in force: {error}");
                self.trouble("settled", Severity::Warning, text);
            }
        }
    }

    /// Makes the firewall hold of these what the bans say; what it refuses is tried again.
    pub(super) fn enforce(&mut self, touched: HashSet<(IpNet, Ports)>, now: Now) {
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
        work: Vec<((IpNet, Ports), Entry)>,
        key: &'static str,
        what: &str,
        ban: bool,
    ) -> Vec<(IpNet, Ports)> {
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
    pub(super) fn entry(&self, (net, ports): &(IpNet, Ports), now: Now) -> Option<Entry> {
        let hold = self.parts.jails.bans().hold(net, ports)?;
        Some(Entry {
            net: *net,
            ports: ports.clone(),
            jail: hold.jail.to_string(),
            until: hold.until.map(|until| now.wall_of(until)),
            remaining: hold.until.map(|until| until.since(now.boot)),
        })
    }
}

/// An entry to be lifted: only (network, ports) identify it.
fn gone((net, ports): (IpNet, Ports)) -> Entry {
    Entry {
        net,
        ports,
        jail: String::new(),
        until: None,
        remaining: None,
    }
}
