use std::time::Instant;

use jiff::Timestamp;
use serde_json::Value;

use super::chromium::{self, chromium, pictures, report, silent};
use crate::support::{page, skip_without};

#[test]
fn acceptance_a_month_of_50_000_bans_in_chromium() {
    if !chromium::is_there() {
        return skip_without("chromium");
    }
    let now = Timestamp::now();
    let directory = chromium::with_bans(50_000, now);
    let state = directory.path();

    let until = now.to_string();
    let period = ["--since", "30d", "--until", &until];
    let file = pictures().join("report.html");
    let begin = Instant::now();
    let html = ["--format", "html", "-o", file.to_str().unwrap()];
    report(state, &[&period[..], &html].concat());
    let made = begin.elapsed();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.len() < 3_000_000, "{} bytes", text.len());

    // The numbers of the page as the browser has it are those of JSON.
    let json = report(state, &[&period[..], &["--json"]].concat());
    let mut objects: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let summary = objects.pop().unwrap();
    assert!(summary["bans"].as_u64().unwrap() > 40_000);
    page::agrees(&text, &objects, &summary);
    let url = format!("file://{}", file.display());
    let (dom, log) = chromium(state, &["--dump-dom", &url]);
    silent(&log);
    assert!(dom.contains("<h1>Bans</h1>"), "{dom:.300}");
    assert!(!dom.contains("pwned</title>"));

    // A page around it measures how long it takes to open.
    let frame = format!(
        "<iframe src=\"{url}\" width=1400 height=2000 onload=\"document.title = Math.round(performance.now() - begin)\"></iframe>"
    );
    let frame = format!("<!DOCTYPE html><script>begin = performance.now()</script>{frame}");
    let outer = state.join("outer.html");
    std::fs::write(&outer, frame).unwrap();
    let (dom, _) = chromium(
        state,
        &["--dump-dom", &format!("file://{}", outer.display())],
    );
    let opened = dom
        .split("<title>")
        .nth(1)
        .and_then(|rest| rest.split('<').next());
    println!(
        "50 000 bans: {} KB, made in {made:.1?}, opened in {} ms",
        text.len() / 1_000,
        opened.unwrap_or("?")
    );

    for (name, size, more) in [
        ("light", "1400,3600", &[][..]),
        ("dark", "1400,3600", &["--force-dark-mode"]),
        ("narrow", "390,5200", &[]),
        ("narrow-dark", "390,5200", &["--force-dark-mode"]),
    ] {
        let picture = pictures().join(format!("{name}.png"));
        let screenshot = format!("--screenshot={}", picture.display());
        let size = format!("--window-size={size}");
        let words = [&[screenshot.as_str(), &size, &url], more].concat();
        silent(&chromium(state, &words).1);
        assert!(picture.exists());
    }
    let pdf = pictures().join("print.pdf");
    let print = format!("--print-to-pdf={}", pdf.display());
    silent(&chromium(state, &[&print, "--no-pdf-header-footer", &url]).1);
    println!("pictures are in {}", pictures().display());
}
