//! ufw's chains in the kernel, through iptables.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::super::backend::{Checker, Error};
use super::super::host::ssh_ports;
use super::super::tool::{self};
use super::rules::{self, Rule};
use crate::jail::FirewallKey;

const PATIENCE_IPTABLES: Duration = Duration::from_secs(3);

/// Queries iptables and ip6tables.
pub(crate) struct Chains {
    ssh: BTreeSet<u16>,
}

impl Chains {
    pub(crate) fn new() -> Chains {
        Chains { ssh: ssh_ports() }
    }
}

impl Checker for Chains {
    fn in_force(&mut self, bans: &[FirewallKey]) -> Result<Vec<Option<bool>>, Error> {
        let mut kernel = HashSet::new();
        for chain in &CHAINS {
            let rules = chain.rules()?.unwrap_or_default();
            kernel.extend(rules.lines().filter_map(rules::parse_kernel));
        }
        let in_force = |ban: &FirewallKey| {
            let rules = rules::rules(ban.net, &ban.ports, &self.ssh);
            !rules.is_empty() && rules.iter().all(|rule| kernel.contains(rule))
        };
        Ok(bans.iter().map(|ban| Some(in_force(ban))).collect())
    }
}

/// A chain with the rules that people gave ufw, in the kernel.
pub(super) struct Chain {
    list: &'static str,
    change: &'static str,
    name: &'static str,
}

pub(super) const CHAINS: [Chain; 2] = [
    Chain {
        list: "/usr/sbin/iptables",
        change: "/usr/sbin/iptables-restore",
        name: "ufw-user-input",
    },
    Chain {
        list: "/usr/sbin/ip6tables",
        change: "/usr/sbin/ip6tables-restore",
        name: "ufw6-user-input",
    },
];

/// The program that lists the rules about a network.
pub(crate) fn lister(net: &IpNet) -> &'static str {
    let [v4, v6] = &CHAINS;
    match net {
        IpNet::V4(_) => v4.list,
        IpNet::V6(_) => v6.list,
    }
}

/// Whether ufw's chains are in the kernel.
pub(crate) fn is_loaded() -> Result<bool, Error> {
    Ok(CHAINS[0].rules()?.is_some())
}

impl Chain {
    /// Its rules as `iptables -S` prints them; `None`: it does not exist (ufw off, IPV6=no).
    pub(super) fn rules(&self) -> Result<Option<String>, Error> {
        let argv = ["-w", "2", "-S", self.name].map(str::to_owned);
        match tool::run(self.list, &argv, PATIENCE_IPTABLES) {
            Ok(output) => Ok(Some(output)),
            Err(Error::Tool { said, .. })
                if said.starts_with("exit status: 1") && Path::new(self.list).exists() =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Removes rules from the running chains, all at once: `ufw delete`, which has to follow for ufw's
/// list, takes 0.3 s a rule, and until then a client would still be kept out. Should ufw load its
/// list again meanwhile, they are back until their turn comes.
pub(super) fn lift_in_kernel(rules: &HashSet<Rule>) -> Result<(), Error> {
    for chain in &CHAINS {
        let there = chain.rules()?.unwrap_or_default();
        let input = rules::deletions(&there, rules);
        if !input.is_empty() {
            let argv = ["-w", "2", "--noflush"].map(str::to_owned);
            tool::run_with_input(chain.change, &argv, input, PATIENCE_IPTABLES)?;
        }
    }
    Ok(())
}
