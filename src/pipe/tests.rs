//! The threads of keeper and worker in this process, over real pipes, with the test's matcher and
//! engine.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::Shutdown;
use proptest::prelude::*;

use super::engine_link;
use super::layout::{Books, Files, Preparing, RING_BYTES};
use super::link::{self, FromWorker};
use super::logfile::LogFile;
use super::matching::{Compile, Examine, MAX_LINE};
use super::names::Names;
use super::output::{Output, Streams, To};
use super::reader::{PrivatePipe, Reader};
use super::report::Report;
use super::ring::Ring;
use super::view::View;
use super::wake::Wakes;
use super::worker::Worker;
use super::writer::Writer;
use crate::control::{Counters, LineHit, Reply, Request, Undecided, WorkerHello};
use crate::filter::PatternAt;
use crate::filter::matcher::{BlockResult, Hit};
use crate::record::{ClientSource, Kind};
use crate::sys::sandbox::Confined;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

/// Hits every line that begins with "bad"; notes every line it saw.
#[derive(Debug, Default, Clone)]
struct Bad {
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Lines that begin with "hard", which its second pattern gave up on, not yet taken.
    hard: Arc<Mutex<u64>>,
}

impl Examine for Bad {
    fn examine(&self, block: &[u8]) -> BlockResult {
        let mut result = BlockResult::default();
        let mut start = 0;
        for line in block.split_inclusive(|b| *b == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            if text.starts_with(b"bad") {
                result.hits.push(Hit {
                    line: start..start + text.len(),
                    client: CLIENT,
                    peer: None,
                    vhost: None,
                    answered: false,
                    source: ClientSource::Port,
                    claim: None,
                    jails: vec![("test".to_owned().try_into().unwrap(), 1, 1)],
                });
            }
            *self.hard.lock().unwrap() += u64::from(text.starts_with(b"hard"));
            start += line.len();
            self.seen.lock().unwrap().push(text.to_vec());
            result.lines += 1;
        }
        result
    }

    fn take_limits(&self) -> Vec<(String, PatternAt, u64)> {
        let seen = std::mem::take(&mut *self.hard.lock().unwrap());
        (seen > 0)
            .then(|| ("f".to_owned(), PatternAt::Fail(2), seen))
            .into_iter()
            .collect()
    }
}

/// Reader, writer and worker in threads.
struct Rig {
    input: Option<File>,
    ring: Ring,
    files: Files,
    view: View,
    writer: Arc<Writer>,
    link: OwnedFd,
    /// Hash of the configuration that the worker has.
    config: Arc<Mutex<String>>,
    /// What the worker says at its end.
    answers: Receiver<Vec<u8>>,
    reader: Option<std::thread::JoinHandle<std::io::Result<()>>>,
    worker: Option<std::thread::JoinHandle<std::io::Result<()>>>,
    seen: Bad,
}

impl Rig {
    /// Lines go to `out` in the directory.
    fn start(dir: &Path) -> Rig {
        let to = To::File(Names::new(&dir.join("out")));
        Rig::with(dir, to, Streams::default())
    }

