//! A server with Apache, ufw and rsyslog, and its clients, in namespaces of their own.
//!
//! [`World`] is the builder. Everything in it ends with it, however the test ends: its first
//! process ends with our end of a pipe, and the kernel ends the rest.
#![cfg_attr(
    not(feature = "measure"),
    expect(dead_code, reason = "some of it serves measurements alone")
)]

pub(crate) mod apache;
pub(crate) mod backend;
pub(crate) mod fail2ban;
pub(crate) mod history;
pub(crate) mod http;
pub(crate) mod knocks;
pub(crate) mod load;
pub(crate) mod network;
pub(crate) mod page;
pub(crate) mod process;
pub(crate) mod skip;
pub(crate) mod strike;
pub(crate) mod world;

use std::time::{Duration, Instant};

pub(crate) use apache::{Apache, Mpm};
pub(crate) use skip::{skip, skip_without};
pub(crate) use world::World;

/// How long a test waits for what should come at once: generous, as machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `probe` until it has an answer.
///
/// # Panics
/// After [`PATIENCE`], with what was waited for and what the probe said last.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(answer) => return answer,
            Err(last) if start.elapsed() > PATIENCE => {
                panic!("not after {PATIENCE:?}: {what}; last: {last}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The middle one.
pub(crate) fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}
