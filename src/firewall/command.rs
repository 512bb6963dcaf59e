//! The administrator's program: run for each ban and each unban, one at a time, on a thread.
//! What fails is tried again.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::backend::{Checker, Error, Follower, Next, Shared, clocks};
use super::cut::{Cutter, Target};
use super::desired::BanKey;
use super::host::{ranges_around, ssh_ports};
use super::notices::Notices;
use super::tool;
use crate::config::{BanCommand, Ports, fill};
use crate::jail::{FirewallKey, Moment, Now, ban_values, show_net};

/// Between two attempts at what failed.
const AGAIN: Duration = Duration::from_secs(30);
/// How long `status` queries the program at most; what is left then is unknown.
const QUERYING: Duration = Duration::from_secs(20);
/// How long unbans that are left may take when the engine stops: the next one does not know them.
const LAST_UNBANS: Duration = Duration::from_secs(10);
/// Bans and unbans between two comparisons.
const AT_ONCE: usize = 64;
/// Bans that are compared while the lock is held.
const CHUNK: usize = 10_000;
pub(super) const FAILED: &str = "command-failed";

pub(super) struct Command {
    templates: Templates,
    cutter: Option<Cutter>,
    notices: Notices,
    /// Bans for which the program has run.
    done: HashMap<BanKey, Done>,
    failed: HashMap<BanKey, Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// With this end.
    Until(Option<Moment>),
    /// Perhaps, by an earlier engine.
    Perhaps,
}

impl Command {
    /// With a cutter it cuts what a ban has just closed.
    pub(super) fn new(settings: BanCommand, cutter: Option<Cutter>, notices: Notices) -> Command {
        Command {
            templates: Templates::new(settings),
            cutter,
            notices,
            done: HashMap::new(),
            failed: HashMap::new(),
        }
    }

    /// Some bans for which the program must run. What an earlier engine left, and no store knows,
    /// stays: no call can list it.
    fn differences(&mut self, shared: &Shared) -> Vec<BanKey> {
        let mut found = Vec::new();
        let now = Instant::now();
        self.failed.retain(|_, again| *again > now);
        let mut state = shared.lock();
        let left = std::mem::take(&mut state.left);
        self.done
            .extend(left.into_iter().map(|id| (id, Done::Perhaps)));
        let desired = &state.desired;
        let gone = self.done.iter().filter(|(id, done)| {
            desired.get(**id).is_none()
                && (desired.complete || **done != Done::Perhaps)
                && !self.failed.contains_key(id)
        });
        found.extend(gone.map(|(id, _)| *id).take(AT_ONCE));
        // Bans are found again at the next start.
        let stopping = state.stop.is_some();
        drop(state);
        let (mut from, boot) = (None, clocks().boot);
        while !stopping && found.len() < AT_ONCE {
            let state = shared.lock();
            let some = state.desired.after(from, CHUNK);
            let direct = |id| state.desired.group(id).is_some_and(|group| !group.behind);
            let Some((last, _)) = some.last() else { break };
            from = Some(*last);
            let missing = some.iter().filter(|(id, ban)| {
                self.done.get(id) != Some(&Done::Until(ban.until))
                    && !self.failed.contains_key(id)
                    && !ban.is_adopted()
                    && !ban.is_over(boot)
                    && direct(*id)
            });
            found.extend(missing.map(|(id, _)| *id).take(AT_ONCE));
        }
        found
    }

    fn perform(&mut self, id: BanKey, shared: &Shared) {
        let now = clocks();
        let (ban, wanted) = {
            let state = shared.lock();
            let Some(group) = state.desired.group(id) else {
                return;
            };
            let wanted = state.desired.get(id);
            let ban = Ban {
                target: Target {
                    net: id.net,
                    ports: state.desired.ports(group),
                },
                jail: wanted.map_or(String::new(), |ban| state.desired.jail(ban).to_owned()),
                until: wanted.and_then(|ban| ban.until),
                now,
            };
            (ban, wanted)
        };
        let known = self.done.get(&id).copied();
        let done = match wanted {
            Some(wanted) if known == Some(Done::Until(wanted.until)) => return,
            None if known.is_none() => return,
            Some(_) if known == Some(Done::Perhaps) && self.templates.check(&ban) == Some(true) => {
                Ok(())
            }
            Some(_) => self.templates.run(&self.templates.settings.ban, &ban),
            None => match self.templates.run(&self.templates.settings.unban, &ban) {
                // It is gone already.
                Err(_) if self.templates.check(&ban) == Some(false) => Ok(()),
                other => other,
            },
        };
        match (done, wanted) {
            (Ok(()), Some(wanted)) => {
                self.done.insert(id, Done::Until(wanted.until));
                if let Some(cutter) = &mut self.cutter {
                    cutter.cut(vec![ban.target]);
                }
            }
            (Ok(()), None) => _ = self.done.remove(&id),
            (Err(error), _) => {
                let what = match wanted {
                    Some(_) => "cannot ban",
                    None => "cannot unban",
                };
                let text = format!(
                    "{what} {}: {error}; pipeban tries again every {} seconds",
                    show_net(&id.net),
                    AGAIN.as_secs()
                );
                self.notices.trouble(FAILED, text);
                self.failed.insert(id, Instant::now() + AGAIN);
                return;
            }
        }
        if self.failed.is_empty() {
            self.notices.over(FAILED);
        }
    }
}

