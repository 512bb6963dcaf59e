//! Commands for an administrator to type, as they work on this host: it may have no systemd.

/// By default those of systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostCommands {
    /// Starts the engine in the background.
    pub start_engine: &'static str,
    /// Stops the engine; bans stay in force.
    pub stop_engine: &'static str,
    /// Stops the engine and starts it.
    pub restart_engine: &'static str,
    /// Makes Apache read its configuration, and start its loggers again.
    pub reload_apache: &'static str,
    /// Stops fail2ban, and keeps it from starting with the host.
    pub switch_off_fail2ban: &'static str,
}

impl HostCommands {
    /// `systemd`: it runs. `unit`: it runs and knows pipeban's unit.
    pub const fn new(systemd: bool, unit: bool) -> HostCommands {
        let (start_engine, stop_engine, restart_engine) = match unit {
            true => (
                "systemctl start pipeban",
                "systemctl stop pipeban",
                "systemctl restart pipeban",
            ),
            false => (
                "setsid --fork pipeban engine </dev/null >/dev/null 2>&1",
                "pipeban engine --stop",
                "pipeban engine --stop; sleep 1; setsid --fork pipeban engine </dev/null >/dev/null 2>&1",
            ),
        };
        HostCommands {
            start_engine,
            stop_engine,
            restart_engine,
            reload_apache: match systemd {
                true => "systemctl reload apache2",
                false => "apache2ctl graceful",
            },
            switch_off_fail2ban: match systemd {
                true => "systemctl disable --now fail2ban",
                false => "service fail2ban stop; update-rc.d fail2ban disable",
            },
        }
    }
}

impl Default for HostCommands {
    fn default() -> HostCommands {
        HostCommands::new(true, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_systemd_no_command_names_it() {
        let commands = format!("{:?}", HostCommands::new(false, false));
        assert!(!commands.contains("systemctl"), "{commands}");
    }
}
