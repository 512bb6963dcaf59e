//! The loop, and all it owns.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use ipnet::IpNet;
use jiff::Timestamp;

use super::crowds::Crowds;
use super::evidence::Evidence;
use super::exemptions::Exemptions;
use super::looker::Looker;
use super::perform::{SETTLE_REFUSED, Work, gone};
use super::server::{Ready, Server};
use super::settings;
use super::settings::Accepted;
use super::status::Answered;
use super::stop::Stop;
use super::surge::Surges;
use crate::alert::{Alerts, Hooks, Severity};
use crate::config::Paths;
use crate::control::{
    Counters, LineHit, OffStatus, Reading, Reply, Request, SlowestFilter, VERSION, WorkerHello,
    encode,
};
use crate::firewall::{Firewall, Notice};
use crate::jail::{BanId, Given, Jails, Moment, Now};
use crate::store::{Allowed, Done, MAX_STREAMS, Op, Saved, Store};
use crate::sys;

/// Submissions to the store that may wait before workers are not read any more.
const MAX_WAITING: usize = 4_096;
/// Bytes shown of a filter's name that a worker tells.
const MAX_FILTER_NAME: usize = 64;

/// Hits that are decided about together end with the message that reaches this.
const MAX_TOGETHER: usize = 200;

/// Between two tries of what the firewall refused.
const RETRY: Duration = Duration::from_secs(5);

/// Between two lines about a trouble that changes.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Between two looks at what others may have taken away or put there: the socket's file, the
/// emergency stop's.
const TEND: Duration = Duration::from_secs(1);

/// Between two looks at the bans in the kernel, where nothing has to be mended.
const GUARD: Duration = Duration::from_millis(200);

/// What such a look took, so many times is waited before the next one, a second at most: who
/// changes the ruleset all the time gets a twentieth of our time.
const REST: u32 = 20;

/// Counters given to a new database at most: those of who hit last.
const MAX_STORED_ANEW: usize = 200_000;

/// The trouble of a database that cannot be written.
pub(super) const STORE: &str = "store";

/// Between two clean-ups.
const SWEEP: Duration = Duration::from_secs(60);

/// The clocks, read.
pub(super) fn now() -> Now {
    Now {
        boot: Moment::from_boottime(sys::clock::boottime()),
        wall: Timestamp::now(),
    }
}

/// What follows a commit.
#[derive(Debug)]
pub(super) enum Then {
    /// Hits of a stream are known for good.
    Ack {
        connection: u64,
        stream: u64,
        offset: u64,
        told: Vec<String>,
    },
    /// The answer to a command.
    Answer { connection: u64, reply: Reply },
}

/// Who is at the other end, as far as it has said.
#[derive(Debug)]
pub(super) enum Role {
    Unknown,
    Worker {
        hello: WorkerHello,
        counters: Box<Counters>,
        reading: Box<Reading>,
        slowest: Option<SlowestFilter>,
    },
    Keeper,
    /// Its answer is under way.
    Command,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Decided about up to here.
    pub(super) decided: Option<u64>,
    /// Committed up to here.
    pub(super) committed: Option<u64>,
    /// For forgetting the oldest.
    seen: Moment,
}

/// What the engine is made of.
pub(super) struct Parts {
    pub(super) file: PathBuf,
    /// Those in use; what a reload brings takes effect at the next start.
    pub(super) paths: Paths,
    pub(super) accepted: Accepted,
    pub(super) jails: Jails,
    pub(super) firewall: Firewall,
    pub(super) alerts: Alerts,
    pub(super) hooks: Hooks,
    pub(super) store: Store<Then>,
    pub(super) done: Receiver<Done<Then>>,
    pub(super) notices: Receiver<Notice>,
    pub(super) server: Server,
    pub(super) off: Stop,
    pub(super) started: Now,
}

