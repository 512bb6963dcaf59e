//! Sample lines and what their annotations say must come of them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// One line with one set of options.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) number: usize,
    pub(super) line: String,
    pub(super) options: BTreeMap<String, String>,
    /// From the journal: without a time in the line.
    pub(super) journal: bool,
    pub(super) matches: bool,
    pub(super) host: Option<String>,
    pub(super) time: Option<String>,
}

/// The samples of a filter, in order.
pub(super) fn of(filter: &str, directory: &Path) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut files = vec![filter.to_owned()];
    let mut common = Value::Object(serde_json::Map::new());
    let mut at = 0;
    while let Some(file) = files.get(at).cloned() {
        at += 1;
        let mut sets = vec![common.clone()];
        let bytes = std::fs::read(directory.join(&file)).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = (1..).zip(text.lines());
        let mut ignored = false;
        while let Some((number, line)) = lines.next() {
            let (annotation, number, line) = match annotated(line) {
                Some(("failJSON", value)) => {
                    let (number, line) = lines.next().unwrap();
                    (value, number, line)
                }
                Some(("fileOptions", value)) => {
                    common = value;
                    continue;
                }
                Some(("addFILE", value)) => {
                    files.push(value.as_str().unwrap().to_owned());
                    continue;
                }
                Some((_, value)) => {
                    let list = match value {
                        Value::Array(list) => list,
                        one => vec![one],
                    };
                    sets = list.into_iter().map(|set| merged(&common, &set)).collect();
                    sets.retain(|set| holds(&set["test.condition"], filter, set));
                    ignored = sets.is_empty();
                    continue;
                }
                None if line.starts_with('#') || line.trim().is_empty() => continue,
                None => (Value::Null, number, line),
            };
            if ignored {
                continue;
            }
            let text = |value: &Value| value.as_str().map(str::to_owned);
            for set in &sets {
                if !holds(&annotation["constraint"], filter, set) {
                    continue;
                }
                let journal = set["logtype"] == "journal";
                let before = set["test.prefix-line"].as_str().unwrap_or("");
                samples.push(Sample {
                    number,
                    line: format!("{before}{line}"),
                    options: options(set),
                    journal,
                    matches: annotation["match"] == true,
                    host: text(&annotation["host"]),
                    time: text(&annotation["time"]),
                });
            }
        }
    }
    samples
}

/// `# failJSON: {...}` and its like.
fn annotated(line: &str) -> Option<(&str, Value)> {
    let rest = line.strip_prefix('#')?.trim_start_matches('#');
    let (name, value) = rest.strip_prefix(' ').unwrap_or(rest).split_once(':')?;
    let known = ["failJSON", "fileOptions", "filterOptions", "addFILE"];
    let name = known.into_iter().find(|known| *known == name)?;
    Some((name, serde_json::from_str(value).unwrap()))
}

fn merged(common: &Value, set: &Value) -> Value {
    let mut merged = common.clone();
    for (key, value) in set.as_object().unwrap() {
        merged[key] = value.clone();
    }
    merged
}

/// A condition compares `name` or an option with one text: `name=='sshd'`.
fn holds(condition: &Value, filter: &str, set: &Value) -> bool {
    let Some(condition) = condition.as_str() else {
        return true;
    };
    let mut quoted = condition.split(['\'', '"']).skip(1).step_by(2);
    let equal = if condition.contains("opts.get(") {
        let option = quoted.next().unwrap();
        set[option].as_str() == quoted.next()
    } else {
        quoted.next() == Some(filter)
    };
    equal != condition.contains("!=")
}

fn options(set: &Value) -> BTreeMap<String, String> {
    let options = set.as_object().unwrap().iter();
    options
        .filter(|(name, _)| !name.starts_with("test."))
        .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap().to_owned()))
        .collect()
}
