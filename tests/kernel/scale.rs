//! A million bans: measured, no claims.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::world::*;
use crate::support::process::kilobytes;

fn many(count: u32) -> impl Iterator<Item = Ban> {
    (0..count).map(|n| ban(&Ipv4Addr::from(0x0b00_0000 + n).to_string(), web(), 86_400))
}

/// Of this process, in MB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    kilobytes(&status, "VmRSS:") / 1024
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn measure_a_million_bans_in_the_nftables_table() {
    in_world(&[], |_| {
        for count in [1_000, 100_000, 1_000_000] {
            let before = memory();
            let (mut firewall, notices) = table_alone();
            let start = Instant::now();
            firewall.replace(many(count));
            let load = start.elapsed();
            let one_more = |firewall: &mut Firewall| {
                let times = (0..200).map(|n| {
                    let entry = [ban(&format!("192.0.2.{n}"), web(), 600)];
                    let start = Instant::now();
                    firewall.ban(&entry).unwrap();
                    start.elapsed()
                });
                median(times.collect())
            };
            let one = one_more(&mut firewall);
            let used = memory();
            let asked: Vec<_> = many(count).map(|ban| ban.key()).collect();
            let start = Instant::now();
            let found = firewall.checker().in_force(&asked).unwrap();
            let ask = start.elapsed();
            assert!(found.iter().all(|found| *found == Some(true)));
            drop((asked, firewall));
            let (mut again, _) = table_alone();
            let start = Instant::now();
            again.replace(many(count));
            let restart = start.elapsed();
            let start = Instant::now();
            for _ in 0..20 {
                again.tend();
            }
            let tend = start.elapsed() / 20;
            crate::kernel::assert_quiet(&notices);
            eprintln!(
                "{count} bans: all loaded in {load:?}, one more {one:?}, all asked for in {ask:?}, \
                 a restart puts all in place in {restart:?}, a look {tend:?}; {before} MB before, \
                 {used} MB then"
            );
            run("nft flush ruleset");
        }
    });
}
