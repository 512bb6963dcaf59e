//! What `pipeban status` shows.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

use crossbeam_channel::{Receiver, Sender, unbounded};
use ipnet::IpNet;

use super::decider::Decider;
use super::enforcement::Enforcement;
use super::transfer;
use super::waker::Waker;
use crate::config::{Backend, Config, JailName, Ports};
use crate::control::{
    BanStatus, FailingStatus, JailStatus, ListedBan, PortsStatus, Reply, SlowestFilter,
    WorkerStatus, encode,
};
use crate::firewall::{InForce, UfwState};
use crate::jail::{Ban, BanId, FirewallKey, Mode, Now, show_net};
use crate::record::glimpse;
use crate::store::ReadOnly;

/// Answers that query the firewall at once; one more is given without `in_force`.
const MAX_QUERIES: usize = 4;

/// The request of a ban's last line, in bytes at most.
const MAX_REQUEST: usize = 60;

/// An answer that lacks what the firewall and the database know, and the firewall's key of each of
/// its bans, in order; `None` for a ban that no firewall enforces.
pub(super) struct Draft {
    pub(super) reply: Reply,
    pub(super) keys: Vec<Option<FirewallKey>>,
}

/// Clients of one answer at most: it is made while everything else waits. There are pages for all.
pub(super) const MOST_CLIENTS: usize = 1_000;

/// Gathers one jail or all, with the bans of the `newest` clients at most, those banned last.
pub(super) fn jails(
    decider: &mut Decider,
    enforcement: &Enforcement,
    (jail, newest): (Option<&JailName>, usize),
    now: Now,
) -> (Vec<JailStatus>, Vec<Option<FirewallKey>>) {
    decider.jails.sweep(now);
    let names = match jail {
        Some(jail) => vec![jail.clone()],
        None => decider.jails.names(),
    };
    let bans = decider.jails.bans();
    // A ban that is over is ended within a second; the kernel is on time.
    let is_shown = |ban: &&Ban| {
        let over = ban.until.is_some_and(|until| until <= now.boot);
        jail.is_none_or(|jail| ban.jail == *jail) && !over
    };
    let mut counts = bans.counts(now.boot);
    let wanted = |(id, net): &(BanId, IpNet)| {
        let mut of_net = bans.of(net).iter().filter(is_shown);
        of_net.any(|ban| ban.id == *id)
    };
    // After the last ban of this jail there may be a million bans of other jails.
    let of_jail = jail.map(|jail| counts.get(jail).copied().unwrap_or_default());
    let all = of_jail.map_or(u64::MAX, |count| count.banned + count.observed);
    let all = usize::try_from(all).unwrap_or(usize::MAX);
    let mut nets = BTreeSet::new();
    for (_, net) in bans.newest().filter(wanted).take(all) {
        if nets.len() >= newest {
            break;
        }
        nets.insert(net);
    }
    let mut by_jail: HashMap<&JailName, Vec<&Ban>> = HashMap::new();
    for ban in nets.iter().flat_map(|net| bans.of(net)).filter(is_shown) {
        by_jail.entry(&ban.jail).or_default().push(ban);
    }
    let apache = enforcement.apache_ports();
    let failing = decider.jails.failing();
    let mut keys = Vec::new();
    let mut status = |ban: &Ban| {
        let (status, key) = draft(ban, decider, enforcement, now);
        keys.push(key);
        status
    };
    let jails = names.into_iter().map(|name| {
        let settings = decider.jails.settings(&name);
        let totals = decider.jails.totals(&name);
        let bans = by_jail.remove(&name).unwrap_or_default().into_iter();
        let (observed, banned): (Vec<_>, Vec<_>) = bans.partition(|b| b.mode == Mode::Observed);
        let count = counts.remove(&name).unwrap_or_default();
        JailStatus {
            ports: settings.map_or_else(PortsStatus::default, |jail| ports(&jail.port, &apache)),
            enabled: settings.is_some_and(|jail| jail.enabled),
            enforce: settings.is_some_and(|jail| jail.enforce),
            currently_failed: failing.get(&name).copied().unwrap_or(0),
            total_failed: totals.failed,
            currently_banned: count.banned,
            total_banned: totals.banned,
            currently_observed: count.observed,
            banned: banned.into_iter().map(&mut status).collect(),
            observed: observed.into_iter().map(&mut status).collect(),
            name,
        }
    });
    let jails = jails.collect();
    (jails, keys)
}

