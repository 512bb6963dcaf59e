//! Each in a process that confines one of its threads, and tries there what a worker must not do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use super::super::privileges::{irrevocably_drop_privileges, worker_identity};
use super::*;
use crate::skip::skip;

const TASK: &str = "PIPEBAN_TEST_CONFINED";

#[track_caller]
fn run(task: &str) {
    // Not to a file: none may grow.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sys::sandbox::tests::inside", "--nocapture"])
        .env(TASK, task)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{task}: {}\n{said}", output.status);
}

#[test]
fn each_layer_refuses_alone_what_it_is_for() {
    for task in ["landlock", "seccomp", "limits"] {
        run(task);
    }
}

#[test]
fn a_confined_thread_reads_and_computes_and_does_nothing_else() {
    run("all");
}

/// The other half of the tests above.
#[test]
fn inside() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let before = Before::new();
    let done = match task.as_str() {
        "landlock" => restrict_files(),
        "seccomp" => restrict_calls(),
        "limits" => limit().map_err(|error| error.to_string()),
        _ => {
            if nix::unistd::geteuid().is_root() {
                irrevocably_drop_privileges(worker_identity("pipeban")).unwrap();
            }
            let done = confine();
            let layers = [done.landlock, done.seccomp, done.limits];
            let wrong = layers.iter().find(|layer| layer.as_str() != "on");
            wrong.map_or(Ok(()), |wrong| Err(wrong.clone()))
        }
    };
    match done {
        Err(error) if error.contains("kernel") => return skip(&format!("{task}: {error}")),
        other => other.unwrap(),
    }
    if task != "limits" {
        no_file();
    }
    if task == "limits" || task == "all" {
        assert_eq!(
            nix::sys::resource::getrlimit(Resource::RLIMIT_FSIZE).unwrap(),
            (0, 0)
        );
    }
    if task == "seccomp" || task == "all" {
        no_call(&before);
    }
    if task == "landlock" {
        let refused = TcpStream::connect(before.tcp.local_addr().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(kill(before.parent, Signal::SIGURG), Err(Errno::EPERM));
    }
    what_a_worker_does(before);
}

/// What the process had before.
struct Before {
    ours: UnixStream,
    theirs: UnixStream,
    file: std::fs::File,
    udp: UdpSocket,
    tcp: TcpListener,
    parent: Pid,
}

impl Before {
    fn new() -> Before {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"log").unwrap();
        Before {
            ours,
            theirs,
            file,
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            parent: getppid(),
        }
    }
}

fn no_file() {
    for path in ["/tmp/pipeban-confined", "/dev/shm/pipeban-confined"] {
        let made = std::fs::File::create(path);
        let kind = made.unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::PermissionDenied, "{path}");
    }
    if std::env::var(TASK).is_ok_and(|task| task != "seccomp") {
        for path in ["/etc/passwd", "/", "/usr/bin/env"] {
            let kind = std::fs::File::open(path).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::PermissionDenied, "{path}");
        }
    }
}

/// Not permitted, whoever asks.
fn no_call(before: &Before) {
    fn refused<T>(name: &str, done: io::Result<T>) {
        let error = done.err().unwrap_or_else(|| panic!("{name} is permitted"));
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{name}: {error}");
    }
    fn call<T>(done: nix::Result<T>) -> io::Result<T> {
        done.map_err(io::Error::from)
    }
    let here = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    refused("a TCP socket", TcpStream::connect("127.0.0.1:1"));
    refused("a UDP socket", UdpSocket::bind("127.0.0.1:0"));
    refused("a unix socket", UnixStream::connect("/dev/log"));
    refused("a pair of sockets", UnixStream::pair());
    refused("connect", before.udp.connect(here));
    refused("a program", Command::new("/bin/true").spawn());
    // Ignored where it arrives.
    for process in [before.parent, nix::unistd::getpid()] {
        refused("a signal", call(kill(process, Signal::SIGURG)));
    }
    refused("a namespace", call(unshare(CloneFlags::CLONE_NEWUSER)));
    refused("to cut a file", before.file.set_len(0));
    refused("to remove a file", std::fs::remove_file("/tmp/pipeban"));
    refused("a directory", std::fs::create_dir("/tmp/pipeban"));
    refused("a link", std::os::unix::fs::symlink("/", "/tmp/pipeban"));
    refused("to change to a directory", std::env::set_current_dir("/"));
    let more = setrlimit(Resource::RLIMIT_NOFILE, 1, 1);
    refused("other limits", call(more));
    refused("to be dumpable", call(prctl::set_dumpable(true)));
    let memory = nix::sys::memfd::memfd_create(c"x", nix::sys::memfd::MFdFlags::empty());
    refused("a file in memory", call(memory));
    let own = nix::fcntl::fcntl(
        &before.file,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_ASYNC),
    );
    refused("other flags", call(own));
}

/// Threads, time, memory, random numbers, descriptors that it has, and processes looked up.
fn what_a_worker_does(mut before: Before) {
    before.ours.write_all(b"hit").unwrap();
    let mut text = [0; 3];
    before.theirs.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hit");
    let computed = std::thread::Builder::new().name("match".into()).spawn(|| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        let numbers: std::collections::HashMap<u64, Vec<u8>> =
            (0..100).map(|n| (n, vec![0; 100_000])).collect();
        let pattern = regex::bytes::Regex::new(r"(?i)\b(a|b)+c\b").unwrap();
        (numbers.len(), pattern.is_match(b"x abc y"))
    });
    assert_eq!(computed.unwrap().join().unwrap(), (100, true));
    let parent = std::fs::read_to_string(format!("/proc/{}/stat", before.parent)).unwrap();
    assert!(!parent.is_empty());
    assert!(before.ours.try_clone().is_ok());
}
