//! A database as an engine would have left it, without the engine.

use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use pipeban::config::Ports;
use pipeban::jail::{Ban, BanId, Cause, End, Mode, Moment, Now};
use pipeban::store::{Database, Home, Op};

const DAY: u64 = 86_400;

/// Jails with the classes of what they ban for.
const JAILS: [(&str, &[&str]); 8] = [
    ("apache-attacks", &["sql", "xss", "traversal"]),
    ("apache-botnet", &["botnet"]),
    ("apache-auth", &[]),
    ("apache-cgitraversal", &["traversal"]),
    ("wp-login", &["probe"]),
    ("apache-php-rce", &["php-rce", "webshell"]),
    ("recidive", &[]),
    ("apache-scanners", &["scanner"]),
];

/// Texts of clients who try to break out of a page, a cell or a terminal.
const HOSTILE: [&str; 6] = [
    "<script>document.title='pwned'</script>",
    "\" onload=\"alert(1)\" '",
    "=HYPERLINK(\"http://192.0.2.1/\")",
    "]]>--></pre></details><h1 id=\"bans\">0</h1>",
    "{{ bans }} {% for %} &lt;b&gt;",
    "GET /?a=1%27%20OR%201=1--+ HTTP/1.1",
];

/// A small generator of numbers: the same at every run.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new() -> Numbers {
        Numbers(88_172_645_463_325_252)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn at(wall: Timestamp) -> Now {
    // Seconds since 1970 as the boot clock: all bans are of one boot.
    Now {
        boot: Moment::from_nanos(wall.as_second() * 1_000_000_000),
        wall,
    }
}

/// Opens the database of a state directory as the engine does.
pub(crate) fn database(state: &Path) -> Database {
    let home = Home {
        path: state.join("pipeban.sqlite3"),
        boot_id: "a boot".to_owned(),
        memory: Duration::from_secs(30 * DAY),
    };
    home.open().unwrap()
}

/// The address of the n-th client: a few are IPv6, the first ones are of the networks for
/// documentation.
fn client(n: u64) -> IpNet {
    match n % 20 {
        0 => format!("2001:db8:{:x}:{:x}::/64", n / 65_536, n % 65_536),
        _ if n < 3 * 256 => {
            let network = ["192.0.2", "198.51.100", "203.0.113"][n as usize % 3];
            format!("{network}.{}/32", n / 3)
        }
        _ => format!("11.{}.{}.{}/32", n / 65_536, n / 256 % 256, n % 256),
    }
    .parse()
    .unwrap()
}

/// Adds `count` bans of the `days` before `now`, the oldest first: more at some hours than at others,
/// most of a few clients, a fifth of them still active, one in 15 by a jail that only observes.
pub(crate) fn fill(database: &mut Database, count: u64, days: u64, now: Timestamp) {
    let mut numbers = Numbers::new();
    let period = days * DAY - 60;
    let mut times: Vec<u64> = (0..count)
        .map(|_| {
            loop {
                let second = numbers.below(period);
                // Of the night twice as many.
                if second % DAY < DAY / 2 || numbers.below(2) == 0 {
                    break second;
                }
            }
        })
        .collect();
    times.sort_unstable();
    let start = now - Duration::from_secs(period);
    let mut ops = Vec::new();
    for (id, second) in (1..).zip(times) {
        let began = at(start + Duration::from_secs(second));
        // The square makes the first clients frequent.
        let most = count.div_ceil(2).max(2);
        let of = numbers.below(most) * numbers.below(most) / most;
        let (jail, classes) = JAILS[(numbers.below(8) * numbers.below(8) / 8) as usize];
        let length = match numbers.below(10) {
            0 => None,
            1..=5 => Some(Duration::from_secs(3_600)),
            _ => Some(Duration::from_secs(DAY * (1 + numbers.below(10)))),
        };
        let mode = match id % 15 {
            0 => Mode::Observed,
            7 if id % 45 == 7 => Mode::Behind("192.0.2.7".parse().unwrap()),
            _ => Mode::Enforced,
        };
        let ban = Ban {
            id: BanId::new(id),
            jail: jail.parse().unwrap(),
            net: client(of),
            ports: Ports::All,
            mode,
            since: began.boot,
            since_wall: began.wall,
            until: length.map(|length| began.boot.plus(length)),
            failures: 5,
            within: Duration::from_secs(41),
            cause: Cause::Jail,
        };
        let class = classes.get(numbers.below(3) as usize % classes.len().max(1));
        let text = HOSTILE[numbers.below(6) as usize];
        let line = format!("{} - - \"GET /{text} HTTP/1.1\" 404 196", ban.net.addr());
        ops.push(Op::Ban(ban.clone()));
        ops.push(Op::Evidence {
            ban: ban.id,
            rule: None,
            lines: vec![(began.wall, line)],
            classes: class.into_iter().map(|class| (*class).to_owned()).collect(),
            vhosts: vec![["a.example", "shop.example"][id as usize % 2].to_owned()],
        });
        let over = length.is_some_and(|length| began.wall + length < now);
        if over || (length.is_none() && numbers.below(2) == 0) {
            ops.push(Op::End {
                jail: ban.jail.clone(),
                net: ban.net,
                end: if over { End::Over } else { End::ByHand },
            });
        }
        if ops.len() > 10_000 {
            database.commit(&ops, began).unwrap();
            ops.clear();
        }
    }
    database.commit(&ops, at(now)).unwrap();
}
