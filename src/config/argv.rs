//! Programs with arguments in which `{host}` and other placeholders are replaced. No shell runs.

use super::document::{Located, Value};
use super::row::Faults;
use super::values::{absolute, text};

/// Placeholders in the arguments of `[firewall.command]`.
pub const COMMAND_PLACEHOLDERS: [&str; 8] = [
    "host", "net", "family", "jail", "seconds", "until", "tcp", "udp",
];

/// Placeholders in the arguments of `on_ban` and `on_unban`.
pub const HOOK_PLACEHOLDERS: [&str; 8] = [
    "host", "net", "family", "jail", "seconds", "until", "failures", "id",
];

/// The arguments with every `{name}` replaced by its value. A value is inserted as it is.
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

/// Reads a program and its arguments.
pub(super) fn argv(
    value: &Located,
    placeholders: &[&str],
    faults: &mut Faults<'_>,
) -> Option<Vec<String>> {
    let Value::List(words) = &value.value else {
        let what =
            "a list of a program and its arguments, like [\"/usr/local/sbin/block\", \"{host}\"]";
        faults.expected(what, value);
        return None;
    };
    let Some(program) = words.first() else {
        faults.expected("a list that begins with a program", value);
        return None;
    };
    absolute(program, faults)?;
    let argv = words
        .iter()
        .map(|word| argument(word, placeholders, faults));
    argv.collect()
}

fn argument(word: &Located, known: &[&str], faults: &mut Faults<'_>) -> Option<String> {
    let text = text(word, faults)?;
    if text.contains('\0') {
        faults.at(word.place, "an argument cannot contain a NUL character");
        return None;
    }
    let mut names = text.split('{').skip(1).filter_map(placeholder);
    if let Some((unknown, _)) = names.find(|(name, _)| !known.contains(name)) {
        let known: Vec<String> = known.iter().map(|name| format!("{{{name}}}")).collect();
        let known = known.join(", ");
        let message = format!("unknown placeholder `{{{unknown}}}`: the placeholders are {known}");
        faults.at(word.place, message);
        return None;
    }
    Some(text.to_owned())
}

/// The name at the beginning of `rest`, which follows a `{`, and what follows its `}`. `None`: it
/// is a plain brace, as in `{ {host} }`.
fn placeholder(rest: &str) -> Option<(&str, &str)> {
    let (name, after) = rest.split_once('}')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
    is_name.then_some((name, after))
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
