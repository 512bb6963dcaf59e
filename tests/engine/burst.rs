//! Every client of a burst is banned, however far the engine is behind.

use std::io::Write as _;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Lab, until};

const CLIENTS: u32 = 60_000;
const JAIL: &str = "[jails.at-once]\nlog = \"error\"\nfilter = \"f\"\nmaxretry = 1\n";

#[test]
fn sixty_thousand_attackers_of_one_burst_are_banned_and_no_hit_is_lost() {
    let mut lab = Lab::new();
    let filter = "[Definition]\nfailregex = ^.*: <HOST>$\n";
    std::fs::write(lab.path("filters.d/f.conf"), filter).unwrap();
    lab.configure(JAIL);
    lab.start();
    let log = lab.path("error.log");
    let logger = lab
        .command(&["log", "error"])
        .arg(&log)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut logger = logger.unwrap();
    let mut pipe = logger.stdin.take().unwrap();
    let line = |number: u32| {
        let client = std::net::Ipv4Addr::from_bits((11 << 24) + number);
        format!(
            "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 9] [client {client}:1] : {client}\n"
        )
    };
    let banned = |lab: &Lab| -> u32 {
        let count = "SELECT count(DISTINCT net) FROM bans WHERE ended IS NULL";
        lab.database()
            .query_row(count, [], |row| row.get(0))
            .unwrap()
    };
    pipe.write_all(line(1).as_bytes()).unwrap();
    until("the first client is banned", || banned(&lab) == 1);

    let engine = Pid::from_raw(lab.engine.as_ref().unwrap().id().cast_signed());
    kill(engine, Signal::SIGSTOP).unwrap();
    let mut length = line(1).len();
    for number in 2..=CLIENTS {
        let line = line(number);
        length += line.len();
        pipe.write_all(line.as_bytes()).unwrap();
    }
    until("Apache's lines are in its log", || {
        std::fs::metadata(&log).unwrap().len() == length as u64
    });
    kill(engine, Signal::SIGCONT).unwrap();
    let mut before = 0;
    while before < CLIENTS {
        // As long as it makes progress.
        until("more of them are banned", || banned(&lab) > before);
        before = banned(&lab);
    }
    let worker = lab.status()["workers"][0].clone();
    assert_eq!(
        (&worker["hits"], &worker["unsent"]),
        (&CLIENTS.into(), &0.into()),
        "{worker}"
    );
    drop(pipe);
    assert!(logger.wait().unwrap().success());
}
