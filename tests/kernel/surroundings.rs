//! Addresses that a ban must never hit, read from the kernel.

use std::net::IpAddr;

use pipeban::firewall::{Watch, surroundings};

use super::world::*;

#[test]
fn own_addresses_and_gateways_are_the_kernels_of_this_moment() {
    in_world(&[], |_| {
        let before = surroundings().unwrap();
        for own in [HOST4, HOST6] {
            let own = own.parse::<IpAddr>().unwrap().into();
            assert!(before.own.contains(&own), "{before:?}");
        }
        let loopback = "127.0.0.0/8".parse().unwrap();
        assert!(before.own.contains(&loopback), "{before:?}");
        assert!(before.gateways.is_empty(), "{before:?}");

        run("ip addr add 203.0.113.9/24 dev host0");
        run(&format!("ip route add default via {GOOD4}"));
        run(&format!("ip -6 route add default via {GOOD6}"));
        run("ip route add 10.0.0.0/8 nexthop via 198.51.100.5 nexthop via 198.51.100.6");
        run("ip route add local 192.0.2.0/28 dev lo");
        run("ip route add local default dev lo table 100");
        run("ip addr add 10.9.9.1 peer 10.9.9.2 dev host0");
        let after = surroundings().unwrap();
        for own in ["203.0.113.9/32", "192.0.2.0/28", "10.9.9.1/32"] {
            assert!(
                after.own.contains(&own.parse().unwrap()),
                "{own}: {after:?}"
            );
        }
        let everybody = "0.0.0.0/0".parse().unwrap();
        assert!(!after.own.contains(&everybody), "{after:?}");
        for gateway in [GOOD4, GOOD6, "198.51.100.5", "198.51.100.6", "10.9.9.2"] {
            let gateway = gateway.parse().unwrap();
            assert!(after.gateways.contains(&gateway), "{gateway}: {after:?}");
        }
    });
}

#[test]
fn every_change_of_addresses_and_routes_is_noticed_before_the_next_decision() {
    in_world(&[], |_| {
        let mut watch = Watch::start();
        assert!(watch.changed(), "nothing is known at first");
        for change in [
            "ip addr add 203.0.113.9/24 dev host0",
            "ip addr del 203.0.113.9/24 dev host0",
            "ip -6 addr add 2001:db8:9::9/64 dev host0 nodad",
            "ip route add 192.0.2.0/24 via 198.51.100.66",
            "ip -6 route add 2001:db8:a::/48 via 2001:db8:1:66::66",
        ] {
            run(change);
            assert!(watch.changed(), "{change}");
        }
        // The kernel may have more to say about the last of them.
        wait_until("nothing changes any more", || !watch.changed());
        watch.doubt();
        assert!(watch.changed());
        assert!(surroundings().is_ok());
    });
}
