//! Why a client is banned or is not, and whether its ban is in force.
//!
//! `pipeban explain` gathers [`Facts`]; [`explain`] orders what they mean, the cause that matters
//! most first.

mod answer;
mod bans;
mod code;
mod facts;
mod found;
mod lines;

pub use answer::{Answer, explain};
pub use code::Code;
pub use facts::{
    BackendFact, BanFact, CounterFact, CrawlerFact, Engine, ExemptFact, Facts, HitFact, LogFact,
    MissFact, Off, Origin, UfwFact, Why, WorkerFact,
};
pub use found::Reason;

#[cfg(test)]
mod tests;
