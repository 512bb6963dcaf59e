//! `pipeban log` as Apache starts it: processes that are killed while lines come in.

mod accounting; // in = out, at any moment

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::skip;

mod outputs; // where lines go: names, rotation, links, whatever is moved away or swapped in

struct Logger {
    stub: Child,
    pipe: Option<File>,
    /// Keeps the pipe's read end, as Apache does for a CustomLog.
    read_end: OwnedFd,
    dir: tempfile::TempDir,
    /// Takes connections and never answers, as long as nobody accepts them.
    engine: UnixListener,
    /// What a syslog daemon would have heard.
    logged: Arc<Mutex<Vec<String>>>,
}

/// A configuration of its own, and an engine that takes connections and never answers: so that
/// nobody starts a real one, which would be this machine's.
fn prepare() -> (tempfile::TempDir, UnixListener) {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[paths]\nruntime = '{0}/run'\nstate = '{0}/state'\n\
         [firewall]\nbackend = 'dry-run'\n\
         [syslog]\ntarget = 'unix:{0}/log'\nlog_file = ''\n",
        dir.path().display()
    );
    std::fs::write(dir.path().join("pipeban.toml"), text).unwrap();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    let engine = UnixListener::bind(dir.path().join("run/engine.sock")).unwrap();
    (dir, engine)
}

impl Logger {
    fn start(path: &str) -> Logger {
        Logger::with(&[path], |_| {})
    }

    /// Into a path whose directory is a file.
    fn in_the_way(path: &str) -> Logger {
        Logger::with(&[path], |command| {
            let directory = command.get_current_dir().unwrap();
            let place = Path::new(path).parent().unwrap();
            std::fs::write(directory.join(place), "in the way").unwrap();
        })
    }

    /// With these arguments behind `log error`, relative to its directory.
    fn with(args: &[&str], more: impl FnOnce(&mut Command)) -> Logger {
        let (dir, engine) = prepare();
        let logged = listen(&dir.path().join("log"));
        // The worker is not root; its keeper connects to the engine and logs.
        for (path, mode) in [("", 0o755), ("log", 0o600), ("run/engine.sock", 0o600)] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(dir.path().join(path), mode).unwrap();
        }
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut command = command(dir.path(), &read);
        more(command.args(args));
        let stub = command.spawn().unwrap();
        Logger {
            stub,
            pipe: Some(write.into()),
            read_end: read,
            logged,
            dir,
            engine,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.pipe.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn output(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).unwrap_or_default()
    }

    fn keeper(&self) -> Pid {
        child_of(Pid::from_raw(self.stub.id() as i32))
    }

    fn worker(&self) -> Pid {
        child_of(self.keeper())
    }

    /// Closes the pipe; the stub ends well.
    fn end(&mut self) {
        self.pipe = None;
        assert!(self.stub.wait().unwrap().success());
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.pipe = None;
        if std::thread::panicking() {
            eprintln!("syslog: {:#?}", self.logged.lock().unwrap());
        }
        let _ = self.stub.kill();
        let _ = self.stub.wait();
    }
}

/// Plays the syslog daemon.
fn listen(path: &Path) -> Arc<Mutex<Vec<String>>> {
    let socket = UnixDatagram::bind(path).unwrap();
    let logged = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&logged);
    std::thread::spawn(move || {
        let mut line = [0; 2048];
        while let Ok(len) = socket.recv(&mut line) {
            let line = String::from_utf8_lossy(&line[..len]).into_owned();
            heard.lock().unwrap().push(line);
        }
    });
    logged
}

fn spawn(dir: &Path, path: &str, stdin: &OwnedFd) -> Child {
    command(dir, stdin).arg(path).spawn().unwrap()
}

fn command(dir: &Path, stdin: &OwnedFd) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeban"));
    command
        .args(["log", "error", "--config", "pipeban.toml"])
        .current_dir(dir)
        .stdin(Stdio::from(stdin.try_clone().unwrap()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn children(pid: Pid) -> Vec<Pid> {
    // Each thread has its own.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let of_threads: String = threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .collect();
    of_threads
        .split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .filter(|pid| is_alive(*pid))
        .collect()
}

/// Waits for the one child that runs.
fn child_of(pid: Pid) -> Pid {
    eventually("a child", || children(pid).first().copied())
}

fn is_alive(pid: Pid) -> bool {
    // The state is the field after the name in parentheses; X while its parent waits for it.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}

fn holds(pid: Pid, target: &Path) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
        fds.flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link == target))
    })
}

