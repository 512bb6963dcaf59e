//! How lines are read.

use crate::record::{Kind, ModuleClient, Parser};

/// How lines are read.
#[derive(Debug)]
pub enum InputKind {
    /// As Apache's records: only the client that Apache names can be hit.
    Apache(Kind, Parser),
    /// As plain text: the pattern's `<HOST>` decides. Never on the live path.
    Raw,
}

impl InputKind {
    pub(super) fn with_module_clients(
        self,
        clients: impl Iterator<Item = ModuleClient>,
    ) -> InputKind {
        match self {
            InputKind::Apache(kind, parser) => {
                InputKind::Apache(kind, parser.with_module_clients(clients))
            }
            InputKind::Raw => InputKind::Raw,
        }
    }
}
