//! Match threads: blocks in, hits out. Nothing is compiled before the first block comes: Apache
//! starts every logger twice, and the first one sees none.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::unistd::Pid;

use super::Log;
use super::family::Family;
use super::reader::lines_in;
use super::reading::Reading;
use super::ring::{Counter, Job, Ring, Tally};
use super::tell::Tell;
use crate::config::Config;
use crate::control::LineHit;
use crate::filter::PatternAt;
use crate::filter::matcher::{BlockResult, Matcher};
use crate::filter::{Slowest, Vouch};
use crate::record::{Parser, display};
use crate::sys::clock;

/// Longer lines are passed, not matched.
pub(super) const MAX_LINE: usize = 64 * 1024;
/// Bytes of a line that go with a hit.
const EVIDENCE: usize = 300;
/// Blocks that wait for match threads; the ring holds no more.
const MAX_JOBS: usize = 8192;
/// Results that wait for the uplink; beyond that match threads wait, and the ring fills.
const MAX_RESULTS: usize = 1024;

/// Examines blocks of whole lines. Implemented by [`Matcher`]; tests bring their own.
pub(super) trait Examine: Send + Sync {
    fn examine(&self, block: &[u8]) -> BlockResult;
    /// See [`Matcher::take_limits`].
    fn take_limits(&self) -> Vec<(String, PatternAt, u64)>;

    /// What reads the lines, where it can be told.
    fn parser(&self) -> Option<&Parser> {
        None
    }

    /// The filter that takes most of the time, where that is known.
    fn slowest(&self) -> Option<Slowest> {
        None
    }
}

impl Examine for Matcher {
    fn examine(&self, block: &[u8]) -> BlockResult {
        Matcher::examine(self, block)
    }

    fn parser(&self) -> Option<&Parser> {
        Some(Matcher::parser(self))
    }

    fn slowest(&self) -> Option<Slowest> {
        Matcher::slowest(self)
    }

    fn take_limits(&self) -> Vec<(String, PatternAt, u64)> {
        Matcher::take_limits(self)
    }
}

/// Compiles the JSON of a configuration.
pub(super) type Compile = dyn Fn(&[u8]) -> Result<Arc<dyn Examine>, String> + Send + Sync;

/// What the live path matches with. `apache`: the main process whose children write the log.
pub(super) fn compiler(log: &Log, apache: Option<Pid>) -> Arc<Compile> {
    let (kind, format) = (log.kind, log.format.clone());
    Arc::new(move |text| {
        let config: Config =
            serde_json::from_slice(text).map_err(|e| format!("the configuration: {e}"))?;
        let format = format.as_deref();
        let parser = Parser::new(kind, format.ok_or("its arguments are not understood")?)?;
        let vouch = apache.and_then(Family::of);
        let vouch = vouch.map(|family| Arc::new(family) as Arc<dyn Vouch>);
        let matcher = Matcher::new(&config, kind, parser).with_vouch(vouch);
        Ok(Arc::new(matcher.with_clock(nanos)))
    })
}

fn nanos() -> u64 {
    u64::try_from(clock::boottime().as_nanos()).unwrap_or(u64::MAX)
}

/// A configuration as the keeper hands it over.
#[derive(Debug, Clone)]
pub(super) struct ConfigText {
    pub(super) hash: String,
    pub(super) text: Arc<Vec<u8>>,
}

enum Mode {
    /// The configuration is on its way; blocks wait.
    Awaiting,
    /// Here, to be compiled when the first block comes.
    Ready(ConfigText),
    /// One thread compiles.
    Compiling,
    Active(Arc<Active>),
    /// Lines are only passed.
    Off,
}

struct Active {
    hash: String,
    examine: Arc<dyn Examine>,
}

/// What came of one block.
#[derive(Debug)]
pub(super) struct Done {
    /// Blocks are numbered as they were handed to the match threads.
    pub(super) seq: u64,
    /// The block's number in the ring.
    pub(super) number: u64,
    pub(super) hits: Vec<LineHit>,
    pub(super) good: Vec<(std::net::IpAddr, u64)>,
    pub(super) limits: Vec<(String, PatternAt, u64)>,
}

/// Shared by reader, link and match threads.
pub(super) struct Matching {
    mode: Mutex<Mode>,
    changed: Condvar,
    compile: Arc<Compile>,
    ring: Ring,
    reading: Arc<Reading>,
    tell: Tell,
}

impl std::fmt::Debug for Matching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matching").finish_non_exhaustive()
    }
}

impl Matching {
    pub(super) fn new(compile: Arc<Compile>, ring: Ring, tell: Tell) -> Arc<Matching> {
        Arc::new(Matching {
            mode: Mutex::new(Mode::Awaiting),
            changed: Condvar::new(),
            compile,
            ring,
            reading: Arc::new(Reading::new(tell.clone())),
            tell,
        })
    }

