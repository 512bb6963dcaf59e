//! What the shipped unit permits the engine is what it needs, and hardly more.

use std::process::Command;

use crate::support::skip::skip;
use crate::support::{World, eventually};

const UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/config/systemd/pipeban.service"
);

/// Highest score of `systemd-analyze security` (0 to 10, less is better).
const MOST: f64 = 3.0;

fn setting(name: &str) -> String {
    let unit = std::fs::read_to_string(UNIT).expect("shipped");
    let line = unit.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|value| value.strip_prefix('='));
    value.expect(name).to_owned()
}

#[test]
fn the_unit_is_confined() {
    let Ok(output) = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", UNIT])
        .output()
    else {
        return skip("needs systemd-analyze, of a host that systemd runs");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let overall = text.lines().find(|line| line.contains("Overall exposure"));
    let score = overall.and_then(|line| {
        let words = line.split_whitespace();
        words
            .filter_map(|word| word.parse::<f64>().ok())
            .next_back()
    });
    let score =
        score.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    assert!(score <= MOST, "{text}");
}

#[test]
fn the_engine_bans_and_ufw_gets_its_rule_with_the_capabilities_of_the_unit() {
    let Some(world) = World::new() else { return };
    let granted = setting("CapabilityBoundingSet");
    let granted = granted
        .split(' ')
        .map(|name| name.strip_prefix("CAP_").expect(name));
    let set: String = granted
        .map(|name| format!(",+{}", name.to_lowercase()))
        .collect();
    let set = format!("--bounding-set=-all{set}");
    // As systemd makes them.
    world.must(&["mkdir", "-m", "0755", "/run/pipeban"]);
    world.must(&["mkdir", "-m", "0750", "/var/lib/pipeban"]);
    world.must(&[
        "setsid",
        "--fork",
        "sh",
        "-c",
        "exec \"$@\" </dev/null >/dev/null 2>&1",
        "-",
        "setpriv",
        &set,
        "/usr/bin/pipeban",
        "engine",
    ]);
    let ban = eventually("the engine answers", || {
        let said = world.pipeban(&["ban", "198.51.100.66"]);
        match said.status {
            0 => Ok(said.stdout),
            _ => Err(format!("{said:?}")),
        }
    });
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
