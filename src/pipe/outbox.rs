//! Results of matching, in the order of the stream: counted in the shared memory, their hits kept
//! until the engine acknowledges them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;
use ipnet::IpNet;

use super::layout::Progress;
use super::report::Report;
use super::view::View;
use super::watch::Watch;
use crate::control::LineHit;
use crate::filter::PatternAt;
use crate::jail::{Shared, household};
use crate::sys::clock;

/// Hits that wait for their acknowledgement, some 50 MB. Beyond it those that the engine has decided
/// about go first: only if it is killed, too, are they forgotten. Then new ones are dropped and counted.
const MAX_UNACKNOWLEDGED: usize = 100_000;
/// When more wait, evidence is cut to [`SHORT`] bytes, and of one client wait [`MAX_OF_ONE`] at most: a
/// client that floods displaces no other one.
const FEW: usize = 10_000;
const MAX_OF_ONE: u32 = 1_000;
const SHORT: usize = 100;
/// When so many lines have come and all are matched, the engine hears of it at once.
pub(super) const BURST: u64 = 10_000;
/// Shared addresses that wait to be sent.
const MAX_SHARED: usize = 1_000;

/// What wakes the uplink.
#[derive(Debug)]
pub(super) enum Wake {
    /// There are results.
    Results,
    /// The configuration changed: a new hello.
    Config,
    /// The keeper's connection to the engine, with the hash that its hello names; `None`: no
    /// engine can be reached.
    Engine(Option<(UnixStream, String)>),
    /// End of input: the last hits have [`super::uplink::LAST_PATIENCE`].
    End,
}

/// What came of the lines of one block.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    /// No parser read them.
    pub(super) unparsed: u64,
    /// Too long, or not to be trusted behind one that is.
    pub(super) torn: u64,
    /// Not matched.
    pub(super) shed: u64,
    /// Matched only with another address than the client's.
    pub(super) spoofed: u64,
    pub(super) hits: u64,
    pub(super) undecided: u64,
}

/// The result of one block.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) number: u64,
    /// Lines of the stream up to and with this block.
    pub(super) lines: u64,
    pub(super) tally: Tally,
    pub(super) hits: Vec<LineHit>,
    pub(super) good: Vec<(IpAddr, u64)>,
    /// Clients of access lines.
    pub(super) clients: Vec<IpAddr>,
    pub(super) limits: Vec<(String, PatternAt, u64)>,
}

/// Hits and other news for the engine.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) shared: Vec<IpAddr>,
    /// Clients that the engine asked for, and that have an access record.
    pub(super) seen: Vec<IpAddr>,
    pub(super) hits: Vec<LineHit>,
}

/// Shared by the match threads and the uplink.
#[derive(Debug)]
pub(super) struct Outbox {
    view: Arc<View>,
    state: Mutex<State>,
    waker: Sender<Wake>,
    report: Report,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    /// Results of later blocks than the next one.
    early: BTreeMap<u64, Done>,
    /// Hits with the number of their block, oldest first; the first `sent` of them are sent.
    hits: VecDeque<(u64, LineHit)>,
    sent: usize,
    waiting: Waiting,
    shared: Shared,
    to_share: Vec<IpAddr>,
    watch: Watch,
    /// How often patterns gave up on lines; no more patterns than the configuration has.
    undecided: BTreeMap<(String, PatternAt), u64>,
    /// The uplink has no timer: any result wakes it, not only hits.
    uplink_sleeps: bool,
    /// Lines that were matched when the end of a burst last woke it.
    burst: u64,
}

impl Outbox {
    pub(super) fn new(view: Arc<View>, waker: Sender<Wake>, report: Report) -> Outbox {
        let state = State {
            progress: view.progress(),
            early: BTreeMap::new(),
            hits: VecDeque::new(),
            sent: 0,
            waiting: Waiting::default(),
            shared: Shared::new(),
            to_share: Vec::new(),
            watch: Watch::default(),
            undecided: BTreeMap::new(),
            uplink_sleeps: false,
            burst: 0,
        };
        Outbox {
            view,
            state: Mutex::new(state),
            waker,
            report,
        }
    }

    /// Takes the result of a block, in any order.
    pub(super) fn put(&self, done: Done) {
        let mut state = self.lock();
        state.early.insert(done.number, done);
        let before = state.news();
        loop {
            let next = state.progress.done;
            let Some(done) = state.early.remove(&next) else {
                break;
            };
            self.take(&mut state, done);
        }
        state.settle(&self.view);
        let slept = std::mem::take(&mut state.uplink_sleeps);
        let (lines, done) = (state.progress.lines, state.progress.done);
        let burst = lines.saturating_sub(state.burst) >= BURST && !self.view.has(done);
        if burst {
            state.burst = lines;
        }
        if slept || burst || state.news() > before {
            // A full channel wakes it too.
            let _ = self.waker.try_send(Wake::Results);
        }
    }

