//! Bans that end, bans that come back.

use nix::sys::signal::Signal;

use crate::support::http;
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World, eventually};

const JAIL: &str = "apache-cgitraversal";

#[test]
fn a_ban_holds_while_the_engine_is_dead_and_is_restored_when_it_is_back() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();
    http::attack(&clients, "198.51.100.7", SERVER4);
    world.until_banned(JAIL, "198.51.100.7");

    let engine = world.engine();
    engine.signal(Signal::SIGKILL);
    eventually("the engine is dead", || {
        if engine.is_alive() {
            Err("alive".to_owned())
        } else {
            Ok(())
        }
    });
    assert!(
        http::get(&clients, "198.51.100.7", SERVER4, "/").is_err(),
        "open while the engine is dead"
    );
    world.until_logged(&format!("[{JAIL}] Restore Ban 198.51.100.7"));
    let ban = world.until_banned(JAIL, "198.51.100.7");
    assert_eq!(ban["in_force"], true, "{ban}");
    assert!(http::get(&clients, "198.51.100.7", SERVER4, "/").is_err());
}

#[test]
fn a_ban_by_hand_ends_in_nft_and_in_ufw_when_its_time_is_over() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();
    let said = world.pipeban(&[
        "ban",
        "198.51.100.7",
        "--jail",
        JAIL,
        "--for",
        "3s",
        "--reason",
        "test",
    ]);
    assert_eq!(said.status, 0, "{said:?}");
    let ban = world.ban_of(JAIL, "198.51.100.7").expect("banned");
    assert_eq!(ban["in_force"], true, "{ban}");
    world.until_logged(&format!("[{JAIL}] Unban 198.51.100.7"));
    eventually("no rule in ufw", || {
        let rules = world.ufw();
        if rules.contains("198.51.100.7") {
            Err(rules)
        } else {
            Ok(())
        }
    });
    let ruleset = world.must(&["nft", "list", "ruleset"]);
    assert!(!ruleset.contains("198.51.100.7"), "{ruleset}");
    assert_eq!(
        http::get(&clients, "198.51.100.7", SERVER4, "/").expect("served again"),
        200
    );
}

#[test]
fn unban_opens_at_once_and_says_no_to_who_is_not_banned() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();
    http::attack(&clients, "198.51.100.7", SERVER4);
    world.until_banned(JAIL, "198.51.100.7");
    let said = world.pipeban(&["unban", "198.51.100.7"]);
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(
        http::get(&clients, "198.51.100.7", SERVER4, "/").expect("served again"),
        200
    );
    let said = world.pipeban(&["unban", "198.51.100.7"]);
    assert_eq!(said.status, 1, "{said:?}");
}
