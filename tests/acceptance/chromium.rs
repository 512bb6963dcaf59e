use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::support::history;

const CHROMIUM: &str = "/usr/bin/chromium";

/// Runs Chromium without its services and without a profile of a person; returns its standard
/// output, and what it logs.
pub(super) fn chromium(profile: &Path, words: &[&str]) -> (String, String) {
    let output = Command::new(CHROMIUM)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ])
        .args(["--enable-logging=stderr", "--log-level=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(words)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {log}");
    (String::from_utf8_lossy(&output.stdout).into_owned(), log)
}

/// The page writes nothing to the console, not even a warning.
pub(super) fn silent(log: &str) {
    let console: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .collect();
    assert!(console.is_empty(), "{console:#?}");
}

/// A state directory with so many bans of the last 30 days, and a configuration that names it.
pub(super) fn with_bans(count: u64, now: Timestamp) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    let paths = format!("[paths]\nruntime = {state:?}\nstate = {state:?}\n");
    std::fs::write(state.join("pipeban.toml"), paths).unwrap();
    history::fill(&mut history::database(state), count, 30, now);
    directory
}

pub(super) fn report(state: &Path, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .args(["report", "--config"])
        .arg(state.join("pipeban.toml"))
        .args(words)
        .env("TZ", "UTC")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn is_there() -> bool {
    Path::new(CHROMIUM).exists()
}

/// Where pictures are left for people.
pub(super) fn pictures() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    std::fs::create_dir_all(&directory).unwrap();
    directory
}
