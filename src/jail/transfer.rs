//! Bans from another host, or from a list.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use super::bans::{Ban, Mode};
use super::cause::Cause;
use super::decision::{Action, Refusal};
use super::exempt::Exempt;
use super::id::BanId;
use super::jails::Jails;
use super::moment::Now;
use super::network::canonical;
use crate::config::JailName;

/// Two ends that differ by less are the same: two readings of the wall clock led to them.
const SAME_END: Duration = Duration::from_secs(1);

/// A ban to import.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The client or network.
    pub net: IpNet,
    /// The jail that gets the ban.
    pub jail: JailName,
    /// When it began.
    pub since: Timestamp,
    /// When it ends.
    pub until: OfferedEnd,
    /// Weight that led to it; 0 where a person banned.
    pub failures: u32,
    /// The text that `status` shows.
    pub reason: Option<String>,
    /// The proxy that the client is behind.
    pub behind: Option<IpAddr>,
}

/// When an imported ban ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferedEnd {
    /// After the jail's bantime, from now.
    Jail,
    /// At this time; `None`: never.
    At(Option<Timestamp>),
}

/// What became of an offer.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// It is in force.
    New(Vec<Action>),
    /// It is in force in place of the jail's ban, which ended earlier.
    Longer(Vec<Action>),
    /// The jail's ban lasts as long or longer.
    Known,
    /// It ended before the import.
    Over,
    /// There are as many bans as pipeban keeps; an import lifts none of them.
    NoRoom,
}

impl Jails {
    /// Imports a ban with its end; shortens no ban of the jail. It is logged as `Restore Ban`, and
    /// does not make later bans longer.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn take_in(&mut self, offer: Offer, now: Now, exempt: &Exempt) -> Result<Taken, Refusal> {
        let net = canonical(offer.net);
        if matches!(offer.until, OfferedEnd::At(Some(until)) if until <= now.wall) {
            return Ok(Taken::Over);
        }
        let settings = self.permits(&offer.jail, &net, exempt)?;
        let until = match offer.until {
            OfferedEnd::Jail => settings.bantime.map(|time| now.boot.plus(time)),
            OfferedEnd::At(until) => until.map(|until| now.moment_of(until)),
        };
        let mode = match offer.behind {
            _ if !settings.enforce => Mode::Observed,
            Some(peer) => self.behind(peer, exempt),
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
                // A ban at the firewall blocks the client behind a proxy too.
                let covers = old.mode == Mode::Enforced || old.mode.is_like(mode);
                if covers && new_end == old.until {
                    return Ok(Taken::Known);
                }
                (if covers { old.mode } else { mode }, new_end)
            }
        };
        let longer = old.is_some();
        // No ban begins before 1970 or in the future.
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
            cause: Cause::Imported(offer.reason.map(String::into_boxed_str)),
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
