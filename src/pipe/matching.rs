//! Matching: blocks in, results out. Nothing is compiled before the first block: Apache starts every
//! logger twice, and the first one gets no line.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nix::unistd::Pid;

use super::family::Family;
use super::layout::{Kind as BlockKind, Preparing, lines_in};
use super::outbox::{Done, Outbox};
use super::reading::Reading;
use super::report::Report;
use super::view::{Block, View};
use crate::config::{self, Config};
use crate::control::LineHit;
use crate::filter::PatternAt;
use crate::filter::matcher::{BlockResult, InputKind, Matcher, Slowest, Vouch};
use crate::record::{Kind, Parser, display};
use crate::sys::clock;

/// Of longer lines only so much is matched. Apache writes lines of some 100 KB: it takes 8190 bytes
/// for the request and for each header, and logs a byte as up to four.
pub(crate) const MAX_LINE: usize = 128 * 1024;
/// Bytes of a line that go with a hit.
const EVIDENCE: usize = 300;
/// Bytes that are matched before the keeper sees progress.
const STEP: usize = 32 * 1024;

/// Examines blocks of whole lines: [`Matcher`], or a test's.
pub(super) trait Examine: Send + Sync {
    fn examine(&self, block: &[u8]) -> BlockResult;
    /// See [`Matcher::examine_beginning`].
    fn examine_beginning(&self, _line: &[u8]) -> BlockResult {
        BlockResult::default()
    }
    /// See [`Matcher::take_limits`].
    fn take_limits(&self) -> Vec<(String, PatternAt, u64)>;

    /// What reads the lines.
    fn parser(&self) -> Option<&Parser> {
        None
    }

    /// The filter that takes most of the time, if that is known.
    fn slowest(&self) -> Option<Slowest> {
        None
    }
}

impl Examine for Matcher {
    fn examine(&self, block: &[u8]) -> BlockResult {
        Matcher::examine(self, block)
    }

    fn examine_beginning(&self, line: &[u8]) -> BlockResult {
        Matcher::examine_beginning(self, line)
    }

