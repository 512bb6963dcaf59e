//! Performs decisions: the firewall first, then log lines and hooks, then the store.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::alarms::{Alarms, Check};
use super::decision::{AfterCommit, Announcement, Decision, Event, HookCall};
use super::restore::Found;
use super::surges::Surges;
use super::trouble_mark::TroubleMark;
use crate::alert::{HookRun, Hooks, Severity};
use crate::config::{self, Config, Jail, JailName, Ports};
use crate::control::Reply;
use crate::firewall::{Firewall, InForce, Notice, UfwState};
use crate::jail::{Bans, FirewallKey, Moment, Now, ban_values, show_net};
use crate::store::{Done, Op, Store};

/// The alarm of a database that cannot be written.
pub(super) const STORE: &str = "store";

/// Restored bans of a jail that are logged one by one, at least.
const MAX_RESTORED: u32 = 5_000;

/// Submissions to the store that may wait before workers are not read any more.
const MAX_WAITING: usize = 4_096;

pub(super) struct Enforcement {
    firewall: Firewall,
    notices: Receiver<Notice>,
    hooks: Hooks,
    store: Store<AfterCommit>,
    committed: Receiver<Done<AfterCommit>>,
    surges: Surges,
    config: Arc<Config>,
    mark: TroubleMark,
}

/// What came of a decision; its changes are still to be committed.
#[must_use]
pub(super) struct Outcome {
    ops: Vec<Op>,
    /// Why the firewall does not hold what was decided. It tries again.
    refused: Option<String>,
}

impl Outcome {
    /// The answer to a command: what was decided is kept, but may not be in force.
    pub(super) fn qualify(&self, reply: Reply) -> Reply {
        let Some(error) = &self.refused else {
            return reply;
        };
        let error = format!("bans are not in force, or bans that are over still are: {error}");
        match reply {
            Reply::Done { text, .. } => Reply::Refused {
                exit: 2,
                text: format!("{text}\nbut {error}; pipeban tries again"),
            },
            Reply::Taken { fates, .. } => Reply::Taken {
                fates,
                trouble: Some(error),
            },
            reply => reply,
        }
    }
}

impl Enforcement {
    pub(super) fn new(
        config: Arc<Config>,
        (firewall, notices): (Firewall, Receiver<Notice>),
        (store, committed): (Store<AfterCommit>, Receiver<Done<AfterCommit>>),
        hooks: Hooks,
        mark: TroubleMark,
    ) -> Enforcement {
        Enforcement {
            firewall,
            notices,
            hooks,
            store,
            committed,
            surges: Surges::default(),
            config,
            mark,
        }
    }

    pub(super) fn configure(&mut self, config: Arc<Config>) {
        self.hooks.forget();
        self.config = config;
    }

    /// Puts a decision in force, logs it and runs its hooks. `bans`: those to be in force; `None`:
    /// the emergency stop is on.
    pub(super) fn enforce(
        &mut self,
        decision: Decision,
        bans: Option<&Bans>,
        now: Now,
        alarms: &mut Alarms,
    ) -> Outcome {
        let enforced = match decision.replace {
            true => {
                let bans = bans.into_iter().flat_map(Bans::holds);
                let bans = bans.map(|(key, state)| (key.clone(), state));
                self.firewall.replace(bans)
            }
            false => self.firewall.apply(decision.touched.into_iter().map(|key| {
                let state = bans.and_then(|bans| bans.hold(&key));
                (key, state)
            })),
        };
        for line in decision.lines {
            self.announce(line, now, alarms);
        }
        Outcome {
            ops: decision.ops,
            refused: enforced.err(),
        }
    }

    /// Has the changes committed; `after` follows.
    pub(super) fn commit(&mut self, outcome: Outcome, after: Vec<AfterCommit>, now: Now) {
        if !outcome.ops.is_empty() || !after.is_empty() {
            self.store.submit(outcome.ops, now, after);
        }
    }

    /// Groups of changes that the store is done with.
    pub(super) fn committed(&mut self, alarms: &mut Alarms) -> Vec<Done<AfterCommit>> {
        let groups: Vec<_> = self.committed.try_iter().collect();
        for group in &groups {
            self.mark.set(group.committed);
            let trouble = group.trouble.as_ref().map(|text| {
                format!(
                    "{text}; bans work, hits are not acknowledged, and after a restart bans of now \
                     last 24 hours at most: free disk space, correct the rights, or end the process \
                     that holds the database"
                )
            });
            alarms.set((STORE, Severity::Err, trouble));
            if let Some(text) = &group.event {
                alarms.log(Severity::Warning, text);
            }
        }
        groups
    }

    /// Whether so much waits for the store that workers should not be read.
    pub(super) fn store_is_behind(&self) -> bool {
        self.store.waiting() > MAX_WAITING
    }

