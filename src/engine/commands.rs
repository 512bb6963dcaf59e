//! What people ask for.

use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::hub::{Engine, Then, now};
use super::perform::{BAN_REFUSED, SETTLE_REFUSED, UNBAN_REFUSED, Work};
use crate::alert::{Severity, words};
use crate::config::{Backend, JailName, duration};
use crate::control::{BanTime, Command, Reply};
use crate::jail::{
    Action, BanId, Mode, Now, Refusal, WIDEST_V4, WIDEST_V6, canonical, overlap, show_net,
};
use crate::store::{Allowed, Op};

/// What is kept of a reason.
const MAX_REASON: usize = 200;

impl Engine {
    /// Does what a command asks; its answer follows the commit.
    pub(super) fn command(&mut self, id: u64, command: Command) {
        let now = now();
        let mut work = Work::default();
        let reply = match command {
            Command::Status { jail } => return self.answer_status(id, jail.as_ref()),
            Command::Ban {
                net,
                jail,
                bantime,
                reason,
            } => self.ban(&mut work, (net, jail), bantime, reason, now),
            Command::Unban {
                net,
                id,
                jail,
                forget,
            } => match id {
                Some(id) => self.unban_named(&mut work, &id, jail, forget),
                None => self.unban(&mut work, net, jail.as_ref(), forget),
            },
            Command::Allow {
                net,
                seconds,
                reason,
            } => self.allow(&mut work, net, seconds, reason, now),
            Command::Disallow { net } => self.disallow(&mut work, net),
            Command::AllowList => self.allow_list(now),
            Command::Off { seconds } => self.switch_off(&mut work, seconds, now),
            Command::On => self.on(&mut work),
            Command::Reload => return self.reload(id),
            Command::Stop => {
                self.stopping = true;
                done("stopped; bans stay in force", Vec::new(), true)
            }
        };
        // Before the answer, which depends on it.
        let touched = std::mem::take(&mut work.touched);
        let asked: Vec<_> = touched.iter().cloned().collect();
        self.enforce(touched, now);
        if std::mem::take(&mut work.clear) {
            self.settle();
        }
        let refused = asked.iter().any(|key| self.undone.contains(key))
            || self.troubles.contains_key(SETTLE_REFUSED);
        let reply = if refused { self.not_done(reply) } else { reply };
        let connection = id;
        self.perform(work, now, vec![Then::Answer { connection, reply }]);
    }

    /// What was asked is remembered, but the firewall refuses it.
    fn not_done(&self, reply: Reply) -> Reply {
        let Reply::Done { mut text, .. } = reply else {
            return reply;
        };
        for key in [BAN_REFUSED, UNBAN_REFUSED, SETTLE_REFUSED] {
            if let Some(trouble) = self.troubles.get(key) {
                text = format!("{text}\nbut {}", trouble.text);
            }
        }
        Reply::Refused { exit: 2, text }
    }

    fn ban(
        &mut self,
        work: &mut Work,
        (net, jail): (IpNet, Option<JailName>),
        bantime: BanTime,
        reason: Option<String>,
        now: Now,
    ) -> Reply {
        if self.parts.off.is_on() {
            return refused(
                2,
                "the emergency stop is on, nobody is banned: `pipeban on` ends it",
            );
        }
        let bantime = match bantime {
            BanTime::Jail => None,
            BanTime::Seconds(seconds) => Some(Some(Duration::from_secs(seconds))),
            BanTime::ForEver => Some(None),
        };
        let exempt = self.exempt();
        let reason = reason.map(short);
        let made = self
            .parts
            .jails
            .ban_by_hand(jail.as_ref(), net, bantime, reason, now, &exempt);
        let actions = match made {
            Ok(actions) => actions,
            Err(Refusal::NoSuchJail(jail)) => return refused(2, self.no_such_jail(&jail)),
            Err(Refusal::Exempt(reason)) => {
                let host = show_net(&canonical(net));
                return refused(2, format!("{host} is never banned: {reason}"));
            }
            Err(Refusal::TooWide(net)) => {
                return refused(
                    2,
                    format!(
                        "{net} is too wide, half the world would be hit: a ban takes /{WIDEST_V4} \
                         of IPv4 and /{WIDEST_V6} of IPv6 at most"
                    ),
                );
            }
        };
        let made = actions.iter().find_map(|action| match action {
            Action::Ban(ban) => Some(ban.clone()),
            _ => None,
        });
        let text = said(&actions);
        let json = made.iter().map(|ban| {
            json!({
                "id": ban.id.to_string(),
                "host": show_net(&ban.net),
                "jail": ban.jail,
                "until": ban.until.map(|until| now.wall_of(until)),
                "enforced": ban.mode == Mode::Enforced,
            })
        });
        let json = json.collect();
        work.take(actions);
        if let Some(ban) = &made {
            self.store_counters(work, ban.jail.clone(), []);
        }
        done(text, json, true)
    }

