//! The banned clients, each once.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use ipnet::IpNet;
use jiff::Timestamp;

use super::labels::Set;

/// The end of a ban that is for ever, in milliseconds.
const FOR_EVER: i64 = i64::MAX;

/// A banned client or network.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// Its address or network.
    pub net: IpNet,
    /// Number of its bans.
    pub bans: u32,
    /// A ban of it is active, and the client is not behind a proxy.
    pub in_force: bool,
    /// A ban of it is active, and the client is behind a proxy.
    pub behind: bool,
    pub(super) jails: Set,
    pub(super) classes: Set,
    /// Id of the latest ban with a class, else of the latest.
    pub shown_ban: u64,
    first: i64,
    last: i64,
    until: i64,
}

impl Client {
    /// When its first ban began.
    pub fn first(&self) -> Timestamp {
        timestamp(self.first)
    }

    /// When its last ban began.
    pub fn last(&self) -> Timestamp {
        timestamp(self.last)
    }

    /// When the last of its active bans ends; `Some(None)`: never. `None`: it has none.
    pub fn until(&self) -> Option<Option<Timestamp>> {
        let active = self.in_force || self.behind;
        active.then(|| (self.until != FOR_EVER).then(|| timestamp(self.until)))
    }

    /// Adds a ban. `until`: its end, where it is active.
    pub(super) fn add(&mut self, since: Timestamp, until: Option<Option<Timestamp>>) {
        let since = since.as_millisecond();
        self.bans += 1;
        self.first = self.first.min(since);
        self.last = self.last.max(since);
        if let Some(until) = until {
            let end = until.map_or(FOR_EVER, Timestamp::as_millisecond);
            self.until = self.until.max(end);
        }
    }
}

fn timestamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

/// Clients by their network: a list and a table of places in it. A million take 100 MB.
#[derive(Debug, Default)]
pub(super) struct Clients {
    list: Vec<Client>,
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Clients {
    /// The client of this network; a new one has no bans yet.
    pub(super) fn of(&mut self, net: IpNet) -> Option<&mut Client> {
        let hash = self.hasher.hash_one(net);
        let list = &self.list;
        let at = |place: &u32| list.get(usize::try_from(*place).ok()?);
        let is = |place: &u32| at(place).is_some_and(|client| client.net == net);
        if let Some(place) = self.places.find(hash, is) {
            return self.list.get_mut(usize::try_from(*place).ok()?);
        }
        let place = u32::try_from(list.len()).ok()?;
        let hash_of = |place: &u32| at(place).map_or(0, |client| self.hasher.hash_one(client.net));
        self.places.insert_unique(hash, place, hash_of);
        self.list.push(Client {
            net,
            bans: 0,
            in_force: false,
            behind: false,
            jails: 0,
            classes: 0,
            shown_ban: 0,
            first: i64::MAX,
            last: i64::MIN,
            until: i64::MIN,
        });
        self.list.last_mut()
    }

    /// All of them: most bans first, then the latest ban.
    pub(super) fn ordered(self) -> Vec<Client> {
        let mut list = self.list;
        list.sort_unstable_by(|a, b| {
            (b.bans, b.last)
                .cmp(&(a.bans, a.last))
                .then(a.net.cmp(&b.net))
        });
        list
    }
}
