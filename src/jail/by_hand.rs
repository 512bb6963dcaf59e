//! Bans and unbans by a person.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::bans::{Ban, Mode};
use super::cause::{Cause, End};
use super::counter::JailIndex;
use super::decision::{Action, Refusal};
use super::exempt::Exempt;
use super::id::BanId;
use super::jails::Jails;
use super::moment::{Moment, Now};
use super::network::{canonical, is_too_wide, overlap};
use crate::config::{Jail, JailName};

/// How exact a time is that another boot saved.
const SAME: Duration = Duration::from_secs(1);

impl Jails {
    /// Bans exactly this network, without escalation, in place of the same jail's ban of it. Without
    /// a `bantime` the ban ends no earlier than that one.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn ban_by_hand(
        &mut self,
        jail: Option<&JailName>,
        net: IpNet,
        bantime: Option<Option<Duration>>,
        reason: Option<String>,
        now: Now,
        exempt: &Exempt,
    ) -> Result<Vec<Action>, Refusal> {
        let jail = jail.unwrap_or(&self.manual).clone();
        let net = canonical(net);
        let settings = self.permits(&jail, &net, exempt)?;
        let mode = if settings.enforce {
            Mode::Enforced
        } else {
            Mode::Observed
        };
        let until = |bantime: Option<Duration>| bantime.map(|time| now.boot.plus(time));
        let until = match (bantime, self.bans.get(&jail, &net)) {
            (Some(bantime), _) => until(bantime),
            (None, Some(old)) if old.mode == mode => match (until(settings.bantime), old.until) {
                (Some(new), Some(old)) => Some(new.max(old)),
                (_, None) | (None, _) => None,
            },
            (None, _) => until(settings.bantime),
        };
        Ok(self.ban(Ban {
            id: BanId::default(),
            jail,
            net,
            ports: settings.port.clone(),
            mode,
            since: now.boot,
            since_wall: now.wall,
            until,
            failures: 0,
            within: Duration::ZERO,
            cause: Cause::Manual(reason.map(String::into_boxed_str)),
        }))
    }

    /// The jail's settings, where it may ban all of `net`.
    pub(super) fn permits(
        &self,
        jail: &JailName,
        net: &IpNet,
        exempt: &Exempt,
    ) -> Result<Arc<Jail>, Refusal> {
        let slot = self.slot(jail);
        let Some(settings) = slot.and_then(|slot| slot.settings.clone()) else {
            return Err(Refusal::NoSuchJail(jail.clone()));
        };
        match exempt.reason(&settings, net) {
            Some(reason) => Err(Refusal::Exempt(reason)),
            None if is_too_wide(net) => Err(Refusal::TooWide(*net)),
            None => Ok(settings),
        }
    }

    /// Ends every ban in `net`, and the ban of a wider network around it where hits led to it or it
    /// is an IPv6 client's prefix; `None`: all. Resets the counters of those clients, and returns
    /// their (jail, client).
    pub fn unban(
        &mut self,
        net: Option<IpNet>,
        jail: Option<&JailName>,
    ) -> (Vec<Action>, Vec<(JailName, IpNet)>) {
        let inside = |candidate: &IpNet| net.is_none_or(|net| net.contains(candidate));
        let around = |candidate: &IpNet| net.is_some_and(|net| candidate.contains(&net));
        let meant = |ban: &Ban| net.is_none_or(|net| is_ban_of(&net, &ban.net, ban.failures));
        let by = |name: &JailName| jail.is_none_or(|jail| jail == name);
        let keys: Vec<(JailName, IpNet)> = self
            .bans
            .iter()
            .filter(|ban| by(&ban.jail) && meant(ban))
            .map(|ban| (ban.jail.clone(), ban.net))
            .collect();
        let mut actions = Vec::new();
        for (jail, net) in keys {
            let end = End::ByHand;
            let ban = self.bans.remove(&jail, &net);
            actions.extend(ban.map(|ban| Action::Unban { ban, end }));
        }
        let counters: Vec<(JailIndex, IpNet)> = self
            .counters
            .keys()
            .filter(|(_, net)| inside(net) || around(net))
            .collect();
        let mut reset = Vec::new();
        for key in counters {
            let slot = self.slots.get(usize::from(key.0));
            if let Some(name) = slot.map(|slot| slot.name.clone())
                && by(&name)
            {
                self.counters.reset(&key);
                reset.push((name, key.1));
            }
        }
        (actions, reset)
    }

    /// Forgets earlier bans of these clients: their next ban is not escalated.
    pub fn forget(&mut self, net: Option<IpNet>, jail: Option<&JailName>) {
        let jail = jail.and_then(|jail| self.index.get(jail).copied());
        let keys: Vec<(JailIndex, IpNet)> = self
            .repeats
            .keys()
            .filter(|(index, client)| {
                jail.is_none_or(|jail| jail == *index)
                    && net.is_none_or(|net| overlap(&net, client))
            })
            .collect();
        for key in keys {
            self.repeats.reset(&key);
        }
        if jail.is_none() {
            self.shared_bans
                .retain(|client, _| net.is_some_and(|net| !overlap(&net, client)));
        }
    }

    /// The active ban with this id.
    pub fn ban_named(&self, id: BanId) -> Option<&Ban> {
        self.bans.iter().find(|ban| ban.id == id)
    }

    /// Ends this ban alone, resets its client's counter, and returns the (jail, client) of that.
    pub fn unban_named(&mut self, id: BanId, end: End) -> Option<(Action, (JailName, IpNet))> {
        let (jail, net) = self.ban_named(id).map(|ban| (ban.jail.clone(), ban.net))?;
        let ban = self.bans.remove(&jail, &net)?;
        let index = self.slot_of(&jail);
        self.counters.reset(&(index, net));
        Some((Action::Unban { ban, end }, (jail, net)))
    }

    /// Forgets this ban: it does not make the client's next ban longer.
    pub fn forget_one(&mut self, ban: &Ban) {
        let key = (self.slot_of(&ban.jail), ban.net);
        let apart = |at: Moment| at.since(ban.since).max(ban.since.since(at));
        let mut times = self.repeats.hits(&key);
        let times_apart = times.iter().map(|(at, _)| apart(*at)).enumerate();
        let nearest = times_apart.min_by_key(|(_, apart)| *apart);
        if let Some((place, _)) = nearest.filter(|(_, apart)| *apart <= SAME) {
            times.remove(place);
        }
        self.repeats.restore(key, times);
    }
}

/// Whether a ban of `banned` is one of the client or network `net`: of an address in it, or of the
/// client's network around it. A wider network that a person banned is not.
pub fn is_ban_of(net: &IpNet, banned: &IpNet, failures: u32) -> bool {
    let client = matches!(banned, IpNet::V6(v6) if v6.prefix_len() >= 48);
    net.contains(banned) || (banned.contains(net) && (client || failures > 0))
}
