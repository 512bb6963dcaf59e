use std::path::Path;

use crate::support::http;
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, skip_without};

const SITE: &str = r#"
ErrorLog "|/usr/bin/pipeban log error /var/log/apache2/error.log"
Include /etc/apache2/mods-available/unique_id.load
Include /etc/apache2/mods-available/security2.load
SecRuleEngine On
SecDataDir /tmp
Include /usr/share/modsecurity-crs/owasp-crs.load
"#;

const JAIL: &str = "[jails.apache-modsecurity]\nlog = \"error\"\nmaxretry = 1\n";

#[test]
fn acceptance_what_modsecurity_refuses_is_banned() {
    let rules = "/usr/share/modsecurity-crs/owasp-crs.load";
    let module = "/etc/apache2/mods-available/security2.load";
    if ![rules, module].iter().all(|file| Path::new(file).exists()) {
        return skip_without("libapache2-mod-security2");
    }
    let Some(world) = World::new() else { return };
    let filter = include_str!("../../config/filters.d/apache-modsecurity.toml");
    world.write("/etc/pipeban/filters.d/apache-modsecurity.toml", filter);
    world.write("/etc/pipeban/pipeban.toml", JAIL);
    let apache = Apache::start(&world, Mpm::Event, SITE);
    apache.pipe("error");
    world.engine();
    let clients = world.clients();
    let get = |from: &str, target: &str| http::get(&clients, from, SERVER4, target);
    assert_eq!(get("198.51.100.8", "/?q=hello").expect("answered"), 200);
    let union = "/?id=1%27%20UNION%20SELECT%20user,password%20FROM%20users--%20-";
    assert_eq!(get("198.51.100.7", union).expect("answered"), 403);
    world.until_banned("apache-modsecurity", "198.51.100.7");
    assert!(get("198.51.100.7", "/").is_err());
    assert_eq!(get("198.51.100.8", "/").expect("answered"), 200);
}
