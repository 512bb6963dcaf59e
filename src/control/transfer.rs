//! Bans on their way out of one engine and into another.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::JailName;

/// One ban as `pipeban export --format json` writes it, one object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exported {
    /// Its name here; of no meaning elsewhere.
    pub id: String,
    /// An address, or a network where more than one is banned.
    pub host: String,
    /// Who banned.
    pub jail: JailName,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: for ever.
    pub until: Option<Timestamp>,
    /// Weight that led to it; 0 by hand.
    pub failures: u32,
    /// What the operator said, or the shared-address rule.
    pub reason: Option<String>,
    /// The peer the client stands behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<IpAddr>,
}

/// One ban to be taken in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offered {
    /// Whom.
    pub net: IpNet,
    /// On whose behalf.
    pub jail: JailName,
    /// Since when; `None`: from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Until when.
    pub until: Until,
    /// Weight that led to it; 0 by hand.
    #[serde(default)]
    pub failures: u32,
    /// Shown as the ban's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The peer the client stands behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<IpAddr>,
}

/// When an offered ban is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// After the jail's bantime; a ban that is there already stays as it is.
    Jail,
    /// Then.
    At(Timestamp),
    /// Never.
    ForEver,
}

/// What became of an offered ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is in force.
    New,
    /// The jail had banned it already, and now does for longer.
    Longer,
    /// The jail has banned it already, as long or longer.
    Known,
    /// Its time is over.
    Over,
    /// It would hit somebody who is never banned: why.
    Spared(String),
    /// It cannot be: why.
    Refused(String),
}
