//! Hits to the engine: in stream order, numbered, kept until acknowledged, sent again after a
//! break.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};

use super::engine_link;
use super::matching::{Done, Matching};
use super::reading::Reading;
use super::ring::Ring;
use super::tell::Tell;
use crate::control::{
    Counters, LineHit, MAX_UNDECIDED, MAX_WORKER_MESSAGE, Reply, Request, SlowestFilter, Undecided,
    VERSION, WorkerHello,
};
use crate::filter::PatternAt;
use crate::jail::shared::Shared;
use crate::record::Kind;
use crate::sys::clock;

/// Hits that wait for their acknowledgement; more are given up and counted.
const MAX_UNACKNOWLEDGED: usize = 10_000;
/// Hits in one message; a message that is still too long is halved.
const MAX_BATCH: usize = 200;
/// An engine that takes nothing for this long is left and connected to again.
const SEND_PATIENCE: Duration = Duration::from_secs(2);
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
const COUNTERS_EVERY: Duration = Duration::from_secs(1);
/// At the end of input: how long the last hits wait for the engine.
pub(super) const LAST_PATIENCE: Duration = Duration::from_secs(10);
/// How long the last counters wait for an engine's welcome.
const LAST_WORD: Duration = Duration::from_secs(1);
/// What is kept for a rehearsal by hand.
const MAX_TOLD: usize = 20;
const MAX_TOLD_LINE: usize = 500;
/// Longest name of a filter, with its options, that is told with what it gave up on.
const LONGEST_FILTER: usize = 1000;
/// Shared addresses told to an engine at its welcome, ahead of hits; there may be a thousand
/// workers.
const MAX_SHARED_TOLD: usize = 1_000;
/// An engine's reply is not longer than this.
const MAX_REPLY: u64 = 1024 * 1024;

/// Who speaks.
#[derive(Debug, Clone)]
pub(super) struct Speaker {
    pub(super) socket: PathBuf,
    pub(super) kind: Kind,
    pub(super) path: Option<PathBuf>,
    /// Whose slowest filter is told.
    pub(super) matching: Arc<Matching>,
    /// Hash of the configuration that is matched with; the link keeps it up to date.
    pub(super) config: Arc<Mutex<Option<String>>>,
    pub(super) reading: Arc<Reading>,
}

/// What wakes the uplink besides results.
#[derive(Debug)]
pub(super) enum Wake {
    /// The configuration changed: say hello anew.
    Config,
    /// End of input: the last hits have [`LAST_PATIENCE`].
    End,
}

/// Runs until all results are in and acknowledged (or given up). Returns what the engine told of
/// the last hits.
pub(super) fn run(
    speaker: Speaker,
    ring: Ring,
    results: Receiver<Done>,
    wakes: Receiver<Wake>,
    tell: Tell,
) -> Vec<String> {
    let mut uplink = Uplink {
        speaker,
        ring,
        tell,
        queue: Queue::default(),
        order: Order::default(),
        line: None,
        retry: RETRY.0,
        connect_at: Some(Instant::now()),
        counters_sent: Counters::default(),
        counters_at: Instant::now(),
        reading_sent: 0,
        shared: Shared::new(),
        undecided: BTreeMap::new(),
        told: VecDeque::new(),
        refused: false,
    };
    uplink.serve(results, wakes);
    uplink.told.into()
}

struct Uplink {
    speaker: Speaker,
    ring: Ring,
    tell: Tell,
    queue: Queue,
    order: Order,
    line: Option<Line>,
    retry: Duration,
    connect_at: Option<Instant>,
    counters_sent: Counters,
    counters_at: Instant,
    reading_sent: u64,
    shared: Shared,
    /// Patterns that gave up on lines, not yet told to the engine; no more than the configuration
    /// has.
    undecided: BTreeMap<(String, PatternAt), u64>,
    told: VecDeque<String>,
    refused: bool,
}

/// A connection and the thread that reads from it.
struct Line {
    socket: UnixStream,
    replies: Receiver<Option<Reply>>,
    /// Hits are sent only after the engine's welcome.
    welcome: bool,
    /// The configuration named in the hello.
    config: Option<String>,
}

