//! Debian's own /etc/apache2 beside pipeban, and without it again: every command of the README,
//! in its order.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;

use crate::docs;
use crate::support::http::{self, Connection};
use crate::support::process;
use crate::support::world::SERVER4;
use crate::support::{World, eventually, skip_without};

const JAIL: &str = "apache-cgitraversal";
const LOGS: [&str; 5] = [
    "access.log",
    "error.log",
    "shop_access.log",
    "shop_error.log",
    "other_vhosts_access.log",
];

const SHOP: &str = r"<VirtualHost *:80>
    ServerName shop.example.org
    DocumentRoot /var/www/html
    ErrorLog ${APACHE_LOG_DIR}/shop_error.log
    CustomLog ${APACHE_LOG_DIR}/shop_access.log combined
</VirtualHost>
";

/// The same visits before and after: what each log file gains by them, times and ports left out.
fn visit(world: &World, from: &str) {
    let clients = world.clients();
    for host in ["www.example.org", "shop.example.org"] {
        for path in ["/", "/nowhere", "/server-status"] {
            let mut connection = Connection::open(&clients, from, SERVER4).expect("connects");
            connection
                .get_of(host, path, "Connection: close\r\n")
                .expect("answered");
        }
    }
}

/// Lines of each log that name this client.
fn gained(world: &World, client: &str) -> Vec<(&'static str, usize)> {
    LOGS.iter()
        .map(|log| {
            let text = world.read(&format!("/var/log/apache2/{log}"));
            (
                *log,
                text.lines().filter(|line| line.contains(client)).count(),
            )
        })
        .collect()
}

/// Waits until each log has gained these lines for this client, and not more.
#[track_caller]
fn until_gained(world: &World, client: &str, lines: &[(&'static str, usize)]) {
    eventually(&format!("the lines of {client}"), || {
        let gained = gained(world, client);
        if gained == lines {
            Ok(())
        } else {
            Err(format!("{gained:?}"))
        }
    });
}

fn until_served(world: &World) {
    let clients = world.clients();
    eventually("Apache answers", || {
        http::get(&clients, "203.0.113.2", SERVER4, "/").map_err(|error| error.to_string())
    });
}

/// The README's commands that were not run yet.
struct Readme<'w> {
    world: &'w World,
    left: VecDeque<String>,
}

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The program that this test was built with: a release build takes minutes.
const PROFILE: &str = "PROFILE=dev";

impl Readme<'_> {
    /// Runs the next commands up to this one.
    #[track_caller]
    fn run_to(&mut self, last: &str) {
        while let Some(line) = self.left.pop_front() {
            let ended = match line.as_str() {
                "make demo" => make(WITHOUT_RSYSLOG, "demo").and_then(shown),
                // All its steps; of the tests some only, as this is one of them.
                "make test" => make("", "test TESTS=crates::").and_then(ran),
                "make build" => make("", "build"),
                "make install" | "make uninstall" => self.make(&line[5..]),
                _ => self.shell(&line),
            };
            match (line.as_str(), ended) {
                // The README says so.
                ("pipeban setup", ended) => assert!(
                    ended.as_ref().is_err_and(|said| said.starts_with("1: ")),
                    "{line}: {ended:?}"
                ),
                // The namespace has no systemd, for one; tests/doctor.rs judges the answer.
                ("pipeban doctor", Err(said)) if said.starts_with("1: ") => {}
                (_, Err(said)) => panic!("README: `{line}` ends with {said}"),
                (_, Ok(_)) => {}
            }
            if line == last {
                return;
            }
        }
        panic!("the README has no `{last}` where it is expected");
    }

    fn make(&self, what: &str) -> Result<String, String> {
        self.shell(&format!(
            "make --no-print-directory -C {ROOT} {PROFILE} {what}"
        ))
    }

    /// What it prints; or its status, and what it says.
    fn shell(&self, line: &str) -> Result<String, String> {
        let said = self.world.run(&["sh", "-c", line]);
        match said.status {
            0 => Ok(said.stdout),
            status => Err(format!("{status}: {}{}", said.stdout, said.stderr)),
        }
    }
}

/// As on a machine that has none, where `make demo` installs none.
const WITHOUT_RSYSLOG: &str = "mount --bind /dev/null /usr/sbin/rsyslogd;";