    /// How lines are read.
    pub(super) fn reading(&self) -> &Arc<Reading> {
        &self.reading
    }

    /// Match with this from now on. Where something is matched with already the new one is
    /// compiled first, here; where it does not compile, the old one stays.
    pub(super) fn configure(&self, config: ConfigText) {
        let replaces = matches!(*self.lock(), Mode::Active(_) | Mode::Compiling);
        let next = if !replaces {
            Mode::Ready(config)
        } else {
            match self.compiled(&config) {
                Some(active) => Mode::Active(active),
                None => return,
            }
        };
        *self.lock() = next;
        self.ring.set(Counter::Matching, 1);
        self.changed.notify_all();
    }

    /// Only pass lines from now on.
    pub(super) fn off(&self) {
        *self.lock() = Mode::Off;
        self.ring.set(Counter::Matching, 0);
        self.changed.notify_all();
    }

    fn is_off(&self) -> bool {
        matches!(*self.lock(), Mode::Off)
    }

    /// What to match with, compiled when it is first asked for; `None`: only pass lines.
    fn active(&self) -> Option<Arc<Active>> {
        let mut mode = self.lock();
        loop {
            match &*mode {
                Mode::Active(active) => return Some(Arc::clone(active)),
                Mode::Off => return None,
                Mode::Awaiting | Mode::Compiling => {
                    mode = self
                        .changed
                        .wait(mode)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                Mode::Ready(config) => {
                    let config = config.clone();
                    *mode = Mode::Compiling;
                    drop(mode);
                    let compiled = self.compiled(&config);
                    mode = self.lock();
                    // Another configuration may have come meanwhile: that one stays.
                    if matches!(*mode, Mode::Compiling) {
                        *mode = match compiled {
                            Some(active) => Mode::Active(active),
                            None => {
                                self.ring.set(Counter::Matching, 0);
                                Mode::Off
                            }
                        };
                    }
                    self.changed.notify_all();
                }
            }
        }
    }

    fn compiled(&self, config: &ConfigText) -> Option<Arc<Active>> {
        match (self.compile)(&config.text) {
            Ok(examine) => {
                self.tell.over("compile", "lines are matched again");
                if let Some(parser) = examine.parser() {
                    self.reading.begins(parser.chosen(), parser.doubt());
                }
                Some(Arc::new(Active {
                    hash: config.hash.clone(),
                    examine,
                }))
            }
            Err(error) => {
                self.tell.trouble(
                    "compile",
                    &format!("lines are only passed on, nobody is banned: {error}"),
                );
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The filter that takes most of the time, where lines are matched and that is known.
    pub(super) fn slowest(&self) -> Option<Slowest> {
        match &*self.lock() {
            Mode::Active(active) => active.examine.slowest(),
            _ => None,
        }
    }

    /// Everything a match thread does with one block; so many lines came before it.
    fn work(&self, job: Job, seq: u64, before: u64) -> Done {
        let mut done = Done {
            seq,
            number: job.number,
            hits: Vec::new(),
            good: Vec::new(),
            limits: Vec::new(),
        };
        let lines = lines_in(&job.bytes);
        let mut tally = Tally {
            lines,
            ..Tally::default()
        };
        let Some(active) = self.active() else {
            tally.shed = lines;
            drop(job.bytes);
            self.ring.matched(job.number, tally, false);
            return done;
        };
        self.ring.attempt(job.number);
        let mut before = before;
        for run in matchable(&job.bytes) {
            let Some(bytes) = run.as_ref().ok().and_then(|run| job.bytes.get(run.clone())) else {
                tally.torn += 1;
                before += 1;
                continue;
            };
            let offset = run.map_or(0, |run| run.start);
            let result = active.examine.examine(bytes);
            if let Some(unread) = &result.unread {
                let line = bytes.get(unread.line.clone()).unwrap_or_default();
                self.reading
                    .could_not_read(before + unread.number + 1, line, unread.why);
            }
            before += result.lines;
            tally.unparsed += result.unparsed;
            tally.torn += result.torn;
            tally.spoofed += result.spoofed;
            tally.hits += result.hits.len() as u64;
            done.good.extend(result.good);
            done.hits.extend(result.hits.into_iter().map(|hit| LineHit {
                offset: job.start + (offset + hit.line.start) as u64,
                arrived: job.arrived,
                client: hit.client,
                peer: hit.peer,
                jails: hit.jails,
                config: active.hash.clone(),
                evidence: display(bytes.get(hit.line).unwrap_or_default(), EVIDENCE),
            }));
        }
        if let Some(format) = active.examine.parser().and_then(Parser::chosen) {
            self.reading.decided(format);
        }
        done.limits = active.examine.take_limits();
        for (_, _, times) in &done.limits {
            self.ring.count(Counter::Undecided, *times);
        }
        // The bytes are given back before the block is: its place may be used at once.
        drop(job.bytes);
        self.ring.matched(job.number, tally, !done.hits.is_empty());
        done
    }
}

/// Runs of lines that may be matched, in order; `Err` for each line that is too long.
fn matchable(block: &[u8]) -> Vec<Result<Range<usize>, Range<usize>>> {
    if block.len() <= MAX_LINE {
        return vec![Ok(0..block.len())];
    }
    let mut runs = Vec::new();
    let (mut run, mut line) = (0, 0);
    let ends = memchr::memchr_iter(b'\n', block).map(|at| at + 1);
    let last = (!block.ends_with(b"\n")).then_some(block.len());
    for end in ends.chain(last) {
        let newline = usize::from(block.get(end - 1) == Some(&b'\n'));
        if end - line - newline > MAX_LINE {
            if run < line {
                runs.push(Ok(run..line));
            }
            runs.push(Err(line..end));
            run = end;
        }
        line = end;
    }
    if run < line {
        runs.push(Ok(run..line));
    }
    runs
}

/// The reader's end: blocks to match threads, which it starts when the first block comes.
#[derive(Debug)]
pub(super) struct Feed {
    matching: Arc<Matching>,
    jobs: Option<Sender<(u64, u64, Job)>>,
    results: Option<Sender<Done>>,
    next: u64,
    /// Lines of the blocks so far.
    lines: u64,
}

impl Feed {
    /// The feed, and where results come out: in any order, each block exactly once.
    pub(super) fn new(matching: Arc<Matching>) -> (Feed, Receiver<Done>) {
        let (sender, receiver) = bounded(MAX_RESULTS);
        let feed = Feed {
            matching,
            jobs: None,
            results: Some(sender),
            next: 0,
            lines: 0,
        };
        (feed, receiver)
    }

    /// False: lines are only passed.
    pub(super) fn wants_blocks(&self) -> bool {
        self.results.is_some() && !self.matching.is_off()
    }

    /// Hands a published block to the match threads.
    pub(super) fn send(&mut self, job: Job) {
        if self.jobs.is_none() {
            self.start();
        }
        let Some(jobs) = &self.jobs else {
            return;
        };
        // The ring holds no more blocks than the channel, so this never waits.
        let before = self.lines;
        self.lines += lines_in(&job.bytes);
        match jobs.try_send((self.next, before, job)) {
            Ok(()) => self.next += 1,
            Err(refused) => {
                let (_, _, job) = refused.into_inner();
                let lines = lines_in(&job.bytes);
                drop(job.bytes);
                let shed = lines;
                let tally = Tally {
                    lines,
                    shed,
                    ..Tally::default()
                };
                self.matching.ring.matched(job.number, tally, false);
                self.tell_of_shed();
            }
        }
    }

    /// Tells that lines are not matched because matching is behind.
    pub(super) fn tell_of_shed(&self) {
        let slowest = self.matching.slowest().map_or(String::new(), |slowest| {
            format!(
                "; filter `{}` takes {} % of the time, {} ns a line",
                slowest.filter, slowest.share, slowest.nanos
            )
        });
        self.matching.tell.trouble(
            "shed",
            &format!(
                "more lines than can be matched: some are passed on without; `pipeban status` \
                 counts them as shed{slowest}"
            ),
        );
    }

    /// Tells of a block that ended two workers.
    pub(super) fn poisoned(&self, start: u64, lines: u64) {
        self.matching.tell.event(&format!(
            "matching crashed twice on {lines} lines at offset {start} of the stream: they are \
             not matched"
        ));
    }

    /// No more blocks: match threads end when they have done what waits.
    pub(super) fn close(&mut self) {
        self.jobs = None;
        self.results = None;
    }

    fn start(&mut self) {
        let Some(results) = &self.results else {
            return;
        };
        let (sender, receiver) = bounded::<(u64, u64, Job)>(MAX_JOBS);
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(2));
        for _ in 0..threads {
            let (jobs, results) = (receiver.clone(), results.clone());
            let matching = Arc::clone(&self.matching);
            let started = std::thread::Builder::new()
                .name("match".into())
                .spawn(move || {
                    for (seq, before, job) in jobs {
                        if results.send(matching.work(job, seq, before)).is_err() {
                            return;
                        }
                    }
                });
            if let Err(error) = started {
                self.matching
                    .tell
                    .trouble("threads", &format!("no thread to match in: {error}"));
            }
        }
        // Without any thread the receiver goes here, and every block is shed.
        self.jobs = Some(sender);
    }
}
