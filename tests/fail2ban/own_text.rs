//! pipeban ships no text of fail2ban, which has another licence.

use std::collections::HashSet;
use std::path::Path;

use super::installed;

/// So many characters in a row are no coincidence.
const RUN: usize = 30;

/// Every line below a directory, without the blanks and comment marks around it.
fn lines(directory: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            lines(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let trimmed = text.lines().map(|line| {
                let around = |c: char| c.is_whitespace() || c == '#' || c == ';';
                line.trim_matches(around).to_owned()
            });
            found.extend(trimmed);
        }
    }
}

fn runs(line: &str) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().windows(RUN)
}

#[test]
fn what_is_shipped_shares_no_run_of_text_with_fail2bans_configuration() {
    if !installed() {
        return;
    }
    let (mut theirs, mut own) = (Vec::new(), Vec::new());
    lines(Path::new("/etc/fail2ban"), &mut theirs);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for shipped in ["config", "apache-conf", "packaging", "fuzz/seeds"] {
        lines(&root.join(shipped), &mut own);
    }
    let known: HashSet<&[u8]> = theirs.iter().flat_map(|line| runs(line)).collect();
    assert!(
        known.len() > 50_000,
        "{} runs: the package was not found",
        known.len()
    );
    assert!(
        own.len() > 200,
        "{} lines: the tree was not found",
        own.len()
    );
    // Apache's messages in sample lines are Apache's words, and fail2ban's patterns repeat them.
    let sample = |line: &String| line.starts_with("hit = ") || line.starts_with("miss = ");
    // Addresses of services and header fields can be written in one way only.
    let fact = |line: &String| {
        let facts = [
            "Content-Type: ",
            "Auto-Submitted: ",
            "https://api.cloudflare.com",
            "https://api.abuseipdb.com",
        ];
        facts.iter().any(|fact| line.contains(fact))
    };
    let shared: Vec<&String> = own
        .iter()
        .filter(|line| !sample(line) && !fact(line))
        .filter(|line| runs(line).any(|run| known.contains(run)))
        .collect();
    assert!(shared.is_empty(), "{shared:#?}");
}
