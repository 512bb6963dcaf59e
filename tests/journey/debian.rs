//! Debian's own /etc/apache2 beside pipeban, and without it again: the steps of the README.

use std::path::Path;

use crate::support::http::{self, Connection};
use crate::support::process;
use crate::support::world::SERVER4;
use crate::support::{World, eventually};

const JAIL: &str = "apache-cgitraversal";
const LOGS: [&str; 5] = [
    "access.log",
    "error.log",
    "shop_access.log",
    "shop_error.log",
    "other_vhosts_access.log",
];

const SHOP: &str = r"<VirtualHost *:80>
    ServerName shop.example.org
    DocumentRoot /var/www/html
    ErrorLog ${APACHE_LOG_DIR}/shop_error.log
    CustomLog ${APACHE_LOG_DIR}/shop_access.log combined
</VirtualHost>
";

/// The same visits before and after: what each log file gains by them, times and ports left out.
fn visit(world: &World, from: &str) {
    let clients = world.clients();
    for host in ["www.example.org", "shop.example.org"] {
        for path in ["/", "/nowhere", "/server-status"] {
            let mut connection = Connection::open(&clients, from, SERVER4).expect("connects");
            connection
                .get_of(host, path, "Connection: close\r\n")
                .expect("answered");
        }
    }
}

/// Lines of each log that name this client.
fn gained(world: &World, client: &str) -> Vec<(&'static str, usize)> {
    LOGS.iter()
        .map(|log| {
            let text = world.read(&format!("/var/log/apache2/{log}"));
            (
                *log,
                text.lines().filter(|line| line.contains(client)).count(),
            )
        })
        .collect()
}

fn apachectl(world: &World, how: &str) {
    let said = world.run(&["apache2ctl", how]);
    assert_eq!(
        said.status,
        0,
        "apache2ctl {how}: {said:?} {}",
        world.read("/var/log/apache2/error.log")
    );
}

fn until_served(world: &World) {
    let clients = world.clients();
    eventually("Apache answers", || {
        http::get(&clients, "203.0.113.2", SERVER4, "/").map_err(|error| error.to_string())
    });
}

#[test]
fn the_readmes_steps_ban_on_every_site_of_an_untouched_debian_and_leave_it_as_it_was() {
    let Some(world) = World::new() else { return };
    if !Path::new("/etc/apache2/apache2.conf").exists() || !Path::new("/usr/sbin/a2enconf").exists()
    {
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED the_readmes_steps: needs the package apache2"
        );
        return;
    }
    let root = env!("CARGO_MANIFEST_DIR");
    world.write("/etc/apache2/sites-available/shop.conf", SHOP);
    world.write("/var/www/html/index.html", "hello\n");
    world.must(&["a2ensite", "-q", "shop"]);
    apachectl(&world, "start");
    until_served(&world);
    visit(&world, "198.51.100.20");
    let before = eventually("Debian's own lines", || {
        let lines = gained(&world, "198.51.100.20");
        if lines.iter().filter(|(_, lines)| *lines >= 2).count() >= 4 {
            Ok(lines)
        } else {
            Err(format!("{lines:?}"))
        }
    });

    // README: install, a2enconf pipeban, setup --write, reload.
    world.must(&["umount", "/usr/bin/pipeban"]);
    world.must(&["rm", "-f", "/usr/bin/pipeban"]);
    let binary = format!("BIN={}", env!("CARGO_BIN_EXE_pipeban"));
    let said = world.run(&["make", "--silent", "-C", root, "install", &binary]);
    assert_eq!(said.status, 0, "{said:?}");
    let jail = world.read("/etc/pipeban/pipeban.toml");
    assert!(
        jail.contains(JAIL),
        "make install keeps the administrator's configuration: {jail}"
    );
    world.must(&["a2enconf", "-q", "pipeban"]);
    world.must(&["pipeban", "setup", "--write"]);
    world.must(&["apache2ctl", "configtest"]);
    apachectl(&world, "graceful");
    let loggers = || process::loggers(&world.processes()).len();
    eventually("Apache has started its pipes", || {
        if loggers() > 0 {
            Ok(())
        } else {
            Err("none".to_owned())
        }
    });
    until_served(&world);
    world.engine();

    visit(&world, "198.51.100.21");
    eventually("each log gains the lines it gained before", || {
        let (before, after) = (&before, gained(&world, "198.51.100.21"));
        if *before == after {
            Ok(())
        } else {
            Err(format!("before {before:?}, now {after:?}"))
        }
    });
    let clients = world.clients();
    for (host, attacker) in [
        ("www.example.org", "198.51.100.7"),
        ("shop.example.org", "198.51.100.8"),
    ] {
        let mut connection = Connection::open(&clients, attacker, SERVER4).expect("connects");
        // The ban may be faster than the answer.
        let _ = connection.get_of(host, http::ATTACK, "");
        world.until_banned(JAIL, attacker);
        assert!(
            http::get(&clients, attacker, SERVER4, "/").is_err(),
            "{attacker} on {host}"
        );
    }

    let said = world.run(&["make", "--silent", "-C", root, "uninstall"]);
    assert_eq!(said.status, 0, "{said:?}");
    eventually("no pipe is left in Apache", || {
        let left = process::loggers(&world.processes());
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
    assert!(
        !world.path("/usr/bin/pipeban").exists() && !world.path("/usr/local/sbin/pipeban").exists()
    );
    apachectl(&world, "graceful");
    until_served(&world);
    assert_eq!(
        http::get(&clients, "198.51.100.7", SERVER4, "/").expect("no ban is left"),
        200
    );
    let rules = world.ufw();
    assert!(!rules.contains("pipeban"), "{rules}");
    visit(&world, "198.51.100.22");
    eventually("Debian's own logs are as before", || {
        let (before, after) = (&before, gained(&world, "198.51.100.22"));
        if *before == after {
            Ok(())
        } else {
            Err(format!("before {before:?}, now {after:?}"))
        }
    });
}
