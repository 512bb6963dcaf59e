//! The namespaces, and what runs commands in them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use super::eventually;
use super::network::Network;
use super::process::{self, Process};
use super::{skip, skip_without};

/// The server's addresses.
pub(crate) const SERVER4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
pub(crate) const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
/// The clients' router, where back ends listen.
pub(crate) const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));

/// The tutorial's jail, and one that only counts.
pub(crate) const CONFIG: &str = r#"
[jails.apache-cgitraversal]
enabled  = true
log      = "error"
filter   = "apache-cgitraversal"
maxretry = 1
bantime  = "365d"
"#;

/// The tutorial's filter, as printed there.
pub(crate) const FILTER: &str = r"[Definition]
failregex = \[client <HOST>:\d+\] AH10244: invalid URI path \(.*cgi-bin.*bin/sh.*
ignoreregex =
";

/// The program under a name of its own: tests/journey/debian.rs builds it again, and a program whose
/// file has lost its name starts no engine.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let link = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pipeban-of-worlds");
        let _ = fs::remove_file(&link);
        fs::hard_link(env!("CARGO_BIN_EXE_pipeban"), &link).expect("a hard link");
        link
    })
}

/// A server and its clients. `tests/support/world.sh` says which addresses there are.
pub(crate) struct World {
    holder: Child,
    /// The first process of the namespaces, as seen from outside.
    init: u32,
}

