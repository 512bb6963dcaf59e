//! Where lines go, with real processes: every byte arrives, once, in order, in the right file.

use std::os::unix::fs::symlink;

use super::*;

/// Files of the logger's directory whose names begin so, by name.
fn files(logger: &Logger, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(logger.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(prefix)
        })
        .collect();
    files.sort();
    files
}

/// All of them one behind the other, each of whole lines.
#[track_caller]
fn concatenated(files: &[PathBuf]) -> Vec<u8> {
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read(file).unwrap();
        assert!(text.is_empty() || text.ends_with(b"\n"), "{file:?} is torn");
        all.extend(text);
    }
    all
}

/// Lines in pieces that begin and end anywhere, for so long. What was written.
fn write_pieces(logger: &mut Logger, piece: usize, time: Duration) -> Vec<u8> {
    let until = Instant::now() + time;
    let mut written = Vec::new();
    let mut i = 0;
    while Instant::now() < until {
        let lines: String = (i..i + 200).map(line).collect();
        i += 200;
        for piece in lines.as_bytes().chunks(piece) {
            logger.write(piece);
        }
        written.extend(lines.into_bytes());
        // A second's worth fits on any disk.
        std::thread::sleep(Duration::from_millis(1));
    }
    written
}

fn rotates_each_second(args: &[&str], piece: usize) {
    let mut logger = Logger::with(args, |_| {});
    let written = write_pieces(&mut logger, piece, Duration::from_millis(3200));
    logger.end();
    let files = files(&logger, "out.");
    assert!(files.len() >= 3, "{files:?}");
    assert!(concatenated(&files) == written, "{files:?}");
}

#[test]
fn a_name_of_each_second_splits_no_line_and_loses_none() {
    // At once, so that the tests take no longer than one of them.
    std::thread::scope(|scope| {
        for (args, piece) in [
            (&["out.%Y%m%d%H%M%S"][..], 4096),
            (&["out.%s"], 61),
            (&["--link", "current", "out.%F.%T"], 777),
        ] {
            scope.spawn(move || rotates_each_second(args, piece));
        }
    });
}

#[test]
fn names_are_of_the_local_time_wherever_the_command_is_started() {
    for zone in ["Asia/Tokyo", "America/New_York", "XYZ-13:45"] {
        let now = || {
            let zone = jiff::tz::TimeZone::posix(zone).or_else(|_| jiff::tz::TimeZone::get(zone));
            let now = jiff::Timestamp::now().to_zoned(zone.unwrap());
            now.strftime("out.%F_%H%z").to_string()
        };
        let before = now();
        let mut logger = Logger::with(&["out.%F_%H%z"], |command| {
            command.env("TZ", zone);
        });
        logger.write(b"x\n");
        logger.end();
        let found = files(&logger, "out.");
        let name = found[0].file_name().unwrap().to_str().unwrap();
        assert!([before, now()].contains(&name.to_owned()), "{zone}: {name}");
    }
}

#[test]
fn a_log_that_is_moved_away_is_followed_by_a_new_one_without_a_reload() {
    let mut logger = Logger::start("out");
    let dir = logger.dir.path().to_owned();
    let path = |name: &str| dir.join(name);
    for round in 1..=3 {
        logger.write(format!("line {round}\n").as_bytes());
        // Nothing else is on its way when the file is moved.
        eventually("written", || {
            let all = concatenated(&files(&logger, "o"));
            (all.iter().filter(|b| **b == b'\n').count() == round * 2 - 1).then_some(())
        });
        std::fs::rename(path("out"), path(&format!("old.{round}"))).unwrap();
        if round == 2 {
            std::fs::write(path("out"), "").unwrap();
        }
        // Still to the old one, or to the new one already: never to neither.
        logger.write(format!("between {round}\n").as_bytes());
        eventually("a new file", || path("out").exists().then_some(()));
    }
    logger.write(b"end\n");
    logger.end();
    let all = concatenated(&files(&logger, "o"));
    let expected: String = (1..=3)
        .map(|i| format!("line {i}\nbetween {i}\n"))
        .collect();
    assert_eq!(String::from_utf8(all).unwrap(), expected + "end\n");
    // One that is removed is made again for what comes.
    let mut logger = Logger::start("out");
    eventually("a file", || {
        logger.dir.path().join("out").exists().then_some(())
    });
    logger.write(b"x\n");
    eventually("written", || (logger.output("out") == b"x\n").then_some(()));
    std::fs::remove_file(logger.dir.path().join("out")).unwrap();
    eventually("a new file", || {
        logger.dir.path().join("out").exists().then_some(())
    });
    let until = Instant::now() + Duration::from_millis(100);
    write_lines_while(&mut logger, 0, || Instant::now() < until);
    logger.write(b"end\n");
    logger.end();
    assert!(logger.output("out").ends_with(b"end\n"));
}

