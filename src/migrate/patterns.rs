//! A filter's patterns as one file, where pipeban does not find the same ones by name.

use std::fmt::Write as _;

use crate::filter::{Definition, PatternText};

/// Both match the same lines.
pub(super) fn are_same(one: &Definition, other: &Definition) -> bool {
    let texts = |definition: &Definition| {
        let all = definition.patterns();
        let all = all.map(|(at, pattern)| (at, pattern.text.clone()));
        all.collect::<Vec<_>>()
    };
    one.native.is_empty() && other.native.is_empty() && texts(one) == texts(other)
}

/// The filter as a file in fail2ban's format, without includes and references.
pub(super) fn as_file(definition: &Definition, source: &str) -> String {
    let mut text = format!("# From {source}, by `pipeban migrate`.\n\n[Definition]\n\n");
    if let Some(prefix) = &definition.prefregex {
        option(&mut text, "prefregex", std::slice::from_ref(prefix));
    }
    option(&mut text, "failregex", &definition.failregex);
    option(&mut text, "ignoreregex", &definition.ignoreregex);
    text
}

fn option(text: &mut String, name: &str, patterns: &[PatternText]) {
    let _ = write!(text, "{name} =");
    for (number, pattern) in patterns.iter().enumerate() {
        let indent = if number == 0 { 1 } else { name.len() + 3 };
        let pattern = pattern.text.replace('%', "%%");
        let _ = writeln!(text, "{:indent$}{}", "", pattern.trim());
    }
    if patterns.is_empty() {
        text.push('\n');
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter;
    use std::collections::BTreeMap;
    use std::path::Path;

    #[test]
    fn the_copy_has_the_same_patterns() {
        let own = "[INCLUDES]\nbefore = c.conf\n[Definition]\nprefregex = ^%(p)s<F-CONTENT>.+</F-CONTENT>$\nfailregex = ^a 100%% <HOST>\n  ^<word> <HOST> (?P<x>b)$\nignoreregex = ^%(p)s no\n";
        let read = |text: String| {
            let files = move |path: &Path| match path.to_str() {
                Some("d/c.conf") => Ok("[DEFAULT]\np = \\[pre\\] \nword = w\n".to_owned()),
                _ => Ok(text.clone()),
            };
            filter::read("f", Path::new("d/f.local"), &BTreeMap::new(), &files).unwrap()
        };
        let definition = read(own.to_owned());
        let copy = as_file(&definition, "d/f.local");
        assert!(are_same(&definition, &read(copy.clone())), "{copy}");
        assert!(!copy.contains("%("), "{copy}");
    }
}
