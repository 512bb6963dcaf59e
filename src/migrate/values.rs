//! Numbers and times as fail2ban reads them.

use std::time::Duration;

use crate::config::{duration, quote};
use crate::filter::Setting;
use crate::record::is_hidden;

/// `None`: for ever.
pub(crate) type Time = Option<Duration>;

/// A value, and what to say about it.
pub(super) struct Read<T> {
    pub(super) value: T,
    pub(super) note: Option<String>,
    /// The line, where a comment follows the value: to fail2ban it is a part of the value.
    pub(super) commented: Option<String>,
}

/// Words between white space and commas.
pub(super) fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == ',');
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A number of hits; `usual` is fail2ban's where none is set.
pub(super) fn number(key: &str, setting: Option<&Setting>, usual: u32) -> Read<u32> {
    read(key, setting, usual, |text| {
        text.parse()
            .ok()
            .filter(|number| (1..=1_000_000).contains(number))
    })
}

/// A time; `usual` is fail2ban's where none is set.
pub(super) fn time(key: &str, setting: Option<&Setting>, usual: Duration) -> Read<Time> {
    read(key, setting, Some(usual), |text| {
        expression(text).filter(|time| *time != Some(Duration::ZERO))
    })
}

fn read<T>(
    key: &str,
    setting: Option<&Setting>,
    usual: T,
    parse: impl Fn(&str) -> Option<T>,
) -> Read<T> {
    let plain = |value| Read {
        value,
        note: None,
        commented: None,
    };
    let Some(setting) = setting else {
        return plain(usual);
    };
    let text = setting.text.as_str();
    if let Some(value) = parse(text) {
        return plain(value);
    }
    let line = setting.line;
    if let Some((before, _)) = text.split_once('#')
        && let Some(value) = parse(before.trim())
    {
        return Read {
            commented: Some(format!("`{key} = {}` (line {line})", before.trim())),
            ..plain(value)
        };
    }
    let text = text.escape_debug();
    Read {
        note: Some(format!(
            "line {line}: `{key} = {text}` is not understood, the usual value is used"
        )),
        ..plain(usual)
    }
}

/// What fail2ban makes of values that a comment follows.
pub(super) fn about_comments(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| {
        format!(
            "to fail2ban the comment after {} is a part of the value, which it refuses. It then \
             uses its built-in maxretry 3 and bantime 10m, and this jail reads no log: it has \
             banned no client",
            values.join(" and ")
        )
    })
}

/// `3600`, `1h 30m`, `60*60*24`; negative: for ever.
pub(super) fn expression(text: &str) -> Option<Time> {
    let text = text.trim();
    if text.parse::<i64>().is_ok_and(|number| number < 0) {
        return Some(None);
    }
    let mut product = Duration::from_secs(1);
    for factor in text.split('*') {
        let factor = duration::parse(factor).ok()??;
        product = Duration::from_secs(product.as_secs().checked_mul(factor.as_secs())?);
    }
    // At most what a configuration may say.
    duration::parse(&product.as_secs().to_string()).ok()
}

/// A text as in a file of TOML.
pub(super) fn quoted(text: &str) -> String {
    // A literal string needs no escapes.
    let plain = |c: char| c != '\'' && !is_hidden(c);
    if text.contains(['"', '\\']) && text.chars().all(plain) {
        return format!("'{text}'");
    }
    quote(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_in_fail2ban() {
        let seconds = |n| Some(Some(Duration::from_secs(n)));
        for (text, time) in [
            ("600", seconds(600)),
            ("10m", seconds(600)),
            ("1h 30m", seconds(5_400)),
            ("60*60*24", seconds(86_400)),
            ("24 * 1h", seconds(86_400)),
            ("365d", seconds(31_536_000)),
            ("-1", Some(None)),
            ("-5", Some(None)),
            ("1y-6mo", None),
            ("", None),
            ("99999*99999*99999", None),
        ] {
            assert_eq!(expression(text), time, "{text}");
        }
    }

    #[test]
    fn a_comment_behind_a_value_is_reported() {
        let setting = |text: &str| Setting {
            text: text.to_owned(),
            file: "jail.local".into(),
            line: 7,
        };
        let one = number(
            "maxretry",
            Some(&setting("1             # one is enough")),
            5,
        );
        assert_eq!(one.value, 1);
        assert_eq!(one.commented.unwrap(), "`maxretry = 1` (line 7)");
        let year = time("bantime", Some(&setting("365d # a year")), Duration::ZERO);
        assert_eq!(year.value, Some(Duration::from_secs(31_536_000)));
        assert!(year.note.is_none() && year.commented.is_some());
        let wrong = number("maxretry", Some(&setting("many")), 5);
        assert_eq!(wrong.value, 5);
        assert!(wrong.note.unwrap().contains("`maxretry = many`"));
        assert!(number("maxretry", Some(&setting("3")), 5).note.is_none());
        assert_eq!(number("maxretry", None, 5).value, 5);
    }
}