/// Numbered lines of different length.
fn line(i: usize) -> String {
    format!("line {i} {}\n", "x".repeat(i * 7 % 150))
}

/// Writes lines until `stop` says so; how many.
fn write_lines_while(logger: &mut Logger, from: usize, mut go: impl FnMut() -> bool) -> usize {
    let mut i = from;
    while go() {
        for _ in 0..500 {
            logger.write(line(i).as_bytes());
            i += 1;
        }
    }
    i
}

/// Every line is there; those that are there twice stand together in at most `blocks` blocks, and
/// at most so many lines are torn.
fn check_nothing_lost(output: &[u8], lines: usize, blocks: usize) {
    let mut found: HashMap<&[u8], usize> = HashMap::new();
    let mut torn = 0;
    let expected: Vec<String> = (0..lines).map(line).collect();
    let known: std::collections::HashSet<&[u8]> =
        expected.iter().map(|line| line.as_bytes()).collect();
    let mut repeats = 0;
    let mut in_repeat = false;
    for text in output.split_inclusive(|b| *b == b'\n') {
        if !known.contains(text) {
            torn += 1;
            continue;
        }
        let n = found.entry(text).or_default();
        *n += 1;
        repeats += usize::from(*n > 1 && !in_repeat);
        in_repeat = *n > 1;
    }
    let lost: Vec<usize> = (0..lines)
        .filter(|i| !found.contains_key(expected[*i].as_bytes()))
        .collect();
    let (first, last) = (lost.first(), lost.last());
    let count = lost.len();
    assert_eq!(count, 0, "lines lost of {lines}: {first:?} to {last:?}");
    assert!(torn <= blocks, "{torn} torn");
    assert!(repeats <= blocks, "{repeats} repeated blocks");
}

#[test]
fn twenty_kills_of_the_worker_under_load_lose_no_line() {
    let mut logger = Logger::start("out");
    let mut lines = 0;
    for round in 0..20u64 {
        let worker = logger.worker();
        let until = Instant::now() + Duration::from_millis(3 + round * 7 % 40);
        lines = write_lines_while(&mut logger, lines, || Instant::now() < until);
        kill(worker, Signal::SIGKILL).unwrap();
        lines = write_lines_while(&mut logger, lines, || is_alive(worker));
    }
    logger.end();
    check_nothing_lost(&logger.output("out"), lines, 20);
}

#[test]
fn kills_of_the_keeper_under_load_lose_no_line_and_a_new_keeper_takes_over() {
    let mut logger = Logger::start("out");
    let mut lines = 0;
    for _ in 0..5 {
        let (keeper, worker) = (logger.keeper(), logger.worker());
        kill(keeper, Signal::SIGKILL).unwrap();
        lines = write_lines_while(&mut logger, lines, || is_alive(worker) || is_alive(keeper));
    }
    // The one after the last: its worker writes.
    logger.worker();
    logger.end();
    check_nothing_lost(&logger.output("out"), lines, 5);
}

#[test]
fn keeper_and_worker_killed_together_lose_no_line() {
    let mut logger = Logger::start("out");
    let mut lines = 0;
    for round in 0..5 {
        let (keeper, worker) = (logger.keeper(), logger.worker());
        let until = Instant::now() + Duration::from_millis(5 + round * 3);
        lines = write_lines_while(&mut logger, lines, || Instant::now() < until);
        kill(keeper, Signal::SIGKILL).unwrap();
        kill(worker, Signal::SIGKILL).unwrap();
        eventually("their end", || {
            (!is_alive(worker) && !is_alive(keeper)).then_some(())
        });
    }
    logger.end();
    check_nothing_lost(&logger.output("out"), lines, 5);
}

