//! Clients of lines that a script may have written: whether anything shows that they were there.

use std::net::IpAddr;

use ipnet::IpNet;

use super::bans::Ban;
use super::cause::Cause;
use super::confirmations::{Expected, MAX_CLIENTS, WINDOW};
use super::decision::{Action, Claim, Hit, Observed};
use super::exempt::Exempt;
use super::jails::Jails;
use super::moment::Now;
use super::network::unmap;
use crate::config::JailName;

impl Jails {
    pub(super) fn is_confirmed(&self, client: IpAddr, now: Now) -> bool {
        let at = self.confirmations.confirmed.get(&client);
        at.is_some_and(|at| now.boot.since(*at) <= WINDOW)
    }

    /// Remembers a new ban for [`Jails::confirm`].
    pub(super) fn expect_confirmation(
        &mut self,
        (client, net): (IpAddr, IpNet),
        jail: &JailName,
        spoofable: bool,
        now: Now,
    ) {
        let expected = &mut self.confirmations.expected;
        if expected.len() < MAX_CLIENTS || expected.contains_key(&client) {
            let bans = expected.entry(client).or_default();
            bans.retain(|ban| (&ban.jail, ban.net) != (jail, net));
            bans.push(Expected {
                jail: jail.clone(),
                net,
                since: now.boot,
                spoofable,
            });
            self.confirmations.new.push(client);
        }
    }

    /// The clients of unconfirmed bans since the last call.
    pub fn take_unconfirmed(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.confirmations.new)
    }

    /// The clients of unconfirmed bans that a confirmation would still change.
    pub fn unconfirmed(&self, now: Now) -> impl Iterator<Item = IpAddr> {
        let fresh = move |ban: &Expected| now.boot.since(ban.since) <= WINDOW;
        let clients = self.confirmations.expected.iter();
        clients
            .filter(move |(_, bans)| bans.iter().any(fresh))
            .map(|(client, _)| *client)
    }

    /// A connection or an access record of this client was seen: its unconfirmed bans of the last
    /// 60 seconds get their full length and count for later ones, and for 60 seconds it needs no
    /// confirmation.
    pub fn confirm(&mut self, client: IpAddr, now: Now, exempt: &Exempt) -> Observed {
        let client = unmap(client);
        let confirmed = &mut self.confirmations.confirmed;
        if confirmed.len() < MAX_CLIENTS || confirmed.contains_key(&client) {
            confirmed.insert(client, now.boot);
        }
        let mut all = Observed::default();
        let bans = self.confirmations.expected.remove(&client);
        for expected in bans.unwrap_or_default() {
            let Expected {
                jail,
                net,
                since,
                spoofable,
            } = expected;
            let same = |ban: &&Ban| ban.cause == Cause::Unconfirmed && ban.since == since;
            let ban = self.bans.get(&jail, &net).filter(same).cloned();
            let late = now.boot.since(since) > WINDOW;
            let (Some(ban), Some((index, settings)), false) = (ban, self.settings_of(&jail), late)
            else {
                continue;
            };
            let hits = (ban.failures, spoofable);
            let (bantime, cause) =
                self.full_length(index, (client, net), &settings, hits, now, exempt);
            let ban = Ban {
                until: bantime.map(|time| since.plus(time)),
                cause,
                ..ban
            };
            self.bans.insert(ban.clone());
            let mut observed = Observed::only(Action::Confirmed(ban));
            let hit = Hit {
                jail: &jail,
                client,
                peer: None,
                forgeable: false,
                unproven: false,
                spoofable,
                surge: false,
                claim: Claim::None,
                arrived: since,
                weight: 1,
            };
            self.count_ban(&hit, client, now, exempt, &mut observed);
            all.actions.extend(observed.actions);
            all.changed.extend(observed.changed);
        }
        all
    }
}
