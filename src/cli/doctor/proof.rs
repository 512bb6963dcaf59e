//! The proof: an address that belongs to no client is banned through the engine, the firewall is
//! asked for it, and it is unbanned.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::host::{Host, PROOF};
use super::outcome::{Outcome, broken, ok, warning};
use crate::config::Backend;
use crate::control::{Command, Reply};
use crate::firewall;
use crate::jail::FirewallKey;

/// How long a back end may take: ufw needs 0.3 s for each of two rules.
const PATIENCE: Duration = Duration::from_millis(1_500);
const PAUSE: Duration = Duration::from_millis(10);

pub(super) fn proof(host: &Host) -> Vec<Outcome> {
    vec![match skipped(host) {
        Some(why) => ok(format!("skipped: {why}")),
        None => prove(host),
    }]
}

fn skipped(host: &Host) -> Option<String> {
    let Ok(known) = &host.engine else {
        return Some("the engine does not answer".into());
    };
    if !host.is_root {
        return Some("it needs root".into());
    }
    if host.config.firewall.has(Backend::DryRun) {
        return Some("the back end is dry-run".into());
    }
    if known.engine.off.is_some() {
        return Some("the emergency stop is on".into());
    }
    let ban = known.bans.first()?;
    Some(format!("{} is banned", ban.net))
}

fn prove(host: &Host) -> Outcome {
    let net = IpNet::from(IpAddr::from(PROOF));
    let start = Instant::now();
    if let Err(why) = ask(host, net, false) {
        let text = format!("the engine cannot ban {}: {why}", net.addr());
        return broken(text, Some(host.restart_engine()));
    }
    let key = FirewallKey {
        net,
        ports: host.config.defaults.port.clone(),
        behind: false,
    };
    let held = wait(host, &key, true);
    let took = start.elapsed();
    let lifted = ask(host, net, true);
    let gone = wait(host, &key, false);
    let address = net.addr();
    match (held, lifted, gone) {
        (Err(why), ..) => broken(
            format!("{address} was banned, and the firewall does not hold the ban: {why}"),
            Some(host.restart_engine()),
        ),
        (Ok(_), Err(why), _) => broken(
            format!("{address} cannot be unbanned: {why}"),
            Some(host.pipeban(&format!("unban {address}"))),
        ),
        (Ok(_), Ok(()), Err(why)) => broken(
            format!("{address} was unbanned, and the firewall still holds the ban: {why}"),
            Some(host.restart_engine()),
        ),
        (Ok(by), Ok(()), Ok(_)) if by.is_empty() => {
            warning("no back end can be asked whether a ban is in force", None)
        }
        (Ok(by), Ok(()), Ok(_)) => ok(format!(
            "{address} was banned, {by} held the ban after {} ms, and it was unbanned",
            took.as_millis()
        )),
    }
}

fn ask(host: &Host, net: IpNet, end: bool) -> Result<(), String> {
    match host.ask(&Command::Prove { net, end }) {
        Ok(Reply::Done { yes: true, .. }) => Ok(()),
        Ok(Reply::Done { text, .. } | Reply::Refused { text, .. }) => Err(text),
        Ok(_) => Err("the engine sent an unexpected answer".into()),
        Err(error) => Err(format!("{error:?}")),
    }
}

/// Waits until every back end that must act at once holds the ban, or none does. Returns their
/// names.
fn wait(host: &Host, key: &FirewallKey, wanted: bool) -> Result<String, String> {
    let settings = &host.config.firewall;
    let start = Instant::now();
    loop {
        let held = firewall::held(settings, &host.paths, key);
        // With pipeban's table the ufw rule follows, and may be queued behind hundreds.
        let decisive = |held: &&firewall::Held| {
            held.in_force.is_some() && (held.backend != "ufw" || !settings.has_table())
        };
        let decisive: Vec<_> = held.iter().filter(decisive).collect();
        if decisive.iter().all(|held| held.in_force == Some(wanted)) {
            let names: Vec<&str> = decisive.iter().map(|held| held.backend).collect();
            return Ok(names.join(" and "));
        }
        if start.elapsed() > PATIENCE {
            let late = decisive.iter().find(|held| held.in_force != Some(wanted));
            return Err(late.map_or(String::new(), |held| held.backend.to_owned()));
        }
        std::thread::sleep(PAUSE);
    }
}
