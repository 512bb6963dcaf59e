//! A log file that takes nothing: lines are read and matched all the same, kept as long as there is
//! room, written when it works again, and what was lost is counted and reported. Real file systems.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::world::FILTER;
use crate::support::{PATIENCE, World, eventually, skip};

const CONFIG: &str = r#"
[firewall]
backend = "dry-run"
[jails.count]
log = "error"
filter = "apache-cgitraversal"
maxretry = 1000000
"#;
const HEAD: &str =
    "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] [client 198.51.100.9:49108]";

fn world() -> Option<World> {
    let world = World::new()?;
    world.write("/etc/pipeban/pipeban.toml", CONFIG);
    world.write("/etc/pipeban/filters.d/apache-cgitraversal.conf", FILTER);
    world.start_engine();
    Some(world)
}

/// A logger that writes `path`, and all that was sent to it.
struct Logger<'w> {
    world: &'w World,
    path: String,
    process: Child,
    stdin: Option<ChildStdin>,
    sent: Vec<u8>,
    lines: u64,
    hits: u64,
}

impl<'w> Logger<'w> {
    fn start(world: &'w World, path: &str, wrapper: &[&str]) -> Logger<'w> {
        let argv = [wrapper, &["/usr/bin/pipeban", "log", "error", path]].concat();
        let mut process = world
            .command(&argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        Logger {
            world,
            path: path.to_owned(),
            stdin: process.stdin.take(),
            process,
            sent: Vec::new(),
            lines: 0,
            hits: 0,
        }
    }

    /// Sends lines of 200 bytes, the last one a hit, as Apache would: whoever blocks it fails.
    fn send(&mut self, lines: u64) {
        let mut text = String::new();
        for n in 1..=lines {
            let number = self.lines + n;
            let message = if n == lines {
                "AH10244: invalid URI path (/cgi-bin/.%2e/bin/sh)"
            } else {
                "AH00127: Cannot map"
            };
            let line = format!("{HEAD} {message} {number} ");
            text.push_str(&format!("{line:x<199}\n"));
        }
        let bytes = text.into_bytes();
        let mut stdin = self.stdin.take().expect("open");
        let (done, written) = mpsc::channel();
        let sending = bytes.clone();
        std::thread::spawn(move || {
            let result = stdin.write_all(&sending);
            let _ = done.send((stdin, result));
        });
        let (stdin, result) = written.recv_timeout(PATIENCE).expect("Apache never waits");
        result.expect("written");
        self.stdin = Some(stdin);
        self.sent.extend(bytes);
        self.lines += lines;
        self.hits += 1;
    }

    /// Waits until all that was sent is read and matched (or shed), and the worker is as `wanted`.
    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            let status = self.world.status(None);
            let workers = status["workers"].as_array().cloned().unwrap_or_default();
            let worker = workers
                .into_iter()
                .find(|worker| worker["path"] == self.path.as_str());
            let worker = worker.ok_or_else(|| status.to_string())?;
            balanced(&worker);
            let all = worker["lines"] == self.lines && worker["pending"] == 0;
            if all && wanted(&worker) {
                Ok(worker)
            } else {
                Err(worker.to_string())
            }
        })
    }

    /// Reads and matches on, though nothing is written.
    #[track_caller]
    fn until_kept(&self) -> Value {
        self.until("read, matched, kept", |worker| {
            worker["waiting"] != 0
                && worker["lost"] == 0
                && worker["matched"] == self.lines
                && worker["hits"] == self.hits
        })
    }

    #[track_caller]
    fn until_written(&self) {
        self.until("written", |worker| {
            worker["written"] == self.sent.len() && worker["lost"] == 0
        });
        assert!(
            self.world.bytes(&self.path) == self.sent,
            "the file is what was sent"
        );
    }
}

impl Drop for Logger<'_> {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Not nsenter, which must bury it: the first process of a container may not.
        let all = self.world.processes().into_iter();
        all.filter(|process| process.parent == self.process.id())
            .for_each(|process| process.signal(Signal::SIGKILL));
        let _ = self.process.wait();
    }
}