/// Runs make on this machine, as a person does outside the tests: cargo sees none of what the cargo
/// that runs this test has set.
fn make(before: &str, what: &str) -> Result<String, String> {
    let of_cargo = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "MAKE"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || ["CARGO", "MFLAGS", "TESTS", "LD_LIBRARY_PATH"].contains(&name)
    };
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!(
            "{before} make --no-print-directory -C {ROOT} {PROFILE} {what}"
        ))
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| !of_cargo(name)))
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}: {said}{stderr}", output.status))
    }
}

/// What `make demo` is to show, with the headings of the tables in the README.
fn shown(said: String) -> Result<String, String> {
    let text = docs::readmes_blocks("text").join("\n");
    let headings = ["jail ", "client ", "banned now:"];
    let headings = text
        .lines()
        .filter(|line| headings.iter().any(|heading| line.starts_with(heading)));
    let headings: Vec<&str> = headings.collect();
    if headings.len() != 3 {
        return Err(format!("the README's tables are gone: {headings:?}"));
    }
    let said = has(said, &headings)?;
    has(
        said,
        &[
            "Ban 198.51.100.7 for 365d",
            "pipeban status apache-cgitraversal",
            "ufw status numbered",
            "attacker (IPv4):  no answer",
            "attacker (IPv6):  no answer",
            "visitor:          HTTP/1.1 200 OK",
        ],
    )
}

/// What `make test` is to run. Debian's cargo comes without fmt and clippy.
fn ran(said: String) -> Result<String, String> {
    let installed = |tool: &str| {
        let version = Command::new("cargo").args([tool, "--version"]).output();
        version.is_ok_and(|version| version.status.success())
    };
    let tools = ["fmt", "clippy"].into_iter().filter(|tool| installed(tool));
    let tools: Vec<String> = tools.map(|tool| format!("cargo {tool}")).collect();
    let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
    has(
        said,
        &[&tools[..], &["test crates::", " 0 failed"]].concat(),
    )
}

fn has(said: String, texts: &[&str]) -> Result<String, String> {
    match texts.iter().find(|text| !said.contains(*text)) {
        None => Ok(said),
        Some(missing) => Err(format!("`{missing}` is missing in {said}")),
    }
}