#[test]
fn renames_under_load_lose_nothing_and_keep_the_order() {
    let mut logger = Logger::start("out");
    let dir = logger.dir.path().to_owned();
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let mover = std::thread::spawn(move || {
        let mut moved = Vec::new();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(300));
            let to = dir.join(format!("moved.{}", moved.len()));
            if std::fs::rename(dir.join("out"), &to).is_ok() {
                moved.push(to);
            }
        }
        moved
    });
    let written = write_pieces(&mut logger, 500, Duration::from_secs(3));
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut files = mover.join().unwrap();
    logger.end();
    assert!(files.len() >= 2, "{files:?}");
    let last = logger.dir.path().join("out");
    files.extend(last.exists().then_some(last));
    assert!(concatenated(&files) == written);
}

#[test]
fn a_directory_that_vanishes_and_comes_back_loses_what_stood_in_it_and_nothing_else() {
    let mut logger = Logger::start("dir/out");
    logger.write(b"gone\n");
    eventually("written", || {
        (!logger.output("dir/out").is_empty()).then_some(())
    });
    let dir = logger.dir.path().join("dir");
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, "in the way").unwrap();
    eventually("the syslog line", || {
        let logged = logger.logged.lock().unwrap();
        logged
            .iter()
            .any(|line| line.contains("cannot open the log file"))
            .then_some(())
    });
    let lines: String = (0..2000).map(line).collect();
    logger.write(lines.as_bytes());
    std::fs::remove_file(&dir).unwrap();
    eventually("written", || {
        (logger.output("dir/out") == lines.as_bytes()).then_some(())
    });
    logger.end();
    let logged = logger.logged.lock().unwrap();
    assert!(
        logged.iter().any(|line| line.contains("lines are kept")),
        "{logged:?}"
    );
}

#[test]
fn two_loggers_share_one_file_in_whole_lines() {
    let mut logger = Logger::start("out");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut second = spawn(logger.dir.path(), "out", &read);
    drop(read);
    let text =
        |name: &str| -> String { (0..20_000).map(|i| format!("{name} {}", line(i))).collect() };
    let (one, two) = (text("one"), text("two"));
    std::thread::scope(|scope| {
        scope.spawn(|| File::from(write).write_all(two.as_bytes()).unwrap());
        for piece in one.as_bytes().chunks(3000) {
            logger.write(piece);
        }
    });
    assert!(second.wait().unwrap().success());
    logger.end();
    let output = String::from_utf8(logger.output("out")).unwrap();
    let of = |name: &str| -> String {
        output
            .split_inclusive('\n')
            .filter(|line| line.starts_with(name))
            .collect()
    };
    assert!(of("one ") == one && of("two ") == two);
    assert_eq!(output.len(), one.len() + two.len());
}

#[test]
fn a_fifo_nobody_reads_holds_nobody_up() {
    let mut logger = Logger::with(&["out"], |command| {
        let fifo = command.get_current_dir().unwrap().join("out");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    });
    // More than a pipe of Apache's holds.
    let lines: String = (0..30_000).map(line).collect();
    logger.write(lines.as_bytes());
    let fifo = logger.dir.path().join("out");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        File::open(fifo).unwrap().read_to_end(&mut text).unwrap();
        text
    });
    logger.end();
    assert!(reader.join().unwrap() == lines.as_bytes());
}

