//! Makes the pictures of the README in target/tmp/pictures; `make pictures` copies them to docs.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::chromium::{self, chromium};
use crate::support::http;
use crate::support::world::{CONFIG, SERVER4, SERVER6};
use crate::support::{Apache, Mpm, World, eventually, skip_without};

const GUESS: &str = "[jails.wp-guess]\nlog = \"access\"\nmaxretry = 3\n";
const GUESS_FILTER: &str = "[Definition]\nfailregex = ^<HOST> .*\"GET /wp-login\\.php\n";

/// Of the terminal: columns, and pixels of a cell.
const COLUMNS: usize = 80;
const CELL: (f64, usize) = (7.83, 17);
const MARGIN: usize = 14;

#[test]
fn acceptance_pictures_a_session_in_a_terminal() {
    let Some(world) = World::new() else { return };
    world.write("/etc/pipeban/pipeban.toml", &format!("{CONFIG}{GUESS}"));
    world.write("/etc/pipeban/filters.d/wp-guess.conf", GUESS_FILTER);
    // Of another Apache than the one that runs here.
    world.must(&["rm", "/etc/apache2/apache2.conf"]);
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();
    http::attack(&clients, "198.51.100.7", SERVER4);
    http::attack(&clients, "2001:db8:a000::7", SERVER6);
    http::get(&clients, "198.51.100.8", SERVER4, "/wp-login.php").expect("answered");
    world.until_banned("apache-cgitraversal", "198.51.100.7");
    world.until_banned("apache-cgitraversal", "2001:db8:a000::/64");
    let counted = ["explain", "198.51.100.8"];
    eventually("the hit is counted", || {
        let said = world.pipeban(&counted).stdout;
        said.contains("counts 1 of 3").then_some(()).ok_or(said)
    });
    let mut session = String::new();
    for argv in [&["status", "apache-cgitraversal"], &counted] {
        let run = [&["env", "COLUMNS=80", "/usr/bin/pipeban"], &argv[..]].concat();
        let shown = world.run(&run).stdout;
        let _ = writeln!(session, "# pipeban {}\n{}\n", argv.join(" "), shown.trim());
    }
    assert!(session.contains("banned now: 2"), "{session}");
    std::fs::write(chromium::pictures().join("session.svg"), svg(&session)).unwrap();
}

/// At most as many characters as the terminal has columns, broken at a blank.
fn rows(line: &str) -> Vec<String> {
    let mut rows = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let row = rows.last_mut().unwrap();
        match row.chars().count() + word.trim_end().chars().count() <= COLUMNS {
            true => row.push_str(word),
            false => rows.push(word.to_owned()),
        }
    }
    rows
}

/// A terminal with this text.
fn svg(session: &str) -> String {
    let rows: Vec<String> = session.trim_end().lines().flat_map(rows).collect();
    let width = (COLUMNS as f64 * CELL.0).ceil() as usize + 2 * MARGIN;
    let height = rows.len() * CELL.1 + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,monospace\" \
         font-size=\"13\" fill=\"#d8dee6\">\n<rect width=\"100%\" height=\"100%\" rx=\"6\" \
         fill=\"#1b2129\"/>\n"
    );
    for (row, text) in (1..).zip(rows) {
        let typed = if text.starts_with("# ") {
            " fill=\"#8fd18a\" font-weight=\"bold\""
        } else {
            ""
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let y = MARGIN + row * CELL.1 - 5;
        let _ = writeln!(
            svg,
            "<text x=\"{MARGIN}\" y=\"{y}\" xml:space=\"preserve\"{typed}>{text}</text>"
        );
    }
    svg + "</svg>\n"
}

#[test]
fn acceptance_pictures_the_report() {
    if !chromium::is_there() {
        return skip_without("chromium");
    }
    // So few that all clients are of the networks for documentation.
    let directory = chromium::with_bans(1_400, Timestamp::now());
    let state = directory.path();
    let page = state.join("report.html");
    let html = [
        "--since",
        "30d",
        "--format",
        "html",
        "-o",
        page.to_str().unwrap(),
    ];
    chromium::report(state, &html);
    let picture = chromium::pictures().join("report.png");
    let words = [
        &format!("--screenshot={}", picture.display()),
        "--window-size=1000,1000",
        &format!("file://{}", page.display()),
    ];
    chromium(state, &words);
    assert!(picture.exists());
}