/// The engine.
pub(super) struct Engine {
    pub(super) parts: Parts,
    pub(super) roles: HashMap<u64, Role>,
    pub(super) streams: HashMap<u64, Stream>,
    pub(super) allowed: BTreeMap<IpNet, Allowed>,
    /// What is wrong now, by key.
    pub(super) troubles: BTreeMap<&'static str, Trouble>,
    /// What the firewall refused.
    pub(super) undone: HashSet<Given>,
    /// Hits for jails that are not configured.
    pub(super) unknown_jails: u64,
    /// Patterns that gave up on lines.
    pub(super) undecided: super::undecided::Patterns,
    /// Messages nobody understood.
    pub(super) misunderstood: u64,
    /// Reads the files in a thread.
    pub(super) reloading: Option<Reloading>,
    pub(super) stopping: bool,
    /// Answers to `status` that threads are working on.
    pub(super) asking: usize,
    pub(super) answers: Sender<Answered>,
    pub(super) answers_in: Receiver<Answered>,
    pub(super) exemptions: Exemptions,
    pub(super) evidence: Evidence,
    pub(super) surges: Surges,
    pub(super) crowds: Crowds,
    identities: Identities,
    retry: Instant,
    tend: Instant,
    guard: Instant,
    sweep: Instant,
}

/// Something that is wrong.
pub(super) struct Trouble {
    pub(super) text: String,
    told: Instant,
}

pub(super) struct Reloading {
    /// Who waits for the outcome.
    pub(super) asked: Vec<u64>,
    pub(super) outcome: Receiver<Result<Accepted, String>>,
}

struct Identities {
    own: u32,
    worker: u32,
    adm: Option<u32>,
}

impl Identities {
    fn of(user: &str) -> Identities {
        let adm = nix::unistd::Group::from_name("adm").ok().flatten();
        Identities {
            own: nix::unistd::geteuid().as_raw(),
            worker: sys::privileges::worker_uid(user),
            adm: adm.map(|group| group.gid.as_raw()),
        }
    }
}

/// What a connection may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    All,
    Worker,
    Status,
    None,
}

impl Engine {
    pub(super) fn new(parts: Parts, looker: Looker) -> Engine {
        let identities = Identities::of(&parts.accepted.config.paths.user);
        let start = Instant::now();
        let (answers, answers_in) = unbounded();
        Engine {
            parts,
            roles: HashMap::new(),
            streams: HashMap::new(),
            allowed: BTreeMap::new(),
            troubles: BTreeMap::new(),
            undone: HashSet::new(),
            unknown_jails: 0,
            undecided: super::undecided::Patterns::default(),
            misunderstood: 0,
            reloading: None,
            stopping: false,
            asking: 0,
            answers,
            answers_in,
            exemptions: Exemptions::new(looker),
            evidence: Evidence::default(),
            surges: Surges::default(),
            crowds: Crowds::default(),
            identities,
            retry: start + RETRY,
            tend: start + TEND,
            guard: start + GUARD,
            sweep: start + SWEEP,
        }
    }

    /// Takes back what the store kept. `whole`: that is all there was; else the kernel's bans stay.
    pub(super) fn restore(&mut self, saved: Saved, whole: bool, now: Now) {
        self.look_anew(now);
        if let Some(off) = self.parts.off.status() {
            self.tell_off(&off);
        }
        if saved.last_id.is_none() && !whole {
            // Names that nobody has seen yet, whatever is in the database.
            let seconds = u64::try_from(now.wall.as_second()).unwrap_or(0);
            self.parts.jails.restore_last_id(BanId::new(seconds));
        }
        let mut work = self.take_back(saved, now);
        work.ops.push(Op::Prune);
        work.clear = whole || self.parts.off.is_on();
        self.parts
            .firewall
            .left(|| work.touched.iter().cloned().map(gone));
        self.perform(work, now, Vec::new());
        let jails = self.parts.accepted.config.jails.values();
        let text = format!(
            "pipeban {} started; enabled jails: {}, bans: {}",
            env!("CARGO_PKG_VERSION"),
            jails.filter(|jail| jail.enabled).count(),
            self.parts.jails.bans().len()
        );
        self.parts.alerts.tell(Severity::Notice, &text);
    }

