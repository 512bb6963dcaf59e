//! Bans against the real kernel and the real ufw.
//!
//! Each test is a thread with a network and a mount namespace of its own (the host), joined by a
//! veth pair with a second network namespace (the clients). Without root, nft or ufw the tests
//! say loudly that they were skipped.

mod clear;
mod command;
mod cutting;
mod deny;
mod nftables;
#[cfg(feature = "measure")]
mod scale;
mod surroundings;
mod ufw;
pub(crate) mod world;

/// Nothing is wrong: at most a banned client had connections.
#[track_caller]
fn assert_quiet(notices: &crossbeam_channel::Receiver<pipeban::firewall::Notice>) {
    let said: Vec<_> = notices
        .try_iter()
        .filter(|notice| !matches!(notice, pipeban::firewall::Notice::Connected { .. }))
        .collect();
    assert!(said.is_empty(), "{said:?}");
}
