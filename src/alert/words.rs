//! The text of every log line about a client: fail2ban's words, which people and scripts search.

use super::line::Severity;
use crate::config::duration;
use crate::jail::{Action, Ban, Cause, End, Mode, Why, show_net};

/// The log line of an action; `None`: it has none.
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
        Action::Confirmed(ban) => (Severity::Notice, new_ban(ban)),
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
            let detail = match reason.why {
                Why::Header => format!(" ({reason})"),
                _ => String::new(),
            };
            let text = format!("[{jail}] Ignore {client} by {}{detail}", reason.why.word());
            (Severity::Info, text)
        }
        Action::Spared {
            jail,
            client,
            maxretry,
        } => {
            let text = format!(
                "[{jail}] Ignore {client} by shared-address (many browsers use it; hits that lead \
                 to a ban: {maxretry})"
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
    let why = why(ban);
    let (jail, host) = (&ban.jail, show_net(&ban.net));
    let would = match ban.mode {
        Mode::Observed => "Would ",
        _ => "",
    };
    let place = place(ban.mode);
    format!("[{jail}] {would}Ban {host} {length} ({why}){place}")
}

fn why(ban: &Ban) -> String {
    let (failures, within) = (ban.failures, ban.within);
    let within = match within.as_secs() {
        0 => "under 1s".to_owned(),
        _ => duration::show(Some(within)),
    };
    match (&ban.cause, ban.cause.reason()) {
        (Cause::Jail | Cause::Shared | Cause::Surge | Cause::Unconfirmed, reason) => {
            let reason = reason.map_or(String::new(), |reason| format!(", {reason}"));
            format!("{failures} in {within}{reason}")
        }
        (Cause::Manual(_), None) => "by hand".to_owned(),
        (Cause::Manual(_), Some(reason)) if reason.starts_with("by hand") => reason.to_owned(),
        (Cause::Manual(_), Some(reason)) => format!("by hand: {reason}"),
        (Cause::Imported(_) | Cause::Adopted, reason) => reason.unwrap_or_default().to_owned(),
    }
}

/// Where a ban is enforced, if not in the firewall.
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

    fn ban(seconds: Option<u64>, mode: Mode, cause: Cause) -> Ban {
        Ban {
            id: BanId::default(),
            jail: "apache-auth".parse().unwrap(),
            net: "203.0.113.70/32".parse().unwrap(),
            ports: Ports::All,
            mode,
            since: Moment::default(),
            since_wall: jiff::Timestamp::UNIX_EPOCH,
            until: seconds.map(|s| Moment::default().plus(Duration::from_secs(s))),
            failures: 5,
            within: Duration::from_secs(41),
            cause,
        }
    }

    #[test]
    fn log_lines_have_the_words_of_fail2ban() {
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
                Action::Ban(ban(hour, Mode::Enforced, Cause::Jail)),
                "[apache-auth] Ban 203.0.113.70 for 1h (5 in 41s)",
            ),
            (
                Action::Ban(ban(None, Mode::Enforced, Cause::Jail)),
                "[apache-auth] Ban 203.0.113.70 for ever (5 in 41s)",
            ),
            (
                Action::Ban(ban(
                    Some(86_400),
                    Mode::Enforced,
                    Cause::Manual(Some("abuse".into())),
                )),
                "[apache-auth] Ban 203.0.113.70 for 1d (by hand: abuse)",
            ),
            (
                Action::Ban(ban(hour, Mode::Observed, Cause::Jail)),
                "[apache-auth] Would Ban 203.0.113.70 for 1h (5 in 41s)",
            ),
            (
                Action::Ban(ban(
                    hour,
                    Mode::Behind("192.0.2.7".parse().unwrap()),
                    Cause::Jail,
                )),
                "[apache-auth] Ban 203.0.113.70 for 1h (5 in 41s) not enforceable (behind 192.0.2.7)",
            ),
            (
                Action::Restore(ban(hour, Mode::Enforced, Cause::Jail)),
                "[apache-auth] Restore Ban 203.0.113.70",
            ),
            (
                Action::Unban {
                    ban: ban(hour, Mode::Enforced, Cause::Jail),
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
