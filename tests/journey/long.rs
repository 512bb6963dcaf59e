//! Lines as long as clients can make them: no jail is evaded by padding.

use crate::support::http::Connection;
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World};

const CONFIG: &str = r#"
[firewall]
backend = "nftables"
[defaults]
log      = "access"
maxretry = 1
[jails.whole]
[jails.looks]
[jails.native]
"#;

const FILTERS: [(&str, &str); 3] = [
    (
        "whole.conf",
        "[Definition]\nfailregex = ^<HOST> \\S+ \\S+ \\[\\] \"GET /whole\\S* [^\"]*\" \\d+ \\d+ \"[^\"]*\" \"[^\"]*\"$\n",
    ),
    (
        "looks.conf",
        "[Definition]\nfailregex = ^<HOST> \\S+ \\S+ \\[\\] \"(?!POST )GET /\\S*looks(?=/deep)\\S* [^\"]*\" \\d+ \\d+ \"[^\"]*\" \"[^\"]*\"$\n",
    ),
    (
        "native.toml",
        "log = \"access\"\n[[match]]\npath = '/native$'\n",
    ),
];

/// Headers of 8170 bytes that Apache logs as four times as many each.
fn padding() -> String {
    let text = "ÿ".repeat(8170 / 2);
    format!("Referer: {text}\r\nUser-Agent: {text}\r\n")
}

#[test]
fn no_padding_hides_an_attack_from_any_kind_of_filter() {
    let Some(world) = World::new() else { return };
    world.write("/etc/pipeban/pipeban.toml", CONFIG);
    for (name, text) in FILTERS {
        world.write(&format!("/etc/pipeban/filters.d/{name}"), text);
    }
    // Longer than the bound: headers of 40 KB.
    let apache = Apache::start(
        &world,
        Mpm::Event,
        "LimitRequestFieldSize 65536\nErrorLog /var/log/apache2/error.log\n\
         CustomLog \"|/usr/bin/pipeban log access --format combined /var/log/apache2/access.log\" combined\n",
    );
    apache.pipe("access");
    world.engine();
    let ask = |from: &str, target: &str, headers: &str| {
        let mut connection = Connection::open(&world.clients(), from, SERVER4).expect("connects");
        let _ = connection.get(target, headers);
    };
    let deep = format!("/{}looks/deep{}", "x".repeat(4_000), "y".repeat(3_000));
    for (jail, target, from) in [
        ("whole", "/whole", "198.51.100.7"),
        ("native", "/native", "198.51.100.8"),
        ("looks", deep.as_str(), "198.51.100.9"),
    ] {
        ask(from, target, &padding());
        world.until_banned(jail, from);
        let line = world.until_logged(&format!("[{jail}] Ban {from} "));
        assert!(line.contains("(1 in under 1s)"), "{line}");
    }
    let log = world.bytes("/var/log/apache2/access.log");
    let longest = log.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
    assert!(longest > Some(65_536 + 5_000), "{longest:?}");
    // Beyond the bound the request is matched all the same, and the log says so.
    let text = "ÿ".repeat(20_000);
    let far = format!("Referer: {text}\r\nUser-Agent: {text}\r\n");
    for (jail, target, from) in [
        ("native", "/native", "198.51.100.10"),
        ("looks", deep.as_str(), "198.51.100.11"),
        ("whole", "/whole", "198.51.100.12"),
    ] {
        ask(from, target, &far);
        world.until_banned(jail, from);
    }
    world.until_logged("a line is longer than 128 KiB");
}