#[test]
fn the_readmes_commands_ban_on_every_site_of_an_untouched_debian_and_leave_it_as_it_was() {
    let Some(world) = World::new() else { return };
    if !Path::new("/etc/apache2/apache2.conf").exists() || !Path::new("/usr/sbin/a2enconf").exists()
    {
        return skip_without("apache2");
    }
    world.write("/etc/apache2/sites-available/shop.conf", SHOP);
    world.write("/var/www/html/index.html", "hello\n");
    world.must(&["a2ensite", "-q", "shop"]);
    world.must(&["apache2ctl", "start"]);
    until_served(&world);
    visit(&world, "198.51.100.20");
    let before = [
        ("access.log", 3),
        ("error.log", 1),
        ("shop_access.log", 3),
        ("shop_error.log", 1),
        ("other_vhosts_access.log", 0),
    ];
    until_gained(&world, "198.51.100.20", &before);

    // The world's own: a stranger has none.
    world.must(&["umount", "/usr/bin/pipeban"]);
    world.must(&["rm", "-f", "/usr/bin/pipeban"]);
    let mut readme = Readme {
        world: &world,
        left: docs::readmes_commands().into(),
    };
    readme.run_to("make install");
    let jail = world.read("/etc/pipeban/pipeban.toml");
    assert!(
        jail.contains(JAIL),
        "make install keeps the administrator's configuration: {jail}"
    );
    readme.run_to("apache2ctl graceful");
    eventually("Apache has started its pipes", || {
        match process::loggers(&world.processes()).len() {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    });
    until_served(&world);
    world.engine();
    readme.run_to("pipeban status");

    visit(&world, "198.51.100.21");
    until_gained(&world, "198.51.100.21", &before);
    let clients = world.clients();
    for (host, attacker) in [
        ("www.example.org", "198.51.100.7"),
        ("shop.example.org", "198.51.100.8"),
    ] {
        let mut connection = Connection::open(&clients, attacker, SERVER4).expect("connects");
        // The ban may be faster than the answer.
        let _ = connection.get_of(host, http::ATTACK, "");
        world.until_banned(JAIL, attacker);
        assert!(
            http::get(&clients, attacker, SERVER4, "/").is_err(),
            "{attacker} on {host}"
        );
    }

    // The first jail, and a log in which it finds something.
    let blocks = docs::readmes_blocks("toml");
    let [jail, filter] = blocks.try_into().expect("a jail and its filter");
    let toml = world.read("/etc/pipeban/pipeban.toml");
    world.write("/etc/pipeban/pipeban.toml", &format!("{toml}\n{jail}\n"));
    world.write("/etc/pipeban/filters.d/wp-login.toml", &filter);
    let post = "exec 3<>/dev/tcp/203.0.113.1/80; printf 'POST /wp-login.php HTTP/1.0\r\n\r\n' >&3; cat <&3";
    world.must(&["ip", "netns", "exec", "clients", "bash", "-c", post]);
    eventually("the line of the first jail", || {
        let log = world.read("/var/log/apache2/access.log");
        if log.contains("POST /wp-login.php") {
            Ok(())
        } else {
            Err(log)
        }
    });
    readme.run_to("pipeban reload");
    world.jail("wp-login");
    world.write(
        "/var/log/fail2ban.log",
        "2026-11-22 11:00:33,366 fail2ban.actions        [812]: NOTICE  [apache-access-traversal] Ban 137.131.43.224\n",
    );
    readme.run_to("pipeban on");

    world.must(&["pipeban", "ban", "198.51.100.7"]);
    // A removal that fails changes no ban, and leaves no emergency stop.
    let include = "/etc/apache2/by-hand.inc";
    world.write(include, "ErrorLog \"|/usr/bin/pipeban log error /x\"\n");
    let failed = readme.make("uninstall").expect_err("the include names it");
    assert!(failed.contains(include), "{failed}");
    assert!(world.status(None)["engine"]["off"].is_null());
    assert!(world.ban_of("manual", "198.51.100.7").is_some());
    world.must(&["rm", include]);
    readme.run_to("make uninstall");
    assert_eq!(readme.left, [""; 0], "the README ends with the way out");
    eventually("no pipe is left in Apache", || {
        let left = process::loggers(&world.processes());
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    assert!(!world.path("/usr/bin/pipeban").exists());
    world.must(&["apache2ctl", "graceful"]);
    until_served(&world);
    assert_eq!(
        http::get(&clients, "198.51.100.7", SERVER4, "/").expect("no ban is left"),
        200
    );
    let rules = world.ufw();
    assert!(!rules.contains("pipeban"), "{rules}");
    // The next installation starts without the bans of this one.
    let database = world.path("/var/lib/pipeban/pipeban.sqlite3");
    if database.exists() {
        // SQLite would follow the link at the front of this path.
        let copy = tempfile::tempdir().expect("a directory");
        for end in ["", "-wal"] {
            let from = format!("{}{end}", database.display());
            let to = copy.path().join(format!("copy{end}"));
            // There is no log of changes once it is merged.
            let copied = std::fs::copy(from, to);
            assert!(copied.is_ok() || end == "-wal", "{copied:?}");
        }
        let database = rusqlite::Connection::open(copy.path().join("copy")).expect("a database");
        let count = "SELECT count(*) FROM bans WHERE ended IS NULL";
        let active: i64 = database
            .query_row(count, [], |row| row.get(0))
            .expect("read");
        assert_eq!(active, 0);
    }
    visit(&world, "198.51.100.22");
    until_gained(&world, "198.51.100.22", &before);

    // An engine that was stopped by hand is not started by a logger that ends.
    readme.make("install").expect("installed again");
    world.must(&["pipeban", "setup", "--write"]);
    world.must(&["apache2ctl", "graceful"]);
    eventually("the pipes are back", || {
        let engine = world.pipeban(&["status"]);
        (engine.status == 0).then_some(()).ok_or(engine.stderr)
    });
    world.must(&["pipeban", "engine", "--stop"]);
    readme.make("uninstall").expect("removed again");
    eventually("no process of pipeban is left", || {
        let left = process::pipebans(&world.processes());
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    });
}
