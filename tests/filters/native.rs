//! What native filters and traps count, by `pipeban replay`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::corpus;

/// The bans of a replay with this configuration: client, jail, and seconds until the end of each.
fn bans(config: &str, filters: &[(&str, &str)], lines: &[String]) -> Vec<(String, String, i64)> {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    std::fs::create_dir(directory.path().join("filters.d")).unwrap();
    for (name, text) in filters {
        write(&format!("filters.d/{name}"), text);
    }
    write("p.toml", config);
    write("log", &(lines.join("\n") + "\n"));
    let kind = if lines[0].starts_with('[') {
        "error"
    } else {
        "access"
    };
    let output = Command::new(env!("CARGO_BIN_EXE_pipeban"))
        .current_dir(directory.path())
        .args([
            "replay", "--json", "--config", "p.toml", "--kind", kind, "log",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("summary"), "{text}{:?}", output.stderr);
    let mut bans = Vec::new();
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let time = |key: &str| {
            event[key]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .unwrap()
        };
        if event["event"] == "ban" {
            let word = |key: &str| event[key].as_str().unwrap().to_owned();
            let length = time("until").as_second() - time("time").as_second();
            bans.push((word("host"), word("jail"), length));
        }
    }
    bans
}

fn shipped() -> String {
    let share = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    format!("[paths]\nshare = \"{}\"\n", share.display())
}

/// A request at a second of the day.
fn request(client: &str, second: u32, request: &str, status: u16) -> String {
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{client} - - [22/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000] \
         \"{request} HTTP/1.1\" {status} 196 \"-\" \"Mozilla/5.0\""
    )
}

#[test]
fn padding_in_a_tag_hides_no_script() {
    let padding = "a".repeat(450);
    let tags = [
        format!("%3Cimg+{padding}+src=x:y%3E"),
        format!("%3Cx+{padding}+onload=y%3E"),
    ];
    for tag in tags {
        let lines: Vec<_> = (0..10)
            .map(|n| request("203.0.113.1", n, &format!("GET /{n}?q={tag}"), 404))
            .collect();
        let found = bans(&shipped(), &[], &lines);
        assert!(!found.is_empty(), "{tag}");
    }
}

#[test]
fn distinct_except_and_spoofable_do_what_the_manual_says() {
    let config = "[paths]\nshare = \"/nonexistent\"\n[jails.sweep]\nlog = \"access\"\nmaxretry = 5\n\
                  [jails.copy]\nlog = \"access\"\nfilter = \"sweep\"\nmaxretry = 5\nbantime = \"2h\"\n\
                  [jails.page]\nlog = \"access\"\nmaxretry = 1\nincrement = true\n";
    let sweep = "distinct = \"path\"\n[[match]]\nstatus = 404\npath = '^/'\n\
                 [[except]]\npath = { suffix = [\".ico\"] }\n";
    let page = "[[match]]\npath = ['/page']\nspoofable = true\n[[match]]\npath = ['/sure']\n";
    let mut lines = Vec::new();
    for n in 0..20 {
        lines.push(request("203.0.113.1", n, &format!("GET /missing?{n}"), 404));
        lines.push(request("203.0.113.2", n, &format!("GET /{n}.ico"), 404));
        // One client, one path each.
        let other = format!("203.0.113.{}", 20 + n);
        lines.push(request(&other, n, "GET /missing", 404));
    }
    let sweep_at = |second: u32, lines: &mut Vec<String>| {
        for n in 0..5 {
            let path = format!("GET /missing/{n}");
            lines.push(request("203.0.113.3", second + n, &path, 404));
        }
    };
    sweep_at(20, &mut lines);
    for hour in [1, 4, 7] {
        if hour == 4 {
            // The same again, when its ban is over.
            sweep_at(14_000, &mut lines);
        }
        lines.push(request("203.0.113.4", hour * 3600, "GET /page", 200));
        lines.push(request("203.0.113.5", hour * 3600, "GET /sure", 200));
    }
    let expected = [
        ("203.0.113.3", "copy", 7200),
        ("203.0.113.3", "sweep", 3600),
        ("203.0.113.4", "page", 3600),
        ("203.0.113.5", "page", 3600),
        ("203.0.113.3", "copy", 7200),
        ("203.0.113.3", "sweep", 3600),
        ("203.0.113.4", "page", 3600),
        ("203.0.113.5", "page", 7200),
        ("203.0.113.4", "page", 3600),
        ("203.0.113.5", "page", 14_400),
    ];
    let found = bans(
        config,
        &[("sweep.toml", sweep), ("page.toml", page)],
        &lines,
    );
    let expected = expected.map(|(client, jail, length)| (client.into(), jail.into(), length));
    assert_eq!(found, expected);
}

