//! What `status` says of the ports of a ban.

use serde::{Deserialize, Serialize};

/// The tcp ports that a ban closes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortsStatus {
    /// These.
    List(Vec<u16>),
    /// `all` or `all but ssh`.
    Word(String),
}

impl Default for PortsStatus {
    fn default() -> PortsStatus {
        PortsStatus::List(Vec::new())
    }
}