    fn take(&self, state: &mut State, done: Done) {
        let now = clock::boottime();
        for (filter, pattern, times) in done.limits {
            *state.undecided.entry((filter, pattern)).or_default() += times;
        }
        for (addr, agent) in &done.good {
            if state.shared.observe(*addr, *agent, now) && state.to_share.len() < MAX_SHARED {
                state.to_share.push(*addr);
            }
        }
        state.watch.saw(&done.clients, now);
        let (tally, progress) = (done.tally, &mut state.progress);
        progress.done += 1;
        // A block that is matched again because its hits were not acknowledged counts once.
        if done.number >= progress.counted {
            progress.counted = progress.done;
            // Blocks that found no place in the table count here.
            let lines = done.lines.saturating_sub(progress.lines);
            let others = tally.unparsed + tally.torn + tally.shed;
            progress.lines += lines;
            progress.unparsed += tally.unparsed;
            progress.torn += tally.torn;
            progress.shed += tally.shed;
            progress.matched += lines.saturating_sub(others);
            progress.spoofed += tally.spoofed;
            progress.hits += tally.hits;
            progress.undecided += tally.undecided;
        }
        let mut unsent = 0;
        for mut hit in done.hits {
            if state.hits.len() >= MAX_UNACKNOWLEDGED && state.sent > 0 {
                state.pop();
                self.report.problem(
                    "unstored",
                    "the engine cannot store hits; it bans, but at its restart it forgets its \
                     counts: see `pipeban status`",
                );
            }
            let waiting = state.hits.len();
            let flood = waiting >= FEW && state.waiting.of(hit.client) >= MAX_OF_ONE;
            if flood || waiting >= MAX_UNACKNOWLEDGED {
                unsent += 1;
                continue;
            }
            if waiting >= FEW {
                let cut = hit.evidence.floor_char_boundary(SHORT);
                hit.evidence.truncate(cut);
                hit.evidence.shrink_to_fit();
            }
            state.waiting.add(hit.client);
            state.hits.push_back((done.number, hit));
        }
        if unsent > 0 {
            state.progress.unsent += unsent;
            self.report.problem(
                "unacknowledged",
                "the engine does not keep up or does not answer, and hits are lost: see `pipeban status` \
                 and `pipeban doctor`",
            );
        }
    }

    /// The next hits to send, at most `most`, and the shared addresses that go before them.
    pub(super) fn next(&self, most: usize) -> Batch {
        let mut state = self.lock();
        Batch {
            shared: std::mem::take(&mut state.to_share),
            seen: state.watch.take(),
            hits: state
                .hits
                .iter()
                .skip(state.sent)
                .take(most)
                .map(|(_, hit)| hit.clone())
                .collect(),
        }
    }

    /// The engine asks for access records of these clients.
    pub(super) fn watch(&self, clients: &[IpAddr]) {
        self.lock().watch.request(clients, clock::boottime());
    }

    /// The next so many hits are sent.
    pub(super) fn sent(&self, count: usize) {
        self.lock().sent += count;
    }

    /// The engine's connection broke: hits that are not acknowledged are sent again.
    pub(super) fn nothing_sent(&self) {
        self.lock().sent = 0;
    }

    /// A new engine: the addresses that are known to be shared.
    pub(super) fn shared_again(&self) -> Vec<IpAddr> {
        let mut state = self.lock();
        state.to_share.clear();
        state.shared.report_again(clock::boottime(), MAX_SHARED)
    }

    /// The engine has the hits up to and with this offset. True: none waits.
    pub(super) fn acknowledged(&self, offset: u64) -> bool {
        let mut state = self.lock();
        while state
            .hits
            .front()
            .is_some_and(|(_, hit)| hit.offset <= offset)
        {
            state.pop();
        }
        state.settle(&self.view);
        state.hits.is_empty()
    }

    /// Whether the uplink is about to sleep without a timer.
    pub(super) fn set_uplink_sleeps(&self, sleeps: bool) {
        self.lock().uplink_sleeps = sleeps;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().hits.is_empty()
    }

    /// Drops all hits. How many.
    pub(super) fn give_up(&self) -> usize {
        let mut state = self.lock();
        let dropped = state.hits.len();
        state.hits.clear();
        state.waiting = Waiting::default();
        state.sent = 0;
        state.progress.unsent += dropped as u64;
        state.settle(&self.view);
        dropped
    }

