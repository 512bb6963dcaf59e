//! Words that say less than the plain one: see CONTRIBUTING.md, "Messages".

use regex::Regex;

use super::source::files;

#[test]
fn texts_are_in_plain_words() {
    let words = Regex::new(r"(?i)(\b|_)(told|stands|somebody|anew|whom)(\b|_)").unwrap();
    let mut found = Vec::new();
    for (file, text) in files() {
        if file.starts_with("LICENSE") || file == "tests/tidy/words.rs" {
            continue;
        }
        let lines = text.lines().enumerate();
        let bad = lines.filter(|(_, line)| words.is_match(line));
        found.extend(bad.map(|(index, line)| format!("{file}:{}: {}", index + 1, line.trim())));
    }
    assert!(found.is_empty(), "write it with a plain verb: {found:#?}");
}
