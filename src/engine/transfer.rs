//! `pipeban export` and `pipeban import`, a page at a time: hits do not wait for a million bans.

use std::collections::HashSet;

use ipnet::IpNet;

use super::commands::{refused, short};
use super::hooks::Due;
use super::hub::{Engine, now};
use super::perform::Work;
use crate::config::JailName;
use crate::control::{Exported, Fate, Offered, Reply, Until};
use crate::jail::{Action, Ban, End, Mode, Now, Offer, OfferedEnd, Refusal, Taken, show_net};
use crate::store::Op;

/// Bans in one answer, but for those of the last network.
const PAGE: usize = 1_000;

/// Bans looked at for one answer.
const LOOKED_AT: usize = 20_000;

impl Engine {
    /// The bans of networks behind `after`, in their order, and where the next page begins.
    pub(super) fn export(&self, jail: Option<&JailName>, after: Option<IpNet>) -> Reply {
        let jails = &self.parts.jails;
        if let Some(jail) = jail
            && jails.settings(jail).is_none()
            && !jails.names().contains(jail)
        {
            return refused(2, self.no_such_jail(jail));
        }
        let now = now();
        let (mut bans, mut next) = (Vec::new(), None);
        let mut last: Option<IpNet> = None;
        for (looked, ban) in jails.bans().behind(after).enumerate() {
            // All bans of a network are on one page.
            let full = bans.len() >= PAGE || looked >= LOOKED_AT;
            if full && last.is_some_and(|last| last != ban.net) {
                next = last;
                break;
            }
            last = Some(ban.net);
            let asked = jail.is_none_or(|jail| *jail == ban.jail);
            let over = ban.until.is_some_and(|until| until <= now.boot);
            if asked && !over && ban.mode != Mode::Observed {
                bans.push(exported(ban, now));
            }
        }
        Reply::Bans { bans, next }
    }

    /// Takes bans in, all of them in force together.
    pub(super) fn import(
        &mut self,
        work: &mut Work,
        jail: Option<&JailName>,
        offered: Vec<Offered>,
        now: Now,
    ) -> Reply {
        if let Some(refusal) = self.refused_while_off() {
            return refusal;
        }
        if let Some(jail) = jail
            && self.parts.jails.settings(jail).is_none()
        {
            return refused(2, self.no_such_jail(jail));
        }
        let exempt = self.exempt();
        let mut touched = HashSet::new();
        let mut fates = Vec::with_capacity(offered.len());
        for offered in offered {
            let offer = offer(offered, now);
            let jail = offer.jail.clone();
            let taken = self.parts.jails.take_in(offer, now, &exempt);
            fates.push(match taken {
                Ok(Taken::New(actions)) => {
                    keep(work, actions);
                    touched.insert(jail);
                    Fate::New
                }
                Ok(Taken::Longer(actions)) => {
                    keep(work, actions);
                    touched.insert(jail);
                    Fate::Longer
                }
                Ok(Taken::Known) => Fate::Known,
                Ok(Taken::Over) => Fate::Over,
                Ok(Taken::NoRoom) => Fate::Refused("there is no room for more bans".to_owned()),
                Err(Refusal::Exempt(reason)) => Fate::Spared(reason.to_string()),
                Err(Refusal::NoSuchJail(jail)) => {
                    let why = self.no_such_jail(&jail);
                    Fate::Refused(format!("{why}; `--jail` gives all bans to one"))
                }
                Err(refusal) => Fate::Refused(self.why_not(&refusal)),
            });
        }
        for jail in touched {
            self.store_counters(work, jail, []);
        }
        Reply::Taken {
            fates,
            trouble: None,
        }
    }
}

/// They are told as bans that are put back, and the store has yet to learn of them. Who stays
/// banned is no news for `on_unban`: no `on_ban` would follow.
fn keep(work: &mut Work, actions: Vec<Action>) {
    let stays = actions
        .iter()
        .any(|action| matches!(action, Action::Restore(ban) if ban.mode != Mode::Observed));
    for action in actions {
        let due = match &action {
            Action::Unban { end, .. } if stays && *end == End::Replaced => None,
            action => Due::of(action),
        };
        if let Action::Restore(ban) = &action {
            work.ops.push(Op::Ban(ban.clone()));
        }
        work.take_one(action, due);
    }
}

fn offer(offered: Offered, now: Now) -> Offer {
    Offer {
        net: offered.net,
        jail: offered.jail,
        since: offered.since.unwrap_or(now.wall),
        until: match offered.until {
            Until::Jail => OfferedEnd::Jail,
            Until::At(until) => OfferedEnd::At(Some(until)),
            Until::ForEver => OfferedEnd::At(None),
        },
        failures: offered.failures,
        reason: offered.reason.map(short),
        behind: offered.behind,
    }
}

fn exported(ban: &Ban, now: Now) -> Exported {
    Exported {
        id: ban.id.to_string(),
        host: show_net(&ban.net),
        jail: ban.jail.clone(),
        since: ban.since_wall,
        until: ban.until.map(|until| now.wall_of(until)),
        failures: ban.failures,
        reason: ban.reason.clone(),
        behind: match ban.mode {
            Mode::Behind(peer) | Mode::Proxied(peer) => Some(peer),
            Mode::Enforced | Mode::Observed => None,
        },
    }
}
