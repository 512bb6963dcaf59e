//! The alarms about attackers that are spared: a shared address is a NAT, or a proxy that is not
//! configured; an address of this host or its network is such a proxy, or an administrator's test.

use std::net::IpAddr;
use std::time::Duration;

use crate::jail::{Action, Cause, Mode, Moment, Reason, Why, unmap};

/// How long an address is named after its last attack.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// Addresses remembered; more would not change the text.
const MAX_ADDRESSES: usize = 100;

/// Addresses named.
const NAMED: usize = 3;

/// Shared addresses that attacked lately, in the order of their first attack.
#[derive(Debug, Default)]
pub(super) struct SharedAddressAlarm {
    attackers: Vec<(IpAddr, Moment)>,
    /// The last attacker of this host or its network.
    near: Option<Near>,
    /// The proxy of the last ban that no firewall on this host can enforce.
    behind: Option<(IpAddr, Moment)>,
}

#[derive(Debug)]
struct Near {
    client: IpAddr,
    reason: Reason,
    /// Many browsers use it.
    shared: bool,
    last: Moment,
}

impl SharedAddressAlarm {
    /// Remembers the client if the jail decided otherwise because its address is shared, or is of
    /// this host or its network. `is_shared`: many browsers use it.
    pub(super) fn note(
        &mut self,
        action: &Action,
        client: IpAddr,
        is_shared: impl FnOnce() -> bool,
        now: Moment,
    ) {
        if let Action::Ignore { reason, .. } = action
            && is_near(*reason)
        {
            let earlier = self.near.take().filter(|near| near.client == client);
            self.near = Some(Near {
                client,
                reason: *reason,
                shared: earlier.is_some_and(|near| near.shared) || is_shared(),
                last: now,
            });
            return;
        }
        if let Action::Ban(ban) = action
            && let Mode::Behind(proxy) = ban.mode
        {
            self.behind = Some((proxy, now));
        }
        let shared = match action {
            Action::Spared { .. } => true,
            Action::Ban(ban) => ban.cause == Cause::Shared,
            _ => false,
        };
        if !shared {
            return;
        }
        let client = unmap(client);
        let has_room = self.attackers.len() < MAX_ADDRESSES;
        match self.attackers.iter_mut().find(|(addr, _)| *addr == client) {
            Some((_, last)) => *last = now,
            None if has_room => self.attackers.push((client, now)),
            None => {}
        }
    }

    pub(super) fn text(&mut self, now: Moment) -> Option<String> {
        self.attackers
            .retain(|(_, last)| now.since(*last) < REMEMBERED);
        let named = self.attackers.iter().take(NAMED);
        let mut named: Vec<String> = named.map(|(addr, _)| addr.to_string()).collect();
        if named.is_empty() {
            return None;
        }
        if self.attackers.len() > NAMED {
            named.push("more".to_owned());
        }
        Some(format!(
            "attacks come from addresses that many browsers use ({}): jails that count hits need \
             five times as many, and a ban lasts at most 10 minutes, or 1 hour for the next one \
             within a day. If that is a proxy or CDN \
             in front of this host: {BEHIND_PROXY}",
            named.join(", ")
        ))
    }

    /// About bans that are not in force, because Apache does not refuse the clients of a proxy.
    pub(super) fn behind_text(&mut self, now: Moment) -> Option<String> {
        self.behind = self
            .behind
            .filter(|(_, last)| now.since(*last) < REMEMBERED);
        let (proxy, _) = self.behind?;
        Some(format!(
            "clients behind the proxy {proxy} attack, and no firewall on this host can block them: \
             set `backend = [\"auto\", \"apache\"]` and restart the engine, then run `pipeban setup \
             --write` and reload Apache, so that Apache refuses them"
        ))
    }

