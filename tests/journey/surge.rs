//! More bans than are logged one by one: all are in force; log lines, hooks and ufw rules are cut.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use crate::support::http::attack_line;
use crate::support::world::{CONFIG, SERVER4};
use crate::support::{World, eventually};

const LIMIT: usize = 20;
const ATTACKERS: usize = 200;
/// So many bans in ten seconds, and ufw gets no rule.
const SURGE: usize = 30;

#[test]
fn a_surge_of_bans_is_in_force_and_cuts_lines_hooks_and_ufw_rules() {
    let Some(world) = World::new() else { return };
    let hook = "/usr/local/sbin/tell";
    world.write(hook, "#!/bin/sh\necho \"$*\" >>/run/hooked\n");
    std::fs::set_permissions(world.path(hook), PermissionsExt::from_mode(0o755)).expect("set");
    world.write(
        "/etc/pipeban/pipeban.toml",
        &format!(
            "[defaults]\nbans_per_minute = {LIMIT}\non_ban = [\"{hook}\", \"{{jail}}\", \"{{host}}\"]\n{CONFIG}"
        ),
    );
    world.start_engine();
    let mut pipe = world.error_pipe();
    let lines: String = (1..=ATTACKERS)
        .map(|n| attack_line(format_args!("198.51.100.{n}")))
        .collect();
    let mut stdin = pipe.stdin.take().expect("piped");
    stdin.write_all(lines.as_bytes()).expect("written");
    let name = "apache-cgitraversal";
    eventually("all are banned, in force", || {
        let jail = world.jail(name);
        let bans = jail["banned"].as_array().cloned().unwrap_or_default();
        let held = bans.iter().filter(|ban| ban["in_force"] == true).count();
        (held == ATTACKERS).then_some(()).ok_or(held.to_string())
    });
    for n in [1, LIMIT + 1, ATTACKERS] {
        let from = format!("198.51.100.{n}").parse().expect("an address");
        let refused = world.clients().connect(from, SocketAddr::new(SERVER4, 80));
        assert!(refused.is_err(), "{from} is served");
    }
    // A ban by hand is logged in any case, after all that came before.
    world.must(&["/usr/bin/pipeban", "ban", "198.51.100.250"]);
    world.until_logged("Ban 198.51.100.250");
    let logged = world.syslog();
    let bans = logged.matches(&format!("[{name}] Ban ")).count();
    assert_eq!(bans, LIMIT, "{logged}");
    let hooks = eventually("the last hook has run", || {
        let logged = world.read("/run/hooked");
        let last = logged.ends_with("manual 198.51.100.250\n");
        last.then_some(logged.clone()).ok_or(logged)
    });
    assert_eq!(hooks.matches(name).count(), LIMIT, "{hooks}");
    world.until_logged(&format!("jail `{name}`: more than {LIMIT} bans"));
    let rules = world.ufw().matches("198.51.100.").count();
    assert!(rules < SURGE, "{rules} rules");
    drop(stdin);
    let _ = pipe.wait();
}
