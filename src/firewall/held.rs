//! What holds a ban now, asked of each back end itself: needs no engine, and root.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::backend::{Checker, Error};
use super::command::Templates;
use super::path::{Packet, decided};
use super::ufw::{self, Chains};
use super::{apache, desired, host, nft, tool};
use crate::apache::listeners;
use crate::config::{self, Paths, Ports};
use crate::jail::FirewallKey;

const PATIENCE: Duration = Duration::from_secs(1);

/// What one back end says about a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The back end, for people.
    pub backend: &'static str,
    /// `None`: it cannot be found out.
    pub in_force: Option<bool>,
    /// Why it cannot be found out.
    pub trouble: Option<String>,
}

/// ufw on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UfwHost {
    /// The program exists.
    pub installed: bool,
    /// `ufw enable` was run.
    pub enabled: bool,
    /// It makes rules for IPv6 (`IPV6=yes`).
    pub ipv6: bool,
}

/// A rule that lets a client through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// The port that the client reaches.
    pub port: u16,
    /// The rule, as `iptables -S` lists it.
    pub rule: String,
}

/// What each configured back end says about a ban.
pub fn held(settings: &config::Firewall, paths: &Paths, ban: &FirewallKey) -> Vec<Held> {
    use config::Backend as Kind;
    let mut checkers: Vec<(&'static str, Box<dyn Checker>)> = Vec::new();
    let table = settings.has_table() && !ban.behind;
    if table {
        checkers.push(("pipeban's nftables table", nft::query(settings.blocktype)));
    }
    if settings.needs_ufw() && settings.mirror && !ban.behind {
        checkers.push(("ufw", Box::new(Chains::new())));
    }
    let command = settings
        .command
        .clone()
        .filter(|command| settings.has(Kind::Command) && command.check.is_some() && !ban.behind);
    if let Some(command) = command {
        checkers.push(("your program", Box::new(Templates::new(command))));
    }
    if settings.has(Kind::Apache) && (ban.behind || !stops_packets(settings)) {
        checkers.push(("Apache's deny map", apache::look(paths.deny_map())));
    }
    let key = desired::canonical_key(ban);
    let apache = host::ports_of_apache(&listeners::published(&paths.runtime));
    let listed = FirewallKey {
        ports: key.ports.resolved(&apache).clone(),
        ..key.clone()
    };
    let asked = checkers.into_iter().map(|(backend, mut checker)| {
        let key = if checker.knows_apache() {
            &key
        } else {
            &listed
        };
        let answer = checker.in_force(std::slice::from_ref(key));
        Held {
            backend,
            trouble: answer.as_ref().err().map(Error::to_string),
            in_force: answer
                .ok()
                .and_then(|found| found.first().copied().flatten()),
        }
    });
    asked.collect()
}

fn stops_packets(settings: &config::Firewall) -> bool {
    use config::Backend as Kind;
    [Kind::Auto, Kind::Ufw, Kind::Nftables, Kind::Command]
        .iter()
        .any(|kind| settings.has(*kind))
}

/// Reads what ufw's files say.
pub fn ufw_host() -> UfwHost {
    UfwHost {
        installed: ufw::is_installed(),
        enabled: ufw::is_enabled(),
        ipv6: ufw::has_ipv6(),
    }
}

/// The rule by which a client that ufw denies passes all the same: an earlier one that accepts, or
/// `None`.
///
/// # Errors
/// iptables cannot be run.
pub fn accepted_before(ban: &FirewallKey) -> Result<Option<Passage>, String> {
    let passage = |listed: &str, packet| {
        let found = decided(listed, "INPUT", packet)?;
        (found.target == "ACCEPT").then_some(found.rule)
    };
    first_passage(ban, &["-w", "1", "-S"], passage)
}

/// The rule that hands packets for a closed port on to another host or a container, past ufw.
///
/// # Errors
/// iptables cannot be run.
pub fn forwarded(ban: &FirewallKey) -> Result<Option<Passage>, String> {
    let passage = |listed: &str, packet| {
        let found = decided(listed, "PREROUTING", packet)?;
        (found.target == "DNAT").then_some(found.rule)
    };
    first_passage(ban, &["-w", "1", "-t", "nat", "-S"], passage)
}

fn first_passage(
    ban: &FirewallKey,
    argv: &[&str],
    passage: impl Fn(&str, Packet) -> Option<String>,
) -> Result<Option<Passage>, String> {
    let program = ufw::lister(&ban.net);
    let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    let listed = tool::run(program, &argv, PATIENCE).map_err(|error| error.to_string())?;
    let ports: BTreeSet<u16> = match &ban.ports {
        Ports::List { tcp, .. } => tcp.clone(),
        Ports::All | Ports::AllButSsh | Ports::Apache => BTreeSet::from([80, 443]),
    };
    let found = ports.into_iter().find_map(|port| {
        let packet = Packet {
            from: ban.net,
            port,
        };
        passage(&listed, packet).map(|rule| Passage { port, rule })
    });
    Ok(found)
}

/// Whether this process may query the firewall.
pub fn may_query() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // CAP_NET_ADMIN
    bits.is_some_and(|bits| bits & (1 << 12) != 0)
}
