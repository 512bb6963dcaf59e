//! A reader can begin with any file and reach an end: what uses each other is two files at most.

use std::collections::BTreeSet;

use super::source::{Graph, sources};

fn graph(files: &[(&str, &str)]) -> Graph {
    let owned = |(file, text): &(&str, &str)| ((*file).to_owned(), (*text).to_owned());
    Graph::of(&files.iter().map(owned).collect::<Vec<_>>())
}

#[test]
fn uses_are_found_through_names_lists_and_re_exports() {
    let graph = graph(&[
        ("lib.rs", "pub mod a;\npub mod b;"),
        (
            "a/mod.rs",
            "mod x;\nmod y;\npub use x::{X, Z as W};\nfn f() { y::g() }",
        ),
        (
            "a/x.rs",
            "// crate::b::B\npub struct X;\nconst TEXT: &str = \"crate::b::B\";",
        ),
        (
            "a/y.rs",
            "use super::X;\nuse crate::{\n    b::{self, c::C},\n};\nfn g() { b::B }",
        ),
        (
            "b/mod.rs",
            "pub mod c;\n#[cfg(test)]\nuse crate::a::X;\n#[cfg(test)]\nmod tests {\nuse crate::a::W;\n}",
        ),
        ("b/c.rs", "use crate::a::W;"),
    ]);
    let used = |file: &str| graph.0[file].iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(used("a/mod.rs"), "a/x.rs a/y.rs");
    assert_eq!(used("a/x.rs"), "");
    assert_eq!(used("a/y.rs"), "a/x.rs b/c.rs b/mod.rs");
    assert_eq!(used("b/mod.rs"), "");
    assert_eq!(used("b/c.rs"), "a/x.rs");
}

/// Fails with the cycles of the tree that `bad` picks by their modules and their length.
fn forbid(what_to_do: &str, bad: impl Fn(&BTreeSet<&str>, usize) -> bool) {
    let mut cycles = Graph::of(&sources()).cycles();
    cycles.retain(|cycle| {
        let module = |file| str::split(file, '/').next().unwrap_or(file);
        bad(
            &cycle.iter().map(|file| module(file)).collect(),
            cycle.len(),
        )
    });
    assert!(cycles.is_empty(), "{what_to_do}: {cycles:#?}");
}

#[test]
fn no_cycle_joins_files_of_different_modules() {
    forbid(
        "move what both use to the lower of the modules, or to a third one",
        |modules, _| modules.len() > 1,
    );
}

#[test]
fn no_cycle_within_a_module_is_longer_than_two_files() {
    forbid(
        "move what they share to a file that uses none of them",
        |modules, length| modules.len() == 1 && length > 2,
    );
}
