//! Counters for Prometheus: their text, and a process without rights that serves it.
//!
//! The engine listens, starts that process and hands it a new text every few seconds. It answers
//! every connection with the last text, and reads nothing of a request but its end.
#![forbid(unsafe_code)]

mod feed;
mod hello;
mod server;
mod text;

pub use feed::Feed;
pub use hello::SERVER;
pub use server::run;
pub use text::text;
