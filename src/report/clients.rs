//! The banned clients, each once.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use ipnet::IpNet;
use jiff::Timestamp;

use super::labels::Set;

/// The end of a ban that is for ever, in milliseconds.
const FOR_EVER: i64 = i64::MAX;

/// Bans of one client that begin within so many milliseconds are of one attack, which several logs
/// and jails may see.
const ONE_ATTACK: u64 = 60_000;

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

    /// Whether it has bans of more than one attack.
    pub fn is_repeated(&self) -> bool {
        self.last.abs_diff(self.first) >= ONE_ATTACK
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

/// The table uses the lowest and the highest bits.
fn whole(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

/// Clients by their network: a list and a table of places in it. A million take 100 MB.
#[derive(Debug, Default)]
pub(super) struct Clients {
    list: Vec<Client>,
    /// Half of the hash, and the place. A table that grows reads no client.
    places: HashTable<(u32, u32)>,
    hasher: DefaultHashBuilder,
}

impl Clients {
    /// The client of this network; a new one has no bans yet.
    pub(super) fn of(&mut self, net: IpNet) -> Option<&mut Client> {
        #[expect(clippy::cast_possible_truncation, reason = "half of it is enough")]
        let half = self.hasher.hash_one(net) as u32;
        let list = &self.list;
        let is = |(other, place): &(u32, u32)| {
            let client = || list.get(usize::try_from(*place).ok()?);
            *other == half && client().is_some_and(|client| client.net == net)
        };
        if let Some((_, place)) = self.places.find(whole(half), is) {
            return self.list.get_mut(usize::try_from(*place).ok()?);
        }
        let place = u32::try_from(list.len()).ok()?;
        self.places
            .insert_unique(whole(half), (half, place), |(half, _)| whole(*half));
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

    /// All of them, of which the first `most` are in order: most bans first, then the latest ban.
    pub(super) fn ordered(self, most: usize) -> Vec<Client> {
        let order = |a: &Client, b: &Client| {
            (b.bans, b.last)
                .cmp(&(a.bans, a.last))
                .then_with(|| a.net.cmp(&b.net))
        };
        let mut list = self.list;
        let first = match most < list.len() {
            true => list.select_nth_unstable_by(most, order).0,
            false => &mut list,
        };
        first.sort_unstable_by(order);
        list
    }
}
