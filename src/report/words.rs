//! Numbers and times as a report shows them.

use jiff::civil::DateTime;

use super::clients::Client;
use super::summary::Summary;

/// With commas: `50,000`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 ban`, `2 bans`.
pub fn count(count: u64, one: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {one}{plural}", number(count))
}

/// Of `whole`, in percent; less than one is not nothing.
pub(super) fn percent(part: u64, whole: u64) -> String {
    match part.saturating_mul(100) / whole.max(1) {
        0 if part > 0 => "under 1 %".to_owned(),
        percent => format!("{percent} %"),
    }
}

/// To the minute.
pub(super) fn minute(time: DateTime) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

/// Whether a client's ban is in force, and until when.
pub(super) fn in_force(summary: &Summary, client: &Client) -> String {
    let until = match client.until() {
        None => return "no".to_owned(),
        Some(None) => "for ever".to_owned(),
        Some(Some(until)) => format!("until {}", minute(summary.local(until))),
    };
    match client.in_force {
        true => until,
        false => format!("behind a proxy, {until}"),
    }
}

/// Sentences below the title: what is counted, and what is not.
pub(super) fn remarks(summary: &Summary) -> Vec<String> {
    let mut remarks = Vec::new();
    let others = summary.of_other_jails;
    if others > 0 {
        let bans = count(others, "ban");
        remarks.push(match summary.query.observed {
            false => format!(
                "{bans} by jails that only observe (enforce = false) not counted: `--observed` \
                 shows them"
            ),
            true => format!(
                "only jails that observe (enforce = false): they would have banned these clients; \
                 {bans} by other jails not counted"
            ),
        });
    } else if summary.query.observed {
        remarks.push(
            "only jails that observe (enforce = false): they would have banned these clients"
                .to_owned(),
        );
    }
    if summary.behind > 0 {
        let bans = count(summary.behind, "active ban");
        remarks.push(format!(
            "{bans} of clients behind a proxy, which the firewall cannot block"
        ));
    }
    remarks.extend(summary.notes.iter().cloned());
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let all = [0, 7, 999, 1_000, 50_000, 1_234_567].map(number);
        assert_eq!(all, ["0", "7", "999", "1,000", "50,000", "1,234,567"]);
        assert_eq!(percent(1, 1_000), "under 1 %");
        assert_eq!(percent(0, 0), "0 %");
        assert_eq!(percent(1, 3), "33 %");
        assert_eq!(count(1, "ban"), "1 ban");
    }
}
