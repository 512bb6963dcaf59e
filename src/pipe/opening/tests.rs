//! What root opens, creates and follows, in root's directories and in those of others.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};

use super::*;
use crate::skip::skip;

const OTHER: u32 = 33;

fn made() -> Made {
    Made {
        uid: None,
        gid: None,
        mode: Mode::from_bits_truncate(0o640),
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    match open(path, &made()) {
        Ok(Opened::File(mut file) | Opened::OfProcess(mut file)) => {
            file.write_all(text.as_bytes()).map_err(|e| e.to_string())
        }
        Ok(Opened::Own(stream)) => Err(format!("{stream:?}")),
        Err(error) => Err(error.to_string()),
    }
}

#[track_caller]
fn refused(path: &Path, words: &[&str]) {
    let error = write(path, "x").unwrap_err();
    for word in words {
        assert!(error.contains(word), "{error}");
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A directory of another user, or `None` with a message if the test cannot make one.
fn others(dir: &Path, mode: u32) -> Option<PathBuf> {
    if !geteuid().is_root() {
        skip("needs root (a directory of another user)");
        return None;
    }
    let path = dir.join("others");
    std::fs::create_dir(&path).unwrap();
    chown(&path, Some(OTHER), Some(OTHER)).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    Some(path)
}

#[test]
fn a_file_is_made_with_its_directories_and_only_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/./c/../log");
    write(&path, "one\n").unwrap();
    write(&path, "two\n").unwrap();
    let path = dir.path().join("a/b/log");
    assert_eq!(text(&path), "one\ntwo\n");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&path), 0o640);
    for made in ["a", "a/b", "a/b/c"] {
        assert_eq!(mode(&dir.path().join(made)), 0o750, "{made}");
    }
    // What is there keeps its mode.
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o604)).unwrap();
    write(&path, "three\n").unwrap();
    assert_eq!(mode(&path), 0o604);
}

#[test]
fn owner_group_and_mode_are_those_asked_for() {
    if !geteuid().is_root() {
        return skip("needs root (files of another user)");
    }
    let dir = tempfile::tempdir().unwrap();
    let made = Made {
        uid: Some(Uid::from_raw(OTHER)),
        gid: Some(Gid::from_raw(4)),
        mode: Mode::from_bits_truncate(0o664),
    };
    open(&dir.path().join("new/log"), &made).unwrap();
    let of = |name: &str| {
        let meta = std::fs::metadata(dir.path().join(name)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o777)
    };
    assert_eq!(of("new/log"), (OTHER, 4, 0o664));
    assert_eq!(of("new"), (0, 4, 0o750));
}

#[test]
fn links_in_roots_directories_are_followed_to_what_there_is_and_to_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("real")).unwrap();
    symlink("real", path("directory")).unwrap();
    symlink(path("directory/there"), path("absolute")).unwrap();
    symlink("./directory/../real/new", path("relative")).unwrap();
    symlink("absolute", path("link")).unwrap();
    write(&path("link"), "one").unwrap();
    write(&path("relative"), "two").unwrap();
    assert_eq!(text(&path("real/there")), "one");
    assert_eq!(text(&path("real/new")), "two");
    symlink("loop", path("loop")).unwrap();
    refused(&path("loop"), &["loop"]);
}

#[test]
fn no_link_is_followed_where_others_can_write() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o755, 0o775, 0o777, 0o1777] {
        let Some(others) = others(dir.path(), mode) else {
            return;
        };
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "").unwrap();
        symlink(&victim, others.join("log")).unwrap();
        refused(&others.join("log"), &["symbolic link", "others", "go-w"]);
        symlink(dir.path(), others.join("directory")).unwrap();
        refused(
            &others.join("directory/victim"),
            &["symbolic link", "others"],
        );
        // And no directory is made; a file is.
        refused(&others.join("new/log"), &["not created", "others"]);
        write(&others.join("new"), "x").unwrap();
        assert_eq!(text(&victim), "");
        std::fs::remove_dir_all(others).unwrap();
    }
    // Root's directory that a group can write into is such a place too.
    let group = dir.path().join("group");
    std::fs::create_dir(&group).unwrap();
    chown(&group, Some(0), Some(4)).unwrap();
    std::fs::set_permissions(&group, PermissionsExt::from_mode(0o775)).unwrap();
    symlink("/dev/null", group.join("log")).unwrap();
    refused(&group.join("log"), &["symbolic link", "group"]);
}

