//! What comes in is what goes out: the worker's counters at any moment, as an engine hears them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use pipeban::control::{Counters, Reply, Request, VERSION};

use super::{Logger, eventually, is_alive, line};
use crate::support::{skip, skip_without};

/// An engine that welcomes every worker and notes its counters.
fn hear(listener: UnixListener) -> Arc<Mutex<Vec<Counters>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&heard);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let notes = Arc::clone(&notes);
            std::thread::spawn(move || converse(socket, &notes));
        }
    });
    heard
}

fn converse(mut socket: UnixStream, notes: &Mutex<Vec<Counters>>) {
    let lines = BufReader::new(socket.try_clone().unwrap()).lines();
    for text in lines.map_while(Result::ok) {
        let reply = match serde_json::from_str(&text).unwrap() {
            Request::Worker(_) => Reply::Welcome {
                version: VERSION,
                high_water: None,
            },
            Request::Counters(counters) => {
                notes.lock().unwrap().push(counters);
                continue;
            }
            _ => continue,
        };
        let mut text = serde_json::to_vec(&reply).unwrap();
        text.push(b'\n');
        if socket.write_all(&text).is_err() {
            return;
        }
    }
}

/// The equations of [`Counters`].
#[track_caller]
pub(super) fn balanced(counters: &Counters) {
    let c = counters;
    assert_eq!(c.bytes, c.written + c.lost + c.waiting, "bytes: {c:#?}");
    let out = c.lines_written + c.lines_lost + c.lines_waiting;
    assert_eq!(c.lines, out, "lines out: {c:#?}");
    let looked_at = c.matched + c.unparsed + c.torn + c.shed + c.pending;
    assert_eq!(c.lines, looked_at, "lines matched: {c:#?}");
    assert!(c.hits + c.spoofed <= c.matched, "{c:#?}");
    assert!(c.unsent <= c.hits, "{c:#?}");
}

/// Every kind of line there is, by its number.
fn some_line(n: usize) -> Vec<u8> {
    let head = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 22912:tid 22919] ";
    let mut bytes = match n % 400 {
        0 => "x".repeat(200_000).into_bytes(),
        1 => "y".repeat(70_000).into_bytes(),
        2 => format!("{head}[client 192.0.2.1:6] AH00127: {}", "z".repeat(5000)).into_bytes(),
        3 => vec![],
        4 => b"\xff\x00".to_vec(),
        n if n % 2 == 0 => format!("{head}[client 192.0.2.1:6] AH00127: x").into_bytes(),
        _ => return line(n).into_bytes(),
    };
    bytes.push(b'\n');
    bytes
}

#[test]
fn the_books_balance_at_any_moment_whoever_is_killed_and_at_the_end() {
    let mut logger = Logger::in_the_way("missing/out");
    let heard = hear(logger.engine.try_clone().unwrap());
    // A worker believes the process that it has seen write first.
    let mut input = some_line(6);
    logger.write(&input);
    eventually("matched", || {
        let heard = heard.lock().unwrap();
        heard.iter().any(|c| c.matched > 0).then_some(())
    });
    let mut n = 0;
    let mut random = 42u64;
    let many_heard = || heard.lock().unwrap().len() > 8;
    // On a busy machine counters are sent seldom.
    for round in (0..40).take_while(|round| *round < 8 || !many_heard()) {
        let worker = logger.worker();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let until = Instant::now() + Duration::from_millis(100 + (random >> 33) % 300);
        // What waits while a file is in the directory's place fits into the buffer.
        while if round < 3 {
            n < 2_000 * (round + 1)
        } else {
            Instant::now() < until
        } {
            let line = some_line(n);
            logger.write(&line);
            input.extend(line);
            n += 1;
        }
        if round == 2 {
            std::fs::remove_file(logger.dir.path().join("missing")).unwrap();
            eventually("written", || {
                (!logger.output("missing/out").is_empty()).then_some(())
            });
        }
        let victim = if round % 4 == 3 {
            logger.keeper()
        } else {
            worker
        };
        kill(victim, Signal::SIGKILL).unwrap();
        eventually("its end", || (!is_alive(victim)).then_some(()));
    }
    logger.worker();
    logger.write(b"and no newline");
    input.extend(b"and no newline");
    logger.end();

    let lines = input.split(|byte| *byte == b'\n').count() as u64;
    // What a worker has sent is still to be read here when it has ended.
    let last = eventually("the last counters", || {
        let heard = heard.lock().unwrap();
        let mut newest_first = heard.iter().rev();
        newest_first
            .find(|c| c.bytes == input.len() as u64 && c.waiting + c.pending == 0)
            .cloned()
    });
    let heard = heard.lock().unwrap();
    assert!(heard.len() > 8, "{heard:#?}");
    heard.iter().for_each(balanced);
    assert!(heard.iter().any(|counters| counters.waiting > 0));
    assert_eq!(last.lines, lines);
    assert_eq!((last.written, last.lines_written), (last.bytes, lines));
    assert_eq!((last.pending, last.unsent, last.lost), (0, 0, 0));
    assert!(
        last.matched > 0 && last.unparsed > 0 && last.torn > 0,
        "{last:#?}"
    );
    // The part that a killed worker was writing may be there twice.
    assert!(logger.output("missing/out").len() as u64 >= last.written);
}

