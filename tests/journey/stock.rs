//! fail2ban's own filters, and patterns as people write them, on Debian's Apache: whatever the
//! log's format is, `setup` connects it, the attack is banned, and `test` agrees.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use super::proxied::start_edges;
use crate::support::http::Connection;
use crate::support::world::SERVER4;
use crate::support::{World, eventually, skip_without};

/// Patterns for the `combined` format.
const SHAPES: [&str; 8] = [
    r"^<HOST> -.*POST /login",
    r#"^<HOST> -.*"(GET|POST).*" 401"#,
    r"^<HOST> .*POST .*rpc\.php",
    r#"^<HOST>.*"POST /login\.php"#,
    r#"<HOST> -.*"(GET|POST).*login.php"#,
    r"<HOST> - - .*login.php",
    r"<HOST>.*POST.*(login\.php|rpc\.php).* 401",
    r#"^<HOST> - \S+ \[\] "POST /(?:login|rpc)\.php"#,
];
/// Of fail2ban's package, with the log of each.
const STOCK: [(&str, &str); 4] = [
    ("apache-badbots", "access"),
    ("php-url-fopen", "access"),
    ("apache-noscript", "error"),
    ("apache-botsearch", "error"),
];
const EDGE: &str = "198.51.100.99";

fn configuration() -> String {
    let jail = |name: &str, log: &str, filter: &str| {
        format!(
            "[jails.{name}]\nenabled = true\nlog = \"{log}\"\nfilter = \"{filter}\"\nmaxretry = 1\n"
        )
    };
    let shapes = (0..SHAPES.len()).map(|at| {
        let name = format!("shape{at}");
        jail(&name, "access", &name)
    });
    let stock = STOCK.map(|(name, log)| jail(name, log, name));
    shapes.chain(stock).collect()
}

/// `extra` is in the only virtual host, which has its own logs.
fn site(access: &str, extra: &str) -> String {
    format!(
        "<VirtualHost *:80>\nServerName www.example.org\nDocumentRoot /var/www\n\
         LogLevel core:info\n{extra}\n\
         <LocationMatch \"^/login\">\nAuthType Basic\nAuthName x\nAuthUserFile /dev/null\n\
         Require valid-user\n</LocationMatch>\n\
         ErrorLog ${{APACHE_LOG_DIR}}/error.log\n\
         CustomLog ${{APACHE_LOG_DIR}}/access.log {access}\n</VirtualHost>\n"
    )
}

struct Attacks<'w> {
    world: &'w World,
    /// Where the clients connect to.
    server: IpAddr,
    /// The clients are `198.51.100.(base + n)`.
    base: u8,
    behind_proxy: bool,
}

impl Attacks<'_> {
    fn client(&self, number: u8) -> String {
        format!("198.51.100.{}", self.base + number)
    }

    fn connect(&self, number: u8) -> Connection {
        let from: IpAddr = self.client(number).parse().expect("an address");
        let clients = self.world.clients();
        let server = SocketAddr::new(self.server, 80);
        Connection::over(clients.connect(from, server).expect("not banned"))
    }

    /// Each attack from its own client, and which jails ban that client. The ban may be faster
    /// than an answer.
    fn run(&self) -> Vec<(String, Vec<String>)> {
        let _ = self.connect(0).post("/login.php?rpc.php");
        let _ = self.connect(1).get("/", "User-Agent: autoemailspider\r\n");
        let _ = self.connect(2).get("/x.php?a=http://198.51.100.1/", "");
        let _ = self.connect(3).get("/nothing.php", "");
        let _ = self.connect(4).get("/phpmyadmin/x", "");
        let shapes = (0..SHAPES.len()).map(|at| format!("shape{at}")).collect();
        let own = |at: usize| vec![STOCK[at].0.to_owned()];
        (0..)
            .zip([shapes, own(0), own(1), own(2), own(3)])
            .map(|(number, jails)| (self.client(number), jails))
            .collect()
    }

    /// Runs them all: each client is banned, and `test` says that its line matches.
    #[track_caller]
    fn check(&self, format: Option<&str>) {
        let expected = self.run();
        for (client, jails) in &expected {
            for jail in jails {
                if self.behind_proxy {
                    let what = format!("{jail}: a ban of {client}");
                    eventually(&what, || {
                        let ban = self.world.ban_of(jail, client);
                        ban.ok_or_else(|| self.world.jail(jail).to_string())
                    });
                } else {
                    self.world.until_banned(jail, client);
                }
            }
        }
        let matches = [self.matches("access", format), self.matches("error", None)].concat();
        for (client, jails) in expected {
            for jail in jails {
                let found = (jail, client.clone());
                assert!(matches.contains(&found), "`test`: {found:?} in {matches:?}");
            }
        }
    }

    /// The jail and the host of each match that `test` reports.
    fn matches(&self, log: &str, format: Option<&str>) -> Vec<(String, String)> {
        let path = format!("/var/log/apache2/{log}.log");
        let mut args = vec!["test", "--json", "--kind", log, &path];
        args.extend(format.iter().flat_map(|format| ["--format", format]));
        let said = self.world.pipeban(&args).stdout;
        let lines = said.lines();
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        lines
            .flat_map(|line| line["matches"].as_array().cloned().unwrap_or_default())
            .map(|found| (text(&found["jail"]), text(&found["host"])))
            .collect()
    }
}

