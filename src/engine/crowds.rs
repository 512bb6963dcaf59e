//! Shared addresses that are hit: a NAT, or a proxy that nobody told us of?

use std::net::IpAddr;
use std::time::Duration;

use super::hub::Engine;
use crate::alert::Severity;
use crate::jail::{Action, Moment, SHARED_REASON, unmap};

/// How long one is spoken of after its last hit.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// Addresses remembered; what more there are changes no word.
const MOST: usize = 100;

/// Addresses named.
const NAMED: usize = 3;

const TROUBLE: &str = "shared";

/// Who hit jails from a shared address lately, in the order in which they first did.
#[derive(Debug, Default)]
pub(super) struct Crowds {
    hit: Vec<(IpAddr, Moment)>,
}

impl Crowds {
    /// Takes note of a decision that a shared address made another one.
    pub(super) fn note(&mut self, action: &Action, client: IpAddr, now: Moment) {
        let shared = match action {
            Action::Spared { .. } => true,
            Action::Ban(ban) => ban.reason.as_deref() == Some(SHARED_REASON),
            _ => false,
        };
        if !shared {
            return;
        }
        let client = unmap(client);
        let room = self.hit.len() < MOST;
        match self.hit.iter_mut().find(|(addr, _)| *addr == client) {
            Some((_, last)) => *last = now,
            None if room => self.hit.push((client, now)),
            None => {}
        }
    }

    /// What to say of those of the last hour, if there are any.
    fn alarm(&mut self, now: Moment) -> Option<String> {
        self.hit.retain(|(_, last)| now.since(*last) < REMEMBERED);
        let named = self.hit.iter().take(NAMED);
        let mut named: Vec<String> = named.map(|(addr, _)| addr.to_string()).collect();
        if named.is_empty() {
            return None;
        }
        if self.hit.len() > NAMED {
            named.push("more".to_owned());
        }
        Some(format!(
            "attacks come from addresses that many browsers use ({}): no jail bans them for longer \
             than 10 minutes, and jails that count hits do not at all. If that is a proxy or CDN \
             in front of this host: `RemoteIPHeader` and `RemoteIPInternalProxy` of mod_remoteip \
             name the client to Apache; then name the proxy under `[proxies] trusted`, and set \
             `backend = [\"ufw\", \"apache\"]`, so that Apache refuses the client itself",
            named.join(", ")
        ))
    }
}

impl Engine {
    /// Tells of attacks from shared addresses, while there are any.
    pub(super) fn tell_of_crowds(&mut self, now: Moment) {
        match self.crowds.alarm(now) {
            Some(text) => self.trouble(TROUBLE, Severity::Warning, text),
            None => self.over(TROUBLE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_named_and_none_for_ever() {
        let mut crowds = Crowds::default();
        let at = |seconds: i64| Moment::from_nanos(seconds * 1_000_000_000);
        let spared = Action::Spared {
            jail: "a".parse().unwrap(),
            client: IpAddr::from([192, 0, 2, 1]),
        };
        assert_eq!(crowds.alarm(at(0)), None);
        crowds.note(&Action::NoSuchJail, IpAddr::from([192, 0, 2, 9]), at(0));
        assert_eq!(crowds.alarm(at(0)), None);
        for n in 0..200 {
            crowds.note(&spared, IpAddr::from([192, 0, 2, n]), at(i64::from(n)));
            crowds.note(&spared, IpAddr::from([192, 0, 2, n]), at(i64::from(n)));
        }
        assert_eq!(crowds.hit.len(), MOST);
        let told = crowds.alarm(at(200)).unwrap();
        assert!(
            told.contains("(192.0.2.0, 192.0.2.1, 192.0.2.2, more)"),
            "{told}"
        );
        let told = crowds.alarm(at(3_600 + 98)).unwrap();
        assert!(told.contains("(192.0.2.99)"), "{told}");
        assert_eq!(crowds.alarm(at(3_600 + 99)), None);
    }
}