    /// How often patterns gave up, by pattern, at most so many.
    pub(super) fn take_undecided(&self, most: usize) -> Vec<((String, PatternAt), u64)> {
        let mut state = self.lock();
        let first = std::iter::from_fn(|| state.undecided.pop_first());
        first.take(most).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many hits of each household wait.
#[derive(Debug, Default)]
struct Waiting(HashMap<IpNet, u32>);

impl Waiting {
    fn of(&self, client: IpAddr) -> u32 {
        self.0.get(&household(client)).copied().unwrap_or(0)
    }

    fn add(&mut self, client: IpAddr) {
        *self.0.entry(household(client)).or_default() += 1;
    }

    fn remove(&mut self, client: IpAddr) {
        if let Entry::Occupied(mut waiting) = self.0.entry(household(client)) {
            *waiting.get_mut() -= 1;
            if *waiting.get() == 0 {
                waiting.remove();
            }
        }
    }
}

impl State {
    /// What is to be sent.
    fn news(&self) -> usize {
        self.hits.len() + self.to_share.len() + self.watch.found()
    }

    /// The oldest hit no longer waits.
    fn pop(&mut self) {
        if let Some((_, hit)) = self.hits.pop_front() {
            self.waiting.remove(hit.client);
            self.sent = self.sent.saturating_sub(1);
        }
    }

    fn settle(&mut self, view: &View) {
        let oldest = self.hits.front().map(|(block, _)| *block);
        self.progress.acked = oldest.unwrap_or(self.progress.done);
        view.set_progress(self.progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::ring::{Part, Ring};
    use crate::record::{ClientSource, Kind};
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn outbox() -> Outbox {
        with_memory().0
    }

    fn with_memory() -> (Outbox, Ring, crossbeam_channel::Receiver<Wake>) {
        let (ring, files) = Ring::new(1).unwrap();
        let view = Arc::new(View::map(&files, 0).unwrap());
        let (waker, wakes) = crossbeam_channel::bounded(1);
        let report = Report::without_file(Kind::Error, None);
        (Outbox::new(view, waker, report), ring, wakes)
    }

    fn put(outbox: &Outbox, number: u64, clients: impl Iterator<Item = IpAddr>) {
        let hits = clients
            .zip(number * 1_000_000..)
            .map(|(client, offset)| LineHit {
                offset,
                arrived: 0,
                client,
                peer: None,
                claim: None,
                vhost: None,
                source: ClientSource::Port,
                answered: false,
                jails: Vec::new(),
                config: String::new(),
                evidence: "x".repeat(300),
            });
        let hits = hits.collect();
        outbox.put(Done {
            number,
            hits,
            ..Done::default()
        });
    }

    fn waits(outbox: &Outbox, client: IpAddr) -> usize {
        let state = outbox.lock();
        state
            .hits
            .iter()
            .filter(|(_, hit)| hit.client == client)
            .count()
    }

    fn unsent(outbox: &Outbox) -> u64 {
        outbox.lock().progress.unsent
    }

    #[test]
    fn sixty_thousand_clients_wait_and_one_that_floods_displaces_none() {
        let outbox = outbox();
        let crowd = |from: u32, count| (from..from + count).map(|n| Ipv4Addr::from_bits(n).into());
        let flood: IpAddr = "203.0.113.9".parse().unwrap();
        let floods = (0..20_000u128).map(|n| Ipv6Addr::from_bits((0x2001_0db8 << 96) + n).into());
        put(&outbox, 0, crowd(1 << 24, 60_000));
        assert_eq!(unsent(&outbox), 0);
        put(&outbox, 1, std::iter::repeat_n(flood, 500_000));
        put(&outbox, 2, floods);
        assert_eq!(waits(&outbox, flood), 1_000);
        assert_eq!(unsent(&outbox), 499_000 + 19_000);
        put(&outbox, 3, crowd(2 << 24, 38_000));
        assert_eq!(outbox.lock().hits.len(), MAX_UNACKNOWLEDGED);
        assert_eq!(unsent(&outbox), 499_000 + 19_000);
        // Only now is one lost that does not flood; and none if the engine has decided about others.
        put(&outbox, 4, crowd(3 << 24, 1));
        assert_eq!(unsent(&outbox), 499_000 + 19_000 + 1);
        outbox.sent(1);
        put(&outbox, 5, crowd(3 << 24, 1));
        assert_eq!(unsent(&outbox), 499_000 + 19_000 + 1);
        let cut = |number: usize| outbox.lock().hits[number].1.evidence.len();
        assert_eq!((cut(0), cut(FEW)), (300, SHORT));
        // The engine has all of the flood.
        outbox.acknowledged(2_000_000);
        put(&outbox, 6, std::iter::once(flood));
        assert_eq!(waits(&outbox, flood), 1);
        outbox.acknowledged(u64::MAX);
        assert!(outbox.lock().waiting.0.is_empty());
    }

    #[test]
    fn the_end_of_a_burst_wakes_the_uplink_and_single_lines_do_not() {
        let (outbox, ring, wakes) = with_memory();
        let lines = "x\n".repeat(usize::try_from(BURST).unwrap() / 2);
        for _ in 0..3 {
            assert!(ring.take_in(lines.as_bytes(), 0, Part::Lines, false));
        }
        let matched = |number: u64, lines| {
            outbox.put(Done {
                number,
                lines,
                ..Done::default()
            });
            wakes.try_recv().is_ok()
        };
        assert!(!matched(0, BURST / 2));
        // Another block waits.
        assert!(!matched(1, BURST));
        assert!(matched(2, BURST / 2 * 3));
        assert!(ring.take_in(b"x\n", 0, Part::Lines, false));
        assert!(!matched(3, BURST / 2 * 3 + 1));
    }
}
