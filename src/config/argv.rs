//! Programs with their arguments, in which `{host}` and the like are put; no shell looks at them.

use std::time::Duration;

use super::document::{Located, Value};
use super::schema::{Faults, absolute, finite, text};

/// What stands for what in the arguments of `[firewall.command]`.
pub const COMMAND_PLACEHOLDERS: [&str; 8] = [
    "host", "net", "family", "jail", "seconds", "until", "tcp", "udp",
];

/// What stands for what in those of `on_ban` and `on_unban`.
pub const HOOK_PLACEHOLDERS: [&str; 8] = [
    "host", "net", "family", "jail", "seconds", "until", "failures", "id",
];

/// No program is waited for longer.
const LONGEST: Duration = Duration::from_secs(300);

/// The words with every `{name}` replaced by its value, once: a value is never looked at again.
pub fn fill(argv: &[String], values: &[(&str, String)]) -> Vec<String> {
    argv.iter().map(|word| filled(word, values)).collect()
}

fn filled(word: &str, values: &[(&str, String)]) -> String {
    let mut parts = word.split('{');
    let mut filled = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let value = placeholder(part).and_then(|(name, after)| {
            let (_, value) = values.iter().find(|(known, _)| *known == name)?;
            Some((value.as_str(), after))
        });
        let (value, after) = value.unwrap_or(("{", part));
        filled.push_str(value);
        filled.push_str(after);
    }
    filled
}

/// A program and its arguments, with these placeholders.
pub(super) fn argv(
    value: &Located,
    placeholders: &[&str],
    faults: &mut Faults<'_>,
) -> Option<Vec<String>> {
    let Value::List(words) = &value.value else {
        faults.expected(
            "a list: the program and each of its arguments, like [\"/usr/local/sbin/block\", \"{host}\"]",
            value,
        );
        return None;
    };
    let Some(program) = words.first() else {
        faults.expected("a list that begins with a program", value);
        return None;
    };
    absolute(program, faults)?;
    let mut argv = Vec::new();
    for word in words {
        let text = text(word, faults)?;
        if text.contains('\0') {
            faults.at(word.place, "an argument cannot hold a NUL character");
            return None;
        }
        if let Some(unknown) = unknown_placeholder(text, placeholders) {
            let known: Vec<String> = placeholders
                .iter()
                .map(|name| format!("{{{name}}}"))
                .collect();
            faults.at(
                word.place,
                format!(
                    "unknown placeholder `{{{}}}`: there are {}",
                    unknown.escape_debug(),
                    known.join(", ")
                ),
            );
            return None;
        }
        argv.push(text.to_owned());
    }
    Some(argv)
}

/// How long a program may run.
pub(super) fn patience(value: &Located, faults: &mut Faults<'_>) -> Option<Duration> {
    let patience = finite(value, faults)?;
    if patience > LONGEST {
        faults.expected("a duration of 5 minutes at most", value);
        return None;
    }
    Some(patience)
}

/// The name at the beginning of `rest`, which follows a `{`, and what follows its `}`; `None`: the
/// brace is a brace, as in `{ {host} }`.
fn placeholder(rest: &str) -> Option<(&str, &str)> {
    let (name, after) = rest.split_once('}')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
    is_name.then_some((name, after))
}

fn unknown_placeholder<'t>(text: &'t str, known: &[&str]) -> Option<&'t str> {
    let mut names = text.split('{').skip(1).filter_map(placeholder);
    let unknown = names.find(|(name, _)| !known.contains(name))?;
    Some(unknown.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_replaced_once() {
        let values = [("host", "192.0.2.1".to_owned()), ("jail", "{host}".into())];
        for (word, expected) in [
            ("{host}", "192.0.2.1"),
            ("ip={host},{jail}", "ip=192.0.2.1,{host}"),
            ("plain}", "plain}"),
            ("{ {host} }", "{ 192.0.2.1 }"),
            ("{{host}", "{192.0.2.1"),
            ("{host", "{host"),
        ] {
            assert_eq!(fill(&[word.to_owned()], &values), [expected], "{word}");
        }
    }
}