    fn with(dir: &Path, to: To, streams: Streams) -> Rig {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        fcntl(&read, FcntlArg::F_SETPIPE_SZ(1024 * 1024)).unwrap();
        let (ring, files) = Ring::new(42).unwrap();
        let report = || Report::without_file(Kind::Error, None);
        let output = Output {
            to,
            link: None,
            mode: 0o600,
            user: None,
            group: None,
            syslog: None,
        };
        let log = LogFile::new(output, streams, report());
        let writer = Writer::start(ring.clone(), Some(log), report()).unwrap();
        let wakes = Arc::new(Wakes::new().unwrap());
        let (link, theirs) = link::pair().unwrap();
        let seen = Bad::default();
        let examine = seen.clone();
        let compile: Arc<Compile> = Arc::new(move |_| Ok(Arc::new(examine.clone())));
        let number = ring.begin_worker();
        let config = Arc::new(Mutex::new(String::new()));
        let keeper = link.try_clone().unwrap();
        let answers = keep(keeper, dir.join("engine.sock"), Arc::clone(&config));
        let worker = Worker {
            threads: 2,
            confined: Confined::default(),
            view: Arc::new(View::map(&files, number).unwrap()),
            wake: wakes.worker_fd().try_clone_to_owned().unwrap(),
            link: Arc::new(theirs),
            compile,
            report: report(),
            keeper_gone: Box::new(|| {}),
        };
        let reader = Reader {
            pipe: read,
            private: PrivatePipe::new().unwrap(),
            ring: ring.clone(),
            writer: Arc::clone(&writer),
            wakes,
        };
        Rig {
            input: Some(write.into()),
            view: View::map(&files, number).unwrap(),
            ring,
            files,
            writer,
            link,
            config,
            answers,
            reader: Some(std::thread::spawn(move || reader.run())),
            worker: Some(std::thread::spawn(move || worker.work(true))),
            seen,
        }
    }

    fn configure(&self) {
        *self.config.lock().unwrap() = "h1".to_owned();
        let memory = link::sealed(b"{}").unwrap();
        link::send_config(&self.link, "h1", &memory).unwrap();
    }

    fn write(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn books(&self) -> Books {
        self.ring.books()
    }

    fn counters(&self) -> Counters {
        self.view.counters(true)
    }

    /// Closes the pipe; everything is written.
    fn end_reader(&mut self) {
        self.input = None;
        self.reader.take().unwrap().join().unwrap().unwrap();
        self.writer.finish(Duration::from_secs(10));
    }

    fn end_worker(&mut self) {
        link::send_end(&self.link).unwrap();
        self.worker.take().unwrap().join().unwrap().unwrap();
    }

    fn end(&mut self) {
        self.end_reader();
        self.end_worker();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Ends the threads at both ends.
        let _ = nix::sys::socket::shutdown(self.link.as_raw_fd(), Shutdown::Both);
    }
}

/// The keeper's part of the link, without its bounds.
fn keep(link: OwnedFd, engine: PathBuf, config: Arc<Mutex<String>>) -> Receiver<Vec<u8>> {
    let (sender, answers) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(Some(message)) = link::receive_from_worker(&link) {
            match message {
                FromWorker::Connect => {
                    let hash = config.lock().unwrap().clone();
                    let hello = WorkerHello {
                        version: crate::control::VERSION,
                        stream: 42,
                        pid: std::process::id(),
                        kind: Kind::Error,
                        path: None,
                        config: (!hash.is_empty()).then(|| hash.clone()),
                        apache: Vec::new(),
                        bytes: None,
                    };
                    let connection = engine_link::connect_worker(&engine, hello).ok();
                    let _ = link::send_engine(&link, connection.as_ref(), &hash);
                }
                FromWorker::Answers(lines) => {
                    let _ = sender.send(lines);
                }
                FromWorker::Report(..) => {}
            }
        }
    });
    answers
}

/// An engine that speaks the protocol and does what the test says.
struct Engine {
    listener: UnixListener,
}

struct Line {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Engine {
    fn start(dir: &Path) -> Engine {
        let listener = UnixListener::bind(dir.join("engine.sock")).unwrap();
        Engine { listener }
    }

    /// Takes the worker's connection and welcomes it.
    fn accept(&self, high_water: Option<u64>) -> Line {
        loop {
            let (writer, _) = self.listener.accept().unwrap();
            let mut line = Line {
                reader: BufReader::new(writer.try_clone().unwrap()),
                writer,
            };
            // A worker says hello again when its configuration comes: the first may end at once.
            match line.request() {
                Some(Request::Worker(hello)) if hello.config.is_some() => {
                    assert_eq!((hello.stream, hello.kind), (42, Kind::Error));
                    line.say(&Reply::Welcome {
                        version: crate::control::VERSION,
                        high_water,
                    });
                    return line;
                }
                _ => {}
            }
        }
    }
}

impl Line {
    fn request(&mut self) -> Option<Request> {
        let mut text = String::new();
        let read = self.reader.read_line(&mut text).unwrap_or(0);
        (read > 0).then(|| serde_json::from_str(&text).unwrap())
    }

