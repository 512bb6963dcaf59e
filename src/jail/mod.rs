//! (in work)
#![forbid(unsafe_code)]

pub mod shared;