#[test]
fn one_request_for_a_trap_is_a_ban() {
    let config = "[paths]\nshare = \"/nonexistent\"\n[jails.trap]\nlog = \"access\"\nmaxretry = 3\n\
                  trap = [\"/old-backup/\", \"/x.php\"]\n";
    let lines = [
        request("203.0.113.1", 0, "GET /old-backup", 404),
        request("203.0.113.2", 0, "GET /x.phps?/x.php", 200),
        request("203.0.113.3", 0, "GET /old-backup/dump.sql", 200),
        request("203.0.113.4", 0, "GET //%78.php?a=1", 403),
        request("203.0.113.5", 0, "GET http://host/old-backup/", 200),
        request("203.0.113.6", 0, "GET /a/../old-backup/", 200),
    ];
    let found = bans(config, &[], &lines);
    let expected = ["203.0.113.3", "203.0.113.4", "203.0.113.5", "203.0.113.6"];
    let expected = expected.map(|c| (c.into(), "trap".into(), 3600));
    assert_eq!(found, expected);
}

#[test]
fn an_except_of_a_jail_spares_lines_whatever_its_filter() {
    let fail2ban = r#"[Definition]
failregex = ^<HOST> \S+ \S+ \[\] "\S+ /(?:page|trap)
"#;
    let jails = |except: &str| {
        let jail = |name: &str, what: &str| {
            format!("[jails.{name}]\nlog = \"access\"\nmaxretry = 1\n{what}\n{except}")
        };
        [
            "[paths]\nshare = \"/nonexistent\"\n".to_owned(),
            jail("conf", "filter = \"conf\"").replace("NAME", "conf"),
            jail("native", "filter = \"native\"").replace("NAME", "native"),
            jail("trap", "trap = [\"/trap/\"]").replace("NAME", "trap"),
            "[jails.whole]\nlog = \"access\"\nfilter = \"native\"\nmaxretry = 9\n".to_owned(),
        ]
        .concat()
    };
    let filters = [
        ("conf.conf", fail2ban),
        ("native.toml", "[[match]]\npath = '^/(?:page|trap)'\n"),
    ];
    let mut lines = Vec::new();
    for n in 0..9 {
        lines.push(request("203.0.113.1", n, "GET /page?monitor=1", 200));
        lines.push(request("203.0.113.2", n, "GET /trap/internal", 404));
    }
    let except = "[[jails.NAME.except]]\nquery = '^monitor='\nstatus = 200\n\
                  [[jails.NAME.except]]\npath = { suffix = [\"/INTERNAL\"] }\nnot = { user_agent = \
                  'sqlmap' }\n";
    let names = |found: Vec<(String, String, i64)>| {
        let mut names: Vec<_> = found
            .into_iter()
            .map(|(host, jail, _)| (host, jail))
            .collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .map(|(host, jail)| format!("{host} {jail}"))
            .collect::<Vec<_>>()
    };
    let all = [
        "203.0.113.1 conf",
        "203.0.113.1 native",
        "203.0.113.1 whole",
        "203.0.113.2 conf",
        "203.0.113.2 native",
        "203.0.113.2 trap",
        "203.0.113.2 whole",
    ];
    assert_eq!(names(bans(&jails(""), &filters, &lines)), all);
    let spared = names(bans(&jails(except), &filters, &lines));
    assert_eq!(spared, ["203.0.113.1 whole", "203.0.113.2 whole"]);
    let sqlmap: Vec<String> = lines
        .iter()
        .map(|l| l.replace("Mozilla/5.0", "sqlmap"))
        .collect();
    let spared = names(bans(&jails(except), &filters, &sqlmap));
    assert_eq!(spared, [&all[2..3], &all[3..]].concat());
}

