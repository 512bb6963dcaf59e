//! Databases that are locked, full, damaged, emptied or of an older schema: real files each.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use super::*;
use crate::skip::skip;

const LONG: Duration = Duration::from_secs(20);

/// A database with three bans, one of them ended, and an entry of the allow-list.
fn filled(directory: &Path) -> PathBuf {
    let path = directory.join("db");
    let now = at(100, 0);
    let mut database = open(&path, "boot-a").unwrap();
    let named = |number, net| Ban {
        id: BanId::new(number),
        ..ban(net, now, Some(3_600))
    };
    let ops = [
        Op::Ban(named(1, "203.0.113.1/32")),
        Op::Ban(named(2, "203.0.113.2/32")),
        Op::Ban(named(3, "203.0.113.3/32")),
        Op::Evidence {
            ban: BanId::new(3),
            lines: vec![(now.wall, "a line".into())],
            classes: Vec::new(),
            vhosts: Vec::new(),
            rule: Some("sql (a.toml:3)".into()),
        },
        Op::End {
            jail: "apache-auth".parse().unwrap(),
            net: "203.0.113.3/32".parse().unwrap(),
            end: End::Over,
        },
        Op::Allow(Allowed {
            net: "198.51.100.0/24".parse().unwrap(),
            since: now.wall,
            until: None,
            reason: None,
        }),
    ];
    database.commit(&ops, now).unwrap();
    path
}

fn copies(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".broken-"))
        .collect();
    names.sort();
    names
}

fn nets(saved: &Saved) -> Vec<String> {
    let mut nets: Vec<String> = saved.bans.iter().map(|ban| ban.net.to_string()).collect();
    nets.sort();
    nets
}

