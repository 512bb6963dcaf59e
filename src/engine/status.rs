//! What `pipeban status` shows.

use std::collections::HashMap;

use super::commands::refused;
use super::hub::{Engine, Role, Then, now};
use crate::config::{Backend, JailName};
use crate::control::{
    BanStatus, EngineStatus, JailStatus, Reading, Reply, SlowestFilter, Status, WorkerStatus,
    encode,
};
use crate::firewall::{Asker, Entry, Mirror};
use crate::jail::{Ban, Mode, Now, show_net};

/// Answers that ask the firewall at once; one more is given without `in_force`.
const MOST_ASKING: usize = 4;

/// An answer that is ready, and whether the firewall could be asked.
pub(super) struct Answered {
    connection: u64,
    reply: Vec<u8>,
    asked: Result<(), String>,
}

/// A worker that could not match all lines.
fn overload(worker: &WorkerStatus) -> Option<String> {
    let shed = worker.counters.shed;
    if shed == 0 || !worker.counters.matching {
        return None;
    }
    let slowest = worker.slowest.as_ref().map_or(String::new(), |slowest| {
        let SlowestFilter {
            filter,
            share,
            nanos,
        } = slowest;
        format!("; filter `{filter}` takes {share} % of the time, {nanos} ns a line")
    });
    Some(format!(
        "worker {} of the {} log passed {shed} lines on without matching them: it was behind, or \
         crashed on them{slowest}",
        worker.pid, worker.kind
    ))
}

impl Engine {
    /// Answers in a thread: a million questions to the kernel take seconds, and hits must not wait
    /// for them.
    pub(super) fn answer_status(&mut self, id: u64, jail: Option<&JailName>) {
        let (mut status, entries) = match self.status(jail, now()) {
            Ok(status) => status,
            Err(refused) => {
                let reply = refused;
                return self.follow(Then::Answer {
                    connection: id,
                    reply,
                });
            }
        };
        let mut asker = self.parts.firewall.asker();
        let (answers, waker) = (self.answers.clone(), self.parts.server.waker());
        let answer = move |ask: bool| {
            let asked = match ask {
                true => ask_all(&mut asker, &mut status, &entries),
                false => Ok(()),
            };
            let reply = encode(&Reply::Status(Box::new(status)));
            // The loop outlives its threads, or nobody waits any more.
            let _ = answers.send(Answered {
                connection: id,
                reply,
                asked,
            });
            waker.wake();
        };
        self.asking += 1;
        if self.asking > MOST_ASKING {
            return answer(false);
        }
        let started = std::thread::Builder::new().name("status".into());
        if let Err(error) = started.spawn(move || answer(true)) {
            self.asking -= 1;
            self.refuse(id, 2, &format!("no thread: {error}"));
        }
    }

    /// Sends answers that are ready.
    pub(super) fn answered(&mut self) {
        while let Ok(answered) = self.answers_in.try_recv() {
            self.asking = self.asking.saturating_sub(1);
            self.parts.firewall.asked(&answered.asked);
            self.parts.server.send(answered.connection, &answered.reply);
            self.parts.server.close(answered.connection);
        }
    }

