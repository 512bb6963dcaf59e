//! The worker's connection to the engine: sends hits in stream order, and again after a break until
//! they are acknowledged; and counters.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};

use super::link;
use super::matching::Matching;
use super::outbox::{BURST, Batch, Outbox, Wake};
use super::report::Report;
use super::view::View;
use crate::control::{
    Counters, MAX_UNDECIDED, MAX_WATCHED, MAX_WORKER_MESSAGE, Reply, Request, SlowestFilter,
    Undecided, VERSION,
};
use crate::sys::sandbox::Confined;

/// Hits in one message; a message that is still too long is halved.
const MAX_BATCH: usize = 200;
/// A connection on which nothing can be sent for this long is closed and opened again.
pub(super) const SEND_PATIENCE: Duration = Duration::from_secs(2);
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
const COUNTERS_EVERY: Duration = Duration::from_secs(1);
/// At the end of input: how long the last hits wait for the engine.
pub(super) const LAST_PATIENCE: Duration = Duration::from_secs(10);
/// How long the last counters wait for an engine's welcome.
const LAST_COUNTERS: Duration = Duration::from_secs(1);
/// The engine's last answers, kept for a start by hand.
const MAX_ANSWERS: usize = 20;
const MAX_ANSWER: usize = 500;
/// Filters with a longer name, options included, are not named to the engine.
const LONGEST_FILTER: usize = 1000;
const MAX_REPLY: u64 = 1024 * 1024;

/// What the uplink speaks for.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    /// To the keeper, which opens the connections: a worker can make no socket.
    pub(super) link: Arc<OwnedFd>,
    pub(super) confined: Confined,
    pub(super) matching: Arc<Matching>,
    /// Hash of the configuration in use; the link keeps it up to date.
    pub(super) config: Arc<Mutex<Option<String>>>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) view: Arc<View>,
    pub(super) report: Report,
}

/// Runs until the end of input and until all hits are acknowledged, or given up. Returns the
/// engine's last answers.
pub(super) fn run(speaker: Speaker, wakes: Receiver<Wake>) -> Vec<String> {
    let mut uplink = Uplink {
        speaker,
        line: None,
        requested: false,
        retry: RETRY.0,
        connect_at: Some(Instant::now()),
        counters_sent: Counters::default(),
        counters_at: Instant::now(),
        reading_sent: 0,
        answers: VecDeque::new(),
        refused: false,
    };
    uplink.serve(&wakes);
    uplink.answers.into()
}

struct Uplink {
    speaker: Speaker,
    line: Option<Line>,
    /// The keeper has not answered the request for a connection.
    requested: bool,
    retry: Duration,
    connect_at: Option<Instant>,
    counters_sent: Counters,
    counters_at: Instant,
    reading_sent: u64,
    answers: VecDeque<String>,
    refused: bool,
}

/// A connection and the thread that reads from it.
struct Line {
    socket: UnixStream,
    replies: Receiver<Option<Reply>>,
    /// Hits are sent only after the engine's welcome.
    welcome: bool,
    /// The configuration named in the keeper's hello.
    config: Option<String>,
}