#[test]
fn what_the_configuration_denies_bans_no_client_by_its_code_alone() {
    let line = |n: u32, path: &str| {
        format!(
            "[Sun Nov 22 11:00:{n:02}.366318 2026] [authz_core:error] [pid 1:tid 2] [client \
             203.0.113.{}:49108] AH01630: client denied by server configuration: /srv/htdocs/{path}",
            u32::from(path.contains(".env")) + 1
        )
    };
    let lines: Vec<_> = (0..59).map(|n| line(n, &format!("private/{n}"))).collect();
    assert_eq!(bans(&shipped(), &[], &lines), []);
    let secret = bans(&shipped(), &[], &[line(0, ".env")]);
    assert_eq!(secret.len(), 1, "the path decides: {secret:?}");
}

#[test]
fn what_a_script_says_of_its_files_bans_no_visitor() {
    let line = |text: &str| {
        format!(
            "[Sun Nov 22 11:00:33.366318 2026] [cgi:error] [pid 1:tid 2] [client \
             203.0.113.1:49108] AH01215: {text}: /usr/lib/cgi-bin/app.pl"
        )
    };
    let said = [
        "Use of uninitialized value $x at /usr/lib/cgi-bin/../../../lib/Foo.pm line 12.",
        "loading /srv/shop/.env",
        "cannot open /srv/git/shop/.git/HEAD",
        "sh: 1: /bin/sh: /etc/passwd: Permission denied",
    ];
    let lines: Vec<String> = said
        .iter()
        .cycle()
        .take(20)
        .map(|text| line(text))
        .collect();
    assert_eq!(bans(&shipped(), &[], &lines), []);
}

#[test]
fn the_right_password_clears_the_wrong_ones_but_not_again_and_again() {
    let mut lines = Vec::new();
    for n in 0..30 {
        let basic = |client, status| {
            let line = request(client, n * 10, "GET /private/", status);
            line.replacen("- -", "- admin", 1)
        };
        // Wrong eight times, then right.
        let wrong = n % 9 != 8;
        if n < 18 {
            lines.push(basic("203.0.113.1", if wrong { 401 } else { 200 }));
            let status = if wrong { 200 } else { 302 };
            lines.push(request("203.0.113.2", n * 10, "POST /wp-login.php", status));
        }
        // The same as often as it likes.
        lines.push(basic("203.0.113.3", if wrong { 401 } else { 200 }));
        // Right only for another client.
        lines.push(basic("203.0.113.4", 401));
        lines.push(basic("203.0.113.5", 200));
    }
    let found = bans(&shipped(), &[], &lines);
    let mut clients: Vec<_> = found.iter().map(|(client, ..)| client.as_str()).collect();
    clients.sort_unstable();
    assert_eq!(clients, ["203.0.113.3", "203.0.113.4"], "{found:?}");
}

#[test]
fn guessed_passwords_are_banned_and_logins_are_not() {
    let mut access = Vec::new();
    for n in 0..30 {
        let wordpress = |client, status| request(client, n, "POST /wp-login.php", status);
        access.push(wordpress("203.0.113.1", 200));
        access.push(wordpress("203.0.113.2", 302));
        access.push(request("203.0.113.3", n, "GET /wp-login.php", 200));
        let basic = request("203.0.113.4", n, "GET /private/", 401);
        access.push(basic.replacen("- -", "- admin", 1));
        // Every login begins with a request without a name.
        access.push(request("203.0.113.5", n, "GET /private/", 401));
        if n % 10 == 0 {
            access.push(wordpress("203.0.113.6", 200));
        }
    }
    let found = bans(&shipped(), &[], &access);
    let expected = ["203.0.113.1", "203.0.113.4"].map(|c| (c.into(), "apache-login".into(), 3600));
    assert_eq!(found, expected);
    let error = |client: &str, n: u32, message: &str| {
        format!(
            "[Sun Nov 22 11:34:{n:02}.000000 2026] [auth_basic:error] [pid 29498:tid 29500] \
             [client {client}:55926] {message}: /private/"
        )
    };
    let lines: Vec<String> = (0..30)
        .flat_map(|n| {
            [
                error("203.0.113.1", n, "AH01618: user admin not found"),
                error(
                    "203.0.113.2",
                    n,
                    "AH01630: client denied by server configuration",
                ),
            ]
        })
        .collect();
    let found = bans(&shipped(), &[], &lines);
    assert_eq!(
        found,
        [("203.0.113.1".into(), "apache-login-error".into(), 3600)]
    );
}

