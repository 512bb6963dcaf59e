use super::*;
use crate::skip::skip_without;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

fn settings(dir: &Path) -> config::Syslog {
    config::Syslog {
        target: config::SyslogTarget::Unix(dir.join("log.sock")),
        log_file: Some(dir.join("pipeban.log")),
        ..config::Syslog::default()
    }
}

fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let n = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..n].to_vec()).unwrap()
}

/// Waits for something that another thread or process does; loud when it never happens.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn one_line_is_one_datagram_with_tag_and_local_time() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = UnixDatagram::bind(dir.path().join("log.sock")).unwrap();
    log(
        &settings(dir.path()),
        Severity::Notice,
        "[a] Ban 203.0.113.9\nfake\u{202e}",
    );
    let line = receive(&daemon);
    let tag = format!(
        "pipeban[{}]: [a] Ban 203.0.113.9\\x0afake\\u{{202e}}",
        std::process::id()
    );
    assert!(line.starts_with("<85>"), "{line}");
    assert_eq!(&line[4 + 16..], tag);
    let file = std::fs::read_to_string(dir.path().join("pipeban.log")).unwrap();
    assert!(file.contains("]: NOTICE  [a] Ban 203.0.113.9"), "{file}");
    let meta = std::fs::metadata(dir.path().join("pipeban.log")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_stream_socket_gets_messages_ended_by_nul() {
    use std::io::Read;
    let dir = tempfile::tempdir().unwrap();
    let daemon = UnixListener::bind(dir.path().join("log.sock")).unwrap();
    log(&settings(dir.path()), Severity::Err, "not banning at all");
    let mut text = String::new();
    daemon
        .accept()
        .unwrap()
        .0
        .read_to_string(&mut text)
        .unwrap();
    assert!(
        text.starts_with("<83>") && text.ends_with("not banning at all\0"),
        "{text}"
    );
}

#[test]
fn a_daemon_that_accepts_no_connection_blocks_no_caller() {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
    use nix::sys::socket::{bind, listen, socket};
    use std::os::fd::AsRawFd;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.sock");
    let flags = SockFlag::SOCK_CLOEXEC;
    let daemon = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    bind(daemon.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&daemon, Backlog::new(0).unwrap()).unwrap();
    // its queue has room for one
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    log(&settings(dir.path()), Severity::Err, "one");
    let alerts = Alerts::start(&settings(dir.path()), false).unwrap();
    alerts.log(Severity::Notice, "two");
    until("trouble reported", || !alerts.troubles().is_empty());
    alerts.finish();
    let file = std::fs::read_to_string(dir.path().join("pipeban.log")).unwrap();
    assert!(file.contains(" one\n") && file.contains(" two\n"), "{file}");
}

#[test]
fn lines_logged_without_a_daemon_arrive_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("log.sock");
    let daemon = UnixDatagram::bind(&socket).unwrap();
    let alerts = Alerts::start(&settings(dir.path()), false).unwrap();
    alerts.log(Severity::Notice, "one");
    assert!(receive(&daemon).ends_with(": one"));
    drop(daemon);
    std::fs::remove_file(&socket).unwrap();
    alerts.log(Severity::Notice, "two");
    until("trouble reported", || !alerts.troubles().is_empty());
    let daemon = UnixDatagram::bind(&socket).unwrap();
    assert!(receive(&daemon).ends_with(": two"));
    until("trouble over", || alerts.troubles().is_empty());
    alerts.finish();
}

#[test]
fn a_flood_of_found_lines_drops_no_ban_line() {
    let dir = tempfile::tempdir().unwrap();
    let alerts = Alerts::start(&settings(dir.path()), false).unwrap();
    for n in 0..20_000 {
        alerts.log(Severity::Info, "Found");
        if n % 100 == 0 {
            alerts.log(Severity::Notice, "Ban");
        }
    }
    let file = || std::fs::read_to_string(dir.path().join("pipeban.log")).unwrap_or_default();
    until("the rest counted", || file().contains("dropped"));
    let count = |word: &str| file().lines().filter(|line| line.ends_with(word)).count();
    assert_eq!(count(" Ban"), 200);
    assert!(
        (100..5_000).contains(&count(" Found")),
        "{}",
        count(" Found")
    );
    alerts.finish();
}

