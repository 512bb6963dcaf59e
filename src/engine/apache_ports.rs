//! What Apache's configuration and loggers say: its ports, and who names clients.

use super::run::Engine;
use crate::alert::Severity;
use crate::apache::{self, listeners};
use crate::config::Ports;

impl Engine {
    /// Takes the ports on which Apache listens into use.
    pub(super) fn follow_apache(&mut self) {
        let published = listeners::published(&self.accepted.config.paths.runtime);
        // Until the first logger has started, Apache's configuration says them.
        if published.is_empty() || published == self.listening {
            return;
        }
        self.listening = published;
        self.set_apache_ports();
    }

    /// Reads the system's Apache configuration, which counts until the first logger has started.
    pub(super) fn read_apache(&mut self) {
        let scan = apache::scan(None);
        self.decider.namings.begin(&scan);
        if self.listening.is_empty()
            && let Ok(scan) = scan
        {
            self.listening = scan.layout.listens.into_keys().collect();
            self.set_apache_ports();
        }
    }

    fn set_apache_ports(&mut self) {
        let before = self.enforcement.apache_ports();
        // An error has been reported, and is tried again.
        let _ = self.enforcement.set_apache_ports(&self.listening);
        let ports = self.enforcement.apache_ports();
        if let Ports::List { tcp, .. } = &ports
            && ports != before
        {
            let ports: Vec<String> = tcp.iter().map(u16::to_string).collect();
            let text = format!(
                "bans of `port = \"apache\"` close tcp ports {}",
                ports.join(", ")
            );
            self.alarms.log(Severity::Notice, &text);
        }
    }

    /// For `status`.
    pub(super) fn apache_ports(&self) -> Vec<u16> {
        match self.enforcement.apache_ports() {
            Ports::List { tcp, .. } => tcp.into_iter().collect(),
            Ports::All | Ports::AllButSsh | Ports::Apache => Vec::new(),
        }
    }
}
