//! The report as CSV (RFC 4180): one row per client.

use std::io::{self, Write};

use super::detail::Details;
use super::summary::Summary;
use crate::jail::show_net;
use crate::record::display_lines;

const HEADER: [&str; 9] = [
    "host", "bans", "first", "last", "in_force", "until", "jails", "classes", "evidence",
];

/// Writes a header and one row per client, with the newest line of its evidence.
///
/// # Errors
/// Of `out`, or details cannot be read.
pub fn write(summary: &Summary, details: &dyn Details, out: &mut dyn Write) -> io::Result<()> {
    row(out, &HEADER.map(str::to_owned))?;
    for client in &summary.clients {
        let in_force = match (client.in_force, client.behind) {
            (true, _) => "yes",
            (false, true) => "behind a proxy",
            (false, false) => "no",
        };
        let until = match client.until() {
            None => String::new(),
            Some(None) => "for ever".to_owned(),
            Some(Some(until)) => until.to_string(),
        };
        let evidence = details.evidence(client.shown_ban)?.pop();
        let evidence = evidence.map(|(_, line)| line);
        row(
            out,
            &[
                show_net(&client.net),
                client.bans.to_string(),
                client.first().to_string(),
                client.last().to_string(),
                in_force.to_owned(),
                until,
                summary.jails_of(client).join(" "),
                summary.classes_of(client).join(" "),
                evidence.unwrap_or_default(),
            ],
        )?;
    }
    out.flush()
}

fn row<const N: usize>(out: &mut dyn Write, cells: &[String; N]) -> io::Result<()> {
    let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
    write!(out, "{}\r\n", cells.join(","))
}

/// Quoted. A spreadsheet takes what begins with `=`, `+`, `-` or `@` for a formula: `'` goes before.
fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@']) {
        "'"
    } else {
        ""
    };
    format!("\"{guard}{}\"", display_lines(text).replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn no_cell_is_a_formula_or_ends_early() {
        for (text, expected) in [
            ("", r#""""#),
            ("203.0.113.9", r#""203.0.113.9""#),
            ("=cmd|' /C calc'!A0", r#""'=cmd|' /C calc'!A0""#),
            ("+1", r#""'+1""#),
            ("-1", r#""'-1""#),
            ("@SUM(A1)", r#""'@SUM(A1)""#),
            (r#""GET /,a""#, r#""""GET /,a""""#),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