#[test]
fn a_stub_ends_at_once_on_a_signal_and_the_rest_reads_to_the_end() {
    let mut logger = Logger::start("out");
    let (keeper, worker) = (logger.keeper(), logger.worker());
    logger.write(b"before\n");
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGWINCH] {
        kill(Pid::from_raw(logger.stub.id() as i32), signal).unwrap();
    }
    // prefork tells the others too.
    for pid in [keeper, worker] {
        for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGUSR1] {
            kill(pid, signal).unwrap();
        }
    }
    kill(Pid::from_raw(logger.stub.id() as i32), Signal::SIGTERM).unwrap();
    assert!(logger.stub.wait().unwrap().success());
    let mut stderr = Vec::new();
    // Nobody else holds it: this returns.
    let mut pipe = logger.stub.stderr.take().unwrap();
    pipe.read_to_end(&mut stderr).unwrap();
    assert!(stderr.is_empty());
    assert!(is_alive(keeper) && is_alive(worker));
    logger.write(b"after\nrest");
    logger.pipe = None;
    eventually("the end", || {
        (!is_alive(keeper) && !is_alive(worker)).then_some(())
    });
    assert_eq!(logger.output("out"), b"before\nafter\nrest");
}

#[test]
fn two_loggers_never_read_one_pipe_at_once() {
    let mut logger = Logger::start("out");
    let worker = logger.worker();
    logger.write(b"one\n");
    eventually("written", || {
        (logger.output("out") == b"one\n").then_some(())
    });
    let mut second = spawn(logger.dir.path(), "second", &logger.read_end);
    let keeper = child_of(Pid::from_raw(second.id() as i32));
    // The first one's stub is ended by hand; worker and keeper go on.
    logger.stub.kill().unwrap();
    logger.stub.wait().unwrap();
    let lines = write_lines_while(&mut logger, 0, {
        let until = Instant::now() + Duration::from_millis(200);
        move || Instant::now() < until
    });
    assert!(children(keeper).is_empty(), "a second reader");
    assert!(logger.output("second").is_empty());
    assert!(is_alive(worker));
    logger.pipe = None;
    assert!(second.wait().unwrap().success());
    let output = logger.output("out");
    check_nothing_lost(output.strip_prefix(b"one\n").unwrap(), lines, 0);
}

#[test]
fn lines_of_any_length_and_any_byte_pass_unchanged() {
    let mut logger = Logger::start("out");
    let mut input = Vec::new();
    for len in [0, 1, 4095, 4096, 4097, 8191, 65_536, 65_537, 0, 200_000, 3] {
        input.extend((0..len).map(|i| match i % 255 {
            b if b == i64::from(b'\n') => 0,
            b => b as u8,
        }));
        input.push(b'\n');
    }
    input.extend_from_slice(b"\xff\x00 no newline");
    logger.write(&input);
    logger.end();
    assert!(logger.output("out") == input);
}

/// As a script of Apache's can: its stderr is the pipe.
#[test]
fn a_pipe_full_of_tiny_fragments_without_a_newline_is_read_at_once() {
    let mut logger = Logger::start("error.log");
    logger.write(b"it reads\n");
    eventually("the first line", || {
        (!logger.output("error.log").is_empty()).then_some(())
    });
    let pipe = logger.pipe.as_ref().unwrap();
    // Each write takes one of the few places of the pipe.
    let flags = OFlag::O_NONBLOCK | OFlag::O_DIRECT;
    fcntl(pipe, FcntlArg::F_SETFL(flags)).unwrap();
    let mut writer = pipe;
    let mut bytes = b"it reads\n".len();
    while writer.write(b"x").is_ok() {
        bytes += 1;
    }
    let mut polled = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
    // A line that is only incomplete is waited for much longer.
    assert_eq!(poll(&mut polled, 2500_u16), Ok(1), "{bytes} bytes");
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    logger.write(b"\n");
    logger.end();
    assert_eq!(logger.output("error.log").len(), bytes + 1);
}

#[test]
fn an_unwritable_path_delays_lines_and_loses_none() {
    let mut logger = Logger::in_the_way("dir/out");
    for i in 0..1000 {
        logger.write(line(i).as_bytes());
    }
    std::fs::remove_file(logger.dir.path().join("dir")).unwrap();
    eventually("written", || {
        (!logger.output("dir/out").is_empty()).then_some(())
    });
    logger.end();
    let expected: String = (0..1000).map(line).collect();
    assert!(logger.output("dir/out") == expected.as_bytes());
}

