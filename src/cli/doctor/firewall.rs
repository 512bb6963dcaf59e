//! The firewall: pipeban's table, ufw and its rules, sockets.

use ipnet::IpNet;

use super::host::Host;
use super::outcome::{Outcome, broken, ok, warning};
use super::system::NEEDS_ROOT;
use crate::config::Backend;
use crate::firewall;

/// Nothing to check, or no right to.
fn unused(host: &Host) -> Option<Vec<Outcome>> {
    let settings = &host.config.firewall;
    if settings.has(Backend::DryRun) {
        return Some(vec![ok("not used: the back end is dry-run")]);
    }
    (!firewall::may_query()).then(|| vec![warning(NEEDS_ROOT, Some("sudo pipeban doctor".into()))])
}

pub(super) fn table(host: &Host) -> Vec<Outcome> {
    if let Some(unused) = unused(host) {
        return unused;
    }
    if !host.config.firewall.has_table() {
        return vec![ok("not used by these back ends")];
    }
    let outcome = match firewall::has_own_table() {
        Ok(true) => ok("pipeban's nftables table exists"),
        Ok(false) => broken(
            "pipeban's nftables table is missing: no ban is in force",
            Some(host.restart_engine()),
        ),
        Err(error) => broken(format!("cannot ask nftables: {error}"), None),
    };
    vec![outcome]
}

fn uses_ufw(host: &Host) -> bool {
    host.config.firewall.mirrors_to_ufw()
}

pub(super) fn ufw(host: &Host) -> Vec<Outcome> {
    if !uses_ufw(host) {
        return vec![ok("not used by these back ends")];
    }
    if let Some(unused) = unused(host) {
        return unused;
    }
    let ufw = firewall::ufw_host();
    let alone = !host.config.firewall.has_table();
    let wrong = |what: &str, fix: &str| {
        let effect = match alone {
            true => "no ban is in force",
            false => "bans are in force through pipeban's nftables table only",
        };
        let (text, fix) = (format!("{what}: {effect}"), Some(fix.to_owned()));
        match alone {
            true => broken(text, fix),
            false => warning(text, fix),
        }
    };
    // `auto` mirrors bans wherever ufw is active.
    let is_active = ufw.installed && ufw.enabled;
    if !(host.config.firewall.needs_ufw() || is_active) {
        return vec![ok("ufw is not active: bans need none")];
    }
    let outcome = match (ufw.installed, ufw.enabled, firewall::ufw_is_loaded()) {
        (false, ..) => wrong("ufw is not installed", "apt-get install ufw"),
        (true, false, _) => wrong(
            "ufw is not active",
            "ufw allow ssh && ufw allow 80/tcp && ufw allow 443 && ufw --force enable",
        ),
        (true, true, Ok(true)) => ok("ufw is active"),
        (true, true, Ok(false)) => wrong(
            "the rules of ufw are not loaded, because another program removed them",
            "ufw reload",
        ),
        (true, true, Err(error)) => broken(format!("cannot list ufw's rules: {error}"), None),
    };
    vec![outcome]
}

pub(super) fn ipv6(host: &Host) -> Vec<Outcome> {
    if !uses_ufw(host) {
        return vec![ok("not used by these back ends")];
    }
    let ufw = firewall::ufw_host();
    if ufw.ipv6 || !ufw.installed || (!ufw.enabled && !host.config.firewall.needs_ufw()) {
        return vec![ok("ufw makes rules for IPv6, or is not active")];
    }
    if !has_ipv6() {
        return vec![ok("this host has no IPv6 address")];
    }
    let text = "ufw makes no rules for IPv6 (IPV6=no in /etc/default/ufw)";
    let fix = "sed -i 's/^IPV6=.*/IPV6=yes/' /etc/default/ufw && ufw reload";
    vec![match host.config.firewall.has_table() {
        true => warning(
            format!("{text}: IPv6 bans are in force through pipeban's nftables table only"),
            Some(fix.to_owned()),
        ),
        false => broken(
            format!("{text}: IPv6 bans are not in force"),
            Some(fix.to_owned()),
        ),
    }]
}

/// An address other than loopback and link-local.
fn has_ipv6() -> bool {
    let own = firewall::surroundings()
        .map(|found| found.own)
        .unwrap_or_default();
    own.iter().any(|net| match net {
        IpNet::V6(net) => !net.addr().is_loopback() && !net.addr().is_unicast_link_local(),
        IpNet::V4(_) => false,
    })
}

/// Where ufw alone stops packets its first rule that matches decides.
pub(super) fn rule_order(host: &Host) -> Vec<Outcome> {
    if host.config.firewall.has_table() {
        return vec![ok("pipeban's nftables table comes before ufw's rules")];
    }
    if !uses_ufw(host) {
        return vec![ok("not used by these back ends")];
    }
    if let Some(unused) = unused(host) {
        return unused;
    }
    let outcome = match firewall::ufw_shadow() {
        Ok(None) => ok("no rule of ufw lets in what a rule of pipeban's denies"),
        Ok(Some(words)) => broken(
            format!("`ufw allow {words}` comes before pipeban's rules, so banned clients get in"),
            // At the end of the list again.
            Some(format!("ufw delete allow {words} && ufw allow {words}")),
        ),
        Err(error) => broken(format!("cannot read ufw's rules: {error}"), None),
    };
    vec![outcome]
}

pub(super) fn cutting(host: &Host) -> Vec<Outcome> {
    if let Some(unused) = unused(host) {
        return unused;
    }
    vec![match firewall::can_cut() {
        Ok(()) => ok("the connections of a banned client are cut"),
        Err(text) => warning(text, None),
    }]
}
