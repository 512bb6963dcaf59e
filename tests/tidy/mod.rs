//! Rules of the tree, checked by reading it.

mod cycles; // which file may use which
mod source; // the source files, taken apart
mod words; // words that an administrator does not search for

use source::{Graph, files, is_test_file, sources, without_tests};

/// Fails with every offending line.
fn forbid(what: &str, allowed: impl Fn(&str) -> bool, bad: impl Fn(&str) -> bool) {
    let mut found = Vec::new();
    for (file, text) in sources() {
        if allowed(&file) || is_test_file(&file) {
            continue;
        }
        found.extend(
            without_tests(&text)
                .lines()
                .enumerate()
                .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("")))
                .filter(|(_, line)| bad(line))
                .map(|(number, line)| format!("src/{file}:{number}: {}", line.trim())),
        );
    }
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Layer {
    Values,
    Edges,
    Conductors,
}

/// The layer of a file's module; `None` for the map and the program.
fn layer(file: &str) -> Option<Layer> {
    match file.split('/').next().unwrap().trim_end_matches(".rs") {
        "record" | "decode" | "filter" | "jail" | "jail_name" | "nearest" | "config"
        | "migrate" | "problem" | "report" | "host_commands" => Some(Layer::Values),
        "pipe" | "firewall" | "alert" | "store" | "control" | "sys" | "apache" | "disk"
        | "metrics" => Some(Layer::Edges),
        "engine" | "cli" => Some(Layer::Conductors),
        _ => None,
    }
}

#[test]
fn conductors_use_edges_and_edges_use_values_never_the_other_way() {
    let mut found = Vec::new();
    for (file, used) in Graph::of(&sources()).0 {
        let Some(of_file) = layer(&file) else {
            continue;
        };
        let above = used.iter().filter(|used| layer(used) > Some(of_file));
        found.extend(above.map(|used| format!("src/{file}: {of_file:?} use {used}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Longest that a file is without its tests, unless its first comment says why.
const LINES: usize = 500;
/// What that comment begins its reason with.
const LONG: &str = "Over 500 lines because";

#[test]
fn a_long_file_says_why() {
    let mut long = Vec::new();
    for (file, text) in sources() {
        let head = text.lines().take_while(|line| line.starts_with("//!"));
        let head = head.map(|line| line.trim_start_matches("//!").trim());
        let says_why = head.collect::<Vec<_>>().join(" ").contains(LONG);
        if !is_test_file(&file) && without_tests(&text).lines().count() > LINES && !says_why {
            long.push(file);
        }
    }
    assert!(
        long.is_empty(),
        "split it, or give a reason in its first comment (`//! {LONG} ...`): {long:#?}"
    );
}

#[test]
fn every_module_is_on_the_map() {
    let sources = sources();
    let map = &sources.iter().find(|(file, _)| file == "lib.rs").unwrap().1;
    for (file, _) in &sources {
        let known = layer(file).is_some() || ["lib.rs", "main.rs"].contains(&file.as_str());
        assert!(known, "{file} has no layer");
        if let Some((module, _)) = file.split_once('/') {
            assert!(
                map.contains(&format!("[`{module}`]")),
                "{module} is not on the map in lib.rs"
            );
        }
    }
}

#[test]
fn only_sys_has_unsafe_code() {
    for (file, text) in sources() {
        let is_root = file.ends_with("/mod.rs") && file.matches('/').count() == 1;
        if is_root && file != "sys/mod.rs" {
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "src/{file} does not forbid unsafe code"
            );
        }
    }
}

#[test]
fn only_commands_print() {
    let allowed = |file: &str| file.starts_with("cli/");
    forbid("printing", allowed, |line| {
        ["println!", "eprintln!", "print!(", "dbg!("]
            .iter()
            .any(|word| line.contains(word))
    });
}

#[test]
fn only_these_modules_start_programs() {
    let allowed = |file: &str| {
        [
            "firewall/",
            "apache/",
            "cli/",
            "sys/",
            "pipe/running",
            "pipe/engine",
            "metrics/feed",
        ]
        .iter()
        .any(|name| file.starts_with(name))
    };
    forbid("programs started", allowed, |line| {
        line.contains("Command::new(")
    });
}

#[test]
fn no_program_is_started_by_a_shell() {
    forbid(
        "a shell",
        |_| false,
        |line| {
            line.contains("\"/bin/sh\"")
                || line.contains("Command::new(\"sh\"")
                || line.contains("\"-c\"")
        },
    );
}

#[test]
fn values_do_no_input_or_output_and_read_no_clock() {
    let allowed = |file: &str| layer(file) != Some(Layer::Values);
    let words = [
        "Instant::now",
        "SystemTime::now",
        "Timestamp::now",
        "Zoned::now",
        "clock_gettime",
        "sys::clock",
        "std::fs",
        "fs::",
        "File::open",
        "std::net::Tcp",
        "UnixStream",
        "std::thread",
        "thread::spawn",
        "std::env",
        "env::var",
    ];
    forbid("input, output, clock", allowed, |line| {
        words.iter().any(|word| line.contains(word)) && !line.contains("env!")
    });
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    let words = [
        ["/ho", "me/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/wo", "rk/"].concat(),
        ["/Us", "ers/"].concat(),
    ];
    for (file, text) in files() {
        for (index, line) in text.lines().enumerate() {
            let found = words.iter().any(|word| line.contains(word));
            assert!(!found, "{file}:{}: {line}", index + 1);
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X:"].concat(),
        ["to", "do!("].concat(),
        ["unimpl", "emented!("].concat(),
    ];
    for (file, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            assert!(
                !words.iter().any(|word| line.contains(word)),
                "src/{file}:{}: {line}",
                index + 1
            );
            assert!(
                !line.contains("#[allow(") && !line.contains("#![allow("),
                "src/{file}:{}: write #[expect(.., reason = ..)]",
                index + 1
            );
        }
    }
}
