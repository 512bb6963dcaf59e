//! Four kinds of server. On each, `setup --write` leaves no warning, an attack on any site is
//! banned, and `setup --remove` restores every file.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use crate::support::http::{self, Connection};
use crate::support::process;
use crate::support::world::SERVER4;
use crate::support::{World, eventually, skip_without};

/// The shipped jails, as an installation has them.
const CONFIG: &str = concat!(
    "[paths]\nshare = \"",
    env!("CARGO_MANIFEST_DIR"),
    "/config\"\n"
);

struct Server {
    /// Apache's directory; `setup --remove` restores everything in it.
    directory: &'static str,
    /// Arranges it, from what Debian installs.
    arrange: fn(&World),
    control: &'static [&'static str],
    behind_nginx: bool,
    /// The name, the port that clients connect to.
    sites: &'static [(&'static str, u16)],
}

const DEBIAN: &[&str] = &["apache2ctl", "-k"];

/// As the package leaves it.
fn untouched(_: &World) {}

/// Sites with conditional logs, quotes, blanks, tabs, continued lines and their own ports.
fn many_hosts(world: &World) {
    world.write("/etc/apache2/sites-available/000-default.conf", "");
    let ports =
        "Listen 80\n<IfModule !none.c>\n\tLISTEN 0.0.0.0:8080\n</IfModule>\nListen \"8443\" http\n";
    world.write("/etc/apache2/ports.conf", ports);
    for (name, port, logs) in [
        (
            "env",
            80,
            "SetEnvIf Request_URI \"\\.(gif|png)$\" image\nErrorLog ${APACHE_LOG_DIR}/env-error.log\n\
             CustomLog ${APACHE_LOG_DIR}/env.log combined env=!image\n\
             CustomLog ${APACHE_LOG_DIR}/images.log common env=image\n",
        ),
        (
            "quotes",
            80,
            "ErrorLog   \"${APACHE_LOG_DIR}/of quotes/error log\"\n\
             CustomLog \"${APACHE_LOG_DIR}/of quotes/log\"  \"%h %l %u %t \\\"%r\\\" %>s %b \\\"%{User-Agent}i\\\"\"\n",
        ),
        (
            "continued",
            8080,
            "errorlog \\\n  ${APACHE_LOG_DIR}/continued-error.log\nErrorLogFormat \"[%{uz}t] [%-m:%l] [pid %P:tid %T] %E: [client %a] %M\"\n\
             \tCUSTOMLOG\t${APACHE_LOG_DIR}/continued.log \\\n\tvhost_combined\t\n",
        ),
        ("inherits", 8080, ""),
        (
            "transfer",
            8443,
            "ErrorLog ${APACHE_LOG_DIR}/transfer-error.log\r\nTransferLog ${APACHE_LOG_DIR}/transfer.log\r\n\
             LogLevel warn\r\n",
        ),
        (
            "percent",
            8443,
            "ErrorLog '${APACHE_LOG_DIR}/50%-error.log'\nCustomLog ${APACHE_LOG_DIR}/50%.log combined \
             \"expr=%{REQUEST_STATUS} >= 400\"\n",
        ),
        (
            "shared",
            8443,
            "ErrorLog ${APACHE_LOG_DIR}/transfer-error.log\nCustomLog ${APACHE_LOG_DIR}/env.log combined",
        ),
    ] {
        let site = format!(
            "<VirtualHost *:{port}>\n    ServerName {name}.example.org\n\n# CustomLog x\n{logs}\n</VirtualHost>"
        );
        world.write(&format!("/etc/apache2/sites-available/{name}.conf"), &site);
        world.must(&["a2ensite", "-q", name]);
    }
    world.must(&["mkdir", "/var/log/apache2/of quotes"]);
    for port in ["8080", "8443"] {
        world.must(&["ufw", "allow", port]);
    }
}

