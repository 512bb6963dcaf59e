//! Rules of the tree, checked by reading it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every source file below `src/`, by its path there, with its text.
fn sources() -> Vec<(String, String)> {
    fn below(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    below(&root, &mut files);
    files.sort();
    let sources: Vec<_> = files
        .iter()
        .map(|file| {
            (
                file.strip_prefix(&root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
                fs::read_to_string(file).unwrap(),
            )
        })
        .collect();
    assert!(sources.len() > 20, "the tree was not found");
    sources
}

/// A file's lines of code with their numbers: no comments, and nothing of its inline tests,
/// which stand last.
fn code(text: &str) -> Vec<(usize, &str)> {
    let mut code: Vec<(usize, &str)> = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let tests = line == "#[cfg(test)]";
        if tests && lines.peek().is_some_and(|(_, next)| next.ends_with('{')) {
            break;
        }
        code.push((index + 1, line.split("//").next().unwrap_or("")));
    }
    code
}

fn is_test_file(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("/tests/")
}

/// Fails with every offending line.
fn forbid(what: &str, allowed: impl Fn(&str) -> bool, bad: impl Fn(&str) -> bool) {
    let mut found = Vec::new();
    for (file, text) in sources() {
        if allowed(&file) || is_test_file(&file) {
            continue;
        }
        found.extend(
            code(&text)
                .into_iter()
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

fn layer(room: &str) -> Option<Layer> {
    match room {
        "record" | "filter" | "jail" | "config" => Some(Layer::Values),
        "pipe" | "firewall" | "alert" | "store" | "control" | "sys" | "apache" => {
            Some(Layer::Edges)
        }
        "engine" | "cli" => Some(Layer::Conductors),
        _ => None,
    }
}

/// The rooms that a text names behind `crate::`, also in braces.
fn rooms_used(text: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let letters = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        text.trim_start().chars().take_while(letters).collect()
    };
    let mut rooms = Vec::new();
    for used in text.split("crate::").skip(1) {
        let Some(list) = used.strip_prefix('{') else {
            rooms.push(name(used));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    rooms.push(name(&list[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    rooms
}

#[test]
fn conductors_use_edges_and_edges_use_values_never_the_other_way() {
    assert_eq!(
        rooms_used("use crate::{a::{b, c}, d,\n e};\ncrate::f::g()"),
        ["a", "d", "e", "f"]
    );
    let mut found = BTreeSet::new();
    for (file, text) in sources() {
        let Some(own) = layer(file.split('/').next().unwrap()) else {
            continue;
        };
        if is_test_file(&file) {
            continue;
        }
        let text: String = code(&text)
            .iter()
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        for room in rooms_used(&text) {
            if layer(&room).is_some_and(|layer| layer > own) {
                found.insert(format!("src/{file}: {own:?} use {room}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_room_is_on_the_map() {
    let sources = sources();
    let map = &sources.iter().find(|(file, _)| file == "lib.rs").unwrap().1;
    for (file, _) in &sources {
        if let Some((room, _)) = file.split_once('/') {
            assert!(layer(room).is_some(), "{room} has no layer");
            assert!(
                map.contains(&format!("[`{room}`]")),
                "{room} is not on the map in lib.rs"
            );
        }
    }
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for (file, text) in sources() {
        let room = file.split('/').next().unwrap();
        if file.ends_with("/mod.rs") && file.matches('/').count() == 1 && room != "sys" {
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
fn only_these_rooms_start_programs() {
    let allowed = |file: &str| {
        ["firewall/", "apache/", "cli/"].iter().any(|room| file.starts_with(room))
            // The keeper has the engine and its worker started.
            || ["pipe/keeper", "pipe/start", "pipe/engine"].iter().any(|name| file.starts_with(name))
            || file.starts_with("sys/")
    };
    forbid("programs started", allowed, |line| {
        line.contains("Command::new(")
    });
}

#[test]
fn no_shell_stands_in_the_middle() {
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
    let allowed = |file: &str| {
        layer(file.split('/').next().unwrap()) != Some(Layer::Values)
            // The one place in `config` that reads files.
            || file == "config/load.rs"
    };
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
    fn below(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !["target", ".git"].contains(&name) {
                    below(&path, found);
                }
            } else if name != ".git" {
                found.push(path);
            }
        }
    }
    let words = [
        ["/ho", "me/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/wo", "rk/"].concat(),
        ["/Us", "ers/"].concat(),
    ];
    let mut files = Vec::new();
    below(Path::new(env!("CARGO_MANIFEST_DIR")), &mut files);
    let mut read = 0;
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        read += 1;
        for (index, line) in text.lines().enumerate() {
            let place = format!("{}:{}: {line}", file.display(), index + 1);
            assert!(!words.iter().any(|word| line.contains(word)), "{place}");
            // Where crates come from: the one registry everybody has.
            let foreign = line.starts_with("source = ") && !line.contains("rust-lang/crates.io");
            assert!(!foreign, "{place}");
        }
    }
    assert!(read > 150, "the tree was not found");
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