impl Drop for Line {
    fn drop(&mut self) {
        // Ends the reading thread.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Uplink {
    fn serve(&mut self, results: Receiver<Done>, wakes: Receiver<Wake>) {
        let (mut results, mut wakes) = (results, wakes);
        let mut complete = false;
        let mut end: Option<Instant> = None;
        let mut last_word: Option<Instant> = None;
        loop {
            if complete && self.queue.hits.is_empty() {
                self.send_counters();
                let until = *last_word.get_or_insert_with(|| Instant::now() + LAST_WORD);
                if !self.is_introducing_itself() || Instant::now() >= until {
                    return;
                }
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                self.give_up();
                return;
            }
            if complete && self.refused {
                return;
            }
            self.connect_when_due();
            self.send_hits();
            self.counters_when_due();
            let replies = self
                .line
                .as_ref()
                .map_or_else(never, |line| line.replies.clone());
            let next = [
                self.connect_at,
                self.line.as_ref().map(|_| self.counters_at),
                end,
                last_word,
            ];
            let timer = next.into_iter().flatten().min().map_or_else(never, |at| {
                after(at.saturating_duration_since(Instant::now()))
            });
            select! {
                recv(results) -> done => match done {
                    Ok(done) => {
                        self.take(done);
                        // What came meanwhile goes into the same message.
                        while let Ok(done) = results.try_recv() {
                            self.take(done);
                        }
                    }
                    Err(_) => {
                        complete = true;
                        results = never();
                    }
                },
                recv(replies) -> reply => match reply {
                    Ok(Some(reply)) => self.heard(reply),
                    Ok(None) | Err(_) => self.hang_up(),
                },
                recv(wakes) -> wake => match wake {
                    Ok(Wake::Config) => self.hello_again(),
                    Ok(Wake::End) => end = Some(Instant::now() + LAST_PATIENCE),
                    Err(_) => wakes = never(),
                },
                recv(timer) -> _ => {}
            }
        }
    }

    /// Whether there is an engine that is about to hear the counters.
    fn is_introducing_itself(&self) -> bool {
        match &self.line {
            Some(line) => !line.welcome,
            None => self.connect_at.is_some_and(|at| at <= Instant::now()),
        }
    }

    fn take(&mut self, done: Done) {
        let now = clock::boottime();
        for done in self.order.put(done) {
            for (filter, pattern, times) in done.limits {
                *self.undecided.entry((filter, pattern)).or_default() += times;
            }
            for (addr, agent) in &done.good {
                if self.shared.observe(*addr, *agent, now)
                    && self.line.as_ref().is_some_and(|line| line.welcome)
                {
                    self.send(&Request::Shared { addr: *addr });
                }
            }
            if done.hits.is_empty() {
                continue;
            }
            let unsent = self.queue.push(done.number, done.hits);
            if unsent > 0 {
                self.ring.not_sent(unsent);
                self.tell.trouble(
                    "unacknowledged",
                    "the engine does not answer: hits are being given up; \
                     `systemctl status pipeban` says why",
                );
            }
            if self
                .queue
                .hits
                .back()
                .is_none_or(|hit| hit.number != done.number)
            {
                self.ring.acknowledged(done.number);
            }
        }
    }

    fn heard(&mut self, reply: Reply) {
        match reply {
            Reply::Welcome {
                version,
                high_water,
            } => {
                if version != VERSION {
                    self.tell.trouble(
                        "version",
                        "the running engine is of another version: restart it \
                         (`systemctl restart pipeban`); lines are passed on",
                    );
                    self.hang_up();
                    return;
                }
                self.tell.over("version", "the engine understands us again");
                self.tell.over("refused", "the engine listens again");
                self.refused = false;
                self.retry = RETRY.0;
                if let Some(offset) = high_water {
                    self.acknowledged(offset);
                }
                self.queue.sent = 0;
                if let Some(line) = &mut self.line {
                    line.welcome = true;
                }
                // It may be another engine, which knows of no shared address: before any hit.
                let shared = self.shared.tell_again(clock::boottime(), MAX_SHARED_TOLD);
                for addr in shared {
                    self.send(&Request::Shared { addr });
                }
                self.counters_sent = Counters::default();
                self.reading_sent = 0;
                self.counters_at = Instant::now();
            }
            Reply::Ack { offset, told } => {
                for line in told {
                    self.keep_told(line);
                }
                self.acknowledged(offset);
                if self.queue.hits.is_empty() {
                    self.tell.over("unacknowledged", "the engine answers again");
                }
            }
            Reply::Refused { text, .. } => {
                self.tell
                    .trouble("refused", &format!("the engine refuses: {text}"));
                self.keep_told(format!("the engine refuses: {text}"));
                self.refused = true;
                self.retry = RETRY.1;
                self.hang_up();
            }
            Reply::Config { .. }
            | Reply::Done { .. }
            | Reply::Bans { .. }
            | Reply::Taken { .. }
            | Reply::Status(_) => self.hang_up(),
        }
    }

    fn keep_told(&mut self, mut line: String) {
        let cut = line.floor_char_boundary(MAX_TOLD_LINE);
        line.truncate(cut);
        self.told.push_back(line);
        if self.told.len() > MAX_TOLD {
            self.told.pop_front();
        }
    }

    fn acknowledged(&mut self, offset: u64) {
        for number in self.queue.acknowledged(offset) {
            self.ring.acknowledged(number);
        }
    }

    fn give_up(&mut self) {
        let waiting = self.queue.hits.len() as u64;
        self.ring.not_sent(waiting);
        self.keep_told(format!(
            "the engine did not answer within {} s: {waiting} hits are given up; \
             `pipeban status` says more",
            LAST_PATIENCE.as_secs()
        ));
    }

    fn connect_when_due(&mut self) {
        if self.connect_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        match self.connect() {
            Ok(line) => {
                self.line = Some(line);
                self.connect_at = None;
            }
            Err(_) => self.hang_up(),
        }
    }

    fn connect(&self) -> io::Result<Line> {
        let mut socket = engine_link::connect_now(&self.speaker.socket)?;
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(SEND_PATIENCE))?;
        let config = self.config();
        let hello = Request::Worker(WorkerHello {
            version: VERSION,
            stream: self.ring.stream(),
            pid: std::process::id(),
            kind: self.speaker.kind,
            path: self.speaker.path.clone(),
            config: config.clone(),
        });
        socket.write_all(&message(&hello))?;
        let (sender, replies) = bounded(64);
        let reading = socket.try_clone()?;
        std::thread::Builder::new()
            .name("replies".into())
            .spawn(move || listen(reading, &sender))?;
        Ok(Line {
            socket,
            replies,
            welcome: false,
            config,
        })
    }

