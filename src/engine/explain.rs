//! What the engine knows about one client, for `pipeban explain`.

use ipnet::IpNet;

use super::decider::Decider;
use super::enforcement::Enforcement;
use super::status::ufw_word;
use crate::control::{EngineStatus, Known, KnownBan, KnownCounter, KnownExempt, WorkerStatus};
use crate::firewall::InForce;
use crate::jail::{Ban, FirewallKey, Mode, Now};

/// Bans in an answer at most.
const MAX_BANS: usize = 200;

/// Gathers what is known, with the firewall's key of each ban, in order; `None` for a ban that no
/// firewall enforces.
pub(super) fn known(
    decider: &mut Decider,
    enforcement: &Enforcement,
    (engine, workers): (EngineStatus, Vec<WorkerStatus>),
    net: &IpNet,
    now: Now,
) -> (Known, Vec<Option<FirewallKey>>) {
    let exempt = decider.exemptions.current();
    let jails = &decider.jails;
    let configured = decider.config.jails.iter();
    let enabled = || configured.clone().filter(|(_, jail)| jail.enabled);
    let alone = net.prefix_len() == net.max_prefix_len();
    let counters = enabled().filter_map(|(name, settings)| {
        // Of a network, what counts for it as a whole, like an IPv6 /64.
        let target = match alone {
            true => exempt.target(settings, net.addr()),
            false => *net,
        };
        let hits = jails.counted(name, &target).into_iter();
        let hits = hits.filter(|(at, _)| now.boot.since(*at) < settings.findtime);
        let hits: Vec<_> = hits.map(|(at, weight)| (now.wall_of(at), weight)).collect();
        (!hits.is_empty()).then(|| KnownCounter {
            jail: name.clone(),
            net: target,
            hits,
        })
    });
    let reasons = enabled().filter_map(|(name, settings)| {
        let reason = exempt.reason(settings, net)?;
        Some(KnownExempt {
            jail: name.clone(),
            why: reason.why,
            entry: reason.entry,
        })
    });
    let found = jails.bans().overlapping(net).into_iter().take(MAX_BANS);
    let bans = found.filter_map(|(jail, net)| jails.bans().get(&jail, &net));
    // A ban that is over is ended within a second; the kernel is on time.
    let bans = bans.filter(|ban| ban.until.is_none_or(|until| until > now.boot));
    let (bans, keys) = bans
        .map(|ban| {
            let key = decider.in_force().and(ban.firewall_key());
            (known_ban(ban, key.as_ref(), enforcement, now), key)
        })
        .unzip();
    let known = Known {
        engine,
        workers,
        bans,
        counters: counters.collect(),
        exempt: reasons.collect(),
        crawler: alone.then(|| decider.crawlers.known(net.addr())).flatten(),
        shared: jails.is_shared(net, now),
        trouble: None,
    };
    (known, keys)
}

fn known_ban(
    ban: &Ban,
    key: Option<&FirewallKey>,
    enforcement: &Enforcement,
    now: Now,
) -> KnownBan {
    let ufw = key.and_then(|key| enforcement.ufw_state(key));
    KnownBan {
        id: ban.id.to_string(),
        jail: ban.jail.clone(),
        net: ban.net,
        ports: ban.ports.clone(),
        since: ban.since_wall,
        until: ban.until.map(|until| now.wall_of(until)),
        failures: ban.failures,
        within: ban.within,
        cause: ban.cause.word().to_owned(),
        given: ban.cause.given().map(str::to_owned),
        observed: ban.mode == Mode::Observed,
        behind: ban.mode.proxy(),
        in_force: None,
        ufw: ufw.map(|state| ufw_word(state).to_owned()),
    }
}

/// Queries the firewall for each ban.
///
/// # Errors
/// Why it cannot be queried; the answer has it too.
pub(super) fn ask_firewall(
    known: &mut Known,
    keys: &[Option<FirewallKey>],
    checker: &mut InForce,
) -> Result<(), String> {
    let queried: Vec<FirewallKey> = keys.iter().flatten().cloned().collect();
    let found = checker.in_force(&queried);
    known.trouble = found.as_ref().err().cloned();
    let mut found = found?.into_iter();
    for (ban, _) in (known.bans.iter_mut().zip(keys)).filter(|(_, key)| key.is_some()) {
        ban.in_force = found.next().flatten();
    }
    Ok(())
}