/// Clients with hits, at most `most`, those that hit last first.
pub(super) fn failing(
    decider: &Decider,
    jail: Option<&JailName>,
    most: usize,
) -> Vec<FailingStatus> {
    let counters = decider.jails.counters();
    let counters = counters.filter(|(of, ..)| jail.is_none_or(|jail| jail == of));
    let failing = counters.take(most).filter_map(|(jail, net, hits, _)| {
        let weight = hits.iter().map(|(_, weight)| *weight);
        let maxretry = decider.jails.settings(&jail)?.maxretry;
        Some(FailingStatus {
            host: show_net(&net),
            count: weight.fold(0, u32::saturating_add),
            maxretry,
            jail,
        })
    });
    failing.collect()
}

/// A page of all bans.
pub(super) fn page(
    decider: &Decider,
    enforcement: &Enforcement,
    (jail, observed, after): (Option<&JailName>, Option<bool>, Option<IpNet>),
    now: Now,
) -> Draft {
    let wanted = |ban: &Ban| {
        jail.is_none_or(|jail| *jail == ban.jail)
            && observed.is_none_or(|observed| observed == (ban.mode == Mode::Observed))
    };
    let (found, next) = transfer::page(decider, after, wanted, now);
    let (mut bans, mut keys) = (Vec::new(), Vec::new());
    for ban in found {
        let (status, key) = draft(ban, decider, enforcement, now);
        bans.push(ListedBan {
            jail: ban.jail.clone(),
            observed: ban.mode == Mode::Observed,
            ban: status,
        });
        keys.push(key);
    }
    let reply = Reply::StatusPage { bans, next };
    Draft { reply, keys }
}

/// A ban without what the firewall and the database know, and its key.
fn draft(
    ban: &Ban,
    decider: &Decider,
    enforcement: &Enforcement,
    now: Now,
) -> (BanStatus, Option<FirewallKey>) {
    let key = decider.in_force().and(ban.firewall_key());
    (ban_status(ban, key.as_ref(), enforcement, now), key)
}

/// What `status` says of a jail's ports.
pub(super) fn ports(ports: &Ports, apache: &Ports) -> PortsStatus {
    match ports.resolved(apache) {
        Ports::List { tcp, .. } => PortsStatus::List(tcp.iter().copied().collect()),
        Ports::All => PortsStatus::Word("all".into()),
        Ports::AllButSsh => PortsStatus::Word("all but ssh".into()),
        Ports::Apache => PortsStatus::default(),
    }
}

fn ban_status(
    ban: &Ban,
    key: Option<&FirewallKey>,
    enforcement: &Enforcement,
    now: Now,
) -> BanStatus {
    let ufw = key.and_then(|key| enforcement.ufw_state(key));
    BanStatus {
        id: ban.id.to_string(),
        host: show_net(&ban.net),
        since: ban.since_wall,
        until: ban.until.map(|until| now.wall_of(until)),
        in_force: None,
        ufw: ufw.map(|state| ufw_word(state).to_owned()),
        behind: ban.mode.proxy(),
        cause: ban.cause.word().to_owned(),
        reason: ban.cause.reason().map(str::to_owned),
        rule: None,
        request: None,
    }
}

pub(super) fn ufw_word(state: UfwState) -> &'static str {
    match state {
        UfwState::Present => "present",
        UfwState::Queued => "queued",
        UfwState::Capped => "capped",
        UfwState::Removed => "removed",
        UfwState::Inactive => "inactive",
    }
}

pub(super) fn backends(config: &Config) -> String {
    let all = config.firewall.backend.iter().map(Backend::to_string);
    all.collect::<Vec<_>>().join(", ")
}

/// A warning about lines that were not matched.
pub(super) fn overload(worker: &WorkerStatus) -> Option<String> {
    let shed = worker.counters.shed;
    if shed == 0 || !worker.counters.matching {
        return None;
    }
    let slowest = worker.slowest.as_ref().map_or(String::new(), |slowest| {
        let SlowestFilter {
            filter,
            share,
            nanos,
        } = slowest;
        format!("; filter `{filter}` takes {share} % of the time, {nanos} ns a line")
    });
    Some(format!(
        "worker {} of the {} log passed {shed} lines on without matching them: it was behind, or \
         crashed on them{slowest}",
        worker.pid, worker.kind
    ))
}

