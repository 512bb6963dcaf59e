//! Bans against the real kernel and the real ufw.
//!
//! Each test is a thread with a network and a mount namespace of its own (the host), joined by a
//! veth pair with a second network namespace (the clients). Without root, nft or ufw the tests
//! say loudly that they were skipped.

mod clear;
mod command;
mod cutting;
mod deny;
mod ipset;
mod nftables;
mod scale;
mod surroundings;
mod ufw;
pub(crate) mod world;
