//! The values that the owners hand each other.

use std::collections::HashSet;

use crate::alert::{Details, Severity, details, words};
use crate::config::{Jail, JailName};
use crate::control::Reply;
use crate::jail::{Action, Ban, Cause, FirewallKey, Mode};
use crate::store::Op;

/// What is done when the changes it was submitted with are committed.
#[derive(Debug)]
pub(super) enum AfterCommit {
    /// Acknowledge the hits of a stream up to and with `offset`.
    Ack {
        connection: u64,
        stream: u64,
        offset: u64,
        /// What the hits led to, as log lines.
        log_lines: Vec<String>,
    },
    /// Answer a command.
    Answer { connection: u64, reply: Reply },
}

/// What was decided in one step, and is to be performed together.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Decision {
    /// Entries of the firewall that may have changed.
    pub(super) touched: HashSet<FirewallKey>,
    /// The firewall is to be replaced as a whole; `touched` is part of it.
    pub(super) replace: bool,
    /// Logged when the firewall has the entries.
    pub(super) lines: Vec<Announcement>,
    /// To be stored.
    pub(super) ops: Vec<Op>,
    /// New bans whose clients are not confirmed: logged a moment later, when most are.
    pub(super) unconfirmed: Vec<Ban>,
}

impl Decision {
    pub(super) fn is_empty(&self) -> bool {
        self.touched.is_empty() && !self.replace && self.lines.is_empty() && self.ops.is_empty()
    }

    /// Runs no hook.
    pub(super) fn drop_hooks(&mut self) {
        for line in &mut self.lines {
            line.hook = None;
        }
    }

    pub(super) fn log(&mut self, severity: Severity, text: String) {
        self.lines.push(Announcement {
            severity,
            text,
            repeated: None,
            details: None,
            hook: None,
        });
    }

    pub(super) fn add(&mut self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            let hook = HookCall::of(&action);
            self.add_with_hook(action, hook);
        }
    }

    /// Logs an action, and runs its hook.
    pub(super) fn announce(&mut self, action: &Action, hook: Option<HookCall>) {
        if let Some((severity, text)) = words(action) {
            self.lines.push(Announcement {
                severity,
                text,
                repeated: Event::of(action),
                details: details(action),
                hook,
            });
        }
    }

    pub(super) fn add_with_hook(&mut self, action: Action, hook: Option<HookCall>) {
        match &action {
            Action::Ban(ban) if ban.cause == Cause::Unconfirmed => {
                self.unconfirmed.push(ban.clone());
            }
            _ => self.announce(&action, hook),
        }
        let ban = match action {
            Action::Ban(ban) => {
                self.ops.push(Op::Ban(ban.clone()));
                ban
            }
            Action::Confirmed(ban) => {
                self.ops.push(Op::Confirm(ban.clone()));
                ban
            }
            Action::Restore(ban) => ban,
            Action::Unban { ban, end } => {
                self.ops.push(Op::End {
                    jail: ban.jail.clone(),
                    net: ban.net,
                    end,
                });
                ban
            }
            _ => return,
        };
        self.touched.extend(ban.firewall_key());
    }
}

/// A log line, perhaps with a hook.
#[derive(Debug)]
pub(super) struct Announcement {
    pub(super) severity: Severity,
    pub(super) text: String,
    /// Lines of the same kind, of which only some a minute are logged; `None`: always logged.
    pub(super) repeated: Option<(JailName, Event)>,
    pub(super) hook: Option<HookCall>,
    /// The fields of its event.
    pub(super) details: Option<Details>,
}

/// Events that can come by the thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Ban,
    WouldBan,
    Restore,
    Unban,
    WouldUnban,
}

impl Event {
    /// `None` for what an administrator does by hand.
    fn of(action: &Action) -> Option<(JailName, Event)> {
        let (ban, event, would) = match action {
            Action::Ban(ban) if matches!(ban.cause, Cause::Manual(_)) => return None,
            Action::Ban(ban) | Action::Confirmed(ban) => (ban, Event::Ban, Event::WouldBan),
            Action::Restore(ban) => (ban, Event::Restore, Event::Restore),
            Action::Unban { ban, .. } => (ban, Event::Unban, Event::WouldUnban),
            _ => return None,
        };
        let observed = ban.mode == Mode::Observed;
        Some((ban.jail.clone(), if observed { would } else { event }))
    }

    /// As log lines have it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Event::Ban => "Ban",
            Event::WouldBan => "Would Ban",
            Event::Restore => "Restore Ban",
            Event::Unban => "Unban",
            Event::WouldUnban => "Would Unban",
        }
    }

    pub(super) fn is_ban(self) -> bool {
        matches!(self, Event::Ban | Event::WouldBan)
    }
}

/// What a hook learns of a ban.
///
/// `on_ban` runs for each `Ban` line and `on_unban` for each `Unban` line; neither for `Would Ban`
/// nor for `Restore Ban` nor for what [`super::surges`] suppresses. `pipeban off` and `on` end and
/// begin no ban.
#[derive(Debug)]
pub(super) struct HookCall {
    pub(super) key: &'static str,
    pub(super) ban: Ban,
}

impl HookCall {
    pub(super) fn of(action: &Action) -> Option<HookCall> {
        let (key, ban) = match action {
            Action::Ban(ban) | Action::Confirmed(ban) => ("on_ban", ban),
            Action::Unban { ban, .. } => ("on_unban", ban),
            _ => return None,
        };
        let ban = ban.clone();
        (ban.mode != Mode::Observed).then_some(HookCall { key, ban })
    }

    /// The jail's program and arguments; `None`: it has no such hook.
    pub(super) fn template<'j>(&self, jail: &'j Jail) -> Option<&'j [String]> {
        let found = jail.hooks.all().find(|(key, _)| *key == self.key);
        found.map(|(_, argv)| argv)
    }
}
