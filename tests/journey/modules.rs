//! A module that names the client in its message: a filter says where.

use std::io::Write;

use crate::support::{World, eventually};

const NATIVE: &str = r#"log = "error"

[[client]]
module = "mymod"
begins = "My module: "
before = " from "

[[match]]
module  = ["mymod"]
message = 'flood'
hit     = ['[Sun Nov 22 11:00:33 2026] [mymod:error] [pid 1:tid 2] My module: flood from 192.0.2.1']
"#;

/// A jail of each kind of filter.
fn jails(native: bool) -> String {
    format!(
        "[jails.native]\nenabled = {native}\nlog = \"error\"\nfilter = \"native\"\nmaxretry = 1\n\
         [jails.old]\nenabled = true\nlog = \"error\"\nfilter = \"old\"\nmaxretry = 1\n"
    )
}

fn line(client: &str) -> String {
    format!(
        "[Sun Nov 22 11:00:33.366318 2026] [mymod:error] [pid 1:tid 2] My module: flood from {client}\n"
    )
}

/// The jails that `test` says are hit.
fn tested(world: &World, line: &str, more: &[&str]) -> Vec<String> {
    let argv = [&["/usr/bin/pipeban", "test", "--json"], more, &["-"]].concat();
    let said = world.run_with(&argv, line.as_bytes());
    let found: serde_json::Value = serde_json::from_str(&said.stdout).expect(&said.stdout);
    let matches = found["matches"].as_array().cloned().unwrap_or_default();
    let names = matches.iter().map(|found| match found["jail"].as_str() {
        Some(jail) => jail.to_owned(),
        None => found["filter"].as_str().unwrap_or_default().to_owned(),
    });
    names.collect()
}

#[test]
fn the_client_in_a_modules_message_is_banned_where_a_filter_names_the_place() {
    let Some(world) = World::new() else { return };
    world.write("/etc/pipeban/filters.d/native.toml", NATIVE);
    let old = "[Definition]\nfailregex = My module: flood from <HOST>$\nignoreregex =\n";
    world.write("/etc/pipeban/filters.d/old.conf", old);
    world.write("/etc/pipeban/pipeban.toml", &jails(true));
    let checked = world.pipeban(&["check"]);
    assert!(!checked.stdout.contains("sample"), "{checked:?}");
    world.start_engine();
    let attack = line("198.51.100.7");
    assert_eq!(tested(&world, &attack, &[]), ["native", "old"]);
    assert_eq!(tested(&world, &attack, &["--jail", "old"]), ["old"]);
    assert_eq!(tested(&world, &attack, &["--filter", "old"]), ["old"]);
    assert_eq!(tested(&world, &attack, &["--filter", "native"]), ["native"]);
    let argv = ["/usr/bin/pipeban", "replay", "--kind", "error", "-"];
    let said = world.run_with(&argv, attack.as_bytes());
    assert!(said.stdout.contains("198.51.100.7"), "{said:?}");

    let mut pipe = world.error_pipe();
    let mut stdin = pipe.stdin.take().expect("piped");
    stdin.write_all(attack.as_bytes()).expect("written");
    for jail in ["native", "old"] {
        eventually("banned", || {
            let ban = world.ban_of(jail, "198.51.100.7");
            ban.ok_or_else(|| jail.to_owned())
        });
    }
    let said = world.pipeban(&["explain", attack.trim()]);
    assert!(said.stdout.contains("198.51.100.7 is banned"), "{said:?}");

    // Without the jail nothing names the place.
    world.write("/etc/pipeban/pipeban.toml", &jails(false));
    world.must(&["/usr/bin/pipeban", "reload"]);
    let second = line("198.51.100.8");
    assert!(tested(&world, &second, &[]).is_empty());
    let said = world.run_with(&["/usr/bin/pipeban", "log", "error"], second.as_bytes());
    assert_eq!(said.status, 0, "{said:?}");
    assert!(world.ban_of("old", "198.51.100.8").is_none());
    drop(stdin);
    let _ = pipe.wait();
}