    fn say(&mut self, reply: &Reply) {
        let mut text = serde_json::to_vec(reply).unwrap();
        text.push(b'\n');
        self.writer.write_all(&text).unwrap();
    }

    /// The next `n` hits.
    fn hits(&mut self, n: usize) -> Vec<LineHit> {
        let mut hits = Vec::new();
        while hits.len() < n {
            match self.request().expect("the worker has hung up") {
                Request::Hits(more) => hits.extend(more),
                Request::Counters(_) | Request::Confined(_) => {}
                other => panic!("{other:?}"),
            }
        }
        hits
    }

    fn ack(&mut self, offset: u64) {
        self.say(&Reply::Ack {
            offset,
            log_lines: vec![format!("answer {offset}")],
        });
    }
}

fn thousand_lines() -> Vec<u8> {
    [b"x".repeat(99), b"\n".to_vec()].concat().repeat(1000)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn output_is_input_and_each_whole_line_is_seen_once(
        writes in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..400), 0..12),
        long in proptest::option::of((0usize..200_000, 0usize..12)),
        pause in proptest::option::of(0usize..12),
    ) {
        let mut writes = writes;
        if let Some((len, at)) = long {
            let at = at.min(writes.len());
            writes.insert(at, vec![b'x'; len]);
        }
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut rig = Rig::start(dir.path());
        rig.configure();
        for (i, part) in writes.iter().enumerate() {
            rig.write(part);
            if pause == Some(i) {
                std::thread::sleep(Duration::from_millis(3));
            }
        }
        rig.end();
        let input = writes.concat();
        prop_assert!(std::fs::read(&out).unwrap_or_default() == input);
        let counters = rig.counters();
        prop_assert_eq!(counters.bytes, input.len() as u64);
        prop_assert_eq!(counters.written, input.len() as u64);
        prop_assert_eq!((counters.lost, counters.shed), (0, 0));

        let mut expected: Vec<&[u8]> = input.split(|b| *b == b'\n').collect();
        if expected.last().is_some_and(|rest| rest.is_empty()) {
            expected.pop();
        }
        prop_assert_eq!(counters.lines, expected.len() as u64);
        let too_long = expected.iter().filter(|line| line.len() > MAX_LINE).count();
        prop_assert_eq!(counters.torn, too_long as u64);
        prop_assert_eq!(counters.matched + counters.torn, counters.lines);
        prop_assert_eq!(counters.lines_written, counters.lines);
        expected.retain(|line| line.len() <= MAX_LINE);
        expected.sort();
        let mut seen = rig.seen.seen.lock().unwrap().clone();
        seen.sort();
        prop_assert!(seen == expected);
    }
}

#[test]
fn hits_come_in_stream_order_with_evidence_and_are_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let mut rig = Rig::start(dir.path());
    rig.configure();
    let mut line = engine.accept(None);
    rig.write(b"good\nbad \x1b\xff\n\nbad 2");
    let first = line.hits(1);
    assert_eq!((first[0].offset, first[0].client), (5, CLIENT));
    assert_eq!(first[0].evidence, "bad \\x1b\\xff");
    assert_eq!(first[0].config, "h1");
    let now = crate::sys::clock::boottime().as_nanos() as u64;
    assert!(first[0].arrived <= now && now - first[0].arrived < 60_000_000_000);
    rig.write(b"\nbad 3");
    assert_eq!(line.hits(1)[0].offset, 13);
    line.ack(13);
    // The last line has no newline; it is matched when the input ends.
    rig.end_reader();
    assert_eq!(line.hits(1)[0].offset, 19);
    line.ack(19);
    rig.end_worker();
    let answers = rig.answers.recv().unwrap();
    assert_eq!(answers, b"answer 13\nanswer 19\n");
    let progress = rig.view.progress();
    assert_eq!((progress.done, progress.acked), (3, 3));
}