/// nginx has the web's ports, and Apache one of loopback's.
fn behind_nginx(world: &World) {
    world.write("/etc/apache2/ports.conf", "Listen 127.0.0.1:8080\n");
    let remoteip = "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1\n";
    let site = |name: &str| {
        format!(
            "<VirtualHost 127.0.0.1:8080>\nServerName {name}.example.org\nDocumentRoot /var/www/html\n{remoteip}\
             ErrorLog ${{APACHE_LOG_DIR}}/{name}-error.log\nCustomLog ${{APACHE_LOG_DIR}}/{name}.log combined\n</VirtualHost>\n"
        )
    };
    world.write(
        "/etc/apache2/sites-available/000-default.conf",
        &site("one"),
    );
    world.write("/etc/apache2/sites-enabled/two.conf", &site("two"));
    world.must(&["a2enmod", "-q", "remoteip"]);
    world.write(
        "/etc/nginx/nginx.conf",
        "user www-data;\npid /run/nginx.pid;\nevents {}\nhttp { access_log off; server { listen 80;\n\
         location / { proxy_pass http://127.0.0.1:8080; proxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; } } }\n",
    );
    world.must(&["mkdir", "-p", "/var/log/nginx"]);
    world.must(&["nginx"]);
}

/// One file, relative names, an include of its own; no `conf-available`, no ufw, no syslog.
fn by_hand(world: &World) {
    world.must(&["rm", "-r", "/etc/apache2"]);
    world.must(&["mkdir", "-p", "/etc/httpd/logs"]);
    world.must(&["sh", "-c", "kill $(cat /run/rsyslogd.pid)"]);
    world.must(&["nft", "flush", "ruleset"]);
    world.must(&["rm", "-rf", "/dev/log", "/usr/sbin/ufw", "/etc/ufw"]);
    let modules = "/usr/lib/apache2/modules";
    world.write(
        "/etc/httpd/conf/httpd.conf",
        &format!(
            "ServerRoot \"/etc/httpd\"\nServerName www.example.org\nPidFile /run/apache2/httpd.pid\nListen 80\n\
             LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
             LoadModule authz_core_module {modules}/mod_authz_core.so\nUser www-data\nGroup www-data\n\
             LogFormat \"%h %l %u %t \\\"%r\\\" %>s %b\" common\nErrorLog \"logs/error_log\"\n\
             CustomLog \"logs/access_log\" common\nIncludeOptional vhosts/*.vhost\nDocumentRoot /var/www/html"
        ),
    );
    world.write(
        "/etc/httpd/vhosts/shop.vhost",
        "<VirtualHost *:80>\nServerName main.example.org\n</VirtualHost>\n\
         <VirtualHost *:80>\nServerName shop.example.org\nErrorLog logs/shop-error_log\nCustomLog logs/shop-access_log common\n</VirtualHost>",
    );
}

/// Every file and link: its text or target, its owner, group and mode. Without logs.
fn snapshot(world: &World, directory: &str) -> BTreeMap<String, (String, u32, u32, u32)> {
    let found = world.must(&["find", directory, "-not", "-type", "d"]);
    let entry = |name: &str| {
        let path = world.path(name);
        let metadata = std::fs::symlink_metadata(&path).expect("found");
        let text = match std::fs::read_link(&path) {
            Ok(target) => target.display().to_string(),
            Err(_) => world.read(name),
        };
        (text, metadata.uid(), metadata.gid(), metadata.mode())
    };
    let files = found
        .lines()
        .filter(|name| !name.starts_with("/etc/httpd/logs"));
    files.map(|name| (name.to_owned(), entry(name))).collect()
}

/// The last line of `check --json`, and all that it says.
#[track_caller]
fn check(world: &World) {
    let said = world.pipeban(&["check", "--json"]);
    let last = said.stdout.lines().last().unwrap_or_default();
    let summary: Value = serde_json::from_str(last).unwrap_or_default();
    let counts = [&summary["errors"], &summary["warnings"]];
    assert_eq!(counts, [0, 0], "{said:?}");
}