/// What `status` says adds up, whenever it is asked.
#[track_caller]
fn balanced(worker: &Value) {
    let sum = |names: &[&str]| -> u64 {
        names
            .iter()
            .map(|name| worker[name].as_u64().expect("a number"))
            .sum()
    };
    assert_eq!(
        sum(&["bytes"]),
        sum(&["written", "lost", "waiting"]),
        "{worker}"
    );
    let out = ["lines_written", "lines_lost", "lines_waiting"];
    assert_eq!(sum(&["lines"]), sum(&out), "{worker}");
    let looked_at = ["matched", "unparsed", "torn", "shed", "pending"];
    assert_eq!(sum(&["lines"]), sum(&looked_at), "{worker}");
}

#[test]
fn a_full_disk_delays_lines_and_loses_none_before_the_buffer_is_full() {
    let Some(world) = world() else { return };
    world.must(&["mkdir", "/var/log/small"]);
    world.must(&[
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "size=256k",
        "small",
        "/var/log/small",
    ]);
    let mut logger = Logger::start(&world, "/var/log/small/log", &[]);
    logger.send(5_000);
    logger.until_kept();
    world.until_logged("cannot write the log file: No space left on device");
    world.must(&["mount", "-o", "remount,size=2m", "/var/log/small"]);
    logger.until_written();
    world.until_logged("the log file can be written again");

    // More than is kept: what is lost is whole lines, counted, and reported when it is over.
    logger.send(100_000);
    let worker = logger.until("lost", |worker| worker["lost"] != 0);
    world.until_logged("lines are lost");
    world.must(&["mount", "-o", "remount,size=64m", "/var/log/small"]);
    logger.until("written", |worker| worker["waiting"] == 0);
    logger.send(10);
    let worker = {
        assert!(
            worker["lines_waiting"].as_u64() > Some(70_000),
            "16 MiB are kept: {worker}"
        );
        logger.until("written", |worker| worker["waiting"] == 0)
    };
    let (lines, bytes) = (&worker["lines_lost"], &worker["lost"]);
    world.until_logged(&format!("{lines} lines ({bytes} bytes) are lost"));
    let file = world.read("/var/log/small/log");
    assert_eq!(worker["lines_written"], file.lines().count());
    assert_eq!(worker["written"], file.len());
    let sent = String::from_utf8_lossy(&logger.sent);
    let mut sent = sent.lines();
    assert!(
        file.lines().all(|line| sent.any(|other| other == line)),
        "whole lines, in order"
    );
}

#[test]
fn whatever_the_path_is_lines_wait_until_it_can_be_written() {
    let Some(world) = world() else { return };

    // A limit on the size of files.
    let limited = ["prlimit", "--fsize=262144:unlimited"];
    let mut logger = Logger::start(&world, "/var/log/limited", &limited);
    logger.send(5_000);
    let worker = logger.until_kept();
    world.until_logged("cannot write the log file: File too large");
    let lifted = format!(
        "prlimit --pid $(ps -o ppid= -p {0}) --fsize=unlimited: && kill -KILL {0}",
        worker["pid"]
    );
    world.must(&["sh", "-c", &lifted]);
    logger.until_written();

    // A FIFO without a reader; then one comes.
    world.must(&["mkfifo", "/var/log/fifo"]);
    let mut logger = Logger::start(&world, "/var/log/fifo", &[]);
    logger.send(1_000);
    logger.until_kept();
    let reading = std::thread::spawn({
        let fifo = world.path("/var/log/fifo");
        let len = logger.sent.len();
        move || {
            let mut got = vec![0; len];
            std::fs::File::open(fifo)
                .expect("opened")
                .read_exact(&mut got)
                .expect("read");
            got
        }
    });
    logger.until("written", |worker| worker["waiting"] == 0);
    assert!(reading.join().expect("read") == logger.sent);

    // A file system that is read-only when the file is to be opened.
    world.must(&["mkdir", "/var/log/readonly"]);
    world.must(&[
        "mount",
        "-t",
        "tmpfs",
        "-o",
        "ro",
        "readonly",
        "/var/log/readonly",
    ]);
    let mut logger = Logger::start(&world, "/var/log/readonly/log", &[]);
    logger.send(1_000);
    logger.until_kept();
    world.until_logged("/var/log/readonly/log cannot be created: Read-only file system");
    world.must(&["mount", "-o", "remount,rw", "/var/log/readonly"]);
    logger.until_written();

    // A directory that goes is made again: what was written before is where it went, and nothing is
    // lost.
    world.must(&["mkdir", "/var/log/going"]);
    let mut logger = Logger::start(&world, "/var/log/going/log", &[]);
    logger.send(100);
    logger.until_written();
    let mut old = std::fs::File::open(world.path("/var/log/going/log")).expect("opened");
    world.must(&["rm", "-r", "/var/log/going"]);
    logger.send(100);
    eventually("a new file", || {
        std::fs::metadata(world.path("/var/log/going/log")).map_err(|e| e.to_string())
    });
    logger.send(100);
    logger.until("written", |worker| {
        worker["waiting"] == 0 && worker["lost"] == 0
    });
    let mut all = Vec::new();
    old.read_to_end(&mut all).expect("read");
    all.extend(world.bytes("/var/log/going/log"));
    assert!(all == logger.sent);
}

