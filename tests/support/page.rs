//! Reads the numbers out of the HTML report.

use regex::Regex;
use serde_json::Value;

/// The text between the tags of an element, with entities replaced.
fn text_of(html: &str) -> String {
    let tags = Regex::new("<[^>]*>").unwrap();
    let text = tags.replace_all(html, "").into_owned();
    // askama writes numbers for the characters that end a text or an attribute.
    let entity = Regex::new("&#(\\d+);").unwrap();
    let text = entity.replace_all(&text, |found: &regex::Captures<'_>| {
        let number: u32 = found[1].parse().unwrap();
        char::from_u32(number).unwrap().to_string()
    });
    text.trim().to_owned()
}

fn number(html: &str) -> u64 {
    let text = text_of(html).replace(',', "");
    text.parse().unwrap_or_else(|_| panic!("no number: {html}"))
}

/// What is between the tags of the element with this id.
fn element<'p>(page: &'p str, id: &str) -> &'p str {
    let start = page
        .find(&format!("id=\"{id}\""))
        .unwrap_or_else(|| panic!("no {id}"));
    let tag = page[..start].rfind('<').unwrap() + 1;
    let name = page[tag..start].split_whitespace().next().unwrap();
    let begin = start + page[start..].find('>').unwrap() + 1;
    let end = begin + page[begin..].find(&format!("</{name}>")).unwrap();
    &page[begin..end]
}

/// The cells of each row of a table.
fn rows(table: &str) -> Vec<Vec<String>> {
    let cell = Regex::new("(?s)<td[^>]*>(.*?)</td>").unwrap();
    let rows = table.split("<tr>").filter(|row| row.contains("<td"));
    rows.map(|row| {
        let cells = cell.captures_iter(row);
        cells.map(|found| found[1].to_owned()).collect()
    })
    .collect()
}

/// Names and numbers of a chart with a bar per name, and the widths of the bars in percent.
fn bars(list: &str) -> Vec<(String, u64, f64)> {
    let bar = Regex::new(
        "(?s)<span class=\"name\">(.*?)</span>.*?<b>(.*?)</b>.*?<rect class=\"c\\d\" width=\"(.*?)%\"",
    )
    .unwrap();
    let found = bar.captures_iter(list);
    found
        .map(|bar| (text_of(&bar[1]), number(&bar[2]), bar[3].parse().unwrap()))
        .collect()
}

/// What the titles in a chart say: `2026-11-22: 5 bans by apache-auth`.
fn titles(page: &str, chart: &str) -> u64 {
    let begin = page.find(&format!("aria-label=\"{chart}\"")).unwrap();
    let end = begin + page[begin..].find("</svg>").unwrap();
    let title = Regex::new("<title>[^<]*: ([0-9,]+) bans?(?: by [^<]*)?</title>").unwrap();
    let found = title.captures_iter(&page[begin..end]);
    found.map(|title| number(&title[1])).sum()
}

/// Compares the numbers of a page with those of `--format json` of the same bans.
///
/// # Panics
/// They differ.
pub(crate) fn agrees(page: &str, clients: &[Value], summary: &Value) {
    for id in [
        "bans",
        "clients",
        "repeat_clients",
        "in_force",
        "clients_in_force",
    ] {
        assert_eq!(number(element(page, id)), summary[id], "{id}");
    }
    let bans = summary["bans"].as_u64().unwrap();
    assert_eq!(titles(page, "Bans over time, by jail"), bans);
    assert_eq!(titles(page, "Bans by hour of the day"), bans);
    let days = rows(element(page, "days"));
    let expected = summary["days"].as_array().unwrap();
    assert_eq!(days.len(), expected.len());
    for (row, day) in days.iter().zip(expected) {
        assert_eq!(row[0], day["day"].as_str().unwrap());
        assert_eq!(number(&row[1]), day["bans"]);
    }
    let hours = rows(element(page, "hours"));
    let hours: Vec<u64> = hours.iter().map(|row| number(&row[1])).collect();
    assert_eq!(serde_json::json!(hours), summary["hours"]);
    for (id, key, name) in [
        ("jails", "jails", "jail"),
        ("classes", "classes", "class"),
        ("networks", "networks", "network"),
    ] {
        let shown = bars(element(page, id));
        let expected = summary[key].as_array().unwrap();
        assert_eq!(shown.len(), expected.len().min(12), "{id}");
        let most = expected[0]["bans"].as_u64().unwrap() as f64;
        for ((word, bans, width), object) in shown.iter().zip(expected) {
            assert_eq!(
                (word.as_str(), *bans),
                (
                    object[name].as_str().unwrap(),
                    object["bans"].as_u64().unwrap()
                )
            );
            assert!(
                (width - *bans as f64 * 100.0 / most).abs() < 0.01,
                "{word}: {width}"
            );
        }
    }
    let shown = rows(element(page, "table"));
    assert_eq!(shown.len(), clients.len().min(250));
    for (row, client) in shown.iter().zip(clients) {
        let host = row[0].split("</b>").next().unwrap();
        assert_eq!(text_of(host), client["host"].as_str().unwrap());
        assert_eq!(number(&row[1]), client["bans"]);
        let first = client["first"].as_str().unwrap();
        assert_eq!(text_of(&row[2]), first[..16].replace('T', " "));
        assert_eq!(
            text_of(&row[4]) != "no" && !row[4].starts_with("behind"),
            client["in_force"] == true
        );
        let line = client["evidence"].as_array().unwrap().last();
        if let Some(line) = line {
            let line = line["line"].as_str().unwrap();
            let shown = row[0].split("<pre>").nth(1).unwrap();
            assert!(text_of(shown).contains(line), "{shown}: {line}");
        }
    }
    let more = clients.len().saturating_sub(250);
    assert_eq!(page.contains("more clients:"), more > 0);
}
