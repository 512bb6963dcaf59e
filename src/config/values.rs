//! Values that keys of several sections have: how they are read, and how they are shown.

use std::path::PathBuf;
use std::time::Duration;

use super::document::{Located, Value};
use super::duration;
use super::row::Faults;
use super::words::{self, nearest};
use crate::record::is_hidden;

/// The longest time that pipeban waits for a program.
const LONGEST_RUN: Duration = Duration::from_secs(300);

pub(super) fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

pub(super) fn text<'v>(value: &'v Located, faults: &mut Faults<'_>) -> Option<&'v str> {
    if let Value::Text(text) = &value.value {
        return Some(text);
    }
    faults.expected("text in quotes", value);
    None
}

pub(super) fn boolean(value: &Located, faults: &mut Faults<'_>) -> Option<bool> {
    if let Value::Boolean(value) = value.value {
        return Some(value);
    }
    faults.expected("true or false, without quotes", value);
    None
}

pub(super) fn number<N: TryFrom<i64>>(
    value: &Located,
    least: u32,
    most: u32,
    faults: &mut Faults<'_>,
) -> Option<N> {
    if let Value::Integer(number) = value.value
        && (i64::from(least)..=i64::from(most)).contains(&number)
    {
        return N::try_from(number).ok();
    }
    let what = format!("a whole number from {least} to {most}, without quotes");
    faults.expected(&what, value);
    None
}

/// One word of a table.
pub(super) fn word<V: Copy>(
    value: &Located,
    words: &[(&'static str, V)],
    faults: &mut Faults<'_>,
) -> Option<V> {
    let name = text(value, faults)?;
    if let Some((_, found)) = words.iter().find(|(known, _)| *known == name) {
        return Some(*found);
    }
    let quoted: Vec<String> = words.iter().map(|(word, _)| quote(word)).collect();
    let known = words.iter().map(|(word, _)| *word);
    let what = format!("{}{}", quoted.join(" or "), did_you_mean(name, known));
    faults.expected(&what, value);
    None
}

/// ` (did you mean ...?)`, or nothing.
pub(super) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map_or(String::new(), |near| format!(" (did you mean `{near}`?)"))
}

/// The outer `None` is reported; the inner one is permanent.
fn time(value: &Located, faults: &mut Faults<'_>) -> Option<Option<Duration>> {
    let parsed = match &value.value {
        Value::Text(text) => duration::parse(text),
        Value::Integer(number) => duration::parse(&number.to_string()),
        Value::Table(table) if table.iter().any(|member| member.key == "increment") => {
            let advice = words::advice("defaults", "bantime.increment").unwrap_or_default();
            Err(format!("`bantime` is a duration: {advice}"))
        }
        _ => {
            let what = "a duration like \"10m\", \"1h 30m\", \"1w\", or seconds";
            faults.expected(what, value);
            return None;
        }
    };
    parsed
        .map_err(|message| faults.at(value.place, message))
        .ok()
}

pub(super) fn positive(value: &Located, faults: &mut Faults<'_>) -> Option<Option<Duration>> {
    let duration = time(value, faults)?;
    if duration == Some(Duration::ZERO) {
        faults.expected("a duration above zero", value);
        return None;
    }
    Some(duration)
}

pub(super) fn finite(value: &Located, faults: &mut Faults<'_>) -> Option<Duration> {
    let duration = positive(value, faults)?;
    if duration.is_none() {
        let message = "only `bantime` can be permanent: write a duration like \"10m\"";
        faults.at(value.place, message);
    }
    duration
}

pub(super) fn zero_or_more(value: &Located, faults: &mut Faults<'_>) -> Option<Duration> {
    let duration = time(value, faults)?;
    if duration.is_none() {
        faults.expected("a duration like \"10m\"", value);
    }
    duration
}

/// How long a program may run.
pub(super) fn run_time(value: &Located, faults: &mut Faults<'_>) -> Option<Duration> {
    let time = finite(value, faults)?;
    if time > LONGEST_RUN {
        faults.expected("a duration of 5 minutes at most", value);
        return None;
    }
    Some(time)
}

pub(super) fn absolute(value: &Located, faults: &mut Faults<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(text(value, faults)?);
    if path.is_absolute() {
        return Some(path);
    }
    faults.expected("a path that begins with `/`", value);
    None
}

/// The items of a list. Text is a list too: its items are separated by commas or spaces.
pub(super) fn items(value: &Located) -> Vec<Located> {
    let item = |part: &str| Located {
        value: Value::Text(part.to_owned()),
        place: value.place,
    };
    match &value.value {
        Value::List(items) => items.clone(),
        Value::Text(text) => {
            let parts = text.split([',', ' ']).filter(|part| !part.is_empty());
            parts.map(item).collect()
        }
        _ => vec![value.clone()],
    }
}

/// Every item as `read` reads it; `None` if one is wrong.
pub(super) fn each<V>(
    value: &Located,
    faults: &mut Faults<'_>,
    mut read: impl FnMut(&Located, &mut Faults<'_>) -> Option<V>,
) -> Option<Vec<V>> {
    let items = items(value);
    let read: Vec<Option<V>> = items.iter().map(|item| read(item, faults)).collect();
    read.into_iter().collect()
}

/// A text in quotes, whatever is in it.
pub(crate) fn quote(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '\\' | '"' => quoted.extend(['\\', c]),
            c if is_hidden(c) => match u32::from(c) {
                code @ 0x1_0000.. => quoted.push_str(&format!("\\U{code:08x}")),
                code => quoted.push_str(&format!("\\u{code:04x}")),
            },
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// A key, in quotes where it needs them.
pub(super) fn quoted_key(key: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    match !key.is_empty() && key.bytes().all(bare) {
        true => key.to_owned(),
        false => quote(key),
    }
}

/// A value as in a file, on one line.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => quote(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(value) => value.to_string(),
        Value::List(items) => list(items.iter().map(|item| literal(&item.value))),
        Value::Table(members) => {
            let members = members.iter().map(|member| {
                let (key, value) = (quoted_key(&member.key), literal(&member.value.value));
                format!("{key} = {value}")
            });
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        Value::Date => "1970-01-01".to_owned(),
    }
}

pub(super) fn quoted_list(items: impl IntoIterator<Item = impl ToString>) -> String {
    list(items.into_iter().map(|item| quote(&item.to_string())))
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

pub(super) fn show_time(time: Duration) -> String {
    quote(&duration::show(Some(time)))
}