/// Submits changes until one group satisfies `wanted`.
fn until<T>(
    store: &Store<u64>,
    done: &Receiver<Done<u64>>,
    wanted: impl Fn(&Done<u64>) -> Option<T>,
) -> T {
    let start = Instant::now();
    for n in 0.. {
        store.submit(
            vec![Op::Stream {
                stream: n,
                offset: n,
            }],
            at(200, 100),
            vec![n],
        );
        let group = done.recv_timeout(LONG).unwrap();
        if let Some(found) = wanted(&group) {
            return found;
        }
        assert!(start.elapsed() < LONG, "{group:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    unreachable!()
}

#[test]
fn every_older_schema_opens_with_all_that_was_in_it() {
    let (one, two) = (include_str!("schema-1.sql"), include_str!("schema-2.sql"));
    for (schema, more) in [(one.to_owned(), 0), (format!("{one}{two}"), 5)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        Connection::open(&path)
            .and_then(|old| old.execute_batch(&schema))
            .unwrap();
        let now = at(110, 10);
        let opened = super::super::open(&home(&path, "boot-a"), now);
        assert!(opened.whole && opened.trouble.is_none(), "{opened:?}");
        let mut saved = opened.saved;
        saved.bans.sort_by_key(|ban| ban.id);
        let given = |text: &str| Some(text.into());
        let expected = [
            ("b7", "203.0.113.9/32", Cause::Jail),
            ("b8", "2001:db8::/64", Cause::Manual(given("abuse"))),
            ("b20", "203.0.113.20/32", Cause::Manual(None)),
            ("b21", "203.0.113.21/32", Cause::Shared),
            ("b22", "203.0.113.22/32", Cause::Imported(None)),
            ("b23", "203.0.113.23/32", Cause::Imported(None)),
            (
                "b24",
                "203.0.113.24/32",
                Cause::Imported(given("from the old server")),
            ),
        ]
        .map(|(id, net, cause)| (id.parse().unwrap(), net.parse().unwrap(), cause));
        let found: Vec<_> = saved
            .bans
            .iter()
            .map(|ban| (ban.id, ban.net, ban.cause.clone()))
            .collect();
        assert_eq!(found, expected[..2 + more]);
        assert_eq!(saved.bans[0].until, Some(at(3_700, 0).boot));
        let last = if more == 0 { 9 } else { 24 };
        assert_eq!(saved.last_id, Some(BanId::new(last)));
        assert_eq!(saved.repeats.len(), 2);
        assert_eq!(saved.counters[0].2, [(at(100, 0).boot, 2)]);
        assert_eq!(saved.totals[0].1.failed, 12);
        assert_eq!(saved.streams, [(5, 1_234)]);
        assert_eq!(saved.allowed[0].reason.as_deref(), Some("office"));
        // and it can be written
        let mut database = opened.database.unwrap();
        let lines = vec![(now.wall, "a line".to_owned())];
        let ban = saved.bans[0].id;
        let evidence = Op::Evidence {
            ban,
            lines,
            classes: vec!["sql".to_owned()],
            vhosts: vec!["shop.example.org".to_owned()],
            rule: Some("sql (a.toml:3)".into()),
        };
        database.commit(&[evidence], now).unwrap();
    }
}

#[test]
fn a_damaged_database_is_set_aside_and_a_new_one_begins() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let root = |table: &str| -> i64 {
        let sql = format!("SELECT rootpage FROM sqlite_master WHERE name = '{table}'");
        let connection = Connection::open(&path).unwrap();
        connection.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    let start = (root("allow") as usize - 1) * 4_096;
    let mut page = fs::read(&path).unwrap();
    page[start..start + 4_096].fill(0xa5);
    let mut seen = Vec::new();
    for n in 0..6 {
        let garbage = format!("no database {n} ").repeat(500).into_bytes();
        let damaged = if n == 0 { &page } else { &garbage };
        fs::write(&path, damaged).unwrap();
        let opened = super::super::open(&home(&path, "boot-a"), at(200, n));
        assert!(opened.database.is_some() && !opened.whole);
        assert_eq!(opened.saved, Saved::default());
        let copy = copies(dir.path()).pop().unwrap();
        let trouble = opened.trouble.unwrap();
        assert!(trouble.contains(&copy) && trouble.contains("allow-list"));
        assert_eq!(&fs::read(dir.path().join(&copy)).unwrap(), damaged);
        seen.push(copy);
        let again = super::super::open(&home(&path, "boot-a"), at(200, n));
        assert!(again.whole && again.trouble.is_none());
    }
    // the newest three of them
    assert_eq!(copies(dir.path()), seen[3..]);
}

#[test]
fn a_damaged_frame_of_the_log_is_reported_and_what_is_no_damage_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let now = at(100, 0);
    let mut database = open(&path, "boot-a").unwrap();
    for number in 1..=9 {
        let id = BanId::new(number);
        let ban = ban(&format!("203.0.113.{number}/32"), now, Some(3_600));
        database.commit(&[Op::Ban(Ban { id, ..ban })], now).unwrap();
    }
    // As a SIGKILL leaves it: while the database is open.
    let of = |name: &str, ending: &str| dir.path().join(format!("{name}{ending}"));
    let log = fs::read(of("db", "-wal")).unwrap();
    assert_eq!((log.len() - 32) % (24 + 4_096), 0, "{}", log.len());
    let frames = (log.len() - 32) / (24 + 4_096);
    let begin = |frame: usize| 32 + frame * (24 + 4_096);
    let opened = |log: &[u8]| {
        fs::copy(&path, of("copy", "")).unwrap();
        fs::write(of("copy", "-wal"), log).unwrap();
        let _ = fs::remove_file(of("copy", "-shm"));
        super::super::open(&home(&of("copy", ""), "boot-a"), now)
    };
    for (frame, byte) in [
        (frames - 1, 2_000),
        (frames / 2, 30),
        (frames / 2, 10),
        (0, 17),
    ] {
        let mut damaged = log.clone();
        damaged[begin(frame) + byte] ^= 0x20;
        let opened = opened(&damaged);
        let trouble = opened.trouble.unwrap_or_default();
        assert!(!opened.whole, "{frame} {byte}");
        assert!(
            trouble.contains(&format!("first {frame} frames")),
            "{trouble}"
        );
        assert!(opened.saved.bans.len() < 9);
    }
    // The last transaction was not finished; an old generation of the log is behind this one.
    let mut older = log[begin(0)..begin(3)].to_vec();
    for frame in older.chunks_mut(24 + 4_096) {
        frame[8] ^= 1;
    }
    for (log, bans) in [
        (log[..log.len() - 1].to_vec(), 8),
        ([log.clone(), older].concat(), 9),
        (log.clone(), 9),
    ] {
        let opened = opened(&log);
        assert_eq!((opened.whole, opened.trouble), (true, None));
        assert_eq!(opened.saved.bans.len(), bans);
    }
}

#[test]
fn a_file_cut_at_any_length_is_no_reason_to_fail() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let whole = fs::read(&path).unwrap();
    for length in [0, 1, 50, 100, 4_095, 4_096, 10_000, whole.len() - 1] {
        for ending in ["-wal", "-shm"] {
            let _ = fs::remove_file(dir.path().join(format!("db{ending}")));
        }
        fs::write(&path, &whole[..length]).unwrap();
        let opened = super::super::open(&home(&path, "boot-a"), at(200, 100));
        let mut database = opened.database.expect("a database");
        // `whole` is never a lie.
        let all = nets(&opened.saved) == ["203.0.113.1/32", "203.0.113.2/32"];
        assert!(all || !opened.whole, "{length}: {:?}", opened.trouble);
        database
            .commit(&[Op::Prune { keep: None }], at(200, 100))
            .unwrap();
    }
}

