//! Removing rules without an engine.

use std::time::Duration;

use pipeban::config::Paths;
use pipeban::firewall::{clear_everything, clear_over};

use super::world::*;

#[test]
fn all_that_is_pipebans_goes_and_nothing_else() {
    in_world(&["/usr/sbin/ufw"], |world| {
        run("ufw --force enable");
        run("ufw allow 80");
        run("nft add table inet foreign");
        serve("0.0.0.0:80");
        let (mut firewall, _notices) = start(&settings(true, true));
        let bans = [
            ban(BAD4, web(), 6000),
            ban("2001:db8:1:66::/64", web(), 6000),
        ];
        firewall.ban(&bans).unwrap();
        firewall.finish(PATIENCE);
        assert!(world.is_refused(BAD4, at(HOST4, 80)));
        assert_eq!(clear_everything(&Paths::default()), Ok(4));
        assert!(world.is_served(BAD4, at(HOST4, 80)));
        let tables = run("nft list tables");
        assert!(!tables.contains("pipeban"), "{tables}");
        assert!(tables.contains("foreign"), "{tables}");
        let added = run("ufw show added");
        assert!(!added.contains("pipeban:"), "{added}");
        assert!(added.contains("ufw allow 80"), "{added}");
        // It is no error that there is nothing.
        assert_eq!(clear_everything(&Paths::default()), Ok(0));
    });
}

#[test]
fn rules_of_bans_that_are_over_go_and_others_stay() {
    in_world(&["/usr/sbin/ufw"], |_| {
        run("ufw --force enable");
        let over = ban(BAD4, web(), 3);
        let permanent = ban(GOOD4, web(), 6000).permanent();
        let (mut firewall, _notices) = start(&settings(false, true));
        firewall.ban(&[over.clone(), permanent]).unwrap();
        wait_until("ufw has all rules", || {
            run("ufw show added").matches("pipeban:").count() == 4
        });
        firewall.finish(Duration::ZERO);
        wait_until("one ban is over", || {
            clear_over(&Paths::default(), jiff::Timestamp::now()) == Ok(2)
        });
        let added = run("ufw show added");
        assert!(!added.contains(BAD4), "{added}");
        assert_eq!(added.matches(GOOD4).count(), 2, "{added}");
    });
}