impl Follower for Command {
    fn round(&mut self, shared: &Shared) -> Result<Next, Error> {
        let some = self.differences(shared);
        if some.is_empty() {
            return Ok(Next::Within(AGAIN));
        }
        for id in some {
            if shared.is_over(LAST_UNBANS) {
                break;
            }
            self.perform(id, shared);
        }
        Ok(Next::Now)
    }

    fn last_work(&self) -> Duration {
        LAST_UNBANS
    }
}

/// One ban with what a template may name.
struct Ban {
    target: Target,
    jail: String,
    until: Option<Moment>,
    now: Now,
}

/// The program's calls.
pub(super) struct Templates {
    settings: BanCommand,
    ssh: BTreeSet<u16>,
}

impl Templates {
    pub(super) fn new(settings: BanCommand) -> Templates {
        Templates {
            settings,
            ssh: ssh_ports(),
        }
    }

    /// `None`: there is no program for it.
    fn check(&self, ban: &Ban) -> Option<bool> {
        Some(self.run(self.settings.check.as_ref()?, ban).is_ok())
    }

    fn run(&self, template: &[String], ban: &Ban) -> Result<(), Error> {
        let mut argv = fill(template, &values(ban, &self.ssh)).into_iter();
        let program = argv.next().unwrap_or_default();
        let argv: Vec<String> = argv.collect();
        tool::run(&program, &argv, self.settings.timeout).map(drop)
    }
}

impl Checker for Templates {
    fn in_force(&mut self, bans: &[FirewallKey]) -> Result<Vec<Option<bool>>, Error> {
        let end = Instant::now() + QUERYING;
        let now = clocks();
        let in_force = |ban: &FirewallKey| match Instant::now() < end {
            true => self.check(&Ban {
                target: Target {
                    net: ban.net,
                    ports: ban.ports.clone().into(),
                },
                jail: String::new(),
                until: None,
                now,
            }),
            false => None,
        };
        Ok(bans.iter().map(in_force).collect())
    }
}

/// What [`crate::config::COMMAND_PLACEHOLDERS`] stand for, in their order.
fn values(ban: &Ban, ssh: &BTreeSet<u16>) -> Vec<(&'static str, String)> {
    let list = |ports: &BTreeSet<u16>| {
        let words: Vec<String> = ports.iter().map(u16::to_string).collect();
        words.join(",")
    };
    const ALL: &str = "1:65535";
    let (tcp, udp) = match &*ban.target.ports {
        Ports::All => (ALL.to_owned(), ALL.to_owned()),
        Ports::Apache => ("80,443".to_owned(), "443".to_owned()),
        Ports::AllButSsh => (ranges_around(ssh).join(","), ALL.to_owned()),
        Ports::List { tcp, udp } => (list(tcp), list(udp)),
    };
    let left = ban.until.map(|until| until.since(ban.now.boot));
    let until = ban.until.map(|until| ban.now.wall_of(until));
    let mut values = ban_values(&ban.target.net, &ban.jail, left, until).to_vec();
    values.extend([("tcp", tcp), ("udp", udp)]);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::COMMAND_PLACEHOLDERS;

    fn ban(net: &str, ports: Ports) -> Ban {
        let now = Now {
            boot: Moment::from_nanos(5_000_000_000),
            wall: "2026-11-22T12:00:00.3Z".parse().unwrap(),
        };
        Ban {
            target: Target {
                net: net.parse().unwrap(),
                ports: ports.into(),
            },
            jail: "wp-login".into(),
            until: Some(now.boot.plus(Duration::from_millis(400))),
            now,
        }
    }

    #[test]
    fn words_are_filled_with_what_the_ban_is() {
        let list = Ports::List {
            tcp: BTreeSet::from([80, 443]),
            udp: BTreeSet::new(),
        };
        let ssh = BTreeSet::from([22]);
        let one = values(&ban("192.0.2.1/32", list), &ssh);
        let names: Vec<&str> = one.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, COMMAND_PLACEHOLDERS);
        let filled = |values, word: &str| fill(&[word.to_owned()], values).join("");
        assert_eq!(
            filled(
                &one,
                "{host} {net} v{family} {tcp}/{udp}/ {jail} {seconds} {until}"
            ),
            "192.0.2.1 192.0.2.1/32 v4 80,443// wp-login 1 2026-11-22T12:00:00Z"
        );
        let six = values(&ban("2001:db8::/64", Ports::AllButSsh), &ssh);
        assert_eq!(
            filled(&six, "{host} {tcp} {udp}"),
            "2001:db8::/64 1:21,23:65535 1:65535"
        );
    }
}
