//! The source files, taken apart: code, comments and strings, and what each file uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// Every text file of the project, by its path there, with its text.
pub(super) fn files() -> Vec<(String, String)> {
    fn below(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            match path.is_dir() {
                _ if ["target", ".git"].contains(&name) => {}
                true => below(&path, found),
                false => found.push(path),
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    below(root, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        Some((name.to_owned(), fs::read_to_string(&path).ok()?))
    };
    let files: Vec<_> = paths.into_iter().filter_map(read).collect();
    assert!(files.len() > 150, "the tree was not found");
    files
}

/// Every source file below `src/`, by its path there, with its text.
pub(super) fn sources() -> Vec<(String, String)> {
    let source = |(file, text): (String, String)| {
        let name = file.strip_prefix("src/")?.to_owned();
        name.ends_with(".rs").then_some((name, text))
    };
    let sources: Vec<_> = files().into_iter().filter_map(source).collect();
    assert!(sources.len() > 20, "the tree was not found");
    sources
}

pub(super) fn is_test_file(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("/tests/") || file.contains("_tests/")
}

/// A file's lines without its inline tests, which are last.
pub(super) fn without_tests(text: &str) -> &str {
    static TESTS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?m)^#\[cfg\((?:test|all\(test.*)\)\]\n(?:#\[.*\n)*(?:pub\(.*\) )?mod \w+ \{")
            .unwrap()
    });
    let end = TESTS.find(text).map_or(text.len(), |tests| tests.start());
    &text[..end]
}

/// Comments, and strings, and chars that would look like the beginning of a string.
static PROSE: LazyLock<Regex> = LazyLock::new(|| {
    let alternatives = [
        r"//[^\n]*",
        r"/\*.*?\*/",
        r####"b?r###".*?"###"####,
        r####"b?r##".*?"##"####,
        r####"b?r#".*?"#"####,
        r#"\bb?r".*?""#,
        r#""(?:\\.|[^"\\])*""#,
        r"b?'(?:\\.[^']*|[^'\\])'",
    ];
    Regex::new(&format!("(?s){}", alternatives.join("|"))).unwrap()
});

/// The code alone: comments and strings are blank, lines are where they were.
pub(super) fn code(text: &str) -> String {
    let blank = |found: &regex::Captures<'_>| {
        let kept = found[0].chars().filter(|c| *c == '\n');
        format!("\"\"{}", kept.collect::<String>())
    };
    PROSE.replace_all(text, blank).into_owned()
}

/// A module's place: `["firewall", "ufw"]`.
type Place = Vec<String>;

#[derive(Default)]
struct Module {
    file: String,
    code: String,
    /// Names that `use` brings in, with their whole paths.
    imports: BTreeMap<String, Place>,
    /// Modules of which everything is brought in.
    globs: Vec<Place>,
}

/// Files and, for each, the files whose items it names. Tests are not part of it.
pub(super) struct Graph(pub(super) BTreeMap<String, BTreeSet<String>>);

impl Graph {
    pub(super) fn of(sources: &[(String, String)]) -> Graph {
        let mut modules: BTreeMap<Place, Module> = BTreeMap::new();
        for (file, text) in sources {
            if is_test_file(file) || file == "main.rs" {
                continue;
            }
            let module = Module {
                file: file.clone(),
                code: untested(&code(without_tests(text))),
                ..Module::default()
            };
            modules.insert(place(file), module);
        }
        let places: Vec<Place> = modules.keys().cloned().collect();
        for at in &places {
            let code = modules[at].code.clone();
            for (path, name) in imports(&code) {
                let Some(path) = absolute(&path, at, &modules) else {
                    continue;
                };
                let module = modules.get_mut(at).unwrap();
                match name.as_str() {
                    "*" => module.globs.push(path),
                    _ => drop(module.imports.insert(name, path)),
                }
            }
        }
        let mut graph = BTreeMap::new();
        for at in &places {
            let module = &modules[at];
            let mut used: BTreeSet<Place> = module.globs.iter().cloned().collect();
            for path in module.imports.values() {
                // A module's name is no use of it: `module::item` is.
                if !modules.contains_key(path) {
                    used.insert(owner(path, &modules, 0));
                }
            }
            for path in paths(&module.code) {
                if let Some(path) = absolute(&path, at, &modules) {
                    used.insert(owner(&path, &modules, 0));
                }
            }
            let files = used.iter().filter_map(|place| modules.get(place));
            let mut files: BTreeSet<String> = files.map(|module| module.file.clone()).collect();
            files.remove(&module.file);
            files.remove("lib.rs");
            if module.file != "lib.rs" {
                graph.insert(module.file.clone(), files);
            }
        }
        Graph(graph)
    }

