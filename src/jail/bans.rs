//! Bans in force: who owns them, and when they end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;

use super::exempt::overlap;
use super::id::BanId;
use super::moment::Moment;
use crate::config::{JailName, Ports};

/// Bans at most; beyond it the one that would end first is lifted, and counted.
pub const MAX_BANS: usize = 1_200_000;

/// What a ban does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Given to the firewall.
    Enforced,
    /// `enforce = false`: told only.
    Observed,
    /// The client stands behind this peer; a firewall on this host cannot keep it out.
    Behind(IpAddr),
    /// The client stands behind this peer, and Apache's deny map keeps it out.
    Proxied(IpAddr),
}

impl Mode {
    /// Whether it does the same; through which proxy a client comes makes no difference.
    pub(super) fn is_like(self, other: Mode) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// Whether a back end gets it, and then whether Apache alone can refuse the client.
    fn given(self) -> Option<bool> {
        match self {
            Mode::Enforced => Some(false),
            Mode::Proxied(_) => Some(true),
            Mode::Observed | Mode::Behind(_) => None,
        }
    }
}

/// One jail's ban of one client or network.
#[derive(Debug, Clone, PartialEq)]
pub struct Ban {
    /// Its name.
    pub id: BanId,
    /// Who banned.
    pub jail: JailName,
    /// Whom.
    pub net: IpNet,
    /// What is closed.
    pub ports: Ports,
    /// What the ban does.
    pub mode: Mode,
    /// Since when.
    pub since: Moment,
    /// The same on the wall clock, for display and storage.
    pub since_wall: Timestamp,
    /// Until when; `None`: for ever.
    pub until: Option<Moment>,
    /// Weight that led to it; 0 by hand.
    pub failures: u32,
    /// Time in which that weight came.
    pub within: Duration,
    /// What the operator said, or the shared-address rule.
    pub reason: Option<String>,
}

impl Ban {
    /// How long it was to last when it began; `None`: for ever.
    pub fn length(&self) -> Option<Duration> {
        self.until.map(|until| until.since(self.since))
    }
}

/// What the firewall holds one entry for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Given {
    /// Whom.
    pub net: IpNet,
    /// What is closed.
    pub ports: Ports,
    /// The client stands behind a proxy: only Apache itself can refuse it.
    pub behind: bool,
}

impl Ban {
    /// What the firewall is given of it; `None`: nothing.
    pub fn given(&self) -> Option<Given> {
        let behind = self.mode.given()?;
        Some(Given {
            net: self.net,
            ports: self.ports.clone(),
            behind,
        })
    }
}

/// What the firewall is to hold for one entry: the latest end of all owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The owner with the latest end.
    pub jail: JailName,
    /// That end; `None`: for ever.
    pub until: Option<Moment>,
}

type Key = (JailName, IpNet);

/// All bans.
#[derive(Debug, Default)]
pub struct Bans {
    bans: BTreeMap<IpNet, Vec<Ban>>,
    ends: BTreeSet<(Moment, Key)>,
    owners: HashMap<Given, Vec<JailName>>,
    count: usize,
}

impl Bans {
    /// Bans there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them, by network.
    pub fn iter(&self) -> impl Iterator<Item = &Ban> {
        self.bans.values().flatten()
    }

    /// Those of the networks behind this one; all, where there is none.
    pub fn behind(&self, net: Option<IpNet>) -> impl Iterator<Item = &Ban> {
        let first = net.map_or(Bound::Unbounded, Bound::Excluded);
        let networks = self.bans.range((first, Bound::Unbounded));
        networks.flat_map(|(_, bans)| bans)
    }

    /// A jail's ban of exactly this network.
    pub fn get(&self, jail: &JailName, net: &IpNet) -> Option<&Ban> {
        self.bans.get(net)?.iter().find(|ban| ban.jail == *jail)
    }

    /// Takes in a ban, in place of the same jail's ban of the same network.
    pub fn insert(&mut self, ban: Ban) {
        self.remove(&ban.jail, &ban.net);
        if let Some(until) = ban.until {
            self.ends.insert((until, (ban.jail.clone(), ban.net)));
        }
        if let Some(given) = ban.given() {
            let owners = self.owners.entry(given).or_default();
            owners.reserve_exact(1);
            owners.push(ban.jail.clone());
        }
        // Most have one: room for four, as a Vec begins, is a gigabyte at a million bans.
        let bans = self.bans.entry(ban.net).or_default();
        bans.reserve_exact(1);
        bans.push(ban);
        self.count += 1;
    }

    /// Takes a ban out.
    pub fn remove(&mut self, jail: &JailName, net: &IpNet) -> Option<Ban> {
        let here = self.bans.get_mut(net)?;
        let place = here.iter().position(|ban| ban.jail == *jail)?;
        let ban = here.remove(place);
        if here.is_empty() {
            self.bans.remove(net);
        }
        if let Some(until) = ban.until {
            self.ends.remove(&(until, (ban.jail.clone(), ban.net)));
        }
        if let Some(given) = ban.given()
            && let Some(owners) = self.owners.get_mut(&given)
        {
            owners.retain(|owner| owner != jail);
            if owners.is_empty() {
                self.owners.remove(&given);
            }
        }
        self.count -= 1;
        Some(ban)
    }

    /// Takes out every ban that is over at `now`.
    pub fn expire(&mut self, now: Moment) -> Vec<Ban> {
        let mut over = Vec::new();
        while let Some((until, (jail, net))) = self.ends.first().cloned()
            && until <= now
        {
            self.ends.pop_first();
            over.extend(self.remove(&jail, &net));
        }
        over
    }

