//! Asks the firewall itself about bans.

use crate::config::Config;
use crate::firewall;
use crate::jail::FirewallKey;
use crate::report::explain::{BackendFact, BanFact};

/// Bans that are asked about; each is a few queries.
const MOST: usize = 20;

/// Completes the bans with what each back end says, if this process may ask.
pub(super) fn ask(bans: &mut [BanFact], config: &Config) {
    if !firewall::may_query() {
        return;
    }
    let settings = &config.firewall;
    let alone = settings.mirrors_to_ufw() && !settings.has_table();
    for ban in bans.iter_mut().filter(|ban| !ban.observed).take(MOST) {
        let key = FirewallKey {
            net: ban.net,
            ports: ban.ports.clone(),
            behind: ban.behind.is_some(),
        };
        let held = firewall::held(settings, &config.paths, &key).into_iter();
        ban.backends = held
            .map(|held| BackendFact {
                name: held.backend.to_owned(),
                in_force: held.in_force,
                trouble: held.trouble,
            })
            .collect();
        if alone && !key.behind {
            let passage = |found: Result<Option<firewall::Passage>, String>| {
                found.ok().flatten().map(|found| (found.port, found.rule))
            };
            ban.accepted = passage(firewall::accepted_before(&key));
            ban.forwarded = passage(firewall::forwarded(&key));
        }
    }
}
