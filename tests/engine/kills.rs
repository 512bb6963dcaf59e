//! The engine killed at any moment, while hits and commands ban and unban: what it had answered for
//! is so afterwards, and database, `status` and the kernel say the same.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::kernel::world::{in_world, run, wait_until};

const JAIL: &str = "at-once";

/// One port: one ufw rule for a ban.
const JAILS_OF_ONE_PORT: &str =
    "[jails.at-once]\nlog = \"error\"\nfilter = \"f\"\nmaxretry = 1\nport = [\"8080\"]\n";

/// Which numbers come next is the same for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// What the engine has answered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Banned,
    Free,
    /// It was killed before it answered.
    Either,
}

/// Bans and unbans its clients, one after the other.
struct Driver {
    /// The third byte of his clients' addresses, and his stream of hits.
    number: u8,
    clients: Vec<Known>,
    offset: u64,
    random: Random,
    socket: PathBuf,
    config: PathBuf,
    bans: usize,
    unbans: usize,
    unanswered: usize,
}

impl Driver {
    fn new(lab: &Lab, number: u8, clients: usize, seed: u64) -> Driver {
        Driver {
            number,
            clients: vec![Known::Free; clients],
            offset: 0,
            random: Random(seed + u64::from(number)),
            socket: lab.socket(),
            config: lab.path("pipeban.toml"),
            bans: 0,
            unbans: 0,
            unanswered: 0,
        }
    }

    fn address(&self, client: usize) -> String {
        format!("203.0.{}.{}", self.number, client + 1)
    }

    /// Goes on until `over`; an engine that is not there, or goes, is waited for.
    fn drive(&mut self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let worker = Line::worker(&self.socket, u64::from(self.number));
            let Ok((mut worker, known)) = worker else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            self.offset = self.offset.max(known.unwrap_or(0));
            while !over.load(Ordering::Relaxed) && self.step(&mut worker) {}
        }
    }

    /// Changes something; false: the engine is gone.
    fn step(&mut self, worker: &mut Line) -> bool {
        let most = self.clients.len() as u64;
        let client = self.random.below(most) as usize;
        match (self.clients[client], self.random.below(4)) {
            (Known::Banned, _) => self.command("unban", client),
            (_, 0) => self.command("ban", client),
            _ => self.hits(worker),
        }
    }

    /// Hits of some who are not banned, in one message.
    fn hits(&mut self, worker: &mut Line) -> bool {
        let free = (0..self.clients.len()).filter(|n| self.clients[*n] != Known::Banned);
        let some: Vec<usize> = free.take(1 + self.random.below(4) as usize).collect();
        let mut hits = Vec::new();
        for client in &some {
            self.offset += 1;
            hits.push(hit(self.offset, &self.address(*client), &[JAIL]));
        }
        let answer = worker
            .send(&Request::Hits(hits))
            .and_then(|()| worker.ack());
        let known = match &answer {
            Ok((offset, _)) => {
                assert_eq!(*offset, self.offset);
                self.bans += some.len();
                Known::Banned
            }
            Err(_) => {
                self.unanswered += some.len();
                Known::Either
            }
        };
        some.iter().for_each(|client| self.clients[*client] = known);
        answer.is_ok()
    }

    /// As an operator does it.
    fn command(&mut self, word: &str, client: usize) -> bool {
        let output = Command::new(PIPEBAN)
            .arg("--config")
            .arg(&self.config)
            .args([word, &self.address(client), "--jail", JAIL])
            .output()
            .unwrap();
        let known = match (word, output.status.code()) {
            ("ban", Some(0)) => Known::Banned,
            ("unban", Some(0 | 1)) => Known::Free,
            _ => Known::Either,
        };
        match known {
            Known::Banned => self.bans += 1,
            Known::Free => self.unbans += 1,
            Known::Either => self.unanswered += 1,
        }
        self.clients[client] = known;
        known != Known::Either
    }

    /// What was answered for is so; what was not is learnt.
    fn compare(&mut self, banned: &BTreeSet<String>) {
        for client in 0..self.clients.len() {
            let now = match banned.contains(&self.address(client)) {
                true => Known::Banned,
                false => Known::Free,
            };
            let answered = std::mem::replace(&mut self.clients[client], now);
            assert!(
                answered == now || answered == Known::Either,
                "{}: answered {answered:?}, is {now:?}",
                self.address(client)
            );
        }
    }
}

