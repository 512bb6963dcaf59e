use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::Place;
use crate::support::history;
use crate::support::page;

fn filled(count: u64) -> Place {
    let place = Place::new();
    history::fill(
        &mut history::database(place.state()),
        count,
        30,
        Timestamp::now(),
    );
    place
}

fn raw(place: &Place, sql: &str) -> u64 {
    let database = rusqlite::Connection::open(place.path("pipeban.sqlite3")).unwrap();
    let counted: i64 = database.query_row(sql, [], |row| row.get(0)).unwrap();
    counted.cast_unsigned()
}

fn sum(list: &Value, key: &str) -> u64 {
    let list = list.as_array().unwrap().iter();
    list.map(|object| object[key].as_u64().unwrap()).sum()
}

#[test]
fn json_agrees_with_the_database_and_with_itself() {
    let place = filled(2_000);
    let (clients, summary) = place.json(&["--since", "all"]);
    let kept = "end IS NOT 'replaced' AND mode != 'observed'";
    let count = |what: &str, also: &str| {
        raw(
            &place,
            &format!("SELECT {what} FROM bans WHERE {kept} {also}"),
        )
    };
    assert_eq!(summary["bans"], count("count(*)", ""));
    assert_eq!(summary["clients"], count("count(DISTINCT net)", ""));
    let active = "AND ended IS NULL AND (until IS NULL OR until > unixepoch() * 1000)";
    let enforced = format!("{active} AND mode = 'enforced'");
    assert_eq!(summary["in_force"], count("count(*)", &enforced));
    assert_eq!(
        summary["behind_proxy"],
        count("count(*)", &format!("{active} AND mode LIKE 'behind%'"))
    );
    assert_eq!(
        summary["bans_of_other_jails"],
        raw(
            &place,
            "SELECT count(*) FROM bans WHERE end IS NOT 'replaced' AND mode = 'observed'"
        )
    );
    // With itself.
    let bans = summary["bans"].as_u64().unwrap();
    assert_eq!(clients.len() as u64, summary["clients"].as_u64().unwrap());
    let of_clients: u64 = clients.iter().map(|c| c["bans"].as_u64().unwrap()).sum();
    assert_eq!(of_clients, bans);
    assert_eq!(sum(&summary["jails"], "bans"), bans);
    assert_eq!(sum(&summary["days"], "bans"), bans);
    let hours = summary["hours"].as_array().unwrap();
    assert_eq!(hours.iter().map(|n| n.as_u64().unwrap()).sum::<u64>(), bans);
    let at = |time: &Value| time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let repeat = clients
        .iter()
        .filter(|c| at(&c["last"]).duration_since(at(&c["first"])).as_secs() >= 60);
    assert_eq!(summary["repeat_clients"], repeat.count());
    let counts: Vec<u64> = clients
        .iter()
        .map(|c| c["bans"].as_u64().unwrap())
        .collect();
    assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
    assert!(counts[0] > 3, "{counts:?}");
    // One client, in full.
    let first = &clients[0];
    let host = first["host"].as_str().unwrap();
    let of_one = place.json(&["--since", "all", "--net", host]);
    assert_eq!(of_one.0, std::slice::from_ref(first));
    assert!(
        first["evidence"][0]["line"]
            .as_str()
            .unwrap()
            .contains("GET /")
    );
    assert!(first["first"].as_str() < first["last"].as_str());
}

