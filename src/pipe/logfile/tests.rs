//! A log file, checked at times of the test's choice.

use std::io::{Read, Write};
use std::path::Path;

use super::*;
use crate::record::Kind;

struct Rig {
    dir: tempfile::TempDir,
    log: LogFile,
    now: Instant,
}

impl Rig {
    fn new(path: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let output = Output {
            to: To::File(Names::new(&dir.path().join(path))),
            link: Some(dir.path().join("current")),
            mode: 0o600,
            user: None,
            group: None,
            syslog: None,
        };
        let report = Report::without_file(Kind::Error, None);
        Rig {
            log: LogFile::new(output, Streams::default(), report),
            dir,
            now: Instant::now(),
        }
    }

    /// Checks; whether the file is another one then.
    fn check(&mut self, wall: &str) -> bool {
        let inode = |log: &LogFile| log.file().map(|file| file.metadata().unwrap().ino());
        let before = inode(&self.log);
        self.now = self.log.due().unwrap();
        let wall = format!("{wall}[UTC]").parse().unwrap();
        self.log.check_at_time(self.now, &wall);
        inode(&self.log) != before
    }

    fn write(&self, text: &str) {
        let mut file = self.log.file().unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn next_in(&self) -> Duration {
        self.log.due().unwrap() - self.now
    }
}

#[test]
fn the_file_changes_with_its_name_and_the_link_with_it() {
    let mut rig = Rig::new("%Y/%m/%d");
    assert!(rig.check("2024-02-29T23:59:59.25Z"));
    // The next second.
    assert_eq!(rig.next_in(), Duration::from_millis(750));
    rig.write("a");
    assert!(!rig.check("2024-02-29T23:59:59.99Z"));
    assert!(rig.check("2024-03-01T00:00:00Z"));
    rig.write("b");
    // Back for a moment.
    assert!(!rig.check("2024-02-29T23:59:59Z"));
    rig.write("c");
    assert_eq!(rig.text("2024/02/29"), "a");
    assert_eq!(rig.text("2024/03/01"), "bc");
    assert_eq!(rig.text("current"), "bc");
}

const AT: &str = "2026-01-01T00:00:00Z";

#[test]
fn another_file_at_the_path_is_opened() {
    let mut rig = Rig::new("log");
    assert!(rig.check(AT));
    assert!(!rig.check(AT));
    assert_eq!(rig.next_in(), CHECK);
    // logrotate with `create`.
    std::fs::rename(rig.path("log"), rig.path("log.1")).unwrap();
    std::fs::write(rig.path("log"), "").unwrap();
    assert!(rig.check(AT));
    rig.write("a");
    assert_eq!(rig.text("log"), "a");
    // With `nocreate`: it gets a moment to create its file.
    std::fs::rename(rig.path("log"), rig.path("log.2")).unwrap();
    assert!(!rig.check(AT));
    assert_eq!(rig.next_in(), MOVED);
    rig.write("b");
    assert!(rig.check(AT));
    rig.write("c");
    assert_eq!(
        (rig.text("log.2"), rig.text("log")),
        ("ab".into(), "c".into())
    );
    // Removed: there is nothing to wait for.
    std::fs::remove_file(rig.path("log")).unwrap();
    assert!(rig.check(AT));
    rig.write("d");
    assert_eq!(rig.text("log"), "d");
}

#[test]
fn a_directory_that_vanishes_is_made_again_or_lines_are_kept() {
    let mut rig = Rig::new("dir/log");
    rig.check(AT);
    std::fs::remove_dir_all(rig.path("dir")).unwrap();
    assert!(rig.check(AT));
    // A file is in its place.
    std::fs::remove_dir_all(rig.path("dir")).unwrap();
    std::fs::write(rig.path("dir"), "").unwrap();
    assert!(rig.check(AT));
    assert!(rig.log.file().is_none());
    assert!(!rig.check(AT));
    std::fs::remove_file(rig.path("dir")).unwrap();
    assert!(rig.check(AT));
    // Moved away, and something else in its place: the moved one takes lines.
    std::fs::rename(rig.path("dir"), rig.path("away")).unwrap();
    std::fs::write(rig.path("dir"), "").unwrap();
    assert!(!rig.check(AT));
    assert!(!rig.check(AT));
    rig.write("x");
    assert_eq!(rig.text("away/log"), "x");
    std::fs::remove_file(rig.path("dir")).unwrap();
    assert!(rig.check(AT));
}

#[test]
fn a_name_that_cannot_be_opened_leaves_the_last_one_in_use() {
    let mut rig = Rig::new("%S/log");
    rig.check("2026-01-01T00:00:00Z");
    std::fs::write(rig.path("01"), "").unwrap();
    assert!(!rig.check("2026-01-01T00:00:01Z"));
    rig.write("x");
    assert_eq!(rig.text("00/log"), "x");
    assert!(rig.check("2026-01-01T00:00:02Z"));
    rig.write("y");
    assert_eq!(rig.text("02/log"), "y");
}

#[test]
fn a_link_that_cannot_be_made_is_tried_again() {
    let mut rig = Rig::new("log");
    std::fs::write(rig.path("current"), "mine").unwrap();
    rig.check(AT);
    assert_eq!(rig.text("current"), "mine");
    std::fs::remove_file(rig.path("current")).unwrap();
    assert!(!rig.check(AT));
    assert_eq!(
        std::fs::read_link(rig.path("current")).unwrap(),
        Path::new("log")
    );
}

#[test]
fn stdout_is_the_one_the_command_was_started_with() {
    let (mut read, write) = std::io::pipe().unwrap();
    let output = Output {
        to: To::Stdout,
        link: None,
        mode: 0,
        user: None,
        group: None,
        syslog: None,
    };
    let streams = Streams::from_stdout(write.into());
    let report = Report::without_file(Kind::Error, None);
    let mut log = LogFile::new(output, streams, report);
    log.check();
    assert_eq!(log.due(), None);
    log.file().unwrap().write_all(b"x").unwrap();
    drop(log);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "x");
}
