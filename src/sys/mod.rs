//! The only unsafe code: what nix does not offer in a safe form. And clocks.

pub mod clock;
pub mod peer;
pub mod privileges;
