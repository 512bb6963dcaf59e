//! Confirms the clients of error lines, which scripts can imitate: by a connection of the client, or
//! by an access record.

use std::net::IpAddr;
use std::time::Duration;

use super::decider::Decider;
use super::decision::{Decision, HookCall};
use crate::jail::{Action, Ban, Moment, Now};

/// A ban is logged as unconfirmed when nothing has confirmed its client for so long: the access
/// record of a request follows its error line within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Unconfirmed bans that are not logged yet.
#[derive(Debug, Default)]
pub(super) struct Unlogged(Vec<(Moment, Ban)>);

impl Decider {
    /// Notes new bans whose clients are not confirmed.
    pub(super) fn log_later(&mut self, bans: Vec<Ban>, now: Now) {
        let due = now.boot.plus(PATIENCE);
        self.unlogged
            .0
            .extend(bans.into_iter().map(|ban| (due, ban)));
    }

    /// A connection or an access record of these clients was seen.
    pub(super) fn confirm(&mut self, clients: Vec<IpAddr>, now: Now) -> Decision {
        let exempt = self.exemptions.current();
        let mut decision = Decision::default();
        for client in clients {
            let observed = self.jails.confirm(client, now, &exempt);
            let evidence = self.evidence_of(&observed.actions);
            for action in &observed.actions {
                if let Action::Confirmed(ban) = action {
                    self.unlogged.0.retain(|(_, other)| other.id != ban.id);
                }
            }
            decision.add(observed.actions);
            decision.ops.extend(evidence);
            for (jail, net) in observed.changed {
                self.store_counters(&mut decision, jail, [net]);
            }
        }
        decision
    }

    /// Logs bans that nothing has confirmed in time; with `now` `None` all of them.
    pub(super) fn log_unconfirmed(&mut self, now: Option<Now>, decision: &mut Decision) {
        let is_due = |due: Moment| now.is_none_or(|now| due <= now.boot);
        for (_, ban) in self.unlogged.0.extract_if(.., |(due, _)| is_due(*due)) {
            let action = Action::Ban(ban);
            let hook = HookCall::of(&action);
            decision.announce(&action, hook);
        }
    }
}
