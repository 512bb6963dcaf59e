//! Which clients have access records: the engine asks for those that an error line named.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// How far back a request reaches, at least; at most twice as far.
const BACK: Duration = Duration::from_secs(5);
/// How long a request lasts.
const AHEAD: Duration = Duration::from_secs(60);
/// Clients remembered at most in each generation, and requested at most.
const MAX_CLIENTS: usize = 65_536;

/// Clients of the last seconds in two generations, and those that the engine asked for. Times never
/// go back.
#[derive(Debug, Default)]
pub(super) struct Watch {
    young: HashSet<IpAddr>,
    old: HashSet<IpAddr>,
    began: Duration,
    /// Until when each is requested.
    requested: HashMap<IpAddr, Duration>,
    found: Vec<IpAddr>,
}

impl Watch {
    /// Access records of these clients.
    pub(super) fn saw(&mut self, clients: &[IpAddr], now: Duration) {
        if clients.is_empty() {
            return;
        }
        self.turn(now);
        for client in clients {
            if self.young.len() >= MAX_CLIENTS {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(*client);
            if !self.requested.is_empty()
                && let Some(until) = self.requested.remove(client)
                && now <= until
            {
                self.found.push(*client);
            }
        }
    }

    /// The engine asks for these.
    pub(super) fn request(&mut self, clients: &[IpAddr], now: Duration) {
        self.turn(now);
        if self.requested.len() + clients.len() > MAX_CLIENTS {
            self.requested.retain(|_, until| now <= *until);
        }
        for client in clients {
            if self.young.contains(client) || self.old.contains(client) {
                self.found.push(*client);
            } else if self.requested.len() < MAX_CLIENTS {
                self.requested.insert(*client, now + AHEAD);
            }
        }
    }

    /// How many were found.
    pub(super) fn found(&self) -> usize {
        self.found.len()
    }

    pub(super) fn take(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.found)
    }

    fn turn(&mut self, now: Duration) {
        let age = now.saturating_sub(self.began);
        if age >= BACK {
            self.old = std::mem::take(&mut self.young);
            self.began = now;
        }
        if age >= 2 * BACK {
            self.old.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_found_from_five_seconds_before_to_sixty_after() {
        let client = |n: u8| IpAddr::from([192, 0, 2, n]);
        // The record and the request, in seconds; whether the client is found.
        for (record, request, found) in [
            (100, 100, true),
            (100, 104, true),
            (100, 110, false),
            (100, 200, false),
            (160, 100, true),
            (161, 100, false),
        ] {
            let mut watch = Watch::default();
            let at = Duration::from_secs;
            let mut steps = [(record, true), (request, false)];
            steps.sort_by_key(|(time, _)| *time);
            for (time, is_record) in steps {
                match is_record {
                    true => watch.saw(&[client(1), client(2)], at(time)),
                    false => watch.request(&[client(1)], at(time)),
                }
            }
            let expected = if found { vec![client(1)] } else { vec![] };
            assert_eq!(watch.take(), expected, "{record} {request}");
            assert_eq!(watch.found(), 0);
        }
    }
}