    /// The sets of files that reach each other, two files at least.
    pub(super) fn cycles(&self) -> Vec<BTreeSet<String>> {
        let reach = |from: &String| {
            let mut seen: BTreeSet<&String> = BTreeSet::new();
            let mut left: Vec<&String> = self.0[from].iter().collect();
            while let Some(file) = left.pop() {
                if seen.insert(file) {
                    left.extend(&self.0[file]);
                }
            }
            seen
        };
        let reached: BTreeMap<&String, BTreeSet<&String>> =
            self.0.keys().map(|file| (file, reach(file))).collect();
        let mut cycles = BTreeSet::new();
        for (file, reaches) in &reached {
            let back = reaches
                .iter()
                .filter(|other| reached[**other].contains(*file));
            let mut cycle: BTreeSet<String> = back.map(|file| (*file).clone()).collect();
            cycle.insert((*file).clone());
            if cycle.len() > 1 {
                cycles.insert(cycle);
            }
        }
        cycles.into_iter().collect()
    }
}

/// The code without single items that are for tests alone, and without the paths of `pub(in ..)`.
fn untested(code: &str) -> String {
    static ITEM: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?m)^#\[cfg\(test\)\]\n(?:#\[.*\n)*.*;\n|pub\(in [^)]*\)").unwrap()
    });
    ITEM.replace_all(code, "").into_owned()
}

fn place(file: &str) -> Place {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    match path {
        "lib" => Place::new(),
        path => path.split('/').map(str::to_owned).collect(),
    }
}

/// Each name that a `use` in this code brings in, with its path as written.
fn imports(code: &str) -> Vec<(Place, String)> {
    static USE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?ms)^\s*(?:pub(?:\([^)]*\))? )?use ([^;]+);").unwrap());
    fn expand(tree: &str, before: &[String], found: &mut Vec<(Place, String)>) {
        let tree = tree.trim();
        let (front, list) = match tree.split_once('{') {
            Some((front, list)) => (front, Some(list.trim_end().trim_end_matches('}'))),
            None => (tree, None),
        };
        let (front, alias) = match front.split_once(" as ") {
            Some((front, alias)) => (front, Some(alias.trim().to_owned())),
            None => (front, None),
        };
        let mut path = before.to_vec();
        let names = front.split("::").map(str::trim);
        path.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
        let Some(list) = list else {
            if path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let mut name = path.last().cloned().unwrap_or_default();
            if name == "*" {
                path.pop();
            } else if let Some(alias) = alias {
                name = alias;
            }
            return found.push((path, name));
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&list[start..at], &path, found);
                    start = at + 1;
                }
                _ => {}
            }
        }
        if !list[start..].trim().is_empty() {
            expand(&list[start..], &path, found);
        }
    }
    let mut found = Vec::new();
    for item in USE.captures_iter(code) {
        expand(&item[1], &[], &mut found);
    }
    found
}

/// Every path in this code, as written: `crate::a::b`, `child::f`.
fn paths(code: &str) -> BTreeSet<Place> {
    static PATH: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?:^|[^:\w])(\w+(?:::\w+)+)").unwrap());
    let names = |path: &str| path.split("::").map(str::to_owned).collect();
    PATH.captures_iter(code)
        .map(|path| names(&path[1]))
        .collect()
}

/// A path as written in the module at this place, from the crate's root; `None` for other crates.
fn absolute(path: &[String], at: &[String], modules: &BTreeMap<Place, Module>) -> Option<Place> {
    let mut base = at.to_vec();
    let mut path = path;
    match path.first()?.as_str() {
        "crate" => {
            base.clear();
            path = &path[1..];
        }
        "self" => path = &path[1..],
        "super" => {
            while path.first().is_some_and(|first| first == "super") {
                base.pop()?;
                path = &path[1..];
            }
        }
        first => {
            let import = modules[at].imports.get(first);
            if let Some(import) = import {
                base = import.clone();
                path = &path[1..];
            } else if !modules.contains_key(&[at, std::slice::from_ref(&path[0])].concat()) {
                return None;
            }
        }
    }
    base.extend_from_slice(path);
    Some(base)
}

/// The module that defines what a path names: re-exports are followed.
fn owner(path: &[String], modules: &BTreeMap<Place, Module>, depth: usize) -> Place {
    let mut at = Place::new();
    for (index, name) in path.iter().enumerate() {
        let mut next = at.clone();
        next.push(name.clone());
        if modules.contains_key(&next) {
            at = next;
            continue;
        }
        let Some(import) = modules.get(&at).and_then(|module| module.imports.get(name)) else {
            break;
        };
        if depth > 8 || import.as_slice() == path {
            break;
        }
        let rest = &path[index + 1..];
        return owner(&[import, rest].concat(), modules, depth + 1);
    }
    at
}