/// Who is banned: by the database, by `status`, by the kernel.
fn agreed(lab: &Lab) -> BTreeSet<String> {
    let status = lab.banned(JAIL);
    assert!(status.values().all(|in_force| *in_force), "{status:?}");
    let status: BTreeSet<String> = status.into_keys().collect();
    let kernel: BTreeSet<String> = held().into_keys().collect();
    assert_eq!(status, kernel, "`status` and the kernel");
    assert_eq!(status, lab.stored(JAIL), "`status` and the database");
    status
}

/// Who has a ufw rule of ours.
fn in_ufw() -> BTreeSet<String> {
    let added = run("ufw show added");
    let ours = added.lines().filter(|line| line.contains("'pipeban:"));
    let from = |line: &str| Some(line.split(" from ").nth(1)?.split(' ').next()?.to_owned());
    ours.filter_map(from).collect()
}

/// What the engine is killed in the middle of.
#[derive(Clone, Copy)]
struct Killing {
    kills: u64,
    /// ufw mirrors the bans.
    mirror: bool,
    clients: usize,
    /// Milliseconds that an engine lives at most.
    life: u64,
}

fn killed(killing: Killing) {
    let Killing {
        kills,
        mirror,
        clients,
        life,
    } = killing;
    let needs: &[&str] = if mirror { &["/usr/sbin/ufw"] } else { &[] };
    in_world(needs, move |_| {
        let mut lab = Lab::new();
        if mirror {
            run("ufw --force enable");
        }
        let firewall = format!("backend = \"ufw\"\nmirror = {mirror}");
        lab.configure_with(&firewall, JAILS_OF_ONE_PORT);
        let seed = u64::from(std::process::id()) ^ clock::boottime().as_nanos() as u64;
        eprintln!("seed {seed}");
        let mut random = Random(seed);
        let mut drivers = [113, 114].map(|number| Driver::new(&lab, number, clients, seed));
        let (mut starting, mut compared) = (0, 0);
        while starting + compared < kills {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for driver in &mut drivers {
                    scope.spawn(|| driver.drive(&over));
                }
                lab.begin();
                if random.below(5) == 0 {
                    // also while it starts
                    std::thread::sleep(Duration::from_millis(random.below(30)));
                    lab.kill();
                    starting += 1;
                    lab.begin();
                }
                // However long its start takes, it lives long enough to answer.
                until("the engine answers", || {
                    Line::worker(&lab.socket(), 1).is_ok()
                });
                std::thread::sleep(Duration::from_micros(random.below(life * 1_000)));
                lab.kill();
                compared += 1;
                over.store(true, Ordering::Relaxed);
            });
            lab.start();
            let banned = agreed(&lab);
            drivers
                .iter_mut()
                .for_each(|driver| driver.compare(&banned));
            if mirror {
                wait_until("ufw has the same", || in_ufw() == banned);
            }
            lab.kill();
        }
        let sum = |of: fn(&Driver) -> usize| drivers.iter().map(of).sum::<usize>();
        let (bans, unbans) = (sum(|driver| driver.bans), sum(|driver| driver.unbans));
        let line = format!(
            "engine killed {} times ({starting} while it started), ufw mirror {mirror}: {bans} bans \
             and {unbans} unbans answered, {} not; each time database, status and kernel the same, \
             nothing answered for lost\n",
            starting + compared,
            sum(|driver| driver.unanswered),
        );
        // Not eprintln: the harness would swallow it.
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        assert!(bans > 0 && unbans > 0, "{line}");
    });
}

#[test]
fn an_engine_killed_at_any_moment_keeps_all_that_it_answered() {
    killed(Killing {
        kills: 15,
        mirror: false,
        clients: 40,
        life: 400,
    });
}

#[test]
fn an_engine_killed_while_ufw_writes_leaves_ufw_with_the_same_bans() {
    killed(Killing {
        kills: 3,
        mirror: true,
        clients: 2,
        life: 600,
    });
}

/// By `make bench`.
#[cfg(feature = "measure")]
mod measure {
    use super::*;

    #[test]
    fn measure_two_hundred_kills_of_the_engine() {
        killed(Killing {
            kills: 200,
            mirror: false,
            clients: 40,
            life: 400,
        });
        killed(Killing {
            kills: 20,
            mirror: true,
            clients: 2,
            life: 600,
        });
    }
}
