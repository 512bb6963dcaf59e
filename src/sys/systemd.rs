//! Whether systemd runs on this host.

use std::path::Path;

use crate::host_commands::HostCommands;

/// Whether systemd runs.
pub fn runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether systemd runs, and knows pipeban's unit.
pub fn has_unit() -> bool {
    let directories = [
        "/etc/systemd/system",
        "/lib/systemd/system",
        "/usr/lib/systemd/system",
    ];
    let unit = |directory: &&str| Path::new(directory).join("pipeban.service").exists();
    runs() && directories.iter().any(unit)
}

/// The commands that work here.
pub fn commands() -> HostCommands {
    HostCommands::new(runs(), has_unit())
}
