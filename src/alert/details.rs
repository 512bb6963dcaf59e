//! What a log line says about a client, as fields.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::config::JailName;
use crate::jail::{Action, Ban, End, Mode, show_net};

/// The fields of an event's line; those that say nothing are absent. Times in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Details {
    /// `found`, `ban`, `would-ban`, `restore`, `unban`, `would-unban`, `already-banned` or `ignore`.
    event: &'static str,
    jail: JailName,
    /// An address or a network.
    #[serde(serialize_with = "shown")]
    host: IpNet,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Rest {
    Found {
        count: u32,
        maxretry: u32,
        findtime: u64,
    },
    Ban(Box<OfBan>),
    Ignore {
        /// Why the client is not banned.
        by: &'static str,
    },
    Nothing {},
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct OfBan {
    /// Like `b17`.
    id: String,
    /// -1: for ever.
    bantime: i64,
    /// Weight that led to the ban, and the time in which it arrived.
    failures: u32,
    within: u64,
    /// `jail`, `shared`, `manual`, `imported` or `adopted`.
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The proxy that the client is behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<IpAddr>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'static str>,
}

/// The fields of an action's line; `None` where it has no line, or no jail.
pub fn details(action: &Action) -> Option<Details> {
    let (event, jail, host, rest) = match action {
        Action::Found {
            jail,
            client,
            count,
            maxretry,
            findtime,
        } => {
            let rest = Rest::Found {
                count: *count,
                maxretry: *maxretry,
                findtime: findtime.as_secs(),
            };
            ("found", jail, IpNet::from(*client), rest)
        }
        Action::Ban(ban) | Action::Confirmed(ban) => {
            return Some(of_ban(("ban", "would-ban"), ban, None));
        }
        Action::Restore(ban) => return Some(of_ban(("restore", "restore"), ban, None)),
        Action::Unban { ban, end } => {
            let end = match end {
                End::Exempt(reason) => reason.why.word(),
                end => end.word(),
            };
            return Some(of_ban(("unban", "would-unban"), ban, Some(end)));
        }
        Action::AlreadyBanned { jail, net } => ("already-banned", jail, *net, Rest::Nothing {}),
        Action::Ignore {
            jail,
            client,
            reason,
        } => {
            let by = reason.why.word();
            ("ignore", jail, IpNet::from(*client), Rest::Ignore { by })
        }
        Action::Spared { jail, client, .. } => {
            let by = "shared-address";
            ("ignore", jail, IpNet::from(*client), Rest::Ignore { by })
        }
        Action::NoSuchJail => return None,
    };
    Some(Details {
        event,
        jail: jail.clone(),
        host,
        rest,
    })
}

fn of_ban(
    (event, would): (&'static str, &'static str),
    ban: &Ban,
    end: Option<&'static str>,
) -> Details {
    let seconds = |length: std::time::Duration| i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
    Details {
        event: match ban.mode {
            Mode::Observed => would,
            _ => event,
        },
        jail: ban.jail.clone(),
        host: ban.net,
        rest: Rest::Ban(Box::new(OfBan {
            id: ban.id.to_string(),
            bantime: ban.length().map_or(-1, seconds),
            failures: ban.failures,
            within: ban.within.as_secs(),
            cause: ban.cause.word(),
            reason: ban.cause.reason().map(str::to_owned),
            behind: ban.mode.proxy(),
            end,
        })),
    }
}

fn shown<S: Serializer>(net: &IpNet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&show_net(net))
}