#[test]
fn unacknowledged_hits_are_sent_again_after_a_break_and_known_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let mut rig = Rig::start(dir.path());
    rig.configure();
    let mut line = engine.accept(None);
    rig.write(b"bad 1\nbad 2\nbad 3\n");
    let offsets = |hits: Vec<LineHit>| hits.iter().map(|hit| hit.offset).collect::<Vec<_>>();
    assert_eq!(offsets(line.hits(3)), [0, 6, 12]);
    line.ack(0);
    // The engine dies before it acknowledges the rest; it has committed the second.
    drop(line);
    let mut line = engine.accept(Some(6));
    assert_eq!(offsets(line.hits(1)), [12]);
    rig.write(b"bad 4\n");
    assert_eq!(offsets(line.hits(1)), [18]);
    line.ack(18);
    rig.end();
}

#[test]
fn blocks_wait_for_a_configuration_that_comes_late() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut rig = Rig::start(dir.path());
    rig.write(b"one\ntwo\n");
    eventually("passed before any configuration", || {
        std::fs::read(&out).unwrap_or_default() == b"one\ntwo\n"
    });
    assert!(rig.seen.seen.lock().unwrap().is_empty());
    rig.configure();
    eventually("matched", || rig.seen.seen.lock().unwrap().len() == 2);
    rig.end();
}

#[test]
fn a_log_file_that_cannot_be_opened_at_first_gets_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let mut rig = Rig::start(dir.path());
    rig.configure();
    let mut expected = Vec::new();
    for i in 0..20_000 {
        let line = format!("line {i}\n");
        rig.write(line.as_bytes());
        expected.extend_from_slice(line.as_bytes());
    }
    // All of it has left the pipe and is matched, though nothing is written.
    eventually("matched", || rig.counters().matched == 20_000);
    std::fs::remove_dir(&out).unwrap();
    rig.end();
    assert_eq!(std::fs::read(&out).unwrap(), expected);
    assert_eq!(rig.counters().lost, 0);
}

#[test]
fn a_write_that_hangs_never_stops_the_reader_and_what_is_lost_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    // Like a frozen file system: a pipe that is not read.
    let (stuck, output) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    let mut rig = Rig::with(dir.path(), To::Stdout, Streams::from_stdout(output));
    rig.configure();
    let block = thousand_lines();
    let total = 200 * block.len() as u64;
    for _ in 0..200 {
        rig.write(&block);
    }
    eventually("read", || rig.books().bytes == total);
    let lost = rig.books().lost;
    assert!(lost > 0 && lost < total, "{lost}");
    // It returns: everything that is not lost arrives.
    let reading = std::thread::spawn(move || {
        let mut got = vec![0; (total - lost) as usize];
        File::from(stuck).read_exact(&mut got).unwrap();
    });
    rig.end();
    reading.join().unwrap();
    assert_eq!(rig.books().lost, lost);
}

#[test]
fn matching_that_hangs_never_stops_the_reader_and_what_is_shed_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    rig.configure();
    let held = rig.seen.seen.clone();
    let guard = held.lock().unwrap();
    let block = thousand_lines();
    let blocks = 4 * RING_BYTES / block.len();
    for _ in 0..blocks {
        rig.write(&block);
    }
    eventually("written", || {
        rig.counters().written == (blocks * block.len()) as u64
    });
    assert_eq!(rig.counters().pending, rig.counters().lines);
    drop(guard);
    rig.end();
    assert!(rig.counters().shed > 0);
    let seen = rig.seen.seen.lock().unwrap().len() as u64;
    assert_eq!(seen + rig.counters().shed, rig.counters().lines);
}