    /// What an earlier engine left in the firewall; see [`Firewall::left_in_force`].
    /// `lost`: see [`Found`].
    pub(super) fn left_in_force(&mut self, lost: bool) -> Found {
        let (bans, all) = self.firewall.left_in_force();
        let lost = lost || !bans.is_empty();
        Found { bans, all, lost }
    }

    /// These may be in force already, put there by an earlier engine.
    pub(super) fn left(&mut self, keys: &HashSet<FirewallKey>) {
        self.firewall.left(keys);
    }

    /// Logs a line and runs its hook, unless it is one too many of its kind.
    fn announce(&mut self, line: Announcement, now: Now, alarms: &Alarms) {
        if let Some((jail, event)) = &line.repeated {
            let settings = self.settings(jail);
            let limit = match event {
                Event::Restore => settings.bans_per_minute.max(MAX_RESTORED),
                _ => settings.bans_per_minute,
            };
            let hook = line.hook.as_ref();
            let has_hook = hook.is_some_and(|hook| hook.template(settings).is_some());
            let event = *event;
            if !self.surges.permits(jail, event, limit, has_hook, now.boot) {
                return;
            }
        }
        alarms.log_event(line.severity, &line.text, line.details);
        if let Some(hook) = line.hook {
            self.run(hook, now);
        }
    }

    /// Runs the jail's hook, if it has one.
    fn run(&mut self, hook: HookCall, now: Now) {
        let HookCall { key, ban } = &hook;
        let settings = self.settings(&ban.jail);
        let Some(template) = hook.template(settings) else {
            return;
        };
        let until = ban.until.map(|until| now.wall_of(until));
        let mut values = ban_values(&ban.net, ban.jail.as_str(), ban.length(), until).to_vec();
        values.push(("failures", ban.failures.to_string()));
        values.push(("id", ban.id.to_string()));
        let call = HookRun {
            argv: config::fill(template, &values),
            timeout: settings.hooks.timeout,
            host: show_net(&ban.net),
            key,
            jail: ban.jail.clone(),
        };
        self.hooks.call(call);
    }

    /// A jail's settings; `[defaults]` where it is not configured (any more).
    fn settings(&self, jail: &JailName) -> &Jail {
        let settings = self.config.jails.get(jail);
        settings.unwrap_or(&self.config.defaults)
    }

    /// Hands on what the firewall reports; returns banned clients that had a connection.
    pub(super) fn report(&self, alarms: &mut Alarms) -> Vec<IpAddr> {
        let mut connected = Vec::new();
        for notice in self.notices.try_iter() {
            match notice {
                Notice::Connected { clients } => connected.extend(clients),
                Notice::Trouble { key, text } => alarms.raise(key, Severity::Warning, text),
                Notice::Over { key } => alarms.clear(key),
                Notice::Event { text } => alarms.log(Severity::Warning, &text),
            }
        }
        connected
    }

    /// Log lines about what surges suppressed.
    pub(super) fn end_minutes(&mut self, mirrored: bool, now: Moment) -> Vec<String> {
        self.surges.end_minutes(mirrored, now)
    }

    pub(super) fn checks(&mut self) -> [Check; 3] {
        [
            ("surge", Severity::Warning, self.surges.alarm()),
            ("hooks-fail", Severity::Warning, self.hooks.failing()),
            ("hooks-lost", Severity::Warning, self.hooks.lost()),
        ]
    }

    /// Closes these ports of Apache's to clients whose bans are of `port = "apache"`.
    ///
    /// # Errors
    /// See [`Firewall::set_apache_ports`].
    pub(super) fn set_apache_ports(&mut self, listening: &BTreeSet<u16>) -> Result<(), String> {
        self.firewall.set_apache_ports(listening)
    }

    pub(super) fn apache_ports(&self) -> Ports {
        self.firewall.apache_ports()
    }

    /// Restores what other programs removed from the firewall; cheap where none did.
    pub(super) fn restore_removed(&mut self) {
        self.firewall.tend();
    }

    pub(super) fn checker(&self) -> InForce {
        self.firewall.checker()
    }

    pub(super) fn report_check(&mut self, check: &Result<(), String>) {
        self.firewall.report_check(check);
    }

    pub(super) fn ufw_state(&self, key: &FirewallKey) -> Option<UfwState> {
        self.firewall.ufw_state(key)
    }

    /// Commits what is left, hands over what was to follow, and ends. Bans stay in force.
    pub(super) fn finish(self, alarms: &Alarms, follow: impl FnOnce(Vec<AfterCommit>)) {
        self.hooks.stop();
        self.store.finish();
        let groups = self.committed.try_iter();
        follow(groups.flat_map(|group| group.then).collect());
        // The next engine queues for ufw again.
        self.firewall.finish(Duration::ZERO);
        let left = self.hooks.finish();
        if left > 0 {
            let text = format!("pipeban stops: {left} hooks were not started or did not finish");
            alarms.log(Severity::Warning, &text);
        }
    }
}
