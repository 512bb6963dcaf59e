//! A line by hand makes a real ban.

use crate::support::http;
use crate::support::world::SERVER4;
use crate::support::{Apache, Mpm, World};

#[test]
fn a_line_by_hand_goes_through_the_whole_chain_and_tells_what_came_of_it() {
    let Some(world) = World::new() else { return };
    let _apache = Apache::with_pipeban(&world, Mpm::Event);
    let clients = world.clients();
    assert_eq!(
        http::get(&clients, "198.51.100.7", SERVER4, "/").expect("not banned yet"),
        200
    );
    let line = "[Sun Nov 22 11:00:33.366318 2026] [core:error] [pid 1:tid 2] [client 198.51.100.7:49108] \
                AH10244: invalid URI path (/cgi-bin/.%2e/.%2e/bin/sh)\n";
    let said = world.run_with(&["/usr/bin/pipeban", "log", "error"], line.as_bytes());
    assert_eq!(said.status, 0, "{said:?}");
    let logged = format!("{}{}", said.stdout, said.stderr);
    assert!(
        logged.contains("[apache-cgitraversal] Ban 198.51.100.7"),
        "{said:?}"
    );
    // It waited for the engine's answer: the ban is in force already.
    let ban = world
        .ban_of("apache-cgitraversal", "198.51.100.7")
        .expect("banned");
    assert_eq!(ban["in_force"], true, "{ban}");
    assert!(http::get(&clients, "198.51.100.7", SERVER4, "/").is_err());
}