    fn parser(&self) -> Option<&Parser> {
        Matcher::parser(self)
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

/// Compiles the live path's matcher. `apache`: the main process whose children write the log.
pub(super) fn compiler(kind: Kind, format: Option<String>, apache: Option<Pid>) -> Arc<Compile> {
    Arc::new(move |text| {
        let config: Config =
            serde_json::from_slice(text).map_err(|e| format!("the configuration: {e}"))?;
        let format = format.as_deref();
        let parser = Parser::new(kind, format.ok_or("the command line is wrong")?)?;
        let vouch = apache.and_then(Family::of);
        let vouch = vouch.map(|family| Arc::new(family) as Arc<dyn Vouch>);
        let rules = config::rules(&config, kind);
        let words = config.search_engines.iter().map(|e| e.name.as_str());
        let matcher = Matcher::new(&rules, InputKind::Apache(kind, parser))
            .with_vouch(vouch)
            .with_claims(words);
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

/// Shared by the link, the match threads and the uplink.
pub(super) struct Matching {
    mode: Mutex<Mode>,
    changed: Condvar,
    compile: Arc<Compile>,
    view: Arc<View>,
    outbox: Arc<Outbox>,
    reading: Reading,
    report: Report,
}

impl std::fmt::Debug for Matching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matching").finish_non_exhaustive()
    }
}

impl Matching {
    pub(super) fn new(
        compile: Arc<Compile>,
        view: Arc<View>,
        outbox: Arc<Outbox>,
        report: Report,
    ) -> Arc<Matching> {
        Arc::new(Matching {
            mode: Mutex::new(Mode::Awaiting),
            changed: Condvar::new(),
            compile,
            view,
            outbox,
            reading: Reading::new(report.clone()),
            report,
        })
    }

    /// How lines are read.
    pub(super) fn reading(&self) -> &Reading {
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
        self.set(next);
    }

    /// Only pass lines from now on.
    pub(super) fn off(&self) {
        self.set(Mode::Off);
    }

    /// Whether lines are matched, or will be.
    pub(super) fn is_on(&self) -> bool {
        !matches!(*self.lock(), Mode::Off | Mode::Awaiting)
    }

    fn set(&self, mode: Mode) {
        let mut current = self.lock();
        *current = mode;
        self.note_mode(&current);
    }

    /// The keeper gives a worker that prepares more time.
    fn note_mode(&self, mode: &Mode) {
        self.view.set_preparing(match mode {
            Mode::Off => Preparing::Nothing,
            Mode::Active(_) => Preparing::FirstLines,
            Mode::Awaiting | Mode::Ready(_) | Mode::Compiling => Preparing::Filters,
        });
        self.changed.notify_all();
    }

    /// What to match with, compiled when it is first needed; `None`: lines are not matched.
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
                        *mode = compiled.map_or(Mode::Off, Mode::Active);
                    }
                    self.note_mode(&mode);
                }
            }
        }
    }

    fn compiled(&self, config: &ConfigText) -> Option<Arc<Active>> {
        match (self.compile)(&config.text) {
            Ok(examine) => {
                self.report.over("compile", "lines are matched again");
                if let Some(parser) = examine.parser() {
                    self.reading.begins(parser.chosen(), parser.doubt());
                }
                Some(Arc::new(Active {
                    hash: config.hash.clone(),
                    examine,
                }))
            }
            Err(error) => {
                self.report.problem(
                    "compile",
                    &format!(
                        "lines are passed through and not matched, no client is banned: {error}"
                    ),
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

    /// Everything that a match thread does with one block.
    pub(super) fn work(&self, thread: usize, block: Block) {
        let mut done = Done {
            number: block.number,
            lines: block.lines,
            ..Done::default()
        };
        let active = match block.kind {
            BlockKind::Lines | BlockKind::Beginning => self.active(),
            _ => None,
        };
        let lines = block.lines - block.lines_before;
        let own = match block.kind {
            BlockKind::Beginning => 0,
            _ => lines_in(&block.bytes),
        };
        let matched = active.is_some();
        match (active, block.kind) {
            (Some(active), BlockKind::Beginning) => {
                self.view.set_in_hand(thread, Some(block.number));
                self.examine_long(&active, &block, 0..block.bytes.len(), &mut done);
                self.view.set_in_hand(thread, None);
                done.tally.shed += lines;
            }
            (Some(active), _) => {
                self.view.set_in_hand(thread, Some(block.number));
                self.examine(&active, &block, &mut done);
                self.view.set_in_hand(thread, None);
                // Blocks that found no place in the table.
                done.tally.shed += lines.saturating_sub(own);
            }
            (None, BlockKind::Torn) => done.tally.torn = lines,
            (None, _) => done.tally.shed = lines,
        }
        if block.kind == BlockKind::Shed {
            self.report_shed();
        }
        self.outbox.put(done);
        match matched {
            true => self.view.set_preparing(Preparing::Nothing),
            false => self.view.beat(),
        }
    }

    fn examine(&self, active: &Active, block: &Block, done: &mut Done) {
        // The lines that it was given to match, not those of the stream, are numbered in reports.
        let mut before = block.lines_before;
        for run in matchable(&block.bytes) {
            let run = match run {
                Ok(run) => run,
                Err(line) => {
                    self.examine_long(active, block, line, done);
                    done.tally.torn += 1;
                    before += 1;
                    continue;
                }
            };
            let bytes = block.bytes.get(run.clone()).unwrap_or_default();
            let result = active.examine.examine(bytes);
            if let Some(unread) = &result.unread {
                let line = bytes.get(unread.line.clone()).unwrap_or_default();
                self.reading
                    .could_not_read(before + unread.number + 1, line, unread.why);
            }
            before += result.lines;
            done.tally.unparsed += result.unparsed;
            done.tally.torn += result.torn;
            self.take(active, block, run, result, done);
        }
        if let Some(format) = active.examine.parser().and_then(Parser::chosen) {
            self.reading.decided(format);
        }
        done.limits = active.examine.take_limits();
        done.tally.undecided = done.limits.iter().map(|(_, _, times)| times).sum();
    }

    /// Matches what there is of a line that is too long.
    fn examine_long(&self, active: &Active, block: &Block, line: Range<usize>, done: &mut Done) {
        let most = line.end.min(line.start + MAX_LINE);
        let bytes = block.bytes.get(line.start..most).unwrap_or_default();
        let result = active.examine.examine_beginning(bytes);
        self.take(active, block, line.start..most, result, done);
        self.report.problem(
            "long-line",
            &format!(
                "a line is longer than {} KiB: filters see only its beginning, and only of access \
                 lines; log fewer headers, or lower Apache's `LimitRequestFieldSize`",
                MAX_LINE / 1024
            ),
        );
    }

    /// Takes what came of these bytes of the block.
    fn take(
        &self,
        active: &Active,
        block: &Block,
        run: Range<usize>,
        result: BlockResult,
        done: &mut Done,
    ) {
        let bytes = block.bytes.get(run.clone()).unwrap_or_default();
        done.tally.spoofed += result.spoofed;
        done.tally.hits += result.hits.iter().filter(|hit| hit.counts()).count() as u64;
        done.good.extend(result.good);
        done.clients.extend(result.clients);
        done.hits.extend(result.hits.into_iter().map(|hit| LineHit {
            offset: block.start + (run.start + hit.line.start) as u64,
            arrived: block.arrived,
            client: hit.client,
            peer: hit.peer,
            vhost: hit.vhost,
            source: hit.source,
            answered: hit.answered,
            claim: hit.claim,
            jails: hit.jails,
            config: active.hash.clone(),
            evidence: display(bytes.get(hit.line).unwrap_or_default(), EVIDENCE),
        }));
        self.view.beat();
    }

    fn report_shed(&self) {
        let slowest = self.slowest().map_or(String::new(), |slowest| {
            format!(
                "; filter `{}` takes {} % of the time, {} ns a line",
                slowest.filter, slowest.share, slowest.nanos
            )
        });
        self.report.problem(
            "shed",
            &format!(
                "matching is too slow: some lines are passed through and not matched; `pipeban \
                 status` counts them as shed{slowest}"
            ),
        );
    }
}

/// Runs of lines to match, in order, of [`STEP`] bytes or one line; `Err` for each line that is too
/// long, with its newline.
fn matchable(block: &[u8]) -> Vec<Result<Range<usize>, Range<usize>>> {
    let mut runs = Vec::new();
    let (mut run, mut line) = (0, 0);
    let ends = memchr::memchr_iter(b'\n', block).map(|at| at + 1);
    let last = (!block.is_empty() && !block.ends_with(b"\n")).then_some(block.len());
    for end in ends.chain(last) {
        let newline = usize::from(block.get(end - 1) == Some(&b'\n'));
        let too_long = end - line - newline > MAX_LINE;
        if run < line && (too_long || end - run > STEP) {
            runs.push(Ok(run..line));
            run = line;
        }
        if too_long {
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
