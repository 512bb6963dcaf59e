//! Hits of workers: whom the worker is not trusted with.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::hub::{Engine, Then, now};
use super::perform::Work;
use crate::alert::words;
use crate::config::JailName;
use crate::control::LineHit;
use crate::jail::{Action, Hit, Moment};
use crate::record::Kind;
use crate::store::Op;

/// Lines told back with one acknowledgement: enough for a rehearsal by hand.
const MAX_TOLD: usize = 100;

impl Engine {
    /// Decides about hits, puts bans in force, and has the acknowledgement follow the commit.
    pub(super) fn hits(&mut self, connection: u64, stream: u64, kind: Kind, hits: &[LineHit]) {
        let Some(offset) = hits.iter().map(|hit| hit.offset).max() else {
            return;
        };
        // First, because it may have to ask the kernel: the time is that of the decision.
        let exempt = self.exempt();
        let now = now();
        let mut known = self.stream(stream, now).decided;
        let mut work = Work::default();
        let mut told = Vec::new();
        let mut counted: HashMap<JailName, HashSet<IpNet>> = HashMap::new();
        for line in hits {
            if known.is_some_and(|known| line.offset <= known) {
                continue;
            }
            known = Some(line.offset);
            for (jail, _pattern) in &line.jails {
                let settings = self.parts.jails.settings(jail);
                if settings.is_none_or(|settings| settings.log != kind) {
                    self.unknown_jails += 1;
                    continue;
                }
                // Its totals change in any case.
                counted.entry(jail.clone()).or_default();
                if self.parts.off.is_on() {
                    self.parts.jails.count_only(jail);
                    continue;
                }
                let hit = Hit {
                    jail,
                    client: line.client,
                    peer: line.peer,
                    arrived: Moment::from_nanos(i64::try_from(line.arrived).unwrap_or(i64::MAX)),
                };
                let observed = self.parts.jails.observe(&hit, now, &exempt);
                for (jail, net) in observed.changed {
                    self.evidence.note(&jail, net, now.wall, &line.evidence);
                    counted.entry(jail).or_default().insert(net);
                }
                for action in &observed.actions {
                    self.crowds.note(action, line.client, now.boot);
                    if *action == Action::NoSuchJail {
                        self.unknown_jails += 1;
                    }
                    if told.len() < MAX_TOLD {
                        told.extend(words(action).map(|(_, line)| line));
                    }
                    if let Action::Ban(ban) = action {
                        work.ops.push(Op::Evidence {
                            ban: ban.id,
                            lines: self.evidence.take(&ban.jail, ban.net),
                        });
                    }
                }
                work.take(observed.actions);
            }
        }
        for (jail, changed) in counted {
            self.store_counters(&mut work, jail, changed);
        }
        if let Some(offset) = known {
            self.stream(stream, now).decided = Some(offset);
            work.ops.push(Op::Stream { stream, offset });
        }
        let then = Then::Ack {
            connection,
            stream,
            offset,
            told,
        };
        self.perform(work, now, vec![then]);
    }

    /// Has the store keep what a jail counts now.
    pub(super) fn store_counters(
        &self,
        work: &mut Work,
        jail: JailName,
        changed: impl IntoIterator<Item = IpNet>,
    ) {
        let jails = &self.parts.jails;
        let findtime = jails.settings(&jail).map(|jail| jail.findtime);
        for net in changed {
            work.ops.push(Op::Counter {
                jail: jail.clone(),
                net,
                hits: jails.counted(&jail, &net),
                findtime: findtime.unwrap_or_default(),
            });
        }
        let totals = jails.totals(&jail);
        work.ops.push(Op::Totals { jail, totals });
    }
}