#[test]
fn a_file_that_others_could_have_placed_is_used_only_if_it_can_harm_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let Some(others) = others(dir.path(), 0o755) else {
        return;
    };
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "").unwrap();
    std::fs::hard_link(&victim, others.join("hard")).unwrap();
    refused(&others.join("hard"), &["hard link", "others"]);
    assert_eq!(text(&victim), "");
    nix::unistd::mkfifo(&others.join("fifo"), Mode::S_IRWXU).unwrap();
    refused(&others.join("fifo"), &["not a regular file"]);

    // Their own, and root's.
    std::fs::write(others.join("own"), "").unwrap();
    chown(others.join("own"), Some(OTHER), Some(OTHER)).unwrap();
    write(&others.join("own"), "x").unwrap();
    std::fs::write(others.join("roots"), "").unwrap();
    write(&others.join("roots"), "x").unwrap();
    // A third one's, that they have moved here; and everything where everybody can write.
    std::fs::write(others.join("third"), "").unwrap();
    chown(others.join("third"), Some(34), Some(34)).unwrap();
    refused(&others.join("third"), &["uid 34"]);
    std::fs::set_permissions(&others, PermissionsExt::from_mode(0o1777)).unwrap();
    refused(&others.join("own"), &["uid 33"]);
    let asked = Made {
        uid: Some(Uid::from_raw(OTHER)),
        ..made()
    };
    assert!(open(&others.join("own"), &asked).is_ok());
}

#[test]
fn a_link_that_is_swapped_in_all_the_time_is_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(others) = others(dir.path(), 0o777) else {
        return;
    };
    let (victim, log) = (dir.path().join("victim"), others.join("log"));
    std::fs::write(&victim, "").unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    let mut opened = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let spare = others.join("spare");
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                symlink(&victim, &spare).unwrap();
                std::fs::rename(&spare, &log).unwrap();
                std::fs::hard_link(&victim, &spare).unwrap();
                std::fs::rename(&spare, &log).unwrap();
                std::fs::write(&spare, "").unwrap();
                std::fs::rename(&spare, &log).unwrap();
                let _ = std::fs::remove_file(&log);
            }
        });
        for _ in 0..3000 {
            opened += usize::from(write(&log, "x").is_ok());
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(text(&victim), "", "{opened} opened");
}

#[test]
fn fifos_and_devices_are_taken_directories_and_sockets_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let fifo = path("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    // Does not wait for one.
    refused(&fifo, &["no process reads the FIFO"]);
    let reader = File::options().read(true).write(true).open(&fifo).unwrap();
    write(&fifo, "x").unwrap();
    drop(reader);
    assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
    write(Path::new("/dev/null"), "x").unwrap();
    symlink("/dev/null", path("null")).unwrap();
    write(&path("null"), "x").unwrap();

    refused(dir.path(), &["neither a file"]);
    refused(Path::new("/"), &["is a directory"]);
    refused(&path(".."), &["is a directory"]);
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    refused(&path("socket"), &["neither a file"]);
    write(&path("file"), "x").unwrap();
    refused(&path("file/log"), &["Not a directory"]);
    let long = "x".repeat(300);
    refused(&path(&long), &["too long", &long]);
    refused(&path(&format!("{long}/log")), &["too long"]);
}

#[test]
fn own_streams_are_known_by_all_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("access.log");
    symlink("/dev/stdout", &link).unwrap();
    for path in [
        link.as_path(),
        Path::new("/dev/stdout"),
        Path::new("/proc/self/fd/1"),
        Path::new("/dev/fd/1"),
        Path::new("/proc/thread-self/fd/1"),
    ] {
        assert_eq!(own_stream(path), Some(Stream::Stdout), "{path:?}");
        assert_eq!(write(path, "x").unwrap_err(), "Stdout");
    }
    assert_eq!(own_stream(Path::new("/dev/stderr")), Some(Stream::Stderr));
    for path in ["/dev/stdin", "/dev/null", "/proc/self/exe", "/no/such"] {
        assert_eq!(own_stream(Path::new(path)), None);
    }
    for path in ["/proc/self/exe", "/proc/self/fd/0", "/proc/self/cwd/x"] {
        assert!(open(Path::new(path), &made()).is_err(), "{path}");
    }
}

#[test]
fn another_process_of_roots_lends_its_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut child = std::process::Command::new("sleep")
        .arg("100")
        .stdout(File::create(&out).unwrap())
        .spawn()
        .unwrap();
    let link = dir.path().join("access.log");
    symlink(format!("/proc/{}/fd/1", child.id()), &link).unwrap();
    write(&link, "x").unwrap();
    assert_eq!(text(&out), "x");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_link_takes_the_place_of_a_link_and_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let at = path("made/current");
    link(&at, &path("one"), &made()).unwrap();
    assert_eq!(std::fs::read_link(&at).unwrap(), path("one"));
    let before = std::fs::symlink_metadata(&at).unwrap().ino();
    link(&at, &path("one"), &made()).unwrap();
    assert_eq!(std::fs::symlink_metadata(&at).unwrap().ino(), before);
    // In its directory by its name only.
    link(&at, &path("made/two"), &made()).unwrap();
    assert_eq!(std::fs::read_link(&at).unwrap(), Path::new("two"));
    std::fs::write(path("file"), "kept").unwrap();
    let error = link(&path("file"), &path("one"), &made()).unwrap_err();
    assert!(error.to_string().contains("remove it"), "{error}");
    assert!(link(dir.path(), &path("one"), &made()).is_err());
    assert_eq!(text(&path("file")), "kept");
    let names: Vec<_> = std::fs::read_dir(path("made")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    if let Some(others) = others(dir.path(), 0o755) {
        let error = link(&others.join("l"), &path("one"), &made()).unwrap_err();
        assert!(error.to_string().contains("others"), "{error}");
    }
}
