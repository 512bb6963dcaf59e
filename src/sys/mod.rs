//! The only unsafe code: what nix does not offer in a safe form. And clocks.

pub mod clock;
pub mod fds;
pub mod peer;
pub mod privileges;
pub mod process;
pub mod region;
pub mod signals;
