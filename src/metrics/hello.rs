//! How the engine and the process that answers find each other.

use serde::{Deserialize, Serialize};

/// The first argument of that process, after the program.
pub const SERVER: &str = "metrics-server";

/// The first message to it, with the listeners.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// Of the process, once it has given up root; `None`: it is not root.
    pub(super) identity: Option<(u32, u32)>,
}