    /// About the last attacker of this host or its network.
    pub(super) fn near_text(&mut self, now: Moment) -> Option<String> {
        self.near = self
            .near
            .take()
            .filter(|near| now.since(near.last) < REMEMBERED);
        let Near {
            client,
            reason,
            shared,
            ..
        } = self.near.as_ref()?;
        Some(match shared {
            true => format!(
                "attacks come from {client}, which many browsers use, and no client is banned: \
                 {reason}. If that is a proxy in front of Apache: {BEHIND_PROXY}"
            ),
            false => format!(
                "{client} attacked and is not banned: {reason}. To test a ban, attack from another \
                 network; if it is a proxy in front of Apache, set up mod_remoteip"
            ),
        })
    }
}

const BEHIND_PROXY: &str = "`RemoteIPHeader` and `RemoteIPInternalProxy` of mod_remoteip give Apache \
                            the client's address; then name the proxy under `[proxies] trusted`, and \
                            set `backend = [\"auto\", \"apache\"]`, so that Apache refuses the client";

/// Exempt by where it is, not because an administrator named it.
fn is_near(reason: Reason) -> bool {
    match reason.why {
        Why::Own | Why::Gateway | Why::NameServer | Why::Private => true,
        // Every jail has loopback in `ignoreip`.
        Why::IgnoreIp => reason.entry.addr().is_loopback(),
        Why::AllowList | Why::TrustedProxy | Why::NotAClient | Why::SearchEngine | Why::Header => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_addresses_are_named_for_an_hour() {
        let mut alarm = SharedAddressAlarm::default();
        let at = |seconds: i64| Moment::from_nanos(seconds * 1_000_000_000);
        let spared = Action::Spared {
            jail: "a".parse().unwrap(),
            client: IpAddr::from([192, 0, 2, 1]),
            maxretry: 15,
        };
        let note = |alarm: &mut SharedAddressAlarm, action, addr, now| {
            alarm.note(action, addr, || false, now);
        };
        note(
            &mut alarm,
            &Action::NoSuchJail,
            IpAddr::from([192, 0, 2, 9]),
            at(0),
        );
        assert_eq!(alarm.text(at(0)), None);
        for n in 0..200 {
            note(
                &mut alarm,
                &spared,
                IpAddr::from([192, 0, 2, n]),
                at(i64::from(n)),
            );
            note(
                &mut alarm,
                &spared,
                IpAddr::from([192, 0, 2, n]),
                at(i64::from(n)),
            );
        }
        assert_eq!(alarm.attackers.len(), MAX_ADDRESSES);
        let text = alarm.text(at(200)).unwrap();
        assert!(
            text.contains("(192.0.2.0, 192.0.2.1, 192.0.2.2, more)"),
            "{text}"
        );
        let text = alarm.text(at(3_600 + 98)).unwrap();
        assert!(text.contains("(192.0.2.99)"), "{text}");
        assert_eq!(alarm.text(at(3_600 + 99)), None);
    }

    #[test]
    fn an_attacker_of_this_network_is_named_with_what_to_do() {
        let at = |seconds: i64| Moment::from_nanos(seconds * 1_000_000_000);
        let client = IpAddr::from([172, 17, 0, 1]);
        for (why, entry, shared, word) in [
            (
                Why::Private,
                "172.16.0.0/12",
                false,
                "attack from another network",
            ),
            (Why::Own, "172.17.0.1/32", true, "`RemoteIPHeader`"),
            (Why::IgnoreIp, "127.0.0.0/8", true, "`RemoteIPHeader`"),
            (Why::IgnoreIp, "172.17.0.0/16", true, ""),
            (Why::AllowList, "172.17.0.1/32", true, ""),
        ] {
            let mut alarm = SharedAddressAlarm::default();
            let reason = Reason {
                why,
                entry: entry.parse().unwrap(),
            };
            let action = Action::Ignore {
                jail: "a".parse().unwrap(),
                client,
                reason,
            };
            alarm.note(&action, client, || shared, at(0));
            let text = alarm.near_text(at(1));
            match word {
                "" => assert_eq!(text, None),
                word => assert!(text.as_ref().unwrap().contains(word), "{text:?}"),
            }
            assert_eq!(alarm.text(at(1)), None);
            assert_eq!(alarm.near_text(at(3_600)), None);
        }
    }
}
