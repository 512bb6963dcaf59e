//! The shipped unit and its drop-in under a real systemd, booted in namespaces.

use std::path::Path;
use std::process::Command;

use crate::support::{skip, skip_without};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/systemd.sh");

#[test]
fn acceptance_the_unit_and_its_drop_in_under_a_real_systemd() {
    if !Path::new("/lib/systemd/systemd").exists() {
        return skip_without("systemd");
    }
    let output = Command::new(SCRIPT)
        .arg(env!("CARGO_BIN_EXE_pipeban"))
        .output()
        .unwrap();
    if output.status.code() == Some(77) {
        return skip("cannot boot systemd in namespaces here");
    }
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Tests of the engine that cannot run under the restrictions, for the sake of the test alone.
const NOT_CONFINED: [(&str, &[&str]); 4] = [
    (
        "they make namespaces",
        &[
            "engine::clocks::",
            "engine::crawlers::",
            "engine::exemptions::a_name_of",
            "engine::exemptions::an_address_that",
            "engine::kills::",
            "engine::owners::",
            "engine::trouble::a_database_that",
            "engine::trouble::bans_of",
        ],
    ),
    (
        "they end processes of other users",
        &["engine::bounds::", "engine::processes_that"],
    ),
    (
        "they need a terminal, for commands",
        &["engine::escapes::no_output", "engine::top::"],
    ),
    ("they take minutes", &["engine::burst::"]),
];

#[test]
fn acceptance_the_tests_of_the_engine_under_the_restrictions_of_the_unit_and_its_drop_in() {
    if !Path::new("/lib/systemd/systemd").exists() {
        return skip_without("systemd");
    }
    for (why, tests) in NOT_CONFINED {
        skip(&format!("under the unit, as {why}: {}", tests.join(" ")));
    }
    for kind in ["unit", "drop-in"] {
        let mut command = Command::new(SCRIPT);
        command
            .args([env!("CARGO_BIN_EXE_pipeban"), kind])
            .arg(std::env::current_exe().unwrap())
            .arg("engine::");
        for test in NOT_CONFINED.iter().flat_map(|(_, tests)| *tests) {
            command.args(["--skip", test]);
        }
        // By `make acceptance`.
        command.args(["--skip", "acceptance"]);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if output.status.code() == Some(77) {
            return skip("cannot boot systemd in namespaces here");
        }
        assert!(output.status.success(), "{kind}: {said}");
        for line in said.lines() {
            if let Some(skipped) = line.strip_prefix("SKIPPED ") {
                skip(&format!("with the {kind}: {skipped}"));
            }
            if line.starts_with("test result") {
                eprintln!("{kind}: {line}");
            }
        }
    }
}
