//! The real engine binary in a temporary directory, mostly with the dry-run back end: only the tests
//! about rights need root, and say so when they are skipped.

mod bounds;
mod burst;
mod clocks;
mod crawlers;
mod escapes;
mod exemptions;
mod guarded;
mod history;
mod hooks;
mod kills;
mod lasting;
mod metrics;
#[cfg(feature = "measure")]
mod million;
mod owners;
mod status;
mod top;
mod transfer;
mod trouble;
mod undecided;
mod weight;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pipeban::control::{Counters, LineHit, Reply, Request, VERSION, WorkerHello, encode};
use pipeban::record::{ClientSource, Kind};
use pipeban::sys::clock;
use serde_json::Value;

use crate::support::skip;

const PIPEBAN: &str = env!("CARGO_BIN_EXE_pipeban");
const LONG: Duration = Duration::from_secs(30);

const JAILS: &str = "
[jails.often]
log = \"error\"
filter = \"f\"
maxretry = 3
[jails.at-once]
log = \"error\"
filter = \"f\"
maxretry = 1
[jails.count]
log = \"error\"
filter = \"f\"
maxretry = 1000000
findtime = \"1d\"
[jails.watch]
log = \"error\"
filter = \"f\"
maxretry = 1
enforce = false
";

/// A directory with a configuration, and the engine that runs on it.
struct Lab {
    dir: tempfile::TempDir,
    engine: Option<Child>,
    /// Variables that only the engine gets.
    environment: Vec<(&'static str, PathBuf)>,
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(dir.path().join("filters.d")).unwrap();
        let filter =
            "[Definition]\nfailregex = ^.*client denied by server configuration: <HOST>$\n";
        std::fs::write(dir.path().join("filters.d/f.conf"), filter).unwrap();
        let lab = Lab {
            dir,
            engine: None,
            environment: Vec::new(),
        };
        lab.configure(JAILS);
        lab
    }

    fn started() -> Lab {
        let mut lab = Lab::new();
        lab.start();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, jails: &str) {
        self.configure_with("backend = \"dry-run\"", jails);
    }

    /// With a real firewall, in a namespace.
    fn configure_with(&self, firewall: &str, jails: &str) {
        let dir = self.dir.path().display();
        let text = format!(
            "[paths]\nruntime = \"{dir}/run\"\nstate = \"{dir}/state\"\nshare = \"{dir}/share\"\n\
             [firewall]\n{firewall}\n\
             [syslog]\ntarget = \"unix:{dir}/log.sock\"\nlog_file = \"{dir}/pipeban.log\"\n{jails}"
        );
        std::fs::write(self.path("pipeban.toml"), text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(PIPEBAN), args)
    }

    fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(self.path("pipeban.toml"))
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Exit status and what was said.
    fn say(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    }

    fn start(&mut self) {
        self.begin();
        until("the engine listens", || {
            UnixStream::connect(self.socket()).is_ok()
        });
    }

    /// Starts it and waits for nothing.
    fn begin(&mut self) {
        let mut command = self.command(&["engine"]);
        command.envs(self.environment.clone());
        self.engine = Some(command.stderr(Stdio::inherit()).spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            engine.kill().unwrap();
            engine.wait().unwrap();
        }
    }

    fn stop(&mut self) {
        let (exit, text) = self.say(&["engine", "--stop"]);
        assert_eq!(exit, 0, "{text}");
        let status = self.engine.take().unwrap().wait().unwrap();
        assert_eq!(status.code(), Some(0));
    }

    fn socket(&self) -> PathBuf {
        self.path("run/engine.sock")
    }

