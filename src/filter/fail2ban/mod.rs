//! fail2ban's filter files: read, expanded, and their patterns written in Rust's spelling.

mod expand;
mod include;
mod layout;
mod options;
mod settings;
mod spelling;
pub(super) mod translate;

pub use include::{FilterFiles, read};
pub use options::split_options;
pub use settings::{Setting, Settings};