#[test]
fn a_rotated_log_file_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipeban.log");
    let mut file = LogFile::new(&path, config::LineFormat::Text);
    file.append(&line_now(Severity::Err, "one", None)).unwrap();
    std::fs::rename(&path, dir.path().join("pipeban.log.1")).unwrap();
    file.append(&line_now(Severity::Err, "two", None)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.ends_with("two\n") && !text.contains("one"), "{text}");
    assert_eq!(&text[4..5], "-");
    assert_eq!(&text[19..20], ",");
}

#[test]
fn a_log_file_that_is_a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipeban.log");
    std::os::unix::fs::symlink(dir.path().join("victim"), &path).unwrap();
    assert!(
        LogFile::new(&path, config::LineFormat::Text)
            .append(&line_now(Severity::Err, "one", None))
            .is_err()
    );
    assert!(!dir.path().join("victim").exists());
}

struct Rsyslogd(Child);

impl Rsyslogd {
    fn start(dir: &Path) -> Rsyslogd {
        Rsyslogd::with(dir, "")
    }

    /// With one more statement.
    fn with(dir: &Path, more: &str) -> Rsyslogd {
        let conf = format!(
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{0}/log.sock\" CreatePath=\"off\")\n\
             {more}\n\
             template(name=\"t\" type=\"string\" string=\"%programname%|%syslogtag%|%syslogfacility-text%.%syslogseverity-text%|%timegenerated%|%timereported%|%hostname%|%procid%|%msg%\\n\")\n\
             *.* action(type=\"omfile\" file=\"{0}/out.log\" template=\"t\")\n",
            dir.display()
        );
        std::fs::write(dir.join("rsyslog.conf"), conf).unwrap();
        let child = Command::new("/usr/sbin/rsyslogd")
            .args(["-n", "-f"])
            .arg(dir.join("rsyslog.conf"))
            .arg("-i")
            .arg(dir.join("rsyslog.pid"))
            .spawn()
            .unwrap();
        until("rsyslogd listens", || dir.join("log.sock").exists());
        Rsyslogd(child)
    }
}

impl Drop for Rsyslogd {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_rsyslogd_reads_tag_priority_and_time_also_after_its_restart() {
    if !Path::new("/usr/sbin/rsyslogd").exists() {
        return skip_without("rsyslog");
    }
    let dir = tempfile::tempdir().unwrap();
    let out = || std::fs::read_to_string(dir.path().join("out.log")).unwrap_or_default();
    let daemon = Rsyslogd::start(dir.path());
    let alerts = Alerts::start(&settings(dir.path()), false).unwrap();
    alerts.log(Severity::Notice, "[a] Ban 203.0.113.9 for 1h (5 in 41s)");
    until("the first line", || out().contains("203.0.113.9"));
    drop(daemon);
    let _ = std::fs::remove_file(dir.path().join("log.sock"));
    alerts.log(Severity::Notice, "[a] Ban 203.0.113.10 for 1h (5 in 41s)");
    until("trouble reported", || !alerts.troubles().is_empty());
    let _daemon = Rsyslogd::start(dir.path());
    until("the second line", || out().contains("203.0.113.10"));
    alerts.finish();
    let text = out();
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.splitn(8, '|').collect()).collect();
    let ours: Vec<_> = lines.iter().filter(|l| l[0] == "pipeban").collect();
    assert_eq!(ours.len(), 2, "{lines:?}");
    for line in &ours {
        assert_eq!(line[1], format!("pipeban[{}]:", std::process::id()));
        assert_eq!(line[2], "authpriv.notice");
        assert!(line[7].starts_with(" [a] Ban 203.0.113."), "{line:?}");
    }
    // without an error the reported time is the time of reading, to the second or nearly so
    assert_eq!(ours[0][3].len(), ours[0][4].len());
    assert_eq!(ours[0][3][..10], ours[0][4][..10]);
}