    fn status(&self) -> Value {
        let output = self.run(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn jail(&self, name: &str) -> Value {
        let status = self.status();
        let jails = status["jails"].as_array().unwrap();
        jails
            .iter()
            .find(|jail| jail["name"] == name)
            .cloned()
            .unwrap_or(Value::Null)
    }

    /// Who is banned by the jail, and whether the firewall says so.
    fn banned(&self, jail: &str) -> BTreeMap<String, bool> {
        let jail = self.jail(jail);
        let banned = jail["banned"].as_array().into_iter().flatten();
        let ban = |ban: &Value| {
            (
                ban["host"].as_str().unwrap().to_owned(),
                ban["in_force"] == true,
            )
        };
        banned.map(ban).collect()
    }

    /// Who has a ban of the jail in the database that has not ended.
    fn stored(&self, jail: &str) -> BTreeSet<String> {
        let database = self.database();
        let mut select = database
            .prepare("SELECT net FROM bans WHERE ended IS NULL AND jail = ?")
            .unwrap();
        let rows = select
            .query_map([jail], |row| row.get::<_, String>(0))
            .unwrap();
        rows.map(|net| net.unwrap().trim_end_matches("/32").to_owned())
            .collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("pipeban.log")).unwrap_or_default()
    }

    fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path("state/pipeban.sqlite3")).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The elements of pipeban's table in this thread's namespace, each with the seconds it has left;
/// `None`: permanent.
fn held() -> BTreeMap<String, Option<u64>> {
    let table = crate::kernel::world::run("nft -j list table inet pipeban");
    let table: Value = serde_json::from_str(&table).unwrap();
    let objects = table["nftables"].as_array().unwrap();
    let elements = objects
        .iter()
        // The others hold ports.
        .filter(|object| {
            matches!(
                object["set"]["type"].as_str(),
                Some("ipv4_addr" | "ipv6_addr")
            )
        })
        .filter_map(|object| object["set"]["elem"].as_array());
    let element = |element: &Value| {
        let timed = &element["elem"];
        let net = if timed.is_null() {
            element
        } else {
            &timed["val"]
        };
        (net.as_str().unwrap().to_owned(), timed["expires"].as_u64())
    };
    elements.flatten().map(element).collect()
}

/// One connection to the engine.
struct Line {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Line {
    fn connect(socket: &Path) -> std::io::Result<Line> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LONG))?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Line { stream, reader })
    }

    fn worker(socket: &Path, stream: u64) -> std::io::Result<(Line, Option<u64>)> {
        let mut line = Line::connect(socket)?;
        line.send(&hello(stream, VERSION))?;
        line.welcome()
    }

    fn welcome(mut self) -> std::io::Result<(Line, Option<u64>)> {
        match self.receive()? {
            Reply::Welcome { high_water, .. } => Ok((self, high_water)),
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, request: &Request) -> std::io::Result<()> {
        self.stream.write_all(&encode(request))
    }

    fn receive(&mut self) -> std::io::Result<Reply> {
        let mut text = String::new();
        if self.reader.read_line(&mut text)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&text)?)
    }

    fn ack(&mut self) -> std::io::Result<(u64, Vec<String>)> {
        match self.receive()? {
            Reply::Ack { offset, log_lines } => Ok((offset, log_lines)),
            other => panic!("{other:?}"),
        }
    }
}

fn hello(stream: u64, version: u32) -> Request {
    Request::Worker(WorkerHello {
        version,
        stream,
        pid: std::process::id(),
        kind: Kind::Error,
        path: Some("/var/log/apache2/error.log".into()),
        config: Some("0123456789abcdef".into()),
        apache: Vec::new(),
        bytes: None,
    })
}

fn hit(offset: u64, client: &str, jails: &[&str]) -> LineHit {
    LineHit {
        offset,
        arrived: u64::try_from(clock::boottime().as_nanos()).unwrap(),
        client: client.parse().unwrap(),
        peer: None,
        claim: None,
        vhost: None,
        source: ClientSource::Port,
        answered: false,
        jails: jails
            .iter()
            .map(|jail| (jail.parse().unwrap(), 1, 1))
            .collect(),
        config: "0123456789abcdef".into(),
        evidence: "GET /x".into(),
    }
}

#[test]
fn hits_lead_to_a_ban_that_is_logged_and_acknowledged_after_its_commit() {
    let lab = Lab::started();
    let (mut worker, known) = Line::worker(&lab.socket(), 7).unwrap();
    assert_eq!(known, None);
    let hits = (1..=4)
        .map(|n| hit(n * 100, "203.0.113.9", &["often"]))
        .collect();
    worker.send(&Request::Hits(hits)).unwrap();
    let (offset, logged) = worker.ack().unwrap();
    let kept: i64 = lab
        .database()
        .query_row("SELECT offset FROM streams WHERE stream = 7", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!((offset, kept), (400, 400));
    assert_eq!(
        logged,
        [
            "[often] Found 203.0.113.9 (1/3 in 10m)",
            "[often] Found 203.0.113.9 (2/3 in 10m)",
            "[often] Found 203.0.113.9 (3/3 in 10m)",
            "[often] Ban 203.0.113.9 for 1h (3 in under 1s)",
            "[often] 203.0.113.9 already banned",
        ]
    );
    until("the log file has it", || {
        lab.log().contains("] NOTICE")
            || lab
                .log()
                .contains("]: NOTICE  [often] Ban 203.0.113.9 for 1h")
    });
    let jail = lab.jail("often");
    assert_eq!(jail["currently_banned"], 1);
    assert_eq!(jail["total_failed"], 4);
    assert_eq!(jail["banned"][0]["host"], "203.0.113.9");
    // what is sent again counts once, and is acknowledged
    let again = (1..=4)
        .map(|n| hit(n * 100, "203.0.113.10", &["often"]))
        .collect();
    worker.send(&Request::Hits(again)).unwrap();
    assert_eq!(worker.ack().unwrap(), (400, vec![]));
    assert_eq!(lab.jail("often")["total_failed"], 4);
}

#[test]
fn an_offset_that_no_stream_has_blinds_no_later_worker() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let forged = hit(u64::MAX, "203.0.113.9", &["often"]);
    worker.send(&Request::Hits(vec![forged])).unwrap();
    assert_eq!(worker.ack().unwrap().0, u64::MAX);
    let Request::Worker(hello) = hello(7, VERSION) else {
        unreachable!()
    };
    let bytes = Some(1000);
    let mut next = Line::connect(&lab.socket()).unwrap();
    next.send(&Request::Worker(WorkerHello { bytes, ..hello }))
        .unwrap();
    let (mut next, known) = next.welcome().unwrap();
    assert_eq!(known, None);
    let hits = vec![hit(900, "203.0.113.9", &["often"])];
    next.send(&Request::Hits(hits)).unwrap();
    assert_eq!(next.ack().unwrap().0, 900);
    assert_eq!(lab.jail("often")["total_failed"], 2);
}