/// What a command in the world said.
#[derive(Debug)]
pub(crate) struct Said {
    /// Exit status; 128 and more: ended by a signal.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// A world with pipeban's configuration of the tutorial; `None`, and a loud word, where this
    /// machine cannot have one.
    pub(crate) fn new() -> Option<World> {
        if !possible() {
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/world.sh");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--mount-proc"])
            .args(["--propagation", "private", "bash", script])
            .arg(program())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("the world speaks");
        assert_eq!(line, "ready\n", "the world came up; see stderr above");
        let id = holder.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("/proc");
        let init = children.trim().parse().expect("unshare has one child");
        let world = World { holder, init };
        world.write("/etc/pipeban/pipeban.toml", CONFIG);
        world.write("/etc/pipeban/filters.d/apache-cgitraversal.conf", FILTER);
        Some(world)
    }

    /// Where a file of the world is found from outside.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    pub(crate) fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("not the root")).expect("directory made");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// The file's bytes; nothing when it is not there.
    pub(crate) fn bytes(&self, inside: &str) -> Vec<u8> {
        fs::read(self.path(inside)).unwrap_or_default()
    }

    /// The file's text; nothing when it is not there.
    pub(crate) fn read(&self, inside: &str) -> String {
        String::from_utf8_lossy(&self.bytes(inside)).into_owned()
    }

    /// The piped logger of an error log that goes nowhere but to the matcher.
    pub(crate) fn error_pipe(&self) -> Child {
        self.command(&["/usr/bin/pipeban", "log", "error"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started")
    }

    /// A command on the server.
    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(["--mount", "--net", "--pid", "--"])
            .args(argv)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs a command on the server.
    pub(crate) fn run(&self, argv: &[&str]) -> Said {
        self.run_with(argv, b"")
    }

    /// Runs a command on the server with something to read. Waits for its end, not for that of
    /// what it leaves behind: its output goes to files.
    pub(crate) fn run_with(&self, argv: &[&str], stdin: &[u8]) -> Said {
        let mut stdout = tempfile::tempfile().expect("made");
        let mut stderr = tempfile::tempfile().expect("made");
        let mut child = self
            .command(argv)
            .stdin(Stdio::piped())
            .stdout(stdout.try_clone().expect("cloned"))
            .stderr(stderr.try_clone().expect("cloned"))
            .spawn()
            .expect("nsenter starts");
        // A program that does not read it is no failure here.
        let _ = child.stdin.take().expect("piped").write_all(stdin);
        let status = child.wait().expect("waited");
        let text = |file: &mut fs::File| {
            let mut bytes = Vec::new();
            file.rewind().expect("rewound");
            file.read_to_end(&mut bytes).expect("read");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Said {
            status: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: text(&mut stdout),
            stderr: text(&mut stderr),
        }
    }

    /// Runs a command on the server that must succeed; what it printed.
    #[track_caller]
    pub(crate) fn must(&self, argv: &[&str]) -> String {
        let said = self.run(argv);
        assert_eq!(said.status, 0, "{argv:?}: {said:?}");
        said.stdout
    }

    /// Runs pipeban on the server.
    pub(crate) fn pipeban(&self, args: &[&str]) -> Said {
        let argv: Vec<&str> = [&["/usr/bin/pipeban"], args].concat();
        self.run(&argv)
    }

    /// Starts the engine by hand and waits until it answers: for tests without Apache.
    pub(crate) fn start_engine(&self) {
        let log = fs::File::create(self.path("/var/log/engine-by-hand")).expect("made");
        // Its end is the world's: nobody waits for it here.
        self.command(&["setsid", "--fork", "/usr/bin/pipeban", "engine"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("cloned"))
            .stderr(log)
            .status()
            .expect("started");
        self.engine();
    }

    /// The engine, as soon as it answers.
    pub(crate) fn engine(&self) -> Process {
        eventually("the engine answers `pipeban status`", || {
            let said = self.pipeban(&["status", "--json"]);
            let status: Value =
                serde_json::from_str(&said.stdout).map_err(|error| format!("{error}: {said:?}"))?;
            let all = self.processes();
            all.into_iter()
                .find(|process| status["engine"]["pid"] == process.inside)
                .ok_or(said.stdout)
        })
    }

    /// `pipeban status --json`, with a jail's name or without.
    #[track_caller]
    pub(crate) fn status(&self, jail: Option<&str>) -> Value {
        let mut args = vec!["status", "--json"];
        args.extend(jail);
        let said = self.pipeban(&args);
        serde_json::from_str(&said.stdout)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {said:?}"))
    }

    /// One jail out of `pipeban status JAIL --json`.
    #[track_caller]
    pub(crate) fn jail(&self, name: &str) -> Value {
        let status = self.status(Some(name));
        let jails = status["jails"].as_array().cloned().unwrap_or_default();
        jails
            .into_iter()
            .find(|jail| jail["name"] == name)
            .unwrap_or_else(|| panic!("no jail `{name}` in {status}"))
    }

    /// The jail's ban of exactly this host (address or network), as `status` has it.
    #[track_caller]
    pub(crate) fn ban_of(&self, jail: &str, host: &str) -> Option<Value> {
        let jail = self.jail(jail);
        let bans = jail["banned"].as_array().cloned().unwrap_or_default();
        bans.into_iter().find(|ban| ban["host"] == host)
    }

    /// Waits until the jail has banned this host and the kernel holds the ban.
    #[track_caller]
    pub(crate) fn until_banned(&self, jail: &str, host: &str) -> Value {
        eventually(&format!("{host} banned by {jail}, in force"), || {
            let said = self.pipeban(&["status", "--json", jail]);
            let status: Value =
                serde_json::from_str(&said.stdout).map_err(|e| format!("{e}: {said:?}"))?;
            status["jails"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|found| found["name"] == jail)
                .flat_map(|found| found["banned"].as_array().into_iter().flatten())
                .find(|ban| ban["host"] == host && ban["in_force"] == true)
                .cloned()
                .ok_or(said.stdout)
        })
    }

    /// `ufw status numbered`.
    pub(crate) fn ufw(&self) -> String {
        self.must(&["ufw", "status", "numbered"])
    }

    /// What rsyslog wrote: `facility.severity tag: text` a line.
    pub(crate) fn syslog(&self) -> String {
        self.read("/var/log/world-syslog")
    }

    /// Waits for a line of syslog that holds `text`; returns it.
    #[track_caller]
    pub(crate) fn until_logged(&self, text: &str) -> String {
        eventually(&format!("`{text}` in syslog"), || {
            let logged = self.syslog();
            logged
                .lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
                .ok_or_else(|| last_lines(&logged, 5))
        })
    }

    /// Where the clients are.
    pub(crate) fn clients(&self) -> Network {
        Network::open(&self.path("/run/netns/clients"))
    }

    /// Where the server is.
    pub(crate) fn server(&self) -> Network {
        Network::open(Path::new(&format!("/proc/{}/ns/net", self.init)))
    }

    /// Every process of the world, with its number outside.
    pub(crate) fn processes(&self) -> Vec<Process> {
        process::all_like(self.init)
    }

    /// All that one wants to see when a test has failed.
    fn report(&self) -> String {
        let mut text = String::new();
        let mut part = |name: &str, body: String| {
            text.push_str(&format!("---- {name}\n{}\n", body.trim_end()));
        };
        for file in [
            "/var/log/world-syslog",
            "/var/log/pipeban.log",
            "/var/log/engine-by-hand",
            "/var/log/apache2/error.log",
            "/var/log/apache2/access.log",
            "/var/log/apache-start",
        ] {
            part(file, last_lines(&self.read(file), 40));
        }
        for argv in [
            &["ufw", "status", "numbered"][..],
            &["nft", "list", "tables"],
            &[
                "sh",
                "-c",
                "nft list ruleset | grep -A40 pipeban | head -80",
            ],
            &["ps", "-eo", "pid,ppid,sid,user,stat,args", "--forest"],
            &["timeout", "5", "/usr/bin/pipeban", "status"],
        ] {
            let said = self.run(argv);
            part(&argv.join(" "), said.stdout + &said.stderr);
        }
        text
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

fn last_lines(text: &str, most: usize) -> String {
    let cut = |line: &'_ str| line.chars().take(400).collect::<String>();
    let lines: Vec<String> = text.lines().map(cut).collect();
    lines[lines.len().saturating_sub(most)..].join("\n")
}

/// Whether this machine can have a world.
fn possible() -> bool {
    if !nix::unistd::geteuid().is_root() {
        skip("needs root (namespaces, ufw)");
        return false;
    }
    for program in [
        "/usr/sbin/apache2",
        "/usr/sbin/ufw",
        "/usr/sbin/nft",
        "/usr/sbin/rsyslogd",
        "/usr/bin/unshare",
        "/usr/bin/nsenter",
    ] {
        if !Path::new(program).exists() {
            skip_without(program);
            return false;
        }
    }
    if !Path::new("/sbin/ip").exists() && !Path::new("/usr/sbin/ip").exists() {
        skip_without("/usr/sbin/ip");
        return false;
    }
    true
}
