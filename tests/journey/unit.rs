//! What the shipped unit permits the engine is what it needs, and hardly more.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::http;
use crate::support::skip::skip;
use crate::support::world::{CONFIG, SERVER4};
use crate::support::{Apache, Mpm, World, eventually};

const UNIT: &str = include_str!("../../config/systemd/pipeban.service");
const DROP_IN: &str = include_str!("../../config/examples/systemd/nftables-only.conf");

/// The last value of a setting.
fn setting<'t>(unit: &'t str, name: &str) -> &'t str {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(name));
    let value = lines
        .filter_map(|value| value.strip_prefix('='))
        .next_back();
    value.expect(name)
}

/// What `systemd-analyze security` says of a unit: 0 to 10, less is better.
fn exposure(unit: &str) -> Option<f64> {
    let directory = tempfile::tempdir().expect("made");
    let file = directory.path().join("pipeban.service");
    std::fs::write(&file, unit).expect("written");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(file)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let overall = text.lines().find(|line| line.contains("Overall exposure"));
    let words = overall.unwrap_or_default().split_whitespace();
    let score = words
        .filter_map(|word| word.parse::<f64>().ok())
        .next_back();
    assert!(
        score.is_some(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    score
}

#[test]
fn the_unit_and_its_drop_in_are_confined() {
    // A drop-in's settings follow those of the unit.
    for (unit, most) in [(UNIT.to_owned(), 3.0), ([UNIT, DROP_IN].concat(), 1.6)] {
        let Some(score) = exposure(&unit) else {
            return skip("needs systemd-analyze, of a host that systemd runs");
        };
        assert!(score <= most, "{score}");
    }
}

/// Starts an engine as systemd does, by what setpriv can do of it.
fn start_engine(world: &World, rights: &[&str]) {
    let before = [
        "setsid",
        "--fork",
        "sh",
        "-c",
        "exec \"$@\" </dev/null >/dev/null 2>&1",
        "-",
        "setpriv",
    ];
    world.must(&[&before, rights, &["/usr/bin/pipeban", "engine"]].concat());
    eventually("the engine answers", || {
        let said = world.pipeban(&["status"]);
        match said.status {
            0 => Ok(()),
            _ => Err(format!("{said:?}")),
        }
    });
}

#[test]
fn the_engine_bans_and_ufw_gets_its_rule_with_the_capabilities_of_the_unit() {
    let Some(world) = World::new() else { return };
    let granted = setting(UNIT, "CapabilityBoundingSet").split(' ');
    let granted = granted.map(|name| name.strip_prefix("CAP_").expect(name));
    let set: String = granted
        .map(|name| format!(",+{}", name.to_lowercase()))
        .collect();
    // As systemd makes them.
    world.must(&["mkdir", "-m", "0755", "/run/pipeban"]);
    world.must(&["mkdir", "-m", "0750", "/var/lib/pipeban"]);
    start_engine(&world, &[&format!("--bounding-set=-all{set}")]);
    let ban = world.must(&["/usr/bin/pipeban", "ban", "198.51.100.66"]);
    assert!(ban.contains("Ban 198.51.100.66"), "{ban}");
    let table = world.must(&["nft", "list", "table", "inet", "pipeban"]);
    assert!(table.contains("198.51.100.66"), "{table}");
    eventually("ufw has the rule", || {
        let rules = world.ufw();
        match rules.contains("198.51.100.66") {
            true => Ok(()),
            false => Err(format!("{rules}\n{:?}", world.status(None)["warnings"])),
        }
    });
    let socket = world.must(&["stat", "-c", "%a %U %G", "/run/pipeban/engine.sock"]);
    assert_eq!(socket.trim(), "660 root adm");
    let log = world.read("/var/log/pipeban.log");
    assert!(log.contains("Ban 198.51.100.66"), "{log}");
    world.must(&["/usr/bin/pipeban", "unban", "198.51.100.66"]);
    eventually("the rule is removed", || {
        let rules = world.ufw();
        match rules.contains("198.51.100.66") {
            true => Err(rules),
            false => Ok(()),
        }
    });
}

#[test]
fn with_the_drop_in_a_user_with_one_capability_bans_what_apache_shows() {
    let Some(world) = World::new() else { return };
    let user = setting(DROP_IN, "User");
    let capability = setting(DROP_IN, "AmbientCapabilities");
    assert_eq!(setting(DROP_IN, "CapabilityBoundingSet"), capability);
    let capability = capability.strip_prefix("CAP_").expect("its prefix");
    let only = format!("-all,+{}", capability.to_lowercase());
    let rights = [
        format!("--reuid={user}"),
        format!("--regid={}", setting(DROP_IN, "Group")),
        "--clear-groups".to_owned(),
        format!("--inh-caps={only}"),
        format!("--ambient-caps={only}"),
        format!("--bounding-set={only}"),
        "--no-new-privs".to_owned(),
    ];
    let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
    world.must(&["useradd", "--system", user]);
    let config = "[firewall]\nbackend = \"nftables\"\n[syslog]\nlog_file = \"\"\n\
                  [metrics]\nlisten = \"127.0.0.1:9877\"\n";
    world.write("/etc/pipeban/pipeban.toml", &format!("{config}{CONFIG}"));
    // As systemd makes them.
    let owner = format!("--owner={user}");
    world.must(&["install", "-d", "-m", "0755", &owner, "/run/pipeban"]);
    world.must(&["install", "-d", "-m", "0750", &owner, "/var/lib/pipeban"]);
    start_engine(&world, &rights);
    let socket = world.must(&["stat", "-c", "%a %U %G", "/run/pipeban/engine.sock"]);
    assert_eq!(socket.trim(), format!("660 {user} adm"));

    let apache = Apache::with_pipeban(&world, Mpm::Event);
    apache.pipe("error");
    let clients = world.clients();
    http::attack(&clients, "198.51.100.7", SERVER4);
    world.until_banned("apache-cgitraversal", "198.51.100.7");
    assert!(http::get(&clients, "198.51.100.7", SERVER4, "/").is_err());
    let doctor = world.pipeban(&["doctor"]).stdout;
    for link in ["owners", "socket", "database", "cutting", "proof"] {
        let line = doctor.lines().find(|line| line.contains(link));
        assert!(line.is_some_and(|line| line.starts_with("ok")), "{doctor}");
    }

    // The process that strangers reach has not even the one capability.
    eventually("metrics are served without a capability", || {
        let all = world.processes();
        let is_server = |word: &String| word.contains("metrics-server");
        let server = all
            .iter()
            .find(|process| process.argv.iter().any(is_server));
        let pid = server.ok_or("no process")?.pid;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let held = status.lines().filter(|line| {
            ["CapInh", "CapPrm", "CapEff", "CapAmb"]
                .iter()
                .any(|set| line.starts_with(set))
        });
        match held
            .filter(|line| line.ends_with("0000000000000000"))
            .count()
        {
            4 => Ok(()),
            _ => Err(status),
        }
    });

    // Another one, after a kill.
    world.engine().signal(Signal::SIGKILL);
    start_engine(&world, &rights);
    world.until_banned("apache-cgitraversal", "198.51.100.7");
    http::attack(&clients, "198.51.100.8", SERVER4);
    world.until_banned("apache-cgitraversal", "198.51.100.8");
}