#[test]
fn hits_that_arrive_together_are_all_counted_in_order() {
    const CLIENTS: u64 = 250;
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let one = |n: u64| {
        let client = format!("11.0.0.{n}");
        encode(&Request::Hits(vec![hit(n, &client, &["at-once"])]))
    };
    let mut flood: Vec<u8> = (1..=CLIENTS).flat_map(one).collect();
    let counters = Counters {
        lines: 10,
        ..Counters::default()
    };
    flood.extend(encode(&Request::Counters(counters)));
    // The last of them again, and one that is new.
    flood.extend(one(CLIENTS));
    let new = hit(CLIENTS + 1, "203.0.113.9", &["at-once"]);
    flood.extend(encode(&Request::Hits(vec![new])));
    worker.stream.write_all(&flood).unwrap();
    let mut last = 0;
    while last < CLIENTS + 1 {
        let (offset, _) = worker.ack().unwrap();
        assert!(offset > last || offset == CLIENTS, "{offset} after {last}");
        last = offset;
    }
    let jail = lab.jail("at-once");
    assert_eq!(jail["total_failed"], CLIENTS + 1, "{jail}");
    assert_eq!(jail["total_banned"], CLIENTS + 1);
    assert_eq!(lab.status()["workers"][0]["lines"], 10);
}

#[test]
fn the_engine_does_not_trust_what_a_hit_says() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let mut behind = hit(5, "203.0.113.12", &["at-once"]);
    behind.peer = Some("192.0.2.7".parse().unwrap());
    let hits = vec![
        hit(1, "127.0.0.1", &["at-once"]),
        hit(2, "10.1.2.3", &["at-once"]),
        hit(3, "203.0.113.11", &["no-such-jail"]),
        hit(4, "203.0.113.11", &["watch"]),
        behind,
    ];
    worker.send(&Request::Hits(hits)).unwrap();
    assert_eq!(
        worker.ack().unwrap().1,
        [
            "[at-once] Ignore 127.0.0.1 by ignoreip",
            "[at-once] Ignore 10.1.2.3 by private-range",
            "[watch] Found 203.0.113.11 (1/1 in 10m)",
            "[watch] Would Ban 203.0.113.11 for 1h (1 in under 1s)",
            "[at-once] Found 203.0.113.12 (1/1 in 10m)",
            "[at-once] Ban 203.0.113.12 for 1h (1 in under 1s) not enforceable (behind 192.0.2.7)",
        ]
    );
    let status = lab.status();
    let warnings = status["warnings"].to_string();
    let alarm = "clients behind the proxy 192.0.2.7 attack";
    until("the alarm", || {
        lab.status()["warnings"].to_string().contains(alarm)
    });
    assert!(
        warnings.contains("hits for jails that are not in the configuration: 1"),
        "{warnings}"
    );
    assert_eq!(lab.jail("watch")["currently_banned"], 0);
    assert_eq!(lab.jail("watch")["observed"][0]["host"], "203.0.113.11");
    assert_eq!(lab.jail("at-once")["banned"][0]["behind"], "192.0.2.7");
}

#[test]
fn a_shared_address_is_banned_shortly_and_only_by_jails_that_ban_at_once() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let addr = "203.0.113.9".parse().unwrap();
    worker.send(&Request::Shared { addr }).unwrap();
    let mut hits: Vec<LineHit> = (1..=3).map(|n| hit(n, "203.0.113.9", &["often"])).collect();
    hits.push(hit(4, "203.0.113.9", &["at-once"]));
    worker.send(&Request::Hits(hits)).unwrap();
    let logged = worker.ack().unwrap().1;
    assert!(
        logged[3].starts_with("[often] Ignore 203.0.113.9 by shared-address"),
        "{logged:?}"
    );
    assert!(
        logged[5].starts_with("[at-once] Ban 203.0.113.9 for 10m"),
        "{logged:?}"
    );
}

#[test]
fn a_killed_engine_loses_no_acknowledged_hit_and_counts_none_twice() {
    const HITS: u64 = 4_000;
    let mut lab = Lab::new();
    let (mut acked, mut kills) = (None::<u64>, 0u64);
    let seed = u64::from(std::process::id()) ^ clock::boottime().as_nanos() as u64;
    eprintln!("seed {seed}");
    let mut random = seed;
    while acked != Some(HITS - 1) {
        lab.start();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let life = Duration::from_millis(random >> 33 & 63);
        // The first twelve are killed early, and take no more than a part of the hits.
        let deadline = (kills < 12).then(|| Instant::now() + life);
        let share = if kills < 12 {
            HITS * (kills + 1) / 13
        } else {
            HITS
        };
        let reached = feed(&lab.socket(), acked, share, deadline);
        acked = reached;
        if deadline.is_some() {
            lab.kill();
            kills += 1;
        }
    }
    assert_eq!(kills, 12);
    assert_eq!(lab.jail("count")["total_failed"], HITS);
    let expected = HITS.div_ceil(10);
    let at_once = lab.jail("at-once");
    assert_eq!(at_once["currently_banned"], expected);
    assert_eq!(at_once["total_banned"], expected);
    // each restart restored what was banned before
    lab.kill();
    let before = lab.log().matches("Restore Ban").count() as u64;
    lab.start();
    until("all restored", || {
        lab.log().matches("Restore Ban").count() as u64 == before + expected
    });
    let rows: i64 = lab
        .database()
        .query_row("SELECT count(*) FROM bans", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows as u64, expected, "a ban was begun twice");
}

