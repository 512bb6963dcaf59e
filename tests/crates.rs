//! The crates that pipeban is built from: licences, sources, one version of each. The rules are in
//! deny.toml, which `cargo deny check` reads too; that program also knows advisories, but takes
//! longer to build than all of pipeban.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

fn texts(list: &toml::Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect()
}

/// The crates that a build for this target uses, tests included: name and version, licence.
fn crates(target: &str) -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--target", target, "--no-dedupe"])
        .args(["--prefix", "none", "--format", "{p}|{l}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let crates = lines.lines().map(|line| {
        let (name, licence) = line.split_once('|').unwrap();
        (name.to_owned(), licence.to_owned())
    });
    crates.collect()
}

/// Whether each part of an SPDX expression offers an allowed licence: `A OR B`, `(A OR B) AND C`.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.replace('/', " OR ");
    let mut parts = expression.split(" AND ").map(|part| {
        part.trim_matches(['(', ')'])
            .split(" OR ")
            .any(|licence| allowed.contains(&licence))
    });
    parts.all(|allowed| allowed)
}

#[test]
fn each_crate_has_an_allowed_licence_one_version_and_comes_from_crates_io() {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    let rules: toml::Table = std::fs::read_to_string(rules).unwrap().parse().unwrap();
    let allowed = texts(&rules["licenses"]["allow"]);
    assert!(is_allowed("(MIT OR X) AND Zlib", &["MIT", "Zlib"]));
    assert!(!is_allowed("(MIT OR X) AND Zlib", &["MIT"]));

    let skipped = texts(&rules["bans"]["skip"]);
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for target in texts(&rules["graph"]["targets"]) {
        let crates = crates(target);
        assert!(crates.len() > 50, "{crates:?}");
        for (name, licence) in crates {
            assert!(
                is_allowed(&licence, &allowed),
                "the licence of {name} is `{licence}`, which deny.toml does not allow"
            );
            let (name, version) = name.split_once(' ').unwrap();
            // `name v1.0 (proc-macro)`; `(https://..)` where it is not from crates.io.
            let version = version.split(' ').next().unwrap();
            versions
                .entry(name.to_owned())
                .or_default()
                .insert(version.to_owned());
        }
    }
    versions.retain(|name, versions| versions.len() > 1 && !skipped.contains(&name.as_str()));
    assert!(versions.is_empty(), "more than one version: {versions:?}");

    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    let sources = lock.lines().filter(|line| line.starts_with("source = "));
    for source in sources {
        assert_eq!(
            source,
            "source = \"registry+https://github.com/rust-lang/crates.io-index\""
        );
    }
}
