//! The words of every log line about a client, in one place: fail2ban's, so that people and their
//! scripts find them.

use super::Severity;
use crate::config::duration;
use crate::jail::{Action, Ban, End, Mode, show_net};

/// How important, and what is said; `None`: nothing.
pub fn words(action: &Action) -> Option<(Severity, String)> {
    Some(match action {
        Action::Found {
            jail,
            client,
            count,
            maxretry,
            findtime,
        } => {
            let findtime = duration::show(Some(*findtime));
            let text = format!("[{jail}] Found {client} ({count}/{maxretry} in {findtime})");
            (Severity::Info, text)
        }
        Action::Ban(ban) => (Severity::Notice, new_ban(ban)),
        Action::Restore(ban) => {
            if ban.mode == Mode::Observed {
                return None;
            }
            let (jail, host, place) = (&ban.jail, show_net(&ban.net), place(ban.mode));
            (
                Severity::Notice,
                format!("[{jail}] Restore Ban {host}{place}"),
            )
        }
        Action::Unban { ban, end } => {
            let would = if ban.mode == Mode::Observed {
                "Would "
            } else {
                ""
            };
            let text = format!("[{}] {would}Unban {}", ban.jail, show_net(&ban.net));
            let why = match end {
                End::Over => String::new(),
                End::ByHand => " (by hand)".into(),
                End::Exempt(reason) => format!(" ({reason})"),
                End::NoRoom => " (too many bans)".into(),
                End::Replaced => " (replaced by a new ban)".into(),
            };
            (Severity::Notice, text + &why)
        }
        Action::AlreadyBanned { jail, net } => {
            let text = format!("[{jail}] {} already banned", show_net(net));
            (Severity::Info, text)
        }
        Action::Ignore {
            jail,
            client,
            reason,
        } => {
            let text = format!("[{jail}] Ignore {client} by {}", reason.why.word());
            (Severity::Info, text)
        }
        Action::Spared { jail, client } => {
            let text = format!(
                "[{jail}] Ignore {client} by shared-address (many browsers use it; only jails \
                 that ban at once do so)"
            );
            (Severity::Notice, text)
        }
        Action::NoSuchJail => return None,
    })
}

fn new_ban(ban: &Ban) -> String {
    let length = match ban.length() {
        None => duration::show(None),
        some => format!("for {}", duration::show(some)),
    };
    let why = match (&ban.reason, ban.failures) {
        (Some(reason), 0) => format!("by hand: {reason}"),
        (None, 0) => "by hand".into(),
        (reason, failures) => {
            let within = duration::show(Some(ban.within));
            let more = reason.as_ref().map(|r| format!(", {r}"));
            format!("{failures} in {within}{}", more.unwrap_or_default())
        }
    };
    let (jail, host) = (&ban.jail, show_net(&ban.net));
    let would = match ban.mode {
        Mode::Observed => "Would ",
        _ => "",
    };
    let place = place(ban.mode);
    format!("[{jail}] {would}Ban {host} {length} ({why}){place}")
}

/// Where a ban holds, if not in the firewall.
fn place(mode: Mode) -> String {
    match mode {
        Mode::Enforced | Mode::Observed => String::new(),
        Mode::Proxied(peer) => format!(" at Apache (behind {peer})"),
        Mode::Behind(peer) => format!(" not enforceable (behind {peer})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ports;
    use crate::jail::{BanId, Moment, Reason, Why};
    use std::time::Duration;

    fn ban(seconds: Option<u64>, mode: Mode, failures: u32, reason: Option<&str>) -> Ban {
        Ban {
            id: BanId::default(),
            jail: "apache-auth".parse().unwrap(),
            net: "203.0.113.70/32".parse().unwrap(),
            ports: Ports::All,
            mode,
            since: Moment::default(),
            since_wall: jiff::Timestamp::UNIX_EPOCH,
            until: seconds.map(|s| Moment::default().plus(Duration::from_secs(s))),
            failures,
            within: Duration::from_secs(41),
            reason: reason.map(str::to_owned),
        }
    }

    #[test]
    fn the_words_are_those_people_search_for() {
        let jail = || "apache-auth".parse().unwrap();
        let client = "203.0.113.70".parse().unwrap();
        let hour = Some(3_600);
        for (action, expected) in [
            (
                Action::Found {
                    jail: jail(),
                    client,
                    count: 2,
                    maxretry: 5,
                    findtime: Duration::from_secs(600),
                },
                "[apache-auth] Found 203.0.113.70 (2/5 in 10m)",
            ),
            (
                Action::Ban(ban(hour, Mode::Enforced, 5, None)),
                "[apache-auth] Ban 203.0.113.70 for 1h (5 in 41s)",
            ),
            (
                Action::Ban(ban(None, Mode::Enforced, 5, None)),
                "[apache-auth] Ban 203.0.113.70 for ever (5 in 41s)",
            ),
            (
                Action::Ban(ban(Some(86_400), Mode::Enforced, 0, Some("abuse"))),
                "[apache-auth] Ban 203.0.113.70 for 1d (by hand: abuse)",
            ),
            (
                Action::Ban(ban(hour, Mode::Observed, 5, None)),
                "[apache-auth] Would Ban 203.0.113.70 for 1h (5 in 41s)",
            ),
            (
                Action::Ban(ban(
                    hour,
                    Mode::Behind("192.0.2.7".parse().unwrap()),
                    5,
                    None,
                )),
                "[apache-auth] Ban 203.0.113.70 for 1h (5 in 41s) not enforceable (behind 192.0.2.7)",
            ),
            (
                Action::Restore(ban(hour, Mode::Enforced, 5, None)),
                "[apache-auth] Restore Ban 203.0.113.70",
            ),
            (
                Action::Unban {
                    ban: ban(hour, Mode::Enforced, 5, None),
                    end: End::Over,
                },
                "[apache-auth] Unban 203.0.113.70",
            ),
            (
                Action::AlreadyBanned {
                    jail: jail(),
                    net: "2001:db8::/64".parse().unwrap(),
                },
                "[apache-auth] 2001:db8::/64 already banned",
            ),
            (
                Action::Ignore {
                    jail: jail(),
                    client,
                    reason: Reason {
                        why: Why::IgnoreIp,
                        entry: "203.0.113.0/24".parse().unwrap(),
                    },
                },
                "[apache-auth] Ignore 203.0.113.70 by ignoreip",
            ),
        ] {
            assert_eq!(words(&action).unwrap().1, expected);
        }
    }
}