/// Sends hits that are not acknowledged yet, as a worker does, until all are or time is up.
/// Returns the last acknowledged.
fn feed(socket: &Path, acked: Option<u64>, hits: u64, deadline: Option<Instant>) -> Option<u64> {
    let late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
    let mut acked = acked;
    let Ok((mut worker, known)) = Line::worker(socket, 42) else {
        return acked;
    };
    assert!(known >= acked, "acknowledged {acked:?}, known {known:?}");
    let mut next = known.map_or(0, |known| known + 1);
    acked = known;
    let after = |acked: Option<u64>| acked.map_or(0, |acked| acked + 1);
    while !late() && acked != Some(hits - 1) {
        // One acknowledgement may stand for several messages.
        while next < hits && next < after(acked) + 140 {
            let until = hits.min(next + 7);
            let batch = (next..until).map(|n| {
                let client = format!("203.0.{}.{}", 113 + n / 2_550, n / 10 % 255);
                let jails: &[&str] = if n % 10 == 0 {
                    &["count", "at-once"]
                } else {
                    &["count"]
                };
                hit(n, &client, jails)
            });
            if worker.send(&Request::Hits(batch.collect())).is_err() {
                return acked;
            }
            next = until;
        }
        match worker.ack() {
            Ok((offset, _)) => acked = Some(offset),
            Err(_) => return acked,
        }
    }
    acked
}

#[test]
fn hits_before_a_restart_still_count() {
    let mut lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let hits = (1..=2).map(|n| hit(n, "203.0.113.9", &["often"])).collect();
    worker.send(&Request::Hits(hits)).unwrap();
    worker.ack().unwrap();
    lab.kill();
    lab.start();
    assert_eq!(lab.jail("often")["currently_failed"], 1);
    let (mut worker, known) = Line::worker(&lab.socket(), 7).unwrap();
    assert_eq!(known, Some(2));
    worker
        .send(&Request::Hits(vec![hit(3, "203.0.113.9", &["often"])]))
        .unwrap();
    let logged = worker.ack().unwrap().1;
    assert!(
        logged[1].starts_with("[often] Ban 203.0.113.9 for 1h (3 in "),
        "{logged:?}"
    );
}

#[test]
fn bans_by_hand_end_by_hand_and_by_time() {
    let mut lab = Lab::started();
    let manual = |lab: &Lab| lab.jail("manual")["currently_banned"].as_u64().unwrap_or(0);
    assert_eq!(lab.say(&["ban", "203.0.113.9", "--reason", "abuse"]).0, 0);
    assert_eq!(
        lab.say(&["ban", "2001:db8::1/64", "--for", "-1", "--jail", "often"])
            .0,
        0
    );
    assert_eq!(lab.jail("often")["banned"][0]["host"], "2001:db8::/64");
    assert_eq!(lab.jail("often")["banned"][0]["until"], Value::Null);
    assert_eq!(lab.jail("manual")["banned"][0]["reason"], "abuse");
    for (addr, reason) in [
        ("127.0.0.1", "`ignoreip` has 127.0.0.0/8"),
        ("10.1.2.3", "ban_private"),
        ("0.0.0.0/0", "`ignoreip` has 127.0.0.0/8"),
    ] {
        let (exit, text) = lab.say(&["ban", addr]);
        assert_eq!(exit, 2, "{text}");
        assert!(
            text.contains("never banned") && text.contains(reason),
            "{text}"
        );
    }
    let (exit, text) = lab.say(&["ban", "203.0.113.9", "--jail", "oftn"]);
    assert_eq!(exit, 2);
    assert!(
        text.contains("the jails are: at-once, count, often, watch"),
        "{text}"
    );
    // a command that has answered survives a kill
    lab.kill();
    lab.start();
    assert_eq!(manual(&lab), 1);
    assert_eq!(lab.say(&["unban", "203.0.113.10"]).0, 1);
    assert_eq!(lab.say(&["unban", "203.0.113.9"]).0, 0);
    assert_eq!(lab.say(&["unban", "203.0.113.9"]).0, 1);
    assert_eq!(lab.say(&["unban", "2001:db8::77", "--forget"]).0, 0);
    assert_eq!(lab.say(&["ban", "203.0.113.20", "--for", "1"]).0, 0);
    until("its time is over", || manual(&lab) == 0);
    until("it is logged", || {
        lab.log().contains("[manual] Unban 203.0.113.20\n")
    });
    assert_eq!(lab.say(&["unban", "--all"]).0, 1);
    assert_eq!(lab.say(&["unban"]).0, 64);
    assert_eq!(lab.say(&["ban", "example.org"]).0, 64);
}

