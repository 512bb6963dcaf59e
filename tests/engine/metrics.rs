//! Metrics: printed, and served by a process without rights.

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};

use super::*;

/// With `[metrics]` in the configuration.
fn lab(metrics: &str) -> Lab {
    let mut lab = Lab::new();
    lab.configure(&format!("[metrics]\n{metrics}\n{JAILS}"));
    lab.start();
    lab
}

/// What the other side answers to these bytes, if it does.
fn ask(mut stream: impl Read + Write, request: &[u8]) -> String {
    // It may close before all is written.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn unix(path: &Path) -> UnixStream {
    let mut connected = None;
    // The file exists a moment before the process listens.
    until("it listens", || {
        connected = UnixStream::connect(path).ok();
        connected.is_some()
    });
    let stream = connected.unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// The process that serves, of all children of the engine.
fn server(lab: &Lab) -> Option<(i32, String)> {
    let engine = lab.engine.as_ref()?.id();
    let children = std::fs::read_to_string(format!("/proc/{engine}/task/{engine}/children"));
    let pids = children.ok()?;
    let mut pids = pids
        .split_whitespace()
        .map(|pid| pid.parse::<i32>().unwrap());
    pids.find_map(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let is_server = String::from_utf8_lossy(&words).contains("metrics-server");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        is_server.then_some((pid, status))
    })
}

#[test]
fn metrics_are_printed_for_the_textfile_collector() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let hits = vec![hit(1, "203.0.113.9", &["at-once"])];
    worker.send(&Request::Hits(hits)).unwrap();
    worker.ack().unwrap();
    let (exit, text) = lab.say(&["status", "--prometheus"]);
    assert_eq!(exit, 0, "{text}");
    for line in [
        "pipeban_jail_active_bans{jail=\"at-once\"} 1",
        "pipeban_jail_bans_total{jail=\"at-once\"} 1",
        "pipeban_emergency_stop 0",
        "pipeban_workers 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("203.0.113.9"), "{text}");
    assert_eq!(lab.say(&["status", "--prometheus", "--all"]).0, 64);
}

#[test]
fn every_request_gets_the_counters_from_a_process_without_rights() {
    // A port that is free, most likely still when the engine listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("metrics.sock");
    let mut lab = lab(&format!(
        "socket = \"{}\"\nlisten = \"{address}\"",
        socket.display()
    ));
    until("metrics are served", || {
        socket.exists()
            && ask(unix(&socket), b"GET / HTTP/1.1\r\n\r\n").contains("pipeban_workers 0")
    });
    let nonsense = [0, 255, b'\n', b'\n'];
    for request in [&b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"[..], &nonsense] {
        let answers = [
            ask(unix(&socket), request),
            ask(TcpStream::connect(address).unwrap(), request),
        ];
        for answer in answers {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(
                head.contains("\r\nContent-Type: text/plain; version=0.0.4"),
                "{head}"
            );
            assert!(
                head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
                "{head}"
            );
            assert!(body.contains("pipeban_build_info{version="), "{body}");
        }
    }
    // Requests without an end get nothing, and delay no other.
    let _slow: Vec<UnixStream> = (0..5)
        .map(|_| {
            let mut stream = unix(&socket);
            stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            stream
        })
        .collect();
    assert_eq!(ask(unix(&socket), &[b'a'; 20_000]), "");
    let half = unix(&socket);
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ask(half, b""), "");
    assert!(ask(unix(&socket), b"\n\n").contains("pipeban_problems"));
    let (pid, status) = server(&lab).expect("a process");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    if nix::unistd::geteuid().is_root() {
        assert_ne!(field("Uid:"), "0");
    }
    assert_eq!(u64::from_str_radix(&field("CapPrm:"), 16), Ok(0));
    assert_eq!(field("NoNewPrivs:"), "1");
    lab.stop();
    until("it has ended", || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
    assert!(!socket.exists());
}

#[test]
fn slow_clients_keep_no_other_from_its_answer() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let _lab = lab(&format!("listen = \"{address}\""));
    let connect = || -> TcpStream {
        let mut connected = None;
        until("it listens", || {
            connected = TcpStream::connect(address).ok();
            connected.is_some()
        });
        connected.unwrap()
    };
    let served = || ask(connect(), b"GET /metrics HTTP/1.1\r\n\r\n").contains("pipeban_workers 0");
    until("metrics are served", served);
    // Some send half of a request, some read no answer.
    let begin = Instant::now();
    let slow = |number: u32| {
        let mut stream = connect();
        let _ = stream.write_all(match number % 2 {
            0 => b"GET / HTTP/1.1\r\n",
            _ => b"GET / HTTP/1.1\r\n\r\n",
        });
        stream
    };
    let _slow: Vec<TcpStream> = (0..600).map(slow).collect();
    assert!(served() && served() && served());
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "not in time to tell"
    );
}

#[test]
fn an_address_that_another_program_has_is_an_alarm_and_a_reload_ends_it() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lab = lab(&format!("listen = \"{}\"", other.local_addr().unwrap()));
    let warnings = || lab.status()["warnings"].to_string();
    until("an alarm", || {
        warnings().contains("cannot serve metrics: 127.0.0.1:")
    });
    lab.configure(JAILS);
    assert_eq!(lab.say(&["reload"]).0, 0);
    until("it is over", || {
        !warnings().contains("cannot serve metrics")
    });
    lab.stop();
}

#[test]
fn a_socket_in_a_directory_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root (files of other users)");
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(54_321), None).unwrap();
    let socket = dir.path().join("metrics.sock");
    let lab = lab(&format!("socket = \"{}\"", socket.display()));
    let command = format!("chown root:root {}", dir.path().display());
    until("an alarm", || {
        lab.status()["warnings"].to_string().contains(&command)
    });
    assert!(!socket.exists());
}

/// By `make acceptance`.
#[cfg(feature = "acceptance")]
#[test]
fn acceptance_promtool_accepts_the_metrics() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let hits = vec![hit(1, "203.0.113.9", &["at-once"])];
    worker.send(&Request::Hits(hits)).unwrap();
    worker.ack().unwrap();
    let metrics = lab.run(&["status", "--prometheus"]).stdout;
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        return crate::support::skip_without("promtool");
    };
    promtool.stdin.take().unwrap().write_all(&metrics).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
}
