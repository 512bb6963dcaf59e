//! Databases that are locked, full, damaged, emptied, of an older schema: real files each.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use super::*;

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
        },
        Op::End {
            jail: "apache-auth".parse().unwrap(),
            net: "203.0.113.3/32".parse().unwrap(),
            why: "over",
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
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("schema-1.sql")).unwrap();
    drop(old);
    let now = at(110, 10);
    let opened = super::super::open(&home(&path, "boot-a"), now);
    assert!(
        opened.whole && opened.trouble.is_none(),
        "{:?}",
        opened.trouble
    );
    let mut saved = opened.saved;
    assert_eq!(nets(&saved), ["2001:db8::/64", "203.0.113.9/32"]);
    saved.bans.sort_by_key(|ban| ban.id);
    let ids: Vec<String> = saved.bans.iter().map(|ban| ban.id.to_string()).collect();
    assert_eq!(ids, ["b7", "b8"]);
    assert_eq!(saved.bans[0].until, Some(at(3_700, 0).boot));
    assert_eq!(saved.bans[1].reason.as_deref(), Some("abuse"));
    assert_eq!(saved.last_id, Some(BanId::new(9)));
    assert_eq!(saved.repeats.len(), 2);
    assert_eq!(saved.counters[0].2, [(at(100, 0).boot, 2)]);
    assert_eq!(saved.totals[0].1.failed, 12);
    assert_eq!(saved.streams, [(5, 1_234)]);
    assert_eq!(saved.allowed[0].reason.as_deref(), Some("office"));
    // and it can be written
    let mut database = opened.database.unwrap();
    let lines = vec![(now.wall, "a line".to_owned())];
    let ban = saved.bans[0].id;
    database
        .commit(&[Op::Evidence { ban, lines }], now)
        .unwrap();
}

#[test]
fn garbage_is_kept_aside_and_a_new_database_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut seen = Vec::new();
    for n in 0..6 {
        let garbage = format!("no database {n} ").repeat(500);
        fs::write(&path, &garbage).unwrap();
        let opened = super::super::open(&home(&path, "boot-a"), at(0, n));
        assert!(opened.database.is_some() && !opened.whole);
        let copy = copies(dir.path()).pop().unwrap();
        assert!(opened.trouble.unwrap().contains(&copy));
        assert_eq!(fs::read_to_string(dir.path().join(&copy)).unwrap(), garbage);
        seen.push(copy);
        assert_eq!(
            super::super::open(&home(&path, "boot-a"), at(0, n)).trouble,
            None
        );
    }
    // the newest three of them
    assert_eq!(copies(dir.path()), seen[3..]);
}

#[test]
fn of_a_damaged_database_all_that_can_be_read_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let now = at(200, 100);
    // The log's frames are in the file by now; the last page of the allow-list is not.
    let page = {
        let connection = Connection::open(&path).unwrap();
        let page: i64 = connection
            .query_row(
                "SELECT rootpage FROM sqlite_master WHERE name = 'allow'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        page
    };
    let mut bytes = fs::read(&path).unwrap();
    let start = (page as usize - 1) * 4_096;
    bytes[start..start + 4_096].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let opened = super::super::open(&home(&path, "boot-a"), now);
    let trouble = opened.trouble.unwrap();
    assert!(trouble.contains("2 bans could be read"), "{trouble}");
    assert_eq!(nets(&opened.saved), ["203.0.113.1/32", "203.0.113.2/32"]);
    // they are in the new one
    let again = super::super::open(&home(&path, "boot-a"), now);
    assert_eq!(nets(&again.saved), nets(&opened.saved));
    assert_eq!(again.saved.last_id, Some(BanId::new(2)));
}

#[test]
fn a_file_cut_at_any_length_is_no_reason_to_fail() {
    let dir = tempfile::tempdir().unwrap();
    let path = filled(dir.path());
    let whole = fs::read(&path).unwrap();
    for length in [0, 1, 50, 100, 4_095, 4_096, 10_000, whole.len() - 1] {
        for name in copies(dir.path()) {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        for ending in ["-wal", "-shm"] {
            let _ = fs::remove_file(dir.path().join(format!("db{ending}")));
        }
        fs::write(&path, &whole[..length]).unwrap();
        let opened = super::super::open(&home(&path, "boot-a"), at(200, 100));
        let mut database = opened.database.expect("a database");
        // Whoever says that nothing was lost has it all.
        let all = nets(&opened.saved) == ["203.0.113.1/32", "203.0.113.2/32"];
        assert!(all || !opened.whole, "{length}: {:?}", opened.trouble);
        database.commit(&[Op::Prune], at(200, 100)).unwrap();
    }
}

/// Holds a database in another process until it is told to end.
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
                "store::tests::broken::holds_a_database_when_asked_to",
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
fn holds_a_database_when_asked_to() {
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
    // nobody waits for it
    store.submit(vec![Op::Prune], at(200, 100), vec![7]);
    let group = done.recv_timeout(LONG).unwrap();
    assert_eq!(group.then, [7]);
    assert!(group.trouble.is_some() && group.anew.is_none());
    holder.end();
    let saved = until(&store, &done, |group| group.anew.clone());
    assert_eq!(nets(&saved), ["203.0.113.1/32", "203.0.113.2/32"]);
    store.finish();
    assert!(copies(dir.path()).is_empty());
}

#[test]
fn a_database_that_is_held_later_stops_nobody_and_gets_what_waited() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (send, done) = mpsc::channel();
    let (store, _) = start(&path, move |group: Done<u64>| send.send(group).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let trouble = until(&store, &done, |group| group.trouble.clone());
    assert!(trouble.contains("cannot be written"), "{trouble}");
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
fn when_too_much_waited_everything_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (send, done) = mpsc::channel();
    let (store, _) = start(&path, move |group: Done<u64>| send.send(group).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let many = (0..100_100).map(|stream| Op::Stream { stream, offset: 0 });
    store.submit(many.collect(), at(1, 1), vec![]);
    let trouble = until(&store, &done, |group| group.trouble.clone());
    assert!(trouble.contains("changes given up"), "{trouble}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(
        until(&store, &done, |group| group.anew.clone()),
        Saved::default()
    );
    store.submit(vec![Op::Anew], at(1, 1), vec![]);
    until(&store, &done, |group| {
        let quiet = group.trouble.is_none() && group.anew.is_none();
        quiet.then_some(())
    });
    store.finish();
}

#[test]
fn one_that_is_taken_away_or_damaged_while_it_is_written_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let (send, done) = mpsc::channel();
    let (store, _) = start(&path, move |group: Done<u64>| send.send(group).unwrap());
    until(&store, &done, |group| group.trouble.is_none().then_some(()));
    fs::remove_file(&path).unwrap();
    let saved = until(&store, &done, |group| group.anew.clone());
    assert_eq!(saved, Saved::default());
    assert!(path.exists() && copies(dir.path()).is_empty());
    // bytes that somebody wrote over it; seen when SQLite reads its pages again, as it does when
    // another connection has written
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
    until(&store, &done, |group| group.anew.clone());
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
            "store::tests::broken::fills_a_file_system_when_asked_to",
            "--nocapture",
        ])
        .env("PIPEBAN_TEST_FILL", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Operation not permitted") {
        eprintln!("SKIPPED: no mount namespace without root");
        return;
    }
    assert!(output.status.success(), "{said}");
}

/// The other half of the test above, with mounts of its own.
#[test]
fn fills_a_file_system_when_asked_to() {
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
    assert!(group.trouble.unwrap().contains("cannot be"));
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
