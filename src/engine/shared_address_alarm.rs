//! The alarms about attackers that are spared: a shared address is a NAT, or a proxy that is not
//! configured; an address of this host or its network is such a proxy, or an administrator's test.

use std::net::IpAddr;
use std::time::Duration;

use crate::control::LineHit;
use crate::jail::{Action, Bans, Cause, Mode, Moment, Reason, Why, unmap};
use crate::record::ClientSource;

/// How long an address is named after its last attack.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// A ban stops a client within seconds, also on connections that are open.
const STOPPED: Duration = Duration::from_secs(60);

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
    /// The last attack by way of a proxy that no firewall on this host stops, in words.
    behind: Option<(String, Moment)>,
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
    /// this host or its network. `bans`: those in force. `is_shared`: many browsers use it.
    pub(super) fn note(
        &mut self,
        action: &Action,
        line: &LineHit,
        bans: Option<&Bans>,
        is_shared: impl FnOnce() -> bool,
        now: Moment,
    ) {
        let client = line.client;
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
            let what = format!("clients behind the proxy {proxy} attack, and");
            self.behind = Some((what, now));
        }
        if let Action::AlreadyBanned { jail, net } = action
            && line.source == ClientSource::Header
            && let Some(ban) = bans.and_then(|bans| bans.get(jail, net))
            && ban.mode == Mode::Enforced
            && Moment::from_nanos(line.arrived.try_into().unwrap_or(0)).since(ban.since) > STOPPED
        {
            let what = format!(
                "{client} still attacks, a minute after its ban: if its proxy is on another host,"
            );
            self.behind = Some((what, now));
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

    /// Many browsers use it, as is known only after its attack.
    pub(super) fn learn_shared(&mut self, addr: IpAddr) {
        if let Some(near) = self.near.as_mut().filter(|near| near.client == addr) {
            near.shared = true;
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
        self.behind
            .take_if(|(_, last)| now.since(*last) >= REMEMBERED);
        let (what, _) = self.behind.as_ref()?;
        Some(format!(
            "{what} no firewall on this host can block them: set `backend = [\"auto\", \"apache\"]` \
             and restart the engine, then run `pipeban setup --write` and reload Apache, so that \
             Apache refuses them"
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
    use crate::engine::evidence::tests::hit;
    use crate::jail::Ban;

    fn line_of(client: IpAddr) -> LineHit {
        LineHit { client, ..hit("") }
    }

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
            alarm.note(action, &line_of(addr), None, || false, now);
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
            alarm.note(&action, &line_of(client), None, || shared, at(0));
            let text = alarm.near_text(at(1));
            match word {
                "" => assert_eq!(text, None),
                word => assert!(text.as_ref().unwrap().contains(word), "{text:?}"),
            }
            assert_eq!(alarm.text(at(1)), None);
            assert_eq!(alarm.near_text(at(3_600)), None);
        }
    }

    #[test]
    fn a_client_behind_a_proxy_that_its_ban_does_not_stop_is_named() {
        let at = |seconds: i64| Moment::from_nanos(seconds * 1_000_000_000);
        let client = IpAddr::from([203, 0, 113, 7]);
        let ban = |mode| Ban {
            id: crate::jail::BanId::default(),
            jail: "a".parse().unwrap(),
            net: client.into(),
            ports: crate::config::Ports::All,
            mode,
            since: at(100),
            since_wall: jiff::Timestamp::UNIX_EPOCH,
            until: None,
            failures: 1,
            within: Duration::ZERO,
            cause: Cause::Jail,
        };
        for (source, mode, seconds, is_named) in [
            (ClientSource::Header, Mode::Enforced, 161, true),
            // What waited in the pipe.
            (ClientSource::Header, Mode::Enforced, 160, false),
            (ClientSource::Peer, Mode::Enforced, 161, false),
            (ClientSource::Header, Mode::Observed, 161, false),
        ] {
            let mut bans = Bans::default();
            bans.insert(ban(mode));
            let mut alarm = SharedAddressAlarm::default();
            let (jail, net) = ("a".parse().unwrap(), client.into());
            let line = LineHit {
                source,
                arrived: seconds * 1_000_000_000,
                ..line_of(client)
            };
            let action = Action::AlreadyBanned { jail, net };
            alarm.note(&action, &line, Some(&bans), || false, at(1_000));
            let text = alarm.behind_text(at(1_001)).unwrap_or_default();
            assert_eq!(
                text.contains("203.0.113.7 still attacks"),
                is_named,
                "{text}"
            );
            assert_eq!(alarm.behind_text(at(1_000 + 3_600)), None);
        }
    }
}
