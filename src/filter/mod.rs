//! Filters: read fail2ban's files, compile their patterns, match lines against them.
#![forbid(unsafe_code)]

mod compile;
mod definition;
mod fail2ban;
mod grams;
pub mod lint;
mod literals;
pub mod matcher;
mod near;
mod pattern;
mod rarity;
mod regexes;
pub mod rules;
mod scan;
mod shortened;
mod subject;
mod texthash;

pub use compile::{Filter, Outcome};
pub use definition::{Definition, PatternAt, PatternText, RuleText};
pub use fail2ban::{FilterFiles, Setting, Settings, read, split_options};
pub use near::{Near, Reason};
pub use subject::Subject;

#[cfg(test)]
mod tests;
