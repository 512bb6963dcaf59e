//! Random files and patterns, read by pipeban and by fail2ban.

use std::collections::BTreeMap;
use std::path::Path;

use pipeban::disk::OnDisk;
use pipeban::filter::{Filter, Outcome, Subject, read};
use serde_json::{Value, json};

use super::{installed, oracle};

/// Chance that is the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound as u64).unwrap()
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }
}

/// Options; each refers only to those before it, and `[DEFAULT]` of the first file has them all.
const OPTIONS: [&str; 5] = ["word", "mode", "part-hot", "part-cold", "_line"];

/// A piece of a value of the option numbered so.
fn piece(chance: &mut Chance, option: usize) -> String {
    let plain = [
        "a",
        "b.*",
        r"\[x\]",
        "#",
        "%%",
        "x;y",
        "<HOST>",
        "<F-USER>u</F-USER>",
        "<script>",
    ];
    let earlier = OPTIONS[..option].to_vec();
    if earlier.is_empty() || chance.one_in(2) {
        return chance.pick(&plain).to_owned();
    }
    let name = chance.pick(&earlier);
    match chance.below(8) {
        0 | 1 => format!("%({name})s"),
        2 | 3 => format!("<{name}>"),
        4 => format!("%(default/{name})s"),
        5 => format!("<DEFAULT/{name}>"),
        6 => format!("%(extra/{name})s"),
        _ if option > 3 => "<part-<mode>>".to_owned(),
        _ => format!("<extra/{name}>"),
    }
}

fn value(chance: &mut Chance, option: usize, known: Option<&str>) -> String {
    let mut value = String::new();
    for line in 0..=chance.below(3) {
        if line > 0 {
            value.push_str(chance.pick(&[
                "\n  ",
                "\n\n  ",
                "\n# a comment\n\t",
                "\n   ; one\n     ",
            ]));
        } else if chance.one_in(8) {
            value.push_str("\n  ");
        }
        if let Some(name) = known.filter(|_| line == 0 && chance.one_in(3)) {
            let open = chance.pick(&["%(known/", "<known/"]);
            value.push_str(open);
            value.push_str(name);
            value.push_str(if open.starts_with('%') { ")s" } else { ">" });
        }
        for _ in 0..=chance.below(3) {
            value.push_str(&piece(chance, option));
        }
        value.push_str(chance.pick(&["", "", " ", " ; a comment", " # none"]));
    }
    value
}

/// What a section holds.
#[derive(PartialEq)]
enum Holds {
    /// Every option.
    All,
    /// Some options.
    Some,
    /// Patterns, too.
    Patterns,
    /// Patterns that go on with those of a file before.
    MorePatterns,
}

fn section(chance: &mut Chance, text: &mut String, header: &str, holds: &Holds) {
    text.push_str(&format!("{header}\n"));
    let known = *holds == Holds::MorePatterns;
    for (number, name) in (0..).zip(OPTIONS) {
        if *holds != Holds::All && !chance.one_in(3) {
            continue;
        }
        // The mode is a word: it becomes a part of a name.
        let value = match name {
            "mode" => chance.pick(&["hot", "cold"]).to_owned(),
            _ => value(chance, number, known.then_some(name)),
        };
        let name = if chance.one_in(4) {
            name.to_uppercase()
        } else {
            name.to_owned()
        };
        text.push_str(&format!(
            "{name}{}{value}\n",
            chance.pick(&[" = ", "=", ": ", " : "])
        ));
    }
    if matches!(holds, Holds::Patterns | Holds::MorePatterns) {
        for name in ["failregex", "ignoreregex", "prefregex"] {
            if name == "failregex" || chance.one_in(3) {
                let value = value(chance, OPTIONS.len(), known.then_some(name));
                text.push_str(&format!("{name} = {value}\n"));
            }
        }
    }
}

fn file(chance: &mut Chance, includes: &[(&str, &str)], first: bool) -> String {
    let mut text = String::new();
    let includes: Vec<_> = includes.iter().filter(|_| chance.one_in(2)).collect();
    if !includes.is_empty() {
        text.push_str("[INCLUDES]\n");
        for (when, name) in includes {
            text.push_str(&format!("{when} = {name}\n"));
        }
    }
    if first || chance.one_in(3) {
        section(
            chance,
            &mut text,
            "[DEFAULT]",
            if first { &Holds::All } else { &Holds::Some },
        );
    }
    for header in ["[extra]", "[Init]"] {
        // Tags that no option fills are errors.
        if chance.one_in(3) || first && header == "[extra]" {
            section(chance, &mut text, header, &Holds::Some);
        }
    }
    if chance.one_in(4) {
        text.push_str("[Init?family=inet6]\nother = six\n");
    }
    if first {
        section(chance, &mut text, "[Definition]", &Holds::Patterns);
    } else if chance.one_in(2) {
        section(chance, &mut text, "[Definition]", &Holds::MorePatterns);
    }
    text
}