/// Holds a database in another process until its stdin is closed.
struct Holder {
    child: Child,
    /// What it prints at its end must go somewhere.
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Holder {
    fn of(path: &Path) -> Holder {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::broken::holds_a_database_for_a_test",
                "--nocapture",
            ])
            .env("PIPEBAN_TEST_HOLD", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("held")));
        Holder { child, lines }
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        self.lines.for_each(drop);
        assert!(self.child.wait().unwrap().success());
    }
}

/// The other half of [`Holder`].
#[test]
fn holds_a_database_for_a_test() {
    let Some(path) = std::env::var_os("PIPEBAN_TEST_HOLD") else {
        return;
    };
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        .unwrap();
    println!("held");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn a_database_held_by_another_process_is_read_and_written_when_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let holder = Holder::of(&path);
    let (send, done) = mpsc::channel();
    let home = home(&path, "boot-a");
    let mut opened = super::super::open(&home, at(200, 100));
    assert!(opened.database.is_none() && !opened.whole);
    assert!(
        opened.trouble.as_ref().unwrap().contains("locked"),
        "{opened:?}"
    );
    let store = Store::start(home, &mut opened, move |group| send.send(group).unwrap()).unwrap();
    store.submit(vec![Op::Prune { keep: None }], at(200, 100), vec![7]);
    let group = done.recv_timeout(LONG).unwrap();
    assert_eq!(group.then, [7]);
    assert!(group.trouble.is_some() && group.rewrite.is_none());
    holder.end();
    let saved = until(&store, &done, |group| group.rewrite.clone());
    assert_eq!(nets(&saved), ["203.0.113.1/32", "203.0.113.2/32"]);
    store.finish();
    assert!(copies(dir.path()).is_empty());
}

#[test]
fn a_database_locked_at_run_time_gets_what_waited() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (send, done) = mpsc::channel();
    let (store, _) = start(&path, move |group: Done<u64>| send.send(group).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let trouble = until(&store, &done, |group| group.trouble.clone());
    assert!(trouble.contains("cannot write the database"), "{trouble}");
    other.execute_batch("ROLLBACK").unwrap();
    until(&store, &done, |group| group.trouble.is_none().then_some(()));
    store.finish();
    let kept: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM streams WHERE stream = 0", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(kept, 1);
}