#[test]
fn stdout_by_its_name_and_by_links_as_container_images_have_them() {
    for (path, link) in [
        ("-", None),
        ("/dev/stdout", None),
        ("access.log", Some("/dev/stdout")),
        ("access.log", Some("/proc/self/fd/1")),
        ("error.log", Some("/dev/stderr")),
    ] {
        let out = tempfile::tempfile().unwrap();
        let mut logger = Logger::with(&[path], |command| {
            if let Some(link) = link {
                symlink(link, command.get_current_dir().unwrap().join(path)).unwrap();
            }
            let stream = Stdio::from(out.try_clone().unwrap());
            match link {
                Some("/dev/stderr") => command.stderr(stream),
                _ => command.stdout(stream),
            };
        });
        logger.write(b"one\n");
        // A second keeper finds it too.
        kill(logger.keeper(), Signal::SIGKILL).unwrap();
        logger.write(b"two\n");
        logger.end();
        let mut text = String::new();
        std::io::Seek::rewind(&mut &out).unwrap();
        (&out).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n", "{path} {link:?}");
    }
}

#[test]
fn a_logger_that_does_not_use_its_stdout_lets_go_of_it() {
    let (mut read, write) = std::io::pipe().unwrap();
    let mut logger = Logger::with(&["out"], |command| {
        command.stdout(write);
    });
    logger.worker();
    kill(Pid::from_raw(logger.stub.id() as i32), Signal::SIGTERM).unwrap();
    logger.stub.wait().unwrap();
    let mut text = Vec::new();
    // Returns although keeper and worker go on.
    read.read_to_end(&mut text).unwrap();
    logger.write(b"x\n");
    logger.pipe = None;
    eventually("written", || (logger.output("out") == b"x\n").then_some(()));
}

#[test]
fn what_cannot_be_done_is_said_and_lines_pass_all_the_same() {
    for (args, said, written) in [
        (
            &["-n", "5", "./out", "86400"][..],
            "write `pipeban log",
            true,
        ),
        (
            &["-l", "-L", "./link", "./out", "1"],
            "write `pipeban log",
            true,
        ),
        (&["--mode", "8", "out"], "0640", true),
        (&["--owner", "no-such-user-of-pipeban", "out"], "", true),
        (&["|/bin/cat >out"], "starts no program", false),
    ] {
        let mut logger = Logger::with(args, |_| {});
        logger.write(b"x\n");
        logger.pipe = None;
        let status = logger.stub.wait().unwrap().code();
        let mut stderr = String::new();
        logger
            .stub
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        let found = files(&logger, "out");
        assert_eq!(!found.is_empty(), written, "{args:?}: {found:?}");
        if written {
            assert_eq!(std::fs::read(&found[0]).unwrap(), b"x\n", "{args:?}");
        }
        assert!(stderr.contains(said), "{args:?}: {stderr}");
        assert_eq!(
            status,
            Some(if said.is_empty() { 0 } else { 64 }),
            "{args:?}"
        );
        let said = if said.is_empty() { "no user" } else { said };
        eventually("the syslog line", || {
            let logged = logger.logged.lock().unwrap();
            logged.iter().any(|line| line.contains(said)).then_some(())
        });
    }
}

#[test]
fn odd_names_are_names() {
    for name in ["100%", "%", "a b", "%!", "\u{e9}%Q"] {
        let mut logger = Logger::with(&[name], |_| {});
        logger.write(b"x\n");
        logger.end();
        assert_eq!(logger.output(name), b"x\n", "{name}");
    }
    let long = "x".repeat(300);
    let mut logger = Logger::with(&[&long], |_| {});
    logger.write(b"x\n");
    eventually("the syslog line", || {
        let logged = logger.logged.lock().unwrap();
        logged
            .iter()
            .any(|line| line.contains("too long"))
            .then_some(())
    });
    drop(logger);
}
