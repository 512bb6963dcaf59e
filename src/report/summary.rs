//! Rows into a summary: totals, clients, jails, classes, times, networks.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::clients::{Client, Clients};
use super::labels::{Label, Labels, Sets};
use super::query::Query;
use super::row::BanRow;

/// Networks in a report at most.
const NETWORKS: usize = 20;

/// Prefixes of the networks in a report.
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 48;

/// Times within this many milliseconds have the same hour on every clock.
const QUARTER: i64 = 15 * 60_000;

/// What a report says.
#[derive(Debug)]
pub struct Summary {
    /// What it is about.
    pub query: Query,
    /// When it was made; what is in force is in force then.
    pub now: Timestamp,
    /// Hours and days are those of this zone.
    pub zone: TimeZone,
    /// Number of bans.
    pub bans: u64,
    /// Of them, active ones that the firewall can enforce.
    pub in_force: u64,
    /// Of them, active ones of clients behind a proxy.
    pub behind: u64,
    /// Bans that only the report for the other kind of jails has: enforced or not.
    pub of_other_jails: u64,
    /// All banned clients; the first ones in order: most bans first, then the latest ban.
    pub clients: Vec<Client>,
    /// Clients that were banned more than once.
    pub repeat: u64,
    /// Bans that began in each hour of the day.
    pub hours: [u64; 24],
    /// The networks with the most bans.
    pub networks: Vec<Network>,
    /// What a reader should know beside.
    pub notes: Vec<String>,
    times: BTreeMap<DateTime, Vec<u64>>,
    jails: Labels,
    classes: Labels,
    sets: Sets,
}

/// A network in which clients were banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// /24, /48 for IPv6, or the banned network where that is wider.
    pub net: IpNet,
    /// Clients in it.
    pub clients: u64,
    /// Their bans.
    pub bans: u64,
}

impl Summary {
    /// Jails with the number of their bans, the largest first.
    pub fn jails(&self) -> Vec<(&str, u64)> {
        self.jails.counted()
    }

    /// Classes of attack with the number of bans that have them, the largest first. A ban can have
    /// several, or none.
    pub fn classes(&self) -> Vec<(&str, u64)> {
        self.classes.counted()
    }

    /// The jails that banned a client.
    pub fn jails_of(&self, client: &Client) -> Vec<&str> {
        let labels = self.sets.labels(client.jails);
        sorted(labels.iter().map(|label| self.jails.name(*label)))
    }

    /// The classes of a client's attacks.
    pub fn classes_of(&self, client: &Client) -> Vec<&str> {
        let labels = self.sets.labels(client.classes);
        sorted(labels.iter().map(|label| self.classes.name(*label)))
    }

    /// Clients with a ban in force.
    pub fn clients_in_force(&self) -> u64 {
        let in_force = self.clients.iter().filter(|client| client.in_force);
        in_force.count() as u64
    }

    /// Bans of each day that has some, in order.
    pub fn days(&self) -> BTreeMap<Date, u64> {
        let mut days = BTreeMap::new();
        for (hour, bans) in &self.times {
            *days.entry(hour.date()).or_default() += bans.iter().sum::<u64>();
        }
        days
    }

    /// Bans of each hour that has some, by jail in the order of [`Summary::jails`].
    pub(super) fn times(&self) -> impl Iterator<Item = (DateTime, Vec<u64>)> {
        let order = self.jails.by_count();
        self.times.iter().map(move |(hour, bans)| {
            let of = |label: &Label| bans.get(usize::from(*label)).copied().unwrap_or(0);
            (*hour, order.iter().map(of).collect())
        })
    }

    fn add_times(&mut self, (hour, bans): &mut (DateTime, Vec<u64>)) {
        if bans.is_empty() {
            return;
        }
        let sums = self.times.entry(*hour).or_default();
        sums.resize(sums.len().max(bans.len()), 0);
        for (sum, bans) in sums.iter_mut().zip(bans.drain(..)) {
            *sum += bans;
        }
    }

    /// The same time on the clock of the report's zone.
    pub fn local(&self, time: Timestamp) -> DateTime {
        self.zone.to_datetime(time)
    }
}

fn sorted<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names
}

/// Reads rows one by one; keeps what the summary needs of them.
#[derive(Debug)]
pub struct Collector {
    summary: Summary,
    clients: Clients,
    /// Labels of each list of classes that occurs.
    lists: HashMap<String, Vec<Label>>,
    /// The quarter of an hour of the last row, and its hour.
    hour: (i64, DateTime),
    /// Bans of this hour by jail that are not in the summary yet.
    times: (DateTime, Vec<u64>),
}

