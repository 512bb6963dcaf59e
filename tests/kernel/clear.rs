//! Taking everything away again, without an engine.

use pipeban::config::Paths;
use pipeban::firewall::{clear_everything, clear_over};

use super::world::*;

#[test]
fn everything_of_ours_goes_and_nothing_else() {
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
        // Nothing there is no error.
        assert_eq!(clear_everything(&Paths::default()), Ok(0));
    });
}

#[test]
fn what_is_over_goes_and_what_is_not_stays() {
    in_world(&["/usr/sbin/ufw"], |_| {
        run("ufw --force enable");
        let mut over = ban(BAD4, web(), 6000);
        over.until = Some("2020-01-01T00:00:00Z".parse().unwrap());
        let mut for_ever = ban(GOOD4, web(), 6000);
        for_ever.until = None;
        let (mut firewall, _notices) = start(&settings(true, true));
        firewall.ban(&[over, for_ever]).unwrap();
        firewall.finish(PATIENCE);
        assert_eq!(clear_over(&Paths::default(), jiff::Timestamp::now()), Ok(2));
        let added = run("ufw show added");
        assert!(!added.contains(BAD4), "{added}");
        assert_eq!(added.matches(GOOD4).count(), 2, "{added}");
    });
}