/// A file system of the world's own on a loop device; thawed at the end, else nothing could end it.
struct Loop<'w>(&'w World);

impl<'w> Loop<'w> {
    fn mount(world: &'w World) -> Option<Loop<'w>> {
        let script = "mkdir /mnt/loop && mknod /dev/loop-control c 10 237 && \
             for n in 0 1 2 3 4 5 6 7; do mknod /dev/loop$n b 7 $n; done; \
             truncate -s 32M /mnt/image && mkfs.ext4 -q /mnt/image && mount -o loop /mnt/image /mnt/loop";
        let said = world.run(&["sh", "-c", script]);
        if said.status != 0 {
            skip(&format!(
                "no ext4 on a loop device here: {}",
                said.stderr.trim()
            ));
            return None;
        }
        Some(Loop(world))
    }
}

impl Drop for Loop<'_> {
    fn drop(&mut self) {
        self.0.run(&["fsfreeze", "-u", "/mnt/loop"]);
    }
}

#[test]
fn a_frozen_and_a_failing_file_system_hold_up_nobody() {
    let Some(world) = world() else { return };
    let Some(_mounted) = Loop::mount(&world) else {
        return;
    };
    let mut logger = Logger::start(&world, "/mnt/loop/log", &[]);
    logger.send(100);
    logger.until_written();
    world.must(&["fsfreeze", "-f", "/mnt/loop"]);
    logger.send(20_000);
    logger.until_kept();
    world.must(&["fsfreeze", "-u", "/mnt/loop"]);
    logger.until_written();

    // The file system shuts itself down, as it does when its device fails.
    let shutdown = "open(my $f, '<', '/mnt/loop') or die; \
         my $how = pack('L', 2); ioctl($f, 0x8004587d, $how) or die \"ioctl: $!\";";
    world.must(&["perl", "-e", shutdown]);
    logger.send(20_000);
    logger.until_kept();
    world.until_logged("cannot write the log file: Input/output error");
}

#[test]
fn when_matching_falls_behind_every_byte_passes_and_the_slow_filter_is_named() {
    let Some(world) = World::new() else { return };
    let jail = "[jails.slow]\nlog = \"error\"\nfilter = \"slow\"\n";
    world.write("/etc/pipeban/pipeban.toml", &format!("{CONFIG}{jail}"));
    world.write("/etc/pipeban/filters.d/apache-cgitraversal.conf", FILTER);
    // Looks around, and takes all the steps it may: often enough that any machine falls behind.
    let patterns = ('a'..='p')
        .map(|end| format!("            \\[client <HOST>:(?=.*x)(?:.*x)(?:.*x)(?:.*x){end}$\n"));
    let slow = patterns.collect::<String>();
    let slow = format!("[Definition]\nfailregex =\n{slow}");
    world.write("/etc/pipeban/filters.d/slow.conf", &slow);
    world.start_engine();
    let mut logger = Logger::start(&world, "/var/log/busy", &[]);
    logger.send(1_000);
    logger.until_written();
    for _ in 0..3 {
        logger.send(50_000);
    }
    let worker = logger.until("shed", |worker| {
        worker["shed"] != 0 && worker["written"] == logger.sent.len()
    });
    assert_eq!(worker["slowest"]["filter"], "slow", "{worker}");
    assert!(worker["slowest"]["share"].as_u64() > Some(50), "{worker}");
    assert!(world.bytes("/var/log/busy") == logger.sent);
    world.until_logged("matching is too slow");
    let status = world.status(None);
    let warnings = status["warnings"].to_string();
    let named = format!("passed {} lines on without matching them", worker["shed"]);
    assert!(
        warnings.contains(&named) && warnings.contains("filter `slow`"),
        "{warnings}"
    );
}