#[test]
fn an_allowed_address_is_unbanned_and_never_banned() {
    let mut lab = Lab::started();
    lab.say(&["ban", "203.0.113.9"]);
    let (exit, text) = lab.say(&["allow", "203.0.113.0/28", "--reason", "tester"]);
    assert_eq!(exit, 0);
    assert!(text.contains("[manual] Unban 203.0.113.9"), "{text}");
    lab.kill();
    lab.start();
    let (exit, text) = lab.say(&["ban", "203.0.113.9"]);
    assert_eq!(exit, 2);
    assert!(text.contains("the allow-list has 203.0.113.0/28"), "{text}");
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    worker
        .send(&Request::Hits(vec![hit(1, "203.0.113.9", &["at-once"])]))
        .unwrap();
    assert_eq!(
        worker.ack().unwrap().1,
        ["[at-once] Ignore 203.0.113.9 by allow-list"]
    );
    assert!(
        lab.say(&["allow", "--list"])
            .1
            .contains("203.0.113.0/28 until `pipeban disallow` (tester)")
    );
    assert_eq!(lab.say(&["disallow", "203.0.113.9"]).0, 1);
    assert_eq!(lab.say(&["disallow", "203.0.113.0/28"]).0, 0);
    assert_eq!(lab.say(&["ban", "203.0.113.9"]).0, 0);
}

#[test]
fn the_emergency_stop_survives_restarts_and_needs_no_engine() {
    let mut lab = Lab::started();
    let off = |lab: &Lab| lab.status()["engine"]["off"].clone();
    lab.say(&["ban", "203.0.113.9"]);
    assert_eq!(lab.say(&["off"]).0, 0);
    assert!(off(&lab).is_object());
    let first = lab.status()["warnings"][0].to_string();
    assert!(first.contains("not banning at all"), "{first}");
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    worker
        .send(&Request::Hits(vec![hit(1, "203.0.113.10", &["at-once"])]))
        .unwrap();
    let (offset, logged) = worker.ack().unwrap();
    assert_eq!(offset, 1);
    assert!(logged[0].contains("the emergency stop is on"), "{logged:?}");
    assert_eq!(lab.jail("at-once")["total_failed"], 1);
    assert_eq!(lab.say(&["ban", "203.0.113.11"]).0, 2);
    lab.kill();
    lab.start();
    assert!(off(&lab).is_object());
    assert_eq!(lab.say(&["on"]).0, 0);
    assert_eq!(lab.say(&["on"]).0, 1);
    assert_eq!(off(&lab), Value::Null);
    assert_eq!(lab.jail("manual")["currently_banned"], 1);
    lab.stop();
    assert_eq!(lab.say(&["off", "--for", "1h"]).0, 0);
    lab.start();
    assert!(off(&lab)["until"].is_string());
    lab.stop();
    assert_eq!(lab.say(&["on"]).0, 0);
    assert_eq!(lab.say(&["on"]).0, 1);
    lab.start();
    assert_eq!(lab.say(&["off", "--for", "1"]).0, 0);
    until("it ends by itself", || off(&lab).is_null());
    assert!(!lab.path("state/off").exists());
}

#[test]
fn a_broken_configuration_is_refused_and_the_old_one_stays() {
    let mut lab = Lab::started();
    let mut keeper = Line::connect(&lab.socket()).unwrap();
    keeper.send(&Request::Keeper { version: VERSION }).unwrap();
    let config = |reply| match reply {
        Reply::Config { hash, text } => (hash, text),
        other => panic!("{other:?}"),
    };
    let (first, text) = config(keeper.receive().unwrap());
    assert_eq!(pipeban::control::config_hash(&text), first);
    lab.configure("[jails.often]\nmaxretry = \"no\"\n");
    let (exit, text) = lab.say(&["reload"]);
    assert_eq!(exit, 78, "{text}");
    assert!(
        text.contains("pipeban.toml:") && text.contains("the old configuration stays"),
        "{text}"
    );
    assert_eq!(lab.status()["engine"]["config"], *first);
    assert!(lab.status()["warnings"].to_string().contains("broken"));
    // a restart with the broken file: the last good one
    lab.kill();
    lab.start();
    assert_eq!(lab.status()["engine"]["config"], *first);
    let warnings = lab.status()["warnings"].to_string();
    assert!(warnings.contains("the last good one"), "{warnings}");
    until("it is logged", || {
        lab.log().contains("ERROR   the configuration is broken")
    });
    let mut keeper = Line::connect(&lab.socket()).unwrap();
    keeper.send(&Request::Keeper { version: VERSION }).unwrap();
    assert_eq!(config(keeper.receive().unwrap()).0, first);
    // corrected as it was, without a reload
    lab.configure(JAILS);
    until("the alarm ends", || {
        !lab.status()["warnings"].to_string().contains("broken")
    });
    // another broken file, which is deleted
    let extra = lab.path("conf.d/x.toml");
    std::fs::create_dir(lab.path("conf.d")).unwrap();
    std::fs::write(&extra, "x = [").unwrap();
    assert_eq!(lab.say(&["reload"]).0, 78);
    assert!(lab.status()["warnings"].to_string().contains("broken"));
    std::fs::remove_file(&extra).unwrap();
    until("the alarm ends", || {
        !lab.status()["warnings"].to_string().contains("broken")
    });
    // corrected: the keeper gets the new one
    lab.configure(&format!(
        "{JAILS}[jails.new]\nlog = \"error\"\nfilter = \"f\"\n"
    ));
    assert_eq!(lab.say(&["reload"]).0, 0);
    let (second, text) = config(keeper.receive().unwrap());
    assert_ne!(second, first);
    assert!(text.contains("\"new\""));
    assert_eq!(lab.jail("new")["enabled"], true);
    assert!(!lab.status()["warnings"].to_string().contains("broken"));
}