#[test]
fn after_too_many_changes_the_engine_is_asked_for_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (send, done) = mpsc::channel();
    let (store, _) = start(&path, move |group: Done<u64>| send.send(group).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let many = (0..100_100).map(|stream| Op::Stream { stream, offset: 0 });
    store.submit(many.collect(), at(1, 1), vec![]);
    let trouble = until(&store, &done, |group| group.trouble.clone());
    assert!(trouble.contains("changes dropped"), "{trouble}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(
        until(&store, &done, |group| group.rewrite.clone()),
        Saved::default()
    );
    store.submit(vec![Op::Clear], at(1, 1), vec![]);
    until(&store, &done, |group| {
        let quiet = group.trouble.is_none() && group.rewrite.is_none();
        quiet.then_some(())
    });
    store.finish();
}

#[test]
fn a_database_removed_or_damaged_at_run_time_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (send, done) = mpsc::channel();
    let (store, _) = start(&path, move |group: Done<u64>| send.send(group).unwrap());
    until(&store, &done, |group| group.trouble.is_none().then_some(()));
    fs::remove_file(&path).unwrap();
    let saved = until(&store, &done, |group| group.rewrite.clone());
    assert_eq!(saved, Saved::default());
    assert!(path.exists() && copies(dir.path()).is_empty());
    // Another program overwrites it; SQLite notices when it reads pages again, that is
    // after another connection has written
    let other = Connection::open(&path).unwrap();
    let write = "REPLACE INTO streams VALUES (99, 1, 1)";
    other.execute(write, []).unwrap();
    other
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let length = fs::metadata(&path).unwrap().len() as usize;
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(&vec![0xa5; length]).unwrap();
    other.execute(write, []).unwrap();
    drop(other);
    until(&store, &done, |group| group.rewrite.clone());
    assert_eq!(copies(dir.path()).len(), 1);
    store.finish();
}

#[test]
fn on_a_full_file_system_what_was_kept_is_read_and_what_happens_waits() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::broken::fills_a_file_system_for_a_test",
            "--nocapture",
        ])
        .env("PIPEBAN_TEST_FILL", dir.path())
        .output()
        .unwrap();
    let output_text = String::from_utf8_lossy(&output.stderr);
    if output_text.contains("Operation not permitted") {
        return skip("needs root (a mount namespace)");
    }
    assert!(output.status.success(), "{output_text}");
}

/// The other half of the test above, with mounts of its own.
#[test]
fn fills_a_file_system_for_a_test() {
    let Some(dir) = std::env::var_os("PIPEBAN_TEST_FILL").map(PathBuf::from) else {
        return;
    };
    use nix::mount::{MsFlags, mount};
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
    let size = Some("size=600k");
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), size).unwrap();
    let path = filled(&dir);
    let mut filler = fs::File::create(dir.join("filler")).unwrap();
    while filler.write_all(&[0; 1_024]).is_ok() {}
    let home = home(&path, "boot-a");
    let mut opened = super::super::open(&home, at(200, 100));
    assert_eq!(nets(&opened.saved), ["203.0.113.1/32", "203.0.113.2/32"]);
    assert!(opened.whole, "{:?}", opened.trouble);
    let (send, done) = mpsc::channel();
    let store = Store::start(home, &mut opened, move |group| send.send(group).unwrap()).unwrap();
    // more than fits into what SQLite has reserved
    let many = (1_000..20_000).map(|stream| Op::Stream { stream, offset: 0 });
    store.submit(many.collect(), at(200, 100), vec![7]);
    let group = done.recv_timeout(LONG).unwrap();
    assert_eq!(group.then, [7]);
    assert!(group.trouble.unwrap().contains("cannot be used"));
    drop(filler);
    fs::remove_file(dir.join("filler")).unwrap();
    mount(
        None::<&str>,
        &dir,
        None::<&str>,
        MsFlags::MS_REMOUNT,
        Some("size=20m"),
    )
    .unwrap();
    until(&store, &done, |group| group.trouble.is_none().then_some(()));
    store.finish();
    let kept: i64 = Connection::open(&path)
        .unwrap()
        .query_row(
            "SELECT count(*) FROM streams WHERE stream >= 1000",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(kept, 19_000);
    assert!(copies(&dir).is_empty());
}