    /// Ends the one ban of that name.
    fn unban_named(
        &mut self,
        work: &mut Work,
        id: &str,
        jail: Option<JailName>,
        forget: bool,
    ) -> Reply {
        let id = match id.parse::<BanId>() {
            Ok(id) => id,
            Err(message) => return refused(64, message),
        };
        let found = self.parts.jails.ban_named(id).filter(|ban| {
            let other = |jail: &JailName| *jail != ban.jail;
            !jail.as_ref().is_some_and(other)
        });
        match found.map(|ban| (ban.net, ban.jail.clone())) {
            Some((net, jail)) => self.unban(work, Some(net), Some(&jail), forget),
            None => done(
                format!("no ban is named {id} (any more)"),
                Vec::new(),
                false,
            ),
        }
    }

    fn unban(
        &mut self,
        work: &mut Work,
        net: Option<IpNet>,
        jail: Option<&JailName>,
        forget: bool,
    ) -> Reply {
        if let Some(jail) = jail
            && self.parts.jails.settings(jail).is_none()
            && !self.parts.jails.names().contains(jail)
        {
            return refused(2, self.no_such_jail(jail));
        }
        let net = net.map(canonical);
        let (actions, reset) = self.parts.jails.unban(net, jail);
        let text = said(&actions);
        let json: Vec<Value> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Unban { ban, .. } => {
                    let id = ban.id.to_string();
                    Some(json!({"id": id, "host": show_net(&ban.net), "jail": ban.jail}))
                }
                _ => None,
            })
            .collect();
        work.take(actions);
        for (jail, client) in reset {
            self.store_counters(work, jail, [client]);
        }
        if forget {
            self.parts.jails.forget(net, jail);
            let jail = jail.cloned();
            work.ops.push(Op::Forget { net, jail });
        }
        if !json.is_empty() {
            return done(text, json, true);
        }
        let wide = net.and_then(|net| {
            let bans = self.parts.jails.bans();
            let mut around = bans.overlapping(&net).into_iter();
            around.next().map(|(_, wide)| show_net(&wide))
        });
        let text = match (net, wide) {
            (Some(net), Some(wide)) => format!(
                "{} is banned as part of {wide}: `pipeban unban {wide}` lifts all of it",
                show_net(&net)
            ),
            (Some(net), None) => format!("{} is not banned", show_net(&net)),
            (None, _) => "nobody is banned".into(),
        };
        done(text, json, false)
    }

    fn allow(
        &mut self,
        work: &mut Work,
        net: IpNet,
        seconds: Option<u64>,
        reason: Option<String>,
        now: Now,
    ) -> Reply {
        let net = canonical(net);
        let length = seconds.map(Duration::from_secs);
        let entry = Allowed {
            net,
            since: now.wall,
            until: length.map(|length| now.boot.plus(length)),
            reason: reason.map(short),
        };
        work.ops.push(Op::Allow(entry.clone()));
        self.allowed.insert(net, entry);
        self.exemptions_changed();
        let exempt = self.exempt();
        let actions = self.parts.jails.release(&exempt);
        let how_long = match length {
            None => duration::show(None),
            some => format!("for {}", duration::show(some)),
        };
        let mut text = format!("{} is never banned, {how_long}", show_net(&net));
        if !actions.is_empty() {
            text = format!("{text}\n{}", said(&actions));
        }
        work.take(actions);
        let line = format!("{} is on the allow-list {how_long}", show_net(&net));
        work.say(Severity::Notice, line);
        let json =
            json!({"host": show_net(&net), "until": length.map(|l| now.wall_of(now.boot.plus(l)))});
        done(text, vec![json], true)
    }

    fn disallow(&mut self, work: &mut Work, net: IpNet) -> Reply {
        let net = canonical(net);
        if self.allowed.remove(&net).is_some() {
            self.exemptions_changed();
            work.ops.push(Op::Disallow(net));
            let text = format!("{} is off the allow-list", show_net(&net));
            work.say(Severity::Notice, text.clone());
            return done(text, vec![json!({"host": show_net(&net)})], true);
        }
        let near: Vec<String> = self
            .allowed
            .keys()
            .filter(|entry| overlap(entry, &net))
            .map(show_net)
            .collect();
        let mut text = format!("{} is not on the allow-list", show_net(&net));
        if !near.is_empty() {
            text = format!("{text}; {} is", near.join(", "));
        }
        done(text, Vec::new(), false)
    }

    fn allow_list(&self, now: Now) -> Reply {
        let entries = self.allowed.values();
        let json: Vec<Value> = entries
            .map(|entry| {
                json!({
                    "host": show_net(&entry.net),
                    "since": entry.since,
                    "until": entry.until.map(|until| now.wall_of(until)),
                    "reason": entry.reason,
                })
            })
            .collect();
        let lines = self.allowed.values().map(|entry| {
            let left = entry.until.map(|until| until.since(now.boot));
            let left = match left {
                None => duration::show(None),
                some => format!("for {}", duration::show(some)),
            };
            let reason = entry.reason.as_ref().map(|reason| format!(" ({reason})"));
            format!(
                "{} {left}{}",
                show_net(&entry.net),
                reason.unwrap_or_default()
            )
        });
        let lines: Vec<String> = lines.collect();
        done(lines.join("\n"), json, true)
    }

    fn switch_off(&mut self, work: &mut Work, seconds: Option<u64>, now: Now) -> Reply {
        let length = seconds.map(Duration::from_secs);
        let (off, written) = self.parts.off.begin(&self.parts.paths, length, now);
        self.tell_off(&off);
        work.clear = true;
        let lifted = self.parts.jails.bans().holds().count();
        let mut text = format!(
            "nobody is banned any more: {lifted} bans lifted. `pipeban on` puts back those whose \
             time is not over; `pipeban unban --all` before that starts clean"
        );
        if lifted > 0 && self.has_ufw_rules() {
            text.push_str(
                "\nufw's rules of them stop acting within a second or two; they leave its list \
                 one after the other",
            );
        }
        if let Err(error) = written {
            let path = self.parts.paths.off_file();
            let more = format!(
                "{} cannot be written ({error}): the stop ends with this engine",
                path.display()
            );
            text = format!("{text}\n{more}");
            self.trouble("off-file", Severity::Err, more);
        }
        done(text, vec![json!({"off": off, "lifted": lifted})], true)
    }

    pub(super) fn has_ufw_rules(&self) -> bool {
        let firewall = &self.parts.accepted.config.firewall;
        firewall.has(Backend::Ufw) && firewall.mirror && firewall.max_rules > 0
    }

    fn on(&mut self, work: &mut Work) -> Reply {
        if !self.parts.off.is_on() {
            return done("the emergency stop is not on", Vec::new(), false);
        }
        self.switch_on(work);
        let back = self.parts.jails.bans().holds().count();
        let text = format!("clients are banned again; {back} bans are back in force");
        done(text, vec![json!({"back": back})], true)
    }

    pub(super) fn no_such_jail(&self, jail: &JailName) -> String {
        let names: Vec<String> = self
            .parts
            .accepted
            .config
            .jails
            .keys()
            .map(JailName::to_string)
            .collect();
        if names.is_empty() {
            return format!("there is no jail `{jail}`, nor any other");
        }
        format!("there is no jail `{jail}`; there are: {}", names.join(", "))
    }
}

pub(super) fn refused(exit: u8, text: impl Into<String>) -> Reply {
    let text = text.into();
    Reply::Refused { exit, text }
}

fn done(text: impl Into<String>, json: Vec<Value>, yes: bool) -> Reply {
    let text = text.into();
    Reply::Done { text, json, yes }
}

/// The very lines that syslog gets, each with its ban's id.
fn said(actions: &[Action]) -> String {
    let lines: Vec<String> = actions
        .iter()
        .filter_map(|action| {
            let (_, line) = words(action)?;
            Some(match action {
                Action::Ban(ban) | Action::Unban { ban, .. } => format!("{line} {}", ban.id),
                _ => line,
            })
        })
        .collect();
    lines.join("\n")
}

fn short(reason: String) -> String {
    let shown = reason.chars().filter(|c| !c.is_control());
    shown.take(MAX_REASON).collect()
}