#[test]
fn a_sweep_is_a_ban_where_its_jail_is_enabled() {
    let mut lines = Vec::new();
    for n in 0..100 {
        lines.push(request("203.0.113.1", n, &format!("GET /names/{n}"), 404));
        // A page of the site names a script that is missing.
        lines.push(request("203.0.113.2", n, "GET /js/missing.js", 404));
        let linked = request("203.0.113.3", n, &format!("GET /gone/{n}"), 404);
        lines.push(linked.replacen("\"-\"", "\"https://www.example.org/\"", 1));
        lines.push(request("203.0.113.4", n, &format!("GET /names/{n}"), 200));
    }
    assert_eq!(bans(&shipped(), &[], &lines), []);
    let enabled = shipped() + "[jails.apache-sweep]\nenabled = true\n";
    let found = bans(&enabled, &[], &lines);
    assert_eq!(found, [("203.0.113.1".into(), "apache-sweep".into(), 3600)]);
}

/// 400 clients that each attack in one way, once in 29 minutes, in a day of benign requests.
#[test]
fn slow_attackers_are_banned_and_nobody_else() {
    let labelled = |name: &str| {
        let text = std::fs::read_to_string(corpus("labelled").join(name)).unwrap();
        let values: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        values
            .into_iter()
            .filter(|value| value["kind"] == "access")
            .collect::<Vec<_>>()
    };
    // The line from its request on.
    let tail = |value: &serde_json::Value| {
        let line = value["line"].as_str().unwrap();
        let tail = line.split_once("] \"").unwrap().1.to_owned();
        tail.matches('"').count().ge(&5).then_some(tail)
    };
    let mut classes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for value in labelled("attack.jsonl") {
        let conf = value["conf"].as_str().unwrap();
        if let (Some(tail), "high" | "probe") = (tail(&value), conf) {
            let class = value["class"].as_str().unwrap().to_owned();
            classes.entry(class).or_default().push(tail);
        }
    }
    let mut classes: Vec<Vec<String>> = classes.into_values().collect();
    classes.sort_by_key(|lines| std::cmp::Reverse(lines.len()));
    classes.truncate(8);
    let mut lines: Vec<(usize, String, &str)> = Vec::new();
    for client in 0..400_usize {
        let class = &classes[client % 8];
        for turn in 0..49 {
            let at = client * 4 + turn * 29 * 60;
            let address = format!("198.51.{}.{}", 100 + client / 200, client % 200);
            lines.push((at, address, &class[(client / 8 + turn) % class.len()]));
        }
    }
    let benign: Vec<String> = labelled("benign.jsonl").iter().filter_map(tail).collect();
    for n in 0..20_000_usize {
        let address = format!("203.0.{}.{}", 100 + n % 20, n % 250);
        lines.push((n * 4, address, &benign[n % benign.len()]));
    }
    lines.sort();
    let log: Vec<String> = lines
        .iter()
        .filter(|(at, ..)| *at < 86_400)
        .map(|(at, client, tail)| {
            let mut line = String::new();
            let (hour, minute, second) = (at / 3600, at / 60 % 60, at % 60);
            let time = format_args!("22/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000");
            write!(line, "{client} - - [{time}] \"{tail}").unwrap();
            line
        })
        .collect();
    let banned: std::collections::BTreeSet<String> = bans(&shipped(), &[], &log)
        .into_iter()
        .map(|(client, ..)| client)
        .collect();
    let benign = banned
        .iter()
        .filter(|client| client.starts_with("203."))
        .count();
    assert!(
        banned.len() >= 380 && benign == 0,
        "{} banned, {benign} benign",
        banned.len()
    );
}