impl Server {
    #[track_caller]
    fn holds(&self) {
        let Some(world) = World::new() else { return };
        for path in ["/etc/apache2/apache2.conf", "/usr/sbin/a2ensite"] {
            if !Path::new(path).exists() {
                return skip_without("apache2");
            }
        }
        world.must(&["rm", "-r", "/etc/pipeban/filters.d"]);
        world.write("/etc/pipeban/pipeban.toml", CONFIG);
        (self.arrange)(&world);
        if world.path("/etc/apache2").exists() {
            for name in ["pipeban.conf", "pipeban-deny.conf"] {
                let from = format!("{}/apache-conf/{name}", env!("CARGO_MANIFEST_DIR"));
                let to = format!("/etc/apache2/conf-available/{name}");
                world.must(&["cp", &from, &to]);
            }
        }
        let before = snapshot(&world, self.directory);

        let said = world.pipeban(&["setup", "--write"]);
        assert_eq!(said.status, 0, "{said:?}");
        world.must(&[self.control, &["start"]].concat());
        let clients = world.clients();
        let ask = |from: &str, (name, port): (&str, u16), target: &str, headers: &str| {
            let from: IpAddr = from.parse().expect("an address");
            let stream = clients.connect(from, SocketAddr::new(SERVER4, port))?;
            let host = format!("{name}.example.org");
            Connection::over(stream).get_of(&host, target, headers)
        };
        for site in self.sites {
            eventually("Apache answers", || {
                ask("203.0.113.2", *site, "/", "").map_err(|error| error.to_string())
            });
        }
        world.engine();
        check(&world);
        let again = world.pipeban(&["setup"]);
        assert_eq!(again.status, 0, "{again:?}");

        let attacks = |number: u8| {
            let (attacker, scanner) = (number, number + 100);
            let traversal = [
                (attacker, "apache-cgitraversal"),
                (attacker, "apache-cgitraversal-access"),
            ];
            // nginx itself refuses what leaves the site.
            let traversal = traversal.into_iter().filter(|_| !self.behind_nginx);
            traversal.chain([(scanner, "apache-scanners")])
        };
        let address = |host: u8| format!("198.51.100.{host}");
        for (site, number) in self.sites.iter().zip(10..) {
            // The ban may be faster than the answer.
            let _ = ask(&address(number), *site, http::ATTACK, "");
            let scanner = "User-Agent: sqlmap/1.7\r\n";
            let _ = ask(&address(number + 100), *site, "/", scanner);
            for (host, jail) in attacks(number) {
                world.until_banned(jail, &address(host));
            }
        }
        let mut ports: BTreeMap<u16, (&str, u16)> = BTreeMap::new();
        ports.extend(self.sites.iter().map(|site| (site.1, *site)));
        for site in ports.into_values() {
            let still = ask(&address(110), site, "/", "");
            assert!(still.is_err(), "{site:?}: {still:?}");
        }

        if !world.path("/usr/sbin/ufw").exists() {
            let alarms = world.status(None)["warnings"].to_string();
            for missing in ["ufw", "syslog"] {
                assert!(!alarms.contains(missing), "{alarms}");
            }
        }

        world.must(&[self.control, &["stop"]].concat());
        eventually("Apache has ended", || {
            match process::apache(&world.processes()) {
                None => Ok(()),
                Some(_) => Err("it runs".to_owned()),
            }
        });
        let said = world.pipeban(&["setup", "--remove", "--write"]);
        assert_eq!(said.status, 0, "{said:?}");
        let after = snapshot(&world, self.directory);
        for (name, entry) in &before {
            assert_eq!(after.get(name), Some(entry), "{name}");
        }
        assert_eq!(after.len(), before.len());
    }
}

#[test]
fn on_an_untouched_debian() {
    let sites = &[("www", 80)];
    Server {
        directory: "/etc/apache2",
        arrange: untouched,
        behind_nginx: false,
        control: DEBIAN,
        sites,
    }
    .holds();
}

#[test]
fn with_many_hosts_conditions_quotes_and_ports() {
    let sites = &[
        ("env", 80),
        ("quotes", 80),
        ("continued", 8080),
        ("inherits", 8080),
        ("transfer", 8443),
        ("percent", 8443),
        ("shared", 8443),
    ];
    Server {
        directory: "/etc/apache2",
        arrange: many_hosts,
        behind_nginx: false,
        control: DEBIAN,
        sites,
    }
    .holds();
}

#[test]
fn behind_nginx_on_the_same_host() {
    if !Path::new("/usr/sbin/nginx").exists() {
        return skip_without("nginx");
    }
    let sites = &[("one", 80), ("two", 80)];
    Server {
        directory: "/etc/apache2",
        arrange: behind_nginx,
        behind_nginx: true,
        control: DEBIAN,
        sites,
    }
    .holds();
}

#[test]
fn in_a_layout_made_by_hand() {
    let sites = &[("main", 80), ("shop", 80)];
    let control = &["apache2", "-f", "/etc/httpd/conf/httpd.conf", "-k"];
    Server {
        directory: "/etc/httpd",
        arrange: by_hand,
        behind_nginx: false,
        control,
        sites,
    }
    .holds();
}