    /// Adds what a database held to what is known, which goes before.
    fn take_back(&mut self, saved: Saved, now: Now) -> Work {
        for (stream, offset) in saved.streams {
            let known = self.stream(stream, now);
            known.decided = known.decided.max(Some(offset));
            known.committed = known.committed.max(Some(offset));
        }
        for entry in saved.allowed {
            self.allowed.entry(entry.net).or_insert(entry);
        }
        self.exemptions_changed();
        let jails = &mut self.parts.jails;
        if let Some(id) = saved.last_id {
            jails.restore_last_id(id);
        }
        for (jail, totals) in saved.totals {
            jails.restore_totals(&jail, totals);
        }
        for (jail, net, hits) in saved.counters {
            jails.restore_counter(&jail, net, hits);
        }
        for (jail, net, times) in saved.repeats {
            jails.restore_repeats(&jail, net, times);
        }
        let mut bans = saved.bans;
        bans.retain(|ban| jails.bans().get(&ban.jail, &ban.net).is_none());
        let exempt = self.exempt();
        let mut work = Work::default();
        work.take(self.parts.jails.restore(bans, now, &exempt));
        work
    }

    /// The database can be written, and does not hold what is known: it gets all of it.
    fn store_anew(&mut self, saved: Saved) {
        let now = now();
        let mut work = self.take_back(saved, now);
        let jails = &self.parts.jails;
        let mut all = vec![Op::Anew];
        all.extend(jails.bans().iter().cloned().map(Op::Ban));
        all.extend(
            jails
                .counters()
                .take(MAX_STORED_ANEW)
                .map(|(jail, net, hits, findtime)| Op::Counter {
                    jail,
                    net,
                    hits,
                    findtime,
                }),
        );
        all.extend(
            jails
                .all_totals()
                .map(|(jail, totals)| Op::Totals { jail, totals }),
        );
        all.extend(self.allowed.values().cloned().map(Op::Allow));
        let streams = self.streams.iter();
        all.extend(streams.filter_map(|(stream, known)| {
            Some(Op::Stream {
                stream: *stream,
                offset: known.decided?,
            })
        }));
        // What ended just now has no row any more.
        work.ops = all;
        self.perform(work, now, Vec::new());
    }

    /// Runs until a signal or a command ends it.
    pub(super) fn run(mut self) {
        let mut gone = Vec::new();
        while !self.stopping {
            let hold = self.parts.store.waiting() > MAX_WAITING;
            let timeout = self.parts.server.regulate(hold, &mut gone);
            let timeout = timeout.min(self.until_tending());
            for id in gone.drain(..) {
                self.roles.remove(&id);
            }
            let ready = match self.parts.server.wait(timeout) {
                Ok(ready) => ready,
                Err(error) => {
                    let text = format!("epoll failed, the engine ends: {error}");
                    self.parts.alerts.tell(Severity::Err, &text);
                    break;
                }
            };
            for event in ready {
                match event {
                    Ready::New(id) => self.welcome(id),
                    Ready::Read(id) => self.read(id),
                    Ready::Gone(id) => {
                        self.roles.remove(&id);
                    }
                    Ready::Woken => self.committed(),
                    Ready::Signal => self.stopping = true,
                }
            }
            self.reloaded();
            self.answered();
            self.tick();
        }
        self.end();
    }

    /// Something is wrong: told (again when it changes, but not more than once a minute), and
    /// shown by `status` until it is over.
    pub(super) fn trouble(&mut self, key: &'static str, severity: Severity, text: String) {
        let now = Instant::now();
        let told = match self.troubles.get(key) {
            Some(known) if known.text == text || now < known.told + TELL_AGAIN => known.told,
            _ => {
                self.parts.alerts.tell(severity, &text);
                now
            }
        };
        self.troubles.insert(key, Trouble { text, told });
    }

    /// It is not wrong any more.
    pub(super) fn over(&mut self, key: &'static str) {
        if let Some(known) = self.troubles.remove(key) {
            let text = format!("over: {}", known.text);
            self.parts.alerts.tell(Severity::Notice, &text);
        }
    }

