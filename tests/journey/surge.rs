//! More bans than are told one by one: all in force; lines, hooks and ufw's rules are what is cut.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

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
    world.write(hook, "#!/bin/sh\necho \"$*\" >>/run/told\n");
    std::fs::set_permissions(world.path(hook), PermissionsExt::from_mode(0o755)).expect("set");
    world.write(
        "/etc/pipeban/pipeban.toml",
        &format!(
            "[defaults]\nbans_per_minute = {LIMIT}\non_ban = [\"{hook}\", \"{{jail}}\", \"{{host}}\"]\n{CONFIG}"
        ),
    );
    world.start_engine();
    let mut pipe = world
        .command(&["/usr/bin/pipeban", "log", "error"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let lines: String = (1..=ATTACKERS)
        .map(|n| {
            format!(
                "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] [client 198.51.100.{n}:49108] \
                 AH10244: invalid URI path (/cgi-bin/.%2e/bin/sh)\n"
            )
        })
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
    // What a person does is told in any case, after all that came before.
    world.must(&["/usr/bin/pipeban", "ban", "198.51.100.250"]);
    world.until_told("Ban 198.51.100.250");
    let told = world.syslog();
    let bans = told.matches(&format!("[{name}] Ban ")).count();
    assert_eq!(bans, LIMIT, "{told}");
    let hooks = eventually("the last hook has run", || {
        let told = world.read("/run/told");
        let last = told.ends_with("manual 198.51.100.250\n");
        last.then_some(told.clone()).ok_or(told)
    });
    assert_eq!(hooks.matches(name).count(), LIMIT, "{hooks}");
    world.until_told(&format!("{name} more than {LIMIT};"));
    let rules = world.ufw().matches("198.51.100.").count();
    assert!(rules < SURGE, "{rules} rules");
    drop(stdin);
    let _ = pipe.wait();
}
