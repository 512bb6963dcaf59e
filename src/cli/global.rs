//! Options of every command.

use std::path::PathBuf;

use crate::config::DEFAULT_FILE;

/// Help lists the options of every command last.
const LAST: usize = 900;

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Global {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_FILE, display_order = LAST)]
    pub(super) config: PathBuf,
    /// Print JSON, one object per line
    #[arg(long, global = true, display_order = LAST)]
    pub(super) json: bool,
}