/// A directory with the files of one filter.
fn files(chance: &mut Chance, directory: &Path) {
    let write = |chance: &mut Chance, name: &str, includes: &[(&str, &str)], first| {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file(chance, includes, first)).unwrap();
    };
    write(
        chance,
        "f.conf",
        &[("before", "one.conf"), ("after", "three.conf")],
        true,
    );
    for name in [
        "f.local",
        "f.d/20-x.conf",
        "f.d/10-y.conf",
        "f.d/z.local",
        "one.local",
        "f.d/no.txt",
    ] {
        if chance.one_in(2) {
            write(chance, name, &[], false);
        }
    }
    write(chance, "one.conf", &[("before", "two.conf")], false);
    write(chance, "two.conf", &[("after", "one.conf")], false);
    write(chance, "three.conf", &[], false);
}

fn expanded(directory: &Path, options: &BTreeMap<String, String>) -> Result<Value, String> {
    let definition = read("f", &directory.join("f.conf"), options, &OnDisk);
    let definition = definition.map_err(|problems| format!("{problems:?}"))?;
    let texts = |patterns: &[pipeban::filter::PatternText]| -> Vec<String> {
        patterns.iter().map(|p| p.text.clone()).collect()
    };
    Ok(json!({
        "failregex": texts(&definition.failregex),
        "ignoreregex": texts(&definition.ignoreregex),
        "prefregex": definition.prefregex.map(|p| p.text),
    }))
}

#[test]
fn random_files_are_expanded_as_in_fail2ban() {
    if !installed() {
        return;
    }
    let mut chance = Chance(0x5eed_f00d);
    let base = tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    for number in 0..400 {
        let directory = base.path().join(format!("{number}/filter.d"));
        files(&mut chance, &directory);
        let mut options = BTreeMap::new();
        for name in ["word", "mode", "logtype"] {
            if chance.one_in(4) {
                let value = if name == "mode" { "cold" } else { "w%v" };
                options.insert(name.to_owned(), value.to_owned());
            }
        }
        cases.push((directory, options));
    }
    let questions: Vec<Value> = cases
        .iter()
        .map(|(directory, options)| {
            json!({"ask": "expand", "base": directory.parent(), "name": "f", "options": options})
        })
        .collect();
    let (mut agreed, mut refused) = (0, 0);
    for ((directory, options), answer) in cases.iter().zip(oracle::ask(&questions)) {
        let found = expanded(directory, options);
        // Without a failregex fail2ban says nothing, and pipeban says so.
        if answer.get("error").is_some() || answer.get("failregex").is_none() {
            refused += 1;
            continue;
        }
        let list = |name: &str| answer.get(name).cloned().unwrap_or_else(|| json!([]));
        let prefix = list("prefregex");
        let wanted = json!({
            "failregex": list("failregex"),
            "ignoreregex": list("ignoreregex"),
            "prefregex": prefix[0].as_str().map(str::trim_start).filter(|text| !text.is_empty()),
        });
        let show = || {
            let files = [
                "f.conf",
                "one.conf",
                "one.local",
                "two.conf",
                "three.conf",
                "f.local",
                "f.d/10-y.conf",
                "f.d/20-x.conf",
                "f.d/z.local",
            ];
            let texts = files.map(|name| {
                let text = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
                format!("--- {name}\n{text}")
            });
            format!("{options:?}\n{}", texts.concat())
        };
        assert_eq!(found.as_ref(), Ok(&wanted), "{}", show());
        agreed += 1;
    }
    println!("{agreed} agree, {refused} are refused by fail2ban");
    assert!(agreed > 200, "{agreed}");
}

