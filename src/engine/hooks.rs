//! Who is told of what: `on_ban` for each `Ban` line, `on_unban` for each `Unban` line.
//!
//! Not for `Would Ban`, not for `Restore Ban` (a restart is no news), not for what a surge has
//! only counted. `pipeban off` and `on` end and begin no ban, so they run none.

use std::time::Duration;

use ipnet::IpNet;

use super::hub::Engine;
use crate::alert::{Call, Severity};
use crate::config::{self, Jail, JailName};
use crate::jail::{Action, Ban, BanId, Mode, Moment, Now, ban_values, show_net};

/// What a hook is told, if the jail has one.
#[derive(Debug)]
pub(super) struct Due {
    key: &'static str,
    jail: JailName,
    net: IpNet,
    id: BanId,
    failures: u32,
    length: Option<Duration>,
    until: Option<Moment>,
}

impl Due {
    pub(super) fn of(action: &Action) -> Option<Due> {
        let (key, ban) = match action {
            Action::Ban(ban) => ("on_ban", ban),
            Action::Unban { ban, .. } => ("on_unban", ban),
            _ => return None,
        };
        let Ban {
            id,
            net,
            failures,
            until,
            ..
        } = *ban;
        (ban.mode != Mode::Observed).then(|| Due {
            key,
            jail: ban.jail.clone(),
            net,
            id,
            failures,
            length: ban.length(),
            until,
        })
    }

    /// The jail's hook for it.
    pub(super) fn hook<'j>(&self, jail: &'j Jail) -> Option<&'j [String]> {
        let found = jail.hooks.all().find(|(key, _)| *key == self.key);
        found.map(|(_, argv)| argv)
    }
}

impl Engine {
    /// Has the jail's hook run, if it has one.
    pub(super) fn hook(&mut self, due: Due, now: Now) {
        let settings = self.settings(&due.jail);
        let Some(template) = due.hook(settings) else {
            return;
        };
        let until = due.until.map(|until| now.wall_of(until));
        let mut values = ban_values(&due.net, due.jail.as_str(), due.length, until).to_vec();
        values.push(("failures", due.failures.to_string()));
        values.push(("id", due.id.to_string()));
        let call = Call {
            argv: config::fill(template, &values),
            timeout: settings.hooks.timeout,
            host: show_net(&due.net),
            key: due.key,
            jail: due.jail,
        };
        self.parts.hooks.call(call);
    }

    /// A jail's settings; those of [`config::Config::defaults`] where it is not configured (any
    /// more).
    pub(super) fn settings(&self, jail: &JailName) -> &Jail {
        let settings = self.parts.jails.settings(jail);
        settings.unwrap_or(&self.parts.accepted.config.defaults)
    }

    /// Tells what is wrong with hooks, and that it is over.
    pub(super) fn tend_hooks(&mut self) {
        for (key, wrong) in [
            ("hooks-fail", self.parts.hooks.failing()),
            ("hooks-lost", self.parts.hooks.lost()),
        ] {
            match wrong {
                Some(text) => self.trouble(key, Severity::Warning, text),
                None => self.over(key),
            }
        }
    }
}
