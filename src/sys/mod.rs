//! The only unsafe code: what nix does not offer in a safe form. And clocks, and other programs run.

pub mod clock;
pub mod directory;
pub mod fds;
pub mod peer;
pub mod privileges;
pub mod process;
pub mod program;
pub mod region;
pub mod resolver;
pub mod sandbox;
pub mod signals;
pub mod systemd;
