//! Bans that another engine made, or a list of somebody's.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use super::exempt::{canonical, is_too_wide};
use super::{Action, Ban, BanId, Exempt, Jails, Mode, Now, Refusal};
use crate::config::JailName;

/// Ends that are no further apart are the same: wall clocks are read one after the other.
const SAME_END: Duration = Duration::from_secs(1);

/// What stands for a reason where there is none. A ban with a reason makes no later one longer.
const IMPORTED: &str = "imported";

/// A ban to be taken in.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Whom.
    pub net: IpNet,
    /// On whose behalf.
    pub jail: JailName,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: OfferedEnd,
    /// Weight that led to it; 0 by hand.
    pub failures: u32,
    /// Shown as its reason.
    pub reason: Option<String>,
    /// The peer the client stands behind.
    pub behind: Option<IpAddr>,
}

/// When an offered ban is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferedEnd {
    /// After the jail's bantime, from now.
    Jail,
    /// Then; `None`: never.
    At(Option<Timestamp>),
}

/// What became of an offer.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// In force: told as a ban that is put back.
    New(Vec<Action>),
    /// So is this one; the same jail's ban ended earlier.
    Longer(Vec<Action>),
    /// The jail has the ban already, as long or longer.
    Known,
    /// Its time is over.
    Over,
    /// There are as many bans as there may be; none of them has to go for it.
    NoRoom,
}

impl Jails {
    /// Takes in a ban with the end it has, and shortens none. It is told as one that is put back,
    /// and makes no later ban longer.
    ///
    /// # Errors
    /// An unknown jail; somebody in the network is never banned; the network is too wide.
    pub fn take_in(&mut self, offer: Offer, now: Now, exempt: &Exempt) -> Result<Taken, Refusal> {
        let Some(settings) = self.settings(&offer.jail) else {
            return Err(Refusal::NoSuchJail(offer.jail));
        };
        let net = canonical(offer.net);
        if matches!(offer.until, OfferedEnd::At(Some(until)) if until <= now.wall) {
            return Ok(Taken::Over);
        }
        if let Some(reason) = exempt.reason(settings, &net) {
            return Err(Refusal::Exempt(reason));
        }
        if is_too_wide(&net) {
            return Err(Refusal::TooWide(net));
        }
        let until = match offer.until {
            OfferedEnd::Jail => settings.bantime.map(|time| now.boot.plus(time)),
            OfferedEnd::At(until) => until.map(|until| now.moment_of(until)),
        };
        let mode = match offer.behind {
            _ if !settings.enforce => Mode::Observed,
            Some(peer) => self.behind(peer),
            None => Mode::Enforced,
        };
        let ports = settings.port.clone();
        let old = self.bans.get(&offer.jail, &net);
        let (mode, until) = match old {
            None if self.bans.len() >= self.max_bans => return Ok(Taken::NoRoom),
            None => (mode, until),
            Some(old) => {
                let new_end = match (old.until, until) {
                    (None, _) => None,
                    (Some(_), _) if offer.until == OfferedEnd::Jail => old.until,
                    (Some(_), None) => None,
                    (Some(old), Some(new)) if old.plus(SAME_END) >= new => Some(old),
                    (Some(_), Some(new)) => Some(new),
                };
                // A ban of packets keeps out who comes by a proxy too.
                let covers = old.mode == Mode::Enforced || old.mode.is_like(mode);
                if covers && new_end == old.until {
                    return Ok(Taken::Known);
                }
                (if covers { old.mode } else { mode }, new_end)
            }
        };
        let longer = old.is_some();
        // Nobody's ban began before 1970, or begins later than now.
        let since_wall = offer.since.min(now.wall).max(Timestamp::UNIX_EPOCH);
        let actions = self.ban(Ban {
            id: BanId::default(),
            jail: offer.jail,
            net,
            ports,
            mode,
            since: now.moment_of(since_wall).min(now.boot),
            since_wall,
            until,
            failures: offer.failures,
            within: Duration::ZERO,
            reason: offer.reason.or_else(|| Some(IMPORTED.to_owned())),
        });
        let actions = actions.into_iter().map(|action| match action {
            Action::Ban(ban) => Action::Restore(ban),
            action => action,
        });
        let actions = actions.collect();
        Ok(if longer {
            Taken::Longer(actions)
        } else {
            Taken::New(actions)
        })
    }
}