    fn config(&self) -> Option<String> {
        self.speaker
            .config
            .lock()
            .map_or(None, |config| config.clone())
    }

    /// Leaves the connection; the next attempt comes later each time.
    fn hang_up(&mut self) {
        self.line = None;
        self.queue.sent = 0;
        self.connect_at = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    fn hello_again(&mut self) {
        let config = self.config();
        if self.line.as_ref().is_some_and(|line| line.config != config) {
            self.line = None;
            self.queue.sent = 0;
            self.connect_at = Some(Instant::now());
        }
    }

    fn send_hits(&mut self) {
        while self.line.as_ref().is_some_and(|line| line.welcome)
            && self.queue.sent < self.queue.hits.len()
        {
            let mut count = MAX_BATCH;
            let (text, count) = loop {
                let batch: Vec<LineHit> = self
                    .queue
                    .hits
                    .iter()
                    .skip(self.queue.sent)
                    .take(count)
                    .map(|waiting| waiting.hit.clone())
                    .collect();
                let len = batch.len();
                let text = message(&Request::Hits(batch));
                if text.len() <= MAX_WORKER_MESSAGE || len <= 1 {
                    break (text, len);
                }
                count = len / 2;
            };
            if self.send_text(&text) {
                self.queue.sent += count;
            }
        }
    }

    fn counters_when_due(&mut self) {
        if self.line.is_some() && Instant::now() >= self.counters_at {
            self.send_counters();
            self.counters_at = Instant::now() + COUNTERS_EVERY;
        }
    }

    fn send_counters(&mut self) {
        let counters = self.ring.counters();
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
            && let Some((version, reading)) = self.speaker.reading.after(self.reading_sent)
        {
            self.reading_sent = version;
            self.send(&Request::Reading(reading));
        }
        let mut undecided = Vec::new();
        while undecided.len() < MAX_UNDECIDED
            && let Some(((filter, pattern), times)) = self.undecided.pop_first()
        {
            // Options can make a name longer than a message may be; such a one is only counted.
            if filter.len() <= LONGEST_FILTER {
                undecided.push(Undecided {
                    filter,
                    pattern,
                    times,
                });
            }
        }
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

/// Results in the order of the stream.
#[derive(Debug, Default)]
struct Order {
    next: u64,
    early: BTreeMap<u64, Done>,
}

impl Order {
    /// All results that are due now that this one is there.
    fn put(&mut self, done: Done) -> Vec<Done> {
        self.early.insert(done.seq, done);
        let mut due = Vec::new();
        while let Some(done) = self.early.remove(&self.next) {
            self.next += 1;
            due.push(done);
        }
        due
    }
}

/// Hits that are not acknowledged, oldest first; the first `sent` of them are on their way.
#[derive(Debug, Default)]
struct Queue {
    hits: VecDeque<Waiting>,
    sent: usize,
}

#[derive(Debug)]
struct Waiting {
    hit: LineHit,
    /// Its block in the ring.
    number: u64,
}

impl Queue {
    /// Adds a block's hits; how many of them found no room.
    fn push(&mut self, number: u64, hits: Vec<LineHit>) -> u64 {
        let room = MAX_UNACKNOWLEDGED.saturating_sub(self.hits.len());
        let unsent = hits.len().saturating_sub(room);
        self.hits.extend(
            hits.into_iter()
                .take(room)
                .map(|hit| Waiting { hit, number }),
        );
        unsent as u64
    }

    /// Forgets hits up to and with this offset; the blocks of which no hit is left.
    fn acknowledged(&mut self, offset: u64) -> Vec<u64> {
        let mut blocks = Vec::new();
        while self
            .hits
            .front()
            .is_some_and(|first| first.hit.offset <= offset)
        {
            let Some(first) = self.hits.pop_front() else {
                break;
            };
            self.sent = self.sent.saturating_sub(1);
            if self
                .hits
                .front()
                .is_none_or(|next| next.number != first.number)
            {
                blocks.push(first.number);
            }
        }
        blocks
    }
}