#[test]
fn without_any_configuration_there_is_no_engine() {
    let lab = Lab::new();
    lab.configure("[jails.often]\nmaxretry = \"no\"\n");
    let (exit, text) = lab.say(&["engine"]);
    assert_eq!(exit, 78, "{text}");
    assert!(text.contains("pipeban.toml:"), "{text}");
    let (exit, text) = lab.say(&["status"]);
    assert_eq!(exit, 2);
    assert!(text.contains("the engine is not running"), "{text}");
}

#[test]
fn a_second_engine_names_the_first_and_a_signal_ends_it_cleanly() {
    let mut lab = Lab::started();
    let engine = lab.engine.as_ref().unwrap().id();
    let (exit, text) = lab.say(&["engine"]);
    assert_eq!(exit, 2);
    assert!(text.contains(&format!("pid {engine}")), "{text}");
    lab.say(&["ban", "203.0.113.9"]);
    let pid = nix::unistd::Pid::from_raw(engine as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(lab.engine.take().unwrap().wait().unwrap().code(), Some(0));
    assert!(lab.log().contains("bans stay in force"));
    assert!(!lab.log().contains("Unban"));
    lab.start();
    assert_eq!(lab.jail("manual")["currently_banned"], 1);
    lab.stop();
    assert_eq!(lab.say(&["engine", "--stop"]).0, 1);
}

#[test]
fn bans_work_with_a_database_that_cannot_be_used() {
    let mut lab = Lab::new();
    std::fs::create_dir_all(lab.path("state")).unwrap();
    std::fs::write(
        lab.path("state/pipeban.sqlite3"),
        "no database ".repeat(500),
    )
    .unwrap();
    lab.start();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    worker
        .send(&Request::Hits(vec![hit(1, "203.0.113.9", &["at-once"])]))
        .unwrap();
    assert_eq!(worker.ack().unwrap().0, 1);
    assert_eq!(lab.jail("at-once")["currently_banned"], 1);
    let warnings = lab.status()["warnings"].to_string();
    assert!(
        warnings.contains("was damaged") && warnings.contains(".broken-"),
        "{warnings}"
    );
    lab.kill();
    lab.start();
    assert_eq!(lab.jail("at-once")["currently_banned"], 1);
    assert!(!lab.status()["warnings"].to_string().contains("damaged"));
}

#[test]
fn a_message_that_makes_no_sense_ends_its_connection_and_delays_no_other() {
    let lab = Lab::started();
    let _idle: Vec<Line> = (0..300)
        .map(|_| Line::connect(&lab.socket()).unwrap())
        .collect();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    for nonsense in [
        b"{\"command\":\"no-such\"}\n".to_vec(),
        b"\xff\xfe\n".to_vec(),
        b"\n".to_vec(),
        vec![b'x'; 300_000],
        encode(&Request::Hits(vec![])),
        encode(&Request::Counters(Counters::default())),
    ] {
        let mut line = Line::connect(&lab.socket()).unwrap();
        // the engine may close before all is written
        let _ = line.stream.write_all(&nonsense);
        assert!(
            matches!(line.receive(), Ok(Reply::Refused { .. })),
            "{:?}",
            nonsense.get(..20)
        );
        assert!(line.receive().is_err());
    }
    let mut old = Line::connect(&lab.socket()).unwrap();
    old.send(&hello(9, VERSION + 1)).unwrap();
    let Ok(Reply::Refused { text, .. }) = old.receive() else {
        panic!()
    };
    assert!(text.contains("protocol"), "{text}");
    // a client that sends and does not read
    for _ in 0..20 {
        let mut deaf = Line::connect(&lab.socket()).unwrap();
        deaf.send(&Request::Command(pipeban::control::Command::Status {
            jail: None,
            newest: 1_000,
        }))
        .unwrap();
        std::mem::forget(deaf);
    }
    worker
        .send(&Request::Hits(vec![hit(1, "203.0.113.9", &["at-once"])]))
        .unwrap();
    assert_eq!(worker.ack().unwrap().0, 1);
    until("it is logged", || {
        lab.log().contains("malformed message") || lab.log().contains("ended: ")
    });
    let status = lab.status();
    assert_eq!(status["workers"].as_array().unwrap().len(), 1);
}

#[test]
fn status_shows_a_workers_counters() {
    let lab = Lab::started();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    let counters = Counters {
        lines: 10,
        bytes: 1_000,
        unparsed: 2,
        shed: 1,
        matching: true,
        ..Counters::default()
    };
    worker.send(&Request::Counters(counters)).unwrap();
    until("counters arrive", || {
        lab.status()["workers"][0]["lines"] == 10
    });
    let shown = lab.status()["workers"][0].clone();
    assert_eq!(shown["kind"], "error");
    assert_eq!(shown["shed"], 1);
    assert!(
        lab.say(&["status"])
            .1
            .contains("/var/log/apache2/error.log")
    );
    assert_eq!(lab.say(&["status", "no-such"]).0, 1);
    assert!(lab.say(&["status", "often"]).1.contains("often"));
    drop(worker);
    until("it is gone", || {
        lab.status()["workers"].as_array().unwrap().is_empty()
    });
}

/// A program by a name for users who may not enter its directory, as one below /root.
fn for_every_user(program: &Path) -> PathBuf {
    // It stays open.
    let open = std::fs::File::open(program).unwrap().into_raw_fd();
    format!("/proc/self/fd/{open}").into()
}

/// Runs a command as another user; `None` where that is not possible.
fn as_user(lab: &Lab, uid: u32, gid: u32, args: &[&str]) -> Option<i32> {
    let program = for_every_user(Path::new(PIPEBAN));
    let mut command = lab.command_of(&program, args);
    match command.uid(uid).gid(gid).output() {
        Ok(output) => output.status.code(),
        Err(error) => {
            skip(&format!(
                "cannot run a command as uid {uid}: {error} (needs root)"
            ));
            None
        }
    }
}

#[test]
fn root_may_command_adm_may_read_and_no_other_user_may_connect() {
    let lab = Lab::started();
    let adm = nix::unistd::Group::from_name("adm")
        .unwrap()
        .map(|group| group.gid.as_raw());
    let worker = pipeban::sys::privileges::worker_uid("pipeban");
    let Some(stranger) = as_user(&lab, 54_321, 54_321, &["status"]) else {
        return;
    };
    assert_eq!(stranger, 77);
    std::fs::write(lab.path("list"), "203.0.113.9\n").unwrap();
    let list = lab.path("list").display().to_string();
    for args in [
        &["import", "--jail", "often", &list][..],
        &["ban", "203.0.113.9"],
        &["off"],
        &["on"],
        &["reload"],
        &["engine", "--stop"],
    ] {
        assert_eq!(as_user(&lab, 54_321, 54_321, args), Some(77), "{args:?}");
        assert_eq!(as_user(&lab, worker, worker, args), Some(77), "{args:?}");
        if let Some(adm) = adm {
            assert_eq!(as_user(&lab, 54_321, adm, args), Some(77), "{args:?}");
        }
    }
    if let Some(adm) = adm {
        assert_eq!(as_user(&lab, 54_321, adm, &["status"]), Some(0));
        assert_eq!(as_user(&lab, 54_321, adm, &["export"]), Some(0));
    }
    assert_eq!(as_user(&lab, worker, worker, &["status"]), Some(77));
    assert_eq!(as_user(&lab, worker, worker, &["export"]), Some(77));
    let socket = std::fs::metadata(lab.socket()).unwrap();
    assert_eq!((socket.mode() & 0o777, socket.uid()), (0o660, 0));
    assert_eq!(socket.gid(), adm.unwrap_or(0));
    // Not as a worker either: a keeper, which is root, opens the worker's connection.
    for uid in [worker, 54_321] {
        assert!(helper(&lab, "connects", uid, uid).success(), "{uid}");
    }
}

/// Runs `helps_another_test` in a process of this user.
fn helper(lab: &Lab, task: &str, uid: u32, gid: u32) -> std::process::ExitStatus {
    spawn_helper(lab, task, uid, gid).wait().unwrap()
}

fn spawn_helper(lab: &Lab, task: &str, uid: u32, gid: u32) -> Child {
    Command::new(for_every_user(&std::env::current_exe().unwrap()))
        .args(["--exact", "engine::helps_another_test"])
        .env("PIPEBAN_TEST_SOCKET", lab.socket())
        .env("PIPEBAN_TEST_TASK", task)
        .stdout(Stdio::null())
        .uid(uid)
        .gid(gid)
        .spawn()
        .unwrap()
}

/// The other half of tests that need a process of another user.
#[test]
fn helps_another_test() {
    let Some(socket) = std::env::var_os("PIPEBAN_TEST_SOCKET").map(PathBuf::from) else {
        return;
    };
    match std::env::var("PIPEBAN_TEST_TASK").unwrap().as_str() {
        "connects" => {
            let error = UnixStream::connect(&socket).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        }
        "hoards" => {
            // Commands whose answers it never reads, and messages that never end.
            let mut open = Vec::new();
            let export = pipeban::control::Command::Export {
                jail: None,
                after: None,
            };
            for n in 0..200 {
                if let Ok(mut connection) = UnixStream::connect(&socket) {
                    let message = match n % 2 {
                        0 => encode(&Request::Command(export.clone())),
                        _ => vec![b'x'; 64 * 1_024],
                    };
                    let _ = connection.write_all(&message);
                    open.push(connection);
                }
            }
            loop {
                std::thread::park();
            }
        }
        "floods" => loop {
            // A full queue is an error too.
            let _ = UnixStream::connect(&socket);
        },
        other => panic!("{other}"),
    }
}

/// Processes that are ended with the test.
struct Ended(Vec<Child>);

impl Drop for Ended {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

#[test]
fn processes_that_connect_without_a_pause_stop_no_ban() {
    let lab = Lab::started();
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root (processes of other users)");
    }
    let adm = nix::unistd::Group::from_name("adm").unwrap().unwrap();
    let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
    // The first may connect, the others may not.
    let _flood = Ended(
        [adm.gid.as_raw(), adm.gid.as_raw(), 54_321, 54_321]
            .map(|gid| spawn_helper(&lab, "floods", 54_321, gid))
            .into(),
    );
    until("connections are refused", || {
        worker
            .send(&Request::Counters(Counters::default()))
            .unwrap();
        lab.status()["warnings"]
            .to_string()
            .contains("connections refused: too many")
    });
    for n in 1..=20 {
        let client = format!("203.0.113.{n}");
        let hits = Request::Hits(vec![hit(n, &client, &["at-once"])]);
        worker.send(&hits).unwrap();
        worker.ack().unwrap();
    }
    assert_eq!(lab.jail("at-once")["currently_banned"], 20);
}

#[test]
fn a_second_connection_for_a_stream_ends_the_first() {
    let lab = Lab::started();
    let (mut first, _) = Line::worker(&lab.socket(), 7).unwrap();
    let (mut second, _) = Line::worker(&lab.socket(), 7).unwrap();
    let (_other, _) = Line::worker(&lab.socket(), 8).unwrap();
    assert!(first.receive().is_err());
    let hits = Request::Hits(vec![hit(1, "203.0.113.1", &["at-once"])]);
    second.send(&hits).unwrap();
    assert_eq!(second.ack().unwrap().0, 1);
    assert_eq!(lab.status()["workers"].as_array().unwrap().len(), 2);
}

#[test]
fn a_workers_connection_takes_no_command() {
    let lab = Lab::started();
    for request in [
        Request::Keeper { version: VERSION },
        Request::Command(pipeban::control::Command::Off { seconds: None }),
        hello(7, VERSION),
    ] {
        let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
        worker.send(&request).unwrap();
        assert!(matches!(worker.receive(), Ok(Reply::Refused { .. })));
        assert!(worker.receive().is_err());
    }
    assert!(lab.status()["engine"]["off"].is_null());
}

/// By `make bench`.
#[cfg(feature = "measure")]
mod measure {
    use super::*;
    use crate::support::process::processor_time;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn measure_decision_latency_and_hits_per_second() {
        let lab = Lab::new();
        let syslog = UnixDatagram::bind(lab.path("log.sock")).unwrap();
        syslog.set_read_timeout(Some(LONG)).unwrap();
        let mut lab = lab;
        lab.start();
        let (mut worker, _) = Line::worker(&lab.socket(), 7).unwrap();
        let mut buffer = [0; 2_048];
        let mut samples: Vec<Duration> = (1..=50u64)
            .map(|n| {
                std::thread::sleep(Duration::from_millis(20));
                let request = Request::Hits(vec![hit(n, &format!("203.0.113.{n}"), &["at-once"])]);
                let start = Instant::now();
                worker.send(&request).unwrap();
                loop {
                    let length = syslog.recv(&mut buffer).unwrap();
                    if String::from_utf8_lossy(&buffer[..length]).contains("] Ban ") {
                        break;
                    }
                }
                let took = start.elapsed();
                worker.ack().unwrap();
                took
            })
            .collect();
        samples.sort_unstable();
        eprintln!(
            "hit written to the socket -> Ban line received by syslog: median {:?}, worst {:?}",
            samples[25], samples[49]
        );
        drop(syslog);
        let before = cpu_seconds(lab.engine.as_ref().unwrap().id());
        let start = Instant::now();
        const BATCHES: u64 = 500;
        let mut reader = worker
            .reader
            .get_ref()
            .try_clone()
            .map(BufReader::new)
            .unwrap();
        let acks = std::thread::spawn(move || {
            let mut text = String::new();
            for _ in 0..BATCHES {
                text.clear();
                assert!(reader.read_line(&mut text).unwrap() > 0);
            }
        });
        for batch in 0..BATCHES {
            let hits = (0..200).map(|n| {
                let offset = 1_000 + batch * 200 + n;
                hit(
                    offset,
                    &format!(
                        "198.{}.{}.{}",
                        18 + offset % 2,
                        offset / 7 % 256,
                        offset % 256
                    ),
                    &["count"],
                )
            });
            worker.send(&Request::Hits(hits.collect())).unwrap();
        }
        acks.join().unwrap();
        let hits = (BATCHES * 200) as f64;
        let rate = hits / start.elapsed().as_secs_f64();
        let busy = cpu_seconds(lab.engine.as_ref().unwrap().id()) - before;
        eprintln!(
            "hits acknowledged a second: {rate:.0}; for each second of the engine's CPU time: {:.0}",
            hits / busy
        );
    }

    fn cpu_seconds(pid: u32) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        processor_time(&stat).as_secs_f64()
    }
}
