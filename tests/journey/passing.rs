//! Every line Apache writes arrives, whatever is reloaded.

use std::collections::HashMap;

use crate::support::apache::{ACCESS_LOG, BOTH_PIPES, ERROR_LOG};
use crate::support::backend::Backend;
use crate::support::http::{self, Connection};
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, eventually, process};

const REFERENCE: &str = "/var/log/apache2/reference.log";
const IN_FLIGHT: usize = 100;

#[test]
fn event_graceful_reloads_lose_no_line_of_a_hundred_slow_requests() {
    three_reloads(Mpm::Event, "graceful");
}

#[test]
fn event_hard_restarts_lose_no_line_of_what_was_answered() {
    three_reloads(Mpm::Event, "restart");
}

#[test]
fn prefork_graceful_reloads_lose_no_line_of_a_hundred_slow_requests() {
    three_reloads(Mpm::Prefork, "graceful");
}

#[test]
fn prefork_hard_restarts_lose_no_line_of_what_was_answered() {
    three_reloads(Mpm::Prefork, "restart");
}

#[test]
fn after_a_stop_every_line_is_written_and_no_logger_is_left() {
    for how in ["stop", "graceful-stop"] {
        let Some(world) = World::new() else { return };
        let apache = Apache::start(&world, Mpm::Event, BOTH_PIPES);
        let clients = world.clients();
        let targets: Vec<String> = (0..50).map(|n| format!("/closed/{how}-{n}-end")).collect();
        for target in &targets {
            let status = http::get(&clients, "198.51.100.10", SERVER4, target).expect("answered");
            assert_eq!(status, 403);
        }
        apache.stop(how);
        for log in [ACCESS_LOG, ERROR_LOG] {
            exactly_once(
                &world,
                log,
                how,
                targets.iter().map(|target| target.replace("/closed/", "/")),
            );
        }
        eventually(&format!("{how}: no logger is left"), || {
            let mut left = process::pipebans(&world.processes());
            left.retain(|process| process.argv.iter().any(|word| word == "log"));
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:#?}"))
            }
        });
    }
}

fn three_reloads(mpm: Mpm, how: &str) {
    let Some(world) = World::new() else { return };
    let backend = Backend::start(&world);
    let reference = format!("{BOTH_PIPES}CustomLog {REFERENCE} combined\n");
    let apache = Apache::start(&world, mpm, &reference);
    // A logger that has not begun to run is ended by a reload.
    apache.pipe("access");
    apache.pipe("error");
    let clients = world.clients();

    // Half of them end in an error line of the proxy, written by a child that Apache has long asked to end.
    let mut flight = Vec::new();
    for n in 0..IN_FLIGHT {
        let target = format!(
            "/slow/{}-{n}-end",
            if n % 2 == 0 { "fine" } else { "broken" }
        );
        let mut connection = Connection::open(&clients, "198.51.100.9", SERVER4).expect("connects");
        connection.ask(&target, "").expect("sent");
        flight.push((target, connection));
    }
    eventually("all requests are in flight", || match backend.waiting() {
        IN_FLIGHT => Ok(()),
        waiting => Err(format!("{waiting} of {IN_FLIGHT}")),
    });

    let mut answered = Vec::new();
    for round in 0..3 {
        apache.reload(how);
        backend.answer(IN_FLIGHT / 4);
        for n in 0..25 {
            let target = format!("/closed/quick-{round}-{n}-end");
            let status = http::get(&clients, "198.51.100.10", SERVER4, &target).expect("answered");
            answered.push((target, status));
        }
    }
    backend.answer(IN_FLIGHT);
    for (target, mut connection) in flight {
        if let Ok(status) = connection.answer() {
            answered.push((target, status));
        }
    }
    if how == "graceful" {
        assert_eq!(
            answered.len(),
            IN_FLIGHT + 75,
            "a graceful reload answers everybody"
        );
    }

    exactly_once(
        &world,
        ACCESS_LOG,
        "answered requests",
        answered.iter().map(|(target, _)| format!(" {target} ")),
    );
    let failed = answered.iter().filter(|(_, status)| *status >= 400);
    let in_error_log =
        |(target, _): &(String, u16)| target.rsplit('/').next().expect("a name").to_owned();
    exactly_once(
        &world,
        ERROR_LOG,
        "failed requests",
        failed.map(in_error_log),
    );
    eventually("the access log is what Apache wrote", || {
        let (ours, apaches) = (world.bytes(ACCESS_LOG), world.bytes(REFERENCE));
        if sorted(&ours) == sorted(&apaches) {
            return Ok(());
        }
        Err(format!(
            "{} bytes, and {} in the reference",
            ours.len(),
            apaches.len()
        ))
    });
    for line in world.read(ERROR_LOG).lines() {
        assert!(
            line.starts_with('[') && line.contains("] [pid "),
            "torn: {line}"
        );
    }
}

/// Each id in the log once. A proxied failure may have two lines (AH01102 and AH00898): the one
/// that names the target is counted.
fn exactly_once(world: &World, log: &str, what: &str, ids: impl Iterator<Item = String>) {
    let ids: Vec<String> = ids.collect();
    assert!(!ids.is_empty(), "{what}: some");
    eventually(&format!("{} {what} in {log}", ids.len()), || {
        let text = world.read(log);
        let missing: Vec<&String> = ids
            .iter()
            .filter(|id| !text.contains(id.as_str()))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{} missing: {missing:?}", missing.len()))
        }
    });
    let text = world.read(log);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for id in &ids {
        seen.insert(
            id,
            text.lines()
                .filter(|line| line.contains(id.as_str()))
                .count(),
        );
    }
    seen.retain(|_, times| *times != 1);
    assert!(
        seen.is_empty(),
        "{what} not exactly once in {log}: {seen:?}"
    );
}

fn sorted(log: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = log.split_inclusive(|&byte| byte == b'\n').collect();
    lines.sort_unstable();
    lines
}