/// Starts Apache with this site, connected by `setup`.
#[track_caller]
fn start(world: &World, site: &str, setup: &[&str]) {
    world.write("/etc/apache2/sites-available/000-default.conf", site);
    let said = world.pipeban(&[&["setup", "--write"], setup].concat());
    assert_eq!(said.status, 0, "{said:?}");
    // No systemd runs there.
    let last = "To apply it: apache2ctl graceful\n";
    assert!(said.stdout.ends_with(last), "{said:?}");
    world.must(&["apache2ctl", "start"]);
    let clients = world.clients();
    eventually("Apache answers", || {
        crate::support::http::get(&clients, "203.0.113.2", SERVER4, "/").map_err(|e| e.to_string())
    });
    world.engine();
    let check = world.pipeban(&["check", "--json"]);
    assert_eq!(check.status, 0, "{check:?}");
}

/// Stops Apache, and takes `setup`'s changes back.
fn stop(world: &World) {
    // The proxy is another Apache.
    let main = world.read("/run/apache2/apache2.pid");
    let mut running = world.processes().into_iter();
    let main = running.find(|process| process.inside.to_string() == main.trim());
    let main = main.expect("Apache runs");
    world.must(&["apache2ctl", "stop"]);
    eventually("Apache has ended", || match main.is_alive() {
        false => Ok(()),
        true => Err("it runs".to_owned()),
    });
    world.must(&["/usr/bin/pipeban", "setup", "--remove", "--write"]);
    // The next one may have another format.
    world.must(&["rm", "/var/log/apache2/access.log"]);
}

#[test]
fn stock_filters_and_patterns_of_administrators_ban_whatever_the_logs_format_is() {
    let Some(world) = World::new() else { return };
    for path in ["/etc/apache2/apache2.conf", "/usr/sbin/a2enmod"] {
        if !Path::new(path).exists() {
            return skip_without("apache2");
        }
    }
    if !Path::new("/etc/fail2ban/filter.d/apache-badbots.conf").exists() {
        return skip_without("fail2ban");
    }
    world.write("/etc/pipeban/pipeban.toml", &configuration());
    for (at, shape) in SHAPES.iter().enumerate() {
        let filter = format!("[Definition]\nfailregex = {shape}\nignoreregex =\n");
        world.write(&format!("/etc/pipeban/filters.d/shape{at}.conf"), &filter);
    }
    for name in ["pipeban.conf", "pipeban-deny.conf"] {
        let snippet = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("apache-conf")
            .join(name);
        let text = std::fs::read_to_string(snippet).expect("read");
        world.write(&format!("/etc/apache2/conf-available/{name}"), &text);
    }
    world.must(&["a2enmod", "-q", "remoteip"]);
    let attacks = |base, server| Attacks {
        world: &world,
        server,
        base,
        behind_proxy: server != SERVER4,
    };

    let json = r#"{"t":"%{%Y-%m-%dT%H:%M:%S%z}t","c":"%a","u":"%u","m":"%m","r":"%r","s":%>s,"ref":"%{Referer}i","ua":"%{User-Agent}i"}"#;
    let quoted = format!("\"{}\"", json.replace('"', "\\\""));
    let edge: IpAddr = EDGE.parse().expect("an address");
    let behind = format!("RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy {EDGE}");
    start_edges(&world, &[edge]);
    for (base, log, format, server, how) in [
        (10, "combined", None, SERVER4, &[][..]),
        (20, "combined", None, SERVER4, &["--files"]),
        (30, "vhost_combined", None, SERVER4, &["--files"]),
        (40, &quoted, Some(json), SERVER4, &[]),
        (50, &quoted, Some(json), SERVER4, &["--files"]),
        (60, "combined", None, edge, &[]),
        (70, &quoted, Some(json), edge, &["--files"]),
    ] {
        let extra = if server == edge { &behind } else { "" };
        start(&world, &site(log, extra), how);
        attacks(base, server).check(format);
        stop(&world);
    }
}
