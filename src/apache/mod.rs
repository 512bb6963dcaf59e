//! Apache's configuration: which logs are piped into pipeban, which are not, and the edits that
//! change it.
//!
//! pipeban reads the files as Apache does, from the first one and through its includes. It needs no
//! running Apache and starts no program. It reports what it cannot follow (macros, conditions on
//! versions).
#![forbid(unsafe_code)]

mod directive;
mod files;
mod place;
mod target;
mod walk;

pub mod listeners;

mod finding;
mod findings;
mod formats;
mod host;
mod logs;
mod remoteip;
mod scan;

mod apply;
mod plan;
mod removal;
mod repair;

pub use apply::{Applied, ApplyError, apply};
pub use files::covers;
pub use finding::{Code, Finding, Remedy};
pub use logs::ServerLog;
pub use place::Place;
pub use plan::{Edit, Plan, Wish, fit};
pub use remoteip::{ClientNaming, NamingProblem, roots_named_by};
pub use removal::remove;
pub use scan::{Scan, ScanError, is_usual, scan};
pub use target::{Pipe, Target};
pub use walk::{Layout, LogDirective, LogKind, Server};
