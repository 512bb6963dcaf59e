//! What is fuzzed (fuzz/README.md), run with the seeds and whatever was found once.

use std::path::Path;

#[path = "../fuzz/bodies/access_line.rs"]
mod access_line;
#[path = "../fuzz/bodies/configuration.rs"]
mod configuration;
#[path = "../fuzz/bodies/decoding.rs"]
mod decoding;
#[path = "../fuzz/bodies/error_line.rs"]
mod error_line;
#[path = "../fuzz/bodies/files.rs"]
mod files;
#[path = "../fuzz/bodies/filter_file.rs"]
mod filter_file;
#[path = "../fuzz/bodies/message.rs"]
mod message;
#[path = "../fuzz/bodies/migration.rs"]
mod migration;
#[path = "../fuzz/bodies/pattern.rs"]
mod pattern;
#[path = "../fuzz/bodies/rules.rs"]
mod rules;

/// Runs each file in `fuzz/seeds/NAME`, whole and cut short.
fn each_seed(name: &str, check: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut seeds = 0;
    for entry in std::fs::read_dir(directory.join(name)).unwrap() {
        let path = entry.unwrap().path();
        let seed = std::fs::read(&path).unwrap();
        println!("{}", path.display());
        for tenths in 1..=10 {
            check(&seed[..seed.len() * tenths / 10]);
        }
        seeds += 1;
    }
    assert!(seeds > 2, "{name} has no seeds");
}

#[test]
fn files_of_filters_are_read_as_the_fuzz_target_wants_it() {
    each_seed("filter_file", filter_file::check);
}

#[test]
fn patterns_are_matched_as_the_fuzz_target_wants_it() {
    each_seed("pattern", pattern::check);
}

#[test]
fn lines_are_read_as_the_fuzz_targets_want_it() {
    each_seed("access_line", access_line::check);
    each_seed("error_line", error_line::check);
}

#[test]
fn configurations_and_rules_are_read_as_the_fuzz_targets_want_it() {
    each_seed("configuration", configuration::check);
    each_seed("migration", migration::check);
    each_seed("rules", rules::check);
}

#[test]
fn fields_and_messages_are_read_as_the_fuzz_targets_want_it() {
    each_seed("decoding", decoding::check);
    each_seed("message", message::check);
}
