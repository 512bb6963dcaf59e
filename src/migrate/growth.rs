//! `bantime.increment` and its companions.

use std::time::Duration;

use super::model::{is_on, show};
use super::values;
use crate::filter::Setting;

/// Without `bantime.maxtime` fail2ban's bans grow without bound.
const UNBOUNDED: Duration = Duration::from_secs(10 * 365 * 86_400);

/// fail2ban doubles up to this number of times.
const DOUBLINGS: u32 = 20;

/// The value of `increment` in a file, and what to say about it.
pub(super) fn increment(get: &dyn Fn(&str) -> Option<Setting>) -> (String, Vec<String>) {
    if !is_on(get("bantime.increment").as_ref()) {
        return ("false".to_owned(), Vec::new());
    }
    let mut notes = Vec::new();
    let text = |key: &str| {
        get(key)
            .map(|setting| setting.text)
            .filter(|text| !text.is_empty())
    };
    let time = |key: &str| text(key).and_then(|text| values::expression(&text).flatten());
    let factor = text("bantime.factor").unwrap_or_else(|| "1".to_owned());
    let factor = factor
        .parse::<f64>()
        .ok()
        .filter(|factor| (1.0..=1000.0).contains(factor));
    let factor = factor.unwrap_or_else(|| {
        notes.push("`bantime.factor` must be a number from 1 to 1000: 1 is used".to_owned());
        1.0
    });
    let mut multipliers = values::words(&text("bantime.multipliers").unwrap_or_default());
    if text("bantime.formula").is_some() && multipliers.is_empty() {
        notes.push(
            "`bantime.formula` is Python, which pipeban does not run: each ban lasts twice as long \
             as the one before"
                .to_owned(),
        );
    }
    let numbers = |words: &[String]| {
        words
            .iter()
            .all(|word| word.parse::<u32>().is_ok_and(|n| n > 0))
    };
    if !numbers(&multipliers) {
        notes.push("`bantime.multipliers` must be numbers: not used".to_owned());
        multipliers.clear();
    }
    // fail2ban's factor is for all repeated bans, pipeban's without multipliers for each next one.
    if multipliers.is_empty() && factor > 1.0 {
        multipliers = (0..DOUBLINGS).map(|n| (1_u32 << n).to_string()).collect();
    }
    let factor = if multipliers.is_empty() { 2.0 } else { factor };
    let keys = [
        format!("factor = {factor}"),
        format!("multipliers = [{}]", multipliers.join(", ")),
        format!(
            "maxtime = {}",
            show(Some(time("bantime.maxtime").unwrap_or(UNBOUNDED)))
        ),
        format!(
            "rndtime = {}",
            show(Some(time("bantime.rndtime").unwrap_or_default()))
        ),
        format!(
            "overalljails = {}",
            is_on(get("bantime.overalljails").as_ref())
        ),
    ];
    (format!("{{ {} }}", keys.join(", ")), notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_bans_grow_as_in_fail2ban() {
        let of = |settings: &[(&str, &str)]| {
            let get = |key: &str| {
                let found = settings.iter().find(|(name, _)| *name == key);
                found.map(|(_, text)| Setting {
                    text: (*text).to_owned(),
                    file: "jail.local".into(),
                    line: 1,
                })
            };
            increment(&get)
        };
        let on = ("bantime.increment", "true");
        assert_eq!(of(&[]).0, "false");
        assert_eq!(
            of(&[on]).0,
            "{ factor = 2, multipliers = [], maxtime = \"3650d\", rndtime = \"0s\", overalljails = false }"
        );
        let (text, notes) = of(&[
            on,
            ("bantime.multipliers", "1 5 30 60"),
            ("bantime.factor", "2"),
            ("bantime.maxtime", "5w"),
            ("bantime.rndtime", "30m"),
            ("bantime.overalljails", "true"),
        ]);
        assert_eq!(
            text,
            "{ factor = 2, multipliers = [1, 5, 30, 60], maxtime = \"5w\", rndtime = \"30m\", overalljails = true }"
        );
        assert!(notes.is_empty());
        let (text, notes) = of(&[
            on,
            ("bantime.formula", "ban.Time * 3"),
            ("bantime.factor", "3"),
        ]);
        assert!(
            text.starts_with("{ factor = 3, multipliers = [1, 2, 4, 8,"),
            "{text}"
        );
        assert!(notes[0].contains("formula"));
    }
}