/// Patterns, and texts of which fail2ban says which they match.
const PATTERNS: [&str; 54] = [
    r"^from <HOST>$",
    r"^from <HOST>\s",
    r"^from <HOST>\s$",
    r"^from <HOST>[^x]",
    r"^from <HOST>\s+\Z",
    r"^from <HOST>.$",
    r"^from <HOST>\W*$",
    r"from <ADDR>(?: port \d+)?$",
    r"from <IP4>\b",
    r"from <IP6>",
    r"from <SUBNET>",
    r"^\w+ from <HOST>",
    r"^\w{4} from <HOST>",
    r"^[^\W]+ from <HOST>",
    r"^.{4} from <HOST>",
    r"^\W+ from <HOST>",
    r"^\S+ from <HOST>",
    r"^\S+\sfrom\s<HOST>",
    r"^[\S]+ from <HOST>",
    r"^[^\s]+[\s]from <HOST>",
    r"^\d+ from <HOST>",
    r"^[\d]{3} from <HOST>",
    r"(?a)^\w+ from <HOST>",
    r"(?i)^ÄRGER from <HOST>",
    r"(?i)FROM <HOST>",
    r"((?i)FROM) <HOST>",
    r"(?:(?i)FROM) <HOST>",
    r"(?i:FROM) <HOST>",
    r"(?s)^a.from <HOST>",
    r"(?x) from \  <HOST> # a comment",
    r"(?x) ^[ a-z#]+ <HOST>",
    r"^[]a]+ from <HOST>",
    r"^[^]]+\] from <HOST>",
    r"^[[a]+\] from <HOST>",
    r"^[a&&b]+ from <HOST>",
    r"^[+--b]+ from <HOST>",
    r"^a{2} from <HOST>",
    r"^a{,3} from <HOST>",
    r"^a{x} from <HOST>",
    r"^{a} from <HOST>",
    r"^\{a} from <HOST>",
    r"^\x61+\u0020from <HOST>",
    r"^\141\040from <HOST>",
    r"^[\x80-\xff]+ from <HOST>",
    r"^[é]+ from <HOST>",
    r"^\<a\> from <HOST>",
    r"^(['`]).*\1 from <HOST>",
    r"^(a)?b(?(1)a|b) from <HOST>",
    r"^(?P<q>['`]).*(?P=q) from <HOST>",
    r"^(?!b)\S+ from <HOST>",
    r"(?<=a )from <HOST>",
    r"(?<!a )from <HOST>",
    r"^a++ from <HOST>",
    r"^(?>a|ab)b? from <HOST>",
];

const FRONTS: [&str; 38] = [
    "",
    "a ",
    "aa ",
    "aaaa ",
    "ab ",
    "abb ",
    "bb ",
    "ba ",
    "aba ",
    "a\t",
    "a  ",
    "é ",
    "éa ",
    "user ",
    "ärger ",
    "Ärger ",
    "日本 ",
    "१२३ ",
    "123 ",
    "- ",
    "\u{a0}",
    "a\u{1c}",
    "a\u{a0}",
    "[a ",
    "a] ",
    "]a ",
    "&a ",
    "- ",
    "b-c ",
    "a{x} ",
    "{a} ",
    "<a> ",
    "'x' ",
    "'x` ",
    "`` ",
    "a# ",
    "\u{ff}\u{80} ",
    "\u{fffd} ",
];

const HOSTS: [&str; 8] = [
    "192.0.2.1",
    "192.0.2.1 ",
    "192.0.2.1x",
    "192.0.2.1 port 22",
    "2001:db8::7",
    "[2001:db8::7]",
    "::ffff:192.0.2.1",
    "198.51.100.0/24",
];

#[test]
fn patterns_match_the_same_texts_as_in_fail2ban() {
    if !installed() {
        return;
    }
    let mut texts = Vec::new();
    for front in FRONTS {
        for (at, host) in HOSTS.iter().enumerate() {
            // Each front with one host, and "user " with all.
            if at == 0 || front == "user " {
                texts.push(format!("{front}from {host}"));
                texts.push(format!("{front}FROM {host}"));
            }
        }
    }
    let pairs: Vec<(&str, &String)> = PATTERNS
        .iter()
        .flat_map(|pattern| texts.iter().map(move |text| (*pattern, text)))
        .collect();
    let question = |(pattern, text): &(&str, &String)| json!({"ask": "match", "pattern": pattern, "text": text});
    let answers = oracle::ask(&pairs.iter().map(question).collect::<Vec<_>>());
    let mut filters: BTreeMap<&str, Filter> = BTreeMap::new();
    let (mut matched, mut wrong) = (0, Vec::new());
    for ((pattern, text), answer) in pairs.iter().zip(answers) {
        let filter = filters.entry(pattern).or_insert_with(|| {
            let file = format!("[Definition]\nfailregex = {}\n", pattern.replace('%', "%%"));
            let read = read(
                "f",
                Path::new("f.conf"),
                &BTreeMap::new(),
                &|path: &Path| {
                    let is_local = path.ends_with("f.local");
                    let missing = || std::io::ErrorKind::NotFound.into();
                    (!is_local).then(|| file.clone()).ok_or_else(missing)
                },
            );
            Filter::compile(&read.unwrap()).unwrap()
        });
        let host = match filter.examine(&Subject::raw(text.as_bytes(), None)) {
            Outcome::Match { host, .. } => Some(host),
            _ => None,
        };
        let groups = &answer["groups"];
        let wanted = [&groups["ip4"], &groups["ip6"]]
            .into_iter()
            .find_map(|host| host.as_str()?.parse().ok());
        assert!(answer.get("error").is_none(), "{pattern}: {answer}");
        matched += u32::from(host.is_some());
        // Apache's brackets around an address are no part of it, for every family.
        let bracketed = *pattern == "from <IP6>" && text.contains('[');
        if host != wanted && !bracketed {
            wrong.push(format!(
                "{pattern} on {text:?}: {host:?} instead of {wanted:?}"
            ));
        }
    }
    println!("{} pairs, {matched} match", pairs.len());
    assert!(matched > 500, "{matched}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
