//! The loop: reads the clock once a turn and passes events from owner to owner.
//!
//! Over 500 lines because each event and each result of another thread has its place here.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::json;

use super::alarms::Alarms;
use super::connections::{Connections, Event};
use super::decider::Decider;
use super::decision::{AfterCommit, Decision};
use super::enforcement::Enforcement;
use super::exemptions::PAUSE;
use super::held_acks::HeldAcks;
use super::settings::{Accepted, Reload};
use super::undecided_patterns::UndecidedPatterns;
use super::{commands, explain, restore, status};
use crate::alert::Severity;
use crate::config::JailName;
use crate::control::{
    Command, EngineStatus, FailingStatus, JailStatus, Known, Reply, Status, encode,
};
use crate::jail::{Moment, Now, canonical};
use crate::metrics::{self, Feed};
use crate::store::Saved;
use crate::sys;

const SECOND: Duration = Duration::from_secs(1);

const MINUTE: Duration = Duration::from_secs(60);

/// Between two texts of metrics.
const PUBLISH: Duration = Duration::from_secs(5);

/// Between two checks of the bans in the kernel; a third of a second, the third with [`SECOND`].
const CHECK_FIREWALL: Duration = Duration::from_millis(340);

pub(super) fn now() -> Now {
    Now {
        boot: Moment::from_boottime(sys::clock::boottime()),
        wall: Timestamp::now(),
    }
}

pub(super) struct Engine {
    pub(super) connections: Connections,
    pub(super) decider: Decider,
    pub(super) enforcement: Enforcement,
    pub(super) alarms: Alarms,
    pub(super) undecided: UndecidedPatterns,
    pub(super) accepted: Accepted,
    pub(super) held: HeldAcks,
    pub(super) reload: Reload,
    pub(super) queries: status::Queries,
    pub(super) metrics: Feed,
    pub(super) socket: PathBuf,
    pub(super) started: Now,
    pub(super) timers: Timers,
    pub(super) stopping: bool,
    /// The ports on which Apache listens, as far as known.
    pub(super) listening: BTreeSet<u16>,
}

/// When something is done next.
pub(super) struct Timers {
    second: Instant,
    minute: Instant,
    firewall: Instant,
    metrics: Instant,
}

impl Timers {
    pub(super) fn start() -> Timers {
        let now = Instant::now();
        Timers {
            second: now + SECOND,
            minute: now + MINUTE,
            firewall: now + CHECK_FIREWALL,
            metrics: now,
        }
    }

    /// Time until a timer is due, rounded up to milliseconds as epoll counts.
    fn wait(&self) -> Duration {
        let left = self.second.min(self.firewall);
        let left = left.saturating_duration_since(Instant::now());
        Duration::from_millis(left.as_millis() as u64 + 1)
    }
}

fn is_due(timer: &mut Instant, every: Duration, now: Instant) -> bool {
    let due = now >= *timer;
    if due {
        *timer = now + every;
    }
    due
}

impl Engine {
    /// Puts what an earlier engine stored back in force.
    /// `whole`: `saved` is all that there was; `lost`: there was more.
    pub(super) fn restore(&mut self, saved: Saved, whole: bool, lost: bool, now: Now) {
        let found = (!whole).then(|| self.enforcement.left_in_force(lost));
        let decision = restore::at_start(&mut self.decider, saved, found, now);
        self.enforcement.left(&decision.touched);
        self.perform(decision, Vec::new(), now);
        self.check(now);
    }

    /// Runs until a signal or a command ends it.
    pub(super) fn run(mut self) {
        while !self.stopping {
            let hold = self.enforcement.store_is_behind();
            let events = match self.connections.wait(hold, self.timers.wait()) {
                Ok(events) => events,
                Err(error) => {
                    let text = format!("epoll failed, the engine ends: {error}");
                    self.alarms.log(Severity::Err, &text);
                    break;
                }
            };
            let now = now();
            for event in events {
                self.handle(event, now);
            }
            self.turn(now);
        }
        self.finish();
    }

    fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Seen(clients) => {
                let decision = self.decider.confirm(clients, now);
                self.perform(decision, Vec::new(), now);
            }
            Event::Worker {
                connection,
                stream,
                bytes,
                apache,
            } => {
                self.decider.streams.limit(stream, bytes);
                // Before its first hit.
                self.decider.namings.apache(&apache);
                // What is decided but not committed may still be lost, and is to be sent again.
                let high_water = self.decider.streams.committed(stream);
                self.connections.welcome(connection, high_water);
                let clients: Vec<IpAddr> = self.decider.jails.unconfirmed(now).collect();
                self.connections.watch_for(Some(connection), &clients);
            }
            Event::Keeper { connection } => {
                self.connections.send(connection, &self.accepted.message());
            }
            Event::Command {
                connection,
                command,
            } => self.command(connection, command, now),
            Event::Hits {
                connection,
                stream,
                kind,
                hits,
            } => {
                let confirmable = self.connections.reads_access_log();
                let decided = self.decider.hits((stream, kind), &hits, confirmable, now);
                let acknowledge = decided.offset.map(|offset| AfterCommit::Ack {
                    connection,
                    stream,
                    offset,
                    log_lines: decided.log_lines,
                });
                self.perform(decided.decision, acknowledge.into_iter().collect(), now);
            }
            Event::Shared(addr) => self.decider.learn_shared(addr, now),
            Event::Undecided(patterns) => {
                for line in self.undecided.add(patterns, &self.accepted.config) {
                    self.alarms.log(Severity::Warning, &line);
                }
            }
            Event::Refused(text) => self.alarms.log_limited(Severity::Warning, &text),
            Event::Woken => self.committed(now),
            Event::Signal => self.stopping = true,
        }
    }

    fn perform(&mut self, mut decision: Decision, after: Vec<AfterCommit>, now: Now) {
        let unconfirmed = std::mem::take(&mut decision.unconfirmed);
        if !unconfirmed.is_empty() {
            self.decider.log_later(unconfirmed, now);
            let clients = self.decider.jails.take_unconfirmed();
            self.connections.watch_for(None, &clients);
        }
        let bans = self.decider.in_force();
        let outcome = self
            .enforcement
            .enforce(decision, bans, now, &mut self.alarms);
        self.enforcement.commit(outcome, after, now);
    }

    /// From a command to its answer, which follows the commit.
    fn command(&mut self, connection: u64, command: Command, now: Now) {
        let (decision, reply) = match command {
            Command::Status { jail, newest } => {
                return self.status(connection, jail.as_ref(), newest, now);
            }
            Command::StatusPage {
                jail,
                observed,
                after,
            } => {
                let query = (jail.as_ref(), observed, after);
                let page = status::page(&self.decider, &self.enforcement, query, now);
                return self.answer_when_checked(connection, page);
            }
            Command::Explain { net } => return self.explain(connection, &canonical(net), now),
            Command::Reload => {
                let waker = self.connections.waker();
                if let Err(error) = self.reload.begin(Some(connection), waker) {
                    let text = format!("cannot start a thread: {error}");
                    self.connections.refuse(connection, 2, &text);
                }
                return;
            }
            Command::Stop => {
                self.stopping = true;
                let text = "stopped; bans stay in force".to_owned();
                let reply = Reply::Done {
                    text,
                    json: Vec::new(),
                    yes: true,
                };
                (Decision::default(), reply)
            }
            command => commands::decide(&mut self.decider, command, now),
        };
        if let Reply::Bans { .. } = reply {
            return self.connections.answer(connection, &encode(&reply));
        }
        let bans = self.decider.in_force();
        let outcome = self
            .enforcement
            .enforce(decision, bans, now, &mut self.alarms);
        let reply = outcome.qualify(reply);
        let answer = AfterCommit::Answer { connection, reply };
        self.enforcement.commit(outcome, vec![answer], now);
        self.check(now);
    }

    /// The store has committed changes, or cannot.
    fn committed(&mut self, now: Now) {
        for group in self.enforcement.committed(&mut self.alarms) {
            if let Some(saved) = group.rewrite {
                let decision = restore::into_new_database(&mut self.decider, saved, now);
                self.perform(decision, Vec::new(), now);
            }
            if group.committed {
                for after in self.held.take() {
                    self.follow(after);
                }
            }
            for after in group.then {
                if group.committed {
                    self.follow(after);
                } else if let Some(answer) = self.held.hold(after) {
                    self.follow(answer);
                }
            }
        }
    }

    fn follow(&mut self, after: AfterCommit) {
        match after {
            AfterCommit::Ack {
                connection,
                stream,
                offset,
                log_lines,
            } => {
                self.decider.streams.commit(stream, offset);
                self.connections
                    .send(connection, &Reply::Ack { offset, log_lines });
            }
            AfterCommit::Answer { connection, reply } => {
                self.connections.answer(connection, &encode(&reply));
            }
        }
    }

    /// What is to be done in each turn, whatever happened.
    fn turn(&mut self, now: Now) {
        self.reloaded(now);
        while let Some(answer) = self.queries.next() {
            self.enforcement.report_check(&answer.queried);
            self.connections.answer(answer.connection, &answer.reply);
        }
        let connected = self.enforcement.report(&mut self.alarms);
        if !connected.is_empty() {
            let decision = self.decider.confirm(connected, now);
            self.perform(decision, Vec::new(), now);
        }
        let mut decision = self.decider.turn(now);
        let time = Instant::now();
        let each_second = is_due(&mut self.timers.second, SECOND, time);
        if each_second {
            self.decider.each_second(now, &mut decision);
            let mirrored = self.decider.has_ufw_rules();
            for line in self.enforcement.end_minutes(mirrored, now.boot) {
                self.alarms.log(Severity::Notice, &line);
            }
            if let Some(line) = self.connections.restore_file(&self.socket) {
                self.alarms.log(Severity::Warning, &line);
            }
            self.follow_apache();
            self.check(now);
            if self.metrics.is_on() && is_due(&mut self.timers.metrics, PUBLISH, time) {
                let query = (None, 0);
                let (jails, _) = status::jails(&mut self.decider, &self.enforcement, query, now);
                self.metrics
                    .publish(&metrics::text(&self.status_with(jails, Vec::new())));
            }
        }
        if each_second || time >= self.timers.firewall {
            self.enforcement.restore_removed();
            let any = self.decider.in_force().is_some_and(|bans| !bans.is_empty());
            let least = if any { CHECK_FIREWALL } else { SECOND };
            let pause = (time.elapsed() * PAUSE).clamp(least, SECOND);
            self.timers.firewall = Instant::now() + pause;
        }
        if is_due(&mut self.timers.minute, MINUTE, time) {
            self.decider.each_minute(now, &mut decision);
            self.check_broken_files();
        }
        if !decision.is_empty() {
            self.perform(decision, Vec::new(), now);
        }
    }

    /// Raises and clears alarms.
    fn check(&mut self, now: Now) {
        let checks = self.decider.checks(now).into_iter();
        let checks = checks.chain(self.enforcement.checks());
        let metrics = ("metrics", Severity::Warning, self.metrics.trouble());
        let checks = checks.chain(self.connections.checks());
        for check in checks.chain([metrics]) {
            self.alarms.set(check);
        }
    }

    /// Whether the broken configuration is correct by now.
    fn check_broken_files(&mut self) {
        if self.alarms.is_raised("config") {
            // The next minute tries again.
            let _ = self.reload.begin(None, self.connections.waker());
        }
    }

    /// Takes a configuration into use that was read, or answers why not.
    fn reloaded(&mut self, now: Now) {
        let Some((waiting, outcome)) = self.reload.outcome() else {
            return;
        };
        let accepted = match outcome {
            Ok(accepted) if waiting.is_empty() => {
                if accepted.hash == self.accepted.hash {
                    self.alarms.clear("config");
                } else {
                    let text = "the configuration has changed and is correct: run `pipeban reload`";
                    self.alarms
                        .raise("config", Severity::Warning, text.to_owned());
                }
                return;
            }
            Ok(accepted) => accepted,
            Err(_) if waiting.is_empty() => return,
            Err(problems) => {
                let text = format!(
                    "the configuration is broken, the old one stays in use: {}",
                    problems.replace('\n', "; ")
                );
                self.alarms.raise("config", Severity::Err, text);
                let text = format!("{problems}\nthe old configuration stays in use");
                for connection in waiting {
                    self.connections.refuse(connection, 78, &text);
                }
                return;
            }
        };
        let old = std::mem::replace(&mut self.accepted, accepted).config;
        let new = self.accepted.config.clone();
        self.alarms.clear("config");
        self.alarms.set(self.accepted.removed_settings());
        let unkept = self.accepted.keep().err();
        self.alarms.set(("last-good", Severity::Err, unkept));
        let (hash, jails) = (&self.accepted.hash, self.accepted.enabled_jails());
        let mut text = format!("configuration {hash} in use; enabled jails: {jails}");
        if old.paths != new.paths || old.firewall != new.firewall {
            let restart = format!(
                "[paths] and [firewall] have changed: restart the engine to take them into use \
                 (`{}`)",
                sys::systemd::commands().restart_engine
            );
            text = format!("{text}\n{restart}");
            self.alarms.raise("restart", Severity::Warning, restart);
        }
        self.alarms.configure(&new.syslog);
        self.alarms.log(Severity::Notice, &text);
        self.undecided.forget();
        self.metrics.configure(&new.metrics, &new.paths.user);
        self.enforcement.configure(new.clone());
        let decision = self.decider.configure(new);
        let json = vec![json!({"config": self.accepted.hash})];
        let reply = Reply::Done {
            text,
            json,
            yes: true,
        };
        let answers = waiting.into_iter().map(|connection| AfterCommit::Answer {
            connection,
            reply: reply.clone(),
        });
        self.perform(decision, answers.collect(), now);
        let message = self.accepted.message();
        self.connections.send_to_keepers(&message);
    }

    fn status(&mut self, connection: u64, jail: Option<&JailName>, newest: usize, now: Now) {
        if let Some(jail) = jail
            && !commands::is_known(&self.decider.jails, jail)
        {
            let text = commands::no_such_jail(&self.accepted.config, jail);
            return self.connections.refuse(connection, 1, &text);
        }
        self.check_broken_files();
        // An attack just before is shown.
        self.check(now);
        let newest = newest.min(status::MOST_CLIENTS);
        let query = (jail, newest);
        let (jails, keys) = status::jails(&mut self.decider, &self.enforcement, query, now);
        let failing = status::failing(&self.decider, jail, newest);
        let reply = Reply::Status(Box::new(self.status_with(jails, failing)));
        self.answer_when_checked(connection, status::Draft { reply, keys });
    }

    fn status_with(&self, jails: Vec<JailStatus>, failing: Vec<FailingStatus>) -> Status {
        Status {
            engine: self.engine_status(),
            workers: self.connections.workers(),
            jails,
            failing,
            warnings: self.warnings(),
        }
    }

    fn answer_when_checked(&mut self, connection: u64, draft: status::Draft) {
        let status::Draft { reply, keys } = draft;
        let database = self.accepted.config.paths.database();
        let (checker, waker) = (self.enforcement.checker(), self.connections.waker());
        let fill = move |reply: &mut Reply, mut checker| {
            status::fill(&mut checker, &database, reply, &keys)
        };
        let same = |reply| reply;
        let begun = (self.queries).begin(connection, (reply, checker), waker, fill, same);
        self.refuse_without_thread(connection, begun);
    }

    fn explain(&mut self, connection: u64, net: &IpNet, now: Now) {
        let host = (self.engine_status(), self.connections.workers());
        let (known, keys) = explain::known(&mut self.decider, &self.enforcement, host, net, now);
        let (checker, waker) = (self.enforcement.checker(), self.connections.waker());
        let fill =
            move |known: &mut Known, mut checker| explain::ask_firewall(known, &keys, &mut checker);
        let reply = |known| Reply::Known(Box::new(known));
        let begun = (self.queries).begin(connection, (known, checker), waker, fill, reply);
        self.refuse_without_thread(connection, begun);
    }

    fn engine_status(&self) -> EngineStatus {
        EngineStatus {
            pid: std::process::id(),
            since: self.started.wall,
            version: env!("CARGO_PKG_VERSION").into(),
            config: self.accepted.hash.clone(),
            backend: status::backends(&self.accepted.config),
            off: self.decider.stop.status().cloned(),
            apache_ports: self.apache_ports(),
        }
    }

    fn refuse_without_thread(&mut self, connection: u64, begun: io::Result<()>) {
        if let Err(error) = begun {
            let text = format!("cannot start a thread: {error}");
            self.connections.refuse(connection, 2, &text);
        }
    }

    /// For `status`; the emergency stop comes first, since it explains everything else.
    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.decider.stop.warning().into_iter().collect();
        warnings.extend(self.alarms.texts());
        let workers = self.connections.workers();
        if workers.is_empty() {
            warnings.push(
                "no worker is connected: Apache does not pipe a log to pipeban, or was not \
                 reloaded (`pipeban setup` shows what is missing)"
                    .into(),
            );
        }
        warnings.extend(self.undecided.warnings(&self.accepted.config));
        let unknown = self.decider.unknown_jails();
        if unknown > 0 {
            warnings.push(format!(
                "hits for jails that are not in the configuration: {unknown}"
            ));
        }
        warnings.extend(self.connections.warnings());
        warnings.extend(workers.iter().filter_map(status::overload));
        warnings.extend(workers.iter().filter_map(status::unconfined));
        warnings
    }

    fn finish(mut self) {
        self.metrics.end();
        let mut decision = Decision::default();
        self.decider.log_unconfirmed(None, &mut decision);
        self.perform(decision, Vec::new(), now());
        let text = "pipeban stops; bans stay in force";
        self.alarms.log(Severity::Notice, text);
        let mut connections = self.connections;
        self.enforcement.finish(&self.alarms, |after| {
            for after in after {
                if let AfterCommit::Answer { connection, reply } = after {
                    connections.answer(connection, &encode(&reply));
                }
            }
            connections.finish();
        });
        self.alarms.finish();
    }
}