    /// All but what the firewall says, and what it is to be asked for each ban, in order.
    fn status(
        &mut self,
        jail: Option<&JailName>,
        now: Now,
    ) -> Result<(Status, Vec<Option<Entry>>), Reply> {
        self.parts.jails.sweep(now);
        let mut names = self.parts.jails.names();
        if let Some(jail) = jail {
            let known = self.parts.jails.settings(jail).is_some() || names.contains(jail);
            if !known {
                return Err(refused(1, self.no_such_jail(jail)));
            }
            names = vec![jail.clone()];
        }
        let all = self.parts.jails.bans().iter();
        let shown = all
            .filter(|ban| jail.is_none_or(|jail| ban.jail == *jail))
            // What is over is ended within a second; the kernel is on time.
            .filter(|ban| ban.until.is_none_or(|until| until > now.boot));
        let mut by_jail: HashMap<&JailName, Shown> = HashMap::new();
        for ban in shown {
            let (status, entry) = self.ban_status(ban, now);
            let shown = by_jail.entry(&ban.jail).or_default();
            if ban.mode == Mode::Observed {
                shown.observed.push(status);
            } else {
                shown.banned.push(status);
                shown.entries.push(entry);
            }
        }
        let mut entries = Vec::new();
        let failing = self.parts.jails.failing();
        let jails = names.into_iter().map(|name| {
            let settings = self.parts.jails.settings(&name);
            let totals = self.parts.jails.totals(&name);
            let shown = by_jail.remove(&name).unwrap_or_default();
            entries.extend(shown.entries);
            let (banned, observed) = (shown.banned, shown.observed);
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
                Role::Worker {
                    hello,
                    counters,
                    reading,
                    slowest,
                } => Some(WorkerStatus {
                    pid: hello.pid,
                    kind: hello.kind,
                    path: hello.path.clone(),
                    counters: **counters,
                    reading: Reading::clone(reading),
                    slowest: slowest.clone(),
                }),
                _ => None,
            })
            .collect();
        workers.sort_unstable_by_key(|worker| (worker.kind, worker.pid));
        let mut warnings = self.warnings(workers.is_empty());
        warnings.extend(workers.iter().filter_map(overload));
        let status = Status {
            engine: EngineStatus {
                pid: std::process::id(),
                since: self.parts.started.wall,
                version: env!("CARGO_PKG_VERSION").into(),
                config: self.parts.accepted.hash.clone(),
                backend: self.backends(),
                off: self.parts.off.status(),
            },
            workers,
            jails,
            warnings,
        };
        Ok((status, entries))
    }

    fn backends(&self) -> String {
        let all = self.parts.accepted.config.firewall.backend.iter();
        all.map(Backend::to_string).collect::<Vec<_>>().join(", ")
    }

    fn ban_status(&self, ban: &Ban, now: Now) -> (BanStatus, Option<Entry>) {
        let entry = ban.given().and_then(|given| self.entry(&given, now));
        let mirror = entry
            .as_ref()
            .and_then(|entry| self.parts.firewall.mirror(entry));
        let status = BanStatus {
            id: ban.id.to_string(),
            host: show_net(&ban.net),
            since: ban.since_wall,
            until: ban.until.map(|until| now.wall_of(until)),
            in_force: None,
            ufw: mirror.map(|mirror| {
                let word = match mirror {
                    Mirror::Present => "present",
                    Mirror::Queued => "queued",
                    Mirror::Capped => "capped",
                    Mirror::Short => "short",
                    Mirror::Removed => "removed",
                    Mirror::Inactive => "inactive",
                };
                word.into()
            }),
            behind: match ban.mode {
                Mode::Behind(peer) | Mode::Proxied(peer) => Some(peer),
                _ => None,
            },
            reason: ban.reason.clone(),
        };
        (status, entry)
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

/// A jail's bans.
#[derive(Default)]
struct Shown {
    banned: Vec<BanStatus>,
    /// Of `banned`, what the firewall is asked for.
    entries: Vec<Option<Entry>>,
    observed: Vec<BanStatus>,
}

/// Puts into the bans of `status` what the firewall says of `entries`, their order the same.
fn ask_all(
    asker: &mut Asker,
    status: &mut Status,
    entries: &[Option<Entry>],
) -> Result<(), String> {
    let asked: Vec<Entry> = entries.iter().flatten().cloned().collect();
    let mut found = asker.in_force(&asked)?.into_iter();
    let bans = status.jails.iter_mut().flat_map(|jail| &mut jail.banned);
    for (ban, entry) in bans.zip(entries) {
        if entry.is_some() {
            ban.in_force = found.next().flatten();
        }
    }
    Ok(())
}
