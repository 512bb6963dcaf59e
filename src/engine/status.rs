//! What `pipeban status` shows.

use std::collections::HashMap;

use super::commands::refused;
use super::hub::{Engine, Role};
use crate::config::{Backend, JailName};
use crate::control::{BanStatus, EngineStatus, JailStatus, Reply, Status, WorkerStatus};
use crate::firewall::Mirror;
use crate::jail::{Ban, Mode, Now, show_net};

/// Bans that the kernel is asked about for one answer; hits must not wait for the rest.
const MAX_ASKED: usize = 2_000;

impl Engine {
    pub(super) fn status_reply(&mut self, jail: Option<&JailName>, now: Now) -> Reply {
        self.parts.jails.sweep(now);
        let mut names = self.parts.jails.names();
        if let Some(jail) = jail {
            let known = self.parts.jails.settings(jail).is_some() || names.contains(jail);
            if !known {
                return refused(1, self.no_such_jail(jail));
            }
            names = vec![jail.clone()];
        }
        let all: Vec<Ban> = self
            .parts
            .jails
            .bans()
            .iter()
            .filter(|ban| jail.is_none_or(|jail| ban.jail == *jail))
            // What is over is ended within a second; the kernel is on time.
            .filter(|ban| ban.until.is_none_or(|until| until > now.boot))
            .cloned()
            .collect();
        let mut by_jail: HashMap<JailName, (Vec<BanStatus>, Vec<BanStatus>)> = HashMap::new();
        for (number, ban) in all.iter().enumerate() {
            let shown = self.ban_status(ban, number < MAX_ASKED, now);
            let (banned, observed) = by_jail.entry(ban.jail.clone()).or_default();
            if ban.mode == Mode::Observed {
                observed.push(shown);
            } else {
                banned.push(shown);
            }
        }
        let failing = self.parts.jails.failing();
        let jails = names.into_iter().map(|name| {
            let settings = self.parts.jails.settings(&name);
            let totals = self.parts.jails.totals(&name);
            let (banned, observed) = by_jail.remove(&name).unwrap_or_default();
            JailStatus {
                enabled: settings.is_some_and(|jail| jail.enabled),
                enforce: settings.is_some_and(|jail| jail.enforce),
                currently_failed: failing.get(&name).copied().unwrap_or(0),
                total_failed: totals.failed,
                currently_banned: banned.len() as u64,
                total_banned: totals.banned,
                banned,
                observed,
                name,
            }
        });
        let jails = jails.collect();
        let mut workers: Vec<WorkerStatus> = self
            .roles
            .values()
            .filter_map(|role| match role {
                Role::Worker { hello, counters } => Some(WorkerStatus {
                    pid: hello.pid,
                    kind: hello.kind,
                    path: hello.path.clone(),
                    counters: *counters,
                }),
                _ => None,
            })
            .collect();
        workers.sort_unstable_by_key(|worker| (worker.kind, worker.pid));
        let warnings = self.warnings(workers.is_empty());
        Reply::Status(Box::new(Status {
            engine: EngineStatus {
                pid: std::process::id(),
                since: self.parts.started.wall,
                version: env!("CARGO_PKG_VERSION").into(),
                config: self.parts.accepted.hash.clone(),
                backend: match self.parts.accepted.config.firewall.backend {
                    Backend::Ufw => "ufw".into(),
                    Backend::DryRun => "dry-run".into(),
                },
                off: self.parts.off.status(),
            },
            workers,
            jails,
            warnings,
        }))
    }

    fn ban_status(&mut self, ban: &Ban, ask: bool, now: Now) -> BanStatus {
        let entry = match ban.mode {
            Mode::Enforced => self.entry(&(ban.net, ban.ports.clone()), now),
            Mode::Observed | Mode::Behind(_) => None,
        };
        let firewall = &mut self.parts.firewall;
        let in_force = entry
            .as_ref()
            .filter(|_| ask)
            .and_then(|entry| firewall.in_force(entry));
        let mirror = entry.as_ref().and_then(|entry| firewall.mirror(entry));
        BanStatus {
            host: show_net(&ban.net),
            since: ban.since_wall,
            until: ban.until.map(|until| now.wall_of(until)),
            in_force,
            ufw: mirror.map(|mirror| {
                let word = match mirror {
                    Mirror::Present => "present",
                    Mirror::Queued => "queued",
                    Mirror::Capped => "capped",
                    Mirror::Inactive => "inactive",
                };
                word.into()
            }),
            behind: match ban.mode {
                Mode::Behind(peer) => Some(peer),
                _ => None,
            },
            reason: ban.reason.clone(),
        }
    }

    fn warnings(&self, no_worker: bool) -> Vec<String> {
        // The stop first: it explains everything else.
        let mut warnings: Vec<String> = self
            .troubles
            .get("off")
            .map(|trouble| trouble.text.clone())
            .into_iter()
            .collect();
        let others = self.troubles.iter().filter(|(key, _)| **key != "off");
        warnings.extend(others.map(|(_, trouble)| trouble.text.clone()));
        if no_worker {
            warnings.push(
                "no worker is connected: Apache does not pipe a log to pipeban, or was not \
                 reloaded (`pipeban setup` shows what is missing)"
                    .into(),
            );
        }
        warnings.extend(self.parts.alerts.troubles());
        warnings.extend(self.undecided_warnings());
        for (count, text) in [
            (
                self.unknown_jails,
                "hits for jails that are not in the configuration",
            ),
            (self.misunderstood, "messages that could not be understood"),
            (
                self.parts.server.refused(),
                "connections refused for want of room",
            ),
        ] {
            if count > 0 {
                warnings.push(format!("{text}: {count}"));
            }
        }
        warnings
    }
}
