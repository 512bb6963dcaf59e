//! The history of bans into answers. Pure: rows and times are arguments, and what comes back is
//! values and texts.
#![forbid(unsafe_code)]

mod clients;
pub mod csv;
mod detail;
pub mod explain;
pub mod fail2ban;
pub mod html;
pub mod json;
mod labels;
pub mod log_lines;
mod query;
mod row;
mod summary;
pub mod table;
mod words;

pub use clients::Client;
pub use detail::{Detail, Details, Evidence, Spell};
pub use query::Query;
pub use row::BanRow;
pub use summary::{Collector, Network, Summary};
pub use words::count;

#[cfg(test)]
mod tests;
