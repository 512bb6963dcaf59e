//! Whatever is broken or forbidden: lines pass, and the fault is reported.

use crate::support::apache::BOTH_PIPES;
use crate::support::world::{CONFIG, FILTER};
use crate::support::{Apache, Mpm, World, eventually, process};

const TOML: &str = "/etc/pipeban/pipeban.toml";
const CONF: &str = "/etc/pipeban/filters.d/apache-cgitraversal.conf";

/// What a stranger can make Apache write, and more: empty, huge, not UTF-8, NUL, no final newline.
fn odd_lines() -> Vec<u8> {
    let mut lines = b"\n\0\x01\xff\xfe\x80 \xe2\x80\xae\r\n[client 198.51.100.7:1]\n".to_vec();
    lines.extend([b'x'; 200_000]);
    lines.extend(b"\nthe last one has no newline");
    lines
}

/// Pipes the odd lines through into this file.
fn pass_odd_lines(world: &World, log: &str) {
    let said = world.run_with(&["/usr/bin/pipeban", "log", "error", log], &odd_lines());
    eventually(&format!("{log} byte for byte"), || {
        let written = world.bytes(log);
        if written == odd_lines() {
            return Ok(());
        }
        Err(format!(
            "{} of {} bytes; {said:?}",
            written.len(),
            odd_lines().len()
        ))
    });
}

#[test]
fn lines_pass_and_check_says_where_whatever_is_wrong_with_the_configuration() {
    let Some(world) = World::new() else { return };
    // (what, configuration, filter, what `check` must say)
    let table: [(&str, Option<String>, &str, &str); 5] = [
        (
            "broken TOML",
            Some(format!("{CONFIG}= 1\n")),
            FILTER,
            "/etc/pipeban/pipeban.toml:8:",
        ),
        (
            "unknown key",
            Some(CONFIG.replace("maxretry", "maxretries")),
            FILTER,
            "/etc/pipeban/pipeban.toml:6:",
        ),
        (
            "unknown filter",
            Some(CONFIG.replace("\"apache-cgitraversal\"", "\"nowhere\"")),
            FILTER,
            "nowhere",
        ),
        (
            "bad regex",
            Some(CONFIG.to_owned()),
            "[Definition]\nfailregex = ^<HOST> (\n",
            "apache-cgitraversal.conf:2:",
        ),
        ("no configuration", None, FILTER, TOML),
    ];
    for (what, toml, filter, said_where) in table {
        world.write(CONF, filter);
        match toml {
            Some(toml) => world.write(TOML, &toml),
            None => std::fs::remove_file(world.path(TOML)).expect("removed"),
        }
        let said = world.pipeban(&["check"]);
        let logged = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(said.status, 78, "{what}: {said:?}");
        assert!(
            logged.contains(said_where),
            "{what}: `{said_where}` in {said:?}"
        );

        let log = format!("/var/log/apache2/{}.log", what.replace(' ', "-"));
        pass_odd_lines(&world, &log);
    }
}

#[test]
fn lines_of_any_kind_pass_byte_for_byte() {
    let Some(world) = World::new() else { return };
    pass_odd_lines(&world, "/var/log/apache2/odd.log");
    let mode = world.must(&["stat", "-c", "%a %U %G", "/var/log/apache2/odd.log"]);
    assert_eq!(mode, "640 root adm\n");
}

#[test]
fn a_log_that_cannot_be_written_is_reported_and_the_pipe_is_still_read() {
    let Some(world) = World::new() else { return };
    world.write("/etc/not-a-directory", "");
    // More than a pipe holds: it ends only when a process reads.
    let many = format!("{}\n", "x".repeat(99)).repeat(30_000);
    let said = world.run_with(
        &[
            "timeout",
            "15",
            "/usr/bin/pipeban",
            "log",
            "access",
            "/etc/not-a-directory/access.log",
        ],
        many.as_bytes(),
    );
    assert_ne!(said.status, 124, "it stopped reading: {said:?}");
    eventually("syslog or stderr names the path", || {
        let logged = world.syslog() + &said.stderr;
        if logged.contains("/etc/not-a-directory/access.log") {
            Ok(())
        } else {
            Err(logged)
        }
    });
}

#[test]
fn the_servers_own_addresses_loopback_and_ignored_networks_are_refused_with_the_reason() {
    let Some(world) = World::new() else { return };
    let config = format!(
        "{CONFIG}\n[defaults]\nignoreip = [\"127.0.0.0/8\", \"::1\", \"198.51.100.64/26\"]\n"
    );
    world.write(TOML, &config);
    world.start_engine();
    for (address, reason) in [
        ("203.0.113.1", "an address of this host"),
        ("2001:db8:1::1", "an address of this host"),
        ("127.0.0.1", "127.0.0.0/8"),
        ("::1", "::1"),
        ("198.51.100.70", "198.51.100.64/26"),
    ] {
        let said = world.pipeban(&["ban", address]);
        let logged = format!("{}{}", said.stdout, said.stderr);
        assert_ne!(said.status, 0, "{address}: {said:?}");
        assert!(
            logged.contains(reason),
            "{address}: names `{reason}`: {said:?}"
        );
    }
    let ruleset = world.must(&["nft", "list", "ruleset"]);
    for address in ["203.0.113.1", "198.51.100.70"] {
        assert!(
            !ruleset.contains(&format!("{address} ")),
            "{address}: {ruleset}"
        );
    }
}

#[test]
fn whoever_is_not_root_may_not_ban() {
    let Some(world) = World::new() else { return };
    world.start_engine();
    let said = world.run(&[
        "setpriv",
        "--reuid",
        "65533",
        "--regid",
        "65533",
        "--clear-groups",
        "/usr/bin/pipeban",
        "ban",
        "198.51.100.7",
    ]);
    assert_eq!(said.status, 77, "{said:?}");
    assert!(said.stderr.contains("the group `adm`"), "{said:?}");
    assert_eq!(world.pipeban(&["ban", "198.51.100.7"]).status, 0);
}

#[test]
fn without_an_engine_status_says_so_and_starts_none() {
    let Some(world) = World::new() else { return };
    let said = world.pipeban(&["status"]);
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.stderr.contains("engine"), "{said:?}");
    assert!(!said.stderr.contains("emergency stop"), "{said:?}");
    world.must(&["pipeban", "off"]);
    let said = world.pipeban(&["status"]);
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.stderr.contains("the emergency stop is on"), "{said:?}");
    assert_eq!(process::pipebans(&world.processes()), []);
}

/// A logger may be the first that needs the directory of the engine's socket.
#[test]
fn whatever_umask_apache_has_an_engine_starts() {
    let Some(world) = World::new() else { return };
    let apache = Apache::start(&world, Mpm::Event, BOTH_PIPES);
    for umask in ["0", "077"] {
        world.engine();
        apache.stop("stop");
        world.must(&["pipeban", "engine", "--stop"]);
        world.must(&["rm", "-r", "/run/pipeban"]);
        apache.run_with_umask(umask);
        world.engine();
        assert_eq!(
            world.must(&["stat", "-c", "%a", "/run/pipeban"]).trim(),
            "755"
        );
    }
}

#[test]
fn an_engine_that_cannot_start_is_reported_with_the_reason() {
    let Some(world) = World::new() else { return };
    world.write("/var/lib/pipeban", "in the way");
    let _apache = Apache::start(&world, Mpm::Event, BOTH_PIPES);
    world.until_logged("the engine cannot start: /var/lib/pipeban");
    world.until_logged("an engine was started 4 times: none answers");
}