impl Collector {
    /// A report about what `query` asks for, made at `now`.
    pub fn new(query: Query, now: Timestamp, zone: TimeZone) -> Collector {
        Collector {
            summary: Summary {
                query,
                now,
                zone,
                bans: 0,
                in_force: 0,
                behind: 0,
                of_other_jails: 0,
                clients: Vec::new(),
                repeat: 0,
                hours: [0; 24],
                networks: Vec::new(),
                notes: Vec::new(),
                times: BTreeMap::new(),
                jails: Labels::default(),
                classes: Labels::default(),
                sets: Sets::default(),
            },
            clients: Clients::default(),
            lists: HashMap::new(),
            hour: (i64::MIN, DateTime::MIN),
            times: (DateTime::MIN, Vec::new()),
        }
    }

    /// What the report is about.
    pub fn query(&self) -> &Query {
        &self.summary.query
    }

    /// Adds a ban, if the report is about it.
    pub fn add(&mut self, row: &BanRow<'_>) {
        if !self.summary.query.wants(row) {
            return;
        }
        if row.observed != self.summary.query.observed {
            self.summary.of_other_jails += 1;
            return;
        }
        let hour = self.hour_of(row.since);
        let summary = &mut self.summary;
        summary.bans += 1;
        let active = row.is_active(summary.now) && !row.observed;
        summary.in_force += u64::from(active && !row.behind);
        summary.behind += u64::from(active && row.behind);
        let of_day = usize::try_from(hour.hour()).unwrap_or(0);
        if let Some(bans) = summary.hours.get_mut(of_day) {
            *bans += 1;
        }
        let jail = summary.jails.of(row.jail);
        summary.jails.count(jail);
        if hour != self.times.0 {
            summary.add_times(&mut self.times);
            self.times.0 = hour;
        }
        let place = usize::from(jail);
        if self.times.1.len() <= place {
            self.times.1.resize(place + 1, 0);
        }
        if let Some(bans) = self.times.1.get_mut(place) {
            *bans += 1;
        }
        let Some(client) = self.clients.of(row.net) else {
            return;
        };
        client.add(row.since, active.then_some(row.until));
        client.in_force |= active && !row.behind;
        client.behind |= active && row.behind;
        client.jails = summary.sets.with(client.jails, jail);
        let classes: &[Label] = match row.classes {
            "" => &[],
            list => self.lists.entry_ref(list).or_insert_with(|| {
                let names: Vec<String> = serde_json::from_str(list).unwrap_or_default();
                let labels = names.iter().map(|name| summary.classes.of(name));
                labels.collect()
            }),
        };
        if client.classes == 0 || !classes.is_empty() {
            client.shown_ban = row.id;
        }
        for class in classes {
            summary.classes.count(*class);
            client.classes = summary.sets.with(client.classes, *class);
        }
    }

    /// The hour on the clock. Rows come about in the order of time.
    fn hour_of(&mut self, time: Timestamp) -> DateTime {
        let quarter = time.as_millisecond().div_euclid(QUARTER);
        if quarter != self.hour.0 {
            let local = self.summary.zone.to_datetime(time);
            let hour = local.date().at(local.hour(), 0, 0, 0);
            self.hour = (quarter, hour);
        }
        self.hour.1
    }

    /// A remark for the reader.
    pub fn note(&mut self, text: String) {
        self.summary.notes.push(text);
    }

    /// The summary of what was added, with the first `most` clients in order.
    pub fn finish(mut self, most: usize) -> Summary {
        let mut summary = self.summary;
        summary.add_times(&mut self.times);
        summary.clients = self.clients.ordered(most);
        let repeated = summary.clients.iter().filter(|client| client.is_repeated());
        summary.repeat = repeated.count() as u64;
        summary.networks = networks(&summary.clients);
        summary
    }
}

fn networks(clients: &[Client]) -> Vec<Network> {
    let mut networks: HashMap<IpNet, (u64, u64)> = HashMap::new();
    for client in clients {
        let prefix = match client.net {
            IpNet::V4(_) => PREFIX_V4,
            IpNet::V6(_) => PREFIX_V6,
        };
        let prefix = prefix.min(client.net.prefix_len());
        let net = IpNet::new(client.net.addr(), prefix).map_or(client.net, |net| net.trunc());
        let (clients, bans) = networks.entry(net).or_default();
        *clients += 1;
        *bans += u64::from(client.bans);
    }
    let order = |network: &Network| {
        let Network { net, clients, bans } = *network;
        (u64::MAX - bans, u64::MAX - clients, net)
    };
    let of = |(net, (clients, bans))| Network { net, clients, bans };
    let mut networks: Vec<Network> = networks.into_iter().map(of).collect();
    if networks.len() > NETWORKS {
        networks.select_nth_unstable_by_key(NETWORKS, order);
        networks.truncate(NETWORKS);
    }
    networks.sort_unstable_by_key(order);
    networks
}