#[test]
fn a_worker_that_is_stopped_holds_up_no_line_and_is_replaced() {
    let mut logger = Logger::start("out");
    let heard = hear(logger.engine.try_clone().unwrap());
    logger.write(&some_line(6));
    let matched = |lines: u64| {
        let heard = heard.lock().unwrap();
        let done = |c: &Counters| c.lines == lines && c.pending == 0;
        heard.last().filter(|c| done(c)).map(|_| ())
    };
    eventually("matched", || matched(1));
    let worker = logger.worker();
    kill(worker, Signal::SIGSTOP).unwrap();
    let mut input = some_line(6);
    for n in 0..20_000 {
        let line = some_line(2 * n % 400 + 5);
        logger.write(&line);
        input.extend(line);
    }
    // More than a pipe holds, and the worker is still there.
    eventually("written", || (logger.output("out") == input).then_some(()));
    assert!(is_alive(worker));
    eventually("its end", || (!is_alive(worker)).then_some(()));
    logger.worker();
    let lines = input.iter().filter(|byte| **byte == b'\n').count() as u64;
    eventually("matched by the next worker", || matched(lines));
    logger.end();
    let logged = logger.logged.lock().unwrap();
    assert!(
        logged.iter().any(|line| line.contains("made no progress")),
        "{logged:?}"
    );
}

/// Shuts both directions of each seqpacket socket of a process, which is its link to the keeper.
const SHUT: &str = r#"
my $process = syscall(434, $ARGV[0] + 0, 0);
my $shut = 0;
for my $number (3 .. 63) {
    my $copy = syscall(438, $process, $number + 0, 0);
    exit 77 if $!{ENOSYS};
    next if $copy < 0;
    open(my $file, "+<&=", $copy) or next;
    my $type = getsockopt($file, 1, 3) or next;
    $shut += shutdown($file, 2) if unpack("i", $type) == 5;
}
exit($shut != 1);
"#;

#[test]
fn a_worker_that_closes_its_link_is_replaced_at_once() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root (a descriptor of another process)");
    }
    let mut logger = Logger::start("out");
    let heard = hear(logger.engine.try_clone().unwrap());
    let matched = |lines: u64| {
        let heard = heard.lock().unwrap();
        let done = |c: &Counters| c.lines == lines && c.pending == 0;
        heard.last().filter(|c| done(c)).map(|_| ())
    };
    logger.write(&some_line(6));
    eventually("matched", || matched(1));
    // Stopped, it does not end by itself; as no block waits, it does not count as stalled.
    let worker = logger.worker();
    kill(worker, Signal::SIGSTOP).unwrap();
    let shut = Command::new("perl")
        .args(["-e", SHUT, &worker.to_string()])
        .status();
    match shut.map(|status| status.code()) {
        Err(_) => return skip_without("perl"),
        Ok(Some(77)) => return skip("needs pidfd_getfd(2)"),
        Ok(code) => assert_eq!(code, Some(0)),
    }
    eventually("its end", || (!is_alive(worker)).then_some(()));
    logger.worker();
    logger.write(&some_line(8));
    eventually("matched by the next worker", || matched(2));
    logger.end();
    assert_eq!(logger.output("out"), [some_line(6), some_line(8)].concat());
}
