//! What the database keeps of clients, for reports, and for how long.

use super::*;

const NATIVE: &str = "
[jails.attacks]
log = \"access\"
filter = \"attacks\"
maxretry = 2
";

/// The clients in a report of all time.
fn clients(lab: &Lab) -> Vec<Value> {
    let output = lab.run(&["report", "--since", "all", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str(line).unwrap());
    objects
        .filter(|object: &Value| object["type"] == "client")
        .collect()
}

#[test]
fn a_ban_is_kept_with_classes_and_hosts_until_it_is_purged() {
    let mut lab = Lab::new();
    let filter = "class = \"probe\"\n[[match]]\npath = '^/a$'\n[[match]]\nclass = \"sql\"\n\
                  path = '^/b$'\n";
    std::fs::write(lab.path("filters.d/attacks.toml"), filter).unwrap();
    lab.configure(&format!("{JAILS}{NATIVE}"));
    lab.start();
    let hello = Request::Worker(WorkerHello {
        version: VERSION,
        stream: 8,
        pid: 1,
        kind: Kind::Access,
        path: None,
        config: None,
        apache: Vec::new(),
        bytes: None,
    });
    let mut worker = Line::connect(&lab.socket()).unwrap();
    worker.send(&hello).unwrap();
    worker.receive().unwrap();
    let attack = |offset, pattern| {
        let mut hit = hit(offset, "203.0.113.9", &["attacks"]);
        hit.jails[0].1 = pattern;
        hit.vhost = Some("shop.example\u{202e}".to_owned());
        hit.evidence = format!("GET /{pattern} \u{1b}[2J");
        hit
    };
    let hits = vec![attack(1, 1), attack(2, 2)];
    worker.send(&Request::Hits(hits)).unwrap();
    let logged = worker.ack().unwrap().1;
    assert!(logged[2].contains("[attacks] Ban"), "{logged:?}");
    assert_eq!(lab.say(&["ban", "203.0.113.10"]).0, 0);

    // The same with the engine running, killed, and running again.
    for running in [true, false] {
        if !running {
            lab.kill();
        }
        let all = clients(&lab);
        assert_eq!(all.len(), 2, "{all:?}");
        let attacker = all.iter().find(|client| client["host"] == "203.0.113.9");
        let attacker = attacker.unwrap();
        assert_eq!(attacker["classes"], serde_json::json!(["probe", "sql"]));
        assert_eq!(attacker["evidence"][1]["line"], "GET /2 \\x1b[2J");
        assert_eq!(attacker["in_force"], true);
        let of_host = lab.run(&["report", "--vhost", "shop.example\\u{202e}", "--json"]);
        assert_eq!(of_host.status.code(), Some(0), "{of_host:?}");
    }
    // Without an engine nothing is deleted, and that is said.
    let (exit, text) = lab.say(&["purge", "203.0.113.9"]);
    assert_eq!(exit, 2, "{text}");
    assert!(text.contains("the engine is not running"), "{text}");
    lab.start();
    let (exit, text) = lab.say(&["purge", "203.0.113.9"]);
    assert_eq!(exit, 0, "{text}");
    assert!(text.contains("active bans that stay: 1;"), "{text}");
    let evidence = |all: &[Value]| {
        let with = all
            .iter()
            .filter(|client| client["evidence"][0].is_object());
        with.count()
    };
    let all = clients(&lab);
    assert_eq!((all.len(), evidence(&all)), (2, 0));
    assert_eq!(lab.say(&["unban", "203.0.113.9"]).0, 0);
    assert_eq!(lab.say(&["purge", "203.0.113.9"]).0, 0);
    let all = clients(&lab);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["host"], "203.0.113.10");
    assert_eq!(lab.say(&["purge", "not-an-address"]).0, 64);
}
