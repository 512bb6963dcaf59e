//! `name[option="value", ...]`: a filter with options, as jails name it.

use std::collections::BTreeMap;

/// Most options of one filter.
const MOST: usize = 50;

/// The name of the filter, and its options by their names in lower case.
///
/// # Errors
/// What is wrong.
pub fn split_options(text: &str) -> Result<(&str, BTreeMap<String, String>), String> {
    let mut options = BTreeMap::new();
    let Some((name, mut rest)) = text.split_once('[') else {
        return Ok((text.trim(), options));
    };
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(after) = rest.strip_prefix(']') {
            // `[a=1][b=2]` is one list.
            match after.trim_start().strip_prefix('[') {
                Some(more) => rest = more,
                None if after.trim().is_empty() => return Ok((name.trim(), options)),
                None => return Err(format!("unexpected `{}` after the options", after.trim())),
            }
            continue;
        }
        let here = rest;
        let wrong =
            || format!("`{here}`: options are written `name[option=\"value\", option=\"value\"]`");
        let (option, value) = rest.split_once('=').ok_or_else(wrong)?;
        let option = option.trim();
        let word = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if option.is_empty() || !option.bytes().all(word) || options.len() == MOST {
            return Err(wrong());
        }
        let value = value.trim_start();
        let (value, after) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value.get(1..).and_then(|v| v.split_once(quote)),
            _ => value.find([',', ']']).map(|end| value.split_at(end)),
        }
        .ok_or_else(wrong)?;
        options.insert(option.to_lowercase(), value.trim().to_owned());
        rest = after;
        if !rest.trim_start().starts_with([',', ']']) {
            return Err(wrong());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_as_fail2ban_splits_them() {
        for (text, name, expected) in [
            ("sshd", "sshd", vec![]),
            ("a[mode=\"x, y]\"]", "a", vec![("mode", "x, y]")]),
            ("a[Mode='x' , k=v ,]", "a", vec![("k", "v"), ("mode", "x")]),
            ("a[x=1][y=]", "a", vec![("x", "1"), ("y", "")]),
            ("a[]", "a", vec![]),
        ] {
            let (found, options) = split_options(text).expect(text);
            let options: Vec<_> = options
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect();
            assert_eq!((found, options), (name, expected), "{text}");
        }
        for text in [
            "a[",
            "a[x]",
            "a[x=\"]",
            "a[x=1] y",
            "a[x=\"1\"y=2]",
            "a[=1]",
        ] {
            assert!(split_options(text).is_err(), "{text}");
        }
    }
}