#[test]
fn filters_and_periods_select_bans() {
    let place = filled(1_000);
    let bans = |words: &[&str]| -> u64 { place.json(words).1["bans"].as_u64().unwrap() };
    let all = bans(&["--since", "all"]);
    assert_eq!(all, bans(&["--since", "31d"]));
    let week = bans(&[]);
    assert!(0 < week && week < all / 2, "{week} of {all}");
    assert_eq!(week, bans(&["--since", "7d", "--until", "0s"]));
    let before = bans(&["--since", "all", "--until", "7d"]);
    assert_eq!(before + week, all);
    let summary = place.json(&["--since", "all"]).1;
    for jail in summary["jails"].as_array().unwrap() {
        let name = jail["jail"].as_str().unwrap();
        assert_eq!(bans(&["--since", "all", "--jail", name]), jail["bans"]);
    }
    let hosts =
        ["a.example", "SHOP.example"].map(|host| bans(&["--since", "all", "--vhost", host]));
    assert_eq!(hosts.iter().sum::<u64>(), all);
    let observed = place.json(&["--since", "all", "--observed"]).1;
    assert_eq!(observed["bans"], summary["bans_of_other_jails"]);
    assert_eq!(observed["bans_of_other_jails"], all);
    assert_eq!(observed["in_force"], 0);
    let v6 = bans(&["--since", "all", "--net", "2001:db8::/32"]);
    assert!(0 < v6 && v6 < all);

    let nobody = place.run(&["--net", "100.64.0.1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        String::from_utf8(nobody.stdout)
            .unwrap()
            .contains("0 bans of 0 clients")
    );
    for words in [
        &["--since", "1d", "--until", "2d"][..],
        &["--since", "yesterday"],
        &["--json", "--format", "html"],
        &["--vhost", "a", "--fail2ban-log", "x"],
    ] {
        assert_eq!(place.run(words).status.code(), Some(64), "{words:?}");
    }
}

#[test]
fn the_page_has_the_numbers_of_json() {
    let place = filled(2_000);
    let file = place.path("report.html");
    let until = Timestamp::now().to_string();
    let words = ["--since", "30d", "--until", &until];
    let (clients, summary) = place.json(&words);
    let html = [
        &words[..],
        &["--format", "html", "-o", file.to_str().unwrap()],
    ]
    .concat();
    place.report(&html);
    let text = std::fs::read_to_string(&file).unwrap();
    page::agrees(&text, &clients, &summary);
    // Nobody else reads it, and it loads nothing.
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for word in [
        "<script",
        "http://www",
        "https://",
        "url(",
        "@import",
        " onload=\"",
    ] {
        assert!(!text.contains(word), "{word}");
    }
    let observed = [&words[..], &["--format", "html", "--observed"]].concat();
    assert!(place.report(&observed).contains("<h1>Observed bans</h1>"));
}

#[test]
fn csv_has_every_client_and_no_formula() {
    let place = filled(300);
    let (clients, _) = place.json(&["--since", "all"]);
    let text = place.report(&["--since", "all", "--format", "csv"]);
    let rows: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(
        rows[0],
        r#""host","bans","first","last","in_force","until","jails","classes","evidence""#
    );
    assert_eq!(rows.len() - 1, clients.len());
    let mut hosts = BTreeMap::new();
    for row in &rows[1..] {
        let cells: Vec<&str> = row.splitn(3, ',').collect();
        hosts.insert(cells[0].trim_matches('"'), cells[1].trim_matches('"'));
        assert!(!row.contains("\"="), "{row}");
    }
    for client in &clients {
        let bans = client["bans"].to_string();
        assert_eq!(hosts[client["host"].as_str().unwrap()], bans);
    }
}

#[test]
fn the_table_fits_a_terminal_and_shows_the_totals() {
    let place = filled(500);
    let (clients, summary) = place.json(&["--since", "all"]);
    let text = place.report(&["--since", "all"]);
    let bans = summary["bans"].as_u64().unwrap();
    assert!(
        text.contains(&format!("  {bans} bans of {} clients", clients.len())),
        "{text}"
    );
    assert!(text.contains("--observed"), "{text}");
    assert!(text.contains(clients[0]["host"].as_str().unwrap()));
    assert!(!text.contains('\x1b'));
    for title in [
        "Bans per day:",
        "Bans per hour:",
        "network",
        "class of attack",
    ] {
        assert!(text.contains(title), "{title}: {text}");
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let place = Place::new();
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("no engine has run"), "{stderr}");
    std::fs::write(place.path("pipeban.sqlite3"), "nonsense\n".repeat(200)).unwrap();
    assert_eq!(place.run(&[]).status.code(), Some(2));
    let missing = place.run(&["--fail2ban-log", "/nonexistent/fail2ban.log"]);
    assert_eq!(missing.status.code(), Some(2));
    let output = place.run(&["--fail2ban-log", "x", "-o", "/nonexistent/x"]);
    assert_eq!(output.status.code(), Some(2));
}