    /// The ban that ends first, where there are more than `most`.
    pub fn surplus(&self, most: usize) -> Option<Key> {
        if self.count <= most {
            return None;
        }
        let first = self.ends.first().map(|(_, key)| key.clone());
        first.or_else(|| self.iter().next().map(|ban| (ban.jail.clone(), ban.net)))
    }

    /// When the next ban ends.
    pub fn next_end(&self) -> Option<Moment> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// What the firewall is to hold; `None`: nothing, the last owner has gone.
    pub fn hold(&self, given: &Given) -> Option<Hold> {
        let owners = self.owners.get(given)?;
        owners
            .iter()
            .filter_map(|jail| self.get(jail, &given.net))
            .map(|ban| Hold {
                jail: ban.jail.clone(),
                until: ban.until,
            })
            .max_by_key(|hold| (hold.until.is_none(), hold.until))
    }

    /// Everything the firewall is to hold.
    pub fn holds(&self) -> impl Iterator<Item = (&Given, Hold)> {
        let held = self.owners.keys();
        held.filter_map(|given| Some((given, self.hold(given)?)))
    }

    /// Bans that share an address with `net`.
    pub fn overlapping(&self, net: &IpNet) -> Vec<Key> {
        self.iter()
            .filter(|ban| overlap(&ban.net, net))
            .map(|ban| (ban.jail.clone(), ban.net))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ban(jail: &str, host: u8, ports: Ports, until: Option<i64>) -> Ban {
        Ban {
            id: BanId::default(),
            jail: jail.parse().unwrap(),
            net: format!("203.0.113.{host}/32").parse().unwrap(),
            ports,
            mode: Mode::Enforced,
            since: Moment::default(),
            since_wall: Timestamp::UNIX_EPOCH,
            until: until.map(Moment::from_nanos),
            failures: 1,
            within: Duration::ZERO,
            reason: None,
        }
    }

    #[test]
    fn an_entry_leaves_with_its_last_owner_and_ends_with_its_latest() {
        let mut bans = Bans::default();
        let net = ban("a", 1, Ports::All, None).net;
        let given = ban("a", 1, Ports::All, None).given().unwrap();
        let end = |bans: &Bans| bans.hold(&given).map(|hold| hold.until);
        bans.insert(ban("a", 1, Ports::All, Some(10)));
        bans.insert(ban("b", 1, Ports::All, Some(30)));
        bans.insert(ban("c", 1, Ports::AllButSsh, None));
        assert_eq!(end(&bans), Some(Some(Moment::from_nanos(30))));
        bans.remove(&"b".parse().unwrap(), &net);
        assert_eq!(end(&bans), Some(Some(Moment::from_nanos(10))));
        bans.insert(ban("d", 1, Ports::All, None));
        assert_eq!(end(&bans), Some(None));
        bans.remove(&"d".parse().unwrap(), &net);
        assert_eq!(bans.expire(Moment::from_nanos(9)), []);
        assert_eq!(bans.expire(Moment::from_nanos(10)).len(), 1);
        assert_eq!(end(&bans), None);
        assert_eq!(bans.len(), 1);
    }

    #[test]
    fn the_first_to_end_leaves_when_there_are_too_many() {
        let mut bans = Bans::default();
        bans.insert(ban("a", 1, Ports::All, None));
        bans.insert(ban("a", 2, Ports::All, Some(20)));
        bans.insert(ban("a", 3, Ports::All, Some(10)));
        assert_eq!(bans.surplus(3), None);
        assert_eq!(
            bans.surplus(2).map(|k| k.1.to_string()),
            Some("203.0.113.3/32".into())
        );
    }

    proptest! {
        /// A naive list of bans agrees about holds, whatever comes and goes.
        #[test]
        fn holds_equal_the_naive_list(
            steps in prop::collection::vec((0u8..3, 0u8..3, 0u8..2, prop::option::of(1i64..50), 0u8..4), 0..80),
        ) {
            let mut bans = Bans::default();
            let mut naive: Vec<Ban> = Vec::new();
            for (jail, host, ports, until, step) in steps {
                let ports = if ports == 0 { Ports::All } else { Ports::AllButSsh };
                let one = ban(["a", "b", "c"][jail as usize], host, ports, until);
                let same = |b: &Ban| b.jail == one.jail && b.net == one.net;
                match step {
                    0 => { bans.remove(&one.jail, &one.net); naive.retain(|b| !same(b)); }
                    1 => {
                        let now = Moment::from_nanos(until.unwrap_or(0) / 2);
                        bans.expire(now);
                        naive.retain(|b| b.until.is_none_or(|end| end > now));
                    }
                    _ => { naive.retain(|b| !same(b)); naive.push(one.clone()); bans.insert(one); }
                }
                prop_assert_eq!(bans.len(), naive.len());
                prop_assert_eq!(bans.iter().count(), naive.len());
                for host in 0u8..3 {
                    for ports in [Ports::All, Ports::AllButSsh] {
                        let net: IpNet = format!("203.0.113.{host}/32").parse().unwrap();
                        let expected = naive.iter().filter(|b| b.net == net && b.ports == ports)
                            .map(|b| (b.until.is_none(), b.until)).max();
                        let given = Given { net, ports: ports.clone(), behind: false };
                        let got = bans.hold(&given).map(|h| (h.until.is_none(), h.until));
                        prop_assert_eq!(got, expected);
                    }
                }
            }
        }
    }
}
