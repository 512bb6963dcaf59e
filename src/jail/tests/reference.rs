//! The jails compared with a reference that keeps plain lists.

use super::*;

const CLIENTS: [&str; 7] = [
    "203.0.113.1",
    "203.0.113.2",
    "203.0.114.1",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:2::1",
    // in `ignoreip`
    "198.51.100.7",
];
const JAILS: [&str; 4] = ["a", "b", "c", "manual"];
const MEMORY: i64 = 1_000;

#[derive(Debug, Clone)]
enum Event {
    /// jail, client, how long ago the line came
    Hit(usize, usize, i64),
    Pass(i64),
    /// So many hits at once, of the few.
    Burst(usize, usize, u8),
    /// The wall clock is set.
    Wall(i64),
    Unban(Option<usize>, Option<usize>),
    Ban(usize, Option<u64>),
    Allow(usize),
    Disallow(usize),
    Shared(usize),
    Reload(usize),
    Restart,
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    let client = || 0..CLIENTS.len();
    prop_oneof![
        12 => (0usize..3, client(), 0i64..40).prop_map(|(j, c, ago)| Event::Hit(j, c, ago)),
        // bursts: the same few, at once
        12 => (0usize..2, 0usize..3, Just(0i64)).prop_map(|(j, c, ago)| Event::Hit(j, c, ago)),
        6 => (0i64..90).prop_map(Event::Pass),
        1 => (0i64..2_000).prop_map(Event::Pass),
        1 => (80_000i64..90_000).prop_map(Event::Pass),
        2 => (0usize..2, 0usize..3, 4u8..16).prop_map(|(j, c, n)| Event::Burst(j, c, n)),
        1 => (-90_000i64..90_000).prop_map(Event::Wall),
        1 => (prop::option::of(client()), prop::option::of(0usize..4)).prop_map(|(c, j)| Event::Unban(c, j)),
        1 => (client(), prop::option::of(1u64..500)).prop_map(|(c, time)| Event::Ban(c, time)),
        1 => client().prop_map(Event::Allow),
        1 => client().prop_map(Event::Disallow),
        1 => client().prop_map(Event::Shared),
        1 => (0usize..3).prop_map(Event::Shared),
        1 => (0usize..3).prop_map(Event::Reload),
        1 => Just(Event::Restart),
        1 => Just(Event::Sweep),
    ]
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Three configurations: thresholds, windows, prefixes, escalation, jails that come and go.
fn variant(number: usize) -> Config {
    let rule = |maxretry, findtime, bantime| Jail {
        maxretry,
        findtime: seconds(findtime),
        bantime: Some(seconds(bantime)),
        ..jail()
    };
    let growing = |multipliers: &[u32], overalljails| {
        Some(Increment {
            multipliers: multipliers.to_vec(),
            maxtime: seconds(700),
            memory: seconds(MEMORY as u64),
            overalljails,
            ..doubling()
        })
    };
    let recidive = |maxretry| Jail {
        log: Log::Bans,
        ..rule(maxretry, 500, 400)
    };
    match number {
        0 => config(&[
            (
                "a",
                Jail {
                    increment: growing(&[], false),
                    ..rule(3, 60, 100)
                },
            ),
            (
                "b",
                Jail {
                    ipv4_prefix: 24,
                    ..rule(1, 60, 50)
                },
            ),
            ("c", recidive(2)),
        ]),
        1 => config(&[
            (
                "a",
                Jail {
                    increment: growing(&[1, 3], true),
                    ipv6_prefix: 128,
                    ..rule(2, 30, 80)
                },
            ),
            ("c", recidive(2)),
        ]),
        _ => config(&[
            (
                "a",
                Jail {
                    enabled: false,
                    ..rule(3, 60, 100)
                },
            ),
            (
                "b",
                Jail {
                    weight: 2,
                    bantime: None,
                    ..rule(5, 200, 1)
                },
            ),
            ("c", recidive(1)),
        ]),
    }
}

#[derive(Debug, Clone, PartialEq, PartialOrd)]
struct NaiveBan {
    jail: &'static str,
    net: IpNet,
    until: Option<i64>,
    counted: bool,
}

/// Times are seconds.
struct Naive {
    config: Config,
    now: i64,
    allowed: Vec<IpAddr>,
    shared: Vec<(IpAddr, i64)>,
    /// Bans of shared addresses.
    softened: Vec<(IpNet, i64)>,
    hits: Vec<(&'static str, IpNet, i64, u32)>,
    earlier: Vec<(&'static str, IpNet, i64)>,
    bans: Vec<NaiveBan>,
}

impl Naive {
    fn jail(&self, name: &str) -> Option<&Jail> {
        if name == "manual" {
            return Some(&self.config.defaults);
        }
        self.config.jails.get(&name.parse().unwrap())
    }

    fn exempt(&self, net: &IpNet) -> bool {
        let ignored: IpNet = "198.51.100.0/24".parse().unwrap();
        overlap(&ignored, net) || self.allowed.iter().any(|addr| net.contains(addr))
    }

    fn target(&self, jail: &Jail, client: IpAddr) -> IpNet {
        let prefix = if client.is_ipv4() {
            jail.ipv4_prefix
        } else {
            jail.ipv6_prefix
        };
        let net = IpNet::new(client, prefix).unwrap().trunc();
        if self.exempt(&net) {
            single(client)
        } else {
            net
        }
    }

    fn hit(&mut self, name: &'static str, client: IpAddr, at: i64) {
        let log = self.jail(name).map(|jail| jail.log);
        if self.count(name, client, at) && log != Some(Log::Bans) {
            self.count("c", client, at);
        }
    }

    /// Whether it led to a ban that counts.
    fn count(&mut self, name: &'static str, client: IpAddr, at: i64) -> bool {
        let Some(jail) = self.jail(name).filter(|jail| jail.enabled).cloned() else {
            return false;
        };
        let net = self.target(&jail, client);
        let banned = self
            .bans
            .iter()
            .any(|ban| ban.jail == name && ban.net == net);
        if self.exempt(&single(client)) || banned {
            return false;
        }
        self.hits.push((name, net, at, jail.weight));
        let same = |hit: &(&str, IpNet, i64, u32)| hit.0 == name && hit.1 == net;
        let newest = self
            .hits
            .iter()
            .filter(|h| same(h))
            .map(|h| h.2)
            .max()
            .unwrap();
        let findtime = jail.findtime.as_secs() as i64;
        self.hits.retain(|h| !same(h) || h.2 > newest - findtime);
        let sum: u32 = self.hits.iter().filter(|h| same(h)).map(|h| h.3).sum();
        let home = |addr: &IpAddr| match addr {
            IpAddr::V4(_) => single(*addr),
            IpAddr::V6(_) => IpNet::new(*addr, 64).unwrap().trunc(),
        };
        let mut known = self.shared.iter();
        let shared = known.any(|(addr, until)| overlap(&home(addr), &net) && *until > self.now);
        let alone = jail.weight >= jail.maxretry;
        let times = if shared && !alone { 5 } else { 1 };
        if sum < jail.maxretry * times {
            return false;
        }
        self.hits.retain(|h| !same(h));
        let length = if shared {
            let own = home(&net.addr());
            let whole = if net.contains(&own) { net } else { own };
            let day = 86_400;
            let mut before = self.softened.iter();
            let again = before.any(|(of, at)| *of == whole && self.now - at < day);
            self.softened.push((whole, self.now));
            let many = sum >= jail.maxretry * 10;
            let most = if again || many { 3_600 } else { 600 };
            Some(jail.bantime.map_or(most, |time| time.as_secs().min(most)))
        } else {
            self.length(name, &jail, client, net)
        };
        self.bans.push(NaiveBan {
            jail: name,
            net,
            until: length.map(|length| self.now + length as i64),
            counted: true,
        });
        !shared
    }

    fn length(
        &mut self,
        name: &'static str,
        jail: &Jail,
        client: IpAddr,
        net: IpNet,
    ) -> Option<u64> {
        self.earlier.push((name, net, self.now));
        let bantime = jail.bantime?.as_secs();
        let Some(increment) = &jail.increment else {
            return Some(bantime);
        };
        let recent = self.earlier.iter().filter(|(by, of, at)| {
            let same = if increment.overalljails {
                let target = self.jail(by).map_or(net, |jail| self.target(jail, client));
                *of == target
            } else {
                *by == name && *of == net
            };
            same && self.now - at < MEMORY
        });
        let n = recent.count() - 1;
        let times = match increment.multipliers.len() {
            0 => 1 << n.min(40),
            len if n > 0 => u64::from(increment.multipliers[n.min(len - 1)]),
            _ => 1,
        };
        Some((bantime * times).min(700).max(bantime))
    }

    fn sweep(&mut self) {
        let (hits, now) = (self.hits.clone(), self.now);
        let config = self.config.clone();
        let findtime = |name: &str| {
            let jail = config.jails.get(&name.parse().unwrap())?;
            Some(jail.findtime.as_secs() as i64)
        };
        self.hits.retain(|(jail, net, ..)| {
            let same = hits.iter().filter(|h| h.0 == *jail && h.1 == *net);
            let newest = same.map(|h| h.2).max().unwrap();
            findtime(jail).is_some_and(|findtime| now - newest < findtime)
        });
    }

    fn unban(&mut self, net: Option<IpNet>, by: Option<&str>) {
        let named = |jail: &str| by.is_none_or(|by| by == jail);
        self.bans.retain(|ban| {
            let meant = net.is_none_or(|net| {
                net.contains(&ban.net)
                    || (ban.net.contains(&net) && (ban.counted || ban.net.addr().is_ipv6()))
            });
            !(named(ban.jail) && meant)
        });
        self.hits.retain(|(jail, of, ..)| {
            let meant = net.is_none_or(|net| overlap(&net, of));
            !(named(jail) && meant)
        });
    }
}

/// The jails, and what an engine saves of them.
struct Real {
    jails: Jails,
    exempt: Exempt,
    /// As the history has them.
    earlier: Vec<(JailName, IpNet, Moment)>,
    softened: Vec<(IpNet, Moment)>,
    totals: u64,
}

impl Real {
    fn take(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::Ban(ban) = action {
                self.totals += 1;
                match ban.cause {
                    Cause::Jail => self.earlier.push((ban.jail.clone(), ban.net, ban.since)),
                    Cause::Shared => self.softened.push((ban.net, ban.since)),
                    _ => {}
                }
            }
        }
    }

    fn restart(&mut self, config: &Config, now: Now) {
        let mut again = Jails::new(config);
        for (jail, net, hits, _) in self.jails.counters() {
            again.restore_counter(&jail, net, hits);
        }
        for (jail, net, at) in &self.earlier {
            again.restore_repeats(jail, *net, vec![*at]);
        }
        for (net, at) in &self.softened {
            again.restore_shared_ban(*net, *at);
        }
        for (jail, totals) in self.jails.all_totals() {
            again.restore_totals(&jail, totals);
        }
        let bans = self.jails.bans().iter().cloned().collect();
        let actions = again.restore(bans, now, &self.exempt);
        assert!(
            actions
                .iter()
                .all(|action| matches!(action, Action::Restore(_)))
        );
        self.jails = again;
    }
}

fn same(real: &Real, naive: &Naive) -> Result<(), TestCaseError> {
    let show = |net: &IpNet, jail: &str, until: Option<i64>| format!("{net} {jail} {until:?}");
    let second = |moment: Moment| moment.nanos() / 1_000_000_000;
    let bans = real.jails.bans();
    let mut left: Vec<String> = bans
        .iter()
        .map(|ban| show(&ban.net, ban.jail.as_str(), ban.until.map(second)))
        .collect();
    let mut right: Vec<String> = naive
        .bans
        .iter()
        .map(|ban| show(&ban.net, ban.jail, ban.until))
        .collect();
    left.sort();
    right.sort();
    prop_assert_eq!(left, right);
    let mut left: Vec<(String, IpNet, i64, u32)> = Vec::new();
    for name in JAILS {
        let nets: std::collections::BTreeSet<IpNet> = naive.hits.iter().map(|h| h.1).collect();
        for net in nets {
            let hits = real.jails.counted(&name.parse().unwrap(), &net);
            left.extend(
                hits.iter()
                    .map(|(at, w)| (name.to_owned(), net, second(*at), *w)),
            );
        }
    }
    let hits = naive.hits.iter();
    let mut right: Vec<_> = hits.map(|h| (h.0.to_owned(), h.1, h.2, h.3)).collect();
    left.sort();
    right.sort();
    prop_assert_eq!(left.len(), right.len());
    prop_assert_eq!(left, right);
    let keys: std::collections::BTreeSet<_> = naive.hits.iter().map(|h| (h.0, h.1)).collect();
    prop_assert_eq!(real.jails.tracked(), keys.len());
    for ban in &naive.bans {
        let owners = naive.bans.iter().filter(|other| other.net == ban.net);
        let end = owners
            .map(|other| (other.until.is_none(), other.until))
            .max();
        let hold = bans.hold(&FirewallKey {
            net: ban.net,
            ports: Ports::All,
            behind: false,
        });
        let hold = hold.map(|hold| (hold.until.is_none(), hold.until.map(second)));
        prop_assert_eq!(hold, end);
        prop_assert_eq!(real.exempt.reason(&jail(), &ban.net), None);
    }
    let ids: std::collections::BTreeSet<BanId> = bans.iter().map(|ban| ban.id).collect();
    prop_assert_eq!(ids.len(), bans.len());
    let banned: u64 = real
        .jails
        .all_totals()
        .map(|(_, totals)| totals.banned)
        .sum();
    prop_assert_eq!(banned, real.totals);
    Ok(())
}

fn clock(second: i64, wall: i64) -> Now {
    Now {
        boot: Moment::from_nanos(second * 1_000_000_000),
        wall: Timestamp::from_second(1_800_000_000 + second + wall).unwrap(),
    }
}

fn run(events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut naive = Naive {
        config: variant(0),
        now: 10_000,
        allowed: vec![],
        shared: vec![],
        softened: vec![],
        hits: vec![],
        earlier: vec![],
        bans: vec![],
    };
    let mut real = Real {
        jails: Jails::new(&naive.config),
        exempt: Exempt::new([]),
        earlier: vec![],
        softened: vec![],
        totals: 0,
    };
    let mut wall = 0;
    let single_hits = events.into_iter().flat_map(|event| match event {
        Event::Burst(jail, who, times) => vec![Event::Hit(jail, who, 0); usize::from(times)],
        event => vec![event],
    });
    for event in single_hits {
        let now = clock(naive.now, wall);
        let client = |n: usize| -> IpAddr { CLIENTS[n].parse().unwrap() };
        match event {
            Event::Hit(jail, who, ago) => {
                let name = JAILS[jail].parse().unwrap();
                let hit = Hit {
                    weight: 1,
                    jail: &name,
                    client: client(who),
                    peer: None,
                    claim: Claim::None,
                    forgeable: false,
                    unproven: false,
                    arrived: now.boot.minus(seconds(ago as u64)),
                    spoofable: false,
                    surge: false,
                };
                let observed = real.jails.observe(&hit, now, &real.exempt);
                real.take(&observed.actions);
                naive.hit(JAILS[jail], client(who), naive.now - ago);
            }
            Event::Burst(..) => unreachable!("made into hits"),
            Event::Pass(time) => {
                naive.now += time;
                real.jails.expire(clock(naive.now, wall));
                let now = naive.now;
                naive
                    .bans
                    .retain(|ban| ban.until.is_none_or(|until| until > now));
            }
            Event::Wall(jump) => wall = jump,
            Event::Unban(who, jail) => {
                let net = who.map(|who| single(client(who)));
                let jail = jail.map(|jail| JAILS[jail]);
                real.jails
                    .unban(net, jail.map(|jail| jail.parse().unwrap()).as_ref());
                naive.unban(net, jail);
            }
            Event::Ban(who, length) => {
                let net = single(client(who));
                let time = length.map(|length| Some(seconds(length)));
                let made = real
                    .jails
                    .ban_by_hand(None, net, time, None, now, &real.exempt);
                prop_assert_eq!(made.is_err(), naive.exempt(&net));
                let Ok(actions) = made else { continue };
                real.take(&actions);
                let manual = |ban: &NaiveBan| ban.jail == "manual" && ban.net == net;
                let known = naive
                    .bans
                    .iter()
                    .find(|ban| manual(ban))
                    .and_then(|ban| ban.until);
                let until = naive.now + length.unwrap_or(3_600) as i64;
                let longer = known
                    .filter(|_| length.is_none())
                    .map_or(until, |k| k.max(until));
                naive.bans.retain(|ban| !manual(ban));
                naive.bans.push(NaiveBan {
                    jail: "manual",
                    net,
                    until: Some(longer),
                    counted: false,
                });
            }
            Event::Allow(who) | Event::Disallow(who) => {
                naive.allowed.retain(|addr| *addr != client(who));
                if matches!(event, Event::Allow(_)) {
                    naive.allowed.push(client(who));
                }
                let nets = naive
                    .allowed
                    .iter()
                    .map(|addr| (single(*addr), Why::AllowList));
                real.exempt = Exempt::new(nets);
                real.jails.release(&real.exempt);
                let mut bans = std::mem::take(&mut naive.bans);
                bans.retain(|ban| !naive.exempt(&ban.net));
                naive.bans = bans;
            }
            Event::Shared(who) => {
                real.jails.learn_shared(client(who), now);
                naive.shared.push((client(who), naive.now + 3_600));
            }
            Event::Reload(number) => {
                naive.config = variant(number);
                real.jails.configure(&naive.config);
            }
            Event::Restart => {
                real.restart(&naive.config, now);
                // Removed jails count nothing.
                let config = naive.config.clone();
                let there = |jail: &str| config.jails.contains_key(&jail.parse().unwrap());
                naive.hits.retain(|(jail, ..)| there(jail));
                // The workers report these again.
                for (addr, until) in &naive.shared {
                    let reported = clock(until - 3_600, wall);
                    real.jails.learn_shared(*addr, reported);
                }
            }
            Event::Sweep => {
                real.jails.sweep(now);
                naive.sweep();
                let memory = seconds(MEMORY as u64);
                real.earlier
                    .retain(|(_, _, at)| now.boot.since(*at) < memory);
            }
        }
        same(&real, &naive)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn jails_equal_plain_lists_whatever_happens(events in prop::collection::vec(event(), 1..120)) {
        run(events)?;
    }

    /// With small bounds there are never more clients, hits or bans.
    #[test]
    fn bounds_hold_whatever_happens(
        hits in prop::collection::vec((0usize..2, 0u8..60, 0i64..5), 1..300),
        by_hand in prop::collection::vec(0u8..60, 0..20),
    ) {
        let mut jails = Jails::bounded(&variant(0), 7, 9);
        let mut second = 0;
        for (jail, host, time) in hits {
            second += time;
            hit(&mut jails, JAILS[jail], &format!("203.0.{host}.9"), second);
            prop_assert!(jails.tracked() <= 7 && jails.bans().len() <= 9);
        }
        for host in by_hand {
            let net = format!("203.1.{host}.0/24").parse().unwrap();
            let made = jails.ban_by_hand(None, net, None, None, at(second), &exempt()).unwrap();
            prop_assert!(jails.bans().len() <= 9);
            let made = made.iter().filter(|a| matches!(a, Action::Ban(_))).count();
            prop_assert_eq!(made, 1);
        }
        let ports = jails.bans().holds().count();
        prop_assert!(ports <= jails.bans().len());
    }
}
