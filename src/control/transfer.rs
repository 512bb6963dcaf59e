//! Exported and imported bans.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::JailName;

/// A ban as `pipeban export` prints it, one object per line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exported {
    /// Its id on this host.
    pub id: String,
    /// An address, or a network where more than one is banned.
    pub host: String,
    /// The jail that banned.
    pub jail: JailName,
    /// When it began.
    pub since: Timestamp,
    /// When it ends; `None`: never.
    pub until: Option<Timestamp>,
    /// Weight that led to it; 0 where a person banned.
    pub failures: u32,
    /// Why it exists: `jail`, `shared`, `unconfirmed`, `manual`, `imported` or `adopted`.
    #[serde(default)]
    pub cause: String,
    /// The same in words, where the jail's rule does not say it all.
    pub reason: Option<String>,
    /// The proxy that the client is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<IpAddr>,
}

/// A ban to import.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offered {
    /// Address or network.
    pub net: IpNet,
    /// The jail that gets it.
    pub jail: JailName,
    /// When it began; `None`: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When it ends.
    pub until: Until,
    /// Weight that led to it; 0 where a person banned.
    #[serde(default)]
    pub failures: u32,
    /// The text that `status` shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The proxy that the client is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<IpAddr>,
}

/// When an imported ban ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// After the jail's bantime; an existing ban keeps its end.
    Jail,
    /// At this time.
    At(Timestamp),
    /// Never.
    ForEver,
}

/// What became of an imported ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is in force.
    New,
    /// It extends the jail's ban.
    Longer,
    /// The jail's ban lasts as long or longer.
    Known,
    /// It ended before the import.
    Over,
    /// It contains an exempt address: why.
    Spared(String),
    /// It cannot be made: why.
    Refused(String),
}