/// A warning about a worker that holds more than it needs.
pub(super) fn unconfined(worker: &WorkerStatus) -> Option<String> {
    let missing = worker.confined.missing();
    (!missing.is_empty()).then(|| {
        format!(
            "worker {} of the {} log has no root, but is not fully confined: {}",
            worker.pid,
            worker.kind,
            missing.join(", ")
        )
    })
}

/// An answer that is ready, and whether the firewall could be queried.
pub(super) struct Answer {
    pub(super) connection: u64,
    pub(super) reply: Vec<u8>,
    pub(super) queried: Result<(), String>,
}

/// Queries the firewall in threads: a million queries take seconds, and hits must not wait.
pub(super) struct Queries {
    running: usize,
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
}

impl Default for Queries {
    fn default() -> Queries {
        let (sender, answers) = unbounded();
        Queries {
            running: 0,
            sender,
            answers,
        }
    }
}

impl Queries {
    /// Makes an answer in a thread: `complete` queries the firewall for it, unless too many such
    /// queries run.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn begin<A: Send + 'static>(
        &mut self,
        connection: u64,
        (mut incomplete, checker): (A, InForce),
        waker: Waker,
        complete: impl FnOnce(&mut A, InForce) -> Result<(), String> + Send + 'static,
        reply: fn(A) -> Reply,
    ) -> io::Result<()> {
        let query = self.running < MAX_QUERIES;
        let sender = self.sender.clone();
        let answer = move || {
            let queried = match query {
                true => complete(&mut incomplete, checker),
                false => Ok(()),
            };
            let reply = encode(&reply(incomplete));
            // The engine may be ending.
            let _ = sender.send(Answer {
                connection,
                reply,
                queried,
            });
            waker.wake();
        };
        if query {
            let thread = std::thread::Builder::new().name("status".into());
            thread.spawn(answer)?;
        } else {
            answer();
        }
        self.running += 1;
        Ok(())
    }

    pub(super) fn next(&mut self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        self.running = self.running.saturating_sub(1);
        Some(answer)
    }
}

/// Every ban of an answer, in the order in which it was gathered.
fn bans_of(reply: &mut Reply) -> Vec<&mut BanStatus> {
    match reply {
        Reply::Status(status) => {
            let jails = status.jails.iter_mut();
            let bans = jails.flat_map(|jail| jail.banned.iter_mut().chain(&mut jail.observed));
            bans.collect()
        }
        Reply::StatusPage { bans, .. } => bans.iter_mut().map(|listed| &mut listed.ban).collect(),
        _ => Vec::new(),
    }
}

/// Completes an answer with what the database has, and with what the firewall says of `keys`.
///
/// # Errors
/// Why the firewall cannot be queried.
pub(super) fn fill(
    checker: &mut InForce,
    database: &Path,
    reply: &mut Reply,
    keys: &[Option<FirewallKey>],
) -> Result<(), String> {
    let mut bans = bans_of(reply);
    add_evidence(database, &mut bans);
    let queried: Vec<FirewallKey> = keys.iter().flatten().cloned().collect();
    if queried.is_empty() {
        return Ok(());
    }
    let mut found = checker.in_force(&queried)?.into_iter();
    for (ban, key) in bans.iter_mut().zip(keys) {
        if key.is_some() {
            ban.in_force = found.next().flatten();
        }
    }
    Ok(())
}

/// A database that cannot be read has its alarm; the bans are shown without their lines.
fn add_evidence(database: &Path, bans: &mut [&mut BanStatus]) {
    let ids = bans.iter().filter_map(|ban| ban.id.parse().ok());
    let found = ReadOnly::open(database).and_then(|opened| match opened {
        Some(database) => database.last_lines(ids),
        None => Ok(HashMap::new()),
    });
    let Ok(found) = found else {
        return;
    };
    for ban in bans {
        let evidence = ban.id.parse().ok().and_then(|id: BanId| found.get(&id));
        if let Some(evidence) = evidence {
            ban.rule = evidence.rule.clone();
            ban.request = Some(glimpse(&evidence.line, MAX_REQUEST));
        }
    }
}