#[test]
fn a_worker_that_crashes_again_and_again_still_passes_every_line() {
    let mut logger = Logger::start("out");
    let mut lines = 0;
    for _ in 0..7 {
        let worker = logger.worker();
        lines = write_lines_while(&mut logger, lines, {
            let mut once = true;
            move || std::mem::take(&mut once)
        });
        // One that is just starting ignores the first.
        eventually("its end", || {
            let _ = kill(worker, Signal::SIGSEGV);
            (!is_alive(worker)).then_some(())
        });
    }
    logger.end();
    check_nothing_lost(&logger.output("out"), lines, 7);
}

#[test]
fn a_file_on_stdin_is_passed_too() {
    let (dir, _engine) = prepare();
    let input: String = (0..5000).map(line).collect();
    std::fs::write(dir.path().join("in"), &input).unwrap();
    let stdin = File::open(dir.path().join("in")).unwrap().into();
    for (out, for_real) in [("real", true), ("out", false)] {
        let mut command = command(dir.path(), &stdin);
        command.arg(out).args(for_real.then_some("--for-real"));
        let stdin = File::open(dir.path().join("in")).unwrap();
        assert!(command.stdin(stdin).status().unwrap().success());
        assert!(std::fs::read(dir.path().join(out)).unwrap() == input.as_bytes());
    }
}

#[test]
fn lines_also_go_to_syslog_with_their_severity() {
    let mut logger = Logger::with(&["--syslog", "local1", "out"], |_| {});
    let line = b"[Sun Nov 22 11:00:33 2026] [core:warn] [pid 1:tid 2] spoon\n";
    // Facility 17, severity 4. Where to is known when the configuration is read.
    eventually("sent", || {
        logger.write(line);
        let logged = logger.logged.lock().unwrap();
        let sent = |text: &&String| text.starts_with("<140>") && text.ends_with("] spoon");
        logged.iter().find(sent).map(drop)
    });
    logger.end();
    assert!(logger.output("out").starts_with(line));
}

#[test]
fn the_worker_is_not_root_and_holds_nothing_of_apache() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root (the worker drops its rights)");
    }
    let mut logger = Logger::start("out");
    logger.write(b"x\n");
    eventually("written", || {
        (!logger.output("out").is_empty()).then_some(())
    });
    let worker = logger.worker();
    let uid = pipeban::sys::privileges::worker_uid("pipeban").to_string();
    // It gives up root first of all, but not before it is started.
    let status = eventually("a worker without rights", || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
        let uids = format!("Uid:\t{}", [uid.as_str(); 4].join("\t"));
        let done = status.contains(&uids) && status.contains("NoNewPrivs:\t1");
        done.then_some(status)
    });
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert!(!field("Gid:").split(' ').any(|gid| gid == "0"));
    assert_eq!(field("Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    eventually("confined by seccomp", || {
        let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
        status.contains("Seccomp:\t2").then_some(())
    });
    for fd in 0..3 {
        let link = std::fs::read_link(format!("/proc/{worker}/fd/{fd}")).unwrap();
        assert_eq!(link, PathBuf::from("/dev/null"));
    }
    assert!(!holds(worker, &std::env::current_dir().unwrap()));
    assert!(!holds(worker, &logger.dir.path().join("out")));
    logger.end();
}

#[test]
fn a_misspelt_option_costs_no_line() {
    let (dir, _engine) = prepare();
    let config = dir.path().join("pipeban.toml");
    let log = dir.path().join("access.log");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .arg("--config")
        .arg(&config)
        .args(["log", "access"])
        .arg(&log)
        .args(["--formt", "common", "--link", "/etc/passwd"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = "a line\n".repeat(100_000);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(64));
    eventually("all lines are there", || {
        (std::fs::read_to_string(&log).ok()? == lines).then_some(())
    });
}

#[test]
fn a_wrong_command_line_still_reads_to_the_end() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .args(["log", "nonsense"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds.
    for _ in 0..20 {
        stdin.write_all(&[b'x'; 65_536]).unwrap();
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(64));
}
