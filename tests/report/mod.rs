//! `pipeban report` on real databases and logs, without an engine.

mod formats; // the same numbers in every format
mod logs; // fail2ban's logs instead of the database
#[cfg(feature = "measure")]
mod million; // a million bans: time and memory

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A configuration with its directories.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let text = format!("[paths]\nruntime = \"{path}\"\nstate = \"{path}\"\n");
        std::fs::write(directory.path().join("pipeban.toml"), text).unwrap();
        Place { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn state(&self) -> &Path {
        self.directory.path()
    }

    /// In the zone UTC.
    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pipeban"))
            .args(["report", "--config"])
            .arg(self.path("pipeban.toml"))
            .args(words)
            .env("TZ", "UTC")
            .output()
            .unwrap()
    }

    /// Standard output of a report that finds bans.
    fn report(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The clients, and the summary.
    fn json(&self, words: &[&str]) -> (Vec<Value>, Value) {
        let text = self.report(&[words, &["--json"]].concat());
        let mut objects: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let summary = objects.pop().unwrap();
        assert_eq!(summary["type"], "summary");
        assert!(objects.iter().all(|object| object["type"] == "client"));
        (objects, summary)
    }
}