#[test]
fn a_real_rsyslogd_reads_both_forms_over_udp() {
    if !Path::new("/usr/sbin/rsyslogd").exists() {
        return skip_without("rsyslog");
    }
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago.
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let input = format!(
        "module(load=\"imudp\") input(type=\"imudp\" address=\"127.0.0.1\" port=\"{}\")",
        address.port()
    );
    let _daemon = Rsyslogd::with(dir.path(), &input);
    let host = nix::unistd::gethostname().unwrap();
    let host = host.to_str().unwrap();
    for (format, space) in [
        (config::SyslogFormat::Rfc3164, " "),
        (config::SyslogFormat::Rfc5424, ""),
    ] {
        let settings = config::Syslog {
            target: config::SyslogTarget::Udp(address),
            format,
            ..settings(dir.path())
        };
        let mut last = Vec::new();
        until("the line", || {
            // What is sent before the daemon listens is lost.
            log(&settings, Severity::Notice, &format!("[a] Ban {format:?}"));
            let out = std::fs::read_to_string(dir.path().join("out.log")).unwrap_or_default();
            let line = out
                .lines()
                .find(|line| line.ends_with(&format!("{format:?}")));
            last = line
                .iter()
                .flat_map(|l| l.splitn(8, '|'))
                .map(str::to_owned)
                .collect();
            !last.is_empty()
        });
        let pid = std::process::id().to_string();
        assert_eq!(last[0], "pipeban");
        assert_eq!(last[2], "authpriv.notice");
        assert_eq!(last[3][..10], last[4][..10]);
        assert_eq!(last[5..7], [host, &pid]);
        assert_eq!(last[7], format!("{space}[a] Ban {format:?}"));
    }
}

#[test]
fn as_json_each_line_is_one_object_with_the_fields_of_its_event() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = UnixDatagram::bind(dir.path().join("log.sock")).unwrap();
    let json = config::Syslog {
        log_format: config::LineFormat::Json,
        ..settings(dir.path())
    };
    let alerts = Alerts::start(&json, false).unwrap();
    let found = crate::jail::Action::Found {
        jail: "apache-auth".parse().unwrap(),
        client: "203.0.113.70".parse().unwrap(),
        count: 2,
        maxretry: 5,
        findtime: Duration::from_secs(600),
    };
    let (severity, text) = words(&found).unwrap();
    alerts.log_event(severity, &text, details(&found));
    alerts.log(Severity::Warning, "a \"quoted\"\nproblem\u{202e}");
    alerts.finish();
    let file = std::fs::read_to_string(dir.path().join("pipeban.log")).unwrap();
    let lines: Vec<serde_json::Value> = file
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{file}");
    let mut first = lines[0].clone();
    let time = first["time"].take();
    assert!(
        time.as_str().unwrap().parse::<Timestamp>().is_ok(),
        "{time}"
    );
    let expected = serde_json::json!({
        "time": null, "level": "info", "pid": std::process::id(),
        "message": "[apache-auth] Found 203.0.113.70 (2/5 in 10m)",
        "event": "found", "jail": "apache-auth", "host": "203.0.113.70",
        "count": 2, "maxretry": 5, "findtime": 600,
    });
    assert_eq!(first, expected);
    assert_eq!(lines[1]["message"], r#"a "quoted"\x0aproblem\u{202e}"#);
    assert!(lines[1].get("event").is_none());
    let syslog = receive(&daemon);
    let (head, object) = syslog.split_once(": ").unwrap();
    assert!(
        head.ends_with(&format!("pipeban[{}]", std::process::id())),
        "{head}"
    );
    let object: serde_json::Value = serde_json::from_str(object).unwrap();
    assert_eq!(object["message"], expected["message"]);
}
