//! Looks at a log file at times of the test's choice.

use std::io::{Read, Write};
use std::path::Path;

use super::*;
use crate::pipe::names::Rotation;
use crate::record::Kind;

struct Rig {
    dir: tempfile::TempDir,
    log: LogFile,
    tell: Tell,
    now: Instant,
}

impl Rig {
    fn new(path: &str, rotation: &[&str]) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let rotation = (!rotation.is_empty()).then(|| Rotation::parse(rotation, false).unwrap());
        let output = Output {
            to: To::File(Names::new(&dir.path().join(path), rotation)),
            link: Some(dir.path().join("current")),
            mode: 0o600,
            user: None,
            group: None,
        };
        let tell = Tell::new(Kind::Error, None);
        let now = Instant::now();
        Rig {
            log: LogFile::new(output, Streams::default(), now, &tell),
            dir,
            tell,
            now,
        }
    }

    fn look(&mut self, wall: &str) -> Option<Change> {
        self.now = self.log.due().unwrap();
        let wall = format!("{wall}[UTC]").parse().unwrap();
        self.log.look(self.now, &wall, &self.tell)
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
    let mut rig = Rig::new("%Y/%m/%d", &[]);
    assert_eq!(rig.look("2024-02-29T23:59:59.25Z"), Some(Change::Opened));
    // The next second.
    assert_eq!(rig.next_in(), Duration::from_millis(750));
    rig.write("a");
    assert_eq!(rig.look("2024-02-29T23:59:59.99Z"), None);
    assert_eq!(rig.look("2024-03-01T00:00:00Z"), Some(Change::Opened));
    rig.write("b");
    // Back for a moment.
    assert_eq!(rig.look("2024-02-29T23:59:59Z"), None);
    rig.write("c");
    assert_eq!(rig.text("2024/02/29"), "a");
    assert_eq!(rig.text("2024/03/01"), "bc");
    assert_eq!(rig.text("current"), "bc");
}

const AT: &str = "2026-01-01T00:00:00Z";

#[test]
fn another_file_at_the_path_is_opened() {
    let mut rig = Rig::new("log", &[]);
    assert_eq!(rig.look(AT), Some(Change::Opened));
    assert_eq!(rig.look(AT), None);
    assert_eq!(rig.next_in(), LOOK);
    // logrotate with `create`.
    std::fs::rename(rig.path("log"), rig.path("log.1")).unwrap();
    std::fs::write(rig.path("log"), "").unwrap();
    assert_eq!(rig.look(AT), Some(Change::Opened));
    rig.write("a");
    assert_eq!(rig.text("log"), "a");
    // With `nocreate`: it is left a moment to make one of its own.
    std::fs::rename(rig.path("log"), rig.path("log.2")).unwrap();
    assert_eq!(rig.look(AT), None);
    assert_eq!(rig.next_in(), MOVED);
    rig.write("b");
    assert_eq!(rig.look(AT), Some(Change::Opened));
    rig.write("c");
    assert_eq!(
        (rig.text("log.2"), rig.text("log")),
        ("ab".into(), "c".into())
    );
    // Removed: there is nothing to wait for.
    std::fs::remove_file(rig.path("log")).unwrap();
    assert_eq!(rig.look(AT), Some(Change::Opened));
    rig.write("d");
    assert_eq!(rig.text("log"), "d");
}

#[test]
fn a_directory_that_vanishes_is_made_again_or_lines_are_kept() {
    let mut rig = Rig::new("dir/log", &[]);
    rig.look(AT);
    std::fs::remove_dir_all(rig.path("dir")).unwrap();
    assert_eq!(rig.look(AT), Some(Change::Opened));
    // Something else stands in its place.
    std::fs::remove_dir_all(rig.path("dir")).unwrap();
    std::fs::write(rig.path("dir"), "").unwrap();
    assert_eq!(rig.look(AT), Some(Change::Gone));
    assert!(rig.log.file().is_none());
    assert_eq!(rig.look(AT), None);
    std::fs::remove_file(rig.path("dir")).unwrap();
    assert_eq!(rig.look(AT), Some(Change::Opened));
    // Moved away, and something else in its place: the moved one takes lines.
    std::fs::rename(rig.path("dir"), rig.path("away")).unwrap();
    std::fs::write(rig.path("dir"), "").unwrap();
    assert_eq!(rig.look(AT), None);
    assert_eq!(rig.look(AT), None);
    rig.write("x");
    assert_eq!(rig.text("away/log"), "x");
    std::fs::remove_file(rig.path("dir")).unwrap();
    assert_eq!(rig.look(AT), Some(Change::Opened));
}

#[test]
fn a_name_that_cannot_be_opened_leaves_the_last_one_in_use() {
    let mut rig = Rig::new("%S/log", &[]);
    rig.look("2026-01-01T00:00:00Z");
    std::fs::write(rig.path("01"), "").unwrap();
    assert_eq!(rig.look("2026-01-01T00:00:01Z"), None);
    rig.write("x");
    assert_eq!(rig.text("00/log"), "x");
    assert_eq!(rig.look("2026-01-01T00:00:02Z"), Some(Change::Opened));
    rig.write("y");
    assert_eq!(rig.text("02/log"), "y");
}

#[test]
fn a_size_is_followed_by_another_file_and_none_is_made_without_a_line() {
    let mut rig = Rig::new("log", &["4B"]);
    assert_eq!(rig.log.due(), None);
    assert!(rig.log.awaits_line());
    rig.log.begin(false, rig.now);
    assert_eq!((rig.log.due(), rig.log.awaits_line()), (None, false));
    rig.log.begin(true, rig.now);
    assert_eq!(rig.look("1970-01-01T00:00:05Z"), Some(Change::Opened));
    rig.write("1234");
    assert_eq!(rig.look("1970-01-01T00:00:06Z"), None);
    rig.write("5");
    assert_eq!(rig.look("1970-01-01T00:00:07Z"), Some(Change::Opened));
    rig.write("6");
    assert_eq!(rig.text("log.0000000005"), "12345");
    assert_eq!(rig.text("log.0000000007"), "6");
    assert_eq!(rig.text("current"), "6");
}

#[test]
fn a_link_that_cannot_be_made_is_tried_again() {
    let mut rig = Rig::new("log", &[]);
    std::fs::write(rig.path("current"), "mine").unwrap();
    rig.look(AT);
    assert_eq!(rig.text("current"), "mine");
    std::fs::remove_file(rig.path("current")).unwrap();
    assert_eq!(rig.look(AT), None);
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
    };
    let streams = Streams::from_stdout(write.into());
    let tell = Tell::new(Kind::Error, None);
    let now = Instant::now();
    let mut log = LogFile::new(output, streams, now, &tell);
    let wall = Zoned::now();
    assert_eq!(log.look(now, &wall, &tell), Some(Change::Opened));
    assert_eq!(log.due(), None);
    log.file().unwrap().write_all(b"x").unwrap();
    drop(log);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "x");
}

#[test]
fn a_worker_that_could_not_be_told_is_told_at_the_next_look() {
    let mut rig = Rig::new("log", &[]);
    rig.look(AT);
    rig.log.tell_again(rig.now);
    assert_eq!(rig.look(AT), Some(Change::Opened));
    assert_eq!(rig.look(AT), None);
    std::fs::remove_file(rig.path("log")).unwrap();
    std::fs::create_dir(rig.path("log")).unwrap();
    assert_eq!(rig.look(AT), Some(Change::Gone));
    rig.log.tell_again(rig.now);
    assert_eq!(rig.look(AT), Some(Change::Gone));
    assert_eq!(rig.look(AT), None);
}