#[test]
fn a_burst_for_a_worker_that_has_matched_nothing_yet_waits_for_its_first_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    rig.configure();
    let held = rig.seen.seen.clone();
    let guard = held.lock().unwrap();
    let block = thousand_lines();
    let blocks = RING_BYTES * 3 / 2 / block.len();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..blocks).for_each(|_| rig.write(&block)));
        // As long as it takes to compile filters.
        std::thread::sleep(Duration::from_millis(100));
        drop(guard);
    });
    rig.end();
    let counters = rig.counters();
    assert_eq!((counters.shed, counters.matched), (0, counters.lines));
}

#[test]
fn a_worker_that_pretends_to_prepare_and_to_match_does_not_hold_up_reading() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    rig.configure();
    let held = rig.seen.seen.clone();
    let guard = held.lock().unwrap();
    let pretends = View::map(&rig.files, rig.books().workers).unwrap();
    let over = AtomicBool::new(false);
    let block = thousand_lines();
    let blocks = RING_BYTES * 3 / block.len();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for prepares in [Preparing::Filters, Preparing::Nothing] {
                    pretends.set_preparing(prepares);
                    std::thread::sleep(Duration::from_micros(300));
                }
            }
        });
        (0..blocks).for_each(|_| rig.write(&block));
        eventually("written", || {
            rig.counters().written == (blocks * block.len()) as u64
        });
        over.store(true, Ordering::Relaxed);
    });
    drop(guard);
    rig.end();
}

#[test]
fn a_worker_that_starts_again_matches_what_is_not_acknowledged_and_counts_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    rig.configure();
    rig.write(b"good\nbad 1\n");
    eventually("matched", || rig.counters().matched == 2);
    let progress = rig.view.progress();
    assert_eq!((progress.done, progress.acked, progress.hits), (1, 0, 1));
    let number = rig.ring.begin_worker();
    let next = View::map(&rig.files, number).unwrap().progress();
    assert_eq!((next.done, next.counted), (0, 1));
    rig.end_reader();
}

#[test]
fn what_patterns_gave_up_on_is_counted_and_sent_with_its_pattern() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(dir.path());
    let mut rig = Rig::start(dir.path());
    rig.configure();
    let mut line = engine.accept(None);
    rig.write("hard\n".repeat(1000).as_bytes());
    rig.write(b"good\n");
    rig.end();
    let (mut received, mut messages) = (0, 0);
    while let Some(request) = line.request() {
        if let Request::Undecided(patterns) = request {
            messages += 1;
            for Undecided {
                filter,
                pattern,
                times,
            } in patterns
            {
                assert_eq!((filter.as_str(), pattern), ("f", PatternAt::Fail(2)));
                received += times;
            }
        }
    }
    assert_eq!(received, 1000);
    assert!((1..10).contains(&messages), "{messages}");
    assert_eq!(rig.counters().undecided, 1000);
}

/// By `make bench`.
#[cfg(feature = "measure")]
mod measure {
    use super::*;

    /// Not a test of speed, which a shared machine would spoil: prints what it measured.
    #[test]
    fn latency_from_the_pipe_to_the_engine() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(dir.path());
        let mut rig = Rig::start(dir.path());
        rig.configure();
        let mut line = engine.accept(None);
        let mut samples = Vec::new();
        for i in 0..51 {
            std::thread::sleep(Duration::from_millis(5));
            let written = Instant::now();
            rig.write(format!("bad {i}\n").as_bytes());
            let hit = line.hits(1);
            samples.push(written.elapsed());
            line.ack(hit[0].offset);
        }
        // The first one compiled the matcher.
        samples.remove(0);
        samples.sort();
        eprintln!(
            "pipe to engine, 50 samples: median {:?}, 90 % {:?}, worst {:?}",
            samples[25], samples[45], samples[49]
        );
        rig.end();
    }
}