impl Line {
    fn over(socket: UnixStream, config: String) -> io::Result<Line> {
        let (sender, replies) = bounded(64);
        let reading = socket.try_clone()?;
        std::thread::Builder::new()
            .name("replies".into())
            .spawn(move || listen(reading, &sender))?;
        Ok(Line {
            socket,
            replies,
            welcome: false,
            config: (!config.is_empty()).then_some(config),
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Ends the reading thread.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Uplink {
    fn serve(&mut self, wakes: &Receiver<Wake>) {
        let mut end: Option<Instant> = None;
        let mut last_counters: Option<Instant> = None;
        loop {
            if let Some(end) = end {
                if self.speaker.outbox.is_empty() {
                    self.send_counters();
                    let until =
                        *last_counters.get_or_insert_with(|| Instant::now() + LAST_COUNTERS);
                    if !self.is_connecting() || Instant::now() >= until {
                        return;
                    }
                }
                if Instant::now() >= end {
                    self.give_up();
                    return;
                }
                if self.refused {
                    return;
                }
            }
            self.request_when_due();
            self.send_hits();
            self.counters_when_due();
            let replies = self
                .line
                .as_ref()
                .map_or_else(never, |line| line.replies.clone());
            // Counters that cannot change without a result need no timer.
            self.speaker.outbox.set_uplink_sleeps(true);
            let counters = self.line.as_ref().filter(|_| self.has_news());
            if counters.is_some() {
                self.speaker.outbox.set_uplink_sleeps(false);
            }
            let next = [
                self.connect_at,
                counters.map(|_| self.counters_at),
                end,
                last_counters,
            ];
            let timer = next.into_iter().flatten().min().map_or_else(never, |at| {
                after(at.saturating_duration_since(Instant::now()))
            });
            select! {
                recv(replies) -> reply => match reply {
                    Ok(Some(reply)) => self.heard(reply),
                    Ok(None) | Err(_) => self.hang_up(),
                },
                recv(wakes) -> wake => match wake {
                    Ok(Wake::Results) => {}
                    Ok(Wake::Config) => self.hello_again(),
                    Ok(Wake::Engine(engine)) => self.connected(engine),
                    Ok(Wake::End) | Err(_) => {
                        end.get_or_insert_with(|| Instant::now() + LAST_PATIENCE);
                    }
                },
                recv(timer) -> _ => {}
            }
        }
    }

    /// Whether an engine is about to welcome this worker.
    fn is_connecting(&self) -> bool {
        match &self.line {
            Some(line) => !line.welcome,
            None => self.requested || self.connect_at.is_some_and(|at| at <= Instant::now()),
        }
    }

    fn heard(&mut self, reply: Reply) {
        match reply {
            Reply::Welcome {
                version,
                high_water,
            } => {
                if version != VERSION {
                    self.speaker.report.problem(
                        "version",
                        "the running engine has another version: restart it (`pipeban \
                         doctor` shows the command); lines are passed through, no client is banned",
                    );
                    self.hang_up();
                    return;
                }
                self.speaker
                    .report
                    .over("version", "the engine has the same version again");
                self.speaker
                    .report
                    .over("refused", "the engine accepts this worker again");
                self.refused = false;
                self.retry = RETRY.0;
                if let Some(offset) = high_water {
                    self.speaker.outbox.acknowledged(offset);
                }
                self.speaker.outbox.nothing_sent();
                if let Some(line) = &mut self.line {
                    line.welcome = true;
                }
                self.send(&Request::Confined(self.speaker.confined.clone()));
                // A new engine knows of no shared address, and must before any hit.
                for addr in self.speaker.outbox.shared_again() {
                    self.send(&Request::Shared { addr });
                }
                self.counters_sent = Counters::default();
                self.reading_sent = 0;
                self.counters_at = Instant::now();
            }
            Reply::Ack { offset, log_lines } => {
                for line in log_lines {
                    self.keep_answer(line);
                }
                if self.speaker.outbox.acknowledged(offset) {
                    self.speaker
                        .report
                        .over("unacknowledged", "the engine answers again");
                    self.speaker
                        .report
                        .over("unstored", "the engine stores hits again");
                }
            }
            Reply::Watch { clients } => self.speaker.outbox.watch(&clients),
            Reply::Refused { text, .. } => {
                self.speaker
                    .report
                    .problem("refused", &format!("the engine refuses: {text}"));
                self.keep_answer(format!("the engine refuses: {text}"));
                self.refused = true;
                self.retry = RETRY.1;
                self.hang_up();
            }
            Reply::Config { .. }
            | Reply::Done { .. }
            | Reply::Bans { .. }
            | Reply::Taken { .. }
            | Reply::Status(_)
            | Reply::StatusPage { .. }
            | Reply::Known(_) => self.hang_up(),
        }
    }

    fn keep_answer(&mut self, mut line: String) {
        let cut = line.floor_char_boundary(MAX_ANSWER);
        line.truncate(cut);
        self.answers.push_back(line);
        if self.answers.len() > MAX_ANSWERS {
            self.answers.pop_front();
        }
    }

    fn give_up(&mut self) {
        let dropped = self.speaker.outbox.give_up();
        self.keep_answer(format!(
            "the engine did not answer within {} s: {dropped} hits are lost; see `pipeban status`",
            LAST_PATIENCE.as_secs()
        ));
    }

    /// Requests a connection from the keeper; again later, in case no answer comes.
    fn request_when_due(&mut self) {
        if self.connect_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.requested = link::request_engine(&self.speaker.link).is_ok();
        self.connect_at = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    /// The keeper's answer.
    fn connected(&mut self, engine: Option<(UnixStream, String)>) {
        self.requested = false;
        let line = engine.and_then(|(socket, hash)| Line::over(socket, hash).ok());
        if line.is_some() {
            self.line = line;
            self.speaker.outbox.nothing_sent();
            self.connect_at = None;
        }
    }

    fn config(&self) -> Option<String> {
        self.speaker
            .config
            .lock()
            .map_or(None, |config| config.clone())
    }

    /// Closes the connection; each next attempt comes later.
    fn hang_up(&mut self) {
        self.line = None;
        self.speaker.outbox.nothing_sent();
        self.connect_at = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    fn hello_again(&mut self) {
        let config = self.config();
        if self.line.as_ref().is_some_and(|line| line.config != config) {
            self.line = None;
            self.speaker.outbox.nothing_sent();
            self.connect_at = Some(Instant::now());
        }
    }

    fn send_hits(&mut self) {
        while self.line.as_ref().is_some_and(|line| line.welcome) {
            let Batch {
                shared,
                seen,
                mut hits,
            } = self.speaker.outbox.next(MAX_BATCH);
            for some in seen.chunks(MAX_WATCHED) {
                let clients = some.to_vec();
                self.send(&Request::Seen { clients });
            }
            for addr in shared {
                self.send(&Request::Shared { addr });
            }
            if hits.is_empty() {
                return;
            }
            let (text, count) = loop {
                let count = hits.len();
                let text = message(&Request::Hits(hits.clone()));
                if text.len() <= MAX_WORKER_MESSAGE || count <= 1 {
                    break (text, count);
                }
                hits.truncate(count / 2);
            };
            if self.send_text(&text) {
                self.speaker.outbox.sent(count);
            }
        }
    }

    fn counters_when_due(&mut self) {
        if self.line.is_none() || !self.has_news() {
            return;
        }
        let counters = self.counters();
        let burst = counters.lines.saturating_sub(self.counters_sent.lines) >= BURST;
        if Instant::now() >= self.counters_at || (burst && counters.pending == 0) {
            self.send_counters();
            self.counters_at = Instant::now() + COUNTERS_EVERY;
        }
    }

    fn counters(&self) -> Counters {
        self.speaker.view.counters(self.speaker.matching.is_on())
    }

    fn has_news(&self) -> bool {
        let counters = self.counters();
        let reading = self.speaker.matching.reading();
        counters != self.counters_sent
            || counters.waiting + counters.pending > 0
            || reading.after(self.reading_sent).is_some()
    }

    fn send_counters(&mut self) {
        let counters = self.counters();
        if !self.line.as_ref().is_some_and(|line| line.welcome) {
            return;
        }
        if counters != self.counters_sent {
            self.counters_sent = counters;
            self.send(&Request::Counters(counters));
            if let Some(slowest) = self.speaker.matching.slowest()
                && slowest.filter.len() <= LONGEST_FILTER
            {
                self.send(&Request::Slowest(SlowestFilter {
                    filter: slowest.filter,
                    share: slowest.share,
                    nanos: slowest.nanos,
                }));
            }
        }
        if self.line.as_ref().is_some_and(|line| line.welcome)
            && let Some((version, reading)) =
                self.speaker.matching.reading().after(self.reading_sent)
        {
            self.reading_sent = version;
            self.send(&Request::Reading(reading));
        }
        let undecided: Vec<Undecided> = self
            .speaker
            .outbox
            .take_undecided(MAX_UNDECIDED)
            .into_iter()
            .filter(|((filter, _), _)| filter.len() <= LONGEST_FILTER)
            .map(|((filter, pattern), times)| Undecided {
                filter,
                pattern,
                times,
            })
            .collect();
        if !undecided.is_empty() {
            self.send(&Request::Undecided(undecided));
        }
    }

    fn send(&mut self, request: &Request) {
        self.send_text(&message(request));
    }

    /// False where there is no connection any more.
    fn send_text(&mut self, text: &[u8]) -> bool {
        let Some(line) = &mut self.line else {
            return false;
        };
        let sent = line.socket.write_all(text).is_ok();
        if !sent {
            self.hang_up();
        }
        sent
    }
}

/// One request as it goes over the socket.
fn message(request: &Request) -> Vec<u8> {
    // Serializing these types cannot fail: no map keys but strings, no foreign code.
    let mut text = serde_json::to_vec(request).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Hands on replies until the connection ends, then `None`.
fn listen(socket: UnixStream, replies: &Sender<Option<Reply>>) {
    let mut socket = BufReader::new(socket);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = (&mut socket).take(MAX_REPLY).read_until(b'\n', &mut text);
        let reply = match read {
            Ok(n) if n > 0 => serde_json::from_slice(&text).ok(),
            Ok(_) | Err(_) => None,
        };
        let over = reply.is_none();
        if replies.send(reply).is_err() || over {
            return;
        }
    }
}