    pub(super) fn stream(&mut self, stream: u64, now: Now) -> &mut Stream {
        if self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(&stream) {
            let oldest = self.streams.iter().min_by_key(|(_, s)| s.seen);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.streams.remove(&oldest);
            }
        }
        let entry = self.streams.entry(stream).or_default();
        entry.seen = now.boot;
        entry
    }

    fn rights(&self, id: u64) -> Rights {
        let Some(peer) = self.parts.server.peer(id) else {
            return Rights::None;
        };
        let who = &self.identities;
        if peer.uid == 0 || peer.uid == who.own {
            Rights::All
        } else if peer.uid == who.worker {
            Rights::Worker
        } else if who.adm.is_some_and(|adm| peer.groups.contains(&adm)) {
            Rights::Status
        } else {
            Rights::None
        }
    }

    fn welcome(&mut self, id: u64) {
        if self.rights(id) == Rights::None {
            self.refuse(id, 77, "not permitted: ask as root");
        } else {
            self.roles.insert(id, Role::Unknown);
        }
    }

    fn read(&mut self, id: u64) {
        // Hits that came one by one are decided about together: one change of the firewall for
        // all that a flood has made wait.
        let mut hits = None;
        loop {
            let line = match self.parts.server.next_line(id) {
                Ok(Some(line)) => line,
                Ok(None) => return self.request_all(id, &mut hits),
                Err(_) => {
                    self.request_all(id, &mut hits);
                    return self.misunderstood(id, "message too long");
                }
            };
            match serde_json::from_slice::<Request>(&line) {
                Ok(Request::Hits(more)) => {
                    let waiting: &mut Vec<LineHit> = hits.get_or_insert_default();
                    waiting.extend(more);
                    if waiting.len() >= MAX_TOGETHER {
                        self.request_all(id, &mut hits);
                    }
                }
                Ok(request) => {
                    self.request_all(id, &mut hits);
                    self.request(id, request);
                }
                Err(error) => {
                    self.request_all(id, &mut hits);
                    return self.misunderstood(id, &error.to_string());
                }
            }
        }
    }

    fn request_all(&mut self, id: u64, hits: &mut Option<Vec<LineHit>>) {
        if let Some(hits) = hits.take() {
            self.request(id, Request::Hits(hits));
        }
    }

    fn request(&mut self, id: u64, request: Request) {
        let rights = self.rights(id);
        let worker = matches!(rights, Rights::All | Rights::Worker);
        match (self.roles.get_mut(&id), request) {
            (Some(Role::Unknown), Request::Worker(hello)) if worker => self.worker(id, hello),
            (Some(Role::Unknown), Request::Keeper { version }) if rights == Rights::All => {
                if self.same_version(id, version) {
                    self.roles.insert(id, Role::Keeper);
                    self.parts.server.introduced(id, false);
                    self.send_config(id);
                }
            }
            (Some(Role::Unknown), Request::Command(command)) => {
                use crate::control::Command;
                let looks = matches!(command, Command::Status { .. } | Command::Export { .. });
                if rights == Rights::All || (rights == Rights::Status && looks) {
                    self.roles.insert(id, Role::Command);
                    self.parts.server.introduced(id, false);
                    self.command(id, command);
                } else {
                    self.refuse(id, 77, "not permitted: ask as root");
                }
            }
            (Some(Role::Worker { hello, .. }), Request::Hits(hits)) => {
                let (stream, kind) = (hello.stream, hello.kind);
                self.hits(id, stream, kind, &hits);
            }
            (Some(Role::Worker { counters, .. }), Request::Counters(new)) => **counters = new,
            (Some(Role::Worker { reading, .. }), Request::Reading(new)) => {
                **reading = new.bounded();
            }
            (Some(Role::Worker { slowest, .. }), Request::Slowest(new)) => {
                // Nobody's word but the worker's: shown, and nothing else.
                let filter = crate::record::display(new.filter.as_bytes(), MAX_FILTER_NAME);
                *slowest = Some(SlowestFilter { filter, ..new });
            }
            (Some(Role::Worker { .. }), Request::Undecided(patterns)) => self.undecided(patterns),
            (Some(Role::Worker { .. }), Request::Shared { addr }) => {
                self.parts.jails.learn_shared(addr, now());
            }
            _ => self.misunderstood(id, "a message that is not permitted or has no place here"),
        }
    }

    fn worker(&mut self, id: u64, hello: WorkerHello) {
        if !self.same_version(id, hello.version) {
            return;
        }
        // What is decided but not committed may still be lost: it must be sent again.
        let high_water = self.stream(hello.stream, now()).committed;
        let role = Role::Worker {
            hello,
            counters: Box::default(),
            reading: Box::default(),
            slowest: None,
        };
        self.roles.insert(id, role);
        self.parts.server.introduced(id, true);
        let version = VERSION;
        let reply = Reply::Welcome {
            version,
            high_water,
        };
        self.parts.server.send(id, &encode(&reply));
    }

    fn same_version(&mut self, id: u64, version: u32) -> bool {
        if version == VERSION {
            return true;
        }
        let text = format!(
            "the engine speaks protocol {VERSION}, the other side {version}: restart the engine \
             (`pipeban engine --stop`) and Apache after an upgrade"
        );
        self.parts.alerts.tell_limited(Severity::Warning, &text);
        self.refuse(id, 2, &text);
        false
    }

    fn send_config(&mut self, id: u64) {
        let accepted = &self.parts.accepted;
        let reply = Reply::Config {
            hash: accepted.hash.clone(),
            text: accepted.text.clone(),
        };
        self.parts.server.send(id, &encode(&reply));
    }

    pub(super) fn refuse(&mut self, id: u64, exit: u8, text: &str) {
        let text = text.to_owned();
        self.parts
            .server
            .send(id, &encode(&Reply::Refused { exit, text }));
        self.parts.server.close(id);
        self.roles.remove(&id);
    }

    fn misunderstood(&mut self, id: u64, what: &str) {
        self.misunderstood += 1;
        if let Some(peer) = self.parts.server.peer(id) {
            let (pid, uid) = (peer.pid, peer.uid);
            let text = format!("connection of pid {pid} (uid {uid}) ended: {what}");
            self.parts.alerts.tell_limited(Severity::Warning, &text);
        }
        self.refuse(id, 2, "message not understood");
    }

    /// The store has written, or could not.
    fn committed(&mut self) {
        while let Ok(group) = self.parts.done.try_recv() {
            match group.trouble {
                Some(text) => {
                    let text = format!(
                        "{text}; bans work, but what happens now may be forgotten at a restart: \
                         make room on the disk, mend its rights, or end whoever holds it"
                    );
                    self.trouble(STORE, Severity::Err, text);
                }
                None => self.over(STORE),
            }
            if let Some(text) = group.event {
                self.parts.alerts.tell(Severity::Warning, &text);
            }
            if let Some(saved) = group.anew {
                self.store_anew(saved);
            }
            for then in group.then {
                self.follow(then);
            }
        }
    }

    pub(super) fn follow(&mut self, then: Then) {
        match then {
            Then::Ack {
                connection,
                stream,
                offset,
                told,
            } => {
                if let Some(known) = self.streams.get_mut(&stream) {
                    known.committed = known.committed.max(Some(offset));
                }
                let reply = Reply::Ack { offset, told };
                self.parts.server.send(connection, &encode(&reply));
            }
            Then::Answer { connection, reply } => {
                let stop = matches!(self.roles.get(&connection), Some(Role::Command));
                self.parts.server.send(connection, &encode(&reply));
                if stop {
                    self.parts.server.close(connection);
                }
            }
        }
    }

    fn reloaded(&mut self) {
        let outcome = match &self.reloading {
            Some(reloading) => match reloading.outcome.try_recv() {
                Ok(outcome) => outcome,
                Err(crossbeam_channel::TryRecvError::Empty) => return,
                Err(error) => Err(format!("reading the configuration failed: {error}")),
            },
            None => return,
        };
        let asked = self.reloading.take().map(|r| r.asked).unwrap_or_default();
        match outcome {
            Ok(accepted) => self.use_configuration(accepted, &asked),
            Err(problems) => {
                let text = format!(
                    "the configuration is broken, the old one stays in use: {}",
                    problems.replace('\n', "; ")
                );
                self.trouble("config", Severity::Err, text);
                for id in asked {
                    let text = format!("{problems}\nthe old configuration stays in use");
                    self.refuse(id, 78, &text);
                }
            }
        }
    }

    fn use_configuration(&mut self, accepted: Accepted, asked: &[u64]) {
        let now = now();
        let old = std::mem::replace(&mut self.parts.accepted, accepted);
        self.undecided.forget();
        let new = &self.parts.accepted;
        let kept = new.keep();
        let later =
            old.config.paths != new.config.paths || old.config.firewall != new.config.firewall;
        self.parts.jails.configure(&new.config);
        self.parts.alerts.configure(&new.config.syslog);
        self.parts.hooks.forget();
        self.identities = Identities::of(&new.config.paths.user);
        let jails = new.config.jails.values().filter(|jail| jail.enabled);
        let mut text = format!(
            "configuration {} in use; enabled jails: {}",
            new.hash,
            jails.count()
        );
        self.over("config");
        match kept {
            Ok(()) => self.over("last-good"),
            Err(text) => self.trouble("last-good", Severity::Err, text),
        }
        if later {
            let what = format!(
                "[paths] and [firewall] were changed: they take effect when the engine is \
                 restarted (`systemctl restart pipeban`, or `kill {}` and start it)",
                std::process::id()
            );
            text = format!("{text}\n{what}");
            self.trouble("restart", Severity::Warning, what);
        }
        self.parts.alerts.tell(Severity::Notice, &text);
        self.look_anew(now);
        let mut work = Work::default();
        self.release(&mut work);
        let answers = asked.iter().map(|id| Then::Answer {
            connection: *id,
            reply: Reply::Done {
                text: text.clone(),
                json: vec![serde_json::json!({"config": self.parts.accepted.hash})],
                yes: true,
            },
        });
        let answers = answers.collect();
        self.perform(work, now, answers);
        let keepers: Vec<u64> = self
            .roles
            .iter()
            .filter(|(_, role)| matches!(role, Role::Keeper))
            .map(|(id, _)| *id)
            .collect();
        for id in keepers {
            self.send_config(id);
        }
    }

    /// Reads the files in a thread: checking patterns may take longer than hits should wait.
    pub(super) fn reload(&mut self, id: u64) {
        if let Some(reloading) = &mut self.reloading {
            reloading.asked.push(id);
            return;
        }
        let (send, outcome) = crossbeam_channel::bounded(1);
        let (file, waker) = (self.parts.file.clone(), self.parts.server.waker());
        let started = std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || {
                let _ = send.send(settings::from_files(&file));
                waker.wake();
            });
        match started {
            Ok(_) => {
                let asked = vec![id];
                self.reloading = Some(Reloading { asked, outcome });
            }
            Err(error) => self.refuse(id, 2, &format!("no thread: {error}")),
        }
    }

    fn tick(&mut self) {
        let now = now();
        while let Ok(notice) = self.parts.notices.try_recv() {
            match notice {
                Notice::Trouble { key, text } => self.trouble(key, Severity::Warning, text),
                Notice::Over { key } => self.over(key),
                Notice::Event { text } => self.parts.alerts.tell(Severity::Warning, &text),
            }
        }
        let mut work = Work::default();
        self.look(&mut work, now);
        if self
            .parts
            .jails
            .bans()
            .next_end()
            .is_some_and(|end| end <= now.boot)
        {
            work.take(self.parts.jails.expire(now));
        }
        let ended: Vec<IpNet> = self
            .allowed
            .values()
            .filter(|entry| entry.until.is_some_and(|until| until <= now.boot))
            .map(|entry| entry.net)
            .collect();
        for net in ended {
            self.allowed.remove(&net);
            work.ops.push(Op::Disallow(net));
            self.exemptions_changed();
            let text = format!("{net} is off the allow-list again: its time is over");
            self.parts.alerts.tell(Severity::Notice, &text);
        }
        if self.parts.off.is_over(now) {
            self.switch_on(&mut work);
        }
        let time = Instant::now();
        if time >= self.tend {
            self.tend = time + TEND;
            self.tend_hooks();
            let mirrored = self.has_ufw_rules();
            for line in self.surges.turn(mirrored, now.boot) {
                self.parts.alerts.tell(Severity::Notice, &line);
            }
            match self.surges.alarm() {
                Some(text) => self.trouble("surge", Severity::Warning, text),
                None => self.over("surge"),
            }
            self.tell_of_crowds(now.boot);
            self.tend(&mut work, now);
        }
        if time >= self.guard {
            let begun = Instant::now();
            self.parts.firewall.tend();
            let rest = begun.elapsed() * REST;
            self.guard = Instant::now() + rest.clamp(GUARD, TEND);
        }
        if time >= self.retry {
            self.retry = time + RETRY;
            work.touched.extend(self.undone.drain());
            work.clear |= self.troubles.contains_key(SETTLE_REFUSED);
        }
        if time >= self.sweep {
            self.sweep = time + SWEEP;
            self.parts.jails.sweep(now);
            // Logins grow old.
            self.exemptions_changed();
            work.ops.push(Op::Prune);
            let (clients, bans) = self.parts.jails.dropped();
            if clients + bans > 0 {
                let text = format!(
                    "more clients than fit: {clients} counters and {bans} bans were dropped, \
                     oldest first"
                );
                self.trouble("bounds", Severity::Warning, text);
            }
        }
        if !work.is_empty() {
            self.perform(work, now, Vec::new());
        }
    }

    /// Whole milliseconds, as the kernel counts: not too early, or the loop would spin.
    fn until_tending(&self) -> Duration {
        let next = self.tend.min(self.guard);
        let left = next.saturating_duration_since(Instant::now());
        Duration::from_millis(left.as_millis() as u64 + 1)
    }

    /// Looks after what others may have taken away or put there.
    fn tend(&mut self, work: &mut Work, now: Now) {
        match self.parts.server.mend() {
            Ok(false) => self.over("socket"),
            Ok(true) => {
                let path = self.parts.paths.socket();
                let text = format!("somebody removed {}; made again", path.display());
                self.parts.alerts.tell(Severity::Warning, &text);
                self.over("socket");
            }
            Err(error) => {
                let path = self.parts.paths.socket();
                let text = format!(
                    "nobody new can reach the engine: {}: {error}",
                    path.display()
                );
                self.trouble("socket", Severity::Err, text);
            }
        }
        // `pipeban off` and `on` that could not reach us.
        match self.parts.off.changed_by_others(&self.parts.paths, now) {
            Some(Some(off)) => {
                self.tell_off(&off);
                work.clear = true;
            }
            Some(None) => self.switch_on(work),
            None => {}
        }
    }

    fn end(self) {
        self.parts
            .alerts
            .tell(Severity::Notice, "pipeban stops; bans stay in force");
        self.parts.hooks.stop();
        self.parts.store.finish();
        // Answers that were waiting for the last commit.
        let mut server = self.parts.server;
        while let Ok(group) = self.parts.done.try_recv() {
            for then in group.then {
                if let Then::Answer { connection, reply } = then {
                    server.send(connection, &encode(&reply));
                }
            }
        }
        server.remove_file();
        drop(server);
        // What is queued for ufw is found out again at the next start.
        self.parts.firewall.finish(Duration::ZERO);
        let left = self.parts.hooks.finish();
        if left > 0 {
            let text = format!("hooks not run, or not to their end, as pipeban stops: {left}");
            self.parts.alerts.tell(Severity::Warning, &text);
        }
        self.parts.alerts.finish();
    }

    /// Puts what is not over back in force.
    pub(super) fn switch_on(&mut self, work: &mut Work) {
        self.troubles.remove("off");
        let text = "banning again: the emergency stop is over";
        self.parts.alerts.tell(Severity::Notice, text);
        if let Err(error) = self.parts.off.end(&self.parts.paths) {
            let path = self.parts.paths.off_file();
            let text = format!(
                "{} cannot be removed ({error}): the emergency stop will be on again after a \
                 restart",
                path.display()
            );
            self.trouble("off-file", Severity::Err, text);
        }
        work.clear = true;
    }

    pub(super) fn tell_off(&mut self, off: &OffStatus) {
        let until = match off.until {
            Some(until) => format!("until {until:.0}"),
            None => "until `pipeban on`".into(),
        };
        let text = format!("not banning at all: the emergency stop is on {until}");
        self.trouble("off", Severity::Err, text);
    }
}
