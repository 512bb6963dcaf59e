//! What root acts on belongs to root; and odd things in its place.

use std::os::unix::fs::{chown, symlink};

use super::*;

const STRANGER: u32 = 54_321;

/// Starts the engine and waits for its end; exit status and what it said. 124: it runs.
fn refused(lab: &Lab) -> (i32, String) {
    let engine = lab.command(&["engine"]);
    let mut command = Command::new("timeout");
    command.arg("20").arg(engine.get_program());
    let output = command.args(engine.get_args()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    (output.status.code().unwrap(), said)
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Puts what root acts on under another user's control, and names the command that ends it.
type Case = (&'static str, fn(&Lab) -> String);

const CASES: &[Case] = &[
    ("the configuration of another user", |lab| {
        let file = lab.path("pipeban.toml");
        chown(&file, Some(STRANGER), None).unwrap();
        format!("chown root:root {}", file.display())
    }),
    ("one that every user can write", |lab| {
        let file = lab.path("pipeban.toml");
        mode(&file, 0o666);
        format!("chmod go-w {}", file.display())
    }),
    ("one that a group can write", |lab| {
        let file = lab.path("pipeban.toml");
        chown(&file, None, Some(STRANGER)).unwrap();
        mode(&file, 0o664);
        format!("chmod g-w {}", file.display())
    }),
    ("a directory above it", |lab| {
        mode(lab.dir.path(), 0o777);
        format!("chmod go-w {}", lab.dir.path().display())
    }),
    ("a file in conf.d", |lab| {
        std::fs::create_dir(lab.path("conf.d")).unwrap();
        let file = lab.path("conf.d/more.toml");
        std::fs::write(&file, "").unwrap();
        chown(&file, Some(STRANGER), None).unwrap();
        format!("chown root:root {}", file.display())
    }),
    ("conf.d, though it is empty", |lab| {
        let directory = lab.path("conf.d");
        std::fs::create_dir(&directory).unwrap();
        mode(&directory, 0o777);
        format!("chmod go-w {}", directory.display())
    }),
    ("a filter", |lab| {
        let file = lab.path("filters.d/f.conf");
        mode(&file, 0o646);
        format!("chmod go-w {}", file.display())
    }),
    ("filters.d", |lab| {
        let directory = lab.path("filters.d");
        chown(&directory, Some(STRANGER), None).unwrap();
        format!("chown root:root {}", directory.display())
    }),
    ("a link of another user", |lab| {
        let file = lab.path("filters.d/f.conf");
        let real = lab.path("real.conf");
        std::fs::rename(&file, &real).unwrap();
        symlink(real, &file).unwrap();
        std::os::unix::fs::lchown(&file, Some(STRANGER), None).unwrap();
        format!("chown -h root:root {}", file.display())
    }),
];

#[test]
fn root_acts_on_no_file_that_another_user_can_change() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root (files of other users)");
    }
    for (what, change) in CASES {
        let mut lab = Lab::new();
        let command = change(&lab);
        let (status, said) = refused(&lab);
        assert_eq!(status, 78, "{what}: {said}");
        assert!(said.contains(&format!("`{command}`")), "{what}: {said}");
        let (_, checked) = lab.say(&["check", "--apache-config", "/dev/null"]);
        assert!(checked.contains(&command), "{what}: {checked}");
        // As it says.
        let words: Vec<&str> = command.split(' ').collect();
        let done = Command::new(words[0]).args(&words[1..]).status().unwrap();
        assert!(done.success());
        lab.start();
        let (_, checked) = lab.say(&["check", "--apache-config", "/dev/null"]);
        assert!(!checked.contains("root refuses"), "{what}: {checked}");
    }
}

/// As on a host on which pipeban is installed.
#[test]
fn a_file_that_root_refuses_does_not_get_the_last_good_configuration_of_the_usual_paths() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root (files of other users)");
    }
    const SCRIPT: &str = "mount -t tmpfs none /var/lib && mkdir /var/lib/pipeban && \
        cp \"$1\" /var/lib/pipeban && shift && exec timeout 20 \"$@\"";
    let other = Lab::started();
    let lab = Lab::new();
    mode(&lab.path("pipeban.toml"), 0o666);
    let engine = lab.command(&["engine"]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]);
    command.arg(other.path("state/last-good.json"));
    let output = command.arg(engine.get_program()).args(engine.get_args());
    let output = output.output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}

#[test]
fn a_reload_of_files_that_another_user_can_change_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root (files of other users)");
    }
    let mut lab = Lab::started();
    mode(&lab.path("pipeban.toml"), 0o666);
    let (status, said) = lab.say(&["reload"]);
    assert_eq!(status, 78, "{said}");
    assert!(said.contains("chmod go-w"), "{said}");
    // A restart uses the last good one.
    lab.kill();
    lab.start();
    assert!(lab.status()["warnings"].to_string().contains("chmod go-w"));
    // Unless that is another user's too.
    lab.kill();
    let last_good = std::fs::read_dir(lab.path("state"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "json"))
        .expect("a last good configuration");
    chown(last_good, Some(STRANGER), None).unwrap();
    assert_eq!(refused(&lab).0, 78);
}

#[test]
fn a_state_directory_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root (files of other users)");
    }
    for name in ["state", "run"] {
        let lab = Lab::new();
        let directory = lab.path(name);
        std::fs::create_dir(&directory).unwrap();
        chown(&directory, Some(STRANGER), None).unwrap();
        let (status, said) = refused(&lab);
        assert_eq!(status, 2, "{said}");
        let command = format!("chown root:root {}", directory.display());
        assert!(said.contains(&command), "{said}");
        // The logger that starts an engine sees nothing of what it says.
        let logged = std::fs::read_to_string(lab.path("pipeban.log")).unwrap();
        assert!(logged.contains(&command), "{logged}");
    }
}

#[test]
fn a_user_checks_his_own_file() {
    let lab = Lab::new();
    let Some(_) = as_user(&lab, STRANGER, STRANGER, &["--version"]) else {
        return;
    };
    chown(lab.path("pipeban.toml"), Some(STRANGER), None).unwrap();
    let program = for_every_user(Path::new(PIPEBAN));
    let output = lab
        .command_of(&program, &["check", "--apache-config", "/dev/null"])
        .uid(STRANGER)
        .gid(STRANGER)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("chown"), "{said}");
}

#[test]
fn a_fifo_in_place_of_the_database_hangs_nothing() {
    let mut lab = Lab::new();
    std::fs::create_dir(lab.path("state")).unwrap();
    let fifo = lab.path("state/pipeban.sqlite3");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    lab.start();
    assert_eq!(lab.say(&["ban", "203.0.113.9"]).0, 0);
    let warnings = lab.status()["warnings"].to_string();
    assert!(warnings.contains("not a regular file"), "{warnings}");
}

#[test]
fn with_few_descriptors_administrators_are_served() {
    let mut lab = Lab::new();
    let adm = nix::unistd::Group::from_name("adm").unwrap();
    let Some(adm) = adm.filter(|_| nix::unistd::geteuid().is_root()) else {
        return skip("needs root and the group adm");
    };
    let engine = Command::new("prlimit")
        .args(["--nofile=100:100", PIPEBAN, "--config"])
        .arg(lab.path("pipeban.toml"))
        .arg("engine")
        .spawn()
        .unwrap();
    lab.engine = Some(engine);
    until("it listens", || UnixStream::connect(lab.socket()).is_ok());
    let gid = adm.gid.as_raw();
    assert_eq!(as_user(&lab, STRANGER, gid, &["status"]), Some(0));
}
